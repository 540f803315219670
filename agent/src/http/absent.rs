//! What Docker has and we do not have yet: lists are empty, the rest is refused in one sentence.

use axum::{
    Router,
    extract::{Request, State},
    routing::{any, get},
};
use model::Refusal;

use super::{Answer, AppState, Failure, json};

pub(super) fn routes() -> Router<AppState> {
    let mut router = Router::new()
        .route("/plugins", get(no_plugins))
        .route("/plugins/{*rest}", get(no_such_plugin).fallback(absent))
        .route("/build", any(absent))
        .route("/build/{*rest}", any(absent))
        .route("/session", any(absent))
        .route("/grpc", any(absent))
        .route("/commit", any(absent));
    for kind in ["services", "tasks", "secrets", "configs"] {
        router = router
            .route(&format!("/{kind}"), get(none_in_cluster))
            .route(&format!("/{kind}/create"), any(absent))
            .route(&format!("/{kind}/{{id}}"), get(not_found).delete(not_found))
            .route(&format!("/{kind}/{{id}}/{{*rest}}"), any(absent));
    }
    router
}

async fn no_plugins() -> Answer {
    Ok(json(&[(); 0]))
}

async fn no_such_plugin(request: Request) -> Failure {
    match request
        .uri()
        .path()
        .trim_start_matches("/plugins/")
        .strip_suffix("/json")
    {
        Some(name) => Failure(Refusal::not_found(format!("plugin {name} not found"))),
        None => absent(request).await,
    }
}

/// Docker's answer where there is no manager to ask.
fn manager_only(state: &AppState) -> Result<(), Refusal> {
    let local = state.local();
    if local.control_available() {
        Ok(())
    } else if state.is_member() {
        Err(Refusal::unavailable(
            "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.",
        ))
    } else {
        Err(Refusal::unavailable(super::state::NOT_A_MEMBER))
    }
}

async fn none_in_cluster(State(state): State<AppState>) -> Answer {
    manager_only(&state)?;
    Ok(json(&[(); 0]))
}

/// `inspect` without a type asks all kinds one after the other, so an unknown name must be 404.
async fn not_found(State(state): State<AppState>, request: Request) -> Answer {
    manager_only(&state)?;
    let mut parts = request.uri().path().trim_matches('/').split('/');
    let kind = parts.next().unwrap_or_default().trim_end_matches('s');
    let id = parts.next().unwrap_or_default();
    Err(Refusal::not_found(format!("{kind} {id} not found")).into())
}

async fn absent(request: Request) -> Failure {
    let path = request.uri().path();
    let what = match path.trim_matches('/').split('/').next().unwrap_or_default() {
        "services" => "services are",
        "tasks" => "tasks are",
        "secrets" => "secrets are",
        "configs" => "configs are",
        "plugins" => "plugins are",
        "commit" => "commit is",
        _ => "building images is",
    };
    Failure(Refusal::not_implemented(format!(
        "{what} not there yet ({} {path})",
        request.method()
    )))
}
