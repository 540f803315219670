use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::*;
use crate::desired::{Dns, Interface, NetworkKind, Subnet};

fn network(name: &str, subnet: &str) -> Network {
    let subnet: IpNetwork = subnet.parse().unwrap();
    Network {
        name: name.into(),
        kind: NetworkKind::Overlay {
            vni: 4097,
            encrypted: false,
        },
        subnets: vec![Subnet {
            subnet,
            gateway: subnet.ip(),
        }],
        mtu: None,
    }
}

fn strings(words: &str) -> Vec<String> {
    words.split_whitespace().map(str::to_owned).collect()
}

fn interface(network: &str, address: &str, names: &str) -> Interface {
    Interface {
        endpoint: format!("e-{network}-{address}"),
        network: network.into(),
        name: "eth0".into(),
        addresses: address
            .split_whitespace()
            .map(|a| a.parse().unwrap())
            .collect(),
        mac: [2, 0, 0, 0, 0, 1],
        default_via: Vec::new(),
        publishes: false,
        names: strings(names),
    }
}

fn sandbox(interfaces: Vec<Interface>) -> Sandbox {
    Sandbox {
        netns: "/nowhere".into(),
        interfaces,
        dns: Some(Dns {
            upstreams: vec!["192.0.2.53:53".parse().unwrap()],
        }),
        counted: false,
    }
}

fn remote(network: &str, addresses: &str, names: &str) -> Remote {
    Remote {
        network: network.into(),
        addresses: addresses
            .split_whitespace()
            .map(|a| a.parse().unwrap())
            .collect(),
        mac: [2, 0, 0, 0, 0, 2],
        vtep: "192.0.2.1".parse().unwrap(),
        names: strings(names),
    }
}

/// Two networks that share one sandbox, `both`.
fn example() -> Desired {
    let mut desired = Desired::default();
    for change in [
        Change::SetNetwork("n1".into(), network("ch03", "10.0.1.0/24")),
        Change::SetNetwork("n2".into(), network("Back.End", "fd00:2::/64")),
        Change::SetSandbox(
            "one".into(),
            sandbox(vec![interface(
                "n1",
                "10.0.1.2/24",
                "web Alias 0123456789ab",
            )]),
        ),
        Change::SetSandbox(
            "both".into(),
            sandbox(vec![
                interface("n1", "10.0.1.3/24", "mid"),
                interface("n2", "fd00:2::3/64 10.0.2.3/24", "mid"),
            ]),
        ),
        Change::SetSandbox("deaf".into(), {
            let mut deaf = sandbox(vec![interface("n1", "10.0.1.9/24", "")]);
            deaf.dns = None;
            deaf
        }),
        Change::SetRemote("r1".into(), remote("n1", "10.0.1.4", "api")),
        Change::SetRemote("r2".into(), remote("n1", "10.0.1.5", "API")),
        Change::SetRemote("r3".into(), remote("n2", "fd00:2::4", "db db.primary")),
        Change::SetRemote("r4".into(), remote("n2", "10.0.2.6", "api")),
        Change::SetRemote("r5".into(), remote("n1", "10.0.1.7", "")),
        Change::SetRemote("r6".into(), remote("n1", "", "bare")),
    ] {
        desired.apply(change);
    }
    desired
}

/// The answer as a person would write it.
fn lookup(zone: &Zone, asker: &str, name: &str) -> String {
    let asker = zone.asker(asker).unwrap();
    let by = |wanted: fn(&Entry) -> bool| zone.resolve(asker, name.as_bytes(), wanted);
    let (Some(v4), Some(v6)) = (by(|e| !e.v4().is_empty()), by(|e| !e.v6().is_empty())) else {
        return "unknown".into();
    };
    let v4 = v4.v4().iter().map(ToString::to_string);
    let v6 = v6.v6().iter().map(ToString::to_string);
    v4.chain(v6).collect::<Vec<_>>().join(" ")
}

#[test]
fn names_are_those_of_the_askers_networks() {
    let zone = Zone::from(&example());
    for (asker, name, expected) in [
        ("one", "web", "10.0.1.2"),
        ("one", "alias", "10.0.1.2"),
        ("one", "0123456789ab", "10.0.1.2"),
        ("one", "web.ch03", "10.0.1.2"),
        ("one", "api", "10.0.1.4 10.0.1.5"),
        ("one", "db", "unknown"),
        ("one", "db.back.end", "unknown"),
        ("one", "web.back.end", "unknown"),
        ("one", "nosuch", "unknown"),
        ("one", "nosuch.ch03", "unknown"),
        ("one", "ch03", "unknown"),
        ("one", ".ch03", "unknown"),
        ("one", "", "unknown"),
        ("one", "bare", ""),
        ("both", "web", "10.0.1.2"),
        ("both", "db", "fd00:2::4"),
        ("both", "db.primary", "fd00:2::4"),
        ("both", "db.primary.back.end", "fd00:2::4"),
        ("both", "db.back.end", "fd00:2::4"),
        // The first interface's network goes first, and the next one for the family it lacks.
        ("both", "mid", "10.0.1.3 fd00:2::3"),
        ("both", "mid.back.end", "10.0.2.3 fd00:2::3"),
        ("both", "api", "10.0.1.4 10.0.1.5"),
        ("both", "api.back.end", "10.0.2.6"),
    ] {
        assert_eq!(lookup(&zone, asker, name), expected, "{asker} {name}");
    }
}

#[test]
fn addresses_have_their_canonical_names() {
    let zone = Zone::from(&example());
    let names = |full: &str| Reverse::Names(strings(full));
    for (asker, address, expected) in [
        ("one", "10.0.1.2", names("web.ch03")),
        ("one", "10.0.1.5", names("API.ch03")),
        ("one", "10.0.1.7", Reverse::Nobody),
        ("one", "10.0.1.200", Reverse::Nobody),
        ("one", "fd00:2::4", Reverse::Foreign),
        ("one", "8.8.8.8", Reverse::Foreign),
        ("both", "fd00:2::4", names("db.Back.End")),
        ("both", "10.0.2.3", names("mid.Back.End")),
        ("both", "fd00:2::99", Reverse::Nobody),
    ] {
        let found = zone.reverse(zone.asker(asker).unwrap(), address.parse().unwrap());
        assert_eq!(found, expected, "{asker} {address}");
    }
}

#[test]
fn a_virtual_ip_answers_instead_of_endpoints() {
    let mut desired = example();
    let vip = |addresses: &[&str], names: &str| Vip {
        network: "n1".into(),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        names: strings(names),
        ..Vip::default()
    };
    let both = ["10.0.1.99", "fd00:1::99"];
    let set = Change::SetVip("v".into(), vip(&both, "web api"));
    desired.apply(set.clone());
    let mut zone = Zone::from(&desired);
    let check = |zone: &Zone, name: &str, expected: &str| {
        assert_eq!(lookup(zone, "one", name), expected, "{name}");
    };
    check(&zone, "web", "10.0.1.99 fd00:1::99");
    check(&zone, "api.ch03", "10.0.1.99 fd00:1::99");
    // An alias of the endpoint alone.
    check(&zone, "alias", "10.0.1.2");
    let asker = zone.asker("one").unwrap();
    assert_eq!(
        zone.reverse(asker, "10.0.1.99".parse().unwrap()),
        Reverse::Names(vec!["web.ch03".into()])
    );
    // Of one family only: the other is not taken from the endpoints.
    zone.apply(&Change::SetVip("v".into(), vip(&["fd00:1::99"], "web")));
    check(&zone, "web", "fd00:1::99");
    check(&zone, "api", "10.0.1.4 10.0.1.5");
    zone.apply(&Change::RemoveVip("v".into()));
    check(&zone, "web", "10.0.1.2");
    assert_eq!(zone, Zone::from(&example()));
}

#[test]
fn only_sandboxes_with_a_resolver_are_served() {
    let zone = Zone::from(&example());
    for (sandbox, expected) in [("one", true), ("deaf", false), ("gone", false)] {
        assert_eq!(zone.served(sandbox), expected, "{sandbox}");
    }
}

#[test]
fn a_removed_endpoint_leaves_the_others_of_its_name() {
    let mut zone = Zone::from(&example());
    zone.apply(&Change::RemoveRemote("r1".into()));
    assert_eq!(lookup(&zone, "one", "api"), "10.0.1.5");
    zone.apply(&Change::RemoveRemote("r2".into()));
    zone.apply(&Change::RemoveRemote("r2".into()));
    assert_eq!(lookup(&zone, "one", "api"), "unknown");
    zone.apply(&Change::SetSandbox(
        "one".into(),
        sandbox(vec![interface("n1", "10.0.1.2/24", "renamed")]),
    ));
    assert_eq!(lookup(&zone, "one", "web"), "unknown");
    assert_eq!(lookup(&zone, "one", "renamed"), "10.0.1.2");
}

#[test]
fn an_address_that_moves_is_never_lost() {
    let mut zone = Zone::from(&example());
    // The new holder comes before the old one goes.
    zone.apply(&Change::SetRemote(
        "r9".into(),
        remote("n1", "10.0.1.4", "api"),
    ));
    zone.apply(&Change::RemoveRemote("r1".into()));
    assert_eq!(lookup(&zone, "one", "api"), "10.0.1.4 10.0.1.5");
    let found = zone.reverse(zone.asker("one").unwrap(), "10.0.1.4".parse().unwrap());
    assert_eq!(found, Reverse::Names(strings("api.ch03")));
}

#[test]
fn nothing_is_left_of_what_was_removed() {
    let desired = example();
    let mut zone = Zone::from(&desired);
    for id in desired.sandboxes.keys() {
        zone.apply(&Change::RemoveSandbox(id.clone()));
    }
    for id in desired.remotes.keys() {
        zone.apply(&Change::RemoveRemote(id.clone()));
    }
    for id in desired.networks.keys() {
        zone.apply(&Change::RemoveNetwork(id.clone()));
    }
    assert_eq!(zone, Zone::default());
}

fn any_change() -> impl Strategy<Value = Change> {
    let id = |prefix: &'static str| (0..3u8).prop_map(move |n| format!("{prefix}{n}"));
    let names = prop::collection::vec("[aAbB]{1,2}", 0..3);
    let addresses = prop::collection::vec(
        (0..4u8, any::<bool>()).prop_map(|(n, six)| -> IpAddr {
            if six {
                Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n.into()).into()
            } else {
                Ipv4Addr::new(10, 0, 0, n).into()
            }
        }),
        0..3,
    );
    let endpoint = (id("n"), addresses, names).boxed();
    let a_remote = endpoint
        .clone()
        .prop_map(|(network, addresses, names)| Remote {
            network,
            addresses,
            mac: [2; 6],
            vtep: Ipv4Addr::LOCALHOST.into(),
            names,
        });
    let vip_endpoint = endpoint.clone();
    let an_interface = endpoint.prop_map(|(network, addresses, names)| Interface {
        endpoint: "e".into(),
        network,
        name: "eth0".into(),
        addresses: addresses.into_iter().map(IpNetwork::from).collect(),
        mac: [2; 6],
        default_via: Vec::new(),
        publishes: false,
        names,
    });
    let a_vip = vip_endpoint.prop_map(|(network, addresses, names)| Vip {
        network,
        addresses,
        names,
        ..Vip::default()
    });
    prop_oneof![
        (id("v"), a_vip).prop_map(|(id, vip)| Change::SetVip(id, vip)),
        id("v").prop_map(Change::RemoveVip),
        (id("n"), "[ab]")
            .prop_map(|(id, name)| Change::SetNetwork(id, network(&name, "10.0.0.0/24"))),
        id("n").prop_map(Change::RemoveNetwork),
        (id("s"), prop::collection::vec(an_interface, 0..3))
            .prop_map(|(id, interfaces)| Change::SetSandbox(id, sandbox(interfaces))),
        id("s").prop_map(Change::RemoveSandbox),
        (id("r"), a_remote).prop_map(|(id, remote)| Change::SetRemote(id, remote)),
        id("r").prop_map(Change::RemoveRemote),
    ]
}

proptest! {
    #[test]
    fn steps_lead_where_the_whole_wish_leads(changes in prop::collection::vec(any_change(), 0..40)) {
        let mut desired = Desired::default();
        let mut zone = Zone::default();
        for change in changes {
            zone.apply(&change);
            let before = zone.clone();
            zone.apply(&change);
            prop_assert_eq!(&zone, &before, "applied twice");
            desired.apply(change);
        }
        prop_assert_eq!(zone, Zone::from(&desired));
    }
}

fn crowd(count: u32, one_name: bool) -> Desired {
    let mut desired = Desired::default();
    desired.apply(Change::SetNetwork(
        "n1".into(),
        network("big", "10.0.0.0/8"),
    ));
    for n in 1..=count {
        let address = Ipv4Addr::from(0x0a00_0000 + n).to_string();
        // Ids in another order than the addresses, as in real life.
        let id = format!("{:08x}", n.wrapping_mul(0x9e37_79b1));
        let names = if one_name {
            "web".to_owned()
        } else {
            format!("web{n} {id}")
        };
        desired.apply(Change::SetRemote(id, remote("n1", &address, &names)));
    }
    desired
}

/// Measured against a bound that only a wrong order of growth can miss on a busy machine.
#[test]
fn one_of_a_hundred_thousand_is_added_in_no_time() {
    for one_name in [false, true] {
        let desired = crowd(100_000, one_name);
        let begun = Instant::now();
        let mut zone = Zone::from(&desired);
        println!("one name {one_name}: built in {:?}", begun.elapsed());
        let mut times = Vec::new();
        for n in 0..200u32 {
            // What the server does: somebody still reads the old value.
            let reader = zone.clone();
            let address = Ipv4Addr::from(0x0a80_0000 + n).to_string();
            let names = if one_name { "web" } else { "late" };
            let change = Change::SetRemote(format!("late{n}"), remote("n1", &address, names));
            let begun = Instant::now();
            zone.apply(&change);
            times.push(begun.elapsed());
            drop(reader);
        }
        times.sort();
        println!(
            "one name {one_name}: p50 {:?}, p99 {:?}",
            times[100], times[198]
        );
        assert!(times[100] < Duration::from_millis(1), "{:?}", times[100]);
    }
}
