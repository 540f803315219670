//! `service logs`: what the tasks of a service wrote, from all hosts.

use std::collections::BTreeMap;

use clap::Args;
use http_body_util::BodyExt;
use serde_json::Value;

use super::log_lines::{Lines, LogLine, Origin, take_apart};
use super::send;
use crate::attach::drain;
use crate::client::{Frames, Source};
use crate::commands::text;
use crate::failure::Failure;
use crate::output::table::short_id;
use crate::output::when::moment;
use crate::session::Session;

/// Print what the tasks of a service wrote, on whichever host
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ovnctl service logs --tail 20 -f echo\n  ovnctl service logs --since 10m -t --no-task-ids echo\n  ovnctl service logs 8f3kz1qx0m2v"
)]
pub struct LogsArgs {
    /// Show the labels and variables the logging driver adds
    #[arg(long)]
    details: bool,
    /// Go on as the tasks write
    #[arg(short, long)]
    follow: bool,
    /// Show ids in place of names
    #[arg(long)]
    no_resolve: bool,
    /// Leave out the tasks' ids
    #[arg(long)]
    no_task_ids: bool,
    /// Show ids whole
    #[arg(long)]
    no_trunc: bool,
    /// Print only what was written
    #[arg(long)]
    raw: bool,
    /// From here: 42m back from now, a date, or Unix seconds
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only the last N lines of each task
    #[arg(short = 'n', long, value_name = "N", default_value = "all")]
    tail: String,
    /// Show the time of each line
    #[arg(short, long)]
    timestamps: bool,
    /// Name or id of a service, or id of a task
    #[arg(value_name = "SERVICE|TASK")]
    target: String,
}

/// What is asked for, and how it looks.
struct Target {
    kind: &'static str,
    terminal: bool,
    /// Digits of the highest slot.
    width: usize,
}

/// `service logs`.
pub async fn logs(session: &Session, args: LogsArgs) -> Result<(), Failure> {
    let target = find(session, &args.target).await?;
    if target.terminal && !args.raw {
        return Err(Failure::new("tty service logs only supported with --raw"));
    }
    let since = args
        .since
        .as_ref()
        .map(|text| moment(text, session.now_nanos(), session.surroundings.zone))
        .transpose()?;
    let response = session
        .client()
        .await?
        .get(format!("/{}/{}/logs", target.kind, args.target))
        .flag("details", args.details || !args.raw)
        .flag("follow", args.follow)
        .maybe("since", since)
        .flag("stderr", true)
        .flag("stdout", true)
        .query("tail", &args.tail)
        .flag("timestamps", args.timestamps)
        .send()
        .await?;
    let mut body = response.into_body();
    let mut frames = Frames::default();
    let mut printer = Printer {
        session,
        args: &args,
        width: target.width,
        prefixes: BTreeMap::new(),
        names: BTreeMap::new(),
        out: Lines::default(),
        err: Lines::default(),
    };
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Failure::new(format!("the stream of logs broke: {e}")))?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        if target.terminal {
            session.io.out.put(data)?;
            continue;
        }
        frames.push(data);
        if args.raw {
            drain(&mut frames, &session.io.out, &session.io.err)?;
            continue;
        }
        while let Some((source, piece)) = frames.next_piece().map_err(Failure::new)? {
            printer.take(source, &piece).await?;
        }
    }
    printer.finish().await
}

/// A service by that name, else a task.
async fn find(session: &Session, name: &str) -> Result<Target, Failure> {
    let digits = |number: u64| number.to_string().len();
    match send::read(session, name).await {
        Ok(service) => {
            let replicas = service
                .pointer("/Spec/Mode/Replicated/Replicas")
                .and_then(Value::as_u64);
            Ok(Target {
                kind: "services",
                terminal: has_terminal(&service["Spec"]["TaskTemplate"]),
                width: digits(replicas.unwrap_or(1)),
            })
        }
        Err(failure) if failure.is_not_found() => {
            let call = session.client().await?.get(format!("/tasks/{name}"));
            match call.value().await.map_err(Failure::from) {
                Ok(task) => Ok(Target {
                    kind: "tasks",
                    terminal: has_terminal(&task["Spec"]),
                    width: digits(task["Slot"].as_u64().unwrap_or(0)),
                }),
                Err(failure) if failure.is_not_found() => {
                    Err(Failure::new(format!("no such task or service: {name}")))
                }
                Err(failure) => Err(failure),
            }
        }
        Err(failure) => Err(failure),
    }
}

fn has_terminal(template: &Value) -> bool {
    template["ContainerSpec"]["TTY"].as_bool().unwrap_or(false)
}

/// Prints lines with the task and the node in front.
struct Printer<'a> {
    session: &'a Session,
    args: &'a LogsArgs,
    width: usize,
    prefixes: BTreeMap<Origin, String>,
    names: BTreeMap<String, String>,
    out: Lines,
    err: Lines,
}

impl Printer<'_> {
    async fn take(&mut self, source: Source, piece: &[u8]) -> Result<(), Failure> {
        let lines = match source {
            Source::Out => self.out.push(piece),
            Source::Err => self.err.push(piece),
            Source::Daemon => {
                return Err(Failure::new(format!(
                    "error from daemon in stream: {}",
                    String::from_utf8_lossy(piece)
                )));
            }
        };
        for line in lines {
            self.print(source, &line).await?;
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<(), Failure> {
        for (source, rest) in [
            (Source::Out, self.out.rest()),
            (Source::Err, self.err.rest()),
        ] {
            if let Some(line) = rest {
                self.print(source, &line).await?;
            }
        }
        Ok(())
    }

    async fn print(&mut self, source: Source, line: &[u8]) -> Result<(), Failure> {
        let line = take_apart(line, self.args.timestamps)?;
        let prefix = self.prefix(&line.origin).await?;
        let text = shown(&line, &prefix, self.args.details);
        let sink = match source {
            Source::Err => &self.session.io.err,
            Source::Out | Source::Daemon => &self.session.io.out,
        };
        Ok(sink.put(&text)?)
    }

    /// `echo.1.8f3kz1qx0m2v@worker01`; asked for once a task.
    async fn prefix(&mut self, origin: &Origin) -> Result<String, Failure> {
        if let Some(known) = self.prefixes.get(origin) {
            return Ok(known.clone());
        }
        let node = self
            .name("nodes", &origin.node, "/Description/Hostname")
            .await?;
        let service = self.name("services", &origin.service, "/Spec/Name").await?;
        let call = self
            .session
            .client()
            .await?
            .get(format!("/tasks/{}", origin.task));
        // Logs outlive their task: of one that is gone the slot is not known any more.
        let slot = call
            .value()
            .await
            .ok()
            .and_then(|task| task["Slot"].as_u64());
        let slot = slot.map_or_else(|| "?".to_owned(), |slot| slot.to_string());
        let id = match () {
            () if self.args.no_task_ids => String::new(),
            () if self.args.no_trunc => format!(".{}", origin.task),
            () => format!(".{}", short_id(&origin.task)),
        };
        let padding = " ".repeat(self.width.saturating_sub(slot.len()));
        let prefix = format!("{service}.{slot}{id}@{node}{padding}");
        self.prefixes.insert(origin.clone(), prefix.clone());
        Ok(prefix)
    }

    async fn name(&mut self, kind: &str, id: &str, pointer: &str) -> Result<String, Failure> {
        if self.args.no_resolve {
            return Ok(id.to_owned());
        }
        if let Some(name) = self.names.get(id) {
            return Ok(name.clone());
        }
        let call = self.session.client().await?.get(format!("/{kind}/{id}"));
        let name = match call.value().await {
            Ok(object) if !text(&object, pointer).is_empty() => text(&object, pointer).to_owned(),
            _ => id.to_owned(),
        };
        self.names.insert(id.to_owned(), name.clone());
        Ok(name)
    }
}

fn shown(line: &LogLine, prefix: &str, details: bool) -> Vec<u8> {
    let mut text = String::new();
    if let Some(time) = &line.time {
        text.push_str(time);
        text.push(' ');
    }
    text.push_str(prefix);
    text.push_str("    | ");
    if details {
        text.push_str(&line.details);
        text.push(' ');
    }
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(&line.text);
    bytes
}
