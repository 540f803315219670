//! Datagrams at a steady pace.

use std::{
    net::{IpAddr, ToSocketAddrs, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// Prints `sent N answered M longest-gap MS`; fails when an answer is missing.
pub fn probe(target: &str, seconds: &str, rate: &str) -> Result<()> {
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
    let socket = UdpSocket::bind((any, 0))?;
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
fn count_answers(socket: &UdpSocket, total: u64) -> (u64, Duration) {
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
