//! Limits and restart policies of containers that exist, with ovnctl and the stock docker command
//! line, read back where the kernel has them.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::time::Duration;

use tests::{Host, Lab, Options, wait};

const TOOLBOX: &str = "registry:5000/example/toolbox";
const LIMIT: Duration = Duration::from_secs(30);
const MIB: u64 = 1 << 20;

fn docker(host: &Host, words: &str) -> String {
    host.docker(words.split_whitespace()).ok()
}

/// A file of the container's cgroup, by its names in version 1 and 2.
fn limit(host: &Host, container: &str, v1: &str, v2: &str) -> String {
    let pid = docker(
        host,
        &format!("inspect --format {{{{.State.Pid}}}} {container}"),
    );
    let text = std::fs::read_to_string(format!("/proc/{}/cgroup", host_pid(host, &pid))).unwrap();
    let root = std::path::Path::new("/sys/fs/cgroup");
    let file = if root.join("cgroup.controllers").exists() {
        let own = text
            .lines()
            .find_map(|line| line.strip_prefix("0::"))
            .unwrap();
        root.join(own.trim_start_matches('/')).join(v2)
    } else {
        let (controller, name) = v1.split_once('/').unwrap();
        let of = |line: &str| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let fits = controllers.split(',').any(|one| one == controller);
            fits.then(|| path.trim_start_matches('/').to_owned())
        };
        let own = text.lines().find_map(of).unwrap();
        root.join(controller).join(own).join(name)
    };
    let read = std::fs::read_to_string(&file);
    let read = read.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    read.trim().to_owned()
}

/// The container's process as this test sees it; hosts may have process numbers of their own.
fn host_pid(host: &Host, pid: &str) -> String {
    let words = ["readlink", &format!("/proc/{pid}/ns/net")];
    let wanted = host.exec(words).ok();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let found = pids.find(|pid| {
        let net = std::fs::read_link(format!("/proc/{pid}/ns/net"));
        net.is_ok_and(|net| net.to_string_lossy() == wanted)
    });
    found.unwrap()
}

fn memory(host: &Host, container: &str) -> String {
    limit(
        host,
        container,
        "memory/memory.limit_in_bytes",
        "memory.max",
    )
}

#[test]
fn limits_are_changed_in_place() {
    let lab = Lab::up(Options {
        workers: 1,
        cluster: false,
        ..Options::for_test("update")
    })
    .unwrap();
    let host = lab.host("worker01");
    for name in ["one", "two"] {
        docker(
            &host,
            &format!("run -d --name {name} --memory 64m --pids-limit 30 {TOOLBOX} sleep 100000"),
        );
    }
    running_containers_get_them(&host);
    they_hold_over_restarts(&host);
    wrong_ones_change_nothing(&host);
    policies_count_from_then_on(&host);
    lab.down().unwrap();
}

fn running_containers_get_them(host: &Host) {
    let pids = ["one", "two"]
        .map(|name| docker(host, &format!("inspect --format {{{{.State.Pid}}}} {name}")));
    let said = docker(
        host,
        "update --memory 128m --memory-swap 256m --cpus 0.5 --cpuset-cpus 0 --pids-limit 40 one two",
    );
    assert_eq!(said, "one\ntwo");
    for name in ["one", "two"] {
        assert_eq!(memory(host, name), (128 * MIB).to_string());
        assert_eq!(limit(host, name, "pids/pids.max", "pids.max"), "40");
        assert_eq!(limit(host, name, "cpuset/cpuset.cpus", "cpuset.cpus"), "0");
        let quota = limit(host, name, "cpu/cpu.cfs_quota_us", "cpu.max");
        assert!(quota.starts_with("50000"), "{quota}");
    }
    // Less and more again, and what is not named stays.
    host.ctl(["update", "--memory", "32m", "--memory-swap", "64m", "one"])
        .ok();
    assert_eq!(memory(host, "one"), (32 * MIB).to_string());
    host.ctl(["update", "--memory", "256m", "--memory-swap", "-1", "one"])
        .ok();
    assert_eq!(memory(host, "one"), (256 * MIB).to_string());
    host.ctl(["update", "--pids-limit", "-1", "--cpu-shares", "512", "one"])
        .ok();
    assert_ne!(limit(host, "one", "pids/pids.max", "pids.max"), "40");
    assert_eq!(limit(host, "one", "cpuset/cpuset.cpus", "cpuset.cpus"), "0");
    let after = ["one", "two"]
        .map(|name| docker(host, &format!("inspect --format {{{{.State.Pid}}}} {name}")));
    assert_eq!(pids, after, "nobody was restarted");
    let format = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.CpuShares}} {{.HostConfig.NanoCpus}} {{.HostConfig.CpusetCpus}}";
    let shown = host.docker(["inspect", "--format", format, "one"]).ok();
    assert_eq!(shown, format!("{} -1 512 500000000 0", 256 * MIB));
}

fn they_hold_over_restarts(host: &Host) {
    docker(host, "restart -t 0 two");
    assert_eq!(memory(host, "two"), (128 * MIB).to_string());
    host.kill().unwrap();
    host.start().unwrap();
    assert_eq!(memory(host, "one"), (256 * MIB).to_string());
    docker(host, "update --memory 64m two");
    assert_eq!(memory(host, "two"), (64 * MIB).to_string());
    // Of one that rests, too.
    docker(host, "stop -t 0 two");
    docker(host, "update --memory 96m two");
    docker(host, "start two");
    assert_eq!(memory(host, "two"), (96 * MIB).to_string());
}

fn wrong_ones_change_nothing(host: &Host) {
    // A tmpfs counts as the container's memory, and cannot be taken back.
    docker(
        host,
        &format!(
            "run -d --name full --memory 64m --memory-swap 64m --tmpfs /t {TOOLBOX} sleep 100000"
        ),
    );
    docker(host, "exec full dd if=/dev/zero of=/t/x bs=1M count=24");
    for (body, status, words) in [
        (
            r#"{"Memory":1000000}"#,
            400,
            "Minimum memory limit allowed is 6MB",
        ),
        (
            r#"{"Memory":16777216,"MemorySwap":16777216}"#,
            409,
            "current usage",
        ),
        (
            r#"{"MemorySwap":33554432}"#,
            400,
            "larger than memory limit",
        ),
        (r#"{"Memory":134217728}"#, 409, "update the memoryswap"),
        (
            r#"{"PidsLimit":5,"CpusetCpus":"0,4000"}"#,
            400,
            "not available",
        ),
        (
            r#"{"PidsLimit":5,"NanoCpus":64000000000000}"#,
            400,
            "range of CPUs",
        ),
        (
            r#"{"PidsLimit":5,"RestartPolicy":{"Name":"sometimes"}}"#,
            400,
            "",
        ),
        (r#"{"Memory":"much"}"#, 400, ""),
    ] {
        let answer = host
            .api("POST", "/containers/full/update", body.as_bytes())
            .unwrap();
        let said = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, status, "{body}: {said}");
        assert!(said.contains(words), "{body}: {said}");
        assert_eq!(memory(host, "full"), (64 * MIB).to_string(), "{body}");
        assert_ne!(
            limit(host, "full", "pids/pids.max", "pids.max"),
            "5",
            "{body}"
        );
    }
    let said = host
        .docker(["update", "--memory", "64m", "absent"])
        .failed();
    assert!(said.contains("No such container: absent"), "{said}");
    assert_eq!(docker(host, "exec full echo alive"), "alive");
}

fn policies_count_from_then_on(host: &Host) {
    docker(host, &format!("run -d --name again {TOOLBOX} sleep 100000"));
    docker(host, "update --restart on-failure:5 again");
    let pid = docker(host, "inspect --format {{.State.Pid}} again");
    host.exec(["kill", "-9", &pid]).ok();
    wait::until("it runs again", LIMIT, || {
        let format = "{{.State.Running}} {{.RestartCount}}";
        let shown = host.docker(["inspect", "--format", format, "again"]).ok();
        if shown == "true 1" {
            Ok(())
        } else {
            Err(shown)
        }
    });
    docker(
        host,
        &format!("run -d --rm --name brief {TOOLBOX} sleep 100000"),
    );
    let said = host
        .docker(["update", "--restart", "always", "brief"])
        .failed();
    assert!(said.contains("AutoRemove is enabled"), "{said}");
}
