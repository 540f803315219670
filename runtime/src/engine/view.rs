//! What can be seen of containers, volumes and execs. Times are nanoseconds since the Unix
//! epoch, 0 for never.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use model::ContainerId;
use serde::{Deserialize, Serialize};

use super::spec::{ContainerSpec, ExecSpec, Healthcheck};
use crate::network::Connected;

/// Everything `/containers/json` and `/containers/{id}/json` show.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ContainerView {
    pub id: ContainerId,
    /// Without the leading slash.
    pub name: String,
    pub created_at: i64,
    /// As given at creation; `spec.name` may be older than `name`.
    pub spec: ContainerSpec,
    /// `sha256:…` of the image's configuration.
    pub image_id: String,
    /// The wish with the image's defaults merged in.
    pub effective: Effective,
    pub state: StateView,
    pub restart_count: u32,
    pub mounts: Vec<MountPoint>,
    /// What the network gave at the last start; empty before.
    pub network: Connected,
    pub exec_ids: Vec<String>,
    pub log_path: PathBuf,
    pub resolv_conf_path: PathBuf,
    pub hostname_path: PathBuf,
    pub hosts_path: PathBuf,
    /// The writable layer, and the layers below it, topmost first.
    pub upper_dir: PathBuf,
    pub lower_dirs: Vec<PathBuf>,
}

impl ContainerView {
    /// Whether it stands on an image or mounts it.
    pub fn uses_image(&self, id: &str) -> bool {
        self.images().any(|image| image == id)
    }

    /// The ids of its image and of the images it mounts.
    pub fn images(&self) -> impl Iterator<Item = &str> {
        let mounted = self.mounts.iter().filter_map(MountPoint::image);
        std::iter::once(self.image_id.as_str()).chain(mounted)
    }
}

/// What runs, after the image's defaults.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Effective {
    /// Program and arguments: entrypoint then command.
    pub argv: Vec<String>,
    pub entrypoint: Option<Vec<String>>,
    pub command: Option<Vec<String>>,
    pub env: Vec<String>,
    pub user: String,
    pub working_dir: String,
    pub hostname: String,
    pub domainname: String,
    pub labels: BTreeMap<String, String>,
    pub exposed_ports: BTreeSet<String>,
    pub volumes: BTreeSet<String>,
    /// As `SIGTERM`.
    pub stop_signal: String,
    pub health: Option<Healthcheck>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct StateView {
    pub status: Status,
    pub paused: bool,
    pub restarting: bool,
    pub oom_killed: bool,
    pub dead: bool,
    /// 0 when it does not run.
    pub pid: i32,
    pub exit_code: i64,
    pub error: String,
    pub started_at: i64,
    pub finished_at: i64,
    pub health: Option<HealthView>,
}

/// Docker's words for a container's state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    #[default]
    Created,
    Running,
    Paused,
    Restarting,
    Removing,
    Exited,
    Dead,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HealthView {
    pub status: HealthStatus,
    pub failing_streak: u32,
    /// The last five, oldest first.
    pub log: Vec<HealthProbe>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    #[default]
    Starting,
    Healthy,
    Unhealthy,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HealthProbe {
    pub start: i64,
    pub end: i64,
    pub exit_code: i64,
    /// At most 4096 bytes.
    pub output: String,
}

/// One entry of `Mounts`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MountPoint {
    /// `bind`, `volume`, `tmpfs` or `image`.
    pub kind: String,
    /// A volume's name, or an image's as the user wrote it.
    pub name: Option<String>,
    /// Of an image its id.
    pub source: PathBuf,
    pub destination: String,
    /// `local` for volumes.
    pub driver: String,
    pub mode: String,
    pub writable: bool,
    pub propagation: String,
    /// An anonymous volume, removed with the container on request.
    #[serde(default)]
    pub anonymous: bool,
    /// An image's layers, the bottom one first.
    #[serde(default)]
    pub layers: Vec<PathBuf>,
}

impl MountPoint {
    /// The volume's name, where it is one.
    pub fn volume(&self) -> Option<&str> {
        self.name.as_deref().filter(|_| self.kind == "volume")
    }

    /// The image's id, where it is one.
    pub fn image(&self) -> Option<&str> {
        self.source.to_str().filter(|_| self.kind == "image")
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExecView {
    pub id: String,
    pub container: ContainerId,
    pub spec: ExecSpec,
    pub running: bool,
    /// Absent until it ended.
    pub exit_code: Option<i64>,
    /// 0 when it does not run.
    pub pid: i32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VolumeView {
    pub name: String,
    pub driver: String,
    pub mountpoint: PathBuf,
    pub created_at: i64,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
    #[serde(default)]
    pub anonymous: bool,
}

/// What `docker diff` shows of a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    pub path: String,
    pub kind: ChangeKind,
}

/// The numbers are Docker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum ChangeKind {
    Modified = 0,
    Added = 1,
    Deleted = 2,
}

/// `docker top`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Processes {
    pub titles: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// A container's use of the host, from its cgroups (v1, hybrid or v2).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stats {
    pub read_at: i64,
    pub online_cpus: u32,
    /// Nanoseconds the container used.
    pub cpu_total: u64,
    pub cpu_user: u64,
    pub cpu_system: u64,
    /// Nanoseconds all processors of the host spent, idle included.
    pub host_cpu: u64,
    pub throttled_periods: u64,
    pub periods: u64,
    pub throttled_time: u64,
    /// Bytes.
    pub memory_usage: u64,
    pub memory_max_usage: u64,
    pub memory_limit: u64,
    /// `memory.stat` as the kernel gives it.
    pub memory_stats: BTreeMap<String, u64>,
    pub pids: u64,
    pub pids_limit: u64,
    pub blkio_read: u64,
    pub blkio_write: u64,
    pub networks: BTreeMap<String, InterfaceStats>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct InterfaceStats {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}
