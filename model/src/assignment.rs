//! What a host is told: everything it takes part in, as a full set and then as increments.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::{
    Endpoint, EndpointId, Network, NetworkId, NodeId, Payload, SecretId, ServiceId, Task, TaskId,
    encryption::{KeyPhase, TunnelKey},
    service::ServiceEndpoint,
};

/// Orders what hosts are told. A restored or forced cluster starts a higher epoch, so an old
/// leader's word never wins over a new one's.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Generation {
    pub epoch: u64,
    /// Raft log index of the state this was made from.
    pub index: u64,
}

impl std::fmt::Display for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.epoch, self.index)
    }
}

/// The whole of what one host is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignments {
    pub generation: Generation,
    /// UDP port of VXLAN; 0 before the first full set.
    pub data_path_port: u16,
    /// Every node of the cluster that shares a network with this host, and this host.
    pub peers: BTreeMap<NodeId, Peer>,
    /// Networks on which this host has an endpoint.
    pub networks: BTreeMap<NetworkId, Network>,
    /// All endpoints of those networks, this host's own among them.
    pub endpoints: BTreeMap<EndpointId, Endpoint>,
    /// Services that are reached over those networks.
    #[serde(default)]
    pub services: BTreeMap<ServiceId, ServiceRoute>,
    /// This host's own tasks.
    #[serde(default)]
    pub tasks: BTreeMap<TaskId, Task>,
    /// The secrets and configs that those tasks name.
    #[serde(default)]
    pub payloads: BTreeMap<SecretId, Payload>,
}

/// What a host needs to know of a service to lead connections to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRoute {
    pub id: ServiceId,
    pub name: String,
    /// Without the ports that only other hosts publish.
    pub endpoint: ServiceEndpoint,
    /// Whether there are such ports.
    #[serde(default)]
    pub elsewhere: bool,
    /// Further names by network.
    pub aliases: BTreeMap<NetworkId, Vec<String>>,
    /// The service's labels under `overnet.publish`, which say how ports are published.
    pub publish: BTreeMap<String, String>,
}

/// Another host as the dataplane needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    pub hostname: String,
    /// [`crate::Node::number`].
    pub number: u32,
    /// Its VXLAN tunnel endpoint.
    pub data_path: IpAddr,
    /// Its heartbeats are missed.
    #[serde(default)]
    pub down: bool,
    #[serde(default)]
    pub keys: Vec<TunnelKey>,
    /// Of the host that is told, in its own entry.
    #[serde(default)]
    pub phase: Option<KeyPhase>,
}

/// A step from one generation to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Increment {
    pub generation: Generation,
    pub changes: Vec<Change>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    SetPeer(NodeId, Peer),
    RemovePeer(NodeId),
    SetNetwork(Box<Network>),
    RemoveNetwork(NetworkId),
    SetEndpoint(Box<Endpoint>),
    RemoveEndpoint(EndpointId),
    SetService(Box<ServiceRoute>),
    RemoveService(ServiceId),
    SetTask(Box<Task>),
    RemoveTask(TaskId),
    SetPayload(Box<Payload>),
    RemovePayload(SecretId),
}

impl Assignments {
    /// Carries out one increment; applying it twice changes nothing more.
    pub fn apply(&mut self, increment: &Increment) {
        for change in &increment.changes {
            self.apply_change(change);
        }
        self.generation = increment.generation;
    }

    fn apply_change(&mut self, change: &Change) {
        match change {
            Change::SetPeer(id, peer) => {
                self.peers.insert(id.clone(), peer.clone());
            }
            Change::RemovePeer(id) => {
                self.peers.remove(id);
            }
            Change::SetNetwork(network) => {
                self.networks
                    .insert(network.id.clone(), (**network).clone());
            }
            Change::RemoveNetwork(id) => {
                self.networks.remove(id);
            }
            Change::SetEndpoint(endpoint) => {
                self.endpoints
                    .insert(endpoint.id.clone(), (**endpoint).clone());
            }
            Change::RemoveEndpoint(id) => {
                self.endpoints.remove(id);
            }
            Change::SetService(route) => {
                self.services.insert(route.id.clone(), (**route).clone());
            }
            Change::RemoveService(id) => {
                self.services.remove(id);
            }
            Change::SetTask(task) => {
                self.tasks.insert(task.id.clone(), (**task).clone());
            }
            Change::RemoveTask(id) => {
                self.tasks.remove(id);
            }
            Change::SetPayload(payload) => {
                self.payloads
                    .insert(payload.id.clone(), (**payload).clone());
            }
            Change::RemovePayload(id) => {
                self.payloads.remove(id);
            }
        }
    }

    /// The changes that lead from `self` to `target`: removals before what they stand on
    /// (tasks, payloads, services, endpoints, networks, peers), then additions the other way round.
    pub fn diff(&self, target: &Assignments) -> Vec<Change> {
        let mut changes = Vec::new();
        changes.extend(missing(&self.tasks, &target.tasks).map(Change::RemoveTask));
        changes.extend(missing(&self.payloads, &target.payloads).map(Change::RemovePayload));
        changes.extend(missing(&self.services, &target.services).map(Change::RemoveService));
        changes.extend(missing(&self.endpoints, &target.endpoints).map(Change::RemoveEndpoint));
        changes.extend(missing(&self.networks, &target.networks).map(Change::RemoveNetwork));
        changes.extend(missing(&self.peers, &target.peers).map(Change::RemovePeer));
        changes.extend(
            changed(&self.peers, &target.peers)
                .map(|(id, peer)| Change::SetPeer(id.clone(), peer.clone())),
        );
        changes.extend(
            changed(&self.networks, &target.networks)
                .map(|(_, network)| Change::SetNetwork(Box::new(network.clone()))),
        );
        changes.extend(
            changed(&self.endpoints, &target.endpoints)
                .map(|(_, endpoint)| Change::SetEndpoint(Box::new(endpoint.clone()))),
        );
        changes.extend(
            changed(&self.services, &target.services)
                .map(|(_, route)| Change::SetService(Box::new(route.clone()))),
        );
        changes.extend(
            changed(&self.payloads, &target.payloads)
                .map(|(_, payload)| Change::SetPayload(Box::new(payload.clone()))),
        );
        changes.extend(
            changed(&self.tasks, &target.tasks)
                .map(|(_, task)| Change::SetTask(Box::new(task.clone()))),
        );
        changes
    }
}

fn missing<'a, K: Ord + Clone, V>(
    from: &'a BTreeMap<K, V>,
    to: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = K> + 'a {
    from.keys().filter(|key| !to.contains_key(*key)).cloned()
}

fn changed<'a, K: Ord, V: PartialEq>(
    from: &'a BTreeMap<K, V>,
    to: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> + 'a {
    to.iter()
        .filter(|(key, value)| from.get(*key) != Some(*value))
}
