//! The doctor, metrics and health of a cluster, well and not.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::time::Duration;

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
    lab.down().unwrap();
}
