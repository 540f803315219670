//! The tables and their indexes; persistent maps, so a snapshot is one reference.

mod queries;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use imbl::{OrdMap, OrdSet};
use ipnetwork::IpNetwork;
use model::{
    Cluster, ContainerId, Endpoint, EndpointId, EndpointOwner, Meta, Network, NetworkId, Node,
    NodeId, Payload, SecretId, Service, ServiceId, Task, TaskId,
};
use serde::{Deserialize, Serialize};

use super::{
    Proposal,
    work::{Work, WorkImage},
};
use crate::unlock::UnlockKey;

/// The cluster's object with what only managers may see.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    pub public: Cluster,
    /// The certificate authority's private key, PKCS#8 PEM.
    pub ca_key_pem: String,
    /// The same of the root that is becoming the cluster's.
    #[serde(default)]
    pub next_ca_key_pem: Option<String>,
    /// See [`model::Generation`].
    pub epoch: u64,
    /// Nodes that were removed, until their certificates have ended (nanoseconds since the Unix
    /// epoch).
    #[serde(default)]
    pub removed: BTreeMap<NodeId, i64>,
    /// Absent while autolock is off.
    #[serde(default)]
    pub unlock_key: Option<UnlockKey>,
}

impl std::fmt::Debug for ClusterRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterRecord")
            .field("public", &self.public)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// One change of one object; objects carry no version, [`Tables::apply`] stamps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreChange {
    SetCluster(Box<ClusterRecord>),
    SetNode(Box<Node>),
    RemoveNode(NodeId),
    SetNetwork(Box<Network>),
    RemoveNetwork(NetworkId),
    SetEndpoint(Box<Endpoint>),
    /// Its addresses go to rest.
    RemoveEndpoint(EndpointId),
    /// Where the next automatic address of the subnet is looked for.
    SetCursor {
        network: NetworkId,
        subnet: IpNetwork,
        last: IpAddr,
    },
    /// The address has rested and is free.
    EndRest {
        network: NetworkId,
        address: IpAddr,
    },
    SetService(Box<Service>),
    /// Its virtual addresses go to rest.
    RemoveService(ServiceId),
    SetTask(Box<Task>),
    RemoveTask(TaskId),
    SetPayload(Box<Payload>),
    RemovePayload(SecretId),
}

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressUse {
    Endpoint(EndpointId),
    /// A service's virtual address.
    Vip(ServiceId),
    Resting(Rest),
}

/// An address that was given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rest {
    /// Index of the entry that released it; hosts that have reached it no longer forward to
    /// the old owner.
    pub released: u64,
    /// When, by the leader's clock, nanoseconds since the Unix epoch.
    pub since: i64,
    /// The hosts that took part in the network then.
    pub hosts: Vec<NodeId>,
}

/// All tables as of one entry.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tables {
    index: u64,
    cluster: Option<Arc<ClusterRecord>>,
    nodes: OrdMap<NodeId, Arc<Node>>,
    managers: OrdMap<NodeId, SocketAddr>,
    networks: OrdMap<NetworkId, Arc<Network>>,
    endpoints: OrdMap<EndpointId, Arc<Endpoint>>,
    addresses: OrdMap<(NetworkId, IpAddr), AddressUse>,
    cursors: OrdMap<(NetworkId, IpNetwork), IpAddr>,
    networks_by_name: OrdMap<String, NetworkId>,
    ingress: Option<NetworkId>,
    by_network: OrdSet<(NetworkId, NodeId, EndpointId)>,
    by_node: OrdSet<(NodeId, NetworkId, EndpointId)>,
    by_container: OrdMap<(ContainerId, NetworkId), EndpointId>,
    pub(super) work: Work,
}

/// What a snapshot on disk holds: the tables without their indexes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TablesImage {
    index: u64,
    cluster: Option<ClusterRecord>,
    nodes: Vec<Node>,
    networks: Vec<Network>,
    endpoints: Vec<Endpoint>,
    resting: Vec<(NetworkId, IpAddr, Rest)>,
    cursors: Vec<(NetworkId, IpNetwork, IpAddr)>,
    #[serde(default)]
    work: WorkImage,
}

impl Tables {
    /// What comes from now on is newer than all that was said before, whatever its index; the
    /// epoch is at least the one given.
    pub fn begin_epoch(&mut self, least: u64) {
        if let Some(record) = &self.cluster {
            let mut record = ClusterRecord::clone(record);
            record.epoch = record.epoch.saturating_add(1).max(least);
            self.cluster = Some(Arc::new(record));
        }
    }

    /// Carries out one entry.
    pub fn apply(&mut self, index: u64, proposal: &Proposal) {
        for change in &proposal.changes {
            self.apply_change(index, proposal.time, change);
        }
        self.index = index;
    }

    fn note_manager(&mut self, node: &Node) {
        match &node.manager {
            Some(manager) => self.managers.insert(node.id.clone(), manager.address),
            None => self.managers.remove(&node.id),
        };
    }

    pub(super) fn apply_change(&mut self, index: u64, time: i64, change: &StoreChange) {
        match change {
            StoreChange::SetCluster(record) => {
                let mut record = (**record).clone();
                let before = self.cluster.as_ref().map(|old| old.public.meta);
                record.public.meta = stamp(before, record.public.meta, index, time);
                self.cluster = Some(Arc::new(record));
            }
            StoreChange::SetNode(node) => {
                let mut node = (**node).clone();
                let before = self.nodes.get(&node.id).map(|old| old.meta);
                node.meta = stamp(before, node.meta, index, time);
                self.note_manager(&node);
                self.nodes.insert(node.id.clone(), Arc::new(node));
            }
            StoreChange::RemoveNode(id) => {
                self.managers.remove(id);
                self.nodes.remove(id);
            }
            StoreChange::SetNetwork(network) => {
                let mut network = (**network).clone();
                let before = self.networks.get(&network.id).map(|old| old.meta);
                network.meta = stamp(before, network.meta, index, time);
                self.insert_network(network);
            }
            StoreChange::RemoveNetwork(id) => self.remove_network(id),
            StoreChange::SetEndpoint(endpoint) => {
                let mut endpoint = (**endpoint).clone();
                let before = self.endpoints.get(&endpoint.id).map(|old| old.meta);
                endpoint.meta = stamp(before, endpoint.meta, index, time);
                self.insert_endpoint(endpoint);
            }
            StoreChange::RemoveEndpoint(id) => self.remove_endpoint(id, index, time),
            StoreChange::SetCursor {
                network,
                subnet,
                last,
            } => {
                self.cursors.insert((network.clone(), *subnet), *last);
            }
            StoreChange::EndRest { network, address } => {
                let key = (network.clone(), *address);
                if let Some(AddressUse::Resting(_)) = self.addresses.get(&key) {
                    self.addresses.remove(&key);
                }
            }
            StoreChange::SetService(service) => self.set_service(service, index, time),
            StoreChange::RemoveService(id) => self.remove_service(id, index, time),
            StoreChange::SetTask(task) => {
                let mut task = (**task).clone();
                let before = self.work.task(&task.id).map(|old| old.meta);
                task.meta = stamp(before, task.meta, index, time);
                self.work.insert_task(task);
            }
            StoreChange::RemoveTask(id) => self.work.remove_task(id),
            StoreChange::SetPayload(payload) => {
                let mut payload = (**payload).clone();
                let before = self.work.payload(&payload.id).map(|old| old.meta);
                payload.meta = stamp(before, payload.meta, index, time);
                self.work.insert_payload(payload);
            }
            StoreChange::RemovePayload(id) => self.work.remove_payload(id),
        }
    }

    fn set_service(&mut self, service: &Service, index: u64, time: i64) {
        let mut service = service.clone();
        let old = self.work.service(&service.id).cloned();
        let kept = |before: &Service| before.spec == service.spec;
        if !old.as_ref().is_some_and(kept) {
            service.spec_version = index;
        }
        let before = old.as_ref().map(|old| old.meta);
        service.meta = stamp(before, service.meta, index, time);
        for vip in old.iter().flat_map(|old| &old.endpoint.vips) {
            if !service.endpoint.vips.contains(vip) {
                self.rest(&vip.network, vip.address.ip(), index, time);
            }
        }
        for vip in &service.endpoint.vips {
            self.addresses.insert(
                (vip.network.clone(), vip.address.ip()),
                AddressUse::Vip(service.id.clone()),
            );
        }
        self.work.insert_service(service);
    }

    fn remove_service(&mut self, id: &ServiceId, index: u64, time: i64) {
        let Some(old) = self.work.remove_service(id) else {
            return;
        };
        for vip in &old.endpoint.vips {
            self.rest(&vip.network, vip.address.ip(), index, time);
        }
    }

    /// The address is given back; it is not given again before it has rested.
    fn rest(&mut self, network: &NetworkId, address: IpAddr, index: u64, time: i64) {
        let rest = Rest {
            released: index,
            since: time,
            hosts: self.hosts_of(network),
        };
        self.addresses
            .insert((network.clone(), address), AddressUse::Resting(rest));
    }

    fn insert_network(&mut self, network: Network) {
        if let Some(old) = self.networks.get(&network.id) {
            self.networks_by_name.remove(&old.spec.name);
        }
        self.networks_by_name
            .insert(network.spec.name.clone(), network.id.clone());
        if network.spec.ingress {
            self.ingress = Some(network.id.clone());
        }
        self.networks.insert(network.id.clone(), Arc::new(network));
    }

    fn remove_network(&mut self, id: &NetworkId) {
        let Some(old) = self.networks.remove(id) else {
            return;
        };
        self.networks_by_name.remove(&old.spec.name);
        if self.ingress.as_ref() == Some(id) {
            self.ingress = None;
        }
        let resting: Vec<IpAddr> = self.resting(id).map(|(address, _)| address).collect();
        for address in resting {
            self.addresses.remove(&(id.clone(), address));
        }
        for subnet in &old.subnets {
            self.cursors.remove(&(id.clone(), subnet.subnet));
        }
    }

    fn insert_endpoint(&mut self, endpoint: Endpoint) {
        if let Some(old) = self.endpoints.get(&endpoint.id).cloned() {
            self.unindex_endpoint(&old);
        }
        let (id, network, node) = (
            endpoint.id.clone(),
            endpoint.network.clone(),
            endpoint.node.clone(),
        );
        for address in &endpoint.addresses {
            self.addresses.insert(
                (network.clone(), address.ip()),
                AddressUse::Endpoint(id.clone()),
            );
        }
        if let EndpointOwner::Container { id: container, .. } = &endpoint.owner {
            self.by_container
                .insert((container.clone(), network.clone()), id.clone());
        }
        if !node.is_empty() {
            self.by_network
                .insert((network.clone(), node.clone(), id.clone()));
            self.by_node.insert((node, network, id.clone()));
        }
        self.endpoints.insert(id, Arc::new(endpoint));
    }

    fn unindex_endpoint(&mut self, old: &Endpoint) {
        for address in &old.addresses {
            self.addresses.remove(&(old.network.clone(), address.ip()));
        }
        if let EndpointOwner::Container { id: container, .. } = &old.owner {
            self.by_container
                .remove(&(container.clone(), old.network.clone()));
        }
        self.by_network
            .remove(&(old.network.clone(), old.node.clone(), old.id.clone()));
        self.by_node
            .remove(&(old.node.clone(), old.network.clone(), old.id.clone()));
    }

    fn remove_endpoint(&mut self, id: &EndpointId, index: u64, time: i64) {
        let Some(old) = self.endpoints.remove(id) else {
            return;
        };
        // No host was told of one without a node, so none will say that it has forgotten it.
        let hosts = if old.node.is_empty() {
            Vec::new()
        } else {
            self.hosts_of(&old.network)
        };
        self.unindex_endpoint(&old);
        for address in &old.addresses {
            let rest = Rest {
                released: index,
                since: time,
                hosts: hosts.clone(),
            };
            self.addresses.insert(
                (old.network.clone(), address.ip()),
                AddressUse::Resting(rest),
            );
        }
    }

    /// The part that goes to disk.
    pub fn image(&self) -> TablesImage {
        let resting = self
            .addresses
            .iter()
            .filter_map(|((network, address), user)| match user {
                AddressUse::Resting(rest) => Some((network.clone(), *address, rest.clone())),
                AddressUse::Endpoint(_) | AddressUse::Vip(_) => None,
            })
            .collect();
        let cursors = self
            .cursors
            .iter()
            .map(|((network, subnet), last)| (network.clone(), *subnet, *last))
            .collect();
        TablesImage {
            index: self.index,
            cluster: self.cluster.as_deref().cloned(),
            nodes: self.nodes().cloned().collect(),
            networks: self.networks().cloned().collect(),
            endpoints: self.endpoints().cloned().collect(),
            resting,
            cursors,
            work: self.work.image(),
        }
    }
}

impl From<TablesImage> for Tables {
    fn from(image: TablesImage) -> Self {
        let mut tables = Self {
            index: image.index,
            cluster: image.cluster.map(Arc::new),
            ..Self::default()
        };
        for node in image.nodes {
            tables.note_manager(&node);
            tables.nodes.insert(node.id.clone(), Arc::new(node));
        }
        for network in image.networks {
            tables.insert_network(network);
        }
        for endpoint in image.endpoints {
            tables.insert_endpoint(endpoint);
        }
        for (network, address, rest) in image.resting {
            tables
                .addresses
                .insert((network, address), AddressUse::Resting(rest));
        }
        for (network, subnet, last) in image.cursors {
            tables.cursors.insert((network, subnet), last);
        }
        tables.work = Work::from(image.work);
        let vips: Vec<(NetworkId, IpAddr, ServiceId)> = tables
            .work
            .services()
            .flat_map(|service| {
                service
                    .endpoint
                    .vips
                    .iter()
                    .map(move |vip| (vip, &service.id))
            })
            .map(|(vip, id)| (vip.network.clone(), vip.address.ip(), id.clone()))
            .collect();
        for (network, address, service) in vips {
            tables
                .addresses
                .insert((network, address), AddressUse::Vip(service));
        }
        tables
    }
}

fn stamp(before: Option<Meta>, written: Meta, index: u64, time: i64) -> Meta {
    Meta {
        version: index,
        created_at: before.map_or(time, |old| old.created_at),
        updated_at: time,
        trace: written.trace,
    }
}
