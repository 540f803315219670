//! What this host says of its tasks: in batches, again until it is accepted.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use model::{Task, TaskId, task::TaskStatus};
use tokio::sync::Notify;

use super::Leader;

/// Statuses that come within this time travel together.
const TOGETHER: Duration = Duration::from_millis(5);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct Reports {
    inner: Mutex<Inner>,
    wake: Notify,
}

#[derive(Default)]
struct Inner {
    own: BTreeMap<TaskId, TaskStatus>,
    pending: BTreeMap<TaskId, TaskStatus>,
}

impl Reports {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Maps are changed one entry at a time; none is left half made by a panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A task's status from now on.
    pub(super) fn set(&self, task: &TaskId, status: TaskStatus) {
        let mut inner = self.lock();
        inner.own.insert(task.clone(), status.clone());
        inner.pending.insert(task.clone(), status);
        drop(inner);
        self.wake.notify_one();
    }

    pub(super) fn forget(&self, task: &TaskId) {
        let mut inner = self.lock();
        inner.own.remove(task);
        inner.pending.remove(task);
    }

    /// A manager's full set: what it has not heard, or has forgotten, is said again.
    pub(super) fn compare(&self, assigned: &BTreeMap<TaskId, Task>) {
        let mut inner = self.lock();
        let differing: Vec<_> = inner
            .own
            .iter()
            .filter(|(id, own)| assigned.get(*id).is_some_and(|task| task.status != **own))
            .map(|(id, own)| (id.clone(), own.clone()))
            .collect();
        inner.pending.extend(differing);
        drop(inner);
        self.wake.notify_one();
    }

    fn take(&self) -> BTreeMap<TaskId, TaskStatus> {
        std::mem::take(&mut self.lock().pending)
    }

    /// What was not accepted, unless there is something newer.
    fn put_back(&self, batch: BTreeMap<TaskId, TaskStatus>) {
        let mut inner = self.lock();
        for (id, status) in batch {
            if inner.own.contains_key(&id) {
                inner.pending.entry(id).or_insert(status);
            }
        }
    }

    /// Sends until the daemon ends.
    pub(super) async fn run(self: Arc<Self>, leader: Arc<dyn Leader>) {
        let mut standing = leader.standing();
        loop {
            self.wake.notified().await;
            tokio::time::sleep(TOGETHER).await;
            let mut pause = FIRST_PAUSE;
            loop {
                let batch = self.take();
                if batch.is_empty() {
                    break;
                }
                let said = batch.clone().into_iter().collect();
                let Err(refusal) = leader.report(said).await else {
                    pause = FIRST_PAUSE;
                    continue;
                };
                tracing::debug!(%refusal, "the tasks' statuses are said again");
                self.put_back(batch);
                standing.mark_unchanged();
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = standing.changed() => {}
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}
