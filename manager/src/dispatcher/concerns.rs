//! Which changes of a commit concern which host. Each session looks at its own ones, and sleeps where
//! there are none: with as many sessions as tasks, looking at all would be the square of that.

use std::collections::{BTreeSet, HashMap};

use model::{Endpoint, NetworkId, NodeId};

use super::sight::peer;
use crate::store::{StoreChange, Tables};

/// Places in a commit's changes.
#[derive(Debug, Default)]
pub struct Concerns {
    /// Changes that any host may have to be told of.
    shared: Vec<usize>,
    /// Changes that a host has to look at.
    own: HashMap<NodeId, Vec<usize>>,
    /// Changes on one network, with the hosts that are on it before or after.
    networks: HashMap<NetworkId, (BTreeSet<NodeId>, Vec<usize>)>,
}

/// Whom a change concerns.
enum Whom<'a> {
    Anybody,
    Hosts(BTreeSet<NodeId>),
    /// Those on the endpoint's network.
    Network(&'a Endpoint),
}

impl Concerns {
    /// `before` is the state that the changes were made to, `after` what came of it.
    pub fn of(before: &Tables, after: &Tables, changes: &[StoreChange]) -> Self {
        let mut concerns = Self::default();
        for (at, change) in changes.iter().enumerate() {
            match whom(before, after, change) {
                Whom::Anybody => concerns.shared.push(at),
                Whom::Hosts(hosts) => {
                    for node in hosts {
                        concerns.own.entry(node).or_default().push(at);
                    }
                }
                Whom::Network(endpoint) => concerns.note(before, after, at, endpoint),
            }
        }
        concerns
    }

    fn note(&mut self, before: &Tables, after: &Tables, at: usize, endpoint: &Endpoint) {
        let network = &endpoint.network;
        let everywhere = |tables: &Tables| tables.busy_ingress() == Some(network);
        if everywhere(before) || everywhere(after) {
            self.shared.push(at);
            return;
        }
        let on_it = self.networks.entry(network.clone()).or_insert_with(|| {
            let hosts = before.hosts_of(network).into_iter();
            let hosts = hosts.chain(after.hosts_of(network)).collect();
            (hosts, Vec::new())
        });
        on_it.1.push(at);
        let was = before.endpoint(&endpoint.id).map(|was| &was.node);
        let nodes: BTreeSet<&NodeId> = was.into_iter().chain([&endpoint.node]).collect();
        for node in nodes {
            if !node.is_empty() && !on_it.0.contains(node) {
                self.own.entry(node.clone()).or_default().push(at);
            }
        }
    }

    /// The hosts that have to look; nothing if it may be all.
    pub fn hosts(&self) -> Option<BTreeSet<&NodeId>> {
        let on_networks = self.networks.values().flat_map(|(hosts, _)| hosts);
        let hosts = || self.own.keys().chain(on_networks).collect();
        self.shared.is_empty().then(hosts)
    }

    /// Those of `changes` that the node has to look at; their order is not kept.
    pub fn pick<'a>(
        &'a self,
        changes: &'a [StoreChange],
        node: &'a NodeId,
    ) -> impl Iterator<Item = &'a StoreChange> + Clone {
        let own = self.own.get(node).map_or(&[][..], Vec::as_slice);
        let networks = self.networks.values();
        let on_its = networks.filter(|(hosts, _)| hosts.contains(node));
        let places = self.shared.iter().chain(own);
        let places = places.chain(on_its.flat_map(|(_, places)| places));
        places.filter_map(|at| changes.get(*at))
    }
}

fn whom<'a>(before: &'a Tables, after: &Tables, change: &'a StoreChange) -> Whom<'a> {
    match change {
        StoreChange::SetTask(task) => {
            let was = before.work().task(&task.id);
            let nodes = was.into_iter().chain([&**task]);
            Whom::Hosts(nodes.filter_map(|task| task.node.clone()).collect())
        }
        StoreChange::RemoveTask(id) => {
            let was = before.work().task(id);
            Whom::Hosts(was.and_then(|task| task.node.clone()).into_iter().collect())
        }
        StoreChange::SetNode(node) => {
            let manager = |tables: &Tables| {
                let node = tables.node(&node.id)?;
                node.manager.as_ref().map(|manager| manager.address)
            };
            let shown = |tables: &Tables| peer(tables, &node.id, &NodeId::default());
            let meets = |tables: &Tables| !tables.networks_of(&node.id).is_empty();
            let others = manager(before) != manager(after)
                || (shown(before) != shown(after) && (meets(before) || meets(after)));
            if others {
                Whom::Anybody
            } else {
                Whom::Hosts([node.id.clone()].into())
            }
        }
        StoreChange::SetEndpoint(endpoint) => Whom::Network(endpoint),
        StoreChange::RemoveEndpoint(id) => match before.endpoint(id) {
            Some(was) => Whom::Network(was),
            // It came with the same commit, and that change says so.
            None => Whom::Hosts(BTreeSet::new()),
        },
        StoreChange::SetCursor { .. } | StoreChange::EndRest { .. } => Whom::Hosts(BTreeSet::new()),
        StoreChange::SetCluster(_)
        | StoreChange::RemoveNode(_)
        | StoreChange::SetNetwork(_)
        | StoreChange::RemoveNetwork(_)
        | StoreChange::SetService(_)
        | StoreChange::RemoveService(_)
        | StoreChange::SetPayload(_)
        | StoreChange::RemovePayload(_) => Whom::Anybody,
    }
}
