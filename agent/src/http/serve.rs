//! Connections of clients: accepted, told who they are, bounded in number and in time.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
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
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How many handshakes may be under way: those are strangers, and each costs a signature.
const HANDSHAKES: usize = 256;
/// How many connections a door holds; more wait before it.
const CONNECTIONS: usize = 16_384;
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
    let connections = Arc::new(Semaphore::new(most_connections()));
    let tracker = TaskTracker::new();
    let accepting = async {
        loop {
            let permit = Arc::clone(&connections).acquire_owned().await;
            let permit = permit.expect("this semaphore is never closed");
            match house.door.accept().await {
                Ok(guest) => {
                    let house = house.clone();
                    tracker.spawn(async move { house.receive(guest, permit).await });
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

/// Half of the descriptors that there may be, so that the rest of the daemon has some.
fn most_connections() -> usize {
    use nix::sys::resource::{Resource, getrlimit};
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    usize::try_from(descriptors / 2)
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

    async fn converse<S>(&self, stream: S, caller: Caller)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let answer = service_fn(|request: hyper::Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(caller.clone());
            let answered = self.router.clone().oneshot(request);
            async move { Ok::<_, Infallible>(answered.await.unwrap_or_else(|never| match never {})) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS)
            .serve_connection(TokioIo::new(stream), answer)
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        let served = tokio::select! {
            served = connection.as_mut() => served,
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
