//! Logs across hosts: a manager asks the hosts that have the tasks, they push their lines, the
//! manager makes one stream of them.
//!
//! Every part is bounded: a host holds its files, a channel holds [`DEPTH`] batches, the merge one
//! line of each host. A reader that goes away closes the channels, and with them the pushes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::BoxStream};
use model::{
    Id, NodeId, Refusal, TaskId,
    log::{LogItem, LogOptions, LogSelector},
};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::merge::{Merge, Said, WINDOW};
use crate::{
    client::Connection,
    control,
    leader::{Manager, Place},
    tls,
    wire::{LogOpening, LogOrder, LogPush, Payload, ReadLogs, unpack},
};

/// Batches of a host that wait for the reader.
const DEPTH: usize = 4;
/// Orders that wait for a host's session.
const ORDERS: usize = 64;
/// How long a host may take to begin.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who reads which hosts' logs.
#[derive(Default)]
pub(crate) struct LogDesk {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Where orders to a host's session go.
    sessions: HashMap<NodeId, mpsc::Sender<LogOrder>>,
    /// Hosts that are expected to push, by subscription.
    expected: HashMap<(Id, NodeId), mpsc::Sender<LogPush>>,
}

impl LogDesk {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Maps are changed one entry at a time; none is left half made by a panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Orders for a host whose session has just begun.
    pub(super) fn session(&self, node: &NodeId) -> mpsc::Receiver<LogOrder> {
        let (sender, receiver) = mpsc::channel(ORDERS);
        self.lock().sessions.insert(node.clone(), sender);
        receiver
    }

    /// Asks a host; the receiver ends early when it cannot be asked.
    fn order(&self, node: &NodeId, order: LogOrder) -> Result<mpsc::Receiver<LogPush>, String> {
        let mut inner = self.lock();
        let session = inner.sessions.get(node);
        let session = session.filter(|session| !session.is_closed());
        let Some(session) = session else {
            return Err("the host has no session with its manager".to_owned());
        };
        let key = (order.subscription.clone(), node.clone());
        session
            .try_send(order)
            .map_err(|_| "the host takes no more orders at the moment".to_owned())?;
        let (sender, receiver) = mpsc::channel(DEPTH);
        inner.expected.insert(key, sender);
        Ok(receiver)
    }

    /// The host begins to push; once.
    fn take(&self, subscription: &Id, node: &NodeId) -> Option<mpsc::Sender<LogPush>> {
        let key = (subscription.clone(), node.clone());
        self.lock().expected.remove(&key)
    }

    /// What a host pushes, until it ends, breaks or nobody reads any more.
    pub(super) async fn receive(
        &self,
        node: &NodeId,
        mut pushed: Streaming<Payload>,
    ) -> Result<(), Status> {
        let first = pushed.message().await?;
        let first = first.ok_or_else(|| Status::invalid_argument("an empty stream of logs"))?;
        let opening: LogOpening = unpack(&first)?;
        let Some(reader) = self.take(&opening.subscription, node) else {
            return Ok(());
        };
        let _ = reader.send(LogPush::Lines(Vec::new())).await;
        loop {
            let message = tokio::select! {
                message = pushed.message() => message?,
                () = reader.closed() => return Ok(()),
            };
            let Some(payload) = message else {
                return Ok(());
            };
            if reader.send(unpack(&payload)?).await.is_err() {
                return Ok(());
            }
        }
    }
}

impl Manager {
    /// The lines of these tasks from all hosts that have them, in the order of their times. A
    /// host that is away is named, and the others' lines come all the same. Dropping the stream
    /// ends it everywhere. Unknown task: 404.
    pub async fn logs(
        self: &Arc<Self>,
        selector: &LogSelector,
        options: &LogOptions,
    ) -> Result<BoxStream<'static, LogItem>, Refusal> {
        let place = self.place().borrow().clone();
        let leader = match place {
            Place::Leading(_) => return self.logs_here(selector, options),
            Place::Following(leader) => leader,
            Place::Nobody(_) => return Err(self.no_leader()),
        };
        let ask = ReadLogs {
            selector: selector.clone(),
            options: options.clone(),
        };
        // A connection of its own: who reads slowly must not hold up consensus.
        let tls =
            tls::member(&self.identity()).map_err(|error| Refusal::internal(error.to_string()))?;
        let connection = Connection::open(leader, tls).await?;
        Ok(connection.read_logs(&ask).await?)
    }

    /// [`Self::logs`] on the leader, which has the hosts' sessions.
    pub(crate) fn logs_here(
        self: &Arc<Self>,
        selector: &LogSelector,
        options: &LogOptions,
    ) -> Result<BoxStream<'static, LogItem>, Refusal> {
        let mut hosts: BTreeMap<NodeId, Vec<TaskId>> = BTreeMap::new();
        let view = self.store().view();
        for id in &selector.tasks {
            let task = view
                .work()
                .task(id)
                .ok_or_else(|| Refusal::not_found(format!("task {id} not found")))?;
            if let Some(node) = &task.node {
                hosts.entry(node.clone()).or_default().push(id.clone());
            }
        }
        let subscription = control::new_id();
        let lanes = hosts.into_iter().map(|(node, tasks)| {
            let order = LogOrder {
                subscription: subscription.clone(),
                tasks,
                options: options.clone(),
            };
            let expected = Expected {
                manager: Arc::clone(self),
                key: (subscription.clone(), node.clone()),
            };
            let ordered = self.log_desk().order(&node, order);
            lane(node, ordered, expected)
        });
        Ok(Merge::new(lanes.collect(), PATIENCE + WINDOW).boxed())
    }
}

/// Takes the expectation back when nobody reads any more.
struct Expected {
    manager: Arc<Manager>,
    key: (Id, NodeId),
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.manager.log_desk().take(&self.key.0, &self.key.1);
    }
}

/// One host's part.
fn lane(
    node: NodeId,
    ordered: Result<mpsc::Receiver<LogPush>, String>,
    expected: Expected,
) -> BoxStream<'static, Said> {
    async_stream::stream! {
        let _expected = expected;
        let away = |reason: &str| Some(LogItem::Away { node: node.clone(), reason: reason.to_owned() });
        let mut pushes = match ordered {
            Ok(pushes) => pushes,
            Err(reason) => {
                yield away(&reason);
                return;
            }
        };
        let Ok(mut first) = tokio::time::timeout(PATIENCE, pushes.recv()).await else {
            yield away("the host did not answer in time");
            return;
        };
        loop {
            let push = match first.take() {
                Some(push) => Some(push),
                None => pushes.recv().await,
            };
            match push {
                Some(LogPush::Lines(lines)) => {
                    yield None;
                    for line in lines {
                        yield Some(LogItem::Line(line));
                    }
                }
                Some(LogPush::End) => return,
                None => {
                    yield away("the connection to the host was lost");
                    return;
                }
            }
        }
    }
    .boxed()
}
