//! What the manager gives this host's containers, and what is given back to it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use model::{
    EndpointId, EndpointOwner, EndpointState, Generation, Refusal, RefusalKind,
    control::{Answer, AttachRequest, Attached, Verb},
};
use runtime::network::{ConnectRequest, NetworkWish};

use super::{Inner, Networks, sandbox, unexpected};

/// How long the manager waits for an address when only resting ones remain: several rests, since
/// others wait for the same ones, and less than a call may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long this host may take to program what it was told before a start is refused.
const OWN_PATIENCE: Duration = Duration::from_secs(10);
/// How long a stopping container waits for the manager to take its endpoint back; after that
/// it is taken back in the background.
const DETACH_PATIENCE: Duration = Duration::from_secs(3);

impl Networks {
    pub(super) async fn attach_all(
        &self,
        request: &ConnectRequest,
        wishes: &[NetworkWish],
    ) -> Result<Vec<Option<Attached>>, Refusal> {
        let mut given = Vec::new();
        for wish in wishes {
            if self.local_of(wish).is_some() {
                given.push(None);
                continue;
            }
            if let Some(endpoint) = &wish.endpoint {
                match self.assigned(endpoint).await {
                    Ok(attached) => given.push(Some(attached)),
                    Err(refusal) => {
                        self.detach_all(endpoints_of(&given)).await;
                        return Err(refusal);
                    }
                }
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

    /// An endpoint that the manager gave with a task; waited for until this host's kernel knows
    /// the network it is on.
    async fn assigned(&self, id: &EndpointId) -> Result<Attached, Refusal> {
        let mut reached = self.reached.subscribe();
        let found = async {
            loop {
                reached.borrow_and_update();
                let inner = self.inner.lock().await;
                let assignments = &inner.assignments;
                let endpoint = assignments.endpoints.get(id);
                let network = endpoint.and_then(|e| assignments.networks.get(&e.network));
                if let (Some(endpoint), Some(network)) = (endpoint, network) {
                    return Some(Attached {
                        endpoint: endpoint.clone(),
                        network: network.clone(),
                        generation: assignments.generation,
                        late: Vec::new(),
                    });
                }
                drop(inner);
                reached.changed().await.ok()?;
            }
        };
        match tokio::time::timeout(OWN_PATIENCE, found).await {
            Ok(Some(attached)) => Ok(attached),
            _ => Err(Refusal::unavailable(format!(
                "the address that the manager gave (endpoint {id}) is not known to this host; see `ovnctl info` and the log of ovnd"
            ))),
        }
    }

    /// Gives endpoints back; what cannot be given back now is owed.
    pub(super) async fn detach_all(&self, endpoints: Vec<EndpointId>) {
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
    pub(super) async fn wait_reached(&self, generation: Generation) -> Result<(), Refusal> {
        let mut reached = self.reached.subscribe();
        let wait = reached.wait_for(|reached| *reached >= generation);
        match tokio::time::timeout(OWN_PATIENCE, wait).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Refusal::unavailable(format!(
                "this host has not received state {generation} from its manager within {OWN_PATIENCE:?}; see `ovnctl info` and the log of ovnd"
            ))),
        }
    }

    /// Takes back what the manager still counts as this host's and no container has, and goes
    /// on until nothing is owed.
    pub(super) async fn tidy(self: Arc<Self>) {
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
        self.rewire_left().await?;
        let (stale, unannounced, misnamed) = {
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
            (stale, inner.unannounced(), inner.misnamed())
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
        for (endpoint, names) in misnamed {
            let verb = Verb::EndpointName { endpoint, names };
            match self.cluster.call(verb).await {
                Err(refusal) if refusal.kind == RefusalKind::Unavailable => return Err(refusal),
                Err(refusal) => tracing::warn!(%refusal, "an endpoint keeps the names it had"),
                Ok(_) => {}
            }
        }
        Ok(())
    }
}

impl Inner {
    /// Endpoints of running containers that the cluster does not count as active yet.
    fn unannounced(&self) -> Vec<EndpointId> {
        self.sandboxes
            .values()
            .filter(|record| record.running)
            .flat_map(|record| &record.endpoints)
            .filter(|given| !given.task)
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

impl Inner {
    /// Endpoints that the cluster knows by other names than their containers have.
    fn misnamed(&self) -> Vec<(EndpointId, Vec<String>)> {
        let given = self.sandboxes.values().flat_map(|record| &record.endpoints);
        given
            .filter(|given| !given.task)
            .filter(|given| {
                let known = self.assignments.endpoints.get(&given.endpoint);
                known.is_some_and(|endpoint| endpoint.names != given.names)
            })
            .map(|given| (given.endpoint.clone(), given.names.clone()))
            .collect()
    }
}

/// Those of them that this host asked for, and so gives back.
pub(super) fn endpoints_of(given: &[Option<Attached>]) -> Vec<EndpointId> {
    given
        .iter()
        .flatten()
        .filter(|attached| matches!(attached.endpoint.owner, EndpointOwner::Container { .. }))
        .map(|attached| attached.endpoint.id.clone())
        .collect()
}
