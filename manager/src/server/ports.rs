//! Ports across hosts: before a service that publishes ports is stored, every host with a session
//! that is to publish them keeps them from other programs, or says why it cannot. By the same way hosts
//! are asked how they see ports ([`super::sights`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use model::{
    Id, Node, NodeId, Refusal, Service, ServiceSpec,
    publish::{HeldPort, PublishOptions},
    service::{PortConfig, PublishMode},
};

use super::desk::{Order, Word};
use crate::{
    allocator::with_choices, control, dispatcher::opens, leader::Manager, store::Tables,
    wire::PortOrder,
};

/// How long hosts keep a port for a service that is about to be there.
const KEEP: Duration = Duration::from_secs(15);

/// Ports by the hosts that are to have them.
pub(super) type Ports = BTreeMap<NodeId, Vec<HeldPort>>;

/// Ports that hosts keep for a service; given up when they are dropped, but not when they are
/// [used](Self::used).
pub(crate) struct Kept<'a> {
    manager: &'a Manager,
    order: Id,
    ports: Ports,
}

impl Kept<'_> {
    /// The service is there: its own word holds the ports from now on.
    pub fn used(mut self) {
        self.ports.clear();
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        let ports = std::mem::take(&mut self.ports);
        self.manager
            .desk()
            .order(keep_orders(&self.order, ports, None));
    }
}

fn keep_orders(order: &Id, ports: Ports, keep: Option<Duration>) -> BTreeMap<NodeId, Order> {
    let keeping = |(node, ports)| {
        let order = order.clone();
        (node, Order::Keep(PortOrder { order, ports, keep }))
    };
    ports.into_iter().map(keeping).collect()
}

/// The ports that a service with this spec takes on the node, and does not have there.
fn asked(spec: &ServiceSpec, own: Option<&Service>, node: &Node) -> Vec<HeldPort> {
    let given = own.map(|service| service.endpoint.clone());
    let given = given.unwrap_or_default();
    let ports = |spec: &ServiceSpec| -> BTreeSet<HeldPort> {
        let ports = with_choices(spec, &given).into_iter();
        ports
            .filter(|port| port.mode == PublishMode::Ingress && port.published != 0)
            .filter_map(|port| held(&spec.labels, &port, node))
            .collect()
    };
    let own = own.map(|service| ports(&service.spec)).unwrap_or_default();
    ports(spec).difference(&own).copied().collect()
}

/// The port as the node would hold it; none if it does not publish it.
pub(super) fn held(
    labels: &BTreeMap<String, String>,
    port: &PortConfig,
    node: &Node,
) -> Option<HeldPort> {
    let options = PublishOptions::of(labels, port);
    opens(labels, port, Some(node)).then_some(HeldPort {
        protocol: port.protocol,
        port: port.published,
        address: options.host_ip,
        interface: options.interface,
    })
}

impl Manager {
    /// Has all hosts with a session keep the ports that such a service would take, but for those
    /// that are still to be chosen; a refusal names the hosts that cannot.
    pub(crate) async fn keep_ports(
        &self,
        spec: &ServiceSpec,
        own: Option<&Service>,
    ) -> Result<Option<Kept<'_>>, Refusal> {
        let view = self.store().view();
        let asked = view
            .nodes()
            .map(|node| (node.id.clone(), asked(spec, own, node)));
        self.keep(asked.collect()).await
    }

    /// Has each host that has a session keep its ports.
    pub(super) async fn keep(&self, mut ports: Ports) -> Result<Option<Kept<'_>>, Refusal> {
        ports.retain(|_, ports| !ports.is_empty());
        if ports.is_empty() {
            return Ok(None);
        }
        let order = control::new_id();
        let kept = Kept {
            manager: self,
            order: order.clone(),
            ports: ports.clone(),
        };
        let mut refused = BTreeMap::new();
        let hear = |node, word| match word {
            Word::Refused(sentences) if !sentences.is_empty() => {
                refused.insert(node, sentences);
            }
            Word::Refused(_) | Word::Seen(_) | Word::Counted(_) => {}
        };
        let orders = keep_orders(&order, ports, Some(KEEP));
        let late = self.desk().ask(orders, &order, hear).await;
        if !late.is_empty() {
            tracing::warn!(
                ?late,
                "hosts did not say in time whether they have the ports"
            );
        }
        if refused.is_empty() {
            return Ok(Some(kept));
        }
        Err(Refusal::conflict(sentence(&self.store().view(), &refused)))
    }
}

fn sentence(tables: &Tables, refused: &BTreeMap<NodeId, Vec<String>>) -> String {
    let hosts = refused.iter().map(|(id, sentences)| {
        let node = tables.node(id);
        let name = node.map_or(id.as_str(), |node| &node.description.hostname);
        format!("host {name}: {}", sentences.join("; "))
    });
    let hosts: Vec<_> = hosts.collect();
    format!("ports cannot be published: {}", hosts.join("; "))
}

#[cfg(test)]
mod tests {
    use model::{publish::label, service::Protocol};

    use super::*;
    use crate::example::{node, publish, service};

    #[test]
    fn a_node_is_asked_for_what_it_is_to_publish_and_does_not() {
        let shaped = |options: &str| {
            let mut web = service("web", 1, &[]);
            publish(&mut web, 80, 8080, PublishMode::Ingress);
            let label = label(80, Protocol::Tcp);
            web.spec.labels.insert(label, options.to_owned());
            web
        };
        let mut edge = node("n1");
        edge.spec.labels.insert("edge".into(), "true".into());
        let plain = node("n2");
        let on_edge = "nodes=node.labels.edge==true";
        for (before, now, at_edge, at_plain) in [
            (None, "", 1, 1),
            (None, on_edge, 1, 0),
            (Some(on_edge), on_edge, 0, 0),
            (Some(on_edge), "", 0, 1),
            (Some(""), on_edge, 0, 0),
            (Some(""), "host_ip=eth1", 1, 1),
        ] {
            let (own, new) = (before.map(shaped), shaped(now));
            let count = |node| asked(&new.spec, own.as_ref(), node).len();
            let found = (count(&edge), count(&plain));
            assert_eq!(found, (at_edge, at_plain), "{before:?} to {now:?}");
        }
    }
}
