//! The node's side of the cluster: identity, membership, session with the leader, ledger.
//!
//! [`ClusterNode`] is the only door. Whatever is in front of it (the HTTP edge, the network
//! glue) never knows whether this host is the leader, another manager or a worker.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use ipnetwork::IpNetwork;
use model::{
    Assignments, ClusterId, ClusterSpec, Generation, Increment, NodeId, Refusal,
    cluster::JoinTokens,
    control::{Answer, ClusterEvent, Verb},
    node::{Availability, NodeDescription, Role},
};
use tokio::sync::{broadcast, watch};

/// What the daemon tells the cluster's side once, at its start.
pub struct Config {
    /// ovnd's `--root`; everything of the cluster lies in its folder `swarm` (mode 0700).
    pub root: PathBuf,
    pub hostname: String,
    /// The period this node asks for when it makes a cluster; members are told the cluster's.
    pub heartbeat: Duration,
    /// What this host is: called at each registration and every 20 s, so it has to be quick.
    /// `hostname`, `advertise`, `data_path` and `tls` are filled in here and may be left empty.
    pub describe: Arc<dyn Fn() -> NodeDescription + Send + Sync>,
}

/// Docker's word for where a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// In no cluster.
    #[default]
    Inactive,
    /// A member on disk, no session yet.
    Pending,
    Active,
    /// [`LocalState::error`] says why.
    Error,
    Locked,
}

impl Standing {
    /// Docker's word: `inactive`, `pending`, `active`, `error`, `locked`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Error => "error",
            Self::Locked => "locked",
        }
    }
}

/// `Swarm` in `GET /info`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LocalState {
    pub state: Standing,
    /// Empty when in no cluster.
    pub node_id: NodeId,
    pub role: Option<Role>,
    /// Why the state is not `active`, for people; empty when there is nothing to say.
    pub error: String,
    /// This node's advertised address.
    pub address: Option<IpAddr>,
    /// This node's VXLAN tunnel endpoint.
    pub data_path: Option<IpAddr>,
    /// The managers this node knows, with the address of their one port.
    pub managers: Vec<(NodeId, SocketAddr)>,
    pub cluster_id: Option<ClusterId>,
    /// The cluster's root certificate, PEM; empty when in no cluster.
    pub root_ca_pem: String,
}

impl LocalState {
    /// Docker's `ControlAvailable`: this node is a manager that answers verbs itself.
    pub fn control_available(&self) -> bool {
        self.role == Some(Role::Manager) && self.state == Standing::Active
    }
}

/// `POST /swarm/init`. Addresses are as the user wrote them: an IP address or an interface's
/// name, with an optional `:port` where Docker allows one; empty means "choose".
#[derive(Debug, Clone, Default)]
pub struct InitRequest {
    pub advertise_addr: String,
    /// Empty: `0.0.0.0:2377`. Port 0 takes any free one.
    pub listen_addr: String,
    pub data_path_addr: String,
    /// 0 means 4789.
    pub data_path_port: u16,
    /// Empty: 10.0.0.0/8.
    pub default_addr_pool: Vec<IpNetwork>,
    /// 0 means 24.
    pub subnet_size: u8,
    /// 0 means 20.
    pub ingress_size: u8,
    pub force_new_cluster: bool,
    pub spec: Option<ClusterSpec>,
    pub availability: Availability,
}

/// `POST /swarm/join`.
#[derive(Debug, Clone, Default)]
pub struct JoinRequest {
    /// `ADDR[:PORT]` of managers; the first that answers is used.
    pub remotes: Vec<String>,
    pub token: String,
    pub advertise_addr: String,
    pub listen_addr: String,
    pub data_path_addr: String,
    pub availability: Availability,
}

/// What the glue turns into the dataplane's wish.
#[derive(Debug, Clone)]
pub enum Update {
    /// Replaces everything; also sent, empty, when the node leaves its cluster.
    Full(Arc<Assignments>),
    Increment(Arc<Increment>),
}

/// This host's place in a cluster, or outside any.
pub struct ClusterNode {}

impl ClusterNode {
    /// Takes up the membership found on disk, if there is one, and goes on in the background:
    /// it returns without having seen any manager, [`Self::assignments`] already has the ledger.
    pub async fn start(config: Config) -> anyhow::Result<Arc<Self>> {
        drop(config);
        todo!()
    }

    pub fn local_state(&self) -> watch::Receiver<LocalState> {
        todo!()
    }

    /// Makes a new cluster with this node as its first manager.
    pub async fn init(&self, request: InitRequest) -> Result<NodeId, Refusal> {
        drop(request);
        todo!()
    }

    /// Joins the cluster that one of the remotes belongs to; returns when the session is up
    /// (limit 20 s, then 503 and the attempt goes on in the background, as Docker does).
    pub async fn join(&self, request: JoinRequest) -> Result<(), Refusal> {
        drop(request);
        todo!()
    }

    /// Leaves the cluster and deletes what is known of it on this host. A manager demands `force`.
    pub async fn leave(&self, force: bool) -> Result<(), Refusal> {
        let _ = force;
        todo!()
    }

    /// Asks the leader, wherever it is. Reads and a node's own attachments pass from any
    /// node; what changes the cluster is refused on workers with Docker's sentence (503).
    pub async fn call(&self, verb: Verb) -> Result<Answer, Refusal> {
        drop(verb);
        todo!()
    }

    /// A full set now (empty outside a cluster), then every change. A reader that lags is given
    /// a full set again.
    pub fn assignments(&self) -> AssignmentStream {
        todo!()
    }

    /// Tells the leader that this host's kernel has reached the generation. Never blocks; the
    /// highest one is sent, again after each reconnect.
    pub fn acknowledge(&self, generation: Generation) {
        let _ = generation;
        todo!()
    }

    /// The join tokens; managers only.
    pub async fn join_tokens(&self) -> Result<JoinTokens, Refusal> {
        todo!()
    }

    /// Events of the cluster from now on; silent on workers. Survives init, join and leave.
    pub fn events(&self) -> broadcast::Receiver<ClusterEvent> {
        todo!()
    }

    /// Stops the background work and, on a manager, closes its store; the membership stays.
    pub async fn shutdown(&self) {
        todo!()
    }
}

/// See [`ClusterNode::assignments`].
pub struct AssignmentStream {}

impl AssignmentStream {
    /// The next update; `None` once the [`ClusterNode`] is gone.
    pub async fn next(&mut self) -> Option<Update> {
        todo!()
    }
}
