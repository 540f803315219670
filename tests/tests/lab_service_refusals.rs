//! What a cluster refuses of services, secrets and nodes: Docker's status code, a sentence that
//! names the thing, and nothing made or changed. And what a client reads, edits and writes back
//! keeps what Docker's description has no field for.

#![allow(clippy::unwrap_used)] // all of it is tests

use serde_json::{Value, json};
use tests::{Host, Lab, Options};

const ECHO: &str = "registry:5000/example/echo:latest";

#[test]
fn services_are_refused_in_one_sentence() {
    let lab = Lab::up(Options::for_test("svcrefuse")).unwrap();
    let manager = lab.host("manager01");
    for words in [
        "network create -d overlay --attachable ch03",
        "secret create key /etc/hostname",
    ] {
        manager.ctl(words.split(' ')).ok();
    }
    manager
        .ctl([
            "service",
            "create",
            "-d",
            "--name",
            "web",
            "--network",
            "ch03",
            "--secret",
            "key",
            "--publish",
            "8000:8080",
            "--replicas",
            "1",
            ECHO,
        ])
        .ok();
    let before = listed(&manager);
    creations(&manager);
    updates(&manager);
    payloads_and_nodes(&lab);
    assert_eq!(listed(&manager), before, "a refused service was made");
    a_docker_client_keeps_our_labels(&manager);
    lab.down().unwrap();
}

fn listed(manager: &Host) -> String {
    manager
        .ctl(["service", "ls", "--format", "{{.ID}} {{.Name}} {{.Ports}}"])
        .ok()
}

/// Sends a request; what is wrong with the answer's status and words, if anything is.
fn mismatch(
    host: &Host,
    method: &str,
    path: &str,
    body: &Value,
    status: u16,
    says: &[&str],
) -> Option<String> {
    let bytes = body.to_string().into_bytes();
    let answer = host.api(method, path, &bytes).unwrap();
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let request = format!("{method} {path} {body}");
    if answer.status != status {
        return Some(format!(
            "{request}: {}, not {status}: {text}",
            answer.status
        ));
    }
    let parsed: Value = serde_json::from_str(&text).unwrap();
    let message = parsed["message"].as_str().unwrap();
    let missing = says.iter().find(|word| !message.contains(**word));
    if let Some(word) = missing {
        return Some(format!("{request}: no {word:?} in {message:?}"));
    }
    message
        .contains('\n')
        .then(|| format!("{request}: more than a sentence: {message:?}"))
}

fn refused(host: &Host, method: &str, path: &str, body: &Value, status: u16, says: &[&str]) {
    assert_eq!(mismatch(host, method, path, body, status, says), None);
}

/// A service's wish with one thing changed, by JSON pointer.
fn spec(pointer: &str, value: Value) -> Value {
    let mut spec = json!({
        "Name": "new",
        "TaskTemplate": {
            "ContainerSpec": {"Image": ECHO, "Mounts": [], "Secrets": [], "Configs": []},
            "Placement": {}, "Networks": [], "Resources": {}, "RestartPolicy": {}
        },
        "Mode": {"Replicated": {"Replicas": 1}},
        "EndpointSpec": {},
        "UpdateConfig": {},
        "Labels": {}
    });
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    spec.pointer_mut(parent).unwrap()[key] = value;
    spec
}

fn creations(manager: &Host) {
    let container =
        |key: &str, value: Value| spec(&format!("/TaskTemplate/ContainerSpec/{key}"), value);
    let reference = json!([{"SecretID": "x", "SecretName": "nothing",
        "File": {"Name": "a", "UID": "0", "GID": "0", "Mode": 292}}]);
    let port = |published: u32, mode: &str| json!([{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": published, "PublishMode": mode}]);
    let mut dnsrr = spec("/EndpointSpec/Mode", json!("dnsrr"));
    dnsrr["EndpointSpec"]["Ports"] = port(8100, "ingress");
    let rows: Vec<(Value, u16, &[&str])> = vec![
        (spec("/Name", json!("web")), 409, &["web", "already exists"]),
        (spec("/Name", json!("no good")), 400, &["no good"]),
        (container("Image", json!("")), 400, &["image"]),
        (
            container("Image", json!("No/Good:x")),
            400,
            &["invalid reference format"],
        ),
        (
            container("Secrets", reference),
            400,
            &["nothing", "not found"],
        ),
        (
            container(
                "Mounts",
                json!([{"Type": "bind", "Source": "a", "Target": "/x"}]),
            ),
            400,
            &["absolute"],
        ),
        (
            container(
                "Mounts",
                json!([{"Type": "volume", "Source": "a", "Target": "x"}]),
            ),
            400,
            &["absolute"],
        ),
        (
            spec(
                "/TaskTemplate/Placement/Constraints",
                json!(["node.colour==red"]),
            ),
            400,
            &["node.colour"],
        ),
        (
            spec("/TaskTemplate/Placement/Constraints", json!(["node.role"])),
            400,
            &["node.role"],
        ),
        (
            spec("/TaskTemplate/Networks", json!([{"Target": "nowhere"}])),
            404,
            &["nowhere"],
        ),
        (
            spec("/TaskTemplate/RestartPolicy/Condition", json!("sometimes")),
            400,
            &["sometimes"],
        ),
        (
            spec("/TaskTemplate/Resources/Limits", json!({"NanoCPUs": 1})),
            400,
            &["cpu", "0.001"],
        ),
        (
            spec("/EndpointSpec/Ports", port(8000, "ingress")),
            400,
            &["8000", "web"],
        ),
        (
            spec(
                "/EndpointSpec/Ports",
                json!([{"Protocol": "ftp", "TargetPort": 80}]),
            ),
            400,
            &["ftp"],
        ),
        (dnsrr, 400, &["dnsrr", "ingress"]),
        (
            spec("/UpdateConfig/FailureAction", json!("panic")),
            400,
            &["panic"],
        ),
        (
            spec("/Mode", json!({"Global": {}, "Replicated": {}})),
            400,
            &["mode"],
        ),
    ];
    let create = "/services/create";
    let wrong: Vec<String> = rows
        .iter()
        .filter_map(|(body, status, says)| mismatch(manager, "POST", create, body, *status, says))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn updates(manager: &Host) {
    let answer = manager.api("GET", "/services/web", b"").unwrap();
    let service: Value = serde_json::from_slice(&answer.body).unwrap();
    let version = service["Version"]["Index"].as_u64().unwrap();
    let path = |version: u64| format!("/services/web/update?version={version}");
    let with = |key: &str, value: Value| {
        let mut spec = service["Spec"].clone();
        spec[key] = value;
        spec
    };
    let same = service["Spec"].clone();
    refused(
        manager,
        "POST",
        &path(version - 1),
        &same,
        500,
        &["out of sequence"],
    );
    refused(
        manager,
        "POST",
        &path(version),
        &with("Name", json!("other")),
        501,
        &["renaming", "other"],
    );
    refused(
        manager,
        "POST",
        &path(version),
        &with("Mode", json!({"Global": {}})),
        501,
        &["mode change"],
    );
    refused(
        manager,
        "POST",
        "/services/web/update",
        &same,
        400,
        &["version"],
    );
    refused(
        manager,
        "POST",
        &format!("{}&rollback=previous", path(version)),
        &same,
        400,
        &["previous"],
    );
    refused(
        manager,
        "POST",
        "/services/nobody/update?version=1",
        &same,
        404,
        &["nobody"],
    );
    refused(
        manager,
        "DELETE",
        "/services/nobody",
        &json!({}),
        404,
        &["nobody"],
    );
    refused(
        manager,
        "DELETE",
        "/networks/ch03",
        &json!({}),
        403,
        &["ch03", "web"],
    );
}

fn payloads_and_nodes(lab: &Lab) {
    let (manager, worker) = (lab.host("manager01"), lab.host("worker01"));
    refused(
        &manager,
        "DELETE",
        "/secrets/key",
        &json!({}),
        400,
        &["key", "in use", "web"],
    );
    let again = json!({"Name": "key", "Data": "YQ=="});
    refused(
        &manager,
        "POST",
        "/secrets/create",
        &again,
        409,
        &["key", "already exists"],
    );
    let huge = json!({"Name": "huge", "Data": "YWFh".repeat(200_000)});
    refused(
        &manager,
        "POST",
        "/secrets/create",
        &huge,
        400,
        &["huge", "bytes"],
    );
    let words = json!({"Name": "bad", "Data": "not base64!"});
    refused(
        &manager,
        "POST",
        "/secrets/create",
        &words,
        400,
        &["base64"],
    );
    refused(
        &worker,
        "GET",
        "/secrets",
        &json!({}),
        503,
        &["not a swarm manager"],
    );
    refused(
        &worker,
        "POST",
        "/services/create",
        &spec("/Name", json!("x")),
        503,
        &["not a swarm manager"],
    );
    refused(
        &manager,
        "DELETE",
        "/nodes/worker01",
        &json!({}),
        400,
        &["worker01", "not down"],
    );
    refused(
        &manager,
        "DELETE",
        "/nodes/nobody",
        &json!({}),
        404,
        &["nobody"],
    );
}

/// What Docker's description has no field for travels as labels, so that a read, edit and write
/// of the stock command line keeps it.
fn a_docker_client_keeps_our_labels(manager: &Host) {
    manager
        .ctl([
            "service",
            "update",
            "-d",
            "--drain-timeout",
            "30s",
            "--update-progress-deadline",
            "5m",
            "--rebalance",
            "--rebalance-max-moves",
            "2",
            "web",
        ])
        .ok();
    let labels = || {
        let answer = manager.api("GET", "/services/web", b"").unwrap();
        let mut service: Value = serde_json::from_slice(&answer.body).unwrap();
        service["Spec"]["Labels"].take()
    };
    let ours = labels();
    assert_eq!(
        ours,
        json!({
            "overnet.drain-timeout": "30s",
            "overnet.update.progress-deadline": "5m0s",
            "overnet.rebalance": "true",
            "overnet.rebalance.max-moves-per-minute": "2"
        })
    );
    manager
        .docker(["service", "update", "-d", "--env-add", "A=1", "web"])
        .ok();
    assert_eq!(labels(), ours);
}
