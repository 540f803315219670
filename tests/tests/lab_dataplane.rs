//! `ovnd dataplane show|plan|apply`: of a running daemon, which is not disturbed, and without one.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{fs, time::Duration};

use serde_json::Value;
use tests::{Host, Lab, Options, Output, lab::binary, wait};

const ECHO: &str = "registry:5000/example/echo:latest";
const LIMIT: Duration = Duration::from_secs(30);

fn dataplane(host: &Host, words: &[&str]) -> Output {
    let ovnd = binary("ovnd").unwrap().display().to_string();
    let mut args = vec![ovnd.as_str(), "dataplane"];
    args.extend(words);
    host.exec(args)
}

fn shown(host: &Host) -> Value {
    serde_json::from_str(&dataplane(host, &["show"]).ok()).unwrap()
}

#[test]
fn the_dataplane_is_shown_compared_and_applied() {
    let lab = Lab::up(Options {
        workers: 2,
        ..Options::for_test("dataplane")
    })
    .unwrap();
    let (one, two) = (lab.host("worker01"), lab.host("worker02"));
    lab.host("manager01")
        .ctl(["network", "create", "-d", "overlay", "--attachable", "ch03"])
        .ok();
    for (host, name) in [(&one, "here"), (&two, "there")] {
        host.ctl(["run", "-d", "--name", name, "--network", "ch03", ECHO])
            .ok();
    }
    a_running_daemon_is_not_disturbed(&one);
    mistakes_are_refused(&lab, &one);
    without_a_daemon(&one);
    lab.down().unwrap();
}

fn a_running_daemon_is_not_disturbed(one: &Host) {
    let pid = one.daemon_pid().unwrap();
    // What the other host's container brings along may still come in; that is no answer to us.
    let sight = wait::until("plans are asked for, and nothing else", LIMIT, || {
        let before = shown(one)["status"]["requests"].clone();
        for _ in 0..5 {
            assert_eq!(
                dataplane(one, &["plan"]).ok(),
                "nothing to do: the kernel matches the wish"
            );
        }
        let sight = shown(one);
        let there = sight["desired"]["remotes"].to_string().contains("there");
        if there && sight["status"]["requests"] == before {
            Ok(sight)
        } else {
            Err(format!(
                "{before} requests before, then {}",
                sight["status"]
            ))
        }
    });
    let names = |part: &str, key: &str| -> Vec<String> {
        let all = sight["desired"][part].as_object().unwrap().values();
        all.map(|one| one[key].to_string()).collect()
    };
    let networks = names("networks", "name");
    assert!(networks.contains(&"\"ch03\"".to_owned()), "{networks:?}");
    let remotes = names("remotes", "names").concat();
    assert!(remotes.contains("\"there\""), "{remotes}");
    let segments = sight["observed"]["view"]["segments"].as_object().unwrap();
    assert!(
        segments.values().any(|segment| !segment["vxlan"].is_null()
            && segment["forwards"].as_object().unwrap().len() == 1),
        "{segments:?}"
    );
    assert_eq!(sight["status"]["drifts"], 0, "asking changed something");
    assert_eq!(one.daemon_pid().unwrap(), pid);
}

fn mistakes_are_refused(lab: &Lab, one: &Host) {
    let said = dataplane(&lab.host("client"), &["show"]).failed();
    assert!(
        said.contains("ovnd does not answer at /run/overnet/ovnd.sock") && said.contains("--file"),
        "{said}"
    );
    let file = one.dir().join("wish.json");
    fs::write(&file, r#"{"network": {}}"#).unwrap();
    let file = file.to_str().unwrap();
    for action in ["show", "plan", "apply"] {
        let said = dataplane(one, &[action, "--file", file]).failed();
        assert!(said.contains("`network`"), "{action}: {said}");
    }
    fs::write(file, "{}").unwrap();
    let said = dataplane(one, &["apply", "--file", file]).failed();
    assert!(said.contains("ovnd runs"), "{said}");
    let said = dataplane(one, &["apply", "--file", "/no/such/file"]).failed();
    assert!(said.contains("/no/such/file cannot be read"), "{said}");
}

/// The daemon is dead and somebody has deleted our table: `plan` says so and changes nothing,
/// `apply` puts it back, and the next daemon finds nothing to do.
fn without_a_daemon(one: &Host) {
    let file = one.dir().join("shown.json");
    fs::write(&file, dataplane(one, &["show"]).ok()).unwrap();
    let file = file.to_str().unwrap();
    one.kill().unwrap();
    assert_eq!(
        dataplane(one, &["plan", "--file", file]).ok(),
        "nothing to do: the kernel matches the wish"
    );
    let table = || {
        one.exec(["nft", "list", "table", "inet", "overnet"])
            .success()
    };
    one.exec(["nft", "delete", "table", "inet", "overnet"]).ok();
    let plan = dataplane(one, &["plan", "--file", file]).ok();
    assert!(plan.contains("table") && plan.lines().count() < 4, "{plan}");
    assert!(!table(), "plan changed the kernel");
    dataplane(one, &["apply", "--file", file]).ok();
    assert!(table(), "apply did not bring the table back");
    one.start().unwrap();
    wait::until("the next daemon finds nothing to do", LIMIT, || {
        let plan = dataplane(one, &["plan"]).ok();
        plan.starts_with("nothing to do").then_some(()).ok_or(plan)
    });
    let there = ["exec", "here", "sh", "-c", "exit 0"];
    one.ctl(there).ok();
}
