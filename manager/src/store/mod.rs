//! The cluster's state: typed tables in memory, changed only through [`Store::update`], read
//! through snapshots, watched without a gap.
//!
//! Invariant: what a reader sees has been committed; transactions run one after the other, so
//! a closure's checks still hold when its changes are applied.

mod tables;
mod watch;
mod work;
mod writer;

pub use tables::{AddressUse, ClusterRecord, Rest, StoreChange, Tables, TablesImage};
pub use watch::{Commit, Watch, Watched};
pub use work::{Stage, Work};
pub use writer::{ProposeError, Proposer, Transaction};

use std::sync::{Arc, Mutex, MutexGuard};

use model::Refusal;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc};
use trace::Instrument as _;

/// Commits that a watcher may be behind before it is told to start over.
const WATCH_DEPTH: usize = 1024;

/// One Raft entry: the changes of one or more transactions, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// The leader's clock, nanoseconds since the Unix epoch.
    pub time: i64,
    pub changes: Vec<StoreChange>,
    /// The state that the changes were decided on: a leader that has lost its place, and got it
    /// back, must not write over what another has written between.
    #[serde(default)]
    pub base: Option<u64>,
}

/// Handle to the tables; clones share them.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    current: Mutex<Arc<Tables>>,
    commits: broadcast::Sender<Arc<Commit>>,
    jobs: mpsc::UnboundedSender<writer::Job>,
}

impl Store {
    /// An empty store and the part that [`Writer::run`](StoreWriter::run) turns transactions
    /// into entries with.
    pub fn new() -> (Self, StoreWriter) {
        let (commits, _) = broadcast::channel(WATCH_DEPTH);
        let (jobs, queue) = mpsc::unbounded_channel();
        let inner = Inner {
            current: Mutex::new(Arc::new(Tables::default())),
            commits,
            jobs,
        };
        let store = Self {
            inner: Arc::new(inner),
        };
        (store, StoreWriter { queue })
    }

    /// The latest committed state.
    pub fn view(&self) -> Arc<Tables> {
        Arc::clone(&self.lock())
    }

    /// The latest committed state and every commit after it.
    pub fn view_and_watch(&self) -> (Arc<Tables>, Watch) {
        let current = self.lock();
        let receiver = self.inner.commits.subscribe();
        (Arc::clone(&current), Watch::new(self.clone(), receiver))
    }

    /// Runs `decide` on the latest state and commits what it changed as one transaction; its
    /// value comes back with the state in which the changes are visible. An error rolls back.
    pub async fn update<T, F>(&self, decide: F) -> Result<(T, Arc<Tables>), Refusal>
    where
        T: Send + 'static,
        F: FnOnce(&mut Transaction) -> Result<T, Refusal> + Send + 'static,
    {
        let part = trace::part!("commit");
        writer::submit(&self.inner.jobs, decide)
            .instrument(part)
            .await
    }

    /// Applies a committed entry; called by Raft's state machine alone, in log order. Answers
    /// whether it counted: all managers leave out the same entries, those decided on a state
    /// that was no longer the last one.
    pub fn apply(&self, index: u64, proposal: Proposal) -> bool {
        let mut current = self.lock();
        if proposal.base.is_some_and(|base| base != current.index()) {
            return false;
        }
        let mut next = Tables::clone(&current);
        next.apply(index, &proposal);
        let next = Arc::new(next);
        *current = Arc::clone(&next);
        let commit = Commit::new(index, proposal.changes, next);
        // No watcher is no error.
        let _ = self.inner.commits.send(Arc::new(commit));
        true
    }

    /// Replaces everything by a snapshot; watchers are told to start over.
    pub fn restore(&self, tables: Tables) {
        let mut current = self.lock();
        let next = Arc::new(tables);
        *current = Arc::clone(&next);
        let _ = self.inner.commits.send(Arc::new(Commit::restored(next)));
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Tables>> {
        // The guarded value is replaced whole, so a panic elsewhere cannot leave it half made.
        self.inner
            .current
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The writing end of a store; see [`writer`].
pub struct StoreWriter {
    queue: mpsc::UnboundedReceiver<writer::Job>,
}

impl StoreWriter {
    /// Turns waiting transactions into Raft entries; ends only by being dropped.
    pub async fn run(self, store: Store, proposer: Arc<dyn Proposer>) {
        writer::run(self.queue, store, proposer).await;
    }
}
