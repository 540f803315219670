//! In a lab of one manager and three workers: a service created to all tasks running and its
//! virtual IP answering from another host, scaled, and removed to nothing left; and how long
//! connections take to follow a task that has become healthy or is asked to stop.
//!
//! `bench_services [COUNT…]`, default 1 10 50 100.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{
    Host, Lab, Options,
    asker::{Asker, first, watch},
};

const ECHO: &str = "registry:5000/example/echo:latest";
const LIMIT: Duration = Duration::from_secs(180);
const ROUNDS: usize = 3;
const FOLLOWED: usize = 100;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [word, address] = &words[..] {
        match word.as_str() {
            "first" => return first(address.parse()?, LIMIT),
            "watch" => return watch(address.parse()?),
            _ => {}
        }
    }
    let mut counts = Vec::new();
    for word in &words {
        let count = word.parse::<usize>();
        counts.push(count.context("usage: bench_services [COUNT…]")?);
    }
    if counts.is_empty() {
        counts = vec![1, 10, 50, 100];
    }
    let lab = Lab::up(Options::default())?;
    let manager = lab.host("manager01");
    let create = "network create -d overlay --attachable --subnet 10.80.0.0/16 ch03";
    manager.ctl(create.split(' ')).ok();
    for name in ["worker01", "worker02", "worker03"] {
        lab.host(name).ctl(["pull", ECHO]).ok();
    }
    let asker = Asker::start(&manager)?;
    println!(
        "| replicas on three workers | created to all running | to the virtual IP answering | removed to nothing left |\n|---|---|---|---|"
    );
    for count in counts {
        let mut rows = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            let times = life(&lab, &asker, count)?;
            for (row, time) in rows.iter_mut().zip(times) {
                row.push(time);
            }
        }
        let [running, reachable, removed] = rows.map(median);
        println!("| {count} | {running:.2} s | {reachable:.2} s | {removed:.2} s |");
    }
    scaled(&lab)?;
    followed(&lab, &asker)?;
    lab.down()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn create(manager: &Host, count: usize) {
    let words = "service create -d --name echo --network ch03 --constraint node.role==worker";
    let replicas = count.to_string();
    let words = words.split(' ').chain(["--replicas", &replicas, ECHO]);
    manager.ctl(words).ok();
}

fn life(lab: &Lab, asker: &Asker, count: usize) -> Result<[f64; 3]> {
    let manager = lab.host("manager01");
    let begun = Instant::now();
    create(&manager, count);
    let running = until_running(&manager, count, begun)?;
    asker.first(&virtual_ip(&manager)?);
    let reachable = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    manager.ctl(["service", "rm", "echo"]).ok();
    for name in ["worker01", "worker02", "worker03"] {
        let host = lab.host(name);
        loop {
            let left: Vec<Value> = get(&host, "/containers/json?all=1")?;
            if left.is_empty() {
                break;
            }
            ensure!(begun.elapsed() < LIMIT, "{} has {} left", name, left.len());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Ok([running, reachable, begun.elapsed().as_secs_f64()])
}

fn scaled(lab: &Lab) -> Result<()> {
    let manager = lab.host("manager01");
    create(&manager, 1);
    until_running(&manager, 1, Instant::now())?;
    let begun = Instant::now();
    manager.ctl(["service", "scale", "-d", "echo=100"]).ok();
    let up = until_running(&manager, 100, begun)?;
    println!("\n| scaled from 1 to 100 | {up:.2} s |\n|---|---|");
    manager.ctl(["service", "rm", "echo"]).ok();
    Ok(())
}

/// A second task comes and goes, again and again, while connections to the virtual IP are opened
/// from another host.
fn followed(lab: &Lab, asker: &Asker) -> Result<()> {
    let manager = lab.host("manager01");
    let spec = serde_json::json!({
        "Name": "echo",
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": ECHO,
                "Healthcheck": {
                    "Test": ["CMD", "/usr/bin/echo-server", "ask", "tcp://127.0.0.1:8080"],
                    "Interval": 1_000_000_000,
                    "StartPeriod": 30_000_000_000_i64,
                    "StartInterval": 100_000_000,
                },
            },
            "Networks": [{"Target": "ch03"}],
            "Placement": {"Constraints": ["node.role==worker"]},
        },
        "Mode": {"Replicated": {"Replicas": 1}},
    });
    let made = manager.api("POST", "/services/create", spec.to_string().as_bytes())?;
    ensure!(
        made.status == 201,
        "{}",
        String::from_utf8_lossy(&made.body)
    );
    until_running(&manager, 1, Instant::now())?;
    let address = virtual_ip(&manager)?;
    let mut watcher = asker.watch(&address)?;
    watcher.newcomer(LIMIT)?;
    let (mut healthy, mut stopped) = (BTreeMap::new(), Vec::new());
    for _ in 0..FOLLOWED {
        let since = now()? / 1_000_000_000;
        manager.ctl(["service", "scale", "-d", "echo=2"]).ok();
        watcher.newcomer(LIMIT)?;
        stopped.push(now()?);
        manager.ctl(["service", "scale", "-d", "echo=1"]).ok();
        until_running(&manager, 1, Instant::now())?;
        // Hosts remember a few hundred events.
        for name in ["worker01", "worker02", "worker03"] {
            became_healthy(&lab.host(name), since, &mut healthy)?;
        }
    }
    let seen = watcher.end()?;
    let milliseconds = |from: i64, to: i64| (to - from) as f64 / 1e6;
    let came = healthy.iter().filter_map(|(name, healthy)| {
        let (first, _) = seen.get(name)?;
        Some(milliseconds(*healthy, *first))
    });
    // One of both answers no more before the next is asked to stop.
    let gone = stopped.windows(2).filter_map(|stop| {
        let asked = stop[0] - 20_000_000;
        let mut lasts = seen.values().map(|(_, last)| *last);
        let last = lasts.find(|last| (asked..stop[1]).contains(last))?;
        Some(milliseconds(stop[0], last))
    });
    println!("\n| connections follow | median | p99 | of |\n|---|---|---|---|");
    for (what, mut times) in [
        ("a task that has become healthy", came.collect::<Vec<_>>()),
        ("a task that is asked to stop", gone.collect()),
    ] {
        times.sort_by(f64::total_cmp);
        let at = |part: f64| times[((times.len() - 1) as f64 * part).round() as usize];
        ensure!(
            times.len() + 1 >= FOLLOWED,
            "{what}: only {} were seen",
            times.len()
        );
        println!(
            "| {what} | {:.0} ms | {:.0} ms | {} |",
            at(0.5),
            at(0.99),
            times.len()
        );
    }
    manager.ctl(["service", "rm", "echo"]).ok();
    Ok(())
}

/// When containers of the host became healthy, by the beginning of their ids.
fn became_healthy(host: &Host, since: i64, times: &mut BTreeMap<String, i64>) -> Result<()> {
    let until = now()? as f64 / 1e9;
    let filters = "%7B%22event%22%3A%5B%22health_status%3A%20healthy%22%5D%7D";
    let path = format!("/events?since={since}&until={until:.9}&filters={filters}");
    let answer = host.api("GET", &path, b"")?;
    for event in serde_json::Deserializer::from_slice(&answer.body).into_iter::<Value>() {
        let event = event.context("an event")?;
        let id = event["Actor"]["ID"].as_str().and_then(|id| id.get(..12));
        let time = event["timeNano"].as_i64().context("its time")?;
        times
            .entry(id.context("its container")?.to_owned())
            .or_insert(time);
    }
    Ok(())
}

/// Nanoseconds since the Unix epoch.
fn now() -> Result<i64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(i64::try_from(now.as_nanos())?)
}

fn get<T: serde::de::DeserializeOwned>(host: &Host, path: &str) -> Result<T> {
    let answer = host.api("GET", path, b"")?;
    serde_json::from_slice(&answer.body).with_context(|| format!("the answer to {path}"))
}

fn until_running(manager: &Host, count: usize, begun: Instant) -> Result<f64> {
    loop {
        let services: Vec<Value> = get(manager, "/services?status=true")?;
        let running = services
            .first()
            .and_then(|service| service.pointer("/ServiceStatus/RunningTasks")?.as_u64());
        if running == Some(count as u64) {
            return Ok(begun.elapsed().as_secs_f64());
        }
        ensure!(begun.elapsed() < LIMIT, "{running:?} of {count} run");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn virtual_ip(manager: &Host) -> Result<String> {
    let service: Value = get(manager, "/services/echo")?;
    let address = service.pointer("/Endpoint/VirtualIPs/0/Addr");
    let address = address.and_then(Value::as_str).context("a virtual IP")?;
    Ok(address.split('/').next().unwrap_or(address).to_owned())
}
