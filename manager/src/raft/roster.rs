//! The managers as Raft knows them, and what may be done to them.

use std::collections::BTreeSet;

use model::NodeId;

use super::{Peer, election::is_majority};

/// One manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voter {
    pub id: u64,
    pub peer: Peer,
    /// Learners have the log and no vote yet.
    pub votes: bool,
    pub leads: bool,
    pub reachable: bool,
    /// Entries behind the leader's log; known on the leader only.
    pub lag: Option<u64>,
}

/// All managers as one of them sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    pub voters: Vec<Voter>,
    /// Voters by configuration; two while managers are being exchanged.
    pub configs: Vec<BTreeSet<u64>>,
    pub term: u64,
    pub last_index: u64,
    pub applied_index: u64,
}

impl Roster {
    pub fn of(&self, node: &NodeId) -> Option<&Voter> {
        self.voters.iter().find(|voter| voter.peer.node == *node)
    }

    pub fn voting(&self) -> usize {
        self.voters.iter().filter(|voter| voter.votes).count()
    }

    pub fn reachable(&self) -> usize {
        let voting = self.voters.iter().filter(|voter| voter.votes);
        voting.filter(|voter| voter.reachable).count()
    }

    /// Managers that have to answer for the cluster to decide anything.
    pub fn needed(&self) -> usize {
        self.voting() / 2 + 1
    }

    /// Whether a majority is in sight.
    pub fn has_quorum(&self) -> bool {
        let reachable = |v: &&Voter| v.votes && v.reachable;
        let ids = self.voters.iter().filter(reachable).map(|v| v.id).collect();
        is_majority(&self.configs, &ids)
    }

    /// Whether those who stay are a majority of themselves when `node` goes.
    pub fn survives_without(&self, node: &NodeId) -> bool {
        let stay = |v: &&Voter| v.votes && v.peer.node != *node;
        let staying = self.voters.iter().filter(stay).count();
        let reachable = self.voters.iter().filter(stay).filter(|v| v.reachable);
        staying > 0 && reachable.count() * 2 > staying
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster(reachable: &[bool]) -> Roster {
        let voters: Vec<_> = reachable
            .iter()
            .zip(1..)
            .map(|(reachable, id)| Voter {
                id,
                peer: Peer {
                    node: format!("m{id}").into(),
                    address: None,
                },
                votes: true,
                leads: id == 1,
                reachable: *reachable,
                lag: None,
            })
            .collect();
        Roster {
            configs: vec![voters.iter().map(|v| v.id).collect()],
            voters,
            ..Roster::default()
        }
    }

    #[test]
    fn no_minority_is_ever_left_in_charge() {
        for (reachable, leaving, quorum, survives) in [
            (&[true][..], "m1", true, false),
            (&[true, true], "m2", true, true),
            (&[true, false], "m1", false, false),
            (&[true, false], "m2", false, true),
            (&[true, true, true], "m1", true, true),
            (&[true, true, false], "m1", true, false),
            (&[true, true, false], "m3", true, true),
            (&[true, true, true, false, false], "m2", true, false),
            (&[true, true, true, false, false], "m5", true, true),
        ] {
            let roster = roster(reachable);
            assert_eq!(roster.has_quorum(), quorum, "{reachable:?}");
            assert_eq!(
                roster.survives_without(&leaving.into()),
                survives,
                "{reachable:?} without {leaving}"
            );
        }
    }
}
