use runtime::{engine::RestartPolicy, network::NetworkMode};

use super::*;

fn read_body(body: &str) -> Result<(ContainerSpec, Vec<String>), Refusal> {
    let find = |name: &str| {
        if name == "other" {
            Ok(ContainerId::new("0".repeat(64)))
        } else {
            Err(Refusal::not_found(format!("No such container: {name}")))
        }
    };
    let lookup = Lookup {
        container: &find,
        runtimes: &["crun", "runc"],
    };
    let leftover = api::read(body.as_bytes())?;
    read(
        Some("api".into()),
        api::read(body.as_bytes())?,
        &leftover,
        &lookup,
    )
}

/// What the stock client sends for `run -d --name api --network ch03 echo`.
const RUN: &str = r#"{"Hostname":"","Domainname":"","User":"","AttachStdin":false,"AttachStdout":false,
    "AttachStderr":false,"Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":null,"Cmd":null,"Image":"echo",
    "Volumes":{},"WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":{},"HostConfig":{"Binds":null,
    "ContainerIDFile":"","LogConfig":{"Type":"","Config":{}},"NetworkMode":"ch03","PortBindings":{},
    "RestartPolicy":{"Name":"no","MaximumRetryCount":0},"AutoRemove":false,"VolumeDriver":"","VolumesFrom":null,
    "ConsoleSize":[40,120],"CapAdd":null,"CapDrop":null,"CgroupnsMode":"","Dns":[],"DnsOptions":[],"DnsSearch":[],
    "ExtraHosts":null,"GroupAdd":null,"IpcMode":"","Cgroup":"","Links":null,"OomScoreAdj":0,"PidMode":"",
    "Privileged":false,"PublishAllPorts":false,"ReadonlyRootfs":false,"SecurityOpt":null,"UTSMode":"",
    "UsernsMode":"","ShmSize":0,"Isolation":"","CpuShares":0,"Memory":0,"NanoCpus":0,"CgroupParent":"",
    "BlkioWeight":0,"BlkioWeightDevice":[],"BlkioDeviceReadBps":[],"BlkioDeviceWriteBps":[],
    "BlkioDeviceReadIOps":[],"BlkioDeviceWriteIOps":[],"CpuPeriod":0,"CpuQuota":0,"CpuRealtimePeriod":0,
    "CpuRealtimeRuntime":0,"CpusetCpus":"","CpusetMems":"","Devices":[],"DeviceCgroupRules":null,
    "DeviceRequests":null,"MemoryReservation":0,"MemorySwap":0,"MemorySwappiness":-1,"OomKillDisable":false,
    "PidsLimit":0,"Ulimits":[],"CpuCount":0,"CpuPercent":0,"IOMaximumIOps":0,"IOMaximumBandwidth":0,
    "MaskedPaths":null,"ReadonlyPaths":null},"NetworkingConfig":{"EndpointsConfig":{"ch03":{"IPAMConfig":null,
    "Links":null,"Aliases":null,"MacAddress":"","DriverOpts":null,"GwPriority":0,"NetworkID":"","EndpointID":"",
    "Gateway":"","IPAddress":"","IPPrefixLen":0,"IPv6Gateway":"","GlobalIPv6Address":"",
    "GlobalIPv6PrefixLen":0,"DNSNames":null}}}}"#;

#[test]
fn the_stock_clients_request() {
    let (spec, warnings) = read_body(RUN).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(
        (spec.image.as_str(), spec.name.as_deref()),
        ("echo", Some("api"))
    );
    assert_eq!((spec.command, spec.entrypoint), (None, None));
    assert_eq!(spec.host.console_size, Some((40, 120)));
    assert_eq!(spec.host.resources.memory_swappiness, None);
    assert_eq!(spec.host.masked_paths, None);
    let NetworkMode::Networks(wishes) = spec.network else {
        panic!("{:?}", spec.network)
    };
    assert_eq!(wishes.len(), 1);
    assert_eq!(wishes[0].network, "ch03");
    assert_eq!(spec.opaque["NetworkMode"], "ch03");
}

#[test]
fn keys_in_any_case_mean_the_same() {
    fn lower(value: serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::Object(map) => map
                .into_iter()
                .map(|(key, value)| (key.to_lowercase(), lower(value)))
                .collect(),
            other => other,
        }
    }
    let body = lower(serde_json::from_str(RUN).unwrap()).to_string();
    assert!(body.contains("\"hostconfig\""));
    assert_eq!(read_body(&body).unwrap().0, read_body(RUN).unwrap().0);
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    for (host, status, words) in [
        (
            r#""PortBindings":{"80/icmp":[{"HostPort":"8080"}]}"#,
            400,
            "protocol",
        ),
        (
            r#""PortBindings":{"80/tcp":[{"HostPort":"90-80"}]}"#,
            400,
            "90-80",
        ),
        (
            r#""PortBindings":{"80/tcp":[{"HostIp":"::1"}]}"#,
            501,
            "[::1]",
        ),
        (r#""Links":["a:b"]"#, 501, "Links"),
        (r#""VolumesFrom":["a"]"#, 501, "VolumesFrom"),
        (r#""DeviceRequests":[{"Count":-1}]"#, 501, "--gpus"),
        (r#""CgroupParent":"x""#, 501, "CgroupParent"),
        (r#""CgroupnsMode":"host""#, 501, "CgroupnsMode"),
        (r#""KernelMemory":5"#, 501, "KernelMemory"),
        (r#""StorageOpt":{"size":"1G"}"#, 501, "StorageOpt"),
        (r#""CpuCount":1"#, 400, "Windows"),
        (r#""Isolation":"hyperv""#, 400, "Windows"),
        (
            r#""Isolation":"strong""#,
            400,
            "not one of default, process, hyperv",
        ),
        (r#""Runtime":"kata""#, 400, "crun, runc"),
        (r#""Memory":-5"#, 400, "Memory"),
        (r#""Dns":["server"]"#, 400, "not an IP address"),
        (r#""OomScoreAdj":5000"#, 400, "oom score"),
        (r#""LogConfig":{"Type":"syslog"}"#, 400, "syslog"),
        (
            r#""AutoRemove":true,"RestartPolicy":{"Name":"always"}"#,
            400,
            "AutoRemove",
        ),
        (
            r#""RestartPolicy":{"Name":"always","MaximumRetryCount":3}"#,
            400,
            "on-failure",
        ),
        (r#""PidMode":"container:nobody""#, 404, "PidMode"),
    ] {
        let body = format!(r#"{{"Image":"echo","HostConfig":{{{host}}}}}"#);
        let refusal = read_body(&body).unwrap_err();
        assert_eq!(refusal.kind.status(), status, "{host}: {}", refusal.message);
        assert!(
            refusal.message.contains(words),
            "{host}: {}",
            refusal.message
        );
    }
    for (body, words) in [
        (r#"{"Cmd":["a"]}"#, "no image"),
        (
            r#"{"Image":"a","MacAddress":"02:42:00:00:00:01"}"#,
            "MacAddress",
        ),
        (
            r#"{"Image":"a","Healthcheck":{"Test":["RUN"]}}"#,
            "CMD-SHELL",
        ),
        (
            r#"{"Image":"a","Healthcheck":{"Test":["CMD","x"],"Interval":5}}"#,
            "one millisecond",
        ),
    ] {
        assert!(
            read_body(body).unwrap_err().message.contains(words),
            "{body}"
        );
    }
}

#[test]
fn what_is_there_is_taken() {
    let (spec, warnings) = read_body(
        r#"{"image":"echo","cmd":["sh","-c","ls"],"Entrypoint":[""],"StopTimeout":3,"Tty":true,
        "ExposedPorts":{"80/tcp":{}},"Healthcheck":{"Test":["CMD","true"],"Interval":2000000000,"Retries":2},
        "HostConfig":{"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":4},"PidMode":"container:other",
        "Ulimits":[{"Name":"nofile","Soft":5,"Hard":6}],"NanoCpus":1500000000,"Annotations":{"a":"b"},
        "MaskedPaths":[],"Devices":[{"PathOnHost":"/dev/null"}]}}"#,
    )
    .unwrap();
    assert_eq!(spec.host.restart, RestartPolicy::OnFailure(4));
    assert_eq!(spec.host.pid_mode, format!("container:{}", "0".repeat(64)));
    assert_eq!(spec.host.masked_paths, Some(Vec::new()));
    assert_eq!(spec.host.devices[0].permissions, "rwm");
    assert_eq!(spec.entrypoint.as_deref(), Some(&[String::new()][..]));
    assert_eq!(spec.health.unwrap().interval.as_secs(), 2);
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("Annotations"));
}
