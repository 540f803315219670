//! The stock docker command line on a host that is in no cluster.

#![allow(clippy::unwrap_used)] // all of it is tests

use tests::{Host, Lab, Options};

const TOOLBOX: &str = "registry:5000/example/toolbox";

#[test]
fn the_stock_client_understands_a_host_alone() {
    let lab = Lab::up(Options {
        workers: 1,
        cluster: false,
        ..Options::for_test("stock")
    })
    .unwrap();
    let host = lab.host("worker01");
    for (arguments, success, words) in [
        (&["version"][..], true, "1.53 (minimum version 1.24)"),
        (&["info"], true, "Swarm: inactive"),
        (&["ps", "-a"], true, "CONTAINER ID"),
        (&["network", "ls"], true, "bridge"),
        (&["network", "inspect", "bridge"], true, "Gateway"),
        (&["volume", "ls"], true, "VOLUME NAME"),
        (&["system", "df"], true, "Local Volumes"),
        (&["events", "--since", "1m", "--until", "0s"], true, ""),
        (&["node", "ls"], false, "This node is not a swarm manager"),
        (&["inspect", "nothing"], false, "nothing"),
        (
            &["run", "--pull", "never", "absent"],
            false,
            "No such image: absent",
        ),
        (&["system", "prune", "-f"], true, "reclaimed space: 0B"),
        (&["builder", "prune", "-f"], true, "0B"),
        (
            &["pull", "--platform", "linux/s390x", TOOLBOX],
            false,
            "cannot run here",
        ),
    ] {
        let output = host.docker(arguments);
        let text = format!("{}{}", output.stdout, output.stderr);
        assert_eq!(output.success(), success, "{arguments:?}: {text}");
        assert!(text.contains(words), "{arguments:?}: {text}");
    }
    files_are_compared_and_carried(&host);
    images_are_imported(&host);
    lab.down().unwrap();
}

fn docker(host: &Host, words: &[&str]) -> String {
    host.docker(words).ok()
}

/// What Docker hides is hidden: the files that the daemon mounts.
fn files_are_compared_and_carried(host: &Host) {
    let run = ["run", "-d", "--name", "files", TOOLBOX, "sleep", "100000"];
    docker(host, &run);
    assert_eq!(docker(host, &["diff", "files"]), "");
    docker(host, &["exec", "files", "sh", "-c", "echo a > /etc/mine"]);
    assert_eq!(docker(host, &["diff", "files"]), "C /etc\nA /etc/mine");
    let copy = host.dir().join("copied");
    let copy = copy.to_str().unwrap();
    docker(host, &["cp", "files:/etc/mine", copy]);
    docker(host, &["cp", copy, "files:/tmp/yours"]);
    assert_eq!(docker(host, &["exec", "files", "cat", "/tmp/yours"]), "a");
}

fn images_are_imported(host: &Host) {
    let tar = host.dir().join("export.tar");
    let tar = tar.to_str().unwrap();
    docker(host, &["export", "-o", tar, "files"]);
    let words = [
        "import",
        "-c",
        "CMD [\"cat\", \"/etc/mine\"]",
        "-c",
        "ENV A=1",
        "-m",
        "kept",
    ];
    docker(host, &[&words[..], &[tar, "mine:1"]].concat());
    assert_eq!(docker(host, &["run", "--rm", "mine:1"]), "a");
    let env = ["run", "--rm", "mine:1", "sh", "-c", "echo $A"];
    assert_eq!(docker(host, &env), "1");
    assert!(docker(host, &["history", "mine:1"]).contains("kept"));
    // Bodies that nobody reads: the reason is told all the same.
    let small = host.dir().join("small.tar");
    std::fs::write(&small, vec![0; 512 << 10]).unwrap();
    let small = small.to_str().unwrap();
    for (words, says) in [
        (
            &["import", "-c", "RUN make", small, "mine:2"][..],
            "not one of CMD",
        ),
        (&["cp", small, "absent:/tmp/x"], "No such container: absent"),
    ] {
        let said = host.docker(words).failed();
        assert!(said.contains(says), "{said}");
    }
    // The same with our own words.
    let kept = host.dir().join("kept.tar");
    let kept = kept.to_str().unwrap();
    host.ctl(["export", "-o", kept, "files"]).ok();
    let words = ["import", "-c", "CMD cat /etc/mine", kept, "mine:4"];
    let id = host.ctl(words).ok();
    assert!(id.contains("sha256:"), "{id}");
    assert_eq!(host.ctl(["run", "--rm", "mine:4"]).ok(), "a");
    let changed = host.ctl(["diff", "files"]).ok();
    assert!(changed.contains("A /etc/mine"), "{changed}");
    let said = host.docker(["commit", "files", "mine:3"]).failed();
    assert!(said.contains("import --change"), "{said}");
}
