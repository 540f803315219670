//! What hosts are asked over their sessions, and answer by calls of their own.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use model::{HostTraffic, Id, NodeId, publish::PortSight};
use tokio::sync::mpsc;

use crate::wire::{PortOrder, PortQuestion, SessionMessage, TrafficQuestion};

/// Orders that wait for a host's session.
const ORDERS: usize = 64;
/// How long hosts may take to answer; whoever is later is not waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Who waits for which hosts' word.
#[derive(Default)]
pub(crate) struct Desk {
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

/// What a host is asked.
#[derive(Debug, Clone)]
pub(super) enum Order {
    Keep(PortOrder),
    Look(PortQuestion),
    Count(TrafficQuestion),
}

impl Order {
    /// From which level on hosts understand it.
    fn level(&self) -> u32 {
        match self {
            Self::Keep(_) => 0,
            Self::Look(_) => 1,
            Self::Count(_) => 3,
        }
    }
}

impl From<Order> for SessionMessage {
    fn from(order: Order) -> Self {
        match order {
            Order::Keep(order) => Self::Ports(Box::new(order)),
            Order::Look(question) => Self::LookAtPorts(Box::new(question)),
            Order::Count(question) => Self::CountTraffic(Box::new(question)),
        }
    }
}

/// What a host answers.
#[derive(Debug)]
pub(crate) enum Word {
    /// To an order to keep ports: why it cannot.
    Refused(Vec<String>),
    /// To a question about ports.
    Seen(Vec<PortSight>),
    /// To a question about traffic.
    Counted(HostTraffic),
}

impl Desk {
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

    /// Sends each host with a session that understands it its order; those that have it.
    pub(super) fn order(&self, orders: BTreeMap<NodeId, Order>) -> BTreeSet<NodeId> {
        let mut inner = self.lock();
        inner.sessions.retain(|_, line| !line.orders.is_closed());
        let mut sent = BTreeSet::new();
        for (node, order) in orders {
            let line = inner.sessions.get(&node);
            let line = line.filter(|line| line.level >= order.level());
            if line.is_some_and(|line| line.orders.try_send(order).is_ok()) {
                sent.insert(node);
            }
        }
        sent
    }

    /// Asks hosts, and hands on what each says, until all have answered or the time is over; those
    /// that have the order and have not answered.
    pub(super) async fn ask(
        &self,
        orders: BTreeMap<NodeId, Order>,
        id: &Id,
        mut hear: impl FnMut(NodeId, Word),
    ) -> BTreeSet<NodeId> {
        let (sender, mut answers) = mpsc::unbounded_channel();
        self.lock().waiting.insert(id.clone(), sender);
        let _ends = Asking { desk: self, id };
        let mut open = self.order(orders);
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
    desk: &'a Desk,
    id: &'a Id,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.desk.lock().waiting.remove(self.id);
    }
}
