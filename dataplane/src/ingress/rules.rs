//! The nftables of published ports: of the host, and of a sandbox that publishes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnetwork::IpNetwork;

use super::{gateway_mac, hosts, mark, networks, ports};
use crate::{
    conntrack::place,
    desired::{Desired, NetworkKind, Published, Sandbox},
    rules::{Chain, Map, Part, Ruleset, TableName, published as map_name},
    view::tag,
};

/// nftables' numbers of types, and bytes.
const MAC: (u32, u32) = (9, 6);
const MARK: (u32, u32) = (19, 4);
/// A protocol and a port, each filled up to four bytes.
const PROTOCOL_PORT: (u32, u32) = (0x30d, 8);

/// What is sent to a port of one of the host's addresses goes to a task; into an ingress network
/// goes nothing else.
pub fn host(desired: &Desired) -> Option<Ruleset> {
    let underlay = desired.underlay.as_ref()?;
    let networks = networks(desired);
    if networks.is_empty() {
        return None;
    }
    let mut rules = Ruleset {
        name: TableName::Ingress,
        ..Ruleset::default()
    };
    let mut chains = Vec::new();
    for ipv6 in [false, true] {
        let mut elements = BTreeMap::new();
        for (id, published) in &desired.published {
            if !networks.contains(published.network.as_str()) {
                continue;
            }
            let name = format!("port{}-{}", if ipv6 { 6 } else { 4 }, tag(id));
            // Of two that claim one port the greater id wins.
            elements.insert(key(published), name.clone().into_bytes());
            chains.push(chain(&name, "", 0, 0, leads(published, ipv6)));
        }
        let map = Map {
            key: PROTOCOL_PORT,
            data: None,
            elements,
        };
        rules.maps.insert(map_name(ipv6).into(), map);
    }
    let entry = || {
        let lead = |ipv6| vec![Part::ToHost, Part::ToPublished { ipv6 }];
        vec![lead(false), lead(true)]
    };
    let subnets = subnets(desired, &networks);
    let loopback = IpNetwork::from(IpAddr::from([127, 0, 0, 0]));
    let loopback = IpNetwork::new(loopback.ip(), 8).ok();
    // What has an address that is the same on every host, or a way back of its own, is
    // translated to this host's.
    let mut egress = Vec::new();
    let local = desired
        .networks
        .values()
        .filter(|network| matches!(network.kind, NetworkKind::Bridge { .. }))
        .flat_map(|network| network.subnets.iter().map(|subnet| subnet.subnet));
    for net in local.chain(loopback).chain(subnets.iter().copied()) {
        let same = net.is_ipv6() == underlay.address.is_ipv6();
        let to = if same {
            Part::SnatTo(underlay.address)
        } else {
            Part::Masquerade
        };
        egress.push(vec![family(net), Part::From(net), Part::OutGateway, to]);
    }
    for net in &subnets {
        let out = [Part::NotOutGateway, Part::Masquerade];
        egress.push([vec![family(*net), Part::From(*net)], out.to_vec()].concat());
    }
    let mut raw = Vec::new();
    // These addresses are let through to our device for this host's own programs only.
    if let Some(net) = loopback {
        raw.push(vec![Part::InGateway, Part::Ipv4, Part::To(net), Part::Drop]);
        raw.push(vec![
            Part::InGateway,
            Part::Ipv4,
            Part::From(net),
            Part::Drop,
        ]);
    }
    let forward = vec![
        vec![Part::OutGateway, Part::Translated, Part::Accept],
        vec![Part::OutGateway, Part::Established, Part::Accept],
        vec![Part::OutGateway, Part::Count, Part::Drop],
    ];
    chains.push(chain("from-outside", "filter", 0, -300, raw));
    chains.push(chain("prerouting", "nat", 0, -100, entry()));
    chains.push(chain("output", "nat", 3, -100, entry()));
    chains.push(chain("forward", "filter", 2, -1, forward));
    chains.push(chain("postrouting", "nat", 4, 99, egress));
    rules.chains = chains;
    Some(rules)
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
        .map(|name| vec![Part::In((*name).clone()), Part::New, Part::MarkHost])
        .collect();
    Some(Ruleset {
        name: TableName::Ingress,
        maps: [("hosts".to_owned(), map)].into(),
        chains: vec![
            chain("prerouting", "filter", 0, -150, arrive),
            // Without a condition: a program that marks its packets must not choose the host.
            chain("output", "filter", 3, -150, vec![vec![Part::MarkPacket]]),
        ],
        ..Ruleset::default()
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

/// What flows of UDP may go on after a change: by [`place`] their tasks. Flows into
/// `subnets` that are not among them begin anew.
pub fn flows(desired: &Desired) -> (BTreeMap<u32, BTreeSet<IpAddr>>, Vec<IpNetwork>) {
    let networks = networks(desired);
    let held = ports(desired);
    let mut allowed = BTreeMap::<_, BTreeSet<IpAddr>>::new();
    for published in desired.published.values() {
        if held.contains(&(published.protocol, published.port)) {
            let backends = published.backends.values().flatten().copied();
            let at = place(published.protocol.number(), published.port);
            allowed.entry(at).or_default().extend(backends);
        }
    }
    (allowed, subnets(desired, &networks))
}

fn publishing<'a>(desired: &Desired, sandbox: &'a Sandbox) -> Option<BTreeSet<&'a String>> {
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

fn leads(published: &Published, ipv6: bool) -> Vec<Vec<Part>> {
    let all: BTreeSet<IpAddr> = published.backends.values().flatten().copied().collect();
    let backends: Vec<_> = all.into_iter().filter(|to| to.is_ipv6() == ipv6).collect();
    if backends.is_empty() {
        return vec![vec![Part::ResetTcp], vec![Part::Unreachable]];
    }
    vec![vec![Part::DnatAmong {
        backends,
        port: published.target,
    }]]
}

fn key(published: &Published) -> Vec<u8> {
    let [high, low] = published.port.to_be_bytes();
    vec![published.protocol.number(), 0, 0, 0, high, low, 0, 0]
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
