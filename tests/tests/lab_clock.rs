//! A host whose clock is far off is told so when it joins, and nothing is half made; clocks that jump
//! disturb nothing.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{
    fs,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use tests::{Host, Lab, Options, lab::binary, wait};

const LIMIT: Duration = Duration::from_secs(30);

/// The library of Debian's package faketime.
fn faketime() -> PathBuf {
    fs::read_dir("/usr/lib")
        .unwrap()
        .map(|folder| folder.unwrap().path().join("faketime/libfaketimeMT.so.1"))
        .find(|library| library.is_file())
        .expect("the package faketime: `scripts/lab up` installs it")
}

#[test]
fn a_clock_far_off_is_named() {
    let lab = Lab::up(Options {
        workers: 1,
        cluster: false,
        ..Options::for_test("clock")
    })
    .unwrap();
    let (manager, one) = (lab.host("manager01"), lab.host("worker01"));
    let address = manager.member().address().to_string();
    let remote = format!("{address}:2377");
    manager
        .ctl(["swarm", "init", "--advertise-addr", &address])
        .ok();
    let token = manager.ctl(["swarm", "join-token", "-q", "worker"]).ok();
    let join = ["swarm", "join", "--token", &token, &remote];
    let nodes = || manager.ctl(["node", "ls", "-q"]).ok().lines().count();
    one.stop().unwrap();
    for (shift, side) in [("-3d", "behind"), ("+3d", "ahead")] {
        // Only the wall clock is another: the daemon's pauses and timeouts stay as they are.
        let mut command = Command::new(binary("ovnd").unwrap());
        command
            .env("LD_PRELOAD", faketime())
            .env("FAKETIME", shift)
            .env("DONT_FAKE_MONOTONIC", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut daemon = one.spawn(command).unwrap();
        wait::until("the daemon answers", LIMIT, || {
            UnixStream::connect(one.socket()).map(drop)
        });
        let said = one.ctl(join).failed();
        assert!(
            said.contains(side) && said.contains("clock") && said.lines().count() == 1,
            "{shift}: {said}"
        );
        assert_eq!(nodes(), 1, "{shift}: half a node was made");
        let state = ["info", "--format", "{{.Swarm.LocalNodeState}}"];
        assert_eq!(one.ctl(state).ok(), "inactive");
        let pid = nix::unistd::Pid::from_raw(i32::try_from(daemon.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        daemon.wait().unwrap();
    }
    // The clock was all that was wrong.
    one.start().unwrap();
    one.ctl(join).ok();
    assert_eq!(nodes(), 2);
    lab.down().unwrap();
}

const ECHO: &str = "registry:5000/example/echo:latest";
/// The daemons' clocks follow this file, which the library reads each time.
const SHIFT: &str = "/var/lib/overnet/shift";

#[test]
fn a_clock_that_jumps_disturbs_nothing() {
    let library = faketime().display().to_string();
    let lab = Lab::up(Options {
        workers: 1,
        environment: vec![
            format!("LD_PRELOAD={library}"),
            format!("FAKETIME_TIMESTAMP_FILE={SHIFT}"),
            "FAKETIME_NO_CACHE=1".to_owned(),
            "DONT_FAKE_MONOTONIC=1".to_owned(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        ],
        ..Options::for_test("clock-jump")
    })
    .unwrap();
    let (manager, worker) = (lab.host("manager01"), lab.host("worker01"));
    let create = "service create -d --name web --mode global";
    manager.ctl(create.split(' ').chain([ECHO])).ok();
    running(&manager, "web", 2);
    let before = [started(&manager), started(&worker)];
    for (number, (host, shift)) in [
        (&worker, "+2h"),
        (&worker, "-2h"),
        (&manager, "+2h"),
        (&manager, "-2h"),
        (&manager, "+0"),
        (&worker, "+0"),
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(host.dir().join("lib/shift"), shift).unwrap();
        // It has arrived when the daemon's own log bears the other time.
        wait::until(&format!("{} is at {shift}", host.name()), LIMIT, || {
            let said = host.ctl(["info", "--format", "{{.SystemTime}}"]).ok();
            let off = (seconds(said.trim()) - seconds("now")) / 60;
            let wanted = match shift {
                "+0" => 0,
                shift => shift.trim_end_matches('h').parse::<i64>().unwrap() * 60,
            };
            ((off - wanted).abs() < 10).then_some(()).ok_or(said)
        });
        let name = format!("jump{number}");
        let create = format!("service create -d --name {name} --mode global {ECHO}");
        manager.ctl(create.split(' ')).ok();
        running(&manager, &name, 2);
        manager.ctl(["service", "rm", &name]).ok();
        let nodes = ["node", "ls", "--format", "{{.Status}}"];
        assert_eq!(manager.ctl(nodes).ok(), "Ready\nReady", "{shift}");
        assert_eq!([started(&manager), started(&worker)], before, "{shift}");
    }
    lab.down().unwrap();
}

fn seconds(moment: &str) -> i64 {
    let said = Command::new("date").args(["-d", moment, "+%s"]).output();
    let said = String::from_utf8(said.unwrap().stdout).unwrap();
    said.trim().parse().unwrap()
}

fn running(manager: &Host, service: &str, wanted: usize) {
    wait::until(&format!("{service} runs {wanted} times"), LIMIT, || {
        let words = ["service", "ps", "--format", "{{.CurrentState}}", service];
        let states = manager.ctl(words).ok();
        let count = states.lines().filter(|s| s.starts_with("Running")).count();
        (count == wanted).then_some(()).ok_or(states)
    });
}

/// The first service's container on a host, and since when it runs.
fn started(host: &Host) -> String {
    let id = host.ctl(["ps", "-q", "--filter", "name=web"]).ok();
    let format = "{{.Id}} {{.State.Pid}} {{.State.Status}}";
    host.ctl(["inspect", "--format", format, id.trim()]).ok()
}
