//! Sandboxes: checked before anything is made, made when a container starts, taken back when it ends.

use std::net::IpAddr;

use dataplane::{Report, TUNNELS, desired::Change as Step};
use model::{
    ContainerId, EndpointOwner, Refusal, RefusalKind,
    control::{Answer, Attached, Verb},
};
use runtime::network::{ConnectRequest, Connected, NetworkWish};

use super::{
    Inner, Networks,
    endpoints::endpoints_of,
    local::{self, LocalNetwork},
    ports,
    record::{GivenEndpoint, SandboxRecord},
    report,
    sandbox::{self, Given},
    unexpected,
    wishes::tunnel_trouble,
};
use crate::host::Resolvers;

impl Networks {
    pub(super) async fn check_wish(&self, wish: &NetworkWish) -> Result<(), Refusal> {
        if let Some(network) = self.local_of(wish) {
            return local::check(&network, &wish.addresses);
        }
        // What the manager gave needs no leave: it waits for it when it connects.
        if wish.endpoint.is_some() {
            return Ok(());
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

    pub(super) fn host_only(&self, request: &ConnectRequest) -> Connected {
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
    pub(super) async fn connect_none(
        &self,
        request: &ConnectRequest,
    ) -> Result<Connected, Refusal> {
        self.connect_networks(request, &[]).await
    }

    pub(super) async fn share(
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

    pub(super) async fn connect_networks(
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
        let attached = match self.attach_all(request, wishes).await {
            Ok(attached) => attached,
            Err(refusal) => return Err(self.missing(wishes).await.unwrap_or(refusal)),
        };
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
        let ports = match self.choose_ports(&inner, request).await {
            Ok(ports) => ports,
            Err(refusal) => {
                drop(inner);
                self.detach_all(endpoints_of(&attached)).await;
                return Err(refusal);
            }
        };
        let record = match self.record(&mut inner, request, wishes, &attached) {
            Ok(mut record) => {
                record.connected.ports = ports;
                record
            }
            Err(refusal) => {
                drop(inner);
                self.give_up(&ports);
                self.detach_all(endpoints_of(&attached)).await;
                return Err(refusal);
            }
        };
        let outcome = self.program(&mut inner, &record);
        // Others need not wait for the kernel.
        drop(inner);
        let outcome = match outcome {
            Ok(report) => {
                let report = report.await;
                made(&record, &report).and_then(|()| self.encrypts(&attached, &report))
            }
            Err(refusal) => Err(refusal),
        };
        match outcome {
            Ok(()) => Ok(record.connected),
            Err(refusal) => {
                self.take_back(&request.container).await;
                Err(refusal)
            }
        }
    }

    /// That there is no such network says more than how it was looked for.
    async fn missing(&self, wishes: &[NetworkWish]) -> Option<Refusal> {
        for wish in wishes {
            if let Err(refusal) = self.check_wish(wish).await
                && refusal.kind == RefusalKind::NotFound
            {
                return Some(refusal);
            }
        }
        None
    }

    /// Refused where the tunnels of an encrypted network cannot be set up: the container would reach
    /// nobody, and a task of it says why, or goes to another host.
    fn encrypts(&self, attached: &[Option<Attached>], report: &Report) -> Result<(), Refusal> {
        let mut networks = attached.iter().flatten().map(|attached| &attached.network);
        let Some(network) = networks.find(|network| network.is_encrypted()) else {
            return Ok(());
        };
        let now = report.of(TUNNELS).next().map(|one| one.sentence.clone());
        let trouble = now.or_else(|| tunnel_trouble(&self.dataplane.status().borrow()));
        match trouble {
            None => Ok(()),
            Some(trouble) => Err(Refusal::unavailable(format!(
                "network {} is encrypted, and this host's tunnels are not there: {trouble}; `ovnctl doctor` on this host says what to do",
                network.spec.name
            ))),
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
        for attached in attached.iter().flatten() {
            if attached.network.is_encrypted() {
                self.config.keys.check(&attached.network.spec.name)?;
            }
        }
        // All are there before the first address is given.
        let networks: Result<Vec<_>, _> = wishes
            .iter()
            .zip(attached)
            .map(|(wish, attached)| match attached {
                Some(attached) => Ok(Way::Overlay(attached)),
                None => self
                    .local_of(wish)
                    .map(|network| Way::Local(Box::new(network)))
                    .ok_or_else(|| {
                        Refusal::not_found(format!("network {} not found", wish.network))
                    }),
            })
            .collect();
        let mut given = Vec::new();
        let mut local: Vec<(String, IpAddr)> = Vec::new();
        let mut give = |inner: &mut Inner, network: &LocalNetwork, wanted: &[IpAddr]| {
            let addresses = inner.addresses.give(network, wanted).inspect_err(|_| {
                for (network, address) in &local {
                    inner.addresses.take_back(network, *address);
                }
            })?;
            let given = addresses.iter().map(|one| (network.id.clone(), one.ip()));
            local.extend(given);
            Ok::<_, Refusal>(addresses)
        };
        for (wish, network) in wishes.iter().zip(networks?) {
            let aliases = wish.aliases.clone();
            given.push(match network {
                Way::Overlay(attached) => Given::Overlay {
                    attached: Box::new(attached.clone()),
                    aliases,
                },
                Way::Local(network) => {
                    let addresses = give(inner, &network, &wish.addresses)?;
                    Given::Local {
                        names: sandbox::local_names(request, wish, &network),
                        network,
                        addresses,
                        aliases,
                    }
                }
            });
        }
        let has_way_out = given.iter().any(Given::is_way_out);
        let wants_egress = sandbox::wants_egress(attached.iter().flatten());
        if wants_egress && !has_way_out {
            let network = self.local_networks().gateway_bridge.clone();
            let addresses = give(inner, &network, &[])?;
            given.push(Given::Local {
                network: Box::new(network),
                addresses,
                aliases: Vec::new(),
                names: Vec::new(),
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
                    task: matches!(attached.endpoint.owner, EndpointOwner::Task { .. }),
                })
                .collect(),
            local,
            running: false,
            guest: None,
            connected: Connected {
                netns: Some(sandbox::netns_path(
                    &self.config.run_dir,
                    &request.container,
                )),
                resolv_conf: sandbox::resolv_conf(request, &resolvers, !given.is_empty()),
                hosts,
                endpoints,
                ports: Vec::new(),
                late: attached
                    .iter()
                    .flatten()
                    .flat_map(|a| a.late.clone())
                    .collect(),
            },
            request: request.clone(),
        })
    }

    /// The kernel is on its way to it when this returns.
    pub(super) fn program<'a>(
        &'a self,
        inner: &mut Inner,
        record: &SandboxRecord,
    ) -> Result<impl Future<Output = Report> + use<'a>, Refusal> {
        // In memory first: what cannot be written is taken back by what is known of it.
        inner
            .sandboxes
            .insert(record.request.container.clone(), record.clone());
        self.keep(record)?;
        let mut steps = self.local_steps(record);
        steps.extend(self.sandbox_step(inner, record));
        steps.extend(ports::steps(record));
        Ok(self.dataplane.change(steps))
    }

    pub(super) fn keep(&self, record: &SandboxRecord) -> Result<(), Refusal> {
        self.records.write(record).map_err(|error| {
            Refusal::internal(format!(
                "the network of container {} could not be remembered: {error}",
                record.request.name
            ))
        })
    }

    /// Takes a sandbox back: first from the kernel, then from memory, last from the cluster.
    pub(super) async fn take_back(&self, container: &ContainerId) {
        let mut inner = self.inner.lock().await;
        let Some(record) = inner.sandboxes.remove(container) else {
            return;
        };
        if inner.adopted {
            let mut steps = ports::removals(&record);
            steps.push(Step::RemoveSandbox(container.to_string()));
            let removed = self.dataplane.change(steps);
            // Others need not wait for the kernel.
            drop(inner);
            report("sandbox removal", &removed.await);
            inner = self.inner.lock().await;
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
                .filter(|given| !given.task)
                .map(|given| given.endpoint)
                .collect(),
        )
        .await;
    }
}

/// What a wish leads to.
enum Way<'a> {
    Overlay(&'a Attached),
    Local(Box<LocalNetwork>),
}

/// What all encrypted networks stand on concerns nobody else; [`Networks::encrypts`] tells of it.
pub(super) fn made(record: &SandboxRecord, report: &Report) -> Result<(), Refusal> {
    let mut failures = report.failures.iter();
    match failures.find(|failure| failure.scope != TUNNELS) {
        None => Ok(()),
        Some(failure) => Err(Refusal::internal(format!(
            "the network of container {} could not be made: {failure}",
            record.request.name
        ))),
    }
}
