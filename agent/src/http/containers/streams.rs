//! What lasts: attach, logs and wait.

use std::convert::Infallible;

use api::{Query, timestamp};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{
        Path, Request, State,
        ws::{Message, WebSocket, WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    http::{HeaderValue, header},
    response::Response,
    routing::{get, post},
};
use futures_util::StreamExt;
use model::Refusal;
use runtime::engine::{AttachOptions, Attached, LogLine, LogOptions, WaitCondition};

use super::super::{Answer, AppState, Asked, Spoken, access::Caller, hijack};

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/containers/{id}/attach", post(attach))
        .route("/containers/{id}/attach/ws", get(attach_ws))
        .route("/containers/{id}/logs", get(logs))
        .route("/containers/{id}/wait", post(wait))
}

async fn attach(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Spoken(version): Spoken,
    Asked(query): Asked,
    request: Request,
) -> Answer {
    let id = caller.may_enter(&state, &id)?;
    let attached = state.engine.attach(&id, attach_options(&query)).await?;
    Ok(hijack::hand_over(request, attached, version))
}

fn attach_options(query: &Query) -> AttachOptions {
    AttachOptions {
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        logs: query.flag("logs"),
        stream: query.flag("stream"),
        detach_keys: query.text("detachKeys").unwrap_or_default().to_owned(),
    }
}

/// The same streams as messages of a web socket, without frames.
async fn attach_ws(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Asked(query): Asked,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer {
    let upgrade = upgrade.map_err(|error| Refusal::invalid(error.to_string()))?;
    let id = caller.may_enter(&state, &id)?;
    let attached = state.engine.attach(&id, attach_options(&query)).await?;
    Ok(upgrade.on_upgrade(|socket| carry(socket, attached)))
}

async fn carry(mut socket: WebSocket, attached: Attached) {
    let Attached {
        mut output,
        mut input,
        ..
    } = attached;
    loop {
        // Both arms are cancel-safe: what was not taken stays in its channel or socket.
        tokio::select! {
            chunk = output.recv() => {
                let Some(chunk) = chunk else {
                    // The client may be gone already.
                    let _ = socket.send(Message::Close(None)).await;
                    return;
                };
                if socket.send(Message::Binary(chunk.bytes)).await.is_err() {
                    return;
                }
            }
            message = socket.recv() => {
                let bytes = match message {
                    Some(Ok(Message::Binary(bytes))) => bytes,
                    Some(Ok(Message::Text(text))) => Bytes::from(text),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                };
                if let Some(sender) = &input
                    && sender.send(bytes).await.is_err()
                {
                    input = None;
                }
            }
        }
    }
}

fn log_options(query: &Query) -> Result<LogOptions, Refusal> {
    let options = LogOptions {
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        since: query.moment("since")?.unwrap_or(0),
        until: query.moment("until")?.unwrap_or(0),
        // Docker takes everything that is no number for "all".
        tail: query.text("tail").and_then(|text| text.parse().ok()),
        follow: query.flag("follow"),
    };
    if !options.stdout && !options.stderr {
        return Err(Refusal::invalid(
            "Bad parameters: you must choose at least one stream",
        ));
    }
    Ok(options)
}

async fn logs(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Spoken(version): Spoken,
    Asked(query): Asked,
) -> Answer {
    let options = log_options(&query)?;
    let prefix = Prefix {
        timestamps: query.flag("timestamps"),
        details: query.flag("details"),
    };
    let tty = state.engine.inspect(&id)?.spec.tty;
    let mut lines = state.engine.logs(&id, options)?;
    let shutdown = state.shutdown.clone();
    let stream = async_stream::stream! {
        loop {
            // Both arms are cancel-safe: the stream keeps what was not taken.
            let line = tokio::select! {
                () = shutdown.cancelled() => return,
                line = lines.next() => line,
            };
            match line {
                Some(line) => yield Ok::<_, Infallible>(encode(&line, tty, prefix)),
                None => return,
            }
        }
    };
    let mut response = Response::new(Body::from_stream(stream));
    let kind = HeaderValue::from_static(hijack::content_type(tty, version));
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// What stands before each line.
#[derive(Debug, Clone, Copy)]
struct Prefix {
    timestamps: bool,
    /// Attributes that a log driver was asked to add; there are none, and a space follows them.
    details: bool,
}

fn encode(line: &LogLine, tty: bool, prefix: Prefix) -> Bytes {
    let mut before = String::new();
    if prefix.timestamps {
        before = timestamp::rfc3339_fixed(line.time) + " ";
    }
    if prefix.details {
        before.push(' ');
    }
    if tty {
        return [before.as_bytes(), &line.bytes].concat().into();
    }
    hijack::framed(line.stream, &[before.as_bytes(), &line.bytes])
}

fn condition(query: &Query) -> Result<WaitCondition, Refusal> {
    match query.text("condition").unwrap_or("not-running") {
        "not-running" => Ok(WaitCondition::NotRunning),
        "next-exit" => Ok(WaitCondition::NextExit),
        "removed" => Ok(WaitCondition::Removed),
        other => Err(Refusal::invalid(format!(
            "invalid condition: {other:?} is not one of not-running, next-exit, removed"
        ))),
    }
}

/// The headers go out at once, because the client starts the container only then.
async fn wait(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Asked(query): Asked,
) -> Answer {
    let ended = state.engine.wait(&id, condition(&query)?)?;
    let shutdown = state.shutdown.clone();
    let stream = async_stream::stream! {
        let exit = tokio::select! {
            () = shutdown.cancelled() => return,
            exit = ended => exit,
        };
        let mut body = serde_json::json!({ "StatusCode": exit.code });
        if let Some(message) = exit.error {
            body["Error"] = serde_json::json!({ "Message": message });
        }
        yield Ok::<_, Infallible>(Bytes::from(format!("{body}\n")));
    };
    let mut response = Response::new(Body::from_stream(stream));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    Ok(response)
}

#[cfg(test)]
mod tests {
    use runtime::engine::Stream;

    use super::*;

    #[test]
    fn log_lines_are_framed_and_stamped() {
        let line = LogLine {
            stream: Stream::Stderr,
            time: 1_700_000_000_000_000_005,
            bytes: "hello\n".into(),
        };
        let of = |tty, timestamps, details| {
            encode(
                &line,
                tty,
                Prefix {
                    timestamps,
                    details,
                },
            )
        };
        assert_eq!(of(true, false, false), "hello\n");
        assert_eq!(
            of(true, true, false),
            "2023-11-14T22:13:20.000000005Z hello\n"
        );
        assert_eq!(of(true, false, true), " hello\n");
        assert_eq!(of(false, false, false), &b"\x02\0\0\0\0\0\0\x06hello\n"[..]);
        assert_eq!(of(false, true, false)[..8], [2, 0, 0, 0, 0, 0, 0, 37]);
    }

    #[test]
    fn parameters() {
        let options = |text: &str| log_options(&Query::parse(text));
        assert_eq!(options("stdout=1&tail=all").unwrap().tail, None);
        assert_eq!(options("stdout=1&tail=5&follow=1").unwrap().tail, Some(5));
        assert_eq!(options("stderr=1&since=1.5").unwrap().since, 1_500_000_000);
        assert!(
            options("follow=1")
                .unwrap_err()
                .message
                .contains("at least one stream")
        );
        for (text, wanted) in [
            ("", Some(WaitCondition::NotRunning)),
            ("condition=next-exit", Some(WaitCondition::NextExit)),
            ("condition=removed", Some(WaitCondition::Removed)),
            ("condition=soon", None),
        ] {
            assert_eq!(condition(&Query::parse(text)).ok(), wanted, "{text}");
        }
    }
}
