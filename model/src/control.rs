//! The verbs of the control plane: one enum is the whole interface, so a new verb does not
//! compile until every place that handles verbs has answered for it.

use std::{net::IpAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    AgedReport, Cluster, ClusterId, ClusterSpec, ContainerId, Endpoint, EndpointId, EndpointState,
    Generation, HostTraffic, Id, Network, NetworkId, NetworkSpec, Node, NodeId, NodeSpec,
    PathReport, Payload, PayloadKind, PayloadSpec, Service, ServiceId, ServiceSpec, Task, TaskId,
    TaskStatus,
    payload::Content,
    publish::{PortSight, ServicePort},
    service::ServiceStatus,
};

/// What can be asked of the leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verb {
    ClusterInspect,
    ClusterUpdate {
        version: u64,
        spec: Box<ClusterSpec>,
        rotate: TokenRotation,
        /// A root certificate of the user's own, to become the cluster's.
        #[serde(default)]
        root: Option<Box<GivenRoot>>,
    },
    /// The key that unlocks managers.
    UnlockKey,
    /// The whole state, with everything that is secret in it.
    ClusterBackup,
    NodeList,
    /// The managers in consensus, with the positions of their logs.
    ManagerList,
    /// By full id, exact name (hostname), or unique id prefix.
    NodeInspect {
        reference: String,
    },
    NodeUpdate {
        reference: String,
        version: u64,
        spec: NodeSpec,
    },
    NodeRemove {
        reference: String,
        force: bool,
    },
    NetworkCreate {
        spec: Box<NetworkSpec>,
    },
    NetworkList,
    NetworkInspect {
        reference: String,
    },
    NetworkRemove {
        reference: String,
    },
    /// Gives a stand-alone container on the calling node an endpoint on an attachable network
    /// and answers once the network's hosts have programmed it. Asking again for the same
    /// container and network answers the same endpoint.
    Attach(Box<AttachRequest>),
    /// Moves an endpoint forward in its life (`Active` when its container runs).
    EndpointAdvance {
        endpoint: EndpointId,
        state: EndpointState,
    },
    /// Takes the endpoint back; unknown ones are no error, because the wish is met.
    Detach {
        endpoint: EndpointId,
    },
    /// All endpoints of one network, for `network inspect`.
    EndpointList {
        network: NetworkId,
    },
    /// All endpoints of one node, so that a host that returns can compare them with its
    /// containers. Workers may ask for their own only.
    NodeEndpoints {
        node: NodeId,
    },
    ServiceCreate {
        spec: Box<ServiceSpec>,
    },
    /// Says where the tasks of such a service would go; changes nothing.
    ServiceDryRun {
        spec: Box<ServiceSpec>,
    },
    ServiceUpdate {
        reference: String,
        version: u64,
        spec: Box<ServiceSpec>,
        credentials: Credentials,
        /// Take the previous spec instead of `spec`.
        rollback: bool,
    },
    ServiceList,
    ServiceInspect {
        reference: String,
    },
    ServiceRemove {
        reference: String,
    },
    /// Moves tasks from full nodes to emptier ones, gently.
    ServiceRebalance {
        reference: String,
    },
    TaskList,
    TaskInspect {
        reference: String,
    },
    /// Tasks with their endpoints and networks, as of one moment: what a list shows.
    TaskSheet(Box<TaskSelection>),
    /// What a node says of ports that it was asked to keep: those it cannot have, as sentences.
    PortsKept {
        node: NodeId,
        order: Id,
        refused: Vec<String>,
    },
    /// What a node sees of ports that it was asked about.
    PortsSeen {
        node: NodeId,
        order: Id,
        sights: Vec<PortSight>,
    },
    /// How every host sees the published ports of a service, or of all; asks the hosts.
    PortList {
        service: Option<String>,
    },
    /// What a node has counted of its tunnels, as it was asked to.
    TrafficSeen {
        node: NodeId,
        order: Id,
        traffic: Box<HostTraffic>,
    },
    /// What goes through the tunnels of every host; asks the hosts, which count for a while
    /// because of it.
    TrafficList,
    /// What a node says of its tasks; statuses only move forward.
    TaskReport {
        node: NodeId,
        statuses: Vec<(TaskId, TaskStatus)>,
    },
    PayloadCreate {
        kind: PayloadKind,
        spec: Box<PayloadSpec>,
    },
    PayloadList {
        kind: PayloadKind,
    },
    PayloadInspect {
        kind: PayloadKind,
        reference: String,
    },
    /// Only labels may change.
    PayloadUpdate {
        kind: PayloadKind,
        reference: String,
        version: u64,
        spec: Box<PayloadSpec>,
    },
    PayloadRemove {
        kind: PayloadKind,
        reference: String,
    },
    /// What a node has measured of its way to others; kept in the leader's memory only.
    PathReport(Box<PathReport>),
    /// What all nodes have measured.
    PathList,
    /// What an endpoint is called from now on, the canonical name first.
    EndpointName {
        endpoint: EndpointId,
        names: Vec<String>,
    },
}

impl Verb {
    /// Whether it changes nothing: such a verb may be asked twice, and answered from what a
    /// manager without a leader last knew.
    pub fn is_read(&self) -> bool {
        match self {
            Self::ClusterInspect
            | Self::UnlockKey
            | Self::ClusterBackup
            | Self::NodeList
            | Self::ManagerList
            | Self::NodeInspect { .. }
            | Self::NetworkList
            | Self::NetworkInspect { .. }
            | Self::EndpointList { .. }
            | Self::NodeEndpoints { .. }
            | Self::ServiceDryRun { .. }
            | Self::ServiceList
            | Self::ServiceInspect { .. }
            | Self::TaskList
            | Self::TaskInspect { .. }
            | Self::TaskSheet(_)
            | Self::PayloadList { .. }
            | Self::PayloadInspect { .. }
            | Self::PortList { .. }
            | Self::TrafficList
            | Self::PathList => true,
            Self::ClusterUpdate { .. }
            | Self::NodeUpdate { .. }
            | Self::NodeRemove { .. }
            | Self::NetworkCreate { .. }
            | Self::NetworkRemove { .. }
            | Self::Attach(_)
            | Self::EndpointAdvance { .. }
            | Self::Detach { .. }
            | Self::ServiceCreate { .. }
            | Self::ServiceUpdate { .. }
            | Self::ServiceRemove { .. }
            | Self::ServiceRebalance { .. }
            | Self::PortsKept { .. }
            | Self::PortsSeen { .. }
            | Self::TrafficSeen { .. }
            | Self::TaskReport { .. }
            | Self::PayloadCreate { .. }
            | Self::PayloadUpdate { .. }
            | Self::PayloadRemove { .. }
            | Self::EndpointName { .. }
            | Self::PathReport(_) => false,
        }
    }

    /// Who may ask it.
    pub fn askers(&self) -> Askers<'_> {
        match self {
            Self::NetworkList
            | Self::NetworkInspect { .. }
            | Self::EndpointList { .. }
            | Self::EndpointAdvance { .. }
            | Self::EndpointName { .. }
            | Self::Detach { .. } => Askers::Members,
            Self::Attach(request) => Askers::Node(&request.node),
            Self::PathReport(report) => Askers::Node(&report.node),
            Self::NodeEndpoints { node }
            | Self::TaskReport { node, .. }
            | Self::PortsKept { node, .. }
            | Self::PortsSeen { node, .. }
            | Self::TrafficSeen { node, .. } => Askers::Node(node),
            Self::ClusterInspect
            | Self::UnlockKey
            | Self::ClusterBackup
            | Self::ClusterUpdate { .. }
            | Self::NodeList
            | Self::ManagerList
            | Self::NodeInspect { .. }
            | Self::NodeUpdate { .. }
            | Self::NodeRemove { .. }
            | Self::NetworkCreate { .. }
            | Self::NetworkRemove { .. }
            | Self::ServiceCreate { .. }
            | Self::ServiceDryRun { .. }
            | Self::ServiceUpdate { .. }
            | Self::ServiceList
            | Self::ServiceInspect { .. }
            | Self::ServiceRemove { .. }
            | Self::ServiceRebalance { .. }
            | Self::TaskList
            | Self::TaskInspect { .. }
            | Self::TaskSheet(_)
            | Self::PayloadCreate { .. }
            | Self::PayloadList { .. }
            | Self::PayloadInspect { .. }
            | Self::PayloadUpdate { .. }
            | Self::PayloadRemove { .. }
            | Self::PortList { .. }
            | Self::TrafficList
            | Self::PathList => Askers::Managers,
        }
    }
}

/// Who may ask a verb; managers may ask every one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Askers<'a> {
    Managers,
    /// Every node of the cluster.
    Members,
    /// Of the workers only the one in whose name it is asked.
    Node(&'a NodeId),
}

/// Which tasks; what is empty does not choose.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskSelection {
    pub ids: Vec<TaskId>,
    pub services: Vec<ServiceId>,
    pub nodes: Vec<NodeId>,
    /// Labels of the service that all have to be there, with the value if one is given.
    pub labels: Vec<(String, Option<String>)>,
    /// Only tasks that an update of their service would leave alone.
    pub up_to_date: bool,
}

/// Tasks and what belongs to them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSheet {
    pub tasks: Vec<Arc<Task>>,
    /// Those of the tasks.
    pub endpoints: Vec<Endpoint>,
    /// Those of the endpoints.
    pub networks: Vec<Network>,
}

/// Where the registry credentials of an updated service come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Credentials {
    /// The new spec's, if it has any; else those of the present one.
    #[default]
    Spec,
    PreviousSpec,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRotation {
    pub worker: bool,
    pub manager: bool,
    pub unlock_key: bool,
    /// The hosts' keys for encrypted networks.
    #[serde(default)]
    pub network_keys: bool,
}

/// A root certificate with its key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenRoot {
    pub certificate_pem: String,
    pub key_pem: Content,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachRequest {
    /// Network by id, name or unique id prefix.
    pub network: String,
    /// The node that asks; the manager checks it against the caller's certificate.
    pub node: NodeId,
    pub container: ContainerId,
    pub container_name: String,
    /// Further names on this network: aliases, short id, host name.
    pub aliases: Vec<String>,
    /// Addresses the user fixed; at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// How long to wait for an address when only resting ones remain.
    pub patience: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Done,
    Cluster(Box<Cluster>),
    /// Its text; empty while autolock is off.
    UnlockKey(Content),
    State(Box<StateCopy>),
    Nodes(Vec<Node>),
    Managers(ManagerList),
    Node(Box<Node>),
    Networks(Vec<Network>),
    Network(Box<Network>),
    Attached(Box<Attached>),
    Endpoints(Vec<Endpoint>),
    Services(Vec<(Service, ServiceStatus)>),
    Service(Box<Service>),
    /// A service was written: its id, and what the user should know.
    ServiceWritten {
        id: ServiceId,
        warnings: Vec<String>,
    },
    DryRun(Box<DryRun>),
    Moved(u64),
    Tasks(Vec<Task>),
    Task(Box<Task>),
    TaskSheet(Box<TaskSheet>),
    /// Without content for secrets.
    Payloads(Vec<Payload>),
    Payload(Box<Payload>),
    Paths(Vec<AgedReport>),
    Ports(Vec<ServicePort>),
    /// Of the hosts that answered in time.
    Traffic(Vec<(NodeId, HostTraffic)>),
}

/// The cluster's state as of one entry of the log; its form is the managers' own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateCopy {
    pub cluster: ClusterId,
    pub index: u64,
    pub state: Content,
}

/// Consensus as one manager sees it; the leader knows most.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerList {
    pub term: u64,
    /// Of the log of the manager that answers: its last entry, and the last one that is in its
    /// state.
    pub last_index: u64,
    pub applied_index: u64,
    /// How many have to answer for anything to be decided.
    pub needed: u64,
    pub members: Vec<ManagerPosition>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerPosition {
    pub node: NodeId,
    /// A newcomer has no vote before it has the log.
    pub votes: bool,
    pub leads: bool,
    pub reachable: bool,
    /// Entries behind the leader's log, where the leader answers.
    pub lag: Option<u64>,
    /// Why its word does not count although it answers: its disk has gone back.
    #[serde(default)]
    pub outdated: Option<String>,
}

/// Where the tasks of a service would go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DryRun {
    pub placed: Vec<Placed>,
    /// How many found no node, and the reason.
    pub unplaced: Vec<(u64, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    pub slot: u64,
    pub node: NodeId,
    pub hostname: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    pub endpoint: Endpoint,
    pub network: Network,
    /// The state the host must have reached before it starts the container.
    pub generation: Generation,
    /// Host names that had not confirmed in time; named in an event and the container's status.
    pub late: Vec<String>,
}

/// Something that happened in the cluster, for `/events` with scope `swarm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterEvent {
    /// Docker's word: `network`, `node`, …
    pub kind: String,
    /// Docker's word: `create`, `update`, `remove`.
    pub action: String,
    pub id: String,
    pub attributes: std::collections::BTreeMap<String, String>,
    /// Nanoseconds since the Unix epoch.
    pub time: i64,
}

impl ClusterEvent {
    /// Tells that `count` events are missing here; 0 when nobody knows how many.
    pub fn missed(count: u64, time: i64) -> Self {
        Self {
            kind: "daemon".to_owned(),
            action: "missed".to_owned(),
            id: String::new(),
            attributes: [("count".to_owned(), count.to_string())].into(),
            time,
        }
    }
}
