//! The cluster's state in an archive, and a cluster out of it: the recipes of docs/howto/back-up.md.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{collections::BTreeSet, fs, time::Duration};

use tests::{Host, Lab, Options, wait};

const ECHO: &str = "registry:5000/example/echo:latest";
const TOOLBOX: &str = "registry:5000/example/toolbox";
const LIMIT: Duration = Duration::from_secs(90);
const MANAGERS: [&str; 3] = ["manager01", "manager02", "manager03"];

/// The running tasks: id, name and host.
fn running(host: &Host) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for service in ["echo", "vault"] {
        let format = "{{.ID}} {{.Name}} {{.Node}} {{.CurrentState}}";
        let words = ["service", "ps", "--no-trunc", "--format", format];
        let listed = host.ctl(
            words
                .iter()
                .chain(&["--filter", "desired-state=running", service]),
        );
        let lines = listed.stdout.lines();
        let running = lines.filter(|line| line.contains(" Running "));
        all.extend(running.map(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" ")));
    }
    all
}

/// Containers of tasks on this host, with the moment at which they were started.
fn started(host: &Host) -> BTreeSet<String> {
    let ids = host.ctl(["ps", "-q", "--no-trunc"]).ok();
    let inspect = |id: &str| {
        let format = "{{.Id}} {{.State.StartedAt}}";
        host.ctl(["inspect", "--format", format, id]).ok()
    };
    ids.lines().map(inspect).collect()
}

fn answers(host: &Host) -> Result<(), String> {
    let words = [
        "exec",
        "asker",
        "wget",
        "-T",
        "2",
        "-qO-",
        "http://echo:8080",
    ];
    let said = host.ctl(words);
    if said.stdout == "Hello Docker!!" {
        return Ok(());
    }
    Err(format!("{said:?}"))
}

fn secret_is_there(host: &Host) {
    let listed = host.ctl([
        "ps",
        "-q",
        "--filter",
        "label=com.docker.swarm.service.name=vault",
    ]);
    let id = listed.ok();
    let read = host.ctl(["exec", id.trim(), "cat", "/run/secrets/word", "/etc/motto"]);
    assert_eq!(read.ok(), "s3same\nper aspera");
}

fn statuses(host: &Host) -> BTreeSet<String> {
    let format = "{{.Hostname}} {{.Status}} {{.ManagerStatus}}";
    let listed = host.ctl(["node", "ls", "--format", format]).stdout;
    listed.lines().map(|line| line.trim().to_owned()).collect()
}

fn until_nodes(host: &Host, what: &str, wanted: &[&str]) {
    wait::until(what, LIMIT, || {
        let statuses = statuses(host);
        let all = wanted.iter().all(|line| statuses.contains(*line));
        all.then_some(()).ok_or(statuses)
    });
}

/// Files that a host can read, by paths of the machine.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn with(&self, name: &str, content: &[u8]) -> String {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }
}

#[test]
fn a_lost_cluster_comes_back_from_its_archive() {
    let lab = Lab::up(Options {
        managers: 3,
        workers: 2,
        ..Options::for_test("backup")
    })
    .unwrap();
    let files = Files {
        folder: tempfile::tempdir().unwrap(),
    };
    until_nodes(
        &lab.host("manager01"),
        "three managers",
        &["manager02 Ready Reachable", "manager03 Ready Reachable"],
    );
    services_run(&lab, &files);
    let archive = backed_up(&lab, &files);
    what_is_refused(&lab, &files, &archive);
    all_managers_are_lost(&lab, &files);
    an_old_manager_comes_back(&lab);
    another_host_takes_over(&lab, &files);
    lab.down().unwrap();
}

fn services_run(lab: &Lab, files: &Files) {
    let any = lab.host("manager02");
    any.ctl(["network", "create", "-d", "overlay", "--attachable", "net1"])
        .ok();
    let secret = files.with("secret", b"s3same\n");
    any.ctl(["secret", "create", "word", &secret]).ok();
    let config = files.with("config", b"per aspera\n");
    any.ctl(["config", "create", "motto", &config]).ok();
    let words = "service create -d --network net1 --constraint node.role==worker";
    let create = |more: &[&str]| any.ctl(words.split(' ').chain(more.iter().copied())).ok();
    create(&["--replicas", "4", "--name", "echo", ECHO]);
    let config = "source=motto,target=/etc/motto";
    let vault = ["--secret", "word", "--config", config, "--name", "vault"];
    create(
        &[
            &vault[..],
            &["--mode", "global", TOOLBOX, "sleep", "100000"],
        ]
        .concat(),
    );
    wait::until("all tasks run", LIMIT, || {
        let there = running(&any);
        (there.len() == 6).then_some(()).ok_or(there)
    });
    let run = "run -d --name asker --network net1";
    let asker = run.split(' ').chain([TOOLBOX, "sleep", "100000"]);
    lab.host("worker01").ctl(asker).ok();
    wait::until("the service answers", LIMIT, || {
        answers(&lab.host("worker01"))
    });
}

fn backed_up(lab: &Lab, files: &Files) -> Vec<u8> {
    let passphrase = files.with("passphrase", b"correct horse battery\n");
    let path = files.path("state.ovn");
    let backup = ["cluster", "backup", "--passphrase-file", &passphrase];
    // On any manager, and on no worker.
    for name in MANAGERS {
        let said = lab.host(name).ctl(backup.iter().chain(&[path.as_str()]));
        assert!(said.clone().ok().contains("state.ovn"), "{said:?}");
    }
    let refused = lab
        .host("worker01")
        .ctl(backup.iter().chain(&["never.ovn"]));
    assert!(refused.failed().contains("not a swarm manager"));
    let archive = fs::read(&path).unwrap();
    for secret in ["s3same", "SWMTKN", "PRIVATE KEY"] {
        let there = archive
            .windows(secret.len())
            .any(|part| part == secret.as_bytes());
        assert!(!there, "{secret} is in clear");
    }
    let short = files.with("short", b"1234\n");
    let words = [
        "cluster",
        "backup",
        "--passphrase-file",
        &short,
        "never.ovn",
    ];
    let refused = lab.host("manager01").ctl(words).failed();
    assert!(refused.contains("at least 8"), "{refused}");
    // What is not restored is not seen again.
    let any = lab.host("manager01");
    any.ctl(["network", "create", "-d", "overlay", "later"])
        .ok();
    archive
}

fn restore(host: &Host, files: &Files, archive: &str, more: &[&str]) -> tests::Output {
    let passphrase = files.path("passphrase");
    let words = ["cluster", "restore", "--passphrase-file", &passphrase];
    host.ctl(words.iter().chain(more).chain(&[archive]))
}

fn what_is_refused(lab: &Lab, files: &Files, archive: &[u8]) {
    let manager = lab.host("manager01");
    let path = files.path("state.ovn");
    let refused = restore(&manager, files, &path, &[]).failed();
    assert!(refused.contains("already part of a swarm"), "{refused}");
    let refused = restore(&manager, files, &path, &["--force"]).failed();
    assert!(refused.contains("other managers"), "{refused}");
    manager.ctl(["network", "inspect", "later"]).ok();
    // On a host that is in no cluster.
    let fresh = lab.host("worker02");
    let mut changed = archive.to_vec();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    let mut newer = archive.to_vec();
    newer[9] = 9;
    for (name, content, words) in [
        ("cut", &archive[..archive.len() - 100], "is cut"),
        ("changed", &changed, "its checksum is wrong"),
        ("foreign", b"something else", "no archive of"),
        ("newer", &newer, "made by a newer version"),
    ] {
        let path = files.with(name, content);
        // The archive is looked at first, wherever it is tried.
        let refused = restore(&fresh, files, &path, &["--force"]).failed();
        assert!(refused.contains(words), "{name}: {refused}");
    }
    let wrong = files.with("wrong", b"another passphrase\n");
    let words = [
        "cluster",
        "restore",
        "--force",
        "--passphrase-file",
        &wrong,
        &path,
    ];
    let refused = fresh.ctl(words).failed();
    assert!(refused.contains("not that of this archive"), "{refused}");
}

/// The host's disk is empty, as after an installation.
fn wipe(host: &Host) {
    host.crash().unwrap();
    for entry in fs::read_dir(host.dir().join("lib")).unwrap() {
        let path = entry.unwrap().path();
        let gone = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        gone.unwrap();
    }
}

fn all_managers_are_lost(lab: &Lab, files: &Files) {
    let before = running(&lab.host("manager01"));
    let workers = [lab.host("worker01"), lab.host("worker02")];
    let containers = [started(&workers[0]), started(&workers[1])];
    for name in ["manager02", "manager03"] {
        lab.host(name).crash().unwrap();
    }
    let fresh = lab.host("manager01");
    wipe(&fresh);
    fresh.start().unwrap();
    let state = ["info", "--format", "{{.Swarm.LocalNodeState}}"];
    assert_eq!(fresh.ctl(state).ok(), "inactive");
    // Without managers everything goes on.
    answers(&workers[0]).unwrap();
    let said = restore(&fresh, files, &files.path("state.ovn"), &[]).ok();
    assert!(said.contains("come back by themselves"), "{said}");
    until_nodes(
        &fresh,
        "the workers are back, the lost managers are down",
        &[
            "manager01 Ready Leader",
            "manager02 Down",
            "manager03 Down",
            "worker01 Ready",
            "worker02 Ready",
        ],
    );
    assert_eq!(statuses(&fresh).len(), 5, "the host is the node it was");
    assert_eq!(running(&fresh), before, "no task has moved");
    for (worker, containers) in workers.iter().zip(&containers) {
        assert_eq!(started(worker), *containers, "nothing was started again");
        secret_is_there(worker);
    }
    wait::until("the service answers", LIMIT, || answers(&workers[0]));
    // It goes on: what is new reaches the hosts.
    assert!(!fresh.ctl(["network", "inspect", "later"]).success());
    fresh.ctl(["service", "scale", "-d", "echo=5"]).ok();
    wait::until("a fifth task runs", LIMIT, || {
        let there = running(&fresh);
        (there.len() == 7).then_some(()).ok_or(there)
    });
    let words = ["service", "update", "-d", "--force", "vault"];
    fresh.ctl(words).ok();
    wait::until("the secret reaches new tasks", LIMIT, || {
        let there = running(&fresh);
        let renewed =
            there.len() == 7 && before.iter().filter(|task| there.contains(*task)).count() == 4;
        renewed.then_some(()).ok_or(there)
    });
    for worker in &workers {
        secret_is_there(worker);
    }
    let archived = fresh.ctl(["service", "ls", "--format", "{{.Name}}"]).ok();
    assert_eq!(archived.lines().count(), 2, "{archived}");
}

/// One that was only believed to be lost gives up what it has, and asks to be let in.
fn an_old_manager_comes_back(lab: &Lab) {
    lab.host("manager02").start().unwrap();
    until_nodes(
        &lab.host("manager01"),
        "it is a manager again",
        &["manager02 Ready Reachable"],
    );
    let fresh = lab.host("manager01");
    fresh.ctl(["node", "demote", "manager03"]).ok();
    fresh.ctl(["node", "rm", "--force", "manager03"]).ok();
}

/// No host has an address that the others know.
fn another_host_takes_over(lab: &Lab, files: &Files) {
    let (one, two) = (lab.host("worker01"), lab.host("worker02"));
    two.ctl(["swarm", "leave"]).ok();
    let manager = lab.host("manager01");
    wait::until("all tasks run on one worker", LIMIT, || {
        let there = running(&manager);
        let moved = there.len() == 6 && there.iter().all(|task| task.ends_with("worker01"));
        moved.then_some(()).ok_or(there)
    });
    let path = files.path("second.ovn");
    let passphrase = files.path("passphrase");
    manager
        .ctl(["cluster", "backup", "--passphrase-file", &passphrase, &path])
        .ok();
    let (before, containers) = (running(&manager), started(&one));
    for name in ["manager01", "manager02"] {
        lab.host(name).crash().unwrap();
    }
    let said = restore(&two, files, &path, &[]).ok();
    assert!(said.contains("have to be told"), "{said}");
    let address = two.member().address().to_string();
    // Another attempt, elsewhere, would stand beside it.
    let third = lab.host("manager03");
    third.start().unwrap();
    third.ctl(["swarm", "leave", "--force"]).ok();
    let second = files.path("third.ovn");
    let words = ["cluster", "backup", "--passphrase-file"];
    two.ctl(
        words
            .iter()
            .chain(&[files.path("passphrase").as_str(), &second]),
    )
    .ok();
    let refused = restore(&third, files, &second, &[]).failed();
    assert!(refused.contains("go on beside"), "{refused}");
    one.ctl(["cluster", "rejoin", &address]).ok();
    until_nodes(
        &two,
        "the worker is back",
        &["worker02 Ready Leader", "worker01 Ready"],
    );
    assert_eq!(running(&two), before, "no task has moved");
    assert_eq!(started(&one), containers, "nothing was started again");
    secret_is_there(&one);
    answers(&one).unwrap();
    let again = one.ctl(["cluster", "rejoin", &address]).failed();
    assert!(again.contains("has a session"), "{again}");
}
