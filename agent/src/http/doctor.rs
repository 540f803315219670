//! `/overnet/doctor`: what is wrong with this host and its cluster; `/overnet/cluster`: how the
//! cluster stands. They are no part of Docker's API; `ovnctl` and `ovnd doctor` ask them.

use api::timestamp;
use axum::{Router, extract::State, routing::get};
use manager::ca;
use model::{
    Node, Refusal,
    control::{Answer as Reply, ManagerList, ManagerPosition, Verb},
    encryption::Encryptor,
    node::Role,
};
use serde::Serialize;

use super::{Answer, AppState, json};
use crate::{
    cluster::Standing,
    doctor::{
        Finding, QUESTION,
        cluster::{self, ClusterSight},
        host, look, paths, ports,
    },
};

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route(QUESTION, get(examine))
        .route("/overnet/cluster", get(status))
}

async fn examine(State(state): State<AppState>) -> Answer {
    let local = state.local();
    let mut sight = look::host(&state.settings, local.data_path).await;
    sight.manager_port_taken &= local.role != Some(Role::Manager);
    match state.networks.sight().await {
        Ok(seen) => sight.obstacles = seen.obstacles,
        Err(refusal) => sight.obstacles.push(refusal.message),
    }
    let failed = state.networks.status().failed.into_iter();
    sight.failed = failed.map(|standing| standing.failure).collect();
    let (nodes, rotation) = if local.control_available() {
        let nodes = nodes(&state).await.map_err(|refusal| refusal.message);
        let known = nodes.as_deref().unwrap_or_default();
        let rotation = rotation(&state, known).await;
        (Some(nodes), rotation)
    } else {
        (None, None)
    };
    let mut findings = host::examine(&sight);
    let knows_paths = local.control_available();
    if local.state != Standing::Inactive {
        findings.extend(of_cluster(&state, nodes, rotation));
    }
    if knows_paths && let Ok(between) = super::paths::sight(&state, None).await {
        findings.extend(paths::examine(&between, &paths::paths(&between)));
        if let Ok(sight) = super::ports::sight(&state, None, between).await {
            findings.extend(ports::examine(&sight));
        }
    }
    Ok(json(&findings))
}

async fn nodes(state: &AppState) -> Result<Vec<Node>, Refusal> {
    match state.call(Verb::NodeList).await? {
        Reply::Nodes(nodes) => Ok(nodes),
        _ => Err(unexpected()),
    }
}

fn unexpected() -> Refusal {
    Refusal::internal("the manager answered something else; is it of the same version?")
}

/// The nodes that a rotation of the root certificate waits for; absent where none is under way.
async fn rotation(state: &AppState, nodes: &[Node]) -> Option<Vec<Node>> {
    let Ok(Reply::Cluster(cluster)) = state.call(Verb::ClusterInspect).await else {
        return None;
    };
    cluster.rotation.as_ref()?;
    let announced = ca::announced(&cluster).ok()?;
    Some(ca::waiting(&announced, nodes.iter()).cloned().collect())
}

fn of_cluster(
    state: &AppState,
    nodes: Option<Result<Vec<Node>, String>>,
    rotation: Option<Vec<Node>>,
) -> Vec<Finding> {
    let local = state.local();
    cluster::examine(&ClusterSight {
        standing: local.state,
        error: local.error,
        node_id: local.node_id,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        certificate: state.cluster.certificate_life(),
        now: std::time::SystemTime::now(),
        nodes,
        rotation,
    })
}

/// How the cluster stands.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct StatusView {
    term: u64,
    /// Of the log of the manager that answers.
    last_index: u64,
    applied_index: u64,
    /// Managers that have a vote, that answer, and that have to.
    voting: u64,
    reachable: u64,
    needed: u64,
    /// Generations of the keys of encrypted networks.
    network_keys: KeysView,
    members: Vec<MemberView>,
    findings: Vec<Finding>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct KeysView {
    newest: u64,
    sending: u64,
    oldest: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct MemberView {
    #[serde(rename = "ID")]
    id: String,
    hostname: String,
    role: Role,
    state: model::node::NodeState,
    /// Absent on workers.
    manager: Option<ManagerView>,
    /// RFC 3339; empty where the node has not said.
    certificate_not_after: String,
    /// What encrypts networks on it: `kernel`, `process`, or why nothing does.
    encryption: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ManagerView {
    address: String,
    votes: bool,
    leader: bool,
    reachable: bool,
    /// Entries behind the leader's log, where it is known.
    lag: Option<u64>,
    /// Why its word does not count although it answers.
    outdated: Option<String>,
}

async fn status(State(state): State<AppState>) -> Answer {
    let Reply::Managers(managers) = state.call(Verb::ManagerList).await? else {
        return Err(unexpected().into());
    };
    let nodes = nodes(&state).await?;
    let rotation = rotation(&state, &nodes).await;
    let members = nodes.iter().map(|node| member(node, &managers)).collect();
    let count =
        |which: fn(&&ManagerPosition) -> bool| managers.members.iter().filter(which).count() as u64;
    let mut findings = of_cluster(&state, Some(Ok(nodes)), rotation);
    findings.extend(managers.members.iter().filter_map(cluster::outdated));
    Ok(json(&StatusView {
        term: managers.term,
        last_index: managers.last_index,
        applied_index: managers.applied_index,
        voting: count(|manager| manager.votes),
        reachable: count(|manager| manager.votes && manager.reachable),
        needed: managers.needed,
        network_keys: network_keys(&state).await,
        members,
        findings,
    }))
}

async fn network_keys(state: &AppState) -> KeysView {
    match state.call(Verb::ClusterInspect).await {
        Ok(Reply::Cluster(cluster)) => KeysView {
            newest: cluster.network_keys.newest,
            sending: cluster.network_keys.sending,
            oldest: cluster.network_keys.oldest,
        },
        _ => KeysView::default(),
    }
}

fn member(node: &Node, managers: &ManagerList) -> MemberView {
    let mut positions = managers.members.iter();
    let manager = positions.find(|position| position.node == node.id);
    let address = node.manager.as_ref().map(|manager| manager.address);
    let ends = node.description.certificate.map(|(_, to)| to);
    let own = node.description.encryption.as_ref();
    let trouble = own.and_then(|own| own.trouble.as_deref());
    MemberView {
        id: node.id.to_string(),
        hostname: node.description.hostname.clone(),
        role: node.spec.role,
        state: node.status.state,
        manager: manager.map(|position| ManagerView {
            address: address.map(|at| at.to_string()).unwrap_or_default(),
            votes: position.votes,
            leader: position.leads,
            reachable: position.reachable,
            lag: position.lag,
            outdated: position.outdated.clone(),
        }),
        encryption: match own.map(|own| &own.by) {
            Some(Encryptor::Kernel | Encryptor::Process) if trouble.is_some() => {
                trouble.unwrap_or_default().to_owned()
            }
            Some(Encryptor::Kernel) => "kernel".to_owned(),
            Some(Encryptor::Process) => "process".to_owned(),
            Some(Encryptor::Nothing(why)) => why.clone(),
            None => "its ovnd cannot encrypt".to_owned(),
        },
        certificate_not_after: ends
            .map(|seconds| timestamp::rfc3339(seconds.saturating_mul(1_000_000_000)))
            .unwrap_or_default(),
    }
}
