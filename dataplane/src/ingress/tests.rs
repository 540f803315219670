use std::fmt::Write;

use super::*;
use crate::{
    desired::{Interface as Wish, PeerFacts, Protocol, Published, Subnet, Underlay},
    rules::{Ruleset, comment},
};

fn example() -> Desired {
    let mut desired = Desired {
        underlay: Some(Underlay {
            address: "192.168.77.1".parse().unwrap(),
            port: 4789,
            peers: [("192.168.77.2".parse().unwrap(), PeerFacts::default())].into(),
            tunnels: crate::desired::Tunnels::default(),
        }),
        ..Desired::default()
    };
    let network = |kind, subnets: &[(&str, &str)]| Network {
        name: "any".into(),
        kind,
        subnets: subnets
            .iter()
            .map(|(subnet, gateway)| Subnet {
                subnet: subnet.parse().unwrap(),
                gateway: gateway.parse().unwrap(),
            })
            .collect(),
        mtu: None,
    };
    let both = [("10.7.0.0/16", "10.7.0.1"), ("fd07::/64", "fd07::1")];
    let overlay = NetworkKind::Overlay {
        vni: 7,
        encrypted: false,
    };
    desired
        .networks
        .insert("ingress".into(), network(overlay.clone(), &both));
    desired.networks.insert(
        "other".into(),
        network(overlay, &[("10.8.0.0/16", "10.8.0.1")]),
    );
    let bridge = NetworkKind::Bridge {
        masquerade: true,
        isolated: true,
        internal: false,
        device: None,
    };
    desired.networks.insert(
        "local".into(),
        network(bridge, &[("172.29.0.0/16", "172.29.0.1")]),
    );
    desired
}

fn sandbox(publishes: bool) -> Sandbox {
    let interface = |name: &str, network: &str, publishes| Wish {
        endpoint: name.into(),
        network: network.into(),
        name: name.into(),
        addresses: Vec::new(),
        mac: [2; 6],
        default_via: vec!["172.29.0.1".parse().unwrap()],
        publishes,
        names: Vec::new(),
    };
    Sandbox {
        netns: "/nowhere".into(),
        interfaces: vec![
            interface("eth0", "local", false),
            interface("eth1", "ingress", publishes),
        ],
        dns: None,
        counted: true,
    }
}

fn published(network: &str, protocol: Protocol, port: u16, backends: &[&str]) -> Published {
    let backends = backends.iter().enumerate();
    Published {
        network: network.into(),
        protocol,
        port,
        address: None,
        interface: None,
        target: 80,
        backends: backends
            .map(|(n, at)| (format!("e{n}"), vec![at.parse().unwrap()]))
            .collect(),
    }
}

fn render(rules: Option<Ruleset>) -> String {
    let Some(rules) = rules else {
        return "nothing\n".into();
    };
    let mut out = String::new();
    for (name, map) in &rules.maps {
        for (key, value) in &map.elements {
            match map.data {
                None => writeln!(out, "@{name} {key:?} : {}", String::from_utf8_lossy(value)),
                Some(_) => writeln!(out, "@{name} {key:x?} : {value:x?}"),
            }
            .unwrap();
        }
    }
    for chain in &rules.chains {
        let device = chain.device.as_deref().unwrap_or_default();
        let head = format!("{} {} {} {device}", chain.name, chain.kind, chain.priority);
        writeln!(out, "{}", head.trim_end()).unwrap();
        for rule in &chain.rules {
            writeln!(out, "  {}", comment(rule)).unwrap();
        }
    }
    out
}

#[test]
fn the_rules_of_a_host() {
    let mut desired = example();
    assert_eq!(
        render(rules::host(&desired, &Facts::default())),
        "nothing\n"
    );
    for (id, entry) in [
        (
            "web",
            published("ingress", Protocol::Tcp, 8000, &["10.7.0.9", "10.7.0.8"]),
        ),
        ("dns", published("ingress", Protocol::Udp, 53, &["fd07::9"])),
        (
            "signal",
            published("ingress", Protocol::Sctp, 2905, &["10.7.0.9"]),
        ),
        (
            "foreign",
            published("local", Protocol::Tcp, 81, &["172.29.0.9"]),
        ),
    ] {
        desired.published.insert(id.into(), entry);
    }
    insta::assert_snapshot!(render(rules::host(&desired, &Facts::default())), @r"
    @ports4 [6, 0, 0, 0, 0, 81, 0, 0] : port4-8a030dbd4a6
    @ports4 [6, 0, 0, 0, 31, 64, 0, 0] : port4-1194877f4ff
    @ports4 [17, 0, 0, 0, 0, 53, 0, 0] : port4-f18f47a317e
    @ports4 [132, 0, 0, 0, 11, 89, 0, 0] : port4-d8f7a7ad565
    @ports6 [6, 0, 0, 0, 0, 81, 0, 0] : port6-8a030dbd4a6
    @ports6 [6, 0, 0, 0, 31, 64, 0, 0] : port6-1194877f4ff
    @ports6 [17, 0, 0, 0, 0, 53, 0, 0] : port6-f18f47a317e
    @ports6 [132, 0, 0, 0, 11, 89, 0, 0] : port6-d8f7a7ad565
    port4-f18f47a317e  0
      meta l4proto tcp reject with tcp reset
      reject with icmpx port-unreachable
    port6-f18f47a317e  0
      dnat ip6 to [fd07::9]:80
    port4-8a030dbd4a6  0
      dnat ip to 172.29.0.9:80
    port6-8a030dbd4a6  0
      daddr ::1/128 accept
      meta l4proto tcp reject with tcp reset
      reject with icmpx port-unreachable
    port4-d8f7a7ad565  0
      dnat ip to 10.7.0.9:80
    port6-d8f7a7ad565  0
      daddr ::1/128 accept
      meta l4proto tcp reject with tcp reset
      reject with icmpx port-unreachable
    port4-1194877f4ff  0
      dnat ip to numgen random mod 2 map { 0 : 10.7.0.8, 1 : 10.7.0.9 }:80
      dnat ip to 10.7.0.8:80
    port6-1194877f4ff  0
      daddr ::1/128 accept
      meta l4proto tcp reject with tcp reset
      reject with icmpx port-unreachable
    prerouting nat -100
      ip fib daddr type local ip daddr . meta l4proto . th dport vmap @bound4
      ip fib daddr type local meta l4proto . th dport vmap @ports4
      ip6 fib daddr type local ip6 daddr . meta l4proto . th dport vmap @bound6
      ip6 fib daddr type local meta l4proto . th dport vmap @ports6
    output nat -100
      ip fib daddr type local ip daddr . meta l4proto . th dport vmap @bound4
      ip fib daddr type local meta l4proto . th dport vmap @ports4
      ip6 fib daddr type local ip6 daddr . meta l4proto . th dport vmap @bound6
      ip6 fib daddr type local meta l4proto . th dport vmap @ports6
    gone  0
      meta l4proto tcp reject with tcp reset
      reject with icmpx port-unreachable
    lost filter 0
      ip daddr @gone4 ct state established,related goto gone
      ip6 daddr @gone6 ct state established,related goto gone
    nudges filter -300
      meta mark 0x6f766e67 notrack
    forward filter -1
      iifname ovtg* ip saddr @inward4 ct state new counter drop
      iifname ovtg* ip6 saddr @inward6 ct state new counter drop
      oifname ovtg* ip daddr @gone4 ct state established,related goto gone
      oifname ovtg* ip6 daddr @gone6 ct state established,related goto gone
      oifname ovtg* ct status dnat accept
      oifname ovtg* ct state established,related accept
      oifname ovtg* counter drop
    count-to filter 0
      oifname ovtg* ip daddr @to4
      oifname ovtg* ip6 daddr @to6
    count-from filter 0
      iifname ovtg* ip saddr @from4
      iifname ovtg* ip6 saddr @from6
    from-outside filter -300
      iifname ovtg* ip daddr 127.0.0.0/8 drop
      iifname ovtg* ip saddr 127.0.0.0/8 drop
    postrouting nat 99
      oifname ovtg* ip daddr @new4
      oifname ovtg* ip6 daddr @new6
      ip saddr 172.29.0.0/16 oifname ovtg* snat to 192.168.77.1
      ip saddr 127.0.0.0/8 oifname ovtg* snat to 192.168.77.1
      ip saddr 10.7.0.0/16 oifname ovtg* snat to 192.168.77.1
      ip6 saddr fd07::/64 oifname ovtg* masquerade
      ip saddr 10.7.0.0/16 oifname != ovtg* masquerade
      ip6 saddr fd07::/64 oifname != ovtg* masquerade
      ip saddr 172.29.0.0/16 oifname ovtbfb6f3a4c919 ct status dnat masquerade
      ip saddr 127.0.0.0/8 oifname ovtbfb6f3a4c919 masquerade
    ");
}

#[test]
fn the_rules_of_a_sandbox() {
    let desired = {
        let mut desired = example();
        desired.sandboxes.insert("s".into(), sandbox(true));
        desired
    };
    let rules = |publishes| {
        let sandbox = sandbox(publishes);
        render(rules::marks(&desired, &sandbox)) + &render(rules::back(&desired, &sandbox))
    };
    assert_eq!(rules(false), "nothing\nnothing\n");
    insta::assert_snapshot!(rules(true), @r"
    @hosts [2, 69, c0, a8, 4d, 1] : [1, 4d, a8, c0]
    @hosts [2, 69, c0, a8, 4d, 2] : [2, 4d, a8, c0]
    prerouting filter -150
      iifname eth1 ct state new ct mark set ether saddr map @hosts
      iifname eth1 tcp flags & (fin|syn|rst|ack) == syn ct state established,related ether saddr . ct mark != @ways counter
    output filter -150
      meta mark set ct mark
    @back [1, 4d, a8, c0] : [2, 69, c0, a8, 4d, 1]
    @back [2, 4d, a8, c0] : [2, 69, c0, a8, 4d, 2]
    egress-eth1 filter 0 eth1
      ether daddr set meta mark map @back
    ");
}

#[test]
fn who_has_a_gateway() {
    let mut desired = example();
    let facts = Facts::default();
    assert!(gateways(&desired, &facts).is_empty());
    desired.sandboxes.insert("s".into(), sandbox(false));
    assert!(gateways(&desired, &facts).is_empty(), "nobody publishes");
    desired.sandboxes.insert("s".into(), sandbox(true));
    let all = gateways(&desired, &facts);
    assert_eq!(all.len(), 1);
    let gateway = &all[&tag("ingress")];
    assert_eq!(gateway.mac, Mac([2, 0x69, 192, 168, 77, 1]));
    assert_eq!(gateway.addresses.len(), 2);
    let wanted = crate::want::want(&desired, &facts);
    let segment = &wanted.segments[&tag("ingress")];
    let peer = gateway_mac("192.168.77.2".parse().unwrap());
    assert_eq!(
        segment.forwards,
        [(peer, "192.168.77.2".parse().unwrap())].into()
    );
    assert_eq!(segment.locals[&gateway.mac], gateway.port);
    assert!(wanted.forwarding.ipv4 && wanted.forwarding.ipv6);
    let routes = &wanted.sandboxes[std::path::Path::new("/nowhere")].routes;
    let names: Vec<_> = routes
        .iter()
        .map(|(via, at)| format!("{via} {at}"))
        .collect();
    assert_eq!(names, ["10.7.0.1 eth1", "fd07::1 eth1"]);
    desired.underlay = None;
    assert!(gateways(&desired, &facts).is_empty(), "in no cluster");
}
