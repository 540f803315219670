//! The nouns of Overnet and the rules that need nothing but themselves.
//!
//! Invariant: no clock, no randomness, no I/O, no async. Whatever needs one of
//! these takes it as an argument or lives a floor higher.

pub mod assignment;
pub mod cluster;
pub mod control;
pub mod encryption;
pub mod endpoint;
pub mod id;
pub mod interface;
pub mod log;
pub mod name;
pub mod network;
pub mod node;
pub mod path;
pub mod payload;
pub mod publish;
pub mod refusal;
pub mod service;
pub mod subnet;
pub mod task;
pub mod trace;
pub mod traffic;

pub use assignment::{Assignments, Change, Generation, Increment};
pub use cluster::{Cluster, ClusterSpec};
pub use endpoint::{Endpoint, EndpointOwner, EndpointState};
pub use id::{
    ClusterId, ContainerId, EndpointId, Id, NetworkId, NodeId, SecretId, ServiceId, TaskId,
};
pub use log::{LogItem, LogLine, LogOptions, LogSelector};
pub use network::{Network, NetworkSpec};
pub use node::{Node, NodeSpec};
pub use path::{AgedReport, PathReport, PathSight, PathState, Tally};
pub use payload::{Payload, PayloadKind, PayloadSpec};
pub use refusal::{Refusal, RefusalKind};
pub use service::{Service, ServiceSpec};
pub use task::{Task, TaskSpec, TaskState, TaskStatus};
pub use trace::TraceParent;
pub use traffic::HostTraffic;

use serde::{Deserialize, Serialize};

/// The format of what is kept: in hosts' data directories, in the cluster's log and its snapshots.
/// This build writes it, and reads it and all before.
///
/// What builds of this format would lose or misread (a change, a field or a word that a decision rests on) has
/// the next number: a host that has written it does not go back to an ovnd that does not know it, and
/// a manager that does not know it gets no part in consensus.
pub const FORMAT: u32 = 1;

/// What every stored object carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Index of the Raft entry that wrote the object last; updates name the one they saw.
    pub version: u64,
    /// Nanoseconds since the Unix epoch, by the leader's clock.
    pub created_at: i64,
    /// Nanoseconds since the Unix epoch, by the leader's clock.
    pub updated_at: i64,
    /// Where it was asked for, if that is being traced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceParent>,
}
