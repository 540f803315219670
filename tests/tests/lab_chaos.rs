//! ovnd is killed on hosts chosen at random, managers and workers, while a client creates, scales and
//! removes services and keeps a record of what was acknowledged. Nothing acknowledged is lost, and
//! afterwards the cluster is what the record says.
//!
//! `OVN_CHAOS_SECONDS` says for how long, default 40; a failure prints what was chosen.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tests::{Host, Lab, Options, wait};

const ECHO: &str = "registry:5000/example/echo:latest";
const LIMIT: Duration = Duration::from_secs(180);
const MANAGERS: [&str; 3] = ["manager01", "manager02", "manager03"];
const WORKERS: [&str; 2] = ["worker01", "worker02"];
/// Services that there are at most.
const SERVICES: usize = 6;
const REPLICAS: u64 = 4;

/// What is known of a service.
#[derive(Debug, Clone, Default)]
struct Known {
    /// What it may be: replicas, or that it is not there. One, where all was answered.
    may_be: Vec<Option<u64>>,
}

impl Known {
    fn of(state: Option<u64>) -> Self {
        Self {
            may_be: vec![state],
        }
    }

    /// A wish that was answered, or one of which nobody knows whether it was done.
    fn wish(&mut self, state: Option<u64>, answered: bool) {
        if answered {
            self.may_be.clear();
        }
        self.may_be.push(state);
    }
}

/// What became of a wish.
#[derive(Debug, PartialEq)]
enum Answered {
    Done,
    /// It cannot have been done.
    Refused(u16),
    /// No answer, or one that says that it is not known.
    Unknown,
}

#[test]
fn acknowledged_wishes_survive_kills_everywhere() {
    let seconds = std::env::var("OVN_CHAOS_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(40);
    let seed = std::env::var("OVN_CHAOS_SEED").ok();
    let seed = seed
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(rand::random::<u64>);
    eprintln!("OVN_CHAOS_SEED={seed}");
    let lab = Lab::up(Options {
        managers: 3,
        workers: 2,
        ..Options::for_test("chaos")
    })
    .unwrap();
    lab.host("manager01")
        .ctl(["network", "create", "-d", "overlay", "ch03"])
        .ok();
    for name in WORKERS {
        lab.host(name).ctl(["pull", ECHO]).ok();
    }
    let end = Instant::now() + Duration::from_secs(seconds);
    let (record, kills) = std::thread::scope(|scope| {
        let killer = scope.spawn(|| kill(&lab, end, StdRng::seed_from_u64(seed)));
        let record = wish(&lab, end, StdRng::seed_from_u64(seed.wrapping_add(1)));
        (record, killer.join().unwrap())
    });
    let (wishes, unknown, services) = record;
    eprintln!("{kills} kills, {wishes} wishes acknowledged, {unknown} with an unknown end");
    assert!(kills >= 5 && wishes >= 10, "{kills} kills, {wishes} wishes");
    until_as_recorded(&lab, &services);
    lab.down().unwrap();
}

/// One after the other, so that a majority is there now and then; worker and manager alike.
fn kill(lab: &Lab, end: Instant, mut random: StdRng) -> usize {
    let mut kills = 0;
    while Instant::now() < end {
        let all = [&MANAGERS[..], &WORKERS[..]].concat();
        let first = all[random.random_range(0..all.len())];
        // Now and then two at once: for a moment there may be no majority.
        let second =
            (random.random_range(0..4) == 0).then(|| all[random.random_range(0..all.len())]);
        let chosen = [Some(first), second.filter(|name| *name != first)];
        let hosts: Vec<Host> = chosen.iter().flatten().map(|name| lab.host(name)).collect();
        for host in &hosts {
            host.kill().unwrap();
            kills += 1;
        }
        std::thread::sleep(Duration::from_millis(random.random_range(0..2500)));
        for host in &hosts {
            host.start().unwrap();
        }
        std::thread::sleep(Duration::from_millis(random.random_range(200..2500)));
    }
    kills
}

/// Wishes until the end; how many were acknowledged, how many have an unknown end, and the record.
fn wish(lab: &Lab, end: Instant, mut random: StdRng) -> (usize, usize, BTreeMap<String, Known>) {
    let mut services = BTreeMap::<String, Known>::new();
    let (mut done, mut unknown) = (0, 0);
    while Instant::now() < end {
        let name = format!("svc{}", random.random_range(0..SERVICES));
        let replicas = random.random_range(0..=REPLICAS);
        let host = lab.host(MANAGERS[random.random_range(0..MANAGERS.len())]);
        let known = services
            .entry(name.clone())
            .or_insert_with(|| Known::of(None));
        let absent = known.may_be == [None];
        let certain = known.may_be.len() == 1;
        let (wanted, answer) = match random.random_range(0..4) {
            _ if absent => (Some(replicas), create(&host, &name, replicas)),
            0 if certain => (None, remove(&host, &name)),
            _ => (Some(replicas), scale(&host, &name, replicas)),
        };
        match answer {
            Answered::Done => {
                done += 1;
                known.wish(wanted, true);
            }
            Answered::Unknown => {
                unknown += 1;
                known.wish(wanted, false);
            }
            // Somebody who knows for certain has said that it is not there, or is there already.
            Answered::Refused(404) => {
                assert!(known.may_be.contains(&None), "{name} was lost: {known:?}");
                *known = Known::of(None);
            }
            Answered::Refused(409) if absent => panic!("{name} is there and was removed"),
            Answered::Refused(_) => {}
        }
    }
    (done, unknown, services)
}

fn ask(host: &Host, method: &str, path: &str, body: &Value) -> (Answered, Value) {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    match host.api(method, path, body.as_bytes()) {
        Ok(answer) => {
            let said = answer.json();
            // What a manager without a majority knew last is no answer here.
            let stale = answer.header("warning").is_some();
            let answered = match answer.status {
                _ if stale => Answered::Unknown,
                200..300 => Answered::Done,
                400..500 => Answered::Refused(answer.status),
                _ => Answered::Unknown,
            };
            (answered, said)
        }
        Err(_) => (Answered::Unknown, Value::Null),
    }
}

fn spec(name: &str, replicas: u64) -> Value {
    json!({
        "Name": name,
        "Mode": { "Replicated": { "Replicas": replicas } },
        "TaskTemplate": {
            "ContainerSpec": { "Image": ECHO, "StopGracePeriod": 1_000_000_000 },
            "Networks": [{ "Target": "ch03" }],
            "Placement": { "Constraints": ["node.role==worker"] },
        },
    })
}

fn create(host: &Host, name: &str, replicas: u64) -> Answered {
    ask(host, "POST", "/services/create", &spec(name, replicas)).0
}

fn remove(host: &Host, name: &str) -> Answered {
    ask(host, "DELETE", &format!("/services/{name}"), &Value::Null).0
}

fn scale(host: &Host, name: &str, replicas: u64) -> Answered {
    let (answered, service) = ask(host, "GET", &format!("/services/{name}"), &Value::Null);
    // Without the version nothing was wished.
    let version = match (answered, service["Version"]["Index"].as_u64()) {
        (Answered::Done, Some(version)) => version,
        (Answered::Refused(status), _) => return Answered::Refused(status),
        _ => return Answered::Refused(503),
    };
    let path = format!("/services/{name}/update?version={version}");
    ask(host, "POST", &path, &spec(name, replicas)).0
}

/// All managers say the same, it is among what the record allows, and runs.
fn until_as_recorded(lab: &Lab, services: &BTreeMap<String, Known>) {
    for manager in MANAGERS {
        let host = lab.host(manager);
        wait::until(&format!("{manager} shows what was recorded"), LIMIT, || {
            let (answered, listed) = ask(&host, "GET", "/services?status=true", &Value::Null);
            if answered != Answered::Done {
                return Err(format!("{answered:?} {listed}"));
            }
            let listed = listed.as_array().cloned().unwrap_or_default();
            let mut wrong = Vec::new();
            for (name, known) in services {
                let found = listed.iter().find(|s| s["Spec"]["Name"] == **name);
                let replicas = found.map(|s| {
                    s["Spec"]["Mode"]["Replicated"]["Replicas"]
                        .as_u64()
                        .unwrap()
                });
                // What was acknowledged does not come back by waiting.
                assert!(
                    known.may_be.contains(&replicas),
                    "{name} is {replicas:?}, recorded: {known:?}"
                );
                let runs = found.map(|s| s["ServiceStatus"]["RunningTasks"].as_u64().unwrap());
                if runs != replicas {
                    wrong.push(format!("{name}: {runs:?} of {replicas:?} run"));
                }
            }
            if wrong.is_empty() {
                Ok(())
            } else {
                Err(wrong.join(", "))
            }
        });
    }
    wait::until(
        "hosts have the containers of the record, no others",
        LIMIT,
        || {
            let mut running = 0;
            for name in [&MANAGERS[..], &WORKERS[..]].concat() {
                let (_, containers) = ask(&lab.host(name), "GET", "/containers/json", &Value::Null);
                running += containers.as_array().map_or(0, Vec::len) as u64;
            }
            let (_, listed) = ask(&lab.host("manager01"), "GET", "/services", &Value::Null);
            let wanted = listed.as_array().into_iter().flatten();
            let wanted: u64 = wanted
                .map(|s| {
                    s["Spec"]["Mode"]["Replicated"]["Replicas"]
                        .as_u64()
                        .unwrap()
                })
                .sum();
            if running == wanted {
                Ok(())
            } else {
                Err(format!("{running} run, {wanted} wanted"))
            }
        },
    );
}
