//! Networks of a container that exists: one more, or one less.

use std::sync::Arc;

use model::Refusal;

use super::{Engine, container::Container, machine::Phase, run::flatten};
use crate::network::{ConnectRequest, NetworkMode, NetworkWish, find_wish};

impl Engine {
    /// A running container gets its interface at once, one that rests with its next start. `id` is
    /// the network's. Refused for containers that have the host's network, another's, or none.
    pub async fn network_connect(
        &self,
        reference: &str,
        wish: NetworkWish,
        id: &str,
    ) -> Result<(), Refusal> {
        let id = id.to_owned();
        self.rewire(reference, move |container, wishes| {
            if find_wish(wishes, &wish.network, &id).is_some() {
                return Err(Refusal::forbidden(format!(
                    "endpoint with name {container} already exists in network {}",
                    wish.network
                )));
            }
            wishes.push(wish);
            Ok(())
        })
        .await
    }

    /// Takes it from the network of this name and id.
    pub async fn network_disconnect(
        &self,
        reference: &str,
        name: &str,
        id: &str,
    ) -> Result<(), Refusal> {
        let (name, id) = (name.to_owned(), id.to_owned());
        self.rewire(reference, move |container, wishes| {
            let Some(place) = find_wish(wishes, &name, &id) else {
                return Err(Refusal::forbidden(format!(
                    "container {container} is not connected to network {name}"
                )));
            };
            wishes.remove(place);
            Ok(())
        })
        .await
    }

    async fn rewire(
        &self,
        reference: &str,
        edit: impl FnOnce(&str, &mut Vec<NetworkWish>) -> Result<(), Refusal> + Send + 'static,
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
        edit: impl FnOnce(&str, &mut Vec<NetworkWish>) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let request = container.connect_request();
        let NetworkMode::Networks(mut wishes) = request.mode else {
            let name = request.name;
            return Err(Refusal::forbidden(format!(
                "container {name} was made with --network host, none or container:NAME and keeps it; make it anew on the networks that it needs"
            )));
        };
        edit(&request.name, &mut wishes)?;
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
        let runs = connected.is_some();
        container.change_durably(|record| {
            record.spec.network = request.mode;
            if let Some(connected) = connected {
                record.network = connected;
            }
        })?;
        // One that rests comes to its networks with its start.
        if runs {
            self.tell_networks(&container.id);
        }
        Ok(())
    }
}
