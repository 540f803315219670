//! Questions about foreign names: the packet goes on as it came, with an id and a source port that
//! nobody can guess, and the first good answer goes back.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    answer::Transport,
    wire::{self, MAX_TCP, PLAIN_UDP, Rcode},
};

/// How long the asker waits at most; resolvers ask again after 5 s.
const PATIENCE: Duration = Duration::from_secs(4);
/// How often each upstream is asked at most; twice, because a packet may be lost.
const TURNS: usize = 2;
/// Questions under way at once for all sandboxes.
const LIMIT: usize = 1024;
/// For one sandbox, so that one cannot silence the others.
const SANDBOX_LIMIT: usize = 512;

/// Asks upstream servers for one sandbox.
#[derive(Clone)]
pub struct Forwarder {
    shared: ForwarderPool,
    own: Arc<Semaphore>,
}

/// What the forwarders of all sandboxes share.
#[derive(Clone)]
pub struct ForwarderPool {
    all: Arc<Semaphore>,
    runtime: Handle,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl ForwarderPool {
    /// Questions are asked from the threads of `runtime` until `stop`.
    pub fn new(runtime: Handle, tasks: TaskTracker, stop: CancellationToken) -> Self {
        Self {
            all: Arc::new(Semaphore::new(LIMIT)),
            runtime,
            tasks,
            stop,
        }
    }

    pub fn forwarder(&self) -> Forwarder {
        Forwarder {
            shared: self.clone(),
            own: Arc::new(Semaphore::new(SANDBOX_LIMIT)),
        }
    }
}

impl Forwarder {
    /// Asks in the background and calls `done` with the answer, SERVFAIL if there is none.
    /// Gives the packet back when too many questions are under way.
    pub fn spawn(
        &self,
        packet: Vec<u8>,
        upstreams: Arc<[SocketAddr]>,
        transport: Transport,
        done: impl FnOnce(Vec<u8>) + Send + 'static,
    ) -> Option<Vec<u8>> {
        let Some(permits) = self.admit() else {
            return Some(packet);
        };
        let stop = self.shared.stop.clone();
        let task = async move {
            let reply = ask(&packet, &upstreams, transport);
            if let Some(Some(reply)) = stop.run_until_cancelled(reply).await {
                done(reply);
            }
            drop(permits);
        };
        self.shared.tasks.spawn_on(task, &self.shared.runtime);
        None
    }

    /// The answer, SERVFAIL if there is none or too many questions are under way; nothing for a
    /// packet that must not be answered.
    pub async fn ask(
        &self,
        packet: &[u8],
        upstreams: &[SocketAddr],
        transport: Transport,
    ) -> Option<Vec<u8>> {
        match self.admit() {
            Some(_permits) => ask(packet, upstreams, transport).await,
            None => servfail(packet),
        }
    }

    fn admit(&self) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let own = Arc::clone(&self.own).try_acquire_owned().ok()?;
        let all = Arc::clone(&self.shared.all).try_acquire_owned().ok()?;
        Some((own, all))
    }
}

/// Whom to ask next: in order, round and round, without those that have failed.
struct Turns {
    upstreams: Vec<Option<SocketAddr>>,
    taken: usize,
}

impl Turns {
    fn new(upstreams: &[SocketAddr]) -> Self {
        Self {
            upstreams: upstreams.iter().copied().map(Some).collect(),
            taken: 0,
        }
    }

    /// The upstream's place and address.
    fn next(&mut self) -> Option<(usize, SocketAddr)> {
        let count = self.upstreams.len();
        while self.taken < count * TURNS {
            let at = self.taken % count;
            self.taken += 1;
            if let Some(address) = self.upstreams[at] {
                return Some((at, address));
            }
        }
        None
    }

    fn strike(&mut self, at: usize) {
        self.upstreams[at] = None;
    }

    /// How long an upstream has before the next is asked too.
    fn pace(&self) -> Duration {
        PATIENCE / (self.upstreams.len() * TURNS).max(1) as u32
    }
}

async fn ask(packet: &[u8], upstreams: &[SocketAddr], transport: Transport) -> Option<Vec<u8>> {
    let answer = tokio::time::timeout(PATIENCE, ask_in_turn(packet, upstreams, transport));
    let Ok(Some(mut reply)) = answer.await else {
        return servfail(packet);
    };
    reply[..2].copy_from_slice(&packet[..2]);
    Some(match transport {
        Transport::Udp => wire::fit(packet, reply),
        Transport::Tcp => reply,
    })
}

/// The first good answer, or the last bad one once everybody has failed. Never ends while an
/// upstream is silent.
async fn ask_in_turn(
    packet: &[u8],
    upstreams: &[SocketAddr],
    transport: Transport,
) -> Option<Vec<u8>> {
    let mut turns = Turns::new(upstreams);
    let pace = turns.pace();
    let mut under_way = FuturesUnordered::new();
    let mut bad: Option<Vec<u8>> = None;
    let mut hurry = Instant::now();
    loop {
        tokio::select! {
            biased;
            Some((at, result)) = under_way.next() => {
                let result: io::Result<Vec<u8>> = result;
                match result {
                    Ok(reply) if is_good(&reply) => return Some(reply),
                    Ok(reply) => bad = Some(reply),
                    Err(error) => {
                        tracing::debug!(upstream = ?upstreams.get(at), %error, "name server: upstream");
                    }
                }
                turns.strike(at);
                hurry = Instant::now();
            }
            () = tokio::time::sleep_until(hurry) => match turns.next() {
                Some((at, upstream)) => {
                    under_way.push(async move { (at, exchange(packet, upstream, transport).await) });
                    hurry = Instant::now() + pace;
                }
                None if under_way.is_empty() => return bad,
                // Everybody has been asked; what remains is to wait for the silent ones.
                None => hurry = Instant::now() + PATIENCE,
            }
        }
    }
}

/// An answer that another upstream would not better.
fn is_good(reply: &[u8]) -> bool {
    let code = wire::rcode(reply);
    code == Rcode::NoError as u8 || code == Rcode::NxDomain as u8
}

async fn exchange(
    packet: &[u8],
    upstream: SocketAddr,
    transport: Transport,
) -> io::Result<Vec<u8>> {
    let mut request = packet.to_vec();
    request[..2].copy_from_slice(&rand::random::<[u8; 2]>());
    match transport {
        Transport::Udp => exchange_udp(&request, upstream).await,
        Transport::Tcp => exchange_tcp(&request, upstream).await,
    }
}

async fn exchange_udp(request: &[u8], upstream: SocketAddr) -> io::Result<Vec<u8>> {
    // A new socket each time: the kernel gives it a random port, and connected it hears nobody but
    // the upstream, its refusals included.
    let any: SocketAddr = match upstream {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(upstream).await?;
    socket.send(request).await?;
    let mut reply = Vec::with_capacity(MAX_TCP);
    loop {
        reply.clear();
        socket.recv_buf(&mut reply).await?;
        if wire::answers(request, &reply) {
            return Ok(reply);
        }
    }
}

async fn exchange_tcp(request: &[u8], upstream: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream).await?;
    write_framed(&mut stream, request).await?;
    let length = stream.read_u16().await?;
    let mut reply = vec![0; usize::from(length)];
    stream.read_exact(&mut reply).await?;
    if wire::answers(request, &reply) {
        Ok(reply)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the answer is about something else",
        ))
    }
}

/// One message with its length in front (RFC 1035 section 4.2.2), in one write.
pub async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let mut framed = Vec::with_capacity(message.len() + 2);
    framed.extend_from_slice(&(message.len() as u16).to_be_bytes());
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}

fn servfail(packet: &[u8]) -> Option<Vec<u8>> {
    let mut out = vec![0; PLAIN_UDP];
    let length = wire::refuse(packet, Rcode::ServFail, &mut out)?;
    out.truncate(length);
    Some(out)
}
