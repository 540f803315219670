//! Docker's container semantics on one host.
//!
//! The engine owns containers, their execs, logs and volumes. Networks come from whoever
//! implements [`Network`], images from whoever implements [`Images`]. Containers are children
//! of their monitors (conmon), not of this process: the engine may be killed at any moment and
//! the next one adopts what runs.

pub mod events;
pub mod spec;
pub mod streams;
pub mod view;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream::BoxStream};
use model::{ContainerId, Refusal};
use tokio::sync::broadcast;

pub use self::{
    events::{Event, EventKind},
    spec::*,
    streams::*,
    view::*,
};
use crate::network::Network;

/// What the engine asks of the image store.
pub trait Images: Send + Sync + 'static {
    /// Finds an image on this host by name, digest, id or unique id prefix; never pulls.
    /// Not there: `No such image: x` (404).
    fn resolve<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<ResolvedImage, Refusal>>;
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

/// The handle; share it.
pub struct Engine;

/// Every `reference` is a full id, a name (with or without the slash) or a unique id prefix.
impl Engine {
    /// Opens the state, adopts what still runs, notices what ended meanwhile, takes back what
    /// is left over, starts what the restart policies ask for.
    pub async fn start(config: EngineConfig) -> Result<Arc<Self>, Refusal> {
        let _ = config;
        todo!()
    }

    /// Ends all tasks of the engine and leaves the containers running.
    pub async fn shutdown(&self) {
        todo!()
    }

    /// From now on; a receiver that lags loses the oldest.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        todo!()
    }

    /// The last 256 events with `since <= time`, oldest first, for `since=` in the past.
    pub fn past_events(&self, since: i64) -> Vec<Event> {
        let _ = since;
        todo!()
    }

    pub async fn create(&self, spec: ContainerSpec) -> Result<Created, Refusal> {
        let _ = spec;
        todo!()
    }

    /// `Ok(false)`: it ran already (Docker's 304).
    pub async fn start_container(&self, reference: &str) -> Result<bool, Refusal> {
        let _ = reference;
        todo!()
    }

    /// `Ok(false)`: it did not run (Docker's 304).
    pub async fn stop(&self, reference: &str, options: StopOptions) -> Result<bool, Refusal> {
        let _ = (reference, options);
        todo!()
    }

    pub async fn restart(&self, reference: &str, options: StopOptions) -> Result<(), Refusal> {
        let _ = (reference, options);
        todo!()
    }

    /// Absent signal: SIGKILL. Not running: 409.
    pub async fn kill(&self, reference: &str, signal: Option<&str>) -> Result<(), Refusal> {
        let _ = (reference, signal);
        todo!()
    }

    pub async fn pause(&self, reference: &str) -> Result<(), Refusal> {
        let _ = reference;
        todo!()
    }

    pub async fn unpause(&self, reference: &str) -> Result<(), Refusal> {
        let _ = reference;
        todo!()
    }

    pub async fn rename(&self, reference: &str, name: &str) -> Result<(), Refusal> {
        let _ = (reference, name);
        todo!()
    }

    pub async fn remove(&self, reference: &str, options: RemoveOptions) -> Result<(), Refusal> {
        let _ = (reference, options);
        todo!()
    }

    /// Registers at once (so it may be called before the start); the inner future ends with
    /// the condition and may be dropped.
    pub fn wait(
        &self,
        reference: &str,
        condition: WaitCondition,
    ) -> Result<BoxFuture<'static, Exit>, Refusal> {
        let _ = (reference, condition);
        todo!()
    }

    /// Newest first.
    pub fn list(&self, options: &ListOptions) -> Result<Vec<ContainerView>, Refusal> {
        let _ = options;
        todo!()
    }

    pub fn inspect(&self, reference: &str) -> Result<ContainerView, Refusal> {
        let _ = reference;
        todo!()
    }

    /// Bytes of the writable layer (`SizeRw`) and of everything (`SizeRootFs`). Walks the disk.
    pub async fn size(&self, reference: &str) -> Result<(u64, u64), Refusal> {
        let _ = reference;
        todo!()
    }

    pub fn logs(&self, reference: &str, options: LogOptions) -> Result<LogStream, Refusal> {
        let _ = (reference, options);
        todo!()
    }

    /// May be called before the start: nothing of the output is missed.
    pub async fn attach(
        &self,
        reference: &str,
        options: AttachOptions,
    ) -> Result<Attached, Refusal> {
        let _ = (reference, options);
        todo!()
    }

    /// Sets the terminal's size; before the start it is kept for it.
    pub async fn resize(&self, reference: &str, rows: u16, columns: u16) -> Result<(), Refusal> {
        let _ = (reference, rows, columns);
        todo!()
    }

    /// Returns the exec's id.
    pub async fn exec_create(&self, reference: &str, spec: ExecSpec) -> Result<String, Refusal> {
        let _ = (reference, spec);
        todo!()
    }

    /// Runs it and hands over its streams; `console_size` as in `ExecStart`.
    pub async fn exec_start(
        &self,
        exec: &str,
        console_size: Option<(u16, u16)>,
    ) -> Result<Attached, Refusal> {
        let _ = (exec, console_size);
        todo!()
    }

    /// Runs it without streams (`Detach: true`).
    pub async fn exec_start_detached(&self, exec: &str) -> Result<(), Refusal> {
        let _ = exec;
        todo!()
    }

    pub fn exec_inspect(&self, exec: &str) -> Result<ExecView, Refusal> {
        let _ = exec;
        todo!()
    }

    pub async fn exec_resize(&self, exec: &str, rows: u16, columns: u16) -> Result<(), Refusal> {
        let _ = (exec, rows, columns);
        todo!()
    }

    /// `ps_args` empty: `-ef`.
    pub async fn top(&self, reference: &str, ps_args: &str) -> Result<Processes, Refusal> {
        let _ = (reference, ps_args);
        todo!()
    }

    /// One reading; all zero when it does not run.
    pub async fn stats(&self, reference: &str) -> Result<Stats, Refusal> {
        let _ = reference;
        todo!()
    }

    pub async fn changes(&self, reference: &str) -> Result<Vec<Change>, Refusal> {
        let _ = reference;
        todo!()
    }

    pub async fn path_stat(&self, reference: &str, path: &str) -> Result<PathStat, Refusal> {
        let _ = (reference, path);
        todo!()
    }

    /// A tar of the path, its last component as the first entry (`docker cp` out of it).
    pub async fn archive_get(
        &self,
        reference: &str,
        path: &str,
    ) -> Result<(PathStat, BoxStream<'static, std::io::Result<Bytes>>), Refusal> {
        let _ = (reference, path);
        todo!()
    }

    /// Unpacks a plain tar into a directory of the container.
    pub async fn archive_put(
        &self,
        reference: &str,
        path: &str,
        tar: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<(), Refusal> {
        let _ = (reference, path, tar);
        todo!()
    }

    /// Removes all that do not run; filters `label`, `until`.
    pub async fn prune(&self, filters: &BTreeMap<String, Vec<String>>) -> Result<Pruned, Refusal> {
        let _ = filters;
        todo!()
    }

    /// Absent name: an anonymous one. An existing one of that name is given back.
    pub async fn volume_create(
        &self,
        name: Option<&str>,
        labels: BTreeMap<String, String>,
        options: BTreeMap<String, String>,
    ) -> Result<VolumeView, Refusal> {
        let _ = (name, labels, options);
        todo!()
    }

    /// Filters `name`, `label`, `dangling`, `driver`.
    pub fn volume_list(
        &self,
        filters: &BTreeMap<String, Vec<String>>,
    ) -> Result<Vec<VolumeView>, Refusal> {
        let _ = filters;
        todo!()
    }

    pub fn volume_inspect(&self, name: &str) -> Result<VolumeView, Refusal> {
        let _ = name;
        todo!()
    }

    /// In use: 409, with the users named.
    pub async fn volume_remove(&self, name: &str, force: bool) -> Result<(), Refusal> {
        let _ = (name, force);
        todo!()
    }

    /// Unused anonymous volumes; with filter `all=true` named ones too.
    pub async fn volume_prune(
        &self,
        filters: &BTreeMap<String, Vec<String>>,
    ) -> Result<Pruned, Refusal> {
        let _ = filters;
        todo!()
    }

    /// Image ids with the containers that use them, for `rmi` and prune.
    pub fn images_in_use(&self) -> BTreeMap<String, Vec<ContainerId>> {
        todo!()
    }

    /// Name, version and path of the OCI runtime, for `docker info` and `version`.
    pub fn runtime_version(&self) -> (String, String, PathBuf) {
        todo!()
    }

    /// Default seconds until SIGKILL where nobody says otherwise.
    pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);
}
