//! A host's assignments as a function of the tables.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Assignments, Generation, NetworkId, Node, NodeId, SecretId, Service, Task, TaskState,
    assignment::{Peer, ServiceRoute},
    node::NodeState,
    service::{LABEL_PUBLISH, PublishMode},
};

use super::opening::opens;
use crate::store::Tables;

/// Everything the node takes part in.
pub fn assignments(tables: &Tables, node: &NodeId) -> Assignments {
    let cluster = tables.cluster();
    let networks: BTreeMap<_, _> = tables
        .networks_of(node)
        .into_iter()
        .filter_map(|id| Some((id.clone(), tables.network(&id)?.clone())))
        .collect();
    let tasks: BTreeMap<_, _> = tables
        .work()
        .tasks_at(node)
        .filter(|task| is_told(task))
        .map(|task| (task.id.clone(), task.clone()))
        .collect();
    let named: BTreeSet<&SecretId> = tasks.values().flat_map(payloads_of).collect();
    Assignments {
        generation: generation(tables),
        data_path_port: cluster.map_or(0, |record| record.public.data_path_port),
        peers: peers(tables, node, networks.keys()),
        endpoints: networks
            .keys()
            .flat_map(|id| tables.endpoints_on(id))
            .map(|endpoint| (endpoint.id.clone(), endpoint.clone()))
            .collect(),
        services: tables
            .work()
            .services()
            .filter(|service| is_reached(service, tables, |id| networks.contains_key(id)))
            .map(|service| (service.id.clone(), route(service, tables.node(node))))
            .collect(),
        payloads: named
            .into_iter()
            .filter_map(|id| Some((id.clone(), tables.work().payload(id)?.clone())))
            .collect(),
        networks,
        tasks,
    }
}

pub(super) fn generation(tables: &Tables) -> Generation {
    Generation {
        epoch: tables.cluster().map_or(0, |record| record.epoch),
        index: tables.index(),
    }
}

fn peers<'a>(
    tables: &Tables,
    node: &NodeId,
    networks: impl Iterator<Item = &'a NetworkId>,
) -> BTreeMap<NodeId, Peer> {
    let mut hosts: BTreeSet<NodeId> = networks.flat_map(|id| tables.hosts_of(id)).collect();
    hosts.insert(node.clone());
    hosts
        .into_iter()
        .filter_map(|id| {
            let peer = peer(tables, &id, node)?;
            Some((id, peer))
        })
        .collect()
}

/// The node as the other one, `told`, needs it; nothing before it has said where its tunnels end.
pub(super) fn peer(tables: &Tables, id: &NodeId, told: &NodeId) -> Option<Peer> {
    let node = tables.node(id)?;
    let encryption = node.description.encryption.as_ref();
    let phase = || tables.cluster().map(|record| record.public.network_keys);
    Some(Peer {
        hostname: node.description.hostname.clone(),
        number: node.number,
        data_path: node.description.data_path?,
        down: node.status.state == NodeState::Down,
        keys: encryption.map_or_else(Vec::new, |own| own.keys.clone()),
        phase: (id == told).then(phase).flatten(),
    })
}

/// Whether its node is told of the task.
pub(super) fn is_told(task: &Task) -> bool {
    task.status.state >= TaskState::Assigned
}

/// The secrets and configs that the task needs on its node.
pub(super) fn payloads_of(task: &Task) -> impl Iterator<Item = &SecretId> {
    let container = &task.spec.container;
    let all = container.secrets.iter().chain(&container.configs);
    all.filter(|_| task.is_alive())
        .map(|reference| &reference.id)
}

/// Whether a host on the networks that `on` tells needs to lead connections to the service: it
/// has a virtual address there, or publishes ports through the ingress network.
pub(super) fn is_reached(
    service: &Service,
    tables: &Tables,
    on: impl Fn(&NetworkId) -> bool,
) -> bool {
    let endpoint = &service.endpoint;
    let published = || {
        let mut ports = endpoint.ports.iter();
        ports.any(|port| port.mode == PublishMode::Ingress && port.published != 0)
            && tables.ingress().is_some_and(|ingress| on(&ingress.id))
    };
    endpoint.vips.iter().any(|vip| on(&vip.network)) || published()
}

/// The way to a service as this node needs it.
pub(super) fn route(service: &Service, node: Option<&Node>) -> ServiceRoute {
    let named = service.spec.task.networks.iter();
    let labels = service.spec.labels.iter();
    let mut endpoint = service.endpoint.clone();
    let mut elsewhere = false;
    endpoint.ports.retain(|port| {
        let opens = opens(&service.spec.labels, port, node);
        elsewhere |= !opens && port.published != 0;
        opens
    });
    ServiceRoute {
        id: service.id.clone(),
        name: service.spec.name.clone(),
        endpoint,
        elsewhere,
        aliases: named
            .filter(|one| !one.aliases.is_empty())
            .map(|one| (NetworkId::new(one.target.clone()), one.aliases.clone()))
            .collect(),
        publish: labels
            .filter(|(key, _)| key.starts_with(LABEL_PUBLISH))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
    }
}
