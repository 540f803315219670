//! Endpoints: one container's place on one network.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{ContainerId, EndpointId, Meta, NetworkId, NodeId, ServiceId, TaskId};

/// A container's attachment to a network, decided by the manager.
///
/// Hosts of the network learn it before the container starts, so that forwarding is in
/// place when the first packet leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub id: EndpointId,
    pub meta: Meta,
    pub network: NetworkId,
    /// Empty while its task has no node: the addresses are reserved, and no host is told.
    pub node: NodeId,
    pub owner: EndpointOwner,
    /// Addresses with the subnet's prefix length, IPv4 first.
    pub addresses: Vec<IpNetwork>,
    pub mac: MacAddress,
    /// Names that answer with this endpoint's addresses on this network, the canonical one
    /// (which PTR answers) first.
    pub names: Vec<String>,
    pub state: EndpointState,
}

/// Whose endpoint it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndpointOwner {
    /// A stand-alone container that was attached to an attachable network.
    Container { id: ContainerId, name: String },
    /// A service's task.
    Task {
        id: TaskId,
        service: ServiceId,
        name: String,
    },
}

impl EndpointOwner {
    /// The container's or the task's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Container { name, .. } | Self::Task { name, .. } => name,
        }
    }

    /// The container's or the task's id.
    pub fn id(&self) -> &str {
        match self {
            Self::Container { id, .. } => id.as_str(),
            Self::Task { id, .. } => id.as_str(),
        }
    }
}

/// Where an endpoint is in its life; it only moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EndpointState {
    /// Has its addresses; hosts are programming it.
    Allocated,
    /// Its container runs (a task's is healthy): it is in the names and in load balancing.
    Active,
    /// On its way out: no longer in names nor in load balancing, still forwarded to.
    Draining,
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The address that follows from an endpoint's first IP address: `02:42` and the four
    /// bytes for IPv4, as Docker forms it; `02:43` and the last four for IPv6.
    pub fn from_ip(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                Self([0x02, 0x42, a, b, c, d])
            }
            IpAddr::V6(v6) => {
                let [.., a, b, c, d] = v6.octets();
                Self([0x02, 0x43, a, b, c, d])
            }
        }
    }
}

impl std::fmt::Display for MacAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.map(|octet| format!("{octet:02x}")).join(":"))
    }
}

impl std::fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_follows_from_the_address() {
        for (ip, mac) in [
            ("10.0.1.5", "02:42:0a:00:01:05"),
            ("fd00::1:2", "02:43:00:01:00:02"),
        ] {
            let ip: IpAddr = ip.parse().expect("a literal address");
            assert_eq!(MacAddress::from_ip(ip).to_string(), mac);
        }
    }
}
