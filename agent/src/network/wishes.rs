//! What the dataplane is told: the cluster's word and this host's sandboxes, as one sequence.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use dataplane::{Desired, desired::Change as Step};
use model::{ContainerId, Refusal};
use runtime::network::{ConnectRequest, NetworkMode};

use super::{
    Inner, Networks, local::LocalNetworks, record::SandboxRecord, report, sandbox, translate,
};
use crate::cluster::{AssignmentStream, Update};

impl Networks {
    /// Feeds the dataplane with what the cluster says, and acknowledges what the kernel has.
    pub(super) async fn follow_cluster(self: Arc<Self>, mut updates: AssignmentStream) {
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

    pub(super) async fn adopt_running(&self, running: &[ConnectRequest]) -> Result<(), Refusal> {
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
        networks.extend(self.local.iter().map(|network| network.id.clone()));
        let wish = sandbox::wish(record, netns, &networks, &self.upstreams());
        Some(Step::SetSandbox(record.request.container.to_string(), wish))
    }

    pub(super) fn whole_wish(&self, inner: &Inner) -> Desired {
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
    pub(super) fn local_steps(&self, record: &SandboxRecord) -> Vec<Step> {
        self.local
            .iter()
            .filter(|network| record.interfaces.iter().any(|i| i.network == network.id))
            .map(|network| Step::SetNetwork(network.id.clone(), sandbox::local_wish(network)))
            .collect()
    }
}

impl Inner {
    pub(super) fn adopt_addresses(&mut self, record: &SandboxRecord, local: &LocalNetworks) {
        for (id, address) in &record.local {
            if let (Some(network), IpAddr::V4(address)) =
                (local.iter().find(|network| network.id == *id), address)
            {
                self.addresses.adopt(network, *address);
            }
        }
    }
}
