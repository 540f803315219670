//! Managers come and go.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use model::{
    FORMAT, Node, NodeId, Refusal,
    control::{ManagerList, ManagerPosition},
    node::{ManagerStatus, NodeState, Reachability, Role},
};

use super::Manager;
use crate::{
    client::Connection,
    raft::{ConsensusError, Peer, Roster, Voter},
    store::Transaction,
    wire::{ForwardReply, ManagerAsk},
};

/// How long the leader may take to let a manager in: the log travels meanwhile.
const ADMIT: Duration = Duration::from_secs(80);
const LOOK: Duration = Duration::from_millis(500);
/// Pause before the others are told again where this manager is.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(2);

impl Manager {
    /// Asks to be let in, of whoever leads, until that has happened or is refused.
    pub(super) async fn enter(&self, remotes: &[SocketAddr]) -> Result<(), Refusal> {
        let ask = ManagerAsk::Enter {
            raft_id: self.consensus.raft_id(),
            address: self.advertise,
            format: FORMAT,
        };
        let mut last = String::new();
        for _ in 0..6 {
            for remote in remotes.iter().filter(|remote| **remote != self.advertise) {
                match self.enter_by(*remote, &ask).await {
                    Ok(ForwardReply::Answer(_)) => return Ok(()),
                    Ok(ForwardReply::Refused(refusal)) => return Err(refusal),
                    Ok(ForwardReply::NotLeader) => {
                        last = format!("manager {remote} does not lead, and knows no leader");
                    }
                    Err(error) => last = error,
                }
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(Refusal::unavailable(format!(
            "the cluster's managers have not let this one in: {last}"
        )))
    }

    /// Has the others look for this manager where it is, if its address was another.
    pub(super) fn announce(self: &Arc<Self>, remotes: Vec<SocketAddr>) {
        let manager = Arc::clone(self);
        let telling = async move {
            while manager.is_misplaced() {
                match manager.enter(&remotes).await {
                    Ok(()) => {
                        tracing::info!(address = %manager.advertise, "the other managers know the new address");
                    }
                    Err(refusal) => tracing::warn!("the new address is not known yet: {refusal}"),
                }
                tokio::time::sleep(ANNOUNCE_AGAIN).await;
            }
        };
        let ending = self.ending.clone();
        let telling = async move {
            ending.run_until_cancelled(telling).await;
        };
        let tasks = self.tasks.lock();
        tasks.unwrap_or_else(PoisonError::into_inner).spawn(telling);
    }

    /// A leader writes its own address down by itself.
    fn is_misplaced(&self) -> bool {
        let (own, roster) = (self.consensus.raft_id(), self.roster());
        let known = roster.voters.iter().find(|voter| voter.id == own);
        let elsewhere = known.is_some_and(|voter| voter.peer.address != Some(self.advertise));
        elsewhere && roster.voting() > 1
    }

    async fn enter_by(&self, remote: SocketAddr, ask: &ManagerAsk) -> Result<ForwardReply, String> {
        let reached = self.lines.reach(remote).await;
        let (connection, number): (Connection, u64) = reached.map_err(|e| e.to_string())?;
        connection.forward(ask, ADMIT).await.map_err(|error| {
            self.lines.drop_line(remote, number);
            error.to_string()
        })
    }

    /// Lets a manager in: the leader's side of [`Self::enter`].
    pub(super) async fn admit(
        &self,
        node: &NodeId,
        raft_id: u64,
        address: SocketAddr,
        format: u32,
    ) -> Result<(), Refusal> {
        if format < FORMAT {
            return Err(Refusal::invalid(format!(
                "this manager is of an older version: it knows formats of the cluster's state up to {format}, and the others write {FORMAT}. Install on it what the others have, then it gets in by itself"
            )));
        }
        let view = self.store.view();
        let role = view.node(node).map(|node| node.spec.role);
        if role != Some(Role::Manager) {
            return Err(Refusal::forbidden(
                "this node is no manager (any more); promote it first",
            ));
        }
        // A manager that could not be spoken to would count, and never answer.
        if let Err(error) = self.lines.reach(address).await {
            return Err(Refusal::unavailable(format!(
                "the new manager cannot be reached at its advertised address {address}: {error}; check the address (--advertise-addr) and the firewall of both hosts"
            )));
        }
        let peer = Peer {
            node: node.clone(),
            address: Some(address),
        };
        let admitted = self.consensus.admit(raft_id, peer).await;
        admitted.map_err(unchanged)?;
        let node = node.clone();
        self.store
            .update(move |tx| {
                note_manager(tx, &node, Some(address));
                Ok(())
            })
            .await?;
        Ok(())
    }

    /// Takes a node's managers out of consensus.
    pub(super) async fn dismiss(&self, ids: BTreeSet<u64>) -> Result<(), Refusal> {
        self.consensus.remove(ids).await.map_err(unchanged)
    }

    /// Refuses what would leave a minority in charge.
    pub(super) fn may_lose(&self, node: &Node) -> Result<(), Refusal> {
        let roster = self.roster();
        if roster.of(&node.id).is_none_or(|voter| !voter.votes) {
            return Ok(());
        }
        if roster.voting() == 1 {
            return Err(Refusal::invalid(
                "attempting to demote the last manager of the swarm: nobody would hold the cluster's state; promote another node first",
            ));
        }
        if roster.survives_without(&node.id) {
            return Ok(());
        }
        Err(Refusal::invalid(format!(
            "can't remove manager {} from the raft: this would result in a loss of quorum, because only {} of {} managers can be reached; bring the others back first",
            node.description.hostname,
            roster.reachable(),
            roster.voting()
        )))
    }

    /// A node that left holds nothing any more; it stays listed as down until it is removed.
    pub(super) async fn part(&self, id: NodeId) -> Result<(), Refusal> {
        let view = self.store.view();
        let Some(node) = view.node(&id) else {
            return Ok(());
        };
        let is_manager = self.roster().of(&id).is_some();
        if is_manager {
            self.may_lose(node)?;
        }
        let leaving = id.clone();
        let parted = self.store.update(move |tx| {
            let held: Vec<_> = tx
                .tables()
                .endpoints_at(&leaving)
                .map(|e| e.id.clone())
                .collect();
            for endpoint in held {
                tx.remove_endpoint(&endpoint);
            }
            if let Some(node) = tx.tables().node(&leaving) {
                let mut node = node.clone();
                node.status.state = NodeState::Down;
                node.spec.role = Role::Worker;
                "the node has left".clone_into(&mut node.status.message);
                tx.set_node(node);
            }
            Ok(())
        });
        // Before: a heartbeat that is under way must not make it ready again.
        self.sessions.forget(&id);
        if let Err(refusal) = parted.await {
            self.sessions.expect(&id, Instant::now());
            return Err(refusal);
        }
        if is_manager {
            let voters = self.roster().voters.into_iter();
            let own = voters.filter(|v| v.peer.node == id);
            self.dismiss(own.map(|v| v.id).collect()).await?;
        }
        Ok(())
    }

    /// Consensus as this manager sees it.
    pub(super) fn positions(&self) -> ManagerList {
        let roster = self.roster();
        let outdated = self.consensus.outdated();
        let position = |voter: &Voter| ManagerPosition {
            node: voter.peer.node.clone(),
            votes: voter.votes,
            leads: voter.leads && voter.reachable,
            reachable: voter.reachable,
            lag: voter.lag,
            outdated: outdated.get(&voter.id).cloned(),
        };
        ManagerList {
            term: roster.term,
            last_index: roster.last_index,
            applied_index: roster.applied_index,
            needed: u64::try_from(roster.needed()).unwrap_or(u64::MAX),
            members: roster.voters.iter().map(position).collect(),
        }
    }

    /// A node as users see it: its part among the managers is consensus' to tell.
    pub(super) fn shown(&self, node: &Node) -> Node {
        show(node, &self.roster())
    }
}

fn unchanged(error: ConsensusError) -> Refusal {
    Refusal::unavailable(format!("{error}; it is tried again"))
}

/// Writes down whether a node is a manager that can be asked.
pub(super) fn note_manager(tx: &mut Transaction, id: &NodeId, address: Option<SocketAddr>) {
    let Some(old) = tx.tables().node(id) else {
        return;
    };
    let manager = address.map(|address| ManagerStatus {
        leader: false,
        reachability: Reachability::Unknown,
        address,
    });
    if old.manager != manager {
        let mut node = old.clone();
        node.manager = manager;
        tx.set_node(node);
    }
}

fn show(node: &Node, roster: &Roster) -> Node {
    let mut node = node.clone();
    node.manager = roster
        .of(&node.id)
        .filter(|voter| voter.votes)
        .and_then(|voter| {
            Some(ManagerStatus {
                leader: voter.leads && voter.reachable,
                reachability: if voter.reachable {
                    Reachability::Reachable
                } else {
                    Reachability::Unreachable
                },
                address: voter.peer.address.or(node.manager.map(|old| old.address))?,
            })
        });
    node
}
