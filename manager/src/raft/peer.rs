//! What managers say to each other for consensus, and who carries it.

use std::{net::SocketAddr, time::Duration};

use futures_util::future::BoxFuture;
use model::NodeId;
use openraft::{
    LogId,
    error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable},
    network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest,
        InstallSnapshotResponse, VoteRequest, VoteResponse,
    },
};
use serde::{Deserialize, Serialize};

use super::{TypeConfig, positions::Positions, pulse::Pulse};

/// Pause before somebody who cannot be reached is tried again.
const BACKOFF: Duration = Duration::from_millis(200);

/// A manager as Raft's membership names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    #[serde(default)]
    pub node: NodeId,
    /// Where its port is; absent in the log of a manager that never had company.
    #[serde(default)]
    pub address: Option<SocketAddr>,
}

/// One call from one voter, or learner, to another.
#[derive(Debug, Serialize, Deserialize)]
pub struct RaftCall {
    pub from: u64,
    /// Whose log is meant: a manager that has joined anew has another one.
    pub to: u64,
    pub ask: RaftAsk,
    /// Where the caller's own log ends.
    #[serde(default)]
    pub last: Option<LogId<u64>>,
    /// Which opening of the other's log is meant: nothing is added to one that was not looked at.
    #[serde(default)]
    pub opening: Option<u64>,
    /// What the caller knows of the managers' logs.
    #[serde(default)]
    pub positions: Positions,
    /// The epoch of the caller's state; 0 where it has none yet, or does not say.
    #[serde(default)]
    pub epoch: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum RaftAsk {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<u64>),
    Snapshot(InstallSnapshotRequest<TypeConfig>),
    /// Whether the answerer would vote for one whose log ends there; changes nothing.
    WouldVote(Option<LogId<u64>>),
    /// Where the answerer's log ends.
    Position,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum RaftSaid {
    Append(AppendEntriesResponse<u64>),
    Vote(VoteResponse<u64>),
    Snapshot(Result<InstallSnapshotResponse<u64>, InstallSnapshotError>),
    WouldVote(bool),
    Position {
        opening: u64,
        last: Option<LogId<u64>>,
    },
    /// The cluster was begun anew since the caller's state, from that of one manager or from an
    /// archive: what the caller decides counts no longer.
    Outlived {
        epoch: u64,
    },
}

/// Why a call did not get through.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CarryError {
    #[error("{0}")]
    Unreachable(String),
    #[error("{0}")]
    Late(String),
    /// It answered, and refused.
    #[error("{0}")]
    Refused(String),
}

/// The way to other managers.
pub trait Carrier: Send + Sync + 'static {
    fn carry<'a>(
        &'a self,
        peer: &'a Peer,
        call: RaftCall,
        limit: Duration,
    ) -> BoxFuture<'a, Result<RaftSaid, CarryError>>;
}

/// openraft's network on a [`Carrier`].
pub(super) struct Network(pub(super) std::sync::Arc<Pulse>);

/// openraft's way to one peer.
pub(super) struct Way {
    pulse: std::sync::Arc<Pulse>,
    target: u64,
    peer: Peer,
    /// The opening of the other's log that was looked at.
    opening: Option<u64>,
    /// What the other has been told of the managers' logs.
    told: Positions,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Way;

    async fn new_client(&mut self, target: u64, peer: &Peer) -> Way {
        Way {
            pulse: std::sync::Arc::clone(&self.0),
            target,
            peer: peer.clone(),
            opening: None,
            told: Positions::new(),
        }
    }
}

impl Way {
    /// Sends what a leader of that term has to say, to a log that is not an old copy.
    async fn lead(
        &mut self,
        term: u64,
        ask: RaftAsk,
        limit: Duration,
    ) -> Result<RaftSaid, CarryError> {
        self.pulse.leads_in(term);
        if self.opening.is_none() {
            self.look(limit).await?;
        }
        let mut call = self.pulse.call(self.target, ask);
        call.opening = self.opening;
        let positions = self.pulse.positions();
        if positions != self.told {
            call.positions.clone_from(&positions);
        }
        let said = self.pulse.carry(&self.peer, call, limit).await;
        match said {
            Ok(_) => self.told = positions,
            // It may be another opening that answers next.
            Err(_) => self.opening = None,
        }
        said
    }

    async fn look(&mut self, limit: Duration) -> Result<(), CarryError> {
        // Before it is asked: what it comes to have meanwhile it need not have now.
        let known = self.pulse.known(self.target);
        let asked = self.pulse.call(self.target, RaftAsk::Position);
        match self.pulse.carry(&self.peer, asked, limit).await {
            Ok(RaftSaid::Position { opening, last }) => {
                self.pulse.judge(self.target, &self.peer, known, last)?;
                self.opening = Some(opening);
                Ok(())
            }
            Ok(other) => Err(strange_answer(&other)),
            // One of an earlier version does not know the question; whatever else it has against this
            // manager it says again.
            Err(CarryError::Refused(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

type Failed<E = openraft::error::Infallible> = RPCError<u64, Peer, RaftError<u64, E>>;

fn failed<E: std::error::Error>(error: &CarryError) -> Failed<E> {
    match error {
        // Who has refused will for a while: without a pause the next try follows at once.
        CarryError::Unreachable(_) | CarryError::Refused(_) => {
            RPCError::Unreachable(Unreachable::new(error))
        }
        CarryError::Late(_) => RPCError::Network(NetworkError::new(error)),
    }
}

fn strange_answer(said: &RaftSaid) -> CarryError {
    CarryError::Refused(format!("an answer to another question came: {said:?}"))
}

fn strange<E: std::error::Error>(said: &RaftSaid) -> Failed<E> {
    failed(&strange_answer(said))
}

impl RaftNetwork<TypeConfig> for Way {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failed> {
        let before = request.prev_log_id;
        let last = request
            .entries
            .last()
            .map_or(before, |entry| Some(entry.log_id));
        let (term, limit) = (request.vote.leader_id().term, option.hard_ttl());
        match self.lead(term, RaftAsk::Append(request), limit).await {
            Ok(RaftSaid::Append(answer)) => {
                let has = match &answer {
                    AppendEntriesResponse::Success => last,
                    AppendEntriesResponse::PartialSuccess(matching) => *matching,
                    AppendEntriesResponse::HigherVote(_) | AppendEntriesResponse::Conflict => None,
                };
                self.pulse.acknowledged(term, self.target, has);
                Ok(answer)
            }
            Ok(other) => Err(strange(&other)),
            Err(error) => Err(failed(&error)),
        }
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Failed<InstallSnapshotError>> {
        let (term, limit) = (request.vote.leader_id().term, option.hard_ttl());
        match self.lead(term, RaftAsk::Snapshot(request), limit).await {
            Ok(RaftSaid::Snapshot(Ok(answer))) => Ok(answer),
            Ok(RaftSaid::Snapshot(Err(error))) => Err(RPCError::RemoteError(RemoteError::new(
                self.target,
                RaftError::APIError(error),
            ))),
            Ok(other) => Err(strange(&other)),
            Err(error) => Err(failed(&error)),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, Failed> {
        let (ask, limit) = (RaftAsk::Vote(request), option.hard_ttl());
        let known = self.pulse.known(self.target);
        match self.pulse.ask(self.target, &self.peer, ask, limit).await {
            // A vote that an old copy gives may be its second one, and it does not know what it has lost.
            Ok(RaftSaid::Vote(answer)) => self
                .pulse
                .judge(self.target, &self.peer, known, answer.last_log_id)
                .map(|()| answer)
                .map_err(|error| failed(&error)),
            Ok(other) => Err(strange(&other)),
            Err(error) => Err(failed(&error)),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}
