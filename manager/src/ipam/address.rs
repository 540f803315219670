//! Addresses of one subnet: given serially, so that a used one rests as long as possible.

use std::{collections::BTreeSet, net::IpAddr};

use model::{Network, Refusal, network::Subnet};

use super::subnet::{to_ip, to_number};
use crate::store::{AddressUse, Rest, Tables};

/// What can be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    Given(IpAddr),
    /// Only addresses at rest remain.
    Resting,
}

/// Chooses an address of `subnet`. `rested` says whether an address that was given back may be
/// given again.
pub fn choose(
    tables: &Tables,
    network: &Network,
    subnet: &Subnet,
    wanted: Option<IpAddr>,
    rested: &dyn Fn(&Rest) -> bool,
) -> Result<Choice, Refusal> {
    match wanted {
        Some(address) => choose_wanted(tables, network, subnet, address, rested),
        None => choose_next(tables, network, subnet, rested),
    }
}

fn choose_wanted(
    tables: &Tables,
    network: &Network,
    subnet: &Subnet,
    address: IpAddr,
    rested: &dyn Fn(&Rest) -> bool,
) -> Result<Choice, Refusal> {
    let name = &network.spec.name;
    let taken = |by: String| {
        Refusal::forbidden(format!(
            "address {address} on network {name} is in use by {by}; choose another"
        ))
    };
    if address == subnet.gateway {
        return Err(taken("the gateway".to_owned()));
    }
    let edge = address == subnet.subnet.network()
        || (subnet.subnet.is_ipv4() && address == subnet.subnet.broadcast());
    if edge {
        return Err(Refusal::invalid(format!(
            "address {address} is the network or broadcast address of {}; choose another",
            subnet.subnet
        )));
    }
    // A user may give a reserved address by hand: that is what reserving is for.
    match tables.address(&network.id, address) {
        None => Ok(Choice::Given(address)),
        Some(AddressUse::Resting(rest)) if rested(rest) => Ok(Choice::Given(address)),
        Some(AddressUse::Resting(_)) => Ok(Choice::Resting),
        Some(AddressUse::Endpoint(id)) => Err(taken(tables.endpoint(id).map_or_else(
            || id.to_string(),
            |endpoint| match &endpoint.owner {
                model::EndpointOwner::Container { name, .. } => format!("container {name}"),
                model::EndpointOwner::Task { name, .. } => format!("task {name}"),
            },
        ))),
        Some(AddressUse::Vip(id)) => Err(taken(tables.work().service(id).map_or_else(
            || id.to_string(),
            |service| format!("service {}", service.spec.name),
        ))),
    }
}

fn choose_next(
    tables: &Tables,
    network: &Network,
    subnet: &Subnet,
    rested: &dyn Fn(&Rest) -> bool,
) -> Result<Choice, Refusal> {
    let v4 = subnet.subnet.is_ipv4();
    let (mut first, mut last) = (
        to_number(subnet.range.network()),
        to_number(subnet.range.broadcast()),
    );
    if subnet.range.network() == subnet.subnet.network() {
        first += 1;
    }
    if v4 && subnet.range.broadcast() == subnet.subnet.broadcast() {
        last -= 1;
    }
    let start = tables
        .cursor(&network.id, subnet.subnet)
        .map_or(first, |cursor| to_number(cursor) + 1);
    let start = if (first..=last).contains(&start) {
        start
    } else {
        first
    };
    let reserved: BTreeSet<u128> = std::iter::once(subnet.gateway)
        .chain(subnet.aux_addresses.values().copied())
        .map(to_number)
        .collect();
    let mut resting = false;
    for (from, to) in [(start, last), (first, start.saturating_sub(1))] {
        if from > to {
            continue;
        }
        let mut used = tables
            .addresses_between(&network.id, to_ip(from, v4), to_ip(to, v4))
            .peekable();
        let mut candidate = from;
        while candidate <= to {
            let address = to_ip(candidate, v4);
            let user = used
                .next_if(|(taken, _)| *taken == address)
                .map(|(_, user)| user);
            let free = match user {
                None => true,
                Some(AddressUse::Endpoint(_) | AddressUse::Vip(_)) => false,
                Some(AddressUse::Resting(rest)) => {
                    let over = rested(rest);
                    resting |= !over;
                    over
                }
            };
            if free && !reserved.contains(&candidate) {
                return Ok(Choice::Given(address));
            }
            candidate += 1;
        }
    }
    if resting {
        return Ok(Choice::Resting);
    }
    Err(Refusal::conflict(format!(
        "network {} has no free address left in {}; remove containers from it, or make a network with a larger --subnet",
        network.spec.name, subnet.range
    )))
}
