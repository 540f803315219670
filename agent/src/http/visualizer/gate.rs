//! Who may see what: the page's files, a token where one is needed, and of the API only what the
//! page reads.

use std::net::IpAddr;

use api::Query;
use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::StreamExt as _;
use model::Refusal;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::{
    super::{AppState, Failure, edge},
    page,
};

const COOKIE: &str = "overnet-token";

/// Nothing from elsewhere is loaded, run, asked or framed.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What the page asks; `*` is one id or name.
const QUESTIONS: &[&[&str]] = &[
    &["events"],
    &["networks"],
    &["networks", "*"],
    &["nodes"],
    &["nodes", "*"],
    &["overnet", "traffic"],
    &["services"],
    &["services", "*"],
    &["services", "*", "logs"],
    &["tasks"],
    &["tasks", "*"],
    &["tasks", "*", "logs"],
    &["version"],
];

#[derive(Clone)]
pub(super) struct Gate {
    token: Option<String>,
    stop: CancellationToken,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// A file of the page.
    File,
    /// A question that the API answers.
    Question,
    /// With the right token in the address: it is kept, and taken off the address.
    Keep,
    /// The token is asked for.
    Door,
    Refused(Refusal),
}

impl Gate {
    pub(super) fn new(token: Option<String>, stop: CancellationToken) -> Self {
        Self { token, stop }
    }

    pub(super) fn router(self, state: AppState) -> Router {
        let routes = super::super::routes().with_state(state.clone());
        Router::new().fallback(move |request: Request| {
            let gate = self.clone();
            let (routes, state) = (routes.clone(), state.clone());
            async move {
                let mut response = gate.pass(routes, state, request).await;
                protect(response.headers_mut());
                response
            }
        })
    }

    async fn pass(&self, routes: Router, state: AppState, request: Request) -> Response {
        let path = request.uri().path();
        let query = request.uri().query().unwrap_or_default();
        match self.way(request.method(), path, query, request.headers()) {
            Way::File => page::file(path, request.headers()).unwrap_or_else(|| nothing(path)),
            Way::Question => {
                let stop = self.stop.clone();
                // The event stream would outlive the server, which waits for its requests.
                edge(routes, state, request).await.map(|body| {
                    let data = body.into_data_stream();
                    Body::from_stream(data.take_until(stop.cancelled_owned()))
                })
            }
            Way::Keep => self.keep(),
            Way::Door => page::door(),
            Way::Refused(refusal) => Failure(refusal).into_response(),
        }
    }

    fn way(&self, method: &Method, path: &str, query: &str, headers: &HeaderMap) -> Way {
        if method != Method::GET && method != Method::HEAD {
            return Way::Refused(Refusal::forbidden(
                "the visualizer only reads; use ovnctl or the API's socket",
            ));
        }
        if let Some(refusal) = self.foreign_name(headers) {
            return Way::Refused(refusal);
        }
        let may = self.may(headers);
        let question = is_question(path);
        if path == "/" {
            let given = Query::parse(query).text("token").map(str::to_owned);
            return match given {
                Some(given) if self.is_token(&given) => Way::Keep,
                _ if may => Way::File,
                _ => Way::Door,
            };
        }
        if question && may {
            return Way::Question;
        }
        if question {
            return Way::Refused(Refusal::unauthorized(
                "a token is needed: open the address that `ovnctl visualizer` prints",
            ));
        }
        // Nothing in the files is secret, and the door needs some of them.
        Way::File
    }

    /// Without a token a page of elsewhere could reach us by a name of its own that leads to
    /// 127.0.0.1; so only names of this host are answered.
    fn foreign_name(&self, headers: &HeaderMap) -> Option<Refusal> {
        if self.token.is_some() {
            return None;
        }
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        let host = host.unwrap_or_default();
        (!is_loopback(host)).then(|| {
            Refusal::forbidden(format!(
                "this is served to this host only, not under the name {host:?}; open \
                 http://localhost, or serve it on another address with `ovnctl visualizer --listen`"
            ))
        })
    }

    fn may(&self, headers: &HeaderMap) -> bool {
        if self.token.is_none() {
            return true;
        }
        let bearer = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let cookies = headers.get_all(header::COOKIE).iter();
        cookies
            .filter_map(|cookies| cookies.to_str().ok())
            .flat_map(|cookies| cookies.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='))
            .filter(|(name, _)| *name == COOKIE)
            .map(|(_, value)| value)
            .chain(bearer)
            .any(|given| self.is_token(given))
    }

    /// Digests are compared, so that the time tells nothing of the token.
    fn is_token(&self, given: &str) -> bool {
        let token = self.token.as_deref();
        token.is_some_and(|token| Sha256::digest(token) == Sha256::digest(given))
    }

    fn keep(&self) -> Response {
        let token = self.token.as_deref().unwrap_or_default();
        let cookie = format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Lax; Max-Age=31536000");
        // Relative, for whoever is behind a proxy with a path of its own.
        let headers = [
            (header::LOCATION, "./".to_owned()),
            (header::SET_COOKIE, cookie),
        ];
        (StatusCode::SEE_OTHER, headers).into_response()
    }
}

fn is_question(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else {
        return false;
    };
    let parts: Vec<&str> = rest.split('/').collect();
    QUESTIONS.iter().any(|question| {
        question.len() == parts.len()
            && question
                .iter()
                .zip(&parts)
                .all(|(wanted, part)| wanted == part || (*wanted == "*" && !part.is_empty()))
    })
}

/// `localhost`, `127.0.0.1:9080`, `[::1]`.
pub(in crate::http) fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn nothing(path: &str) -> Response {
    Failure(Refusal::not_found(format!(
        "page not found: {path} (the visualizer answers only what its page asks)"
    )))
    .into_response()
}

fn protect(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(token: Option<&str>) -> Gate {
        Gate::new(token.map(str::to_owned), CancellationToken::new())
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    fn way(gate: &Gate, target: &str, given: &[(&'static str, &str)]) -> String {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        match gate.way(&Method::GET, path, query, &headers(given)) {
            Way::Refused(refusal) => refusal.kind.status().to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_token_opens_the_questions_and_nothing_else_does() {
        let gate = gate(Some("secret"));
        for (target, given, expected) in [
            ("/", &[][..], "Door"),
            ("/?token=wrong", &[], "Door"),
            ("/?token=", &[], "Door"),
            ("/?token=secret", &[], "Keep"),
            ("/", &[("cookie", "overnet-token=secret")], "File"),
            ("/", &[("cookie", "overnet-token=wrong")], "Door"),
            ("/nodes", &[], "401"),
            ("/nodes?token=secret", &[], "401"),
            (
                "/nodes",
                &[("cookie", "a=b; overnet-token=secret")],
                "Question",
            ),
            ("/nodes", &[("cookie", "other=secret")], "401"),
            ("/nodes", &[("authorization", "Bearer secret")], "Question"),
            ("/nodes", &[("authorization", "Bearer wrong")], "401"),
            ("/style.css", &[], "File"),
            ("/info", &[("authorization", "Bearer secret")], "File"),
        ] {
            assert_eq!(way(&gate, target, given), expected, "{target} {given:?}");
        }
    }

    #[test]
    fn only_what_the_page_asks_is_a_question() {
        for path in [
            "/events",
            "/services/web/logs",
            "/tasks/t1",
            "/networks",
            "/tasks/t/logs",
        ] {
            assert!(is_question(path), "{path}");
        }
        for path in [
            "/",
            "/info",
            "/secrets",
            "/configs",
            "/swarm",
            "/containers/json",
            "/v1.53/nodes",
            "/nodes/",
            "//nodes",
            "/nodes/a/update",
            "/services/web/logs/x",
            "/overnet/dataplane",
            "/overnet/visualizer",
        ] {
            assert!(!is_question(path), "{path}");
        }
    }

    #[test]
    fn nothing_is_changed_through_it() {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            let way = gate(None).way(&method, "/nodes", "", &headers(&[("host", "localhost")]));
            assert!(matches!(way, Way::Refused(refusal) if refusal.kind.status() == 403));
        }
    }

    #[test]
    fn without_a_token_only_this_hosts_names_are_answered() {
        let gate = gate(None);
        for (host, expected) in [
            ("localhost:9080", "Question"),
            ("127.0.0.1", "Question"),
            ("127.8.9.1:9080", "Question"),
            ("[::1]:9080", "Question"),
            ("evil.example:9080", "403"),
            ("localhost.evil.example", "403"),
            ("192.0.2.1:9080", "403"),
            ("", "403"),
        ] {
            assert_eq!(way(&gate, "/nodes", &[("host", host)]), expected, "{host}");
        }
        assert_eq!(way(&gate, "/nodes", &[]), "403");
        assert_eq!(way(&gate, "/", &[("host", "localhost")]), "File");
    }
}
