//! What Docker's containers are called in DNS. Docker does not tell its plugins; the name is in an option of
//! the endpoint, or is asked for once the container runs, and until then it is one of the endpoint's id.

use std::{sync::Arc, time::Duration};

use model::name::check_container_name;

use super::{Plugin, networks::owner, wire::Options};
use crate::network::guests::Which;

/// Of `docker run --network name=…,driver-opt=…`.
const NAME: &str = "overnet.name";
const FIRST: Duration = Duration::from_millis(50);
const LAST: Duration = Duration::from_secs(10);

/// The name that the user has given.
pub(super) fn name_of(options: &Options) -> Option<String> {
    let name = options.get(NAME)?.as_str()?;
    Some(name.to_owned())
}

/// Of an endpoint whose container's name is not known.
pub(super) fn provisional(endpoint: &str) -> String {
    format!("docker-{}", endpoint.get(..12).unwrap_or(endpoint))
}

/// The endpoint of Docker's, of a guest whose owner and name are these, if it has no other name yet.
fn unnamed<'a>(owner_text: &'a str, name: &str) -> Option<&'a str> {
    let endpoint = owner_text.strip_prefix(&owner(""))?;
    (provisional(endpoint) == name).then_some(endpoint)
}

impl Plugin {
    /// Asks for the names of those that have none yet, after a start and after each that comes.
    pub(super) async fn name_containers(self: Arc<Self>) {
        let mut pause = FIRST;
        loop {
            let left = self.name_once().await;
            if left == 0 {
                self.unnamed.notified().await;
                pause = FIRST;
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LAST),
                () = self.unnamed.notified() => pause = FIRST,
            }
        }
    }

    /// How many are left.
    async fn name_once(&self) -> usize {
        let guests = self.networks.guest_endpoints(&Which::default()).await;
        let endpoints: Vec<&str> = guests
            .iter()
            .filter_map(|guest| unnamed(&guest.owner, guest.endpoint.dns_names.first()?))
            .collect();
        if endpoints.is_empty() {
            return 0;
        }
        let containers = match self.docker.containers().await {
            Ok(containers) => containers,
            Err(refusal) => {
                tracing::debug!(%refusal, "names of containers are asked for later");
                return endpoints.len();
            }
        };
        let mut left = 0;
        for endpoint in endpoints {
            let container = containers.iter().find(|one| one.has(endpoint));
            let named = container.and_then(|one| Some((one, one.name()?)));
            let Some((container, name)) = named else {
                left += 1;
                continue;
            };
            let aliases = self.docker.aliases(&container.id, endpoint).await;
            let mut aliases = aliases.unwrap_or_default();
            aliases.retain(|alias| check_container_name(alias).is_ok());
            let owner = owner(endpoint);
            let told = self.networks.name_guest(&owner, name, &aliases);
            if let Err(refusal) = told.await {
                tracing::debug!(name, %refusal, "the container has gone meanwhile");
            }
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_ours_are_replaced() {
        let endpoint = "0123456789abcdef0123";
        assert_eq!(provisional(endpoint), "docker-0123456789ab");
        let owner = owner(endpoint);
        assert_eq!(unnamed(&owner, "docker-0123456789ab"), Some(endpoint));
        assert_eq!(unnamed(&owner, "web"), None);
        assert_eq!(unnamed("cni x", "docker-0123456789ab"), None);
    }
}
