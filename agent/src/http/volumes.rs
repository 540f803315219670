//! `/volumes…`

use std::collections::BTreeMap;

use api::{Query, timestamp};
use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, post},
};
use model::Refusal;
use runtime::engine::VolumeView;
use serde::{Deserialize, Serialize};

use super::{Answer, AppState, Asked, Optional, access::Caller, done, json, json_with};

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/volumes", get(list))
        .route("/volumes/create", post(create))
        .route("/volumes/prune", post(prune))
        .route("/volumes/{name}", get(inspect).put(update).delete(remove))
}

/// A volume as Docker shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Shown {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage_data: Option<Usage>,
    name: String,
    driver: String,
    mountpoint: String,
    created_at: String,
    labels: BTreeMap<String, String>,
    scope: &'static str,
    options: BTreeMap<String, String>,
}

/// What `system df` adds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Usage {
    /// Bytes; -1: not known.
    pub(super) size: i64,
    /// Containers that mount it.
    pub(super) ref_count: usize,
}

impl From<VolumeView> for Shown {
    fn from(volume: VolumeView) -> Self {
        Self {
            usage_data: None,
            name: volume.name,
            driver: volume.driver,
            mountpoint: volume.mountpoint.display().to_string(),
            created_at: timestamp::rfc3339(volume.created_at),
            labels: volume.labels,
            scope: "local",
            options: volume.options,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct CreateRequest {
    name: String,
    driver: String,
    driver_opts: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    cluster_volume_spec: Option<serde_json::Value>,
}

fn filters(query: &Query, allowed: &[&str]) -> Result<BTreeMap<String, Vec<String>>, Refusal> {
    Ok(query.filters(allowed)?.into_map())
}

async fn list(State(state): State<AppState>, Asked(query): Asked) -> Answer {
    let filters = filters(&query, &["dangling", "driver", "label", "name"])?;
    let volumes: Vec<Shown> = state
        .engine
        .volume_list(&filters)?
        .into_iter()
        .map(Shown::from)
        .collect();
    Ok(json(
        &serde_json::json!({ "Volumes": volumes, "Warnings": [] }),
    ))
}

async fn create(
    State(state): State<AppState>,
    caller: Caller,
    Optional(request): Optional<CreateRequest>,
) -> Answer {
    if !matches!(request.driver.as_str(), "" | "local") {
        return Err(Refusal::not_found(format!(
            "volume driver {:?} is not there; the only one is local",
            request.driver
        ))
        .into());
    }
    if request.cluster_volume_spec.is_some() {
        return Err(Refusal::not_implemented("cluster volumes are not there yet").into());
    }
    caller.may_mount(&request.driver_opts)?;
    let name = (!request.name.is_empty()).then_some(request.name.as_str());
    let volume = state
        .engine
        .volume_create(name, request.labels, request.driver_opts)
        .await?;
    Ok(json_with(StatusCode::CREATED, &Shown::from(volume)))
}

async fn inspect(State(state): State<AppState>, Path(name): Path<String>) -> Answer {
    Ok(json(&Shown::from(state.engine.volume_inspect(&name)?)))
}

async fn remove(
    State(state): State<AppState>,
    Path(name): Path<String>,
    Asked(query): Asked,
) -> Answer {
    state
        .engine
        .volume_remove(&name, query.flag("force"))
        .await?;
    Ok(done())
}

/// Of volumes of the cluster, which there are none of: Docker's answers.
async fn update(
    State(state): State<AppState>,
    Path(name): Path<String>,
    Asked(query): Asked,
) -> Answer {
    if !state.local().control_available() {
        return Err(Refusal::unavailable(
            "volume update only valid for cluster volumes, but swarm is unavailable",
        )
        .into());
    }
    let version = query.text("version").unwrap_or_default();
    if version.parse::<u64>().is_err() {
        return Err(Refusal::invalid(format!("invalid swarm object version '{version}'")).into());
    }
    Err(Refusal::not_found(format!("volume {name} not found")).into())
}

async fn prune(State(state): State<AppState>, Asked(query): Asked) -> Answer {
    let filters = filters(&query, &["all", "label", "label!"])?;
    let pruned = state.engine.volume_prune(&filters).await?;
    Ok(json(&serde_json::json!({
        "VolumesDeleted": pruned.deleted,
        "SpaceReclaimed": pruned.reclaimed,
    })))
}
