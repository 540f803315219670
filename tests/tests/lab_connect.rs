//! Containers that come to networks and go from them while they run, with the stock docker
//! command line, across two hosts.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::time::Duration;

use tests::{Host, Lab, Options, wait};

const ECHO: &str = "registry:5000/example/echo:latest";
const TOOLBOX: &str = "registry:5000/example/toolbox";
const LIMIT: Duration = Duration::from_secs(30);

fn docker(host: &Host, words: &str) -> String {
    host.docker(words.split_whitespace()).ok()
}

fn refused(host: &Host, words: &str, says: &str) {
    let said = host.docker(words.split_whitespace()).failed();
    assert!(said.contains(says), "{words}: {said}");
}

/// The container's networks in the order of their names.
fn networks(host: &Host, container: &str) -> String {
    let format = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}";
    host.docker(["inspect", "--format", format, container])
        .ok()
        .trim()
        .to_owned()
}

fn answers(host: &Host, from: &str, name: &str) -> Result<(), String> {
    let url = format!("http://{name}:8080/");
    let asked = host.docker(["exec", from, "wget", "-qO-", "-t1", "-T3", &url]);
    if asked.stdout.contains("Hello") {
        Ok(())
    } else {
        Err(format!("{asked:?}"))
    }
}

fn a_new_name_takes_the_old_ones_place(manager: &Host, worker: &Host) {
    let format = "{{range .NetworkSettings.Networks}}{{.DNSNames}}{{end}}";
    for (old, new) in [("web", "renamed"), ("renamed", "web")] {
        docker(manager, &format!("rename {old} {new}"));
        wait::until("the new name answers", LIMIT, || {
            answers(worker, "near", new)
        });
        wait::until("the old name answers no more", LIMIT, || {
            let there = answers(worker, "near", old);
            there.is_err().then_some(()).ok_or("it answers")
        });
        // On all of its networks; the alias stays.
        answers(worker, "far", new).unwrap();
        answers(worker, "far", "www").unwrap();
        let shown = manager.ctl(["inspect", "--format", format, new]).ok();
        assert!(shown.contains(new) && !shown.contains(old), "{shown}");
        let listed = docker(manager, "network inspect red");
        assert!(listed.contains(&format!("\"{new}\"")), "{listed}");
        manager.kill().unwrap();
        manager.start().unwrap();
        answers(worker, "near", new).unwrap();
        answers(worker, "near", old).unwrap_err();
    }
}

#[test]
fn containers_come_to_networks_and_go() {
    let lab = Lab::up(Options {
        workers: 1,
        ..Options::for_test("connect")
    })
    .unwrap();
    let (manager, worker) = (lab.host("manager01"), lab.host("worker01"));
    for name in ["red", "blue"] {
        docker(
            &manager,
            &format!("network create -d overlay --attachable {name}"),
        );
    }
    docker(&manager, &format!("run -d --name web --network red {ECHO}"));
    docker(
        &worker,
        &format!("run -d --name near --network red {TOOLBOX} sleep 100000"),
    );
    docker(
        &worker,
        &format!("run -d --name far --network blue {TOOLBOX} sleep 100000"),
    );
    wait::until("web answers on red", LIMIT, || {
        answers(&worker, "near", "web")
    });
    assert!(
        answers(&worker, "far", "web").is_err(),
        "not on its network yet"
    );

    // All of what follows is not noticed on the other network.
    let load = format!("run -d --name load --network red {ECHO} load web:8080 8 40 keep");
    docker(&worker, &load);
    docker(&manager, "network connect --alias www blue web");
    wait::until("web answers on blue", LIMIT, || {
        answers(&worker, "far", "web")
    });
    answers(&worker, "far", "www").unwrap();
    assert_eq!(networks(&manager, "web"), "blue red");
    let listed = docker(&manager, "network inspect blue");
    assert!(listed.contains("\"web\""), "{listed}");
    refused(
        &manager,
        "network connect blue web",
        "already exists in network blue",
    );
    manager.kill().unwrap();
    manager.start().unwrap();
    answers(&worker, "far", "www").unwrap();
    assert_eq!(networks(&manager, "web"), "blue red");
    docker(&manager, "network disconnect blue web");
    wait::until("web is gone from blue", LIMIT, || {
        let there = answers(&worker, "far", "web");
        there.is_err().then_some(()).ok_or("it answers")
    });
    refused(
        &manager,
        "network disconnect blue web",
        "is not connected to network blue",
    );
    assert_eq!(docker(&worker, "wait load"), "0");
    let said = docker(&worker, "logs load");
    assert!(said.starts_with("sent 320 failed 0 "), "{said}");

    docker(&manager, "network connect --alias www blue web");
    a_new_name_takes_the_old_ones_place(&manager, &worker);
    docker(&manager, "network disconnect blue web");

    // The first one goes, and the way out stays.
    docker(&manager, "network connect blue web");
    docker(&manager, "network disconnect red web");
    wait::until("web answers on blue only", LIMIT, || {
        answers(&worker, "far", "web")
    });
    assert!(answers(&worker, "near", "web").is_err());
    let pid = docker(&manager, "inspect --format {{.State.Pid}} web");
    let routes = manager
        .exec(["nsenter", "-t", &pid, "-n", "ip", "route"])
        .ok();
    assert_eq!(routes.matches("default via").count(), 1, "{routes}");

    // Killed when the network was there and the engine had not written it down: what the engine
    // has counts.
    let id = docker(&manager, "inspect --format {{.Id}} web");
    let record = manager
        .dir()
        .join("lib/containers")
        .join(id)
        .join("record.json");
    let before = std::fs::read(&record).unwrap();
    docker(&manager, "network connect red web");
    wait::until("web answers on red", LIMIT, || {
        answers(&worker, "near", "web")
    });
    manager.kill().unwrap();
    std::fs::write(&record, before).unwrap();
    manager.start().unwrap();
    wait::until("web is gone from red", LIMIT, || {
        let there = answers(&worker, "near", "web");
        there.is_err().then_some(()).ok_or("it answers")
    });
    assert_eq!(networks(&manager, "web"), "blue");
    answers(&worker, "far", "web").unwrap();
    let listed = docker(&manager, "network inspect red");
    assert!(!listed.contains("\"web\""), "{listed}");

    // What is wished for holds from the next start on, too.
    docker(&manager, "stop web");
    docker(&manager, "network connect red web");
    docker(&manager, "start web");
    wait::until("web answers on red again", LIMIT, || {
        answers(&worker, "near", "web")
    });
    answers(&worker, "far", "web").unwrap();
    assert_eq!(networks(&manager, "web"), "blue red");

    docker(
        &manager,
        &format!("run -d --name bare --network host {TOOLBOX} sleep 100000"),
    );
    refused(&manager, "network connect red bare", "--network host");
    docker(
        &manager,
        &format!("service create -d --name s --constraint node.role==manager {ECHO}"),
    );
    let task = wait::until("the task runs", LIMIT, || {
        let id = docker(&manager, "ps -q --filter name=s.1");
        if id.is_empty() { Err(id) } else { Ok(id) }
    });
    refused(
        &manager,
        &format!("network connect red {task}"),
        "is a task of service s",
    );
    lab.down().unwrap();
}
