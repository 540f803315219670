//! A request is one trace, from the command line to the kernel of the host that a task comes to.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{collections::BTreeMap, fs, path::Path, process::Command, time::Duration};

use serde_json::Value;
use tests::{Lab, Options, wait};

const TOOLBOX: &str = "registry:5000/example/toolbox";
const LIMIT: Duration = Duration::from_secs(60);
const COLLECTOR: &str = "OTEL_EXPORTER_OTLP_ENDPOINT=http://client:4318";

fn spans(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    // The last line may be half written.
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// The traces whose first span has this name.
fn traces(spans: &[Value], first: &str) -> Vec<Vec<Value>> {
    let begins = |span: &&Value| span["name"] == first && span["parent"] == "";
    let of = |id: &Value| {
        let same = spans.iter().filter(|span| &span["trace"] == id);
        same.cloned().collect()
    };
    let firsts = spans.iter().filter(begins);
    firsts.map(|span| of(&span["trace"])).collect()
}

#[test]
fn a_request_is_one_trace_on_all_hosts() {
    let lab = Lab::up(Options {
        managers: 2,
        workers: 1,
        environment: vec![
            COLLECTOR.to_owned(),
            // Milliseconds between two batches.
            "OTEL_BSP_SCHEDULE_DELAY=200".to_owned(),
        ],
        ..Options::for_test("traces")
    })
    .unwrap();
    let file = lab.dir().join("spans.jsonl");
    let mut collector = Command::new(tests::lab::binary("collector").unwrap());
    collector.arg("0.0.0.0:4318").arg(&file);
    let mut collector = lab.host("client").spawn(collector).unwrap();
    wait::until("the collector is there", LIMIT, || {
        file.exists().then_some(()).ok_or("no file yet")
    });

    let follower = lab.host("manager02");
    let traced = |words: &[&str]| {
        let mut command = follower.ctl_command(words).unwrap();
        let (name, endpoint) = COLLECTOR.split_once('=').unwrap();
        command.env(name, endpoint);
        follower.run(command)
    };
    traced(&["network", "create", "--driver=overlay", "ch03"]).ok();
    traced(&[
        "service",
        "create",
        "--name",
        "web",
        "--network",
        "ch03",
        "--constraint",
        "node.hostname==worker01",
        TOOLBOX,
        "sleep",
        "100000",
    ])
    .ok();

    // Who has to have done what.
    let parts = [
        ("ovnctl", "manager02", "ovnctl service create"),
        ("ovnctl", "manager02", "POST /services/create"),
        ("ovnd", "manager02", "POST /v1.50/services/create"),
        ("ovnd", "manager02", "forward to the leader"),
        ("ovnd", "manager01", "Peers/Forward"),
        ("ovnd", "manager01", "commit"),
        ("ovnd", "manager01", "scheduler"),
        ("ovnd", "worker01", "task"),
        ("ovnd", "worker01", "pull"),
        ("ovnd", "worker01", "create"),
        ("ovnd", "worker01", "start"),
        ("ovnd", "worker01", "networks"),
        ("ovnd", "worker01", "dataplane"),
        ("ovnd", "worker01", "netlink"),
        ("ovnd", "worker01", "runtime"),
    ];
    let trace = wait::until("all parts of the request are told", LIMIT, || {
        let all = traces(&spans(&file), "ovnctl service create");
        let Some(trace) = all.first() else {
            return Err(vec!["the command".to_owned()]);
        };
        let told = |(service, host, name): &(&str, &str, &str)| {
            let is = |span: &&Value| {
                span["service"] == *service && span["host"] == *host && span["name"] == *name
            };
            trace.iter().find(is).is_some()
        };
        let missing: Vec<String> = parts
            .iter()
            .filter(|part| !told(part))
            .map(|part| format!("{part:?}"))
            .collect();
        if missing.is_empty() {
            Ok(trace.clone())
        } else {
            Err(missing)
        }
    });
    let by_id: BTreeMap<&str, &Value> = trace
        .iter()
        .map(|span| (span["span"].as_str().unwrap(), span))
        .collect();
    for span in &trace {
        let parent = span["parent"].as_str().unwrap();
        let known = by_id.contains_key(parent) || span["name"] == "ovnctl service create";
        assert!(known, "the part above {span} is not told");
        assert_eq!(span["failed"], false, "{span}");
    }
    for (name, above) in [
        ("POST /v1.50/services/create", "POST /services/create"),
        ("forward to the leader", "POST /v1.50/services/create"),
        ("Peers/Forward", "forward to the leader"),
        ("commit", "Peers/Forward"),
        ("task", "commit"),
        ("networks", "start"),
        ("netlink", "dataplane"),
        ("runtime", "start"),
    ] {
        let mut parents = trace
            .iter()
            .filter(|span| span["name"] == name)
            .map(|span| by_id[span["parent"].as_str().unwrap()]);
        assert!(
            parents.any(|parent| parent["name"] == above),
            "{name} is nowhere below {above}"
        );
    }

    // What fails is told as that, with its sentence.
    let refused = traced(&["service", "inspect", "nothing"]);
    assert_ne!(refused.status, 0);
    wait::until("the failure is told", LIMIT, || {
        let all = traces(&spans(&file), "ovnctl service inspect");
        let failed = all.iter().flatten().find(|span| span["failed"] == true);
        let message = failed.map(|span| span["message"].to_string());
        match message {
            Some(message) if message.contains("nothing") => Ok(()),
            other => Err(other),
        }
    });
    // A command that nobody traces begins no trace of its own on the command line's side.
    follower.ctl(["service", "ls"]).ok();
    collector.kill().unwrap();
    collector.wait().unwrap();
    assert!(traces(&spans(&file), "ovnctl service ls").is_empty());
    lab.down().unwrap();
}
