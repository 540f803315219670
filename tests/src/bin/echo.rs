//! The example server: says `Hello Docker!!` on TCP port 8080, and tells at `/whoami`, and to
//! any UDP datagram on the same port, who asked and who answered.
//!
//! `probe HOST:PORT SECONDS [PER_SECOND]` is the other end: sends datagrams at a steady pace and
//! counts the answers, so that a single lost packet shows.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket as StdUdpSocket},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Bytes, service::service_fn};
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown};
use tokio::{
    net::{TcpListener, UdpSocket},
    signal::unix::{SignalKind, signal},
};

const PORT: u16 = 8080;
const GREETING: &str = "Hello Docker!!";
/// How long a SIGTERM waits for answers that are on their way.
const GRACE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        [] => serve(),
        ["probe", target, seconds] => probe(target, seconds, "200"),
        ["probe", target, seconds, rate] => probe(target, seconds, rate),
        _ => Err(anyhow::anyhow!(
            "usage: echo [probe HOST:PORT SECONDS [PER_SECOND]]"
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (tcp, udp) = bind().await?;
        let mut term = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let graceful = GracefulShutdown::new();
        let host = hostname();
        println!("start server");
        tokio::spawn(answer_datagrams(udp, host.clone()));
        loop {
            let (stream, peer) = tokio::select! {
                accepted = tcp.accept() => {
                    let Ok(accepted) = accepted else {
                        // Out of descriptors, or the peer was gone already.
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        continue;
                    };
                    accepted
                }
                _ = term.recv() => break,
                _ = interrupt.recv() => break,
            };
            let host = host.clone();
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let response = answer(request.method().as_str(), request.uri().path(), peer, &host);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(graceful.watch(connection));
        }
        drop(tcp);
        println!("stop server");
        let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
        Ok(())
    })
}

fn answer(method: &str, path: &str, peer: SocketAddr, host: &str) -> Response<Full<Bytes>> {
    let (status, body) = match (method, path) {
        ("GET" | "HEAD", "/whoami") => (StatusCode::OK, whoami(peer, host)),
        ("GET" | "HEAD" | "POST", _) => (StatusCode::OK, GREETING.to_owned()),
        _ => (
            StatusCode::METHOD_NOT_ALLOWED,
            format!("{method} is not answered here\n"),
        ),
    };
    if path != "/quiet" {
        println!("received request");
    }
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
}

fn whoami(peer: SocketAddr, host: &str) -> String {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    format!("{peer} {host}\n")
}

async fn answer_datagrams(socket: UdpSocket, host: String) {
    let mut packet = vec![0; 1 << 16];
    loop {
        if let Ok((_, peer)) = socket.recv_from(&mut packet).await {
            let _ = socket.send_to(whoami(peer, &host).as_bytes(), peer).await;
        }
    }
}

/// Both families on one socket; without IPv6 in this namespace, IPv4 alone.
async fn bind() -> Result<(TcpListener, UdpSocket)> {
    let any: [IpAddr; 2] = ["::".parse()?, "0.0.0.0".parse()?];
    let mut last = None;
    for address in any {
        let pair = async {
            Ok((
                TcpListener::bind((address, PORT)).await?,
                UdpSocket::bind((address, PORT)).await?,
            ))
        };
        match pair.await {
            Ok(pair) => return Ok(pair),
            Err(error) => last = Some::<std::io::Error>(error),
        }
    }
    bail!(
        "cannot listen on port {PORT}: {}",
        last.map_or_else(String::new, |e| e.to_string())
    )
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Prints `sent N answered M longest-gap MS`; fails when an answer is missing.
fn probe(target: &str, seconds: &str, rate: &str) -> Result<()> {
    let seconds: f64 = seconds.parse().context("SECONDS is a number")?;
    let rate: f64 = rate.parse().context("PER_SECOND is a number")?;
    let peer = target
        .to_socket_addrs()
        .with_context(|| format!("cannot resolve {target}"))?
        .next();
    let peer = peer.with_context(|| format!("{target} has no address"))?;
    let any: IpAddr = if peer.is_ipv4() {
        "0.0.0.0".parse()?
    } else {
        "::".parse()?
    };
    let socket = StdUdpSocket::bind((any, 0))?;
    socket.connect(peer)?;
    let total = (seconds * rate) as u64;
    let pause = Duration::from_secs_f64(1.0 / rate);
    let receiver = socket.try_clone()?;
    receiver.set_read_timeout(Some(Duration::from_secs(2)))?;
    let counter = std::thread::spawn(move || count_answers(&receiver, total));
    let start = Instant::now();
    for number in 0..total {
        let due = start + pause * number as u32;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // An unreachable peer shows as a missing answer.
        let _ = socket.send(&number.to_be_bytes());
    }
    let (answered, gap) = counter.join().unwrap_or_default();
    println!(
        "sent {total} answered {answered} longest-gap {}",
        gap.as_millis()
    );
    if answered < total {
        bail!("{} of {total} unanswered", total - answered);
    }
    Ok(())
}

/// Reads until all are there or nothing has come for the socket's read timeout.
fn count_answers(socket: &StdUdpSocket, total: u64) -> (u64, Duration) {
    let (mut answered, mut gap, mut silent) = (0, Duration::ZERO, 0);
    let mut last = Instant::now();
    let mut packet = [0; 512];
    while answered < total && silent < 3 {
        match socket.recv(&mut packet) {
            Ok(_) => {
                gap = gap.max(last.elapsed());
                last = Instant::now();
                answered += 1;
                silent = 0;
            }
            // A refused port is told at once, a lost packet by the timeout.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
            Err(_) => silent += 1,
        }
    }
    (answered, gap)
}
