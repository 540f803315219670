//! A small client of the Docker Engine API over a unix socket or TCP, with TLS where it is asked for.
//!
//! One connection per call: calls are few, and hijacked streams need one of their own anyway.

mod error;
mod frames;
mod host;
mod stream;
mod tls;

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};
use trace::Instrument as _;

pub use error::ClientError;
pub use frames::{Frames, Source};
pub use host::{DEFAULT_HOST, Host};
pub use stream::{JsonCutter, JsonStream};
pub use tls::{Files as TlsFiles, Tls, TlsFlags};

/// The newest API version this program was written for.
pub const NEWEST: &str = "1.50";
/// The oldest one it can use.
pub const OLDEST: &str = "1.24";

/// A request body: nothing, JSON, or a stream of bytes.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The raw two-way stream after attach or exec took over the connection.
pub type Hijacked = TokioIo<hyper::upgrade::Upgraded>;

/// A daemon, with the API version agreed on.
#[derive(Clone, Debug)]
pub struct Client {
    host: Host,
    tls: Option<Tls>,
    version: String,
    debug: bool,
    /// Whether the daemon's warning has been shown.
    warned: Arc<AtomicBool>,
}

/// What the daemon said of itself in its answer to a ping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ping {
    /// `Api-Version`.
    pub version: String,
}

impl Client {
    /// Reaches the daemon and agrees on a version; `fixed` (DOCKER_API_VERSION) skips the asking.
    pub async fn connect(
        host: Host,
        tls: Option<Tls>,
        fixed: Option<&str>,
        debug: bool,
    ) -> Result<Self, ClientError> {
        let mut client = Self {
            host,
            tls,
            version: NEWEST.to_owned(),
            debug,
            warned: Arc::default(),
        };
        if let Some(version) = fixed {
            version
                .trim_start_matches('v')
                .clone_into(&mut client.version);
            return Ok(client);
        }
        let mut response = client.send_plain(Method::HEAD, "/_ping").await?;
        if response.status() != StatusCode::OK {
            response = client.send_plain(Method::GET, "/_ping").await?;
        }
        let server = response
            .headers()
            .get("api-version")
            .and_then(|v| v.to_str().ok())
            .unwrap_or(OLDEST);
        client.version = agree(server).ok_or_else(|| ClientError::TooOld {
            version: server.to_owned(),
            minimum: OLDEST,
        })?;
        Ok(client)
    }

    /// The agreed version, such as `1.50`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where the daemon is.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// `GET path`.
    pub fn get(&self, path: impl AsRef<str>) -> Call<'_> {
        self.call(Method::GET, path.as_ref())
    }

    /// `POST path`.
    pub fn post(&self, path: impl AsRef<str>) -> Call<'_> {
        self.call(Method::POST, path.as_ref())
    }

    /// `PUT path`.
    pub fn put(&self, path: impl AsRef<str>) -> Call<'_> {
        self.call(Method::PUT, path.as_ref())
    }

    /// `HEAD path`.
    pub fn head(&self, path: impl AsRef<str>) -> Call<'_> {
        self.call(Method::HEAD, path.as_ref())
    }

    /// `DELETE path`.
    pub fn delete(&self, path: impl AsRef<str>) -> Call<'_> {
        self.call(Method::DELETE, path.as_ref())
    }

    fn call(&self, method: Method, path: &str) -> Call<'_> {
        Call {
            client: self,
            method,
            path: path.to_owned(),
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
            upgrade: false,
        }
    }

    async fn send_plain(
        &self,
        method: Method,
        path: &str,
    ) -> Result<Response<Incoming>, ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.host.authority())
            .body(empty())
            .expect("a fixed path makes a valid request");
        self.transmit(request).await
    }

    async fn transmit(&self, request: Request<Body>) -> Result<Response<Incoming>, ClientError> {
        let call = format!("{} {}", request.method(), request.uri());
        if self.debug {
            eprintln!("ovnctl: {} {call}", self.host);
        }
        let broken = |reason: String| ClientError::Broken {
            host: self.host.clone(),
            call: call.clone(),
            reason,
        };
        let unreachable = |reason| ClientError::Unreachable {
            host: self.host.clone(),
            reason,
        };
        let mut sender = match &self.host {
            Host::Unix(path) => {
                handshake(UnixStream::connect(path).await.map_err(unreachable)?).await
            }
            Host::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(unreachable)?;
                match &self.tls {
                    None => handshake(stream).await,
                    Some(tls) => {
                        let stream = tls.connect(stream, address).await;
                        handshake(stream.map_err(unreachable)?).await
                    }
                }
            }
        }
        .map_err(|e| broken(e.to_string()))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|e| broken(chain(&e)))?;
        if self.debug {
            eprintln!("ovnctl: {call} -> {}", response.status());
        }
        Ok(response)
    }
}

async fn handshake<S>(stream: S) -> hyper::Result<http1::SendRequest<Body>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends by itself when the answer has been read or the hijacked stream is taken over;
    // its errors reach the caller through the request.
    tokio::spawn(connection.with_upgrades());
    Ok(sender)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// The lower of the two newest versions; `None` when the daemon's is older than we can use.
fn agree(server: &str) -> Option<String> {
    let parts = |text: &str| {
        let (major, minor) = text.trim().split_once('.')?;
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    };
    let theirs = parts(server)?;
    if theirs < parts(OLDEST)? {
        return None;
    }
    let (major, minor) = theirs.min(parts(NEWEST)?);
    Some(format!("{major}.{minor}"))
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// One request being put together.
pub struct Call<'a> {
    client: &'a Client,
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(&'static str, String)>,
    body: Option<(&'static str, Body)>,
    upgrade: bool,
}

impl Call<'_> {
    /// Adds `name=value` to the query.
    pub fn query(mut self, name: &str, value: impl ToString) -> Self {
        self.query.push((name.to_owned(), value.to_string()));
        self
    }

    /// Adds `name=1` when `on`.
    pub fn flag(self, name: &str, on: bool) -> Self {
        if on { self.query(name, 1) } else { self }
    }

    /// Adds `name=value` when there is a value that is not empty.
    pub fn maybe(self, name: &str, value: Option<impl ToString>) -> Self {
        match value.map(|v| v.to_string()).filter(|v| !v.is_empty()) {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// Adds `filters=` when there are any.
    pub fn filters(self, filters: &crate::flags::Filters) -> Self {
        self.maybe("filters", filters.encode())
    }

    /// Adds a header.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sends JSON.
    pub fn json(mut self, body: &Value) -> Self {
        let bytes = Bytes::from(body.to_string());
        self.body = Some((
            "application/json",
            Full::new(bytes)
                .map_err(|never| match never {})
                .boxed_unsync(),
        ));
        self
    }

    /// Sends a stream of bytes of the given type.
    pub fn stream_body(mut self, kind: &'static str, body: Body) -> Self {
        self.body = Some((kind, body));
        self
    }

    fn request(self) -> (String, Request<Body>) {
        let mut target = format!(
            "/v{}{}",
            self.client.version,
            escape(&self.path, "/:@,=+!$&'()*;~-._")
        );
        for (index, (name, value)) in self.query.iter().enumerate() {
            target.push(if index == 0 { '?' } else { '&' });
            target.push_str(&escape(name, "-._~"));
            target.push('=');
            target.push_str(&escape(value, "-._~"));
        }
        let call = format!("{} {}", self.method, self.path);
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(target)
            .header(header::HOST, self.client.host.authority())
            .header(
                header::USER_AGENT,
                concat!("ovnctl/", env!("CARGO_PKG_VERSION"), " (linux)"),
            );
        if let Some(place) = trace::present() {
            request = request.header("traceparent", place.to_string());
        }
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        if self.upgrade {
            request = request
                .header(header::CONNECTION, "Upgrade")
                .header(header::UPGRADE, "tcp");
        }
        let body = if let Some((kind, body)) = self.body {
            request = request.header(header::CONTENT_TYPE, kind);
            body
        } else {
            if self.method == Method::POST {
                request = request.header(header::CONTENT_LENGTH, "0");
            }
            empty()
        };
        (
            call,
            request
                .body(body)
                .expect("escaped parts make a valid request"),
        )
    }

    /// Sends it; an error status becomes [`ClientError::Refused`] with the daemon's sentence.
    pub async fn send(self) -> Result<Response<Incoming>, ClientError> {
        let client = self.client;
        let part = trace::part!(
            "call",
            otel.name = format!("{} {}", self.method, self.path),
            otel.kind = "client",
        );
        let (call, request) = part.in_scope(|| self.request());
        let response = client.transmit(request).instrument(part).await?;
        let status = response.status();
        if let Some(warning) = response.headers().get("warning")
            && let Ok(warning) = warning.to_str()
            && !client.warned.swap(true, Ordering::Relaxed)
        {
            // `110 AGENT "text"` (RFC 7234, 5.5); once a command.
            let text = warning.split('"').nth(1).unwrap_or(warning);
            eprintln!("WARNING: {text}");
        }
        if status.is_success()
            || status == StatusCode::SWITCHING_PROTOCOLS
            || status == StatusCode::NOT_MODIFIED
        {
            return Ok(response);
        }
        let body = collect(client, &call, response).await.unwrap_or_default();
        Err(ClientError::Refused {
            status: status.as_u16(),
            message: refusal(status, &call, &body),
        })
    }

    /// Sends it and reads the answer as JSON; an empty answer is `null`.
    pub async fn value(self) -> Result<Value, ClientError> {
        let client = self.client;
        let call = format!("{} {}", self.method, self.path);
        let response = self.send().await?;
        let body = collect(client, &call, response).await?;
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).map_err(|e| ClientError::Unreadable {
            call,
            reason: e.to_string(),
        })
    }

    /// Sends it and forgets the answer's body.
    pub async fn done(self) -> Result<(), ClientError> {
        let client = self.client;
        let call = format!("{} {}", self.method, self.path);
        let response = self.send().await?;
        collect(client, &call, response).await.map(drop)
    }

    /// Sends it and reads JSON values as they arrive.
    pub async fn values(self) -> Result<JsonStream, ClientError> {
        let host = self.client.host.clone();
        let call = format!("{} {}", self.method, self.path);
        let body = self.send().await?.into_body();
        Ok(JsonStream {
            body,
            cutter: JsonCutter::default(),
            host,
            call,
        })
    }

    /// Sends it with the request to take over the connection, and takes it over.
    pub async fn hijack(mut self) -> Result<Hijacked, ClientError> {
        self.upgrade = true;
        let client = self.client;
        let call = format!("{} {}", self.method, self.path);
        let response = self.send().await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(ClientError::Unreadable {
                call,
                reason: format!(
                    "it answered {} where a stream was asked for",
                    response.status()
                ),
            });
        }
        let upgraded = hyper::upgrade::on(response)
            .await
            .map_err(|e| ClientError::Broken {
                host: client.host.clone(),
                call,
                reason: chain(&e),
            })?;
        Ok(TokioIo::new(upgraded))
    }
}

async fn collect(
    client: &Client,
    call: &str,
    response: Response<Incoming>,
) -> Result<Bytes, ClientError> {
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(|e| ClientError::Broken {
            host: client.host.clone(),
            call: call.to_owned(),
            reason: chain(&e),
        })?;
    Ok(body.to_bytes())
}

fn refusal(status: StatusCode, call: &str, body: &[u8]) -> String {
    if let Ok(value) = serde_json::from_slice::<Value>(body)
        && let Some(message) = value.get("message").and_then(Value::as_str)
        && !message.trim().is_empty()
    {
        return message.trim().to_owned();
    }
    let text = String::from_utf8_lossy(body);
    match text.trim() {
        "" => format!("{call} answered {status} without saying why"),
        text => text.to_owned(),
    }
}

fn escape(text: &str, also_plain: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || also_plain.as_bytes().contains(&byte) {
            escaped.push(byte as char);
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_version_is_agreed_on() {
        let cases = [
            ("1.51", Some("1.50")),
            ("1.50", Some("1.50")),
            ("1.44", Some("1.44")),
            ("1.24", Some("1.24")),
            ("1.23", None),
            ("2.0", Some("1.50")),
            ("rubbish", None),
        ];
        for (server, wanted) in cases {
            assert_eq!(agree(server).as_deref(), wanted, "{server}");
        }
    }

    #[test]
    fn paths_and_queries_are_escaped() {
        assert_eq!(
            escape("/images/registry:5000/a/b@sha256:0/json", "/:@"),
            "/images/registry:5000/a/b@sha256:0/json"
        );
        assert_eq!(
            escape(r#"{"a":{"b c":true}}"#, "-._~"),
            "%7B%22a%22%3A%7B%22b%20c%22%3Atrue%7D%7D"
        );
        assert_eq!(escape("ü?#%", "/"), "%C3%BC%3F%23%25");
    }

    #[test]
    fn the_daemons_sentence_is_found() {
        let refuse = |body: &str| refusal(StatusCode::CONFLICT, "POST /x", body.as_bytes());
        assert_eq!(refuse(r#"{"message":"name in use"}"#), "name in use");
        assert_eq!(refuse("page not found\n"), "page not found");
        assert_eq!(
            refuse(""),
            "POST /x answered 409 Conflict without saying why"
        );
    }
}
