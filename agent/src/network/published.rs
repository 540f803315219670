//! From services' ingress ports and the endpoints of their tasks to published ports: pure.

use std::collections::{BTreeMap, BTreeSet};

use dataplane::desired::{Change as Step, Protocol, Published};
use model::{
    Assignments, Change, NetworkId, ServiceId,
    assignment::ServiceRoute,
    service::{self, PortConfig, PublishMode},
};

use super::vips::Backends;

/// All published ports, by their ids in the dataplane.
pub fn all(assignments: &Assignments, backends: &Backends) -> BTreeMap<String, Published> {
    let routes = assignments.services.values();
    routes
        .flat_map(|route| ports(route).map(move |port| (route, port)))
        .filter_map(|(route, port)| {
            let published = published(assignments, backends, route, port)?;
            Some((id(&route.id, port), published))
        })
        .collect()
}

/// The steps of an increment that assignments and backends have followed already: `touched`
/// are the services and networks whose backends it changed, `gone` the routes before it.
pub fn follow(
    changes: &[Change],
    touched: &BTreeSet<(ServiceId, NetworkId)>,
    gone: &BTreeMap<ServiceId, ServiceRoute>,
    assignments: &Assignments,
    backends: &Backends,
) -> Vec<Step> {
    let network_changed = changes.iter().any(|change| match change {
        // Whether it was the ingress network before is no longer known; networks change rarely.
        Change::SetNetwork(_) | Change::RemoveNetwork(_) => true,
        _ => false,
    });
    if network_changed {
        let mut steps = all_steps(assignments, backends, assignments.services.values());
        steps.extend(all_steps(assignments, backends, gone.values()));
        return steps;
    }
    let mut services: BTreeSet<&ServiceId> = gone.keys().collect();
    services.extend(touched.iter().map(|(service, _)| service));
    services.extend(changes.iter().filter_map(|change| match change {
        Change::SetService(route) => Some(&route.id),
        _ => None,
    }));
    let before = services.iter().filter_map(|id| gone.get(*id));
    let now = services
        .iter()
        .filter_map(|id| assignments.services.get(*id));
    // What is no longer published goes before another service takes its port.
    let mut steps: Vec<Step> = before
        .flat_map(|route| ports(route).map(move |port| (route, port)))
        .filter(|(route, port)| {
            let route = assignments.services.get(&route.id);
            !route.is_some_and(|route| ports(route).any(|other| other == *port))
        })
        .map(|(route, port)| Step::RemovePublished(id(&route.id, port)))
        .collect();
    steps.extend(all_steps(assignments, backends, now));
    steps
}

fn all_steps<'a>(
    assignments: &Assignments,
    backends: &Backends,
    routes: impl Iterator<Item = &'a ServiceRoute>,
) -> Vec<Step> {
    routes
        .flat_map(|route| ports(route).map(move |port| (route, port)))
        .map(|(route, port)| {
            let id = id(&route.id, port);
            let current = assignments.services.get(&route.id);
            let current = current.filter(|now| ports(now).any(|other| other == port));
            match current.and_then(|route| published(assignments, backends, route, port)) {
                Some(published) => Step::SetPublished(id, published),
                None => Step::RemovePublished(id),
            }
        })
        .collect()
}

fn published(
    assignments: &Assignments,
    backends: &Backends,
    route: &ServiceRoute,
    port: &PortConfig,
) -> Option<Published> {
    let mut networks = assignments.networks.values();
    let ingress = networks.find(|network| network.spec.ingress)?;
    Some(Published {
        network: ingress.id.to_string(),
        protocol: match port.protocol {
            service::Protocol::Tcp => Protocol::Tcp,
            service::Protocol::Udp => Protocol::Udp,
            service::Protocol::Sctp => Protocol::Sctp,
        },
        port: port.published,
        target: port.target,
        backends: backends.named(&route.id, &ingress.id),
    })
}

fn ports(route: &ServiceRoute) -> impl Iterator<Item = &PortConfig> {
    let ports = route.endpoint.ports.iter();
    ports.filter(|port| port.mode == PublishMode::Ingress && port.published != 0)
}

fn id(service: &ServiceId, port: &PortConfig) -> String {
    format!("{service}.{}/{}", port.published, port.protocol.as_str())
}
