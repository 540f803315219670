//! In a lab: the time from `stack deploy` of 50 services with 4 replicas each to all of them
//! running, of a second deploy without changes, and of the stack's removal.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tests::{Host, Lab, Options};

const ECHO: &str = "registry:5000/example/echo:latest";
const SERVICES: usize = 50;
const REPLICAS: usize = 4;
const SECOND_DEPLOYS: usize = 5;
/// A lab on a loaded machine is slow, not broken.
const LIMIT: Duration = Duration::from_secs(600);

fn main() -> Result<()> {
    let lab = Lab::up(Options::default())?;
    let manager = lab.host("manager01");
    let file = lab.dir().join("many.yml");
    std::fs::write(&file, compose()).context("cannot write the compose file")?;
    let file = file.display().to_string();
    let deploy = ["stack", "deploy", "-c", &file, "many"];
    // The images are pulled once; that is measured elsewhere.
    for host in lab.nodes() {
        host.ctl(["pull", ECHO]).ok();
    }

    println!("| {SERVICES} services with {REPLICAS} replicas on 4 hosts | time |\n|---|---|");
    let start = Instant::now();
    manager.ctl(deploy).ok();
    row("`stack deploy` returns", start);
    let tasks = running(&manager, start)?;
    row("all tasks run", start);

    let mut times = Vec::new();
    for _ in 0..SECOND_DEPLOYS {
        let start = Instant::now();
        let printed = manager.ctl(deploy).ok();
        times.push(start.elapsed());
        let kept = printed.matches("nothing changed").count();
        ensure!(kept == SERVICES, "only {kept} services stayed: {printed}");
    }
    times.sort();
    println!(
        "| second `stack deploy` (median of {SECOND_DEPLOYS}) | {:.3} s |",
        times[times.len() / 2].as_secs_f64()
    );
    ensure!(
        running(&manager, Instant::now())? == tasks,
        "tasks were restarted"
    );

    let start = Instant::now();
    manager.ctl(["stack", "rm", "--detach=false", "many"]).ok();
    row("`stack rm` until all tasks have stopped", start);
    lab.down()
}

fn compose() -> String {
    let mut text = "services:\n".to_owned();
    for number in 1..=SERVICES {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  s{number}:\n    image: {ECHO}\n    deploy: {{replicas: {REPLICAS}}}"
        );
    }
    text
}

fn row(what: &str, start: Instant) {
    println!("| {what} | {:.3} s |", start.elapsed().as_secs_f64());
}

/// Waits until every task runs; gives their ids.
fn running(manager: &Host, start: Instant) -> Result<BTreeSet<String>> {
    let filters = "%7B%22desired-state%22%3A%5B%22running%22%5D%7D";
    loop {
        let answer = manager.api("GET", &format!("/tasks?filters={filters}"), b"")?;
        let tasks = answer.json();
        let ids: BTreeSet<String> = tasks
            .as_array()
            .into_iter()
            .flatten()
            .filter(|task| task["Status"]["State"] == "running")
            .filter_map(|task| task["ID"].as_str().map(str::to_owned))
            .collect();
        if ids.len() == SERVICES * REPLICAS {
            return Ok(ids);
        }
        ensure!(start.elapsed() < LIMIT, "only {} tasks run", ids.len());
        std::thread::sleep(Duration::from_millis(20));
    }
}
