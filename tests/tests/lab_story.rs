//! The story a user is told, as typed: once with ovnctl, once with the stock docker command
//! line, each in a cluster of four hosts.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::time::Duration;

use tests::{Host, Lab, Options, Output, wait};

const ECHO: &str = "registry:5000/example/echo:latest";
const TOOLBOX: &str = "registry:5000/example/toolbox";
const LIMIT: Duration = Duration::from_secs(30);

/// One of the two command lines.
type Cli = fn(&Host, &[&str]) -> Output;

fn ovnctl(host: &Host, args: &[&str]) -> Output {
    host.ctl(args)
}

fn docker(host: &Host, args: &[&str]) -> Output {
    host.docker(args)
}

#[test]
fn with_ovnctl() {
    story("story-ovnctl", ovnctl);
}

#[test]
fn with_the_stock_docker_cli() {
    story("story-docker", docker);
}

fn story(name: &str, cli: Cli) {
    let lab = Lab::up(Options {
        cluster: false,
        ..Options::for_test(name)
    })
    .unwrap();
    form_the_cluster(&lab, cli);
    make_the_network(&lab, cli);
    containers_find_each_other(&lab, cli);
    containers_on_one_host(&lab, cli);
    packets_of_every_size(&lab, cli);
    two_families(&lab, cli);
    internal_has_no_way_out(&lab, cli);
    take_it_down(&lab, cli);
    lab.down().unwrap();
}

fn form_the_cluster(lab: &Lab, cli: Cli) {
    let manager = lab.host("manager01");
    let address = manager.member().address().to_string();
    let printed = cli(&manager, &["swarm", "init", "--advertise-addr", &address]).ok();
    let token = printed
        .split_whitespace()
        .find(|word| word.starts_with("SWMTKN-1-"));
    let token = token
        .unwrap_or_else(|| panic!("no join command in: {printed}"))
        .to_owned();
    let remote = format!("{address}:2377");
    assert!(
        printed.contains(&remote),
        "no address to join in: {printed}"
    );
    for worker in ["worker01", "worker02", "worker03"] {
        let joined = cli(
            &lab.host(worker),
            &["swarm", "join", "--token", &token, &remote],
        )
        .ok();
        assert!(
            joined.contains("This node joined a swarm as a worker"),
            "{joined}"
        );
    }
    wait::until("four nodes are ready", LIMIT, || {
        let listed = cli(
            &manager,
            &["node", "ls", "--format", "{{.Hostname}} {{.Status}}"],
        )
        .ok();
        let mut lines: Vec<&str> = listed.lines().collect();
        lines.sort_unstable();
        let wanted = [
            "manager01 Ready",
            "worker01 Ready",
            "worker02 Ready",
            "worker03 Ready",
        ];
        (lines == wanted)
            .then_some(())
            .ok_or_else(|| listed.clone())
    });
    assert!(cli(&manager, &["node", "ls"]).ok().contains("Leader"));
    // A worker cannot answer for the cluster, and says who can.
    let refused = cli(&lab.host("worker01"), &["node", "ls"]).failed();
    assert!(refused.contains("not a swarm manager"), "{refused}");
}

fn make_the_network(lab: &Lab, cli: Cli) {
    let manager = lab.host("manager01");
    let id = cli(
        &manager,
        &[
            "network",
            "create",
            "--driver=overlay",
            "--attachable",
            "ch03",
        ],
    )
    .ok();
    assert!(
        id.len() == 25 && id.bytes().all(|b| b.is_ascii_alphanumeric()),
        "not an id: {id}"
    );
    let listed = cli(
        &manager,
        &[
            "network",
            "ls",
            "--format",
            "{{.Name}} {{.Driver}} {{.Scope}}",
        ],
    )
    .ok();
    let mut lines: Vec<&str> = listed.lines().collect();
    lines.sort_unstable();
    let wanted = [
        "bridge bridge local",
        "ch03 overlay swarm",
        "docker_gwbridge bridge local",
        "host host local",
        "ingress overlay swarm",
        "none null local",
    ];
    assert_eq!(lines, wanted);
    let format = "{{.Driver}} {{.Attachable}} {{.Scope}} {{len .IPAM.Config}}";
    let shown = cli(
        &manager,
        &["network", "inspect", "--format", format, "ch03"],
    )
    .ok();
    assert_eq!(shown, "overlay true swarm 1");
}

fn containers_find_each_other(lab: &Lab, cli: Cli) {
    let (one, two) = (lab.host("worker01"), lab.host("worker02"));
    cli(&one, &["pull", ECHO]).ok();
    cli(
        &one,
        &["run", "-d", "--name", "api", "--network", "ch03", ECHO],
    )
    .ok();
    let toolbox = |host: &Host, words: &[&str]| {
        let mut args = vec!["run", "--rm", "--network", "ch03", TOOLBOX];
        args.extend(words);
        cli(host, &args).ok()
    };
    assert_eq!(
        toolbox(&two, &["wget", "-qO-", "http://api:8080"]),
        "Hello Docker!!"
    );
    // From the same host, and from the manager.
    assert_eq!(
        toolbox(&one, &["wget", "-qO-", "http://api:8080"]),
        "Hello Docker!!"
    );
    let manager = lab.host("manager01");
    assert_eq!(
        toolbox(&manager, &["wget", "-qO-", "http://api:8080"]),
        "Hello Docker!!"
    );

    let address = address_of(cli, &one, "api", "ch03");
    let own = cli(
        &one,
        &["inspect", "--format", "{{.Config.Hostname}}", "api"],
    )
    .ok();
    let script = "hostname -i; wget -qO- http://api:8080/whoami";
    let answer = toolbox(&two, &["sh", "-c", script]);
    let (asker, seen) = answer.split_once('\n').unwrap_or_default();
    assert!(
        asker
            .split(' ')
            .any(|ip| seen.starts_with(&format!("{ip}:"))),
        "seen as {answer}"
    );
    assert!(seen.ends_with(&own), "{seen} is not {own}");

    // Names: forward, short id, reverse, an unknown one, a foreign one.
    assert_eq!(toolbox(&two, &["dig", "+short", "api"]), address);
    assert_eq!(toolbox(&two, &["dig", "+short", &own]), address);
    let reverse = toolbox(&two, &["dig", "+short", "-x", &address]);
    assert!(reverse.starts_with("api."), "{reverse}");
    let empty = toolbox(&two, &["dig", "AAAA", "api"]);
    assert!(
        empty.contains("NOERROR") && empty.contains("ANSWER: 0"),
        "{empty}"
    );
    let registry = lab.host("registry").member().address().to_string();
    assert_eq!(toolbox(&two, &["dig", "+short", "registry"]), registry);
    // Egress by masquerade, by a foreign name.
    let catalog = toolbox(&two, &["wget", "-qO-", "http://registry:5000/v2/_catalog"]);
    assert!(catalog.contains("example/echo"), "{catalog}");
}

fn containers_on_one_host(lab: &Lab, cli: Cli) {
    let one = lab.host("worker01");
    let listed = cli(
        &one,
        &["ps", "--format", "{{.Names}} {{.Image}} {{.State}}"],
    )
    .ok();
    assert_eq!(listed, format!("api {ECHO} running"));
    let logs = cli(&one, &["logs", "api"]).ok();
    assert!(
        logs.starts_with("start server") && logs.contains("received request"),
        "{logs}"
    );
    let id = cli(&one, &["inspect", "--format", "{{.Id}}", "api"]).ok();
    assert_eq!(cli(&one, &["exec", "api", "hostname"]).ok(), id[..12]);
    let in_container = cli(
        &one,
        &[
            "exec",
            "-e",
            "A=b",
            "-w",
            "/tmp",
            "api",
            "sh",
            "-c",
            "echo $A $(pwd)",
        ],
    );
    assert_eq!(in_container.ok(), "b /tmp");
    assert_eq!(
        cli(&one, &["run", "--rm", TOOLBOX, "sh", "-c", "exit 7"]).status,
        7
    );
    // Without a network of its own: the local bridge, with a way out.
    let local = [
        "run",
        "--rm",
        TOOLBOX,
        "wget",
        "-qO-",
        "http://registry:5000/v2/",
    ];
    assert_eq!(cli(&one, &local).ok(), "{}");
}

/// Everything between a small packet and many fragments arrives: no black hole at the
/// encapsulation's edge.
fn packets_of_every_size(lab: &Lab, cli: Cli) {
    let script = "cat /sys/class/net/eth0/mtu; for s in 100 1400 1422 1423 1450 1472 4000 20000; do \
                  ping -c 2 -W 2 -s $s api >/dev/null && echo $s; done";
    let args = [
        "run",
        "--rm",
        "--network",
        "ch03",
        TOOLBOX,
        "sh",
        "-c",
        script,
    ];
    let answered = cli(&lab.host("worker03"), &args).ok();
    assert_eq!(
        answered.lines().collect::<Vec<_>>().join(" "),
        "1450 100 1400 1422 1423 1450 1472 4000 20000"
    );
}

fn two_families(lab: &Lab, cli: Cli) {
    let (manager, one, two) = (
        lab.host("manager01"),
        lab.host("worker01"),
        lab.host("worker02"),
    );
    let create = [
        "network",
        "create",
        "-d",
        "overlay",
        "--attachable",
        "--ipv6",
        "dual",
    ];
    cli(&manager, &create).ok();
    cli(
        &one,
        &["run", "-d", "--name", "six", "--network", "dual", ECHO],
    )
    .ok();
    let format = "{{.NetworkSettings.Networks.dual.GlobalIPv6Address}}";
    let address = cli(&one, &["inspect", "--format", format, "six"]).ok();
    let ask = |words: &[&str]| {
        let mut args = vec!["run", "--rm", "--network", "dual", TOOLBOX];
        args.extend(words);
        cli(&two, &args).ok()
    };
    assert_eq!(ask(&["dig", "+short", "AAAA", "six"]), address);
    assert_eq!(
        ask(&["curl", "-gs", &format!("http://[{address}]:8080/")]),
        "Hello Docker!!"
    );
    assert_eq!(ask(&["curl", "-4s", "http://six:8080/"]), "Hello Docker!!");
    assert_eq!(ask(&["curl", "-6s", "http://six:8080/"]), "Hello Docker!!");
    cli(&one, &["rm", "-f", "six"]).ok();
    removed(cli, &manager, "dual");
}

fn internal_has_no_way_out(lab: &Lab, cli: Cli) {
    let (manager, one, two) = (
        lab.host("manager01"),
        lab.host("worker01"),
        lab.host("worker02"),
    );
    let create = [
        "network",
        "create",
        "-d",
        "overlay",
        "--attachable",
        "--internal",
        "inside",
    ];
    cli(&manager, &create).ok();
    cli(
        &one,
        &["run", "-d", "--name", "shy", "--network", "inside", ECHO],
    )
    .ok();
    let ask = |url: &str| {
        let words = [
            "run",
            "--rm",
            "--network",
            "inside",
            TOOLBOX,
            "wget",
            "-T",
            "3",
            "-qO-",
            url,
        ];
        cli(&two, &words)
    };
    assert_eq!(ask("http://shy:8080").ok(), "Hello Docker!!");
    let registry = lab.host("registry").member().address();
    ask(&format!("http://{registry}:5000/v2/")).failed();
    cli(&one, &["rm", "-f", "shy"]).ok();
    removed(cli, &manager, "inside");
}

fn take_it_down(lab: &Lab, cli: Cli) {
    let (manager, one) = (lab.host("manager01"), lab.host("worker01"));
    let refused = cli(&manager, &["network", "rm", "ch03"]).failed();
    assert!(refused.contains("api"), "the user is not named: {refused}");
    cli(&one, &["stop", "api"]).ok();
    let state = "{{.State.Status}} {{.State.ExitCode}}";
    assert_eq!(
        cli(&one, &["inspect", "--format", state, "api"]).ok(),
        "exited 0"
    );
    assert!(cli(&one, &["logs", "api"]).ok().ends_with("stop server"));
    assert_eq!(cli(&one, &["ps", "-q"]).ok(), "");
    cli(&one, &["rm", "api"]).ok();
    assert_eq!(cli(&one, &["ps", "-aq"]).ok(), "");
    removed(cli, &manager, "ch03");
    let left = cli(&manager, &["network", "ls", "--format", "{{.Name}}"]).ok();
    assert!(!left.lines().any(|name| name == "ch03"), "{left}");
}

/// A network goes once the last attachment's end has reached the manager.
fn removed(cli: Cli, manager: &Host, network: &str) {
    wait::until(&format!("network {network} is removed"), LIMIT, || {
        let output = cli(manager, &["network", "rm", network]);
        output.success().then_some(()).ok_or(output.stderr)
    });
}

fn address_of(cli: Cli, host: &Host, container: &str, network: &str) -> String {
    let format = format!("{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}");
    cli(host, &["inspect", "--format", &format, container]).ok()
}
