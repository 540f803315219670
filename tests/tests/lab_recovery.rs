//! Hosts that come back as others than they were: with an old disk, or at another address.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use tests::{Host, Lab, Options, wait};

const ECHO: &str = "registry:5000/example/echo:latest";
const TOOLBOX: &str = "registry:5000/example/toolbox:latest";
const LIMIT: Duration = Duration::from_secs(120);
const MANAGERS: [&str; 3] = ["manager01", "manager02", "manager03"];
/// A little more than how often a manager writes down how far the others are.
const WRITTEN_DOWN: Duration = Duration::from_secs(3);

fn lab(name: &str, workers: u8) -> Lab {
    Lab::up(Options {
        managers: 3,
        workers,
        ..Options::for_test(name)
    })
    .unwrap()
}

fn listed(host: &Host, format: &str) -> BTreeSet<String> {
    let listed = host.ctl(["node", "ls", "--format", format]);
    let lines = listed.stdout.lines();
    lines.map(|line| line.trim_end().to_owned()).collect()
}

fn until_all_reachable(lab: &Lab) {
    for name in MANAGERS {
        let host = lab.host(name);
        wait::until(&format!("{name} sees all managers"), LIMIT, || {
            let nodes = listed(&host, "{{.Hostname}} {{.Status}} {{.ManagerStatus}}");
            let count = |word: &str| nodes.iter().filter(|s| s.ends_with(word)).count();
            let well = count(" Ready Leader") == 1 && count(" Ready Reachable") == 2;
            well.then_some(()).ok_or(nodes)
        });
    }
}

fn until_written(host: &Host, network: &str) {
    let begun = Instant::now();
    loop {
        let output = host.ctl(["network", "create", "-d", "overlay", network]);
        if output.success() || output.stderr.contains("already exists") {
            eprintln!("{network}: written after {:?}", begun.elapsed());
            return;
        }
        assert!(begun.elapsed() < LIMIT, "{output:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn has_said(host: &Host, words: &str) -> bool {
    std::fs::read_to_string(host.log()).is_ok_and(|log| log.contains(words))
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status();
    assert!(copied.unwrap().success());
}

/// The copy is from before much that the host has acknowledged since, and nobody who runs has heard
/// that from it: all others were restarted meanwhile.
#[test]
fn an_old_disk_is_refused_and_the_host_joins_anew() {
    let lab = lab("recovery-disk", 0);
    until_all_reachable(&lab);
    let (one, two, three) = (
        lab.host("manager01"),
        lab.host("manager02"),
        lab.host("manager03"),
    );
    until_written(&one, "before");
    three.kill().unwrap();
    let state = three.dir().join("lib/swarm/manager");
    let old = three.dir().join("old");
    copy(&state, &old);
    three.start().unwrap();
    until_all_reachable(&lab);
    for number in 0..10 {
        until_written(&two, &format!("net{number}"));
    }
    three.ctl(["network", "inspect", "net9"]).ok();
    std::thread::sleep(WRITTEN_DOWN);
    for host in [&three, &one, &two] {
        host.kill().unwrap();
    }
    std::fs::remove_dir_all(&state).unwrap();
    std::fs::rename(&old, &state).unwrap();
    // With the old disk first, and one other: together they would be a majority that has lost what
    // was acknowledged.
    three.start().unwrap();
    one.start().unwrap();
    wait::until("the old disk is found out", LIMIT, || {
        has_said(&one, "has gone back").then_some(()).ok_or(())
    });
    let status = one.ctl(["cluster", "status"]);
    let row = status.stdout.lines().find(|row| row.contains("manager03"));
    assert!(
        row.is_some_and(|row| row.contains("Outdated")),
        "{status:?}"
    );
    let refused = three.ctl(["network", "create", "-d", "overlay", "early"]);
    assert!(!refused.success(), "{refused:?}");
    two.start().unwrap();
    until_written(&one, "after");
    until_all_reachable(&lab);
    assert!(has_said(&three, "its state is old"), "it has joined anew");
    for number in 0..10 {
        three
            .ctl(["network", "inspect", &format!("net{number}")])
            .ok();
    }
    for host in [&one, &two, &three] {
        host.ctl(["network", "inspect", "after"]).ok();
    }
    lab.down().unwrap();
}

/// As docs/managers.md has it: a lost manager is taken out and another takes its place; should the
/// lost one come back, it is refused, leaves, and may join again.
#[test]
fn a_lost_manager_is_replaced() {
    let lab = lab("recovery-lost", 1);
    until_all_reachable(&lab);
    let (one, three, worker) = (
        lab.host("manager01"),
        lab.host("manager03"),
        lab.host("worker01"),
    );
    three.kill().unwrap();
    wait::until("it is seen that one is away", LIMIT, || {
        let nodes = listed(&one, "{{.Hostname}} {{.ManagerStatus}}");
        let seen = nodes.contains("manager03 Unreachable");
        seen.then_some(()).ok_or(nodes)
    });
    one.ctl(["node", "demote", "manager03"]).ok();
    one.ctl(["node", "rm", "--force", "manager03"]).ok();
    let join = |host: &Host| {
        let token = one.ctl(["swarm", "join-token", "-q", "manager"]).ok();
        let address = format!("{}:2377", one.member().address());
        host.ctl(["swarm", "join", "--token", token.trim(), &address])
            .ok();
    };
    worker.ctl(["swarm", "leave"]).ok();
    join(&worker);
    let until_three_managers = |others: [&str; 3]| {
        wait::until(&format!("{others:?} are managers"), LIMIT, || {
            let nodes = listed(&one, "{{.Hostname}} {{.Status}} {{.ManagerStatus}}");
            let well = |name: &&str| {
                let reachable = nodes.contains(&format!("{name} Ready Reachable"));
                reachable || nodes.contains(&format!("{name} Ready Leader"))
            };
            others.iter().all(well).then_some(()).ok_or(nodes)
        });
    };
    until_three_managers(["manager01", "manager02", "worker01"]);
    until_written(&one, "replaced");
    // It was only believed to be lost.
    three.start().unwrap();
    wait::until("it says that it was removed", LIMIT, || {
        let info = three.ctl(["info", "--format", "{{.Swarm.Error}}"]);
        let said = info.stdout.contains("was removed from the cluster");
        said.then_some(()).ok_or(info)
    });
    three.ctl(["swarm", "leave", "--force"]).ok();
    join(&three);
    until_three_managers(["manager01", "manager03", "worker01"]);
    three.ctl(["network", "inspect", "replaced"]).ok();
    lab.down().unwrap();
}

/// Gives the host another address in place of the one it has.
fn move_to(host: &Host, address: &str) {
    let script = format!(
        "for a in $(ip -4 -o addr show dev eth0 | awk '{{print $4}}'); do ip addr del $a dev eth0; done
         ip addr add {address}/24 brd + dev eth0
         ip route replace default via 192.168.77.1 dev eth0"
    );
    host.exec(["sh", "-c", &script]).ok();
}

fn answers(host: &Host, what: &str) {
    for network in ["plain", "secret"] {
        let asker = format!("asker-{network}");
        let url = format!("http://server-{network}:8080");
        wait::until(&format!("{what}: server-{network} answers"), LIMIT, || {
            let answer = host.ctl(["exec", &asker, "wget", "-T", "2", "-qO-", &url]);
            answer.success().then_some(()).ok_or(answer)
        });
    }
}

fn until_known_at(host: &Host, moved: &str, address: &str) {
    let format = "{{.Status.Addr}}";
    wait::until(&format!("{moved} is known at {address}"), LIMIT, || {
        let shown = host.ctl(["node", "inspect", moved, "--format", format]);
        (shown.stdout.trim() == address).then_some(()).ok_or(shown)
    });
}

/// As the managers know each other.
fn until_spoken_to_at(host: &Host, manager: &str, address: &str) {
    let format = ["node", "inspect", "--format", "{{.ManagerStatus.Addr}}"];
    let what = format!("{manager} is spoken to at {address}");
    wait::until(&what, LIMIT, || {
        let shown = host.ctl(format.into_iter().chain([manager])).stdout;
        (shown.trim() == format!("{address}:2377"))
            .then_some(())
            .ok_or(shown)
    });
}

fn leader(host: &Host) -> String {
    let listed = host.ctl(["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"]);
    let lines = listed.ok();
    let leads = lines.lines().find_map(|line| line.strip_suffix(" Leader"));
    leads.unwrap_or_default().to_owned()
}

#[test]
fn a_host_with_another_address_is_found_there() {
    let lab = lab("recovery-address", 1);
    until_all_reachable(&lab);
    let (one, three, worker) = (
        lab.host("manager01"),
        lab.host("manager03"),
        lab.host("worker01"),
    );
    for (network, options) in [("plain", &[][..]), ("secret", &["--opt", "encrypted"])] {
        let create = ["network", "create", "-d", "overlay", "--attachable"];
        one.ctl(create.iter().chain(options).chain([&network])).ok();
        let server = format!("server-{network}");
        three
            .ctl(["run", "-d", "--name", &server, "--network", network, ECHO])
            .ok();
        let asker = format!("asker-{network}");
        let words = ["run", "-d", "--name", &asker, "--network", network, TOOLBOX];
        worker.ctl(words.iter().chain(&["sleep", "100000"])).ok();
    }
    answers(&worker, "before");
    let running = |host: &Host| host.ctl(["ps", "-q"]).ok();
    let before = (running(&three), running(&worker));

    // A follower.
    let begun = Instant::now();
    move_to(&three, "192.168.77.213");
    until_known_at(&one, "manager03", "192.168.77.213");
    until_all_reachable(&lab);
    answers(&worker, "a moved manager");
    eprintln!("a follower has moved: {:?}", begun.elapsed());
    until_spoken_to_at(&one, "manager03", "192.168.77.213");

    // A worker.
    move_to(&worker, "192.168.77.201");
    until_known_at(&one, "worker01", "192.168.77.201");
    answers(&worker, "a moved worker");

    // The leader: another one leads at once, and hosts that know only its old address go on.
    let begun = Instant::now();
    assert_eq!(leader(&three), "manager01");
    move_to(&one, "192.168.77.211");
    until_known_at(&three, "manager01", "192.168.77.211");
    until_spoken_to_at(&three, "manager01", "192.168.77.211");
    until_all_reachable(&lab);
    answers(&worker, "a moved leader");
    eprintln!("the leader has moved: {:?}", begun.elapsed());

    // Each of them counts at its new address: two of three suffice.
    one.kill().unwrap();
    until_written(&three, "without");
    one.start().unwrap();
    until_all_reachable(&lab);
    assert_eq!(
        (running(&three), running(&worker)),
        before,
        "nothing was restarted"
    );
    lab.down().unwrap();
}

/// Hosts that know each other by IPv6 alone.
#[test]
fn networks_work_over_ipv6() {
    let lab = Lab::up(Options {
        workers: 2,
        cluster: false,
        ..Options::for_test("recovery-ipv6")
    })
    .unwrap();
    let (manager, one, two) = (
        lab.host("manager01"),
        lab.host("worker01"),
        lab.host("worker02"),
    );
    // Images come by IPv4; after that there is none.
    one.ctl(["pull", ECHO]).ok();
    two.ctl(["pull", TOOLBOX]).ok();
    for host in [&manager, &one, &two] {
        host.exec(["ip", "-4", "addr", "flush", "dev", "eth0"]).ok();
    }
    let address = manager.member().address6().to_string();
    manager.ctl(["swarm", "init"]).ok();
    let token = manager.ctl(["swarm", "join-token", "-q", "worker"]).ok();
    for host in [&one, &two] {
        host.ctl([
            "swarm",
            "join",
            "--token",
            token.trim(),
            &format!("[{address}]:2377"),
        ])
        .ok();
    }
    let known = listed(&manager, "{{.Hostname}} {{.Status}}");
    assert_eq!(known.len(), 3, "{known:?}");
    for (network, options) in [("plain", &[][..]), ("secret", &["--opt", "encrypted"])] {
        let create = ["network", "create", "-d", "overlay", "--attachable"];
        manager
            .ctl(create.iter().chain(options).chain([&network]))
            .ok();
        let server = format!("server-{network}");
        one.ctl(["run", "-d", "--name", &server, "--network", network, ECHO])
            .ok();
        let asker = format!("asker-{network}");
        let words = ["run", "-d", "--name", &asker, "--network", network, TOOLBOX];
        two.ctl(words.iter().chain(&["sleep", "100000"])).ok();
    }
    answers(&two, "over IPv6");
    for (network, mtu) in [("plain", "1430"), ("secret", "1350")] {
        let asker = format!("asker-{network}");
        let link = two.ctl(["exec", &asker, "ip", "link"]).ok();
        assert!(link.contains(&format!("mtu {mtu} ")), "{network}: {link}");
        // A packet of full size, and none larger.
        let size = (mtu.parse::<u32>().unwrap() - 28).to_string();
        let server = format!("server-{network}");
        let ping = [
            "exec", &asker, "ping", "-c", "1", "-w", "5", "-s", &size, &server,
        ];
        wait::until(&format!("{network}: full packets pass"), LIMIT, || {
            let pinged = two.ctl(ping);
            pinged.success().then_some(()).ok_or(pinged)
        });
    }
    wait::until("the paths are measured", LIMIT, || {
        let checked = manager.ctl(["network", "check", "secret"]);
        let said = checked.stdout.contains("UDP 51820");
        (checked.success() && said).then_some(()).ok_or(checked)
    });
    lab.down().unwrap();
}
