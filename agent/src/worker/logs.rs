//! The logs of this host's tasks, as their containers wrote them.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream::BoxStream};
use model::{
    NodeId, TaskId,
    log::{LogLine, LogOptions},
};
use runtime::engine::{self, Engine, Status, Stream as Which};
use tokio::sync::broadcast::{self, error::RecvError};

use super::{Worker, container::LABEL_TASK};
use crate::cluster::LogSource;

impl LogSource for Worker {
    fn logs(&self, task: &TaskId, options: &LogOptions) -> Option<BoxStream<'static, LogLine>> {
        let assigned = {
            let handles = self.handles();
            let assigned = handles.get(task)?.assigned.borrow().clone();
            assigned?
        };
        let node = assigned.node.clone().unwrap_or_default();
        let engine = Arc::clone(&self.shared.engine);
        // Before the container is looked for: what begins in between is heard of.
        let events = engine.events();
        let wanted = Wanted {
            task: task.clone(),
            name: assigned.name(),
            node,
            options: options.clone(),
        };
        Some(lines(engine, events, wanted).boxed())
    }
}

struct Wanted {
    task: TaskId,
    name: String,
    node: NodeId,
    options: LogOptions,
}

fn lines(
    engine: Arc<Engine>,
    mut events: broadcast::Receiver<engine::Event>,
    wanted: Wanted,
) -> impl futures_util::Stream<Item = LogLine> + Send {
    async_stream::stream! {
        if wanted.options.follow {
            until_started(&engine, &mut events, &wanted).await;
        }
        drop(events);
        let options = engine::LogOptions {
            stdout: wanted.options.stdout,
            stderr: wanted.options.stderr,
            since: wanted.options.since,
            until: wanted.options.until,
            tail: wanted.options.tail.map(|tail| usize::try_from(tail).unwrap_or(usize::MAX)),
            follow: wanted.options.follow,
        };
        match engine.logs(&wanted.name, options) {
            Ok(mut lines) => {
                while let Some(line) = lines.next().await {
                    yield LogLine {
                        task: wanted.task.clone(),
                        node: wanted.node.clone(),
                        time: line.time,
                        stderr: line.stream == Which::Stderr,
                        data: line.bytes.to_vec(),
                    };
                }
            }
            Err(refusal) => tracing::debug!(task = wanted.name, %refusal, "no logs"),
        }
    }
}

/// Who follows a task that does not run yet waits for it.
async fn until_started(
    engine: &Engine,
    events: &mut broadcast::Receiver<engine::Event>,
    wanted: &Wanted,
) {
    loop {
        let began = engine
            .inspect(&wanted.name)
            .is_ok_and(|view| view.state.status != Status::Created);
        if began {
            return;
        }
        loop {
            match events.recv().await {
                Ok(event) => {
                    let ours = event.attributes.get(LABEL_TASK).map(String::as_str)
                        == Some(wanted.task.as_str());
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
