//! Compose text in, Engine API out, one key a case.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use serde_json::{Value as Json, json};

use super::{Stack, Surround, convert};
use crate::compose::load::{Input, Request, load};
use crate::compose::problem::Sources;

/// Converts text as stack `s`; problems and warnings come back as lines.
fn run(text: &str) -> (Result<Stack, String>, Vec<String>) {
    let files = BTreeMap::from([
        ("/p/a.env", "# c\nA=file\nB='quoted'\nHOME\n"),
        ("/p/raw.env", "A=\"raw\"\n"),
        ("/p/site.conf", "listen 80"),
        ("/p/empty", ""),
    ]);
    let reader = |path: &Path| {
        let text = files.get(path.to_str().unwrap_or_default());
        text.map(|t| t.as_bytes().to_vec())
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    };
    let variables = BTreeMap::from([
        ("HOME".to_owned(), "/home/me".to_owned()),
        ("TOKEN".to_owned(), "t0ken".to_owned()),
    ]);
    let inputs = [Input {
        name: "-".to_owned(),
        text: Some(text.as_bytes().to_vec()),
    }];
    let request = Request {
        files: &inputs,
        directory: Path::new("/p"),
        variables: &variables,
        profiles: &BTreeSet::new(),
        raw: false,
        reader: &reader,
    };
    let mut sources = Sources::default();
    let loaded = match load(&request, &mut sources) {
        Ok(loaded) => loaded,
        Err(problems) => return (Err(problems.render(&sources)), vec![]),
    };
    let mut warnings = loaded.warnings.clone();
    let around = Surround {
        stack: "s",
        sources: &sources,
        reader: &reader,
        variables: &loaded.variables,
    };
    let stack = convert(&loaded, &around, &mut warnings);
    let warnings = warnings.iter().map(|w| w.line(&sources)).collect();
    (
        stack.map_err(|problems| problems.render(&sources)),
        warnings,
    )
}

fn stack(text: &str) -> Stack {
    let (stack, _) = run(text);
    stack.unwrap_or_else(|said| panic!("{text}\n{said}"))
}

/// The specification of one service with these keys and an image.
fn spec(keys: &str) -> Json {
    let text = format!(
        "services: {{w: {{image: x, {keys}}}}}\nvolumes: {{data: {{labels: [a=b], driver: local}}, out: {{external: true}}}}"
    );
    stack(&text).services.remove(0).spec
}

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

#[test]
fn what_is_wrong_is_refused() {
    let cases = [
        ("services: {}", "there is no service in it"),
        ("services: {w: }", "image is missing"),
        ("services: {w: {build: .}}", "push it to a registry"),
        ("services: {w: {image: 'UPPER'}}", "must be lowercase"),
        ("services: {'a b': {image: x}}", "is no name of a service"),
        (
            "services: {w: {image: x, networks: [frnt]}}\nnetworks: {front: }",
            "the network \"frnt\" is not defined",
        ),
        (
            "services: {w: {image: x, networks: [frnt]}}\nnetworks: {front: }",
            "did you mean front?",
        ),
        (
            "services: {w: {image: x, volumes: ['dta:/x']}}\nvolumes: {data: }",
            "did you mean data?",
        ),
        (
            "services: {w: {image: x, secrets: [t]}}",
            "add t under the top-level key secrets",
        ),
        (
            "services: {w: {image: x, ports: ['80-82:80-81']}}",
            "the ranges 80-82 and 80-81 differ in length",
        ),
        (
            "services: {w: {image: x, ports: ['99999:80']}}",
            "\"99999\" is no port",
        ),
        (
            "services: {w: {image: x, ports: ['80:80/icmp']}}",
            "none of tcp, udp, sctp",
        ),
        (
            "services: {w: {image: x, ports: ['80:80']}, v: {image: x, ports: ['80:81']}}",
            "port 80/tcp is published twice",
        ),
        (
            "services: {w: {image: x, ports: ['80:80'], deploy: {endpoint_mode: dnsrr}}}",
            "cannot be published with endpoint_mode: dnsrr",
        ),
        (
            "services: {w: {image: x, deploy: {mode: global, replicas: 2}}}",
            "replicas have no meaning with mode: global",
        ),
        (
            "services: {w: {image: x, deploy: {placement: {constraints: [node.role = manager]}}}}",
            "is no constraint",
        ),
        (
            "services: {w: {image: x, restart: sometimes}}",
            "no restart policy",
        ),
        (
            "services: {w: {image: x, volumes: ['a:b:c:d']}}",
            "too many colons",
        ),
        (
            "services: {w: {image: x, volumes: ['/a:b']}}",
            "must be an absolute path",
        ),
        (
            "services: {w: {image: x, volumes: ['/a:/x', '/b:/x']}}",
            "two mounts have the target \"/x\"",
        ),
        (
            "services: {w: {image: x, depends_on: [ap]}, api: {image: x}}",
            "did you mean api?",
        ),
        (
            "services: {a: {image: x, depends_on: [b]}, b: {image: x, depends_on: [a]}}",
            "wait for one another: a -> b -> a",
        ),
        (
            "services: {a: {image: x, depends_on: [b]}, b: {image: x, profiles: [p]}}",
            "none of its profiles is active",
        ),
        (
            "services: {w: {image: x, env_file: no.env}}",
            "cannot read /p/no.env",
        ),
        (
            "services: {w: {image: x, healthcheck: {test: [curl, x]}}}",
            "begin it with NONE, CMD or CMD-SHELL",
        ),
        (
            "services: {w: {image: x, extra_hosts: ['a:b']}}",
            "\"b\" is no IP address",
        ),
        (
            "services: {w: {image: x, command: \"a 'b\"}}",
            "is not closed",
        ),
        (
            "services: {w: {image: x, deploy: {resources: {limits: {cpus: 1e3}}}}}",
            "not a number of CPUs",
        ),
        (
            "services: {w: {image: x}}\nsecrets: {t: {environment: NOPE}}",
            "the variable NOPE is not set",
        ),
        (
            "services: {w: {image: x}}\nsecrets: {t: {file: ./nope}}",
            "cannot read /p/nope",
        ),
        (
            "services: {w: {image: x}}\nconfigs: {t: {file: ./empty}}",
            "the config is empty",
        ),
        (
            "services: {w: {image: x}}\nconfigs: {t: {}}",
            "has no content",
        ),
        (
            "services: {w: {image: x}}\nconfigs: {t: {file: a, content: b}}",
            "exclude one another",
        ),
        (
            "services: {w: {image: x, network_mode: host, networks: [a]}}\nnetworks: {a: }",
            "exclude one another",
        ),
    ];
    for (text, wanted) in cases {
        let said = run(text).0.map(|s| s.name).unwrap_err();
        assert!(said.contains(wanted), "{text}\n{said}");
    }
    let long = format!("services: {{{}: {{image: x}}}}", "n".repeat(62));
    assert!(run(&long).0.unwrap_err().contains("63 are the limit"));
}

#[test]
fn what_has_no_meaning_is_warned_about() {
    let cases = [
        (
            "services: {w: {image: x, ports: ['127.0.0.1:80:80']}}",
            "the address 127.0.0.1 is ignored",
        ),
        (
            "services: {w: {image: x, security_opt: ['label:disable']}}",
            "services.w.security_opt: label=disable is ignored",
        ),
        (
            "services: {w: {image: x, network_mode: 'service:a'}}",
            "services.w.network_mode is ignored",
        ),
        (
            "services: {w: {image: x, volumes: ['/a:/b:z']}}",
            "the option z is ignored",
        ),
        (
            "services: {w: {image: x, platform: linux/arm/v7}}",
            "the variant of linux/arm/v7 is ignored",
        ),
        (
            "services: {w: {image: x, depends_on: {a: {condition: service_started, required: false}}}}",
            "a is not waited for",
        ),
        (
            "name: other\nservices: {w: {image: x}}",
            "name: the stack is deployed as \"s\", not as \"other\"",
        ),
        (
            "services: {w: {image: x}, m: {provider: {type: model}}}",
            "services.m.provider is ignored",
        ),
        (
            "services: {w: {image: x}}\nnetworks: {n: }",
            "networks.n is not created: no service uses it",
        ),
        (
            "services: {w: {image: x, networks: [n], networks: [n]}}\nnetworks: {n: }",
            "the key \"networks\" is written twice with the same value",
        ),
    ];
    for (text, wanted) in cases {
        let (stack, warnings) = run(text);
        assert!(stack.is_ok(), "{text}: {stack:?}");
        assert!(
            warnings.iter().any(|w| w.contains(wanted)),
            "{text}\n{warnings:?}"
        );
        assert!(
            warnings.iter().all(|w| w.starts_with("stdin:")),
            "{warnings:?}"
        );
    }
}

#[test]
fn the_users_three_files() {
    let webapi = stack(include_str!("../../../tests/data/stacks/ch03-webapi.yml"));
    let names: Vec<&str> = webapi.services.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["s_api", "s_nginx"]);
    for service in &webapi.services {
        assert_eq!(service.spec["Mode"], json!({"Replicated": {"Replicas": 3}}));
        assert_eq!(
            service.spec["TaskTemplate"]["Placement"]["Constraints"],
            json!(["node.role != manager"])
        );
        assert_eq!(
            service.spec["TaskTemplate"]["Networks"][0]["Target"],
            "ch03"
        );
    }
    assert_eq!(
        webapi.services[1].spec["TaskTemplate"]["ContainerSpec"]["Env"],
        json!(["BACKEND_HOST=echo_api:8080"])
    );
    assert!(webapi.networks.is_empty());
    assert_eq!(webapi.external_networks[0].0, "ch03");

    let visualizer = stack(include_str!("../../../tests/data/stacks/visualizer.yml"));
    assert_eq!(visualizer.networks[0].name, "s_default");
    let app = &visualizer.services[0].spec;
    assert_eq!(app["Mode"], json!({"Global": {}}));
    assert_eq!(app["EndpointSpec"]["Ports"][0]["PublishedPort"], 9000);
    assert_eq!(
        app["TaskTemplate"]["ContainerSpec"]["Mounts"][0]["Source"],
        "/var/run/docker.sock"
    );

    let (ingress, warnings) = run(include_str!("../../../tests/data/stacks/ch03-ingress.yml"));
    let haproxy = ingress.unwrap().services.remove(0);
    assert_eq!(
        haproxy.spec["EndpointSpec"]["Ports"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    assert_eq!(
        haproxy.spec["TaskTemplate"]["Networks"],
        json!([{"Target": "ch03", "Aliases": ["haproxy"]}])
    );
    assert_eq!(
        warnings,
        ["stdin:19:9: the key \"networks\" is written twice with the same value"]
    );
}
