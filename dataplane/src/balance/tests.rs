use std::{
    fmt::Write,
    net::{Ipv4Addr, Ipv6Addr},
};

use proptest::prelude::*;

use super::{
    rules::{hooks, note, print_of, text},
    *,
};
use crate::{
    desired::{Interface, Network, NetworkKind},
    rules::comment,
};

fn addresses(words: &str) -> Vec<IpAddr> {
    words
        .split_whitespace()
        .map(|a| a.parse().unwrap())
        .collect()
}

fn vip(network: &str, own: &str, backends: &str) -> Vip {
    let each = backends.split(',').filter(|words| !words.trim().is_empty());
    Vip {
        network: network.into(),
        addresses: addresses(own),
        names: Vec::new(),
        backends: each
            .enumerate()
            .map(|(n, words)| (format!("e{n}"), addresses(words)))
            .collect(),
    }
}

fn sandbox(networks: &[&str]) -> Sandbox {
    Sandbox {
        netns: "/nowhere".into(),
        interfaces: networks
            .iter()
            .map(|network| Interface {
                endpoint: (*network).into(),
                network: (*network).into(),
                name: "eth0".into(),
                addresses: Vec::new(),
                mac: [2; 6],
                default_via: Vec::new(),
                publishes: false,
                names: Vec::new(),
            })
            .collect(),
        dns: None,
        counted: true,
    }
}

/// Two overlay networks and a local one.
fn networks() -> Desired {
    let mut desired = Desired::default();
    let local = NetworkKind::Bridge {
        masquerade: true,
        isolated: false,
        internal: false,
        device: None,
    };
    for (id, kind) in [
        (
            "n0",
            NetworkKind::Overlay {
                vni: 1,
                encrypted: false,
            },
        ),
        (
            "n1",
            NetworkKind::Overlay {
                vni: 2,
                encrypted: false,
            },
        ),
        ("local", local),
    ] {
        let network = Network {
            name: id.into(),
            kind,
            subnets: Vec::new(),
            mtu: None,
        };
        desired.networks.insert(id.into(), network);
    }
    desired
}

/// Every rule of the sandbox as text.
fn render(desired: &Desired, sandbox: &Sandbox) -> String {
    let Some(balance) = wanted(desired, sandbox) else {
        return "nothing\n".into();
    };
    let mut out = String::new();
    for ipv6 in [false, true] {
        let of_family = balance
            .addresses
            .iter()
            .filter(|(address, _)| address.is_ipv6() == ipv6);
        for (address, chain) in of_family {
            writeln!(
                out,
                "@{} {address} : goto {chain}",
                crate::rules::vips(ipv6)
            )
            .unwrap();
        }
    }
    let change = difference(desired, sandbox, &balance, None);
    for hook in hooks() {
        writeln!(out, "{} ({} {}):", hook.name, hook.kind, hook.priority).unwrap();
        for rule in &hook.rules {
            writeln!(out, "  {}", comment(rule)).unwrap();
        }
    }
    for (chain, backends) in &change.chains {
        writeln!(out, "{chain}:").unwrap();
        for line in text(chain.ipv6, backends.as_ref().unwrap()) {
            writeln!(out, "  {line}").unwrap();
        }
    }
    out
}

/// No protocol and no port is named but TCP's for its reset: UDP, ICMP and SCTP go the same way.
#[test]
fn the_rules_of_a_sandbox() {
    let mut desired = networks();
    for (id, vip) in [
        (
            "web",
            vip(
                "n0",
                "10.7.0.9 fd07::9",
                "10.7.0.2 fd07::2, 10.7.0.3 fd07::3",
            ),
        ),
        ("one", vip("n0", "10.7.0.8", "10.7.0.2")),
        ("none", vip("n0", "10.7.0.7 fd07::7", "10.7.0.2")),
        ("elsewhere", vip("n1", "10.8.0.9", "10.8.0.2")),
    ] {
        desired.vips.insert(id.into(), vip);
    }
    insta::assert_snapshot!(render(&desired, &sandbox(&["n0"])), @r"
    @vips4 10.7.0.7 : goto vip4-7bad16a95aa
    @vips4 10.7.0.8 : goto vip4-a1921cbfc25
    @vips4 10.7.0.9 : goto vip4-1194877f4ff
    @vips6 fd07::7 : goto vip6-7bad16a95aa
    @vips6 fd07::9 : goto vip6-1194877f4ff
    prerouting (nat -100):
      ip daddr vmap @vips4
      ip6 daddr vmap @vips6
      ct state established,related
    output (nat -100):
      ip daddr vmap @vips4
      ip6 daddr vmap @vips6
    vip4-1194877f4ff:
      dnat ip to numgen random mod 2 map { 0 : 10.7.0.2, 1 : 10.7.0.3 }
      dnat ip to 10.7.0.2
    vip4-7bad16a95aa:
      dnat ip to 10.7.0.2
    vip4-a1921cbfc25:
      dnat ip to 10.7.0.2
    vip6-1194877f4ff:
      dnat ip6 to numgen random mod 2 map { 0 : fd07::2, 1 : fd07::3 }
      dnat ip6 to fd07::2
    vip6-7bad16a95aa:
      meta l4proto tcp reject with tcp reset
      reject with icmpx port-unreachable
    ");
}

#[test]
fn who_has_rules_at_all() {
    let mut desired = networks();
    let has = |desired: &Desired, networks: &[&str], counted| {
        let sandbox = Sandbox {
            counted,
            ..sandbox(networks)
        };
        wanted(desired, &sandbox).is_some()
    };
    assert!(has(&desired, &["n0"], true), "counted");
    assert!(!has(&desired, &["n0"], false), "not counted");
    desired
        .vips
        .insert("v".into(), vip("n0", "10.9.0.9", "10.9.0.2"));
    assert!(has(&desired, &["n0"], false), "in reach of a virtual IP");
    assert!(!has(&desired, &["n1"], false), "out of reach");
}

#[test]
fn the_ground_goes_with_the_last_virtual_ip() {
    let mut desired = networks();
    let own = vip("n0", "10.9.0.9", "10.9.0.2");
    desired.vips.insert("v".into(), own.clone());
    for (counted, looked_at) in [(true, 0), (false, 1)] {
        let mut desired = desired.clone();
        let sandbox = Sandbox {
            counted,
            ..sandbox(&["n0"])
        };
        desired.sandboxes.insert("c".into(), sandbox.clone());
        let mut seen = crate::view::View::default();
        let there = crate::view::Sandbox {
            balance: wanted(&desired, &sandbox),
            ..crate::view::Sandbox::default()
        };
        seen.sandboxes.insert(sandbox.netns, there);
        let mut touched = Touched::default();
        touched.add(&desired, "v");
        desired.apply(crate::desired::Change::RemoveVip("v".into()));
        let mut looked = BTreeSet::new();
        let steps = touched.steps(&desired, &seen, &mut looked);
        assert_eq!((looked.len(), steps.len()), (looked_at, 1 - looked_at));
    }
}

#[test]
fn comments_tell_whole_chains_only() {
    let notes = |list: &[(u64, usize, usize)]| -> Vec<String> {
        list.iter().map(|(p, n, of)| note(*p, *n, *of)).collect()
    };
    for (found, expected) in [
        (notes(&[(7, 0, 1)]), 7),
        (notes(&[(7, 0, 2), (7, 1, 2)]), 7),
        (notes(&[(7, 0, 2)]), 0),
        (notes(&[(7, 1, 2), (7, 0, 2)]), 0),
        (notes(&[(7, 0, 2), (8, 1, 2)]), 0),
        (vec![String::new()], 0),
        (vec!["accept".into()], 0),
        (Vec::new(), 0),
    ] {
        assert_eq!(print_of(&found), expected, "{found:?}");
    }
}

#[test]
fn chains_have_names_that_tell_them() {
    for ipv6 in [false, true] {
        let chain = Chain::new("vip-of-a-service", ipv6);
        assert_eq!(chain.to_string().parse(), Ok(chain));
    }
    for name in ["", "vip4", "vip4-", "vip5-00000000001", "vip4-1", "output"] {
        assert!(name.parse::<Chain>().is_err(), "{name}");
    }
}

#[test]
fn one_backend_more_touches_one_chain() {
    let mut desired = networks();
    for n in 0..1000_u16 {
        let [high, low] = n.to_be_bytes();
        let own = format!("10.9.{high}.{low}");
        desired
            .vips
            .insert(format!("v{n}"), vip("n0", &own, "10.7.0.2, 10.7.0.3"));
    }
    let mut touched = Touched::default();
    touched.add(&desired, "v500");
    let more = vip("n0", "10.9.1.244", "10.7.0.2, 10.7.0.3, 10.7.0.4");
    desired.apply(crate::desired::Change::SetVip("v500".into(), more));
    let change = touched.change(&desired, &sandbox(&["n0"]));
    let chain = Chain::new("v500", false);
    assert!(!change.whole);
    assert_eq!(
        change.chains[&chain]
            .as_ref()
            .map(|backends| backends.len()),
        Some(3)
    );
    let others = change.chains.iter().filter(|(name, _)| **name != chain);
    assert!(others.clone().all(|(_, backends)| backends.is_none()));
    // The chain that it has not, of the other family.
    assert_eq!(others.count(), 1);
    assert_eq!(change.addresses.len(), 1);
    let allowed: BTreeSet<_> = addresses("10.7.0.2 10.7.0.3 10.7.0.4")
        .into_iter()
        .collect();
    assert_eq!(change.flows, [(addresses("10.9.1.244")[0], allowed)].into());
    assert!(
        touched.change(&desired, &sandbox(&["n1"])).addresses[&addresses("10.9.1.244")[0]]
            .is_none()
    );
}

fn any_vip() -> impl Strategy<Value = Vip> {
    let address = (0..4u8, any::<bool>()).prop_map(|(n, six)| -> IpAddr {
        if six {
            Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n.into()).into()
        } else {
            Ipv4Addr::new(10, 0, 0, n).into()
        }
    });
    let own = prop::collection::vec(address.clone(), 0..3);
    let backends =
        prop::collection::btree_map("e[0-2]", prop::collection::vec(address, 0..3), 0..3);
    ("n[01]", own, backends).prop_map(|(network, addresses, backends)| Vip {
        network,
        addresses,
        names: Vec::new(),
        backends,
    })
}

proptest! {
    /// Step by step and as a whole one arrives at the same, from wherever one begins.
    #[test]
    fn steps_lead_where_the_whole_wish_leads(
        batches in prop::collection::vec(
            prop::collection::vec(("v[0-3]", prop::option::of(any_vip())), 1..4),
            0..8,
        ),
        drift in prop::option::of(("v[0-3]", any_vip())),
    ) {
        let sandboxes = [sandbox(&["n0"]), sandbox(&["n1"]), sandbox(&["n1", "n0"])];
        let mut desired = networks();
        let mut seen = sandboxes.clone().map(|sandbox| wanted(&desired, &sandbox).unwrap());
        for batch in batches {
            let mut touched = Touched::default();
            for (id, vip) in batch {
                touched.add(&desired, &id);
                desired.apply(match vip {
                    Some(vip) => crate::desired::Change::SetVip(id, vip),
                    None => crate::desired::Change::RemoveVip(id),
                });
            }
            for (sandbox, seen) in sandboxes.iter().zip(&mut seen) {
                seen.apply(&touched.change(&desired, sandbox));
                prop_assert_eq!(Some(seen.clone()), wanted(&desired, sandbox));
            }
        }
        let mut foreign = desired.clone();
        if let Some((id, vip)) = drift {
            foreign.vips.insert(id, vip);
        }
        for sandbox in &sandboxes {
            let good = wanted(&desired, sandbox).unwrap();
            let mut bad = wanted(&foreign, sandbox).unwrap();
            let change = difference(&desired, sandbox, &good, Some(&bad));
            prop_assert_eq!(change.is_empty(), good == bad);
            bad.apply(&change);
            prop_assert_eq!(&bad, &good);
            bad.sound = false;
            bad.apply(&difference(&desired, sandbox, &good, Some(&bad)));
            prop_assert_eq!(&bad, &good);
        }
    }
}
