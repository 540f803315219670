//! Autolock: a manager that was restarted waits for the unlock key, by both command lines.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use tests::{Host, Lab, Options, wait};

const TOOLBOX: &str = "registry:5000/example/toolbox";
const ECHO: &str = "registry:5000/example/echo:latest";
const LIMIT: Duration = Duration::from_secs(60);
const MANAGERS: [&str; 3] = ["manager01", "manager02", "manager03"];

/// What a command says that is given one line.
fn told(host: &Host, mut command: Command, line: &str) -> Result<String, String> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = host.spawn(command).unwrap();
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "{line}").unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

fn unlock(host: &Host, key: &str) -> Result<String, String> {
    told(host, host.ctl_command(["swarm", "unlock"]).unwrap(), key)
}

fn unlock_by_docker(host: &Host, key: &str) -> Result<String, String> {
    told(host, host.docker_command(["swarm", "unlock"]).unwrap(), key)
}

fn state(host: &Host) -> String {
    host.ctl(["info", "--format", "{{.Swarm.LocalNodeState}}"])
        .ok()
}

fn identity(host: &Host) -> String {
    fs::read_to_string(host.dir().join("lib/swarm/identity.pem")).unwrap()
}

fn until_sealed(lab: &Lab, names: &[&str], sealed: bool) {
    for name in names {
        wait::until(&format!("the key of {name}"), LIMIT, || {
            let text = identity(&lab.host(name));
            (text.contains("LOCKED KEY") == sealed && text.contains("PRIVATE KEY") != sealed)
                .then_some(())
                .ok_or(text)
        });
    }
}

fn until_reachable(lab: &Lab, asked: &str, name: &str) {
    let host = lab.host(asked);
    wait::until(&format!("{name} is a manager"), LIMIT, || {
        let format = "{{.Hostname}} {{.Status}} {{.ManagerStatus}}";
        let listed = host.ctl(["node", "ls", "--format", format]);
        let there = |status: &str| listed.stdout.contains(&format!("{name} Ready {status}"));
        (there("Reachable") || there("Leader"))
            .then_some(())
            .ok_or(listed)
    });
}

fn restart(host: &Host) {
    host.kill().unwrap();
    host.start().unwrap();
}

fn answers(lab: &Lab) {
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

/// The task's container on this host, and when it was started.
fn container(host: &Host) -> String {
    let id = host.ctl([
        "ps",
        "-q",
        "--filter",
        "label=com.docker.swarm.service.name=echo",
    ]);
    let id = id.ok();
    let format = "{{.Id}} {{.State.StartedAt}}";
    host.ctl(["inspect", "--format", format, id.trim()]).ok()
}

#[test]
fn a_restarted_manager_waits_for_the_key() {
    let lab = Lab::up(Options {
        managers: 3,
        workers: 1,
        ..Options::for_test("autolock")
    })
    .unwrap();
    for name in MANAGERS {
        until_reachable(&lab, "manager01", name);
    }
    // A host that waits for its key is down for longer than three beats, which moves its tasks.
    let beats = ["swarm", "update", "--dispatcher-heartbeat", "30s"];
    lab.host("manager01").ctl(beats).ok();
    service_runs(&lab);
    let key = turned_on(&lab);
    one_is_locked(&lab, &key);
    it_follows_again(&lab, &key);
    let next = the_key_changes(&lab, &key);
    all_at_once(&lab, &next);
    turned_off(&lab);
    lab.down().unwrap();
}

/// A manager is killed at any moment while its key changes: the key of before or the next one
/// unlocks it.
#[test]
fn keys_change_under_kills() {
    let lab = Lab::up(Options {
        managers: 3,
        workers: 0,
        ..Options::for_test("autolock-kill")
    })
    .unwrap();
    for name in MANAGERS {
        until_reachable(&lab, "manager01", name);
    }
    let (one, killed) = (lab.host("manager01"), lab.host("manager03"));
    let show = || {
        let shown = one.ctl(["swarm", "unlock-key", "-q"]);
        shown.success().then(|| shown.stdout.trim().to_owned())
    };
    let mut before = None;
    let mut locked = 0;
    for round in 0..12 {
        let words: &[&str] = match round % 3 {
            0 => &["swarm", "update", "--autolock=true"],
            1 => &["swarm", "unlock-key", "--rotate", "-q"],
            _ => &["swarm", "update", "--autolock=false"],
        };
        std::thread::scope(|scope| {
            let changing = scope.spawn(|| one.ctl(words).ok());
            std::thread::sleep(Duration::from_millis(u64::from(rand::random::<u8>()) / 4));
            killed.kill().unwrap();
            changing.join().unwrap();
        });
        let next = show();
        killed.start().unwrap();
        if state(&killed) == "locked" {
            locked += 1;
            let mut keys = next.iter().chain(&before);
            let said: Vec<_> = keys.clone().map(|key| unlock(&killed, key)).collect();
            assert!(said.iter().any(Result::is_ok), "round {round}: {said:?}");
            assert!(keys.next().is_some());
        }
        until_reachable(&lab, "manager01", "manager03");
        // What it finds after the next start is what holds now.
        until_sealed(&lab, &["manager03"], next.is_some());
        if let Some(key) = &next {
            restart(&killed);
            if unlock(&killed, key).is_err() {
                // It was killed before it had heard of it: the one before opens it once more.
                let text = identity(&killed);
                unlock(&killed, before.as_deref().unwrap()).unwrap();
                wait::until("its key is sealed anew", LIMIT, || {
                    (identity(&killed) != text).then_some(()).ok_or("as before")
                });
                restart(&killed);
                unlock(&killed, key).unwrap();
            }
            until_reachable(&lab, "manager01", "manager03");
        }
        before = next;
    }
    eprintln!("found locked after {locked} of 12 kills");
    lab.down().unwrap();
}

/// Its only task is on the manager that will be locked.
fn service_runs(lab: &Lab) {
    let any = lab.host("manager01");
    any.ctl(["network", "create", "-d", "overlay", "--attachable", "net1"])
        .ok();
    let words = "service create -d --network net1 --constraint node.hostname==manager03 --secret word --name echo";
    let secret = lab.host("manager01").dir().join("lib/secret");
    fs::write(&secret, "s3same").unwrap();
    any.ctl(["secret", "create", "word", "/var/lib/overnet/secret"])
        .ok();
    any.ctl(words.split(' ').chain([ECHO])).ok();
    let run = "run -d --name asker --network net1";
    let run = run.split(' ').chain([TOOLBOX, "sleep", "100000"]);
    lab.host("worker01").ctl(run).ok();
    wait::until("the task runs", LIMIT, || {
        let words = ["service", "ps", "--format", "{{.CurrentState}}", "echo"];
        let listed = any.ctl(words);
        listed
            .stdout
            .starts_with("Running")
            .then_some(())
            .ok_or(listed)
    });
    answers(lab);
}

fn turned_on(lab: &Lab) -> String {
    let one = lab.host("manager01");
    let none = one.ctl(["swarm", "unlock-key", "-q"]).failed();
    assert!(none.contains("no unlock key is set"), "{none}");
    let rotated = one.docker(["swarm", "unlock-key", "--rotate"]).failed();
    assert!(rotated.contains("autolock is not turned on"), "{rotated}");
    let said = one.docker(["swarm", "update", "--autolock=true"]).ok();
    let key = lab
        .host("manager02")
        .ctl(["swarm", "unlock-key", "-q"])
        .ok();
    assert!(
        key.starts_with("SWMKEY-1-") && said.contains(&key),
        "{said}"
    );
    assert_eq!(one.docker(["swarm", "unlock-key", "-q"]).ok(), key);
    until_sealed(lab, &MANAGERS, true);
    // Workers have nothing to lock.
    until_sealed(lab, &["worker01"], false);
    let open = lab.host("manager03").dir().join("lib/swarm/ledger.open");
    let open = String::from_utf8_lossy(&fs::read(open).unwrap()).into_owned();
    assert!(open.contains("echo") && !open.contains("s3same"));
    key
}

fn one_is_locked(lab: &Lab, key: &str) {
    let locked = lab.host("manager03");
    let before = container(&locked);
    restart(&locked);
    assert_eq!(state(&locked), "locked");
    let info = locked.docker(["info"]);
    assert!(info.stdout.contains("Swarm: locked"), "{info:?}");
    let ping = locked.api("GET", "/_ping", &[]).unwrap();
    assert_eq!(ping.header("swarm"), Some("locked"));
    for path in [
        "/nodes",
        "/services",
        "/swarm",
        "/swarm/unlockkey",
        "/overnet/backup",
    ] {
        let answer = locked.api("GET", path, &[]).unwrap();
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        if path == "/overnet/backup" {
            // The passphrase is missed first.
            assert_eq!(answer.status, 400, "{path}: {body}");
            continue;
        }
        assert_eq!(answer.status, 503, "{path}: {body}");
        assert!(body.contains("needs to be unlocked"), "{path}: {body}");
    }
    let refused = locked.docker(["node", "ls"]).failed();
    assert!(
        refused.contains("Swarm is encrypted and needs to be unlocked"),
        "{refused}"
    );
    let refused = locked.ctl(["swarm", "leave"]).failed();
    assert!(
        refused.contains("Swarm is encrypted and locked"),
        "{refused}"
    );
    let doctor = locked.ctl(["doctor"]);
    assert!(
        doctor.stdout.contains("this manager is locked"),
        "{doctor:?}"
    );
    // Its containers go on, and so does the cluster.
    assert_eq!(container(&locked), before);
    answers(lab);
    lab.host("manager01")
        .ctl(["network", "create", "-d", "overlay", "while-locked"])
        .ok();
    locked.ctl(["run", "--rm", TOOLBOX, "true"]).ok();
    // Nothing opens without the key.
    let folder = locked.dir().join("lib/swarm");
    for file in ["identity.pem", "ledger", "ledger.open", "manager/raft.redb"] {
        let content = fs::read(folder.join(file)).unwrap();
        for secret in [&b"s3same"[..], b"PRIVATE KEY", key.as_bytes()] {
            let there = content.windows(secret.len()).any(|part| part == secret);
            assert!(!there, "{file}: {}", String::from_utf8_lossy(secret));
        }
    }
}

fn it_follows_again(lab: &Lab, key: &str) {
    let locked = lab.host("manager03");
    let before = container(&locked);
    let wrong = format!("SWMKEY-1-{}", "A".repeat(43));
    for said in [unlock(&locked, &wrong), unlock_by_docker(&locked, &wrong)] {
        let said = said.unwrap_err();
        assert!(said.contains("invalid key provided"), "{said}");
    }
    let body = format!(r#"{{"UnlockKey":"{wrong}"}}"#);
    let answer = locked
        .api("POST", "/swarm/unlock", body.as_bytes())
        .unwrap();
    assert_eq!(answer.status, 401);
    assert_eq!(state(&locked), "locked");
    unlock(&locked, key).unwrap();
    until_reachable(lab, "manager01", "manager03");
    locked.ctl(["network", "inspect", "while-locked"]).ok();
    let said = unlock(&locked, key).unwrap_err();
    assert!(said.contains("swarm is not locked"), "{said}");
    assert_eq!(container(&locked), before, "nothing was started again");
    answers(lab);
}

/// A manager that is away meanwhile needs the key of before.
fn the_key_changes(lab: &Lab, key: &str) -> String {
    let away = lab.host("manager02");
    away.stop().unwrap();
    let one = lab.host("manager01");
    wait::until("the two others have a leader", LIMIT, || {
        let output = one.ctl(["network", "create", "-d", "overlay", "two-are-enough"]);
        let done = output.success() || output.stderr.contains("already exists");
        done.then_some(()).ok_or(output)
    });
    let next = one.ctl(["swarm", "unlock-key", "--rotate", "-q"]).ok();
    assert_ne!(next, key);
    away.start().unwrap();
    assert_eq!(state(&away), "locked");
    let said = unlock(&away, &next).unwrap_err();
    assert!(said.contains("invalid key provided"), "{said}");
    let before = identity(&away);
    unlock_by_docker(&away, key).unwrap();
    until_reachable(lab, "manager01", "manager02");
    // It has heard of the next one, and needs that from now on.
    wait::until("its key is sealed anew", LIMIT, || {
        (identity(&away) != before).then_some(()).ok_or("as before")
    });
    restart(&away);
    assert!(unlock(&away, key).is_err());
    unlock(&away, &next).unwrap();
    until_reachable(lab, "manager01", "manager02");
    next
}

/// After a failure of the power all of them are locked, and none has company.
fn all_at_once(lab: &Lab, key: &str) {
    let hosts = MANAGERS.map(|name| lab.host(name));
    for host in &hosts {
        host.kill().unwrap();
    }
    for host in &hosts {
        host.start().unwrap();
        assert_eq!(state(host), "locked");
    }
    answers(lab);
    for host in &hosts {
        unlock(host, key).unwrap();
    }
    for name in MANAGERS {
        until_reachable(lab, "manager02", name);
    }
}

fn turned_off(lab: &Lab) {
    lab.host("manager02")
        .ctl(["swarm", "update", "--autolock=false"])
        .ok();
    until_sealed(lab, &MANAGERS, false);
    let one = lab.host("manager01");
    restart(&one);
    until_reachable(lab, "manager01", "manager01");
    for name in MANAGERS {
        let open = lab.host(name).dir().join("lib/swarm/ledger.open");
        wait::until("no open copy is left", LIMIT, || {
            (!open.exists()).then_some(()).ok_or("it is there")
        });
    }
}
