//! Which manager leads and which ones answer: changes are told in the log and as events.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use model::{NodeId, control::ClusterEvent};
use tokio_util::sync::CancellationToken;

use super::{Manager, Place};
use crate::{clock, raft::Roster};

/// How often a leader looks who still answers: silence makes no event.
const LOOK: Duration = Duration::from_secs(1);

/// The managers at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Sight {
    leader: Option<NodeId>,
    /// Whether each one answers; only a leader knows.
    reachable: BTreeMap<NodeId, bool>,
}

/// One thing that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Turn {
    node: NodeId,
    /// `leader` or `reachability`, as in Docker's events.
    what: &'static str,
    old: &'static str,
    new: &'static str,
}

impl Sight {
    fn of(roster: &Roster, leading: bool) -> Self {
        let voters = || roster.voters.iter().filter(|voter| voter.votes);
        let reachable = voters().map(|voter| (voter.peer.node.clone(), voter.reachable));
        Self {
            leader: voters()
                .find(|voter| voter.leads)
                .map(|voter| voter.peer.node.clone()),
            reachable: reachable.filter(|_| leading).collect(),
        }
    }

    /// What is told of the way from here to `now`. Nobody leading is no news: another will.
    fn turns(&self, now: &Self) -> Vec<Turn> {
        let mut turns = Vec::new();
        let turn = |node: &NodeId, what, old, new| Turn {
            node: node.clone(),
            what,
            old,
            new,
        };
        if let (Some(old), Some(new)) = (&self.leader, &now.leader)
            && old != new
        {
            turns.push(turn(old, "leader", "true", "false"));
            turns.push(turn(new, "leader", "false", "true"));
        }
        let word = |reachable| {
            if reachable {
                "reachable"
            } else {
                "unreachable"
            }
        };
        for (node, new) in &now.reachable {
            if let Some(old) = self.reachable.get(node).filter(|old| *old != new) {
                turns.push(turn(node, "reachability", word(*old), word(*new)));
            }
        }
        turns
    }
}

pub(super) async fn run(manager: Arc<Manager>, ending: CancellationToken) {
    let mut lead = manager.consensus.lead();
    let mut before = Sight::default();
    loop {
        let roster = manager.roster();
        let leading = matches!(*manager.place.borrow(), Place::Leading(_));
        let mut now = Sight::of(&roster, leading);
        for turn in before.turns(&now) {
            tell(&manager, &roster, &turn);
        }
        if now.leader.is_none() {
            now.leader = before.leader;
        }
        before = now;
        tokio::select! {
            changed = lead.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK) => {}
            () = ending.cancelled() => return,
        }
    }
}

fn tell(manager: &Manager, roster: &Roster, turn: &Turn) {
    let view = manager.store.view();
    let node = view.node(&turn.node);
    let hostname = node.map_or("", |node| node.description.hostname.as_str());
    match turn.new {
        "unreachable" => tracing::warn!(
            node = %turn.node,
            "manager {hostname} cannot be reached; {} of {} answer, and {} are needed",
            roster.reachable(),
            roster.voting(),
            roster.needed()
        ),
        "reachable" => {
            tracing::info!(node = %turn.node, "manager {hostname} can be reached again");
        }
        _ => {}
    }
    let mut attributes = BTreeMap::from([
        (format!("{}.old", turn.what), turn.old.to_owned()),
        (format!("{}.new", turn.what), turn.new.to_owned()),
    ]);
    attributes.insert("name".to_owned(), hostname.to_owned());
    // Nobody listening is no error.
    let _ = manager.events.send(ClusterEvent {
        kind: "node".to_owned(),
        action: "update".to_owned(),
        id: turn.node.to_string(),
        attributes,
        time: clock::now(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(leader: &str, reachable: &[(&str, bool)]) -> Sight {
        let pairs = reachable.iter();
        Sight {
            leader: (!leader.is_empty()).then(|| leader.into()),
            reachable: pairs.map(|(node, is)| ((*node).into(), *is)).collect(),
        }
    }

    #[test]
    fn what_changed_is_told_once() {
        let (up, down) = (("b", true), ("b", false));
        for (before, now, expected) in [
            (sight("", &[]), sight("a", &[up]), &[][..]),
            (sight("a", &[up]), sight("a", &[up]), &[]),
            (sight("a", &[up]), sight("", &[]), &[]),
            (
                sight("a", &[]),
                sight("b", &[]),
                &["a leader true false", "b leader false true"],
            ),
            (
                sight("a", &[up]),
                sight("a", &[down]),
                &["b reachability reachable unreachable"],
            ),
            (
                sight("a", &[down]),
                sight("a", &[up]),
                &["b reachability unreachable reachable"],
            ),
            // A newcomer and one who has left are told of elsewhere.
            (sight("a", &[]), sight("a", &[down]), &[]),
            (sight("a", &[down]), sight("a", &[]), &[]),
        ] {
            let told: Vec<String> = before
                .turns(&now)
                .into_iter()
                .map(|t| format!("{} {} {} {}", t.node, t.what, t.old, t.new))
                .collect();
            assert_eq!(told, expected, "{before:?} {now:?}");
        }
    }
}
