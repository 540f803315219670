//! Three managers in a lab: how long until a write is accepted again after the leader was killed,
//! and after it was cut off; and durable writes a second, beside etcd's in the same run.
//!
//! `bench_managers [ROUNDS]`, default 50.

use std::{
    fs,
    net::TcpStream,
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tests::{Host, Lab, Options, http::Kept, lab::Member};

const MANAGERS: [&str; 3] = ["manager01", "manager02", "manager03"];
const LIMIT: Duration = Duration::from_secs(60);
/// Bytes of what is written.
const PAYLOAD: usize = 256;
const WRITE_FOR: Duration = Duration::from_secs(5);
/// Clients at once.
const CLIENTS: [usize; 3] = [1, 16, 64];
const REPEATS: usize = 3;

fn main() -> Result<()> {
    let rounds = std::env::args().nth(1);
    let rounds = rounds.map_or(Ok(50), |word| word.parse());
    let rounds = rounds.context("usage: bench_managers [ROUNDS]")?;
    let lab = Lab::up(Options {
        managers: 3,
        workers: 0,
        ..Options::default()
    })?;
    println!(
        "| until a write is accepted again, {rounds} times | median | p99 | longest |\n|---|---|---|---|"
    );
    losses(&lab, rounds, "leader killed", |lab, leader| {
        lab.host(leader).kill()?;
        Ok(())
    })?;
    losses(&lab, rounds, "leader cut off", |lab, leader| {
        for other in MANAGERS.iter().filter(|name| **name != leader) {
            lab.partition(leader, other)?;
        }
        Ok(())
    })?;
    println!();
    writes(&lab)?;
    lab.down()
}

fn losses(
    lab: &Lab,
    rounds: usize,
    what: &str,
    lose: impl Fn(&Lab, &str) -> Result<()>,
) -> Result<()> {
    let mut times = Vec::new();
    for round in 0..rounds {
        let leader = until_whole(lab)?;
        let other = MANAGERS.iter().find(|name| **name != leader);
        let other = lab.host(other.context("three managers")?);
        let begun = Instant::now();
        lose(lab, &leader)?;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let name = format!("{}-{round}-{attempt}", what.replace(' ', "-"));
            match other.api("POST", "/configs/create", config(&name).as_bytes()) {
                Ok(answer) if answer.status == 201 => break,
                refused => ensure!(begun.elapsed() < LIMIT, "no write is accepted: {refused:?}"),
            }
        }
        times.push(begun.elapsed().as_secs_f64());
        lab.heal()?;
        lab.host(&leader).start()?;
    }
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times[((times.len() - 1) as f64 * part).round() as usize];
    println!(
        "| {what} | {:.2} s | {:.2} s | {:.2} s |",
        at(0.5),
        at(0.99),
        at(1.0)
    );
    Ok(())
}

/// The leader, once all three follow it: who asked each of them was answered by it. One that has just
/// been started counts as reachable before.
fn until_whole(lab: &Lab) -> Result<String> {
    let begun = Instant::now();
    loop {
        let leaders: Vec<Option<String>> = MANAGERS.map(|name| leader_by(&lab.host(name))).into();
        if let Some(leader) = &leaders[0]
            && leaders.iter().all(|other| other.as_ref() == Some(leader))
        {
            return Ok(leader.clone());
        }
        ensure!(
            begun.elapsed() < LIMIT,
            "not all managers are there: {leaders:?}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The leader as this manager shows it, if all are reachable and it is not what it knew last.
fn leader_by(host: &Host) -> Option<String> {
    let answer = host.api("GET", "/nodes", &[]).ok()?;
    if answer.status != 200 || answer.header("warning").is_some() {
        return None;
    }
    let nodes = answer.json();
    let nodes = nodes.as_array().filter(|nodes| nodes.len() == 3)?;
    let whole = nodes
        .iter()
        .all(|node| node["ManagerStatus"]["Reachability"] == "reachable");
    let leader = nodes
        .iter()
        .find(|node| node["ManagerStatus"]["Leader"] == true)?;
    let name = leader["Description"]["Hostname"].as_str()?;
    whole.then(|| name.to_owned())
}

fn config(name: &str) -> String {
    let data = STANDARD.encode([b'x'; PAYLOAD]);
    json!({ "Name": name, "Data": data }).to_string()
}

/// Turn by turn, so that both meet the same machine.
fn writes(lab: &Lab) -> Result<()> {
    let etcd = Etcd::start(lab)?;
    let leader = lab.host(&until_whole(lab)?);
    println!(
        "| durable writes of {PAYLOAD} bytes | Overnet | etcd | Overnet / etcd | Overnet, one write | etcd, one write |\n|---|---|---|---|---|---|"
    );
    let number = AtomicU64::new(0);
    for clients in CLIENTS {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..REPEATS {
            ours.push(rate(
                clients,
                || {
                    let mut kept = Kept::new(UnixStream::connect(leader.socket())?);
                    Ok(move |number: u64| -> Result<bool> {
                        let body = config(&format!("c{number:09}"));
                        let answer = kept.request("POST", "/configs/create", body.as_bytes())?;
                        Ok(answer.status == 201)
                    })
                },
                &number,
            )?);
            theirs.push(etcd.rate(clients, &number)?);
        }
        let [ours, theirs] = [ours, theirs].map(|mut rates| {
            rates.sort_by(f64::total_cmp);
            rates[rates.len() / 2]
        });
        let each = |rate: f64| clients as f64 / rate * 1000.0;
        println!(
            "| {clients} at once | {ours:.0}/s | {theirs:.0}/s | {:.2} | {:.1} ms | {:.1} ms |",
            ours / theirs,
            each(ours),
            each(theirs)
        );
    }
    Ok(())
}

/// Writes a second by so many clients, each with a connection of its own.
fn rate<W: FnMut(u64) -> Result<bool>>(
    clients: usize,
    connect: impl Fn() -> Result<W> + Sync,
    number: &AtomicU64,
) -> Result<f64> {
    let begun = Instant::now();
    let written: Result<Vec<u64>> = std::thread::scope(|scope| {
        let client = || -> Result<u64> {
            let mut write = connect()?;
            let mut written = 0;
            while begun.elapsed() < WRITE_FOR {
                let next = number.fetch_add(1, Ordering::Relaxed);
                ensure!(write(next)?, "a write was refused");
                written += 1;
            }
            Ok(written)
        };
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        let joined = clients.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined
            .map(|done| done.map_err(|_| anyhow::anyhow!("a client panicked"))?)
            .collect()
    });
    Ok(written?.iter().sum::<u64>() as f64 / begun.elapsed().as_secs_f64())
}

/// Three etcds on the managers' hosts; they end with this.
struct Etcd {
    leader: Host,
    children: Vec<Child>,
}

impl Etcd {
    fn start(lab: &Lab) -> Result<Self> {
        let hosts = MANAGERS.map(|name| lab.host(name));
        let peers = hosts
            .each_ref()
            .map(|host| format!("{}=http://{}:12380", host.name(), address(host.member())));
        let mut children = Vec::new();
        for host in &hosts {
            let folder = host.dir().join("etcd");
            fs::create_dir_all(&folder)?;
            let own = address(host.member());
            let mut command = Command::new("etcd");
            command
                .args(["--name", host.name()])
                .arg("--data-dir")
                .arg(&folder)
                .args(["--listen-peer-urls", &format!("http://{own}:12380")])
                .args([
                    "--initial-advertise-peer-urls",
                    &format!("http://{own}:12380"),
                ])
                .args(["--listen-client-urls", &format!("http://{own}:12379")])
                .args(["--advertise-client-urls", &format!("http://{own}:12379")])
                .args(["--initial-cluster", &peers.join(",")])
                .args(["--initial-cluster-state", "new", "--log-level", "error"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            children.push(host.spawn(command).context("etcd (Debian: etcd-server)")?);
        }
        let mut etcd = Self {
            leader: hosts[0].clone(),
            children,
        };
        let begun = Instant::now();
        loop {
            let leads = hosts.iter().find(|host| {
                let status = etcd_ask(host, "/v3/maintenance/status", "{}").unwrap_or_default();
                let id = &status["header"]["member_id"];
                !id.is_null() && *id == status["leader"]
            });
            if let Some(host) = leads {
                etcd.leader = host.clone();
                return Ok(etcd);
            }
            ensure!(begun.elapsed() < LIMIT, "etcd has no leader");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn rate(&self, clients: usize, number: &AtomicU64) -> Result<f64> {
        let own = address(self.leader.member());
        let connect = || {
            let stream = self
                .leader
                .within(|| TcpStream::connect((own.as_str(), 12379)))??;
            stream.set_nodelay(true)?;
            let mut kept = Kept::new(stream);
            Ok(move |number: u64| -> Result<bool> {
                let key = STANDARD.encode(format!("c{number:09}"));
                let value = STANDARD.encode([b'x'; PAYLOAD]);
                let body = json!({ "key": key, "value": value }).to_string();
                let answer = kept.request("POST", "/v3/kv/put", body.as_bytes())?;
                Ok(answer.status == 200)
            })
        };
        rate(clients, connect, number)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for child in &mut self.children {
            // One that has ended by itself is as good.
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}

fn address(member: &Member) -> String {
    member.address().to_string()
}

/// One question to the etcd of that host.
fn etcd_ask(host: &Host, path: &str, body: &str) -> Result<Value> {
    let own = address(host.member());
    let stream = host.within(|| TcpStream::connect((own.as_str(), 12379)))??;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let answer = Kept::new(stream).request("POST", path, body.as_bytes())?;
    Ok(answer.json())
}
