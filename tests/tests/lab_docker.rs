//! Docker's network plugin: containers of a real Docker Engine talk to ours on another host.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use tests::{Host, Lab, Options, lab::DockerEngine, wait};

const ECHO: &str = "registry:5000/example/echo:latest";
const TOOLBOX: &str = "registry:5000/example/toolbox:latest";
const LIMIT: Duration = Duration::from_secs(30);
const PLUGIN: &str = "/run/docker/plugins/overnet.sock";

fn ctl(host: &Host, words: &str) -> String {
    host.ctl(words.split_whitespace()).ok()
}

fn attachments(host: &Host) -> Vec<Value> {
    let answer = host.api("GET", "/overnet/attachments?check=1", b"");
    serde_json::from_slice(&answer.unwrap().body).unwrap()
}

/// Those that there are, once there are so many.
fn until_attached(host: &Host, count: usize) -> Vec<Value> {
    wait::until("as many are attached", LIMIT, || {
        let there = attachments(host);
        let right = there.len() == count && there.iter().all(|one| one["Fault"].is_null());
        if right { Ok(there) } else { Err(there) }
    })
}

fn pings(host: &Host, container: &str, name: &str) -> Result<(), String> {
    let asked = host.ctl(["exec", container, "ping", "-c1", "-W2", name]);
    asked.success().then_some(()).ok_or(format!("{asked:?}"))
}

fn known(host: &Host, container: &str, name: &str) {
    wait::until("the name is known", LIMIT, || pings(host, container, name));
}

#[track_caller]
fn refused(engine: &DockerEngine, words: &str, says: &str) {
    let said = engine.words(words).failed();
    assert!(said.contains(says), "{words}: {said}");
}

/// From a container of Docker's; its first question may come before its name server.
fn greets(engine: &DockerEngine, container: &str, name: &str) {
    let words = format!("exec {container} wget -qO- -T3 http://{name}:8080/");
    wait::until("it is greeted", LIMIT, || {
        let asked = engine.words(&words);
        let greeted = asked.stdout.contains("Hello");
        greeted.then_some(()).ok_or(format!("{asked:?}"))
    });
}

#[test]
fn containers_of_docker_come_to_overlay_networks() {
    let plugin = ["--docker-plugin", PLUGIN].map(str::to_owned);
    let lab = Lab::up(Options {
        workers: 1,
        daemon_args: plugin.to_vec(),
        ..Options::for_test("docker")
    })
    .unwrap();
    let (manager, worker) = (lab.host("manager01"), lab.host("worker01"));
    for name in ["ch03", "red"] {
        ctl(
            &manager,
            &format!("network create -d overlay --attachable {name}"),
        );
    }
    ctl(&manager, "network create -d overlay closed");
    ctl(
        &manager,
        "network create -d overlay --attachable --internal inner",
    );
    ctl(
        &manager,
        &format!("run -d --name web --network ch03 {ECHO}"),
    );
    ctl(
        &manager,
        &format!("run -d --name near --network ch03 {TOOLBOX} sleep 100000"),
    );
    let mut engine = DockerEngine::start(&worker).unwrap();
    let null = "network create -d overnet --ipam-driver null";
    engine
        .words(&format!("{null} -o overnet.network=ch03 ours"))
        .ok();
    // The name alone.
    engine.words(&format!("{null} red")).ok();
    engine.words(&format!("pull -q {TOOLBOX}")).ok();

    both_ways(&engine, &manager, &worker);
    a_second_network_and_back(&engine, &manager, &worker);
    docker_may_ask_for_addresses(&engine, &manager, &worker);
    ovnd_may_be_away(&engine, &manager, &worker);
    docker_may_be_away(&mut engine, &manager, &worker);
    bad_wishes_are_refused(&engine, &manager);

    engine.words("rm -f pod").ok();
    until_attached(&worker, 0);
    drop(engine);
    ctl(&manager, "rm -f web near");
    for network in ["ch03", "red", "inner"] {
        // In use by nobody: nothing was left behind.
        wait::until("the network can be removed", LIMIT, || {
            let removed = manager.ctl(["network", "rm", network]);
            removed
                .success()
                .then_some(())
                .ok_or(format!("{removed:?}"))
        });
    }
    lab.down().unwrap();
}

fn both_ways(engine: &DockerEngine, manager: &Host, worker: &Host) {
    engine
        .words(&format!(
            "run -d --name pod --stop-timeout 0 --network ours --network-alias www {TOOLBOX} sleep 100000"
        ))
        .ok();
    greets(engine, "pod", "web");
    for name in ["pod", "www"] {
        known(manager, "near", name);
    }
    let there = until_attached(worker, 1);
    let shown = engine
        .words("inspect -f {{.NetworkSettings.Networks.ours.IPAddress}} pod")
        .ok();
    let address = there[0]["IPAddresses"][0].as_str().unwrap();
    assert_eq!(address, format!("{shown}/24"));
    assert!(ctl(worker, "network inspect ch03").contains("\"pod\""));
    pings(manager, "near", &shown).unwrap();
    let web = ctl(
        manager,
        "inspect -f {{.NetworkSettings.Networks.ch03.IPAddress}} web",
    );
    engine.words(&format!("exec pod ping -c1 -W2 {web}")).ok();
    let links = engine.words("exec pod ip -o link").ok();
    assert!(
        links.contains("eth0") && links.contains("mtu 1450"),
        "{links}"
    );
    // A name that the user gives, and one that Docker's container takes with it.
    let named = "--network name=ours,driver-opt=overnet.name=given";
    let other = format!("run -d --name other --stop-timeout 0 {named} {TOOLBOX} sleep 100000");
    engine.words(&other).ok();
    known(manager, "near", "given");
    pings(manager, "near", "other").unwrap_err();
    engine.words("exec pod ping -c1 -W2 given").ok();
    engine.words("rm -f other").ok();
    until_attached(worker, 1);
    pings(manager, "near", "given").unwrap_err();
}

fn bad_wishes_are_refused(engine: &DockerEngine, manager: &Host) {
    let (null, own) = (
        "network create -d overnet --ipam-driver null",
        "network create -d overnet --ipam-driver overnet",
    );
    let subnet = ctl(
        manager,
        "network inspect -f {{range.IPAM.Config}}{{.Subnet}}{{end}} ch03",
    );
    for (words, says) in [
        (
            format!("{null} -o overnet.network=nothing bad"),
            "there is no overlay network nothing",
        ),
        (
            format!("{null} -o overnet.network=closed bad"),
            "not attachable",
        ),
        (
            "network create -d overnet bad".to_owned(),
            "--ipam-driver null",
        ),
        (
            "network create -d overnet -o overnet.network=ch03 bad".to_owned(),
            &subnet,
        ),
        (format!("{own} bad"), "--ipam-opt overnet.network=NAME"),
        (
            format!("{own} --ipam-opt overnet.network=nothing bad"),
            "nothing",
        ),
        (format!("{own} --subnet 192.0.2.0/24 bad"), "192.0.2.0/24"),
        (
            format!("{own} --ipam-opt overnet.network=closed bad"),
            "not attachable",
        ),
        (
            format!("run --rm --network ours --mac-address 02:42:00:00:00:01 {TOOLBOX} true"),
            "leave --mac-address out",
        ),
        (
            format!("run --rm --network name=ours,driver-opt=overnet.name=-x {TOOLBOX} true"),
            "container name",
        ),
    ] {
        refused(engine, &words, says);
    }
    // It has the name of none, which is found out when the first container comes.
    engine.words(&format!("{null} stranger")).ok();
    let run = format!("run --rm --network stranger {TOOLBOX} true");
    refused(engine, &run, "there is no overlay network stranger");
    engine.words("network rm stranger").ok();
}

fn a_second_network_and_back(engine: &DockerEngine, manager: &Host, worker: &Host) {
    ctl(
        manager,
        &format!("run -d --name far --network red {TOOLBOX} sleep 100000"),
    );
    engine.words("network connect --alias second red pod").ok();
    known(manager, "far", "second");
    until_attached(worker, 2);
    greets(engine, "pod", "web");
    // The same network of ours by another of Docker's.
    let null = "network create -d overnet --ipam-driver null";
    engine
        .words(&format!("{null} -o overnet.network=ch03 twice"))
        .ok();
    // Of a container that goes: Docker remembers the network as one of its own all the same.
    let run = format!("run -d --name double --network ours {TOOLBOX} sleep 100000");
    engine.words(&run).ok();
    refused(engine, "network connect twice double", "already");
    engine.words("rm -f double").ok();
    engine.words("network rm twice").ok();
    engine.words("network disconnect red pod").ok();
    until_attached(worker, 1);
    greets(engine, "pod", "web");
    // Nothing has a way out on an internal network, nor by Docker's bridge.
    engine.words(&format!("{null} inner")).ok();
    let routes = engine
        .words(&format!("run --rm --network inner {TOOLBOX} ip route"))
        .ok();
    assert!(!routes.contains("default"), "{routes}");
    engine.words("network rm inner").ok();
    ctl(manager, "rm -f far");
}

fn docker_may_ask_for_addresses(engine: &DockerEngine, manager: &Host, worker: &Host) {
    let subnet = ctl(
        manager,
        "network inspect -f {{range.IPAM.Config}}{{.Subnet}}{{end}} ch03",
    );
    let own = "network create -d overnet --ipam-driver overnet";
    engine.words(&format!("{own} --subnet {subnet} fixed")).ok();
    engine
        .words(&format!("{own} --ipam-opt overnet.network=red loose"))
        .ok();
    let address = subnet.replace(".0/24", ".77");
    let run = format!("run -d --stop-timeout 0 --network fixed --ip {address}");
    engine
        .words(&format!("{run} --name first {TOOLBOX} sleep 100000"))
        .ok();
    known(manager, "near", "first");
    pings(manager, "near", &address).unwrap();
    let shown = engine
        .words("inspect -f {{.NetworkSettings.Networks.fixed.IPAddress}} first")
        .ok();
    assert_eq!(shown, address);
    refused(
        engine,
        &format!("{run} --name next {TOOLBOX} sleep 100000"),
        &address,
    );
    engine.words("rm -f next").ok();
    let loose = format!("run --rm --network loose {TOOLBOX} ip -o -4 addr show eth0");
    assert!(engine.words(&loose).ok().contains("10."));
    // What is given back is free for the next one.
    engine.words("rm -f first").ok();
    until_attached(worker, 1);
    wait::until("the address has rested", LIMIT, || {
        let again = engine.words(&format!("{run} --name next {TOOLBOX} sleep 100000"));
        let _ = (!again.success()).then(|| engine.words("rm -f next"));
        again.success().then_some(()).ok_or(format!("{again:?}"))
    });
    engine.words("rm -f next").ok();
    engine.words("network rm fixed loose").ok();
    until_attached(worker, 1);
}

fn ovnd_may_be_away(engine: &DockerEngine, manager: &Host, worker: &Host) {
    let web = ctl(
        manager,
        "inspect -f {{.NetworkSettings.Networks.ch03.IPAddress}} web",
    );
    worker.kill().unwrap();
    engine.words(&format!("exec pod ping -c2 -W2 {web}")).ok();
    // Docker waits for the plugin to come back.
    let run = format!("run -d --name late --stop-timeout 0 --network ours {TOOLBOX} sleep 100000");
    let words = engine.command(run.split_whitespace());
    let mut late = Command::new(&words[0]);
    late.args(&words[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let waiting = worker.spawn(late).unwrap();
    worker.start().unwrap();
    let waited = waiting.wait_with_output().unwrap();
    assert!(waited.status.success(), "{waited:?}");
    until_attached(worker, 2);
    greets(engine, "pod", "web");
    for name in ["pod", "late"] {
        known(manager, "near", name);
    }
    // Removed meanwhile, it is cleaned up after it is back.
    worker.kill().unwrap();
    worker.start().unwrap();
    engine.words("rm -f late").ok();
    until_attached(worker, 1);
}

fn docker_may_be_away(engine: &mut DockerEngine, manager: &Host, worker: &Host) {
    engine.kill().unwrap();
    known(manager, "near", "pod");
    // A start of Docker ends its containers.
    engine.launch().unwrap();
    until_attached(worker, 0);
    engine.words("start pod").ok();
    until_attached(worker, 1);
    known(manager, "near", "pod");
    greets(engine, "pod", "web");
}
