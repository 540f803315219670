//! Services: what should run, as the user declared it.

use std::{collections::BTreeMap, time::Duration};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{Meta, NetworkId, ServiceId, task::TaskSpec};

/// Labels of a service spec under this prefix carry what Docker's spec has no field for, so
/// that any Docker client's read-edit-write keeps it.
pub const LABEL_PREFIX: &str = "overnet.";
/// How long established connections of a task may go on after it left load balancing, as Go
/// writes durations (`30s`); [`DEFAULT_DRAIN`] without it.
pub const LABEL_DRAIN: &str = "overnet.drain-timeout";
/// After how long an update whose tasks never become healthy fails by its policy.
pub const LABEL_PROGRESS_DEADLINE: &str = "overnet.update.progress-deadline";
/// `true`: tasks move to emptier nodes by themselves, at most [`LABEL_REBALANCE_RATE`] a minute.
pub const LABEL_REBALANCE: &str = "overnet.rebalance";
pub const LABEL_REBALANCE_RATE: &str = "overnet.rebalance.max-moves-per-minute";
/// `NAME[:started|healthy|completed]`, comma separated: services that come first.
pub const LABEL_DEPENDS_ON: &str = "overnet.depends-on";
/// Prefix of what a publish option says beside Docker's: `overnet.publish.TARGET/PROTOCOL`, see
/// [`crate::publish`].
pub const LABEL_PUBLISH: &str = "overnet.publish";

/// Drain time of a task without [`LABEL_DRAIN`].
pub const DEFAULT_DRAIN: Duration = Duration::from_secs(5);

/// A service as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    pub id: ServiceId,
    pub meta: Meta,
    pub spec: ServiceSpec,
    /// [`Meta::version`] of the write that changed `spec` last; tasks of an older one are
    /// replaced if their task spec differs.
    pub spec_version: u64,
    /// What `service rollback` goes back to.
    pub previous: Option<Box<ServiceSpec>>,
    pub endpoint: ServiceEndpoint,
    pub update: Option<UpdateStatus>,
    pub job: Option<JobStatus>,
}

/// What the user asks of a service; shapes and defaults follow `POST /services/create`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct ServiceSpec {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub task: TaskSpec,
    pub mode: ServiceMode,
    /// Absent: the defaults of [`UpdateConfig`].
    pub update: Option<UpdateConfig>,
    pub rollback: Option<UpdateConfig>,
    pub endpoint: Option<EndpointSpec>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceMode {
    Replicated {
        replicas: u64,
    },
    /// One task on each node that fits.
    Global,
    /// `total` tasks that run to completion, at most `concurrent` at a time.
    ReplicatedJob {
        concurrent: u64,
        total: u64,
    },
    /// One task that runs to completion on each node that fits.
    GlobalJob,
}

impl Default for ServiceMode {
    fn default() -> Self {
        Self::Replicated { replicas: 1 }
    }
}

impl ServiceMode {
    pub fn is_job(self) -> bool {
        matches!(self, Self::ReplicatedJob { .. } | Self::GlobalJob)
    }

    pub fn is_global(self) -> bool {
        matches!(self, Self::Global | Self::GlobalJob)
    }

    /// Whether both are the same kind; a service keeps its kind for life.
    pub fn same_kind(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

/// How an update or a rollback goes through the slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdateConfig {
    /// Slots at a time; 0: all.
    pub parallelism: u64,
    pub delay: Duration,
    pub failure_action: FailureAction,
    /// How long a new task is watched.
    pub monitor: Duration,
    /// Share of failed tasks that is tolerated, in millionths: floats are not `Eq`.
    pub max_failure_ppm: u32,
    pub order: UpdateOrder,
}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self {
            parallelism: 1,
            delay: Duration::ZERO,
            failure_action: FailureAction::Pause,
            monitor: Duration::from_secs(5),
            max_failure_ppm: 0,
            order: UpdateOrder::StopFirst,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum FailureAction {
    #[default]
    Pause,
    Continue,
    Rollback,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum UpdateOrder {
    #[default]
    StopFirst,
    StartFirst,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateStatus {
    pub state: UpdateState,
    /// Nanoseconds since the Unix epoch.
    pub started_at: i64,
    pub completed_at: Option<i64>,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateState {
    Updating,
    Paused,
    Completed,
    RollbackStarted,
    RollbackPaused,
    RollbackCompleted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// Counts updates; tasks of an older iteration are stopped.
    pub iteration: u64,
    /// Nanoseconds since the Unix epoch.
    pub last_execution: i64,
}

/// How a service is reached, as asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct EndpointSpec {
    pub mode: EndpointMode,
    pub ports: Vec<PortConfig>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum EndpointMode {
    #[default]
    Vip,
    /// Names answer with the tasks' addresses.
    Dnsrr,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortConfig {
    pub name: String,
    pub protocol: Protocol,
    pub target: u16,
    /// 0: chosen by the allocator (ingress, 30000 to 32767) or by the host (host mode).
    pub published: u16,
    pub mode: PublishMode,
}

#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
pub enum PublishMode {
    #[default]
    Ingress,
    Host,
}

/// How a service is reached, with every choice made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct ServiceEndpoint {
    pub mode: EndpointMode,
    /// As asked, dynamic ports filled in.
    pub ports: Vec<PortConfig>,
    /// One a network (two with IPv6), with the subnet's prefix length; none with
    /// [`EndpointMode::Dnsrr`].
    pub vips: Vec<VirtualIp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualIp {
    pub network: NetworkId,
    pub address: IpNetwork,
}

/// A service's tasks, counted for `service ls`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub running: u64,
    pub desired: u64,
    /// Jobs only: tasks of this iteration that completed.
    pub completed: u64,
}
