//! The nftables of published ports: of the host, and of a sandbox that publishes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnetwork::IpNetwork;

use super::{
    gateway_mac, gone, host_ports, hosts, inward, key, locals, mark, networks, nudge, ports,
};
use crate::{
    conntrack::place,
    desired::{Desired, NetworkKind, Published, Sandbox},
    firewall::maps::{IPV4, IPV6},
    rules::{
        Chain, Map, Part, Ruleset, Set, TableName, bound as bound_name, loopback, octets,
        published as map_name,
    },
    view::{Facts, tag},
};

/// nftables' numbers of types, and bytes.
const MAC: (u32, u32) = (9, 6);
const MARK: (u32, u32) = (19, 4);
/// A protocol and a port, each filled up to four bytes.
const PROTOCOL_PORT: (u32, u32) = (0x30d, 8);
/// The types of an address with these behind.
const BOUND4: u32 = 7 << 12 | 0x30d;
const BOUND6: u32 = 8 << 12 | 0x30d;

/// The addresses that count for tasks: packets to them, from them, and new connections.
pub const COUNTED: [(&str, &str); 3] = [("to4", "to6"), ("from4", "from6"), ("new4", "new6")];

/// What is sent to a port of one of the host's addresses goes to a container; into an ingress
/// network goes nothing else.
pub fn host(desired: &Desired, facts: &Facts) -> Option<Ruleset> {
    let networks = networks(desired);
    let locals = locals(desired);
    if networks.is_empty() && locals.is_empty() {
        return None;
    }
    let mut leads = Vec::new();
    let mut maps = BTreeMap::new();
    for ipv6 in [false, true] {
        let map = |key| Map {
            key,
            ..Map::default()
        };
        let (bound_key, address) = if ipv6 { (BOUND6, 16) } else { (BOUND4, 4) };
        maps.insert(map_name(ipv6).to_owned(), map(PROTOCOL_PORT));
        let bound_key = (bound_key, address + PROTOCOL_PORT.1);
        maps.insert(bound_name(ipv6).to_owned(), map(bound_key));
    }
    let known = desired.published.iter().filter(|(_, published)| {
        let network = published.network.as_str();
        networks.contains(network) || locals.contains(network)
    });
    for (id, published) in known {
        let ports = host_ports(published, facts);
        for ipv6 in [false, true] {
            let own = ports.iter().filter(|port| {
                let address = port.address;
                address.is_none_or(|address| address.is_ipv6() == ipv6)
            });
            let own: Vec<_> = own.collect();
            if own.is_empty() {
                continue;
            }
            let name = format!("port{}-{}", if ipv6 { 6 } else { 4 }, tag(id));
            for port in own {
                let map = match port.address {
                    Some(_) => bound_name(ipv6),
                    None => map_name(ipv6),
                };
                if let Some(map) = maps.get_mut(map) {
                    // Of two that claim one port the greater id wins.
                    map.elements.insert(key(port), name.clone().into_bytes());
                }
            }
            leads.push(chain(&name, "", 0, 0, ways(published, ipv6)));
        }
    }
    leads.extend(frame(desired, &networks, &locals));
    Some(Ruleset {
        name: TableName::Ingress,
        sets: sets(desired, &networks),
        maps,
        chains: leads,
    })
}

/// The sets that rules of the frame look into.
fn sets(desired: &Desired, networks: &BTreeSet<&str>) -> BTreeMap<String, Set> {
    if networks.is_empty() {
        return BTreeMap::new();
    }
    let (gone, inward) = (gone(desired), inward(desired));
    let published = desired.published.values();
    let tasks: BTreeSet<IpAddr> = published
        .filter(|published| networks.contains(published.network.as_str()))
        .flat_map(|published| published.backends.values().flatten().copied())
        .collect();
    let mut sets = BTreeMap::new();
    for ipv6 in [false, true] {
        let (key_type, key_length) = if ipv6 { IPV6 } else { IPV4 };
        let set = |addresses: &BTreeSet<IpAddr>, counted| Set {
            key_type,
            key_length,
            counted,
            elements: addresses
                .iter()
                .filter(|address| address.is_ipv6() == ipv6)
                .map(octets)
                .collect(),
        };
        sets.insert(gone_name(ipv6).to_owned(), set(&gone, false));
        sets.insert(inward_name(ipv6).to_owned(), set(&inward, false));
        for (four, six) in COUNTED {
            let name = if ipv6 { six } else { four };
            sets.insert(name.to_owned(), set(&tasks, true));
        }
    }
    sets
}

fn inward_name(ipv6: bool) -> &'static str {
    if ipv6 { "inward6" } else { "inward4" }
}

/// The set of tasks whose hosts are down.
pub(super) fn gone_name(ipv6: bool) -> &'static str {
    if ipv6 { "gone6" } else { "gone4" }
}

/// All chains but those of single ports: the same whoever comes and goes.
fn frame(desired: &Desired, networks: &BTreeSet<&str>, locals: &BTreeSet<&str>) -> Vec<Chain> {
    let to = |ipv6| {
        let family = if ipv6 { Part::Ipv6 } else { Part::Ipv4 };
        [Part::ToBound { ipv6 }, Part::ToPublished { ipv6 }]
            .map(|lead| vec![family.clone(), Part::ToHost, lead])
    };
    let entry = || [to(false), to(true)].concat();
    let family = |ipv6| if ipv6 { Part::Ipv6 } else { Part::Ipv4 };
    let both = |rule: &dyn Fn(bool) -> Vec<Part>| vec![rule(false), rule(true)];
    let mut chains = vec![
        chain("prerouting", "nat", 0, -100, entry()),
        chain("output", "nat", 3, -100, entry()),
    ];
    let (mut raw, mut egress) = (Vec::new(), Vec::new());
    if !networks.is_empty() {
        // These addresses are let through to our device for this host's own programs only.
        for part in [Part::To(loopback()), Part::From(loopback())] {
            raw.push(vec![Part::InGateway, Part::Ipv4, part, Part::Drop]);
        }
        let lost = |ipv6| {
            let set = gone_name(ipv6).to_owned();
            vec![
                family(ipv6),
                Part::DestinationIn { set, ipv6 },
                // A handshake that nobody answered begins anew with another task.
                Part::Established,
                Part::GoTo("gone".into()),
            ]
        };
        let counted = |place: usize, ipv6: bool| {
            let (four, six) = COUNTED[place];
            if ipv6 {
                six.to_owned()
            } else {
                four.to_owned()
            }
        };
        let refuse = vec![vec![Part::ResetTcp], vec![Part::Unreachable]];
        chains.push(chain("gone", "", 0, 0, refuse));
        chains.push(chain("lost", "filter", 3, 0, both(&lost)));
        let unseen = vec![vec![Part::Marked(nudge::MARK), Part::Notrack]];
        chains.push(chain("nudges", "filter", 3, -300, unseen));
        let mut forward = both(&|ipv6| {
            let set = inward_name(ipv6).to_owned();
            let opens = [
                Part::SourceIn { set, ipv6 },
                Part::New,
                Part::Count,
                Part::Drop,
            ];
            [vec![Part::InGateway, family(ipv6)], opens.to_vec()].concat()
        });
        forward.extend(both(&|ipv6| [vec![Part::OutGateway], lost(ipv6)].concat()));
        forward.extend([
            vec![Part::OutGateway, Part::Translated, Part::Accept],
            vec![Part::OutGateway, Part::Established, Part::Accept],
            vec![Part::OutGateway, Part::Count, Part::Drop],
        ]);
        chains.push(chain("forward", "filter", 2, -1, forward));
        let to = |ipv6| {
            let set = counted(0, ipv6);
            vec![
                Part::OutGateway,
                family(ipv6),
                Part::DestinationIn { set, ipv6 },
            ]
        };
        chains.push(chain("count-to", "filter", 4, 0, both(&to)));
        let from = |ipv6| {
            let set = counted(1, ipv6);
            vec![Part::InGateway, family(ipv6), Part::SourceIn { set, ipv6 }]
        };
        chains.push(chain("count-from", "filter", 0, 0, both(&from)));
        // In a chain of this kind only the first packet of a connection is seen.
        egress = both(&|ipv6| {
            let set = counted(2, ipv6);
            vec![
                Part::OutGateway,
                family(ipv6),
                Part::DestinationIn { set, ipv6 },
            ]
        });
        egress.extend(leaving(desired, networks));
    }
    egress.extend(hairpins(desired, locals));
    if !raw.is_empty() {
        chains.push(chain("from-outside", "filter", 0, -300, raw));
    }
    chains.push(chain("postrouting", "nat", 4, 99, egress));
    chains
}

/// What has an address that is the same on every host, or a way back of its own, is translated
/// to this host's.
fn leaving(desired: &Desired, networks: &BTreeSet<&str>) -> Vec<Vec<Part>> {
    let Some(underlay) = &desired.underlay else {
        return Vec::new();
    };
    let subnets = subnets(desired, networks);
    let local = desired.networks.values();
    let local = local
        .filter(|network| matches!(network.kind, NetworkKind::Bridge { .. }))
        .flat_map(|network| network.subnets.iter().map(|subnet| subnet.subnet));
    let inward = local.chain([loopback()]).chain(subnets.iter().copied());
    let inward = inward.map(|net| {
        let same = net.is_ipv6() == underlay.address.is_ipv6();
        let to = if same {
            Part::SnatTo(underlay.address)
        } else {
            Part::Masquerade
        };
        vec![family(net), Part::From(net), Part::OutGateway, to]
    });
    let outward = subnets.iter().map(|net| {
        let out = [Part::NotOutGateway, Part::Masquerade];
        [vec![family(*net), Part::From(*net)], out.to_vec()].concat()
    });
    inward.chain(outward).collect()
}

/// A bridge's own containers, and this host's programs at 127.0.0.1, come back through the host.
fn hairpins(desired: &Desired, locals: &BTreeSet<&str>) -> Vec<Vec<Part>> {
    let mut rules = Vec::new();
    for id in locals {
        let Some(network) = desired.networks.get(*id) else {
            continue;
        };
        let device = || Part::Out(network.bridge(id));
        for net in subnets(desired, &BTreeSet::from([*id])) {
            let back = [Part::Translated, Part::Masquerade];
            rules.push([vec![family(net), Part::From(net), device()], back.to_vec()].concat());
        }
        rules.push(vec![
            Part::Ipv4,
            Part::From(loopback()),
            device(),
            Part::Masquerade,
        ]);
    }
    rules
}

/// A sandbox's connections remember the host that they came by.
pub fn marks(desired: &Desired, sandbox: &Sandbox) -> Option<Ruleset> {
    let interfaces = publishing(desired, sandbox)?;
    let map = Map {
        key: MAC,
        data: Some(MARK),
        elements: hosts(desired)
            .into_iter()
            .map(|host| {
                (
                    gateway_mac(host).0.to_vec(),
                    mark(host).to_ne_bytes().to_vec(),
                )
            })
            .collect(),
    };
    let arrive = interfaces
        .iter()
        .flat_map(|name| {
            let from = || Part::In((*name).clone());
            [
                vec![from(), Part::New, Part::MarkHost],
                // To the task it is the connection that another host has led here.
                vec![
                    from(),
                    Part::Opens,
                    Part::Established,
                    Part::ByAnotherHost,
                    Part::Count,
                ],
            ]
        })
        .collect();
    let ways = Set {
        key_type: MAC.0 << 6 | MARK.0,
        // Each part is filled up to four bytes.
        key_length: MAC.1 + 2 + MARK.1,
        counted: false,
        elements: map
            .elements
            .iter()
            .map(|(mac, mark)| [mac.as_slice(), &[0, 0], mark].concat())
            .collect(),
    };
    Some(Ruleset {
        name: TableName::Ingress,
        sets: [("ways".to_owned(), ways)].into(),
        maps: [("hosts".to_owned(), map)].into(),
        chains: vec![
            chain("prerouting", "filter", 0, -150, arrive),
            // Without a condition: a program that marks its packets must not choose the host.
            chain("output", "filter", 3, -150, vec![vec![Part::MarkPacket]]),
        ],
    })
}

/// Frames of such a connection go to the gateway of that host.
pub fn back(desired: &Desired, sandbox: &Sandbox) -> Option<Ruleset> {
    let interfaces = publishing(desired, sandbox)?;
    let map = Map {
        key: MARK,
        data: Some(MAC),
        elements: hosts(desired)
            .into_iter()
            .map(|host| {
                (
                    mark(host).to_ne_bytes().to_vec(),
                    gateway_mac(host).0.to_vec(),
                )
            })
            .collect(),
    };
    let leave = interfaces.iter().map(|name| {
        let rules = vec![vec![Part::BackToHost]];
        Chain {
            device: Some((*name).clone()),
            ..chain(&format!("egress-{name}"), "filter", 1, 0, rules)
        }
    });
    Some(Ruleset {
        name: TableName::Back,
        maps: [("back".to_owned(), map)].into(),
        chains: leave.collect(),
        ..Ruleset::default()
    })
}

/// What flows may go on after a change, of those that can begin anew: by [`place`] their
/// backends. Into the networks of these subnets no others go on.
pub fn flows(
    desired: &Desired,
    facts: &Facts,
) -> (BTreeMap<u32, BTreeSet<IpAddr>>, Vec<IpNetwork>) {
    let networks = networks(desired);
    let held = ports(desired, facts);
    let mut allowed = BTreeMap::<_, BTreeSet<IpAddr>>::new();
    for published in desired.published.values() {
        let mut own = host_ports(published, facts).into_iter();
        if own.any(|port| held.contains(&port)) {
            let backends = published.backends.values().flatten().copied();
            let at = place(published.protocol.number(), published.port);
            allowed.entry(at).or_default().extend(backends);
        }
    }
    let mut networks = networks;
    networks.extend(locals(desired));
    (allowed, subnets(desired, &networks))
}

/// The names of the sandbox's interfaces that it publishes by.
pub fn publishing<'a>(desired: &Desired, sandbox: &'a Sandbox) -> Option<BTreeSet<&'a String>> {
    let networks = networks(desired);
    let interfaces: BTreeSet<_> = sandbox
        .interfaces
        .iter()
        .filter(|interface| interface.publishes && networks.contains(interface.network.as_str()))
        .map(|interface| &interface.name)
        .collect();
    (!interfaces.is_empty()).then_some(interfaces)
}

fn subnets(desired: &Desired, networks: &BTreeSet<&str>) -> Vec<IpNetwork> {
    let all = networks.iter().filter_map(|id| desired.networks.get(*id));
    all.flat_map(|network| network.subnets.iter().map(|subnet| subnet.subnet))
        .collect()
}

/// Where a port leads, over one family.
fn ways(published: &Published, ipv6: bool) -> Vec<Vec<Part>> {
    let all: BTreeSet<IpAddr> = published.backends.values().flatten().copied().collect();
    let anywhere = published.address.is_none() && published.interface.is_none();
    let relayed = ipv6 && anywhere && all.iter().any(IpAddr::is_ipv4);
    let backends: Vec<_> = all.into_iter().filter(|to| to.is_ipv6() == ipv6).collect();
    let mut rules = Vec::new();
    if relayed {
        // The socket that holds the port passes it on over IPv4.
        let own = IpNetwork::from(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST));
        rules.push(vec![Part::To(own), Part::Accept]);
    }
    let port = published.target;
    match backends.first() {
        None => rules.extend([vec![Part::ResetTcp], vec![Part::Unreachable]]),
        Some(&backend) => {
            if backends.len() > 1 {
                rules.push(vec![Part::DnatAmong { backends, port }]);
            }
            // See `balance::rules::fill`.
            rules.push(vec![Part::DnatTo { backend, port }]);
        }
    }
    rules
}

fn family(net: IpNetwork) -> Part {
    if net.is_ipv6() {
        Part::Ipv6
    } else {
        Part::Ipv4
    }
}

fn chain(name: &str, kind: &str, hook: u32, priority: i32, rules: Vec<Vec<Part>>) -> Chain {
    Chain {
        name: name.into(),
        kind: kind.into(),
        hook,
        priority,
        device: None,
        rules,
    }
}
