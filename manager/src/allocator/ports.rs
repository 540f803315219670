//! Published ports: those asked for, and free ones for the others.

use std::collections::HashMap;

use model::{
    Service, ServiceId, ServiceSpec,
    service::{PortConfig, Protocol, PublishMode, ServiceEndpoint},
};

use crate::store::Tables;

/// Ports that are given to services that leave the choice.
const DYNAMIC: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// The ingress ports given during one decision.
#[derive(Default)]
pub(super) struct Ports {
    given: HashMap<(Protocol, u16), ServiceId>,
}

impl Ports {
    /// The ports as asked with every choice made, and what could not be had. Choices of before
    /// stay.
    pub(super) fn choose(
        &mut self,
        tables: &Tables,
        service: &Service,
    ) -> (Vec<PortConfig>, Option<String>) {
        let asked = service.spec.endpoint.iter().flat_map(|spec| &spec.ports);
        let mut before: Vec<&PortConfig> = service.endpoint.ports.iter().collect();
        let (mut ports, mut reason) = (Vec::new(), None);
        // What is fixed goes first, so that no choice takes it away.
        let fixed = asked.clone().filter(|port| !is_dynamic(port));
        for port in fixed.filter(|port| port.mode == PublishMode::Ingress) {
            if let Some(other) = self.user(tables, service, port.protocol, port.published) {
                let name = tables
                    .work()
                    .service(&other)
                    .map_or_else(|| other.to_string(), |other| other.spec.name.clone());
                reason = Some(format!(
                    "port {}/{} is in use by service {name}; publish another",
                    port.published,
                    port.protocol.as_str()
                ));
            } else {
                self.give(service, port.protocol, port.published);
            }
        }
        for port in asked {
            let mut port = port.clone();
            let mine = |given: Option<&ServiceId>| given == Some(&service.id);
            if is_dynamic(&port) {
                let kept = choice(&mut before, &port).filter(|published| {
                    self.user(tables, service, port.protocol, *published)
                        .is_none()
                });
                let Some(published) = kept.or_else(|| self.free(tables, service, port.protocol))
                else {
                    reason = Some(format!(
                        "no port from {} to {} is free for target {}/{}; publish a port of your choice",
                        DYNAMIC.start(),
                        DYNAMIC.end(),
                        port.target,
                        port.protocol.as_str()
                    ));
                    continue;
                };
                port.published = published;
                self.give(service, port.protocol, published);
            } else if port.mode == PublishMode::Ingress
                && !mine(self.given.get(&(port.protocol, port.published)))
            {
                continue;
            }
            ports.push(port);
        }
        (ports, reason)
    }

    fn give(&mut self, service: &Service, protocol: Protocol, port: u16) {
        self.given.insert((protocol, port), service.id.clone());
    }

    /// The other service that has the port.
    fn user(
        &self,
        tables: &Tables,
        service: &Service,
        protocol: Protocol,
        port: u16,
    ) -> Option<ServiceId> {
        let stored = || tables.work().port_user(protocol, port);
        let user = self.given.get(&(protocol, port)).or_else(stored)?;
        (*user != service.id).then(|| user.clone())
    }

    /// A port that nobody has, this service neither.
    fn free(&self, tables: &Tables, service: &Service, protocol: Protocol) -> Option<u16> {
        let mut free = free_ports(tables, &service.spec, &service.endpoint, protocol);
        free.find(|port| !self.given.contains_key(&(protocol, *port)))
    }
}

/// Ports to choose from that no service has, one with this spec and endpoint neither.
pub(crate) fn free_ports<'a>(
    tables: &'a Tables,
    spec: &'a ServiceSpec,
    endpoint: &'a ServiceEndpoint,
    protocol: Protocol,
) -> impl Iterator<Item = u16> + 'a {
    let own = move |port: u16| {
        let asked = spec.endpoint.iter().flat_map(|spec| &spec.ports);
        let mut all = endpoint.ports.iter().chain(asked);
        all.any(|one| one.protocol == protocol && one.published == port)
    };
    let free = move |port: &u16| tables.work().port_user(protocol, *port).is_none() && !own(*port);
    DYNAMIC.filter(free)
}

/// The ports of a spec with the choices that an endpoint holds for them; those that are still to
/// be chosen have none.
pub(crate) fn with_choices(spec: &ServiceSpec, endpoint: &ServiceEndpoint) -> Vec<PortConfig> {
    let mut before: Vec<&PortConfig> = endpoint.ports.iter().collect();
    let asked = spec.endpoint.iter().flat_map(|spec| &spec.ports);
    asked
        .map(|port| {
            let dynamic = is_dynamic(port);
            let published = dynamic.then(|| choice(&mut before, port)).flatten();
            PortConfig {
                published: published.unwrap_or(port.published),
                ..port.clone()
            }
        })
        .collect()
}

/// Takes the choice for a port like this one out of those of before.
fn choice(before: &mut Vec<&PortConfig>, port: &PortConfig) -> Option<u16> {
    let same = |old: &&PortConfig| {
        old.mode == port.mode
            && old.protocol == port.protocol
            && old.target == port.target
            && DYNAMIC.contains(&old.published)
    };
    let at = before.iter().position(same)?;
    Some(before.remove(at).published)
}

/// Whether the choice is the allocator's.
pub(super) fn is_dynamic(port: &PortConfig) -> bool {
    port.mode == PublishMode::Ingress && port.published == 0
}
