//! `/overnet/paths`: whether packets pass between the hosts, as they have measured it. It is no part
//! of Docker's API; `ovnctl network check` asks it.

use std::collections::BTreeSet;

use api::paths::{MeasuredView, NameView, PathView, PathsView, state_word};
use axum::{Router, extract::State, routing::get};
use model::{
    Network, NodeId, Refusal,
    control::{Answer as Reply, Verb},
};
use serde::Serialize;

use super::{Answer, AppState, Asked, json, unexpected};
use crate::doctor::{
    Finding,
    paths::{self, PathFound, PathsSight, Standing},
};

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/overnet/paths", get(list))
}

#[derive(Serialize)]
struct Checked {
    #[serde(flatten)]
    view: PathsView,
    #[serde(rename = "Findings")]
    findings: Vec<Finding>,
}

async fn list(State(state): State<AppState>, Asked(query): Asked) -> Answer {
    state.manager_only().await?;
    let mut network = None;
    let mut among = None;
    let mut encrypted = false;
    if let Some(reference) = query.text("network") {
        let found = inspected(&state, reference).await?;
        among = Some(hosts_on(&state, &found).await?);
        encrypted = found.is_encrypted();
        network = Some(NameView {
            id: found.id.to_string(),
            name: found.spec.name,
        });
    }
    let sight = sight(&state, among).await?;
    let found = paths::paths(&sight);
    let mut findings = paths::examine(&sight, &found);
    if encrypted {
        findings.extend(paths::tunnels(&sight));
    }
    let paths = found.iter().map(|path| shown(&sight, path)).collect();
    let view = PathsView { network, paths };
    Ok(json(&Checked { view, findings }))
}

async fn inspected(state: &AppState, reference: &str) -> Result<Network, Refusal> {
    let reference = reference.to_owned();
    match state.call(Verb::NetworkInspect { reference }).await? {
        Reply::Network(network) => Ok(*network),
        other => Err(unexpected("network inspect", &other)),
    }
}

/// Those with endpoints there.
async fn hosts_on(state: &AppState, network: &Network) -> Result<BTreeSet<NodeId>, Refusal> {
    let network = network.id.clone();
    match state.call(Verb::EndpointList { network }).await? {
        Reply::Endpoints(endpoints) => Ok(endpoints.into_iter().map(|e| e.node).collect()),
        other => Err(unexpected("endpoint list", &other)),
    }
}

/// What this manager knows of the paths, all or those among some hosts.
pub(super) async fn sight(
    state: &AppState,
    among: Option<BTreeSet<NodeId>>,
) -> Result<PathsSight, Refusal> {
    let nodes = match state.call(Verb::NodeList).await? {
        Reply::Nodes(nodes) => nodes,
        other => return Err(unexpected("node list", &other)),
    };
    let reports = match state.call(Verb::PathList).await? {
        Reply::Paths(reports) => reports,
        other => return Err(unexpected("path list", &other)),
    };
    let port = match state.call(Verb::ClusterInspect).await? {
        Reply::Cluster(cluster) => cluster.data_path_port,
        other => return Err(unexpected("cluster inspect", &other)),
    };
    Ok(PathsSight {
        hosts: nodes
            .iter()
            .map(|node| (node.id.clone(), node.into()))
            .collect(),
        reports,
        among,
        port,
    })
}

fn shown(sight: &PathsSight, path: &PathFound) -> PathView {
    let name = |id: &NodeId| NameView {
        id: id.to_string(),
        name: sight
            .hosts
            .get(id)
            .map_or_else(String::new, |host| host.name.clone()),
    };
    let (state, reason) = match &path.standing {
        Standing::Known(state) => (state_word(*state), ""),
        Standing::Unknown(reason) => ("unknown", reason.as_str()),
        Standing::Away => ("away", ""),
    };
    PathView {
        from: name(&path.from),
        to: name(&path.to),
        state: state.to_owned(),
        reason: reason.to_owned(),
        measured: path.sight.as_ref().map(MeasuredView::from),
    }
}
