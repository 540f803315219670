//! Docker's container semantics on one host.
//!
//! The engine owns containers, their execs, logs and volumes. Networks come from whoever
//! implements [`Network`], images from whoever implements [`Images`]. Containers are children
//! of their monitors (conmon), not of this process: the engine may be killed at any moment and
//! the next one adopts what runs.

// The interface is async throughout, so that a body may begin to wait without its callers
// being changed.
#![allow(clippy::unused_async)]

mod adopt;
mod attach;
mod cgroup;
mod container;
mod create;
pub mod events;
mod exec;
mod files;
mod health;
mod launch;
mod listing;
mod logs;
mod machine;
mod mount_points;
mod networks;
mod pack;
mod record;
mod run;
mod sources;
pub mod spec;
mod stop;
pub mod streams;
mod update;
pub mod view;
mod volumes;

use std::{
    any::Any,
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, RwLock, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use model::{ContainerId, Refusal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{container::Table, events::EventLog, exec::Exec};
pub use self::{
    create::random_name,
    events::{EVENTS_WAITING, Event, EventKind},
    logs::lines_of,
    spec::*,
    streams::*,
    view::*,
};
use crate::{
    images::ImageStore,
    network::Network,
    oci::{Executor, OciError},
};

/// What the engine asks of the image store.
pub trait Images: Send + Sync + 'static {
    /// Finds an image on this host by name, digest, id or unique id prefix; never pulls.
    /// Not there: `No such image: x` (404).
    fn resolve<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<ResolvedImage, Refusal>>;

    /// Keeps the layers on this host until the answer is dropped.
    fn pin(&self, layers: &[PathBuf]) -> Result<Box<dyn Any + Send + Sync>, Refusal>;
}

impl Images for ImageStore {
    fn resolve<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<ResolvedImage, Refusal>> {
        Box::pin(async move { Ok(create::resolved(&ImageStore::resolve(self, reference)?)) })
    }

    fn pin(&self, layers: &[PathBuf]) -> Result<Box<dyn Any + Send + Sync>, Refusal> {
        Ok(Box::new(ImageStore::pin(self, layers)?))
    }
}

/// An unpacked image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ResolvedImage {
    /// `sha256:…` of the configuration.
    pub id: String,
    /// Unpacked layers for overlayfs, the bottom one first.
    pub layers: Vec<PathBuf>,
    pub defaults: ImageDefaults,
}

/// The image configuration's part that concerns running.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageDefaults {
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
    pub env: Vec<String>,
    pub user: String,
    pub working_dir: String,
    pub labels: BTreeMap<String, String>,
    pub exposed_ports: Vec<String>,
    pub volumes: Vec<String>,
    pub stop_signal: Option<String>,
    pub health: Option<Healthcheck>,
}

/// Where things are and who else takes part.
#[derive(Clone)]
pub struct EngineConfig {
    /// Survives a reboot: `containers/`, `volumes/` below it are the engine's.
    pub root: PathBuf,
    /// Gone after a reboot: bundles, sockets, the OCI runtime's state.
    pub run_dir: PathBuf,
    /// The OCI runtime; absent: crun, else runc, from PATH.
    pub runtime: Option<PathBuf>,
    /// The monitor; absent: conmon from PATH.
    pub monitor: Option<PathBuf>,
    /// The cgroup below which each container gets its own: `overnet`.
    pub cgroup_parent: String,
    /// A program that is pid 1 under `--init`: a static tini or catatonit; absent: searched for
    /// in Debian's places, and `--init` is refused where there is none.
    pub init: Option<PathBuf>,
    pub images: Arc<dyn Images>,
    pub network: Arc<dyn Network>,
}

/// The answer to [`Engine::create`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    pub id: ContainerId,
    pub warnings: Vec<String>,
}

/// When [`Engine::wait`] ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// At once when it does not run.
    #[default]
    NotRunning,
    /// At the next exit, also when it does not run yet.
    NextExit,
    Removed,
}

/// How a container ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exit {
    pub code: i64,
    /// Set when the wait itself failed, or the container never started.
    pub error: Option<String>,
}

/// `docker stop`'s options.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopOptions {
    /// Name or number; absent: the container's own.
    pub signal: Option<String>,
    /// Seconds until SIGKILL, negative: never; absent: the container's own.
    pub timeout: Option<i64>,
}

/// `docker rm`'s options.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    pub force: bool,
    /// Anonymous volumes too.
    pub volumes: bool,
}

/// What [`Engine::list`] shows. Docker's filters by name; an unknown one is refused.
///
/// Known: `id`, `name`, `label`, `status`, `exited`, `ancestor`, `network`, `volume`,
/// `health`, `before`, `since`, `is-task`, `expose`, `publish`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// Also those that do not run. A `status` filter implies it, as in Docker.
    pub all: bool,
    /// The newest n, running or not.
    pub limit: Option<usize>,
    pub filters: BTreeMap<String, Vec<String>>,
}

/// What a prune did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Ids or volume names.
    pub deleted: Vec<String>,
    /// Bytes.
    pub reclaimed: u64,
}

/// What was found of a path in a container (`X-Docker-Container-Path-Stat`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStat {
    pub name: String,
    pub size: u64,
    /// `st_mode` as Linux has it; the HTTP edge makes Go's file mode of it.
    pub mode: u32,
    /// Nanoseconds since the Unix epoch.
    pub modified: i64,
    pub link_target: String,
}

/// The handle; share it. Every `reference` its methods take is a full id, a name (with or
/// without the slash) or a unique id prefix.
pub struct Engine {
    config: EngineConfig,
    executor: Executor,
    /// The kernel's boot: processes noted in another one are gone.
    boot: String,
    table: RwLock<Table>,
    execs: Mutex<HashMap<String, Arc<Exec>>>,
    volumes: volumes::Turns,
    events: EventLog,
    stopping: CancellationToken,
    tasks: TaskTracker,
    this: Weak<Engine>,
}

impl Engine {
    /// Seconds until SIGKILL where nobody says otherwise.
    pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);

    /// Ends all tasks of the engine and leaves the containers running.
    pub async fn shutdown(&self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Runs until it ends or the engine does.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = work => {}
            }
        });
    }

    fn arc(&self) -> Arc<Self> {
        self.this.upgrade().expect("a method runs on a live engine")
    }

    /// Runs blocking work beside the runtime programs, in a private mount namespace without the
    /// file systems of volumes.
    async fn private<T: Send + 'static>(
        &self,
        work: impl FnOnce(Executor) -> Result<T, OciError> + Send + 'static,
    ) -> Result<T, OciError> {
        let volumes = self.volumes_place();
        self.private_with_volumes(move |executor| {
            // What the work starts may live long, and must not keep them busy.
            crate::oci::mountinfo::hide_below(&volumes, &|_| false)?;
            work(executor)
        })
        .await
    }

    async fn private_with_volumes<T: Send + 'static>(
        &self,
        work: impl FnOnce(Executor) -> Result<T, OciError> + Send + 'static,
    ) -> Result<T, OciError> {
        let executor = self.executor.clone();
        crate::oci::private::in_private_mounts(executor.hide_unified, move || work(executor)).await
    }
}

/// Nanoseconds since the Unix epoch.
fn now() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |passed| passed.as_nanos() as i64)
}

fn random_id() -> ContainerId {
    ContainerId::from_random(rand::random())
}
