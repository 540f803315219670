//! `/services/{x}/logs` and `/tasks/{x}/logs`: lines from all hosts.

use std::{collections::BTreeMap, convert::Infallible, fmt::Write as _, sync::Arc};

use api::{ApiVersion, Query, event::EventView, timestamp};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderValue, header},
    response::Response,
    routing::get,
};
use futures_util::{
    StreamExt,
    stream::{self, BoxStream, SelectAll},
};
use model::{
    LogItem, LogOptions, LogSelector, NodeId, Refusal, ServiceId, Task, TaskId,
    control::TaskSelection,
};
use runtime::engine::Stream;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::{Answer, AppState, Asked, Spoken, hijack, services, tasks};
use crate::clock;

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/services/{id}/logs", get(of_service))
        .route("/tasks/{id}/logs", get(of_task))
}

async fn of_service(
    State(state): State<AppState>,
    Path(reference): Path<String>,
    Spoken(version): Spoken,
    Asked(query): Asked,
) -> Answer {
    let form = Form::chosen(&query)?;
    // Listened to before the tasks are read, so that none falls between the two.
    let (_, events) = state.events.listen(None);
    let service = services::find(&state, &reference).await?;
    let selection = TaskSelection {
        services: vec![service.id.clone()],
        ..TaskSelection::default()
    };
    let tasks = tasks::sheet(&state, selection).await?.tasks;
    let more = form.options.follow.then_some((service.id, events));
    let tty = service.spec.task.container.tty;
    answer(&state, form, version, tty, tasks, more).await
}

async fn of_task(
    State(state): State<AppState>,
    Path(reference): Path<String>,
    Spoken(version): Spoken,
    Asked(query): Asked,
) -> Answer {
    let form = Form::chosen(&query)?;
    let task = tasks::find(&state, &reference).await?;
    let tty = task.spec.container.tty;
    answer(&state, form, version, tty, vec![Arc::new(task)], None).await
}

/// What is asked for, and how lines look.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Form {
    options: LogOptions,
    timestamps: bool,
    details: bool,
}

impl Form {
    fn chosen(query: &Query) -> Result<Self, Refusal> {
        let options = LogOptions {
            follow: query.flag("follow"),
            since: query.moment("since")?.unwrap_or(0),
            until: query.moment("until")?.unwrap_or(0),
            // Docker takes everything that is no number for "all".
            tail: query.text("tail").and_then(|text| text.parse().ok()),
            stdout: query.flag("stdout"),
            stderr: query.flag("stderr"),
        };
        if !options.stdout && !options.stderr {
            return Err(Refusal::invalid(
                "Bad parameters: you must choose at least one stream",
            ));
        }
        Ok(Self {
            options,
            timestamps: query.flag("timestamps"),
            details: query.flag("details"),
        })
    }
}

async fn answer(
    state: &AppState,
    form: Form,
    version: ApiVersion,
    tty: bool,
    tasks: Vec<Arc<Task>>,
    more: Option<(ServiceId, Receiver<Arc<EventView>>)>,
) -> Answer {
    let mut writer = Writer {
        form,
        tty,
        sources: BTreeMap::new(),
    };
    writer.know(&tasks);
    let mut lines: SelectAll<BoxStream<'static, LogItem>> = SelectAll::new();
    let selector = LogSelector {
        tasks: writer.sources.keys().cloned().collect(),
    };
    // A stream that never ends keeps the set alive while it has nothing else to read.
    if more.is_some() {
        lines.push(stream::pending().boxed());
    }
    if !selector.tasks.is_empty() {
        lines.push(state.cluster.logs(&selector, &writer.form.options).await?);
    }
    let state = state.clone();
    let shutdown = state.shutdown.clone();
    let stream = async_stream::stream! {
        let mut more = more;
        loop {
            // All arms are cancel-safe: streams and receivers keep what was not taken.
            tokio::select! {
                () = shutdown.cancelled() => return,
                item = lines.next() => match item {
                    Some(item) => yield Ok::<_, Infallible>(writer.write(&item, clock::now_nanos())),
                    None => return,
                },
                id = newcomer(more.as_mut()) => {
                    match joined(&state, &mut writer, id).await {
                        Ok(Some(joined)) => lines.push(joined),
                        Ok(None) => {}
                        Err(refusal) => tracing::warn!(
                            reason = refusal.message,
                            "the lines of a new task are missing"
                        ),
                    }
                }
            }
        }
    };
    let mut response = Response::new(Body::from_stream(stream));
    let kind = HeaderValue::from_static(hijack::content_type(tty, version));
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// The next task of the service that has come to a node; waits for ever if none is wanted.
async fn newcomer(more: Option<&mut (ServiceId, Receiver<Arc<EventView>>)>) -> TaskId {
    let Some((service, events)) = more else {
        return std::future::pending().await;
    };
    loop {
        match events.recv().await {
            Ok(event) if comes(&event, service) => return event.actor.id.as_str().into(),
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}

fn comes(event: &EventView, service: &ServiceId) -> bool {
    event.kind == "task"
        && matches!(event.action.as_str(), "assigned" | "running")
        && event.actor.attributes.get("service.id").map(String::as_str) == Some(service.as_str())
}

/// The lines of a task that was not there before.
async fn joined(
    state: &AppState,
    writer: &mut Writer,
    id: TaskId,
) -> Result<Option<BoxStream<'static, LogItem>>, Refusal> {
    if writer.sources.contains_key(&id) {
        return Ok(None);
    }
    let selection = TaskSelection {
        ids: vec![id.clone()],
        ..TaskSelection::default()
    };
    writer.know(&tasks::sheet(state, selection).await?.tasks);
    if !writer.sources.contains_key(&id) {
        return Ok(None);
    }
    let options = LogOptions {
        tail: None,
        ..writer.form.options.clone()
    };
    let selector = LogSelector { tasks: vec![id] };
    state.cluster.logs(&selector, &options).await.map(Some)
}

/// Turns items into what goes over the wire: one frame a line.
struct Writer {
    form: Form,
    tty: bool,
    /// The tasks that are on a node, with service and node.
    sources: BTreeMap<TaskId, (ServiceId, NodeId)>,
}

impl Writer {
    fn know(&mut self, tasks: &[Arc<Task>]) {
        for task in tasks {
            if let Some(node) = &task.node {
                let source = (task.service.clone(), node.clone());
                self.sources.insert(task.id.clone(), source);
            }
        }
    }

    fn write(&self, item: &LogItem, now: i64) -> Bytes {
        match item {
            LogItem::Line(line) => {
                let stream = if line.stderr {
                    Stream::Stderr
                } else {
                    Stream::Stdout
                };
                let before = self.before(line.time, &line.node, &line.task);
                self.encode(stream, &before, &line.data)
            }
            // Docker's clients end at a system error, and demand the details of every line;
            // so the word comes as a line of one of the tasks that are on the host.
            LogItem::Away { node, reason } => {
                let none = TaskId::default();
                let task = self
                    .sources
                    .iter()
                    .find(|(_, (_, at))| at == node)
                    .map_or(&none, |(task, _)| task);
                let text = format!("the logs of host {node} are missing: {reason}\n");
                self.encode(
                    Stream::Stderr,
                    &self.before(now, node, task),
                    text.as_bytes(),
                )
            }
        }
    }

    /// `[<time> ]<node, service and task as k=v,…> `
    fn before(&self, time: i64, node: &NodeId, task: &TaskId) -> String {
        let mut text = String::new();
        if self.form.timestamps {
            text = timestamp::rfc3339_fixed(time) + " ";
        }
        if self.form.details {
            let none = ServiceId::default();
            let service = self.sources.get(task).map_or(&none, |(service, _)| service);
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "com.docker.swarm.node.id={node},com.docker.swarm.service.id={service},com.docker.swarm.task.id={task} "
            );
        }
        text
    }

    fn encode(&self, stream: Stream, before: &str, data: &[u8]) -> Bytes {
        if self.tty {
            return [before.as_bytes(), data].concat().into();
        }
        let end: &[u8] = if data.ends_with(b"\n") { b"" } else { b"\n" };
        hijack::framed(stream, &[before.as_bytes(), data, end])
    }
}

#[cfg(test)]
mod tests {
    use model::LogLine;

    use super::*;

    const DETAILS: &str = "com.docker.swarm.node.id=n1,com.docker.swarm.service.id=service,com.docker.swarm.task.id=t1 ";

    fn writer(query: &str, tty: bool) -> Writer {
        let mut writer = Writer {
            form: Form::chosen(&Query::parse(query)).unwrap(),
            tty,
            sources: BTreeMap::new(),
        };
        writer.know(&[
            Arc::new(tasks::tests::task("t1", 1, "n1")),
            Arc::new(tasks::tests::task("t2", 2, "")),
        ]);
        writer
    }

    fn line(data: &str) -> LogItem {
        LogItem::Line(LogLine {
            task: "t1".into(),
            node: "n1".into(),
            time: 1_700_000_000_000_000_005,
            stderr: false,
            data: data.into(),
        })
    }

    #[test]
    fn a_frame_a_line_with_what_the_client_splits_off() {
        const TIME: &str = "2023-11-14T22:13:20.000000005Z ";
        for (query, tty, data, stream, text) in [
            ("stdout=1", false, "hello\n", 1, "hello\n".to_owned()),
            ("stdout=1", false, "hello", 1, "hello\n".to_owned()),
            (
                "stdout=1&details=1",
                false,
                "a b\n",
                1,
                format!("{DETAILS}a b\n"),
            ),
            (
                "stdout=1&details=1&timestamps=1",
                false,
                "a\n",
                1,
                format!("{TIME}{DETAILS}a\n"),
            ),
        ] {
            let bytes = writer(query, tty).write(&line(data), 0);
            assert_eq!(bytes[0], stream, "{query}");
            assert_eq!(
                bytes[4..8],
                u32::try_from(text.len()).unwrap().to_be_bytes()
            );
            assert_eq!(&bytes[8..], text.as_bytes(), "{query}");
        }
        let raw = writer("stdout=1&timestamps=1", true).write(&line("$ "), 0);
        assert_eq!(raw, format!("{TIME}$ "));
    }

    #[test]
    fn a_host_that_is_away_is_a_line_of_one_of_its_tasks() {
        let away = LogItem::Away {
            node: "n1".into(),
            reason: "no session".into(),
        };
        let bytes = writer("stdout=1&details=1", false).write(&away, 7);
        assert_eq!(bytes[0], 2);
        assert_eq!(
            &bytes[8..],
            format!("{DETAILS}the logs of host n1 are missing: no session\n").as_bytes()
        );
    }

    #[test]
    fn parameters() {
        let of = |text: &str| Form::chosen(&Query::parse(text));
        let refusal = of("details=1").unwrap_err();
        assert!(refusal.message.contains("at least one stream"));
        let form = of("stderr=1&tail=5&follow=1&since=1.5").unwrap();
        assert_eq!(form.options.tail, Some(5));
        assert_eq!(form.options.since, 1_500_000_000);
        assert!(form.options.follow && !form.options.stdout && !form.details);
        assert_eq!(of("stdout=1&tail=all").unwrap().options.tail, None);
    }

    #[test]
    fn tasks_that_come_later_are_noticed() {
        let event = |kind: &str, action: &str, service: &str| {
            let attributes = [("service.id".to_owned(), service.to_owned())].into();
            EventView::new("swarm", kind, action, "t9", attributes, 1)
        };
        for (event, expected) in [
            (event("task", "assigned", "service"), true),
            (event("task", "running", "service"), true),
            (event("task", "create", "service"), false),
            (event("task", "assigned", "other"), false),
            (event("service", "running", "service"), false),
        ] {
            assert_eq!(comes(&event, &"service".into()), expected, "{event:?}");
        }
    }
}
