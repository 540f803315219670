//! A host whose clock is far off is told so when it joins, and nothing is half made.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{
    fs,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use tests::{Lab, Options, lab::binary, wait};

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
