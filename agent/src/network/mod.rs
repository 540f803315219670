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

pub mod local;
mod record;
mod sandbox;
mod translate;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use dataplane::{Dataplane, Desired, desired::Change as Step};
use futures_util::future::BoxFuture;
use model::{
    Assignments, ContainerId, EndpointId, EndpointState, Generation, NodeId, Refusal, RefusalKind,
    control::{Answer, AttachRequest, Attached, Verb},
};
use runtime::network::{
    ConnectRequest, Connected, ConnectedEndpoint, Network, NetworkMode, NetworkWish,
};
use tokio::sync::{Mutex, Notify, watch};

pub use self::record::{Survives, write_atomically};
use self::{
    local::{LocalAddresses, LocalNetwork, LocalNetworks},
    record::{GivenEndpoint, Records, SandboxRecord},
    sandbox::Given,
};
use crate::{
    cluster::{AssignmentStream, ClusterNode, Update},
    host::{self, Resolvers},
};

/// How long the manager waits for the network's hosts before it names the late ones.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long this host may take to program what it was told before a start is refused.
const OWN_PATIENCE: Duration = Duration::from_secs(10);
/// How long a stopping container waits for the manager to take its endpoint back; after that
/// it is taken back in the background.
const DETACH_PATIENCE: Duration = Duration::from_secs(3);

/// What the daemon says once.
pub struct Config {
    pub root: PathBuf,
    pub run_dir: PathBuf,
    pub resolv_conf: PathBuf,
}

/// The networks of this host's containers.
pub struct Networks {
    config: Config,
    dataplane: Dataplane,
    cluster: Arc<ClusterNode>,
    records: Records,
    local: LocalNetworks,
    inner: Mutex<Inner>,
    /// The generation that the kernel has reached.
    reached: watch::Sender<Generation>,
    /// Something is owed to the manager.
    untidy: Notify,
}

#[derive(Default)]
struct Inner {
    assignments: Assignments,
    addresses: LocalAddresses,
    sandboxes: BTreeMap<ContainerId, SandboxRecord>,
    connecting: BTreeSet<ContainerId>,
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
        }
        let (reached, _) = watch::channel(Generation::default());
        let networks = Arc::new(Self {
            config,
            dataplane,
            cluster,
            records,
            local,
            inner: Mutex::new(inner),
            reached,
            untidy: Notify::new(),
        });
        tokio::spawn(Arc::clone(&networks).follow_cluster(updates));
        tokio::spawn(Arc::clone(&networks).tidy());
        Ok(networks)
    }

    pub fn dataplane(&self) -> &Dataplane {
        &self.dataplane
    }

    /// `bridge` and `docker_gwbridge`.
    pub fn local_networks(&self) -> &LocalNetworks {
        &self.local
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
                        name: record.request.name.clone(),
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

    fn node(&self) -> NodeId {
        self.cluster.local_state().borrow().node_id.clone()
    }

    fn upstreams(&self) -> Vec<SocketAddr> {
        Resolvers::read(&self.config.resolv_conf).servers
    }

    /// Feeds the dataplane with what the cluster says, and acknowledges what the kernel has.
    async fn follow_cluster(self: Arc<Self>, mut updates: AssignmentStream) {
        while let Some(update) = updates.next().await {
            let mut inner = self.inner.lock().await;
            let generation = match update {
                Update::Full(assignments) => {
                    inner.assignments = (*assignments).clone();
                    if inner.adopted {
                        let wish = self.whole_wish(&inner);
                        report("full set", &self.dataplane.replace(wish).await);
                    }
                    self.untidy.notify_one();
                    assignments.generation
                }
                Update::Increment(increment) => {
                    inner.assignments.apply(&increment);
                    if inner.adopted {
                        let node = self.node();
                        let mut steps: Vec<Step> = increment
                            .changes
                            .iter()
                            .flat_map(|change| {
                                translate::cluster_change(change, &inner.assignments, &node)
                            })
                            .collect();
                        steps.extend(self.sandboxes_of_new_networks(&inner, &increment.changes));
                        report("increment", &self.dataplane.change(steps).await);
                    }
                    increment.generation
                }
            };
            if inner.adopted {
                self.reached.send_replace(generation);
                self.cluster.acknowledge(generation);
            }
        }
    }

    /// A network that comes back (a manager was away when it was needed) brings back the
    /// interfaces that were left out.
    fn sandboxes_of_new_networks(&self, inner: &Inner, changes: &[model::Change]) -> Vec<Step> {
        let new: BTreeSet<&str> = changes
            .iter()
            .filter_map(|change| match change {
                model::Change::SetNetwork(network) => Some(network.id.as_str()),
                _ => None,
            })
            .collect();
        inner
            .sandboxes
            .values()
            .filter(|record| {
                record
                    .interfaces
                    .iter()
                    .any(|i| new.contains(i.network.as_str()))
            })
            .filter_map(|record| self.sandbox_step(inner, record))
            .collect()
    }

    fn sandbox_step(&self, inner: &Inner, record: &SandboxRecord) -> Option<Step> {
        let netns = record.connected.netns.clone()?;
        if matches!(record.request.mode, NetworkMode::Container(_)) {
            return None;
        }
        let mut networks: BTreeSet<String> = inner
            .assignments
            .networks
            .keys()
            .map(ToString::to_string)
            .collect();
        networks.extend(self.local.iter().map(|network| network.id.clone()));
        let wish = sandbox::wish(record, netns, &networks, &self.upstreams());
        Some(Step::SetSandbox(record.request.container.to_string(), wish))
    }

    fn whole_wish(&self, inner: &Inner) -> Desired {
        let mut wish = translate::cluster_wish(&inner.assignments, &self.node());
        for record in inner.sandboxes.values() {
            for step in self.local_steps(record) {
                wish.apply(step);
            }
            if let Some(step) = self.sandbox_step(inner, record) {
                wish.apply(step);
            }
        }
        wish
    }

    /// The local networks that a sandbox stands on.
    fn local_steps(&self, record: &SandboxRecord) -> Vec<Step> {
        self.local
            .iter()
            .filter(|network| record.interfaces.iter().any(|i| i.network == network.id))
            .map(|network| Step::SetNetwork(network.id.clone(), sandbox::local_wish(network)))
            .collect()
    }

    /// Takes back what the manager still counts as this host's and no container has, and goes
    /// on until nothing is owed.
    async fn tidy(self: Arc<Self>) {
        let mut state = self.cluster.local_state();
        let mut pause = Duration::from_secs(1);
        loop {
            tokio::select! {
                () = self.untidy.notified() => {}
                changed = state.changed() => if changed.is_err() { return },
            }
            while let Err(error) = self.tidy_once().await {
                tracing::debug!(%error, "endpoints are still owed to the manager");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(30));
            }
            pause = Duration::from_secs(1);
        }
    }

    async fn tidy_once(&self) -> Result<(), Refusal> {
        let (stale, unannounced) = {
            let inner = self.inner.lock().await;
            if !inner.adopted {
                return Ok(());
            }
            let held: BTreeSet<EndpointId> = inner
                .sandboxes
                .values()
                .flat_map(|record| record.endpoints.iter().map(|given| given.endpoint.clone()))
                .collect();
            let stale = sandbox::stale_endpoints(
                &inner.assignments,
                &self.node(),
                &held,
                &inner.connecting,
            );
            (stale, inner.unannounced())
        };
        for endpoint in stale {
            tracing::info!(%endpoint, "an endpoint without a container is given back");
            self.cluster.call(Verb::Detach { endpoint }).await?;
        }
        for endpoint in unannounced {
            let state = EndpointState::Active;
            let verb = Verb::EndpointAdvance {
                endpoint: endpoint.clone(),
                state,
            };
            match self.cluster.call(verb).await {
                Ok(_) => {}
                // The endpoint went while we spoke of it.
                Err(refusal) if refusal.kind == RefusalKind::NotFound => {
                    tracing::warn!(%endpoint, "the manager does not know a running container's endpoint");
                }
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(())
    }

    async fn attach_all(
        &self,
        request: &ConnectRequest,
        wishes: &[NetworkWish],
    ) -> Result<Vec<Option<Attached>>, Refusal> {
        let mut given = Vec::new();
        for wish in wishes {
            if self.find_local(&wish.network).is_some() {
                given.push(None);
                continue;
            }
            let verb = Verb::Attach(Box::new(AttachRequest {
                network: wish.network.clone(),
                node: self.node(),
                container: request.container.clone(),
                container_name: request.name.clone(),
                aliases: sandbox::aliases(request, wish),
                addresses: wish.addresses.clone(),
                patience: PATIENCE,
            }));
            match self.cluster.call(verb).await {
                Ok(Answer::Attached(attached)) => given.push(Some(*attached)),
                Ok(other) => {
                    self.detach_all(endpoints_of(&given)).await;
                    return Err(unexpected(&other));
                }
                Err(refusal) => {
                    self.detach_all(endpoints_of(&given)).await;
                    return Err(refusal);
                }
            }
        }
        Ok(given)
    }

    /// Gives endpoints back; what cannot be given back now is owed.
    async fn detach_all(&self, endpoints: Vec<EndpointId>) {
        for endpoint in endpoints {
            let verb = Verb::Detach {
                endpoint: endpoint.clone(),
            };
            match tokio::time::timeout(DETACH_PATIENCE, self.cluster.call(verb)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%endpoint, %error, "the endpoint is given back later");
                    self.untidy.notify_one();
                }
                Err(_) => {
                    tracing::warn!(%endpoint, "no manager answers; the endpoint is given back later");
                    self.untidy.notify_one();
                }
            }
        }
    }

    /// Waits until this host's kernel has what the cluster decided.
    async fn wait_reached(&self, generation: Generation) -> Result<(), Refusal> {
        let mut reached = self.reached.subscribe();
        let wait = reached.wait_for(|reached| *reached >= generation);
        match tokio::time::timeout(OWN_PATIENCE, wait).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Refusal::unavailable(format!(
                "this host has not received state {generation} from its manager within {OWN_PATIENCE:?}; see `ovnctl info` and the log of ovnd"
            ))),
        }
    }

    fn find_local(&self, reference: &str) -> Option<&LocalNetwork> {
        let by_prefix =
            |network: &&LocalNetwork| reference.len() >= 12 && network.id.starts_with(reference);
        match reference {
            "default" => Some(&self.local.bridge),
            _ => self
                .local
                .iter()
                .find(|network| network.name == reference)
                .or_else(|| self.local.iter().find(by_prefix)),
        }
    }

    async fn connect_networks(
        &self,
        request: &ConnectRequest,
        wishes: &[NetworkWish],
    ) -> Result<Connected, Refusal> {
        {
            let mut inner = self.inner.lock().await;
            if let Some(record) = inner.sandboxes.get(&request.container) {
                return Ok(record.connected.clone());
            }
            if !inner.connecting.insert(request.container.clone()) {
                return Err(Refusal::conflict(format!(
                    "container {} is being connected already; wait for it",
                    request.name
                )));
            }
        }
        let connected = self.connect_new(request, wishes).await;
        self.inner
            .lock()
            .await
            .connecting
            .remove(&request.container);
        connected
    }

    async fn connect_new(
        &self,
        request: &ConnectRequest,
        wishes: &[NetworkWish],
    ) -> Result<Connected, Refusal> {
        let attached = self.attach_all(request, wishes).await?;
        let newest = attached
            .iter()
            .flatten()
            .map(|attached| attached.generation)
            .max();
        if let Some(generation) = newest
            && let Err(refusal) = self.wait_reached(generation).await
        {
            self.detach_all(endpoints_of(&attached)).await;
            return Err(refusal);
        }
        let mut inner = self.inner.lock().await;
        let record = match self.record(&mut inner, request, wishes, &attached) {
            Ok(record) => record,
            Err(refusal) => {
                drop(inner);
                self.detach_all(endpoints_of(&attached)).await;
                return Err(refusal);
            }
        };
        let outcome = self.program(&mut inner, &record).await;
        drop(inner);
        match outcome {
            Ok(()) => Ok(record.connected),
            Err(refusal) => {
                self.take_back(&request.container).await;
                Err(refusal)
            }
        }
    }

    /// Puts together what was given; local addresses are given here.
    fn record(
        &self,
        inner: &mut Inner,
        request: &ConnectRequest,
        wishes: &[NetworkWish],
        attached: &[Option<Attached>],
    ) -> Result<SandboxRecord, Refusal> {
        let mut given = Vec::new();
        let mut local: Vec<(String, IpAddr)> = Vec::new();
        let mut give = |inner: &mut Inner, network: &LocalNetwork, wanted: Option<IpAddr>| {
            let address = inner.addresses.give(network, wanted).inspect_err(|_| {
                for (network, address) in &local {
                    inner.addresses.take_back(network, *address);
                }
            })?;
            local.push((network.id.clone(), IpAddr::V4(address)));
            Ok::<_, Refusal>(address)
        };
        for (wish, attached) in wishes.iter().zip(attached) {
            let aliases = wish.aliases.clone();
            given.push(match (attached, self.find_local(&wish.network)) {
                (Some(attached), _) => Given::Overlay {
                    attached: Box::new(attached.clone()),
                    aliases,
                },
                (None, Some(network)) => {
                    let address = give(inner, network, wish.addresses.first().copied())?;
                    Given::Local {
                        network: network.clone(),
                        address,
                        aliases,
                    }
                }
                (None, None) => {
                    return Err(Refusal::not_found(format!(
                        "network {} not found",
                        wish.network
                    )));
                }
            });
        }
        let has_local = given
            .iter()
            .any(|given| matches!(given, Given::Local { .. }));
        let wants_egress = attached
            .iter()
            .flatten()
            .any(|attached| !attached.network.spec.internal);
        if wants_egress && !has_local {
            let network = &self.local.gateway_bridge;
            let address = give(inner, network, None)?;
            given.push(Given::Local {
                network: network.clone(),
                address,
                aliases: Vec::new(),
            });
        }
        let resolvers = Resolvers::read(&self.config.resolv_conf);
        let endpoints = sandbox::shown(&given, &request.container);
        let mut hosts = Vec::new();
        for (address, _) in endpoints.iter().flat_map(|endpoint| &endpoint.addresses) {
            hosts.push((*address, request.hostname.clone()));
        }
        Ok(SandboxRecord {
            interfaces: sandbox::interfaces(&request.container, &given),
            endpoints: attached
                .iter()
                .flatten()
                .map(|attached| GivenEndpoint {
                    endpoint: attached.endpoint.id.clone(),
                    network: attached.network.id.clone(),
                    names: attached.endpoint.names.clone(),
                })
                .collect(),
            local,
            running: false,
            connected: Connected {
                netns: Some(sandbox::netns_path(
                    &self.config.run_dir,
                    &request.container,
                )),
                resolv_conf: sandbox::resolv_conf(request, &resolvers, !given.is_empty()),
                hosts,
                endpoints,
                late: attached
                    .iter()
                    .flatten()
                    .flat_map(|a| a.late.clone())
                    .collect(),
            },
            request: request.clone(),
        })
    }

    async fn program(&self, inner: &mut Inner, record: &SandboxRecord) -> Result<(), Refusal> {
        self.keep(record)?;
        inner
            .sandboxes
            .insert(record.request.container.clone(), record.clone());
        let mut steps = self.local_steps(record);
        steps.extend(self.sandbox_step(inner, record));
        let report = self.dataplane.change(steps).await;
        match report.failures.first() {
            None => Ok(()),
            Some(failure) => Err(Refusal::internal(format!(
                "the network of container {} could not be made: {failure}",
                record.request.name
            ))),
        }
    }

    fn keep(&self, record: &SandboxRecord) -> Result<(), Refusal> {
        self.records.write(record).map_err(|error| {
            Refusal::internal(format!(
                "the network of container {} could not be remembered: {error}",
                record.request.name
            ))
        })
    }

    /// Takes a sandbox back: first from the kernel, then from memory, last from the cluster.
    async fn take_back(&self, container: &ContainerId) {
        let mut inner = self.inner.lock().await;
        let Some(record) = inner.sandboxes.remove(container) else {
            return;
        };
        if inner.adopted {
            let step = Step::RemoveSandbox(container.to_string());
            report("sandbox removal", &self.dataplane.change(vec![step]).await);
        }
        for (network, address) in &record.local {
            inner.addresses.take_back(network, *address);
        }
        if let Err(error) = self.records.remove(container) {
            tracing::warn!(%container, %error, "the sandbox record could not be removed");
        }
        drop(inner);
        self.detach_all(
            record
                .endpoints
                .into_iter()
                .map(|given| given.endpoint)
                .collect(),
        )
        .await;
    }

    async fn check_wish(&self, wish: &NetworkWish) -> Result<(), Refusal> {
        if self.find_local(&wish.network).is_some() {
            return if wish.addresses.is_empty() {
                Ok(())
            } else {
                Err(Refusal::invalid(format!(
                    "a fixed address is not possible on network {}; it is possible on networks you create",
                    wish.network
                )))
            };
        }
        let not_found = || Refusal::not_found(format!("network {} not found", wish.network));
        if self.node().is_empty() {
            return Err(not_found());
        }
        let verb = Verb::NetworkInspect {
            reference: wish.network.clone(),
        };
        match self.cluster.call(verb).await {
            Ok(Answer::Network(network)) if !network.spec.attachable => {
                Err(Refusal::forbidden(format!(
                    "network {} is not attachable; create it with --attachable to run containers on it",
                    network.spec.name
                )))
            }
            Ok(Answer::Network(network)) => wish.addresses.iter().try_for_each(|address| {
                if network.subnets.iter().any(|subnet| subnet.subnet.contains(*address)) {
                    Ok(())
                } else {
                    let subnets: Vec<String> =
                        network.subnets.iter().map(|subnet| subnet.subnet.to_string()).collect();
                    Err(Refusal::invalid(format!(
                        "address {address} is outside {} of network {}; choose one inside or leave it out",
                        subnets.join(", "),
                        network.spec.name
                    )))
                }
            }),
            Ok(other) => Err(unexpected(&other)),
            Err(refusal) if refusal.kind == RefusalKind::NotFound => Err(not_found()),
            Err(refusal) => Err(refusal),
        }
    }

    fn host_only(&self, request: &ConnectRequest) -> Connected {
        Connected {
            resolv_conf: sandbox::resolv_conf(
                request,
                &Resolvers::read(&self.config.resolv_conf),
                false,
            ),
            ..Connected::default()
        }
    }

    /// A namespace with nothing but loopback.
    async fn connect_none(&self, request: &ConnectRequest) -> Result<Connected, Refusal> {
        self.connect_networks(request, &[]).await
    }

    async fn share(
        &self,
        request: &ConnectRequest,
        with: &ContainerId,
    ) -> Result<Connected, Refusal> {
        let inner = self.inner.lock().await;
        match inner.sandboxes.get(with) {
            Some(record) => Ok(record.connected.clone()),
            None => Err(Refusal::conflict(format!(
                "container {} wants the network of container {}, which is not running; start that one first",
                request.name,
                with.short()
            ))),
        }
    }

    async fn adopt_running(&self, running: &[ConnectRequest]) -> Result<(), Refusal> {
        let known: BTreeSet<&ContainerId> = running.iter().map(|r| &r.container).collect();
        let (gone, missing) = {
            let mut inner = self.inner.lock().await;
            let gone: Vec<ContainerId> = inner
                .sandboxes
                .keys()
                .filter(|container| !known.contains(container))
                .cloned()
                .collect();
            let missing: Vec<ConnectRequest> = running
                .iter()
                .filter(|request| {
                    matches!(request.mode, NetworkMode::Networks(_) | NetworkMode::None)
                        && !inner.sandboxes.contains_key(&request.container)
                })
                .cloned()
                .collect();
            for record in inner.sandboxes.values_mut() {
                record.running = known.contains(&record.request.container);
            }
            (gone, missing)
        };
        for container in &gone {
            self.take_back_unadopted(container).await;
        }
        {
            let mut inner = self.inner.lock().await;
            let wish = self.whole_wish(&inner);
            report("start", &self.dataplane.replace(wish).await);
            inner.adopted = true;
            let generation = inner.assignments.generation;
            self.reached.send_replace(generation);
            self.cluster.acknowledge(generation);
        }
        for request in missing {
            tracing::warn!(
                container = request.name,
                "a running container's network record is gone"
            );
        }
        self.untidy.notify_one();
        Ok(())
    }

    /// Before the first wish the kernel is left alone (the wish without the sandbox removes it),
    /// and the endpoint is given back by the tidying.
    async fn take_back_unadopted(&self, container: &ContainerId) {
        let mut inner = self.inner.lock().await;
        let Some(record) = inner.sandboxes.remove(container) else {
            return;
        };
        for (network, address) in &record.local {
            inner.addresses.take_back(network, *address);
        }
        if let Err(error) = self.records.remove(container) {
            tracing::warn!(%container, %error, "the sandbox record could not be removed");
        }
    }
}

impl Inner {
    fn adopt_addresses(&mut self, record: &SandboxRecord, local: &LocalNetworks) {
        for (id, address) in &record.local {
            if let (Some(network), IpAddr::V4(address)) =
                (local.iter().find(|network| network.id == *id), address)
            {
                self.addresses.adopt(network, *address);
            }
        }
    }

    /// Endpoints of running containers that the cluster does not count as active yet.
    fn unannounced(&self) -> Vec<EndpointId> {
        self.sandboxes
            .values()
            .filter(|record| record.running)
            .flat_map(|record| &record.endpoints)
            .filter(|given| {
                self.assignments
                    .endpoints
                    .get(&given.endpoint)
                    .is_some_and(|endpoint| endpoint.state == EndpointState::Allocated)
            })
            .map(|given| given.endpoint.clone())
            .collect()
    }
}

fn endpoints_of(given: &[Option<Attached>]) -> Vec<EndpointId> {
    given
        .iter()
        .flatten()
        .map(|attached| attached.endpoint.id.clone())
        .collect()
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
                    self.check_wish(wish).await?;
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

    fn started<'a>(&'a self, container: &'a ContainerId) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut inner = self.inner.lock().await;
            let Some(record) = inner.sandboxes.get_mut(container) else {
                return;
            };
            record.running = true;
            let record = record.clone();
            if let Err(error) = self.keep(&record) {
                tracing::warn!(%error, "the network of a started container");
            }
            if record.endpoints.is_empty() {
                return;
            }
            let steps = self.sandbox_step(&inner, &record).into_iter().collect();
            report("names", &self.dataplane.change(steps).await);
            self.untidy.notify_one();
        })
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
