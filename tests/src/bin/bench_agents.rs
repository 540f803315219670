//! Three managers in a lab and many simulated hosts in one process: sessions over mutual TLS with
//! heartbeats and acknowledgements as ovnd has them, and nothing behind them. How long until all have a
//! session again after the leader was killed, what a host costs the leader, and how long a service
//! of one task a host takes until the last of them was told.
//!
//! `bench_agents [COUNT…]`, default 500 1000 2000; with more hosts than that the heartbeat is every five
//! seconds, as in Docker's swarm mode, because their own end of it is on the same machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use futures_util::{StreamExt as _, stream};
use manager::{
    ca::{self, Identity},
    client::{Connection, SessionStream},
    tls::{self, LiveIdentity},
    wire::{BeatReply, IssueRequest, LEVEL, Register, SessionMessage},
};
use model::{
    Change, Generation, Id,
    node::{Availability, NodeDescription},
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustls::ClientConfig;
use serde_json::{Value, json};
use tests::{Host, Lab, Options};
use tokio::{sync::watch, task::JoinHandle};

const MANAGERS: [&str; 3] = ["manager01", "manager02", "manager03"];
const LIMIT: Duration = Duration::from_secs(300);
const MANY: usize = 2000;
/// Hosts that join at once.
const JOINING: usize = 16;
/// As in ovnd: pauses between attempts, and how long the way to a manager may take.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
const ELECTION: Duration = Duration::from_millis(500);
const REACH: Duration = Duration::from_secs(3);
const LONGEST_REACH: Duration = Duration::from_secs(12);
/// Heartbeats that may fail in a row.
const FAILURES: u32 = 3;
const SETTLED: Duration = Duration::from_secs(10);
/// How long the leader's idle work is watched.
const IDLE: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    let mut counts = Vec::new();
    for word in std::env::args().skip(1) {
        let count = word.parse::<usize>();
        counts.push(count.context("usage: bench_agents [COUNT…]")?);
    }
    if counts.is_empty() {
        counts = vec![500, 1000, 2000];
    }
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("the limit of open files")?;
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("the provider is there already"))?;
    let lab = Lab::up(Options {
        managers: 3,
        workers: 0,
        ..Options::default()
    })?;
    let client = lab.host("client");
    // All hosts have one address here: the kernel would soon search long for a free port.
    for (name, value) in [("ip_local_port_range", "1024 65535"), ("tcp_tw_reuse", "1")] {
        let set = format!("echo {value} > /proc/sys/net/ipv4/{name}");
        client.exec(["sh", "-c", &set]).ok();
    }
    let measured = client.within(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(measure(&lab, &counts))
    })?;
    measured?;
    lab.down()
}

async fn measure(lab: &Lab, counts: &[usize]) -> Result<()> {
    let managers: Arc<[SocketAddr]> = MANAGERS
        .map(|name| SocketAddr::from((lab.host(name).member().address(), 2377)))
        .into();
    let token = lab
        .host(MANAGERS[0])
        .ctl(["swarm", "join-token", "-q", "worker"])
        .ok();
    if counts.iter().any(|count| *count > MANY) {
        let words = ["swarm", "update", "--dispatcher-heartbeat", "5s"];
        lab.host(MANAGERS[0]).ctl(words).ok();
    }
    let board = Arc::new(Board::default());
    let bare = memory(&lab.host(&leader(lab).await?))?;
    println!(
        "| simulated hosts | join, each | leader: memory, each | leader: idle | leader killed to all in session | one task a host, to the last told |\n|---|---|---|---|---|---|"
    );
    let mut agents: Vec<Agent> = Vec::new();
    for count in counts {
        let begun = Instant::now();
        let new = count.saturating_sub(agents.len());
        let first = agents.len();
        let joined = stream::iter(first..*count)
            .map(|number| join(managers[0], token.trim(), number))
            .buffer_unordered(JOINING);
        let newcomers: Vec<_> = joined.collect().await;
        for newcomer in newcomers {
            let (number, tls) = newcomer?;
            agents.push(Agent::start(
                number,
                tls,
                Arc::clone(&managers),
                Arc::clone(&board),
            ));
        }
        let joining = begun.elapsed();
        board.until_in_session(*count).await?;
        let now = leader(lab).await?;
        let host = lab.host(&now);
        let pid = host.daemon_pid()?;
        let each = memory(&host)?.saturating_sub(bare) / *count as u64;
        // What their joining leaves to do is done by then.
        tokio::time::sleep(SETTLED).await;
        let before = processor_time(pid)?;
        tokio::time::sleep(IDLE).await;
        let idle = processor_time(pid)?.saturating_sub(before).as_secs_f64() / IDLE.as_secs_f64();
        let lost = Instant::now();
        host.kill()?;
        board.forget();
        board.until_in_session(*count).await?;
        let storm = lost.elapsed();
        host.start()?;
        let told = service(lab, &board, *count).await?;
        println!(
            "| {count} | {:.1} ms | {} KiB | {:.1} % of a core | {:.2} s | {:.2} s |",
            joining.as_secs_f64() * 1000.0 / new.max(1) as f64,
            each / 1024,
            idle * 100.0,
            storm.as_secs_f64(),
            told.as_secs_f64()
        );
    }
    Ok(())
}

/// From the command to the last host that was told of its task.
async fn service(lab: &Lab, board: &Board, count: usize) -> Result<Duration> {
    until_ready(lab, count).await?;
    board.lock().tasks.clear();
    let spec = json!({
        "Name": format!("many{count}"),
        "Mode": { "Global": {} },
        "TaskTemplate": {
            "ContainerSpec": { "Image": "registry:5000/example/echo:latest" },
            "Placement": { "Constraints": ["node.role==worker"] },
        },
    });
    let host = lab.host(&leader(lab).await?);
    let begun = Instant::now();
    let answer = host.api("POST", "/services/create", spec.to_string().as_bytes())?;
    ensure!(answer.status == 201, "{}", answer.text());
    board
        .until(|seen| seen.tasks.len() >= count)
        .await
        .context("not all hosts were told")?;
    Ok(begun.elapsed())
}

async fn until_ready(lab: &Lab, count: usize) -> Result<()> {
    let begun = Instant::now();
    loop {
        let nodes = nodes(lab);
        let ready = nodes
            .iter()
            .filter(|node| node["Spec"]["Role"] == "worker" && node["Status"]["State"] == "ready");
        let ready = ready.count();
        if ready == count {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < LIMIT,
            "{ready} of {count} hosts are ready"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn nodes(lab: &Lab) -> Vec<Value> {
    let asked = MANAGERS
        .iter()
        .map(|name| lab.host(name).api("GET", "/nodes", &[]));
    let answer = asked.flatten().find(|answer| answer.status == 200);
    let nodes = answer.map(|answer| answer.json());
    nodes
        .and_then(|nodes| nodes.as_array().cloned())
        .unwrap_or_default()
}

async fn leader(lab: &Lab) -> Result<String> {
    let begun = Instant::now();
    loop {
        let nodes = nodes(lab);
        let leads = nodes
            .iter()
            .find(|node| node["ManagerStatus"]["Leader"] == true);
        if let Some(name) = leads.and_then(|node| node["Description"]["Hostname"].as_str()) {
            return Ok(name.to_owned());
        }
        ensure!(begun.elapsed() < LIMIT, "nobody leads");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Bytes that are ovnd's own.
fn memory(host: &Host) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", host.daemon_pid()?))?;
    let line = text.lines().find(|line| line.starts_with("Pss:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    Ok(kilobytes.context("no Pss")? * 1024)
}

fn processor_time(pid: i32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = text
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    // utime and stime of proc(5), in ticks of 10 ms.
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    let ticks = ticks(11).zip(ticks(12)).context("not a stat line")?;
    Ok(Duration::from_millis((ticks.0 + ticks.1) * 10))
}

/// What all simulated hosts have seen.
#[derive(Default)]
struct Board {
    seen: Mutex<Seen>,
    news: watch::Sender<()>,
}

#[derive(Default)]
struct Seen {
    in_session: BTreeSet<usize>,
    /// Hosts that were told of a task.
    tasks: BTreeSet<usize>,
}

impl Board {
    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.lock());
        self.news.send_replace(());
    }

    fn forget(&self) {
        self.note(|seen| seen.in_session.clear());
    }

    async fn until_in_session(&self, count: usize) -> Result<()> {
        let seen = self.until(|seen| seen.in_session.len() >= count).await;
        seen.with_context(|| {
            format!(
                "{} of {count} hosts have a session",
                self.lock().in_session.len()
            )
        })
    }

    async fn until(&self, there: impl Fn(&Seen) -> bool) -> Result<()> {
        let mut news = self.news.subscribe();
        let wait = async {
            while !there(&self.lock()) {
                if news.changed().await.is_err() {
                    return;
                }
            }
        };
        Ok(tokio::time::timeout(LIMIT, wait).await?)
    }
}

fn address(number: usize) -> IpAddr {
    let low = u32::try_from(number).unwrap_or(u32::MAX) + 1;
    Ipv4Addr::from(u32::from(Ipv4Addr::new(100, 64, 0, 0)) + low).into()
}

fn description(number: usize) -> NodeDescription {
    NodeDescription {
        hostname: format!("host{number:05}"),
        architecture: "x86_64".to_owned(),
        os: "linux".to_owned(),
        nano_cpus: 4_000_000_000,
        memory_bytes: 8 << 30,
        advertise: Some(address(number)),
        data_path: Some(address(number)),
        ..NodeDescription::default()
    }
}

async fn join(
    manager: SocketAddr,
    token: &str,
    number: usize,
) -> Result<(usize, Arc<ClientConfig>)> {
    let stranger = Connection::open(manager, tls::stranger()?).await?;
    let root = stranger.root().await??;
    let newcomer = Connection::open(manager, tls::newcomer(&root.root_pem)?).await?;
    let (key, csr_pem) = ca::certificate_request()?;
    let request = IssueRequest {
        csr_pem,
        token: Some(token.to_owned()),
        description: description(number),
        availability: Availability::Active,
    };
    let reply = newcomer.issue(&request).await??;
    let identity = Identity::new(key, reply.chain_pem, &reply.root_pem)?;
    // Made once, as a host makes it that has nothing else to do.
    Ok((number, tls::member(&*LiveIdentity::new(identity)?)?))
}

/// A simulated host; it ends with this.
struct Agent(JoinHandle<()>);

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Agent {
    fn start(
        number: usize,
        tls: Arc<ClientConfig>,
        managers: Arc<[SocketAddr]>,
        board: Arc<Board>,
    ) -> Self {
        Self(tokio::spawn(async move {
            let mut leader = None;
            let mut generation = Generation::default();
            // Pauses and limits are ovnd's.
            let mut pause = FIRST_PAUSE;
            let mut reach = REACH;
            let mut lines = BTreeMap::new();
            for attempt in 0_usize.. {
                let next = managers[(number + attempt) % managers.len()];
                let named: Option<SocketAddr> = leader.take();
                let address = named.unwrap_or(next);
                let opened = open(number, &tls, address, generation, reach, &mut lines).await;
                let late = opened.is_err();
                reach = if late {
                    (reach * 2).min(LONGEST_REACH)
                } else {
                    REACH
                };
                match opened {
                    Ok(Opened::Session(session)) => {
                        pause = FIRST_PAUSE;
                        lines.clear();
                        let kept = keep(number, *session, &tls, &board, &mut generation);
                        // Whatever ended it, the next one is asked for.
                        let _ = kept.await;
                        board.lock().in_session.remove(&number);
                    }
                    Ok(Opened::Elsewhere(Some(other))) if other != address => {
                        leader = Some(other);
                        continue;
                    }
                    Ok(Opened::Elsewhere(_)) => pause = pause.min(ELECTION),
                    Err(_) if named.is_some() => pause = pause.min(ELECTION),
                    Err(_) => {}
                }
                tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }))
    }
}

struct Session {
    address: SocketAddr,
    connection: Connection,
    stream: SessionStream,
    id: Id,
    period: Duration,
}

enum Opened {
    Session(Box<Session>),
    Elsewhere(Option<SocketAddr>),
}

async fn open(
    number: usize,
    tls: &Arc<ClientConfig>,
    address: SocketAddr,
    generation: Generation,
    reach: Duration,
    lines: &mut BTreeMap<SocketAddr, Connection>,
) -> Result<Opened> {
    let connection = match lines.remove(&address) {
        Some(line) => line,
        None => Connection::open_within(address, Arc::clone(tls), reach).await?,
    };
    let register = Register {
        description: description(number),
        generation,
        level: LEVEL,
    };
    let mut stream = connection.session(&register).await?;
    Ok(match stream.next().await? {
        SessionMessage::Welcome(welcome) => Opened::Session(Box::new(Session {
            address,
            connection,
            stream,
            id: welcome.session,
            period: welcome.heartbeat_period,
        })),
        SessionMessage::Elsewhere(elsewhere) => {
            lines.insert(address, connection);
            Opened::Elsewhere(elsewhere.leader)
        }
        _ => bail!("no welcome"),
    })
}

async fn keep(
    number: usize,
    session: Session,
    tls: &Arc<ClientConfig>,
    board: &Board,
    generation: &mut Generation,
) -> Result<()> {
    let Session {
        address,
        connection,
        mut stream,
        id,
        period,
    } = session;
    let beats = beat(address, &connection, Arc::clone(tls), id.clone(), period);
    tokio::pin!(beats);
    loop {
        let message = tokio::select! {
            message = stream.next() => message?,
            ended = &mut beats => return ended,
        };
        match message {
            SessionMessage::Full(full) => {
                *generation = full.generation;
                let has_task = !full.tasks.is_empty();
                board.note(|seen| {
                    seen.in_session.insert(number);
                    if has_task {
                        seen.tasks.insert(number);
                    }
                });
            }
            SessionMessage::Increment(increment) => {
                *generation = increment.generation;
                if increment
                    .changes
                    .iter()
                    .any(|change| matches!(change, Change::SetTask(_)))
                {
                    board.note(|seen| {
                        seen.tasks.insert(number);
                    });
                }
            }
            SessionMessage::Elsewhere(_) | SessionMessage::Removed => return Ok(()),
            _ => continue,
        }
        connection.acknowledge(&id, *generation).await??;
    }
}

/// On a connection of its own as soon as there is one, and with as many failures in a row as ovnd
/// allows.
async fn beat(
    address: SocketAddr,
    beside: &Connection,
    tls: Arc<ClientConfig>,
    session: Id,
    period: Duration,
) -> Result<()> {
    let mut failures = 0;
    let mut connection = None;
    let mut due = tokio::time::Instant::now() + period;
    loop {
        tokio::time::sleep_until(due).await;
        due = tokio::time::Instant::now() + period;
        match once(address, beside, &tls, &session, &mut connection).await {
            Ok(BeatReply::UnknownSession) => return Ok(()),
            Ok(BeatReply::Fine) => failures = 0,
            Err(error) => {
                connection = None;
                failures += 1;
                if failures == FAILURES {
                    return Err(error);
                }
            }
        }
    }
}

async fn once(
    address: SocketAddr,
    beside: &Connection,
    tls: &Arc<ClientConfig>,
    session: &Id,
    connection: &mut Option<Connection>,
) -> Result<BeatReply> {
    if let Some(connection) = connection {
        return Ok(connection.beat(session).await??);
    }
    let opening = Connection::open_busy(address, Arc::clone(tls));
    let (said, opened) = tokio::join!(beside.beat(session), opening);
    *connection = opened.ok();
    Ok(said??)
}
