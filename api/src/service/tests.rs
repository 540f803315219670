//! Bodies as clients send them, read and shown again.

use std::time::Duration;

use model::{
    Meta, Service, ServiceSpec,
    service::{JobStatus, ServiceStatus, UpdateState, UpdateStatus, VirtualIp},
    task::TaskSpec,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::body;

fn model(body: &Value) -> Result<ServiceSpec, model::Refusal> {
    body::read::<SpecView>(body.to_string().as_bytes())?.into_model()
}

/// Where `shown` lacks what `sent` has; text and numbers have to be the same.
fn lost(path: &str, sent: &Value, shown: &Value, found: &mut Vec<String>) {
    match (sent, shown) {
        (Value::Object(sent), Value::Object(_)) => {
            for (key, value) in sent {
                lost(&format!("{path}.{key}"), value, &shown[key], found);
            }
        }
        (Value::Array(sent), Value::Array(shown)) if sent.len() == shown.len() => {
            for (sent, shown) in sent.iter().zip(shown) {
                lost(path, sent, shown, found);
            }
        }
        _ if sent == shown => {}
        _ => found.push(format!("{path}: sent {sent}, shown {shown}")),
    }
}

/// Every field there is, in Docker's spelling.
fn everything() -> Value {
    json!({
        "Name": "web", "Labels": {"overnet.drain-timeout": "9s", "a": ""},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "nginx:1@sha256:aa", "Labels": {"c": "d"}, "Command": ["/bin/sh"],
                "Args": ["-c", "sleep 1"], "Hostname": "{{.Node.Hostname}}", "Env": ["A=b", "C"],
                "Dir": "/srv", "User": "1000:1000", "Groups": ["wheel"],
                "Privileges": {
                    "NoNewPrivileges": true, "AppArmor": {"Mode": "disabled"},
                    "Seccomp": {"Mode": "custom", "Profile": "e30="}
                },
                "Init": false, "StopSignal": "SIGINT", "TTY": true, "OpenStdin": true, "ReadOnly": true,
                "Mounts": [
                    {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true, "Consistency": "cached",
                     "BindOptions": {"Propagation": "rslave", "NonRecursive": true, "CreateMountpoint": true,
                                     "ReadOnlyNonRecursive": true, "ReadOnlyForceRecursive": true}},
                    {"Type": "volume", "Source": "data", "Target": "/d",
                     "VolumeOptions": {"NoCopy": true, "Labels": {"x": "y"}, "Subpath": "s",
                                       "DriverConfig": {"Name": "local", "Options": {"type": "nfs"}}}},
                    {"Type": "tmpfs", "Target": "/t",
                     "TmpfsOptions": {"SizeBytes": 1024, "Mode": 448, "Options": [["exec"], ["uid", "5"]]}},
                    {"Type": "image", "Source": "busybox", "Target": "/i", "ImageOptions": {"Subpath": "bin"}}
                ],
                "StopGracePeriod": 30_000_000_000_i64,
                "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 1_000_000_000, "Timeout": 2_000_000_000,
                                "StartPeriod": 3_000_000, "StartInterval": 5_000_000, "Retries": 4},
                "Hosts": ["10.0.0.1 db"],
                "DNSConfig": {"Nameservers": ["10.0.0.2", "fd00::1"], "Search": ["lan"], "Options": ["ndots:2"]},
                "Secrets": [{"File": {"Name": "key", "UID": "1", "GID": "2", "Mode": 256},
                             "SecretID": "sidsidsidsidsidsidsidsids", "SecretName": "key.1"}],
                "Configs": [{"File": {"Name": "/etc/a", "UID": "0", "GID": "0", "Mode": 292},
                             "ConfigID": "cidcidcidcidcidcidcidcidc", "ConfigName": "a.1"},
                            {"Runtime": {}, "ConfigID": "cidcidcidcidcidcidcidcidd", "ConfigName": "b"}],
                "Isolation": "default", "Sysctls": {"net.core.somaxconn": "1024"},
                "CapabilityAdd": ["CAP_NET_ADMIN"], "CapabilityDrop": ["CAP_CHOWN"],
                "Ulimits": [{"Name": "nofile", "Hard": 2048, "Soft": 1024}], "OomScoreAdj": -500
            },
            "Resources": {
                "Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 67_108_864, "Pids": 100},
                "Reservations": {"NanoCPUs": 100_000_000, "MemoryBytes": 33_554_432, "GenericResources": [
                    {"DiscreteResourceSpec": {"Kind": "SSD", "Value": 3}},
                    {"NamedResourceSpec": {"Kind": "GPU", "Value": "UUID1"}}
                ]}
            },
            "RestartPolicy": {"Condition": "on-failure", "Delay": 1_000_000_000, "MaxAttempts": 3, "Window": 60_000_000_000_i64},
            "Placement": {
                "Constraints": ["node.role==manager"], "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}],
                "MaxReplicas": 2, "Platforms": [{"Architecture": "amd64", "OS": "linux"}, {"OS": "linux"}]
            },
            "Networks": [{"Target": "ch03", "Aliases": ["www"], "DriverOpts": {"k": "v"}}],
            "LogDriver": {"Name": "json-file", "Options": {"max-size": "10m"}},
            "ForceUpdate": 7, "Runtime": "container"
        },
        "Mode": {"Replicated": {"Replicas": 6}},
        "UpdateConfig": {"Parallelism": 2, "Delay": 10_000_000_000_i64, "FailureAction": "rollback",
                         "Monitor": 7_000_000_000_i64, "MaxFailureRatio": 0.25, "Order": "start-first"},
        "RollbackConfig": {"Parallelism": 0, "FailureAction": "continue", "Monitor": 5_000_000_000_i64,
                           "MaxFailureRatio": 1, "Order": "stop-first"},
        "EndpointSpec": {"Mode": "vip", "Ports": [
            {"Name": "http", "Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"},
            {"Protocol": "sctp", "TargetPort": 65535, "PublishMode": "host"}
        ]}
    })
}

#[test]
fn nothing_a_client_sends_is_lost() {
    let sent = everything();
    let spec = model(&sent).unwrap();
    let shown = serde_json::to_value(SpecView::from(&spec)).unwrap();
    let mut found = Vec::new();
    lost("", &sent, &shown, &mut found);
    assert_eq!(found, [""; 0]);
    assert_eq!(model(&shown).unwrap(), spec);
}

/// A client reads keys in any case, so it may send them so.
#[test]
fn keys_in_any_case() {
    fn lower(value: &Value) -> Value {
        match value {
            Value::Object(map) => map
                .iter()
                .map(|(key, value)| {
                    // The keys of maps are the user's own.
                    let own = matches!(
                        key.as_str(),
                        "Labels" | "Sysctls" | "Options" | "DriverOpts"
                    );
                    let value = if own { value.clone() } else { lower(value) };
                    (key.to_ascii_lowercase(), value)
                })
                .collect(),
            Value::Array(items) => items.iter().map(lower).collect(),
            other => other.clone(),
        }
    }
    assert_eq!(model(&lower(&everything())), model(&everything()));
}

/// `docker service create --name web --replicas 2 -p 80:80 nginx`
#[test]
fn what_the_stock_client_sends() {
    let sent = json!({
        "Name": "web", "Labels": {},
        "TaskTemplate": {
            "ContainerSpec": {"Image": "nginx:latest", "Init": false, "DNSConfig": {},
                "Privileges": {"CredentialSpec": null, "SELinuxContext": null, "NoNewPrivileges": false}},
            "Resources": {"Limits": {}, "Reservations": {}}, "Placement": {}, "ForceUpdate": 0, "Runtime": "container"
        },
        "Mode": {"Replicated": {"Replicas": 2}},
        "EndpointSpec": {"Mode": "vip", "Ports": [
            {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 80, "PublishMode": "ingress"}]}
    });
    let spec = model(&sent).unwrap();
    assert!(spec.task.restart.is_none() && spec.update.is_none());
    insta::assert_json_snapshot!(SpecView::from(&spec), @r#"
    {
      "Name": "web",
      "Labels": {},
      "TaskTemplate": {
        "ContainerSpec": {
          "Image": "nginx:latest",
          "Init": false,
          "DNSConfig": {},
          "Isolation": "default"
        },
        "Resources": {
          "Limits": {},
          "Reservations": {}
        },
        "Placement": {},
        "ForceUpdate": 0,
        "Runtime": "container"
      },
      "Mode": {
        "Replicated": {
          "Replicas": 2
        }
      },
      "EndpointSpec": {
        "Mode": "vip",
        "Ports": [
          {
            "Protocol": "tcp",
            "TargetPort": 80,
            "PublishedPort": 80,
            "PublishMode": "ingress"
          }
        ]
      }
    }
    "#);
}

/// docker-py: lower-case modes, names of networks beside the template, nulls.
#[test]
fn what_the_python_client_sends() {
    let spec = model(&json!({
        "Name": "web", "Labels": null, "Mode": {"replicated": {"Replicas": 3}}, "Networks": [{"Target": "ch03"}],
        "TaskTemplate": {"ContainerSpec": {"Image": "nginx", "Env": null, "Mounts": null},
                         "RestartPolicy": {"Condition": "none", "Delay": 0, "MaxAttempts": 0, "Window": 0}},
        "UpdateConfig": null, "EndpointSpec": null
    }))
    .unwrap();
    assert_eq!(
        spec.mode,
        model::service::ServiceMode::Replicated { replicas: 3 }
    );
    assert_eq!(spec.task.networks[0].target, "ch03");
    let restart = spec.task.restart.unwrap();
    assert_eq!(restart.delay, Duration::ZERO);
    assert_eq!(spec.endpoint, Some(model::service::EndpointSpec::default()));
}

#[test]
fn modes() {
    use model::service::ServiceMode::{Global, GlobalJob, Replicated, ReplicatedJob};
    for (text, mode) in [
        ("{}", Replicated { replicas: 1 }),
        ("null", Replicated { replicas: 1 }),
        (r#"{"Replicated":{}}"#, Replicated { replicas: 1 }),
        (
            r#"{"Replicated":{"Replicas":0}}"#,
            Replicated { replicas: 0 },
        ),
        (r#"{"Global":{}}"#, Global),
        (r#"{"GlobalJob":{}}"#, GlobalJob),
        (
            r#"{"ReplicatedJob":{}}"#,
            ReplicatedJob {
                concurrent: 1,
                total: 1,
            },
        ),
        (
            r#"{"ReplicatedJob":{"MaxConcurrent":4}}"#,
            ReplicatedJob {
                concurrent: 4,
                total: 4,
            },
        ),
        (
            r#"{"ReplicatedJob":{"MaxConcurrent":2,"TotalCompletions":9}}"#,
            ReplicatedJob {
                concurrent: 2,
                total: 9,
            },
        ),
    ] {
        let view: ModeView = body::read(text.as_bytes()).unwrap();
        assert_eq!(view.to_model().unwrap(), mode, "{text}");
        assert_eq!(ModeView::from(mode).to_model().unwrap(), mode);
    }
}

#[test]
fn wrong_and_absent_features_are_refused_by_name() {
    for (place, value, status, words) in [
        (
            "/Mode",
            json!({"Replicated": {}, "Global": {}}),
            400,
            "only one service mode",
        ),
        (
            "/Mode",
            json!({"Replicated": {"Replicas": -1}}),
            400,
            "Mode.Replicated.Replicas",
        ),
        (
            "/UpdateConfig/MaxFailureRatio",
            json!(1.5),
            400,
            "bigger than 1",
        ),
        ("/UpdateConfig/Delay", json!(-1), 400, "UpdateConfig.Delay"),
        (
            "/RollbackConfig/Order",
            json!("both"),
            400,
            "stop-first, start-first",
        ),
        ("/EndpointSpec/Mode", json!("lvs"), 400, "vip, dnsrr"),
        (
            "/EndpointSpec/Ports/0/TargetPort",
            json!(65536),
            400,
            "65535",
        ),
        (
            "/EndpointSpec/Ports/0/Protocol",
            json!("icmp"),
            400,
            "tcp, udp, sctp",
        ),
        ("/TaskTemplate/Runtime", json!("plugin"), 501, "plugins"),
        (
            "/TaskTemplate/Runtime",
            json!("wasm"),
            400,
            "only container",
        ),
        (
            "/TaskTemplate/PluginSpec",
            json!({"Name": "p"}),
            501,
            "plugins",
        ),
        (
            "/TaskTemplate/NetworkAttachmentSpec",
            json!({"ContainerID": "c"}),
            400,
            "attachable",
        ),
        (
            "/TaskTemplate/ContainerSpec",
            json!(null),
            400,
            "ContainerSpec is missing",
        ),
        (
            "/TaskTemplate/ContainerSpec/Image",
            json!(""),
            400,
            "image reference must be provided",
        ),
        (
            "/TaskTemplate/ContainerSpec/Isolation",
            json!("hyperv"),
            400,
            "Windows",
        ),
        (
            "/TaskTemplate/ContainerSpec/StopGracePeriod",
            json!(-5),
            400,
            "StopGracePeriod",
        ),
        (
            "/TaskTemplate/ContainerSpec/Privileges/CredentialSpec",
            json!({"File": "x"}),
            501,
            "Windows",
        ),
        (
            "/TaskTemplate/ContainerSpec/Privileges/SELinuxContext",
            json!({"Disable": true}),
            501,
            "SELinux",
        ),
        (
            "/TaskTemplate/ContainerSpec/Privileges/Seccomp/Mode",
            json!("strict"),
            400,
            "unconfined",
        ),
        (
            "/TaskTemplate/ContainerSpec/Privileges/Seccomp/Profile",
            json!(""),
            400,
            "go together",
        ),
        (
            "/TaskTemplate/ContainerSpec/Privileges/Seccomp/Profile",
            json!("%"),
            400,
            "base64",
        ),
        (
            "/TaskTemplate/ContainerSpec/Privileges/AppArmor/Mode",
            json!("off"),
            400,
            "default, disabled",
        ),
        (
            "/TaskTemplate/ContainerSpec/DNSConfig/Nameservers/0",
            json!("dns"),
            400,
            "not an IP address",
        ),
        (
            "/TaskTemplate/ContainerSpec/Healthcheck/Retries",
            json!(-1),
            400,
            "negative",
        ),
        (
            "/TaskTemplate/ContainerSpec/Mounts/0/Type",
            json!("npipe"),
            400,
            "Windows",
        ),
        (
            "/TaskTemplate/ContainerSpec/Mounts/0/Type",
            json!("cluster"),
            501,
            "cluster volumes",
        ),
        (
            "/TaskTemplate/ContainerSpec/Mounts/0/Type",
            json!("nfs"),
            400,
            "bind, volume",
        ),
        ("/TaskTemplate/Resources/SwapBytes", json!(5), 501, "swap"),
        (
            "/TaskTemplate/Resources/Reservations/GenericResources/0",
            json!({}),
            400,
            "GenericResources",
        ),
        (
            "/TaskTemplate/RestartPolicy/Condition",
            json!("always"),
            400,
            "any, none, on-failure",
        ),
        (
            "/TaskTemplate/RestartPolicy/Window",
            json!(-1),
            400,
            "RestartPolicy.Window",
        ),
        (
            "/TaskTemplate/Placement/Preferences/0",
            json!({"Binpack": {}}),
            400,
            "only spread",
        ),
    ] {
        let mut body = everything();
        let (parent, key) = place.rsplit_once('/').unwrap();
        match body.pointer_mut(parent).unwrap() {
            Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
            object => object[key] = value,
        }
        let refusal = model(&body).unwrap_err();
        assert_eq!(refusal.kind.status(), status, "{place}: {refusal}");
        assert!(refusal.message.contains(words), "{place}: {refusal}");
    }
}

/// What clients send of features they do not use is no wish.
#[test]
fn empty_forms_are_no_wish() {
    let mut body = everything();
    body["TaskTemplate"]["ContainerSpec"]["Privileges"] = json!({
        "CredentialSpec": {"Config": "", "File": "", "Registry": ""},
        "SELinuxContext": {"Disable": false, "User": "", "Role": "", "Type": "", "Level": ""},
        "Seccomp": null, "AppArmor": null
    });
    body["TaskTemplate"]["Resources"]["SwapBytes"] = json!(null);
    let spec = model(&body).unwrap();
    assert_eq!(
        spec.task.container.privileges,
        model::task::Privileges::default()
    );
}

fn service() -> Service {
    Service {
        id: "serviceserviceserviceserv".into(),
        meta: Meta {
            version: 21,
            created_at: 1_700_000_000_000_000_000,
            updated_at: 1_700_000_001_500_000_000,
            trace: None,
        },
        spec: ServiceSpec {
            name: "web".into(),
            task: TaskSpec {
                container: model::task::ContainerSpec {
                    image: "nginx".into(),
                    registry_auth: "c2VjcmV0".into(),
                    ..Default::default()
                },
                ..TaskSpec::default()
            },
            ..ServiceSpec::default()
        },
        spec_version: 21,
        previous: None,
        endpoint: ServiceEndpoint {
            vips: vec![VirtualIp {
                network: "netnetnetnetnetnetnetnetn".into(),
                address: "10.0.1.2/24".parse().unwrap(),
            }],
            ..Default::default()
        },
        update: Some(UpdateStatus {
            state: UpdateState::RollbackPaused,
            started_at: 1_700_000_000_000_000_000,
            completed_at: None,
            message: "update paused".into(),
        }),
        job: Some(JobStatus {
            iteration: 3,
            last_execution: 1_700_000_000_000_000_000,
        }),
    }
}

#[test]
fn a_service_as_docker_shows_it() {
    let view = ServiceView::from(&service()).with_status(ServiceStatus {
        running: 1,
        desired: 2,
        completed: 0,
    });
    let text = serde_json::to_string(&view).unwrap();
    assert!(
        !text.contains("null") && !text.contains("c2VjcmV0"),
        "{text}"
    );
    assert_eq!(body::read::<ServiceView>(text.as_bytes()).unwrap(), view);
    insta::assert_json_snapshot!(view, @r#"
    {
      "ID": "serviceserviceserviceserv",
      "Version": {
        "Index": 21
      },
      "CreatedAt": "2023-11-14T22:13:20Z",
      "UpdatedAt": "2023-11-14T22:13:21.5Z",
      "Spec": {
        "Name": "web",
        "Labels": {},
        "TaskTemplate": {
          "ContainerSpec": {
            "Image": "nginx",
            "DNSConfig": {},
            "Isolation": "default"
          },
          "Resources": {
            "Limits": {},
            "Reservations": {}
          },
          "Placement": {},
          "ForceUpdate": 0,
          "Runtime": "container"
        },
        "Mode": {
          "Replicated": {
            "Replicas": 1
          }
        },
        "EndpointSpec": {
          "Mode": "vip"
        }
      },
      "Endpoint": {
        "Spec": {
          "Mode": "vip"
        },
        "VirtualIPs": [
          {
            "NetworkID": "netnetnetnetnetnetnetnetn",
            "Addr": "10.0.1.2/24"
          }
        ]
      },
      "UpdateStatus": {
        "State": "rollback_paused",
        "StartedAt": "2023-11-14T22:13:20Z",
        "Message": "update paused"
      },
      "ServiceStatus": {
        "RunningTasks": 1,
        "DesiredTasks": 2,
        "CompletedTasks": 0
      },
      "JobStatus": {
        "JobIteration": {
          "Index": 3
        },
        "LastExecution": "2023-11-14T22:13:20Z"
      }
    }
    "#);
}

#[test]
fn defaults_are_filled_in_where_nothing_is_said() {
    let spec = ServiceView::from(&service()).with_defaults().spec;
    let template = &spec.task_template;
    assert_eq!(
        template.container_spec.as_ref().unwrap().stop_grace_period,
        Some(10_000_000_000)
    );
    assert_eq!(
        template.restart_policy.as_ref().unwrap().delay,
        Some(5_000_000_000)
    );
    let update = serde_json::to_value(spec.update_config.unwrap()).unwrap();
    assert_eq!(
        update,
        json!({"Parallelism": 1, "FailureAction": "pause", "Monitor": 5_000_000_000_i64,
               "MaxFailureRatio": 0, "Order": "stop-first"})
    );
    // What is said stays.
    let mut said = service();
    said.spec = model(&everything()).unwrap();
    assert_eq!(
        ServiceView::from(&said).with_defaults(),
        ServiceView::from(&said)
    );
}

fn words() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec("\\PC{0,12}", 0..4)
}

fn map() -> impl Strategy<Value = std::collections::BTreeMap<String, String>> {
    proptest::collection::btree_map("\\PC{0,8}", "\\PC{0,8}", 0..4)
}

proptest! {
    #[test]
    fn any_text_survives(env in words(), args in words(), labels in map(), image in "[a-z]{1,9}", seconds in 0u32..100_000,
                         ppm in 0u32..=1_000_000, published: u16, replicas: u64) {
        let mut spec = model(&everything()).unwrap();
        spec.labels = labels.clone();
        spec.task.container.env = env;
        spec.task.container.args = args;
        spec.task.container.labels = labels;
        spec.task.container.image = image;
        spec.task.container.stop_grace_period = Some(Duration::from_secs(seconds.into()));
        spec.mode = model::service::ServiceMode::Replicated { replicas };
        spec.update.as_mut().unwrap().max_failure_ppm = ppm;
        spec.update.as_mut().unwrap().delay = Duration::from_nanos(seconds.into());
        spec.endpoint.as_mut().unwrap().ports[0].published = published;
        let text = serde_json::to_string(&SpecView::from(&spec)).unwrap();
        prop_assert_eq!(body::read::<SpecView>(text.as_bytes()).unwrap().into_model().unwrap(), spec);
    }

    #[test]
    fn no_body_panics(text in "[\\[\\]{}\",:a-zA-Z0-9.-]{0,60}") {
        let wrapped = format!("{{\"TaskTemplate\":{{\"ContainerSpec\":{{\"{text}\":{{}}}}}}}}");
        for body in [text, wrapped] {
            if let Ok(view) = body::read::<SpecView>(body.as_bytes()) {
                let _ = view.into_model();
            }
        }
    }
}
