//! `/networks/{id}/connect|disconnect`: containers that exist come to a network and go from it.

use api::network::{ConnectRequest, DisconnectRequest};
use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse as _,
    routing::post,
};
use model::Refusal;
use runtime::engine::ContainerView;

use super::{
    Answer, AppState, Given, containers,
    networks::{Found, find},
};

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/networks/{id}/connect", post(connect))
        .route("/networks/{id}/disconnect", post(disconnect))
}

async fn connect(
    State(state): State<AppState>,
    Path(reference): Path<String>,
    Given(request): Given<ConnectRequest>,
) -> Answer {
    let (name, id) = identity(find(&state, &reference, "").await?);
    let container = state.engine.inspect(&request.container)?;
    of_a_user(&container)?;
    let wish = containers::wish(&name, request.endpoint_config.unwrap_or_default())?;
    state
        .engine
        .network_connect(container.id.as_str(), wish, &id)
        .await?;
    // Docker's 200 without a body.
    Ok(StatusCode::OK.into_response())
}

async fn disconnect(
    State(state): State<AppState>,
    Path(reference): Path<String>,
    Given(request): Given<DisconnectRequest>,
) -> Answer {
    let (name, id) = identity(find(&state, &reference, "").await?);
    let container = state.engine.inspect(&request.container)?;
    of_a_user(&container)?;
    state
        .engine
        .network_disconnect(container.id.as_str(), &name, &id)
        .await?;
    // Docker's 200 without a body.
    Ok(StatusCode::OK.into_response())
}

fn identity(found: Found) -> (String, String) {
    match found {
        Found::Local(view) => (view.name, view.id),
        Found::Cluster(network) => (network.spec.name.clone(), network.id.to_string()),
    }
}

/// The networks of a task are its service's.
fn of_a_user(container: &ContainerView) -> Result<(), Refusal> {
    let service = container
        .effective
        .labels
        .get("com.docker.swarm.service.name");
    match service {
        None => Ok(()),
        Some(service) => Err(Refusal::forbidden(format!(
            "container {} is a task of service {service}; change the service: ovnctl service update --network-add or --network-rm",
            container.name
        ))),
    }
}
