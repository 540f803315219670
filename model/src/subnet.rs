//! Subnets of networks: what a user fixed is checked, and what he left out is filled in.

use std::{collections::BTreeSet, net::IpAddr};

use ipnetwork::IpNetwork;

use crate::{
    Refusal,
    network::{IpamConfig, Subnet},
};

/// The subnet that a user asks for, with every choice made.
pub fn fixed(config: &IpamConfig) -> Result<Subnet, Refusal> {
    let asked = config
        .subnet
        .ok_or_else(|| Refusal::invalid("a subnet is missing"))?;
    let most = if asked.is_ipv4() { 30 } else { 126 };
    if asked.prefix() > most || asked.prefix() == 0 {
        return Err(Refusal::invalid(format!(
            "subnet {asked} has no room for containers; use a prefix of at most /{most}"
        )));
    }
    let subnet = whole(asked)?;
    let inside = |address: IpAddr, what: &str| {
        if !subnet.contains(address) {
            return Err(Refusal::invalid(format!(
                "{what} {address} is outside subnet {subnet}"
            )));
        }
        if address == subnet.network() || (subnet.is_ipv4() && address == subnet.broadcast()) {
            return Err(Refusal::invalid(format!(
                "{what} {address} is the network or broadcast address of {subnet}"
            )));
        }
        Ok(())
    };
    let range = match config.ip_range {
        None => subnet,
        Some(range) => {
            let range = whole(range)?;
            if !subnet.contains(range.network()) || range.prefix() < subnet.prefix() {
                return Err(Refusal::invalid(format!(
                    "ip-range {range} is outside subnet {subnet}"
                )));
            }
            range
        }
    };
    let gateway = match config.gateway {
        Some(gateway) => gateway,
        None => first_host(subnet, &config.aux_addresses.values().copied().collect()),
    };
    inside(gateway, "gateway")?;
    for (name, address) in &config.aux_addresses {
        inside(*address, &format!("aux-address {name}"))?;
    }
    Ok(Subnet {
        subnet,
        range,
        gateway,
        aux_addresses: config.aux_addresses.clone(),
    })
}

/// The first and the last address that containers may be given.
pub fn bounds(subnet: &Subnet) -> (u128, u128) {
    let mut first = to_number(subnet.range.network());
    let mut last = to_number(subnet.range.broadcast());
    if subnet.range.network() == subnet.subnet.network() {
        first += 1;
    }
    if subnet.subnet.is_ipv4() && subnet.range.broadcast() == subnet.subnet.broadcast() {
        last -= 1;
    }
    (first, last)
}

fn first_host(subnet: IpNetwork, taken: &BTreeSet<IpAddr>) -> IpAddr {
    let mut number = to_number(subnet.network()) + 1;
    while taken.contains(&to_ip(number, subnet.is_ipv4())) {
        number += 1;
    }
    to_ip(number, subnet.is_ipv4())
}

/// An address as the number that it is.
pub fn to_number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// The address that is this number.
pub fn to_ip(number: u128, v4: bool) -> IpAddr {
    if v4 {
        IpAddr::from((number as u32).to_be_bytes())
    } else {
        IpAddr::from(number.to_be_bytes())
    }
}

fn whole(network: IpNetwork) -> Result<IpNetwork, Refusal> {
    IpNetwork::new(network.network(), network.prefix())
        .map_err(|error| Refusal::invalid(format!("subnet {network}: {error}")))
}

/// Whether two subnets have addresses in common.
pub fn overlap(one: IpNetwork, other: IpNetwork) -> bool {
    one.is_ipv4() == other.is_ipv4()
        && (one.contains(other.network()) || other.contains(one.network()))
}
