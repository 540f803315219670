//! Which changes of a commit concern which host. Each session looks at its own ones, and sleeps where
//! there are none: with as many sessions as tasks, looking at all would be the square of that.

use std::collections::{BTreeSet, HashMap};

use model::{Endpoint, NodeId};

use super::sight::peer;
use crate::store::{StoreChange, Tables};

/// Places in a commit's changes.
#[derive(Debug, Default)]
pub struct Concerns {
    /// Changes that any host may have to be told of.
    shared: Vec<usize>,
    /// Changes that a host has to look at.
    own: HashMap<NodeId, Vec<usize>>,
}

impl Concerns {
    /// `before` is the state that the changes were made to, `after` what came of it.
    pub fn of(before: &Tables, after: &Tables, changes: &[StoreChange]) -> Self {
        let mut concerns = Self::default();
        for (at, change) in changes.iter().enumerate() {
            let Some(hosts) = hosts(before, after, change) else {
                concerns.shared.push(at);
                continue;
            };
            for node in hosts {
                concerns.own.entry(node).or_default().push(at);
            }
        }
        concerns
    }

    /// The hosts that have to look; nothing if it may be all.
    pub fn hosts(&self) -> Option<impl Iterator<Item = &NodeId>> {
        self.shared.is_empty().then(|| self.own.keys())
    }

    /// Those of `changes` that the node has to look at; their order is not kept.
    pub fn pick<'a>(
        &'a self,
        changes: &'a [StoreChange],
        node: &NodeId,
    ) -> impl Iterator<Item = &'a StoreChange> + Clone {
        let own = self.own.get(node).map_or(&[][..], Vec::as_slice);
        let places = self.shared.iter().chain(own);
        places.filter_map(|at| changes.get(*at))
    }
}

/// Whom a change concerns; nothing if it may be anybody.
fn hosts(before: &Tables, after: &Tables, change: &StoreChange) -> Option<BTreeSet<NodeId>> {
    match change {
        StoreChange::SetTask(task) => {
            let was = before.work().task(&task.id);
            let nodes = was.into_iter().chain([&**task]);
            Some(nodes.filter_map(|task| task.node.clone()).collect())
        }
        StoreChange::RemoveTask(id) => {
            let was = before.work().task(id);
            Some(was.and_then(|task| task.node.clone()).into_iter().collect())
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
            (!others).then(|| [node.id.clone()].into())
        }
        StoreChange::SetEndpoint(endpoint) => {
            let mut hosts = on_network_of(before, after, endpoint)?;
            let was = before.endpoint(&endpoint.id);
            let nodes = was.into_iter().chain([&**endpoint]).map(|one| &one.node);
            hosts.extend(nodes.filter(|node| !node.is_empty()).cloned());
            Some(hosts)
        }
        StoreChange::RemoveEndpoint(id) => match before.endpoint(id) {
            Some(was) => on_network_of(before, after, was),
            // It came with the same commit, and that change says so.
            None => Some(BTreeSet::new()),
        },
        StoreChange::SetCursor { .. } | StoreChange::EndRest { .. } => Some(BTreeSet::new()),
        StoreChange::SetCluster(_)
        | StoreChange::RemoveNode(_)
        | StoreChange::SetNetwork(_)
        | StoreChange::RemoveNetwork(_)
        | StoreChange::SetService(_)
        | StoreChange::RemoveService(_)
        | StoreChange::SetPayload(_)
        | StoreChange::RemovePayload(_) => None,
    }
}

/// The hosts on the endpoint's network; nothing if that is where all are.
fn on_network_of(before: &Tables, after: &Tables, endpoint: &Endpoint) -> Option<BTreeSet<NodeId>> {
    let of = |tables: &Tables| {
        let everywhere = tables.busy_ingress() == Some(&endpoint.network);
        (!everywhere).then(|| tables.hosts_of(&endpoint.network))
    };
    Some(of(before)?.into_iter().chain(of(after)?).collect())
}
