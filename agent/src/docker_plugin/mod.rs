//! Docker's network plugin: containers of a Docker Engine of this host on attachable overlay networks.
//!
//! It speaks the remote driver API of libnetwork on a socket of its own, for networks and for their
//! addresses. What Docker attaches is a guest like every other (`network::guests`); here are only
//! Docker's words for it, which of its networks leads where, and what its containers are called.

mod addresses;
mod engine;
mod known;
mod naming;
mod networks;
mod wire;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use http_body_util::{BodyExt as _, Limited};
use model::{
    Network, Refusal,
    control::{Answer, Verb},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{net::UnixListener, sync::Notify};

use crate::{
    http::{self, AppState, unexpected},
    network::Networks,
};
use engine::DockerEngine;
use known::Known;

/// Of one call; Docker's are some kilobytes.
const BODY_LIMIT: usize = 1 << 20;
const CONTENT_TYPE: &str = "application/vnd.docker.plugins.v1.2+json";

/// The plugin of this host.
pub struct Plugin {
    state: AppState,
    networks: Arc<Networks>,
    known: Known,
    docker: DockerEngine,
    /// A container may have come whose name is to be asked for.
    unnamed: Notify,
}

/// Serves the plugin until the daemon ends.
pub async fn serve(
    listener: UnixListener,
    state: AppState,
    networks: Arc<Networks>,
    root: &std::path::Path,
) -> std::io::Result<()> {
    let shutdown = state.shutdown.clone();
    let plugin = Arc::new(Plugin {
        state,
        networks,
        known: Known::open(&root.join("docker-networks.json"))?,
        docker: DockerEngine::default(),
        unnamed: Notify::new(),
    });
    let naming = tokio::spawn(Arc::clone(&plugin).name_containers());
    let router = Router::new().fallback(call).with_state(plugin);
    let served = http::serve_router(http::Door::Unix(listener), router, shutdown).await;
    naming.abort();
    served
}

/// A handler has a task of its own: what was begun is carried out even when Docker goes away.
async fn call(State(plugin): State<Arc<Plugin>>, request: Request) -> Response {
    let method = request.uri().path().trim_start_matches('/').to_owned();
    let handled = tokio::spawn(async move {
        let body = collect(request.into_body()).await?;
        let answer = plugin.answer(&method, &body).await;
        match &answer {
            Err(refusal) => tracing::info!(method, %refusal, "refused to Docker"),
            Ok(answer) => tracing::debug!(method, ?answer, "answered to Docker"),
        }
        answer
    });
    let answer = match handled.await {
        Ok(answer) => answer,
        Err(error) => Err(Refusal::internal(format!("the call failed: {error}"))),
    };
    match answer {
        Ok(Some(value)) => told(&value),
        // By this Docker knows that there is no such method.
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        // Of its two halves of a plugin Docker reads the one in the one, the other in the other.
        Err(Refusal { message, .. }) => told(&json!({"Err": message, "Error": message})),
    }
}

fn told(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], value.to_string()).into_response()
}

async fn collect(body: Body) -> Result<bytes::Bytes, Refusal> {
    let limited = Limited::new(body, BODY_LIMIT).collect().await;
    let body = limited.map_err(|error| Refusal::invalid(format!("the call's body: {error}")))?;
    Ok(body.to_bytes())
}

fn read<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Refusal> {
    api::body::read_or_default(body)
}

impl Plugin {
    /// Absent: a method that is not known.
    async fn answer(&self, method: &str, body: &[u8]) -> Result<Option<Value>, Refusal> {
        let done = |()| json!({});
        let value = match method {
            "Plugin.Activate" => json!({"Implements": ["NetworkDriver", "IpamDriver"]}),
            // Each engine has its own networks; they lead to other hosts all the same.
            "NetworkDriver.GetCapabilities" => {
                json!({"Scope": "local", "ConnectivityScope": "global"})
            }
            "NetworkDriver.CreateNetwork" => self.create_network(read(body)?).await.map(done)?,
            "NetworkDriver.DeleteNetwork" => self.delete_network(&read(body)?).map(done)?,
            "NetworkDriver.CreateEndpoint" => self.create_endpoint(read(body)?).await?,
            "NetworkDriver.EndpointOperInfo" => json!({"Value": {}}),
            "NetworkDriver.DeleteEndpoint" | "NetworkDriver.Leave" => {
                self.leave(&read(body)?).await.map(done)?
            }
            "NetworkDriver.Join" => self.join(read(body)?).await?,
            // The cluster tells of others; ports of the host are Docker's to lead over its own bridge.
            "NetworkDriver.DiscoverNew"
            | "NetworkDriver.DiscoverDelete"
            | "NetworkDriver.ProgramExternalConnectivity"
            | "NetworkDriver.RevokeExternalConnectivity"
            | "IpamDriver.ReleasePool" => json!({}),
            "IpamDriver.GetCapabilities" => {
                json!({"RequiresMACAddress": false, "RequiresRequestReplay": false})
            }
            "IpamDriver.GetDefaultAddressSpaces" => json!({
                "LocalDefaultAddressSpace": "overnet",
                "GlobalDefaultAddressSpace": "overnet",
            }),
            "IpamDriver.RequestPool" => self.request_pool(read(body)?).await?,
            "IpamDriver.RequestAddress" => self.request_address(read(body)?).await?,
            "IpamDriver.ReleaseAddress" => self.release_address(&read(body)?).await.map(done)?,
            _ => return Ok(None),
        };
        Ok(Some(value))
    }

    async fn overlays(&self) -> Result<Vec<Network>, Refusal> {
        self.state.settled().await;
        match self.state.cluster.call(Verb::NetworkList).await? {
            Answer::Networks(networks) => Ok(networks),
            other => Err(unexpected("NetworkList", &other)),
        }
    }
}
