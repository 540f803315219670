//! Network namespaces of others on an overlay network.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::time::Duration;

use serde_json::Value;
use tests::{Host, Lab, Options, wait};

const ECHO: &str = "registry:5000/example/echo:latest";
const TOOLBOX: &str = "registry:5000/example/toolbox";
const LIMIT: Duration = Duration::from_secs(30);

fn ctl(host: &Host, words: &str) -> String {
    host.ctl(words.split_whitespace()).ok()
}

fn refused(host: &Host, words: &str, says: &str) {
    let said = host.ctl(words.split_whitespace()).failed();
    assert!(said.contains(says), "{words}: {said}");
}

fn sh(host: &Host, script: &str) -> String {
    host.exec(["sh", "-c", script]).ok()
}

/// A namespace that is not ours, where programs ask the resolver of the network.
fn namespace(host: &Host, name: &str) {
    let script = format!(
        "ip netns add {name} && mkdir -p /etc/netns/{name} && \
         echo nameserver 127.0.0.11 >/etc/netns/{name}/resolv.conf"
    );
    sh(host, &script);
}

fn inside(host: &Host, namespace: &str, script: &str) -> String {
    host.exec(["ip", "netns", "exec", namespace, "sh", "-c", script])
        .ok()
}

fn answers(host: &Host, namespace: &str, name: &str) -> Result<(), String> {
    let url = format!("http://{name}:8080/");
    let asked = host.exec([
        "ip", "netns", "exec", namespace, "wget", "-qO-", "-t1", "-T3", &url,
    ]);
    if asked.stdout.contains("Hello") {
        Ok(())
    } else {
        Err(format!("{asked:?}"))
    }
}

/// From a container.
fn pings(host: &Host, container: &str, name: &str) -> Result<(), String> {
    let asked = host.ctl(["exec", container, "ping", "-c1", "-W2", name]);
    if asked.success() {
        Ok(())
    } else {
        Err(format!("{asked:?}"))
    }
}

fn attachments(host: &Host) -> Vec<Value> {
    let answer = host
        .api("GET", "/overnet/attachments?check=1", b"")
        .unwrap();
    serde_json::from_slice(&answer.body).unwrap()
}

/// The address without its prefix length, of `eth0 10.0.1.5/24`.
fn address(attached: &str) -> String {
    let text = attached.split(' ').nth(1).unwrap();
    text.split('/').next().unwrap().to_owned()
}

#[test]
fn namespaces_of_others_come_to_networks_and_go() {
    let lab = Lab::up(Options {
        workers: 1,
        ..Options::for_test("attach")
    })
    .unwrap();
    let (manager, worker) = (lab.host("manager01"), lab.host("worker01"));
    ctl(&manager, "network create -d overlay --attachable ch03");
    ctl(&manager, "network create -d overlay --attachable red");
    ctl(&manager, "network create -d overlay closed");
    ctl(
        &manager,
        "network create -d overlay --attachable --internal inner",
    );
    ctl(&worker, "network create here");
    ctl(
        &manager,
        &format!("run -d --name web --network ch03 {ECHO}"),
    );
    ctl(
        &manager,
        &format!("run -d --name near --network ch03 {TOOLBOX} sleep 100000"),
    );

    namespace(&worker, "guest");
    let attach = "network attach --netns /run/netns/guest";
    let attached = ctl(&worker, &format!("{attach} --alias www ch03"));
    assert!(attached.starts_with("eth0 10."), "{attached}");
    answers(&worker, "guest", "web").unwrap();
    for name in ["guest", "www"] {
        wait::until("its names are known", LIMIT, || {
            pings(&manager, "near", name)
        });
    }
    assert_eq!(inside(&worker, "guest", "ip route show default"), "");
    let mtu = "cat /sys/class/net/eth0/mtu";
    let of_container = ctl(&manager, &format!("exec near {mtu}"));
    assert_eq!(
        inside(
            &worker,
            "guest",
            "ip -o link show eth0 | sed 's/.* mtu \\([0-9]*\\) .*/\\1/'"
        ),
        of_container
    );
    let listed = ctl(&worker, "network inspect ch03");
    assert!(listed.contains("\"guest\""), "{listed}");

    // Asked again for the same it is the same; for another it is refused.
    assert_eq!(
        ctl(&worker, &format!("{attach} --alias www ch03")),
        attached
    );
    refused(&worker, &format!("{attach} --name other ch03"), "already");

    a_service_balances(&manager, &worker);
    bad_wishes_are_refused(&worker);
    a_restart_changes_nothing(&manager, &worker, &attached);
    a_second_network_and_back(&manager, &worker);
    processes_have_a_way_out(&worker);
    namespaces_that_go_are_left(&manager, &worker);

    ctl(&manager, "rm -f web near");
    ctl(&manager, "service rm echo");
    for network in ["ch03", "red"] {
        // In use by nobody: nothing was left behind.
        wait::until("the network can be removed", LIMIT, || {
            let removed = manager.ctl(["network", "rm", network]);
            removed
                .success()
                .then_some(())
                .ok_or(format!("{removed:?}"))
        });
    }
    lab.down().unwrap();
}

fn a_service_balances(manager: &Host, worker: &Host) {
    ctl(
        manager,
        &format!("service create --quiet --replicas 2 --network ch03 --name echo {ECHO}"),
    );
    wait::until("the virtual address leads to tasks", LIMIT, || {
        answers(worker, "guest", "echo")
    });
}

fn bad_wishes_are_refused(worker: &Host) {
    let guest = "network attach --netns /run/netns/guest";
    for (words, says) in [
        (
            "network attach --netns /run/netns/none ch03",
            "No such file",
        ),
        (
            "network attach --netns /etc/hostname ch03",
            "no network namespace",
        ),
        (
            "network attach --netns /proc/self/ns/mnt ch03",
            "no network namespace",
        ),
        ("network attach --pid 1 ch03", "of this host itself"),
        ("network attach --pid 99999 ch03", "No such file"),
        (&format!("{guest} nothing"), "network nothing not found"),
        (&format!("{guest} closed"), "not attachable"),
        (&format!("{guest} here"), "of this host alone"),
        (&format!("{guest} bridge"), "of this host alone"),
        (&format!("{guest} --interface eth0 red"), "interface eth0"),
        (
            &format!("{guest} --interface a/b red"),
            "no name for an interface",
        ),
        (&format!("{guest} --name -x red"), "container name"),
        (&format!("{guest} --ip 192.0.2.1 red"), "outside"),
        (&format!("{guest} --ip x red"), "no address"),
        (&format!("{guest} --gateway inner"), "internal"),
        (
            "network detach --netns /run/netns/guest red",
            "not attached",
        ),
        ("network detach --pid 99999 ch03", "not attached"),
    ] {
        refused(worker, words, says);
    }
    assert_eq!(worker.ctl(["network", "attach", "ch03"]).status, 1);
    // A container's is the container's.
    ctl(
        worker,
        &format!("run -d --name own --network red {TOOLBOX} sleep 100000"),
    );
    let id = ctl(worker, "inspect -f {{.Id}} own");
    let path = format!("/run/overnet/netns/{id}");
    refused(
        worker,
        &format!("network attach --netns {path} ch03"),
        "use: ovnctl network connect NETWORK own",
    );
    ctl(worker, "rm -f own");
    // An interface that others have made is neither taken nor touched.
    namespace(worker, "busy");
    inside(
        worker,
        "busy",
        "ip link add eth0 type veth peer name peer0 && ip link set eth0 up",
    );
    let attached = ctl(worker, "network attach --netns /run/netns/busy ch03");
    assert!(attached.starts_with("eth1 "), "{attached}");
    assert_eq!(attachments(worker).len(), 2);
    ctl(worker, "network detach --netns /run/netns/busy ch03");
    let links = inside(worker, "busy", "ip -o link");
    assert!(links.contains("eth0") && !links.contains("eth1"), "{links}");
    assert_eq!(inside(worker, "busy", "nft list tables"), "");
    sh(worker, "ip netns del busy");
}

fn a_restart_changes_nothing(manager: &Host, worker: &Host, attached: &str) {
    worker.kill().unwrap();
    answers(worker, "guest", "web").unwrap_err();
    let web = ctl(
        manager,
        "inspect -f {{.NetworkSettings.Networks.ch03.IPAddress}} web",
    );
    answers(worker, "guest", &web).unwrap();
    worker.start().unwrap();
    answers(worker, "guest", "web").unwrap();
    let there = attachments(worker);
    assert_eq!(there.len(), 1, "{there:?}");
    assert_eq!(there[0]["Fault"], Value::Null);
    assert_eq!(
        there[0]["IPAddresses"][0],
        attached.split(' ').nth(1).unwrap()
    );
    // What somebody takes away comes back.
    inside(worker, "guest", "ip link del eth0");
    wait::until("the interface is back", LIMIT, || {
        answers(worker, "guest", "web")
    });
}

fn a_second_network_and_back(manager: &Host, worker: &Host) {
    let more = "network attach --netns /run/netns/guest --name second --ip";
    let subnet = ctl(
        manager,
        "network inspect -f {{range.IPAM.Config}}{{.Subnet}}{{end}} red",
    );
    let fixed = subnet.replace(".0/24", ".77");
    let attached = ctl(worker, &format!("{more} {fixed} --interface data red"));
    assert_eq!(attached, format!("data {fixed}/24"));
    ctl(
        manager,
        &format!("run -d --name other --network red {TOOLBOX} sleep 100000"),
    );
    wait::until("it is known by its second name", LIMIT, || {
        pings(manager, "other", "second")
    });
    answers(worker, "guest", "web").unwrap();
    ctl(worker, "network detach --netns /run/netns/guest ch03");
    let links = inside(worker, "guest", "ip -o link");
    assert!(links.contains("data") && !links.contains("eth0"), "{links}");
    pings(manager, "other", "second").unwrap();
    ctl(worker, "network detach --netns /run/netns/guest red");
    assert_eq!(attachments(worker).len(), 0);
    assert_eq!(inside(worker, "guest", "nft list tables"), "");
    ctl(manager, "rm -f other");
    assert!(
        !worker
            .ctl(["network", "detach", "--netns", "/run/netns/guest", "red"])
            .success()
    );
}

fn processes_have_a_way_out(worker: &Host) {
    let pid = sh(
        worker,
        "unshare --net sleep 100000 >/dev/null 2>&1 & echo $!",
    );
    let attach = format!("network attach --pid {pid} --name db --gateway ch03");
    wait::until("it has its namespace", LIMIT, || {
        let attached = worker.ctl(attach.split(' '));
        attached
            .success()
            .then_some(())
            .ok_or(format!("{attached:?}"))
    });
    let enter = format!("nsenter -t {pid} -n");
    let default = sh(worker, &format!("{enter} ip route show default"));
    assert!(
        default.starts_with("default via") && default.contains("gw0"),
        "{default}"
    );
    let registry = sh(worker, "getent ahostsv4 registry");
    let registry = registry.split_whitespace().next().unwrap();
    sh(
        worker,
        &format!("{enter} wget -qO- -T3 http://{registry}:5000/v2/"),
    );
    sh(worker, &format!("kill {pid}"));
    wait::until("its address is free", LIMIT, || {
        let there = attachments(worker);
        there.is_empty().then_some(()).ok_or(format!("{there:?}"))
    });
}

fn namespaces_that_go_are_left(manager: &Host, worker: &Host) {
    let fixed = address(&ctl(worker, "network attach --netns /run/netns/guest ch03"));
    worker.kill().unwrap();
    sh(worker, "ip netns del guest");
    worker.start().unwrap();
    wait::until("it is gone after a start", LIMIT, || {
        let there = attachments(worker);
        there.is_empty().then_some(()).ok_or(format!("{there:?}"))
    });
    assert_eq!(
        sh(worker, "ls /run/overnet/netns | grep -c guest- || true"),
        "0"
    );
    // The address is had again once it has rested.
    namespace(worker, "guest");
    let again = format!("network attach --netns /run/netns/guest --ip {fixed} ch03");
    wait::until("the address is given again", LIMIT, || {
        let attached = worker.ctl(again.split(' '));
        attached
            .success()
            .then_some(())
            .ok_or(format!("{attached:?}"))
    });
    wait::until("its name is known", LIMIT, || {
        pings(manager, "near", "guest")
    });
    sh(worker, "ip netns del guest");
    wait::until("it is gone", LIMIT, || {
        let there = attachments(worker);
        there.is_empty().then_some(()).ok_or(format!("{there:?}"))
    });
}
