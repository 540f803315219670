//! Gives services their virtual addresses and ports, and new tasks their endpoints; takes the
//! endpoints of tasks that are over back.

mod looped;
mod pools;
mod ports;
mod service;
#[cfg(test)]
mod tests;

pub(crate) use looped::AllocatorLoop;
pub(crate) use ports::{free_ports, with_choices};

use std::collections::HashMap;

use model::{
    Endpoint, EndpointId, EndpointOwner, EndpointState, Meta, Network, NetworkId, NodeId, Service,
    ServiceId, Task, TaskState,
    endpoint::MacAddress,
    service::{EndpointMode, PublishMode, ServiceEndpoint},
};
use sha2::{Digest as _, Sha256};

use self::pools::Pools;
use crate::{
    decision::Decision,
    store::{Rest, Stage, StoreChange, Tables},
};

/// Tasks that one decision moves at most, so that one entry of the log stays small.
const MOST: usize = 256;
/// When to look again while only addresses at rest remain, nanoseconds.
const LOOK: i64 = 100_000_000;
/// Networks of every host, which have no addresses of the cluster.
const HOST_NETWORKS: [&str; 3] = ["host", "bridge", "none"];

/// What services and new tasks are given. `rested` says whether an address that was given back
/// may be given again. To be made on the state that was looked at.
pub fn decide(tables: &Tables, now: i64, rested: &dyn Fn(&Rest) -> bool) -> Decision {
    let mut pools = Pools::new(tables, rested);
    let mut decision = Decision::default();
    for task in tables.work().tasks_in(Stage::Over).take(MOST) {
        decision.changes.extend(release(tables, task));
        let mut task = task.clone();
        task.endpoints = Vec::new();
        decision.changes.push(StoreChange::SetTask(Box::new(task)));
    }
    let services = service::decide(tables, &mut pools, &mut decision);
    let mut moved = 0;
    for task in tables.work().tasks_in(Stage::New) {
        if moved == MOST {
            decision.look_at(now);
            break;
        }
        let Some(service) = tables.work().service(&task.service) else {
            continue;
        };
        match place(task, service, &services, tables, &mut pools) {
            Ok((mut task, endpoints)) => {
                let set = |endpoint| StoreChange::SetEndpoint(Box::new(endpoint));
                decision.changes.extend(endpoints.into_iter().map(set));
                task.status.state = TaskState::Pending;
                task.status.at = now;
                "pending task scheduling".clone_into(&mut task.status.message);
                task.status.error = String::new();
                decision.changes.push(StoreChange::SetTask(Box::new(task)));
                moved += 1;
            }
            Err(reason) if task.status.error != reason => {
                let mut task = task.clone();
                task.status.error = reason;
                decision.changes.push(StoreChange::SetTask(Box::new(task)));
                moved += 1;
            }
            Err(_) => {}
        }
    }
    if pools.met_rest() {
        decision.look_at(now + LOOK);
    }
    decision.changes.extend(pools.cursors());
    decision
}

/// Takes the endpoints of a task back; their addresses go to rest.
pub fn release<'a>(tables: &'a Tables, task: &'a Task) -> impl Iterator<Item = StoreChange> + 'a {
    task.endpoints
        .iter()
        .filter(|id| tables.endpoint(id).is_some())
        .map(|id| StoreChange::RemoveEndpoint(id.clone()))
}

/// The services that were changed, or that miss something and what.
type Services = HashMap<ServiceId, Result<ServiceEndpoint, String>>;

/// The task with all that it needs, or why it waits.
fn place(
    task: &Task,
    service: &Service,
    services: &Services,
    tables: &Tables,
    pools: &mut Pools,
) -> Result<(Task, Vec<Endpoint>), String> {
    let reached = match services.get(&service.id) {
        Some(Ok(endpoint)) => endpoint,
        Some(Err(reason)) => return Err(reason.clone()),
        None => &service.endpoint,
    };
    let mut endpoints = Vec::new();
    for attachment in &task.spec.networks {
        let id = NetworkId::new(attachment.target.clone());
        let Some(network) = tables.network(&id) else {
            if HOST_NETWORKS.contains(&attachment.target.as_str()) {
                continue;
            }
            return Err(format!(
                "network {} is not there any more; update the service without it",
                attachment.target
            ));
        };
        let mut names = vec![task.name()];
        for name in std::iter::once(&task.service_name).chain(&attachment.aliases) {
            names.push(format!("tasks.{name}"));
            if reached.mode == EndpointMode::Dnsrr {
                names.push(name.clone());
            }
        }
        endpoints.push(endpoint(task, network, names, pools)?);
    }
    let by_ingress = reached
        .ports
        .iter()
        .any(|port| port.mode == PublishMode::Ingress);
    if by_ingress && let Some(ingress) = tables.ingress() {
        endpoints.push(endpoint(task, ingress, vec![task.name()], pools)?);
    }
    let mut task = task.clone();
    task.ports.clone_from(&reached.ports);
    task.endpoints = endpoints.iter().map(|one| one.id.clone()).collect();
    Ok((task, endpoints))
}

fn endpoint(
    task: &Task,
    network: &Network,
    names: Vec<String>,
    pools: &mut Pools,
) -> Result<Endpoint, String> {
    let addresses = pools.take(network)?;
    let first = addresses
        .first()
        .ok_or_else(|| format!("network {} has no subnet", network.spec.name))?;
    Ok(Endpoint {
        id: endpoint_id(task, &network.id),
        meta: Meta::default(),
        network: network.id.clone(),
        node: NodeId::default(),
        owner: EndpointOwner::Task {
            id: task.id.clone(),
            service: task.service.clone(),
            name: task.name(),
        },
        mac: MacAddress::from_ip(first.ip()),
        addresses,
        names,
        state: EndpointState::Allocated,
    })
}

/// Follows from task and network, which makes deciding twice harmless.
fn endpoint_id(task: &Task, network: &NetworkId) -> EndpointId {
    let digest = Sha256::new()
        .chain_update(task.id.as_str())
        .chain_update(network.as_str())
        .finalize();
    let mut bytes = [0; model::id::ID_RANDOM_BYTES];
    for (byte, from) in bytes.iter_mut().zip(digest) {
        *byte = from;
    }
    EndpointId::from_random(bytes)
}
