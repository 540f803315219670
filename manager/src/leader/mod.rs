//! A manager: store, consensus, sessions and the port that members speak to.

mod create;
mod events;
mod liveness;
pub(crate) mod loops;
mod verbs;
mod work;

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use ipnetwork::IpNetwork;
use model::{
    Cluster, ClusterSpec, NodeId, Refusal,
    control::ClusterEvent,
    node::{Availability, NodeDescription},
};
use tokio::{net::TcpListener, sync::broadcast, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    allocator::AllocatorLoop,
    ca::Identity,
    dispatcher::{OrphansLoop, Sessions},
    orchestrator::{OrchestratorLoop, handover::HandoverLoop},
    raft::{Consensus, WrappingKey},
    scheduler::SchedulerLoop,
    server::{self, LogDesk, PortDesk},
    store::{Proposer, Store, StoreWriter},
    tls::LiveIdentity,
};

/// File of the log in a manager's folder.
const LOG: &str = "raft.redb";
/// Events that a slow listener may be behind.
const EVENT_DEPTH: usize = 1024;
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

/// One manager of a cluster.
pub struct Manager {
    store: Store,
    consensus: Arc<Consensus>,
    sessions: Arc<Sessions>,
    log_desk: LogDesk,
    port_desk: PortDesk,
    identity: Arc<LiveIdentity>,
    listen: SocketAddr,
    events: broadcast::Sender<ClusterEvent>,
    ending: CancellationToken,
    tasks: Mutex<JoinSet<()>>,
}

impl Manager {
    /// Makes a cluster of this one manager. The caller keeps the identity.
    pub async fn create(folder: &Path, new: NewCluster) -> Result<(Arc<Self>, Identity), Refusal> {
        create::create(folder, new).await
    }

    /// Goes on with what lies in the folder.
    pub async fn open(
        folder: &Path,
        identity: Arc<LiveIdentity>,
        listen: SocketAddr,
    ) -> Result<Arc<Self>, Refusal> {
        let listener = bind(listen).await?;
        let key = WrappingKey::from_node_key(identity.current().key_pem().as_bytes());
        let (store, writer) = Store::new();
        let consensus = Consensus::open(&folder.join(LOG), &key, store.clone())
            .await
            .map_err(|error| Refusal::internal(error.to_string()))?;
        let manager = Self::assemble(store, writer, consensus, identity, &listener)?;
        manager.run(listener)?;
        Ok(manager)
    }

    fn assemble(
        store: Store,
        writer: StoreWriter,
        consensus: Consensus,
        identity: Arc<LiveIdentity>,
        listener: &TcpListener,
    ) -> Result<Arc<Self>, Refusal> {
        let listen = listener
            .local_addr()
            .map_err(|error| Refusal::internal(error.to_string()))?;
        let consensus = Arc::new(consensus);
        let (events, _) = broadcast::channel(EVENT_DEPTH);
        let mut tasks = JoinSet::new();
        let proposer = Arc::clone(&consensus) as Arc<dyn Proposer>;
        tasks.spawn(writer.run(store.clone(), proposer));
        Ok(Arc::new(Self {
            store,
            consensus,
            sessions: Arc::new(Sessions::new()),
            log_desk: LogDesk::default(),
            port_desk: PortDesk::default(),
            identity,
            listen,
            events,
            ending: CancellationToken::new(),
            tasks: Mutex::new(tasks),
        }))
    }

    /// Starts everything that goes on beside the calls.
    fn run(self: &Arc<Self>, listener: TcpListener) -> Result<(), Refusal> {
        let now = Instant::now();
        for node in self.store.view().nodes() {
            self.sessions.expect(&node.id, now);
        }
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.spawn(liveness::run(Arc::clone(self)));
        tasks.spawn(events::run(
            self.store.clone(),
            self.events.clone(),
            self.ending.clone(),
        ));
        tasks.spawn(server::serve(Arc::clone(self), listener)?);
        self.run_loop(&mut tasks, OrchestratorLoop::default());
        self.run_loop(&mut tasks, AllocatorLoop);
        self.run_loop(&mut tasks, SchedulerLoop::default());
        self.run_loop(&mut tasks, OrphansLoop);
        self.run_loop(&mut tasks, HandoverLoop::default());
        Ok(())
    }

    fn run_loop<L: loops::Loop>(&self, tasks: &mut JoinSet<()>, looped: L) {
        tasks.spawn(loops::run(
            looped,
            self.store.clone(),
            Arc::clone(&self.sessions),
            self.ending.clone(),
        ));
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
        self.managers()
            .first()
            .map_or(self.listen, |(_, address)| *address)
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

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    pub(crate) fn port_desk(&self) -> &PortDesk {
        &self.port_desk
    }

    pub(crate) fn log_desk(&self) -> &LogDesk {
        &self.log_desk
    }

    pub(crate) fn ending(&self) -> &CancellationToken {
        &self.ending
    }

    /// All managers and their addresses.
    pub(crate) fn managers(&self) -> Vec<(NodeId, SocketAddr)> {
        let managers = |node: &model::Node| Some((node.id.clone(), node.manager.as_ref()?.address));
        self.store.view().nodes().filter_map(managers).collect()
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

async fn bind(listen: SocketAddr) -> Result<TcpListener, Refusal> {
    TcpListener::bind(listen).await.map_err(|error| {
        Refusal::unavailable(format!(
            "the manager cannot listen at {listen}: {error}; choose another with --listen-addr"
        ))
    })
}
