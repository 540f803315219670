//! Ports across hosts: before a service that publishes ports is stored, every host with a session
//! keeps them from other programs, or says why it cannot.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use model::{
    Id, NodeId, Refusal, Service, ServiceSpec,
    publish::{HeldPort, PublishOptions},
    service::PublishMode,
};
use tokio::sync::mpsc;

use crate::{control, leader::Manager, store::Tables, wire::PortOrder};

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

    /// Sends an order to every host with a session; those that have it.
    fn order(&self, order: &PortOrder) -> BTreeSet<NodeId> {
        let mut inner = self.lock();
        inner.sessions.retain(|_, session| !session.is_closed());
        let sent = inner.sessions.iter();
        sent.filter(|(_, session)| session.try_send(order.clone()).is_ok())
            .map(|(node, _)| node.clone())
            .collect()
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
        let desk = self.manager.port_desk();
        desk.lock().waiting.remove(&self.order);
        if !self.ports.is_empty() {
            desk.order(&PortOrder {
                order: self.order.clone(),
                ports: std::mem::take(&mut self.ports),
                keep: None,
            });
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
        let mut open = self.port_desk().order(&PortOrder {
            order,
            ports,
            keep: Some(KEEP),
        });
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
