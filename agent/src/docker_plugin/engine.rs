//! What is asked of the Docker Engine itself: the names of its networks and containers, which it does not
//! tell its plugins.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use model::Refusal;
use serde::{Deserialize, de::DeserializeOwned};

use crate::wish;

/// How long Docker may take for an answer: it asks us while we ask it.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct DockerEngine {
    socket: PathBuf,
}

impl Default for DockerEngine {
    fn default() -> Self {
        Self {
            socket: PathBuf::from("/run/docker.sock"),
        }
    }
}

/// Of `GET /networks`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Network {
    #[serde(rename = "Id")]
    id: String,
    name: String,
    options: Option<BTreeMap<String, String>>,
}

/// Of `GET /containers/json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Container {
    pub id: String,
    pub names: Vec<String>,
    network_settings: Settings,
}

/// Of `GET /containers/ID/json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Details {
    config: Config,
    network_settings: Settings,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Config {
    hostname: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Settings {
    networks: Option<BTreeMap<String, Endpoint>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Endpoint {
    #[serde(rename = "EndpointID")]
    id: String,
    aliases: Option<Vec<String>>,
}

impl Settings {
    fn endpoint(&self, id: &str) -> Option<&Endpoint> {
        let mut all = self.networks.iter().flat_map(BTreeMap::values);
        all.find(|one| one.id == id)
    }
}

impl Container {
    pub fn has(&self, endpoint: &str) -> bool {
        self.network_settings.endpoint(endpoint).is_some()
    }

    /// Without the slash; what other containers call it has another one.
    pub fn name(&self) -> Option<&str> {
        let mut names = self.names.iter().filter_map(|name| name.strip_prefix('/'));
        names.find(|name| !name.contains('/'))
    }
}

impl DockerEngine {
    /// The network's name and its options.
    pub async fn network(&self, id: &str) -> Result<(String, BTreeMap<String, String>), Refusal> {
        let all: Vec<Network> = self.get("/networks").await?;
        let found = all.into_iter().find(|one| one.id == id);
        let found = found.ok_or_else(|| {
            Refusal::not_found(format!("Docker does not know its network {id} any more"))
        })?;
        Ok((found.name, found.options.unwrap_or_default()))
    }

    pub async fn containers(&self) -> Result<Vec<Container>, Refusal> {
        self.get("/containers/json").await
    }

    /// Further names of a container on the network of that endpoint.
    pub async fn aliases(&self, container: &str, endpoint: &str) -> Result<Vec<String>, Refusal> {
        let details: Details = self.get(&format!("/containers/{container}/json")).await?;
        let endpoint = details.network_settings.endpoint(endpoint);
        let mut names = endpoint
            .and_then(|one| one.aliases.clone())
            .unwrap_or_default();
        names.push(details.config.hostname);
        Ok(names)
    }

    async fn get<T: DeserializeOwned>(&self, question: &str) -> Result<T, Refusal> {
        let at = self.socket.display();
        let asked = tokio::time::timeout(PATIENCE, wish::fetch(&self.socket, question)).await;
        let failed = |why: String| Refusal::unavailable(format!("Docker at {at}: {why}"));
        let (status, body) = match asked {
            Ok(Ok(answered)) => answered,
            Ok(Err(error)) => return Err(failed(format!("{error:#}"))),
            Err(_) => return Err(failed(format!("no answer within {PATIENCE:?}"))),
        };
        if !status.is_success() {
            return Err(failed(format!("{question}: {status}")));
        }
        serde_json::from_slice(&body).map_err(|error| failed(format!("{question}: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_known_by_its_endpoint() {
        let text = r#"[{"Id":"c1","Names":["/other/alias","/web"],"State":"running",
            "NetworkSettings":{"Networks":{"ch03":{"EndpointID":"e1","Aliases":null}}}},
            {"Id":"c2","Names":["/none"],"NetworkSettings":{"Networks":null}}]"#;
        let all: Vec<Container> = serde_json::from_str(text).unwrap();
        assert!(all[0].has("e1") && !all[0].has("e2") && !all[1].has("e1"));
        assert_eq!(all[0].name(), Some("web"));
    }
}
