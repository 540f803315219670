//! `/containers/{id}/exec` and `/exec/…`

use axum::{
    Router,
    extract::{Path, Request, State},
    http::StatusCode,
    routing::{get, post},
};
use http_body_util::BodyExt;
use model::Refusal;
use runtime::engine::ExecSpec;
use serde::Deserialize;

use super::{
    Answer, AppState, Asked, Given, Spoken,
    access::Caller,
    containers::{console_size, size_asked},
    done, hijack, json, json_with,
};

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/containers/{id}/exec", post(create))
        .route("/exec/{id}/start", post(start))
        .route("/exec/{id}/json", get(inspect))
        .route("/exec/{id}/resize", post(resize))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct CreateRequest {
    user: String,
    privileged: bool,
    tty: bool,
    console_size: Option<Vec<u16>>,
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    detach_keys: String,
    env: Vec<String>,
    working_dir: String,
    cmd: Vec<String>,
}

async fn create(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Given(request): Given<CreateRequest>,
) -> Answer {
    if request.cmd.is_empty() {
        return Err(Refusal::invalid("No exec command specified").into());
    }
    caller.may_exec(request.privileged)?;
    let id = caller.may_enter(&state, &id)?;
    let spec = ExecSpec {
        console_size: console_size(request.console_size.as_deref()),
        command: request.cmd,
        env: request.env,
        user: request.user,
        working_dir: request.working_dir,
        tty: request.tty,
        privileged: request.privileged,
        attach_stdin: request.attach_stdin,
        attach_stdout: request.attach_stdout,
        attach_stderr: request.attach_stderr,
        detach_keys: request.detach_keys,
    };
    let exec = state.engine.exec_create(&id, spec).await?;
    Ok(json_with(
        StatusCode::CREATED,
        &serde_json::json!({ "Id": exec }),
    ))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct StartRequest {
    detach: bool,
    console_size: Option<Vec<u16>>,
}

/// The body is read before the connection is taken over: it is a short JSON text with a length,
/// and what follows it is the exec's standard input.
async fn start(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Spoken(version): Spoken,
    request: Request,
) -> Answer {
    caller.may_start_exec(&state, &id)?;
    let (parts, body) = request.into_parts();
    let bytes = body
        .collect()
        .await
        .map_err(|error| Refusal::invalid(format!("the request body could not be read: {error}")))?
        .to_bytes();
    let asked: StartRequest = api::body::read_or_default(&bytes)?;
    if asked.detach {
        state.engine.exec_start_detached(&id).await?;
        return Ok(super::nodes::empty());
    }
    let size = console_size(asked.console_size.as_deref());
    let request = Request::from_parts(parts, axum::body::Body::empty());
    if hijack::wants_upgrade(request.headers()) {
        let tty = state.engine.exec_check(&id)?;
        let engine = std::sync::Arc::clone(&state.engine);
        let attached = async move { engine.exec_start(&id, size).await };
        return Ok(hijack::switch(request, tty, version, attached));
    }
    let attached = state.engine.exec_start(&id, size).await?;
    Ok(hijack::hand_over(request, attached, version))
}

async fn inspect(State(state): State<AppState>, Path(id): Path<String>) -> Answer {
    let exec = state.engine.exec_inspect(&id)?;
    let (program, arguments) = match exec.spec.command.split_first() {
        Some((program, arguments)) => (program.as_str(), arguments),
        None => ("", &[][..]),
    };
    Ok(json(&serde_json::json!({
        "ID": exec.id,
        "Running": exec.running,
        "ExitCode": exec.exit_code,
        "ProcessConfig": {
            "tty": exec.spec.tty,
            "entrypoint": program,
            "arguments": arguments,
            "privileged": exec.spec.privileged,
            "user": exec.spec.user,
        },
        "OpenStdin": exec.spec.attach_stdin,
        "OpenStderr": exec.spec.attach_stderr,
        "OpenStdout": exec.spec.attach_stdout,
        "CanRemove": !exec.running && exec.exit_code.is_some(),
        "ContainerID": exec.container,
        "DetachKeys": exec.spec.detach_keys,
        "Pid": exec.pid,
    })))
}

async fn resize(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Asked(query): Asked,
) -> Answer {
    let (rows, columns) = size_asked(&query)?;
    state.engine.exec_resize(&id, rows, columns).await?;
    Ok(done())
}
