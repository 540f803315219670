//! What other managers ask of this one.

use std::collections::BTreeSet;

use openraft::{
    Vote,
    error::{Fatal, RaftError},
    storage::RaftLogStorage as _,
};

use super::{Consensus, RaftAsk, RaftCall, RaftSaid, election::would_vote, positions::Positions};

impl Consensus {
    /// Answers a call that came over the managers' port; the caller's certificate has been
    /// checked. An error is a sentence for the other's log.
    pub async fn answer(&self, call: RaftCall) -> Result<RaftSaid, String> {
        if let Some(epoch) = self.outlives(&call) {
            return Ok(RaftSaid::Outlived { epoch });
        }
        if call.to != self.raft_id() {
            return Err(format!(
                "manager number {} is meant, and this is number {}: it has joined anew",
                call.to,
                self.raft_id()
            ));
        }
        if let Some(reason) = self.pulse.refuses(&call) {
            return Err(reason);
        }
        if let Some(meant) = call.opening
            && meant != self.pulse.opening
        {
            return Err("the log has been opened anew since it was looked at".to_owned());
        }
        self.pulse.heard_of(call.from);
        self.learn(&call.positions);
        match call.ask {
            RaftAsk::Append(request) => {
                self.hear_leader(call.from, &request.vote);
                let answer = self.raft.append_entries(request).await;
                answer.map(RaftSaid::Append).map_err(|e| e.to_string())
            }
            RaftAsk::Snapshot(request) => {
                self.hear_leader(call.from, &request.vote);
                match self.raft.install_snapshot(request).await {
                    Ok(answer) => Ok(RaftSaid::Snapshot(Ok(answer))),
                    Err(RaftError::APIError(error)) => Ok(RaftSaid::Snapshot(Err(error))),
                    Err(RaftError::Fatal(error)) => Err(error.to_string()),
                }
            }
            RaftAsk::Vote(request) => {
                let answer = self.raft.vote(request).await;
                answer.map(RaftSaid::Vote).map_err(|e| e.to_string())
            }
            RaftAsk::Position => {
                let mut log = self.log.clone();
                let log = log.get_log_state().await.map_err(|e| e.to_string())?;
                let snapshot = self.raft.metrics().borrow().snapshot;
                Ok(RaftSaid::Position {
                    opening: self.pulse.opening,
                    last: log.last_log_id.max(snapshot),
                })
            }
            RaftAsk::WouldVote(candidate) => {
                let mut log = self.log.clone();
                let own = log.get_log_state().await.map_err(|e| e.to_string())?;
                let leading = self.lead.borrow().leading;
                Ok(RaftSaid::WouldVote(would_vote(
                    candidate,
                    own.last_log_id,
                    leading,
                    self.pulse.silence(),
                    self.pulse.rhythm(),
                )))
            }
        }
    }

    /// The newest epoch that this manager knows of, where the caller's is an earlier one.
    pub fn outlives(&self, call: &RaftCall) -> Option<u64> {
        let newest = self.pulse.newest_epoch();
        // Who does not say is a newcomer, or of an earlier version; both have no part in what was outlived.
        let says = call.epoch != 0 || self.pulse.outlived().is_some();
        (says && call.epoch < newest).then_some(newest)
    }

    fn learn(&self, told: &Positions) {
        if told.is_empty() {
            return;
        }
        let managers: BTreeSet<u64> = {
            let metrics = self.raft.metrics();
            let state = metrics.borrow();
            let nodes = state.membership_config.nodes();
            nodes.map(|(id, _)| *id).collect()
        };
        self.pulse.learn(told, &managers);
    }

    /// Whether consensus has stopped for good, and why: a disk that failed, mostly.
    pub fn stopped(&self) -> Option<String> {
        let state = self.raft.metrics().borrow().running_state.clone();
        match state {
            Err(Fatal::Stopped) | Ok(()) => None,
            Err(error) => Some(error.to_string()),
        }
    }

    /// Returns why consensus has stopped, when it has: its disk is full, or does not answer, or holds
    /// something else than was written.
    pub async fn until_stopped(&self) -> String {
        let mut metrics = self.raft.metrics();
        // A sender that is gone has left the reason behind.
        let _ = metrics.wait_for(|state| state.running_state.is_err()).await;
        self.stopped()
            .unwrap_or_else(|| "it was asked to".to_owned())
    }

    /// Counts as heard before it is dealt with: an fsync may take its time.
    fn hear_leader(&self, from: u64, vote: &Vote<u64>) {
        let known = self.raft.metrics().borrow().vote;
        if *vote >= known {
            self.pulse.heard_leader(from);
        }
    }
}
