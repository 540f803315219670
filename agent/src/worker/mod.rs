//! This host's tasks: what the manager assigns becomes containers, and what becomes of them is
//! reported.
//!
//! ```text
//! Leader::updates ─▶ Worker ─▶ one loop a task: machine ─▶ one action ─▶ Engine
//!                                     └─ statuses ─▶ Reports ─▶ Leader::report
//! ```
//!
//! A restart of the daemon finds the containers by their names and goes on; without a manager
//! the last word from the ledger holds.

mod container;
mod logs;
mod machine;
mod payload;
mod pulls;
mod report;
mod task;
mod template;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, future::BoxFuture, stream::BoxStream};
use model::{
    Assignments, Change, ContainerId, Refusal, Task, TaskId, node::NodeDescription,
    task::TaskStatus,
};
use runtime::{
    engine::{Engine, ListOptions},
    images::ImageStore,
};
use tokio::sync::{Notify, Semaphore, broadcast, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{container::LABEL_TASK, payload::Payloads, pulls::Pulls, report::Reports};
use crate::{
    api_socket::ApiSocket,
    clock::now_nanos,
    cluster::{LocalState, Standing, Update},
};

/// Containers that are made or started at the same time.
const TURNS: usize = 8;
/// How long after a manager's word containers of tasks that it does not name are removed.
const STRAYS_AFTER: Duration = Duration::from_secs(2);

/// What the worker asks of the cluster's side.
pub trait Leader: Send + Sync + 'static {
    /// A full set now, then every change.
    fn updates(&self) -> BoxStream<'static, Update>;

    fn standing(&self) -> watch::Receiver<LocalState>;

    /// Says what has become of tasks.
    fn report(&self, statuses: Vec<(TaskId, TaskStatus)>) -> BoxFuture<'_, Result<(), Refusal>>;
}

/// What the worker asks of the networks.
pub trait Flows: Send + Sync + 'static {
    /// Established connections into a container's sandbox.
    fn established<'a>(&'a self, container: &'a ContainerId) -> BoxFuture<'a, u64>;
}

/// What the daemon says once.
pub struct Config {
    pub root: PathBuf,
    pub run_dir: PathBuf,
    pub socket: ApiSocket,
    /// What the host is now, for templates: its name may change while the daemon runs.
    pub describe: Arc<dyn Fn() -> NodeDescription + Send + Sync>,
}

/// The handle; dropping it stops nothing, [`Worker::shutdown`] ends the loops.
pub struct Worker {
    shared: Arc<Shared>,
    handles: Mutex<BTreeMap<TaskId, Handle>>,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

struct Handle {
    assigned: watch::Sender<Option<Arc<Task>>>,
    wake: Arc<Notify>,
}

struct Shared {
    engine: Arc<Engine>,
    pulls: Pulls,
    payloads: Payloads,
    flows: Arc<dyn Flows>,
    reports: Arc<Reports>,
    turns: Semaphore,
    /// Since when no manager is in sight.
    sight: watch::Sender<Option<i64>>,
    describe: Arc<dyn Fn() -> NodeDescription + Send + Sync>,
    socket: ApiSocket,
    /// This is the first start since the host was booted.
    rebooted: bool,
    assignments: Mutex<Assignments>,
}

impl Shared {
    fn assignments(&self) -> MutexGuard<'_, Assignments> {
        // Every change is whole before the guard is given back.
        self.assignments
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn assigned(&self, task: &TaskId) -> Option<Task> {
        self.assignments().tasks.get(task).cloned()
    }
}

impl Worker {
    /// Adopts what runs and follows the manager's word from now on.
    pub fn start(
        config: Config,
        engine: Arc<Engine>,
        images: ImageStore,
        leader: Arc<dyn Leader>,
        flows: Arc<dyn Flows>,
    ) -> Result<Arc<Self>, Refusal> {
        let failed = |what: &Path, error: &std::io::Error| {
            Refusal::internal(format!("{}: {error}", what.display()))
        };
        let payloads =
            Payloads::open(&config.run_dir).map_err(|error| failed(&config.run_dir, &error))?;
        let rebooted = rebooted(&config.root).map_err(|error| failed(&config.root, &error))?;
        let updates = leader.updates();
        let worker = Arc::new(Self {
            shared: Arc::new(Shared {
                pulls: Pulls::new(images),
                payloads,
                flows,
                reports: Arc::default(),
                turns: Semaphore::new(TURNS),
                sight: watch::channel(Some(now_nanos())).0,
                describe: config.describe,
                socket: config.socket,
                rebooted,
                assignments: Mutex::default(),
                engine,
            }),
            handles: Mutex::default(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let events = worker.shared.engine.events();
        let reports = Arc::clone(&worker.shared.reports);
        worker.spawn(reports.run(Arc::clone(&leader)));
        worker.spawn(Arc::clone(&worker).watch_standing(leader.standing()));
        worker.spawn(Arc::clone(&worker).hear(events));
        worker.spawn(Arc::clone(&worker).follow(updates));
        Ok(worker)
    }

    /// Ends the loops; containers go on.
    pub async fn shutdown(&self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping.clone();
        self.tasks.spawn(async move {
            stopping.run_until_cancelled(work).await;
        });
    }

    fn handles(&self) -> MutexGuard<'_, BTreeMap<TaskId, Handle>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn follow(self: Arc<Self>, mut updates: BoxStream<'static, Update>) {
        while let Some(update) = updates.next().await {
            match update {
                Update::Full(full) => {
                    *self.shared.assignments() = (*full).clone();
                    let gone: Vec<TaskId> = self
                        .handles()
                        .keys()
                        .filter(|id| !full.tasks.contains_key(*id))
                        .cloned()
                        .collect();
                    for task in gone {
                        self.take(&task);
                    }
                    for task in full.tasks.values() {
                        self.give(task.clone());
                    }
                    self.shared.reports.compare(&full.tasks);
                    self.wake_all();
                }
                Update::Increment(increment) => {
                    self.shared.assignments().apply(&increment);
                    for change in &increment.changes {
                        match change {
                            Change::SetTask(task) => self.give((**task).clone()),
                            Change::RemoveTask(id) => self.take(id),
                            // Somebody may wait for it.
                            Change::SetPayload(_) => self.wake_all(),
                            Change::SetEndpoint(endpoint) => self.wake(endpoint.owner.id()),
                            _ => {}
                        }
                    }
                }
            }
        }
    }

    fn give(&self, task: Task) {
        let mut handles = self.handles();
        if let Some(handle) = handles.get(&task.id) {
            handle.assigned.send_replace(Some(Arc::new(task)));
            return;
        }
        let id = task.id.clone();
        let (assigned, receiver) = watch::channel(Some(Arc::new(task)));
        let wake = Arc::new(Notify::new());
        let work = task::run(Arc::clone(&self.shared), receiver, Arc::clone(&wake));
        handles.insert(id, Handle { assigned, wake });
        drop(handles);
        self.spawn(work);
    }

    fn take(&self, task: &TaskId) {
        if let Some(handle) = self.handles().remove(task) {
            handle.assigned.send_replace(None);
        }
    }

    fn wake(&self, task: &str) {
        if let Some(handle) = self.handles().get(&TaskId::new(task)) {
            handle.wake.notify_one();
        }
    }

    fn wake_all(&self) {
        for handle in self.handles().values() {
            handle.wake.notify_one();
        }
    }

    /// Wakes the task whose container something happened to.
    async fn hear(self: Arc<Self>, mut events: broadcast::Receiver<runtime::engine::Event>) {
        loop {
            match events.recv().await {
                Ok(event) if event.action.starts_with("exec_") => {}
                Ok(event) => {
                    if let Some(task) = event.attributes.get(LABEL_TASK) {
                        self.wake(task);
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => self.wake_all(),
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    /// Knows whether a manager is in sight, and tidies up once one has spoken.
    async fn watch_standing(self: Arc<Self>, mut standing: watch::Receiver<LocalState>) {
        loop {
            let (in_sight, certain) = {
                let state = standing.borrow_and_update();
                let in_sight = state.state == Standing::Active && state.error.is_empty();
                (in_sight, in_sight || state.state == Standing::Inactive)
            };
            self.shared.sight.send_if_modified(|since| {
                let changed = in_sight == since.is_some();
                if changed {
                    *since = (!in_sight).then(now_nanos);
                }
                changed
            });
            let settled = async {
                if !certain {
                    return std::future::pending().await;
                }
                tokio::time::sleep(STRAYS_AFTER).await;
            };
            tokio::select! {
                changed = standing.changed() => {
                    if changed.is_err() { return }
                    continue;
                }
                () = settled => self.remove_strays().await,
            }
            if standing.changed().await.is_err() {
                return;
            }
        }
    }

    /// Containers and files of tasks that are not this host's any more.
    async fn remove_strays(&self) {
        let known = |id: &str| self.handles().contains_key(&TaskId::new(id));
        let options = ListOptions {
            all: true,
            filters: BTreeMap::from([("is-task".to_owned(), vec!["true".to_owned()])]),
            ..ListOptions::default()
        };
        let Ok(views) = self.shared.engine.list(&options) else {
            return;
        };
        for view in views {
            let labels = &view.effective.labels;
            let Some(task) = labels.get(LABEL_TASK).filter(|task| !known(task)) else {
                continue;
            };
            // Somebody who copied our labels has another name for it.
            if labels.get("com.docker.swarm.task.name") != Some(&view.name) {
                continue;
            }
            tracing::info!(container = view.name, "a container of no task is removed");
            let id = TaskId::new(task.as_str());
            if let Err(refusal) = self.shared.remove_container(view.id.as_str(), &id).await {
                tracing::warn!(container = view.name, %refusal, "it cannot be removed");
            }
        }
        self.shared.payloads.keep_only(known);
    }
}

/// Whether the host was booted since the worker's last start.
fn rebooted(root: &Path) -> std::io::Result<bool> {
    let now = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let path = root.join("boot");
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    if before == now {
        return Ok(false);
    }
    crate::network::write_atomically(&path, now.as_bytes(), crate::network::Survives::DaemonDeath)?;
    Ok(!before.is_empty())
}
