//! `/overnet/ports`: how each host sees the published ports. It is no part of Docker's API;
//! `ovnctl service inspect --pretty` and the doctor ask it.

use std::collections::{BTreeMap, BTreeSet};

use api::{
    paths::{NameView, state_word},
    ports::{PortHostView, PortWayView, PublishedPortView},
};
use axum::{Router, extract::State, routing::get};
use model::{
    Refusal,
    control::{Answer as Reply, TaskSelection, Verb},
    endpoint::EndpointOwner,
    publish::ServicePort,
};

use super::{Answer, AppState, Asked, json, unexpected};
use crate::doctor::{
    paths::{self, PathsSight, Standing},
    ports::{self, PortFound, PortsSight, TaskAt, Way, port_text},
};

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/overnet/ports", get(list))
}

async fn list(State(state): State<AppState>, Asked(query): Asked) -> Answer {
    state.manager_only().await?;
    let between = super::paths::sight(&state, None).await?;
    let sight = sight(&state, query.text("service"), between).await?;
    let shown: Vec<_> = sight.ports.iter().map(|port| shown(&sight, port)).collect();
    Ok(json(&shown))
}

/// What this manager and the hosts know of the published ports of one service, or of all.
pub(super) async fn sight(
    state: &AppState,
    service: Option<&str>,
    between: PathsSight,
) -> Result<PortsSight, Refusal> {
    let service = service.map(ToOwned::to_owned);
    let ports = match state.call(Verb::PortList { service }).await? {
        Reply::Ports(ports) => ports,
        other => return Err(unexpected("port list", &other)),
    };
    let known = paths::paths(&between).into_iter();
    let known = known.filter_map(|path| match path.standing {
        Standing::Known(state) => Some(((path.from, path.to), state)),
        Standing::Unknown(_) | Standing::Away => None,
    });
    Ok(PortsSight {
        paths: known.collect(),
        tasks: tasks(state, &ports).await?,
        hosts: between.hosts,
        ports,
    })
}

/// The services' tasks, by their addresses on the ingress network.
async fn tasks(
    state: &AppState,
    ports: &[ServicePort],
) -> Result<BTreeMap<std::net::IpAddr, TaskAt>, Refusal> {
    if ports.is_empty() {
        return Ok(BTreeMap::new());
    }
    let selection = TaskSelection {
        services: ports.iter().map(|port| port.service.clone()).collect(),
        ..TaskSelection::default()
    };
    let sheet = super::tasks::sheet(state, selection).await?;
    let networks = sheet.networks.iter();
    let ingress: BTreeSet<_> = networks
        .filter(|network| network.spec.ingress)
        .map(|network| &network.id)
        .collect();
    let mut addresses = BTreeMap::new();
    for endpoint in &sheet.endpoints {
        if let EndpointOwner::Task { name, .. } = &endpoint.owner
            && ingress.contains(&endpoint.network)
        {
            // Without the task's own id, as `service ps` shows it.
            let name = name
                .rsplit_once('.')
                .map_or(name.as_str(), |(slot, _)| slot);
            let at = TaskAt {
                name: name.to_owned(),
                node: endpoint.node.clone(),
            };
            let own = endpoint.addresses.iter();
            addresses.extend(own.map(|address| (address.ip(), at.clone())));
        }
    }
    Ok(addresses)
}

fn shown(sight: &PortsSight, port: &ServicePort) -> PublishedPortView {
    let hosts = ports::look(sight, port);
    PublishedPortView {
        service: NameView {
            id: port.service.to_string(),
            name: port.name.clone(),
        },
        port: port_text(port),
        target: port.target,
        hosts: hosts.iter().map(|host| host_view(sight, host)).collect(),
    }
}

fn host_view(sight: &PortsSight, found: &PortFound) -> PortHostView {
    let name = |id: &model::NodeId| NameView {
        id: id.to_string(),
        name: ports::name(sight, id),
    };
    let way = |way: &Way| PortWayView {
        address: way.traffic.address.to_string(),
        task: way
            .task
            .as_ref()
            .map_or_else(String::new, |t| t.name.clone()),
        host: way.task.as_ref().map(|t| name(&t.node)).unwrap_or_default(),
        path: way.path.map_or("", state_word).to_owned(),
        connections: way.traffic.connections,
        sent: way.traffic.sent,
        received: way.traffic.received,
        crossed: way.traffic.crossed,
    };
    PortHostView {
        host: name(&found.host),
        state: found.state.word().to_owned(),
        why: found.why.clone(),
        tasks: found.ways.iter().map(way).collect(),
    }
}
