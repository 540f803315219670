//! The subnets of a network: what the user fixed is checked, the rest is chosen.

use std::collections::BTreeSet;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use model::{
    Cluster, NetworkSpec, Refusal,
    network::{IpamConfig, OPTION_VNI_LIST, Subnet, VNI_FIRST, VNI_LAST},
    subnet::{fixed, overlap},
};

use crate::store::Tables;

/// Prefix length of an automatic IPv6 subnet.
const IPV6_SUBNET: u8 = 64;

/// Every choice made: IPv4 first, then IPv6 where asked for.
pub fn resolve_subnets(
    tables: &Tables,
    cluster: &Cluster,
    spec: &NetworkSpec,
) -> Result<Vec<Subnet>, Refusal> {
    let mut subnets: Vec<Subnet> = Vec::new();
    let (with_subnet, without): (Vec<&IpamConfig>, Vec<&IpamConfig>) =
        spec.ipam.iter().partition(|config| config.subnet.is_some());
    if let Some(config) = without.iter().find(|config| {
        config.ip_range.is_some() || config.gateway.is_some() || !config.aux_addresses.is_empty()
    }) {
        let given = config.ip_range.map(|r| r.to_string());
        let given = given
            .or(config.gateway.map(|g| g.to_string()))
            .unwrap_or_default();
        return Err(Refusal::invalid(format!(
            "no subnet contains {given}: name the subnet too (--subnet)"
        )));
    }
    for config in with_subnet {
        let subnet = fixed(config)?;
        if subnet.subnet.is_ipv6() && !spec.ipv6 {
            return Err(Refusal::invalid(format!(
                "subnet {} is IPv6; ask for it with --ipv6",
                subnet.subnet
            )));
        }
        if let Some(twin) = subnets
            .iter()
            .find(|other| overlap(other.subnet, subnet.subnet))
        {
            return Err(Refusal::invalid(format!(
                "subnets {} and {} of network {} overlap; choose others",
                twin.subnet, subnet.subnet, spec.name
            )));
        }
        if let Some(what) = collision(tables, subnet.subnet) {
            return Err(Refusal::forbidden(format!(
                "subnet {} overlaps with {what}; choose another, or leave --subnet out to have a free one chosen",
                subnet.subnet
            )));
        }
        subnets.push(subnet);
    }
    if !subnets.iter().any(|subnet| subnet.subnet.is_ipv4()) {
        subnets.insert(0, automatic_ipv4(tables, cluster, spec, &subnets)?);
    }
    if spec.ipv6 && !subnets.iter().any(|subnet| subnet.subnet.is_ipv6()) {
        subnets.push(automatic_ipv6(tables, cluster)?);
    }
    subnets.sort_by_key(|subnet| subnet.subnet.is_ipv6());
    Ok(subnets)
}

/// What stands in the way of a subnet, in words.
fn collision(tables: &Tables, subnet: IpNetwork) -> Option<String> {
    for network in tables.networks() {
        if let Some(other) = network
            .subnets
            .iter()
            .find(|other| overlap(other.subnet, subnet))
        {
            return Some(format!("{} of network {}", other.subnet, network.spec.name));
        }
    }
    for node in tables.nodes() {
        if let Some(route) = node
            .description
            .routes
            .iter()
            .find(|route| overlap(**route, subnet))
        {
            return Some(format!(
                "route {route} of host {}",
                node.description.hostname
            ));
        }
    }
    None
}

fn automatic_ipv4(
    tables: &Tables,
    cluster: &Cluster,
    spec: &NetworkSpec,
    beside: &[Subnet],
) -> Result<Subnet, Refusal> {
    let size = if spec.ingress {
        cluster.ingress_size
    } else {
        cluster.subnet_size
    };
    for pool in &cluster.address_pools {
        let IpNetwork::V4(pool) = pool else { continue };
        let step = 1u64 << (32 - u32::from(size));
        let end = u64::from(u32::from(pool.broadcast())) + 1;
        let mut base = u64::from(u32::from(pool.network()));
        while base + step <= end {
            let candidate = Ipv4Network::new((base as u32).into(), size)
                .map_err(|error| Refusal::internal(error.to_string()))?;
            let candidate = IpNetwork::from(candidate);
            let free = collision(tables, candidate).is_none()
                && !beside.iter().any(|other| overlap(other.subnet, candidate));
            if free {
                return fixed(&IpamConfig {
                    subnet: Some(candidate),
                    ..IpamConfig::default()
                });
            }
            base += step;
        }
    }
    let pools: Vec<String> = cluster
        .address_pools
        .iter()
        .map(ToString::to_string)
        .collect();
    Err(Refusal::invalid(format!(
        "no free /{size} is left in the address pool {}: networks and routes of hosts take all of it; name a subnet (--subnet) or remove networks",
        pools.join(", ")
    )))
}

fn automatic_ipv6(tables: &Tables, cluster: &Cluster) -> Result<Subnet, Refusal> {
    let base = u128::from(cluster.ipv6_pool.network());
    let free = (0..=u128::from(u16::MAX))
        .filter_map(|index| Ipv6Network::new((base + (index << 64)).into(), IPV6_SUBNET).ok())
        .map(IpNetwork::from)
        .find(|candidate| collision(tables, *candidate).is_none());
    match free {
        Some(subnet) => fixed(&IpamConfig {
            subnet: Some(subnet),
            ..IpamConfig::default()
        }),
        None => Err(Refusal::invalid(format!(
            "no free /64 is left in {}; name an IPv6 subnet (--subnet)",
            cluster.ipv6_pool
        ))),
    }
}

/// The network's VNI: the user's, or the lowest free one.
pub fn choose_vni(tables: &Tables, spec: &NetworkSpec) -> Result<u32, Refusal> {
    let taken: BTreeSet<u32> = tables.networks().map(|network| network.vni).collect();
    let Some(list) = spec.options.get(OPTION_VNI_LIST) else {
        return (VNI_FIRST..=VNI_LAST)
            .find(|vni| !taken.contains(vni))
            .ok_or_else(|| Refusal::conflict("all VXLAN network identifiers are in use"));
    };
    let first = list.split(',').next().unwrap_or_default().trim();
    let vni: u32 = first.parse().ok().filter(|vni| (1..=VNI_LAST).contains(vni)).ok_or_else(|| {
        Refusal::invalid(format!(
            "option {OPTION_VNI_LIST}={list}: {first:?} is no VXLAN network identifier (1 to {VNI_LAST})"
        ))
    })?;
    match tables.networks().find(|network| network.vni == vni) {
        Some(other) => Err(Refusal::invalid(format!(
            "option {OPTION_VNI_LIST}: {vni} is in use by network {}; choose another",
            other.spec.name
        ))),
        None => Ok(vni),
    }
}
