//! In a lab of one manager and three workers: a service created to all tasks running and its
//! virtual IP answering from another host, scaled, and removed to nothing left.
//!
//! `bench_services [COUNT…]`, default 1 10 50 100.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{
    Host, Lab, Options,
    asker::{Asker, first},
};

const ECHO: &str = "registry:5000/example/echo:latest";
const LIMIT: Duration = Duration::from_secs(180);
const ROUNDS: usize = 3;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [word, address] = &words[..]
        && word == "first"
    {
        return first(address.parse()?, LIMIT);
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
