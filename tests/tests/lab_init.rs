//! `--init`: a small first process passes signals on and takes the exit status of orphans.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::time::{Duration, Instant};

use tests::{Lab, Options, wait};

const TOOLBOX: &str = "registry:5000/example/toolbox";
const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn an_init_process_reaps_and_passes_signals_on() {
    let lab = Lab::up(Options {
        workers: 1,
        cluster: false,
        ..Options::for_test("init")
    })
    .unwrap();
    let one = lab.host("worker01");
    // Its child leaves an orphan every second turn; nobody but an init process waits for it.
    let script = "for i in 1 2 3; do sh -c 'sleep 0.05 &'; done; exec sleep 100000";
    let run = |name: &str, more: &[&str]| {
        let mut words = vec!["run", "-d", "--name", name];
        words.extend(more);
        words.extend([TOOLBOX, "sh", "-c", script]);
        one.ctl(words)
    };
    run("with", &["--init"]).ok();
    run("without", &[]).ok();
    let first = |name: &str| {
        let line = one.ctl(["exec", name, "cat", "/proc/1/cmdline"]).ok();
        line.split('\0').next().unwrap_or_default().to_owned()
    };
    assert_eq!(first("with"), "/sbin/docker-init");
    assert_eq!(first("without"), "sleep");
    let zombies = |name: &str| {
        let count = "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l";
        one.ctl(["exec", name, "sh", "-c", count]).ok()
    };
    wait::until("orphans without an init process stay", LIMIT, || {
        let left = zombies("without");
        (left == "3").then_some(()).ok_or(left)
    });
    assert_eq!(zombies("with"), "0");

    // `sleep` as first process has no handler, so SIGTERM means nothing to it.
    let begun = Instant::now();
    one.ctl(["stop", "with"]).ok();
    let took = begun.elapsed();
    eprintln!("stopped after {took:?}");
    assert!(took < Duration::from_secs(8), "SIGTERM was not passed on");
    let code = ["inspect", "--format", "{{.State.ExitCode}}", "with"];
    assert_eq!(one.ctl(code).ok(), "143");
    one.ctl(["rm", "-f", "with", "without"]).ok();

    // On a host without such a program the package is named, and nothing is left.
    for program in [
        "/usr/bin/docker-init",
        "/usr/libexec/docker/docker-init",
        "/usr/bin/tini-static",
        "/usr/bin/catatonit",
        "/usr/libexec/podman/catatonit",
    ] {
        if one.exec(["test", "-e", program]).success() {
            one.exec(["mount", "--bind", "/dev/null", program]).ok();
        }
    }
    let said = run("never", &["--init"]).failed();
    assert!(said.contains("package tini or catatonit"), "{said}");
    assert_eq!(one.ctl(["ps", "-q"]).ok(), "");
    lab.down().unwrap();
}
