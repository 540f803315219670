//! A service under a steady load while its cluster changes: through the published port from
//! outside and through the virtual IP from a container, with a connection per request and with
//! connections that are kept. What is announced costs no request.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{
    collections::BTreeSet,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tests::{Host, Lab, Options, lab::binary, wait};

const ECHO: &str = "registry:5000/example/echo:latest";
const LIMIT: Duration = Duration::from_secs(60);
/// Requests per second of each load.
const RATE: &str = "40";
/// How long the loads go on: longer than all that happens meanwhile.
const ANNOUNCED: u64 = 75;
const UNDISTURBED: u64 = 10;
const SUDDEN: u64 = 25;
const FLOODED: u64 = 15;
const HALF_OPEN: &str = "100000";

/// A load under way: on the client, or in a container of `host`.
enum Load {
    Outside(&'static str, Child),
    Container(&'static str, Box<Host>, String),
}

/// What a load came to.
#[derive(Debug)]
struct Count {
    what: &'static str,
    sent: u64,
    failed: u64,
    lines: String,
}

#[test]
fn no_request_fails_for_what_is_announced() {
    let lab = Lab::up(Options::for_test("load")).unwrap();
    let manager = lab.host("manager01");
    let network = ["network", "create", "-d", "overlay", "--attachable", "ch03"];
    manager.docker(network).ok();
    let created = manager.docker([
        "service",
        "create",
        "-d",
        "--name",
        "echo",
        "--replicas",
        "4",
        "--network",
        "ch03",
        "--publish",
        "8000:8080",
        "--constraint",
        "node.role==worker",
        "--update-parallelism",
        "2",
        ECHO,
    ]);
    created.ok();
    until_running(&manager, 4);
    undisturbed(&lab);
    announced(&lab);
    flooded(&lab);
    sudden(&lab);
    lab.down().unwrap();
}

/// For the picture: what the loads say while nothing happens.
fn undisturbed(lab: &Lab) {
    for count in finish(start(lab, UNDISTURBED)) {
        assert_eq!(count.failed, 0, "{}: {}", count.what, count.lines);
    }
}

fn announced(lab: &Lab) {
    let manager = lab.host("manager01");
    let (begun, loads) = (Instant::now(), start(lab, ANNOUNCED));
    let step = |what: &str| eprintln!("{:6.2} s {what}", begun.elapsed().as_secs_f64());
    step("rolling update");
    manager
        .docker(["service", "update", "-d", "--env-add", "A=1", "echo"])
        .ok();
    let format = "{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}";
    wait::until("the update is complete", LIMIT, || {
        let state = manager
            .docker(["service", "inspect", "--format", format, "echo"])
            .ok();
        if state == "completed" {
            Ok(())
        } else {
            Err(state)
        }
    });
    step("scale up");
    manager.docker(["service", "scale", "-d", "echo=8"]).ok();
    until_running(&manager, 8);
    step("scale down");
    manager.docker(["service", "scale", "-d", "echo=4"]).ok();
    until_running(&manager, 4);
    step("drain");
    let node = |state| ["node", "update", "--availability", state, "worker02"];
    manager.docker(node("drain")).ok();
    wait::until("its tasks run elsewhere", LIMIT, || {
        let now = running(&manager);
        let there = now.iter().any(|line| line.ends_with(" worker02"));
        if now.len() == 4 && !there {
            Ok(())
        } else {
            Err(now)
        }
    });
    manager.docker(node("active")).ok();
    step("ovnd killed");
    lab.host("worker01").kill().unwrap();
    lab.host("worker01").start().unwrap();
    step("another service's ports");
    for _ in 0..3 {
        let other = [
            "service",
            "create",
            "-d",
            "--name",
            "other",
            "--publish",
            "8001:8080",
            ECHO,
        ];
        manager.docker(other).ok();
        manager.docker(["service", "rm", "other"]).ok();
    }
    step("done");
    assert!(
        begun.elapsed() < Duration::from_secs(ANNOUNCED),
        "the loads were over before all had happened"
    );
    for count in finish(loads) {
        assert_eq!(count.failed, 0, "{}: {}", count.what, count.lines);
    }
}

/// A hundred thousand connections are begun by nobody and never gone on with: others do not
/// notice.
fn flooded(lab: &Lab) {
    let loads = start(lab, FLOODED);
    let door = lab.host("worker01");
    let echo = binary("echo").unwrap().display().to_string();
    let target = format!("{}:8000", door.member().address());
    // Nobody has these addresses: what is answered to them goes nowhere.
    let flood = [&echo, "flood", &target, HALF_OPEN, "192.168.77.200"];
    let said = lab.host("client").exec(flood).ok();
    assert_eq!(said, format!("sent {HALF_OPEN}"));
    let setting = |name: &str| -> u64 {
        let path = format!("/proc/sys/net/netfilter/{name}");
        door.exec(["cat", &path]).ok().parse().unwrap()
    };
    let (tracked, most) = (setting("nf_conntrack_count"), setting("nf_conntrack_max"));
    eprintln!("{tracked} connections are tracked, {most} is the most");
    assert!(tracked > 50_000, "the flood has not arrived: {tracked}");
    assert!(tracked <= most, "{tracked} of {most}");
    for count in finish(loads) {
        assert_eq!(count.failed, 0, "{}: {}", count.what, count.lines);
    }
}

fn sudden(lab: &Lab) {
    let manager = lab.host("manager01");
    let loads = start(lab, SUDDEN);
    let begun = Instant::now();
    let worker = lab.host("worker01");
    wait::until("a task runs on worker01", LIMIT, || {
        let ids = worker.docker(["ps", "-q", "--filter", "name=echo."]).ok();
        let id = ids.lines().next().ok_or("none")?;
        let killed = worker.docker(["kill", id]);
        if killed.success() {
            Ok(())
        } else {
            Err("it went by itself")
        }
    });
    eprintln!("{:6.2} s a task is killed", begun.elapsed().as_secs_f64());
    until_running(&manager, 4);
    lab.host("worker03").crash().unwrap();
    eprintln!("{:6.2} s a host is lost", begun.elapsed().as_secs_f64());
    for count in finish(loads) {
        // What was on the task or the host, and what came before its end was noticed.
        eprint!("{}: {}", count.what, count.lines);
        assert!(
            count.failed * 10 < count.sent,
            "{}: {}",
            count.what,
            count.lines
        );
    }
    until_running(&manager, 4);
}

/// The running tasks of the service: name and host of each.
fn running(manager: &Host) -> BTreeSet<String> {
    let format = "{{.Name}} {{.Node}} {{.CurrentState}}";
    let filter = "desired-state=running";
    let words = [
        "service", "ps", "--filter", filter, "--format", format, "echo",
    ];
    let listed = manager.docker(words).ok();
    let running = listed.lines().filter(|line| line.contains(" Running "));
    running
        .map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "))
        .collect()
}

fn until_running(manager: &Host, count: usize) {
    wait::until(&format!("{count} tasks run"), LIMIT, || {
        let there = running(manager);
        if there.len() == count {
            Ok(())
        } else {
            Err(there)
        }
    });
}

/// Four loads: by both ways, with and without keeping connections. The port is that of the
/// manager, which has no task.
fn start(lab: &Lab, seconds: u64) -> Vec<Load> {
    let seconds = seconds.to_string();
    let client = lab.host("client");
    let port = format!("{}:8000", lab.host("manager01").member().address());
    let container = lab.host("worker01");
    let mut loads = Vec::new();
    for (what, keep) in [("port, new", None), ("port, kept", Some("keep"))] {
        let mut command = Command::new(binary("echo").unwrap());
        command.args(["load", &port, &seconds, RATE]).args(keep);
        command.stdout(Stdio::piped());
        loads.push(Load::Outside(what, client.spawn(command).unwrap()));
    }
    // Not attached: the stream of what it prints ends with an ovnd that is killed.
    for (what, keep) in [
        ("virtual IP, new", None),
        ("virtual IP, kept", Some("keep")),
    ] {
        let words = ["run", "-d", "--network", "ch03", ECHO, "load", "echo:8080"];
        let words = words.into_iter().chain([seconds.as_str(), RATE]);
        let id = container.docker(words.chain(keep)).ok();
        loads.push(Load::Container(what, Box::new(container.clone()), id));
    }
    loads
}

fn finish(loads: Vec<Load>) -> Vec<Count> {
    let counts = loads.into_iter().map(|load| {
        let (what, text) = match load {
            Load::Outside(what, child) => {
                let output = child.wait_with_output().unwrap();
                (what, String::from_utf8_lossy(&output.stdout).into_owned())
            }
            Load::Container(what, host, id) => {
                assert_eq!(host.docker(["wait", &id]).ok(), "0", "{what}");
                let text = host.docker(["logs", &id]).ok();
                host.docker(["rm", &id]).ok();
                (what, text)
            }
        };
        let line = text.lines().find(|line| line.starts_with("sent "));
        let line = line.unwrap_or_else(|| panic!("{what}: {text:?}"));
        eprintln!("{what}: {line}");
        let number = |at: usize| {
            let word = line.split(' ').nth(at);
            word.and_then(|word| word.parse().ok()).unwrap()
        };
        Count {
            what,
            sent: number(1),
            failed: number(3),
            lines: text.clone(),
        }
    });
    counts.collect()
}
