//! Properties of the plan, on a fake kernel that obeys each step as Linux does: whatever is
//! wanted and whatever is found, one plan is enough, and a second one is empty.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
};

use dataplane::{
    Desired, Observed, Step,
    desired::{
        Dns, Interface, Network, NetworkKind, OwnKey, PeerFacts, PeerKey, Protocol, Published,
        Remote, Sandbox, Subnet, Tunnels, Underlay, Vip,
    },
    plan,
    rules::TableName,
    view::{Facts, Mac, Passage, Place, Segment, Table, View, Way, Ways},
    want::want,
    wireguard::PublicKey,
};
use ipnetwork::IpNetwork;
use proptest::{collection::vec, prelude::*, sample::Index};

/// A kernel in memory.
#[derive(Debug, Clone, Default)]
struct Fake {
    seen: Observed,
}

impl Fake {
    fn obey(&mut self, step: &Step) {
        let view = &mut self.seen.view;
        match step.clone() {
            Step::DropTable { place, table: name } => *table(view, &place, name) = None,
            Step::SetTable { place, rules } => {
                *table(view, &place, rules.name) = Some(rules.table());
            }
            Step::SetBalance { sandbox, change } => {
                let sandbox = view.sandboxes.get_mut(&sandbox).expect("a namespace");
                sandbox.balance.get_or_insert_default().apply(&change);
            }
            Step::DropBalance(sandbox) => {
                let sandbox = view.sandboxes.get_mut(&sandbox).expect("a namespace");
                sandbox.balance = None;
            }
            Step::SetElements { set, add, remove } => {
                let sets = &mut view.table.as_mut().expect("a table with sets").sets;
                let elements = sets.get_mut(&set).expect("a set");
                elements.extend(add);
                elements.retain(|element| !remove.contains(element));
            }
            Step::SetPorts(change) => {
                change.apply(view.ingress.as_mut().expect("a table of published ports"));
            }
            Step::HoldPort(port) => {
                view.ports.insert(port);
            }
            Step::FreePort(port) => {
                view.ports.remove(&port);
            }
            Step::CutPublished { .. } => {}
            Step::MakeGateway { segment, gateway } | Step::SetGateway { segment, gateway } => {
                let port = gateway.port.clone();
                let local = dataplane::want::local_port(gateway.mtu, false);
                let ports = &mut segment_of(view, &segment).ports;
                ports.insert(port, local);
                view.gateways.insert(segment, gateway);
            }
            Step::DropGateway { segment } => {
                if let Some(gone) = view.gateways.remove(&segment) {
                    drop_pair(view, &gone.port);
                }
            }
            Step::DropSandbox(path) => {
                view.sandboxes.remove(&path);
            }
            Step::MakeSandbox { sandbox, .. } => {
                view.sandboxes.entry(sandbox).or_default().loopback_up = true;
            }
            Step::DropInterface { sandbox, name } => {
                let port = view.sandboxes[&sandbox].interfaces[&name].port.clone();
                drop_pair(view, &port);
                // A stray that has no other end.
                drop_inner(view, |path, inner, _| *path == sandbox && inner == name);
            }
            // Its other end may have been dropped a step before, and it with that.
            Step::DropPort { port, .. } => drop_pair(view, &port),
            Step::MakePair(pair) => {
                let segment = segment_of(view, &pair.segment);
                assert!(segment.bridge.is_some(), "a port before its bridge");
                assert!(
                    segment.ports.insert(pair.name.clone(), pair.port).is_none(),
                    "port {} exists",
                    pair.name
                );
                let sandbox = view.sandboxes.get_mut(&pair.sandbox).expect("a namespace");
                let mut inner = pair.interface;
                inner.port = pair.name;
                assert!(
                    sandbox.interfaces.insert(pair.inner, inner).is_none(),
                    "the interface exists"
                );
            }
            Step::SetInterface {
                sandbox,
                name,
                interface,
            } => {
                let sandbox = view.sandboxes.get_mut(&sandbox).expect("a namespace");
                let found = sandbox.interfaces.get_mut(&name).expect("an interface");
                let port = found.port.clone();
                *found = interface;
                found.port = port;
            }
            Step::DropRoutes { sandbox, routes } => {
                let sandbox = view.sandboxes.get_mut(&sandbox).expect("a namespace");
                sandbox.routes.retain(|route| !routes.contains(route));
            }
            Step::SetRoutes { sandbox, routes } => {
                let sandbox = view.sandboxes.get_mut(&sandbox).expect("a namespace");
                for (_, device) in &routes {
                    assert!(
                        sandbox.interfaces.contains_key(device),
                        "route over nothing"
                    );
                }
                sandbox.routes.extend(routes);
            }
            Step::SetPassage { ipv6, open } => {
                let passages = &mut view.passages;
                let passage = if ipv6 {
                    &mut passages.ipv6
                } else {
                    &mut passages.ipv4
                };
                let rules = if open { Passage::RULES } else { 0 };
                passage.as_mut().expect("Docker's chain").rules = rules;
            }
            Step::SetForwarding(forwarding) => {
                view.forwarding.ipv4 |= forwarding.ipv4;
                view.forwarding.ipv6 |= forwarding.ipv6;
            }
            Step::SetTunnel { device, tunnel, .. } => {
                view.tunnels.insert(device, tunnel);
            }
            Step::DropTunnel { device } => {
                view.tunnels.remove(&device).expect("a device");
                for way in [&mut view.ways.ipv4, &mut view.ways.ipv6] {
                    way.routes.retain(|_, by| *by != device);
                }
            }
            Step::SetWay {
                ipv6,
                set,
                gone,
                old,
            } => {
                for device in set.routes.values() {
                    assert!(view.tunnels.contains_key(device), "a way by no device");
                }
                let way = way(view, ipv6);
                way.closed |= set.closed;
                assert!(way.closed, "a way that leads out");
                way.rule = set.rule.or(way.rule.filter(|port| Some(*port) != old));
                way.routes.retain(|to, _| !gone.contains(to));
                way.routes.extend(set.routes);
            }
            Step::DropWay { ipv6, .. } => {
                let port = way(view, ipv6).rule;
                let mut segments = view.segments.values();
                let led = segments.any(|one| {
                    let vxlan = one.vxlan.as_ref();
                    vxlan.is_some_and(|vxlan| Some(vxlan.udp_port) == port)
                });
                assert!(!led, "a network loses its way");
                *way(view, ipv6) = Way::default();
            }
            other => obey_segment(view, other),
        }
    }

    fn follow(&mut self, desired: &Desired) {
        for step in &plan(desired, &self.seen).steps {
            self.obey(step);
        }
    }
}

fn obey_segment(view: &mut View, step: Step) {
    match step {
        Step::MakeNamespace { segment } => {
            let empty = Segment {
                own_namespace: true,
                ..Segment::default()
            };
            assert!(view.segments.insert(segment, empty).is_none());
        }
        Step::DropNamespace { segment } => {
            let gone = view.segments.remove(&segment).expect("a namespace");
            drop_inner(view, |_, _, port| gone.ports.contains_key(port));
        }
        Step::MakeBridge {
            segment, bridge, ..
        } => {
            let segment = view.segments.entry(segment).or_default();
            assert!(
                segment.bridge.replace(bridge).is_none(),
                "the bridge exists"
            );
        }
        Step::SetBridge {
            segment, bridge, ..
        } => {
            let segment = segment_of(view, &segment);
            let found = segment.bridge.as_mut().expect("a bridge");
            if found.mac != bridge.mac {
                segment.neighbours.clear();
            }
            let mut addresses = std::mem::take(&mut found.addresses);
            addresses.extend(bridge.addresses.iter().copied());
            *found = bridge;
            found.addresses = addresses;
        }
        Step::DropBridge { segment, .. } => {
            let found = segment_of(view, &segment);
            damage_bridge(found);
            if found.ports.is_empty() {
                view.segments.remove(&segment);
            }
        }
        Step::DropAddresses { segment, addresses } => {
            let bridge = segment_of(view, &segment).bridge.as_mut();
            let found = &mut bridge.expect("a bridge").addresses;
            found.retain(|address| !addresses.contains(address));
        }
        Step::MakeVxlan { segment, vxlan } => {
            let segment = segment_of(view, &segment);
            assert!(segment.bridge.is_some(), "a tunnel before its bridge");
            assert!(segment.vxlan.replace(vxlan).is_none(), "the tunnel exists");
        }
        Step::SetVxlan { segment, port } => {
            let vxlan = segment_of(view, &segment).vxlan.as_mut();
            vxlan.expect("a tunnel").port = port;
        }
        Step::DropVxlan { segment } => damage_vxlan(segment_of(view, &segment)),
        Step::SetPort {
            segment,
            name,
            port,
            ..
        } => {
            let ports = &mut segment_of(view, &segment).ports;
            *ports.get_mut(&name).expect("a port") = port;
        }
        Step::DropEntries { segment, entries } => {
            let segment = segment_of(view, &segment);
            for (mac, _) in &entries.forwards {
                segment.forwards.remove(mac);
                segment.strays.remove(mac);
            }
            for (mac, _) in &entries.locals {
                segment.locals.remove(mac);
            }
            for (address, _) in &entries.neighbours {
                segment.neighbours.remove(address);
            }
        }
        Step::SetEntries {
            segment, entries, ..
        } => {
            let segment = segment_of(view, &segment);
            assert!(
                entries.forwards.is_empty() || segment.vxlan.is_some(),
                "forwards without a tunnel"
            );
            for (mac, vtep) in entries.forwards {
                segment.strays.remove(&mac);
                segment.forwards.insert(mac, vtep);
            }
            for (mac, port) in entries.locals {
                assert!(segment.ports.contains_key(&port), "an entry to no port");
                segment.locals.insert(mac, port);
            }
            segment.neighbours.extend(entries.neighbours);
        }
        other => panic!("not a segment's: {other:?}"),
    }
}

fn way(view: &mut View, ipv6: bool) -> &mut Way {
    if ipv6 {
        &mut view.ways.ipv6
    } else {
        &mut view.ways.ipv4
    }
}

fn segment_of<'a>(view: &'a mut View, tag: &str) -> &'a mut Segment {
    view.segments.get_mut(tag).expect("a segment")
}

fn table<'a>(view: &'a mut View, place: &Place, name: TableName) -> &'a mut Option<Table> {
    match (place, name) {
        (Place::Host, TableName::Overnet) => &mut view.table,
        (Place::Sandbox(path), TableName::Overnet) => {
            &mut view.sandboxes.get_mut(path).expect("a namespace").table
        }
        (Place::Host, TableName::Ingress) => &mut view.ingress,
        (place, name) => panic!("no task publishes: {name:?} in {place:?}"),
    }
}

/// A veth pair dies as one, with all that hangs on it.
fn drop_pair(view: &mut View, port: &str) {
    for segment in view.segments.values_mut() {
        segment.ports.remove(port);
        segment.locals.retain(|_, at| at != port);
    }
    view.gateways.retain(|_, gateway| gateway.port != port);
    drop_inner(view, |_, _, at| at == port);
}

fn drop_inner(view: &mut View, which: impl Fn(&PathBuf, &str, &str) -> bool) {
    for (path, sandbox) in &mut view.sandboxes {
        let mut gone = BTreeSet::new();
        sandbox.interfaces.retain(|name, inner| {
            let hit = which(path, name, &inner.port);
            if hit {
                gone.insert(name.clone());
            }
            !hit
        });
        sandbox.routes.retain(|(_, device)| !gone.contains(device));
    }
}

fn damage_bridge(segment: &mut Segment) {
    segment.bridge = None;
    segment.neighbours.clear();
    segment.locals.clear();
    // The master's entries go; the tunnel's own stay behind, in one of two places.
    let forwards = std::mem::take(&mut segment.forwards);
    segment.strays.extend(forwards.into_keys());
    for port in segment.ports.values_mut() {
        port.attached = false;
    }
    if let Some(vxlan) = &mut segment.vxlan {
        vxlan.port.attached = false;
    }
}

fn damage_vxlan(segment: &mut Segment) {
    segment.vxlan = None;
    segment.forwards.clear();
    segment.strays.clear();
}

fn mac(last: u8) -> [u8; 6] {
    [2, 0x42, 10, 0, 0, last]
}

fn network(number: u8) -> impl Strategy<Value = (String, Network)> {
    // A network's kind is for life.
    let bridge = |(masquerade, isolated, internal)| NetworkKind::Bridge {
        masquerade,
        isolated,
        internal,
        // As its name.
        device: Some("br-red".to_owned()),
    };
    let vni = 4096 + u32::from(number);
    let kind = match number {
        3 => any::<(bool, bool, bool)>().prop_map(bridge).boxed(),
        _ => any::<bool>()
            .prop_map(move |encrypted| NetworkKind::Overlay { vni, encrypted })
            .boxed(),
    };
    let mtu = prop_oneof![Just(None), Just(Some(1400))];
    (kind, mtu, any::<bool>()).prop_map(move |(kind, mtu, dual)| {
        let mut subnets = vec![Subnet {
            subnet: format!("10.{number}.0.0/24").parse().unwrap(),
            gateway: [10, number, 0, 1].into(),
        }];
        if dual {
            subnets.push(Subnet {
                subnet: format!("fd00:{number}::/64").parse().unwrap(),
                gateway: format!("fd00:{number}::1").parse().unwrap(),
            });
        }
        let network = Network {
            name: format!("net{number}"),
            kind,
            subnets,
            mtu,
        };
        (format!("n{number}"), network)
    })
}

fn sandbox(number: u8) -> impl Strategy<Value = (String, Sandbox)> {
    let interface = (0..4u8, any::<bool>(), 0..3u8);
    (vec(interface, 0..3), any::<bool>()).prop_map(move |(wanted, dns)| {
        let mut interfaces = Vec::new();
        let mut taken = BTreeSet::new();
        for (place, (network, with_route, variant)) in (0u8..).zip(wanted) {
            if !taken.insert(network) {
                continue;
            }
            let last = 10 + number * 8 + place;
            let address = IpAddr::from([10, network, 0, last + variant * 64]);
            interfaces.push(Interface {
                endpoint: format!("e{number}-{network}"),
                network: format!("n{network}"),
                name: format!("eth{place}"),
                addresses: vec![IpNetwork::new(address, 24).unwrap()],
                mac: mac(last + variant * 64),
                default_via: with_route
                    .then(|| IpAddr::from([10, network, 0, 1]))
                    .into_iter()
                    .collect(),
                names: vec![format!("s{number}")],
                publishes: false,
            });
        }
        let sandbox = Sandbox {
            netns: format!("/run/x/netns/s{number}").into(),
            interfaces,
            dns: dns.then(Dns::default),
            counted: dns,
        };
        (format!("s{number}"), sandbox)
    })
}

fn remote(number: u8) -> impl Strategy<Value = (String, Remote)> {
    (0..4u8, 100..108u8, 1..4u8).prop_map(move |(network, last, host)| {
        let remote = Remote {
            network: format!("n{network}"),
            addresses: vec![IpAddr::from([10, network, 0, last])],
            mac: mac(last),
            vtep: [192, 0, 2, host].into(),
            names: Vec::new(),
        };
        (format!("r{number}"), remote)
    })
}

fn vip(number: u8) -> impl Strategy<Value = (String, Vip)> {
    let backends = proptest::collection::btree_set(100..108u8, 0..4);
    (0..4u8, 0..2u8, backends).prop_map(move |(network, variant, backends)| {
        let vip = Vip {
            network: format!("n{network}"),
            addresses: vec![IpAddr::from([10, network, 0, 200 + number * 2 + variant])],
            names: Vec::new(),
            backends: backends
                .into_iter()
                .map(|last| {
                    (
                        format!("b{last}"),
                        vec![IpAddr::from([10, network, 0, last])],
                    )
                })
                .collect(),
        };
        (format!("v{number}"), vip)
    })
}

fn published(number: u8) -> impl Strategy<Value = (String, Published)> {
    let backends = proptest::collection::btree_set(100..104u8, 0..3);
    let bound = prop_oneof![
        2 => Just((None, None)),
        1 => Just((Some(IpAddr::from([192, 0, 2, 1])), None)),
        1 => Just((None, Some("up0"))),
        1 => Just((None, Some("up1"))),
    ];
    (0..4u8, 0..3u16, bound, backends).prop_map(move |(network, port, bound, backends)| {
        let (address, interface) = bound;
        let published = Published {
            network: format!("n{network}"),
            protocol: Protocol::Tcp,
            port: 8000 + port,
            address,
            interface: interface.map(str::to_owned),
            target: 80,
            backends: backends
                .into_iter()
                .map(|last| {
                    (
                        format!("b{last}"),
                        vec![IpAddr::from([10, network, 0, last])],
                    )
                })
                .collect(),
        };
        (format!("p{number}"), published)
    })
}

fn some<T: std::fmt::Debug + 'static, S: Strategy<Value = T> + 'static>(
    number: u8,
    make: impl Fn(u8) -> S,
) -> impl Strategy<Value = Vec<T>> {
    let each = (0..number).map(|at| proptest::option::of(make(at)));
    each.collect::<Vec<_>>()
        .prop_map(|all| all.into_iter().flatten().collect())
}

fn wish() -> impl Strategy<Value = Desired> {
    let underlay =
        proptest::option::weighted(0.8, (1..3u8, proptest::collection::btree_set(3..9u8, 0..4)));
    let underlay = (underlay, 0..3u64, 0..3u64);
    (
        underlay,
        some(4, network),
        some(3, sandbox),
        some(6, remote),
        some(4, vip),
        some(4, published),
    )
        .prop_map(
            |((underlay, oldest, sending), networks, sandboxes, remotes, vips, ports)| Desired {
                underlay: underlay.map(|(own, peers)| Underlay {
                    address: [192, 0, 2, own].into(),
                    port: 4789,
                    peers: peers
                        .into_iter()
                        .map(|last| {
                            let facts = PeerFacts {
                                down: last == 3,
                                keys: (oldest..oldest + u64::from(last % 3))
                                    .map(|generation| {
                                        let key = PeerKey {
                                            public: PublicKey([last; 32]),
                                            port: 51820,
                                        };
                                        (generation, key)
                                    })
                                    .collect(),
                                ..PeerFacts::default()
                            };
                            ([192, 0, 2, last].into(), facts)
                        })
                        .collect(),
                    tunnels: Tunnels {
                        keys: (oldest..=oldest + sending % 2)
                            .map(|generation| {
                                let key = OwnKey {
                                    public: PublicKey([own; 32]),
                                    file: "key".into(),
                                    port: 51820 + (generation % 2) as u16,
                                };
                                (generation, key)
                            })
                            .collect(),
                        sending,
                    },
                }),
                networks: networks.into_iter().collect(),
                sandboxes: sandboxes.into_iter().collect(),
                remotes: remotes.into_iter().collect(),
                vips: vips.into_iter().collect(),
                published: ports.into_iter().collect(),
            },
        )
}

/// What somebody does to a host by hand: which object, and what to it.
type Damage = (u8, Index, Index);

fn pick<K: Clone, V>(map: &mut BTreeMap<K, V>, at: Index) -> Option<(K, &mut V)> {
    let length = map.len();
    (length > 0).then(|| {
        let (key, value) = map.iter_mut().nth(at.index(length)).unwrap();
        (key.clone(), value)
    })
}

fn damage(view: &mut View, (what, first, second): &Damage) {
    if *what == 0 {
        view.table = None;
        view.ways = Ways::default();
    }
    if *what == 2
        && let Some((_, tunnel)) = pick(&mut view.tunnels, *first)
    {
        tunnel.public_key = None;
        tunnel.peers.clear();
    }
    if *what == 3
        && let Some((device, _)) = pick(&mut view.tunnels, *first)
    {
        view.tunnels.remove(&device);
        view.ways.ipv4.routes.retain(|_, by| *by != device);
    }
    if *what == 1
        && let Some(table) = &mut view.table
        && let Some((_, rules)) = pick(&mut table.chains, *first)
    {
        rules.push(String::new());
    }
    if *what == 2
        && let Some(table) = &mut view.table
        && let Some((_, elements)) = pick(&mut table.sets, *first)
    {
        elements.insert(vec![9, 9, 9, 9]);
    }
    let ingress = &mut view.ingress;
    match what {
        19 => *ingress = None,
        20 => {
            if let Some((_, rules)) = ingress.as_mut().and_then(|t| pick(&mut t.chains, *first)) {
                rules.push(String::new());
            }
        }
        21 => {
            if let Some((_, elements)) = ingress.as_mut().and_then(|t| pick(&mut t.sets, *first)) {
                elements.clear();
            }
        }
        22 => {
            view.ports.pop_first();
        }
        24 => {
            // Some of our rules may be gone, or be there twice.
            let passage = |at: &Index| Passage {
                drops: at.index(2) == 0,
                rules: at.index(5),
            };
            view.passages.ipv4 = Some(passage(first));
            view.passages.ipv6 = Some(passage(second));
        }
        _ => {}
    }
    if (3..8).contains(what)
        && let Some((path, sandbox)) = pick(&mut view.sandboxes, *first)
    {
        match what {
            3 => {
                let ports: Vec<_> = sandbox
                    .interfaces
                    .values()
                    .map(|i| i.port.clone())
                    .collect();
                view.sandboxes.remove(&path);
                for port in &ports {
                    drop_pair(view, port);
                }
            }
            4 => sandbox.loopback_up = false,
            5 => sandbox.table = None,
            6 => sandbox.routes.clear(),
            _ => {
                if let Some((_, inner)) = pick(&mut sandbox.interfaces, *second) {
                    inner.mtu -= 4;
                    inner.addresses.clear();
                }
            }
        }
    }
    let Some((_, segment)) = pick(&mut view.segments, *first) else {
        return;
    };
    match what {
        8 => damage_bridge(segment),
        9 => damage_vxlan(segment),
        10 => {
            if let Some((port, _)) = pick(&mut segment.ports, *second) {
                drop_pair(view, &port);
            }
        }
        11 => {
            if let Some((_, port)) = pick(&mut segment.ports, *second) {
                (port.up, port.flags.learning, port.attached) = (false, true, second.index(2) == 0);
            }
        }
        12 => {
            if let Some(bridge) = &mut segment.bridge {
                bridge.mtu -= 4;
                bridge.addresses.insert("10.200.0.1/24".parse().unwrap());
            }
        }
        13 => {
            if let Some(bridge) = &mut segment.bridge {
                bridge.mac = Mac(mac(250));
                segment.neighbours.clear();
            }
        }
        14 => {
            if let Some(vxlan) = &mut segment.vxlan {
                (vxlan.id, vxlan.port.up) = (9999, false);
            }
        }
        15 => {
            segment.forwards.clear();
            segment.locals.clear();
        }
        16 => segment.neighbours.clear(),
        17 if segment.vxlan.is_some() => {
            let whole = Mac(mac(251));
            // Only a port of a bridge has both halves of an entry.
            if segment.bridge.is_some() {
                segment.forwards.insert(whole, [192, 0, 2, 99].into());
            } else {
                segment.strays.insert(whole);
            }
            segment.strays.insert(Mac(mac(252)));
        }
        18 => {
            if let Some((_, vtep)) = pick(&mut segment.forwards, *second) {
                *vtep = [192, 0, 2, 98].into();
            }
        }
        23 => {
            if let Some(vxlan) = &mut segment.vxlan {
                vxlan.port.attached = false;
                let forwards = std::mem::take(&mut segment.forwards);
                segment.strays.extend(forwards.into_keys());
            }
        }
        _ => {}
    }
}

/// Addresses of two devices come and go; of the first one is the underlay's.
fn facts() -> impl Strategy<Value = Facts> {
    let address = prop_oneof![
        Just(IpAddr::from([192, 0, 2, 1])),
        Just(IpAddr::from([198, 51, 100, 1])),
        Just(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])),
    ];
    let addresses = proptest::collection::btree_map(address, 0..2u8, 0..4);
    (proptest::option::of(1400..9001u32), addresses).prop_map(|(mtu, known)| {
        let mut facts = Facts {
            default_mtu: mtu,
            ..Facts::default()
        };
        for (address, device) in known {
            facts.addresses.insert(address, mtu.unwrap_or(1500));
            let own = facts.interfaces.entry(format!("up{device}"));
            own.or_default().insert(address);
        }
        facts
    })
}

fn found() -> impl Strategy<Value = Fake> {
    let damages = vec((0..25u8, any::<Index>(), any::<Index>()), 0..5);
    (proptest::option::of(wish()), facts(), damages).prop_map(|(before, facts, damages)| {
        let mut fake = Fake::default();
        fake.seen.facts = facts;
        if let Some(before) = before {
            fake.follow(&before);
        }
        for one in &damages {
            damage(&mut fake.seen.view, one);
        }
        fake
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_plan_is_enough(desired in wish(), fake in found()) {
        let mut after = fake.clone();
        let first = plan(&desired, &after.seen);
        prop_assert_eq!(&first, &plan(&desired, &after.seen), "equal inputs, other plans");
        let ranks: Vec<u8> = first.steps.iter().map(Step::rank).collect();
        prop_assert!(ranks.is_sorted(), "{:?}", first.steps);
        for step in &first.steps {
            after.obey(step);
        }
        let second = plan(&desired, &after.seen);
        prop_assert!(second.is_empty(), "first {first}\nsecond {second}");
        let wanted = want(&desired, &fake.seen.facts);
        prop_assert_eq!(&after.seen.view.segments, &wanted.segments);
        prop_assert_eq!(&after.seen.view.table, &wanted.table);
        prop_assert_eq!(&after.seen.view.ingress, &wanted.ingress);
        prop_assert_eq!(&after.seen.view.ports, &wanted.ports);
        let passages = after.seen.view.passages;
        for (wanted, passage) in [
            (wanted.forwarding.ipv4, passages.ipv4),
            (wanted.forwarding.ipv6, passages.ipv6),
        ] {
            if let Some(passage) = passage {
                let fine = if wanted {
                    passage.is_open() || !passage.drops
                } else {
                    passage.rules == 0
                };
                prop_assert!(fine, "{passages:?}");
            }
        }
        for (path, sandbox) in &wanted.sandboxes {
            let found = &after.seen.view.sandboxes[path];
            for (name, interface) in &sandbox.interfaces {
                prop_assert_eq!(&found.interfaces[name], interface);
            }
        }
    }

    #[test]
    fn ports_of_an_interface_follow_its_addresses(
        desired in wish(),
        fake in found(),
        later in facts(),
    ) {
        let mut after = fake;
        after.follow(&desired);
        after.seen.facts = later.clone();
        after.follow(&desired);
        let second = plan(&desired, &after.seen);
        prop_assert!(second.is_empty(), "{second}");
        for port in &after.seen.view.ports {
            let by = |published: &Published| {
                let same = (published.protocol, published.port) == (port.protocol, port.port);
                let leads = match (&published.interface, port.address) {
                    (None, address) => published.address == address,
                    (Some(name), Some(address)) => {
                        let own = later.interfaces.get(name);
                        own.is_some_and(|own| own.contains(&address))
                    }
                    (Some(_), None) => false,
                };
                same && leads
            };
            prop_assert!(desired.published.values().any(by), "{port} is held for nobody");
        }
        let table = after.seen.view.ingress.as_ref();
        let elements = table.into_iter().flat_map(|table| {
            let bound = ["bound4", "bound6"].into_iter();
            bound.filter_map(|name| table.sets.get(name).map(|set| (name, set)))
        });
        for (name, set) in elements {
            for element in set {
                let port = dataplane::ingress::port_of(name, element).unwrap();
                prop_assert!(after.seen.view.ports.contains(&port), "{port} leads and is not held");
            }
        }
    }

    #[test]
    fn a_plan_names_a_reason_for_what_it_does(desired in wish(), fake in found()) {
        let plan = plan(&desired, &fake.seen);
        prop_assert_eq!(plan.steps.is_empty(), plan.reasons.is_empty());
        for reason in &plan.reasons {
            prop_assert!(!reason.contains('\n') && reason.contains(':'), "{reason}");
        }
    }

    #[test]
    fn nothing_wanted_leaves_nothing(fake in found()) {
        let mut after = fake;
        after.follow(&Desired::default());
        let view = after.seen.view;
        prop_assert!(view.segments.is_empty() && view.sandboxes.is_empty() && view.table.is_none(), "{view:?}");
        prop_assert!(view.ingress.is_none() && view.gateways.is_empty() && view.ports.is_empty(), "{view:?}");
    }
}
