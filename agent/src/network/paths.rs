//! One overlay network more, of the hosts themselves: the way between them is measured on it. It
//! has a VNI below those of the cluster's networks, and its addresses follow from the hosts'
//! numbers, so nobody has to give them. Pure.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use dataplane::{
    Desired,
    desired::{self, Change as Step, NetworkKind, Remote, Sandbox},
};
use ipnetwork::{IpNetwork, Ipv4Network};
use model::{Assignments, NodeId, assignment::Peer};

use crate::paths::{DEVICE, Targets};

/// The network, the sandbox, and its endpoint. No container has such an id.
const ID: &str = "overnet-paths";
/// Below those that the cluster gives.
const VNI: u32 = 4095;
/// For measurements between networks (RFC 2544); in namespaces of ours only. IPv4 has no least
/// MTU that counts here and is there on every host.
const RANGE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
const PREFIX: u8 = 15;
/// Addresses of the range without its own and that of broadcasts.
const HOSTS: u32 = (1 << (32 - PREFIX)) - 2;

/// What has to be there so that the way to the other hosts can be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathWish {
    network: desired::Network,
    sandbox: Sandbox,
    /// By the dataplane's id.
    remotes: BTreeMap<String, Remote>,
    targets: BTreeMap<NodeId, Ipv4Addr>,
}

/// Nothing without other hosts.
pub fn wish(assignments: &Assignments, node: &NodeId, run_dir: &Path) -> Option<PathWish> {
    let own = assignments.peers.get(node)?;
    let address = address(own)?;
    let others = assignments.peers.iter().filter(|(id, _)| *id != node);
    let known: Vec<(&NodeId, Ipv4Addr, &Peer)> = others
        .filter_map(|(id, peer)| Some((id, self::address(peer)?, peer)))
        .collect();
    if known.is_empty() {
        return None;
    }
    let range = Ipv4Network::new(RANGE, PREFIX).ok()?;
    let interface = desired::Interface {
        endpoint: ID.to_owned(),
        network: ID.to_owned(),
        name: DEVICE.to_owned(),
        addresses: vec![IpNetwork::V4(Ipv4Network::new(address, PREFIX).ok()?)],
        mac: mac(own),
        default_via: Vec::new(),
        publishes: false,
        names: Vec::new(),
    };
    let remote = |address: Ipv4Addr, peer: &Peer| Remote {
        network: ID.to_owned(),
        addresses: vec![address.into()],
        mac: mac(peer),
        vtep: peer.data_path,
        names: Vec::new(),
    };
    Some(PathWish {
        network: desired::Network {
            name: "of the hosts' paths".to_owned(),
            kind: NetworkKind::Overlay {
                vni: VNI,
                encrypted: false,
            },
            subnets: vec![desired::Subnet {
                subnet: IpNetwork::V4(range),
                gateway: IpAddr::V4(RANGE),
            }],
            mtu: None,
        },
        sandbox: Sandbox {
            netns: run_dir.join("netns").join("paths"),
            interfaces: vec![interface],
            dns: None,
            counted: false,
        },
        remotes: known
            .iter()
            .map(|(id, address, peer)| (format!("{ID}.{id}"), remote(*address, peer)))
            .collect(),
        targets: known
            .into_iter()
            .map(|(id, address, _)| (id.clone(), address))
            .collect(),
    })
}

/// Puts it into a whole wish.
pub fn add(wish: Option<&PathWish>, desired: &mut Desired) {
    for step in steps(None, wish) {
        desired.apply(step);
    }
}

/// From one to the next.
pub fn steps(before: Option<&PathWish>, after: Option<&PathWish>) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(after) = after {
        if before.map(|before| &before.network) != Some(&after.network) {
            steps.push(Step::SetNetwork(ID.to_owned(), after.network.clone()));
        }
        if before.map(|before| &before.sandbox) != Some(&after.sandbox) {
            steps.push(Step::SetSandbox(ID.to_owned(), after.sandbox.clone()));
        }
    }
    let none = BTreeMap::new();
    let old = before.map_or(&none, |wish| &wish.remotes);
    let new = after.map_or(&none, |wish| &wish.remotes);
    let gone = old.keys().filter(|id| !new.contains_key(*id));
    steps.extend(gone.map(|id| Step::RemoveRemote(id.clone())));
    let changed = new
        .iter()
        .filter(|(id, remote)| old.get(*id) != Some(remote));
    steps.extend(changed.map(|(id, remote)| Step::SetRemote(id.clone(), remote.clone())));
    if before.is_some() && after.is_none() {
        steps.push(Step::RemoveSandbox(ID.to_owned()));
        steps.push(Step::RemoveNetwork(ID.to_owned()));
    }
    steps
}

/// From where, and to whom.
pub fn targets(wish: Option<&PathWish>) -> Targets {
    wish.map_or_else(Targets::default, |wish| Targets {
        netns: Some(wish.sandbox.netns.clone()),
        peers: wish.targets.clone(),
    })
}

/// Numbers are given from 1 on, the least free one first.
fn address(peer: &Peer) -> Option<Ipv4Addr> {
    let fits = (1..=HOSTS).contains(&peer.number);
    fits.then(|| Ipv4Addr::from(u32::from(RANGE) + peer.number))
}

fn mac(peer: &Peer) -> [u8; 6] {
    let [a, b, c, d] = peer.number.to_be_bytes();
    [0x02, 0x70, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn peer(number: u32) -> Peer {
        Peer {
            hostname: format!("h{number}"),
            number,
            data_path: IpAddr::from([192, 0, 2, u8::try_from(number % 250).unwrap()]),
            down: false,
            keys: Vec::new(),
            phase: None,
        }
    }

    fn wish_of(numbers: &[u32]) -> Option<PathWish> {
        let peers = numbers
            .iter()
            .map(|n| (NodeId::new(format!("n{n}")), peer(*n)));
        let assignments = Assignments {
            peers: peers.collect(),
            data_path_port: 4789,
            ..Assignments::default()
        };
        wish(&assignments, &"n1".into(), Path::new("/run/overnet"))
    }

    fn whole(wish: Option<&PathWish>) -> Desired {
        let mut desired = Desired::default();
        add(wish, &mut desired);
        desired
    }

    #[test]
    fn a_host_without_others_wishes_nothing() {
        assert_eq!(wish_of(&[]), None);
        assert_eq!(wish_of(&[1]), None);
        assert_eq!(wish_of(&[2, 3]), None, "a host that is in no network");
        assert_eq!(whole(None), Desired::default());
    }

    #[test]
    fn both_ends_derive_the_same() {
        let wish = wish_of(&[1, 2, 70_000, 131_070, 131_071]).unwrap();
        let addresses: BTreeMap<_, _> = wish
            .targets
            .iter()
            .map(|(node, address)| (node.as_str(), address.to_string()))
            .collect();
        // The last number has no place in the range.
        let expected = [
            ("n131070", "198.19.255.254"),
            ("n2", "198.18.0.2"),
            ("n70000", "198.19.17.112"),
        ];
        assert_eq!(addresses, expected.map(|(n, a)| (n, a.to_owned())).into());
        let desired = whole(Some(&wish));
        let own = &desired.sandboxes[ID].interfaces[0];
        assert_eq!(own.addresses[0].to_string(), "198.18.0.1/15");
        assert_eq!(own.mac, [2, 0x70, 0, 0, 0, 1]);
        assert_eq!(
            desired.remotes["overnet-paths.n70000"].mac,
            [2, 0x70, 0, 1, 0x11, 0x70]
        );
        assert_eq!((desired.networks.len(), desired.remotes.len()), (1, 3));
    }

    #[test]
    fn steps_lead_to_what_the_whole_wish_says() {
        let cases: [&[u32]; 7] = [&[1], &[1, 2], &[1, 2, 3], &[1, 3], &[1, 3], &[], &[1, 2]];
        let mut desired = Desired::default();
        let mut before = None;
        for numbers in cases {
            let after = wish_of(numbers);
            let steps = steps(before.as_ref(), after.as_ref());
            assert_eq!(steps.is_empty(), before == after);
            for step in steps {
                desired.apply(step);
            }
            assert_eq!(desired, whole(after.as_ref()), "{numbers:?}");
            before = after;
        }
    }
}
