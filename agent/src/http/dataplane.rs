//! `/overnet/dataplane`: the wish, the sight and the difference of the running daemon. It is no
//! part of Docker's API; `ovnd dataplane` asks it. Nothing is computed before somebody asks, and
//! nothing is changed by asking.

use axum::{Router, extract::State, routing::get};
use dataplane::{Counters, Desired, Observed, Status};
use model::Refusal;
use serde::{Deserialize, Serialize};

use super::{Answer, AppState, json};

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/overnet/dataplane", get(sight))
}

/// What the dataplane of this host was told, what the kernel has, and what stands in the way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sight {
    pub desired: Desired,
    pub observed: Observed,
    /// Sentences about what this host cannot do; empty when all is well.
    pub obstacles: Vec<String>,
    /// What published ports have counted, by the tasks' addresses on the ingress network.
    #[serde(default)]
    pub counters: Counters,
    /// Drift and failures since the daemon's start; absent without a daemon.
    #[serde(default, skip_serializing_if = "Option::is_none", skip_deserializing)]
    pub status: Option<Status>,
}

async fn sight(State(state): State<AppState>) -> Answer {
    let sight: Result<Sight, Refusal> = state.networks.sight().await;
    Ok(json(&sight?))
}
