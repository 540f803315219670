//! Logs across hosts, the agent's side: what a manager asks for is pushed to it, and who reads
//! asks the manager.

use std::{net::SocketAddr, sync::Arc};

use futures_util::{Stream, StreamExt as _, future::BoxFuture, stream::BoxStream};
use manager::{
    client::Connection,
    server::merge::{Merge, WINDOW},
    tls,
    wire::{LogOpening, LogOrder, LogPush},
};
use model::{
    Refusal, TaskId,
    log::{LogItem, LogLine, LogOptions, LogSelector},
};

use super::{ClusterNode, ask, member::Member};

/// Lines that travel together, at most.
const BATCH: usize = 256;

/// Whoever has the logs of this host's tasks.
pub trait LogSource: Send + Sync + 'static {
    /// The lines of a task, oldest first; absent when the task is not here. Dropping the
    /// stream ends the following.
    fn logs(&self, task: &TaskId, options: &LogOptions) -> Option<BoxStream<'static, LogLine>>;
}

impl ClusterNode {
    /// Names who has the logs of this host's tasks; the first one stays.
    pub fn serve_logs(&self, source: Arc<dyn LogSource>) {
        // A second one is a mistake of the daemon's start, and without harm.
        let _ = self.shared.logs.set(source);
    }

    /// The lines of these tasks from all hosts that have them, in the order of their times;
    /// managers only. A host that is away is named. Dropping the stream ends it everywhere.
    pub async fn logs(
        &self,
        selector: &LogSelector,
        options: &LogOptions,
    ) -> Result<BoxStream<'static, LogItem>, Refusal> {
        let Some(member) = self.member.load_full() else {
            return Err(Refusal::unavailable(ask::NO_MEMBER));
        };
        match member.manager() {
            Some(manager) => manager.logs(selector, options).await,
            None => Err(Refusal::unavailable(ask::WORKER)),
        }
    }
}

/// Pushes what was asked for, until all is said or nobody reads any more.
pub(super) async fn push(
    member: Arc<Member>,
    address: SocketAddr,
    source: Option<Arc<dyn LogSource>>,
    order: LogOrder,
) {
    if let Err(error) = push_to(member, address, source, order).await {
        tracing::debug!(%error, "logs could not be pushed");
    }
}

async fn push_to(
    member: Arc<Member>,
    address: SocketAddr,
    source: Option<Arc<dyn LogSource>>,
    order: LogOrder,
) -> Result<(), Refusal> {
    let tls =
        tls::member(&member.identity).map_err(|error| Refusal::internal(error.to_string()))?;
    let opened: BoxFuture<'static, _> = Box::pin(Connection::open(address, tls));
    let connection = opened.await?;
    let mut lanes = Vec::new();
    for task in &order.tasks {
        let lines = source
            .as_ref()
            .and_then(|source| source.logs(task, &order.options));
        lanes.extend(lines.map(|lines| lines.map(|line| Some(LogItem::Line(line))).boxed()));
    }
    let pushes = batches(Merge::new(lanes, WINDOW)).boxed();
    let opening = LogOpening {
        subscription: order.subscription,
    };
    Ok(connection.push_logs(&opening, pushes).await?)
}

/// Whatever lines are there travel together; the last word says that there are no more.
fn batches(
    lines: impl Stream<Item = LogItem> + Send + 'static,
) -> impl Stream<Item = LogPush> + Send {
    let chunks = lines.ready_chunks(BATCH).map(|items| {
        let line = |item| match item {
            LogItem::Line(line) => Some(line),
            LogItem::Away { .. } => None,
        };
        LogPush::Lines(items.into_iter().filter_map(line).collect())
    });
    chunks.chain(futures_util::stream::once(std::future::ready(LogPush::End)))
}
