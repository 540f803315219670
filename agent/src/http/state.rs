//! What the handlers stand on.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use model::{
    HostTraffic, NetworkSpec, NodeId, Refusal,
    control::{Answer, Verb},
    node::Role,
};
use runtime::{engine::Engine, images::ImageStore};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    bus::EventBus,
    dataplane::Sight,
    network_events,
    traffic::{TrafficBoard, TunnelEnd, TunnelReading},
    visualizer::Visualizer,
};
use crate::{
    cluster::{ClusterNode, LocalState, Standing},
    config::Settings,
    network::{
        guests::{GuestEndpoint, GuestWish, Which},
        local::LocalNetwork,
    },
    paths::Measured,
};

/// Everything a request may need; cheap to clone.
#[derive(Clone)]
pub struct AppState {
    pub engine: Arc<Engine>,
    pub images: ImageStore,
    pub cluster: Arc<ClusterNode>,
    pub networks: Arc<dyn HostNetworks>,
    pub settings: Arc<Settings>,
    /// `ID` of `/info`: stays the same over restarts of the daemon.
    pub engine_id: Arc<str>,
    /// Events that are not the engine's: images, networks, the cluster's. Whoever causes one
    /// publishes it here.
    pub events: EventBus,
    pub visualizer: Arc<Visualizer>,
    /// What goes through the tunnels of all hosts, while somebody looks.
    pub(super) traffic: TrafficBoard,
    /// Cancelled when the daemon ends: streams that would go on for ever end then.
    pub shutdown: CancellationToken,
    /// When the daemon started.
    begun: Instant,
}

/// A container of this host on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostEndpoint {
    pub container_id: String,
    pub container_name: String,
    pub endpoint_id: String,
    pub mac: String,
    /// With the prefix length, IPv4 first.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// What the HTTP edge asks of this host's networks.
pub trait HostNetworks: Send + Sync + 'static {
    /// `bridge`, `docker_gwbridge`, and those that users have made on this host.
    fn list(&self) -> Vec<LocalNetwork>;

    /// Makes one of this host's own.
    fn create(&self, spec: NetworkSpec) -> BoxFuture<'_, Result<LocalNetwork, Refusal>>;

    /// Removes one that a user has made, by its id.
    fn remove<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), Refusal>>;

    /// The containers of this host on the network with that id, local or the cluster's.
    fn endpoints<'a>(&'a self, network_id: &'a str) -> BoxFuture<'a, Vec<HostEndpoint>>;

    /// Gives a network namespace that is not ours a place on an overlay network.
    fn attach_guest(&self, wish: GuestWish) -> BoxFuture<'_, Result<GuestEndpoint, Refusal>>;

    /// Takes such places away; answers which.
    fn detach_guests<'a>(
        &'a self,
        which: &'a Which,
    ) -> BoxFuture<'a, Result<Vec<GuestEndpoint>, Refusal>>;

    /// Those that there are.
    fn guests<'a>(&'a self, which: &'a Which) -> BoxFuture<'a, Vec<GuestEndpoint>>;

    /// Domains in which the host looks for names.
    fn search_list(&self) -> Vec<String>;

    /// Counters of this host's tunnels from now on, until the receiver is dropped.
    fn traffic(&self) -> BoxFuture<'_, Result<watch::Receiver<TunnelReading>, Refusal>>;

    /// Such counters by the hosts at the other ends.
    fn by_host<'a>(&'a self, reading: &'a TunnelReading) -> BoxFuture<'a, HostTraffic>;

    /// The hosts by the addresses of their tunnels.
    fn tunnel_ends(&self) -> BoxFuture<'_, BTreeMap<IpAddr, TunnelEnd>>;

    /// The ways to the other hosts, as this one has measured them.
    fn paths(&self) -> BTreeMap<NodeId, Measured>;

    /// What the dataplane has done, and what it cannot do at present.
    fn status(&self) -> dataplane::Status;

    /// What the dataplane was told and what the kernel has; changes nothing.
    fn sight(&self) -> BoxFuture<'_, Result<Sight, Refusal>>;
}

/// Docker's sentence for a host that is in no cluster.
const NOT_A_MEMBER: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";

/// Docker's sentence for workers.
const NOT_A_MANAGER: &str = "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.";

/// Docker's sentence for managers without a leader.
const NO_LEADER: &str = "The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online.";

/// How long after the daemon's start its manager is waited for.
const STARTING: Duration = Duration::from_secs(10);

impl AppState {
    /// Puts the parts together and starts to collect the cluster's events.
    pub fn new(
        engine: Arc<Engine>,
        images: ImageStore,
        cluster: Arc<ClusterNode>,
        networks: Arc<dyn HostNetworks>,
        settings: Arc<Settings>,
        engine_id: String,
        shutdown: CancellationToken,
    ) -> Self {
        let events = EventBus::new();
        events.follow(cluster.events(), engine_id.clone(), shutdown.clone());
        network_events::follow(&engine, events.clone(), shutdown.clone());
        let visualizer = Visualizer::new(settings.root.join("visualizer.json"));
        Self {
            engine,
            images,
            cluster,
            networks,
            settings,
            engine_id: engine_id.into(),
            events,
            visualizer: Arc::new(visualizer),
            traffic: TrafficBoard::default(),
            shutdown,
            begun: Instant::now(),
        }
    }

    /// Where this host stands, now.
    pub fn local(&self) -> LocalState {
        self.cluster.local_state().borrow().clone()
    }

    /// Whether there is a cluster to ask.
    pub fn is_member(&self) -> bool {
        self.cluster.local_state().borrow().state != Standing::Inactive
    }

    /// Waits for a manager that has just been started: until it has found its cluster again it
    /// would speak as if it were a worker.
    pub async fn settled(&self) {
        let left = STARTING.saturating_sub(self.begun.elapsed());
        if left.is_zero() {
            return;
        }
        let mut local = self.cluster.local_state();
        let settled = local.wait_for(|local| {
            let starting = matches!(local.state, Standing::Pending | Standing::Active);
            local.control_available() || local.role != Some(Role::Manager) || !starting
        });
        // Not settled in time: the answer says what is the matter.
        let _ = tokio::time::timeout(left, settled).await;
    }

    /// Docker's answer (503) where there is no manager, for what is refused before it is asked.
    pub async fn manager_only(&self) -> Result<(), Refusal> {
        self.settled().await;
        let local = self.local();
        if local.control_available() {
            Ok(())
        } else if local.state == Standing::Locked {
            Err(Refusal::unavailable(local.error))
        } else if local.role == Some(Role::Manager) {
            Err(Refusal::unavailable(
                format!("{NO_LEADER} {}", local.error).trim_end(),
            ))
        } else if self.is_member() {
            Err(Refusal::unavailable(NOT_A_MANAGER))
        } else {
            Err(Refusal::unavailable(NOT_A_MEMBER))
        }
    }

    /// Asks the cluster; outside any, the answer is Docker's sentence (503).
    pub async fn call(&self, verb: Verb) -> Result<Answer, Refusal> {
        if !self.is_member() {
            return Err(Refusal::unavailable(NOT_A_MEMBER));
        }
        self.settled().await;
        self.cluster.call(verb).await
    }
}

/// The answer was of a kind that does not belong to the verb.
pub fn unexpected(verb: &str, answer: &Answer) -> Refusal {
    tracing::error!(verb, ?answer, "the manager gave an answer of another kind");
    Refusal::internal(format!(
        "the manager's answer to {verb} is not understood; is it of the same version?"
    ))
}
