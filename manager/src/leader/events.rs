//! Events of the cluster, read off the commits.

use std::{collections::BTreeMap, sync::Arc};

use model::{Node, control::ClusterEvent};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    store::{Store, StoreChange, Tables, Watched},
};

pub(super) async fn run(
    store: Store,
    events: broadcast::Sender<ClusterEvent>,
    ending: CancellationToken,
) {
    let (mut before, mut watch) = store.view_and_watch();
    loop {
        let watched = tokio::select! {
            watched = watch.next() => watched,
            () = ending.cancelled() => return,
        };
        match watched {
            Watched::StartOver(tables) => before = tables,
            Watched::Commit(commit) => {
                for event in commit
                    .changes
                    .iter()
                    .filter_map(|c| event(&before, c, clock::now()))
                {
                    // Nobody listening is no error.
                    let _ = events.send(event);
                }
                before = Arc::clone(&commit.tables);
            }
        }
    }
}

fn event(before: &Tables, change: &StoreChange, now: i64) -> Option<ClusterEvent> {
    let make = |kind: &str, action: &str, id: &model::Id, attributes| {
        Some(ClusterEvent {
            kind: kind.to_owned(),
            action: action.to_owned(),
            id: id.to_string(),
            attributes,
            time: now,
        })
    };
    let named = |name: &str| BTreeMap::from([("name".to_owned(), name.to_owned())]);
    match change {
        StoreChange::SetNetwork(network) => {
            let action = if before.network(&network.id).is_some() {
                "update"
            } else {
                "create"
            };
            let mut attributes = named(&network.spec.name);
            attributes.insert("type".to_owned(), network.spec.driver.clone());
            make("network", action, &network.id, attributes)
        }
        StoreChange::RemoveNetwork(id) => make(
            "network",
            "remove",
            id,
            named(&before.network(id)?.spec.name),
        ),
        StoreChange::SetNode(node) => match before.node(&node.id) {
            None => make(
                "node",
                "create",
                &node.id,
                named(&node.description.hostname),
            ),
            Some(old) => {
                let attributes = differences(old, node);
                if attributes.is_empty() {
                    return None;
                }
                let mut all = named(&node.description.hostname);
                all.extend(attributes);
                make("node", "update", &node.id, all)
            }
        },
        StoreChange::RemoveNode(id) => make(
            "node",
            "remove",
            id,
            named(&before.node(id)?.description.hostname),
        ),
        StoreChange::SetCluster(_)
        | StoreChange::SetEndpoint(_)
        | StoreChange::RemoveEndpoint(_)
        | StoreChange::SetCursor { .. }
        | StoreChange::EndRest { .. }
        | StoreChange::SetService(_)
        | StoreChange::RemoveService(_)
        | StoreChange::SetTask(_)
        | StoreChange::RemoveTask(_)
        | StoreChange::SetPayload(_)
        | StoreChange::RemovePayload(_) => None,
    }
}

/// Docker's attributes of a node update: `state.old`, `state.new` and the like.
fn differences(old: &Node, new: &Node) -> BTreeMap<String, String> {
    let words = |node: &Node| {
        [
            ("state", format!("{:?}", node.status.state).to_lowercase()),
            (
                "availability",
                format!("{:?}", node.spec.availability).to_lowercase(),
            ),
            ("role", format!("{:?}", node.spec.role).to_lowercase()),
        ]
    };
    words(old)
        .into_iter()
        .zip(words(new))
        .filter(|(old, new)| old.1 != new.1)
        .flat_map(|((key, old), (_, new))| {
            [(format!("{key}.old"), old), (format!("{key}.new"), new)]
        })
        .collect()
}
