use axum::Router;

use super::AppState;

pub(super) fn routes() -> Router<AppState> {
    Router::new()
}

/// The `Swarm` header.
pub(super) fn swarm_header(_local: &crate::cluster::LocalState) -> String {
    String::new()
}
