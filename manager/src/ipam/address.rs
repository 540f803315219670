//! Addresses of one subnet: given serially, so that a used one rests as long as possible.

use std::{collections::BTreeSet, iter::Peekable, net::IpAddr};

use model::{
    Network, Refusal,
    network::Subnet,
    subnet::{bounds, to_ip, to_number},
};

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
    match Walk::new(tables, network, subnet).next(rested) {
        Next::Free(address) => Ok(Choice::Given(address)),
        Next::Resting => Ok(Choice::Resting),
        Next::None => Err(Refusal::conflict(format!(
            "network {} has no free address left in {}; remove containers from it, or make a network with a larger --subnet",
            network.spec.name, subnet.range
        ))),
    }
}

/// What a [`Walk`] comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Free(IpAddr),
    /// The end, and it passed addresses at rest.
    Resting,
    /// The end.
    None,
}

/// One way through the addresses of a subnet, from behind the last one given, once around.
/// Each address comes at most once, so many can be taken from one state of the tables.
pub struct Walk<'a> {
    tables: &'a Tables,
    network: &'a Network,
    v4: bool,
    /// In the order of the walk; none is empty.
    stretches: std::vec::IntoIter<(u128, u128)>,
    /// The next address, the last one of the stretch, and the used ones between.
    stretch: Option<(u128, u128, Used<'a>)>,
    reserved: BTreeSet<u128>,
    resting: bool,
}

type Used<'a> = Peekable<Box<dyn Iterator<Item = (IpAddr, &'a AddressUse)> + 'a>>;

impl<'a> Walk<'a> {
    pub fn new(tables: &'a Tables, network: &'a Network, subnet: &Subnet) -> Self {
        let v4 = subnet.subnet.is_ipv4();
        let (first, last) = bounds(subnet);
        let start = tables
            .cursor(&network.id, subnet.subnet)
            .map(|cursor| to_number(cursor) + 1)
            .filter(|start| (first..=last).contains(start))
            .unwrap_or(first);
        let stretches: Vec<(u128, u128)> = [(start, last), (first, start.saturating_sub(1))]
            .into_iter()
            .filter(|(from, to)| from <= to)
            .collect();
        Self {
            tables,
            network,
            v4,
            stretches: stretches.into_iter(),
            stretch: None,
            reserved: std::iter::once(subnet.gateway)
                .chain(subnet.aux_addresses.values().copied())
                .map(to_number)
                .collect(),
            resting: false,
        }
    }

    pub fn next(&mut self, rested: &dyn Fn(&Rest) -> bool) -> Next {
        loop {
            if let Some((candidate, last, used)) = &mut self.stretch {
                while candidate <= last {
                    let (number, address) = (*candidate, to_ip(*candidate, self.v4));
                    *candidate += 1;
                    let user = used.next_if(|(taken, _)| *taken == address);
                    let free = match user.map(|(_, user)| user) {
                        None => true,
                        Some(AddressUse::Endpoint(_) | AddressUse::Vip(_)) => false,
                        Some(AddressUse::Resting(rest)) => {
                            let over = rested(rest);
                            self.resting |= !over;
                            over
                        }
                    };
                    if free && !self.reserved.contains(&number) {
                        return Next::Free(address);
                    }
                }
            }
            let Some((from, to)) = self.stretches.next() else {
                self.stretch = None;
                return if self.resting {
                    Next::Resting
                } else {
                    Next::None
                };
            };
            let used = self.tables.addresses_between(
                &self.network.id,
                to_ip(from, self.v4),
                to_ip(to, self.v4),
            );
            let used: Box<dyn Iterator<Item = _>> = Box::new(used);
            self.stretch = Some((from, to, used.peekable()));
        }
    }
}
