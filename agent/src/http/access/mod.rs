//! Who calls, and what of it is let through.
//!
//! The host's own socket is for those who may open the file, who are root here one way or another.
//! On a TCP address a client has the role of its certificate. [`table`] says what each route needs,
//! [`wish`] what no operator may ask for, [`audit`] writes down who has done what.

mod audit;
mod table;
mod wish;

use std::{
    collections::BTreeMap, convert::Infallible, fmt, net::SocketAddr, path::PathBuf, sync::Arc,
};

use api::Query;
use axum::{
    Router,
    extract::{FromRequestParts, Request},
    http::{HeaderMap, Method, header, request::Parts},
    response::{IntoResponse, Response},
};
use model::{Refusal, ServiceSpec};
use runtime::engine::ContainerSpec;
use tower::ServiceExt;

use super::{AppState, Failure, visualizer::is_loopback};
use crate::role::Role;

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Caller {
    role: Role,
    who: Arc<Who>,
}

#[derive(Debug)]
enum Who {
    /// A process of this host, as the kernel says.
    Process { uid: u32, pid: Option<i32> },
    /// A certificate.
    Certified { name: String, address: SocketAddr },
    /// Somebody of this host, on a TCP address without TLS.
    Plain { address: SocketAddr },
    /// A page of ours that has looked at the request itself.
    Page,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process {
                uid,
                pid: Some(pid),
            } => write!(f, "uid {uid} pid {pid}"),
            Self::Process { uid, pid: None } => write!(f, "uid {uid}"),
            Self::Certified { name, .. } => f.write_str(name),
            Self::Plain { .. } => f.write_str("(no certificate)"),
            Self::Page => f.write_str("(visualizer)"),
        }
    }
}

impl Caller {
    pub(super) fn process(uid: u32, pid: Option<i32>) -> Self {
        Self::new(Role::Admin, Who::Process { uid, pid })
    }

    pub(super) fn certified(role: Role, name: &str, address: SocketAddr) -> Self {
        let name = name.to_owned();
        Self::new(role, Who::Certified { name, address })
    }

    pub(super) fn plain(role: Role, address: SocketAddr) -> Self {
        Self::new(role, Who::Plain { address })
    }

    fn page() -> Self {
        Self::new(Role::ReadOnly, Who::Page)
    }

    fn new(role: Role, who: Who) -> Self {
        Self {
            role,
            who: Arc::new(who),
        }
    }

    fn from(&self) -> String {
        match *self.who {
            Who::Process { .. } => "socket".to_owned(),
            Who::Certified { address, .. } | Who::Plain { address } => address.to_string(),
            Who::Page => "visualizer".to_owned(),
        }
    }

    /// By the request's method, path and headers.
    fn may(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
        if matches!(*self.who, Who::Certified { .. } | Who::Plain { .. }) {
            self.is_no_page(headers)?;
        }
        if table::allows(self.role, method, path) {
            return Ok(());
        }
        Err(Refusal::forbidden(format!(
            "{} and {method} {path} needs the role {}: ask who runs this host for another one \
             (ovnd's settings client and default-client-role)",
            self.described(),
            table::needed(method, path)
        )))
    }

    fn described(&self) -> String {
        let role = self.role;
        match &*self.who {
            Who::Certified { name, .. } => format!("the client {name:?} has the role {role},"),
            Who::Plain { .. } => format!("clients without a certificate have the role {role},"),
            Who::Process { .. } | Who::Page => format!("this client has the role {role},"),
        }
    }

    /// A page in somebody's browser reaches what the browser reaches, and brings the browser's
    /// certificate with it; no client of the API sends what a browser adds.
    fn is_no_page(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if headers.contains_key(header::ORIGIN) {
            return Err(Refusal::forbidden(
                "requests of web pages are refused (header Origin); use a client of the Docker API",
            ));
        }
        let host = headers.get(header::HOST);
        let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
        if matches!(*self.who, Who::Plain { .. }) && !is_loopback(host) {
            return Err(Refusal::forbidden(format!(
                "without TLS this is served to this host only, not under the name {host:?}; use \
                 127.0.0.1 or localhost, or a listening address with tlsverify"
            )));
        }
        Ok(())
    }

    /// Refuses a wish of an operator that would make its container root of the host.
    fn may_wish(&self, what: &str, harm: Option<String>) -> Result<(), Refusal> {
        match harm {
            Some(harm) if self.role < Role::Admin => Err(Refusal::forbidden(format!(
                "{} which may not ask for a {what} that {harm}; leave that out, or let an admin do it",
                self.described()
            ))),
            Some(_) | None => Ok(()),
        }
    }

    /// A container that is to be made.
    pub(super) fn may_make(&self, state: &AppState, spec: &ContainerSpec) -> Result<(), Refusal> {
        self.may_wish("container", wish::of_container(spec, &payloads(state)))
    }

    /// A service that is to be made or changed.
    pub(super) fn may_serve(&self, spec: &ServiceSpec) -> Result<(), Refusal> {
        self.may_wish("service", wish::of_service(spec))
    }

    /// A volume with options of its driver.
    pub(super) fn may_mount(&self, options: &BTreeMap<String, String>) -> Result<(), Refusal> {
        self.may_wish("volume", wish::of_volume(options))
    }

    /// Whether this caller may do things inside of a container; the answer is its full id, so that
    /// another one that gets its name meanwhile is not meant.
    pub(super) fn may_enter(&self, state: &AppState, container: &str) -> Result<String, Refusal> {
        if self.role == Role::Admin {
            return Ok(container.to_owned());
        }
        let view = state.engine.inspect(container)?;
        match wish::of_container(&view.spec, &payloads(state)) {
            None => Ok(view.id.to_string()),
            Some(harm) => Err(Refusal::forbidden(format!(
                "{} which may not reach into the container {}: it {harm}; let an admin do it",
                self.described(),
                view.name
            ))),
        }
    }

    /// The same of a command that somebody has prepared in a container.
    pub(super) fn may_start_exec(&self, state: &AppState, exec: &str) -> Result<(), Refusal> {
        if self.role == Role::Admin {
            return Ok(());
        }
        let view = state.engine.exec_inspect(exec)?;
        self.may_exec(view.spec.privileged)?;
        self.may_enter(state, view.container.as_str()).map(|_| ())
    }

    /// A command with more rights than its container has.
    pub(super) fn may_exec(&self, privileged: bool) -> Result<(), Refusal> {
        self.may_wish("command", privileged.then(|| "is privileged".to_owned()))
    }

    /// An image of the caller's own making, by a path that pulls have, too.
    pub(super) fn may_import(&self) -> Result<(), Refusal> {
        if self.role == Role::Admin {
            return Ok(());
        }
        Err(Refusal::forbidden(format!(
            "{} and an import needs the role {}: what is imported under a name runs with the rights \
             of whatever service has that name; push it to a registry, and pull it",
            self.described(),
            Role::Admin
        )))
    }
}

/// Where the worker lays secrets and configs.
fn payloads(state: &AppState) -> PathBuf {
    state.settings.run.join("payloads")
}

/// Of a request that no listener has marked the least is believed.
impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let known = parts.extensions.get::<Self>().cloned();
        Ok(known.unwrap_or_else(Self::page))
    }
}

/// Answers a request, whose path has no version any more, or refuses it.
pub(super) async fn pass(routes: Router, mut request: Request) -> Response {
    let known = request.extensions().get::<Caller>().cloned();
    let caller = known.unwrap_or_else(Caller::page);
    request.extensions_mut().insert(caller.clone());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let may = caller.may(&method, &path, request.headers());
    let query = request.uri().query().unwrap_or_default();
    let name = path.ends_with("/create").then(|| Query::parse(query));
    let name = name.and_then(|query| query.text("name").map(str::to_owned));
    let line = audit::Line::begin(caller, method, path, name);
    let response = match may {
        Ok(()) => match routes.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        },
        Err(refusal) => Failure(refusal).into_response(),
    };
    line.end(response.status());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn pages_of_browsers_are_refused() {
        let address = SocketAddr::from(([127, 0, 0, 1], 40_000));
        let plain = Caller::plain(Role::Admin, address);
        let certified = Caller::certified(Role::Admin, "ci", address);
        let process = Caller::process(0, None);
        for (caller, given, wanted) in [
            (&plain, &[("host", "127.0.0.1:2375")][..], true),
            (&plain, &[("host", "localhost")], true),
            (&plain, &[("host", "evil.example:2375")], false),
            (&plain, &[], false),
            (
                &plain,
                &[("host", "localhost"), ("origin", "http://localhost")],
                false,
            ),
            (&certified, &[("host", "manager01:2376")], true),
            (
                &certified,
                &[("host", "manager01:2376"), ("origin", "null")],
                false,
            ),
            (&process, &[("host", "overnet"), ("origin", "null")], true),
        ] {
            let may = caller.may(&Method::GET, "/info", &headers(given));
            assert_eq!(may.is_ok(), wanted, "{caller:?} {given:?}");
        }
    }

    #[test]
    fn a_refusal_names_who_what_and_the_way_out() {
        let address = SocketAddr::from(([192, 0, 2, 1], 40_000));
        let reader = Caller::certified(Role::ReadOnly, "board", address);
        let refusal = reader.may(&Method::POST, "/containers/create", &HeaderMap::new());
        let refusal = refusal.unwrap_err();
        assert_eq!(refusal.kind.status(), 403);
        for words in [
            "\"board\"",
            "read-only",
            "POST /containers/create",
            "operator",
            "setting",
        ] {
            assert!(
                refusal.message.contains(words),
                "{words}: {}",
                refusal.message
            );
        }
        let operator = Caller::certified(Role::Operator, "ci", address);
        let refusal = operator.may_exec(true).unwrap_err();
        assert!(
            refusal.message.contains("is privileged"),
            "{}",
            refusal.message
        );
        assert!(operator.may_exec(false).is_ok());
        assert!(Caller::process(0, None).may_exec(true).is_ok());
        assert!(
            Caller::page()
                .may(&Method::GET, "/nodes", &HeaderMap::new())
                .is_ok()
        );
        assert!(
            Caller::page()
                .may(&Method::GET, "/swarm", &HeaderMap::new())
                .is_err()
        );
    }
}
