//! The cluster's root certificate is replaced: while everything goes on, with hosts that are away,
//! and across the death of the leader.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{
    collections::BTreeSet,
    fs,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tests::{Host, Lab, Options, wait};

const ECHO: &str = "registry:5000/example/echo:latest";
const TOOLBOX: &str = "registry:5000/example/toolbox";
const LIMIT: Duration = Duration::from_secs(90);
const MANAGERS: [&str; 3] = ["manager01", "manager02", "manager03"];
fn statuses(host: &Host, format: &str) -> BTreeSet<String> {
    let listed = host.ctl(["node", "ls", "--format", format]).stdout;
    listed.lines().map(|line| line.trim().to_owned()).collect()
}

fn until_statuses(host: &Host, what: &str, format: &str, wanted: &[&str]) {
    wait::until(what, LIMIT, || {
        let statuses = statuses(host, format);
        let all = wanted.iter().all(|line| statuses.contains(*line));
        all.then_some(()).ok_or(statuses)
    });
}

fn until_managers(host: &Host) {
    let format = "{{.Hostname}} {{.Status}} {{if .ManagerStatus}}manager{{end}}";
    let wanted = MANAGERS.map(|name| format!("{name} Ready manager"));
    until_statuses(
        host,
        "three managers",
        format,
        &wanted.iter().map(String::as_str).collect::<Vec<_>>(),
    );
}

const TLS: &str = "{{.Hostname}} {{.TLSStatus}}";

fn root(host: &Host) -> String {
    host.ctl(["swarm", "ca"]).ok()
}

fn token(host: &Host, role: &str) -> String {
    host.ctl(["swarm", "join-token", "-q", role]).ok()
}

fn goes_on(host: &Host) -> bool {
    let format = "{{.Swarm.Cluster.RootRotationInProgress}}";
    let shown = host.ctl(["info", "--format", format]);
    assert!(shown.success(), "{shown:?}");
    shown.stdout.trim() == "true"
}

fn until_ended(host: &Host) {
    wait::until("the rotation has ended", LIMIT, || {
        (!goes_on(host)).then_some(()).ok_or_else(|| {
            let status = host.ctl(["cluster", "status"]);
            format!("{:?} {status:?}", statuses(host, TLS))
        })
    });
}

/// Containers of this host, with the moment at which they were started.
fn started(host: &Host) -> BTreeSet<String> {
    let ids = host.ctl(["ps", "-q", "--no-trunc"]).ok();
    let inspect = |id: &str| {
        let format = "{{.Id}} {{.State.StartedAt}}";
        host.ctl(["inspect", "--format", format, id]).ok()
    };
    ids.lines().map(inspect).collect()
}

fn all_started(lab: &Lab) -> Vec<BTreeSet<String>> {
    let names = ["manager01", "manager02", "manager03", "worker01"];
    names.map(|name| started(&lab.host(name))).into()
}

/// What a host has on its disk: its own certificates, and the roots that it trusts.
fn identity(host: &Host) -> (Vec<String>, Vec<String>) {
    let text = fs::read_to_string(host.dir().join("lib/swarm/identity.pem")).unwrap();
    let (own, trusted) = text.split_once("Trusted roots:\n").unwrap();
    let certificates = |text: &str| {
        let blocks = text.split("-----BEGIN CERTIFICATE-----").skip(1);
        let whole = |block: &str| {
            format!("-----BEGIN CERTIFICATE-----{block}")
                .trim()
                .to_owned()
        };
        blocks.map(whole).collect::<Vec<_>>()
    };
    (certificates(own), certificates(trusted))
}

struct Files(tempfile::TempDir);

impl Files {
    fn with(&self, name: &str, content: &str) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

fn files() -> Files {
    Files(tempfile::tempdir().unwrap())
}

/// What the manager's port says to whoever shows the certificate in this file: its first bytes, or
/// that it does not accept it.
fn shows(host: &Host, file: &str) -> String {
    let script = format!(
        "sleep 3 | timeout 2 openssl s_client -connect 127.0.0.1:2377 -alpn h2 -cert {file} -cert_chain {file} -key {file} -quiet 2>&1 | tr -d '\\000' | tail -c 2000"
    );
    host.exec(["sh", "-c", &script]).stdout
}

fn openssl(words: &str) -> String {
    let mut command = std::process::Command::new("openssl");
    let output = command.args(words.split(' ')).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{words}: {} {}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

fn service_runs(lab: &Lab) {
    let any = lab.host("manager01");
    any.ctl(["network", "create", "-d", "overlay", "--attachable", "net1"])
        .ok();
    let words = "service create -d --network net1 --mode global --name echo";
    any.ctl(words.split(' ').chain([ECHO])).ok();
    wait::until("the tasks run", LIMIT, || {
        let words = ["service", "ls", "--format", "{{.Replicas}}"];
        let listed = any.ctl(words);
        listed.stdout.starts_with("5/5").then_some(()).ok_or(listed)
    });
    let run = "run -d --name asker --network net1";
    let run = run.split(' ').chain([TOOLBOX, "sleep", "100000"]);
    lab.host("worker01").ctl(run).ok();
    wait::until("the service answers", LIMIT, || ask(&lab.host("worker01")));
}

fn ask(host: &Host) -> Result<(), String> {
    let words = "exec asker wget -T 3 -qO- http://echo:8080";
    let said = host.ctl(words.split(' '));
    if said.stdout == "Hello Docker!!" {
        return Ok(());
    }
    Err(format!("{said:?}"))
}

/// Asks the service all the while; none of the questions may fail.
fn while_asked<T>(lab: &Lab, what: impl FnOnce() -> T) -> T {
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut asked = 0;
            while !end.load(Ordering::Relaxed) {
                ask(&lab.host("worker01")).unwrap();
                asked += 1;
            }
            asked
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(what));
        end.store(true, Ordering::Relaxed);
        let asked = asking.join().unwrap();
        assert!(asked > 10, "{asked}");
        eprintln!("asked {asked} times");
        done.unwrap()
    })
}

#[test]
fn the_root_is_replaced_while_all_goes_on() {
    let lab = Lab::up(Options {
        managers: 3,
        workers: 2,
        ..Options::for_test("rotate")
    })
    .unwrap();
    let files = files();
    until_managers(&lab.host("manager01"));
    service_runs(&lab);
    while_asked(&lab, || nobody_is_disturbed(&lab, &files));
    after_a_kill(&lab);
    while_asked(&lab, || {
        dockers_client_rotates(&lab);
        a_root_of_our_own(&lab, &files);
    });
    lab.down().unwrap();
}

fn nobody_is_disturbed(lab: &Lab, files: &Files) {
    let (one, two, worker) = (
        lab.host("manager01"),
        lab.host("manager02"),
        lab.host("worker01"),
    );
    let before = all_started(lab);
    let (old_root, old_token) = (root(&one), token(&one, "worker"));
    let old_file = worker.dir().join("lib/swarm/identity.pem");
    let old_file = files.with("old.pem", &fs::read_to_string(old_file).unwrap());
    let said = shows(&one, &old_file);
    assert!(!said.contains("alert"), "{said}");

    let said = two.ctl(["swarm", "ca", "--rotate"]).ok();
    let new_root = root(&one);
    assert_ne!(new_root, old_root);
    for words in [
        "rotated TLS certificates: 5/5",
        "rotated CA certificates: 5/5",
    ] {
        assert!(said.contains(words), "{said}");
    }
    assert!(said.ends_with(new_root.trim()), "{said}");
    for name in MANAGERS {
        assert_eq!(root(&lab.host(name)), new_root);
        assert!(!goes_on(&lab.host(name)));
    }
    let ready = statuses(&one, TLS);
    assert!(
        ready.iter().all(|line| line.ends_with(" Ready")),
        "{ready:?}"
    );

    // Certificates as they are, by another's judgement.
    let old = files.with("old-root.pem", &old_root);
    let new = files.with("new-root.pem", &new_root);
    for name in [
        "manager01",
        "manager02",
        "manager03",
        "worker01",
        "worker02",
    ] {
        let (own, trusted) = identity(&lab.host(name));
        assert_eq!(trusted, [new_root.trim()], "{name}");
        let [leaf, between] = own.as_slice() else {
            panic!("{own:?}");
        };
        let leaf = files.with("leaf.pem", leaf);
        let between = files.with("between.pem", between);
        openssl(&format!("verify -CAfile {new} {leaf}"));
        openssl(&format!("verify -CAfile {old} -untrusted {between} {leaf}"));
    }
    // The certificate of before opens nothing any more.
    let said = shows(&one, &old_file);
    assert!(said.contains("alert"), "{said}");
    assert_eq!(all_started(lab), before);
    tokens(lab, &old_token, &old_root);
}

/// A daemon goes on with what it has.
fn after_a_kill(lab: &Lab) {
    let (one, worker) = (lab.host("manager01"), lab.host("worker01"));
    let before = all_started(lab);
    worker.kill().unwrap();
    worker.start().unwrap();
    for format in [TLS, "{{.Hostname}} {{.Status}}"] {
        until_statuses(&one, "worker01 is back", format, &["worker01 Ready"]);
    }
    assert_eq!(all_started(lab), before);
    wait::until("the service answers", LIMIT, || ask(&worker));
}

/// A host joins with the token of now, and not with the one of before.
fn tokens(lab: &Lab, old_token: &str, old_root: &str) {
    let (one, joins) = (lab.host("manager01"), lab.host("worker02"));
    let new_token = token(&one, "worker");
    let secret = |token: &str| token.rsplit('-').next().unwrap().to_owned();
    assert_ne!(secret(&new_token), secret(old_token));
    joins.ctl(["swarm", "leave"]).ok();
    one.ctl(["node", "rm", "--force", "worker02"]).ok();
    let manager = format!("{}:2377", one.member().address());
    let join = |token: &str| joins.ctl(["swarm", "join", "--token", token, &manager]);
    let refused = join(old_token).failed();
    assert!(
        refused.contains("its root certificate is another one"),
        "{refused}"
    );
    // The secret of before does not do under the digest of now either.
    let (digest, _) = new_token.rsplit_once('-').unwrap();
    let refused = join(&format!("{digest}-{}", secret(old_token))).failed();
    assert!(
        refused.contains("the join token is not valid (any more)"),
        "{refused}"
    );
    join(&new_token).ok();
    until_statuses(&one, "it has joined", TLS, &["worker02 Ready"]);
    let (own, trusted) = identity(&joins);
    assert_eq!((own.len(), trusted.len()), (1, 1));
    assert_ne!(trusted[0], old_root.trim());
}

fn dockers_client_rotates(lab: &Lab) {
    let one = lab.host("manager01");
    let before = root(&one);
    assert_eq!(one.docker(["swarm", "ca"]).ok(), before);
    let said = one.docker(["swarm", "ca", "--rotate"]).ok();
    let after = root(&one);
    assert_ne!(after, before);
    assert!(said.contains(after.trim()), "{said}");
    let listed = one.docker(["node", "ls", "--format", TLS]).ok();
    assert_eq!(
        listed
            .lines()
            .filter(|line| line.ends_with(" Ready"))
            .count(),
        5
    );
}

fn a_root_of_our_own(lab: &Lab, files: &Files) {
    let one = lab.host("manager01");
    let [key, certificate, pkcs1] = ["key", "certificate", "pkcs1"].map(|name| files.path(name));
    openssl(&format!(
        "req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {certificate} -days 100 -subj /O=Example/CN=ours -addext keyUsage=critical,keyCertSign"
    ));
    openssl(&format!("rsa -in {key} -traditional -out {pkcs1}"));
    let before = root(&one);
    let rotate = |more: &[&str]| one.ctl(["swarm", "ca", "--rotate"].iter().chain(more));
    let refused = rotate(&["--external-ca", "protocol=cfssl,url=https://192.0.2.1"]).failed();
    assert!(
        refused.contains("outside of the cluster is not supported"),
        "{refused}"
    );
    let refused = rotate(&["--ca-cert", &certificate]).failed();
    assert!(refused.contains("--ca-key"), "{refused}");
    let refused = rotate(&["--ca-cert", &certificate, "--ca-key", &pkcs1]).failed();
    assert!(refused.contains("PKCS#8"), "{refused}");
    assert!(!goes_on(&one));
    assert_eq!(root(&one), before);
    rotate(&["--quiet", "--ca-cert", &certificate, "--ca-key", &key]).ok();
    assert_eq!(
        root(&one).trim(),
        fs::read_to_string(&certificate).unwrap().trim()
    );
    // What the managers know of each other is still kept the same.
    one.ctl(["network", "create", "-d", "overlay", "afterwards"])
        .ok();
    for name in MANAGERS {
        let log = fs::read_to_string(lab.host(name).log()).unwrap();
        assert!(
            !log.contains("PRIVATE KEY"),
            "a key is in the log of {name}"
        );
    }
}

#[test]
fn a_rotation_outlives_its_leader() {
    let lab = Lab::up(Options {
        managers: 3,
        workers: 2,
        ..Options::for_test("rotate-leader")
    })
    .unwrap();
    until_managers(&lab.host("manager01"));
    let (old_root, old_token) = {
        let one = lab.host("manager01");
        (root(&one), token(&one, "worker"))
    };
    let left = the_leader_dies(&lab);
    // Newcomers join all the while, with the token that there is.
    assert_eq!(root(&left), old_root);
    assert_eq!(token(&left, "worker"), old_token);
    a_worker_joins(&lab, &left, &old_token);
    it_starts_over(&lab, &left);
    the_last_one_comes_back(&lab, &left, &old_root);
    a_node_that_is_removed_is_not_waited_for(&lab, &left);
    lab.down().unwrap();
}

/// Daemons are killed at any moment of a rotation: each one still ends, with nobody lost.
#[test]
fn rotations_end_under_kills() {
    let lab = Lab::up(Options {
        managers: 3,
        workers: 2,
        ..Options::for_test("rotate-kill")
    })
    .unwrap();
    until_managers(&lab.host("manager01"));
    let all = [
        "manager01",
        "manager02",
        "manager03",
        "worker01",
        "worker02",
    ];
    let wanted = all.map(|name| format!("{name} Ready Ready"));
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let mut roots = BTreeSet::from([root(&lab.host("manager01"))]);
    for round in 0..10 {
        // Another one each time; managers and workers in turn.
        let killed = lab.host(all[round % all.len()]);
        let asked = lab.host(all[(round + 1) % 3]);
        std::thread::scope(|scope| {
            let rotating = scope.spawn(|| asked.ctl(["swarm", "ca", "--rotate", "--detach"]));
            std::thread::sleep(Duration::from_millis(u64::from(rand::random::<u8>()) / 2));
            killed.kill().unwrap();
            // The leader may have died with it.
            let said = rotating.join().unwrap();
            eprintln!("round {round}: {} killed, {said:?}", killed.name());
        });
        killed.start().unwrap();
        let format = "{{.Hostname}} {{.Status}} {{.TLSStatus}}";
        wait::until("a leader answers", LIMIT, || {
            let shown = asked.ctl(["swarm", "ca"]);
            shown.success().then_some(()).ok_or(shown)
        });
        until_ended(&asked);
        until_statuses(&asked, "all have followed", format, &wanted);
        roots.insert(root(&asked));
    }
    assert!(roots.len() > 5, "{} roots", roots.len());
    lab.down().unwrap();
}

/// With autolock the private key is sealed after a rotation as it was before.
#[test]
fn a_sealed_key_stays_sealed() {
    let lab = Lab::up(Options {
        managers: 1,
        workers: 1,
        ..Options::for_test("rotate-locked")
    })
    .unwrap();
    let one = lab.host("manager01");
    let sealed = || {
        let text = fs::read_to_string(one.dir().join("lib/swarm/identity.pem")).unwrap();
        text.contains("LOCKED KEY") && !text.contains("PRIVATE KEY")
    };
    one.ctl(["swarm", "update", "--autolock=true"]).ok();
    wait::until("its key is sealed", LIMIT, || {
        sealed().then_some(()).ok_or("not")
    });
    let key = one.ctl(["swarm", "unlock-key", "-q"]).ok();
    one.ctl(["swarm", "ca", "--rotate", "-q"]).ok();
    assert!(sealed());
    let after = root(&one);
    one.kill().unwrap();
    one.start().unwrap();
    let body = format!(r#"{{"UnlockKey":"{}"}}"#, key.trim());
    let answer = one.api("POST", "/swarm/unlock", body.as_bytes()).unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(root(&one), after);
    until_statuses(
        &one,
        "both are there",
        TLS,
        &["manager01 Ready", "worker01 Ready"],
    );
    lab.down().unwrap();
}

/// With worker01 away; answers a manager that is left.
fn the_leader_dies(lab: &Lab) -> Host {
    let one = lab.host("manager01");
    lab.host("worker01").stop().unwrap();
    until_statuses(
        &one,
        "it is down",
        "{{.Hostname}} {{.Status}}",
        &["worker01 Down"],
    );
    one.ctl(["swarm", "ca", "--rotate", "--detach"]).ok();
    let leads = |host: &Host| {
        let all = statuses(host, "{{.Hostname}} {{.ManagerStatus}}");
        let found = MANAGERS
            .iter()
            .find(|name| all.contains(&format!("{name} Leader")));
        found.copied().ok_or(all)
    };
    let dead = wait::until("somebody leads", LIMIT, || leads(&one));
    lab.host(dead).kill().unwrap();
    let left = MANAGERS.iter().find(|name| **name != dead).unwrap();
    let left = lab.host(left);
    wait::until("another leads", LIMIT, || {
        let all = statuses(&left, "{{.Hostname}} {{.ManagerStatus}}");
        let other = MANAGERS
            .iter()
            .any(|name| *name != dead && all.contains(&format!("{name} Leader")));
        other.then_some(()).ok_or(all)
    });
    lab.host(dead).start().unwrap();
    let wanted = [
        "manager01 Ready",
        "manager02 Ready",
        "manager03 Ready",
        "worker02 Ready",
        "worker01 Needs Rotation",
    ];
    until_statuses(&left, "all but one have followed", TLS, &wanted);
    assert!(goes_on(&left));
    let status = left.ctl(["cluster", "status"]);
    let waits = "being replaced, which waits for worker01 (away)";
    assert!(status.stdout.contains(waits), "{status:?}");
    left
}

fn a_worker_joins(lab: &Lab, left: &Host, token: &str) {
    let joins = lab.host("worker02");
    joins.ctl(["swarm", "leave"]).ok();
    left.ctl(["node", "rm", "--force", "worker02"]).ok();
    let manager = format!("{}:2377", left.member().address());
    joins
        .ctl(["swarm", "join", "--token", token, &manager])
        .ok();
    until_statuses(left, "it has joined", TLS, &["worker02 Ready"]);
    let (own, trusted) = identity(&joins);
    assert_eq!((own.len(), trusted.len()), (2, 2));
    assert!(goes_on(left));
}

/// Another rotation takes the place of the one that waits.
fn it_starts_over(lab: &Lab, left: &Host) {
    let before = identity(&lab.host("worker02")).1;
    left.ctl(["swarm", "ca", "--rotate", "--detach"]).ok();
    for name in ["manager01", "manager02", "manager03", "worker02"] {
        wait::until("it trusts the next root, too", LIMIT, || {
            let now = identity(&lab.host(name)).1;
            let next = now.len() == 2 && now[0] == before[0] && now[1] != before[1];
            next.then_some(()).ok_or(now)
        });
    }
    let wanted = [
        "manager01 Ready",
        "manager02 Ready",
        "manager03 Ready",
        "worker02 Ready",
        "worker01 Needs Rotation",
    ];
    until_statuses(left, "all but one have followed again", TLS, &wanted);
}

fn the_last_one_comes_back(lab: &Lab, left: &Host, old_root: &str) {
    lab.host("worker01").start().unwrap();
    until_ended(left);
    let new_root = root(left);
    assert_ne!(new_root, old_root);
    for name in [
        "manager01",
        "manager02",
        "manager03",
        "worker01",
        "worker02",
    ] {
        wait::until("it trusts the new root alone", LIMIT, || {
            let (_, now) = identity(&lab.host(name));
            (now == [new_root.trim()]).then_some(()).ok_or(now)
        });
    }
    let status = left.ctl(["cluster", "status"]);
    assert!(!status.stdout.contains("being replaced"), "{status:?}");
}

fn a_node_that_is_removed_is_not_waited_for(lab: &Lab, left: &Host) {
    lab.host("worker01").stop().unwrap();
    until_statuses(
        left,
        "it is down",
        "{{.Hostname}} {{.Status}}",
        &["worker01 Down"],
    );
    left.ctl(["swarm", "ca", "--rotate", "--detach"]).ok();
    until_statuses(
        left,
        "the others have followed",
        TLS,
        &["worker02 Ready", "manager01 Ready"],
    );
    assert!(goes_on(left));
    left.ctl(["node", "rm", "worker01"]).ok();
    until_ended(left);
}
