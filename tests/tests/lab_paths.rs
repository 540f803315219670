//! The ways between hosts are measured: what passes, what does not, and what is left behind.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::time::Duration;

use serde_json::Value;
use tests::{Host, Lab, Options, wait};

const ECHO: &str = "registry:5000/example/echo:latest";
/// A path that does not answer is known after some seconds; a machine at work on something else
/// may take longer.
const LIMIT: Duration = Duration::from_secs(60);
/// What was lost is remembered for half a minute.
const HEALING: Duration = Duration::from_secs(120);
const HOSTS: [&str; 3] = ["manager01", "worker01", "worker02"];

/// `network check` with its status.
fn check(host: &Host) -> (i32, String) {
    let output = host.ctl(["network", "check", "ch03"]);
    (output.status, output.stdout)
}

fn answer(host: &Host) -> Value {
    let response = host.api("GET", "/overnet/paths?network=ch03", b"").unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    serde_json::from_str(&response.text()).unwrap()
}

/// `FROM TO STATE` of every direction.
fn states(answer: &Value) -> Vec<String> {
    let paths = answer["Paths"].as_array().unwrap().iter();
    paths
        .map(|path| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let (from, to) = (text(&path["From"]["Name"]), text(&path["To"]["Name"]));
            format!("{from} {to} {}", text(&path["State"]))
        })
        .collect()
}

/// The findings that are not well.
fn findings(answer: &Value) -> Vec<Value> {
    let all = answer["Findings"].as_array().unwrap().iter();
    all.filter(|finding| finding["Level"] != "ok")
        .cloned()
        .collect()
}

fn until_fine(host: &Host, what: &str, limit: Duration) {
    wait::until(what, limit, || {
        let answer = answer(host);
        let states = states(&answer);
        let fine = states
            .iter()
            .filter(|state| state.ends_with(" fine"))
            .count();
        (fine == HOSTS.len() * (HOSTS.len() - 1) && findings(&answer).is_empty())
            .then_some(())
            .ok_or((states, findings(&answer)))
    });
}

/// Waits for one finding that names these hosts, and gives it.
fn until_found(host: &Host, what: &str, level: &str, hosts: [&str; 2], words: &str) -> Value {
    wait::until(what, LIMIT, || {
        let found = findings(&answer(host));
        let [one] = &found[..] else {
            return Err(found);
        };
        let said = one.to_string();
        let named = hosts.iter().all(|host| said.contains(host)) && said.contains(words);
        let fits = one["Level"] == level && named;
        fits.then(|| one.clone()).ok_or(found)
    })
}

/// Where the way is measured from, on that host.
fn namespaces(host: &Host) -> String {
    host.exec(["ls", "/run/overnet/netns"]).ok()
}

#[test]
fn paths_are_measured() {
    let lab = Lab::up(Options {
        workers: 3,
        ..Options::for_test("paths")
    })
    .unwrap();
    let manager = lab.host("manager01");
    manager
        .ctl(["network", "create", "-d", "overlay", "--attachable", "ch03"])
        .ok();
    for name in HOSTS {
        let name_of_it = format!("on-{name}");
        let words = [
            "run",
            "-d",
            "--name",
            &name_of_it,
            "--network",
            "ch03",
            ECHO,
        ];
        lab.host(name).ctl(words).ok();
    }

    all_is_well(&lab);
    what_is_cut_is_named(&lab);
    large_packets_alone_are_lost(&lab);
    a_daemon_that_is_away_is_no_broken_path(&lab);
    nothing_is_left(&lab);
    lab.down().unwrap();
}

fn all_is_well(lab: &Lab) {
    let manager = lab.host("manager01");
    until_fine(&manager, "all pairs are fine", LIMIT);
    let (status, said) = check(&manager);
    assert_eq!(status, 0, "{said}");
    assert!(
        said.contains("paths: 3 pairs of hosts, all packets pass"),
        "{said}"
    );
    assert!(
        said.contains("(1450 B)") && said.contains(" ms, at most "),
        "{said}"
    );
    // worker03 has nothing on the network.
    assert!(!said.contains("worker03"), "{said}");
    assert_eq!(
        said.lines().filter(|line| line.ends_with("fine")).count(),
        6,
        "{said}"
    );

    // It is no network of Docker's, and no container.
    let networks = manager.ctl(["network", "ls", "--format", "{{.Name}}"]).ok();
    assert!(!networks.contains("path"), "{networks}");
    let refused = manager.ctl(["network", "check", "nothing"]).failed();
    assert!(refused.contains("nothing"), "{refused}");
    let worker = lab
        .host("worker01")
        .ctl(["network", "check", "ch03"])
        .failed();
    assert!(worker.contains("manager"), "{worker}");
}

fn what_is_cut_is_named(lab: &Lab) {
    let manager = lab.host("manager01");
    lab.partition("worker01", "worker02").unwrap();
    let found = until_found(
        &manager,
        "the cut is found",
        "error",
        ["worker01", "worker02"],
        "no packet passes by VXLAN (UDP port 4789)",
    );
    assert_ne!(found["Mend"], "", "{found}");
    let (status, said) = check(&manager);
    assert_eq!(status, 1, "{said}");
    assert!(
        said.contains("path worker01 - worker02: no packet passes"),
        "{said}"
    );
    let doctor = manager.ctl(["doctor", "--quiet"]);
    assert_eq!(doctor.status, 1, "{doctor:?}");
    assert!(
        doctor.stdout.contains("path worker01 - worker02"),
        "{doctor:?}"
    );
    lab.heal().unwrap();
    until_fine(&manager, "all is well after the cut", HEALING);
    let (status, said) = check(&manager);
    assert_eq!(status, 0, "{said}");
}

fn large_packets_alone_are_lost(lab: &Lab) {
    let (manager, one) = (lab.host("manager01"), lab.host("worker01"));
    let from = lab.host("worker02").member().address();
    let rules = format!(
        "add table inet narrow; \
         add chain inet narrow input {{ type filter hook input priority -400; }}; \
         add rule inet narrow input ip saddr {from} udp dport 4789 udp length > 1000 drop"
    );
    one.exec(["nft", &rules]).ok();
    let found = until_found(
        &manager,
        "the narrow path is found",
        "error",
        ["worker01", "worker02"],
        "MTU: small packets pass",
    );
    let said = found.to_string();
    assert!(said.contains("1450 bytes, 1500 with VXLAN"), "{said}");
    assert!(said.contains("ping -M do -s 1472 "), "{said}");
    assert_eq!(check(&manager).0, 1);
    one.exec(["nft", "delete", "table", "inet", "narrow"]).ok();
    until_fine(&manager, "all is well with the wide path", HEALING);
}

/// A killed daemon's host still answers by its kernel, and the next daemon goes on.
fn a_daemon_that_is_away_is_no_broken_path(lab: &Lab) {
    let (manager, one) = (lab.host("manager01"), lab.host("worker02"));
    let before = namespaces(&one);
    one.kill().unwrap();
    let count = |name: &str| {
        let metrics = manager.api("GET", "/metrics", b"").unwrap().text();
        let name = format!("overnet_path_{name}_total{{peer=\"worker02\",size=\"small\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("{name} in {metrics}"))
            .parse::<u32>()
            .unwrap()
    };
    let (sent, lost) = (count("probes"), count("lost"));
    wait::until("worker02 is asked while it has no daemon", LIMIT, || {
        let now = count("probes");
        if now >= sent + 4 {
            Ok(())
        } else {
            Err((sent, now))
        }
    });
    assert_eq!(count("lost"), lost);
    one.start().unwrap();
    until_fine(&manager, "all is well after a kill", HEALING);
    assert_eq!(namespaces(&one), before);
    // The leader is another program than before, and is told again.
    manager.kill().unwrap();
    manager.start().unwrap();
    until_fine(&manager, "a new leader is told", HEALING);
    assert_eq!(check(&manager).0, 0);
}

fn nothing_is_left(lab: &Lab) {
    let one = lab.host("worker01");
    one.ctl(["rm", "-f", "on-worker01"]).ok();
    // Without a network that is shared there is nobody to ask.
    wait::until("nothing is measured on worker01", LIMIT, || {
        let names = namespaces(&one);
        let alone = names.trim().is_empty();
        alone.then_some(()).ok_or(names)
    });
    let two = lab.host("worker02");
    assert!(namespaces(&two).contains("paths"));
    two.ctl(["rm", "-f", "on-worker02"]).ok();
    two.ctl(["swarm", "leave"]).ok();
    wait::until("nothing is left on worker02", LIMIT, || {
        let names = namespaces(&two);
        names.trim().is_empty().then_some(()).ok_or(names)
    });
    let vxlan = two.exec(["ip", "-d", "link", "show", "type", "vxlan"]).ok();
    assert_eq!(vxlan.trim(), "");
}
