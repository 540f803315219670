//! Hosts of the cluster.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{Meta, NodeId, encryption::HostEncryption, task::GenericResource};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub id: NodeId,
    pub meta: Meta,
    pub spec: NodeSpec,
    /// A small number, unique among the nodes that exist, that fits three bytes; addresses and
    /// marks that must differ by host are made from it.
    pub number: u32,
    pub description: NodeDescription,
    pub status: NodeStatus,
    /// Present on managers only.
    pub manager: Option<ManagerStatus>,
}

/// What the user asks of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    pub name: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub role: Role,
    pub availability: Availability,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Worker,
    Manager,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Availability {
    #[default]
    Active,
    Pause,
    Drain,
}

/// What a node says of itself when it registers and whenever it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct NodeDescription {
    pub hostname: String,
    /// As `uname -m` prints it, for example `x86_64`.
    pub architecture: String,
    pub os: String,
    pub nano_cpus: i64,
    pub memory_bytes: i64,
    pub engine_version: String,
    pub engine_labels: BTreeMap<String, String>,
    /// Where other nodes reach this one (API and Raft), and its VXLAN tunnel endpoint.
    pub advertise: Option<IpAddr>,
    pub data_path: Option<IpAddr>,
    /// Prefixes this host has routes to, so that automatic subnets avoid them.
    pub routes: Vec<IpNetwork>,
    /// Certificate facts for `TLSInfo`, PEM and DER.
    pub tls: Option<TlsInfo>,
    /// What the host's settings declare beside CPUs and memory.
    #[serde(default)]
    pub generic_resources: Vec<GenericResource>,
    /// From when to when the node's certificate is valid, in seconds since the epoch.
    #[serde(default)]
    pub certificate: Option<(i64, i64)>,
    /// Absent: a host of a version that cannot encrypt networks.
    #[serde(default)]
    pub encryption: Option<HostEncryption>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct TlsInfo {
    pub trust_root_pem: String,
    pub issuer_subject_der: Vec<u8>,
    pub issuer_public_key_der: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub state: NodeState,
    /// Why it is so, for people.
    pub message: String,
    /// The address its session comes from.
    pub address: Option<IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    Unknown,
    Down,
    Ready,
    Disconnected,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerStatus {
    pub leader: bool,
    pub reachability: Reachability,
    pub address: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reachability {
    Unknown,
    Unreachable,
    Reachable,
}
