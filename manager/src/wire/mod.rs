//! What travels between members and managers: gRPC calls whose one field is MessagePack.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use model::{
    Assignments, ClusterId, Generation, Id, Increment, Node, NodeId, Refusal, TaskId,
    control::{Answer, Verb},
    log::{LogLine, LogOptions, LogSelector},
    node::{Availability, NodeDescription, Role},
    publish::HeldPort,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tonic::Status;

use crate::ca::Member;

/// The generated services.
#[allow(clippy::pedantic, unused_qualifications)]
pub mod proto {
    tonic::include_proto!("overnet.manager.v1");
}

pub use proto::Payload;

/// Largest message in bytes; a full set of 100,000 endpoints stays below.
pub const MESSAGE_LIMIT: usize = 256 << 20;
/// The field of a call that says of which trace it is a part (W3C Trace Context, 3.2).
pub const TRACE: &str = "traceparent";

/// Answer of `Root`. It comes over an unverified connection: the token vouches for the root,
/// nothing for the rest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RootReply {
    pub root_pem: String,
    /// Nanoseconds since the Unix epoch.
    pub now: i64,
}

/// Asks for a certificate: with a token as a newcomer, without one as a member that renews.
#[derive(Clone, Serialize, Deserialize)]
pub struct IssueRequest {
    pub csr_pem: String,
    pub token: Option<String>,
    pub description: NodeDescription,
    pub availability: Availability,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IssueReply {
    pub node_id: NodeId,
    pub cluster_id: ClusterId,
    pub role: Role,
    pub chain_pem: String,
    pub root_pem: String,
    pub managers: Vec<(NodeId, SocketAddr)>,
    pub data_path_port: u16,
    /// Nanoseconds since the Unix epoch.
    pub now: i64,
}

/// Opens a session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Register {
    pub description: NodeDescription,
    /// What the node's ledger has.
    pub generation: Generation,
    /// What the node understands; 0 of one that does not say. See [`LEVEL`].
    #[serde(default)]
    pub level: u32,
}

/// What a node of this build understands of a session. A message that came with a level is not
/// sent to a node below it: to that node it would be a broken session.
///
/// 1: questions about ports. 2: what to trust. 3: questions about traffic.
pub const LEVEL: u32 = 3;

/// What a session says, in this order: one welcome, one full set, then anything but a welcome.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum SessionMessage {
    Welcome(Box<Welcome>),
    Full(Box<Assignments>),
    Increment(Increment),
    Managers(Vec<(NodeId, SocketAddr)>),
    /// Another manager leads, or nobody does: the session is over, or does not begin.
    Elsewhere(Box<Elsewhere>),
    /// The node's own object changed.
    Node(Box<Node>),
    HeartbeatPeriod(Duration),
    /// Somebody wants to read logs of this host's tasks.
    Logs(Box<LogOrder>),
    /// Somebody is about to publish ports.
    Ports(Box<PortOrder>),
    /// Somebody wants to know how this host sees ports; from level 1 on.
    LookAtPorts(Box<PortQuestion>),
    /// Somebody wants to know what goes through this host's tunnels; from level 3 on.
    CountTraffic(Box<TrafficQuestion>),
    /// What the node is to trust has changed; from level 2 on.
    Trust(Box<Trust>),
    /// The node was removed from the cluster; there is no coming back under this identity.
    Removed,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Welcome {
    pub session: Id,
    pub heartbeat_period: Duration,
    pub managers: Vec<(NodeId, SocketAddr)>,
    pub node: Node,
    pub data_path_port: u16,
    #[serde(default)]
    pub trust: Option<Trust>,
}

/// What a node is to trust, and who is to have issued its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    pub roots_pem: String,
    pub issuer_public_key_der: Vec<u8>,
    /// Nodes with a certificate of another issuer ask for the next one at any moment within this
    /// time, so that not all ask at once.
    pub within: Duration,
}

/// Where to ask for a session instead.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Elsewhere {
    pub leader: Option<SocketAddr>,
    pub managers: Vec<(NodeId, SocketAddr)>,
}

/// What a manager asks of the leader, on behalf of whoever asked it.
#[derive(Clone, Serialize, Deserialize)]
pub enum ManagerAsk {
    Verb {
        caller: Member,
        verb: Box<Verb>,
    },
    Issue {
        /// Absent for newcomers, who have a token instead.
        caller: Option<Member>,
        request: Box<IssueRequest>,
        from: Option<IpAddr>,
    },
    /// The caller leaves the cluster.
    Leave {
        caller: Member,
    },
    /// The asking manager wants a part in consensus.
    Enter {
        raft_id: u64,
        address: SocketAddr,
        /// [`model::FORMAT`] of the asking one.
        #[serde(default = "first_format")]
        format: u32,
    },
}

/// Of managers that do not say it.
fn first_format() -> u32 {
    1
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum ManagerAnswer {
    Verb(Box<Answer>),
    Issue(Box<IssueReply>),
    Done,
}

/// How a manager answers another.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum ForwardReply {
    Answer(ManagerAnswer),
    Refused(Refusal),
    /// It does not lead (any more); nothing was done.
    NotLeader,
}

/// A manager reads logs through the leader.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReadLogs {
    pub selector: LogSelector,
    pub options: LogOptions,
}

/// Asks a host for logs; it answers by a stream that begins with [`LogOpening`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogOrder {
    pub subscription: Id,
    pub tasks: Vec<TaskId>,
    pub options: LogOptions,
}

/// Asks a host to keep ports from other programs until a service that publishes them is there,
/// or to give them up; the answer to the first is `Verb::PortsKept`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PortOrder {
    pub order: Id,
    pub ports: Vec<HeldPort>,
    /// For how long; absent: they are given up.
    pub keep: Option<Duration>,
}

/// Asks a host what it sees of ports; the answer is `Verb::PortsSeen`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PortQuestion {
    pub order: Id,
    pub ports: Vec<HeldPort>,
}

/// Asks a host what goes through its tunnels; the answer is `Verb::TrafficSeen`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TrafficQuestion {
    pub order: Id,
}

/// The first message of a host's stream of logs; the others are [`LogPush`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogOpening {
    pub subscription: Id,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum LogPush {
    Lines(Vec<LogLine>),
    /// That was all; a stream that ends without it was cut.
    End,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Beat {
    pub session: Id,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BeatReply {
    Fine,
    /// The session is over on the manager's side; open another.
    UnknownSession,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Acknowledge {
    pub session: Id,
    pub generation: Generation,
}

/// Every answer: what was asked, or why not.
pub type Reply<T> = Result<T, Refusal>;

/// Packs a message.
pub fn pack<T: Serialize>(message: &T) -> Result<Payload, Status> {
    let body = rmp_serde::to_vec_named(message)
        .map_err(|error| Status::internal(format!("a message cannot be written: {error}")))?;
    Ok(Payload { body })
}

/// Unpacks a message.
pub fn unpack<T: DeserializeOwned>(payload: &Payload) -> Result<T, Status> {
    rmp_serde::from_slice(&payload.body).map_err(|error| {
        Status::invalid_argument(format!(
            "a message cannot be read ({error}); are both sides of the same version?"
        ))
    })
}
