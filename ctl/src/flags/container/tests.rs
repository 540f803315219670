use clap::Parser;
use serde_json::{Value, json};
use time::UtcOffset;

use super::*;
use crate::session::Surroundings;

/// The body without what every container has.
fn body(words: &str) -> Result<Value, String> {
    #[derive(Parser)]
    #[command(disable_help_flag = true)]
    struct Only {
        #[command(flatten)]
        flags: ContainerFlags,
    }
    let around = Surroundings {
        variables: [("HOME".to_owned(), "/root".to_owned())].into(),
        zone: UtcOffset::UTC,
        directory: "/here".into(),
    };
    let words = std::iter::once("run").chain(words.split_whitespace());
    let make = |flags: &ContainerFlags| flags.body("image", &[], &around);
    let plain = make(&Only::parse_from(["run"]).flags)?;
    let mut body = make(
        &Only::try_parse_from(words)
            .map_err(|e| e.to_string())?
            .flags,
    )?;
    for part in ["", "/HostConfig"] {
        let same = plain
            .pointer(part)
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        if let Some(map) = body.pointer_mut(part).and_then(Value::as_object_mut) {
            map.retain(|name, value| same.get(name) != Some(value));
        }
    }
    Ok(body)
}

#[test]
fn flags_become_fields() {
    let host = |value: Value| json!({"HostConfig": value});
    let cases = [
        ("", json!({})),
        (
            "-i -t",
            json!({"AttachStdin": true, "Tty": true, "OpenStdin": true, "StdinOnce": true}),
        ),
        (
            "-e A=1 -e HOME -e GONE -w /w -u 1:2 -h h",
            json!({"Hostname": "h", "User": "1:2", "Env": ["A=1", "HOME=/root", "GONE"], "WorkingDir": "/w"}),
        ),
        (
            "--entrypoint sh --label a=b --label c --stop-signal INT --stop-timeout 3",
            json!({"Entrypoint": ["sh"], "Labels": {"a": "b", "c": ""}, "StopSignal": "INT", "StopTimeout": 3}),
        ),
        (
            "--no-healthcheck",
            json!({"Healthcheck": {"Test": ["NONE"]}}),
        ),
        (
            "--health-cmd true --health-interval 3s --health-retries 2",
            json!({"Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 3_000_000_000_i64, "Retries": 2}}),
        ),
        (
            "-v ./a:/a -v /anonymous",
            json!({"Volumes": {"/anonymous": {}}, "HostConfig": {"Binds": ["/here/a:/a"]}}),
        ),
        (
            "--memory 64m --memory-swap=-1 --cpus 1.5 --pids-limit=-1 --shm-size 1m",
            host(
                json!({"PidsLimit": -1, "Memory": 67_108_864, "ShmSize": 1_048_576, "MemorySwap": -1, "NanoCpus": 1_500_000_000}),
            ),
        ),
        (
            "--cap-add net_admin --cap-drop ALL --privileged --read-only --init",
            host(
                json!({"CapAdd": ["CAP_NET_ADMIN"], "CapDrop": ["ALL"], "Privileged": true, "ReadonlyRootfs": true, "Init": true}),
            ),
        ),
        (
            "--restart on-failure:3",
            host(json!({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}})),
        ),
        (
            "--security-opt systempaths=unconfined --security-opt no-new-privileges:true",
            host(
                json!({"SecurityOpt": ["no-new-privileges"], "MaskedPaths": [], "ReadonlyPaths": []}),
            ),
        ),
        ("--network ch03", host(json!({"NetworkMode": "ch03"}))),
        (
            "--network ch03 --ip 10.0.1.9 --network-alias web",
            json!({"HostConfig": {"NetworkMode": "ch03"}, "NetworkingConfig": {"EndpointsConfig": {"ch03":
            {"IPAMConfig": {"IPv4Address": "10.0.1.9"}, "Aliases": ["web"]}}}}),
        ),
        (
            "--tmpfs /t:size=1m --sysctl net.core.somaxconn=9 --add-host a:10.0.0.1 --dns 10.0.0.2",
            host(
                json!({"Dns": ["10.0.0.2"], "Sysctls": {"net.core.somaxconn": "9"}, "ExtraHosts": ["a:10.0.0.1"], "Tmpfs": {"/t": "size=1m"}}),
            ),
        ),
    ];
    for (words, mut wanted) in cases {
        if wanted.get("HostConfig").is_none()
            && let Some(map) = wanted.as_object_mut()
        {
            map.insert("HostConfig".to_owned(), json!({}));
        }
        let mut found = body(words).expect(words);
        if found.get("HostConfig").is_none() {
            found["HostConfig"] = json!({});
        }
        assert_eq!(found, wanted, "{words}");
    }
}

#[test]
fn contradictions_are_refused() {
    for words in [
        "--rm --restart always",
        "--no-healthcheck --health-cmd true",
        "--network-alias a",
        "--network name=a,ip=10.0.0.1 --ip 10.0.0.2",
        "--security-opt seccomp=/nonexistent.json",
        "--attach nowhere",
        "--health-interval soon",
        "--memory lots",
    ] {
        assert!(body(words).is_err(), "{words}");
    }
}
