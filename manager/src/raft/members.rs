//! Managers come and go: every step is a membership change of Raft's, and none of them leaves a
//! minority in charge.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use openraft::ChangeMembers;

use super::{Consensus, ConsensusError, Peer, Roster, Voter};

/// How long a newcomer may take to fetch the log.
const CATCH_UP: Duration = Duration::from_secs(60);
/// How long the others may take to agree.
const AGREE: Duration = Duration::from_secs(10);

impl Consensus {
    /// All managers, as this one sees them.
    pub fn roster(&self) -> Roster {
        let metrics = self.raft.metrics();
        let state = metrics.borrow();
        let membership = state.membership_config.membership();
        let voting: BTreeSet<u64> = membership.voter_ids().collect();
        let outdated = self.pulse.outdated();
        let leading = self.lead.borrow().leading;
        let last = state.last_log_index.unwrap_or_default();
        let voter = |(id, peer): (&u64, &Peer)| {
            let matching = state.replication.as_ref().and_then(|all| all.get(id));
            let lag = matching.map(|to| last.saturating_sub(to.map_or(0, |log| log.index)));
            Voter {
                id: *id,
                peer: peer.clone(),
                votes: voting.contains(id),
                leads: if *id == state.id {
                    leading
                } else {
                    !leading && state.current_leader == Some(*id)
                },
                reachable: self.pulse.reaches(*id) && !outdated.contains_key(id),
                lag: lag.filter(|_| leading),
            }
        };
        Roster {
            voters: membership.nodes().map(voter).collect(),
            configs: membership.get_joint_config().clone(),
            term: state.current_term,
            last_index: last,
            applied_index: state.last_applied.map_or(0, |log| log.index),
        }
    }

    /// Whether this manager has a vote, as far as its own log tells.
    pub fn is_voter(&self) -> bool {
        let own = self.raft_id();
        let roster = self.roster();
        roster.voters.iter().any(|v| v.id == own && v.votes)
    }

    /// Whether this manager's log names any managers at all: a newcomer's does not.
    pub fn is_empty(&self) -> bool {
        self.roster().voters.is_empty()
    }

    /// Managers whose disk has gone back, by number.
    pub fn outdated(&self) -> BTreeMap<u64, String> {
        self.pulse.outdated()
    }

    /// Lets a manager in: first it learns, then it votes. Asking again is no error.
    pub async fn admit(&self, id: u64, peer: Peer) -> Result<(), ConsensusError> {
        let _turn = self.turn.lock().await;
        let roster = self.roster();
        let before: BTreeSet<u64> = roster
            .voters
            .iter()
            .filter(|voter| voter.peer.node == peer.node && voter.id != id)
            .map(|voter| voter.id)
            .collect();
        if !before.is_empty() {
            self.dismiss(before).await?;
        }
        let known = roster.voters.iter().find(|voter| voter.id == id);
        if known.is_some_and(|voter| voter.peer != peer) {
            let moved = ChangeMembers::SetNodes(BTreeMap::from([(id, peer.clone())]));
            self.change(moved, true).await?;
        }
        if known.is_some_and(|voter| voter.votes) {
            return Ok(());
        }
        let learning = self.raft.add_learner(id, peer, true);
        match tokio::time::timeout(CATCH_UP, learning).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(ConsensusError::Members(error.to_string())),
            Err(_) => {
                return Err(ConsensusError::Members(format!(
                    "the new manager has not received the log within {} s",
                    CATCH_UP.as_secs()
                )));
            }
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id])), true)
            .await
    }

    /// Writes down who this manager is and where it is reached; the log of a manager that never
    /// had company does not say so.
    pub async fn name_self(&self, peer: Peer) -> Result<(), ConsensusError> {
        let _turn = self.turn.lock().await;
        let (own, roster) = (self.raft_id(), self.roster());
        let known = roster.voters.iter().find(|voter| voter.id == own);
        if known.is_none_or(|voter| voter.peer == peer) {
            return Ok(());
        }
        let named = ChangeMembers::SetNodes(BTreeMap::from([(own, peer)]));
        self.change(named, true).await
    }

    /// Takes managers out.
    pub async fn remove(&self, ids: BTreeSet<u64>) -> Result<(), ConsensusError> {
        let _turn = self.turn.lock().await;
        self.dismiss(ids).await
    }

    /// Ends an exchange of managers that an earlier leader has begun and not ended.
    pub async fn settle(&self) -> Result<(), ConsensusError> {
        let Ok(_turn) = self.turn.try_lock() else {
            return Ok(());
        };
        let mut configs = self.roster().configs;
        match configs.pop() {
            Some(goal) if !configs.is_empty() => {
                self.change(ChangeMembers::ReplaceAllVoters(goal), false)
                    .await
            }
            _ => Ok(()),
        }
    }

    async fn dismiss(&self, ids: BTreeSet<u64>) -> Result<(), ConsensusError> {
        let roster = self.roster();
        let (voting, learning): (Vec<_>, Vec<_>) = roster
            .voters
            .iter()
            .filter(|voter| ids.contains(&voter.id))
            .partition(|voter| voter.votes);
        let numbers = |voters: Vec<&Voter>| voters.iter().map(|v| v.id).collect::<BTreeSet<_>>();
        let (voting, learning) = (numbers(voting), numbers(learning));
        if !voting.is_empty() {
            self.change(ChangeMembers::RemoveVoters(voting), false)
                .await?;
        }
        if !learning.is_empty() {
            self.change(ChangeMembers::RemoveNodes(learning), false)
                .await?;
        }
        for id in ids {
            self.pulse.forget(id);
        }
        Ok(())
    }

    async fn change(
        &self,
        change: ChangeMembers<u64, Peer>,
        retain: bool,
    ) -> Result<(), ConsensusError> {
        let changing = self.raft.change_membership(change, retain);
        match tokio::time::timeout(AGREE, changing).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(ConsensusError::Members(error.to_string())),
            Err(_) => Err(ConsensusError::Members(format!(
                "no majority of the managers has agreed within {} s",
                AGREE.as_secs()
            ))),
        }
    }
}
