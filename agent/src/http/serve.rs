//! Connections of clients: accepted, told who they are, bounded in number and in time.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::FromRequestParts, http::request::Parts};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use super::{AppState, access::Caller, router, tls::Tls};
use crate::role::Role;

/// How long open requests may go on once the daemon ends.
const GRACE: Duration = Duration::from_secs(3);
/// How long a client may take to send the headers of a request, and a connection may rest between
/// two of them.
const HEADERS: Duration = Duration::from_secs(60);
/// Bytes of an answer that wait for a client that does not read, beside what its socket holds; and how
/// long the head of a request may be.
const BUFFER: usize = 64 << 10;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How many handshakes may be under way: those are strangers, and each costs a signature.
const HANDSHAKES: usize = 256;
/// How many connections a door holds.
const CONNECTIONS: usize = 16_384;
/// How many more are told at once that there is no place for them, and how long one may take to hear it;
/// others wait before the door.
const TURNED_AWAY: usize = 256;
const HEARING: Duration = Duration::from_millis(250);
/// Before the next attempt where accepting fails, mostly for want of descriptors.
const BREATH: Duration = Duration::from_millis(100);

/// Where clients come in.
pub enum Door {
    /// For processes of this host that may open the file.
    Unix(UnixListener),
    /// For certificates.
    Tls(TcpListener, Arc<Tls>),
    /// For everybody of this host, with that role.
    Plain(TcpListener, Role),
}

/// A connection that has just come in.
enum Guest {
    Unix(UnixStream),
    Tcp(TcpStream, std::net::SocketAddr),
}

impl Door {
    async fn accept(&self) -> io::Result<Guest> {
        match self {
            Self::Unix(listener) => Ok(Guest::Unix(listener.accept().await?.0)),
            Self::Tls(listener, _) | Self::Plain(listener, _) => {
                let (stream, address) = listener.accept().await?;
                Ok(Guest::Tcp(stream, address))
            }
        }
    }
}

/// What every connection of a door has.
#[derive(Clone)]
struct House {
    door: Arc<Door>,
    router: Router,
    handshakes: Arc<Semaphore>,
    shutdown: CancellationToken,
}

/// Serves the API at one door until `state.shutdown`; then requests have [`GRACE`] to end.
pub async fn serve(door: Door, state: AppState) -> io::Result<()> {
    let shutdown = state.shutdown.clone();
    serve_router(door, router(state), shutdown).await
}

/// Serves other pages in the same way.
pub async fn serve_router(
    door: Door,
    router: Router,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let house = House {
        door: Arc::new(door),
        shutdown,
        router,
        handshakes: Arc::new(Semaphore::new(HANDSHAKES)),
    };
    let most = most_connections();
    let places = Arc::new(Semaphore::new(most));
    let threshold = Arc::new(Semaphore::new(TURNED_AWAY));
    let tracker = TaskTracker::new();
    let accepting = async {
        let mut is_full = false;
        loop {
            let step = Arc::clone(&threshold).acquire_owned().await;
            let step = step.expect("this semaphore is never closed");
            match house.door.accept().await {
                Ok(guest) => {
                    let place = Arc::clone(&places).try_acquire_owned();
                    if place.is_err() && !is_full {
                        tracing::warn!(most, "all connections are taken; others are turned away");
                    }
                    is_full = place.is_err();
                    let house = house.clone();
                    tracker.spawn(async move {
                        match place {
                            Ok(place) => {
                                drop(step);
                                house.receive(guest, place).await;
                            }
                            Err(_) => house.turn_away(guest, most, step).await,
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        () = house.shutdown.cancelled() => {}
    }
    tracker.close();
    // What is open longer is cut with the process.
    let _ = tokio::time::timeout(GRACE, tracker.wait()).await;
    Ok(())
}

/// A quarter of the descriptors that there may be, so that other doors and the rest of the daemon have some.
fn most_connections() -> usize {
    use nix::sys::resource::{Resource, getrlimit};
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    usize::try_from(descriptors / 4)
        .unwrap_or(CONNECTIONS)
        .clamp(16, CONNECTIONS)
}

impl House {
    async fn receive(&self, guest: Guest, permit: OwnedSemaphorePermit) {
        match (guest, &*self.door) {
            (Guest::Unix(stream), _) => {
                let peer = stream.peer_cred();
                // Without an answer of the kernel nobody has all rights.
                let Ok(peer) = peer else { return };
                self.converse(stream, Caller::process(peer.uid(), peer.pid()))
                    .await;
            }
            (Guest::Tcp(stream, address), Door::Tls(_, tls)) => {
                let _ = stream.set_nodelay(true);
                let Ok(handshake) = Arc::clone(&self.handshakes).try_acquire_owned() else {
                    tracing::warn!(%address, "too many handshakes are under way; one more is refused");
                    return;
                };
                let shaken = tokio::select! {
                    shaken = tokio::time::timeout(HANDSHAKE, tls.accept(stream)) => shaken,
                    () = self.shutdown.cancelled() => return,
                };
                drop(handshake);
                match shaken {
                    Ok(Ok((stream, role, name))) => {
                        let caller = Caller::certified(role, &name, address);
                        self.converse(stream, caller).await;
                    }
                    Ok(Err(error)) => {
                        tracing::info!(target: "audit", from = %address, %error, "handshake refused");
                    }
                    Err(_) => {
                        tracing::info!(target: "audit", from = %address, "a handshake took too long");
                    }
                }
            }
            (Guest::Tcp(stream, address), Door::Plain(_, role)) => {
                let _ = stream.set_nodelay(true);
                self.converse(stream, Caller::plain(*role, address)).await;
            }
            (Guest::Tcp(..), Door::Unix(_)) => unreachable!("a unix door has unix guests"),
        }
        drop(permit);
    }

    /// Answers whatever is asked that there is no place. A stranger has not shown a certificate, and is
    /// told nothing.
    async fn turn_away(&self, guest: Guest, most: usize, step: OwnedSemaphorePermit) {
        let told = async {
            match (guest, &*self.door) {
                (Guest::Unix(stream), _) => tell_full(stream, most).await,
                (Guest::Tcp(stream, _), Door::Plain(..)) => tell_full(stream, most).await,
                (Guest::Tcp(..), _) => Ok(()),
            }
        };
        // Who is gone, or does not listen, has had its chance.
        let _ = tokio::time::timeout(HEARING, told).await;
        drop(step);
    }

    async fn converse<S>(&self, stream: S, caller: Caller)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let hangup = Hangup::default();
        let answer = service_fn(|request: hyper::Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(caller.clone());
            request.extensions_mut().insert(hangup.clone());
            let answered = self.router.clone().oneshot(request);
            async move { Ok::<_, Infallible>(answered.await.unwrap_or_else(|never| match never {})) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS)
            .max_buf_size(BUFFER)
            .serve_connection(TokioIo::new(stream), answer)
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = hangup.happened() => return,
            () = self.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, "a connection has ended");
        }
    }
}

/// Ends the connection of a request, whatever is still to be sent over it.
#[derive(Debug, Clone, Default)]
pub struct Hangup(CancellationToken);

impl Hangup {
    pub fn cut(&self) {
        self.0.cancel();
    }

    pub async fn happened(&self) {
        self.0.cancelled().await;
    }
}

impl<S: Sync> FromRequestParts<S> for Hangup {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

async fn tell_full<S>(mut stream: S, most: usize) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // The question is taken first: some clients see only a broken connection otherwise.
    let _ = stream.read(&mut [0; 4096]).await?;
    let body = format!(
        "{{\"message\":\"all {most} connections to this address are taken; close some, or try again later\"}}\n"
    );
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await?;
    stream.shutdown().await
}
