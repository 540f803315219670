//! Clients that ask for too much or take too little: each is bounded and answered, others notice nothing, and
//! nothing of them is left.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tests::{Host, Lab, Options, http, wait};

const TOOLBOX: &str = "registry:5000/example/toolbox";
const LIMIT: Duration = Duration::from_secs(60);
/// How long others may wait for an answer meanwhile.
const QUICK: Duration = Duration::from_secs(2);
/// Megabytes that the daemon may grow by at the most, for one flood.
const GROWTH: u64 = 64;
const PORT: u16 = 2375;
/// Pages of browsers have other names there, and are refused.
const LOCAL: [(&str, &str); 1] = [("Host", "localhost")];

#[test]
fn what_clients_do_wrong_stays_theirs() {
    let lab = Lab::up(Options {
        workers: 1,
        cluster: false,
        daemon_args: vec!["--host".into(), format!("tcp://127.0.0.1:{PORT}")],
        ..Options::for_test("bounded")
    })
    .unwrap();
    let host = lab.host("worker01");
    let writes = "while :; do echo $(date) and so on and so on; done";
    for (name, script) in [
        ("writer", writes),
        ("attached", writes),
        ("quiet", "exec sleep 100000"),
    ] {
        host.ctl(["run", "-d", "--name", name, TOOLBOX, "sh", "-c", script])
            .ok();
    }
    let daemon = Daemon::of(&host);
    thread::scope(|scope| {
        let slow = scope.spawn(|| slow_headers_end(&host));
        a_body_without_end_is_refused(&daemon);
        readers_that_stop_cost_nothing(&daemon);
        those_who_go_leave_nothing(&daemon);
        slow.join().unwrap();
    });
    more_connections_than_places(&daemon);
    lab.down().unwrap();
}

/// The daemon as its host's kernel sees it.
struct Daemon<'a> {
    host: &'a Host,
    pid: i32,
}

impl<'a> Daemon<'a> {
    fn of(host: &'a Host) -> Self {
        let pid = host.daemon_pid().unwrap();
        Self { host, pid }
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.pid)).unwrap()
    }

    fn number(&self, key: &str) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    fn descriptors(&self) -> usize {
        let folder = fs::read_dir(format!("/proc/{}/fd", self.pid)).unwrap();
        folder.count()
    }

    /// The most megabytes that `work` made it grow by.
    fn growth(&self, work: impl FnOnce()) -> u64 {
        let before = self.number("VmRSS");
        fs::write(format!("/proc/{}/clear_refs", self.pid), "5").unwrap();
        work();
        self.number("VmHWM").saturating_sub(before) / 1024
    }

    fn unix(&self) -> UnixStream {
        let stream = UnixStream::connect(self.host.socket()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    fn tcp(&self) -> TcpStream {
        let connected = self.host.within(|| TcpStream::connect(("127.0.0.1", PORT)));
        let stream = connected.unwrap().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    /// Others are answered, and soon.
    fn is_quick(&self, meanwhile: &str) {
        for path in ["/_ping", "/containers/json", "/containers/writer/json"] {
            for tcp in [false, true] {
                let begun = Instant::now();
                let answer = if tcp {
                    http::request(self.tcp(), "GET", path, &LOCAL, b"")
                } else {
                    http::request(self.unix(), "GET", path, &[], b"")
                };
                assert_eq!(answer.unwrap().status, 200, "{meanwhile}: {path}");
                let took = begun.elapsed();
                assert!(took < QUICK, "{meanwhile}: {path} took {took:?}");
            }
        }
    }
}

/// A client that sends a letter of its headers now and then, and one that asks once and rests.
fn slow_headers_end(host: &Host) {
    let open = || UnixStream::connect(host.socket()).unwrap();
    let begun = Instant::now();
    let (mut slow, mut rests) = (open(), open());
    rests
        .write_all(b"GET /_ping HTTP/1.1\r\nHost: lab\r\n\r\n")
        .unwrap();
    slow.write_all(b"GET /_ping HTTP/1.1\r\nX: ").unwrap();
    for stream in [&slow, &rests] {
        let pace = Some(Duration::from_millis(500));
        stream.set_read_timeout(pace).unwrap();
    }
    for (name, stream) in [("slow", &mut slow), ("resting", &mut rests)] {
        let mut buffer = [0; 1024];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // The end is looked for where the client reads.
                    if name == "slow" {
                        let _ = stream.write_all(b"x");
                    }
                }
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => panic!("{error}"),
            }
            let took = begun.elapsed();
            assert!(took < 2 * LIMIT, "the {name} one goes on after {took:?}");
        }
        eprintln!("the {name} one ended after {:?}", begun.elapsed());
    }
}

/// Sends a gigabyte as long as it is taken; how much that was, and what was answered.
fn pour<S: Read + Write>(mut stream: S, path: &str, framing: &str, chunked: bool) -> (u64, String) {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let piece = vec![b' '; 1 << 20];
    let mut sent = 0;
    while sent < 1 << 30 {
        let part = if chunked {
            [b"100000\r\n", &piece[..], b"\r\n"].concat()
        } else {
            piece.clone()
        };
        if stream.write_all(&part).is_err() {
            break;
        }
        sent += piece.len() as u64;
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    (sent, String::from_utf8_lossy(&answer).into_owned())
}

fn a_body_without_end_is_refused(daemon: &Daemon) {
    let growth = daemon.growth(|| {
        for (framing, chunked, most) in [
            ("Content-Length: 1073741824", false, 8),
            ("Transfer-Encoding: chunked", true, 32),
        ] {
            for path in [
                "/containers/create",
                "/networks/create",
                "/containers/writer/update",
            ] {
                let (sent, answer) = pour(daemon.unix(), path, framing, chunked);
                assert!(
                    answer.starts_with("HTTP/1.1 400 "),
                    "{path} {framing}: {answer}"
                );
                assert!(answer.contains("at most 16 MiB"), "{path}: {answer}");
                assert!(
                    sent >> 20 < most,
                    "{path} {framing}: {} MB were taken",
                    sent >> 20
                );
            }
        }
        // One without the right to is refused before.
        let (sent, answer) = pour(
            daemon.tcp(),
            "/containers/create",
            "Content-Length: 1073741824",
            false,
        );
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 403 "),
            "{answer}"
        );
        assert!(sent >> 20 < 16, "{} MB were taken", sent >> 20);
    });
    eprintln!("bodies without end: grown by {growth} MB");
    assert!(growth < GROWTH, "grown by {growth} MB");
    daemon.is_quick("after large bodies");
}

/// What goes on until its client has enough, as requests.
const STREAMS: [&str; 4] = [
    "GET /events?since=0 HTTP/1.1\r\nHost: lab\r\n\r\n",
    "GET /containers/writer/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: lab\r\n\r\n",
    "GET /containers/writer/export HTTP/1.1\r\nHost: lab\r\n\r\n",
    "GET /containers/writer/stats HTTP/1.1\r\nHost: lab\r\n\r\n",
];
/// To containers that write, or do not.
const ATTACHED: [&str; 2] = [
    "POST /containers/attached/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: lab\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
    "POST /containers/quiet/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: lab\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
];
/// More than tokio has threads for work that blocks.
const SAVES: usize = 520;
const SAVE: &str = "GET /images/registry:5000/example/toolbox/get HTTP/1.1\r\nHost: lab\r\n\r\n";

/// Asks, and takes the beginning of the answer only.
fn begin(daemon: &Daemon, request: &str) -> UnixStream {
    let mut stream = daemon.unix();
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    let head = String::from_utf8_lossy(&head);
    let status = if ATTACHED.contains(&request) {
        "101"
    } else {
        "200"
    };
    assert_eq!(head, format!("HTTP/1.1 {status}"), "{request}");
    stream
}

fn readers_that_stop_cost_nothing(daemon: &Daemon) {
    let written = |name: &str| {
        let path = format!("/containers/{name}/logs?stdout=1&tail=1&timestamps=1");
        daemon.host.api("GET", &path, b"").unwrap().text()
    };
    let writes_on = |name: &str| {
        let before = written(name);
        wait::until(&format!("{name} writes on"), LIMIT, || {
            let now = written(name);
            (now != before).then_some(()).ok_or(now)
        });
    };
    let growth = daemon.growth(|| {
        let mut stopped = Vec::new();
        for request in STREAMS.into_iter().chain(ATTACHED) {
            stopped.extend((0..10).map(|_| begin(daemon, request)));
        }
        stopped.extend((0..SAVES).map(|_| begin(daemon, SAVE)));
        daemon.is_quick("while many do not read");
        writes_on("writer");
        let name = ["run", "--rm", TOOLBOX, "echo", "works"];
        assert_eq!(daemon.host.ctl(name).ok(), "works");
        daemon.is_quick("while many still do not read");
        drop(stopped);
    });
    // Who is attached may hold up what he is attached to while he is there.
    writes_on("attached");
    eprintln!("readers that stop: grown by {growth} MB");
    let most = SAVES + (STREAMS.len() + ATTACHED.len()) * 10;
    assert!(
        growth < most as u64,
        "more than a megabyte each: {growth} MB"
    );
}

fn those_who_go_leave_nothing(daemon: &Daemon) {
    let listeners =
        || daemon.host.api("GET", "/info", b"").unwrap().json()["NEventsListener"].clone();
    let settled = || {
        wait::until("no event listener is left", LIMIT, || {
            let now = listeners();
            (now == 0).then_some(()).ok_or(now)
        });
    };
    settled();
    let descriptors = wait::until("what was open before is closed", LIMIT, || {
        let (first, then) = (daemon.descriptors(), {
            thread::sleep(Duration::from_millis(200));
            daemon.descriptors()
        });
        (first == then).then_some(then).ok_or((first, then))
    });
    let threads = daemon.number("Threads");
    for round in 0..20 {
        for request in STREAMS.iter().chain(&ATTACHED).chain([&SAVE]) {
            let mut stream = begin(daemon, request);
            // In the middle of an answer, or at its beginning.
            let mut some = vec![0; round * 64];
            let _ = stream.set_read_timeout(Some(Duration::from_millis(50)));
            let _ = stream.read_exact(&mut some);
        }
    }
    settled();
    wait::until("their descriptors and threads are gone", LIMIT, || {
        let now = (daemon.descriptors(), daemon.number("Threads"));
        (now.0 <= descriptors + 3 && now.1 <= threads + 3)
            .then_some(())
            .ok_or((now, (descriptors, threads)))
    });
}

fn more_connections_than_places(daemon: &Daemon) {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let limits = daemon.proc("limits");
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let files: usize = files
        .unwrap()
        .split_whitespace()
        .nth(3)
        .unwrap()
        .parse()
        .unwrap();
    let places = (files / 4).min(16_384);
    let growth = daemon.growth(|| {
        let mut open: Vec<UnixStream> = (0..places).map(|_| daemon.unix()).collect();
        let answer = http::request(daemon.unix(), "GET", "/_ping", &[], b"").unwrap();
        assert_eq!(answer.status, 503, "with {places} connections open");
        assert!(
            answer
                .text()
                .contains("connections to this address are taken"),
            "{}",
            answer.text()
        );
        // Others have a door of their own.
        let answer = http::request(daemon.tcp(), "GET", "/_ping", &LOCAL, b"").unwrap();
        assert_eq!(answer.status, 200);
        // One place that gets free is enough.
        open.truncate(places - 1);
        wait::until("the next one is let in", QUICK, || {
            let answer = http::request(daemon.unix(), "GET", "/_ping", &[], b"").unwrap();
            (answer.status == 200).then_some(()).ok_or(answer.status)
        });
        drop(open);
        let mut open: Vec<TcpStream> = Vec::new();
        daemon
            .host
            .within(|| {
                open.extend((0..places).map(|_| TcpStream::connect(("127.0.0.1", PORT)).unwrap()));
            })
            .unwrap();
        wait::until("the other door is full", LIMIT, || {
            let answer = http::request(daemon.tcp(), "GET", "/_ping", &LOCAL, b"").unwrap();
            (answer.status == 503).then_some(()).ok_or(answer.status)
        });
        let answer = http::request(daemon.unix(), "GET", "/_ping", &[], b"").unwrap();
        assert_eq!(answer.status, 200);
    });
    eprintln!("{places} connections at each door: grown by {growth} MB");
    assert!(growth < 3 * GROWTH, "grown by {growth} MB");
    wait::until("all have left", LIMIT, || {
        let now = daemon.descriptors();
        (now < 1000).then_some(()).ok_or(now)
    });
    daemon.is_quick("after many connections");
}
