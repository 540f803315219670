//! From what the cluster says to what the dataplane shall do: pure functions.

use std::{collections::BTreeMap, net::IpAddr};

use dataplane::{
    desired::{self, Desired, NetworkKind, PeerFacts, PeerKey, Remote, Tunnels, Underlay},
    encryption,
    wireguard::PublicKey,
};
use model::{
    Assignments, Change, Endpoint, EndpointState, Network, NodeId, assignment::Peer,
    network::Subnet,
};

/// Bytes that VXLAN takes from each packet: outer IP, UDP, VXLAN and inner Ethernet headers.
const OVERHEAD_IPV4: u32 = 50;
const OVERHEAD_IPV6: u32 = 70;

/// The cluster's part of the wish.
pub fn cluster_wish(assignments: &Assignments, node: &NodeId, tunnels: &Tunnels) -> Desired {
    let underlay = underlay(assignments, node, tunnels);
    let vtep = underlay.as_ref().map(|underlay| underlay.address);
    Desired {
        networks: assignments
            .networks
            .iter()
            .map(|(id, network)| (id.to_string(), overlay(network, vtep)))
            .collect(),
        remotes: assignments
            .endpoints
            .iter()
            .filter_map(|(id, endpoint)| {
                Some((id.to_string(), remote(endpoint, &assignments.peers, node)?))
            })
            .collect(),
        underlay,
        ..Desired::default()
    }
}

/// The steps one change of the assignments asks for. `assignments` is the state after the
/// whole increment, so that a peer and its endpoints may arrive together.
pub fn cluster_change(
    change: &Change,
    assignments: &Assignments,
    node: &NodeId,
    tunnels: &Tunnels,
) -> Vec<desired::Change> {
    use desired::Change as Step;
    match change {
        Change::SetPeer(id, _) => {
            let mut steps = vec![Step::SetUnderlay(underlay(assignments, node, tunnels))];
            // A peer that moved to another address takes its endpoints along.
            steps.extend(
                assignments
                    .endpoints
                    .values()
                    .filter(|e| e.node == *id)
                    .filter_map(|endpoint| {
                        let remote = remote(endpoint, &assignments.peers, node)?;
                        Some(Step::SetRemote(endpoint.id.to_string(), remote))
                    }),
            );
            steps
        }
        Change::RemovePeer(_) => {
            vec![Step::SetUnderlay(underlay(assignments, node, tunnels))]
        }
        Change::SetNetwork(network) => {
            let vtep = assignments.peers.get(node).map(|peer| peer.data_path);
            vec![Step::SetNetwork(
                network.id.to_string(),
                overlay(network, vtep),
            )]
        }
        Change::RemoveNetwork(id) => vec![Step::RemoveNetwork(id.to_string())],
        Change::SetEndpoint(endpoint) => match remote(endpoint, &assignments.peers, node) {
            Some(remote) => vec![Step::SetRemote(endpoint.id.to_string(), remote)],
            None => Vec::new(),
        },
        Change::RemoveEndpoint(id) => vec![Step::RemoveRemote(id.to_string())],
        Change::SetService(_)
        | Change::RemoveService(_)
        | Change::SetTask(_)
        | Change::RemoveTask(_)
        | Change::SetPayload(_)
        | Change::RemovePayload(_) => Vec::new(),
    }
}

fn underlay(assignments: &Assignments, node: &NodeId, tunnels: &Tunnels) -> Option<Underlay> {
    let own = assignments.peers.get(node)?;
    Some(Underlay {
        address: own.data_path,
        port: assignments.data_path_port,
        peers: assignments
            .peers
            .iter()
            .filter(|(id, _)| *id != node)
            .map(|(_, peer)| {
                let facts = PeerFacts {
                    number: peer.number,
                    hostname: peer.hostname.clone(),
                    down: peer.down,
                    keys: keys(peer),
                };
                (peer.data_path, facts)
            })
            .collect(),
        tunnels: tunnels.clone(),
    })
}

fn keys(peer: &Peer) -> BTreeMap<u64, PeerKey> {
    let keys = peer.keys.iter().map(|key| {
        let known = PeerKey {
            public: PublicKey(key.public),
            port: key.port,
        };
        (key.generation, known)
    });
    keys.collect()
}

/// The dataplane's view of an overlay network.
pub fn overlay(network: &Network, vtep: Option<IpAddr>) -> desired::Network {
    let encrypted = network.is_encrypted();
    let ipv6 = vtep.is_some_and(|vtep| vtep.is_ipv6());
    let mut overhead = if ipv6 { OVERHEAD_IPV6 } else { OVERHEAD_IPV4 };
    if encrypted {
        overhead += encryption::overhead(ipv6);
    }
    desired::Network {
        name: network.spec.name.clone(),
        kind: NetworkKind::Overlay {
            vni: network.vni,
            encrypted,
        },
        subnets: network.subnets.iter().map(subnet).collect(),
        mtu: network
            .underlay_mtu()
            .map(|underlay| underlay.saturating_sub(overhead)),
    }
}

/// The dataplane's view of a subnet.
pub fn subnet(subnet: &Subnet) -> desired::Subnet {
    desired::Subnet {
        subnet: subnet.subnet,
        gateway: subnet.gateway,
    }
}

/// The dataplane's view of an endpoint on another host; nothing for our own, and nothing
/// while the host is unknown (its peer entry brings the endpoint along).
fn remote(endpoint: &Endpoint, peers: &BTreeMap<NodeId, Peer>, node: &NodeId) -> Option<Remote> {
    if endpoint.node == *node {
        return None;
    }
    Some(Remote {
        network: endpoint.network.to_string(),
        addresses: endpoint
            .addresses
            .iter()
            .map(ipnetwork::IpNetwork::ip)
            .collect(),
        mac: endpoint.mac.0,
        vtep: peers.get(&endpoint.node)?.data_path,
        names: match endpoint.state {
            EndpointState::Active => endpoint.names.clone(),
            EndpointState::Allocated | EndpointState::Draining => Vec::new(),
        },
    })
}

#[cfg(test)]
mod tests {
    use model::{ContainerId, EndpointOwner, Increment, Meta, NetworkSpec, endpoint::MacAddress};

    use super::*;

    fn endpoint(id: &str, node: &str, address: &str, state: EndpointState) -> Endpoint {
        let address: ipnetwork::IpNetwork = address.parse().unwrap();
        Endpoint {
            id: id.into(),
            meta: Meta::default(),
            network: "net".into(),
            node: node.into(),
            owner: EndpointOwner::Container {
                id: ContainerId::new("c"),
                name: "api".into(),
            },
            mac: MacAddress::from_ip(address.ip()),
            addresses: vec![address],
            names: vec!["api".into()],
            state,
        }
    }

    fn peer(address: &str) -> Peer {
        Peer {
            hostname: "h".into(),
            number: 1,
            data_path: address.parse().unwrap(),
            down: false,
            keys: Vec::new(),
            phase: None,
        }
    }

    fn network() -> Network {
        Network {
            id: "net".into(),
            meta: Meta::default(),
            spec: NetworkSpec {
                name: "ch03".into(),
                ..NetworkSpec::default()
            },
            vni: 4097,
            subnets: vec![Subnet {
                subnet: "10.0.1.0/24".parse().unwrap(),
                range: "10.0.1.0/24".parse().unwrap(),
                gateway: "10.0.1.1".parse().unwrap(),
                aux_addresses: BTreeMap::new(),
            }],
        }
    }

    fn assignments() -> Assignments {
        let mut assignments = Assignments {
            data_path_port: 4789,
            ..Assignments::default()
        };
        assignments.peers.insert("a".into(), peer("192.0.2.1"));
        assignments.peers.insert("b".into(), peer("192.0.2.2"));
        assignments.networks.insert("net".into(), network());
        for e in [
            endpoint("e1", "a", "10.0.1.2/24", EndpointState::Active),
            endpoint("e2", "b", "10.0.1.3/24", EndpointState::Active),
            endpoint("e3", "b", "10.0.1.4/24", EndpointState::Allocated),
        ] {
            assignments.endpoints.insert(e.id.clone(), e);
        }
        assignments
    }

    #[test]
    fn the_wish_has_other_hosts_endpoints_and_names_of_active_ones() {
        let wish = cluster_wish(&assignments(), &"a".into(), &Tunnels::default());
        assert_eq!(wish.remotes.keys().collect::<Vec<_>>(), ["e2", "e3"]);
        assert_eq!(wish.remotes["e2"].names, ["api"]);
        assert!(wish.remotes["e3"].names.is_empty());
        let underlay = wish.underlay.unwrap();
        assert_eq!(
            underlay.peers.keys().collect::<Vec<_>>(),
            [&"192.0.2.2".parse::<IpAddr>().unwrap()]
        );
    }

    #[test]
    fn increments_lead_to_the_same_wish_as_the_full_set() {
        let node: NodeId = "a".into();
        let target = assignments();
        let empty = Assignments {
            data_path_port: 4789,
            ..Assignments::default()
        };
        let increment = Increment {
            changes: empty.diff(&target),
            ..Increment::default()
        };
        let mut reached = empty.clone();
        reached.apply(&increment);
        let tunnels = Tunnels::default();
        let mut wish = cluster_wish(&empty, &node, &tunnels);
        for change in &increment.changes {
            for step in cluster_change(change, &reached, &node, &tunnels) {
                wish.apply(step);
            }
        }
        assert_eq!(wish, cluster_wish(&target, &node, &tunnels));
    }

    #[test]
    fn a_fixed_underlay_mtu_loses_the_encapsulation() {
        let mut network = network();
        network
            .spec
            .options
            .insert(model::network::OPTION_MTU.into(), "9000".into());
        let mtu = |network: &Network, vtep: &str| overlay(network, vtep.parse().ok()).mtu;
        assert_eq!(mtu(&network, "192.0.2.1"), Some(8950));
        assert_eq!(mtu(&network, "2001:db8::1"), Some(8930));
        let encrypted = (model::network::OPTION_ENCRYPTED.into(), String::new());
        network.spec.options.extend([encrypted]);
        assert_eq!(mtu(&network, "192.0.2.1"), Some(8890));
        assert_eq!(mtu(&network, "2001:db8::1"), Some(8850));
        assert!(overlay(&network, None).is_encrypted());
    }
}
