//! Our nftables rules, as values: rendered to text for people and to netlink for the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{
    desired::{Desired, NetworkKind},
    dns, encryption,
    view::{Table, tag},
};

/// Our tables; each is replaced as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TableName {
    /// Of the host, and of every sandbox with a resolver.
    #[default]
    Overnet,
    /// Published ports: of the host, and of every sandbox that publishes.
    Ingress,
    /// The way back of a sandbox that publishes; of the family `netdev`.
    Back,
}

impl TableName {
    pub fn text(self) -> &'static str {
        match self {
            Self::Overnet => "overnet",
            Self::Ingress => "overnet-ingress",
            Self::Back => "overnet-back",
        }
    }

    /// As in linux/netfilter.h: `inet` or `netdev`.
    pub fn family(self) -> u8 {
        if self == Self::Back { 5 } else { 1 }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruleset {
    pub name: TableName,
    /// By name: bytes of a key, nftables' number of its type, elements.
    pub sets: BTreeMap<String, Set>,
    pub maps: BTreeMap<String, Map>,
    pub chains: Vec<Chain>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    pub key_type: u32,
    pub key_length: u32,
    /// Each element counts the packets and bytes that it was found for.
    #[serde(default)]
    pub counted: bool,
    pub elements: BTreeSet<Vec<u8>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map {
    /// nftables' number and bytes.
    pub key: (u32, u32),
    /// The same of the values; absent: they are names of chains to go to.
    pub data: Option<(u32, u32)>,
    pub elements: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    pub name: String,
    /// `filter` or `nat`; empty for a chain that only others lead to.
    pub kind: String,
    /// Of netfilter: 0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting; of netdev 1 egress.
    pub hook: u32,
    pub priority: i32,
    /// Of a chain of the family `netdev`.
    #[serde(default)]
    pub device: Option<String>,
    pub rules: Vec<Vec<Part>>,
}

/// One piece of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    Ipv4,
    Ipv6,
    /// Transport protocol and destination port.
    UdpTo(u16),
    TcpTo(u16),
    /// The VXLAN network identifier (RFC 7348, section 5) is in the set.
    VniIn(String),
    /// The source address is not in the set; 4 or 6 by the family named before.
    SourceNotIn {
        set: String,
        ipv6: bool,
    },
    /// The address is in the set.
    SourceIn {
        set: String,
        ipv6: bool,
    },
    DestinationIn {
        set: String,
        ipv6: bool,
    },
    From(IpNetwork),
    To(IpNetwork),
    In(String),
    Out(String),
    NotOut(String),
    /// Output device is one of ours (`ovtb*`).
    OutOurs,
    InOurs,
    /// Input device is a WireGuard device of ours (`ovtw*`).
    InTunnel,
    NotInTunnel,
    NotOutTunnel,
    Established,
    Count,
    Accept,
    Drop,
    Notrack,
    Masquerade,
    TcpFrom(u16),
    UdpFrom(u16),
    /// Another port in place of the packet's, without connection tracking.
    SetPort {
        tcp: bool,
        source: bool,
        port: u16,
    },
    /// On to the chain of the virtual address that the packet is for.
    ToVip {
        ipv6: bool,
    },
    /// The destination is an address of this host's.
    ToHost,
    /// On to the chain of the published port that the packet is for.
    ToPublished {
        ipv6: bool,
    },
    /// The same of ports that one address of the host's has.
    ToBound {
        ipv6: bool,
    },
    GoTo(String),
    DnatAmong {
        backends: Vec<IpAddr>,
        port: u16,
    },
    DnatTo {
        backend: IpAddr,
        port: u16,
    },
    ResetTcp,
    Unreachable,
    /// The device is a host's gateway to an ingress network (`ovtg*`).
    InGateway,
    OutGateway,
    NotOutGateway,
    /// The connection's destination was translated.
    Translated,
    SnatTo(IpAddr),
    New,
    /// Remembers with the connection which host it came by.
    MarkHost,
    /// Opens a TCP connection.
    Opens,
    /// Comes from another host than the connection came by first.
    ByAnotherHost,
    MarkPacket,
    /// Bears this mark.
    Marked(u32),
    /// To the gateway that the mark names.
    BackToHost,
}

/// The map from protocols and published ports to chains.
pub fn published(ipv6: bool) -> &'static str {
    if ipv6 { "ports6" } else { "ports4" }
}

/// The map from addresses, protocols and published ports to chains.
pub fn bound(ipv6: bool) -> &'static str {
    if ipv6 { "bound6" } else { "bound4" }
}

/// The map from virtual addresses to chains.
pub fn vips(ipv6: bool) -> &'static str {
    if ipv6 { "vips6" } else { "vips4" }
}

impl Ruleset {
    /// What reading this ruleset back gives.
    pub fn table(&self) -> Table {
        Table {
            chains: self
                .chains
                .iter()
                .map(|chain| {
                    (
                        chain.name.clone(),
                        chain.rules.iter().map(|r| comment(r)).collect(),
                    )
                })
                .collect(),
            sets: self
                .sets
                .iter()
                .map(|(name, set)| (name.clone(), set.elements.clone()))
                .chain(self.maps.iter().map(|(name, map)| {
                    let both = |(key, value): (&Vec<u8>, &Vec<u8>)| [&**key, &**value].concat();
                    (name.clone(), map.elements.iter().map(both).collect())
                }))
                .collect(),
        }
    }
}

/// The comment by which a rule is known again: its text, at most 120 bytes.
pub fn comment(rule: &[Part]) -> String {
    let text = rule.iter().map(Part::text).collect::<Vec<_>>().join(" ");
    if text.len() <= 120 {
        text
    } else {
        format!("{} {}", &text[..100], tag(&text))
    }
}

impl Part {
    fn text(&self) -> String {
        match self {
            Self::Ipv4 => "ip".into(),
            Self::Ipv6 => "ip6".into(),
            Self::UdpTo(port) => format!("udp dport {port}"),
            Self::TcpTo(port) => format!("tcp dport {port}"),
            Self::VniIn(set) => format!("vni @{set}"),
            Self::SourceNotIn { set, .. } => format!("saddr != @{set}"),
            Self::SourceIn { set, .. } => format!("saddr @{set}"),
            Self::DestinationIn { set, .. } => format!("daddr @{set}"),
            Self::From(net) => format!("saddr {net}"),
            Self::To(net) => format!("daddr {net}"),
            Self::In(device) => format!("iifname {device}"),
            Self::Out(device) => format!("oifname {device}"),
            Self::NotOut(device) => format!("oifname != {device}"),
            Self::InOurs => "iifname ovtb*".into(),
            Self::OutOurs => "oifname ovtb*".into(),
            Self::InTunnel => "iifname ovtw*".into(),
            Self::NotInTunnel => "iifname != ovtw*".into(),
            Self::NotOutTunnel => "oifname != ovtw*".into(),
            Self::Established => "ct state established,related".into(),
            Self::Count => "counter".into(),
            Self::Accept => "accept".into(),
            Self::Drop => "drop".into(),
            Self::Notrack => "notrack".into(),
            Self::Masquerade => "masquerade".into(),
            Self::ToVip { ipv6 } => {
                let family = if *ipv6 { "ip6" } else { "ip" };
                format!("{family} daddr vmap @{}", vips(*ipv6))
            }
            Self::ToHost => "fib daddr type local".into(),
            Self::ToPublished { ipv6 } => {
                format!("meta l4proto . th dport vmap @{}", published(*ipv6))
            }
            Self::ToBound { ipv6 } => {
                let family = if *ipv6 { "ip6" } else { "ip" };
                format!(
                    "{family} daddr . meta l4proto . th dport vmap @{}",
                    bound(*ipv6)
                )
            }
            Self::GoTo(chain) => format!("goto {chain}"),
            Self::DnatAmong { backends, port } => {
                let family = if backends.iter().any(IpAddr::is_ipv6) {
                    "ip6"
                } else {
                    "ip"
                };
                let elements = backends.iter().enumerate();
                let list: Vec<_> = elements.map(|(n, to)| format!("{n} : {to}")).collect();
                format!(
                    "dnat {family} to numgen random mod {} map {{ {} }}:{port}",
                    backends.len(),
                    list.join(", ")
                )
            }
            Self::DnatTo { backend, port } => {
                let family = if backend.is_ipv6() { "ip6" } else { "ip" };
                format!("dnat {family} to {}", SocketAddr::new(*backend, *port))
            }
            Self::ResetTcp => "meta l4proto tcp reject with tcp reset".into(),
            Self::Unreachable => "reject with icmpx port-unreachable".into(),
            Self::InGateway => "iifname ovtg*".into(),
            Self::OutGateway => "oifname ovtg*".into(),
            Self::NotOutGateway => "oifname != ovtg*".into(),
            Self::Translated => "ct status dnat".into(),
            Self::SnatTo(address) => format!("snat to {address}"),
            Self::New => "ct state new".into(),
            Self::MarkHost => "ct mark set ether saddr map @hosts".into(),
            Self::Opens => "tcp flags & (fin|syn|rst|ack) == syn".into(),
            Self::ByAnotherHost => "ether saddr . ct mark != @ways".into(),
            Self::MarkPacket => "meta mark set ct mark".into(),
            Self::Marked(mark) => format!("meta mark {mark:#010x}"),
            Self::BackToHost => "ether daddr set meta mark map @back".into(),
            Self::UdpFrom(port) => format!("udp sport {port}"),
            Self::TcpFrom(port) => format!("tcp sport {port}"),
            Self::SetPort { tcp, source, port } => {
                let protocol = if *tcp { "tcp" } else { "udp" };
                let side = if *source { "sport" } else { "dport" };
                format!("{protocol} {side} set {port}")
            }
        }
    }
}

/// The host's table; none on a host that has no network of ours.
pub fn host(desired: &Desired) -> Option<Ruleset> {
    let mut rules = Ruleset::default();
    let (mut input, mut raw_in, mut raw_out) = (Vec::new(), Vec::new(), Vec::new());
    let (mut forward, mut nat, mut guard) = (Vec::new(), Vec::new(), Vec::new());
    if let Some(underlay) = &desired.underlay {
        let vnis = desired
            .networks
            .values()
            .filter_map(|network| match network.kind {
                NetworkKind::Overlay {
                    vni,
                    encrypted: false,
                } => Some(vni.to_be_bytes()[1..].to_vec()),
                NetworkKind::Overlay { .. } | NetworkKind::Bridge { .. } => None,
            });
        let peers = |ipv6: bool| -> BTreeSet<Vec<u8>> {
            let known = underlay
                .peers
                .keys()
                .filter(|address| address.is_ipv6() == ipv6);
            known.map(octets).collect()
        };
        let set = |key_type, key_length, elements| Set {
            key_type,
            key_length,
            counted: false,
            elements,
        };
        rules.sets.insert("vnis".into(), set(4, 3, vnis.collect()));
        rules.sets.insert("peers4".into(), set(7, 4, peers(false)));
        rules.sets.insert("peers6".into(), set(8, 16, peers(true)));
        let port = underlay.port;
        for (family, ipv6, set) in [(Part::Ipv4, false, "peers4"), (Part::Ipv6, true, "peers6")] {
            input.push(vec![
                family,
                Part::UdpTo(port),
                Part::VniIn("vnis".into()),
                Part::SourceNotIn {
                    set: set.into(),
                    ipv6,
                },
                Part::Count,
                Part::Drop,
            ]);
        }
        raw_in.push(vec![Part::UdpTo(port), Part::Notrack]);
        raw_out.push(vec![Part::UdpTo(port), Part::Notrack]);
        if encryption::is_on(desired) {
            let secret = encryption::vnis(desired);
            rules.sets.insert("secret".into(), set(4, 3, secret));
            let port = encryption::port(underlay);
            let ours = || [Part::UdpTo(port), Part::VniIn("secret".into())];
            let drop = || [Part::Count, Part::Drop];
            // In clear from whomever it comes; and in clear it does not leave, whatever the routes say.
            input.push([&ours()[..], &[Part::NotInTunnel], &drop()].concat());
            guard.push([&ours()[..], &[Part::NotOutTunnel], &drop()].concat());
            // Out of a tunnel comes what it is for, and nothing else past the host's firewall.
            raw_in.push(vec![
                Part::InTunnel,
                Part::UdpTo(port),
                Part::ToHost,
                Part::Notrack,
                Part::Accept,
            ]);
            raw_in.push([&[Part::InTunnel][..], &drop()].concat());
            raw_out.push(vec![Part::UdpTo(port), Part::Notrack]);
        }
    }
    // Our devices, by the beginning of their name, and those whose name a user chose.
    let (mut arrivals, mut departures) = (vec![Part::InOurs], vec![Part::OutOurs]);
    let mut bridges = false;
    for (id, network) in &desired.networks {
        let NetworkKind::Bridge {
            masquerade,
            isolated,
            internal,
            device: named,
        } = &network.kind
        else {
            continue;
        };
        bridges = true;
        let device = network.bridge(id);
        if *internal {
            let outward = [Part::In(device.clone()), Part::NotOut(device.clone())];
            forward.push([&outward[..], &[Part::Count, Part::Drop]].concat());
        }
        // What its ports may not do directly they may not do by way of the gateway either.
        if !isolated {
            forward.push(vec![
                Part::In(device.clone()),
                Part::Out(device.clone()),
                Part::Accept,
            ]);
        }
        if named.is_some() {
            arrivals.push(Part::In(device.clone()));
            departures.push(Part::Out(device.clone()));
        }
        if *masquerade && !internal {
            for subnet in &network.subnets {
                let family = if subnet.subnet.is_ipv6() {
                    Part::Ipv6
                } else {
                    Part::Ipv4
                };
                nat.push(vec![
                    family,
                    Part::From(subnet.subnet),
                    Part::NotOut(device.clone()),
                    Part::Masquerade,
                ]);
            }
        }
    }
    if bridges {
        // These addresses are let through to our bridges for this host's own programs only.
        for arrival in arrivals {
            for part in [Part::To(loopback()), Part::From(loopback())] {
                raw_in.push(vec![arrival.clone(), Part::Ipv4, part, Part::Drop]);
            }
        }
        // Networks do not reach each other, and nobody outside opens a connection into them.
        for departure in departures {
            forward.push(vec![departure.clone(), Part::Established, Part::Accept]);
            // But to a port that was published.
            forward.push(vec![departure.clone(), Part::Translated, Part::Accept]);
            forward.push(vec![departure, Part::Count, Part::Drop]);
        }
    }
    let chain = |name: &str, kind: &str, hook, priority, rules: Vec<Vec<Part>>| {
        (!rules.is_empty()).then(|| Chain {
            name: name.into(),
            kind: kind.into(),
            hook,
            priority,
            device: None,
            rules,
        })
    };
    rules.chains = [
        chain("tunnels", "filter", 1, 0, input),
        chain("raw-in", "filter", 0, -300, raw_in),
        chain("untracked-out", "filter", 3, -300, raw_out),
        chain("forward", "filter", 2, 0, forward),
        chain("egress", "nat", 4, 100, nat),
        chain("guard", "filter", 4, 0, guard),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!rules.chains.is_empty()).then_some(rules)
}

/// The table of a sandbox with a resolver: port 53 leads to the port we listen on, so that the
/// container may run a name server of its own.
///
/// Ports are rewritten both ways instead of translated: one chain of address translation in a
/// namespace makes the kernel track every connection of it.
pub fn sandbox() -> Ruleset {
    const NAMES: u16 = 53;
    let net = IpNetwork::from(IpAddr::V4(dns::ADDRESS));
    let there = |tcp| {
        let to = if tcp { Part::TcpTo } else { Part::UdpTo };
        let port = dns::PORT;
        let set = Part::SetPort {
            tcp,
            source: false,
            port,
        };
        vec![Part::Ipv4, Part::To(net), to(NAMES), Part::Notrack, set]
    };
    let back = |tcp| {
        let from = if tcp { Part::TcpFrom } else { Part::UdpFrom };
        let set = Part::SetPort {
            tcp,
            source: true,
            port: NAMES,
        };
        let ours = from(dns::PORT);
        vec![Part::Ipv4, Part::From(net), ours, Part::Notrack, set]
    };
    Ruleset {
        chains: vec![Chain {
            name: "resolver".into(),
            kind: "filter".into(),
            hook: 3,
            priority: -300,
            device: None,
            rules: vec![there(false), there(true), back(false), back(true)],
        }],
        ..Ruleset::default()
    }
}

/// The addresses of the host's own programs.
pub fn loopback() -> IpNetwork {
    let address = std::net::Ipv4Addr::new(127, 0, 0, 0);
    let net = ipnetwork::Ipv4Network::new(address, 8);
    IpNetwork::V4(net.expect("8 is a prefix length"))
}

pub fn octets(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::{Network, Subnet};

    fn forward(internal: bool, isolated: bool, device: Option<&str>) -> Vec<String> {
        let mut desired = Desired::default();
        let network = Network {
            name: "red".into(),
            kind: NetworkKind::Bridge {
                masquerade: true,
                isolated,
                internal,
                device: device.map(str::to_owned),
            },
            subnets: vec![Subnet {
                subnet: "10.9.0.0/24".parse().unwrap(),
                gateway: "10.9.0.1".parse().unwrap(),
            }],
            mtu: None,
        };
        desired.networks.insert("red".into(), network);
        let table = host(&desired).unwrap().table();
        assert_eq!(table.chains.contains_key("egress"), !internal);
        let name = desired.networks["red"].bridge("red");
        let rules = table.chains["forward"].iter();
        rules.map(|rule| rule.replace(&name, "B")).collect()
    }

    #[test]
    fn bridges_are_apart_and_internal_ones_closed() {
        let known = |device: &str| {
            [
                "ct state established,related accept",
                "ct status dnat accept",
                "counter drop",
            ]
            .map(|end| format!("oifname {device} {end}"))
        };
        let between = || vec!["iifname B oifname B accept".to_owned()];
        let closed = || vec!["iifname B oifname != B counter drop".to_owned()];
        let ours = known("ovtb*").to_vec();
        let with = |parts: [Vec<String>; 2]| parts.concat();
        assert_eq!(forward(false, false, None), with([between(), ours.clone()]));
        assert_eq!(forward(false, true, None), ours);
        assert_eq!(
            forward(true, false, None),
            [closed(), between(), ours.clone()].concat()
        );
        assert_eq!(
            forward(false, false, Some("br-red")),
            [between(), ours, known("B").to_vec()].concat()
        );
    }
}
