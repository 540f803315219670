//! Networks of a container that exists: one more, or one less.

use std::sync::Arc;

use model::Refusal;

use super::{Engine, container::Container, machine::Phase, run::flatten};
use crate::network::{ConnectRequest, NetworkMode, NetworkWish};

impl Engine {
    /// A running container gets its interface at once, one that rests with its next start.
    /// Refused for containers that have the host's network, another's, or none.
    pub async fn network_connect(&self, reference: &str, wish: NetworkWish) -> Result<(), Refusal> {
        self.rewire(reference, |container, wishes| {
            if wishes.iter().any(|one| one.network == wish.network) {
                return Err(Refusal::forbidden(format!(
                    "endpoint with name {} already exists in network {}",
                    container.record().name,
                    wish.network
                )));
            }
            wishes.push(wish);
            Ok(())
        })
        .await
    }

    /// `is_it` knows the network by what the user wrote when the container was made or connected.
    pub async fn network_disconnect(
        &self,
        reference: &str,
        network: &str,
        is_it: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<(), Refusal> {
        let network = network.to_owned();
        self.rewire(reference, move |container, wishes| {
            let before = wishes.len();
            wishes.retain(|wish| !is_it(&wish.network));
            if wishes.len() == before {
                return Err(Refusal::forbidden(format!(
                    "container {} is not connected to network {network}",
                    container.record().name
                )));
            }
            Ok(())
        })
        .await
    }

    async fn rewire(
        &self,
        reference: &str,
        edit: impl FnOnce(&Container, &mut Vec<NetworkWish>) -> Result<(), Refusal> + Send + 'static,
    ) -> Result<(), Refusal> {
        let container = self.find(reference)?;
        let this = self.arc();
        // On its own task: a client that goes away must not leave it half done.
        let work = self.tasks.spawn(async move {
            let _turn = container.turn.lock().await;
            this.rewire_held(&container, edit).await
        });
        flatten(work.await)
    }

    async fn rewire_held(
        &self,
        container: &Arc<Container>,
        edit: impl FnOnce(&Container, &mut Vec<NetworkWish>) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let request = container.connect_request();
        let NetworkMode::Networks(mut wishes) = request.mode else {
            let name = container.record().name.clone();
            return Err(Refusal::forbidden(format!(
                "container {name} was made with --network host, none or container:NAME and keeps it; make it anew on the networks that it needs"
            )));
        };
        edit(container, &mut wishes)?;
        let request = ConnectRequest {
            mode: NetworkMode::Networks(wishes),
            ..request
        };
        let connected = match container.phase() {
            Phase::Running | Phase::Paused => Some(self.config.network.rewire(&request).await?),
            // Between two runs its sandbox stays as it is.
            Phase::Restarting => {
                return Err(Refusal::conflict(format!(
                    "container {} is restarting; try again when it runs, or stop it first",
                    request.name
                )));
            }
            Phase::Created | Phase::Exited | Phase::Removing => {
                self.config.network.check(&request).await?;
                None
            }
        };
        container.change_durably(|record| {
            record.spec.network = request.mode;
            if let Some(connected) = connected {
                record.network = connected;
            }
        })?;
        self.tell_networks(&container.id);
        Ok(())
    }
}
