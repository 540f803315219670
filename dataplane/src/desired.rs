//! What this host's networks should look like: plain data, no kernel.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{
    view::{bridge_name, tag},
    wireguard::PublicKey,
};

/// The whole wish of one host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Desired {
    /// Absent on a host that is in no cluster; then there are no overlay networks.
    pub underlay: Option<Underlay>,
    /// By network id.
    pub networks: BTreeMap<String, Network>,
    /// By sandbox id.
    pub sandboxes: BTreeMap<String, Sandbox>,
    /// By endpoint id; each names its network.
    pub remotes: BTreeMap<String, Remote>,
    /// By an id of the giver's choice.
    pub vips: BTreeMap<String, Vip>,
    /// By an id of the giver's choice.
    pub published: BTreeMap<String, Published>,
}

/// This host's place on the network that carries the tunnels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Underlay {
    /// This host's VXLAN tunnel endpoint (VTEP).
    pub address: IpAddr,
    /// UDP port of VXLAN.
    pub port: u16,
    /// VTEPs of the other members of the cluster: VXLAN from anybody else is dropped.
    pub peers: BTreeMap<IpAddr, PeerFacts>,
    /// For the networks that are encrypted.
    #[serde(default)]
    pub tunnels: Tunnels,
}

/// This host's keys, each a device of its own, by their generation: while keys are rotated there
/// are two of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnels {
    pub keys: BTreeMap<u64, OwnKey>,
    /// The generation that is sent with where the other side has it; every one is received with.
    pub sending: u64,
}

/// A key of this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnKey {
    pub public: PublicKey,
    /// Where the private key is read when a device needs it.
    pub file: PathBuf,
    /// UDP port of WireGuard.
    pub port: u16,
}

/// A key of another host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerKey {
    pub public: PublicKey,
    pub port: u16,
}

/// What the dataplane needs to know of another host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerFacts {
    /// The host's number in the cluster.
    pub number: u32,
    pub hostname: String,
    /// The cluster has lost it: what is sent to its containers is answered in their place.
    #[serde(default)]
    pub down: bool,
    /// By generation, see [`Tunnels`].
    #[serde(default)]
    pub keys: BTreeMap<u64, PeerKey>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The name the user gave, for messages only.
    pub name: String,
    pub kind: NetworkKind,
    /// IPv4 first; at least one.
    pub subnets: Vec<Subnet>,
    /// MTU of the containers' interfaces in bytes; absent: follow the underlay.
    #[serde(default)]
    pub mtu: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    pub subnet: IpNetwork,
    pub gateway: IpAddr,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkKind {
    /// A bridge and a VXLAN device in a network namespace of their own.
    Overlay {
        vni: u32,
        /// What leaves the host goes by WireGuard, or not at all.
        #[serde(default)]
        encrypted: bool,
    },
    /// A bridge in the host's namespace that owns the gateway addresses.
    Bridge {
        /// Translate what leaves the host to the host's address.
        masquerade: bool,
        /// Keep the bridge's ports from reaching each other.
        isolated: bool,
        /// Nothing goes out of it or comes in, but from this host's own programs.
        #[serde(default)]
        internal: bool,
        /// The bridge's name as a device; absent: one of ours.
        #[serde(default)]
        device: Option<String>,
    },
}

impl Network {
    pub fn is_encrypted(&self) -> bool {
        matches!(
            self.kind,
            NetworkKind::Overlay {
                encrypted: true,
                ..
            }
        )
    }

    /// The name of its bridge, `id` being the network's.
    pub fn bridge(&self, id: &str) -> String {
        match &self.kind {
            NetworkKind::Bridge {
                device: Some(name), ..
            } => name.clone(),
            NetworkKind::Bridge { device: None, .. } | NetworkKind::Overlay { .. } => {
                bridge_name(&tag(id))
            }
        }
    }
}

/// One container's network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Where the namespace is bound; made when it is missing.
    pub netns: PathBuf,
    pub interfaces: Vec<Interface>,
    /// Absent: no name server at 127.0.0.11 (default bridge, host and none networks).
    #[serde(default)]
    pub dns: Option<Dns>,
    /// Connections into it are counted, so the kernel has to track them.
    #[serde(default)]
    pub counted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Endpoint id; unique on the host.
    pub endpoint: String,
    /// Network id.
    pub network: String,
    /// Name inside the sandbox, `eth0`, `eth1`, ….
    pub name: String,
    /// Addresses with the subnet's prefix length.
    pub addresses: Vec<IpNetwork>,
    pub mac: [u8; 6],
    /// Next hops of default routes over this interface, at most one of each family.
    #[serde(default)]
    pub default_via: Vec<IpAddr>,
    /// On an ingress network: published ports lead to the container by this interface. Its
    /// default routes go by this host's gateway then, instead of any `default_via`, and answers
    /// by the gateway of the host that the question came in by.
    #[serde(default)]
    pub publishes: bool,
    /// Names that answer with `addresses` on this network, the canonical one first; empty
    /// while the container does not run.
    #[serde(default)]
    pub names: Vec<String>,
}

/// The sandbox's resolver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Where questions about foreign names go, in order; asked from the host's namespace.
    pub upstreams: Vec<SocketAddr>,
}

/// A container on another host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    pub network: String,
    pub addresses: Vec<IpAddr>,
    pub mac: [u8; 6],
    pub vtep: IpAddr,
    /// As [`Interface::names`].
    #[serde(default)]
    pub names: Vec<String>,
}

/// A virtual IP: what is sent to its addresses from the sandboxes of its network, of whatever
/// protocol and port, goes to one of its backends, chosen at random for each connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vip {
    /// Network id.
    pub network: String,
    /// The virtual addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Names that answer with `addresses` on this network, the canonical one first; an endpoint
    /// of the same name is not answered then.
    #[serde(default)]
    pub names: Vec<String>,
    /// By endpoint id, the addresses of those that get new connections. Without any, new
    /// connections are refused.
    #[serde(default)]
    pub backends: BTreeMap<String, Vec<IpAddr>>,
}

/// A port of this host's addresses that leads to containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Id of the network that it leads to: an ingress network (an overlay network, on any host),
    /// or a local bridge of this host.
    pub network: String,
    pub protocol: Protocol,
    /// Of the host.
    pub port: u16,
    /// The host's only address that leads there; absent: all of them.
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// Only the addresses of this interface lead there, whatever they are at the time; beside no
    /// `address`.
    #[serde(default)]
    pub interface: Option<String>,
    /// Of the tasks.
    pub target: u16,
    /// By endpoint id, the addresses of those that get new connections. Without any, new
    /// connections are refused.
    #[serde(default)]
    pub backends: BTreeMap<String, Vec<IpAddr>>,
}

/// A port of this host, of all its addresses or of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HostPort {
    pub protocol: Protocol,
    pub port: u16,
    #[serde(default)]
    pub address: Option<IpAddr>,
}

impl HostPort {
    /// Of all addresses.
    pub fn any(protocol: Protocol, port: u16) -> Self {
        Self {
            protocol,
            port,
            address: None,
        }
    }
}

/// As users write it: `8000/tcp`, `192.0.2.1:8000/tcp`.
impl fmt::Display for HostPort {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = self.protocol.as_str();
        match self.address {
            Some(address) => {
                let at = SocketAddr::new(address, self.port);
                write!(out, "{at}/{protocol}")
            }
            None => write!(out, "{}/{protocol}", self.port),
        }
    }
}

impl Published {
    /// Without the interface, see [`crate::ingress::host_ports`].
    pub fn host_port(&self) -> HostPort {
        HostPort {
            protocol: self.protocol,
            port: self.port,
            address: self.address,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
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

    /// The protocol with this number.
    pub fn of_number(number: u8) -> Option<Self> {
        let all = [Self::Tcp, Self::Udp, Self::Sctp];
        all.into_iter().find(|one| one.number() == number)
    }

    /// As in an IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// A step from one wish to the next. Applying one twice changes nothing more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    SetUnderlay(Option<Underlay>),
    SetNetwork(String, Network),
    RemoveNetwork(String),
    SetSandbox(String, Sandbox),
    RemoveSandbox(String),
    SetRemote(String, Remote),
    RemoveRemote(String),
    SetVip(String, Vip),
    RemoveVip(String),
    SetPublished(String, Published),
    RemovePublished(String),
}

impl Desired {
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::SetUnderlay(underlay) => self.underlay = underlay,
            Change::SetNetwork(id, network) => {
                self.networks.insert(id, network);
            }
            Change::RemoveNetwork(id) => {
                self.networks.remove(&id);
            }
            Change::SetSandbox(id, sandbox) => {
                self.sandboxes.insert(id, sandbox);
            }
            Change::RemoveSandbox(id) => {
                self.sandboxes.remove(&id);
            }
            Change::SetRemote(id, remote) => {
                self.remotes.insert(id, remote);
            }
            Change::RemoveRemote(id) => {
                self.remotes.remove(&id);
            }
            Change::SetVip(id, vip) => {
                self.vips.insert(id, vip);
            }
            Change::RemoveVip(id) => {
                self.vips.remove(&id);
            }
            Change::SetPublished(id, published) => {
                self.published.insert(id, published);
            }
            Change::RemovePublished(id) => {
                self.published.remove(&id);
            }
        }
    }
}
