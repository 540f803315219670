//! Ports across hosts: before a service that publishes ports is stored, every host with a session
//! that is to publish them keeps them from other programs, or says why it cannot.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use model::{
    Id, Node, NodeId, Refusal, Service, ServiceSpec,
    publish::{HeldPort, PublishOptions},
    service::{PortConfig, PublishMode},
};
use tokio::sync::mpsc;

use crate::{
    allocator::with_choices, control, dispatcher::opens, leader::Manager, store::Tables,
    wire::PortOrder,
};

/// Orders that wait for a host's session.
const ORDERS: usize = 64;
/// How long hosts may take to answer; whoever is later is not waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long hosts keep a port for a service that is about to be there.
const KEEP: Duration = Duration::from_secs(15);

/// Ports by the hosts that are to have them.
pub(super) type Ports = BTreeMap<NodeId, Vec<HeldPort>>;

/// Who waits for which hosts' word.
#[derive(Default)]
pub(crate) struct PortDesk {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Where orders to a host's session go.
    sessions: HashMap<NodeId, mpsc::Sender<PortOrder>>,
    waiting: HashMap<Id, mpsc::UnboundedSender<(NodeId, Vec<String>)>>,
}

impl PortDesk {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Maps are changed one entry at a time; none is left half made by a panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Orders for a host whose session has just begun.
    pub(super) fn session(&self, node: &NodeId) -> mpsc::Receiver<PortOrder> {
        let (sender, receiver) = mpsc::channel(ORDERS);
        self.lock().sessions.insert(node.clone(), sender);
        receiver
    }

    /// What a host says of an order.
    pub(crate) fn answer(&self, order: &Id, node: NodeId, refused: Vec<String>) {
        if let Some(waiting) = self.lock().waiting.get(order) {
            // Whoever asked may have stopped waiting.
            let _ = waiting.send((node, refused));
        }
    }

    /// Sends each host with a session the order about its ports; those that have it.
    fn order(&self, id: &Id, ports: &Ports, keep: Option<Duration>) -> BTreeSet<NodeId> {
        let mut inner = self.lock();
        inner.sessions.retain(|_, session| !session.is_closed());
        let sent = ports.iter().filter(|(node, ports)| {
            let order = PortOrder {
                order: id.clone(),
                ports: (*ports).clone(),
                keep,
            };
            let session = inner.sessions.get(*node);
            session.is_some_and(|session| session.try_send(order).is_ok())
        });
        sent.map(|(node, _)| node.clone()).collect()
    }
}

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
        let desk = self.manager.port_desk();
        desk.lock().waiting.remove(&self.order);
        desk.order(&self.order, &self.ports, None);
    }
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
        let (sender, mut answers) = mpsc::unbounded_channel();
        self.port_desk()
            .lock()
            .waiting
            .insert(order.clone(), sender);
        let kept = Kept {
            manager: self,
            order: order.clone(),
            ports: ports.clone(),
        };
        let mut open = self.port_desk().order(&order, &ports, Some(KEEP));
        let mut refused = BTreeMap::new();
        let hear = async {
            while !open.is_empty() {
                let Some((node, sentences)) = answers.recv().await else {
                    return;
                };
                open.remove(&node);
                if !sentences.is_empty() {
                    refused.insert(node, sentences);
                }
            }
        };
        if tokio::time::timeout(PATIENCE, hear).await.is_err() {
            tracing::warn!(
                ?open,
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
