//! Who is on a network of the cluster: `Peers` and the verbose `Services` of `network inspect`.

use std::collections::{BTreeMap, BTreeSet};

use api::network::{Peer, ServiceOnNetwork, TaskOnNetwork};
use model::{
    Endpoint, EndpointOwner, Network, Node, NodeId, Service,
    control::{Answer as Reply, Verb},
    service::PublishMode,
};

use super::AppState;

/// What a manager knows of the cluster; a worker is told nothing, and shows what it has.
pub(super) struct Known {
    nodes: Vec<Node>,
    services: Vec<Service>,
}

impl Known {
    pub(super) async fn ask(state: &AppState, with_services: bool) -> Self {
        let nodes = match state.call(Verb::NodeList).await {
            Ok(Reply::Nodes(nodes)) => nodes,
            _ => Vec::new(),
        };
        let mut services = Vec::new();
        if with_services && let Ok(Reply::Services(counted)) = state.call(Verb::ServiceList).await {
            services = counted.into_iter().map(|(service, _)| service).collect();
        }
        Self { nodes, services }
    }

    fn address(&self, node: &NodeId) -> Option<String> {
        let node = self.nodes.iter().find(|known| known.id == *node)?;
        Some(node.description.data_path?.to_string())
    }

    /// The hosts with containers on the network.
    pub(super) fn peers(&self, endpoints: &[Endpoint]) -> Vec<Peer> {
        let hosts: BTreeSet<_> = endpoints.iter().map(|endpoint| &endpoint.node).collect();
        self.nodes
            .iter()
            .filter(|node| hosts.contains(&node.id))
            .map(|node| Peer {
                name: node.description.hostname.clone(),
                ip: self.address(&node.id).unwrap_or_default(),
            })
            .collect()
    }

    /// The services on the network with their virtual addresses and tasks. Stand-alone
    /// containers stand under the empty name, as in Docker's verbose view.
    pub(super) fn services(
        &self,
        network: &Network,
        endpoints: &[Endpoint],
    ) -> BTreeMap<String, ServiceOnNetwork> {
        let mut shown: BTreeMap<String, ServiceOnNetwork> = BTreeMap::new();
        for service in &self.services {
            let vips = &service.endpoint.vips;
            let Some(vip) = vips.iter().find(|vip| vip.network == network.id) else {
                continue;
            };
            let entry = shown.entry(service.spec.name.clone()).or_default();
            entry.vip = vip.address.ip().to_string();
            if network.spec.ingress {
                let ports = service.endpoint.ports.iter();
                entry.ports = ports
                    .filter(|port| port.mode == PublishMode::Ingress)
                    .map(|port| format!("Target: {}, Publish: {}", port.target, port.published))
                    .collect();
            }
        }
        for endpoint in endpoints {
            let name = self.service_of(&endpoint.owner);
            let info = match self.address(&endpoint.node) {
                Some(address) => ("Host IP".to_owned(), address),
                None => ("Host".to_owned(), endpoint.node.to_string()),
            };
            shown.entry(name).or_default().tasks.push(TaskOnNetwork {
                name: endpoint.owner.name().to_owned(),
                endpoint_id: endpoint.id.to_string(),
                endpoint_ip: endpoint
                    .addresses
                    .first()
                    .map(|address| address.ip().to_string())
                    .unwrap_or_default(),
                info: [info].into(),
            });
        }
        shown
    }

    fn service_of(&self, owner: &EndpointOwner) -> String {
        let EndpointOwner::Task { service, name, .. } = owner else {
            return String::new();
        };
        let known = self.services.iter().find(|known| known.id == *service);
        match known {
            Some(service) => service.spec.name.clone(),
            // A task is called <service>.<slot or node>.<task>.
            None => name.rsplitn(3, '.').last().unwrap_or_default().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{
        EndpointState, Meta, NetworkSpec, ServiceSpec,
        endpoint::MacAddress,
        service::{ServiceEndpoint, VirtualIp},
    };

    use super::*;

    fn endpoint(owner: EndpointOwner, address: &str) -> Endpoint {
        Endpoint {
            id: "e".into(),
            meta: Meta::default(),
            network: "net".into(),
            node: "n1".into(),
            owner,
            addresses: vec![address.parse().unwrap()],
            mac: MacAddress::default(),
            names: Vec::new(),
            state: EndpointState::Active,
        }
    }

    #[test]
    fn services_with_their_addresses_and_tasks() {
        let network = Network {
            id: "net".into(),
            meta: Meta::default(),
            spec: NetworkSpec::default(),
            vni: 4097,
            subnets: Vec::new(),
        };
        let service = Service {
            id: "s1".into(),
            meta: Meta::default(),
            spec: ServiceSpec {
                name: "web".into(),
                ..ServiceSpec::default()
            },
            spec_version: 1,
            previous: None,
            endpoint: ServiceEndpoint {
                vips: vec![VirtualIp {
                    network: "net".into(),
                    address: "10.0.1.2/24".parse().unwrap(),
                }],
                ..ServiceEndpoint::default()
            },
            update: None,
            job: None,
        };
        let task = |service: &str, name: &str| EndpointOwner::Task {
            id: "t".into(),
            service: service.into(),
            name: name.into(),
        };
        let alone = EndpointOwner::Container {
            id: model::ContainerId::new("c"),
            name: "tool".into(),
        };
        let endpoints = [
            endpoint(task("s1", "web.1.t"), "10.0.1.3/24"),
            endpoint(task("s2", "a.b.1.t"), "10.0.1.4/24"),
            endpoint(alone, "10.0.1.5/24"),
        ];
        let known = Known {
            nodes: Vec::new(),
            services: vec![service],
        };
        let shown = known.services(&network, &endpoints);
        let told: Vec<_> = shown
            .iter()
            .map(|(name, service)| {
                (
                    name.as_str(),
                    service.vip.as_str(),
                    service.tasks[0].endpoint_ip.as_str(),
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                ("", "", "10.0.1.5"),
                ("a.b", "", "10.0.1.4"),
                ("web", "10.0.1.2", "10.0.1.3"),
            ]
        );
        assert_eq!(shown["web"].tasks[0].info["Host"], "n1");
    }
}
