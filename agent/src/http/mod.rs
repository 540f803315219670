//! The Docker Engine API on unix sockets, and on TCP addresses where a setting says so.
//!
//! Whoever may open a socket is root on this host: its mode is 0660 and its group `overnet` or
//! `docker`, where there is one. On TCP addresses a client has the role of its certificate
//! ([`access`]). The visualizer reads only, and listens once it was asked for.

mod absent;
mod access;
mod answer;
mod attachments;
mod backup;
mod bus;
mod containers;
mod dataplane;
mod disk;
mod doctor;
mod events;
mod exec;
mod hijack;
mod host_networks;
mod images;
mod metrics;
mod network_events;
mod network_members;
mod network_services;
mod networks;
mod nodes;
mod paths;
mod payloads;
mod ports;
mod serve;
mod service_logs;
mod services;
mod state;
mod swarm;
mod system;
mod tasks;
mod tls;
mod traffic;
mod unread;
mod visualizer;
mod volumes;

use std::{io, os::unix::fs::PermissionsExt, path::Path, time::Instant};

use api::version;
use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderValue, Uri, uri::PathAndQuery},
    response::{IntoResponse, Response},
};
use model::Refusal;
use tokio::net::UnixListener;
use trace::{Instrument as _, Span, tracing::field::Empty};

use self::unread::Unread;
pub use self::{
    answer::{Answer, Asked, Failure, Given, Optional, Raw, Spoken, done, json, json_with},
    bus::EventBus,
    containers::wish_of,
    dataplane::Sight,
    metrics::serve_metrics,
    serve::{Door, serve, serve_router},
    state::{AppState, HostEndpoint, HostNetworks, unexpected},
    tls::{Files as TlsFiles, Tls, subject},
    traffic::{TunnelEnd, TunnelReading},
    visualizer::Visualizer,
};

/// The whole API: paths with and without a version.
pub fn router(state: AppState) -> Router {
    let routes = routes().with_state(state.clone());
    Router::new().fallback(move |request: Request| edge(routes.clone(), state.clone(), request))
}

fn routes() -> Router<AppState> {
    Router::new()
        .merge(system::routes())
        .merge(metrics::routes())
        .merge(dataplane::routes())
        .merge(traffic::routes())
        .merge(disk::routes())
        .merge(doctor::routes())
        .merge(events::routes())
        .merge(swarm::routes())
        .merge(nodes::routes())
        .merge(services::routes())
        .merge(service_logs::routes())
        .merge(tasks::routes())
        .merge(paths::routes())
        .merge(ports::routes())
        .merge(payloads::routes())
        .merge(networks::routes())
        .merge(network_members::routes())
        .merge(attachments::routes())
        .merge(containers::routes())
        .merge(exec::routes())
        .merge(visualizer::routes())
        .merge(volumes::routes())
        .merge(images::routes())
        .merge(backup::routes())
        .merge(absent::routes())
        .fallback(no_such_page)
        .method_not_allowed_fallback(no_such_page)
}

/// RFC 7234, 5.5.1: what a manager without a leader says of the cluster.
const STALE: &str =
    "110 overnet \"the swarm does not have a leader: what is shown of it may be old\"";

async fn no_such_page(request: Request) -> Failure {
    Failure(Refusal::not_found(format!(
        "page not found: {} {}",
        request.method(),
        request.uri().path()
    )))
}

/// Takes the version off the path, and puts the headers that every answer bears.
///
/// A handler has a task of its own: what was begun is carried out even when the client goes
/// away (a `stop` in its grace period), and a panic costs one answer.
async fn edge(routes: Router, state: AppState, mut request: Request) -> Response {
    let begun = Instant::now();
    let stale_before = state.cluster.stale_reads();
    let what = format!("{} {}", request.method(), request.uri().path());
    let unread = Unread::keep(&mut request);
    let span = traced(&what, &request);
    let mut response = match unversioned(&mut request) {
        Ok(()) => {
            match tokio::spawn(access::pass(routes, request).instrument(span.clone())).await {
                Ok(response) => response,
                Err(error) => Failure(Refusal::internal(format!(
                    "{what}: the handler failed ({error}); the log says more"
                )))
                .into_response(),
            }
        }
        Err(refusal) => Failure(refusal).into_response(),
    };
    let status = response.status();
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    if let Some(unread) = unread.filter(|_| status.is_client_error() || status.is_server_error()) {
        unread.drain().await;
    }
    tracing::debug!(what, status = status.as_u16(), elapsed = ?begun.elapsed(), "request");
    let headers = response.headers_mut();
    let mut put = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    put("api-version", &version::MAXIMUM.to_string());
    put("docker-experimental", "false");
    put("ostype", "linux");
    put(
        "server",
        &format!("Overnet/{} (linux)", version::SERVER_VERSION),
    );
    put("swarm", &system::swarm_header(&state.local()));
    // Another request's may be among them; to say too much of it costs nobody anything.
    if state.cluster.stale_reads() != stale_before {
        put("warning", STALE);
    }
    response
}

/// The request as a part of what its client does, or as the beginning of a trace.
fn traced(what: &str, request: &Request) -> Span {
    let span = trace::request!(
        "request",
        otel.name = what,
        otel.kind = "server",
        otel.status_code = Empty,
        http.response.status_code = Empty,
    );
    let said = request.headers().get("traceparent");
    let above = said.and_then(|said| said.to_str().ok()?.parse().ok());
    trace::below(&span, above);
    span
}

fn unversioned(request: &mut Request<Body>) -> Result<(), Refusal> {
    let (version, rest) = version::split_path(request.uri().path())?;
    let target = match request.uri().query() {
        Some(query) => format!("{rest}?{query}"),
        None => rest.to_owned(),
    };
    let target: PathAndQuery = target
        .parse()
        .map_err(|error| Refusal::invalid(format!("the request's path is not valid: {error}")))?;
    *request.uri_mut() = Uri::from(target);
    request.extensions_mut().insert(Spoken(version));
    Ok(())
}

/// Makes the socket, replacing one that a dead daemon left.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!(
                    "{} is served by another process; stop it first",
                    path.display()
                ),
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(_) => std::fs::remove_file(path)?,
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    let group = ["overnet", "docker"]
        .iter()
        .find_map(|name| nix::unistd::Group::from_name(name).ok().flatten());
    if let Some(group) = group {
        // Without the right to give it away the socket is still root's own.
        if let Err(error) = std::os::unix::fs::chown(path, None, Some(group.gid.as_raw())) {
            tracing::warn!(path = %path.display(), group = group.name, %error, "the socket keeps its group");
        }
    }
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_do_not_conflict() {
        let _ = routes();
    }

    #[test]
    fn versions_come_off_the_path_and_queries_stay() {
        for (given, path, version) in [
            (
                "/v1.41/containers/json?all=1",
                "/containers/json?all=1",
                "1.41",
            ),
            ("/info", "/info", "1.53"),
            ("/v1.24/images/a%2Fb/json", "/images/a%2Fb/json", "1.24"),
        ] {
            let mut request = Request::builder().uri(given).body(Body::empty()).unwrap();
            unversioned(&mut request).unwrap();
            assert_eq!(request.uri().to_string(), path);
            assert_eq!(
                request.extensions().get::<Spoken>().unwrap().0.to_string(),
                version
            );
        }
    }

    #[tokio::test]
    async fn a_dead_daemons_socket_is_replaced_and_a_living_ones_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/ovnd.sock");
        drop(bind(&path).unwrap());
        let living = bind(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        assert!(
            bind(&path)
                .unwrap_err()
                .to_string()
                .contains("another process")
        );
        drop(living);
    }
}
