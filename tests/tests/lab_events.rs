//! Many listen to events, and one of them does not read.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{
    io::{ErrorKind, Read, Write as _},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use tests::{Host, Lab, Options, wait};

const LISTENERS: usize = 100;
/// More than a socket holds and more than are remembered, by far.
const VOLUMES: usize = 2000;
const LIMIT: Duration = Duration::from_secs(60);
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

#[test]
fn who_does_not_read_is_told_and_costs_nobody_anything() {
    let lab = Lab::up(Options {
        workers: 1,
        cluster: false,
        ..Options::for_test("events")
    })
    .unwrap();
    let host = lab.host("worker01");
    let mut slow = listen(&host);
    let mut quick: Vec<(UnixStream, Vec<u8>)> = (1..LISTENERS)
        .map(|_| (listen(&host), Vec::new()))
        .collect();
    for (stream, _) in &quick {
        stream.set_nonblocking(true).unwrap();
    }
    wait::until("all listen", LIMIT, || {
        let info = host.api("GET", "/info", b"").unwrap().json();
        let count = info["NEventsListener"].as_u64().unwrap_or_default();
        (count == LISTENERS as u64).then_some(()).ok_or(count)
    });
    let before = memory(&host);
    for number in 0..VOLUMES {
        let body = format!("{{\"Name\":\"v{number}\"}}");
        volume(&host, "POST", "/volumes/create", &body);
        volume(&host, "DELETE", &format!("/volumes/v{number}"), "");
        for (stream, heard) in &mut quick {
            hear(stream, heard);
        }
    }
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
    // What the socket held, the word that some are missing, and then the newest.
    slow.set_read_timeout(Some(LIMIT)).unwrap();
    let (mut heard, mut buffer) = (Vec::new(), [0; 1 << 14]);
    while !has(&heard, "\"last-one\"") {
        let count = slow.read(&mut buffer).unwrap();
        assert_ne!(count, 0, "the slow one was not told the last event");
        heard.extend(&buffer[..count]);
    }
    assert!(has(&heard, "missed"), "it is not told that it missed some");
    assert!(!has(&heard, "\"v1000\""), "somebody kept them for it");
    lab.down().unwrap();
}
