//! What the kernel holds and bears our mark: the same shape for the wanted and the seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fmt,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{balance::Balance, desired::HostPort, wireguard::PublicKey};

const GUEST: &str = "guest-";
const HANDED: &str = "guest-handed-";
/// How the name of the host end of a veth pair begins.
pub const PORT: &str = "ovtp";
/// How the name of an interface begins that its owner has not taken yet.
pub const HANDED_DEVICE: &str = "ovtd";
/// How the name of a WireGuard device begins.
pub const TUNNEL: &str = "ovtw";

/// A hardware address; written `02:42:0a:00:00:02`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// One look at this host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    pub facts: Facts,
    pub view: View,
}

/// What we need to know of the host and do not own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The host's addresses with their devices' MTU in bytes.
    pub addresses: BTreeMap<IpAddr, u32>,
    /// The addresses of devices that have some, without the link-local ones of IPv6, which are
    /// none of the host's outside their link.
    #[serde(default)]
    pub interfaces: BTreeMap<String, BTreeSet<IpAddr>>,
    /// MTU of the device of the default route.
    pub default_mtu: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// By tag, see [`tag`].
    pub segments: BTreeMap<String, Segment>,
    /// By the path that the namespace is bound at.
    pub sandboxes: BTreeMap<PathBuf, Sandbox>,
    pub forwarding: Forwarding,
    /// The table `inet overnet` of the host's namespace.
    pub table: Option<Table>,
    /// The host's own ends on ingress networks, by tag.
    pub gateways: BTreeMap<String, Interface>,
    /// The host's table of published ports.
    pub ingress: Option<Table>,
    /// Ports that are held for publishing, so that no other program takes them.
    pub ports: BTreeSet<HostPort>,
    #[serde(default)]
    pub passages: Passages,
    /// WireGuard devices by name.
    #[serde(default)]
    pub tunnels: BTreeMap<String, Tunnel>,
    #[serde(default)]
    pub ways: Ways,
}

/// A WireGuard device, in the kernel or with a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    pub mtu: u32,
    pub up: bool,
    /// Absent: it has none, or its process has gone.
    pub public_key: Option<PublicKey>,
    /// Where it sends from. Absent of the kernel's, which goes by the routes.
    pub local: Option<IpAddr>,
    pub port: u16,
    /// Where each is; nobody else's packets come from there.
    pub peers: BTreeMap<PublicKey, SocketAddr>,
}

impl Tunnel {
    /// Whether it is what is wanted, as far as it says what it is.
    pub fn is_as(&self, wanted: &Self) -> bool {
        let local = self.local.and(wanted.local);
        let wanted = Self {
            local,
            ..wanted.clone()
        };
        *self == wanted
    }
}

/// How packets of encrypted networks are led to the WireGuard devices, by family.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ways {
    pub ipv4: Way,
    pub ipv6: Way,
}

impl Ways {
    pub fn of(&self, ipv6: bool) -> &Way {
        if ipv6 { &self.ipv6 } else { &self.ipv4 }
    }
}

/// Our routing table of one family.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// The UDP port whose packets a rule sends to the table.
    pub rule: Option<u16>,
    /// Whoever has no route there cannot be reached.
    pub closed: bool,
    /// Hosts and the devices that lead to them.
    pub routes: BTreeMap<IpAddr, String>,
}

/// The ways through Docker's firewall, where the host has one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passages {
    pub ipv4: Option<Passage>,
    pub ipv6: Option<Passage>,
}

/// Docker's chain for the rules of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// Docker drops forwarded packets that no rule accepts.
    pub drops: bool,
    /// How many rules of ours are there.
    pub rules: usize,
}

impl Passage {
    /// Rules that let our devices through: one from them, one to them.
    pub const RULES: usize = 2;

    pub fn is_open(self) -> bool {
        self.rules == Self::RULES
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwarding {
    pub ipv4: bool,
    pub ipv6: bool,
}

/// A bridge and what hangs on it: an overlay network in a namespace of its own, or a local one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// In a namespace of its own (overlay) or in the host's (local bridge).
    pub own_namespace: bool,
    pub bridge: Option<Bridge>,
    pub vxlan: Option<Vxlan>,
    /// The host ends of the containers' veth pairs, by device name.
    pub ports: BTreeMap<String, Port>,
    /// Those of them that are not up or whose other end is not; never wanted.
    pub silent: BTreeSet<String>,
    /// Remote MACs and their tunnel endpoints, on the VXLAN device and on the bridge.
    pub forwards: BTreeMap<Mac, IpAddr>,
    /// MACs that stand in only one of these two places; never wanted.
    pub strays: BTreeSet<Mac>,
    /// MACs behind ports.
    pub locals: BTreeMap<Mac, String>,
    /// Permanent neighbours of the bridge, from which it answers ARP and ND.
    pub neighbours: BTreeMap<IpAddr, Mac>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// Its name where a user chose it; the one of ours stands beside it then.
    #[serde(default)]
    pub device: Option<String>,
    pub mac: Mac,
    pub mtu: u32,
    pub up: bool,
    pub addresses: BTreeSet<IpNetwork>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vxlan {
    pub id: u32,
    pub udp_port: u16,
    pub local: IpAddr,
    pub learning: bool,
    pub port: Port,
}

/// A device enslaved to a bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    pub mtu: u32,
    pub up: bool,
    /// Enslaved to the bridge of its segment.
    pub attached: bool,
    pub flags: PortFlags,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortFlags {
    pub learning: bool,
    /// Of unknown unicast.
    pub flood: bool,
    pub multicast_flood: bool,
    pub broadcast_flood: bool,
    pub neigh_suppress: bool,
    pub isolated: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    pub loopback_up: bool,
    /// By name; only those that are wanted are compared.
    pub interfaces: BTreeMap<String, Interface>,
    /// Default routes: next hop and device.
    pub routes: BTreeSet<(IpAddr, String)>,
    /// The table `inet overnet` of the sandbox.
    pub table: Option<Table>,
    /// Its table of virtual IPs.
    pub balance: Option<Balance>,
    /// Which host a connection came by, and the way back there.
    pub ingress: Option<Table>,
    pub back: Option<Table>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Name of its other end, which is kept as its alias.
    #[serde(default)]
    pub port: String,
    pub mac: Mac,
    pub mtu: u32,
    pub up: bool,
    pub addresses: BTreeSet<IpNetwork>,
}

/// A table of ours as it can be read back cheaply: the rules by their comments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// By chain, in order. A rule without a comment of ours reads as an empty string.
    pub chains: BTreeMap<String, Vec<String>>,
    /// Elements in network byte order.
    pub sets: BTreeMap<String, BTreeSet<Vec<u8>>>,
}

/// Where a device lives.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Place {
    Host,
    /// The namespace of the overlay network with this tag.
    Overlay(String),
    Sandbox(PathBuf),
}

impl Segment {
    pub fn place(&self, tag: &str) -> Place {
        if self.own_namespace {
            Place::Overlay(tag.to_owned())
        } else {
            Place::Host
        }
    }
}

/// The mark in device and file names: 11 hexadecimal digits of FNV-1a over an id, since a
/// device name has room for 15 characters and ids are longer.
pub fn tag(id: &str) -> String {
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{:011x}", (hash ^ (hash >> 44)) & 0xfff_ffff_ffff)
}

pub fn bridge_name(tag: &str) -> String {
    format!("ovtb{tag}")
}

pub fn vxlan_name(tag: &str) -> String {
    format!("ovtv{tag}")
}

/// The file that the namespace of a guest is bound at, among those of our own sandboxes: its name
/// is how it is known as somebody else's after a kill.
pub fn guest_name(id: &str) -> String {
    format!("{GUEST}{id}")
}

/// Whether the sandbox bound at `path` is somebody else's namespace, which is never made, and
/// left as it was found.
pub fn is_guest(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str);
    name.is_some_and(|name| name.starts_with(GUEST))
}

/// As [`guest_name`], of one whose interface its owner takes into the namespace himself.
pub fn handed_name(id: &str) -> String {
    format!("{HANDED}{id}")
}

/// Whether the interfaces of this guest are born in the host's namespace.
pub fn is_handed(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str);
    name.is_some_and(|name| name.starts_with(HANDED))
}

/// What an interface is called until its owner takes it.
pub fn handed_device(endpoint: &str) -> String {
    format!("{HANDED_DEVICE}{}", tag(endpoint))
}

/// The WireGuard device of a generation of keys: two of them can be side by side.
pub fn tunnel_name(generation: u64) -> String {
    format!("{TUNNEL}{}", generation % 2)
}

/// The host's own interface on an ingress network.
pub fn gateway_name(tag: &str) -> String {
    format!("ovtg{tag}")
}

/// The host end of an endpoint's veth pair.
pub fn port_name(endpoint: &str) -> String {
    format!("{PORT}{}", tag(endpoint))
}

/// Stays the same when ports come and go; an own one would be the lowest of the ports'.
pub fn bridge_mac(tag: &str) -> Mac {
    let hash = u64::from_str_radix(tag, 16).unwrap_or_default();
    let bytes = hash.to_be_bytes();
    Mac([0x02, 0x6f, bytes[4], bytes[5], bytes[6], bytes[7]])
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, byte) in self.0.iter().enumerate() {
            let colon = if place == 0 { "" } else { ":" };
            write!(out, "{colon}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes: Vec<u8> = text
            .split(':')
            .map(|part| u8::from_str_radix(part, 16))
            .collect::<Result<_, _>>()
            .map_err(serde::de::Error::custom)?;
        bytes
            .try_into()
            .map(Mac)
            .map_err(|_| serde::de::Error::custom(format!("{text:?} is not a MAC address")))
    }
}
