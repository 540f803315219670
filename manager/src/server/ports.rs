//! Ports across hosts: before a service that publishes ports is stored, every host with a session
//! that is to publish them keeps them from other programs, or says why it cannot. By the same way hosts
//! are asked how they see ports ([`super::sights`]).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use model::{
    Id, Node, NodeId, Refusal, Service, ServiceSpec,
    publish::{HeldPort, PortSight, PublishOptions},
    service::{PortConfig, PublishMode},
};
use tokio::sync::mpsc;

use crate::{
    allocator::with_choices,
    control,
    dispatcher::opens,
    leader::Manager,
    store::Tables,
    wire::{PortOrder, PortQuestion, SessionMessage},
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
    sessions: HashMap<NodeId, Line>,
    waiting: HashMap<Id, mpsc::UnboundedSender<(NodeId, Word)>>,
}

/// To a host's session.
struct Line {
    level: u32,
    orders: mpsc::Sender<Order>,
}

/// What a host is asked about ports.
#[derive(Debug, Clone)]
pub(super) enum Order {
    Keep(PortOrder),
    Look(PortQuestion),
}

impl Order {
    /// From which level on hosts understand it.
    fn level(&self) -> u32 {
        match self {
            Self::Keep(_) => 0,
            Self::Look(_) => 1,
        }
    }
}

impl From<Order> for SessionMessage {
    fn from(order: Order) -> Self {
        match order {
            Order::Keep(order) => Self::Ports(Box::new(order)),
            Order::Look(question) => Self::LookAtPorts(Box::new(question)),
        }
    }
}

/// What a host answers.
#[derive(Debug)]
pub(crate) enum Word {
    /// To an order to keep ports: why it cannot.
    Refused(Vec<String>),
    /// To a question.
    Seen(Vec<PortSight>),
}

impl PortDesk {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Maps are changed one entry at a time; none is left half made by a panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Orders for a host whose session has just begun.
    pub(super) fn session(&self, node: &NodeId, level: u32) -> mpsc::Receiver<Order> {
        let (orders, receiver) = mpsc::channel(ORDERS);
        let line = Line { level, orders };
        self.lock().sessions.insert(node.clone(), line);
        receiver
    }

    /// What a host says of an order.
    pub(crate) fn answer(&self, order: &Id, node: NodeId, word: Word) {
        if let Some(waiting) = self.lock().waiting.get(order) {
            // Whoever asked may have stopped waiting.
            let _ = waiting.send((node, word));
        }
    }

    /// Sends each host with a session that understands it the order about its ports; those that
    /// have it.
    fn order(&self, ports: &Ports, order: impl Fn(Vec<HeldPort>) -> Order) -> BTreeSet<NodeId> {
        let mut inner = self.lock();
        inner.sessions.retain(|_, line| !line.orders.is_closed());
        let sent = ports.iter().filter(|(node, ports)| {
            let order = order((*ports).clone());
            let line = inner.sessions.get(*node);
            line.filter(|line| line.level >= order.level())
                .is_some_and(|line| line.orders.try_send(order).is_ok())
        });
        sent.map(|(node, _)| node.clone()).collect()
    }

    /// Asks hosts about their ports, and hands on what each says, until all have answered or the
    /// time is over; those that have not answered.
    pub(super) async fn ask(
        &self,
        ports: &Ports,
        id: &Id,
        order: impl Fn(Vec<HeldPort>) -> Order,
        mut hear: impl FnMut(NodeId, Word),
    ) -> BTreeSet<NodeId> {
        let (sender, mut answers) = mpsc::unbounded_channel();
        self.lock().waiting.insert(id.clone(), sender);
        let _ends = Asking { desk: self, id };
        let mut open = self.order(ports, order);
        let listen = async {
            while !open.is_empty() {
                let Some((node, word)) = answers.recv().await else {
                    return;
                };
                if open.remove(&node) {
                    hear(node, word);
                }
            }
        };
        // Whoever is later is named by what is left open.
        let _ = tokio::time::timeout(PATIENCE, listen).await;
        open
    }
}

/// Somebody waits for an answer; not longer than this lives.
struct Asking<'a> {
    desk: &'a PortDesk,
    id: &'a Id,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.desk.lock().waiting.remove(self.id);
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
        let ports = std::mem::take(&mut self.ports);
        let release = |ports| keep_order(&self.order, ports, None);
        self.manager.port_desk().order(&ports, release);
    }
}

fn keep_order(order: &Id, ports: Vec<HeldPort>, keep: Option<Duration>) -> Order {
    Order::Keep(PortOrder {
        order: order.clone(),
        ports,
        keep,
    })
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
            Word::Refused(_) | Word::Seen(_) => {}
        };
        let keep = |ports| keep_order(&order, ports, Some(KEEP));
        let late = self.port_desk().ask(&ports, &order, keep, hear).await;
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
