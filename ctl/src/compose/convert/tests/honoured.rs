//! Keys that mean something in a cluster.

use serde_json::{Value as Json, json};

use super::{spec, stack};

#[test]
fn keys_of_the_container() {
    let cases = [
        ("command: [a, b]", "Args", json!(["a", "b"])),
        ("command: sh -c 'a b'", "Args", json!(["sh", "-c", "a b"])),
        ("entrypoint: /e --x", "Command", json!(["/e", "--x"])),
        (
            "hostname: '{{.Node.Hostname}}'",
            "Hostname",
            json!("{{.Node.Hostname}}"),
        ),
        (
            "environment: {B: 2, A: 'x=y', HOME: , UNSET: }",
            "Env",
            json!(["A=x=y", "B=2", "HOME=/home/me", "UNSET"]),
        ),
        (
            "environment: [A=1, HOME]",
            "Env",
            json!(["A=1", "HOME=/home/me"]),
        ),
        (
            "env_file: a.env",
            "Env",
            json!(["A=file", "B=quoted", "HOME=/home/me"]),
        ),
        (
            "env_file: [a.env, {path: raw.env, format: raw}, {path: no.env, required: false}]",
            "Env",
            json!(["A=\"raw\"", "B=quoted", "HOME=/home/me"]),
        ),
        (
            "env_file: a.env, environment: {A: own}",
            "Env",
            json!(["A=own", "B=quoted", "HOME=/home/me"]),
        ),
        ("working_dir: /w", "Dir", json!("/w")),
        ("user: '1000:1000'", "User", json!("1000:1000")),
        ("group_add: [mail, 5]", "Groups", json!(["mail", "5"])),
        ("init: true", "Init", json!(true)),
        ("init: false", "Init", json!(false)),
        ("stop_signal: SIGUSR1", "StopSignal", json!("SIGUSR1")),
        (
            "stop_grace_period: 1m30s",
            "StopGracePeriod",
            json!(90_000_000_000_i64),
        ),
        ("tty: yes", "TTY", json!(true)),
        ("tty: false", "TTY", Json::Null),
        ("stdin_open: true", "OpenStdin", json!(true)),
        ("read_only: true", "ReadOnly", json!(true)),
        (
            "dns: 1.1.1.1, dns_search: [a, b], dns_opt: [ndots:1]",
            "DNSConfig",
            json!({"Nameservers": ["1.1.1.1"], "Search": ["a", "b"], "Options": ["ndots:1"]}),
        ),
        (
            "extra_hosts: ['a:1.2.3.4', 'b=::1', 'a:5.6.7.8']",
            "Hosts",
            json!(["1.2.3.4 a", "5.6.7.8 a", "::1 b"]),
        ),
        ("extra_hosts: {a: 1.2.3.4}", "Hosts", json!(["1.2.3.4 a"])),
        (
            "healthcheck: {test: curl x, interval: 5s, timeout: 1s, retries: 2, start_period: 1m, start_interval: 500ms}",
            "Healthcheck",
            json!({"Test": ["CMD-SHELL", "curl x"], "Interval": 5_000_000_000_i64, "Timeout": 1_000_000_000, "StartPeriod": 60_000_000_000_i64, "StartInterval": 500_000_000, "Retries": 2}),
        ),
        (
            "healthcheck: {test: [CMD, a]}",
            "Healthcheck",
            json!({"Test": ["CMD", "a"]}),
        ),
        (
            "healthcheck: {disable: true}",
            "Healthcheck",
            json!({"Test": ["NONE"]}),
        ),
        ("isolation: default", "Isolation", json!("default")),
        (
            "sysctls: {net.core.somaxconn: 1024}",
            "Sysctls",
            json!({"net.core.somaxconn": "1024"}),
        ),
        (
            "cap_add: [net_admin, CAP_SYS_TIME, ALL]",
            "CapabilityAdd",
            json!(["ALL", "CAP_NET_ADMIN", "CAP_SYS_TIME"]),
        ),
        ("cap_drop: [MKNOD]", "CapabilityDrop", json!(["CAP_MKNOD"])),
        (
            "ulimits: {nproc: 65535, nofile: {soft: 1, hard: 2}}",
            "Ulimits",
            json!([{"Name": "nofile", "Soft": 1, "Hard": 2}, {"Name": "nproc", "Soft": 65535, "Hard": 65535}]),
        ),
        ("oom_score_adj: -500", "OomScoreAdj", json!(-500)),
        (
            "credential_spec: {file: a.json}",
            "Privileges",
            json!({"CredentialSpec": {"File": "a.json"}}),
        ),
        (
            "security_opt: ['no-new-privileges:true', seccomp=unconfined, 'apparmor:unconfined']",
            "Privileges",
            json!({"NoNewPrivileges": true, "Seccomp": {"Mode": "unconfined"}, "AppArmor": {"Mode": "disabled"}}),
        ),
        (
            "labels: [a=b], label_file: raw.env",
            "Labels",
            json!({"A": "raw", "a": "b", "com.docker.stack.namespace": "s"}),
        ),
        (
            "tmpfs: ['/run', '/t:size=64m,mode=1770']",
            "Mounts",
            json!([{"Type": "tmpfs", "Target": "/run"}, {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 67_108_864, "Mode": 0o1770}}]),
        ),
        (
            "shm_size: 64m",
            "Mounts",
            json!([{"Type": "tmpfs", "Target": "/dev/shm", "TmpfsOptions": {"SizeBytes": 67_108_864}}]),
        ),
        (
            "volumes: ['/var/run/docker.sock:/var/run/docker.sock']",
            "Mounts",
            json!([{"Type": "bind", "Source": "/var/run/docker.sock", "Target": "/var/run/docker.sock"}]),
        ),
        (
            "volumes: ['./a/../b:/x:ro,rslave', '~/c:/y']",
            "Mounts",
            json!([{"Type": "bind", "Source": "/p/b", "Target": "/x", "ReadOnly": true, "BindOptions": {"Propagation": "rslave"}}, {"Type": "bind", "Source": "/home/me/c", "Target": "/y"}]),
        ),
        (
            "volumes: ['data:/x:nocopy', 'out:/y', /z]",
            "Mounts",
            json!([
            {"Type": "volume", "Source": "s_data", "Target": "/x", "VolumeOptions": {"NoCopy": true, "Labels": {"a": "b", "com.docker.stack.namespace": "s"}, "DriverConfig": {"Name": "local"}}},
            {"Type": "volume", "Source": "out", "Target": "/y"}, {"Type": "volume", "Target": "/z"}]),
        ),
        (
            "volumes: [{type: bind, source: ./a, target: /x, read_only: true, bind: {propagation: shared, create_host_path: true, recursive: disabled}}]",
            "Mounts",
            json!([{"Type": "bind", "Source": "/p/a", "Target": "/x", "ReadOnly": true, "BindOptions": {"Propagation": "shared", "CreateMountpoint": true, "NonRecursive": true}}]),
        ),
        (
            "volumes: [{type: volume, source: out, target: /x, volume: {nocopy: true, subpath: d, labels: {k: v}}}]",
            "Mounts",
            json!([{"Type": "volume", "Source": "out", "Target": "/x", "VolumeOptions": {"NoCopy": true, "Subpath": "d", "Labels": {"k": "v"}}}]),
        ),
        (
            "volumes: [{type: tmpfs, target: /x, tmpfs: {size: 1k, mode: 0700}}]",
            "Mounts",
            json!([{"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"SizeBytes": 1024, "Mode": 0o700}}]),
        ),
        (
            "volumes: [{type: image, source: i:1, target: /x, image: {subpath: d}}]",
            "Mounts",
            json!([{"Type": "image", "Source": "i:1", "Target": "/x", "ImageOptions": {"Subpath": "d"}}]),
        ),
    ];
    for (keys, field, wanted) in cases {
        assert_eq!(
            spec(keys)["TaskTemplate"]["ContainerSpec"][field],
            wanted,
            "{keys}"
        );
    }
}

#[test]
fn keys_of_the_service() {
    let cases = [
        (
            "tty: false",
            "/Mode",
            json!({"Replicated": {"Replicas": 1}}),
        ),
        (
            "deploy: {replicas: 0}",
            "/Mode",
            json!({"Replicated": {"Replicas": 0}}),
        ),
        ("scale: 4", "/Mode", json!({"Replicated": {"Replicas": 4}})),
        ("deploy: {mode: global}", "/Mode", json!({"Global": {}})),
        (
            "deploy: {mode: replicated-job, replicas: 3}",
            "/Mode",
            json!({"ReplicatedJob": {"MaxConcurrent": 3, "TotalCompletions": 3}}),
        ),
        (
            "deploy: {mode: global-job}",
            "/Mode",
            json!({"GlobalJob": {}}),
        ),
        (
            "deploy: {labels: {a: 1}}",
            "/Labels",
            json!({"a": "1", "com.docker.stack.namespace": "s", "com.docker.stack.image": "x"}),
        ),
        (
            "deploy: {endpoint_mode: dnsrr}",
            "/EndpointSpec",
            json!({"Mode": "dnsrr"}),
        ),
        (
            "ports: [80, '8080:81', '9000-9001:90-91/udp']",
            "/EndpointSpec/Ports",
            json!([
            {"Protocol": "tcp", "TargetPort": 80, "PublishMode": "ingress"},
            {"Protocol": "tcp", "TargetPort": 81, "PublishedPort": 8080, "PublishMode": "ingress"},
            {"Protocol": "udp", "TargetPort": 90, "PublishedPort": 9000, "PublishMode": "ingress"},
            {"Protocol": "udp", "TargetPort": 91, "PublishedPort": 9001, "PublishMode": "ingress"}]),
        ),
        (
            "ports: [{target: 80, published: '8080', mode: host, protocol: udp, name: web}]",
            "/EndpointSpec/Ports",
            json!([{"Protocol": "udp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host"}]),
        ),
        (
            "deploy: {resources: {limits: {cpus: '0.5', memory: 50M, pids: 10}, reservations: {cpus: 0.25, memory: 20M, generic_resources: [{discrete_resource_spec: {kind: gpu, value: 2}}]}}}",
            "/TaskTemplate/Resources",
            json!({
            "Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 52_428_800, "Pids": 10},
            "Reservations": {"NanoCPUs": 250_000_000, "MemoryBytes": 20_971_520, "GenericResources": [{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 2}}]}}),
        ),
        (
            "cpus: 2, mem_limit: 1g, mem_reservation: 512m, pids_limit: 5",
            "/TaskTemplate/Resources",
            json!({"Limits": {"NanoCPUs": 2_000_000_000, "MemoryBytes": 1_073_741_824, "Pids": 5}, "Reservations": {"MemoryBytes": 536_870_912}}),
        ),
        (
            "deploy: {restart_policy: {condition: on-failure, delay: 5s, max_attempts: 3, window: 2m}}, restart: always",
            "/TaskTemplate/RestartPolicy",
            json!({"Condition": "on-failure", "Delay": 5_000_000_000_i64, "MaxAttempts": 3, "Window": 120_000_000_000_i64}),
        ),
        (
            "restart: unless-stopped",
            "/TaskTemplate/RestartPolicy",
            json!({"Condition": "any"}),
        ),
        (
            "restart: 'no'",
            "/TaskTemplate/RestartPolicy",
            json!({"Condition": "none"}),
        ),
        (
            "restart: on-failure:2",
            "/TaskTemplate/RestartPolicy",
            json!({"Condition": "on-failure", "MaxAttempts": 2}),
        ),
        (
            "deploy: {placement: {constraints: [node.role == manager], preferences: [{spread: node.labels.zone}], max_replicas_per_node: 1}}, platform: linux/arm64",
            "/TaskTemplate/Placement",
            json!({
            "Constraints": ["node.role == manager"], "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}], "MaxReplicas": 1, "Platforms": [{"Architecture": "arm64", "OS": "linux"}]}),
        ),
        (
            "deploy: {update_config: {parallelism: 2, delay: 1s, failure_action: rollback, monitor: 2s, max_failure_ratio: 0.1, order: start-first}}",
            "/UpdateConfig",
            json!({
            "Parallelism": 2, "Delay": 1_000_000_000, "FailureAction": "rollback", "Monitor": 2_000_000_000_i64, "MaxFailureRatio": 0.1, "Order": "start-first"}),
        ),
        (
            "deploy: {rollback_config: {parallelism: 0}}",
            "/RollbackConfig",
            json!({"Parallelism": 0, "MaxFailureRatio": 0.0}),
        ),
        (
            "logging: {driver: json-file, options: {max-size: 1m}}",
            "/TaskTemplate/LogDriver",
            json!({"Name": "json-file", "Options": {"max-size": "1m"}}),
        ),
        (
            "network_mode: host",
            "/TaskTemplate/Networks",
            json!([{"Target": "host"}]),
        ),
        (
            "tty: false",
            "/TaskTemplate/Networks",
            json!([{"Target": "s_default", "Aliases": ["w"]}]),
        ),
        ("tty: false", "/TaskTemplate/ForceUpdate", json!(0)),
    ];
    for (keys, pointer, wanted) in cases {
        assert_eq!(spec(keys).pointer(pointer), Some(&wanted), "{keys}");
    }
}

#[test]
fn networks_are_created_when_used() {
    let stack = stack(
        "services:\n  a: {image: x, networks: {front: {aliases: [www], driver_opts: {k: v}}, ext: }}\n  b: {image: x}\nnetworks:\n  front: {attachable: true, internal: true, enable_ipv6: true, driver_opts: {mtu: 1400}, labels: [l=1], ipam: {driver: default, config: [{subnet: 10.9.0.0/24, gateway: 10.9.0.1}]}}\n  ext: {external: true, name: outside}\n  unused: {}\n",
    );
    assert_eq!(
        stack.services[0].spec["TaskTemplate"]["Networks"],
        json!([{"Target": "outside", "Aliases": ["a"]}, {"Target": "s_front", "Aliases": ["www", "a"], "DriverOpts": {"k": "v"}}])
    );
    let names: Vec<&str> = stack.networks.iter().map(|n| n.name.as_str()).collect();
    assert_eq!(names, ["s_default", "s_front"]);
    assert_eq!(
        stack.networks[1].body,
        json!({"Name": "s_front", "Driver": "overlay", "Scope": "swarm", "Internal": true, "Attachable": true, "EnableIPv6": true,
            "IPAM": {"Driver": "default", "Config": [{"Subnet": "10.9.0.0/24", "Gateway": "10.9.0.1"}]},
            "Options": {"mtu": "1400"}, "Labels": {"l": "1", "com.docker.stack.namespace": "s"}})
    );
    assert_eq!(
        stack
            .external_networks
            .iter()
            .map(|(n, _)| n.as_str())
            .collect::<Vec<_>>(),
        ["outside"]
    );
}

#[test]
fn a_service_may_do_without_its_short_name() {
    let aliases = |value: &str| {
        let settings = format!("{{aliases: [web], use_service_name_alias: {value}}}");
        let text = format!(
            "services: {{w: {{image: x, networks: {{n: {settings}}}}}}}\nnetworks: {{n: {{}}}}"
        );
        stack(&text).services.remove(0).spec["TaskTemplate"]["Networks"][0]["Aliases"].take()
    };
    assert_eq!(aliases("true"), json!(["web", "w"]));
    assert_eq!(aliases("null"), json!(["web", "w"]));
    assert_eq!(aliases("false"), json!(["web"]));
}

#[test]
fn secrets_and_configs() {
    let stack = stack(
        "services: {a: {image: x, secrets: [token, {source: key, target: /etc/k, uid: '5', mode: 0400}], configs: [site, {source: text, target: /t}]}}\nsecrets: {token: {environment: TOKEN}, key: {external: true, name: real}}\nconfigs: {site: {file: ./site.conf, labels: {a: b}}, text: {content: \"home ${HOME}\", name: named, template_driver: golang}}\n",
    );
    let container = &stack.services[0].spec["TaskTemplate"]["ContainerSpec"];
    assert_eq!(
        container["Secrets"],
        json!([{"File": {"Name": "token", "UID": "0", "GID": "0", "Mode": 0o444}, "SecretName": "s_token"}, {"File": {"Name": "/etc/k", "UID": "5", "GID": "0", "Mode": 0o400}, "SecretName": "real"}])
    );
    assert_eq!(container["Configs"][0]["ConfigName"], "s_site");
    assert_eq!(container["Configs"][1]["ConfigName"], "named");
    let content = |name: &str| {
        stack
            .objects
            .iter()
            .find(|o| o.name == name)
            .and_then(|o| o.content.clone())
    };
    assert_eq!(content("s_token").as_deref(), Some(b"t0ken".as_slice()));
    assert_eq!(content("s_site").as_deref(), Some(b"listen 80".as_slice()));
    assert_eq!(
        content("named").as_deref(),
        Some(b"home /home/me".as_slice())
    );
    assert_eq!(
        stack
            .objects
            .iter()
            .find(|o| o.name == "named")
            .unwrap()
            .spec["Templating"],
        json!({"Name": "golang"})
    );
    assert_eq!(stack.external_objects[0].1, "real");
}

#[test]
fn dependencies_become_a_label_and_an_order() {
    let stack = stack(
        "services:\n  web: {image: x, depends_on: {api: {condition: service_healthy}, init: {condition: service_completed_successfully}, no: {required: false, condition: service_started}}}\n  api: {image: x, depends_on: [init]}\n  init: {image: x}\n",
    );
    let order: Vec<&str> = stack.services.iter().map(|s| s.short.as_str()).collect();
    assert_eq!(order, ["init", "api", "web"]);
    let label = |n: usize| stack.services[n].spec["Labels"]["overnet.depends-on"].clone();
    assert_eq!(label(0), Json::Null);
    assert_eq!(label(1), "s_init:started");
    assert_eq!(label(2), "s_api:healthy,s_init:completed");
}
