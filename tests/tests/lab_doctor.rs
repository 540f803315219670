//! The doctor, metrics and health of a cluster, well and not.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{net::TcpListener, time::Duration};

use serde_json::Value;
use tests::{Host, Lab, Options, wait};

const LIMIT: Duration = Duration::from_secs(30);

/// The findings of one check.
fn findings(host: &Host, check: &str) -> Vec<Value> {
    let output = host.ctl(["doctor", "--format", "json"]);
    let all: Vec<Value> = serde_json::from_str(&output.stdout).unwrap();
    assert!(all.len() > 10, "{all:#?}");
    all.into_iter().filter(|f| f["Check"] == check).collect()
}

fn level(host: &Host, check: &str) -> String {
    let found = findings(host, check);
    assert_eq!(found.len(), 1, "{check}: {found:#?}");
    found[0]["Level"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_wrong_is_found_and_what_is_well_is_not() {
    let lab = Lab::up(Options::for_test("doctor")).unwrap();
    let (manager, worker) = (lab.host("manager01"), lab.host("worker01"));
    for check in [
        "kernel",
        "file systems",
        "membership",
        "certificate",
        "ports",
        "firewall",
        "registry registry:5000",
    ] {
        assert_eq!(level(&manager, check), "ok", "{check}");
    }
    wait::until("all nodes are well", LIMIT, || {
        let bad: Vec<_> = ["manager01", "worker01", "worker02", "worker03"]
            .iter()
            .filter(|name| level(&manager, &format!("node {name}")) != "ok")
            .collect();
        bad.is_empty().then_some(()).ok_or(bad)
    });
    assert_eq!(level(&worker, "membership"), "ok");

    // Somebody else's firewall.
    worker.exec(["nft", "add table inet other"]).ok();
    worker
        .exec([
            "nft",
            "add chain inet other forward { type filter hook forward priority 0; policy drop; }",
        ])
        .ok();
    let found = findings(&worker, "firewall");
    assert_eq!(found[0]["Level"], "warning", "{found:#?}");
    assert!(
        found[0]["Mend"]
            .as_str()
            .unwrap()
            .starts_with("nft insert rule inet other forward "),
        "{found:#?}"
    );
    // The command that it names is one that works.
    for command in found[0]["Mend"].as_str().unwrap().split("; ") {
        worker.exec(["sh", "-c", command]).ok();
    }
    worker.exec(["nft", "delete table inet other"]).ok();
    assert_eq!(level(&worker, "firewall"), "ok");

    // A daemon that is gone: seen on its host, and by the manager.
    worker.kill().unwrap();
    wait::until(
        "the manager sees that worker01 is gone",
        LIMIT,
        || match level(&manager, "node worker01").as_str() {
            "error" => Ok(()),
            other => Err(other.to_owned()),
        },
    );
    let said = manager.ctl(["doctor", "--quiet"]);
    assert_eq!(said.status, 1, "{said:?}");
    assert!(
        said.stdout.contains("node worker01: down"),
        "{}",
        said.stdout
    );
    worker.start().unwrap();

    let metrics = manager.api("GET", "/metrics", b"").unwrap().text();
    assert!(metrics.contains("\novernet_session_up 1\n"), "{metrics}");
    wait::until("the metrics count four nodes", LIMIT, || {
        let metrics = manager.api("GET", "/metrics", b"").unwrap().text();
        metrics
            .contains("overnet_nodes{state=\"ready\"} 4\n")
            .then_some(())
            .ok_or(metrics)
    });
    let health = manager.api("GET", "/health", b"").unwrap();
    assert_eq!(
        (health.status, health.text().trim()),
        (200, r#"{"Status":"ok","Problems":[]}"#)
    );
    published_ports(&manager, &worker);
    lab.down().unwrap();
}

/// A port that a host lost while its daemon was away, and what stands in its packets' way.
fn published_ports(manager: &Host, worker: &Host) {
    assert_eq!(level(manager, "published ports"), "ok");
    let create = "service create -d --name echo --replicas 2 --publish 8000:8080 \
                  --constraint node.role==worker registry:5000/example/echo:latest";
    manager.ctl(create.split_whitespace()).ok();
    let page = || manager.ctl(["service", "inspect", "--pretty", "echo"]).ok();
    let leads =
        "\n 8000/tcp to 8080\n  manager01, worker01, worker02, worker03: leads to echo.1, echo.2";
    wait::until("all hosts lead there", LIMIT, || {
        let page = page();
        page.ends_with(leads).then_some(()).ok_or(page)
    });
    assert_eq!(level(manager, "published ports"), "ok");

    worker.kill().unwrap();
    let bind = || {
        worker
            .within(|| TcpListener::bind(("0.0.0.0", 8000)))
            .unwrap()
    };
    let listener = wait::until("another program has the port", LIMIT, bind);
    worker.start().unwrap();
    let check = "port 8000/tcp of service echo";
    wait::until("the host that lost the port is named", LIMIT, || {
        let found = findings(manager, check);
        let said = found.iter().any(|finding| {
            finding["Level"] == "error"
                && finding["Found"].as_str().is_some_and(|found| {
                    found.starts_with("worker01: ") && found.contains("already in use")
                })
        });
        said.then_some(()).ok_or(found)
    });
    let page = page();
    assert!(
        page.contains("\n  worker01: does not have the port: "),
        "{page}"
    );
    drop(listener);
    wait::until("the port is taken as soon as it is free", LIMIT, || {
        let page = manager.ctl(["service", "inspect", "--pretty", "echo"]).ok();
        page.ends_with(leads).then_some(()).ok_or(page)
    });

    let table =
        "table inet other { chain forward { type filter hook forward priority 0; policy drop; }; }";
    worker
        .exec(["sh", "-c", &format!("echo '{table}' | nft -f -")])
        .ok();
    let found = findings(manager, check);
    let said = found[0]["Found"].as_str().unwrap();
    assert!(
        said.starts_with("worker01: chain forward of table inet other"),
        "{found:#?}"
    );
    worker.exec(["nft", "delete table inet other"]).ok();
    manager.ctl(["service", "rm", "echo"]).ok();
}
