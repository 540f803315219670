//! Requests at a steady pace, each one counted; and single questions.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// For connecting, and for each answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests that may be under way at once.
const WORKERS: u64 = 16;

/// Prints `sent N failed M p50 MS p99 MS slowest MS`, and after it a line for each failure.
pub fn load(target: &str, seconds: &str, rate: &str, keep: bool) -> Result<()> {
    let seconds: f64 = seconds.parse().context("SECONDS is a number")?;
    let rate: f64 = rate.parse().context("PER_SECOND is a number")?;
    let total = (seconds * rate) as u64;
    let next = AtomicU64::new(0);
    let (failures, all) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let mut kept = None;
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= total {
                        return;
                    }
                    let due = start + Duration::from_secs_f64(number as f64 / rate);
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    let begun = Instant::now();
                    let connection = kept.take();
                    match one(target, connection, keep) {
                        Ok(connection) => kept = connection,
                        Err(error) => {
                            let at = begun.duration_since(start).as_secs_f64();
                            let took = begun.elapsed().as_secs_f64();
                            let line = format!("at {at:.3} s, after {took:.3} s: {error:#}");
                            let failures = failures.lock();
                            failures.unwrap_or_else(PoisonError::into_inner).push(line);
                        }
                    }
                    let took = begun.elapsed();
                    all.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(took);
                }
            });
        }
    });
    let failures = failures
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    all.sort();
    let at = |part: usize| {
        let place = (all.len() * part / 100).min(all.len().saturating_sub(1));
        all.get(place).map_or(0.0, |took| took.as_secs_f64() * 1e3)
    };
    println!(
        "sent {total} failed {} p50 {:.2} p99 {:.2} slowest {:.2}",
        failures.len(),
        at(50),
        at(99),
        at(100)
    );
    for line in &failures {
        println!("{line}");
    }
    Ok(())
}

/// One request; the connection, if both sides keep it.
fn one(
    target: &str,
    connection: Option<BufReader<TcpStream>>,
    keep: bool,
) -> Result<Option<BufReader<TcpStream>>> {
    let mut reader = match connection {
        Some(connection) => connection,
        None => BufReader::new(connect(target).context("connecting")?),
    };
    let how = if keep { "keep-alive" } else { "close" };
    let request = format!("GET /quiet HTTP/1.1\r\nHost: {target}\r\nConnection: {how}\r\n\r\n");
    reader
        .get_mut()
        .write_all(request.as_bytes())
        .context("asking")?;
    let (body, closes) = answer(&mut reader).context("waiting for the answer")?;
    if body != b"Hello Docker!!" {
        bail!("another answer: {:?}", String::from_utf8_lossy(&body));
    }
    Ok((keep && !closes).then_some(reader))
}

fn connect(target: &str) -> io::Result<TcpStream> {
    let address = resolve(target)?;
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn resolve(target: &str) -> io::Result<SocketAddr> {
    let mut found = target.to_socket_addrs()?;
    found
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it has no address"))
}

/// The body, and whether the server closes.
fn answer(reader: &mut BufReader<TcpStream>) -> Result<(Vec<u8>, bool)> {
    let (mut line, mut length, mut closes) = (String::new(), 0, false);
    if reader.read_line(&mut line)? == 0 {
        bail!("the connection was closed without an answer");
    }
    if !line.starts_with("HTTP/1.1 200") {
        bail!("status {line:?}");
    }
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let lower = line.trim().to_ascii_lowercase();
        match lower.split_once(": ") {
            Some(("content-length", value)) => length = value.parse()?,
            Some(("connection", "close")) => closes = true,
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((body, closes))
}

/// Prints `TARGET PEER HOST` for each target, or why there was no answer.
pub fn ask(targets: &[&str]) -> Result<()> {
    for target in targets {
        let said = match target.split_once("://") {
            Some(("tcp", at)) => ask_tcp(at),
            Some(("udp", at)) => ask_udp(at),
            _ => bail!("{target}: write tcp://HOST:PORT or udp://HOST:PORT"),
        };
        match said {
            Ok(said) => println!("{target} {}", said.trim()),
            Err(error) => println!("{target} failed: {error:#}"),
        }
    }
    Ok(())
}

fn ask_tcp(target: &str) -> Result<String> {
    let mut reader = BufReader::new(connect(target)?);
    let request = format!("GET /whoami HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
    reader.get_mut().write_all(request.as_bytes())?;
    let (body, _) = answer(&mut reader)?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

fn ask_udp(target: &str) -> Result<String> {
    let peer = resolve(target)?;
    let any: IpAddr = if peer.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(peer)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(b"who")?;
    let mut packet = [0; 256];
    let length = socket.recv(&mut packet)?;
    Ok(String::from_utf8_lossy(&packet[..length]).into_owned())
}
