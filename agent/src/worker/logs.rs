//! The logs of this host's tasks, as their containers wrote them.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream::BoxStream};
use model::{
    Task, TaskId,
    log::{LogLine, LogOptions},
};
use runtime::engine::{self, Engine, Status, Stream as Which};
use tokio::sync::broadcast::{self, error::RecvError};

use super::{Shared, Worker, container::LABEL_TASK};
use crate::cluster::LogSource;

/// How long a task that is asked for may take to get here: the manager tells of it at the same
/// time, another way.
const ARRIVES_WITHIN: Duration = Duration::from_secs(10);

impl LogSource for Worker {
    fn logs(&self, task: &TaskId, options: &LogOptions) -> Option<BoxStream<'static, LogLine>> {
        // Before the task and its container are looked for: what begins in between is heard of.
        let events = self.shared.engine.events();
        if !options.follow {
            self.shared.assigned(task)?;
        }
        let shared = Arc::clone(&self.shared);
        Some(lines(shared, events, task.clone(), options.clone()).boxed())
    }
}

fn lines(
    shared: Arc<Shared>,
    mut events: broadcast::Receiver<engine::Event>,
    id: TaskId,
    options: LogOptions,
) -> impl futures_util::Stream<Item = LogLine> + Send {
    async_stream::stream! {
        let arriving = arrived(&shared, &mut events, &id);
        let Ok(Some(task)) = tokio::time::timeout(ARRIVES_WITHIN, arriving).await else {
            tracing::debug!(task = id.as_str(), "no logs: the task is not here");
            return;
        };
        let name = task.name();
        if options.follow {
            until_started(&shared.engine, &mut events, &name, &id).await;
        }
        drop(events);
        let options = engine::LogOptions {
            stdout: options.stdout,
            stderr: options.stderr,
            since: options.since,
            until: options.until,
            tail: options.tail.map(|tail| usize::try_from(tail).unwrap_or(usize::MAX)),
            follow: options.follow,
        };
        match shared.engine.logs(&name, options) {
            Ok(mut lines) => {
                while let Some(line) = lines.next().await {
                    yield LogLine {
                        task: id.clone(),
                        node: task.node.clone().unwrap_or_default(),
                        time: line.time,
                        stderr: line.stream == Which::Stderr,
                        data: line.bytes.to_vec(),
                    };
                }
            }
            Err(refusal) => tracing::debug!(task = name, %refusal, "no logs"),
        }
    }
}

/// The task, once it is here; its container is made after that, and an event tells of it.
async fn arrived(
    shared: &Shared,
    events: &mut broadcast::Receiver<engine::Event>,
    id: &TaskId,
) -> Option<Task> {
    loop {
        if let Some(task) = shared.assigned(id) {
            return Some(task);
        }
        if let Err(RecvError::Closed) = events.recv().await {
            return None;
        }
    }
}

/// Who follows a task that does not run yet waits for it.
async fn until_started(
    engine: &Engine,
    events: &mut broadcast::Receiver<engine::Event>,
    name: &str,
    id: &TaskId,
) {
    loop {
        let began = engine
            .inspect(name)
            .is_ok_and(|view| view.state.status != Status::Created);
        if began {
            return;
        }
        loop {
            match events.recv().await {
                Ok(event) => {
                    let ours =
                        event.attributes.get(LABEL_TASK).map(String::as_str) == Some(id.as_str());
                    if ours && matches!(event.action.as_str(), "start" | "die" | "destroy") {
                        break;
                    }
                }
                Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return,
            }
        }
    }
}
