//! Networks: create, find, remove.

use model::{
    Meta, Network, NetworkSpec, Refusal,
    name::check_network_name,
    network::{OPTION_MTU, OPTION_VNI_LIST},
};

use crate::{
    ipam,
    store::{Tables, Transaction},
};

/// Names that every host has already.
const PREDEFINED: [&str; 5] = ["bridge", "host", "none", "docker_gwbridge", "default"];
/// Bytes; below, IPv6 is not possible and above no device goes.
const MTU: std::ops::RangeInclusive<u32> = 1280..=65535;

/// Checks the spec, makes every choice and stores the network.
pub fn network_create(tx: &mut Transaction, spec: NetworkSpec) -> Result<Network, Refusal> {
    check(tx.tables(), &spec)?;
    let cluster = tx
        .tables()
        .cluster()
        .ok_or_else(|| Refusal::unavailable("the cluster is not ready; try again in a moment"))?
        .public
        .clone();
    let network = Network {
        id: super::new_id(),
        meta: Meta::default(),
        vni: ipam::choose_vni(tx.tables(), &spec)?,
        subnets: ipam::resolve_subnets(tx.tables(), &cluster, &spec)?,
        spec,
    };
    tx.set_network(network.clone());
    Ok(network)
}

fn check(tables: &Tables, spec: &NetworkSpec) -> Result<(), Refusal> {
    check_network_name(&spec.name)?;
    if PREDEFINED.contains(&spec.name.as_str()) {
        return Err(Refusal::forbidden(format!(
            "operation is not permitted on predefined {} network; choose another name",
            spec.name
        )));
    }
    if tables.network_named(&spec.name).is_some() {
        return Err(Refusal::conflict(format!(
            "network with name {} already exists; remove it first or choose another name",
            spec.name
        )));
    }
    if spec.driver != "overlay" {
        return Err(Refusal::invalid(format!(
            "network driver {:?} is not known for networks of the cluster; use overlay",
            spec.driver
        )));
    }
    if !matches!(spec.ipam_driver.as_str(), "" | "default") {
        return Err(Refusal::invalid(format!(
            "IPAM driver {:?} is not known; leave --ipam-driver out",
            spec.ipam_driver
        )));
    }
    if spec.ingress {
        if spec.attachable {
            return Err(Refusal::invalid("an ingress network cannot be attachable"));
        }
        if let Some(other) = tables.networks().find(|network| network.spec.ingress) {
            return Err(Refusal::conflict(format!(
                "there is an ingress network already: {}; remove it first",
                other.spec.name
            )));
        }
    }
    for (key, value) in &spec.options {
        check_option(key, value)?;
    }
    Ok(())
}

fn check_option(key: &str, value: &str) -> Result<(), Refusal> {
    match key {
        OPTION_MTU => match value.parse::<u32>() {
            Ok(mtu) if MTU.contains(&mtu) => Ok(()),
            _ => Err(Refusal::invalid(format!(
                "option {OPTION_MTU}={value}: the MTU of the underlay is a number from {} to {}",
                MTU.start(),
                MTU.end()
            ))),
        },
        OPTION_VNI_LIST => Ok(()),
        "encrypted" => Err(Refusal::not_implemented(
            "option encrypted: encrypted overlay networks are not there yet; leave it out",
        )),
        _ => Err(Refusal::invalid(format!(
            "option {key} is not known to driver overlay; known: {OPTION_MTU}, {OPTION_VNI_LIST}"
        ))),
    }
}

/// By full id, exact name, or unique id prefix.
pub fn find_network<'a>(tables: &'a Tables, reference: &str) -> Result<&'a Network, Refusal> {
    if let Some(network) = tables
        .network(&reference.into())
        .or(tables.network_named(reference))
    {
        return Ok(network);
    }
    let mut found = tables
        .networks()
        .filter(|network| !reference.is_empty() && network.id.as_str().starts_with(reference));
    match (found.next(), found.next()) {
        (Some(network), None) => Ok(network),
        (None, _) => Err(Refusal::not_found(format!("network {reference} not found"))),
        (Some(_), Some(_)) => Err(Refusal::invalid(format!(
            "network {reference} is ambiguous: several ids begin so; give more of it"
        ))),
    }
}

/// Refused while containers are on it, with them named.
pub fn network_remove(tx: &mut Transaction, reference: &str) -> Result<Network, Refusal> {
    let network = find_network(tx.tables(), reference)?.clone();
    let users: Vec<String> = tx
        .tables()
        .endpoints_on(&network.id)
        .map(|endpoint| {
            let host = tx.tables().node(&endpoint.node);
            let host = host.map_or(endpoint.node.as_str(), |node| &node.description.hostname);
            let what = match &endpoint.owner {
                model::EndpointOwner::Container { .. } => "container",
                model::EndpointOwner::Task { .. } => "task",
            };
            format!("{what} {} on {host}", endpoint.owner.name())
        })
        .collect();
    if !users.is_empty() {
        return Err(Refusal::forbidden(format!(
            "network {} is in use by {}; remove {} first",
            network.spec.name,
            users.join(", "),
            if users.len() == 1 { "it" } else { "them" }
        )));
    }
    tx.remove_network(&network.id);
    Ok(network)
}
