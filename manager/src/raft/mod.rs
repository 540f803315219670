//! Consensus: openraft over an encrypted log in redb, hidden behind [`Consensus`].
//!
//! A single manager is a Raft of one voter, with the same log and the same durability as
//! several: an entry is acknowledged after its fsync.

mod disk;
mod log;
mod machine;
mod peers;
mod seal;

use std::{
    collections::BTreeMap, future::Future, io::Cursor, path::Path, pin::Pin, sync::Arc,
    time::Duration,
};

use openraft::{
    BasicNode, Raft, SnapshotPolicy,
    error::{ClientWriteError, RaftError},
};
use serde::{Deserialize, Serialize};

pub use disk::{Disk, DiskError};
pub use log::LogStore;
pub use machine::Machine;
pub use seal::{SealError, WrappingKey};

use crate::store::{Proposal, ProposeError, Proposer, Store};

openraft::declare_raft_types!(
    /// What openraft carries for us.
    pub TypeConfig:
        D = Proposal,
        R = Applied,
        NodeId = u64,
        Node = BasicNode,
);

/// The state machine's answer to an entry; everything else is read from the store.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Applied {
    pub index: u64,
}

/// Entries after which a snapshot is taken and the log cut, unless the cluster says otherwise.
const SNAPSHOT_EVERY: u64 = 10_000;
/// Entries kept behind a snapshot for managers that are a little late.
const KEEP_BEHIND_SNAPSHOT: u64 = 500;
/// Milliseconds; the election timeout is drawn between four and eight heartbeats.
const HEARTBEAT_MS: u64 = 250;
/// How long a manager waits at its start until it leads; a Raft of one elects itself at once.
const LEAD_WITHIN: Duration = Duration::from_secs(10);

/// Why consensus could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ConsensusError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("consensus could not be started: {0}")]
    Start(String),
}

/// This manager's part in consensus; also the store's [`Proposer`].
pub struct Consensus {
    raft: Raft<TypeConfig>,
    disk: Disk,
}

impl Consensus {
    /// Makes the log of a new cluster whose only voter is this manager.
    pub async fn create(
        path: &Path,
        key: &WrappingKey,
        store: Store,
    ) -> Result<Self, ConsensusError> {
        let raft_id = u64::from(rand::random::<u32>()).max(1);
        let disk = Disk::create(path, key, raft_id).await?;
        let consensus = Self::start(disk, store).await?;
        let voters = BTreeMap::from([(raft_id, BasicNode::default())]);
        let initialized = consensus.raft.initialize(voters).await;
        initialized.map_err(|error| ConsensusError::Start(error.to_string()))?;
        consensus.lead().await?;
        Ok(consensus)
    }

    /// Opens the log and returns once this manager leads and has applied all of it.
    pub async fn open(
        path: &Path,
        key: &WrappingKey,
        store: Store,
    ) -> Result<Self, ConsensusError> {
        let disk = Disk::open(path, key).await?;
        let consensus = Self::start(disk, store).await?;
        let elect = consensus.raft.trigger().elect().await;
        elect.map_err(|error| ConsensusError::Start(error.to_string()))?;
        consensus.lead().await?;
        Ok(consensus)
    }

    async fn start(disk: Disk, store: Store) -> Result<Self, ConsensusError> {
        let config = openraft::Config {
            cluster_name: "overnet".to_owned(),
            heartbeat_interval: HEARTBEAT_MS,
            election_timeout_min: 4 * HEARTBEAT_MS,
            election_timeout_max: 8 * HEARTBEAT_MS,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY),
            max_in_snapshot_log_to_keep: KEEP_BEHIND_SNAPSHOT,
            ..openraft::Config::default()
        };
        let config = config
            .validate()
            .map_err(|error| ConsensusError::Start(error.to_string()))?;
        let machine = Machine::load(disk.clone(), store)?;
        let log = LogStore::new(disk.clone());
        let raft = Raft::new(
            disk.raft_id(),
            Arc::new(config),
            peers::NoPeers,
            log,
            machine,
        )
        .await
        .map_err(|error| ConsensusError::Start(error.to_string()))?;
        Ok(Self { raft, disk })
    }

    async fn lead(&self) -> Result<(), ConsensusError> {
        let own = self.disk.raft_id();
        let failed = |error: String| ConsensusError::Start(format!("no leader: {error}"));
        self.raft
            .wait(Some(LEAD_WITHIN))
            .metrics(|state| state.current_leader == Some(own), "to lead")
            .await
            .map_err(|error| failed(error.to_string()))?;
        // Also waits until everything that was committed before is applied.
        self.raft
            .ensure_linearizable()
            .await
            .map_err(|error| failed(error.to_string()))?;
        Ok(())
    }

    /// Makes the log readable under another node key as well; the old one works until
    /// [`Self::drop_other_keys`].
    pub async fn add_key(&self, key: &WrappingKey) -> Result<(), DiskError> {
        self.disk.add_key(key).await
    }

    /// From now on the log opens under this node key only.
    pub async fn drop_other_keys(&self, key: &WrappingKey) -> Result<(), DiskError> {
        self.disk.drop_other_keys(key).await
    }

    /// Takes a snapshot now, without waiting for it.
    pub async fn snapshot(&self) -> Result<(), ConsensusError> {
        let taken = self.raft.trigger().snapshot().await;
        taken.map_err(|error| ConsensusError::Start(error.to_string()))
    }

    /// Stops; the log is complete on disk at any moment anyway.
    pub async fn shutdown(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!("consensus did not stop cleanly: {error}");
        }
        self.disk.close();
    }
}

impl Proposer for Consensus {
    fn propose(
        &self,
        proposal: Proposal,
    ) -> Pin<Box<dyn Future<Output = Result<(), ProposeError>> + Send + '_>> {
        Box::pin(async move {
            match self.raft.client_write(proposal).await {
                Ok(_) => Ok(()),
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                    Err(ProposeError::NotLeader(forward.to_string()))
                }
                Err(error) => Err(ProposeError::Fatal(error.to_string())),
            }
        })
    }
}

#[cfg(test)]
mod tests;
