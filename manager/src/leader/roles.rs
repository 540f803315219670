//! Keeps consensus and the nodes' roles the same: who is no manager any more has no part in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use model::{NodeId, node::Role};
use tokio_util::sync::CancellationToken;

use super::{Manager, managers::note_manager};
use crate::{
    raft::{Peer, Roster},
    store::{StoreChange, Tables, Watched},
};

/// How often it is looked without an occasion.
const LOOK: Duration = Duration::from_secs(1);

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// Numbers that have to leave consensus.
    dismiss: BTreeSet<u64>,
    /// Nodes whose entry as a manager is not what consensus says.
    note: BTreeMap<NodeId, Option<SocketAddr>>,
}

/// `outdated` are voters whose disk has gone back.
fn plan(tables: &Tables, roster: &Roster, outdated: &BTreeSet<u64>) -> Plan {
    let mut plan = Plan::default();
    for voter in &roster.voters {
        // The log of a manager that never had company knows no name.
        if voter.peer.node == NodeId::default() {
            continue;
        }
        let role = tables.node(&voter.peer.node).map(|node| node.spec.role);
        let unwanted = role != Some(Role::Manager) || outdated.contains(&voter.id);
        let last = voter.votes && roster.voting() == 1;
        let survives = !voter.votes || roster.survives_without(&voter.peer.node);
        if unwanted && !last && survives {
            plan.dismiss.insert(voter.id);
        }
    }
    for node in tables.nodes() {
        let voter = roster.of(&node.id).filter(|voter| voter.votes);
        let has = node.manager.as_ref().map(|manager| manager.address);
        let should = voter.and_then(|voter| voter.peer.address.or(has));
        if has != should && roster.of(&NodeId::default()).is_none() {
            plan.note.insert(node.id.clone(), should);
        }
    }
    plan
}

pub(super) async fn run(manager: Arc<Manager>, ending: CancellationToken) {
    let (mut before, mut watch) = manager.store.view_and_watch();
    let own = Peer {
        node: manager.identity.current().member().node.clone(),
        address: Some(manager.advertise),
    };
    let naming = ending.run_until_cancelled(manager.consensus.name_self(own));
    if let Some(Err(error)) = naming.await {
        tracing::warn!("{error}");
    }
    loop {
        let settling = ending.run_until_cancelled(manager.consensus.settle());
        if let Some(Err(error)) = settling.await {
            tracing::warn!("{error}");
        }
        let outdated = manager.consensus.outdated().into_keys().collect();
        let plan = plan(&manager.store.view(), &manager.roster(), &outdated);
        if !plan.dismiss.is_empty() {
            tracing::info!(numbers = ?plan.dismiss, "managers are taken out of consensus");
            // Taking out this manager itself ends its term.
            let dismissing = ending.run_until_cancelled(manager.dismiss(plan.dismiss));
            if let Some(Err(refusal)) = dismissing.await {
                tracing::warn!("{refusal}");
            }
        }
        if !plan.note.is_empty() {
            let noted = manager.store.update(move |tx| {
                for (node, address) in plan.note {
                    note_manager(tx, &node, address);
                }
                Ok(())
            });
            if let Err(refusal) = noted.await {
                tracing::debug!("{refusal}");
            }
        }
        let occasion = async {
            loop {
                let (tables, changes) = match watch.next().await {
                    Watched::StartOver(tables) => {
                        before = tables;
                        return;
                    }
                    Watched::Commit(commit) => (Arc::clone(&commit.tables), commit),
                };
                let mut changes = changes.changes.iter();
                let is_news = changes.any(|change| concerns(&before, change));
                before = tables;
                if is_news {
                    return;
                }
            }
        };
        tokio::select! {
            () = occasion => {}
            () = tokio::time::sleep(LOOK) => {}
            () = ending.cancelled() => return,
        }
    }
}

/// Whether another node is a manager, or shall be. Hosts come and go by hundreds without that.
fn concerns(before: &Tables, change: &StoreChange) -> bool {
    match change {
        StoreChange::SetNode(node) => before
            .node(&node.id)
            .is_none_or(|old| old.spec.role != node.spec.role || old.manager != node.manager),
        StoreChange::RemoveNode(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{example, raft::Voter};

    fn voter(id: u64, reachable: bool) -> Voter {
        Voter {
            id,
            peer: Peer {
                node: format!("m{id}").into(),
                address: Some(([192, 0, 2, 1], 2377).into()),
            },
            votes: true,
            leads: id == 1,
            reachable,
            lag: None,
        }
    }

    fn planned(roles: &[Role], reachable: &[bool], outdated: &[u64]) -> Vec<u64> {
        let nodes = roles.iter().zip(1..).map(|(role, number)| {
            let mut node = example::node(&format!("m{number}"));
            node.spec.role = *role;
            StoreChange::SetNode(Box::new(node))
        });
        let tables = example::tables(nodes.collect());
        let voters: Vec<_> = (1..)
            .zip(reachable)
            .map(|(id, reachable)| voter(id, *reachable))
            .collect();
        let roster = Roster {
            configs: vec![voters.iter().map(|voter| voter.id).collect()],
            voters,
            ..Roster::default()
        };
        let plan = plan(&tables, &roster, &outdated.iter().copied().collect());
        assert_eq!(plan.note.len(), roles.len().min(reachable.len()));
        plan.dismiss.into_iter().collect()
    }

    #[test]
    fn who_is_no_manager_leaves_if_the_others_are_enough() {
        use Role::{Manager as M, Worker as W};
        for (roles, reachable, outdated, expected) in [
            (&[M, M, M][..], &[true, true, true][..], &[][..], &[][..]),
            (&[M, M, W], &[true, true, true], &[], &[3]),
            (&[M, M, W], &[true, true, false], &[], &[3]),
            (&[M, W, M], &[true, true, false], &[], &[]),
            (&[M, M], &[true, true, true], &[], &[3]),
            (&[M, M, M], &[true, true, false], &[3], &[3]),
            (&[W], &[true], &[], &[]),
        ] {
            assert_eq!(
                planned(roles, reachable, outdated),
                expected,
                "{roles:?} {reachable:?} {outdated:?}"
            );
        }
    }

    #[test]
    fn only_who_manages_is_an_occasion() {
        let before = example::tables(vec![StoreChange::SetNode(Box::new(example::node("n1")))]);
        let set = |edit: fn(&mut model::Node)| {
            let mut node = example::node("n1");
            edit(&mut node);
            StoreChange::SetNode(Box::new(node))
        };
        for (change, expected) in [
            (set(|_| {}), false),
            (
                set(|node| node.status.state = model::node::NodeState::Down),
                false,
            ),
            (set(|node| node.description.nano_cpus = 1), false),
            (set(|node| node.spec.role = Role::Manager), true),
            (set(|node| node.id = "n2".into()), true),
            (StoreChange::RemoveNode("n1".into()), true),
            (StoreChange::RemoveService("s1".into()), false),
        ] {
            assert_eq!(concerns(&before, &change), expected, "{change:?}");
        }
    }
}
