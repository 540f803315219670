//! Whatever is asked of any manager is carried out by the leader.

use std::{
    net::SocketAddr,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use model::{
    NodeId, Refusal,
    control::{Answer, Verb},
};
use tokio::sync::watch;
use trace::Instrument as _;

use super::{Manager, Place};
use crate::{
    ca::Member,
    client::{ClientError, VERB_LIMIT},
    wire::{ForwardReply, IssueReply, ManagerAnswer, ManagerAsk},
};

/// How long an election is waited for before a call is refused.
const PATIENCE: Duration = Duration::from_secs(6);
/// The same when nobody has led for longer than that.
const IMPATIENCE: Duration = Duration::from_millis(300);
/// How often a leader that could not be reached is looked for again.
const LOOK: Duration = Duration::from_millis(100);
/// What the way to the leader may add to the limit of a verb.
const WAY: Duration = Duration::from_secs(5);

/// Why a leader has not answered.
enum Miss {
    /// It was not asked, or has done nothing.
    Undone,
    /// It may have done what was asked.
    Unknown(String),
}

impl Manager {
    /// Carries out a verb for a member; its role and identity decide what it may. Any manager
    /// can be asked. Without a leader, reads are answered from what this manager knows, and
    /// [counted](Self::stale_reads).
    pub async fn call(&self, caller: &Member, verb: Verb) -> Result<Answer, Refusal> {
        match self.ask_verb(caller, &verb).await {
            Ok(answer) => Ok(answer),
            Err(Missing::NoLeader) if verb.is_read() => {
                self.stale_reads.fetch_add(1, Ordering::Relaxed);
                self.act(caller, verb).await
            }
            Err(missing) => Err(self.refusal(missing)),
        }
    }

    /// The same for one that could not tell an old answer from another.
    pub(crate) async fn call_by_leader(
        &self,
        caller: &Member,
        verb: &Verb,
    ) -> Result<Answer, Refusal> {
        let answered = self.ask_verb(caller, verb).await;
        answered.map_err(|missing| self.refusal(missing))
    }

    async fn ask_verb(&self, caller: &Member, verb: &Verb) -> Result<Answer, Missing> {
        let ask = ManagerAsk::Verb {
            caller: caller.clone(),
            verb: Box::new(verb.clone()),
        };
        match self.ask_leader(ask).await? {
            ManagerAnswer::Verb(answer) => Ok(*answer),
            _ => Err(Missing::Refused(strange())),
        }
    }

    /// How many reads were answered without a leader, and may have been old. Whether one may be
    /// is known when it is answered, not a moment later.
    pub fn stale_reads(&self) -> u64 {
        self.stale_reads.load(Ordering::Relaxed)
    }

    /// Has the leader issue a certificate.
    pub(crate) async fn issue(&self, ask: ManagerAsk) -> Result<IssueReply, Refusal> {
        match self.ask_leader(ask).await {
            Ok(ManagerAnswer::Issue(reply)) => Ok(*reply),
            Ok(_) => Err(strange()),
            Err(missing) => Err(self.refusal(missing)),
        }
    }

    /// Has the leader take a member out that leaves.
    pub async fn leave(&self, caller: Member) -> Result<(), Refusal> {
        match self.ask_leader(ManagerAsk::Leave { caller }).await {
            Ok(_) => Ok(()),
            Err(missing) => Err(self.refusal(missing)),
        }
    }

    fn refusal(&self, missing: Missing) -> Refusal {
        match missing {
            Missing::Refused(refusal) => refusal,
            Missing::NoLeader => self.no_leader(),
        }
    }

    pub(super) async fn ask_leader(&self, ask: ManagerAsk) -> Result<ManagerAnswer, Missing> {
        let begun = Instant::now();
        let repeatable = is_repeatable(&ask);
        let mut places = self.place.subscribe();
        loop {
            let place = places.borrow_and_update().clone();
            let miss = match &place {
                Place::Leading(_) => match self.carry_out(None, ask.clone()).await {
                    ForwardReply::Answer(answer) => return Ok(answer),
                    ForwardReply::Refused(refusal) => return Err(Missing::Refused(refusal)),
                    ForwardReply::NotLeader => Miss::Undone,
                },
                Place::Following(address) => {
                    let answered = tokio::select! {
                        answered = self.forward(*address, &ask) => answered,
                        // One that was cut off says nothing any more, and its connection lives on.
                        () = succeeded(self.place.subscribe(), *address) => {
                            Err(Miss::Unknown("another manager leads now".to_owned()))
                        }
                    };
                    match answered {
                        Ok(ForwardReply::Answer(answer)) => return Ok(answer),
                        Ok(ForwardReply::Refused(refusal)) => {
                            return Err(Missing::Refused(refusal));
                        }
                        Ok(ForwardReply::NotLeader) => Miss::Undone,
                        Err(miss) => miss,
                    }
                }
                Place::Nobody(_) => Miss::Undone,
            };
            if let Miss::Unknown(reason) = miss
                && !repeatable
            {
                return Err(Missing::Refused(Refusal::unavailable(format!(
                    "the leader was lost while this was being done ({reason}), and it is not known whether it was; look whether it took effect before trying again"
                ))));
            }
            let patience = match place {
                Place::Nobody(since) if since + PATIENCE < begun => IMPATIENCE,
                _ => PATIENCE,
            };
            if begun.elapsed() > patience || self.ending.is_cancelled() {
                return Err(Missing::NoLeader);
            }
            // A new place, or another try at the same.
            let _ = tokio::time::timeout(LOOK, places.changed()).await;
        }
    }

    async fn forward(&self, leader: SocketAddr, ask: &ManagerAsk) -> Result<ForwardReply, Miss> {
        let reached = self.lines.reach(leader).await;
        let (connection, number) = reached.map_err(|_| Miss::Undone)?;
        let part = trace::part!("forward to the leader", otel.kind = "client", leader = %leader);
        let asking = connection.forward(ask, VERB_LIMIT + WAY);
        let answered = asking.instrument(part).await;
        answered.map_err(|error| match error {
            ClientError::Refused { .. } => Miss::Undone,
            ClientError::Late { .. } | ClientError::Unreachable { .. } => {
                self.lines.drop_line(leader, number);
                Miss::Unknown(error.to_string())
            }
        })
    }

    /// Carries out what a manager asks, if this one leads. `asker` is the manager at the other
    /// end of the connection; absent when it is this one.
    pub(crate) async fn carry_out(&self, asker: Option<&NodeId>, ask: ManagerAsk) -> ForwardReply {
        if self.term().is_none() {
            return ForwardReply::NotLeader;
        }
        let done = match ask {
            ManagerAsk::Verb { caller, verb } => {
                // Reads never go back: what another leader has promised is seen here.
                if verb.is_read() && self.consensus.barrier().await.is_err() {
                    return ForwardReply::NotLeader;
                }
                let acted = self.act(&caller, *verb).await;
                acted.map(|answer| ManagerAnswer::Verb(Box::new(answer)))
            }
            ManagerAsk::Issue {
                caller,
                request,
                from,
            } => {
                let issued = self.issue_here(caller, &request, from).await;
                issued.map(|reply| ManagerAnswer::Issue(Box::new(reply)))
            }
            ManagerAsk::Leave { caller } => {
                let parted = self.part(caller.node).await;
                parted.map(|()| ManagerAnswer::Done)
            }
            ManagerAsk::Enter {
                raft_id,
                address,
                format,
            } => {
                // This manager is in already; only others ask.
                let entered = match asker {
                    Some(node) => self.admit(node, raft_id, address, format).await,
                    None => Ok(()),
                };
                entered.map(|()| ManagerAnswer::Done)
            }
        };
        match done {
            Ok(answer) => ForwardReply::Answer(answer),
            Err(refusal) => ForwardReply::Refused(refusal),
        }
    }

    /// Why nothing can be decided, and what to do about it.
    pub(crate) fn no_leader(&self) -> Refusal {
        let roster = self.roster();
        if roster.voters.is_empty() {
            return Refusal::unavailable(
                "this manager has not been let in by the other managers yet; `ovnctl info` says what it waits for",
            );
        }
        if let Some(reason) = self.consensus.stopped() {
            return Refusal::unavailable(format!(
                "this manager has stopped: {reason}; look at its disk, then start ovnd again"
            ));
        }
        let view = self.store.view();
        let name = |node: &NodeId| {
            view.node(node)
                .map_or_else(|| node.to_string(), |n| n.description.hostname.clone())
        };
        let mut missing: Vec<String> = roster
            .voters
            .iter()
            .filter(|voter| voter.votes && !voter.reachable)
            .map(|voter| name(&voter.peer.node))
            .collect();
        missing.sort();
        if missing.is_empty() {
            return Refusal::unavailable(
                "The swarm does not have a leader: the managers are electing one; nothing was done, try again in a moment",
            );
        }
        Refusal::unavailable(format!(
            "The swarm does not have a leader: {} of {} managers can be reached from this one and {} are needed (missing: {}), so nothing can be changed; what runs keeps running. It goes on by itself once enough managers are back. If they are lost for ever, `ovnctl swarm init --force-new-cluster` on this host goes on with this manager alone",
            roster.reachable(),
            roster.voting(),
            roster.needed(),
            missing.join(", ")
        ))
    }
}

/// Returns when another than this leader leads, and has for a moment: an answer may be on its way.
async fn succeeded(mut places: watch::Receiver<Place>, leader: SocketAddr) {
    let other = |place: &Place| match place {
        Place::Leading(_) => true,
        Place::Following(address) => *address != leader,
        Place::Nobody(_) => false,
    };
    if places.wait_for(other).await.is_ok() {
        tokio::time::sleep(LOOK).await;
    } else {
        // This manager ends; so does the call.
        std::future::pending::<()>().await;
    }
}

/// Why there is no answer.
pub(super) enum Missing {
    Refused(Refusal),
    NoLeader,
}

fn is_repeatable(ask: &ManagerAsk) -> bool {
    match ask {
        ManagerAsk::Verb { verb, .. } => {
            verb.is_read()
                // Saying these twice says nothing more.
                || matches!(
                    **verb,
                    Verb::TaskReport { .. }
                        | Verb::PathReport(_)
                        | Verb::Attach(_)
                        | Verb::Detach { .. }
                        | Verb::EndpointAdvance { .. }
                        | Verb::EndpointName { .. }
                )
        }
        ManagerAsk::Issue { caller, .. } => caller.is_some(),
        ManagerAsk::Leave { .. } | ManagerAsk::Enter { .. } => true,
    }
}

fn strange() -> Refusal {
    Refusal::internal(
        "the leader answered something else than was asked; is it of the same version?",
    )
}
