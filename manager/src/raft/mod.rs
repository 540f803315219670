//! Consensus: openraft over an encrypted log in redb, hidden behind [`Consensus`].
//!
//! A single manager is a Raft of one voter, with the same log and the same durability as
//! several: an entry is acknowledged after its fsync, on a majority.

mod alone;
mod answer;
mod disk;
mod election;
mod examine;
mod keys;
mod log;
mod machine;
mod members;
mod peer;
mod positions;
mod pulse;
mod roster;
mod seal;

use std::{
    collections::BTreeMap, future::Future, io::Cursor, path::Path, pin::Pin, sync::Arc,
    time::Duration,
};

use openraft::{
    Raft, ServerState, SnapshotPolicy,
    error::{ClientWriteError, RaftError},
    storage::RaftLogStorage as _,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

#[cfg(test)]
pub(crate) use self::alone::replay;
pub(crate) use self::seal::DataKey;
pub use self::{
    alone::{from_state, go_alone},
    disk::{Disk, DiskError},
    examine::examine,
    log::LogStore,
    machine::Machine,
    peer::{Carrier, CarryError, Peer, RaftAsk, RaftCall, RaftSaid},
    roster::{Roster, Voter},
    seal::{SealError, WrappingKey},
};
use self::{
    election::{HEARTBEAT, LEASE},
    pulse::Pulse,
};
use crate::store::{Proposal, ProposeError, Proposer, Store};

openraft::declare_raft_types!(
    /// What openraft carries for us.
    pub TypeConfig:
        D = Proposal,
        R = Applied,
        NodeId = u64,
        Node = Peer,
);

/// The state machine's answer to an entry; everything else is read from the store.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Applied {
    pub index: u64,
    /// The entry was decided on a state that another leader has changed since, and did nothing.
    #[serde(default)]
    pub overtaken: bool,
}

/// Entries after which a snapshot is taken and the log cut, unless the cluster says otherwise.
const SNAPSHOT_EVERY: u64 = 10_000;
/// Entries kept behind a snapshot for managers that are a little late.
const KEEP_BEHIND_SNAPSHOT: u64 = 500;
/// Bytes of a snapshot that travel in one message.
const SNAPSHOT_CHUNK: u64 = 1 << 20;
/// How long a message with entries may take, the other's fsync included.
const APPEND_LIMIT: Duration = Duration::from_millis(500);
/// How long a part of a snapshot may take; the last one includes its fsync.
const CHUNK_LIMIT: Duration = Duration::from_secs(20);
/// A leader that no majority has answered for so long does not count as one any more.
const ABDICATE: Duration = Duration::from_secs(2);
/// How long a sole manager waits at its start until it leads; it elects itself at once.
const LEAD_WITHIN: Duration = Duration::from_secs(10);

/// Why consensus could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ConsensusError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("consensus could not be started: {0}")]
    Start(String),
    /// A membership was not changed, or may not have been.
    #[error("the managers could not be changed: {0}")]
    Members(String),
}

/// Who leads, as one manager sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lead {
    pub term: u64,
    /// This manager leads, and a majority follows.
    pub leading: bool,
    /// The other that leads.
    pub leader: Option<Peer>,
}

/// This manager's part in consensus; also the store's [`Proposer`].
pub struct Consensus {
    raft: Raft<TypeConfig>,
    disk: Disk,
    log: LogStore,
    pulse: Arc<Pulse>,
    lead: watch::Receiver<Lead>,
    /// Membership changes, one at a time.
    turn: tokio::sync::Mutex<()>,
    stop: CancellationToken,
    _stop: DropGuard,
}

impl Consensus {
    /// Makes the log of a new cluster whose only voter is this manager.
    pub async fn create(
        path: &Path,
        key: &WrappingKey,
        store: Store,
        carrier: Arc<dyn Carrier>,
        own: Peer,
    ) -> Result<Self, ConsensusError> {
        let consensus = Self::join(path, key, store, carrier).await?;
        let voters = BTreeMap::from([(consensus.disk.raft_id(), own)]);
        let initialized = consensus.raft.initialize(voters).await;
        initialized.map_err(|error| ConsensusError::Start(error.to_string()))?;
        consensus.await_lead().await?;
        Ok(consensus)
    }

    /// Makes an empty log, to be filled by the leader once it has let this manager in.
    pub async fn join(
        path: &Path,
        key: &WrappingKey,
        store: Store,
        carrier: Arc<dyn Carrier>,
    ) -> Result<Self, ConsensusError> {
        let raft_id = u64::from(rand::random::<u32>()).max(1);
        let disk = Disk::create(path, key, raft_id).await?;
        Self::start(disk, store, carrier).await
    }

    /// Opens the log. A sole voter leads when this returns, and has applied all of it.
    pub async fn open(
        path: &Path,
        key: &WrappingKey,
        store: Store,
        carrier: Arc<dyn Carrier>,
    ) -> Result<Self, ConsensusError> {
        let disk = Disk::open(path, key).await?;
        let consensus = Self::start(disk, store, carrier).await?;
        let roster = consensus.roster();
        if roster.voting() == 1 && consensus.is_voter() {
            let elect = consensus.raft.trigger().elect().await;
            elect.map_err(|error| ConsensusError::Start(error.to_string()))?;
            consensus.await_lead().await?;
        }
        Ok(consensus)
    }

    async fn start(
        disk: Disk,
        store: Store,
        carrier: Arc<dyn Carrier>,
    ) -> Result<Self, ConsensusError> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let config = openraft::Config {
            cluster_name: "overnet".to_owned(),
            // The limit of an append at the same time; see `election`.
            heartbeat_interval: millis(APPEND_LIMIT),
            election_timeout_min: millis(APPEND_LIMIT) + 1,
            election_timeout_max: millis(LEASE.max(APPEND_LIMIT)) + 2,
            enable_elect: false,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY),
            max_in_snapshot_log_to_keep: KEEP_BEHIND_SNAPSHOT,
            snapshot_max_chunk_size: SNAPSHOT_CHUNK,
            install_snapshot_timeout: millis(CHUNK_LIMIT),
            ..openraft::Config::default()
        };
        let config = config
            .validate()
            .map_err(|error| ConsensusError::Start(error.to_string()))?;
        let machine = Machine::load(disk.clone(), store.clone())?;
        let log = LogStore::new(disk.clone());
        let positions = positions::read(&disk)?;
        let pulse = Pulse::new(disk.raft_id(), carrier, positions, store);
        let pulse = Arc::new(pulse);
        let network = peer::Network(Arc::clone(&pulse));
        let (id, config) = (disk.raft_id(), Arc::new(config));
        let raft = Raft::new(id, config, network, log.clone(), machine)
            .await
            .map_err(|error| ConsensusError::Start(error.to_string()))?;
        pulse.opened(raft.data_metrics());
        // What is on disk is known before anybody asks.
        let on_disk = log.clone().get_log_state().await;
        let on_disk = on_disk.map_err(|error| ConsensusError::Start(error.to_string()))?;
        if on_disk.last_log_id.is_some() {
            let waiting = raft.wait(Some(LEAD_WITHIN));
            let known = |state: &openraft::RaftMetrics<u64, Peer>| {
                state.membership_config.nodes().next().is_some()
            };
            waiting
                .metrics(known, "the managers on disk")
                .await
                .map_err(|error| ConsensusError::Start(error.to_string()))?;
        }
        let stop = CancellationToken::new();
        let (tell, lead) = watch::channel(Lead::default());
        let tending = election::tend(raft.clone(), Arc::clone(&pulse), log.clone(), stop.clone());
        tokio::spawn(tending);
        let keeping = positions::keep(Arc::clone(&pulse), disk.clone(), stop.clone());
        tokio::spawn(keeping);
        let watching = watch_lead(raft.clone(), Arc::clone(&pulse), tell);
        tokio::spawn(stop.clone().run_until_cancelled_owned(watching));
        Ok(Self {
            raft,
            disk,
            log,
            pulse,
            lead,
            turn: tokio::sync::Mutex::default(),
            _stop: stop.clone().drop_guard(),
            stop,
        })
    }

    async fn await_lead(&self) -> Result<(), ConsensusError> {
        let mut lead = self.lead.clone();
        let leading = async { lead.wait_for(|lead| lead.leading).await.is_ok() };
        if tokio::time::timeout(LEAD_WITHIN, leading).await == Ok(true) {
            return self.barrier().await;
        }
        Err(ConsensusError::Start(format!(
            "no leader within {} s",
            LEAD_WITHIN.as_secs()
        )))
    }

    /// Returns once everything that was committed before this call is applied here; fails
    /// unless this manager leads at this moment.
    pub async fn barrier(&self) -> Result<(), ConsensusError> {
        let passed = tokio::time::timeout(ABDICATE, self.raft.ensure_linearizable()).await;
        let no_leader =
            |error: &dyn std::fmt::Display| ConsensusError::Start(format!("no leader: {error}"));
        match passed {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(no_leader(&error)),
            Err(late) => Err(no_leader(&late)),
        }
    }

    /// Who leads, now and from now on.
    pub fn lead(&self) -> watch::Receiver<Lead> {
        self.lead.clone()
    }

    /// This manager's number among the voters.
    pub fn raft_id(&self) -> u64 {
        self.disk.raft_id()
    }

    /// Makes the log readable under another key as well; the old one works until
    /// [`Self::rotate`].
    pub async fn add_key(&self, key: &WrappingKey) -> Result<(), DiskError> {
        self.disk.add_key(key).await
    }

    /// From now on the log opens under this key only, and has another data key.
    pub async fn rotate(&self, key: &WrappingKey) -> Result<(), DiskError> {
        self.disk.rotate(key).await
    }

    /// Takes a snapshot now, without waiting for it.
    pub async fn snapshot(&self) -> Result<(), ConsensusError> {
        let taken = self.raft.trigger().snapshot().await;
        taken.map_err(|error| ConsensusError::Start(error.to_string()))
    }

    /// Stops; the log is complete on disk at any moment anyway.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!("consensus did not stop cleanly: {error}");
        }
        self.disk.close();
    }
}

/// Tells who leads, whenever that changes.
async fn watch_lead(raft: Raft<TypeConfig>, pulse: Arc<Pulse>, tell: watch::Sender<Lead>) {
    let mut metrics = raft.metrics();
    loop {
        let lead = {
            let state = metrics.borrow_and_update();
            let membership = state.membership_config.membership();
            if let (Some(matching), Some(applied)) = (&state.replication, state.last_applied) {
                let known = positions::committed(state.id, matching, applied);
                let managers = membership.nodes().map(|(id, _)| *id).collect();
                pulse.learn(&known, &managers);
            }
            let sole = membership.voter_ids().count() == 1;
            let acked = state.millis_since_quorum_ack.map(Duration::from_millis);
            let counts = pulse.outlived().is_none();
            let leading = counts
                && state.state == ServerState::Leader
                && (sole || acked.is_some_and(|since| since < ABDICATE));
            let other = state.current_leader.filter(|id| *id != state.id);
            let heard = counts && pulse.silence() < ABDICATE;
            Lead {
                term: state.current_term,
                leading,
                leader: other
                    .filter(|_| heard)
                    .and_then(|id| membership.get_node(&id).cloned()),
            }
        };
        tell.send_if_modified(|told| {
            let news = *told != lead;
            *told = lead;
            news
        });
        // Silence makes no event.
        match tokio::time::timeout(HEARTBEAT, metrics.changed()).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(_)) => return,
        }
    }
}

impl Proposer for Consensus {
    fn propose(
        &self,
        proposal: Proposal,
    ) -> Pin<Box<dyn Future<Output = Result<(), ProposeError>> + Send + '_>> {
        Box::pin(async move {
            let mut lead = self.lead.clone();
            let term = {
                let now = lead.borrow_and_update();
                if !now.leading {
                    return Err(ProposeError::NotLeader);
                }
                now.term
            };
            let lost = lead.wait_for(|lead| !lead.leading || lead.term != term);
            let written = tokio::select! {
                written = self.raft.client_write(proposal) => written,
                _ = lost => return Err(ProposeError::Unknown),
            };
            match written {
                Ok(response) if response.data.overtaken => Err(ProposeError::Overtaken),
                Ok(_) => Ok(()),
                // Not taken, or cut off again by another leader: either way it was not done.
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => {
                    Err(ProposeError::NotLeader)
                }
                Err(error) => Err(ProposeError::Fatal(error.to_string())),
            }
        })
    }
}

#[cfg(test)]
mod tests;
