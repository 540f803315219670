//! What breaks: daemons die, hosts go, someone deletes what is ours. Containers keep talking,
//! and everything is as it was once the daemon is back.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tests::{Host, Lab, Options, wait};

const ECHO: &str = "registry:5000/example/echo:latest";
const TOOLBOX: &str = "registry:5000/example/toolbox";
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn containers_outlive_daemons_hosts_come_back() {
    let lab = Lab::up(Options::for_test("faults")).unwrap();
    let (manager, one, two) = (
        lab.host("manager01"),
        lab.host("worker01"),
        lab.host("worker02"),
    );
    manager
        .ctl(["network", "create", "-d", "overlay", "--attachable", "ch03"])
        .ok();
    one.ctl(["run", "-d", "--name", "api", "--network", "ch03", ECHO])
        .ok();
    two.ctl([
        "run",
        "-d",
        "--name",
        "asker",
        "--network",
        "ch03",
        TOOLBOX,
        "sleep",
        "100000",
    ])
    .ok();
    killed_while_containers_talk(&lab, "worker01");
    killed_while_containers_talk(&lab, "worker02");
    killed_while_containers_talk(&lab, "manager01");
    a_name_asked_while_its_daemon_is_dead(&lab);
    logs_are_complete(&lab);
    the_manager_is_dead_for_a_while(&lab);
    parted_hosts_heal(&lab);
    drift_is_repaired(&lab);
    a_host_reboots(&lab);
    lab.down().unwrap();
}

#[test]
fn two_hundred_runs_leave_nothing() {
    let lab = Lab::up(Options::for_test("leaks")).unwrap();
    let manager = lab.host("manager01");
    // 61 addresses for 267 containers: those of the first must come back for the last.
    let create = "network create -d overlay --attachable --subnet 10.78.0.0/26 ch03";
    manager.ctl(create.split(' ')).ok();
    let hosts: Vec<Host> = (1..=3)
        .map(|n| lab.host(&format!("worker{n:02}")))
        .collect();
    for host in &hosts {
        // The first run makes what stays as long as the network is used here.
        host.ctl([
            "run",
            "-d",
            "--name",
            "stay",
            "--network",
            "ch03",
            TOOLBOX,
            "sleep",
            "100000",
        ])
        .ok();
        host.ctl(["run", "--rm", "--network", "ch03", TOOLBOX, "true"])
            .ok();
    }
    for host in &hosts {
        // It follows a little later that hosts share a network.
        wait::until("the hosts' own network is laid", LIMIT, || {
            let there = host.exec(["test", "-e", "/run/overnet/netns/paths"]);
            there.success().then_some(()).ok_or("not yet")
        });
    }
    let before: Vec<Left> = hosts.iter().map(left).collect();
    let once = |host: &Host| {
        host.ctl(["run", "--rm", "--network", "ch03", TOOLBOX, "true"])
            .ok();
    };
    let runs = |each: usize| {
        std::thread::scope(|scope| {
            for lane in 0..6 {
                let (host, once) = (&hosts[lane % hosts.len()], &once);
                scope.spawn(move || (0..each).for_each(|_| once(host)));
            }
        });
    };
    let start = Instant::now();
    // The first ones fill caches and the allocator's reserves.
    runs(10);
    let daemons: Vec<&Host> = hosts.iter().chain([&manager]).collect();
    let memory: Vec<u64> = daemons.iter().map(|host| resident(host)).collect();
    runs(24);
    eprintln!("204 runs: {:.1} s", start.elapsed().as_secs_f64());
    for (host, before) in hosts.iter().zip(&before) {
        wait::until(&format!("{} is as it was", host.name()), LIMIT, || {
            let now = left(host);
            (now == *before)
                .then_some(())
                .ok_or(format!("{now:?}, before {before:?}"))
        });
    }
    let grown: Vec<u64> = daemons
        .iter()
        .zip(memory)
        .map(|(host, before)| resident(host).saturating_sub(before))
        .collect();
    eprintln!("144 runs made the daemons grow by {grown:?} KiB");
    assert!(grown.iter().all(|grown| *grown < 6 << 10), "{grown:?} KiB");
    lab.down().unwrap();
}

/// What a host has of containers, as numbers.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    mounts: usize,
    namespaces: usize,
    links: usize,
    processes: usize,
    containers: usize,
}

fn left(host: &Host) -> Left {
    let count = |script: &str| {
        let output = host.exec(["sh", "-c", script]).ok();
        output
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("{script}: {output}"))
    };
    Left {
        mounts: count("wc -l < /proc/self/mounts"),
        namespaces: count("grep -c ' nsfs ' /proc/self/mountinfo || true"),
        links: count("ip -o link | wc -l"),
        processes: count("ls /proc | grep -c '^[0-9]'"),
        containers: host.ctl(["ps", "-aq"]).ok().lines().count(),
    }
}

/// Resident memory of ovnd in KiB.
fn resident(host: &Host) -> u64 {
    let pid = host.daemon_pid().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn asker(lab: &Lab, words: &[&str]) -> tests::Output {
    let mut args = vec!["exec", "asker"];
    args.extend(words);
    lab.host("worker02").ctl(args)
}

/// Runs the probe beside the containers, without any daemon: in the asker's namespaces.
fn probe(lab: &Lab, seconds: &str) -> Child {
    let two = lab.host("worker02");
    let pid = two
        .ctl(["inspect", "--format", "{{.State.Pid}}", "asker"])
        .ok();
    let address = "{{.NetworkSettings.Networks.ch03.IPAddress}}";
    let api = lab
        .host("worker01")
        .ctl(["inspect", "--format", address, "api"])
        .ok();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_echo"));
    let mut command = Command::new("nsenter");
    command.args(["-t", &pid, "-n", "--"]).arg(program);
    command.args(["probe", &format!("{api}:8080"), seconds, "500"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    two.spawn(command).unwrap()
}

#[track_caller]
fn no_packet_lost(probe: Child) {
    let output = probe.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    eprint!("{said}");
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.starts_with("sent 3000 answered 3000"), "{said}");
}

fn killed_while_containers_talk(lab: &Lab, name: &str) {
    let host = lab.host(name);
    let list = [
        "ps",
        "--no-trunc",
        "--format",
        "{{.ID}} {{.Names}} {{.State}}",
    ];
    let before = host.ctl(list).ok();
    let stream = probe(lab, "6");
    let pid = host.daemon_pid().unwrap();
    host.kill().unwrap();
    assert!(host.daemon_status().unwrap().starts_with("stopped"));
    assert!(
        host.ctl(["ps"]).failed().contains("ovnd"),
        "no hint that the daemon is down"
    );
    host.start().unwrap();
    assert_ne!(host.daemon_pid().unwrap(), pid);
    assert_eq!(host.ctl(list).ok(), before);
    no_packet_lost(stream);
    // Adopted: what the next daemon does to them works.
    wait::until("names answer again", LIMIT, || {
        let answer = asker(lab, &["wget", "-T", "2", "-qO-", "http://api:8080"]);
        (answer.stdout == "Hello Docker!!")
            .then_some(())
            .ok_or(answer)
    });
}

fn a_name_asked_while_its_daemon_is_dead(lab: &Lab) {
    let two = lab.host("worker02");
    let pid = two
        .ctl(["inspect", "--format", "{{.State.Pid}}", "asker"])
        .ok();
    two.kill().unwrap();
    // dig waits 5 s for an answer; the question is in the socket that the keeper holds.
    let mut dig = Command::new("nsenter");
    dig.args([
        "-t",
        &pid,
        "-n",
        "--",
        "dig",
        "@127.0.0.11",
        "+short",
        "+tries=1",
        "+time=5",
        "api",
    ]);
    dig.stdin(Stdio::null()).stdout(Stdio::piped());
    let asked = Instant::now();
    let dig = two.spawn(dig).unwrap();
    wait::until("the question is asked", LIMIT, || {
        (asked.elapsed() > Duration::from_millis(500))
            .then_some(())
            .ok_or("not yet")
    });
    two.start().unwrap();
    let output = dig.wait_with_output().unwrap();
    let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    eprintln!(
        "answered after {:.2} s: {answer}",
        asked.elapsed().as_secs_f64()
    );
    assert!(answer.starts_with("10."), "{answer}");
}

/// A container that writes while its daemon is dead: every line is there afterwards.
fn logs_are_complete(lab: &Lab) {
    let one = lab.host("worker01");
    let script =
        "i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); usleep 10000; done; sleep 100000";
    one.ctl(["run", "-d", "--name", "writer", TOOLBOX, "sh", "-c", script])
        .ok();
    one.kill().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    one.start().unwrap();
    let wanted: Vec<String> = (0..400).map(|i| format!("line {i}")).collect();
    wait::until("all lines are written", LIMIT, || {
        let logs = one.ctl(["logs", "writer"]).ok();
        let lines: Vec<&str> = logs.lines().collect();
        (lines == wanted).then_some(()).ok_or(lines.len())
    });
    one.ctl(["rm", "-f", "writer"]).ok();
}

fn the_manager_is_dead_for_a_while(lab: &Lab) {
    let (manager, three) = (lab.host("manager01"), lab.host("worker03"));
    manager.kill().unwrap();
    assert_eq!(
        asker(lab, &["wget", "-qO-", "http://api:8080"]).ok(),
        "Hello Docker!!"
    );
    // The worker still starts what needs no decision.
    three.ctl(["run", "--rm", TOOLBOX, "true"]).ok();
    manager.start().unwrap();
    let words = [
        "run",
        "--rm",
        "--network",
        "ch03",
        TOOLBOX,
        "wget",
        "-T",
        "5",
        "-qO-",
        "http://api:8080",
    ];
    wait::until("attach works again", LIMIT, || {
        let output = three.ctl(words);
        (output.stdout == "Hello Docker!!")
            .then_some(())
            .ok_or(output)
    });
    let listed = manager.ctl(["network", "ls", "--format", "{{.Name}}"]).ok();
    assert!(listed.contains("ch03"), "{listed}");
}

fn node_state(lab: &Lab, name: &str) -> String {
    let words = [
        "node",
        "ls",
        "--format",
        "{{.Hostname}} {{.Status}} {{.ID}}",
    ];
    let listed = lab.host("manager01").ctl(words).ok();
    listed
        .lines()
        .find(|line| line.starts_with(name))
        .unwrap_or_default()
        .to_owned()
}

#[track_caller]
fn becomes(lab: &Lab, name: &str, state: &str) {
    wait::until(&format!("{name} is {state}"), LIMIT, || {
        let now = node_state(lab, name);
        (now.split(' ').nth(1) == Some(state))
            .then_some(())
            .ok_or(now)
    });
}

fn parted_hosts_heal(lab: &Lab) {
    lab.partition("manager01", "worker01").unwrap();
    becomes(lab, "worker01", "Down");
    // Its containers are none of the partition's business.
    assert_eq!(
        asker(lab, &["wget", "-qO-", "http://api:8080"]).ok(),
        "Hello Docker!!"
    );
    lab.heal().unwrap();
    becomes(lab, "worker01", "Ready");
}

/// One thing that somebody deletes by hand.
struct Drift {
    what: &'static str,
    /// Whether the scripts run in the namespaces of the overlay networks.
    in_networks: bool,
    delete: &'static str,
    /// Prints the same before and after.
    count: &'static str,
    /// What the log says of it.
    sentence: &'static str,
}

const DEVICE: &str =
    "d=$(ip -o link show type vxlan | sed 's/^[0-9]*: \\([^:@]*\\).*/\\1/' | head -n1); ";

const DRIFTS: [Drift; 3] = [
    Drift {
        what: "the VXLAN device",
        in_networks: true,
        delete: "[ -n \"$d\" ] && ip link del $d",
        count: "bridge fdb show dev $d | grep -c dst",
        sentence: "drift: network ch03: VXLAN device ovtv",
    },
    Drift {
        what: "forwarding entries",
        in_networks: true,
        delete: "bridge fdb show dev $d | grep dst | while read mac rest; do bridge fdb del $mac dev $d self; done",
        count: "bridge fdb show dev $d | grep -c dst",
        sentence: "drift: network ch03: forwarding entry 02:42:",
    },
    Drift {
        what: "the host's nftables table",
        in_networks: false,
        delete: "nft delete table inet overnet",
        count: "nft list table inet overnet | grep -c chain",
        sentence: "drift: host: nftables table overnet is missing",
    },
];

/// Each is back within a second, packets pass again, and the log says what differed.
fn drift_is_repaired(lab: &Lab) {
    let two = lab.host("worker02");
    let address = "{{.NetworkSettings.Networks.ch03.IPAddress}}";
    let api = lab
        .host("worker01")
        .ctl(["inspect", "--format", address, "api"])
        .ok();
    let pid = two
        .ctl(["inspect", "--format", "{{.State.Pid}}", "asker"])
        .ok();
    // Overlay networks have namespaces of their own, bound under /run/overnet.
    let inside = "for ns in $(awk '$5 ~ \"^/run/overnet/netns/o\" && / nsfs /{print $5}' /proc/self/mountinfo); do \
                  nsenter --net=$ns sh -c \"$1\" && done=1; done; [ -n \"$done\" ]";
    for drift in &DRIFTS {
        let what = drift.what;
        let script = |script: &str| {
            if drift.in_networks {
                two.exec(["sh", "-c", inside, "sh", &format!("{DEVICE}{script}")])
            } else {
                two.exec(["sh", "-c", script])
            }
        };
        let before = script(drift.count).ok();
        // A machine at work on something else may be late once, not three times.
        let mut times = Vec::new();
        for _ in 0..3 {
            let log_before = std::fs::read_to_string(two.log()).unwrap().len();
            let deleted = Instant::now();
            script(drift.delete).ok();
            wait::until(&format!("{what}: back"), LIMIT, || {
                let now = script(drift.count);
                (now.success() && now.stdout.trim_end() == before)
                    .then_some(())
                    .ok_or(now)
            });
            times.push(deleted.elapsed());
            let ping = "busybox ping -c3 -i0.2 -W2";
            let mut words = vec!["nsenter", "-t", &pid, "-n"];
            words.extend(ping.split(' '));
            words.push(&api);
            two.exec(words).ok();
            let log = std::fs::read_to_string(two.log()).unwrap();
            assert!(
                log[log_before..].contains(drift.sentence),
                "{what}: no {:?} in {}",
                drift.sentence,
                &log[log_before..]
            );
            if times.last().unwrap() < &Duration::from_secs(1) {
                break;
            }
        }
        let best = times.iter().min().unwrap();
        assert!(
            *best < Duration::from_secs(1),
            "{what}: back after {times:?}"
        );
    }
}

fn a_host_reboots(lab: &Lab) {
    let one = lab.host("worker01");
    one.ctl([
        "run",
        "-d",
        "--restart",
        "always",
        "--name",
        "back",
        "--network",
        "ch03",
        ECHO,
    ])
    .ok();
    one.ctl([
        "run",
        "-d",
        "--restart",
        "no",
        "--name",
        "gone",
        "--network",
        "ch03",
        ECHO,
    ])
    .ok();
    let identity = node_state(lab, "worker01");
    one.crash().unwrap();
    becomes(lab, "worker01", "Down");
    one.start().unwrap();
    becomes(lab, "worker01", "Ready");
    assert_eq!(node_state(lab, "worker01"), identity);
    wait::until("the restarted container answers", LIMIT, || {
        let answer = asker(lab, &["wget", "-T", "2", "-qO-", "http://back:8080"]);
        (answer.stdout == "Hello Docker!!")
            .then_some(())
            .ok_or(answer)
    });
    let state = |name: &str| {
        one.ctl(["inspect", "--format", "{{.State.Status}}", name])
            .ok()
    };
    assert_eq!(state("gone"), "exited");
    assert_eq!(state("api"), "exited");
    // What is gone is not answered for any more.
    wait::until("the name of a dead container ends", LIMIT, || {
        let answer = asker(lab, &["dig", "+short", "gone"]).ok();
        answer.is_empty().then_some(()).ok_or(answer)
    });
    one.ctl(["start", "api"]).ok();
    assert_eq!(
        asker(lab, &["wget", "-qO-", "http://api:8080"]).ok(),
        "Hello Docker!!"
    );
}
