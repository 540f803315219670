//! What Docker has and we do not have yet: lists are empty, the rest is refused in one sentence.

use axum::{
    Router,
    extract::Request,
    routing::{any, get},
};
use model::Refusal;

use super::{Answer, AppState, Failure, json};

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/plugins", get(no_plugins))
        .route("/plugins/{*rest}", get(no_such_plugin).fallback(absent))
        .route("/build", any(absent))
        .route("/build/{*rest}", any(absent))
        .route("/session", any(absent))
        .route("/grpc", any(absent))
        .route("/commit", any(absent))
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

async fn absent(request: Request) -> Failure {
    let path = request.uri().path();
    let what = match path.trim_matches('/').split('/').next().unwrap_or_default() {
        "plugins" => "plugins are",
        "commit" => "commit is",
        _ => "building images is",
    };
    Failure(Refusal::not_implemented(format!(
        "{what} not there yet ({} {path})",
        request.method()
    )))
}
