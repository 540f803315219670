//! What is asked of the tables; nothing here changes them.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Bound,
    sync::Arc,
};

use imbl::OrdSet;
use ipnetwork::IpNetwork;
use model::{ContainerId, Endpoint, EndpointId, Network, NetworkId, Node, NodeId};

use super::{
    super::work::{Work, both},
    AddressUse, ClusterRecord, Rest, Tables,
};

impl Tables {
    /// Index of the last entry applied.
    pub fn index(&self) -> u64 {
        self.index
    }

    pub fn cluster(&self) -> Option<&ClusterRecord> {
        self.cluster.as_deref()
    }

    pub fn node(&self, id: &NodeId) -> Option<&Node> {
        self.nodes.get(id).map(Arc::as_ref)
    }

    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().map(Arc::as_ref)
    }

    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// The nodes that are managers, and their addresses; few, however many nodes there are.
    pub fn managers(&self) -> impl Iterator<Item = (&NodeId, SocketAddr)> {
        self.managers.iter().map(|(id, address)| (id, *address))
    }

    pub fn network(&self, id: &NetworkId) -> Option<&Network> {
        self.networks.get(id).map(Arc::as_ref)
    }

    pub fn network_named(&self, name: &str) -> Option<&Network> {
        self.network(self.networks_by_name.get(name)?)
    }

    pub fn networks(&self) -> impl Iterator<Item = &Network> {
        self.networks.values().map(Arc::as_ref)
    }

    pub fn endpoint(&self, id: &EndpointId) -> Option<&Endpoint> {
        self.endpoints.get(id).map(Arc::as_ref)
    }

    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.values().map(Arc::as_ref)
    }

    pub fn endpoint_of(&self, container: &ContainerId, network: &NetworkId) -> Option<&Endpoint> {
        let id = self
            .by_container
            .get(&(container.clone(), network.clone()))?;
        self.endpoint(id)
    }

    /// The endpoints of one network, ordered by node.
    pub fn endpoints_on<'a>(
        &'a self,
        network: &'a NetworkId,
    ) -> impl Iterator<Item = &'a Endpoint> + 'a {
        let first = (network.clone(), NodeId::default(), EndpointId::default());
        self.by_network
            .range(first..)
            .take_while(move |(of, _, _)| of == network)
            .filter_map(|(_, _, id)| self.endpoint(id))
    }

    /// The endpoints of one node, ordered by network.
    pub fn endpoints_at<'a>(&'a self, node: &'a NodeId) -> impl Iterator<Item = &'a Endpoint> + 'a {
        let first = (node.clone(), NetworkId::default(), EndpointId::default());
        self.by_node
            .range(first..)
            .take_while(move |(of, _, _)| of == node)
            .filter_map(|(_, _, id)| self.endpoint(id))
    }

    /// The ingress network while a service publishes ports on it: then every node takes part.
    pub fn busy_ingress(&self) -> Option<&NetworkId> {
        self.ingress.as_ref().filter(|_| self.work.publishes())
    }

    /// The network of published ports.
    pub fn ingress(&self) -> Option<&Network> {
        self.network(self.ingress.as_ref()?)
    }

    /// The nodes that take part in the network, by an endpoint or because it is the ingress
    /// network; costs one search per node.
    pub fn hosts_of(&self, network: &NetworkId) -> Vec<NodeId> {
        if self.busy_ingress() == Some(network) {
            return self.nodes.keys().cloned().collect();
        }
        distinct_middles(&self.by_network, network)
    }

    /// The networks the node takes part in; costs one search per network.
    pub fn networks_of(&self, node: &NodeId) -> Vec<NetworkId> {
        let mut found = distinct_middles(&self.by_node, node);
        let ingress = self
            .busy_ingress()
            .filter(|_| self.nodes.contains_key(node));
        if let Some(ingress) = ingress
            && let Err(place) = found.binary_search(ingress)
        {
            found.insert(place, ingress.clone());
        }
        found
    }

    /// Whether the node takes part in the network.
    pub fn takes_part(&self, node: &NodeId, network: &NetworkId) -> bool {
        if self.busy_ingress() == Some(network) {
            return self.nodes.contains_key(node);
        }
        let first = (node.clone(), network.clone(), EndpointId::default());
        self.by_node
            .range(first..)
            .next()
            .is_some_and(|(of, on, _)| of == node && on == network)
    }

    /// Each node that differs from `before`, as it was and as it is; costs what has changed.
    pub fn nodes_since<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = (Option<&'a Node>, Option<&'a Node>)> + 'a {
        before.nodes.diff(&self.nodes).map(both)
    }

    pub fn address(&self, network: &NetworkId, address: IpAddr) -> Option<&AddressUse> {
        self.addresses.get(&(network.clone(), address))
    }

    /// The addresses in use or at rest between two bounds, in order.
    pub fn addresses_between<'a>(
        &'a self,
        network: &'a NetworkId,
        first: IpAddr,
        last: IpAddr,
    ) -> impl Iterator<Item = (IpAddr, &'a AddressUse)> + 'a {
        let from = (network.clone(), first);
        let to = (network.clone(), last);
        self.addresses
            .range(from..=to)
            .map(|((_, address), user)| (*address, user))
    }

    /// The addresses of the network that are at rest.
    pub fn resting<'a>(
        &'a self,
        network: &'a NetworkId,
    ) -> impl Iterator<Item = (IpAddr, &'a Rest)> + 'a {
        let lowest = IpAddr::from([0u8; 4]);
        let highest = IpAddr::from([0xffu8; 16]);
        self.addresses_between(network, lowest, highest)
            .filter_map(|(address, user)| match user {
                AddressUse::Resting(rest) => Some((address, rest)),
                AddressUse::Endpoint(_) | AddressUse::Vip(_) => None,
            })
    }

    /// The last address that was given automatically from the subnet.
    pub fn cursor(&self, network: &NetworkId, subnet: IpNetwork) -> Option<IpAddr> {
        self.cursors.get(&(network.clone(), subnet)).copied()
    }

    /// Services, tasks, secrets and configs.
    pub fn work(&self) -> &Work {
        &self.work
    }
}

/// Sorts after every identifier, which are lower-case base 36.
fn after_all_ids() -> EndpointId {
    EndpointId::new("~")
}

/// The distinct second parts of the triples that begin with `first`.
fn distinct_middles(
    set: &OrdSet<(model::Id, model::Id, model::Id)>,
    first: &model::Id,
) -> Vec<model::Id> {
    let mut found: Vec<model::Id> = Vec::new();
    let mut from = Bound::Included((first.clone(), model::Id::default(), model::Id::default()));
    while let Some((of, middle, _)) = set.range((from, Bound::Unbounded)).next() {
        if of != first {
            break;
        }
        found.push(middle.clone());
        from = Bound::Excluded((first.clone(), middle.clone(), after_all_ids()));
    }
    found
}
