//! What Docker has and we do not have: lists are empty, the rest is refused in one sentence that
//! says what to do instead.

use axum::{
    Router,
    extract::Request,
    routing::{any, get, post},
};
use model::Refusal;

use super::{Answer, AppState, Failure, json};

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/plugins", get(no_plugins))
        .route("/plugins/{*rest}", get(no_such_plugin).fallback(absent))
        .route("/build", any(absent))
        .route("/build/prune", post(nothing_built))
        .route("/build/{*rest}", any(absent))
        .route("/session", any(absent))
        .route("/grpc", any(absent))
        .route("/commit", any(absent))
}

async fn no_plugins() -> Answer {
    Ok(json(&[(); 0]))
}

/// `system prune` asks for it, too.
async fn nothing_built() -> Answer {
    let none = serde_json::json!({ "CachesDeleted": [], "SpaceReclaimed": 0 });
    Ok(json(&none))
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
        "plugins" => "plugins are not there: what they would add is part of ovnd or is given up",
        "commit" => {
            "commit is not there: export the container and import it (export, import --change), or build an image"
        }
        _ => {
            "building images is not there: build with docker buildx, buildah or podman elsewhere, and push to a registry"
        }
    };
    Failure(Refusal::not_implemented(format!(
        "{what} ({} {path})",
        request.method()
    )))
}
