//! What may be wrong with a host: programs that are not there or too old, control groups that are
//! not mounted, disks that are full or read-only, another name. Each is named with the way out, what
//! runs goes on, and when the fault is gone all is well.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use tests::{Host, Lab, Options, wait};

const ECHO: &str = "registry:5000/example/echo:latest";
const TOOLBOX: &str = "registry:5000/example/toolbox";
const ROOT: &str = "/var/lib/overnet";
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn what_is_wrong_with_a_host_is_named_and_ends_with_the_fault() {
    let lab = Lab::up(Options {
        workers: 1,
        ..Options::for_test("host-faults")
    })
    .unwrap();
    let (manager, host) = (lab.host("manager01"), lab.host("worker01"));
    manager
        .ctl("network create -d overlay --attachable net1".split(' '))
        .ok();
    let run = "run -d --name web --network net1";
    host.ctl(run.split(' ').chain([ECHO])).ok();
    let web = Web::of(&host);
    programs(&lab, &host, &web);
    control_groups(&host, &web);
    a_read_only_disk(&host, &web);
    another_name(&manager, &host);
    // Last, since the host's disk is memory from then on.
    a_full_disk(&host, &web);
    lab.down().unwrap();
}

/// The container that has to go on.
struct Web(String);

impl Web {
    fn of(host: &Host) -> Self {
        let words = "inspect --format {{.State.Pid}}/{{.State.StartedAt}}/{{.State.Status}} web";
        Self(host.ctl(words.split(' ')).ok())
    }

    fn goes_on(&self, host: &Host) {
        assert_eq!(Self::of(host).0, self.0);
    }
}

fn shell(host: &Host, script: &str) {
    host.exec(["sh", "-c", script]).ok();
}

/// What the daemon has logged since `from`.
fn logged(host: &Host, from: usize) -> String {
    let text = fs::read(host.log()).unwrap();
    String::from_utf8_lossy(&text[from.min(text.len())..]).into_owned()
}

/// A daemon that starts with the fault names it.
fn is_named_at_start(host: &Host, sentence: &str) {
    host.stop().unwrap();
    let from = fs::read(host.log()).unwrap().len();
    host.start().unwrap();
    wait::until(&format!("the log has: {sentence}"), LIMIT, || {
        let log = logged(host, from);
        log.contains(sentence).then_some(()).ok_or(log)
    });
}

/// A daemon that does not start with the fault, and what it says.
fn does_not_start(host: &Host) -> String {
    host.stop().unwrap();
    let from = fs::read(host.log()).unwrap().len();
    host.start().unwrap_err();
    logged(host, from)
}

fn works_again(host: &Host, web: &Web) {
    web.goes_on(host);
    let run = "run --rm --network net1";
    host.ctl(run.split(' ').chain([TOOLBOX, "true"])).ok();
}

fn programs(lab: &Lab, host: &Host, web: &Web) {
    let conmon = host.exec(["sh", "-c", "readlink -f $(command -v conmon)"]);
    let conmon = conmon.ok().trim().to_owned();
    shell(host, &format!("mount --bind /dev/null {conmon}"));
    let said = does_not_start(host);
    let sentence =
        "program conmon: not there. No container can be started. Mend: apt-get install conmon";
    assert!(said.contains(sentence), "{said}");
    shell(host, &format!("umount {conmon}"));
    host.start().unwrap();
    works_again(host, web);

    let old = lab.dir().join("old-conmon");
    fs::write(&old, "#!/bin/sh\necho conmon version 2.0.25\n").unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o755)).unwrap();
    let old = old.display();
    shell(host, &format!("mount --bind {old} {conmon}"));
    is_named_at_start(host, "conmon version 2.0.25, which is older than 2.1.6");
    shell(host, &format!("umount {conmon}"));
    works_again(host, web);
}

fn control_groups(host: &Host, web: &Web) {
    shell(host, "mount -t tmpfs none /sys/fs/cgroup");
    is_named_at_start(
        host,
        "control groups: none are mounted at /sys/fs/cgroup. No container can be started.",
    );
    web.goes_on(host);
    let said = host.ctl(["run", "--rm", TOOLBOX, "true"]).failed();
    assert!(said.contains("cgroup"), "{said}");
    shell(host, "umount /sys/fs/cgroup");
    // How they are laid out is looked at once, at the start.
    host.stop().unwrap();
    host.start().unwrap();
    works_again(host, web);
}

fn a_read_only_disk(host: &Host, web: &Web) {
    let lock = format!("mount --bind {ROOT} {ROOT} && mount -o remount,ro,bind {ROOT}");
    shell(host, &lock);
    let said = host.ctl(["volume", "create", "some"]).failed();
    assert!(said.contains("Read-only file system"), "{said}");
    let said = host.ctl(["run", "--rm", TOOLBOX, "true"]).failed();
    assert!(said.contains("Read-only file system"), "{said}");
    web.goes_on(host);
    // A daemon that could keep nothing does not begin.
    let log = does_not_start(host);
    assert!(
        log.contains("Read-only file system") && log.contains(ROOT),
        "{log}"
    );
    shell(host, &format!("umount {ROOT}"));
    host.start().unwrap();
    works_again(host, web);
    let volumes = host.ctl(["volume", "ls", "-q"]).ok();
    assert_eq!(volumes, "", "nothing is half made");
}

fn another_name(manager: &Host, host: &Host) {
    let known = |name: &str| {
        wait::until(&format!("the cluster knows {name}"), LIMIT, || {
            let listed = manager
                .ctl(["node", "ls", "--format", "{{.Hostname}} {{.Status}}"])
                .ok();
            let there = listed.lines().any(|line| line == format!("{name} Ready"));
            there.then_some(()).ok_or(listed)
        });
    };
    let ids = || manager.ctl(["node", "ls", "-q"]).ok();
    let before = ids();
    host.exec(["hostname", "renamed01"]).ok();
    known("renamed01");
    assert_eq!(ids(), before, "it is the node that it was");
    // Where it is placed, and what its template gives, is the name of now.
    let create = "service create --detach --name named --constraint node.hostname==renamed01 \
                  --hostname at-{{.Node.Hostname}}";
    manager.ctl(create.split(' ').chain([ECHO])).ok();
    let names = || host.ctl(["ps", "-a", "--format", "{{.Names}}"]).ok();
    let named = wait::until("the service's container is there", LIMIT, || {
        let names = names();
        let of_service = names.lines().find(|name| name.starts_with("named.1."));
        of_service.map(str::to_owned).ok_or(names)
    });
    let name = host.ctl(["inspect", "--format", "{{.Config.Hostname}}", &named]);
    assert_eq!(name.ok(), "at-renamed01");
    manager.ctl(["service", "rm", "named"]).ok();
    wait::until("the service's container is gone", LIMIT, || {
        let names = names();
        (names == "web").then_some(()).ok_or(names)
    });
    host.exec(["hostname", "worker01"]).ok();
    known("worker01");
}

fn a_full_disk(host: &Host, web: &Web) {
    host.stop().unwrap();
    let small = format!(
        "size=$(($(du -sm {ROOT} | cut -f1) + 32)); mkdir /tmp/kept; cp -a {ROOT}/. /tmp/kept/; \
         mount -t tmpfs -o size=${{size}}m small {ROOT} && cp -a /tmp/kept/. {ROOT}/; rm -r /tmp/kept"
    );
    shell(host, &small);
    host.start().unwrap();
    works_again(host, web);
    shell(
        host,
        &format!("dd if=/dev/zero of={ROOT}/fill bs=64k 2>/dev/null; true"),
    );
    let said = host.ctl(["run", "--rm", TOOLBOX, "true"]).failed();
    assert!(said.contains("No space left on device"), "{said}");
    let said = host.ctl(["volume", "create", "some"]).failed();
    assert!(said.contains("No space left on device"), "{said}");
    web.goes_on(host);
    shell(host, &format!("rm {ROOT}/fill"));
    works_again(host, web);
    let names = host.ctl(["ps", "-a", "--format", "{{.Names}}"]).ok();
    assert_eq!(names, "web", "nothing is half made");
}
