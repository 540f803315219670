//! Published ports in a cluster of four hosts: whoever asks from wherever, the task sees who it is.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tests::{Host, Lab, Options, Output, lab::binary, wait};

const ECHO: &str = "registry:5000/example/echo:latest";
const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn published_ports_lead_to_tasks_that_see_their_clients() {
    let lab = Lab::up(Options::for_test("ingress")).unwrap();
    let manager = lab.host("manager01");
    let network = ["network", "create", "-d", "overlay", "--attachable", "ch03"];
    manager.docker(network).ok();
    create(
        &manager,
        "echo",
        "worker01",
        &["8000:8080", "8000:8080/udp"],
        &["--network", "ch03"],
    );
    until_reachable(&lab, 8000);
    every_origin_is_seen(&lab);
    ports_are_really_taken(&lab);
    a_policy_keeps_to_the_host(&lab);
    a_policy_prefers_the_host(&lab);
    counters_are_there(&lab);
    single_containers_publish_too(&lab);
    host_mode_is_of_the_tasks_host(&lab);
    a_lost_host_is_answered_for(&lab);
    lab.down().unwrap();
}

/// A service of one task on one host, which publishes `ports`.
fn create(manager: &Host, name: &str, on: &str, ports: &[&str], more: &[&str]) {
    let created = try_create(manager, name, on, ports, more);
    assert_eq!(created.ok().len(), 25);
}

fn try_create(manager: &Host, name: &str, on: &str, ports: &[&str], more: &[&str]) -> Output {
    let constraint = format!("node.hostname=={on}");
    let mut words = vec!["service", "create", "-d", "--name", name];
    words.extend(["--constraint", &constraint]);
    for port in ports {
        words.extend(["--publish", port]);
    }
    words.extend(more);
    words.push(ECHO);
    manager.docker(words)
}

fn address(lab: &Lab, host: &str) -> IpAddr {
    lab.host(host).member().address().into()
}

fn address6(lab: &Lab, host: &str) -> IpAddr {
    lab.host(host).member().address6().into()
}

/// What each of `targets` says to a program of `host`.
fn ask(host: &Host, targets: &[String]) -> Vec<String> {
    let echo = binary("echo").unwrap();
    let mut words = vec![echo.to_str().unwrap().to_owned(), "ask".into()];
    words.extend(targets.iter().cloned());
    let said = host.exec(words).ok();
    said.lines().map(str::to_owned).collect()
}

/// The same from inside the container `name`.
fn ask_within(host: &Host, name: &str, targets: &[String]) -> Vec<String> {
    let mut words = vec!["exec", name, "/usr/bin/echo-server", "ask"];
    words.extend(targets.iter().map(String::as_str));
    let said = host.docker(words).ok();
    said.lines().map(str::to_owned).collect()
}

fn until_reachable(lab: &Lab, port: u16) {
    let begun = Instant::now();
    for host in lab.nodes() {
        let target = format!("tcp://{}:{port}", host.member().address());
        wait::until(
            &format!("port {port} of {} answers", host.name()),
            LIMIT,
            || {
                let said = ask(&lab.host("client"), std::slice::from_ref(&target)).join(" ");
                if said.contains("failed") {
                    Err(said)
                } else {
                    Ok(())
                }
            },
        );
    }
    eprintln!(
        "port {port} is reachable on all hosts after {:?}",
        begun.elapsed()
    );
}

fn both(at: IpAddr) -> Vec<String> {
    let at = SocketAddr::new(at, 8000);
    vec![format!("tcp://{at}"), format!("udp://{at}")]
}

fn every_origin_is_seen(lab: &Lab) {
    let image = ["--entrypoint", "sleep", ECHO, "1000"];
    let with_task = ["worker01", "worker02"];
    for name in with_task {
        let host = lab.host(name);
        for (container, network) in [("overlaid", "ch03"), ("local", "bridge")] {
            let words = ["run", "-d", "--name", container, "--network", network];
            host.docker([&words[..], &image[..]].concat()).ok();
        }
    }
    // The task is on worker01: each host once as its own, once as another.
    for to in with_task {
        let (v4, v6) = (address(lab, to), address6(lab, to));
        let targets = [both(v4), both(v6)].concat();
        let mut asked = vec![(
            "client".to_owned(),
            ask(&lab.host("client"), &targets),
            address(lab, "client"),
            address6(lab, "client"),
        )];
        for from in with_task {
            let host = lab.host(from);
            let said = ask(&host, &targets);
            asked.push((
                format!("host {from}"),
                said,
                address(lab, from),
                address6(lab, from),
            ));
            // Local networks are IPv4 alone.
            for container in ["overlaid", "local"] {
                let said = ask_within(&host, container, &both(v4));
                let what = format!("container {container} of {from}");
                asked.push((what, said, address(lab, from), address6(lab, from)));
            }
        }
        for (from, said, v4, v6) in asked {
            for line in said {
                let expected = if line.contains("://[") { v6 } else { v4 };
                assert_peer(&from, &line, expected);
            }
        }
        let own = ["127.0.0.1", "::1"]
            .map(|at| both(at.parse().unwrap()))
            .concat();
        for line in ask(&lab.host(to), &own) {
            assert_peer(&format!("localhost of {to}"), &line, address(lab, to));
        }
    }
    for name in with_task {
        lab.host(name)
            .docker(["rm", "-f", "overlaid", "local"])
            .ok();
    }
}

/// `line` is `TARGET PEER HOST`.
fn assert_peer(from: &str, line: &str, expected: IpAddr) {
    let peer = line.split(' ').nth(1).unwrap_or_default();
    let seen = peer.parse::<SocketAddr>().map(|peer| peer.ip());
    assert_eq!(seen, Ok(expected), "from {from}: {line}");
}

fn ports_are_really_taken(lab: &Lab) {
    let echo = binary("echo").unwrap();
    let taken = lab
        .host("worker02")
        .exec([echo.to_str().unwrap(), "listen", "8000"]);
    assert!(taken.failed().contains("Address already in use"));
    let mut occupant = Command::new(&echo);
    occupant.args(["listen", "8100"]).stdout(Stdio::piped());
    let mut occupant = lab.host("worker02").spawn(occupant).unwrap();
    let mut line = [0; 9];
    occupant
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut line)
        .unwrap();
    let manager = lab.host("manager01");
    let begun = Instant::now();
    let refused = try_create(&manager, "late", "worker01", &["8100:8080"], &[]).failed();
    assert!(
        refused.contains("worker02") && refused.contains("8100/tcp"),
        "{refused}"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    let services = manager
        .docker(["service", "ls", "--format", "{{.Name}}"])
        .ok();
    assert_eq!(services, "echo");
    // What the others kept is given up.
    wait::until("the port is free again", LIMIT, || {
        let target: SocketAddr = "0.0.0.0:8100".parse().unwrap();
        let bind = move || std::net::TcpListener::bind(target).map(drop);
        lab.host("worker01").within(bind).unwrap()
    });
    occupant.kill().unwrap();
    occupant.wait().unwrap();
    create(&manager, "late", "worker01", &["8100:8080"], &[]);
    until_reachable(lab, 8100);
    // An update that takes another port is asked about, too.
    let mut occupant = Command::new(&echo);
    occupant.args(["listen", "8101"]).stdout(Stdio::piped());
    let mut occupant = lab.host("worker03").spawn(occupant).unwrap();
    occupant
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut line)
        .unwrap();
    let add = [
        "service",
        "update",
        "-d",
        "--publish-add",
        "8101:8081",
        "late",
    ];
    let refused = manager.docker(add).failed();
    assert!(refused.contains("worker03"), "{refused}");
    occupant.kill().unwrap();
    occupant.wait().unwrap();
    manager.docker(["service", "rm", "late"]).ok();
}

fn a_policy_keeps_to_the_host(lab: &Lab) {
    let manager = lab.host("manager01");
    let label = ["--label", "overnet.publish.8080/tcp=policy=local"];
    create(&manager, "near", "worker01", &["8300:8080"], &label);
    let target = |host: &str| format!("tcp://{}:8300", address(lab, host));
    wait::until("the host with the task answers", LIMIT, || {
        let said = ask(&lab.host("client"), &[target("worker01")]).join("");
        if said.contains("failed") {
            Err(said)
        } else {
            Ok(())
        }
    });
    let said = ask(&lab.host("client"), &[target("worker02")]).join("");
    assert!(said.contains("refused"), "{said}");
    // Any client's edit keeps it.
    let update = ["service", "update", "-d", "--env-add", "A=1", "near"];
    manager.docker(update).ok();
    let labels = ["service", "inspect", "--format", "{{.Spec.Labels}}", "near"];
    assert!(manager.docker(labels).ok().contains("policy=local"));
    let wrong = ["--label", "overnet.publish.8080/tcp=policy=nearby"];
    let refused = try_create(&manager, "wrong", "worker01", &["8301:8080"], &wrong).failed();
    assert!(refused.contains("local-first"), "{refused}");
    manager.docker(["service", "rm", "near"]).ok();
}

/// Tasks of the host that is asked come first; where it has none, all others share.
fn a_policy_prefers_the_host(lab: &Lab) {
    let manager = lab.host("manager01");
    let words = "service create -d --name first --replicas 2 --replicas-max-per-node 1 \
                 --constraint node.role==worker --constraint node.hostname!=worker03 \
                 --hostname {{.Node.Hostname}} --publish 8400:8080 \
                 --label overnet.publish.8080/tcp=policy=local-first";
    manager.docker(words.split_whitespace().chain([ECHO])).ok();
    until_reachable(lab, 8400);
    let answerers = |host: &str| -> BTreeSet<String> {
        let target = format!("tcp://{}:8400", address(lab, host));
        let said = ask(&lab.host("client"), &vec![target; 30]);
        let names = said.iter().filter_map(|line| line.split(' ').nth(2));
        names.map(str::to_owned).collect()
    };
    let until = |host: &str, expected: &[&str]| {
        let expected: BTreeSet<String> = expected.iter().map(|&name| name.to_owned()).collect();
        wait::until(&format!("{host} leads to {expected:?}"), LIMIT, || {
            let found = answerers(host);
            (found == expected).then_some(()).ok_or(found)
        });
    };
    until("worker01", &["worker01"]);
    until("worker02", &["worker02"]);
    until("worker03", &["worker01", "worker02"]);
    let moved = "service update -d --replicas 1 --constraint-add node.hostname==worker02 first";
    manager.docker(moved.split(' ')).ok();
    until("worker01", &["worker02"]);
    manager.docker(["service", "rm", "first"]).ok();
}

fn counters_are_there(lab: &Lab) {
    let sight = lab
        .host("worker02")
        .api("GET", "/overnet/dataplane", b"")
        .unwrap()
        .json();
    let counters = sight["counters"].as_object().unwrap();
    let connections: u64 = counters
        .values()
        .filter_map(|one| one["connections"].as_u64())
        .sum();
    let bytes: u64 = counters
        .values()
        .filter_map(|one| one["bytes_in"].as_u64())
        .sum();
    assert!(connections > 0 && bytes > 0, "{counters:?}");
}

fn until_answers(lab: &Lab, host: &str, port: u16) -> String {
    let target = [format!("tcp://{}:{port}", address(lab, host))];
    wait::until(&format!("port {port} of {host} answers"), LIMIT, || {
        let said = ask(&lab.host("client"), &target).join("");
        if said.contains("failed") {
            Err(said)
        } else {
            Ok(said)
        }
    })
}

fn single_containers_publish_too(lab: &Lab) {
    let host = lab.host("worker02");
    let run = |more: &[&str]| {
        let words = [&["run", "-d"], more, &[ECHO]].concat();
        host.docker(words)
    };
    run(&["--name", "single", "-p", "8500:8080", "-P"]).ok();
    let said = until_answers(lab, "worker02", 8500);
    assert_peer("client", &said, address(lab, "client"));
    for at in ["127.0.0.1:8500", "[::1]:8500"] {
        let said = ask(&host, &[format!("tcp://{at}")]).join("");
        assert!(!said.contains("failed"), "{said}");
    }
    // The same, and any other exposed port at a free one of the host.
    let ports = host.docker(["port", "single"]).ok();
    assert!(ports.contains("8080/tcp -> 0.0.0.0:8500"), "{ports}");
    assert!(ports.contains("8080/udp -> 0.0.0.0:3"), "{ports}");
    let listed = host.docker(["ps", "--format", "{{.Ports}}", "--filter", "name=single"]);
    assert!(listed.ok().contains("0.0.0.0:8500->8080/tcp"));
    let refused = run(&["--name", "second", "-p", "8500:8080"]).failed();
    assert!(refused.contains("single"), "{refused}");
    let manager = lab.host("manager01");
    let refused = try_create(&manager, "same", "worker01", &["8500:8080"], &[]).failed();
    assert!(
        refused.contains("worker02") && refused.contains("single"),
        "{refused}"
    );
    let refused = run(&["--name", "third", "-p", "8000:8080"]).failed();
    assert!(refused.contains("8000"), "{refused}");
    // It goes on without the daemon, and the next one knows it.
    host.kill().unwrap();
    until_answers(lab, "worker02", 8500);
    host.start().unwrap();
    until_answers(lab, "worker02", 8500);
    host.docker(["rm", "-f", "single", "second", "third"]).ok();
    let said = ask(
        &lab.host("client"),
        &[format!("tcp://{}:8500", address(lab, "worker02"))],
    );
    assert!(said.join("").contains("refused"), "{said:?}");
}

fn host_mode_is_of_the_tasks_host(lab: &Lab) {
    let manager = lab.host("manager01");
    let port = "mode=host,published=8600,target=8080";
    create(&manager, "own", "worker01", &[port], &["--network", "ch03"]);
    let said = until_answers(lab, "worker01", 8600);
    assert_peer("client", &said, address(lab, "client"));
    let other = [format!("tcp://{}:8600", address(lab, "worker02"))];
    let said = ask(&lab.host("client"), &other).join("");
    assert!(said.contains("refused"), "{said}");
    let listed = manager.docker(["service", "ps", "--format", "{{.Ports}}", "own"]);
    let listed = listed.ok();
    assert!(listed.contains("8600->8080/tcp"), "{listed}");
    manager.docker(["service", "rm", "own"]).ok();
}

fn a_lost_host_is_answered_for(lab: &Lab) {
    let manager = lab.host("manager01");
    create(&manager, "doomed", "worker03", &["8200:8080"], &[]);
    until_reachable(lab, 8200);
    let at = SocketAddr::new(address(lab, "worker01"), 8200);
    let client = lab.host("client");
    let mut flow = client
        .within(move || TcpStream::connect(at))
        .unwrap()
        .unwrap();
    flow.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let ask = b"GET /quiet HTTP/1.1\r\nHost: x\r\n\r\n";
    flow.write_all(ask).unwrap();
    let mut answer = [0; 512];
    assert!(flow.read(&mut answer).unwrap() > 0);
    lab.host("worker03").crash().unwrap();
    wait::until("the connection is reset", LIMIT, || {
        let asked = flow.write_all(ask).and_then(|()| flow.read(&mut answer));
        match asked {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let target = [format!("tcp://{at}")];
    let said = self::ask(&client, &target).join("");
    assert!(
        said.contains("refused"),
        "no healthy task, and no refusal: {said}"
    );
    lab.host("worker03").start().unwrap();
    until_reachable(lab, 8200);
}
