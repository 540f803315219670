//! Commands on services, secrets and configs against a fake daemon: the calls, the bodies, the words, the exit status.

mod create;
#[path = "../fake/mod.rs"]
#[allow(dead_code)] // each test program uses its part of it
mod fake;
mod secrets;
mod show;
mod update;

use fake::{Fake, Reply};
use serde_json::{Value, json};

const ID: &str = "svc1svc1svc1svc1svc1svc1s";

fn ok(value: Value) -> Reply {
    Reply::Json(200, value)
}

fn path(line: &str) -> &str {
    line.split('?').next().unwrap_or_default()
}

/// A service `web` whose update is watched for a nanosecond only.
fn web(update_status: &Value) -> Value {
    json!({
        "ID": ID, "Version": {"Index": 7},
        "Spec": {
            "Name": "web", "Labels": {"a": "1", "overnet.drain-timeout": "9s"},
            "TaskTemplate": {
                "ContainerSpec": {
                    "Image": "a:1", "Env": ["A=1", "B=2"],
                    "Mounts": [{"Type": "volume", "Source": "v", "Target": "/d"}],
                    "Secrets": [{"File": {"Name": "pw", "UID": "0", "GID": "0", "Mode": 292}, "SecretID": "sec1", "SecretName": "pw"}],
                },
                "Networks": [{"Target": "net-ch03"}], "ForceUpdate": 0, "SomethingNew": {"kept": true},
            },
            "Mode": {"Replicated": {"Replicas": 2}},
            "UpdateConfig": {"Parallelism": 1, "Monitor": 1, "FailureAction": "pause", "MaxFailureRatio": 0, "Order": "stop-first"},
            "EndpointSpec": {"Mode": "vip", "Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"}]},
        },
        "Endpoint": {"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"}]},
        "ServiceStatus": {"RunningTasks": 2, "DesiredTasks": 2, "CompletedTasks": 0},
        "UpdateStatus": update_status,
    })
}

fn task(slot: u64, state: &str) -> Value {
    json!({
        "ID": format!("task{slot}task{slot}task{slot}task{slot}abcde"), "ServiceID": ID, "NodeID": "node1", "Slot": slot,
        "DesiredState": "running", "CreatedAt": "2023-11-14T22:13:20Z",
        "Spec": {"ContainerSpec": {"Image": "a:1@sha256:00"}},
        "Status": {"State": state, "Timestamp": "2023-11-14T22:13:20Z"},
    })
}

/// A cluster with the service, whose first task prepares at the first look and runs after it.
fn cluster(update_status: Value) -> Fake {
    let registry = json!({
        "Descriptor": {"digest": format!("sha256:{}", "ab".repeat(32))},
        "Platforms": [{"architecture": "amd64", "os": "linux"}],
    });
    let named = |id: &str, name: &str| json!({"ID": id, "Spec": {"Name": name}});
    let secrets = json!([named("sec1", "pw"), named("sec2", "pw2")]);
    let configs = json!([named("cfg1", "cf")]);
    Fake::start(move |asked, before| match path(&asked.line) {
        "POST /services/create" => Reply::Json(201, json!({"ID": ID, "Warnings": ["careful"]})),
        line if line.starts_with("GET /distribution/") => ok(registry.clone()),
        "GET /networks/ch03" | "GET /networks/net-ch03" => {
            ok(json!({"Id": "net-ch03", "Name": "ch03"}))
        }
        "GET /networks/n2" => ok(json!({"Id": "net-n2", "Name": "n2"})),
        "GET /secrets" => ok(secrets.clone()),
        "GET /configs" => ok(configs.clone()),
        "GET /services" => ok(json!([web(&Value::Null)])),
        "GET /services/web" | "GET /services/svc1svc1svc1svc1svc1svc1s" => ok(web(&update_status)),
        line if line.ends_with("/update") => ok(json!({"Warnings": null})),
        "POST /services/web/rebalance" => ok(json!({"Moved": 0})),
        "GET /tasks" => {
            let state = if before == 0 { "preparing" } else { "running" };
            ok(json!([task(1, state), task(2, "running")]))
        }
        "GET /nodes" => ok(json!([{"ID": "node1", "Status": {"State": "ready"}}])),
        "GET /nodes/node1" | "GET /nodes/w1" => {
            ok(json!({"ID": "node1", "Description": {"Hostname": "w1"}}))
        }
        "DELETE /services/web" => ok(Value::Null),
        other => Reply::Json(404, json!({"message": format!("no {other}")})),
    })
}

/// The body of the first call of this method and path.
fn body(fake: &Fake, call: &str) -> Value {
    let asked = fake.asked().into_iter().find(|a| path(&a.line) == call);
    asked.unwrap_or_else(|| panic!("{call} was not asked")).body
}
