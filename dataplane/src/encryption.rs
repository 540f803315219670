//! What encrypted networks need of the host: WireGuard devices, and the ways into them. Pure.
//!
//! The VXLAN devices of encrypted networks send to a UDP port of their own. A routing rule sends
//! that port's packets to a table of ours, which leads to each host by a WireGuard device and to
//! nobody otherwise; so what finds no tunnel does not leave, also while hosts come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use crate::{
    desired::{Desired, Network, NetworkKind, PeerFacts, Tunnels, Underlay},
    view::{Facts, Tunnel, Way, Ways, tunnel_name},
    want,
};

/// Bytes that WireGuard takes: IP, UDP 8, its own header and tag 32.
const OVERHEAD_IPV4: u32 = 60;
const OVERHEAD_IPV6: u32 = 80;

pub fn overhead(ipv6: bool) -> u32 {
    if ipv6 { OVERHEAD_IPV6 } else { OVERHEAD_IPV4 }
}

/// The UDP port of VXLAN inside the tunnels; it is seen on no wire.
pub fn port(underlay: &Underlay) -> u16 {
    inner_port(underlay.port)
}

pub fn inner_port(port: u16) -> u16 {
    port.saturating_add(1)
}

/// Whether this host has an encrypted network.
pub fn is_on(desired: &Desired) -> bool {
    let mut networks = desired.networks.values();
    desired.underlay.is_some() && networks.any(Network::is_encrypted)
}

/// Of the encrypted networks, as they stand in a packet.
pub fn vnis(desired: &Desired) -> BTreeSet<Vec<u8>> {
    let networks = desired.networks.values();
    networks
        .filter_map(|network| match network.kind {
            NetworkKind::Overlay {
                vni,
                encrypted: true,
            } => Some(vni.to_be_bytes()[1..].to_vec()),
            NetworkKind::Overlay { .. } | NetworkKind::Bridge { .. } => None,
        })
        .collect()
}

/// The devices by name, and the ways into them.
pub fn wanted(desired: &Desired, facts: &Facts) -> (BTreeMap<String, Tunnel>, Ways) {
    let mut ways = Ways::default();
    let (true, Some(underlay)) = (is_on(desired), &desired.underlay) else {
        return (BTreeMap::new(), ways);
    };
    let own = &underlay.tunnels;
    let ipv6 = underlay.address.is_ipv6();
    let mtu = want::underlay_mtu(desired, facts).saturating_sub(overhead(ipv6));
    let tunnels = own.keys.iter().map(|(generation, key)| {
        let peers = underlay.peers.iter().filter_map(|(address, facts)| {
            let key = facts.keys.get(generation)?;
            Some((key.public, SocketAddr::new(*address, key.port)))
        });
        let tunnel = Tunnel {
            mtu,
            up: true,
            public_key: Some(key.public),
            local: Some(underlay.address),
            port: key.port,
            peers: peers.collect(),
        };
        (tunnel_name(*generation), tunnel)
    });
    let routes = underlay.peers.iter().filter_map(|(address, facts)| {
        let generation = sent_with(own, facts)?;
        Some((*address, tunnel_name(generation)))
    });
    let way = Way {
        rule: Some(port(underlay)),
        closed: true,
        routes: routes.collect(),
    };
    if ipv6 {
        ways.ipv6 = way;
    } else {
        ways.ipv4 = way;
    }
    (tunnels.collect(), ways)
}

/// The generation of keys by which that host is sent to: the one that is asked for, else the one
/// before, which it still has, else the one that is to come, which it has alone.
fn sent_with(own: &Tunnels, peer: &PeerFacts) -> Option<u64> {
    let both = own.keys.keys().filter(|key| peer.keys.contains_key(key));
    let (before, after): (Vec<u64>, Vec<u64>) = both.partition(|key| **key <= own.sending);
    before.last().or(after.first()).copied()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::{
        desired::{OwnKey, PeerKey},
        wireguard::PublicKey,
    };

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    /// This host with keys of `own` generations, and a peer with each of these.
    fn desired(own: &[u64], sending: u64, peers: &[&[u64]], encrypted: bool) -> Desired {
        let number = |generation: u64, host: usize| generation as u8 * 16 + host as u8;
        let port = |generation: u64| 51820 + (generation % 2) as u16;
        let own = own.iter().map(|generation| {
            let key = OwnKey {
                public: PublicKey([number(*generation, 0); 32]),
                file: format!("key-{generation}").into(),
                port: port(*generation),
            };
            (*generation, key)
        });
        let facts = |(at, keys): (usize, &&[u64])| {
            let keys = keys.iter().map(|generation| {
                let key = PeerKey {
                    public: PublicKey([number(*generation, at + 1); 32]),
                    port: port(*generation),
                };
                (*generation, key)
            });
            let facts = PeerFacts {
                keys: keys.collect(),
                ..PeerFacts::default()
            };
            (address(at as u8 + 2), facts)
        };
        let kind = NetworkKind::Overlay { vni: 7, encrypted };
        Desired {
            underlay: Some(Underlay {
                address: address(1),
                port: 4789,
                peers: peers.iter().enumerate().map(facts).collect(),
                tunnels: Tunnels {
                    keys: own.collect(),
                    sending,
                },
            }),
            networks: [(
                "n".to_owned(),
                Network {
                    name: "red".into(),
                    kind,
                    subnets: Vec::new(),
                    mtu: None,
                },
            )]
            .into(),
            ..Desired::default()
        }
    }

    fn routes(desired: &Desired) -> Vec<(String, String)> {
        let (_, ways) = wanted(desired, &Facts::default());
        assert_eq!(ways.ipv6, Way::default());
        assert!(ways.ipv4.closed);
        assert_eq!(ways.ipv4.rule, Some(4790));
        let routes = ways.ipv4.routes.into_iter();
        routes.map(|(to, by)| (to.to_string(), by)).collect()
    }

    #[test]
    fn without_an_encrypted_network_nothing_is_needed() {
        let plain = desired(&[0], 0, &[&[0]], false);
        let nothing = (BTreeMap::new(), Ways::default());
        assert_eq!(wanted(&plain, &Facts::default()), nothing);
        let mut alone = desired(&[0], 0, &[&[0]], true);
        alone.underlay = None;
        assert_eq!(wanted(&alone, &Facts::default()), nothing);
    }

    #[test]
    fn every_host_with_a_key_has_a_way_and_no_other() {
        let one = desired(&[0], 0, &[&[0], &[]], true);
        let (tunnels, _) = wanted(&one, &Facts::default());
        let tunnel = &tunnels["ovtw0"];
        assert_eq!((tunnel.mtu, tunnel.port, tunnel.up), (1440, 51820, true));
        let peers: Vec<_> = tunnel.peers.values().map(ToString::to_string).collect();
        assert_eq!(peers, ["192.0.2.2:51820"]);
        assert_eq!(routes(&one), [("192.0.2.2".into(), "ovtw0".into())]);
        let inner = want::mtu(&one, &Facts::default(), &one.networks["n"]);
        assert_eq!(inner, 1390);
    }

    #[test]
    fn a_key_is_sent_with_when_both_have_it_and_it_is_asked_for() {
        for (own, sending, peer, expected) in [
            (&[0, 1][..], 0, &[0, 1][..], Some("ovtw0")),
            (&[0, 1], 1, &[0, 1], Some("ovtw1")),
            (&[0, 1], 1, &[0], Some("ovtw0")),
            (&[1], 1, &[0, 1], Some("ovtw1")),
            // It has joined while the first was still sent with.
            (&[0, 1], 0, &[1], Some("ovtw1")),
            (&[1], 1, &[0], None),
            (&[1, 2], 2, &[2], Some("ovtw0")),
        ] {
            let found = routes(&desired(own, sending, &[peer], true));
            let by = found.first().map(|(_, by)| by.as_str());
            assert_eq!(by, expected, "{own:?} {sending} {peer:?}");
        }
    }

    #[test]
    fn both_generations_are_received_with() {
        let (tunnels, _) = wanted(&desired(&[0, 1], 1, &[&[0, 1]], true), &Facts::default());
        let peers: Vec<usize> = tunnels.values().map(|tunnel| tunnel.peers.len()).collect();
        assert_eq!(peers, [1, 1]);
    }

    #[test]
    fn an_underlay_of_ipv6_costs_more() {
        let mut six = desired(&[0], 0, &[], true);
        if let Some(underlay) = &mut six.underlay {
            underlay.address = "2001:db8::1".parse().unwrap();
        }
        let (tunnels, ways) = wanted(&six, &Facts::default());
        assert_eq!(tunnels["ovtw0"].mtu, 1420);
        assert_eq!((ways.ipv4.closed, ways.ipv6.closed), (false, true));
        let inner = want::mtu(&six, &Facts::default(), &six.networks["n"]);
        assert_eq!(inner, 1350);
    }
}
