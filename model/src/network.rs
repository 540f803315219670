//! Cluster networks.

use std::{collections::BTreeMap, net::IpAddr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{Meta, NetworkId};

/// Driver option: the underlay's MTU in bytes; containers get it less the encapsulation.
pub const OPTION_MTU: &str = "com.docker.network.driver.mtu";
/// Driver option: the VNIs to use, comma separated, one per IPv4 subnet.
pub const OPTION_VNI_LIST: &str = "com.docker.network.driver.overlay.vxlanid_list";
/// Driver option: what leaves a host is encrypted.
pub const OPTION_ENCRYPTED: &str = "encrypted";
/// The lowest VNI given automatically.
pub const VNI_FIRST: u32 = 4096;
/// The highest VNI there is (RFC 7348: 24 bits).
pub const VNI_LAST: u32 = (1 << 24) - 1;

/// A swarm-scoped network as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub id: NetworkId,
    pub meta: Meta,
    pub spec: NetworkSpec,
    /// The VXLAN network identifier, by which all subnets of the network travel.
    pub vni: u32,
    /// What was asked, with every choice made: at least one IPv4 subnet, then IPv6 if enabled.
    pub subnets: Vec<Subnet>,
}

/// What the user asks of a network; names and shapes follow `POST /networks/create`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct NetworkSpec {
    pub name: String,
    pub driver: String,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
    pub internal: bool,
    pub attachable: bool,
    pub ingress: bool,
    pub ipv6: bool,
    pub ipam_driver: String,
    pub ipam_options: BTreeMap<String, String>,
    pub ipam: Vec<IpamConfig>,
}

/// One entry of `IPAM.Config` as the user wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct IpamConfig {
    pub subnet: Option<IpNetwork>,
    pub ip_range: Option<IpNetwork>,
    pub gateway: Option<IpAddr>,
    pub aux_addresses: BTreeMap<String, IpAddr>,
}

/// One subnet with every choice made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// Network address and prefix length.
    pub subnet: IpNetwork,
    /// Where addresses are given from; within `subnet`.
    pub range: IpNetwork,
    pub gateway: IpAddr,
    pub aux_addresses: BTreeMap<String, IpAddr>,
}

impl Network {
    pub fn is_encrypted(&self) -> bool {
        self.spec.options.contains_key(OPTION_ENCRYPTED)
    }

    /// The underlay MTU the user fixed, in bytes.
    pub fn underlay_mtu(&self) -> Option<u32> {
        self.spec.options.get(OPTION_MTU)?.parse().ok()
    }
}
