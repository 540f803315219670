//! Connections become members' here. After a lost leader all hosts of the cluster come at once, and
//! where all their handshakes go on side by side the last one ends with the first: later than any of
//! them waits. So they have turns, in the order in which they came, and who has gone meanwhile is
//! passed over. One address has a part of the turns only, and the other managers need none: without
//! them nobody leads.

use std::{collections::HashMap, io, net::IpAddr, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use tokio::{
    io::{Interest, Ready},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use super::trust::Trusted;
use crate::tls::{self, LiveIdentity};

/// Handshakes with a turn: enough for hosts that are far away, few enough to be done in much less
/// than a host waits.
const TURNS: usize = 128;
/// Turns that one address may have: as many as hosts behind it need, and few of all.
const TURNS_OF_ONE: usize = 16;
/// Addresses that are remembered before those without a handshake are forgotten.
const REMEMBERED: usize = 4096;
/// A turn ends after this, also where the handshake has not: strangers cannot keep them all.
const TURN: Duration = Duration::from_secs(1);
/// Who does not begin is cut off, and who has begun and does not finish.
const LIMIT: Duration = Duration::from_secs(10);

/// Accepts for ever; what has shaken hands goes to `ready`. `at_once` says from where managers come.
pub(super) async fn accept(
    listener: TcpListener,
    identity: Arc<LiveIdentity>,
    ready: mpsc::Sender<io::Result<Trusted>>,
    at_once: impl Fn(IpAddr) -> bool,
    within: impl Fn() -> Duration + Clone + Send + 'static,
) {
    let all = Arc::new(Semaphore::new(TURNS));
    let mut lanes: HashMap<IpAddr, Arc<Semaphore>> = HashMap::new();
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Too many open files, mostly: it passes when connections end.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let from = peer.ip().to_canonical();
        let turns = (!at_once(from)).then(|| {
            if lanes.len() >= REMEMBERED {
                lanes.retain(|_, lane| Arc::strong_count(lane) > 1);
            }
            let lane = lanes.entry(from);
            let lane = lane.or_insert_with(|| Arc::new(Semaphore::new(TURNS_OF_ONE)));
            [Arc::clone(lane), Arc::clone(&all)]
        });
        let (ready, identity, within) = (ready.clone(), Arc::clone(&identity), within.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            match shake_hands(stream, &identity, turns).await {
                Ok(stream) => {
                    // The server is gone when the manager ends; so is the reason to hand over.
                    let stream = Trusted::new(stream, identity, within);
                    let _ = ready.send(Ok(stream)).await;
                }
                Err(error) => tracing::debug!(%peer, %error, "a handshake failed"),
            }
        });
    }
}

async fn shake_hands(
    stream: TcpStream,
    identity: &LiveIdentity,
    turns: Option<[Arc<Semaphore>; 2]>,
) -> io::Result<TlsStream<TcpStream>> {
    // Reading what a client begins with costs nothing yet.
    let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
    let begun = timeout(LIMIT, hello).await??;
    let mut turn = Vec::new();
    for of in turns.into_iter().flatten() {
        turn.push(of.acquire_owned().await.map_err(io::Error::other)?);
    }
    if has_gone(&begun.io) {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    // Each connection is judged by what is trusted now.
    let rest = timeout(LIMIT, begun.into_stream(tls::server(identity)));
    tokio::pin!(rest);
    tokio::select! {
        biased;
        done = &mut rest => return done?,
        () = tokio::time::sleep(TURN) => drop(turn),
    }
    rest.await?
}

fn has_gone(stream: &TcpStream) -> bool {
    let ready = stream.ready(Interest::READABLE).now_or_never();
    ready.is_some_and(|ready| ready.map_or(true, Ready::is_read_closed))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use model::node::Role;
    use rustls::pki_types::ServerName;
    use time::OffsetDateTime;
    use tokio::{io::AsyncWriteExt as _, net::TcpSocket};
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::ca::{Authority, Identity, Subject, certificate_request};

    fn live(authority: &Authority, role: Role) -> Arc<LiveIdentity> {
        let (key, request) = certificate_request().expect("a request");
        let subject = Subject {
            node: "n1".into(),
            role,
            cluster: "c1".into(),
        };
        let (life, now) = (Duration::from_secs(7200), OffsetDateTime::now_utc());
        let chain = authority.issue(&request, &subject, life, now);
        let chain = chain.expect("a certificate");
        let identity = Identity::new(key, chain, authority.root_pem()).expect("an identity");
        LiveIdentity::new(identity).expect("a live one")
    }

    fn name() -> ServerName<'static> {
        ServerName::try_from(tls::MANAGER_NAME).expect("a name")
    }

    /// What a client's first message is.
    fn hello() -> Vec<u8> {
        let config = tls::stranger().expect("settings");
        let mut client = rustls::ClientConnection::new(config, name()).expect("a client");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("a message");
        bytes
    }

    /// How long a member at 127.0.0.x waits behind strangers at 127.0.0.1 who keep silent, and others
    /// who keep silent once they have begun.
    async fn waits(silent: usize, begun: usize, at_once: bool, x: u8) -> Duration {
        let authority = Authority::create(OffsetDateTime::now_utc()).expect("an authority");
        let (manager, worker) = (
            live(&authority, Role::Manager),
            live(&authority, Role::Worker),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (ready, mut served) = mpsc::channel(1);
        let accepting = accept(
            listener,
            manager,
            ready,
            move |_| at_once,
            || Duration::ZERO,
        );
        let accepting = tokio::spawn(accepting);
        let hello = hello();
        let mut held = Vec::new();
        for number in 0..silent + begun {
            let mut stream = TcpStream::connect(address).await.expect("a connection");
            if number >= silent {
                stream.write_all(&hello).await.expect("written");
            }
            held.push(stream);
        }
        let began = Instant::now();
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, x], 0).into()).expect("an address");
        let stream = socket.connect(address).await.expect("a connection");
        let config = tls::member(&worker).expect("settings");
        let connecting = TlsConnector::from(config).connect(name(), stream);
        let _connected = connecting.await.expect("a handshake");
        served.recv().await.expect("a stream").expect("no error");
        accepting.abort();
        began.elapsed()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn silence_costs_no_turn() {
        let waited = waits(2 * TURNS, 0, false, 1).await;
        assert!(waited < LIMIT / 2, "{waited:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_begins_and_stays_silent_keeps_no_turn() {
        let waited = waits(0, 2 * TURNS_OF_ONE, false, 1).await;
        assert!(waited > TURN && waited < LIMIT, "{waited:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn managers_do_not_wait() {
        let waited = waits(0, 5 * TURNS, true, 1).await;
        assert!(waited < 4 * TURN, "{waited:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_address_keeps_no_other_out() {
        let waited = waits(0, 5 * TURNS, false, 2).await;
        assert!(waited < 4 * TURN, "{waited:?}");
    }
}
