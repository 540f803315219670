//! Published ports: a port of any host leads to a task on the ingress network, wherever it runs,
//! and the task sees the client's own address.
//!
//! ```text
//! client ─▶ host A: dnat to the task, no source translation ─▶ A's gateway on the ingress network
//!             ─▶ VXLAN ─▶ task on host B: ct mark := A, by the frame's sender
//! client ◀─ host A: undoes the dnat ◀─ VXLAN ◀─ task: frames with that mark go to A's gateway
//! ```
//!
//! All hosts' gateways have the same address and each a MAC of its own, so no address, route or
//! rule is spent per host: only a row of the forwarding table and two map elements.

mod change;
pub mod nudge;
mod places;
pub mod relay;
pub mod rules;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnetwork::IpNetwork;

pub use change::{Change, Entry, difference, key, port_of};
pub use places::{host_ports, unpublished};

use crate::{
    desired::{Desired, HostPort, Network, NetworkKind, Sandbox},
    view::{Facts, Interface, Mac, port_name, tag},
    want::mtu,
};

/// Ids of the networks that ports are published over on this host, or that a container publishes
/// on.
pub fn networks(desired: &Desired) -> BTreeSet<&str> {
    let ports = desired.published.values().map(|p| p.network.as_str());
    let publishing = desired
        .sandboxes
        .values()
        .flat_map(|sandbox| &sandbox.interfaces)
        .filter(|interface| interface.publishes)
        .map(|interface| interface.network.as_str());
    let named = ports.chain(publishing);
    named
        .filter(|id| desired.underlay.is_some() && overlay(desired, id).is_some())
        .collect()
}

/// Ids of the local bridges that ports of this host lead to.
pub fn locals(desired: &Desired) -> BTreeSet<&str> {
    let named = desired.published.values().map(|p| p.network.as_str());
    let local = |id: &&str| {
        let network = desired.networks.get(*id);
        network.is_some_and(|network| matches!(network.kind, NetworkKind::Bridge { .. }))
    };
    named.filter(local).collect()
}

/// Addresses on ingress networks whose hosts are down.
pub fn gone(desired: &Desired) -> BTreeSet<IpAddr> {
    let Some(underlay) = &desired.underlay else {
        return BTreeSet::new();
    };
    let mut down = underlay
        .peers
        .iter()
        .filter(|(_, peer)| peer.down)
        .peekable();
    if down.peek().is_none() {
        return BTreeSet::new();
    }
    let down: BTreeSet<&IpAddr> = down.map(|(address, _)| address).collect();
    let networks = networks(desired);
    let remotes = desired.remotes.values();
    remotes
        .filter(|remote| networks.contains(remote.network.as_str()) && down.contains(&remote.vtep))
        .flat_map(|remote| remote.addresses.iter().copied())
        .collect()
}

/// Addresses of this host's containers that publish and have no way out of their own: they answer,
/// and open no connection.
pub fn inward(desired: &Desired) -> BTreeSet<IpAddr> {
    let networks = networks(desired);
    let sandboxes = desired.sandboxes.values();
    sandboxes
        .filter(|sandbox| is_inward(desired, sandbox))
        .flat_map(|sandbox| &sandbox.interfaces)
        .filter(|one| one.publishes && networks.contains(one.network.as_str()))
        .flat_map(|one| one.addresses.iter().map(IpNetwork::ip))
        .collect()
}

/// Whether it publishes and has no way out of its own.
pub fn is_inward(desired: &Desired, sandbox: &Sandbox) -> bool {
    let local = |id: &str| {
        let network = desired.networks.get(id);
        network.is_some_and(|network| matches!(network.kind, NetworkKind::Bridge { .. }))
    };
    let interfaces = &sandbox.interfaces;
    interfaces.iter().any(|one| one.publishes) && !interfaces.iter().any(|one| local(&one.network))
}

fn overlay<'a>(desired: &'a Desired, id: &str) -> Option<&'a Network> {
    let network = desired.networks.get(id)?;
    matches!(network.kind, NetworkKind::Overlay { .. }).then_some(network)
}

/// The MAC of a host's gateways, from the address of its tunnel endpoint.
pub fn gateway_mac(vtep: IpAddr) -> Mac {
    let [a, b, c, d] = mark(vtep).to_be_bytes();
    Mac([0x02, if vtep.is_ipv6() { 0x6a } else { 0x69 }, a, b, c, d])
}

/// A host's number in marks: its IPv4 address, or 32 bits of FNV-1a over its IPv6 address.
pub fn mark(vtep: IpAddr) -> u32 {
    match vtep {
        IpAddr::V4(address) => u32::from(address),
        IpAddr::V6(address) => address.octets().iter().fold(0x811c_9dc5, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        }),
    }
}

/// The tunnel endpoints of all hosts, this one's too.
pub fn hosts(desired: &Desired) -> BTreeSet<IpAddr> {
    let underlay = desired.underlay.iter();
    underlay
        .flat_map(|underlay| underlay.peers.keys().chain([&underlay.address]))
        .copied()
        .collect()
}

/// The bridge's end of the gateway of the network with this id.
pub fn gateway_port(network: &str) -> String {
    port_name(&format!("gateway of {network}"))
}

/// This host's end, in the host's namespace.
pub fn gateway(desired: &Desired, facts: &Facts, id: &str) -> Option<Interface> {
    let network = overlay(desired, id)?;
    let underlay = desired.underlay.as_ref()?;
    let addresses = network.subnets.iter();
    Some(Interface {
        port: gateway_port(id),
        mac: gateway_mac(underlay.address),
        mtu: mtu(desired, facts, network),
        up: true,
        addresses: addresses
            .filter_map(|subnet| IpNetwork::new(subnet.gateway, subnet.subnet.prefix()).ok())
            .collect(),
    })
}

/// By tag.
pub fn gateways(desired: &Desired, facts: &Facts) -> BTreeMap<String, Interface> {
    let all = networks(desired).into_iter();
    all.filter_map(|id| Some((tag(id), gateway(desired, facts, id)?)))
        .collect()
}

/// The default routes of a sandbox that publishes; none for others.
pub fn routes(desired: &Desired, sandbox: &Sandbox) -> Option<BTreeSet<(IpAddr, String)>> {
    let mut interfaces = sandbox.interfaces.iter();
    let publishing = interfaces.find(|interface| interface.publishes)?;
    let network = overlay(desired, &publishing.network)?;
    desired.underlay.as_ref()?;
    let gateways = network.subnets.iter().map(|subnet| subnet.gateway);
    Some(
        gateways
            .map(|gateway| (gateway, publishing.name.clone()))
            .collect(),
    )
}

/// The ports that this host holds.
pub fn ports(desired: &Desired, facts: &Facts) -> BTreeSet<HostPort> {
    let mut networks = networks(desired);
    networks.extend(locals(desired));
    let published = desired.published.values();
    published
        .filter(|published| networks.contains(published.network.as_str()))
        .flat_map(|published| host_ports(published, facts))
        .collect()
}

#[cfg(test)]
mod tests;
