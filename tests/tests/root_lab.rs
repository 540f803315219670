//! The lab itself, without daemons: hosts, cables, partitions, and nothing left behind.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{fs, path::Path, time::Duration};

use tests::{Lab, Options, wait};

fn bare(name: &str, workers: u8) -> Lab {
    let options = Options {
        workers,
        cluster: false,
        daemons: false,
        ..Options::for_test(name)
    };
    Lab::up(options).unwrap()
}

fn ping(lab: &Lab, from: &str, to: &str) -> bool {
    lab.host(from)
        .exec(["busybox", "ping", "-c1", "-W1", to])
        .success()
}

fn mounts() -> String {
    fs::read_to_string("/proc/self/mounts").unwrap()
}

/// Interfaces of the machine's own namespace.
fn links() -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir("/sys/class/net")
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    names
        .into_iter()
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

#[test]
fn hosts_talk_part_and_heal() {
    let lab = bare("root-hosts", 2);
    let one = lab.host("worker01");
    assert_eq!(one.exec(["hostname"]).ok(), "worker01");
    assert!(ping(&lab, "worker01", "worker02"));
    assert!(ping(&lab, "client", "fd77:6f76:6e00::65"));
    let catalog = one
        .exec(["curl", "-s", "http://registry:5000/v2/_catalog"])
        .ok();
    for image in ["example/echo", "example/toolbox", "gihyodocker/nginx-proxy"] {
        assert!(catalog.contains(&format!("\"{image}\"")), "{catalog}");
    }
    assert_eq!(one.exec(["dig", "+short", "client"]).ok(), "192.168.77.3");
    assert!(
        lab.host("manager01")
            .exec(["ls", "/stack"])
            .ok()
            .contains("ch03-webapi.yml")
    );
    lab.host("manager01").exec(["touch", "/stack/x"]).failed();
    one.exec(["test", "-e", "/stack"]).failed();

    lab.partition("worker01", "worker02").unwrap();
    assert!(!ping(&lab, "worker01", "worker02"));
    assert!(ping(&lab, "worker01", "manager01"));
    lab.heal().unwrap();
    assert!(ping(&lab, "worker02", "worker01"));
    lab.down().unwrap();
}

#[test]
fn a_crashed_host_keeps_its_disk_only() {
    let lab = bare("root-crash", 1);
    let one = lab.host("worker01");
    one.exec([
        "sh",
        "-c",
        "echo disk > /var/lib/overnet/a; echo boot > /run/overnet/b",
    ])
    .ok();
    let mut sleeper = std::process::Command::new("sleep");
    sleeper.arg("1000");
    let mut sleeper = one.spawn(sleeper).unwrap();
    one.crash().unwrap();
    assert!(
        !sleeper.wait().unwrap().success(),
        "a process outlived its host"
    );
    assert!(!one.is_up());
    assert!(!ping(&lab, "client", "worker01"));
    one.start().unwrap();
    // The client's neighbour entry still says that nobody is there.
    wait::until("the host answers again", Duration::from_secs(10), || {
        ping(&lab, "client", "worker01")
            .then_some(())
            .ok_or("no answer")
    });
    assert_eq!(one.exec(["cat", "/var/lib/overnet/a"]).ok(), "disk");
    one.exec(["test", "-e", "/run/overnet/b"]).failed();
    lab.down().unwrap();
}

#[test]
fn two_labs_stand_side_by_side_and_leave_nothing() {
    let (before_links, before_mounts) = (links(), mounts());
    let (first, second) = (bare("root-first", 1), bare("root-second", 1));
    first
        .host("worker01")
        .exec(["sh", "-c", "echo 1 > /etc/mark"])
        .ok();
    second
        .host("worker01")
        .exec(["test", "-e", "/etc/mark"])
        .failed();
    assert!(ping(&first, "worker01", "manager01") && ping(&second, "worker01", "manager01"));
    assert_eq!(links(), before_links);
    assert_eq!(mounts(), before_mounts);
    let folders = [first.dir().to_owned(), second.dir().to_owned()];
    first.down().unwrap();
    assert!(ping(&second, "worker01", "manager01"));
    // A record that was lost does not save its process.
    fs::remove_file(second.dir().join("worker01/init")).unwrap();
    second.down().unwrap();
    for folder in &folders {
        assert!(!folder.exists());
        tests::lab::down(folder).unwrap();
    }
    assert!(!Path::new("/etc/mark").exists());
    assert_eq!(mounts(), before_mounts);
}

#[test]
fn a_folder_that_is_no_lab_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("letter"), "dear").unwrap();
    let refused = tests::lab::down(folder.path()).unwrap_err().to_string();
    assert!(refused.contains("holds no lab"), "{refused}");
    assert!(folder.path().join("letter").exists());
}
