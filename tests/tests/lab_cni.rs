//! The CNI plugin: called by podman, whose containers talk to ours on another host, and by hand with
//! all that a runtime may get wrong.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{io::Write as _, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tests::{Host, Lab, Options, wait};

const ECHO: &str = "registry:5000/example/echo:latest";
const TOOLBOX: &str = "registry:5000/example/toolbox";
const LIMIT: Duration = Duration::from_secs(30);

fn ctl(host: &Host, words: &str) -> String {
    host.ctl(words.split_whitespace()).ok()
}

fn sh(host: &Host, script: &str) -> String {
    host.exec(["sh", "-c", script]).ok()
}

/// Podman as its users set it up, all in one folder of the host: the CNI backend, the plugin, a
/// network of ours, and for this machine runc and cgroupfs.
fn set_up_podman(host: &Host) {
    let ovnctl = host.ctl_command::<&str>([]).unwrap();
    let ovnctl = ovnctl.get_program().to_str().unwrap();
    let ch03 = json!({"cniVersion": "1.0.0", "name": "ch03", "plugins": [
        {"type": "overnet-cni", "capabilities": {"aliases": true, "ips": true}}]});
    let out = json!({"cniVersion": "0.4.0", "name": "out", "plugins": [
        {"type": "overnet-cni", "network": "red", "isDefaultGateway": true}]});
    let gone = json!({"cniVersion": "1.0.0", "name": "gone", "plugins": [{"type": "overnet-cni"}]});
    let containers = "[network]\nnetwork_backend=\"cni\"\nnetwork_config_dir=\"/run/pod/net.d\"\n\
        cni_plugin_dirs=[\"/run/pod/plugins\",\"/usr/lib/cni\"]\n\
        [engine]\nevents_logger=\"file\"\n";
    let registries = "[[registry]]\nlocation=\"registry:5000\"\ninsecure=true\n";
    let podman = "#!/bin/sh\nexport CONTAINERS_CONF=/run/pod/containers.conf \
        CONTAINERS_REGISTRIES_CONF=/run/pod/registries.conf\n\
        exec podman --root /run/pod/root --runroot /run/pod/runroot --tmpdir /run/pod/tmp \
        --storage-driver vfs --cgroup-manager cgroupfs --runtime runc \"$@\"\n";
    let mut script = format!(
        "mkdir -p /run/pod/net.d /run/pod/plugins && ln -s {ovnctl} /run/pod/plugins/overnet-cni\n"
    );
    for (file, text) in [
        ("net.d/ch03.conflist", ch03.to_string()),
        ("net.d/out.conflist", out.to_string()),
        ("net.d/gone.conflist", gone.to_string()),
        ("containers.conf", containers.to_owned()),
        ("registries.conf", registries.to_owned()),
        ("podman", podman.to_owned()),
    ] {
        script.extend(["cat >/run/pod/", file, " <<'END'\n", &text, "\nEND\n"]);
    }
    sh(host, &format!("{script}chmod +x /run/pod/podman"));
}

fn podman(host: &Host, words: &str) -> tests::Output {
    let program = std::iter::once("/run/pod/podman");
    host.exec(program.chain(words.split_whitespace()))
}

/// A call of the plugin: environment and standard input; its status and what it answers.
fn plugin(host: &Host, variables: &[(&str, &str)], input: &[u8]) -> (i32, Value) {
    let mut command = std::process::Command::new("/run/pod/plugins/overnet-cni");
    command
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = host.spawn(command).unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // Who is refused early reads no further.
        let _ = pipe.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("panicked"), "{said}");
    let answer = if output.stdout.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&output.stdout).unwrap()
    };
    (output.status.code().unwrap(), answer)
}

fn attachments(host: &Host) -> Vec<Value> {
    let answer = host
        .api("GET", "/overnet/attachments?check=1", b"")
        .unwrap();
    serde_json::from_slice(&answer.body).unwrap()
}

fn pings(host: &Host, container: &str, name: &str) -> Result<(), String> {
    let asked = host.ctl(["exec", container, "ping", "-c1", "-W2", name]);
    if asked.success() {
        Ok(())
    } else {
        Err(format!("{asked:?}"))
    }
}

#[test]
fn containers_of_podman_come_to_overlay_networks() {
    let lab = Lab::up(Options {
        workers: 1,
        ..Options::for_test("cni")
    })
    .unwrap();
    let (manager, worker) = (lab.host("manager01"), lab.host("worker01"));
    for name in ["ch03", "red"] {
        ctl(
            &manager,
            &format!("network create -d overlay --attachable {name}"),
        );
    }
    ctl(
        &manager,
        &format!("run -d --name web --network ch03 {ECHO}"),
    );
    ctl(
        &manager,
        &format!("run -d --name near --network ch03 {TOOLBOX} sleep 100000"),
    );
    set_up_podman(&worker);

    let run = "run -d --network ch03 --stop-timeout 0";
    podman(
        &worker,
        &format!("{run} --name pod --network-alias www {TOOLBOX} sleep 100000"),
    )
    .ok();
    let hello = podman(&worker, "exec pod wget -qO- -T3 http://web:8080/").ok();
    assert!(hello.contains("Hello"), "{hello}");
    for name in ["pod", "www"] {
        wait::until("podman's container is known", LIMIT, || {
            pings(&manager, "near", name)
        });
    }
    // A fixed address, and one that is taken.
    let address = ctl(
        &manager,
        "inspect -f {{.NetworkSettings.Networks.ch03.IPAddress}} web",
    );
    let subnet = address.rsplit_once('.').unwrap().0;
    let fixed = format!("{subnet}.99");
    let second = format!("{run} --name second --ip {fixed} {TOOLBOX} sleep 100000");
    podman(&worker, &second).ok();
    let shown = podman(&worker, "exec second ip -o -4 addr show eth0").ok();
    assert!(shown.contains(&format!("{fixed}/24")), "{shown}");
    let said = podman(&worker, &second.replace("second", "third")).failed();
    assert!(said.contains(&fixed), "{said}");

    // The same container on a second network, with a way out there, and back.
    podman(&worker, "network connect out pod").ok();
    podman(&worker, "exec pod wget -qO- -T3 http://registry:5000/v2/").ok();
    podman(&worker, "network disconnect ch03 pod").ok();
    let links = podman(&worker, "exec pod ip -o link").ok();
    assert!(links.contains("eth1") && !links.contains("eth0"), "{links}");
    podman(&worker, "network connect ch03 pod").ok();
    podman(&worker, "exec pod wget -qO- -T3 http://web:8080/").ok();

    the_daemon_may_be_away(&worker);

    // What podman removes is free for the next one.
    podman(&worker, "rm -f second").ok();
    wait::until("the address has rested", LIMIT, || {
        let again = podman(&worker, &second);
        let _ = (!again.success()).then(|| podman(&worker, "rm -f second"));
        again.success().then_some(()).ok_or(format!("{again:?}"))
    });
    podman(&worker, "rm -fa").ok();
    assert_eq!(attachments(&worker), Vec::<Value>::new());

    the_plugin_by_hand(&worker);
    bad_input_is_refused(&worker);

    ctl(&manager, "rm -f web near");
    for network in ["ch03", "red"] {
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

fn the_daemon_may_be_away(worker: &Host) {
    let create = format!("run -d --network ch03 --name late {TOOLBOX} sleep 100000");
    let said = podman(
        worker,
        &create.replace("ch03", "gone").replace("late", "lost"),
    )
    .failed();
    assert!(said.contains("network gone not found"), "{said}");
    worker.kill().unwrap();
    let said = podman(worker, &create.replace("late", "later")).failed();
    assert!(said.contains("Is ovnd running?"), "{said}");
    worker.start().unwrap();
    let there = attachments(worker);
    assert_eq!(there.len(), 3, "{there:?}");
    assert!(there.iter().all(|one| one["Fault"].is_null()), "{there:?}");
    podman(worker, "exec pod wget -qO- -T3 http://web:8080/").ok();
    // Removed meanwhile, it is cleaned up after it is back.
    podman(worker, &create).ok();
    worker.kill().unwrap();
    podman(worker, "rm -f -t0 late");
    worker.start().unwrap();
    wait::until("the lost one is left", LIMIT, || {
        let there = attachments(worker);
        (there.len() == 3).then_some(()).ok_or(format!("{there:?}"))
    });
}

fn the_plugin_by_hand(worker: &Host) {
    let config = json!({"cniVersion": "1.1.0", "name": "ch03", "type": "overnet-cni"});
    let bytes = config.to_string().into_bytes();
    sh(worker, "ip netns add byhand");
    let place = |command| {
        [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", "byhand"),
            ("CNI_NETNS", "/run/netns/byhand"),
            ("CNI_IFNAME", "net0"),
        ]
    };
    let call = |command| plugin(worker, &place(command), &bytes);
    assert_eq!(call("STATUS"), (0, Value::Null));
    let (status, missing) = call("CHECK");
    assert_eq!((status, &missing["code"]), (1, &json!(100)), "{missing}");
    let (status, added) = call("ADD");
    assert_eq!(status, 0, "{added}");
    assert_eq!(added["interfaces"][0]["name"], "net0");
    assert_eq!(added["dns"]["nameservers"], json!(["127.0.0.11"]));
    // Once more is once.
    assert_eq!(call("ADD"), (0, added.clone()));
    let mut checked = config.clone();
    checked["prevResult"] = added;
    let check = |config: &Value| plugin(worker, &place("CHECK"), config.to_string().as_bytes());
    assert_eq!(check(&checked), (0, Value::Null));
    checked["prevResult"]["ips"][0]["address"] = json!("192.0.2.1/24");
    assert_eq!(check(&checked).0, 1);
    // What the runtime does not know any more goes, and nothing else.
    let collect = |valid: Value| {
        let mut config = config.clone();
        config["cni.dev/valid-attachments"] = valid;
        let gc = plugin(
            worker,
            &[("CNI_COMMAND", "GC")],
            config.to_string().as_bytes(),
        );
        assert_eq!(gc, (0, Value::Null));
        attachments(worker).len()
    };
    assert_eq!(
        collect(json!([{"containerID": "byhand", "ifname": "net0"}])),
        1
    );
    assert_eq!(collect(json!([])), 0);
    for _ in 0..2 {
        assert_eq!(call("DEL"), (0, Value::Null));
    }
    let (status, refusal) = plugin(
        worker,
        &place("STATUS"),
        json!({"cniVersion": "1.1.0", "name": "nothing"})
            .to_string()
            .as_bytes(),
    );
    assert_eq!((status, &refusal["code"]), (1, &json!(50)), "{refusal}");
    sh(worker, "ip netns del byhand");
    assert_eq!(call("ADD").1["code"], 3);
    let (status, versions) = plugin(
        worker,
        &[("CNI_COMMAND", "VERSION")],
        b"{\"cniVersion\":\"1.0.0\"}",
    );
    assert_eq!((status, &versions["cniVersion"]), (0, &json!("1.0.0")));
    let supported = versions["supportedVersions"].as_array().unwrap();
    for version in ["0.4.0", "1.0.0", "1.1.0"] {
        assert!(supported.contains(&json!(version)), "{versions}");
    }
}

fn bad_input_is_refused(worker: &Host) {
    let good = json!({"cniVersion": "1.0.0", "name": "ch03", "type": "overnet-cni"});
    let good = good.to_string();
    let add = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "bad"),
        ("CNI_NETNS", "/proc/self/ns/net"),
        ("CNI_IFNAME", "eth0"),
    ];
    let without = |name: &str| -> Vec<(&str, &str)> {
        add.iter()
            .filter(|(one, _)| *one != name)
            .copied()
            .collect()
    };
    let mut long = b"{\"cniVersion\":\"1.0.0\",\"name\":\"".to_vec();
    long.resize(2 << 20, b'x');
    let deep = "[".repeat(1 << 20);
    let all = add.to_vec();
    for (variables, input, code) in [
        (&all, &b""[..], 6),
        (&all, b"{", 6),
        (&all, b"\xff\xfe", 6),
        (&all, b"[1]", 6),
        (&all, deep.as_bytes(), 6),
        (&all, &long, 6),
        (&all, b"{\"name\":\"ch03\"}", 1),
        (&all, b"{\"cniVersion\":\"7.0.0\",\"name\":\"ch03\"}", 1),
        (&all, b"{\"cniVersion\":\"1.0.0\"}", 7),
        // The namespace of the host itself.
        (&all, good.as_bytes(), 7),
        (&vec![], good.as_bytes(), 4),
        (&without("CNI_COMMAND"), good.as_bytes(), 4),
        (&without("CNI_CONTAINERID"), good.as_bytes(), 4),
        (&without("CNI_NETNS"), good.as_bytes(), 4),
        (&without("CNI_IFNAME"), good.as_bytes(), 4),
    ] {
        let (status, refusal) = plugin(worker, variables, input);
        assert_eq!((status, &refusal["code"]), (1, &json!(code)), "{refusal}");
        assert!(!refusal["msg"].as_str().unwrap().is_empty(), "{refusal}");
    }
    assert_eq!(attachments(worker).len(), 0);
}
