//! Many listen to events, and two of them do not read.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{
    io::{ErrorKind, Read, Write as _},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use tests::{Host, Lab, Options, wait};

const LISTENERS: usize = 100;
/// Two events each: more than a socket holds and more than wait for a listener.
const VOLUMES: usize = 1500;
const LIMIT: Duration = Duration::from_secs(120);
/// After which one that takes nothing is cut off, at the latest.
const PATIENCE: Duration = Duration::from_secs(75);
/// The last chunk of a body that was sent to its end.
const END: &[u8] = b"\r\n0\r\n\r\n";
/// Megabytes that the daemon may grow by.
const GROWTH: u64 = 30;

fn listen(host: &Host) -> UnixStream {
    let mut stream = UnixStream::connect(host.socket()).unwrap();
    stream
        .write_all(b"GET /events HTTP/1.1\r\nHost: lab\r\n\r\n")
        .unwrap();
    stream
}

/// Takes what is there; the end of it, where a name that is looked for would stand.
fn hear(stream: &mut UnixStream, heard: &mut Vec<u8>) {
    let mut buffer = [0; 1 << 14];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => panic!("a listener that reads was dropped"),
            Ok(count) => heard.extend(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("{error}"),
        }
    }
}

fn has(heard: &[u8], text: &str) -> bool {
    heard
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}

/// Resident memory of the daemon in MB.
fn memory(host: &Host) -> u64 {
    let pid = host.daemon_pid().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes / 1024
}

fn volume(host: &Host, method: &str, path: &str, body: &str) {
    let answer = host.api(method, path, body.as_bytes()).unwrap();
    assert!((200..300).contains(&answer.status), "{}", answer.text());
}

/// Volumes are made and removed, one after the other.
fn come_and_go(host: &Host, mut meanwhile: impl FnMut(usize)) {
    for number in 0..VOLUMES {
        let body = format!("{{\"Name\":\"v{number}\"}}");
        volume(host, "POST", "/volumes/create", &body);
        volume(host, "DELETE", &format!("/volumes/v{number}"), "");
        meanwhile(number);
    }
}

fn until_listening(host: &Host, wanted: usize, limit: Duration) {
    wait::until(&format!("{wanted} listen"), limit, || {
        let info = host.api("GET", "/info", b"").unwrap().json();
        let count = info["NEventsListener"].as_u64().unwrap_or_default();
        (count == wanted as u64).then_some(()).ok_or(count)
    });
}

/// Everything up to the end of the stream, or of the connection.
fn rest(stream: &mut UnixStream) -> Vec<u8> {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let (mut heard, mut buffer) = (Vec::new(), [0; 1 << 14]);
    while !heard.ends_with(END) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => heard.extend(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error}"),
        }
    }
    heard
}

#[test]
fn who_does_not_read_is_told_and_costs_nobody_anything() {
    let lab = Lab::up(Options {
        workers: 1,
        cluster: false,
        ..Options::for_test("events")
    })
    .unwrap();
    let host = lab.host("worker01");
    let mut deaf = listen(&host);
    let mut quick: Vec<(UnixStream, Vec<u8>)> = (1..LISTENERS)
        .map(|_| (listen(&host), Vec::new()))
        .collect();
    for (stream, _) in &quick {
        stream.set_nonblocking(true).unwrap();
    }
    until_listening(&host, LISTENERS, LIMIT);
    let before = memory(&host);
    come_and_go(&host, |number| {
        if number % 10 == 0 {
            for (stream, heard) in &mut quick {
                hear(stream, heard);
            }
        }
    });
    volume(&host, "POST", "/volumes/create", r#"{"Name":"last-one"}"#);
    let begun = Instant::now();
    for (stream, heard) in &mut quick {
        while !has(heard, "\"last-one\"") {
            assert!(begun.elapsed() < LIMIT, "somebody waits for the last event");
            hear(stream, heard);
        }
        assert!(!has(heard, "missed"));
        let count = heard
            .windows(9)
            .filter(|part| *part == b"\"destroy\"")
            .count();
        assert!(
            count >= VOLUMES,
            "only {count} of {VOLUMES} removals were told"
        );
    }
    let after = memory(&host);
    assert!(after < before + GROWTH, "{before} MB, then {after} MB");
    // Who takes nothing at all cannot be told.
    until_listening(&host, LISTENERS - 1, PATIENCE);
    let heard = rest(&mut deaf);
    assert!(!has(&heard, "missed") && !heard.ends_with(END));
    drop(quick);
    until_listening(&host, 0, LIMIT);
    // What the socket held, the word that some are missing, and the end.
    let mut slow = listen(&host);
    until_listening(&host, 1, LIMIT);
    come_and_go(&host, |_| ());
    let heard = rest(&mut slow);
    assert!(has(&heard, "missed"), "it is not told that it missed some");
    assert!(heard.ends_with(END), "the stream does not end");
    let last = format!("\"v{}\"", VOLUMES - 1);
    assert!(!has(&heard, &last), "somebody kept them for it");
    lab.down().unwrap();
}
