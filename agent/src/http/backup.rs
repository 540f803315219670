//! `/overnet/backup` and `/overnet/restore`: the cluster's state as an archive, and back;
//! `/overnet/rejoin`: where a restored cluster is. They are no part of Docker's API.

use api::timestamp;
use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http_body_util::{BodyExt as _, Limited};
use manager::archive;
use model::{
    Refusal,
    control::{Answer as Reply, Verb},
};
use serde::{Deserialize, Serialize};

use super::{Answer, AppState, Asked, Given, answer::done, json, unexpected};
use crate::{clock, cluster::RestoreRequest};

/// The passphrase as base64: it may hold what a header may not.
const PASSPHRASE: &str = "x-overnet-passphrase";
/// Largest archive in bytes; the state of 100,000 tasks is less.
const ARCHIVE_LIMIT: usize = 512 << 20;

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/overnet/backup", get(backup))
        .route("/overnet/restore", post(restore))
        .route("/overnet/rejoin", post(rejoin))
}

async fn backup(State(state): State<AppState>, headers: HeaderMap) -> Answer {
    let passphrase = passphrase(&headers)?;
    state.manager_only().await?;
    let copy = match state.call(Verb::ClusterBackup).await? {
        Reply::State(copy) => *copy,
        other => return Err(unexpected("cluster backup", &other).into()),
    };
    let about = archive::About {
        cluster: copy.cluster,
        made_at: clock::now_nanos(),
        made_by: env!("CARGO_PKG_VERSION").to_owned(),
        index: copy.index,
    };
    let sealing =
        tokio::task::spawn_blocking(move || archive::write(about, &copy.state.0, &passphrase));
    let sealed = sealing
        .await
        .map_err(|error| Refusal::internal(error.to_string()))?
        .map_err(|error| Refusal::invalid(error.to_string()))?;
    let mut response: Response = sealed.into_response();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    Ok(response)
}

/// What became of an archive.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RestoredView {
    #[serde(rename = "NodeID")]
    node_id: String,
    #[serde(rename = "ClusterID")]
    cluster_id: String,
    /// RFC 3339.
    made_at: String,
    /// Of the manager's port.
    address: String,
    /// Where the archive's managers were.
    before: Vec<String>,
}

async fn restore(State(state): State<AppState>, Asked(query): Asked, request: Request) -> Answer {
    let passphrase = passphrase(request.headers())?;
    let text = |name: &str| query.text(name).unwrap_or_default().to_owned();
    let mut asked = RestoreRequest {
        passphrase,
        advertise_addr: text("advertiseAddr"),
        listen_addr: text("listenAddr"),
        data_path_addr: text("dataPathAddr"),
        force: query.flag("force"),
        ..RestoreRequest::default()
    };
    let body = Limited::new(request.into_body(), ARCHIVE_LIMIT).collect();
    let body = body.await.map_err(|error| {
        Refusal::invalid(format!(
            "the archive could not be read ({error}); at most {} MiB are taken",
            ARCHIVE_LIMIT >> 20
        ))
    })?;
    asked.archive = body.to_bytes().to_vec();
    let restored = state.cluster.restore(asked).await?;
    Ok(json(&RestoredView {
        node_id: restored.node.to_string(),
        cluster_id: restored.about.cluster.to_string(),
        made_at: timestamp::rfc3339(restored.about.made_at),
        address: restored.address.to_string(),
        before: restored.before.iter().map(ToString::to_string).collect(),
    }))
}

#[derive(Deserialize)]
struct RejoinRequest {
    /// `HOST[:PORT]` of a manager.
    #[serde(rename = "Manager")]
    manager: String,
}

async fn rejoin(State(state): State<AppState>, Given(request): Given<RejoinRequest>) -> Answer {
    state.cluster.rejoin(request.manager.trim()).await?;
    Ok(done())
}

fn passphrase(headers: &HeaderMap) -> Result<String, Refusal> {
    let given = headers.get(PASSPHRASE).ok_or_else(|| {
        Refusal::invalid(format!(
            "header {PASSPHRASE} is missing: the passphrase of the archive, in base64"
        ))
    })?;
    let decoded = STANDARD.decode(given.as_bytes()).ok();
    decoded
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .filter(|passphrase| !passphrase.is_empty())
        .ok_or_else(|| {
            Refusal::invalid(format!(
                "header {PASSPHRASE}: it has to be the base64 of a text that is not empty"
            ))
        })
}
