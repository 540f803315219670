//! From the wish to what the kernel should hold, whole or in parts. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnetwork::IpNetwork;

use crate::{
    balance,
    desired::{self, Desired, NetworkKind},
    encryption, ingress, rules,
    view::{
        Bridge, Facts, Forwarding, Interface, Mac, Port, PortFlags, Sandbox, Segment, View, Vxlan,
        bridge_mac, port_name, tag,
    },
};

/// Bytes that VXLAN takes: outer Ethernet is free, so inner Ethernet 14, VXLAN 8, UDP 8, IP.
const OVERHEAD_IPV4: u32 = 50;
const OVERHEAD_IPV6: u32 = 70;
/// Ethernet's, for a host of which we know no device.
const FALLBACK_MTU: u32 = 1500;
/// The least MTU of IPv6 (RFC 8200, section 5).
const LEAST_MTU: u32 = 1280;

const LOCAL_PORT: PortFlags = PortFlags {
    learning: false,
    flood: false,
    multicast_flood: true,
    broadcast_flood: true,
    neigh_suppress: false,
    isolated: false,
};
const TUNNEL_PORT: PortFlags = PortFlags {
    learning: false,
    flood: false,
    multicast_flood: false,
    broadcast_flood: false,
    neigh_suppress: true,
    isolated: false,
};

/// All of it.
pub fn want(desired: &Desired, facts: &Facts) -> View {
    let mut segments: BTreeMap<String, Segment> = desired
        .networks
        .iter()
        .filter_map(|(id, network)| Some((tag(id), bare_segment(desired, facts, id, network)?)))
        .collect();
    for sandbox in desired.sandboxes.values() {
        for interface in &sandbox.interfaces {
            add_port(&mut segments, desired, facts, interface);
        }
    }
    let tags: BTreeMap<&str, String> = desired
        .networks
        .keys()
        .map(|id| (id.as_str(), tag(id)))
        .collect();
    for remote in desired.remotes.values() {
        let segment = tags
            .get(remote.network.as_str())
            .and_then(|tag| segments.get_mut(tag));
        if let Some(segment) = segment {
            add_remote(segment, remote);
        }
    }
    for id in ingress::networks(desired) {
        if let Some(segment) = segments.get_mut(&tag(id)) {
            add_gateways(segment, desired, facts, id);
        }
    }
    let sandboxes = desired
        .sandboxes
        .values()
        .map(|sandbox| (sandbox.netns.clone(), want_sandbox(desired, facts, sandbox)))
        .collect();
    View {
        segments,
        sandboxes,
        ..want_host(desired, facts)
    }
}

/// What is the host's own.
pub fn want_host(desired: &Desired, facts: &Facts) -> View {
    let (tunnels, ways) = encryption::wanted(desired, facts);
    View {
        tunnels,
        ways,
        forwarding: forwarding(desired),
        table: rules::host(desired).map(|rules| rules.table()),
        gateways: ingress::gateways(desired, facts),
        ingress: ingress::rules::host(desired, facts).map(|rules| rules.table()),
        ports: ingress::ports(desired, facts),
        ..View::default()
    }
}

/// One network with its ports and remote entries.
pub fn want_segment(desired: &Desired, facts: &Facts, id: &str) -> Option<Segment> {
    let network = desired.networks.get(id)?;
    let mut one = BTreeMap::from([(tag(id), bare_segment(desired, facts, id, network)?)]);
    let interfaces = desired
        .sandboxes
        .values()
        .flat_map(|sandbox| &sandbox.interfaces);
    for interface in interfaces.filter(|interface| interface.network == id) {
        add_port(&mut one, desired, facts, interface);
    }
    let mut segment = one.remove(&tag(id))?;
    for remote in desired
        .remotes
        .values()
        .filter(|remote| remote.network == id)
    {
        add_remote(&mut segment, remote);
    }
    if ingress::networks(desired).contains(id) {
        add_gateways(&mut segment, desired, facts, id);
    }
    Some(segment)
}

pub fn want_sandbox(desired: &Desired, facts: &Facts, sandbox: &desired::Sandbox) -> Sandbox {
    let mut wanted = Sandbox {
        loopback_up: true,
        table: sandbox.dns.as_ref().map(|_| rules::sandbox().table()),
        balance: balance::wanted(desired, sandbox),
        ingress: ingress::rules::marks(desired, sandbox).map(|rules| rules.table()),
        back: ingress::rules::back(desired, sandbox).map(|rules| rules.table()),
        ..Sandbox::default()
    };
    for interface in &sandbox.interfaces {
        let Some(network) = desired.networks.get(&interface.network) else {
            continue;
        };
        if matches!(network.kind, NetworkKind::Overlay { .. }) && desired.underlay.is_none() {
            continue;
        }
        wanted.interfaces.insert(
            interface.name.clone(),
            Interface {
                port: port_name(&interface.endpoint),
                mac: Mac(interface.mac),
                mtu: mtu(desired, facts, network),
                up: true,
                addresses: interface.addresses.iter().copied().collect(),
            },
        );
        for via in &interface.default_via {
            wanted.routes.insert((*via, interface.name.clone()));
        }
    }
    if let Some(routes) = ingress::routes(desired, sandbox) {
        wanted.routes = routes;
    }
    wanted
}

pub fn forwarding(desired: &Desired) -> Forwarding {
    let ingress = ingress::networks(desired);
    let local = |ipv6: bool| {
        desired
            .networks
            .iter()
            .filter(|(id, network)| {
                let bridge = matches!(network.kind, NetworkKind::Bridge { .. });
                bridge || ingress.contains(id.as_str())
            })
            .flat_map(|(_, network)| &network.subnets)
            .any(|subnet| subnet.subnet.is_ipv6() == ipv6)
    };
    Forwarding {
        ipv4: local(false),
        ipv6: local(true),
    }
}

/// Bytes of the containers' interfaces on `network`.
pub fn mtu(desired: &Desired, facts: &Facts, network: &desired::Network) -> u32 {
    if let Some(fixed) = network.mtu {
        return fixed;
    }
    let underlay = desired.underlay.as_ref();
    let below = underlay_mtu(desired, facts);
    match network.kind {
        NetworkKind::Overlay { encrypted, .. } => {
            let ipv6 = underlay.is_some_and(|underlay| underlay.address.is_ipv6());
            let below = if encrypted {
                below.saturating_sub(encryption::overhead(ipv6))
            } else {
                below
            };
            below
                .saturating_sub(if ipv6 { OVERHEAD_IPV6 } else { OVERHEAD_IPV4 })
                .max(576)
        }
        // The loopback device carries an address in some test set-ups: 65536 is no MTU of a veth.
        NetworkKind::Bridge { .. } => below.clamp(LEAST_MTU, 65_535),
    }
}

/// Of the device that has this host's address on the underlay.
pub fn underlay_mtu(desired: &Desired, facts: &Facts) -> u32 {
    let own = desired.underlay.as_ref();
    own.and_then(|underlay| facts.addresses.get(&underlay.address).copied())
        .or(facts.default_mtu)
        .unwrap_or(FALLBACK_MTU)
}

fn bare_segment(
    desired: &Desired,
    facts: &Facts,
    id: &str,
    network: &desired::Network,
) -> Option<Segment> {
    let mtu = mtu(desired, facts, network);
    let tag = tag(id);
    let mut segment = Segment::default();
    let mut addresses = BTreeSet::new();
    let mut device = None;
    match &network.kind {
        NetworkKind::Overlay { vni, encrypted } => {
            let underlay = desired.underlay.as_ref()?;
            segment.own_namespace = true;
            segment.vxlan = Some(Vxlan {
                id: *vni,
                udp_port: if *encrypted {
                    encryption::port(underlay)
                } else {
                    underlay.port
                },
                local: underlay.address,
                learning: false,
                port: Port {
                    mtu,
                    up: true,
                    attached: true,
                    flags: TUNNEL_PORT,
                },
            });
        }
        NetworkKind::Bridge { device: name, .. } => {
            device.clone_from(name);
            addresses = network
                .subnets
                .iter()
                .filter_map(|subnet| IpNetwork::new(subnet.gateway, subnet.subnet.prefix()).ok())
                .collect();
        }
    }
    segment.bridge = Some(Bridge {
        device,
        mac: bridge_mac(&tag),
        mtu,
        up: true,
        addresses,
    });
    Some(segment)
}

fn add_port(
    segments: &mut BTreeMap<String, Segment>,
    desired: &Desired,
    facts: &Facts,
    interface: &desired::Interface,
) {
    let Some(network) = desired.networks.get(&interface.network) else {
        return;
    };
    let Some(segment) = segments.get_mut(&tag(&interface.network)) else {
        return;
    };
    let isolated = matches!(network.kind, NetworkKind::Bridge { isolated: true, .. });
    let name = port_name(&interface.endpoint);
    segment.locals.insert(Mac(interface.mac), name.clone());
    segment
        .ports
        .insert(name, local_port(mtu(desired, facts, network), isolated));
}

/// This host's gateway behind a port, the other hosts' behind the tunnel.
fn add_gateways(segment: &mut Segment, desired: &Desired, facts: &Facts, id: &str) {
    let Some(gateway) = ingress::gateway(desired, facts, id) else {
        return;
    };
    for host in ingress::hosts(desired) {
        segment.forwards.insert(ingress::gateway_mac(host), host);
    }
    segment.forwards.remove(&gateway.mac);
    segment.locals.insert(gateway.mac, gateway.port.clone());
    segment
        .ports
        .insert(gateway.port, local_port(gateway.mtu, false));
}

/// The host end of a container's veth pair.
pub fn local_port(mtu: u32, isolated: bool) -> Port {
    Port {
        mtu,
        up: true,
        attached: true,
        flags: PortFlags {
            isolated,
            ..LOCAL_PORT
        },
    }
}

/// A MAC that is local wins over a remote one; of two remotes the one with the greater id wins.
fn add_remote(segment: &mut Segment, remote: &desired::Remote) {
    let mac = Mac(remote.mac);
    if segment.vxlan.is_none() || segment.locals.contains_key(&mac) {
        return;
    }
    segment.forwards.insert(mac, remote.vtep);
    for address in &remote.addresses {
        segment.neighbours.insert(*address, mac);
    }
}

/// What one MAC and some addresses of a network should read, for a change of one remote.
pub fn want_entries(
    desired: &Desired,
    network: &str,
    mac: Mac,
    addresses: &BTreeSet<IpAddr>,
) -> Segment {
    let mut segment = Segment::default();
    let local = desired
        .sandboxes
        .values()
        .flat_map(|sandbox| &sandbox.interfaces)
        .any(|interface| interface.network == network && Mac(interface.mac) == mac);
    for remote in desired
        .remotes
        .values()
        .filter(|remote| remote.network == network)
    {
        if Mac(remote.mac) == mac && !local {
            segment.forwards.insert(mac, remote.vtep);
        }
        for address in remote
            .addresses
            .iter()
            .filter(|address| addresses.contains(address))
        {
            segment.neighbours.insert(*address, Mac(remote.mac));
        }
    }
    segment
}
