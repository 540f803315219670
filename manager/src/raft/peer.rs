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

use super::{TypeConfig, pulse::Pulse};

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
}

#[derive(Debug, Serialize, Deserialize)]
pub enum RaftAsk {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<u64>),
    Snapshot(InstallSnapshotRequest<TypeConfig>),
    /// Whether the answerer would vote for one whose log ends there; changes nothing.
    WouldVote(Option<LogId<u64>>),
}

#[derive(Debug, Serialize, Deserialize)]
pub enum RaftSaid {
    Append(AppendEntriesResponse<u64>),
    Vote(VoteResponse<u64>),
    Snapshot(Result<InstallSnapshotResponse<u64>, InstallSnapshotError>),
    WouldVote(bool),
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
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Way;

    async fn new_client(&mut self, target: u64, peer: &Peer) -> Way {
        Way {
            pulse: std::sync::Arc::clone(&self.0),
            target,
            peer: peer.clone(),
        }
    }
}

type Failed<E = openraft::error::Infallible> = RPCError<u64, Peer, RaftError<u64, E>>;

fn failed<E: std::error::Error>(error: &CarryError) -> Failed<E> {
    match error {
        CarryError::Unreachable(_) => RPCError::Unreachable(Unreachable::new(error)),
        CarryError::Late(_) | CarryError::Refused(_) => RPCError::Network(NetworkError::new(error)),
    }
}

fn strange<E: std::error::Error>(said: &RaftSaid) -> Failed<E> {
    let error = CarryError::Refused(format!("an answer to another question came: {said:?}"));
    RPCError::Network(NetworkError::new(&error))
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
        let limit = option.hard_ttl();
        let ask = RaftAsk::Append(request);
        match self.pulse.ask(self.target, &self.peer, ask, limit).await {
            Ok(RaftSaid::Append(answer)) => self
                .pulse
                .check_disk(self.target, &self.peer, &answer, before, last)
                .map(|()| answer)
                .map_err(|error| failed(&error)),
            Ok(other) => Err(strange(&other)),
            Err(error) => Err(failed(&error)),
        }
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Failed<InstallSnapshotError>> {
        let (ask, limit) = (RaftAsk::Snapshot(request), option.hard_ttl());
        match self.pulse.ask(self.target, &self.peer, ask, limit).await {
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
        match self.pulse.ask(self.target, &self.peer, ask, limit).await {
            Ok(RaftSaid::Vote(answer)) => Ok(answer),
            Ok(other) => Err(strange(&other)),
            Err(error) => Err(failed(&error)),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}
