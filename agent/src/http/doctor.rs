//! `/overnet/doctor`: what is wrong with this host and its cluster. It is no part of Docker's API;
//! `ovnctl doctor` and `ovnd doctor` ask it.

use axum::{Router, extract::State, routing::get};
use model::{
    control::{Answer as Reply, Verb},
    node::Role,
};

use super::{Answer, AppState, json};
use crate::{
    cluster::Standing,
    doctor::{
        QUESTION,
        cluster::{self, ClusterSight},
        host, look, paths,
    },
};

pub(super) fn routes() -> Router<AppState> {
    Router::new().route(QUESTION, get(examine))
}

async fn examine(State(state): State<AppState>) -> Answer {
    let local = state.local();
    let mut sight = look::host(&state.settings, local.data_path).await;
    sight.manager_port_taken &= local.role != Some(Role::Manager);
    match state.networks.sight().await {
        Ok(seen) => sight.obstacles = seen.obstacles,
        Err(refusal) => sight.obstacles.push(refusal.message),
    }
    let nodes = if local.control_available() {
        match state.call(Verb::NodeList).await {
            Ok(Reply::Nodes(nodes)) => Some(Ok(nodes)),
            Ok(_) => None,
            Err(refusal) => Some(Err(refusal.message)),
        }
    } else {
        None
    };
    let mut findings = host::examine(&sight);
    let knows_paths = local.control_available();
    if local.state != Standing::Inactive {
        findings.extend(cluster::examine(&ClusterSight {
            standing: local.state,
            error: local.error,
            node_id: local.node_id,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            certificate: state.cluster.certificate_life(),
            now: std::time::SystemTime::now(),
            nodes,
        }));
    }
    if knows_paths && let Ok(sight) = super::paths::sight(&state, None).await {
        findings.extend(paths::examine(&sight, &paths::paths(&sight)));
    }
    Ok(json(&findings))
}
