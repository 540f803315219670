//! What the dataplane is told: the cluster's word and this host's sandboxes, as one sequence.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use dataplane::{
    Desired, TUNNELS,
    desired::{Change as Step, Interface},
};
use futures_util::FutureExt as _;
use model::{Assignments, ContainerId, EndpointId, EndpointState, Generation, Increment, Refusal};
use runtime::network::{ConnectRequest, NetworkMode};

use super::{
    Inner, Networks, guests,
    local::LocalNetworks,
    pace::Pace,
    paths, ports, published,
    record::{GivenEndpoint, SandboxRecord},
    report, sandbox, translate,
    vips::{self, Backends},
};
use crate::cluster::{AssignmentStream, Update};

/// After which time the hosts' own network follows the hosts.
const LATER: Duration = Duration::from_secs(1);

impl Networks {
    /// Feeds the dataplane with what the cluster says, and acknowledges what the kernel has.
    pub(super) async fn follow_cluster(self: Arc<Self>, mut updates: AssignmentStream) {
        let (mut ahead, mut pace) = (None, Pace::new(Instant::now()));
        loop {
            tokio::time::sleep(pace.pause(Instant::now())).await;
            let update = match ahead.take() {
                Some(update) => Some(update),
                None => updates.next().await,
            };
            let begun = Instant::now();
            let generation = match update {
                None => return,
                Some(Update::Full(assignments)) => self.replace(&assignments).await,
                Some(Update::Increment(first)) => {
                    // What has come meanwhile is carried out with it, in one order.
                    let mut changes = first.changes.clone();
                    let mut generation = first.generation;
                    while let Some(Some(next)) = updates.next().now_or_never() {
                        match next {
                            Update::Increment(more) => {
                                changes.extend(more.changes.iter().cloned());
                                generation = more.generation;
                            }
                            full @ Update::Full(_) => {
                                ahead = Some(full);
                                break;
                            }
                        }
                    }
                    let increment = Increment {
                        generation,
                        changes,
                    };
                    self.step(&increment).await
                }
            };
            if let Some(generation) = generation {
                self.cluster.acknowledge(generation);
            }
            pace.took(begun, begun.elapsed());
        }
    }

    /// Takes a full set over; the generation that the kernel has reached then.
    async fn replace(&self, assignments: &Arc<Assignments>) -> Option<Generation> {
        let mut inner = self.inner.lock().await;
        inner.assignments = (**assignments).clone();
        inner.backends = Backends::of(&inner.assignments);
        self.follow_keys(&inner.assignments);
        if inner.adopted {
            inner.paths = self.path_wish(&inner);
            let wish = self.whole_wish(&inner);
            let laid = self.dataplane.replace(wish).await;
            report("full set", &laid);
            self.reached_keys(&inner.assignments, &laid);
            self.paths.follow(paths::targets(inner.paths.as_ref()));
        }
        self.untidy.notify_one();
        self.reach(&inner, assignments.generation)
    }

    async fn step(&self, increment: &Increment) -> Option<Generation> {
        let node = self.node();
        let mut inner = self.inner.lock().await;
        let gone = vips::routes_before(&increment.changes, &inner.assignments);
        let inner = &mut *inner;
        inner.assignments.apply(increment);
        let vips = inner
            .backends
            .follow(&increment.changes, &gone, &inner.assignments, &node);
        let hosts = |change: &model::Change| {
            matches!(
                change,
                model::Change::SetPeer(..) | model::Change::RemovePeer(_)
            )
        };
        let hosts_changed = increment.changes.iter().any(hosts);
        if hosts_changed {
            self.follow_keys(&inner.assignments);
        }
        if inner.adopted {
            let changes = increment.changes.iter();
            let tunnels = self.config.keys.tunnels();
            let of =
                |change| translate::cluster_change(change, &inner.assignments, &node, &tunnels);
            let mut steps: Vec<Step> = changes.flat_map(of).collect();
            steps.extend(vips);
            steps.extend(self.touched_sandboxes(inner, &increment.changes));
            if hosts_changed {
                self.hosts_changed.notify_one();
            }
            if !steps.is_empty() {
                let laid = self.dataplane.change(steps).await;
                report("increment", &laid);
                if hosts_changed {
                    self.reached_keys(&inner.assignments, &laid);
                }
            }
        }
        self.reach(inner, increment.generation)
    }

    /// Lays the hosts' own network. Nobody waits for it, and others wait for what comes with the
    /// same change of hosts: it follows a little later, many changes at once.
    pub(super) async fn follow_hosts(self: Arc<Self>) {
        loop {
            self.hosts_changed.notified().await;
            tokio::time::sleep(LATER).await;
            let mut inner = self.inner.lock().await;
            if !inner.adopted {
                continue;
            }
            let paths = self.path_wish(&inner);
            let steps = paths::steps(inner.paths.as_ref(), paths.as_ref());
            inner.paths = paths;
            let laid = (!steps.is_empty()).then(|| self.dataplane.change(steps));
            drop(inner);
            if let Some(laid) = laid {
                report("the hosts' own network", &laid.await);
            }
            let inner = self.inner.lock().await;
            self.paths.follow(paths::targets(inner.paths.as_ref()));
        }
    }

    /// Has the keys that the cluster asks for, and tells it of new ones.
    fn follow_keys(&self, assignments: &Assignments) {
        let own = assignments.peers.get(&self.node());
        if let Some(phase) = own.and_then(|own| own.phase.as_ref())
            && self.config.keys.follow(phase)
        {
            self.cluster.describe();
        }
    }

    /// Tells the cluster which generations of keys the kernel has by now. A host whose kernel does
    /// not follow says nothing, and the cluster goes on with the keys that it has.
    fn reached_keys(&self, assignments: &Assignments, laid: &dataplane::Report) {
        let of = |scope| laid.of(scope).next().is_some();
        if of("host") || of(TUNNELS) {
            return;
        }
        let node = self.node();
        let own = assignments.peers.get(&node);
        let Some(phase) = own.and_then(|own| own.phase) else {
            return;
        };
        let mut others = assignments.peers.iter().filter(|(id, _)| **id != node);
        let told = others.all(|(_, peer)| {
            peer.down || peer.keys.iter().any(|key| key.generation == phase.newest)
        });
        let receives = if told { phase.newest } else { phase.sending };
        if self.config.keys.reached(receives, phase.sending) {
            self.cluster.describe();
        }
    }

    /// Tells the cluster what is in the way of this host's tunnels.
    pub(super) async fn follow_tunnels(self: Arc<Self>) {
        let mut status = self.dataplane.status();
        loop {
            let trouble = tunnel_trouble(&status.borrow_and_update());
            if self.config.keys.note_trouble(trouble) {
                self.cluster.describe();
            }
            if status.changed().await.is_err() {
                return;
            }
        }
    }

    fn reach(&self, inner: &Inner, generation: Generation) -> Option<Generation> {
        inner.adopted.then(|| {
            self.reached.send_replace(generation);
            generation
        })
    }

    pub(super) async fn adopt_running(&self, running: &[ConnectRequest]) -> Result<(), Refusal> {
        let known: BTreeSet<&ContainerId> = running.iter().map(|r| &r.container).collect();
        let (gone, missing) = {
            let mut inner = self.inner.lock().await;
            let stays = |record: &SandboxRecord| {
                known.contains(&record.request.container) || guests::is_there(record)
            };
            let gone: Vec<ContainerId> = inner
                .sandboxes
                .iter()
                .filter(|(_, record)| !stays(record))
                .map(|(container, _)| container.clone())
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
                record.running = guests::is_up(record) || known.contains(&record.request.container);
            }
            (gone, missing)
        };
        for container in &gone {
            self.take_back_unadopted(container).await;
        }
        {
            let mut inner = self.inner.lock().await;
            self.follow_keys(&inner.assignments);
            inner.paths = self.path_wish(&inner);
            let wish = self.whole_wish(&inner);
            let laid = self.dataplane.replace(wish).await;
            report("start", &laid);
            self.reached_keys(&inner.assignments, &laid);
            self.paths.follow(paths::targets(inner.paths.as_ref()));
            let differs = |request: &&ConnectRequest| {
                let record = inner.sandboxes.get(&request.container);
                record.is_some_and(|record| record.request.mode != request.mode)
            };
            let left = running.iter().filter(differs).cloned();
            inner.left = left.map(|one| (one.container.clone(), one)).collect();
            inner.adopted = true;
            let generation = inner.assignments.generation;
            self.reached.send_replace(generation);
            self.cluster.acknowledge(generation);
        }
        // A kill may have come between a container's new name and its network's.
        for request in running {
            self.rename(request).await;
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

    /// Sandboxes that an increment touches. A network that comes back (a manager was away when
    /// it was needed) brings back the interfaces that were left out; a task's endpoint that is
    /// in use from now on, or no longer, brings or takes its names.
    fn touched_sandboxes(&self, inner: &Inner, changes: &[model::Change]) -> Vec<Step> {
        let node = self.node();
        let mut networks: BTreeSet<&str> = BTreeSet::new();
        let mut endpoints: BTreeSet<&str> = BTreeSet::new();
        for change in changes {
            match change {
                model::Change::SetNetwork(network) => {
                    networks.insert(network.id.as_str());
                }
                model::Change::SetEndpoint(endpoint) if endpoint.node == node => {
                    endpoints.insert(endpoint.id.as_str());
                }
                _ => {}
            }
        }
        if networks.is_empty() && endpoints.is_empty() {
            return Vec::new();
        }
        let touched = |record: &&SandboxRecord| {
            let by_network = |i: &Interface| networks.contains(i.network.as_str());
            let by_endpoint =
                |given: &GivenEndpoint| given.task && endpoints.contains(given.endpoint.as_str());
            record.interfaces.iter().any(by_network) || record.endpoints.iter().any(by_endpoint)
        };
        inner
            .sandboxes
            .values()
            .filter(touched)
            .filter_map(|record| self.sandbox_step(inner, record))
            .collect()
    }

    pub(super) fn sandbox_step(&self, inner: &Inner, record: &SandboxRecord) -> Option<Step> {
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
        networks.extend(self.local.borrow().iter().map(|one| one.id.clone()));
        let names = |id: &EndpointId| {
            let endpoint = inner.assignments.endpoints.get(id);
            endpoint
                .filter(|endpoint| endpoint.state == EndpointState::Active)
                .map(|endpoint| endpoint.names.clone())
                .unwrap_or_default()
        };
        let wish = sandbox::wish(record, netns, &networks, names, &self.upstreams());
        Some(Step::SetSandbox(record.request.container.to_string(), wish))
    }

    fn path_wish(&self, inner: &Inner) -> Option<paths::PathWish> {
        paths::wish(&inner.assignments, &self.node(), &self.config.run_dir)
    }

    pub(super) fn whole_wish(&self, inner: &Inner) -> Desired {
        let tunnels = self.config.keys.tunnels();
        let mut wish = translate::cluster_wish(&inner.assignments, &self.node(), &tunnels);
        wish.vips = inner.backends.all(&inner.assignments);
        wish.published = published::all(&inner.assignments, &inner.backends, &self.node());
        for network in &self.local.borrow().custom {
            wish.apply(Step::SetNetwork(
                network.id.clone(),
                sandbox::local_wish(network),
            ));
        }
        for record in inner.sandboxes.values() {
            for step in self.local_steps(record) {
                wish.apply(step);
            }
            if let Some(step) = self.sandbox_step(inner, record) {
                wish.apply(step);
            }
            for step in ports::steps(record) {
                wish.apply(step);
            }
        }
        paths::add(inner.paths.as_ref(), &mut wish);
        wish
    }

    /// The local networks that a sandbox stands on.
    pub(super) fn local_steps(&self, record: &SandboxRecord) -> Vec<Step> {
        self.local
            .borrow()
            .iter()
            .filter(|network| record.interfaces.iter().any(|i| i.network == network.id))
            .map(|network| Step::SetNetwork(network.id.clone(), sandbox::local_wish(network)))
            .collect()
    }
}

impl Inner {
    pub(super) fn adopt_addresses(&mut self, record: &SandboxRecord, local: &LocalNetworks) {
        for (id, address) in &record.local {
            if let Some(network) = local.get(id) {
                self.addresses.adopt(network, *address);
            }
        }
    }
}

/// What of the tunnels could not be done, and still cannot.
pub(super) fn tunnel_trouble(status: &dataplane::Status) -> Option<String> {
    let failed = status.failed.iter().map(|standing| &standing.failure);
    let mut of_tunnels = failed.filter(|failure| failure.scope == TUNNELS);
    of_tunnels.next().map(|failure| failure.sentence.clone())
}
