//! Ports across hosts: before a service that publishes ports is stored, every host with a session
//! keeps them from other programs, or says why it cannot; later it says how it sees them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use model::{
    Id, NodeId, Refusal, Service, ServiceSpec,
    node::NodeState,
    publish::{HeldPort, PortSight, PublishOptions, ServicePort},
    service::PublishMode,
};
use tokio::sync::mpsc;

use crate::{
    control,
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

    /// Sends an order to every host with a session that understands it; those that have it.
    fn order(&self, order: &Order) -> BTreeSet<NodeId> {
        let mut inner = self.lock();
        inner.sessions.retain(|_, line| !line.orders.is_closed());
        let understand = inner.sessions.iter();
        understand
            .filter(|(_, line)| line.level >= order.level())
            .filter(|(_, line)| line.orders.try_send(order.clone()).is_ok())
            .map(|(node, _)| node.clone())
            .collect()
    }

    /// Asks every host, and hands on what each says, until all have answered or the time is over;
    /// those that have not answered.
    async fn ask(
        &self,
        order: &Order,
        id: &Id,
        mut hear: impl FnMut(NodeId, Word),
    ) -> BTreeSet<NodeId> {
        let (sender, mut answers) = mpsc::unbounded_channel();
        self.lock().waiting.insert(id.clone(), sender);
        let _ends = Asking { desk: self, id };
        let mut open = self.order(order);
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
    ports: Vec<HeldPort>,
}

impl Kept<'_> {
    /// The service is there: its own word holds the ports from now on.
    pub fn used(mut self) {
        self.ports.clear();
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        if !self.ports.is_empty() {
            self.manager.port_desk().order(&Order::Keep(PortOrder {
                order: self.order.clone(),
                ports: std::mem::take(&mut self.ports),
                keep: None,
            }));
        }
    }
}

/// The ports that a service with this spec takes, and does not have.
fn asked(spec: &ServiceSpec, own: Option<&Service>) -> Vec<HeldPort> {
    let ports = |spec: &ServiceSpec| -> BTreeSet<HeldPort> {
        let ports = spec.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
        ports
            .filter(|port| port.mode == PublishMode::Ingress && port.published != 0)
            .map(|port| HeldPort {
                protocol: port.protocol,
                port: port.published,
                address: PublishOptions::of(&spec.labels, port).host_ip,
            })
            .collect()
    };
    let own = own.map(|service| ports(&service.spec)).unwrap_or_default();
    ports(spec).difference(&own).copied().collect()
}

impl Manager {
    /// Has all hosts with a session keep the ports that such a service would take; a refusal
    /// names the hosts that cannot.
    pub(crate) async fn keep_ports(
        &self,
        spec: &ServiceSpec,
        own: Option<&Service>,
    ) -> Result<Option<Kept<'_>>, Refusal> {
        let ports = asked(spec, own);
        if ports.is_empty() {
            return Ok(None);
        }
        let order = control::new_id();
        let kept = Kept {
            manager: self,
            order: order.clone(),
            ports: ports.clone(),
        };
        let keep = Order::Keep(PortOrder {
            order: order.clone(),
            ports,
            keep: Some(KEEP),
        });
        let mut refused = BTreeMap::new();
        let late = self
            .port_desk()
            .ask(&keep, &order, |node, word| match word {
                Word::Refused(sentences) if !sentences.is_empty() => {
                    refused.insert(node, sentences);
                }
                Word::Refused(_) | Word::Seen(_) => {}
            })
            .await;
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

impl Manager {
    /// How every host sees the published ports of a service, or of all.
    pub(crate) async fn port_list(
        &self,
        service: Option<&str>,
    ) -> Result<Vec<ServicePort>, Refusal> {
        let view = self.store().view();
        let services: Vec<&Service> = match service {
            Some(reference) => vec![control::find_service(&view, reference)?],
            None => view.work().services().collect(),
        };
        let mut list: Vec<ServicePort> = services.into_iter().flat_map(published).collect();
        let ports: BTreeSet<HeldPort> = list.iter().map(|one| one.port).collect();
        if ports.is_empty() {
            return Ok(list);
        }
        let order = control::new_id();
        let question = Order::Look(PortQuestion {
            order: order.clone(),
            ports: ports.into_iter().collect(),
        });
        let mut seen: HashMap<NodeId, HashMap<HeldPort, PortSight>> = HashMap::new();
        let hear = |node, word| {
            if let Word::Seen(sights) = word {
                let sights = sights.into_iter().map(|sight| (sight.port, sight));
                seen.insert(node, sights.collect());
            }
        };
        self.port_desk().ask(&question, &order, hear).await;
        for one in &mut list {
            let hosts = view
                .nodes()
                .filter(|node| node.status.state == NodeState::Ready);
            one.hosts = hosts
                .map(|node| {
                    let sight = seen.get(&node.id).and_then(|seen| seen.get(&one.port));
                    (node.id.clone(), sight.cloned())
                })
                .collect();
        }
        Ok(list)
    }
}

/// The ports that a service has on all hosts, as they are now.
fn published(service: &Service) -> impl Iterator<Item = ServicePort> {
    let ports = service.endpoint.ports.iter();
    ports
        .filter(|port| port.mode == PublishMode::Ingress && port.published != 0)
        .map(|port| ServicePort {
            service: service.id.clone(),
            name: service.spec.name.clone(),
            target: port.target,
            port: HeldPort {
                protocol: port.protocol,
                port: port.published,
                address: PublishOptions::of(&service.spec.labels, port).host_ip,
            },
            hosts: Vec::new(),
        })
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
