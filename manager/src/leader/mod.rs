//! A manager: store, consensus, sessions and the port that members speak to.

mod create;
mod events;
mod forward;
pub(crate) mod liveness;
pub(crate) mod loops;
mod managers;
mod network_keys;
mod restore;
mod roles;
mod rosters;
mod rotation;
mod sealing;
mod term;
mod verbs;
mod work;

pub(crate) use network_keys::begin as begin_rotation;

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use ipnetwork::IpNetwork;
use model::{
    Cluster, ClusterSpec, NodeId, Refusal,
    control::ClusterEvent,
    node::{Availability, NodeDescription},
};
use tokio::{
    net::TcpListener,
    sync::{broadcast, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

pub use self::restore::{Founder, Restored};

use crate::{
    ca::Identity,
    dispatcher::{PathDesk, Post, Sessions},
    lines::Lines,
    raft::{self, Carrier, Consensus, Peer, Roster, WrappingKey},
    server::{self, Desk, LogDesk},
    store::{Proposer, Store, StoreWriter},
    tls::LiveIdentity,
    unlock::{self, UnlockKey},
};

/// File of the log in a manager's folder.
const LOG: &str = "raft.redb";
/// Events that a slow listener may be behind.
const EVENT_DEPTH: usize = 1024;
/// How long a sole manager may take to lead.
const LEAD_WITHIN: Duration = Duration::from_secs(15);
/// How long the port's calls may go on once the manager ends.
const GRACE: Duration = Duration::from_secs(3);

/// What a new cluster is made from.
pub struct NewCluster {
    /// Of the first manager, with host name and addresses.
    pub description: NodeDescription,
    pub spec: ClusterSpec,
    /// Empty: 10.0.0.0/8.
    pub address_pools: Vec<IpNetwork>,
    pub subnet_size: u8,
    pub ingress_size: u8,
    pub data_path_port: u16,
    pub availability: Availability,
    pub listen: SocketAddr,
    /// Port 0: the bound one.
    pub advertise: SocketAddr,
}

/// How a manager that is no cluster's first takes up its work.
pub struct Start {
    pub identity: Arc<LiveIdentity>,
    /// What the private key is sealed under on disk.
    pub unlock_key: Option<UnlockKey>,
    pub listen: SocketAddr,
    /// What the others are told; port 0: the bound one.
    pub advertise: SocketAddr,
    /// Managers that may let it in.
    pub remotes: Vec<SocketAddr>,
}

/// Where a manager stands among the managers.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// It leads, and its loops run, until the token is cancelled.
    Leading(CancellationToken),
    /// The leader's address.
    Following(SocketAddr),
    /// Nobody leads, since then.
    Nobody(Instant),
}

/// One manager of a cluster.
pub struct Manager {
    store: Store,
    consensus: Arc<Consensus>,
    lines: Arc<Lines>,
    sessions: Arc<Sessions>,
    post: Arc<Post>,
    log_desk: LogDesk,
    desk: Desk,
    path_desk: PathDesk,
    identity: Arc<LiveIdentity>,
    listen: SocketAddr,
    advertise: SocketAddr,
    events: broadcast::Sender<ClusterEvent>,
    place: watch::Sender<Place>,
    stale_reads: AtomicU64,
    ending: CancellationToken,
    tasks: Mutex<JoinSet<()>>,
}

/// What [`Manager::assemble`] puts together.
struct Parts {
    store: Store,
    writer: StoreWriter,
    consensus: Consensus,
    lines: Arc<Lines>,
    identity: Arc<LiveIdentity>,
}

impl Manager {
    /// Makes a cluster of this one manager. The caller keeps the identity.
    pub async fn create(folder: &Path, new: NewCluster) -> Result<(Arc<Self>, Identity), Refusal> {
        create::create(folder, new).await
    }

    /// Goes on with what lies in the folder; without a log there it asks the cluster for one.
    /// Returns once this manager has a vote.
    pub async fn start(folder: &Path, start: Start) -> Result<Arc<Self>, Refusal> {
        let listener = bind(start.listen).await?;
        let internal = |error: &dyn std::fmt::Display| Refusal::internal(error.to_string());
        let key = wrapping_key(&start.identity, start.unlock_key.as_ref());
        let (store, writer) = Store::new();
        let lines = Arc::new(Lines::new(Arc::clone(&start.identity)));
        let carrier = Arc::clone(&lines) as Arc<dyn Carrier>;
        let path = folder.join(LOG);
        let consensus = if path.exists() {
            Consensus::open(&path, &key, store.clone(), carrier).await
        } else {
            std::fs::create_dir_all(folder).map_err(|error| internal(&error))?;
            Consensus::join(&path, &key, store.clone(), carrier).await
        };
        let parts = Parts {
            store,
            writer,
            consensus: consensus.map_err(|error| internal(&error))?,
            lines,
            identity: start.identity,
        };
        let manager = Self::assemble(parts, &listener, start.advertise)?;
        manager.run(listener);
        let settled = if manager.consensus.is_voter() {
            manager.announce(start.remotes);
            manager.settle().await
        } else {
            manager.enter(&start.remotes).await
        };
        if let Err(refusal) = settled {
            manager.shutdown().await;
            return Err(refusal);
        }
        Ok(manager)
    }

    /// Makes the state in the folder that of a cluster with this one manager, in a new epoch;
    /// nothing may have it open.
    pub async fn go_alone(
        folder: &Path,
        identity: &LiveIdentity,
        unlock_key: Option<&UnlockKey>,
        advertise: SocketAddr,
    ) -> Result<(), Refusal> {
        let key = wrapping_key(identity, unlock_key);
        let identity = identity.current();
        let own = Peer {
            node: identity.member().node.clone(),
            address: Some(advertise),
        };
        let path = folder.join(LOG);
        let begun = Instant::now();
        // The last handle of a file goes when the tasks of the one that ran have ended.
        loop {
            match raft::go_alone(&path, &key, own.clone()).await {
                Ok(()) => return Ok(()),
                Err(error) if begun.elapsed() > GRACE => {
                    return Err(Refusal::internal(error.to_string()));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// What is damaged of the state in the folder, which nobody may have open; see
    /// [`raft::examine`].
    pub async fn examine(
        folder: &Path,
        identity: &LiveIdentity,
        unlock_key: Option<&UnlockKey>,
    ) -> Option<String> {
        raft::examine(&folder.join(LOG), wrapping_key(identity, unlock_key)).await
    }

    /// Returns why this manager's consensus has stopped, when it has: it can only be started anew.
    pub async fn until_stopped(&self) -> String {
        self.consensus.until_stopped().await
    }

    /// A sole manager leads before anything is asked of it.
    async fn settle(&self) -> Result<(), Refusal> {
        if self.roster().voting() == 1 {
            self.await_lead().await?;
        }
        Ok(())
    }

    async fn await_lead(&self) -> Result<(), Refusal> {
        let mut place = self.place.subscribe();
        let leading = place.wait_for(|place| matches!(place, Place::Leading(_)));
        match tokio::time::timeout(LEAD_WITHIN, leading).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Refusal::internal(
                "the only manager of the cluster does not lead it; look at its disk and its log",
            )),
        }
    }

    fn assemble(
        parts: Parts,
        listener: &TcpListener,
        mut advertise: SocketAddr,
    ) -> Result<Arc<Self>, Refusal> {
        let listen = listener
            .local_addr()
            .map_err(|error| Refusal::internal(error.to_string()))?;
        if advertise.port() == 0 {
            advertise.set_port(listen.port());
        }
        let consensus = Arc::new(parts.consensus);
        let (events, _) = broadcast::channel(EVENT_DEPTH);
        let mut tasks = JoinSet::new();
        let proposer = Arc::clone(&consensus) as Arc<dyn Proposer>;
        tasks.spawn(parts.writer.run(parts.store.clone(), proposer));
        Ok(Arc::new(Self {
            store: parts.store,
            consensus,
            lines: parts.lines,
            sessions: Arc::new(Sessions::new()),
            post: Arc::default(),
            log_desk: LogDesk::default(),
            desk: Desk::default(),
            path_desk: PathDesk::default(),
            identity: parts.identity,
            listen,
            advertise,
            events,
            place: watch::Sender::new(Place::Nobody(Instant::now())),
            stale_reads: AtomicU64::default(),
            ending: CancellationToken::new(),
            tasks: Mutex::new(tasks),
        }))
    }

    /// Starts everything that goes on beside the calls.
    fn run(self: &Arc<Self>, listener: TcpListener) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.spawn(term::run(Arc::clone(self)));
        tasks.spawn(events::run(
            self.store.clone(),
            self.events.clone(),
            self.ending.clone(),
        ));
        let carrying = Arc::clone(&self.post).run(&self.store);
        tasks.spawn(
            self.ending
                .clone()
                .run_until_cancelled_owned(carrying)
                .map(drop),
        );
        tasks.spawn(rosters::run(Arc::clone(self), self.ending.clone()));
        tasks.spawn(server::serve(Arc::clone(self), listener));
    }

    pub fn identity(&self) -> Arc<LiveIdentity> {
        Arc::clone(&self.identity)
    }

    /// Where members connect; the bound address.
    pub fn listen_address(&self) -> SocketAddr {
        self.listen
    }

    /// What members are told to connect to.
    pub fn advertise_address(&self) -> SocketAddr {
        self.advertise
    }

    /// All managers, as this one sees them.
    pub fn roster(&self) -> Roster {
        self.consensus.roster()
    }

    /// This manager's consensus, for what is beside the verbs: snapshots, keys, its end.
    pub fn consensus(&self) -> &Consensus {
        &self.consensus
    }

    pub(crate) fn place(&self) -> watch::Receiver<Place> {
        self.place.subscribe()
    }

    /// The token of the term in which this manager leads.
    pub(crate) fn term(&self) -> Option<CancellationToken> {
        match &*self.place.borrow() {
            Place::Leading(token) => Some(token.clone()),
            Place::Following(_) | Place::Nobody(_) => None,
        }
    }

    pub fn cluster(&self) -> Option<Cluster> {
        self.store
            .view()
            .cluster()
            .map(|record| record.public.clone())
    }

    /// Events from now on.
    pub fn events(&self) -> broadcast::Receiver<ClusterEvent> {
        self.events.subscribe()
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn sessions(&self) -> &Arc<Sessions> {
        &self.sessions
    }

    pub(crate) fn post(&self) -> &Arc<Post> {
        &self.post
    }

    pub(crate) fn desk(&self) -> &Desk {
        &self.desk
    }

    pub(crate) fn path_desk(&self) -> &PathDesk {
        &self.path_desk
    }

    pub(crate) fn log_desk(&self) -> &LogDesk {
        &self.log_desk
    }

    pub(crate) fn ending(&self) -> &CancellationToken {
        &self.ending
    }

    /// All managers and their addresses.
    pub(crate) fn managers(&self) -> Vec<(NodeId, SocketAddr)> {
        let tables = self.store.view();
        let managers = tables.managers();
        managers
            .map(|(id, address)| (id.clone(), address))
            .collect()
    }

    /// Stops; what was committed is on disk at any moment anyway.
    pub async fn shutdown(&self) {
        self.ending.cancel();
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let ended = tokio::time::timeout(GRACE, async {
            // The writer ends only by being dropped, so waiting for all would take the whole grace.
            while tasks.len() > 1 && tasks.join_next().await.is_some() {}
        });
        if ended.await.is_err() {
            tracing::warn!("some tasks of the manager did not end in time");
        }
        tasks.shutdown().await;
        self.consensus.shutdown().await;
    }
}

fn wrapping_key(identity: &LiveIdentity, unlock_key: Option<&UnlockKey>) -> WrappingKey {
    let secret = unlock::at_rest(identity.current().key_pem(), unlock_key);
    WrappingKey::from_node_key(secret.as_bytes())
}

async fn bind(listen: SocketAddr) -> Result<TcpListener, Refusal> {
    TcpListener::bind(listen).await.map_err(|error| {
        Refusal::unavailable(format!(
            "the manager cannot listen at {listen}: {error}; choose another with --listen-addr"
        ))
    })
}
