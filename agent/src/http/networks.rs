//! `/networks…`: this host's own networks and the cluster's, in one list.

use api::{
    Filters,
    network::{ConfigFrom, ContainerOnNetwork, CreateRequest, CreateResponse, Ipam, NetworkView},
};
use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, post},
};
use model::{
    Network, NetworkSpec, Refusal, RefusalKind,
    control::{Answer as Reply, Verb},
};
use sha2::{Digest, Sha256};

use super::{
    Answer, AppState, Asked, Given, HostEndpoint, containers, done, json, json_with,
    network_events, network_services::Known, unexpected,
};
use crate::{
    clock,
    network::local::{GATEWAY_BRIDGE, LocalNetwork},
};

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/create", post(create))
        .route("/networks/prune", post(prune))
        .route("/networks/{id}", get(inspect).delete(remove))
}

/// Networks that every host has and nobody can make or remove.
const PREDEFINED: &[&str] = &["bridge", "host", "none"];
const FILTERS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];

async fn list(State(state): State<AppState>, Asked(query): Asked) -> Answer {
    let filters = query.filters(FILTERS)?;
    filters.check("scope", &["local", "swarm", "global"])?;
    filters.check("type", &["custom", "builtin"])?;
    let dangling = filters.boolean("dangling")?;
    let mut views = local_views(&state);
    if filters.any("scope", |scope| scope == "swarm") {
        match cluster_networks(&state).await {
            Ok(networks) => views.extend(networks.iter().map(NetworkView::of_cluster)),
            // Without a manager the host's own networks are still worth showing.
            Err(refusal) if refusal.kind == RefusalKind::Unavailable => {
                tracing::warn!(
                    reason = refusal.message,
                    "the cluster's networks are not shown"
                );
            }
            Err(refusal) => return Err(refusal.into()),
        }
    }
    views.retain(|view| fits(view, &filters));
    if let Some(dangling) = dangling {
        let mut kept = Vec::new();
        for view in views {
            let unused = !is_builtin(&view) && users(&state, &view).await.is_empty();
            if unused == dangling {
                kept.push(view);
            }
        }
        views = kept;
    }
    for view in &mut views {
        // Who is on it is told by `inspect`; clients walk through the field without looking.
        view.containers.get_or_insert_default();
    }
    Ok(json(&views))
}

async fn users(state: &AppState, view: &NetworkView) -> Vec<HostEndpoint> {
    state.networks.endpoints(&view.id).await
}

async fn cluster_networks(state: &AppState) -> Result<Vec<Network>, Refusal> {
    if !state.is_member() {
        return Ok(Vec::new());
    }
    match state.call(Verb::NetworkList).await? {
        Reply::Networks(networks) => Ok(networks),
        other => Err(unexpected("network list", &other)),
    }
}

fn is_builtin(view: &NetworkView) -> bool {
    view.ingress || PREDEFINED.contains(&view.name.as_str())
}

fn fits(view: &NetworkView, filters: &Filters) -> bool {
    let kind = if is_builtin(view) {
        "builtin"
    } else {
        "custom"
    };
    filters.exact("driver", &view.driver)
        && filters.prefix("id", &view.id)
        && filters.contained("name", &view.name)
        && filters.exact("scope", &view.scope)
        && filters.exact("type", kind)
        && filters.labels("label", |key| view.labels.get(key).map(String::as_str))
}

/// This host's networks: `bridge`, `host`, `none`, in a cluster `docker_gwbridge`, and those that
/// users made here.
fn local_views(state: &AppState) -> Vec<NetworkView> {
    let member = state.is_member();
    let mut views: Vec<NetworkView> = state
        .networks
        .list()
        .iter()
        .filter(|network| member || !network.is_gateway_bridge())
        .map(of_host)
        .collect();
    for (name, driver) in [("host", "host"), ("none", "null")] {
        views.push(NetworkView {
            name: name.to_owned(),
            id: hex::encode(Sha256::digest(format!("{}/{name}", state.engine_id))),
            created: views
                .first()
                .map_or_else(String::new, |first| first.created.clone()),
            scope: "local".to_owned(),
            driver: driver.to_owned(),
            enable_ipv4: true,
            ipam: Ipam {
                driver: "default".to_owned(),
                ..Ipam::default()
            },
            config_from: ConfigFrom::default(),
            ..NetworkView::default()
        });
    }
    views
}

fn of_host(network: &LocalNetwork) -> NetworkView {
    NetworkView::of_local(
        &network.id,
        network.created_at,
        &network.spec,
        &network.subnets,
    )
}

/// What a reference leads to.
pub(super) enum Found {
    Local(Box<NetworkView>),
    Cluster(Box<Network>),
}

/// By full id, exact name, unique id prefix; this host's before the cluster's.
pub(super) async fn find(state: &AppState, reference: &str, scope: &str) -> Result<Found, Refusal> {
    let locals = if matches!(scope, "" | "local") {
        local_views(state)
    } else {
        Vec::new()
    };
    let exact = locals
        .iter()
        .find(|view| view.id == reference || view.name == reference);
    if let Some(view) = exact {
        return Ok(Found::Local(Box::new(view.clone())));
    }
    let not_found = || Refusal::not_found(format!("network {reference} not found"));
    let of_cluster = if state.is_member() && scope != "local" {
        match state
            .call(Verb::NetworkInspect {
                reference: reference.to_owned(),
            })
            .await
        {
            Ok(Reply::Network(network)) => Some(network),
            Ok(other) => return Err(unexpected("network inspect", &other)),
            Err(refusal) if refusal.kind == RefusalKind::NotFound => None,
            // A host's own networks need no manager; but what may be a name of the cluster's is
            // not taken for the beginning of an id.
            Err(refusal) if refusal.kind == RefusalKind::Unavailable && is_short_id(reference) => {
                let known = locals.iter().any(|view| view.id.starts_with(reference));
                if !known {
                    return Err(refusal);
                }
                None
            }
            Err(refusal) => return Err(refusal),
        }
    } else {
        None
    };
    let mut matching = locals
        .into_iter()
        .filter(|view| view.id.starts_with(reference));
    match (matching.next(), of_cluster) {
        (None, None) => Err(not_found()),
        (None, Some(network)) => Ok(Found::Cluster(network)),
        (Some(view), None) if matching.next().is_none() => Ok(Found::Local(Box::new(view))),
        (Some(_), Some(network)) if network.spec.name == reference => Ok(Found::Cluster(network)),
        (Some(_), _) => Err(Refusal::invalid(format!(
            "network {reference} is ambiguous (several ids begin so); give more of the id, or the name"
        ))),
    }
}

/// As `network ls` shows ids, or more of one.
fn is_short_id(reference: &str) -> bool {
    reference.len() >= 12 && reference.bytes().all(|byte| byte.is_ascii_hexdigit())
}

async fn inspect(
    State(state): State<AppState>,
    Path(reference): Path<String>,
    Asked(query): Asked,
) -> Answer {
    let verbose = query.flag("verbose");
    let mut view = match find(&state, &reference, query.text("scope").unwrap_or("")).await? {
        Found::Local(view) => *view,
        Found::Cluster(network) => {
            let mut view = NetworkView::of_cluster(&network);
            // Who else takes part is told as far as it is known.
            let endpoints = match state
                .call(Verb::EndpointList {
                    network: network.id.clone(),
                })
                .await
            {
                Ok(Reply::Endpoints(endpoints)) => endpoints,
                _ => Vec::new(),
            };
            if verbose || !endpoints.is_empty() {
                let known = Known::ask(&state, verbose).await;
                view.peers = known.peers(&endpoints);
                view.services = verbose.then(|| known.services(&network, &endpoints));
            }
            view
        }
    };
    let endpoints = users(&state, &view).await;
    view.containers = Some(endpoints.into_iter().map(on_network).collect());
    Ok(json(&view))
}

fn on_network(endpoint: HostEndpoint) -> (String, ContainerOnNetwork) {
    let find = |v4: bool| {
        endpoint
            .addresses
            .iter()
            .find(|(address, _)| address.is_ipv4() == v4)
            .map(|(address, prefix)| format!("{address}/{prefix}"))
            .unwrap_or_default()
    };
    let (ipv4_address, ipv6_address) = (find(true), find(false));
    (
        endpoint.container_id,
        ContainerOnNetwork {
            name: endpoint.container_name,
            endpoint_id: endpoint.endpoint_id,
            mac_address: endpoint.mac,
            ipv4_address,
            ipv6_address,
        },
    )
}

async fn create(State(state): State<AppState>, Given(request): Given<CreateRequest>) -> Answer {
    model::name::check_network_name(&request.name)?;
    let name = request.name.clone();
    if PREDEFINED.contains(&name.as_str()) || matches!(name.as_str(), "default" | GATEWAY_BRIDGE) {
        return Err(Refusal::forbidden(format!(
            "operation is not permitted on predefined {name} network; choose another name"
        ))
        .into());
    }
    match request.driver() {
        "overlay" => {}
        "bridge" => return create_local(&state, request).await,
        driver @ ("host" | "null") => {
            return Err(Refusal::forbidden(format!(
                "only one instance of {driver:?} network is allowed"
            ))
            .into());
        }
        driver => {
            return Err(Refusal::not_found(format!(
                "network {name}: driver {driver:?} is not there; use bridge or overlay"
            ))
            .into());
        }
    }
    if state.networks.list().iter().any(|one| one.name() == name) {
        return Err(Refusal::conflict(format!(
            "network with name {name} already exists on this host, of the driver bridge; remove it first or choose another name"
        ))
        .into());
    }
    let spec = Box::new(request.to_spec()?);
    match state.call(Verb::NetworkCreate { spec }).await? {
        Reply::Network(network) => {
            let created = CreateResponse {
                id: network.id.to_string(),
                warning: String::new(),
            };
            Ok(json_with(StatusCode::CREATED, &created))
        }
        other => Err(unexpected("network create", &other).into()),
    }
}

/// One of this host's own; it needs no cluster.
async fn create_local(state: &AppState, request: CreateRequest) -> Answer {
    let network = state.networks.create(request.to_spec()?).await?;
    tell(state, "create", &network.id, network.name());
    let created = CreateResponse {
        id: network.id,
        warning: String::new(),
    };
    Ok(json_with(StatusCode::CREATED, &created))
}

fn tell(state: &AppState, action: &str, id: &str, name: &str) {
    let event = network_events::of_network(action, id, name, clock::now_nanos());
    state.events.publish(event);
}

/// A service asked for a network that the cluster does not know, and this host does.
pub(super) fn only_here(state: &AppState, networks: &[String], refusal: Refusal) -> Refusal {
    let local = state.networks.list();
    let named = |network: &&String| {
        let mut local = local.iter();
        local.any(|one| one.name() == *network || one.id == **network)
    };
    match networks.iter().find(named) {
        Some(network)
            if refusal.kind == RefusalKind::NotFound
                && refusal.message.starts_with(&format!("network {network}")) =>
        {
            Refusal::forbidden(format!(
                "The network {network} cannot be used with services. Only networks scoped to the swarm can be used, such as those created with the overlay driver."
            ))
        }
        _ => refusal,
    }
}

async fn remove(State(state): State<AppState>, Path(reference): Path<String>) -> Answer {
    let id = match find(&state, &reference, "").await? {
        Found::Local(view) => {
            let mut local = state.networks.list().into_iter();
            let custom = local.find(|one| one.id == view.id && !one.is_builtin());
            if let Some(network) = custom {
                state.networks.remove(&network.id).await?;
                tell(&state, "destroy", &network.id, network.name());
                return Ok(done());
            }
            return Err(Refusal::forbidden(format!(
                "{} is a pre-defined network and cannot be removed",
                view.name
            ))
            .into());
        }
        Found::Cluster(network) => network.id,
    };
    state
        .call(Verb::NetworkRemove {
            reference: id.to_string(),
        })
        .await?;
    Ok(done())
}

/// Removes networks that nobody uses: those that users made on this host, and the cluster's.
async fn prune(State(state): State<AppState>, Asked(query): Asked) -> Answer {
    let filters = query.filters(&["label", "label!", "until"])?;
    let until = filters
        .values("until")
        .first()
        .map(|text| containers::until(text, clock::now_nanos()))
        .transpose()?;
    let mut deleted = Vec::new();
    let spared = |spec: &NetworkSpec, created_at: i64| {
        spec.ingress
            || until.is_some_and(|until| created_at > until)
            || !filters.labels("label", |key| spec.labels.get(key).map(String::as_str))
    };
    // What the cluster cannot say is refused before anything is removed.
    let of_cluster = if state.local().control_available() {
        cluster_networks(&state).await?
    } else {
        Vec::new()
    };
    for network in state.networks.list() {
        if network.is_builtin() || spared(&network.spec, network.created_at) {
            continue;
        }
        // Refused while containers are on it.
        if state.networks.remove(&network.id).await.is_ok() {
            tell(&state, "destroy", &network.id, network.name());
            deleted.push(network.spec.name);
        }
    }
    for network in of_cluster {
        if spared(&network.spec, network.meta.created_at) {
            continue;
        }
        let reference = network.id.to_string();
        // The manager knows who uses it and refuses then.
        match state.call(Verb::NetworkRemove { reference }).await {
            Ok(_) => deleted.push(network.spec.name),
            Err(refusal) if refusal.kind == RefusalKind::Unavailable => {
                tracing::warn!("the prune of networks ends early: {refusal}");
                break;
            }
            Err(_) => {}
        }
    }
    Ok(json(&serde_json::json!({ "NetworksDeleted": deleted })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(name: &str, driver: &str, scope: &str) -> NetworkView {
        NetworkView {
            name: name.into(),
            id: format!("{name}0123"),
            driver: driver.into(),
            scope: scope.into(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            ..NetworkView::default()
        }
    }

    #[test]
    fn filters_choose_networks() {
        let views = [
            view("bridge", "bridge", "local"),
            view("ch03", "overlay", "swarm"),
            view("ch04", "overlay", "swarm"),
        ];
        for (text, names) in [
            ("", &["bridge", "ch03", "ch04"][..]),
            (r#"{"name":["ch"]}"#, &["ch03", "ch04"]),
            (r#"{"driver":{"overlay":true},"name":["ch03"]}"#, &["ch03"]),
            (r#"{"scope":["local"]}"#, &["bridge"]),
            (r#"{"type":["custom"]}"#, &["ch03", "ch04"]),
            (r#"{"id":["ch0301"]}"#, &["ch03"]),
            (r#"{"label":["a=c"]}"#, &[]),
        ] {
            let filters = Filters::parse(text, FILTERS).unwrap();
            let kept: Vec<_> = views
                .iter()
                .filter(|view| fits(view, &filters))
                .map(|view| view.name.as_str())
                .collect();
            assert_eq!(kept, names, "{text}");
        }
    }
}
