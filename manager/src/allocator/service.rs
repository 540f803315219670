//! What a service has: virtual addresses and published ports.

use model::{
    Network, NetworkId, Service, ServiceSpec,
    service::{EndpointMode, PublishMode, ServiceEndpoint, VirtualIp},
};

use super::{
    HOST_NETWORKS, Services,
    pools::{Pools, families},
    ports::{Ports, is_dynamic},
};
use crate::{
    decision::Decision,
    store::{StoreChange, Tables},
};

/// Gives services what they miss. Those that get something, or cannot, are in the answer.
pub(super) fn decide(tables: &Tables, pools: &mut Pools, decision: &mut Decision) -> Services {
    let mut ports = Ports::default();
    let mut answers = Services::new();
    for service in tables.work().services() {
        if is_settled(tables, service) {
            continue;
        }
        let (endpoint, reason) = complete(tables, service, &mut ports, pools);
        if endpoint != service.endpoint {
            let mut service = service.clone();
            service.endpoint.clone_from(&endpoint);
            decision
                .changes
                .push(StoreChange::SetService(Box::new(service)));
        }
        let answer = reason.map_or(Ok(endpoint), Err);
        answers.insert(service.id.clone(), answer);
    }
    answers
}

fn mode(spec: &ServiceSpec) -> EndpointMode {
    spec.endpoint
        .as_ref()
        .map(|spec| spec.mode)
        .unwrap_or_default()
}

/// The networks on which the service has virtual addresses: its tasks', and ingress if it
/// publishes there.
fn networks<'a>(tables: &'a Tables, spec: &'a ServiceSpec) -> Vec<&'a Network> {
    if mode(spec) == EndpointMode::Dnsrr {
        return Vec::new();
    }
    let ports = spec.endpoint.iter().flat_map(|spec| &spec.ports);
    let by_ingress = ports
        .into_iter()
        .any(|port| port.mode == PublishMode::Ingress);
    let own = spec.task.networks.iter();
    own.filter(|one| !HOST_NETWORKS.contains(&one.target.as_str()))
        .filter_map(|one| tables.network(&NetworkId::new(one.target.clone())))
        .chain(tables.ingress().filter(|_| by_ingress))
        .collect()
}

/// The cheap look: whether everything that the spec asks for is there, and nothing else.
fn is_settled(tables: &Tables, service: &Service) -> bool {
    let (spec, endpoint) = (&service.spec, &service.endpoint);
    let asked = spec.endpoint.as_ref().map_or(&[][..], |spec| &spec.ports);
    let ports = asked.len() == endpoint.ports.len()
        && asked.iter().zip(&endpoint.ports).all(|(asked, given)| {
            let published = if is_dynamic(asked) {
                given.published != 0
            } else {
                given.published == asked.published
            };
            published
                && (asked.mode, asked.protocol, asked.target, &asked.name)
                    == (given.mode, given.protocol, given.target, &given.name)
        });
    let mut vips = endpoint.vips.iter();
    let mut same = |network: &Network| {
        families(network).all(|v6| {
            vips.next()
                .is_some_and(|vip| vip.network == network.id && vip.address.is_ipv6() == v6)
        })
    };
    mode(spec) == endpoint.mode
        && ports
        && networks(tables, spec).into_iter().all(&mut same)
        && vips.next().is_none()
}

/// The endpoint with all that could be had, and what could not.
fn complete(
    tables: &Tables,
    service: &Service,
    ports: &mut Ports,
    pools: &mut Pools,
) -> (ServiceEndpoint, Option<String>) {
    let (ports, mut reason) = ports.choose(tables, service);
    let mut vips = Vec::new();
    for network in networks(tables, &service.spec) {
        for v6 in families(network) {
            let mut old = service.endpoint.vips.iter();
            let kept = old.find(|vip| vip.network == network.id && vip.address.is_ipv6() == v6);
            if let Some(kept) = kept {
                vips.push(kept.clone());
                continue;
            }
            match pools.take_one(network, v6) {
                Ok(address) => vips.push(VirtualIp {
                    network: network.id.clone(),
                    address,
                }),
                Err(why) => reason = Some(format!("no virtual address for the service: {why}")),
            }
        }
    }
    let endpoint = ServiceEndpoint {
        mode: mode(&service.spec),
        ports,
        vips,
    };
    (endpoint, reason)
}
