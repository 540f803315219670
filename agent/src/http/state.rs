//! What the handlers stand on.

use std::{net::IpAddr, sync::Arc};

use futures_util::future::BoxFuture;
use ipnetwork::IpNetwork;
use model::{
    Refusal,
    control::{Answer, Verb},
};
use runtime::{engine::Engine, images::ImageStore};
use tokio_util::sync::CancellationToken;

use super::{bus::EventBus, dataplane::Sight, network_events};
use crate::{
    cluster::{ClusterNode, LocalState, Standing},
    config::Settings,
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
    /// Cancelled when the daemon ends: streams that would go on for ever end then.
    pub shutdown: CancellationToken,
}

/// A network that only this host knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostNetwork {
    /// 64 hex characters.
    pub id: String,
    pub name: String,
    /// Each subnet with its gateway.
    pub subnets: Vec<(IpNetwork, IpAddr)>,
    /// Nanoseconds since the Unix epoch.
    pub created_at: i64,
    /// Driver options as Docker shows them.
    pub options: std::collections::BTreeMap<String, String>,
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
    /// `bridge` and `docker_gwbridge`.
    fn list(&self) -> Vec<HostNetwork>;

    /// The containers of this host on the network with that id, local or the cluster's.
    fn endpoints<'a>(&'a self, network_id: &'a str) -> BoxFuture<'a, Vec<HostEndpoint>>;

    /// What the dataplane has done, and what it cannot do at present.
    fn status(&self) -> dataplane::Status;

    /// What the dataplane was told and what the kernel has; changes nothing.
    fn sight(&self) -> BoxFuture<'_, Result<Sight, Refusal>>;
}

/// Docker's sentence for a host that is in no cluster.
const NOT_A_MEMBER: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";

/// Docker's sentence for workers.
const NOT_A_MANAGER: &str = "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.";

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
        events.follow(cluster.events(), shutdown.clone());
        network_events::follow(&engine, &networks, events.clone(), shutdown.clone());
        Self {
            engine,
            images,
            cluster,
            networks,
            settings,
            engine_id: engine_id.into(),
            events,
            shutdown,
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

    /// Docker's answer (503) where there is no manager, for what is refused before it is asked.
    pub fn manager_only(&self) -> Result<(), Refusal> {
        if self.local().control_available() {
            Ok(())
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
