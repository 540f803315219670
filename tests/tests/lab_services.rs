//! Services from their creation to their removal, as a user types it with the stock docker
//! command line, in a cluster of four hosts.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tests::{Host, Lab, Options, wait};

const ECHO: &str = "registry:5000/example/echo:latest";
const TOOLBOX: &str = "registry:5000/example/toolbox";
const LIMIT: Duration = Duration::from_secs(30);
const WORKERS: [&str; 3] = ["worker01", "worker02", "worker03"];

#[test]
fn a_service_is_made_scaled_repaired_and_removed() {
    let lab = Lab::up(Options::for_test("services")).unwrap();
    let manager = lab.host("manager01");
    let network = ["network", "create", "-d", "overlay", "--attachable", "ch03"];
    manager.docker(network).ok();
    one_replica_is_reachable_by_name(&lab);
    six_replicas_share_the_connections(&lab);
    logs_come_from_all_hosts(&lab);
    a_killed_task_is_replaced(&lab);
    a_drained_host_has_no_tasks(&lab);
    nothing_is_left(&lab);
    lab.down().unwrap();
}

/// The running tasks of the service: name and host of each.
fn running(manager: &Host) -> BTreeSet<String> {
    let format = "{{.Name}} {{.Node}} {{.CurrentState}}";
    let listed = manager.docker([
        "service",
        "ps",
        "--filter",
        "desired-state=running",
        "--format",
        format,
        "echo",
    ]);
    let lines = listed.ok();
    let running = lines.lines().filter(|line| line.contains(" Running "));
    running
        .map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "))
        .collect()
}

fn until_running(manager: &Host, what: &str, count: usize) {
    wait::until(what, LIMIT, || {
        let there = running(manager);
        if there.len() == count {
            Ok(())
        } else {
            Err(there)
        }
    });
}

fn toolbox(host: &Host, script: &str) -> String {
    let args = [
        "run",
        "--rm",
        "--network",
        "ch03",
        TOOLBOX,
        "sh",
        "-c",
        script,
    ];
    host.docker(args).ok()
}

fn one_replica_is_reachable_by_name(lab: &Lab) {
    let manager = lab.host("manager01");
    let created = manager.docker([
        "service",
        "create",
        "-d",
        "--replicas",
        "1",
        "--network",
        "ch03",
        "--name",
        "echo",
        "--stop-grace-period",
        "2s",
        ECHO,
    ]);
    assert_eq!(created.ok().len(), 25);
    until_running(&manager, "one replica runs", 1);
    for host in WORKERS {
        let answer = toolbox(&lab.host(host), "wget -qO- http://echo:8080");
        assert_eq!(answer, "Hello Docker!!", "from {host}");
    }
}

/// The hosts' names that answer a number of connections.
fn who_answers(host: &Host, connections: u32) -> BTreeSet<String> {
    let script =
        format!("for n in $(seq {connections}); do wget -qO- http://echo:8080/whoami; echo; done");
    let answers = toolbox(host, &script);
    let lines = answers.lines().filter(|line| !line.is_empty());
    lines
        .filter_map(|line| line.rsplit(' ').next())
        .map(str::to_owned)
        .collect()
}

fn six_replicas_share_the_connections(lab: &Lab) {
    let manager = lab.host("manager01");
    let begun = Instant::now();
    manager.docker(["service", "scale", "-d", "echo=6"]).ok();
    until_running(&manager, "six replicas run", 6);
    eprintln!("scaled to six in {:?}", begun.elapsed());
    let answered = who_answers(&lab.host("worker02"), 80);
    assert_eq!(answered.len(), 6, "{answered:?}");
}

fn logs_come_from_all_hosts(lab: &Lab) {
    let manager = lab.host("manager01");
    let logs = manager.docker(["service", "logs", "echo"]).ok();
    let who: BTreeSet<&str> = logs
        .lines()
        .filter(|line| line.contains("start server"))
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(who.len(), 6, "{logs}");
}

fn a_killed_task_is_replaced(lab: &Lab) {
    let manager = lab.host("manager01");
    let before = running(&manager);
    let (host, id) = WORKERS
        .iter()
        .find_map(|name| {
            let host = lab.host(name);
            let ids = host.docker(["ps", "-q", "--filter", "name=echo."]).ok();
            Some((host, ids.lines().next()?.to_owned()))
        })
        .unwrap();
    host.docker(["kill", &id]).ok();
    wait::until("another task runs in its place", LIMIT, || {
        let history = manager.docker(["service", "ps", "--format", "{{.CurrentState}}", "echo"]);
        let failed = history.ok().lines().any(|line| line.starts_with("Failed "));
        let now = running(&manager);
        if failed && now.len() == before.len() {
            Ok(())
        } else {
            Err(now)
        }
    });
}

fn a_drained_host_has_no_tasks(lab: &Lab) {
    let manager = lab.host("manager01");
    let drain = ["node", "update", "--availability", "drain", "worker01"];
    manager.docker(drain).ok();
    wait::until("its tasks run elsewhere", LIMIT, || {
        let now = running(&manager);
        let there = now.iter().any(|line| line.ends_with(" worker01"));
        if now.len() == 6 && !there {
            Ok(())
        } else {
            Err(now)
        }
    });
    let answered = who_answers(&lab.host("worker01"), 80);
    assert_eq!(answered.len(), 6, "{answered:?}");
}

fn nothing_is_left(lab: &Lab) {
    let manager = lab.host("manager01");
    let begun = Instant::now();
    manager.docker(["service", "rm", "echo"]).ok();
    for name in WORKERS {
        let host = lab.host(name);
        wait::until("no container is left", LIMIT, || {
            let left = host.docker(["ps", "-aq", "--filter", "name=echo."]).ok();
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
    }
    eprintln!("removed in {:?}", begun.elapsed());
    let gone = toolbox(&lab.host("worker02"), "dig +short echo");
    assert_eq!(gone, "");
    wait::until("the network is free", LIMIT, || {
        let removed = manager.docker(["network", "rm", "ch03"]);
        if removed.status == 0 {
            Ok(())
        } else {
            Err(format!("{removed:?}"))
        }
    });
}
