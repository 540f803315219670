//! The picture of the cluster for browsers: a page, and over the same TCP port the few questions
//! of the API that the page asks, read-only.
//!
//! It is off until a setting or `ovnctl visualizer` asks for it. On a loopback address everybody
//! on this host may look; on any other a token is needed.

mod gate;
mod page;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use api::visualizer::{OpenRequest, VisualizerView};
use axum::{Router, extract::State, routing::get};
use model::Refusal;
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::Mutex, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use self::gate::Gate;
pub(super) use self::gate::is_loopback;
use super::{Answer, AppState, Optional, json};
use crate::{
    config::{VISUALIZER_PORT, parse_listen},
    network::{Survives, write_atomically},
};

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/overnet/visualizer", get(show).post(open).delete(close))
}

async fn show(State(state): State<AppState>) -> Answer {
    Ok(json(&state.visualizer.view(&state).await))
}

async fn open(State(state): State<AppState>, Optional(asked): Optional<OpenRequest>) -> Answer {
    let listen = match asked.listen.as_str() {
        "" => SocketAddr::from(([127, 0, 0, 1], VISUALIZER_PORT)),
        text => parse_listen(text).ok_or_else(|| {
            Refusal::invalid(format!(
                "Listen: {text:?} is no ADDRESS[:PORT]; write 127.0.0.1:9080, 0.0.0.0 or [::1]:9080"
            ))
        })?,
    };
    state.visualizer.open(&state, listen).await?;
    Ok(json(&state.visualizer.view(&state).await))
}

async fn close(State(state): State<AppState>) -> Answer {
    state.visualizer.close(&state).await?;
    Ok(json(&state.visualizer.view(&state).await))
}

/// The server of the picture; none runs at first.
pub struct Visualizer {
    file: PathBuf,
    open: Mutex<Option<Open>>,
}

struct Open {
    listen: SocketAddr,
    token: Option<String>,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

impl Open {
    async fn end(self) {
        self.stop.cancel();
        // A server that has panicked has ended too.
        let _ = self.server.await;
    }
}

/// What outlives the daemon.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    /// As `ovnctl visualizer` asked for; the setting wins.
    listen: Option<SocketAddr>,
    /// The same over restarts, so that an open page goes on.
    token: String,
}

impl Visualizer {
    /// `file` keeps the token and whether it is to be served.
    pub fn new(file: PathBuf) -> Self {
        Self {
            file,
            open: Mutex::new(None),
        }
    }

    /// Serves it again after a start of the daemon. That it cannot be served is told in the log
    /// and keeps nothing else from running.
    pub async fn resume(&self, state: &AppState) {
        let wanted = state.settings.visualizer.or_else(|| self.read().listen);
        let Some(listen) = wanted else {
            return;
        };
        match self.serve(state, listen).await {
            Ok(open) => *self.open.lock().await = Some(open),
            Err(refusal) => tracing::warn!("{refusal}"),
        }
    }

    async fn open(&self, state: &AppState, listen: SocketAddr) -> Result<(), Refusal> {
        refuse_against_setting(state, Some(listen))?;
        let mut open = self.open.lock().await;
        if open.as_ref().is_some_and(|open| open.listen == listen) {
            return Ok(());
        }
        // First the old one, because both may want the same port.
        let old = open.take();
        let before = old.as_ref().map(|open| open.listen);
        if let Some(old) = old {
            old.end().await;
        }
        match self.serve(state, listen).await {
            Ok(new) => *open = Some(new),
            Err(refusal) => {
                if let Some(before) = before {
                    *open = self.serve(state, before).await.ok();
                }
                return Err(refusal);
            }
        }
        self.write(&Record {
            listen: Some(listen),
            ..self.read()
        })
    }

    async fn close(&self, state: &AppState) -> Result<(), Refusal> {
        refuse_against_setting(state, None)?;
        if let Some(open) = self.open.lock().await.take() {
            open.end().await;
        }
        self.write(&Record {
            listen: None,
            ..self.read()
        })
    }

    async fn view(&self, state: &AppState) -> VisualizerView {
        let open = self.open.lock().await;
        let Some(open) = open.as_ref() else {
            return VisualizerView::default();
        };
        VisualizerView {
            listen: open.listen.to_string(),
            url: url(open.listen, open.token.as_deref(), state.local().address),
        }
    }

    async fn serve(&self, state: &AppState, listen: SocketAddr) -> Result<Open, Refusal> {
        let token = if listen.ip().is_loopback() {
            None
        } else {
            Some(self.token()?)
        };
        let listener = TcpListener::bind(listen).await.map_err(|error| {
            let way_out = match error.kind() {
                io::ErrorKind::AddrInUse => "another program has the port; choose another one",
                io::ErrorKind::AddrNotAvailable => "this host does not have the address",
                _ => "choose another address",
            };
            Refusal::conflict(format!(
                "the visualizer cannot listen on {listen}: {error}; {way_out}"
            ))
        })?;
        let stop = state.shutdown.child_token();
        let gate = Gate::new(token.clone(), stop.clone());
        let router = gate.router(state.clone());
        let ending = stop.clone().cancelled_owned();
        let server = tokio::spawn(async move {
            let served = axum::serve(listener, router).with_graceful_shutdown(ending);
            if let Err(error) = served.await {
                tracing::error!(%listen, %error, "the visualizer has ended");
            }
        });
        tracing::info!(%listen, "the visualizer is served");
        Ok(Open {
            listen,
            token,
            stop,
            server,
        })
    }

    fn token(&self) -> Result<String, Refusal> {
        let record = self.read();
        if !record.token.is_empty() {
            return Ok(record.token);
        }
        let token = hex::encode(rand::random::<[u8; 16]>());
        self.write(&Record {
            token: token.clone(),
            ..record
        })?;
        Ok(token)
    }

    /// Nothing is kept at first; a damaged file is as none.
    fn read(&self) -> Record {
        let bytes = std::fs::read(&self.file).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    fn write(&self, record: &Record) -> Result<(), Refusal> {
        let failed = |error: &dyn std::error::Error| {
            Refusal::internal(format!(
                "{} cannot be written: {error}",
                self.file.display()
            ))
        };
        let bytes = serde_json::to_vec(record).map_err(|error| failed(&error))?;
        write_atomically(&self.file, &bytes, Survives::PowerLoss).map_err(|error| failed(&error))
    }
}

/// What the setting says holds as long as it stands there.
fn refuse_against_setting(state: &AppState, wanted: Option<SocketAddr>) -> Result<(), Refusal> {
    match state.settings.visualizer {
        Some(set) if Some(set) != wanted => Err(Refusal::conflict(format!(
            "ovnd's setting visualizer says {set}; change it there"
        ))),
        Some(_) | None => Ok(()),
    }
}

/// An address of this host stands for "all of them".
fn url(listen: SocketAddr, token: Option<&str>, own: Option<IpAddr>) -> String {
    let ip = match own {
        Some(own) if listen.ip().is_unspecified() => own,
        Some(_) | None => listen.ip(),
    };
    let at = SocketAddr::new(ip, listen.port());
    match token {
        Some(token) => format!("http://{at}/?token={token}"),
        None => format!("http://{at}/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_an_address_that_can_be_reached() {
        for (listen, token, own, expected) in [
            ("127.0.0.1:9080", None, None, "http://127.0.0.1:9080/"),
            (
                "0.0.0.0:9080",
                Some("t"),
                Some("192.0.2.1"),
                "http://192.0.2.1:9080/?token=t",
            ),
            ("[::1]:80", None, Some("192.0.2.1"), "http://[::1]:80/"),
            ("0.0.0.0:1", Some("t"), None, "http://0.0.0.0:1/?token=t"),
        ] {
            let own = own.map(|own: &str| own.parse().unwrap());
            assert_eq!(url(listen.parse().unwrap(), token, own), expected);
        }
    }

    #[test]
    fn the_token_stays_and_is_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let one = Visualizer::new(folder.path().join("one.json"));
        let token = one.token().unwrap();
        assert_eq!(token.len(), 32);
        one.write(&Record {
            listen: Some("0.0.0.0:9080".parse().unwrap()),
            ..one.read()
        })
        .unwrap();
        let again = Visualizer::new(folder.path().join("one.json"));
        assert_eq!(again.token().unwrap(), token);
        assert_eq!(again.read().listen, Some("0.0.0.0:9080".parse().unwrap()));
        let other = Visualizer::new(folder.path().join("other.json"));
        assert_ne!(other.token().unwrap(), token);
        std::fs::write(folder.path().join("one.json"), b"{").unwrap();
        assert_ne!(again.token().unwrap(), token);
    }
}
