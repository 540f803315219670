//! How hosts see the ports that they publish: they are asked, over their sessions.

use std::collections::HashMap;

use model::{
    NodeId, Refusal, Service,
    node::NodeState,
    publish::{HeldPort, PortSight, PublishOptions, ServicePort},
    service::{PortConfig, PublishMode},
};

use super::{
    desk::{Order, Word},
    ports::{Ports, held},
};
use crate::{control, dispatcher::opens, leader::Manager, wire::PortQuestion};

impl Manager {
    /// How every host that is ready sees the published ports of a service, or of all.
    pub(crate) async fn port_list(
        &self,
        service: Option<&str>,
    ) -> Result<Vec<ServicePort>, Refusal> {
        let view = self.store().view();
        let services: Vec<&Service> = match service {
            Some(reference) => vec![control::find_service(&view, reference)?],
            None => view.work().services().collect(),
        };
        let ready = |node: &&model::Node| node.status.state == NodeState::Ready;
        let mut asked = Ports::new();
        for service in &services {
            for port in published(service) {
                for node in view.nodes().filter(ready) {
                    let held = held(&service.spec.labels, port, node);
                    asked.entry(node.id.clone()).or_default().extend(held);
                }
            }
        }
        asked.retain(|_, ports| !ports.is_empty());
        let mut seen: HashMap<NodeId, HashMap<HeldPort, PortSight>> = HashMap::new();
        if !asked.is_empty() {
            let order = control::new_id();
            let look = |(node, ports)| {
                let order = order.clone();
                (node, Order::Look(PortQuestion { order, ports }))
            };
            let orders = asked.into_iter().map(look).collect();
            let hear = |node, word| {
                if let Word::Seen(sights) = word {
                    let sights = sights.into_iter().map(|sight| (sight.port, sight));
                    seen.insert(node, sights.collect());
                }
            };
            self.desk().ask(orders, &order, hear).await;
        }
        let mut list = Vec::new();
        for service in services {
            for port in published(service) {
                let held = anywhere(service, port);
                let hosts = view.nodes().filter(ready).map(|node| {
                    let sight = if opens(&service.spec.labels, port, Some(node)) {
                        let sights = seen.get(&node.id);
                        sights.and_then(|sights| sights.get(&held)).cloned()
                    } else {
                        Some(PortSight {
                            port: held,
                            told: false,
                            obstacle: None,
                            drops: Vec::new(),
                            tasks: Vec::new(),
                        })
                    };
                    (node.id.clone(), sight)
                });
                list.push(ServicePort {
                    service: service.id.clone(),
                    name: service.spec.name.clone(),
                    target: port.target,
                    port: held,
                    hosts: hosts.collect(),
                });
            }
        }
        Ok(list)
    }
}

/// The ports that a service has on hosts in common, as they are now.
fn published(service: &Service) -> impl Iterator<Item = &PortConfig> {
    let ports = service.endpoint.ports.iter();
    ports.filter(|port| port.mode == PublishMode::Ingress && port.published != 0)
}

/// As whoever publishes it holds it.
fn anywhere(service: &Service, port: &PortConfig) -> HeldPort {
    let options = PublishOptions::of(&service.spec.labels, port);
    HeldPort {
        protocol: port.protocol,
        port: port.published,
        address: options.host_ip,
        interface: options.interface,
    }
}
