//! A container in whose network connections are tried, for what measures times to a first answer.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};

use crate::Host;

const TOOLBOX: &str = "registry:5000/example/toolbox";

/// Runs as container `asker` on the network `ch03`. Whose program uses it hands the words
/// `first ADDRESS:PORT` of its command line to [`first`], and `watch ADDRESS:PORT` to [`watch`].
pub struct Asker {
    host: Host,
    pid: String,
    program: String,
}

impl Asker {
    pub fn start(host: &Host) -> Result<Self> {
        let words = "run -d --name asker --network ch03";
        let words = words.split(' ').chain([TOOLBOX, "sleep", "100000"]);
        host.ctl(words).ok();
        let inspect = ["inspect", "--format", "{{.State.Pid}}", "asker"];
        Ok(Self {
            host: host.clone(),
            pid: host.ctl(inspect).ok(),
            program: std::env::current_exe()?.display().to_string(),
        })
    }

    /// Returns with the first answer of an echo server at that address.
    pub fn first(&self, address: &str) {
        let target = format!("{address}:8080");
        let enter = ["nsenter", "-t", &self.pid, "-n", "--"];
        let own = [self.program.as_str(), "first", &target];
        self.host.exec(enter.iter().chain(&own)).ok();
    }

    /// Opens connections to that address, one after the other, until it is asked what it saw.
    pub fn watch(&self, address: &str) -> Result<Watcher> {
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &self.pid, "-n", "--", &self.program, "watch"])
            .arg(format!("{address}:8080"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        Ok(Watcher(self.host.spawn(command)?))
    }
}

/// Connections under way.
pub struct Watcher(Child);

impl Watcher {
    /// By the host name of the answering container, when the first and the last connection that it
    /// answered were opened, nanoseconds since the Unix epoch.
    pub fn end(mut self) -> Result<BTreeMap<String, (i64, i64)>> {
        drop(self.0.stdin.take());
        let mut text = String::new();
        let mut said = self.0.stdout.take().context("its output")?;
        said.read_to_string(&mut text)?;
        ensure!(self.0.wait()?.success(), "the watcher failed: {text}");
        let line = |line: &str| {
            let mut words = line.split_whitespace();
            let name = words.next()?.to_owned();
            let mut time = || words.next()?.parse().ok();
            Some((name, (time()?, time()?)))
        };
        let lines: Option<_> = text.lines().map(line).collect();
        lines.with_context(|| format!("{text} is no list of times"))
    }
}

/// Opens connections until its input ends, and prints who answered from when to when.
pub fn watch(address: SocketAddr) -> Result<()> {
    static OVER: AtomicBool = AtomicBool::new(false);
    std::thread::spawn(|| {
        // An error ends it as the end does.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        OVER.store(true, Ordering::Relaxed);
    });
    let mut seen: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    while !OVER.load(Ordering::Relaxed) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let now = i64::try_from(now.as_nanos())?;
        let Ok(answer) = ask(address, "/whoami") else {
            continue;
        };
        if let Some(name) = answer.split_whitespace().next_back() {
            seen.entry(name.to_owned()).or_insert((now, now)).1 = now;
        }
    }
    for (name, (first, last)) in seen {
        println!("{name} {first} {last}");
    }
    Ok(())
}

fn ask(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: bench\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Asks until there is an answer, for as long as `limit`.
pub fn first(address: SocketAddr, limit: Duration) -> Result<()> {
    let begun = Instant::now();
    loop {
        let asked = ask(address, "/").map(|answer| answer.contains("Hello Docker!!"));
        if matches!(asked, Ok(true)) {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < limit,
            "no answer from {address}: {asked:?}"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}
