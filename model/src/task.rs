//! Tasks: one slot of a service, placed on one node, run once.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    ContainerId, EndpointId, Meta, NetworkId, NodeId, SecretId, ServiceId, TaskId,
    service::{PortConfig, ServiceMode},
};

/// A task as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    pub id: TaskId,
    pub meta: Meta,
    pub service: ServiceId,
    pub service_name: String,
    /// From 1 for replicated services, from 0 for jobs; 0 for global ones.
    pub slot: u64,
    /// Absent before the scheduler (for global tasks: the orchestrator) chose.
    pub node: Option<NodeId>,
    /// Shared by all tasks of one version of a service.
    pub spec: Arc<TaskSpec>,
    /// [`crate::Service::spec_version`] this was made from.
    pub spec_version: u64,
    /// Labels of the service.
    pub labels: BTreeMap<String, String>,
    pub mode: ServiceMode,
    pub status: TaskStatus,
    pub desired: TaskState,
    /// Before this moment (nanoseconds since the Unix epoch) a task that is
    /// [`TaskState::Ready`] is not asked to run: the restart delay.
    pub start_after: i64,
    /// One endpoint a network, in the spec's order, ingress last.
    pub endpoints: Vec<EndpointId>,
    /// Host-mode ports wanted, and ingress ports of the service.
    pub ports: Vec<PortConfig>,
    pub generic_resources: Vec<GenericResource>,
    pub job_iteration: Option<u64>,
    pub handover: Handover,
    /// When it got into load balancing ([`Handover::In`]), nanoseconds since the Unix epoch;
    /// 0 before. Updates count their monitor period and delay from here.
    #[serde(default)]
    pub in_since: i64,
    /// Attempts before this one in its slot, within the restart policy's window.
    pub attempt: u64,
    /// How long established connections may go on once it left load balancing.
    pub drain: Duration,
}

impl Task {
    /// `<service>.<slot>.<task>`, for global tasks `<service>.<node>.<task>`.
    pub fn name(&self) -> String {
        match (&self.node, self.mode.is_global()) {
            (Some(node), true) => format!("{}.{node}.{}", self.service_name, self.id),
            _ => format!("{}.{}.{}", self.service_name, self.slot, self.id),
        }
    }

    /// Whether it may still hold a container, addresses or resources on its node.
    pub fn is_alive(&self) -> bool {
        self.status.state <= TaskState::Running
    }

    /// Whether the user wants it to run (now or once its delay is over); tasks of jobs are
    /// wanted until [`TaskState::Complete`], all others until [`TaskState::Running`].
    pub fn is_wanted(&self) -> bool {
        self.desired <= TaskState::Complete
    }
}

/// Where a task is in its life; it only moves forward, in this order.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
pub enum TaskState {
    #[default]
    New,
    /// Has addresses and ports.
    Pending,
    /// Has a node.
    Assigned,
    Accepted,
    Preparing,
    /// Prepared, and waiting for its start.
    Ready,
    /// Its container runs and is not healthy yet.
    Starting,
    Running,
    Complete,
    Shutdown,
    Failed,
    Rejected,
    /// Only ever desired: stop it, then forget it.
    Remove,
    /// Its node has been gone too long.
    Orphaned,
}

impl TaskState {
    pub const ALL: [Self; 14] = [
        Self::New,
        Self::Pending,
        Self::Assigned,
        Self::Accepted,
        Self::Preparing,
        Self::Ready,
        Self::Starting,
        Self::Running,
        Self::Complete,
        Self::Shutdown,
        Self::Failed,
        Self::Rejected,
        Self::Remove,
        Self::Orphaned,
    ];

    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Accepted => "accepted",
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Shutdown => "shutdown",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Remove => "remove",
            Self::Orphaned => "orphaned",
        }
    }

    /// Nothing of it runs any more.
    pub fn is_final(self) -> bool {
        self > Self::Running
    }
}

/// Whether all hosts know of it, of those that are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
pub enum Handover {
    /// Not in load balancing everywhere yet.
    #[default]
    Pending,
    /// In load balancing on all hosts.
    In,
    /// Out of load balancing on all hosts: its node may stop it.
    Out,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskStatus {
    pub state: TaskState,
    /// When it got there, nanoseconds since the Unix epoch.
    pub at: i64,
    /// What is being done, for people.
    pub message: String,
    /// What went wrong, for people; empty while nothing did.
    pub error: String,
    pub container: Option<ContainerStatus>,
    /// Host-mode ports as bound.
    pub ports: Vec<PortConfig>,
    /// Times the node restarted it by itself while no manager was in sight.
    pub restarts: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStatus {
    pub id: ContainerId,
    /// 0 when it does not run.
    pub pid: i64,
    pub exit_code: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum GenericResource {
    Discrete { kind: String, value: i64 },
    Named { kind: String, value: String },
}

/// What to run, where and how to restart it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct TaskSpec {
    pub container: ContainerSpec,
    pub limits: Limits,
    pub reservations: Reservations,
    pub restart: Option<RestartPolicy>,
    pub placement: Placement,
    pub networks: Vec<NetworkAttachment>,
    pub log_driver: Option<Driver>,
    pub force_update: u64,
    /// Docker's `Runtime`: empty or `container`.
    pub runtime: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct NetworkAttachment {
    /// Id, once control has resolved it; a name in a spec that just came in.
    pub target: String,
    pub aliases: Vec<String>,
    pub driver_options: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Driver {
    pub name: String,
    pub options: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Limits {
    pub nano_cpus: i64,
    pub memory_bytes: i64,
    pub pids: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Reservations {
    pub nano_cpus: i64,
    pub memory_bytes: i64,
    pub generic: Vec<GenericResource>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestartPolicy {
    pub condition: RestartCondition,
    pub delay: Duration,
    /// 0: no limit.
    pub max_attempts: u64,
    /// Zero: attempts are counted for ever.
    pub window: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            condition: RestartCondition::Any,
            delay: Duration::from_secs(5),
            max_attempts: 0,
            window: Duration::ZERO,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum RestartCondition {
    None,
    OnFailure,
    #[default]
    Any,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Placement {
    /// As written: `node.role==manager`.
    pub constraints: Vec<String>,
    /// Descriptors of `spread`, in order: `node.labels.zone`.
    pub preferences: Vec<String>,
    /// 0: no limit.
    pub max_replicas: u64,
    /// Empty: any.
    pub platforms: Vec<Platform>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
pub struct Platform {
    /// `amd64` or `x86_64`; empty: any.
    pub architecture: String,
    pub os: String,
}

/// What a task's container is made from; the words are those of Docker's `ContainerSpec`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct ContainerSpec {
    pub image: String,
    pub labels: BTreeMap<String, String>,
    /// Replaces the image's entry point.
    pub command: Vec<String>,
    /// Replaces the image's command.
    pub args: Vec<String>,
    pub hostname: String,
    pub env: Vec<String>,
    pub dir: String,
    pub user: String,
    pub groups: Vec<String>,
    pub privileges: Privileges,
    pub tty: bool,
    pub open_stdin: bool,
    pub read_only: bool,
    pub stop_signal: String,
    /// Absent: 10 s.
    pub stop_grace_period: Option<Duration>,
    pub health: Option<HealthSpec>,
    pub mounts: Vec<Mount>,
    /// `IP NAME [NAME…]`, as `/etc/hosts` has them.
    pub hosts: Vec<String>,
    pub dns: DnsSpec,
    pub secrets: Vec<PayloadReference>,
    pub configs: Vec<PayloadReference>,
    pub isolation: String,
    pub init: Option<bool>,
    pub sysctls: BTreeMap<String, String>,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub ulimits: Vec<Ulimit>,
    pub oom_score_adj: i64,
    /// Base64 of Docker's `X-Registry-Auth`; never shown.
    pub registry_auth: String,
}

impl std::fmt::Debug for ContainerSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContainerSpec")
            .field("image", &self.image)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Privileges {
    pub no_new_privileges: bool,
    /// `default`, `unconfined` or `custom`; empty: default.
    pub seccomp_mode: String,
    /// JSON of a custom profile.
    pub seccomp_profile: Vec<u8>,
    /// `default` or `disabled`; empty: default.
    pub apparmor_mode: String,
}

/// Docker's `HealthConfig`; absent fields come from the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct HealthSpec {
    /// Empty: the image's; `NONE`: none.
    pub test: Vec<String>,
    pub interval: Option<Duration>,
    pub timeout: Option<Duration>,
    pub retries: Option<u64>,
    pub start_period: Option<Duration>,
    pub start_interval: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct DnsSpec {
    pub nameservers: Vec<IpAddr>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Mount {
    pub kind: MountKind,
    pub source: String,
    pub target: String,
    pub read_only: bool,
    pub consistency: String,
    pub bind: Option<BindOptions>,
    pub volume: Option<VolumeOptions>,
    pub image: Option<ImageOptions>,
    pub tmpfs: Option<TmpfsOptions>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum MountKind {
    #[default]
    Bind,
    Volume,
    Tmpfs,
    Image,
    /// Windows' pipes and cluster volumes: refused by name.
    Npipe,
    Cluster,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct BindOptions {
    pub propagation: String,
    pub non_recursive: bool,
    pub create_mountpoint: bool,
    pub read_only_non_recursive: bool,
    pub read_only_force_recursive: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct VolumeOptions {
    pub no_copy: bool,
    pub labels: BTreeMap<String, String>,
    pub driver: Option<Driver>,
    pub subpath: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct ImageOptions {
    /// Empty: the whole image.
    pub subpath: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct TmpfsOptions {
    /// 0: the kernel's default.
    pub size_bytes: i64,
    /// 0: 1777.
    pub mode: u32,
    pub options: Vec<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Ulimit {
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}

/// A secret or config in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct PayloadReference {
    pub id: SecretId,
    pub name: String,
    /// Absent: only named, not laid as a file (Docker's `Runtime` target).
    pub file: Option<FileTarget>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileTarget {
    pub name: String,
    pub uid: String,
    pub gid: String,
    pub mode: u32,
}

/// The networks a task is on, with what each is called there.
pub fn network_targets(spec: &TaskSpec) -> impl Iterator<Item = NetworkId> + '_ {
    spec.networks
        .iter()
        .map(|attachment| NetworkId::new(attachment.target.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_in_dockers_order() {
        assert!(TaskState::ALL.windows(2).all(|pair| pair[0] < pair[1]));
        for (state, last) in [
            (TaskState::Running, false),
            (TaskState::Complete, true),
            (TaskState::Orphaned, true),
        ] {
            assert_eq!(state.is_final(), last, "{state:?}");
        }
    }
}
