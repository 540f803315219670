//! The shape that every loop of the leader has: wait for what matters or for a moment, decide
//! on the latest state inside a transaction, commit, look again.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use model::{TaskState, TraceParent};
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    decision::Decision,
    dispatcher::Sessions,
    store::{Store, StoreChange, Tables, Watch, Watched},
};

/// How long a loop that was woken waits for what comes with it.
pub(crate) const COALESCE: Duration = Duration::from_millis(2);
/// How long a loop waits after a transaction that was not committed.
const AFTER_ERROR: Duration = Duration::from_millis(200);

/// What one concern of the leader remembers between looks, and how it decides.
///
/// What is remembered is a saving, never a truth: [`Loop::start_over`] may come at any moment.
pub(crate) trait Loop: Send + 'static {
    /// For the log.
    fn name(&self) -> &'static str;

    /// Everything may have changed.
    fn start_over(&mut self, tables: &Tables);

    /// Notes a committed change; answers whether it is worth a look. A removed object is still
    /// in `before`.
    fn note(&mut self, before: &Tables, change: &StoreChange) -> bool;

    /// What to do now; at most [`crate::decision::BATCH`] changes, and `again` at `now` if more
    /// are to come. Must decide nothing when asked again on the state it has led to.
    fn decide(&mut self, tables: &Tables, sessions: &Sessions, now: i64) -> Decision;

    /// Whether an acknowledgement or the end of a session is worth a look now.
    fn awaits_hosts(&self) -> bool {
        false
    }
}

/// Runs until `ending`; never in the middle of a transaction.
pub(super) async fn run<L: Loop>(
    mut looped: L,
    store: Store,
    sessions: Arc<Sessions>,
    ending: CancellationToken,
) {
    let (tables, watch) = store.view_and_watch();
    let mut moved = sessions.moved();
    looped.start_over(&tables);
    let mut ear = Ear {
        before: tables,
        watch,
        looped: Arc::new(Mutex::new(looped)),
    };
    let mut again = Some(i64::MIN);
    loop {
        let woken = tokio::select! {
            biased;
            () = ending.cancelled() => return,
            () = until(again) => false,
            () = ear.relevant() => true,
            Ok(()) = moved.changed(), if ear.lock().awaits_hosts() => true,
        };
        if woken {
            tokio::time::sleep(COALESCE).await;
        }
        ear.catch_up();
        moved.mark_unchanged();
        let (looped, seen) = (Arc::clone(&ear.looped), Arc::clone(&sessions));
        let decided = store.update(move |tx| {
            let decision = looped
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .decide(tx.tables(), &seen, tx.now());
            let placed = traced(&decision.changes);
            for change in decision.changes {
                tx.push(change);
            }
            Ok((decision.again, placed))
        });
        match decided.await {
            Ok(((next, placed), _)) => {
                again = next;
                for (above, task, state) in placed {
                    let name = ear.lock().name();
                    let part = trace::request!("decision", otel.name = name, task, state);
                    trace::below(&part, Some(above));
                }
            }
            Err(refusal) => {
                let mut looped = ear.lock();
                tracing::warn!(name = looped.name(), error = %refusal, "a decision was not committed");
                looped.start_over(&store.view());
                again = Some(after(AFTER_ERROR));
            }
        }
    }
}

/// Where tasks go on their way to run that are being traced: the request, the task, its new state.
fn traced(changes: &[StoreChange]) -> Vec<(TraceParent, String, &'static str)> {
    let changed = changes.iter().filter_map(|change| match change {
        StoreChange::SetTask(task) if task.status.state < TaskState::Running => Some(task),
        _ => None,
    });
    changed
        .filter_map(|task| Some((task.meta.trace?, task.name(), task.status.state.as_str())))
        .collect()
}

fn after(time: Duration) -> i64 {
    clock::now().saturating_add(i64::try_from(time.as_nanos()).unwrap_or(i64::MAX))
}

async fn until(moment: Option<i64>) {
    let Some(moment) = moment else {
        return std::future::pending().await;
    };
    let left = moment.saturating_sub(clock::now());
    if let Ok(left @ 1..) = u64::try_from(left) {
        tokio::time::sleep(Duration::from_nanos(left)).await;
    }
}

/// Hears commits on behalf of a loop.
struct Ear<L> {
    before: Arc<Tables>,
    watch: Watch,
    looped: Arc<Mutex<L>>,
}

impl<L: Loop> Ear<L> {
    fn lock(&self) -> std::sync::MutexGuard<'_, L> {
        // What is remembered is a saving only, so a panic cannot leave it wrong.
        self.looped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a commit that is worth a look.
    async fn relevant(&mut self) {
        loop {
            let watched = self.watch.next().await;
            if self.hear(watched) {
                return;
            }
        }
    }

    /// Hears what has been committed by now.
    fn catch_up(&mut self) {
        while let Some(watched) = self.watch.next().now_or_never() {
            self.hear(watched);
        }
    }

    fn hear(&mut self, watched: Watched) -> bool {
        let mut looped = self.looped.lock().unwrap_or_else(PoisonError::into_inner);
        match watched {
            Watched::StartOver(tables) => {
                looped.start_over(&tables);
                self.before = tables;
                true
            }
            Watched::Commit(commit) => {
                let mut relevant = false;
                for change in &commit.changes {
                    relevant |= looped.note(&self.before, change);
                }
                self.before = Arc::clone(&commit.tables);
                relevant
            }
        }
    }
}
