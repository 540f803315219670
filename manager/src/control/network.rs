//! Networks: create, find, remove.

use model::{
    EndpointOwner, Meta, Network, NetworkSpec, Refusal, Service,
    name::check_network_name,
    network::{OPTION_ENCRYPTED, OPTION_MTU, OPTION_VNI_LIST},
    service::{PortConfig, PublishMode},
    task::network_targets,
};

use super::encryption;
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
    if network.is_encrypted() {
        encryption::begin_to_use(tx);
    }
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
                "ingress network ({}) is already present: {}; remove it first",
                other.id, other.spec.name
            )));
        }
    }
    for (key, value) in &spec.options {
        check_option(key, value)?;
    }
    if spec.options.contains_key(OPTION_ENCRYPTED) {
        encryption::check_hosts(tables, &spec.name)?;
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
        OPTION_ENCRYPTED => encryption::check_value(value),
        _ => Err(Refusal::invalid(format!(
            "option {key} is not known to driver overlay; known: {OPTION_ENCRYPTED}, {OPTION_MTU}, {OPTION_VNI_LIST}"
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

/// Refused while services or containers are on it, with them named.
pub fn network_remove(tx: &mut Transaction, reference: &str) -> Result<Network, Refusal> {
    let network = find_network(tx.tables(), reference)?.clone();
    let tables = tx.tables();
    let services: Vec<&Service> = tables
        .work()
        .services()
        .filter(|service| uses(service, &network))
        .collect();
    if network.spec.ingress && !services.is_empty() {
        return Err(still_publishes(&services));
    }
    let mut users: Vec<String> = services
        .iter()
        .map(|service| {
            let tasks = tables.work().tasks_of(&service.id);
            let count = tasks.filter(|task| task.is_alive()).count();
            let word = if count == 1 { "task" } else { "tasks" };
            format!("service {} ({count} {word})", service.spec.name)
        })
        .collect();
    users.extend(
        tables
            .endpoints_on(&network.id)
            .filter(|endpoint| match &endpoint.owner {
                EndpointOwner::Container { .. } => true,
                // Named with its service, unless that is gone.
                EndpointOwner::Task { service, .. } => tables.work().service(service).is_none(),
            })
            .map(|endpoint| {
                let host = tables.node(&endpoint.node);
                let host = host.map_or(endpoint.node.as_str(), |node| &node.description.hostname);
                let what = match &endpoint.owner {
                    EndpointOwner::Container { .. } => "container",
                    EndpointOwner::Task { .. } => "stopping task",
                };
                format!("{what} {} on {host}", endpoint.owner.name())
            }),
    );
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

fn still_publishes(services: &[&Service]) -> Refusal {
    let names: Vec<&str> = services
        .iter()
        .map(|service| service.spec.name.as_str())
        .collect();
    let (who, its) = match names[..] {
        [one] => (format!("service {one} depends"), "its"),
        _ => (format!("services {} depend", names.join(", ")), "their"),
    };
    Refusal::invalid(format!(
        "ingress network cannot be removed because {who} on it; take {its} published ports away first with `service update --publish-rm`"
    ))
}

fn uses(service: &Service, network: &Network) -> bool {
    let publishes = || {
        service.spec.endpoint.as_ref().is_some_and(|endpoint| {
            let ingress = |port: &PortConfig| port.mode == PublishMode::Ingress;
            endpoint.ports.iter().any(ingress)
        })
    };
    network_targets(&service.spec.task).any(|id| id == network.id)
        || (network.spec.ingress && publishes())
}

/// Whether only tasks that have been asked to stop are still on the network.
pub fn is_emptying(tables: &Tables, reference: &str) -> bool {
    let Ok(network) = find_network(tables, reference) else {
        return false;
    };
    let mut endpoints = tables.endpoints_on(&network.id).peekable();
    endpoints.peek().is_some()
        && !tables.work().services().any(|s| uses(s, network))
        && endpoints.all(|endpoint| match &endpoint.owner {
            EndpointOwner::Container { .. } => false,
            EndpointOwner::Task { id, .. } => {
                tables.work().task(id).is_none_or(|task| !task.is_wanted())
            }
        })
}
