//! The example server: says `Hello Docker!!` on TCP port 8080, and tells at `/whoami`, and to
//! any UDP datagram on the same port, who asked and who answered.
//!
//! It is the other end, too: `probe HOST:PORT SECONDS [PER_SECOND]` sends datagrams at a steady pace
//! and counts the answers, so that a single lost packet shows; `load HOST:PORT SECONDS PER_SECOND
//! [keep]` does so with requests; `ask tcp://HOST:PORT udp://HOST:PORT …` prints who each one says
//! that it sees; `listen PORT` holds a port; `flood HOST:PORT COUNT FROM` begins connections and
//! leaves them half open, in the names of the fifty addresses from FROM on.

mod flood;
mod load;
mod probe;

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::Bytes,
    header::{CONNECTION, HeaderValue},
    service::service_fn,
};
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown};
use tokio::{
    net::{TcpListener, UdpSocket},
    signal::unix::{SignalKind, signal},
};

const PORT: u16 = 8080;
const GREETING: &str = "Hello Docker!!";
/// How long a SIGTERM lets clients end their connections, which every answer asks for then.
const LEAVING: Duration = Duration::from_secs(1);
/// How long it waits for answers that are on their way.
const GRACE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        [] => serve(),
        ["probe", target, seconds] => probe::probe(target, seconds, "200"),
        ["probe", target, seconds, rate] => probe::probe(target, seconds, rate),
        ["load", target, seconds, rate] => load::load(target, seconds, rate, false),
        ["load", target, seconds, rate, "keep"] => load::load(target, seconds, rate, true),
        ["ask", ref targets @ ..] if !targets.is_empty() => load::ask(targets),
        ["listen", port] => listen(port),
        ["flood", target, count, from] => flood::flood(target, count, from),
        _ => Err(anyhow::anyhow!(
            "usage: echo [probe HOST:PORT SECONDS [PER_SECOND] | load HOST:PORT SECONDS PER_SECOND \
             [keep] | ask tcp://HOST:PORT udp://HOST:PORT … | listen PORT | \
             flood HOST:PORT COUNT FROM]"
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
        let leaving = Arc::new(AtomicBool::new(false));
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
            let (host, leaving) = (host.clone(), Arc::clone(&leaving));
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let path = request.uri().path();
                let mut response = answer(request.method().as_str(), path, peer, &host);
                if leaving.load(Ordering::Relaxed) {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(CONNECTION, close);
                }
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(graceful.watch(connection));
        }
        drop(tcp);
        println!("stop server");
        // A connection that is cut while a request is on its way to it is a failed request.
        leaving.store(true, Ordering::Relaxed);
        let begun = tokio::time::Instant::now();
        while graceful.count() > 0 && begun.elapsed() < LEAVING {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
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

/// Until it is ended.
fn listen(port: &str) -> Result<()> {
    let port: u16 = port.parse().context("PORT is a number")?;
    let _socket = std::net::TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, port))
        .with_context(|| format!("cannot listen on port {port}"))?;
    println!("listening");
    loop {
        std::thread::park();
    }
}
