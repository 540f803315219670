//! Stand-alone containers on attachable networks.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use model::{
    Endpoint, EndpointId, EndpointOwner, EndpointState, Meta, Network, NodeId, Refusal,
    control::AttachRequest, endpoint::MacAddress, name::check_container_name, network::Subnet,
};

use super::{encryption, find_network, new_id};
use crate::{
    ipam::{self, Choice},
    store::{Rest, StoreChange, Transaction},
};

/// How an attachment went.
#[derive(Debug, Clone)]
pub enum Attempt {
    Attached(Box<(Endpoint, Network)>),
    /// Only addresses at rest remain: worth waiting.
    Resting {
        network: String,
    },
}

/// Gives the container an endpoint, or finds the one it has.
pub fn attach(
    tx: &mut Transaction,
    request: &AttachRequest,
    rested: &dyn Fn(&Rest) -> bool,
) -> Result<Attempt, Refusal> {
    let network = find_network(tx.tables(), &request.network)?.clone();
    if let Some(endpoint) = tx.tables().endpoint_of(&request.container, &network.id) {
        if endpoint.node == request.node {
            return Ok(Attempt::Attached(Box::new((endpoint.clone(), network))));
        }
        return Err(Refusal::conflict(format!(
            "container {} is on network {} from another host",
            request.container_name, network.spec.name
        )));
    }
    if !network.spec.attachable {
        return Err(Refusal::forbidden(format!(
            "network {} is not attachable; create it with --attachable to run containers on it",
            network.spec.name
        )));
    }
    if network.is_encrypted() {
        encryption::check_host(tx.tables(), &network.spec.name, &request.node)?;
    }
    let mut addresses = Vec::new();
    for (subnet, wanted) in wishes(&network, &request.addresses)? {
        match ipam::choose(tx.tables(), &network, subnet, wanted, rested)? {
            Choice::Resting => {
                return Ok(Attempt::Resting {
                    network: network.spec.name.clone(),
                });
            }
            Choice::Given(address) => {
                let with_prefix = IpNetwork::new(address, subnet.subnet.prefix())
                    .map_err(|error| Refusal::internal(error.to_string()))?;
                addresses.push(with_prefix);
                if wanted.is_none() {
                    tx.push(StoreChange::SetCursor {
                        network: network.id.clone(),
                        subnet: subnet.subnet,
                        last: address,
                    });
                }
            }
        }
    }
    let first = addresses
        .first()
        .map(IpNetwork::ip)
        .ok_or_else(|| Refusal::internal(format!("network {} has no subnet", network.spec.name)))?;
    let mut names = vec![request.container_name.clone()];
    names.extend(
        request
            .aliases
            .iter()
            .filter(|alias| **alias != request.container_name)
            .cloned(),
    );
    let endpoint = Endpoint {
        id: new_id(),
        meta: Meta::default(),
        network: network.id.clone(),
        node: request.node.clone(),
        owner: EndpointOwner::Container {
            id: request.container.clone(),
            name: request.container_name.clone(),
        },
        mac: MacAddress::from_ip(first),
        addresses,
        names,
        state: EndpointState::Allocated,
    };
    tx.set_endpoint(endpoint.clone());
    Ok(Attempt::Attached(Box::new((endpoint, network))))
}

/// The subnet of each family that gives an address, with the address wanted there.
fn wishes<'a>(
    network: &'a Network,
    wanted: &[IpAddr],
) -> Result<Vec<(&'a Subnet, Option<IpAddr>)>, Refusal> {
    for address in wanted {
        if !network
            .subnets
            .iter()
            .any(|subnet| subnet.subnet.contains(*address))
        {
            let all: Vec<String> = network
                .subnets
                .iter()
                .map(|subnet| subnet.subnet.to_string())
                .collect();
            return Err(Refusal::invalid(format!(
                "address {address} is outside {} of network {}; choose one inside or leave it out",
                all.join(", "),
                network.spec.name
            )));
        }
    }
    let family = |v6: bool| {
        let mut of_family = network
            .subnets
            .iter()
            .filter(|subnet| subnet.subnet.is_ipv6() == v6);
        let asked = wanted
            .iter()
            .copied()
            .find(|address| address.is_ipv6() == v6);
        match asked {
            Some(address) => of_family
                .find(|subnet| subnet.subnet.contains(address))
                .map(|subnet| (subnet, Some(address))),
            None => of_family.next().map(|subnet| (subnet, None)),
        }
    };
    Ok([family(false), family(true)]
        .into_iter()
        .flatten()
        .collect())
}

/// Moves an endpoint forward; backwards is no error, because an old report may arrive late.
pub fn endpoint_advance(
    tx: &mut Transaction,
    caller: Option<&NodeId>,
    id: &EndpointId,
    state: EndpointState,
) -> Result<(), Refusal> {
    let mut endpoint = owned(tx, caller, id)?;
    if endpoint.state < state {
        endpoint.state = state;
        tx.set_endpoint(endpoint);
    }
    Ok(())
}

/// Gives a container's endpoint other names, the canonical one first.
pub fn endpoint_name(
    tx: &mut Transaction,
    caller: Option<&NodeId>,
    id: &EndpointId,
    names: Vec<String>,
) -> Result<(), Refusal> {
    let mut endpoint = owned(tx, caller, id)?;
    let Some(first) = names.first() else {
        return Err(Refusal::invalid("an endpoint needs a name"));
    };
    check_container_name(first)?;
    match &mut endpoint.owner {
        EndpointOwner::Container { name, .. } => first.clone_into(name),
        EndpointOwner::Task { name, .. } => {
            return Err(Refusal::invalid(format!(
                "the names of task {name} are its service's"
            )));
        }
    }
    if endpoint.names != names {
        endpoint.names = names;
        tx.set_endpoint(endpoint);
    }
    Ok(())
}

/// Takes an endpoint back; an unknown one is gone already.
pub fn detach(
    tx: &mut Transaction,
    caller: Option<&NodeId>,
    id: &EndpointId,
) -> Result<(), Refusal> {
    if let Some(endpoint) = tx.tables().endpoint(id) {
        own(caller, endpoint)?;
        tx.remove_endpoint(id);
    }
    Ok(())
}

/// The endpoint, if the caller may change it.
fn owned(tx: &Transaction, caller: Option<&NodeId>, id: &EndpointId) -> Result<Endpoint, Refusal> {
    let endpoint = tx.tables().endpoint(id);
    let not_found = || Refusal::not_found(format!("endpoint {id} not found"));
    let endpoint = endpoint.ok_or_else(not_found)?.clone();
    own(caller, &endpoint)?;
    Ok(endpoint)
}

fn own(caller: Option<&NodeId>, endpoint: &Endpoint) -> Result<(), Refusal> {
    match caller {
        Some(node) if *node != endpoint.node => Err(Refusal::forbidden(format!(
            "endpoint {} belongs to another host",
            endpoint.id
        ))),
        _ => Ok(()),
    }
}
