//! A host's assignments as a function of the tables, and the step from one commit to the next.

use std::collections::{BTreeMap, BTreeSet};

use model::{Assignments, Change, Generation, Increment, NetworkId, NodeId, assignment::Peer};

use crate::store::{StoreChange, Tables};

/// Everything the node takes part in.
pub fn assignments(tables: &Tables, node: &NodeId) -> Assignments {
    let cluster = tables.cluster();
    let networks: BTreeMap<_, _> = tables
        .networks_of(node)
        .into_iter()
        .filter_map(|id| Some((id.clone(), tables.network(&id)?.clone())))
        .collect();
    Assignments {
        generation: generation(tables),
        data_path_port: cluster.map_or(0, |record| record.public.data_path_port),
        peers: peers(tables, node, networks.keys()),
        endpoints: networks
            .keys()
            .flat_map(|id| tables.endpoints_on(id))
            .map(|endpoint| (endpoint.id.clone(), endpoint.clone()))
            .collect(),
        networks,
        ..Assignments::default()
    }
}

fn generation(tables: &Tables) -> Generation {
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
            let node = tables.node(&id)?;
            let peer = Peer {
                hostname: node.description.hostname.clone(),
                number: node.number,
                data_path: node.description.data_path?,
            };
            Some((id, peer))
        })
        .collect()
}

/// Brings `sent` to the state after a commit and says what that takes; nothing if the commit
/// does not concern the node.
pub fn increment(
    sent: &mut Assignments,
    tables: &Tables,
    changes: &[StoreChange],
    node: &NodeId,
) -> Option<Increment> {
    let mut steps = Vec::new();
    for change in changes {
        match touched(sent, tables, change, node) {
            Touched::Nothing => {}
            Touched::One(step) => steps.push(*step),
            Touched::Everything => {
                let target = assignments(tables, node);
                let increment = Increment {
                    generation: target.generation,
                    changes: sent.diff(&target),
                };
                *sent = target;
                return (!increment.changes.is_empty()).then_some(increment);
            }
        }
    }
    if steps.is_empty() {
        return None;
    }
    let increment = Increment {
        generation: generation(tables),
        changes: steps,
    };
    sent.apply(&increment);
    Some(increment)
}

enum Touched {
    Nothing,
    One(Box<Change>),
    /// Networks or peers may have changed: compare all.
    Everything,
}

fn touched(sent: &Assignments, tables: &Tables, change: &StoreChange, node: &NodeId) -> Touched {
    match change {
        StoreChange::SetEndpoint(endpoint) => {
            if !sent.networks.contains_key(&endpoint.network) {
                return if endpoint.node == *node {
                    Touched::Everything
                } else {
                    Touched::Nothing
                };
            }
            if !sent.peers.contains_key(&endpoint.node) {
                return Touched::Everything;
            }
            // The stored one bears its version; it may be gone again by the same commit.
            match tables.endpoint(&endpoint.id) {
                Some(stored) => {
                    Touched::One(Box::new(Change::SetEndpoint(Box::new(stored.clone()))))
                }
                None => Touched::Everything,
            }
        }
        StoreChange::RemoveEndpoint(id) => match sent.endpoints.get(id) {
            None => Touched::Nothing,
            Some(gone) => {
                let stays = |on: &NetworkId| sent.networks.contains_key(on);
                if gone.node != *node && tables.networks_of(&gone.node).iter().any(stays) {
                    Touched::One(Box::new(Change::RemoveEndpoint(id.clone())))
                } else {
                    Touched::Everything
                }
            }
        },
        StoreChange::SetNetwork(network) if sent.networks.contains_key(&network.id) => {
            Touched::Everything
        }
        StoreChange::SetNode(changed) if sent.peers.contains_key(&changed.id) => {
            let known = &sent.peers[&changed.id];
            let same = Some(known.data_path) == changed.description.data_path
                && known.hostname == changed.description.hostname;
            if same {
                Touched::Nothing
            } else {
                Touched::Everything
            }
        }
        StoreChange::SetNode(changed) if changed.id == *node => Touched::Everything,
        StoreChange::RemoveNode(id) if sent.peers.contains_key(id) => Touched::Everything,
        StoreChange::RemoveNetwork(id) if sent.networks.contains_key(id) => Touched::Everything,
        StoreChange::SetCluster(_)
        | StoreChange::SetNode(_)
        | StoreChange::RemoveNode(_)
        | StoreChange::SetNetwork(_)
        | StoreChange::RemoveNetwork(_)
        | StoreChange::SetCursor { .. }
        | StoreChange::EndRest { .. }
        | StoreChange::SetService(_)
        | StoreChange::RemoveService(_)
        | StoreChange::SetTask(_)
        | StoreChange::RemoveTask(_)
        | StoreChange::SetPayload(_)
        | StoreChange::RemovePayload(_) => Touched::Nothing,
    }
}
