//! Raft's way to other managers. There is one manager so far, hence nobody to reach.

use openraft::{
    BasicNode,
    error::{InstallSnapshotError, RPCError, RaftError, Unreachable},
    network::{RPCOption, RaftNetwork, RaftNetworkFactory},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest,
        InstallSnapshotResponse, VoteRequest, VoteResponse,
    },
};

use super::TypeConfig;

/// Answers for every peer that it cannot be reached, which Raft treats as any other silence.
pub struct NoPeers;

/// A peer that is not there.
pub struct Nobody;

#[derive(Debug, thiserror::Error)]
#[error("this cluster has one manager")]
struct OneManager;

impl RaftNetworkFactory<TypeConfig> for NoPeers {
    type Network = Nobody;

    async fn new_client(&mut self, _target: u64, _node: &BasicNode) -> Nobody {
        Nobody
    }
}

type Failed<E = openraft::error::Infallible> = RPCError<u64, BasicNode, RaftError<u64, E>>;

impl RaftNetwork<TypeConfig> for Nobody {
    async fn append_entries(
        &mut self,
        _request: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failed> {
        Err(RPCError::Unreachable(Unreachable::new(&OneManager)))
    }

    async fn install_snapshot(
        &mut self,
        _request: InstallSnapshotRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Failed<InstallSnapshotError>> {
        Err(RPCError::Unreachable(Unreachable::new(&OneManager)))
    }

    async fn vote(
        &mut self,
        _request: VoteRequest<u64>,
        _option: RPCOption,
    ) -> Result<VoteResponse<u64>, Failed> {
        Err(RPCError::Unreachable(Unreachable::new(&OneManager)))
    }
}
