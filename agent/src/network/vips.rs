//! From services and the endpoints of their tasks to virtual addresses: pure functions.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use dataplane::desired::{Change as Step, Vip};
use model::{
    Assignments, Change, Endpoint, EndpointId, EndpointOwner, EndpointState, NetworkId, NodeId,
    ServiceId, assignment::ServiceRoute,
};

use super::published;

/// One service on one network.
type Key = (ServiceId, NetworkId);

/// Which endpoints get a service's new connections, kept beside the assignments so that a
/// change costs what it changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backends {
    active: BTreeMap<Key, BTreeMap<EndpointId, Vec<IpAddr>>>,
    /// What each endpoint counts for.
    places: BTreeMap<EndpointId, Key>,
}

impl Backends {
    pub fn of(assignments: &Assignments) -> Self {
        let mut backends = Self::default();
        for endpoint in assignments.endpoints.values() {
            backends.set(endpoint);
        }
        backends
    }

    /// All virtual addresses, by their ids in the dataplane.
    pub fn all(&self, assignments: &Assignments) -> BTreeMap<String, Vip> {
        let mut all = BTreeMap::new();
        for route in assignments.services.values() {
            for network in networks_of(route) {
                if let Some(vip) = self.vip(assignments, &route.id, &network) {
                    all.insert(id(&route.id, &network), vip);
                }
            }
        }
        all
    }

    /// Follows an increment that the assignments have already. Each virtual address that it
    /// touches is answered once, however often it does; `gone` are the routes before it.
    pub fn follow(
        &mut self,
        changes: &[Change],
        gone: &BTreeMap<ServiceId, ServiceRoute>,
        assignments: &Assignments,
        node: &NodeId,
    ) -> Vec<Step> {
        let mut touched: BTreeSet<Key> = BTreeSet::new();
        let service = |touched: &mut BTreeSet<Key>, route: &ServiceRoute| {
            touched.extend(networks_of(route).map(|network| (route.id.clone(), network)));
        };
        for change in changes {
            match change {
                Change::SetEndpoint(endpoint) => touched.extend(self.set(endpoint)),
                Change::RemoveEndpoint(id) => touched.extend(self.remove(id)),
                Change::SetService(route) => {
                    if let Some(before) = gone.get(&route.id) {
                        service(&mut touched, before);
                    }
                    service(&mut touched, route);
                }
                Change::RemoveService(id) => {
                    if let Some(before) = gone.get(id) {
                        service(&mut touched, before);
                    }
                }
                Change::RemoveNetwork(on) => touched.extend(on_network(assignments, on)),
                Change::SetNetwork(network) => touched.extend(on_network(assignments, &network.id)),
                Change::SetPeer(..)
                | Change::RemovePeer(_)
                | Change::SetTask(_)
                | Change::RemoveTask(_)
                | Change::SetPayload(_)
                | Change::RemovePayload(_) => {}
            }
        }
        let mut steps: Vec<Step> = touched
            .iter()
            .map(|(service, network)| {
                let id = id(service, network);
                match self.vip(assignments, service, network) {
                    Some(vip) => Step::SetVip(id, vip),
                    None => Step::RemoveVip(id),
                }
            })
            .collect();
        let ports = published::follow(changes, &touched, gone, assignments, self, node);
        steps.extend(ports);
        steps
    }

    /// The addresses that get new connections of a service on a network, by endpoint.
    pub fn named(&self, service: &ServiceId, network: &NetworkId) -> BTreeMap<String, Vec<IpAddr>> {
        let active = self.active.get(&(service.clone(), network.clone()));
        let active = active.into_iter().flatten();
        active
            .map(|(id, addresses)| (id.to_string(), addresses.clone()))
            .collect()
    }

    fn vip(
        &self,
        assignments: &Assignments,
        service: &ServiceId,
        network: &NetworkId,
    ) -> Option<Vip> {
        let route = assignments.services.get(service)?;
        // On the network of published ports there are no names and nobody asks there; a rule for each
        // published service in each container that publishes would be the square of both.
        assignments
            .networks
            .get(network)
            .filter(|on| !on.spec.ingress)?;
        let addresses: Vec<IpAddr> = route
            .endpoint
            .vips
            .iter()
            .filter(|vip| vip.network == *network)
            .map(|vip| vip.address.ip())
            .collect();
        if addresses.is_empty() {
            return None;
        }
        let mut names = vec![route.name.clone()];
        for alias in route.aliases.get(network).into_iter().flatten() {
            if !names.contains(alias) {
                names.push(alias.clone());
            }
        }
        Some(Vip {
            network: network.to_string(),
            addresses,
            names,
            backends: self.named(service, network),
        })
    }

    /// Notes an endpoint as it is now; the services whose backends that changes.
    fn set(&mut self, endpoint: &Endpoint) -> Vec<Key> {
        let place = match &endpoint.owner {
            EndpointOwner::Task { service, .. } if endpoint.state == EndpointState::Active => {
                Some((service.clone(), endpoint.network.clone()))
            }
            _ => None,
        };
        let Some(place) = place else {
            return self.remove(&endpoint.id);
        };
        let mut touched = Vec::new();
        if self.places.get(&endpoint.id) != Some(&place) {
            touched = self.remove(&endpoint.id);
        }
        let addresses: Vec<IpAddr> = endpoint
            .addresses
            .iter()
            .map(ipnetwork::IpNetwork::ip)
            .collect();
        let active = self.active.entry(place.clone()).or_default();
        if active.insert(endpoint.id.clone(), addresses.clone()) != Some(addresses) {
            touched.push(place.clone());
        }
        self.places.insert(endpoint.id.clone(), place);
        touched
    }

    fn remove(&mut self, id: &EndpointId) -> Vec<Key> {
        let Some(place) = self.places.remove(id) else {
            return Vec::new();
        };
        if let Some(active) = self.active.get_mut(&place) {
            active.remove(id);
            if active.is_empty() {
                self.active.remove(&place);
            }
        }
        vec![place]
    }
}

/// The routes that an increment is about to change, as they are before it.
pub fn routes_before(
    changes: &[Change],
    before: &Assignments,
) -> BTreeMap<ServiceId, ServiceRoute> {
    let service = |change: &Change| match change {
        Change::SetService(route) => Some(route.id.clone()),
        Change::RemoveService(id) => Some(id.clone()),
        _ => None,
    };
    let known = changes.iter().filter_map(service);
    known
        .filter_map(|id| {
            let route = before.services.get(&id)?.clone();
            Some((id, route))
        })
        .collect()
}

fn networks_of(route: &ServiceRoute) -> impl Iterator<Item = NetworkId> + '_ {
    let networks: BTreeSet<&NetworkId> =
        route.endpoint.vips.iter().map(|vip| &vip.network).collect();
    networks.into_iter().cloned()
}

fn on_network<'a>(
    assignments: &'a Assignments,
    network: &'a NetworkId,
) -> impl Iterator<Item = Key> + 'a {
    let services = assignments.services.values();
    services
        .filter(move |route| {
            route
                .endpoint
                .vips
                .iter()
                .any(|vip| vip.network == *network)
        })
        .map(move |route| (route.id.clone(), network.clone()))
}

fn id(service: &ServiceId, network: &NetworkId) -> String {
    format!("{service}.{network}")
}

#[cfg(test)]
mod tests {
    use model::{
        Increment, Meta, Network, NetworkSpec,
        endpoint::MacAddress,
        service::{PortConfig, Protocol, PublishMode, ServiceEndpoint, VirtualIp},
    };
    use proptest::prelude::*;

    use super::*;

    fn endpoint(number: u8, service: &str, state: EndpointState) -> Endpoint {
        Endpoint {
            id: format!("e{number}").into(),
            meta: Meta::default(),
            network: "net".into(),
            node: "n".into(),
            owner: EndpointOwner::Task {
                id: format!("t{number}").into(),
                service: service.into(),
                name: format!("{service}.{number}"),
            },
            addresses: vec![format!("10.0.1.{number}/24").parse().unwrap()],
            mac: MacAddress::default(),
            names: Vec::new(),
            state,
        }
    }

    fn route(service: &str, vip: Option<&str>) -> ServiceRoute {
        ServiceRoute {
            elsewhere: false,
            id: service.into(),
            name: service.into(),
            endpoint: ServiceEndpoint {
                vips: vip
                    .map(|address| VirtualIp {
                        network: "net".into(),
                        address: address.parse().unwrap(),
                    })
                    .into_iter()
                    .collect(),
                ..ServiceEndpoint::default()
            },
            aliases: BTreeMap::from([("net".into(), vec!["short".into()])]),
            publish: BTreeMap::new(),
        }
    }

    fn network() -> Network {
        Network {
            id: "net".into(),
            meta: Meta::default(),
            spec: NetworkSpec::default(),
            vni: 4097,
            subnets: Vec::new(),
        }
    }

    fn base() -> Assignments {
        let mut assignments = Assignments::default();
        assignments.networks.insert("net".into(), network());
        for route in [route("web", Some("10.0.1.200/24")), route("rr", None)] {
            assignments.services.insert(route.id.clone(), route);
        }
        assignments
    }

    fn stepped(
        assignments: &mut Assignments,
        backends: &mut Backends,
        changes: Vec<Change>,
    ) -> Vec<Step> {
        let gone = routes_before(&changes, assignments);
        assignments.apply(&Increment {
            changes: changes.clone(),
            ..Increment::default()
        });
        backends.follow(&changes, &gone, assignments, &"n".into())
    }

    #[test]
    fn a_batch_of_one_service_is_one_step() {
        let (mut assignments, mut backends) = (base(), Backends::default());
        let changes = (1..=100)
            .map(|n| Change::SetEndpoint(Box::new(endpoint(n, "web", EndpointState::Active))))
            .collect();
        let steps = stepped(&mut assignments, &mut backends, changes);
        let [Step::SetVip(id, vip)] = &steps[..] else {
            panic!("{} steps", steps.len());
        };
        assert_eq!(id, "web.net");
        assert_eq!(
            (vip.names.join(" ").as_str(), vip.backends.len()),
            ("web short", 100)
        );
    }

    #[test]
    fn only_active_endpoints_of_services_with_an_address_count() {
        use EndpointState::{Active, Allocated, Draining};
        let (mut assignments, mut backends) = (base(), Backends::default());
        // endpoint's state, service -> steps, backends after
        for (state, service, steps, count) in [
            (Allocated, "web", 0, 0),
            (Active, "web", 1, 1),
            (Active, "web", 0, 1),
            (Draining, "web", 1, 0),
            (Active, "rr", 1, 0),
        ] {
            let change = Change::SetEndpoint(Box::new(endpoint(1, service, state)));
            let made = stepped(&mut assignments, &mut backends, vec![change]);
            assert_eq!(made.len(), steps, "{state:?} {service}");
            let all = backends.all(&assignments);
            assert_eq!(all["web.net"].backends.len(), count, "{state:?} {service}");
            assert_eq!(all.len(), 1);
        }
    }

    fn any_change() -> impl Strategy<Value = Change> {
        let state = prop::sample::select(vec![
            EndpointState::Allocated,
            EndpointState::Active,
            EndpointState::Draining,
        ]);
        let service = prop::sample::select(vec!["web", "rr", "other"]);
        prop_oneof![
            4 => (1u8..6, service, state)
                .prop_map(|(n, service, state)| Change::SetEndpoint(Box::new(endpoint(n, service, state)))),
            2 => (1u8..6).prop_map(|n| Change::RemoveEndpoint(format!("e{n}").into())),
            2 => (prop::option::of(201u8..204), prop::option::of(8000u16..8003)).prop_map(|(last, port)| {
                let vip = last.map(|last| format!("10.0.1.{last}/24"));
                let mut other = route("other", vip.as_deref());
                other.endpoint.ports.extend(port.map(|published| PortConfig {
                    name: String::new(),
                    protocol: Protocol::Tcp,
                    target: 80,
                    published,
                    mode: PublishMode::Ingress,
                }));
                Change::SetService(Box::new(other))
            }),
            1 => Just(Change::RemoveService("other".into())),
            1 => Just(Change::RemoveNetwork("net".into())),
            1 => any::<bool>().prop_map(|ingress| {
                let mut network = network();
                network.spec.ingress = ingress;
                Change::SetNetwork(Box::new(network))
            }),
        ]
    }

    proptest! {
        #[test]
        fn increments_lead_to_what_the_full_set_says(
            batches in prop::collection::vec(prop::collection::vec(any_change(), 1..5), 1..8)
        ) {
            let mut assignments = base();
            let mut backends = Backends::of(&assignments);
            let mut vips = backends.all(&assignments);
            let mut ports = published::all(&assignments, &backends, &"n".into());
            for changes in batches {
                for step in stepped(&mut assignments, &mut backends, changes) {
                    match step {
                        Step::SetVip(id, vip) => { vips.insert(id, vip); }
                        Step::RemoveVip(id) => { vips.remove(&id); }
                        Step::SetPublished(id, port) => { ports.insert(id, port); }
                        Step::RemovePublished(id) => { ports.remove(&id); }
                        other => prop_assert!(false, "{other:?}"),
                    }
                }
                let fresh = Backends::of(&assignments);
                prop_assert_eq!(&backends, &fresh);
                prop_assert_eq!(&vips, &fresh.all(&assignments));
                prop_assert_eq!(&ports, &published::all(&assignments, &fresh, &"n".into()));
            }
        }
    }
}
