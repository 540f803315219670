//! The stock docker command line on a host that is in no cluster.

#![allow(clippy::unwrap_used)] // all of it is tests

use tests::{Lab, Options};

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
    ] {
        let output = host.docker(arguments);
        let text = format!("{}{}", output.stdout, output.stderr);
        assert_eq!(output.success(), success, "{arguments:?}: {text}");
        assert!(text.contains(words), "{arguments:?}: {text}");
    }
    lab.down().unwrap();
}
