//! Several managers: any of them may die or be cut off, and the cluster goes on, or says why it
//! cannot.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tests::{Host, Lab, Options, wait};

const ECHO: &str = "registry:5000/example/echo:latest";
const TOOLBOX: &str = "registry:5000/example/toolbox";
const LIMIT: Duration = Duration::from_secs(90);
const MANAGERS: [&str; 3] = ["manager01", "manager02", "manager03"];

fn lab(name: &str, workers: u8) -> Lab {
    Lab::up(Options {
        managers: 3,
        workers,
        ..Options::for_test(name)
    })
    .unwrap()
}

/// `HOST STATUS` of all nodes, as the socket of this host shows them.
fn nodes(host: &Host) -> Vec<String> {
    let format = "{{.Hostname}} {{.ManagerStatus}}";
    let listed = host.ctl(["node", "ls", "--format", format]);
    let lines = listed.stdout.lines();
    lines.map(|line| line.trim_end().to_owned()).collect()
}

/// The same of the first managers.
fn statuses(host: &Host) -> Vec<String> {
    let mut nodes = nodes(host);
    nodes.retain(|line| line.starts_with("manager"));
    nodes
}

/// A worker that was promoted may lead, too.
fn leader(host: &Host) -> Option<String> {
    let nodes = nodes(host);
    let leads = nodes.iter().find(|line| line.ends_with(" Leader"))?;
    leads.split(' ').next().map(str::to_owned)
}

fn until_all_reachable(lab: &Lab) {
    for name in MANAGERS {
        let host = lab.host(name);
        wait::until(&format!("{name} sees all managers"), LIMIT, || {
            let statuses = statuses(&host);
            let count = |word: &str| statuses.iter().filter(|s| s.ends_with(word)).count();
            (count(" Leader") == 1 && count(" Reachable") == 2)
                .then_some(())
                .ok_or(statuses)
        });
    }
}

/// Creates a network at this host, and answers how long it took until that was accepted.
fn until_written(host: &Host, network: &str) -> Duration {
    let begun = Instant::now();
    loop {
        let output = host.ctl(["network", "create", "-d", "overlay", network]);
        if output.success() || output.stderr.contains("already exists") {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < LIMIT, "{output:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The running tasks: name, id and host.
fn running(host: &Host) -> BTreeSet<String> {
    let format = "{{.ID}} {{.Name}} {{.Node}} {{.CurrentState}}";
    let listed = host.ctl([
        "service",
        "ps",
        "--no-trunc",
        "--filter",
        "desired-state=running",
        "--format",
        format,
        "echo",
    ]);
    let lines = listed.stdout.lines();
    lines
        .filter(|line| line.contains(" Running "))
        .map(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" "))
        .collect()
}

#[test]
fn managers_die_and_are_exchanged() {
    let lab = lab("managers", 2);
    until_all_reachable(&lab);
    services_run(&lab);
    the_leader_dies(&lab);
    a_follower_restarts(&lab);
    a_damaged_log_is_fetched_anew(&lab);
    a_full_disk_loses_nothing(&lab);
    a_minority_says_so(&lab);
    roles_change(&lab);
    lab.down().unwrap();
}

fn services_run(lab: &Lab) {
    let any = lab.host("manager02");
    any.ctl(["network", "create", "-d", "overlay", "--attachable", "ch03"])
        .ok();
    // Tasks of a manager that is dead are given to others after a while; these are not to move.
    let words =
        "service create -d --replicas 4 --network ch03 --constraint node.role==worker --name echo";
    any.ctl(words.split(' ').chain([ECHO])).ok();
    wait::until("four replicas run", LIMIT, || {
        let there = running(&any);
        (there.len() == 4).then_some(()).ok_or(there)
    });
    lab.host("worker01")
        .ctl([
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
}

/// The containers' network works.
fn containers_talk(lab: &Lab) {
    let words = [
        "exec",
        "asker",
        "wget",
        "-T",
        "5",
        "-qO-",
        "http://echo:8080",
    ];
    assert_eq!(lab.host("worker01").ctl(words).ok(), "Hello Docker!!");
}

fn the_leader_dies(lab: &Lab) {
    let before = running(&lab.host("manager01"));
    for round in 0..3 {
        let name = MANAGERS
            .iter()
            .find_map(|name| leader(&lab.host(name)))
            .unwrap();
        let dead = lab.host(&name);
        let others: Vec<Host> = MANAGERS
            .iter()
            .filter(|other| **other != name)
            .map(|other| lab.host(other))
            .collect();
        dead.kill().unwrap();
        let took = until_written(&others[0], &format!("after{round}"));
        eprintln!("leader {name} killed, a write accepted after {took:?}");
        assert!(took < Duration::from_secs(20), "{took:?}");
        containers_talk(lab);
        let next = wait::until("the other survivor names the leader", LIMIT, || {
            let found = leader(&others[1]).filter(|found| *found != name);
            found.ok_or_else(|| statuses(&others[1]))
        });
        eprintln!("{next} leads");
        // Longer than hosts may be silent: none is down, no task has moved.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(8) {
            assert_eq!(running(&others[0]), before);
            std::thread::sleep(Duration::from_millis(500));
        }
        let format = "{{.Hostname}} {{.Status}}";
        let listed = others[0].ctl(["node", "ls", "--format", format]).ok();
        for worker in ["worker01", "worker02"] {
            assert!(listed.contains(&format!("{worker} Ready")), "{listed}");
        }
        dead.start().unwrap();
        until_all_reachable(lab);
    }
    let networks = lab
        .host("manager03")
        .ctl(["network", "ls", "--format", "{{.Name}}"])
        .ok();
    for round in 0..3 {
        assert!(networks.contains(&format!("after{round}")), "{networks}");
    }
    assert_eq!(running(&lab.host("manager01")), before);
}

fn a_follower_restarts(lab: &Lab) {
    let leads = leader(&lab.host("manager01")).unwrap();
    let name = MANAGERS.iter().find(|name| **name != leads).unwrap();
    let follower = lab.host(name);
    follower.stop().unwrap();
    // Nobody waits for it.
    let took = until_written(&lab.host(&leads), "without");
    eprintln!("a write without one follower: {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    wait::until("the leader shows that it is away", LIMIT, || {
        let statuses = statuses(&lab.host(&leads));
        let shown = statuses.contains(&format!("{name} Unreachable"));
        shown.then_some(()).ok_or(statuses)
    });
    let turns = |turn: &str| {
        wait::until(turn, LIMIT, || {
            let words = "events --since 10m --until 0s --filter type=node";
            let told = lab.host(&leads).ctl(words.split(' ')).ok();
            let found = told
                .lines()
                .any(|line| line.contains(name) && line.contains(turn));
            found.then_some(()).ok_or(told)
        });
    };
    turns("reachability.new=unreachable");
    let said = lab.host(&leads).ctl(["cluster", "status"]).stdout;
    for words in [
        &format!("Leader: {leads} (term"),
        "2 of 3 answer",
        "Unreachable",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    follower.start().unwrap();
    until_all_reachable(lab);
    turns("reachability.new=reachable");
    assert_eq!(leader(&follower), Some(leads));
    follower.ctl(["network", "inspect", "without"]).ok();
}

/// What is done to the bytes of a log.
type Damage = fn(&mut Vec<u8>);

/// Whose record of before is torn, or is none, is given all by the others.
fn a_damaged_log_is_fetched_anew(lab: &Lab) {
    let host = lab.host("manager03");
    let folder = host.dir().join("lib/swarm");
    let log = folder.join("manager/raft.redb");
    let damages: [(&str, Damage); 2] = [
        ("torn", |bytes| bytes.truncate(bytes.len() / 3)),
        ("overwritten", |bytes| {
            let middle = bytes.len() / 2;
            // Not the head alone: what a log of few entries has lies anywhere.
            bytes[4096..]
                .chunks_mut(512)
                .for_each(|part| part.fill(0x5a));
            bytes[middle] = 0;
        }),
    ];
    for (name, damage) in damages {
        host.kill().unwrap();
        let mut bytes = std::fs::read(&log).unwrap();
        damage(&mut bytes);
        std::fs::write(&log, bytes).unwrap();
        host.start().unwrap();
        wait::until(&format!("{name}: it was put aside"), LIMIT, || {
            let aside = folder.join("manager.damaged");
            if aside.exists() { Ok(()) } else { Err(()) }
        });
        until_all_reachable(lab);
        let network = format!("after-{name}");
        until_written(&lab.host("manager01"), &network);
        host.ctl(["network", "inspect", &network]).ok();
        host.ctl(["network", "inspect", "ch03"]).ok();
        std::fs::remove_dir_all(folder.join("manager.damaged")).unwrap();
    }
}

/// The leader's disk is full: another leads, and it comes back by itself when there is room.
fn a_full_disk_loses_nothing(lab: &Lab) {
    let name = leader(&lab.host("manager01")).unwrap();
    let host = lab.host(&name);
    let other = MANAGERS.iter().find(|other| **other != name).unwrap();
    let other = lab.host(other);
    let inside = "/var/lib/overnet/swarm/manager";
    host.stop().unwrap();
    let small = format!(
        "cp -a {inside} /tmp/kept && mount -t tmpfs -o size=24m small {inside} && cp -a /tmp/kept/. {inside}/"
    );
    host.exec(["sh", "-c", &small]).ok();
    host.start().unwrap();
    until_all_reachable(lab);
    // It is to lead again, so that it is the leader whose disk is full.
    wait::until("it leads", LIMIT, || {
        let now = leader(&other).unwrap_or_default();
        if now == name {
            return Ok(());
        }
        if MANAGERS.contains(&now.as_str()) {
            let leads = lab.host(&now);
            leads.kill().unwrap();
            until_written(if now == other.name() { &host } else { &other }, "moved");
            leads.start().unwrap();
        }
        Err(now)
    });
    host.exec([
        "sh",
        "-c",
        &format!("dd if=/dev/zero of={inside}/fill bs=64k; true"),
    ])
    .ok();
    let mut acknowledged = Vec::new();
    let mut number = 0;
    wait::until("another leads", LIMIT, || {
        number += 1;
        let label = format!("full{number:04}");
        let body = format!(r#"{{"Name":"{label}","Data":"{}"}}"#, "eHh4".repeat(5000));
        let answer = other
            .api("POST", "/configs/create", body.as_bytes())
            .unwrap();
        if answer.status == 201 {
            acknowledged.push(label);
        }
        let now = leader(&other);
        if now.as_ref().is_some_and(|now| *now != name) && answer.status == 201 {
            Ok(())
        } else {
            Err(now)
        }
    });
    wait::until("it says why it has stopped", LIMIT, || {
        let info = host.ctl(["info"]);
        let said = format!("{}{}", info.stdout, info.stderr);
        if said.contains("No space left") {
            Ok(())
        } else {
            Err(said)
        }
    });
    host.exec(["rm", &format!("{inside}/fill")]).ok();
    until_all_reachable(lab);
    let listed = host.ctl(["config", "ls", "--format", "{{.Name}}"]).ok();
    for label in &acknowledged {
        assert!(listed.lines().any(|name| name == label), "{label} is lost");
    }
    for label in &acknowledged {
        host.ctl(["config", "rm", label]).ok();
    }
    host.stop().unwrap();
    let back = format!(
        "cp -a {inside}/. /tmp/kept/ && umount {inside} && cp -a /tmp/kept/. {inside}/ && rm -r /tmp/kept"
    );
    host.exec(["sh", "-c", &back]).ok();
    host.start().unwrap();
    until_all_reachable(lab);
}

fn a_minority_says_so(lab: &Lab) {
    let (one, two, three) = (
        lab.host("manager01"),
        lab.host("manager02"),
        lab.host("manager03"),
    );
    two.kill().unwrap();
    three.kill().unwrap();
    let create = ["network", "create", "-d", "overlay", "never"];
    let said = wait::until("the minority refuses", LIMIT, || {
        let output = one.ctl(create);
        let said = output.stderr.clone();
        let expected = !output.success() && said.contains("The swarm does not have a leader");
        expected.then_some(said).ok_or(output)
    });
    eprintln!("{said}");
    for words in [
        "1 of 3 managers",
        "missing: manager02, manager03",
        "--force-new-cluster",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    containers_talk(lab);
    // Reads are answered, and marked.
    let status = one.ctl(["cluster", "status"]);
    for words in [
        "Leader: nobody",
        "1 of 3 answer, 2 are needed",
        "--force-new-cluster",
    ] {
        assert!(status.stdout.contains(words), "{words}: {status:?}");
    }
    assert!(!status.success(), "{status:?}");
    assert_eq!(
        statuses(&one),
        [
            "manager01 Reachable",
            "manager02 Unreachable",
            "manager03 Unreachable"
        ]
    );
    let answer = one.api("GET", "/nodes", &[]).unwrap();
    let warning = answer.header("warning").unwrap_or_default();
    assert!(warning.starts_with("110 "), "{warning:?}");
    two.start().unwrap();
    let took = until_written(&one, "recovered");
    eprintln!("one more manager is back, a write accepted after {took:?}");
    three.start().unwrap();
    until_all_reachable(lab);
    let answer = one.api("GET", "/nodes", &[]).unwrap();
    assert_eq!(answer.header("warning"), None);
}

fn roles_change(lab: &Lab) {
    let one = lab.host("manager01");
    let before = running(&one);
    // The newcomer is a manager in every sense.
    let worker = lab.host("worker02");
    let refused = worker.ctl(["node", "ls"]).failed();
    assert!(refused.contains("not a swarm manager"), "{refused}");
    one.ctl(["node", "promote", "worker02"]).ok();
    wait::until("the promoted host answers", LIMIT, || {
        let output = worker.ctl(["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"]);
        let shown = output.stdout.contains("worker02 Reachable");
        shown.then_some(()).ok_or(output)
    });
    // The leader is demoted: another leads, and it is a worker.
    let leads = leader(&one).unwrap();
    let any = MANAGERS.iter().find(|name| **name != leads).unwrap();
    let (demoted, any) = (lab.host(&leads), lab.host(any));
    any.ctl(["node", "demote", &leads]).ok();
    wait::until("another leads", LIMIT, || {
        let found = leader(&any).filter(|found| *found != leads);
        found.ok_or_else(|| nodes(&any))
    });
    wait::until("the demoted host is a worker", LIMIT, || {
        let info = demoted.ctl(["info", "--format", "{{.Swarm.ControlAvailable}}"]);
        (info.stdout.trim() == "false").then_some(()).ok_or(info)
    });
    any.ctl(["node", "demote", "worker02"]).ok();
    any.ctl(["node", "promote", &leads]).ok();
    until_all_reachable(lab);
    wait::until("worker02 is a worker again", LIMIT, || {
        let refused = worker.ctl(["node", "ls"]);
        (!refused.success()).then_some(()).ok_or(refused)
    });
    // Nobody's tasks have moved by all that.
    let without = |host: &str| -> BTreeSet<String> {
        let at = |line: &&String| line.ends_with(host);
        before.iter().filter(at).cloned().collect()
    };
    let now = running(&any);
    assert!(without("worker01").is_subset(&now), "{before:?} {now:?}");
    // A manager leaves, and is gone from consensus.
    let last = lab.host("manager03");
    let refused = last.ctl(["swarm", "leave"]).failed();
    assert!(refused.contains("participating as a manager"), "{refused}");
    last.ctl(["swarm", "leave", "--force"]).ok();
    let one = if leader(&one).is_some() { one } else { any };
    wait::until("two managers are left", LIMIT, || {
        let statuses = statuses(&one);
        let count = |word: &str| statuses.iter().filter(|s| s.ends_with(word)).count();
        (count(" Leader") == 1 && count(" Reachable") == 1)
            .then_some(())
            .ok_or(statuses)
    });
    until_written(&one, "two");
}

#[test]
fn one_survivor_goes_on_alone() {
    let lab = lab("managers-alone", 1);
    until_all_reachable(&lab);
    let (one, two, three) = (
        lab.host("manager01"),
        lab.host("manager02"),
        lab.host("manager03"),
    );
    let words = "service create -d --replicas 2 --constraint node.role==worker --name echo";
    two.ctl(words.split(' ').chain([ECHO])).ok();
    let before = wait::until("two replicas run", LIMIT, || {
        let there = running(&two);
        if there.len() == 2 {
            Ok(there)
        } else {
            Err(there)
        }
    });
    one.kill().unwrap();
    three.kill().unwrap();
    let refused = lab
        .host("worker01")
        .ctl(["swarm", "init", "--force-new-cluster"]);
    assert!(refused.failed().contains("no manager"));
    two.ctl(["swarm", "init", "--force-new-cluster"]).ok();
    let took = until_written(&two, "after");
    eprintln!("alone, a write accepted after {took:?}");
    // Those who were lost come back with their old state: they give it up and join anew.
    one.start().unwrap();
    three.start().unwrap();
    let begun = Instant::now();
    let state = ["node", "ls", "--format", "{{.Hostname}} {{.Status}}"];
    while begun.elapsed() < Duration::from_secs(20) {
        let listed = two.ctl(state).ok();
        assert!(!listed.contains("worker01 Down"), "{listed}");
        std::thread::sleep(Duration::from_millis(500));
    }
    until_all_reachable(&lab);
    assert_eq!(running(&one), before, "no task has moved");
    for host in [&one, &two, &three] {
        host.ctl(["network", "inspect", "after"]).ok();
    }
    lab.down().unwrap();
}

/// Managers are killed again and again while a client writes and keeps a record.
#[test]
fn nothing_acknowledged_is_lost() {
    let lab = lab("managers-kill", 1);
    until_all_reachable(&lab);
    let seconds = std::env::var("OVN_KILL_SECONDS");
    let seconds = seconds.ok().and_then(|s| s.parse().ok()).unwrap_or(25);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut acknowledged = BTreeSet::new();
    let mut unknown = BTreeSet::new();
    let kills = std::thread::scope(|scope| {
        let killing = scope.spawn(|| {
            let mut kills = 0;
            while Instant::now() < end {
                let host = lab.host(MANAGERS[usize::from(rand::random::<u8>()) % 3]);
                host.kill().unwrap();
                std::thread::sleep(Duration::from_millis(u64::from(rand::random::<u8>()) * 12));
                host.start().unwrap();
                std::thread::sleep(Duration::from_secs(1));
                kills += 1;
            }
            kills
        });
        let mut number = 0;
        while Instant::now() < end {
            number += 1;
            let name = format!("label{number:04}");
            let host = lab.host(MANAGERS[number % 3]);
            let body = format!(r#"{{"Name":"{name}","Data":"eA=="}}"#);
            match host.api("POST", "/configs/create", body.as_bytes()) {
                Ok(answer) if answer.status == 201 => {
                    acknowledged.insert(name);
                }
                // Refused, or nobody there: it may have been done all the same.
                _ => {
                    unknown.insert(name);
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
        killing.join().unwrap()
    });
    until_all_reachable(&lab);
    for name in MANAGERS {
        let listed = lab
            .host(name)
            .ctl(["config", "ls", "--format", "{{.Name}}"])
            .ok();
        let there: BTreeSet<String> = listed.lines().map(str::to_owned).collect();
        let lost: Vec<_> = acknowledged.difference(&there).collect();
        assert!(lost.is_empty(), "lost, as {name} sees it: {lost:?}");
        let strange: Vec<_> = there
            .iter()
            .filter(|name| !acknowledged.contains(*name) && !unknown.contains(*name))
            .collect();
        assert!(strange.is_empty(), "never asked for: {strange:?}");
    }
    eprintln!(
        "{kills} kills in {seconds} s: {} writes acknowledged and there, {} with an unknown end",
        acknowledged.len(),
        unknown.len()
    );
    assert!(kills > 5 && acknowledged.len() > 20);
    lab.down().unwrap();
}
