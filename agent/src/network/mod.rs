//! The glue between the cluster's word, the containers of this host and the dataplane.
//!
//! ```text
//! ClusterNode::assignments ─▶ translate ─┐
//! Engine (connect, disconnect) ─▶ sandbox ┴─▶ Desired, Change ─▶ Dataplane
//! ```
//!
//! One lock orders all wishes, so what the dataplane is told is a sequence. Verbs are never
//! called under the lock: the cluster's answer needs this host's acknowledgement, which needs
//! the lock.

mod connect;
mod custom;
mod endpoints;
mod flows;
pub mod guests;
mod keys;
pub mod local;
mod names;
mod pace;
mod paths;
mod port_sights;
mod ports;
mod published;
mod record;
mod rewire;
mod sandbox;
mod traffic;
mod translate;
mod vips;
mod wishes;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
};

use dataplane::{Dataplane, Desired};
use futures_util::future::BoxFuture;
use model::{Assignments, ContainerId, Generation, NodeId, Refusal, RefusalKind, control::Answer};
use runtime::network::{
    ConnectRequest, Connected, ConnectedEndpoint, Network, NetworkMode, NetworkWish,
};
use tokio::sync::{Mutex, Notify, watch};

pub use self::keys::HostKeys;
pub use self::port_sights::host_port;
pub use self::record::{Survives, write_atomically};
use self::{
    local::{LocalAddresses, LocalNetwork, LocalNetworks},
    record::{Records, SandboxRecord},
    vips::Backends,
};
use crate::{
    cluster::{ClusterNode, Update},
    host::{self, Resolvers},
    paths::{Measured, Paths},
};

/// What the daemon says once.
pub struct Config {
    pub root: PathBuf,
    pub run_dir: PathBuf,
    pub resolv_conf: PathBuf,
    pub keys: Arc<HostKeys>,
}

/// The networks of this host's containers.
pub struct Networks {
    config: Config,
    dataplane: Dataplane,
    cluster: Arc<ClusterNode>,
    records: Records,
    /// Written under the lock of `inner`.
    local: watch::Sender<Arc<LocalNetworks>>,
    inner: Mutex<Inner>,
    /// The generation that the kernel has reached.
    reached: watch::Sender<Generation>,
    /// Something is owed to the manager.
    untidy: Notify,
    /// There are other hosts to share a network with than before.
    hosts_changed: Notify,
    guests_come: Notify,
    traffic: traffic::TrafficDesk,
    paths: Paths,
}

#[derive(Default)]
struct Inner {
    assignments: Assignments,
    backends: Backends,
    addresses: LocalAddresses,
    sandboxes: BTreeMap<ContainerId, SandboxRecord>,
    connecting: BTreeSet<ContainerId>,
    /// Running containers that a kill has left on other networks than the engine has of them.
    left: BTreeMap<ContainerId, ConnectRequest>,
    /// Of the hosts' own network, as the dataplane was told.
    paths: Option<paths::PathWish>,
    /// Before the engine has said what runs, the kernel is left as it is.
    adopted: bool,
}

/// A container on a network of this host, for `network inspect`.
#[derive(Debug, Clone)]
pub struct Attachment {
    pub container: ContainerId,
    pub name: String,
    pub endpoint: ConnectedEndpoint,
}

impl Networks {
    /// Reads what is remembered; nothing is changed before the engine calls `adopt`.
    pub async fn start(
        config: Config,
        dataplane: Dataplane,
        cluster: Arc<ClusterNode>,
    ) -> Result<Arc<Self>, Refusal> {
        let io = |error: std::io::Error| {
            Refusal::internal(format!("{}: {error}", config.run_dir.display()))
        };
        let records = Records::open(&config.run_dir).map_err(io)?;
        let local = LocalNetworks::open(
            &config.root.join("network"),
            &host::routes(),
            crate::clock::now_nanos(),
            || ContainerId::from_random(rand::random()).to_string(),
        )?;
        let mut inner = Inner::default();
        for record in records.read_all().map_err(io)? {
            inner.adopt_addresses(&record, &local);
            inner
                .sandboxes
                .insert(record.request.container.clone(), record);
        }
        // The ledger's set, at once: adopting without it would take down what is in use.
        let mut updates = cluster.assignments();
        if let Some(Update::Full(assignments)) = updates.next().await {
            inner.assignments = (*assignments).clone();
            inner.backends = Backends::of(&inner.assignments);
        }
        let paths = Paths::start(Arc::clone(&cluster));
        let (reached, _) = watch::channel(Generation::default());
        let networks = Arc::new(Self {
            config,
            dataplane,
            cluster,
            records,
            local: watch::Sender::new(Arc::new(local)),
            inner: Mutex::new(inner),
            reached,
            untidy: Notify::new(),
            hosts_changed: Notify::new(),
            guests_come: Notify::new(),
            traffic: traffic::TrafficDesk::default(),
            paths,
        });
        if let Err(error) = dataplane::traffic::sweep() {
            tracing::warn!(%error, "counters that were left cannot be taken away");
        }
        tokio::spawn(Arc::clone(&networks).follow_cluster(updates));
        tokio::spawn(Arc::clone(&networks).tidy());
        tokio::spawn(Arc::clone(&networks).follow_hosts());
        tokio::spawn(Arc::clone(&networks).follow_tunnels());
        tokio::spawn(Arc::clone(&networks).follow_guests());
        Ok(networks)
    }

    pub fn dataplane(&self) -> &Dataplane {
        &self.dataplane
    }

    /// The networks that only this host knows, as they are now.
    pub fn local_networks(&self) -> Arc<LocalNetworks> {
        self.local.borrow().clone()
    }

    /// The containers of this host on the network with that id.
    pub async fn attachments(&self, network_id: &str) -> Vec<Attachment> {
        let inner = self.inner.lock().await;
        inner
            .sandboxes
            .values()
            .flat_map(|record| {
                record
                    .connected
                    .endpoints
                    .iter()
                    .filter(|endpoint| endpoint.network_id == network_id)
                    .map(|endpoint| Attachment {
                        container: record.request.container.clone(),
                        name: guests::name_of(record, endpoint).to_owned(),
                        endpoint: endpoint.clone(),
                    })
            })
            .collect()
    }

    /// The whole wish as it stands, for `ovnd dataplane`.
    pub async fn desired(&self) -> Desired {
        let inner = self.inner.lock().await;
        self.whole_wish(&inner)
    }

    /// The ways to the other hosts, as measured.
    pub fn measured_paths(&self) -> BTreeMap<NodeId, Measured> {
        self.paths.all()
    }

    fn node(&self) -> NodeId {
        self.cluster.local_state().borrow().node_id.clone()
    }

    fn upstreams(&self) -> Vec<SocketAddr> {
        Resolvers::read(&self.config.resolv_conf).servers
    }

    /// The host's own network that is wished for, before the cluster's of the same name. What the
    /// manager gave is the cluster's.
    fn local_of(&self, wish: &NetworkWish) -> Option<LocalNetwork> {
        let local = self.local.borrow();
        let found = local.find(&wish.network);
        found.filter(|_| wish.endpoint.is_none()).cloned()
    }
}

fn unexpected(answer: &Answer) -> Refusal {
    tracing::error!(?answer, "the manager gave an answer of another kind");
    Refusal::internal("the manager gave an answer of another kind; is it of the same version?")
}

fn report(what: &str, report: &dataplane::Report) {
    for failure in &report.failures {
        tracing::error!(what, %failure, "the dataplane could not be changed");
    }
}

impl Network for Networks {
    fn check<'a>(&'a self, request: &'a ConnectRequest) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(async move {
            if let NetworkMode::Networks(wishes) = &request.mode {
                for wish in wishes {
                    match self.check_wish(wish).await {
                        // It may come before the start, which is refused otherwise. A client takes
                        // this kind of refusal for a missing image, and fetches that.
                        Err(refusal) if refusal.kind == RefusalKind::NotFound => {}
                        checked => checked?,
                    }
                }
            }
            Ok(())
        })
    }

    fn connect<'a>(
        &'a self,
        request: &'a ConnectRequest,
    ) -> BoxFuture<'a, Result<Connected, Refusal>> {
        Box::pin(async move {
            match &request.mode {
                NetworkMode::Host => Ok(self.host_only(request)),
                NetworkMode::None => self.connect_none(request).await,
                NetworkMode::Container(with) => self.share(request, with).await,
                NetworkMode::Networks(wishes) => self.connect_networks(request, wishes).await,
            }
        })
    }

    fn rewire<'a>(
        &'a self,
        request: &'a ConnectRequest,
    ) -> BoxFuture<'a, Result<Connected, Refusal>> {
        Box::pin(self.rewire_networks(request, None))
    }

    fn started<'a>(&'a self, container: &'a ContainerId) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut inner = self.inner.lock().await;
            let Some(record) = inner.sandboxes.get_mut(container) else {
                return;
            };
            // Found running: its names were laid with everything else.
            if std::mem::replace(&mut record.running, true) {
                return;
            }
            let record = record.clone();
            if let Err(error) = self.keep(&record) {
                tracing::warn!(%error, "the network of a started container");
            }
            // A task's names wait for the manager's word, and who has none needs no step.
            let named = |one: &ConnectedEndpoint| !one.dns_names.is_empty();
            let own = record.endpoints.iter().all(|given| !given.task);
            if !own || !record.connected.endpoints.iter().any(named) {
                return;
            }
            let steps = self.sandbox_step(&inner, &record).into_iter().collect();
            report("names", &self.dataplane.change(steps).await);
            self.untidy.notify_one();
        })
    }

    fn renamed<'a>(&'a self, request: &'a ConnectRequest) -> BoxFuture<'a, Option<Connected>> {
        Box::pin(self.rename(request))
    }

    fn disconnect<'a>(&'a self, container: &'a ContainerId) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(async move {
            self.take_back(container).await;
            Ok(())
        })
    }

    fn adopt<'a>(&'a self, running: &'a [ConnectRequest]) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(self.adopt_running(running))
    }
}
