//! The cluster's own object.

use std::{collections::BTreeMap, time::Duration};

use ipnetwork::{IpNetwork, Ipv6Network};
use serde::{Deserialize, Serialize};

use crate::{ClusterId, Meta, encryption::KeyPhase};

/// UDP port of VXLAN (RFC 7348) unless the cluster was made with another.
pub const DEFAULT_DATA_PATH_PORT: u16 = 4789;
/// TCP port of the managers.
pub const DEFAULT_MANAGER_PORT: u16 = 2377;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    pub id: ClusterId,
    pub meta: Meta,
    pub spec: ClusterSpec,
    /// Pools that automatic subnets are cut from.
    pub address_pools: Vec<IpNetwork>,
    /// Prefix length of an automatic IPv4 subnet.
    pub subnet_size: u8,
    /// Prefix length of the ingress network's IPv4 subnet.
    pub ingress_size: u8,
    /// The random unique local /48 (RFC 4193) that automatic IPv6 subnets are cut from.
    pub ipv6_pool: Ipv6Network,
    pub data_path_port: u16,
    /// The root certificate: what join tokens vouch for.
    pub root_ca_pem: String,
    /// Present while the root certificate is replaced.
    #[serde(default)]
    pub rotation: Option<RootRotation>,
    pub join_tokens: JoinTokens,
    /// Of the hosts' keys for encrypted networks.
    #[serde(default)]
    pub network_keys: KeyPhase,
}

impl Cluster {
    /// The root certificates that nodes trust now, the present one first.
    pub fn trusted_pem(&self) -> String {
        let next = self.rotation.as_ref();
        let next = next.map_or("", |rotation| rotation.root_ca_pem.as_str());
        format!("{}{next}", self.root_ca_pem)
    }
}

/// A root certificate that is becoming the cluster's.
///
/// From its beginning on certificates are signed with the new root's key; it ends when every node
/// of the cluster has such a one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootRotation {
    pub root_ca_pem: String,
    /// The new root's key, certified by the present root: whoever knows only that one accepts
    /// what the new key has signed.
    pub cross_signed_pem: String,
}

/// Join tokens; they are credentials, so `Debug` hides them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct JoinTokens {
    pub worker: String,
    pub manager: String,
}

impl std::fmt::Debug for JoinTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JoinTokens(hidden)")
    }
}

/// What `swarm update` edits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSpec {
    pub labels: BTreeMap<String, String>,
    pub task_history_limit: i64,
    pub heartbeat_period: Duration,
    pub node_cert_expiry: Duration,
    pub snapshot_interval: u64,
    pub keep_old_snapshots: u64,
    pub autolock: bool,
    /// Another number asks for another root certificate.
    #[serde(default)]
    pub force_rotate: u64,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self {
            labels: BTreeMap::new(),
            task_history_limit: 5,
            heartbeat_period: Duration::from_secs(1),
            node_cert_expiry: Duration::from_secs(90 * 24 * 3600),
            snapshot_interval: 10_000,
            keep_old_snapshots: 0,
            autolock: false,
            force_rotate: 0,
        }
    }
}
