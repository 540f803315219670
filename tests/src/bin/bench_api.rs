//! The API under load, in a lab of one manager and one host with Debian's Docker Engine: requests a second
//! and their p99 for lists (containers against Docker's engine in turns, in the same run), a thousand
//! listeners to events of which one does not read, and `logs -f` of a container that writes as fast as it can.
//!
//! `bench_api [containers] [lists] [events] [logs]`, default all.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests::{
    Host, Lab, Options, http,
    lab::DockerEngine,
    load::{Sample, load},
    yardstick::median,
};

const TOOLBOX: &str = "registry:5000/example/toolbox:latest";
const CONTAINERS: usize = 100;
const SERVICES: usize = 500;
const TASKS_EACH: usize = 10;
const LISTENERS: usize = 1000;
const EVENTS: usize = 3000;
const ROUNDS: usize = 5;
const FOLLOWED: Duration = Duration::from_secs(8);
const LIMIT: Duration = Duration::from_secs(120);
/// Times as many lists of containers as Docker's engine.
const GOAL: f64 = 3.0;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| word == name);
    let lab = Lab::up(Options {
        workers: 1,
        ..Options::default()
    })?;
    let (manager, worker) = (lab.host("manager01"), lab.host("worker01"));
    manager.ctl(["pull", TOOLBOX]).ok();
    let docker = DockerEngine::start(&worker)?;
    docker.words(&format!("pull -q {TOOLBOX}")).ok();
    let ours = Engine {
        socket: manager.socket(),
        host: manager.clone(),
        programs: &["ovnd", "conmon"],
        daemon: "ovnd",
    };
    let theirs = Engine {
        socket: docker.socket(),
        host: worker,
        programs: &["dockerd", "containerd", "containerd-shim"],
        daemon: "dockerd",
    };
    let mut slowest = f64::INFINITY;
    if wanted("containers") {
        slowest = containers(&ours, &theirs)?;
    }
    if wanted("lists") {
        lists(&ours)?;
    }
    if wanted("events") {
        events(&ours)?;
    }
    if wanted("logs") {
        logs(&ours, &theirs)?;
    }
    drop(docker);
    lab.down()?;
    ensure!(
        slowest >= GOAL,
        "lists of containers are {slowest:.1} times as fast as Docker's; the goal is {GOAL}"
    );
    Ok(())
}

/// A daemon that speaks Docker's API.
struct Engine {
    socket: PathBuf,
    host: Host,
    /// What works for its containers, by the first 15 characters of their names.
    programs: &'static [&'static str],
    daemon: &'static str,
}

impl Engine {
    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let bytes = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        let headers = [("Content-Type", "application/json")];
        let answer = http::request(stream, method, path, &headers, &bytes)?;
        ensure!(
            (200..300).contains(&answer.status),
            "{method} {path}: {} {}",
            answer.status,
            answer.text()
        );
        Ok(answer.json())
    }

    fn run(&self, name: &str, command: &[&str]) -> Result<()> {
        let body = json!({"Image": TOOLBOX, "Cmd": command, "HostConfig": {
            "NetworkMode": "none",
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "50m", "max-file": "2"}},
        }});
        self.ask("POST", &format!("/containers/create?name={name}"), &body)?;
        self.ask("POST", &format!("/containers/{name}/start"), &Value::Null)?;
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = format!("/containers/{name}?force=1");
        self.ask("DELETE", &path, &Value::Null).map(drop)
    }

    /// Seconds of processor that its programs have had.
    fn busy(&self) -> f64 {
        let stats = self
            .host
            .exec(["sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null; true"])
            .ok();
        let ticks = stats.lines().filter_map(|line| {
            let (head, rest) = line.rsplit_once(')')?;
            let name = head.split_once('(')?.1;
            let ours = self
                .programs
                .iter()
                .any(|program| name.starts_with(program));
            let fields: Vec<&str> = rest.split_whitespace().collect();
            let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
            Some(ticks(11)? + ticks(12)?).filter(|_| ours)
        });
        ticks.sum::<f64>() / 100.0
    }

    /// Resident megabytes of the daemon: now, and the most there ever were.
    fn memory(&self) -> (f64, f64) {
        let script = format!(
            "cat /proc/$(pgrep -o -x {})/status | grep -E 'VmRSS|VmHWM'",
            self.daemon
        );
        let said = self.host.exec(["sh", "-c", &script]).ok();
        let read = |key: &str| {
            let line = said.lines().find(|line| line.starts_with(key));
            let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
            number.unwrap_or(f64::NAN) / 1024.0
        };
        (read("VmRSS"), read("VmHWM"))
    }
}

/// The least number of times that ours are as fast.
fn containers(ours: &Engine, theirs: &Engine) -> Result<f64> {
    for engine in [ours, theirs] {
        for number in 0..CONTAINERS {
            engine.run(&format!("c{number:03}"), &["sleep", "100000"])?;
        }
    }
    println!(
        "| `GET /containers/json`, {CONTAINERS} containers | ovnd /s | p99 | dockerd /s | p99 | times as fast |\n|---|---|---|---|---|---|"
    );
    let mut slowest = f64::INFINITY;
    for connections in [1, 8] {
        let (mut samples, mut ratios) = ([const { Vec::new() }; 4], Vec::new());
        for round in 0..ROUNDS {
            let mut pair = [None, None];
            // Whoever goes first changes from round to round.
            for turn in 0..2 {
                let which = (round + turn) % 2;
                let engine = [ours, theirs][which];
                let sample = load(&engine.socket, "/containers/json", connections)?;
                samples[which * 2].push(sample.rate);
                samples[which * 2 + 1].push(sample.p99);
                pair[which] = Some(sample.rate);
            }
            if let [Some(own), Some(other)] = pair {
                ratios.push(own / other);
            }
        }
        let [own, own_p99, other, other_p99] = samples.map(median);
        let ratio = median(ratios);
        slowest = slowest.min(ratio);
        println!(
            "| {connections} at a time | {own:.0} | {own_p99:.2} ms | {other:.0} | {other_p99:.2} ms | **{ratio:.1}** |"
        );
    }
    for engine in [ours, theirs] {
        for number in 0..CONTAINERS {
            engine.remove(&format!("c{number:03}"))?;
        }
    }
    Ok(slowest)
}

/// Tasks that no host may run are tasks like others to a manager.
fn lists(ours: &Engine) -> Result<()> {
    for number in 0..SERVICES {
        let body = json!({
            "Name": format!("s{number:03}"),
            "TaskTemplate": {
                "ContainerSpec": {"Image": TOOLBOX, "Args": ["sleep", "100000"]},
                "Placement": {"Constraints": ["node.labels.nowhere==1"]},
            },
            "Mode": {"Replicated": {"Replicas": TASKS_EACH}},
        });
        ours.ask("POST", "/services/create", &body)?;
    }
    let begun = Instant::now();
    let all = SERVICES * TASKS_EACH;
    loop {
        let tasks = ours.ask("GET", "/tasks", &Value::Null)?;
        let count = tasks.as_array().map_or(0, Vec::len);
        if count == all {
            break;
        }
        ensure!(begun.elapsed() < LIMIT, "{count} of {all} tasks are there");
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("\n| list | at a time | /s | p99 | size |\n|---|---|---|---|---|");
    let services = format!("`GET /services?status=true`, {SERVICES} services");
    let tasks = format!("`GET /tasks`, {all} tasks");
    for (what, path) in [(services, "/services?status=true"), (tasks, "/tasks")] {
        for connections in [1, 8] {
            let samples: Result<Vec<Sample>> = (0..ROUNDS)
                .map(|_| load(&ours.socket, path, connections))
                .collect();
            let samples = samples?;
            println!(
                "| {what} | {connections} | {:.0} | {:.1} ms | {:.1} MB |",
                median(samples.iter().map(|one| one.rate).collect()),
                median(samples.iter().map(|one| one.p99).collect()),
                samples[0].bytes as f64 / 1e6
            );
        }
    }
    for number in 0..SERVICES {
        ours.ask("DELETE", &format!("/services/s{number:03}"), &Value::Null)?;
    }
    Ok(())
}

/// What one listener has heard.
struct Ear {
    stream: UnixStream,
    heard: usize,
    tail: Vec<u8>,
}

impl Ear {
    fn open(socket: &Path) -> Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        let question = "GET /events HTTP/1.1\r\nHost: bench\r\n\r\n";
        stream.write_all(question.as_bytes())?;
        Ok(Self {
            stream,
            heard: 0,
            tail: Vec::new(),
        })
    }

    /// Takes what is there; whether the last event has come.
    fn hear(&mut self, last: &str) -> Result<bool> {
        let mut buffer = [0; 1 << 14];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => anyhow::bail!("a listener was dropped"),
                Ok(count) => {
                    self.heard += count;
                    self.tail.extend(&buffer[..count]);
                    let surplus = self.tail.len().saturating_sub(1 << 12);
                    self.tail.drain(..surplus);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(String::from_utf8_lossy(&self.tail).contains(last))
    }
}

fn events(ours: &Engine) -> Result<()> {
    ours.run("ear", &["sleep", "100000"])?;
    let (before, _) = ours.memory();
    let mut slow = Ear::open(&ours.socket)?;
    let mut ears = Vec::new();
    for _ in 1..LISTENERS {
        let ear = Ear::open(&ours.socket)?;
        ear.stream.set_nonblocking(true)?;
        ears.push(ear);
    }
    // All are heard before there is anything to tell.
    let listening = || -> Result<bool> {
        let said = ours.host.api("GET", "/info", b"")?.json();
        Ok(said["NEventsListener"].as_u64() >= Some(LISTENERS as u64))
    };
    let begun = Instant::now();
    while !listening()? {
        ensure!(begun.elapsed() < LIMIT, "not all listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    let (idle, _) = ours.memory();
    let busy = ours.busy();
    let begun = Instant::now();
    let told = std::thread::scope(|scope| -> Result<f64> {
        let listener = scope.spawn(|| -> Result<Instant> {
            let mut left: Vec<&mut Ear> = ears.iter_mut().collect();
            while !left.is_empty() {
                let mut rest = Vec::new();
                for ear in left {
                    if !ear.hear("\"last-one\"")? {
                        rest.push(ear);
                    }
                }
                left = rest;
                ensure!(
                    begun.elapsed() < LIMIT,
                    "{} wait for the last event",
                    left.len()
                );
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(Instant::now())
        });
        for _ in 0..EVENTS {
            // That its program knows nothing of, and whose event is told.
            ours.ask("POST", "/containers/ear/kill?signal=WINCH", &Value::Null)?;
        }
        let last = Instant::now();
        ours.ask("POST", "/volumes/create", &json!({"Name": "last-one"}))?;
        let heard = listener.join();
        let heard = heard.unwrap_or_else(|_| Err(anyhow::anyhow!("a listener panicked")))?;
        Ok(heard.duration_since(last).as_secs_f64() * 1000.0)
    })?;
    let took = begun.elapsed().as_secs_f64();
    let busy = ours.busy() - busy;
    let (after, _) = ours.memory();
    let count = EVENTS + 1;
    // Told that it has missed some, and let go; or of the newest.
    slow.stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut all = Vec::new();
    let mut buffer = [0; 1 << 14];
    let is_over = |all: &[u8]| {
        all.ends_with(b"\r\n0\r\n\r\n") || String::from_utf8_lossy(all).contains("\"last-one\"")
    };
    while !is_over(&all) {
        let count = slow.stream.read(&mut buffer)?;
        ensure!(count != 0, "the slow listener was cut off");
        all.extend(&buffer[..count]);
    }
    let missed = String::from_utf8_lossy(&all).contains("missed");
    ours.ask("DELETE", "/volumes/last-one", &Value::Null)?;
    ours.remove("ear")?;
    println!(
        "\n| {LISTENERS} listeners, one does not read | events told | the last one heard by all after | CPU of ovnd | ovnd's memory before, listening, after | the slow one |\n|---|---|---|---|---|---|"
    );
    println!(
        "| {count} events in {took:.1} s | {:.0} /s | {told:.0} ms | {busy:.1} s | {before:.0}, {idle:.0}, {after:.0} MB | {} |",
        (count * (LISTENERS - 1)) as f64 / took,
        if missed {
            "told that it missed some, and let go"
        } else {
            "had all in its socket"
        }
    );
    Ok(())
}

fn logs(ours: &Engine, theirs: &Engine) -> Result<()> {
    println!(
        "\n| `logs -f` of a container that writes all the time | followed MB/s | CPU s per GB followed | daemon's memory after |\n|---|---|---|---|"
    );
    for (name, engine) in [("ovnd", ours), ("dockerd", theirs)] {
        let line = "x".repeat(99);
        engine.run("writer", &["yes", &line])?;
        let mut stream = UnixStream::connect(&engine.socket)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let path = "/containers/writer/logs?stdout=1&follow=1&tail=0";
        let question = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n");
        stream.write_all(question.as_bytes())?;
        let (busy, begun) = (engine.busy(), Instant::now());
        let (mut count, mut buffer) = (0, vec![0; 1 << 18]);
        while begun.elapsed() < FOLLOWED {
            let more = stream.read(&mut buffer)?;
            ensure!(more != 0, "{name} has ended the logs");
            count += more;
        }
        let (took, busy) = (begun.elapsed().as_secs_f64(), engine.busy() - busy);
        let (memory, most) = engine.memory();
        drop(stream);
        engine.remove("writer")?;
        let megabytes = count as f64 / 1e6;
        println!(
            "| {name} | {:.0} | {:.1} | {memory:.0} MB, at most {most:.0} MB |",
            megabytes / took,
            busy / (megabytes / 1000.0)
        );
    }
    Ok(())
}
