//! A container in whose network connections are tried, for what measures times to a first answer.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver},
    },
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
        let mut child = self.host.spawn(command)?;
        let said = child.stdout.take().context("its output")?;
        let (tell, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(said).lines().map_while(Result::ok) {
                // Whoever does not listen any more has what it wants.
                let _ = tell.send(line);
            }
        });
        let seen = BTreeMap::new();
        Ok(Watcher { child, lines, seen })
    }
}

/// Connections under way.
pub struct Watcher {
    child: Child,
    lines: Receiver<String>,
    seen: BTreeMap<String, (i64, i64)>,
}

impl Watcher {
    /// Waits until a container answers that has not before.
    pub fn newcomer(&mut self, limit: Duration) -> Result<()> {
        let line = self
            .lines
            .recv_timeout(limit)
            .context("nobody new answers")?;
        self.take(&line)
    }

    /// By the host name of the answering container, when the first and the last connection that it
    /// answered were opened, nanoseconds since the Unix epoch.
    pub fn end(mut self) -> Result<BTreeMap<String, (i64, i64)>> {
        drop(self.child.stdin.take());
        ensure!(self.child.wait()?.success(), "the watcher failed");
        while let Ok(line) = self.lines.recv() {
            self.take(&line)?;
        }
        Ok(self.seen)
    }

    fn take(&mut self, line: &str) -> Result<()> {
        let (name, time) = line.split_once(' ').context("a name and a time")?;
        let time = time.parse()?;
        self.seen.entry(name.to_owned()).or_insert((time, time)).1 = time;
        Ok(())
    }
}

/// Opens connections until its input ends, and prints who answers: when it does for the first time,
/// and in the end when it did for the last.
pub fn watch(address: SocketAddr) -> Result<()> {
    static OVER: AtomicBool = AtomicBool::new(false);
    std::thread::spawn(|| {
        // An error ends it as the end does.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        OVER.store(true, Ordering::Relaxed);
    });
    let mut seen: BTreeMap<String, i64> = BTreeMap::new();
    while !OVER.load(Ordering::Relaxed) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let now = i64::try_from(now.as_nanos())?;
        let Ok(answer) = ask(address, "/whoami") else {
            continue;
        };
        if let Some(name) = answer.split_whitespace().next_back()
            && seen.insert(name.to_owned(), now).is_none()
        {
            println!("{name} {now}");
        }
    }
    for (name, last) in seen {
        println!("{name} {last}");
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
