//! Networks of the driver `bridge` that users make and remove.

use std::{sync::Arc, time::Duration};

use dataplane::desired::Change as Step;
use model::{
    ContainerId, NetworkSpec, Refusal,
    control::{Answer, Verb},
};

use super::{
    Inner, Networks,
    local::{self, LocalNetwork, LocalNetworks, Taken},
    report, sandbox,
};
use crate::host;

/// How long the cluster is asked for its networks; then what this host knows of them counts.
const PATIENCE: Duration = Duration::from_secs(3);

impl Networks {
    /// Makes a network of this host's own: on disk first, then in the kernel.
    pub async fn create_network(&self, spec: NetworkSpec) -> Result<LocalNetwork, Refusal> {
        let of_cluster = self.cluster_subnets().await;
        let mut inner = self.inner.lock().await;
        let mut taken: Vec<Taken> = host::routes().into_iter().map(Taken::Route).collect();
        taken.extend(host::devices().into_iter().map(Taken::Device));
        taken.extend(inner.assignments.networks.values().map(in_cluster));
        taken.extend(of_cluster);
        let before = self.local_networks();
        let id = ContainerId::from_random(rand::random()).to_string();
        let network = local::plan(spec, id, crate::clock::now_nanos(), &before, &taken)?;
        self.keep_local(before.with(network.clone()))?;
        if inner.adopted {
            let wish = sandbox::local_wish(&network);
            let steps = vec![Step::SetNetwork(network.id.clone(), wish)];
            // Under the lock: nobody connects to a network that may have to be forgotten.
            if let Some(failure) = self.dataplane.change(steps).await.failures.first() {
                self.forget_local(&mut inner, &network).await?;
                return Err(Refusal::internal(format!(
                    "network {} could not be made: {failure}",
                    network.name()
                )));
            }
        }
        Ok(network)
    }

    /// Removes one that no container is on.
    pub async fn remove_network(&self, id: &str) -> Result<(), Refusal> {
        let mut inner = self.inner.lock().await;
        let local = self.local_networks();
        let Some(network) = local.custom.iter().find(|one| one.id == id) else {
            return Err(Refusal::not_found(format!("network {id} not found")));
        };
        let on_it = |interface: &dataplane::desired::Interface| interface.network == id;
        let records = inner.sandboxes.values();
        let users: Vec<String> = records
            .filter(|record| record.interfaces.iter().any(on_it))
            .map(|record| record.request.name.clone())
            .collect();
        if !users.is_empty() {
            return Err(Refusal::forbidden(format!(
                "error while removing network: network {} has active endpoints ({}); stop these containers or disconnect them first",
                network.name(),
                users.join(", ")
            )));
        }
        self.forget_local(&mut inner, network).await
    }

    async fn forget_local(&self, inner: &mut Inner, network: &LocalNetwork) -> Result<(), Refusal> {
        self.keep_local(self.local_networks().without(&network.id))?;
        inner.addresses.forget(&network.id);
        if inner.adopted {
            let steps = vec![Step::RemoveNetwork(network.id.clone())];
            report("network removal", &self.dataplane.change(steps).await);
        }
        Ok(())
    }

    /// Under the lock of `inner`.
    fn keep_local(&self, networks: LocalNetworks) -> Result<(), Refusal> {
        networks.keep(&self.config.root.join("network"))?;
        self.local.send_replace(Arc::new(networks));
        Ok(())
    }

    /// Names and subnets of the cluster's networks; none that can be had is no reason to refuse,
    /// since this host's own networks need no manager.
    async fn cluster_subnets(&self) -> Vec<Taken> {
        if self.node().is_empty() {
            return Vec::new();
        }
        let asked = self.cluster.call(Verb::NetworkList);
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(Answer::Networks(networks))) => networks.iter().map(in_cluster).collect(),
            answer => {
                tracing::warn!(?answer, "the cluster's networks are not known in full");
                Vec::new()
            }
        }
    }
}

fn in_cluster(network: &model::Network) -> Taken {
    Taken::Cluster {
        name: network.spec.name.clone(),
        subnets: network.subnets.iter().map(|one| one.subnet).collect(),
    }
}
