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
    lab.host("manager01")
        .ctl(["network", "create", "-d", "overlay", "--attachable", "ch03"])
        .ok();
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
    let before: Vec<Left> = hosts.iter().map(left).collect();
    let memory: Vec<u64> = hosts.iter().map(resident).collect();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for lane in 0..6 {
            let host = &hosts[lane % hosts.len()];
            scope.spawn(move || {
                for _ in 0..34 {
                    let words = ["run", "--rm", "--network", "ch03", TOOLBOX, "true"];
                    host.ctl(words).ok();
                }
            });
        }
    });
    eprintln!("204 runs: {:.1} s", start.elapsed().as_secs_f64());
    for (host, before) in hosts.iter().zip(&before) {
        wait::until(&format!("{} is as it was", host.name()), LIMIT, || {
            let now = left(host);
            (now == *before)
                .then_some(())
                .ok_or(format!("{now:?}, before {before:?}"))
        });
    }
    for (host, before) in hosts.iter().zip(memory) {
        let grown = resident(host).saturating_sub(before);
        assert!(
            grown < 24 << 10,
            "ovnd on {} grew by {grown} KiB",
            host.name()
        );
    }
    // Addresses are free again once their rest has passed, and no host keeps a neighbour.
    let inspect = [
        "network",
        "inspect",
        "--format",
        "{{len .Containers}}",
        "ch03",
    ];
    assert_eq!(hosts[0].ctl(inspect).ok(), "1");
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

/// Each row deletes something of ours by hand; a packet passes again within a second.
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
    let inside = "for ns in $(awk '$5 ~ \"^/run/overnet\" && / nsfs /{print $5}' /proc/self/mountinfo); do \
                  nsenter --net=$ns sh -c \"$1\" && done=1; done; [ -n \"$done\" ]";
    let rows = [
        (
            "the VXLAN device",
            true,
            "d=$(ip -o link show type vxlan | sed 's/^[0-9]*: \\([^:@]*\\).*/\\1/' | head -n1); [ -n \"$d\" ] && ip link del $d",
        ),
        (
            "forwarding entries",
            true,
            "d=$(ip -o link show type vxlan | sed 's/^[0-9]*: \\([^:@]*\\).*/\\1/' | head -n1); [ -n \"$d\" ] && bridge fdb show dev $d | grep dst | while read mac rest; do bridge fdb del $mac dev $d self; done",
        ),
        (
            "the host's nftables table",
            false,
            "nft delete table inet overnet",
        ),
    ];
    for (what, in_networks, script) in rows {
        let log_before = std::fs::read_to_string(two.log()).unwrap_or_default().len();
        if in_networks {
            two.exec(["sh", "-c", inside, "sh", script]).ok();
        } else {
            two.exec(["sh", "-c", script]).ok();
        }
        let deleted = Instant::now();
        wait::until(&format!("{what} is back"), LIMIT, || {
            let table = two
                .exec(["nft", "list", "table", "inet", "overnet"])
                .success();
            let ping = [
                "nsenter", "-t", &pid, "-n", "busybox", "ping", "-c1", "-W1", &api,
            ];
            (table && two.exec(ping).success())
                .then_some(())
                .ok_or("not yet")
        });
        let took = deleted.elapsed();
        assert!(took < Duration::from_secs(2), "{what}: back after {took:?}");
        let log = std::fs::read_to_string(two.log()).unwrap();
        assert!(log.len() > log_before, "{what}: the log says nothing");
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
