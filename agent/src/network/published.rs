//! From services' ingress ports and the endpoints of their tasks to published ports: pure.

use std::collections::{BTreeMap, BTreeSet};

use dataplane::desired::{Change as Step, Protocol, Published};
use model::{
    Assignments, Change, EndpointId, NetworkId, NodeId, ServiceId,
    assignment::ServiceRoute,
    publish::{PublishOptions, PublishPolicy},
    service::{self, PortConfig, PublishMode},
};

use super::vips::Backends;

/// All published ports, by their ids in the dataplane.
pub fn all(
    assignments: &Assignments,
    backends: &Backends,
    node: &NodeId,
) -> BTreeMap<String, Published> {
    let routes = assignments.services.values();
    routes
        .flat_map(|route| ports(route).map(move |port| (route, port)))
        .filter_map(|(route, port)| {
            let published = published(assignments, backends, node, route, port)?;
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
    node: &NodeId,
) -> Vec<Step> {
    let network_changed = changes.iter().any(|change| match change {
        // Whether it was the ingress network before is no longer known; networks change rarely.
        Change::SetNetwork(_) | Change::RemoveNetwork(_) => true,
        _ => false,
    });
    if network_changed {
        let mut steps = all_steps(assignments, backends, node, assignments.services.values());
        steps.extend(all_steps(assignments, backends, node, gone.values()));
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
    steps.extend(all_steps(assignments, backends, node, now));
    steps
}

fn all_steps<'a>(
    assignments: &Assignments,
    backends: &Backends,
    node: &NodeId,
    routes: impl Iterator<Item = &'a ServiceRoute>,
) -> Vec<Step> {
    routes
        .flat_map(|route| ports(route).map(move |port| (route, port)))
        .map(|(route, port)| {
            let id = id(&route.id, port);
            let current = assignments.services.get(&route.id);
            let current = current.filter(|now| ports(now).any(|other| other == port));
            match current.and_then(|route| published(assignments, backends, node, route, port)) {
                Some(published) => Step::SetPublished(id, published),
                None => Step::RemovePublished(id),
            }
        })
        .collect()
}

fn published(
    assignments: &Assignments,
    backends: &Backends,
    node: &NodeId,
    route: &ServiceRoute,
    port: &PortConfig,
) -> Option<Published> {
    let mut networks = assignments.networks.values();
    let ingress = networks.find(|network| network.spec.ingress)?;
    let options = PublishOptions::of(&route.publish, port);
    let mut all = backends.named(&route.id, &ingress.id);
    let here = |id: &String| {
        let endpoint = assignments.endpoints.get(&EndpointId::new(id.clone()));
        endpoint.is_some_and(|endpoint| endpoint.node == *node)
    };
    match options.policy {
        PublishPolicy::All => {}
        PublishPolicy::LocalFirst if !all.keys().any(here) => {}
        PublishPolicy::LocalFirst | PublishPolicy::Local => all.retain(|id, _| here(id)),
    }
    Some(Published {
        network: ingress.id.to_string(),
        protocol: protocol(port.protocol),
        port: port.published,
        address: options.host_ip,
        interface: options.interface.map(|name| name.to_string()),
        target: port.target,
        backends: all,
    })
}

pub fn protocol(protocol: service::Protocol) -> Protocol {
    match protocol {
        service::Protocol::Tcp => Protocol::Tcp,
        service::Protocol::Udp => Protocol::Udp,
        service::Protocol::Sctp => Protocol::Sctp,
    }
}

fn ports(route: &ServiceRoute) -> impl Iterator<Item = &PortConfig> {
    let ports = route.endpoint.ports.iter();
    ports.filter(|port| port.mode == PublishMode::Ingress && port.published != 0)
}

fn id(service: &ServiceId, port: &PortConfig) -> String {
    format!("{service}.{}/{}", port.published, port.protocol.as_str())
}
