//! What a user gets wrong: one clear sentence, the right status code, nothing half made.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tests::{Host, Lab, Options, wait};

const ECHO: &str = "registry:5000/example/echo:latest";
const TOOLBOX: &str = "registry:5000/example/toolbox";
const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn bad_input_is_refused_in_one_sentence() {
    let lab = Lab::up(Options::for_test("bad-input")).unwrap();
    let manager = lab.host("manager01");
    manager
        .ctl([
            "network",
            "create",
            "-d",
            "overlay",
            "--attachable",
            "--subnet",
            "10.77.0.0/24",
            "ch03",
        ])
        .ok();
    manager
        .ctl(["network", "create", "-d", "overlay", "closed"])
        .ok();
    requests(&lab);
    networks(&lab);
    containers(&lab);
    images(&lab);
    a_registry_that_is_down_or_speaks_tls(&lab);
    a_corrupt_layer(&lab);
    joining(&lab);
    lab.down().unwrap();
}

/// Sends a request and checks status and message; the message is a sentence of one line.
#[track_caller]
fn refused(host: &Host, method: &str, path: &str, body: &str, status: u16, says: &[&str]) {
    let response = host.api(method, path, body.as_bytes()).unwrap();
    let text = response.text();
    assert_eq!(response.status, status, "{method} {path} {body}: {text}");
    let message = response.json()["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    for word in says {
        assert!(
            message.contains(word),
            "{method} {path} {body}: no {word:?} in {message:?}"
        );
    }
    assert!(
        !message.trim().is_empty() && !message.trim().contains('\n'),
        "not one sentence: {message:?}"
    );
}

/// The last line a refused command writes names all of `says`.
#[track_caller]
fn refuses(host: &Host, args: &[&str], says: &[&str]) {
    let message = host.ctl(args).failed();
    for word in says {
        assert!(
            message.contains(word),
            "{args:?}: no {word:?} in {message:?}"
        );
    }
    assert!(!message.contains("panicked"), "{message}");
}

fn names(host: &Host, path: &str) -> Vec<String> {
    let listed = host.api("GET", path, &[]).unwrap().json();
    let name = |row: &Value| {
        row["Name"]
            .as_str()
            .or(row["Names"][0].as_str())
            .unwrap_or_default()
            .to_owned()
    };
    listed.as_array().unwrap().iter().map(name).collect()
}

fn requests(lab: &Lab) {
    let (manager, one) = (lab.host("manager01"), lab.host("worker01"));
    for (host, path, status, says) in [
        (&one, "/volumes/x?version=1", 503, "swarm is unavailable"),
        (&manager, "/volumes/x?version=one", 400, "version 'one'"),
        (&manager, "/volumes/x?version=1", 404, "volume x not found"),
    ] {
        refused(host, "PUT", path, "{}", status, &[says]);
    }
    let before = names(&manager, "/networks");
    for body in ["{", "[]", "not json", "{\"Name\": 5}"] {
        refused(&manager, "POST", "/networks/create", body, 400, &[]);
        refused(&one, "POST", "/containers/create", body, 400, &[]);
    }
    refused(
        &manager,
        "POST",
        "/networks/create",
        r#"{"Name":"x","Driver":"carrier-pigeon"}"#,
        404,
        &["carrier-pigeon"],
    );
    refused(
        &manager,
        "POST",
        "/networks/create",
        r#"{"Driver":"overlay"}"#,
        400,
        &["name"],
    );
    refused(&one, "GET", "/containers/nobody/json", "", 404, &["nobody"]);
    refused(&one, "GET", "/nonsense", "", 404, &[]);
    refused(
        &one,
        "GET",
        "/containers/json?filters=%7B%22colour%22%3A%5B%22red%22%5D%7D",
        "",
        400,
        &["colour"],
    );
    refused(&one, "GET", "/v9.99/containers/json", "", 400, &["9.99"]);
    refused(&one, "GET", "/networks/nowhere", "", 404, &["nowhere"]);
    let body = json!({"Image": ECHO, "HostConfig": {"RestartPolicy": {"Name": "sometimes"}}});
    refused(
        &one,
        "POST",
        "/containers/create",
        &body.to_string(),
        400,
        &["sometimes"],
    );
    assert_eq!(
        names(&manager, "/networks"),
        before,
        "a refused request made a network"
    );
}

fn networks(lab: &Lab) {
    let manager = lab.host("manager01");
    let overlay = |name: &str, more: Value| {
        let mut body = json!({"Name": name, "Driver": "overlay", "Attachable": true});
        body["IPAM"] = json!({"Config": [more]});
        body.to_string()
    };
    let before = names(&manager, "/networks");
    let create = "/networks/create";
    let rows: [(String, u16, &[&str]); 7] = [
        (overlay("ch03", json!({})), 409, &["ch03", "already exists"]),
        (
            overlay("a", json!({"Subnet": "10.77.0.0/25"})),
            403,
            &["10.77.0.0/25", "ch03"],
        ),
        (
            overlay("a", json!({"Subnet": "10.76.0.0/15"})),
            403,
            &["ch03"],
        ),
        // The underlay itself: every host has a route there.
        (
            overlay("a", json!({"Subnet": "192.168.77.0/24"})),
            403,
            &["192.168.77.0/24"],
        ),
        (
            overlay("a", json!({"Subnet": "10.5.0.0/33"})),
            400,
            &["10.5.0.0/33"],
        ),
        (
            overlay("a", json!({"Subnet": "10.5.0.0/24", "Gateway": "10.6.0.1"})),
            400,
            &["10.6.0.1"],
        ),
        (
            overlay(
                "a",
                json!({"Subnet": "10.5.0.0/24", "IPRange": "10.9.0.0/28"}),
            ),
            400,
            &["10.9.0.0/28"],
        ),
    ];
    for (body, status, says) in rows {
        refused(&manager, "POST", create, &body, status, says);
    }
    assert_eq!(
        names(&manager, "/networks"),
        before,
        "a refused network exists"
    );
    refused(
        &manager,
        "DELETE",
        "/networks/ingress-not",
        "",
        404,
        &["ingress-not"],
    );
    refused(&manager, "DELETE", "/networks/bridge", "", 403, &["bridge"]);
}

fn containers(lab: &Lab) {
    let (one, two) = (lab.host("worker01"), lab.host("worker02"));
    let run = |host: &Host, more: &[&str]| {
        let mut args = vec!["run", "-d"];
        args.extend(more);
        args.push(ECHO);
        host.ctl(&args)
    };
    run(
        &one,
        &["--name", "twin", "--network", "ch03", "--ip", "10.77.0.50"],
    )
    .ok();
    let before = names(&one, "/containers/json?all=1");
    for (more, says) in [
        (&["--name", "twin"][..], &["twin", "already in use"][..]),
        (&["--network", "nowhere"], &["nowhere", "not found"]),
        (&["--network", "closed"], &["closed", "attachable"]),
        (&["--network", "ch03", "--ip", "10.99.0.5"], &["10.99.0.5"]),
        (
            &["--network", "ch03", "--ip", "10.77.0.50"],
            &["10.77.0.50", "in use"],
        ),
        (&["--network", "ch03", "--ip", "10.77.0.1"], &["10.77.0.1"]),
        (&["--memory", "lots"], &["lots"]),
        (&["-v", "relative/path:/x"], &["relative/path"]),
    ] {
        let message = run(&one, more).failed();
        for word in says {
            assert!(
                message.contains(word),
                "run {more:?}: no {word:?} in {message:?}"
            );
        }
    }
    // A name's second use is 409, not 500.
    let body = json!({"Image": ECHO}).to_string();
    refused(
        &one,
        "POST",
        "/containers/create?name=twin",
        &body,
        409,
        &["twin"],
    );
    // What was refused after it was created stays as `created`, as Docker leaves it; nothing runs.
    let running = one.ctl(["ps", "--format", "{{.Names}}"]).ok();
    assert_eq!(running, "twin");
    for leftover in one
        .ctl(["ps", "-aq", "--filter", "status=created"])
        .ok()
        .lines()
    {
        one.ctl(["rm", leftover]).ok();
    }
    assert_eq!(names(&one, "/containers/json?all=1"), before);
    // The taken address was not lost, and another host may use the name: it answers both.
    run(&two, &["--name", "twin", "--network", "ch03"]).ok();
    let script = [
        "run",
        "--rm",
        "--network",
        "ch03",
        TOOLBOX,
        "dig",
        "+short",
        "twin",
    ];
    wait::until("both twins answer", LIMIT, || {
        let answer = lab.host("worker03").ctl(script).ok();
        (answer.lines().count() == 2).then_some(()).ok_or(answer)
    });
    one.ctl(["rm", "-f", "twin"]).ok();
    two.ctl(["rm", "-f", "twin"]).ok();
}

fn images(lab: &Lab) {
    let one = lab.host("worker01");
    refuses(
        &one,
        &["pull", "registry:5000/example/nothing"],
        &["registry:5000/example/nothing", "not found"],
    );
    refuses(
        &one,
        &["pull", "registry:5000/example/echo:nothing"],
        &["nothing", "not found"],
    );
    refuses(
        &one,
        &["pull", "registry:5000/Example/echo"],
        &["invalid reference format"],
    );
    refuses(&one, &["image", "rm", "nothing"], &["nothing"]);
    refuses(
        &one,
        &["run", "--rm", "registry:5000/example/nothing"],
        &["registry:5000/example/nothing"],
    );
    refuses(
        &one,
        &["run", "--rm", TOOLBOX, "no-such-program"],
        &["no-such-program"],
    );
    assert_eq!(
        one.ctl(["run", "--rm", TOOLBOX, "no-such-program"]).status,
        127
    );
    assert_eq!(
        one.ctl(["ps", "-aq"]).ok(),
        "",
        "a failed run left its container"
    );
}

fn a_registry_that_is_down_or_speaks_tls(lab: &Lab) {
    let (registry, client, one) = (
        lab.host("registry"),
        lab.host("client"),
        lab.host("worker03"),
    );
    registry.stop_registry().unwrap();
    refuses(&one, &["pull", ECHO], &["registry:5000", "refused"]);
    registry.start_registry().unwrap();
    one.ctl(["pull", ECHO]).ok();
    // Plain HTTP where it was not allowed: says which setting allows it.
    let address = registry.member().address();
    refuses(
        &one,
        &["pull", &format!("{address}:5000/example/echo")],
        &["insecure-registry"],
    );
    // A certificate that nobody vouches for.
    let folder = client.dir();
    let path = |file: &str| folder.join(file).display().to_string();
    let (key, cert) = (path("key.pem"), path("cert.pem"));
    client
        .exec([
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=client",
            "-keyout",
            &key,
            "-out",
            &cert,
        ])
        .ok();
    let mut server = Command::new("openssl");
    server.args([
        "s_server", "-accept", "5443", "-www", "-key", &key, "-cert", &cert,
    ]);
    server
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut server = client.spawn(server).unwrap();
    let message = wait::until("the certificate is refused", LIMIT, || {
        let message = one.ctl(["pull", "client:5443/example/echo"]).failed();
        if message.contains("refused") {
            Err(message)
        } else {
            Ok(message)
        }
    });
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(
        message.contains("client:5443") && message.contains("certificate"),
        "{message}"
    );
}

/// The largest blob of the registry is the toolbox's layer of programs.
fn largest_blob(lab: &Lab) -> PathBuf {
    let root = lab
        .host("registry")
        .dir()
        .join("data/docker/registry/v2/blobs/sha256");
    let mut blobs = Vec::new();
    for prefix in fs::read_dir(root).unwrap() {
        for blob in fs::read_dir(prefix.unwrap().path()).unwrap() {
            let data = blob.unwrap().path().join("data");
            blobs.push((fs::metadata(&data).unwrap().len(), data));
        }
    }
    blobs.into_iter().max().unwrap().1
}

fn a_corrupt_layer(lab: &Lab) {
    let host = lab.host("manager01");
    let blob = largest_blob(lab);
    let good = fs::read(&blob).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 0xff;
    fs::write(&blob, &bad).unwrap();
    refuses(&host, &["pull", TOOLBOX], &["digest"]);
    assert!(
        !host.ctl(["image", "ls"]).ok().contains("toolbox"),
        "half an image is listed"
    );
    fs::write(&blob, &good).unwrap();
    host.ctl(["pull", TOOLBOX]).ok();
}

fn joining(lab: &Lab) {
    let (manager, three) = (lab.host("manager01"), lab.host("worker03"));
    let remote = format!("{}:2377", manager.member().address());
    let token = manager.ctl(["swarm", "join-token", "-q", "worker"]).ok();
    refuses(
        &three,
        &["swarm", "join", "--token", &token, &remote],
        &["already part of a swarm"],
    );
    three.ctl(["swarm", "leave"]).ok();
    // Another digit in the secret, then in the CA's digest.
    let mut wrong = token.clone();
    let last = if wrong.ends_with('a') { 'b' } else { 'a' };
    wrong.pop();
    wrong.push(last);
    refuses(
        &three,
        &["swarm", "join", "--token", &wrong, &remote],
        &["token"],
    );
    refuses(
        &three,
        &["swarm", "join", "--token", "SWMTKN-1-x-y", &remote],
        &["token"],
    );
    let rotated = manager
        .ctl(["swarm", "join-token", "-q", "--rotate", "worker"])
        .ok();
    refuses(
        &three,
        &["swarm", "join", "--token", &token, &remote],
        &["token"],
    );
    // A token of another cluster: its CA is not this manager's.
    three
        .ctl([
            "swarm",
            "init",
            "--advertise-addr",
            &three.member().address().to_string(),
        ])
        .ok();
    let foreign = three.ctl(["swarm", "join-token", "-q", "worker"]).ok();
    three.ctl(["swarm", "leave", "--force"]).ok();
    refuses(
        &three,
        &["swarm", "join", "--token", &foreign, &remote],
        &["root certificate"],
    );
    // Nobody there: said within the time a user waits.
    let start = Instant::now();
    refuses(
        &three,
        &["swarm", "join", "--token", &rotated, "192.168.77.250:2377"],
        &["192.168.77.250:2377"],
    );
    assert!(
        start.elapsed() < Duration::from_secs(25),
        "took {:?}",
        start.elapsed()
    );
    // Nothing half made: the right token still works, and the name is there once and ready.
    three
        .ctl(["swarm", "join", "--token", &rotated, &remote])
        .ok();
    wait::until("worker03 is ready again", LIMIT, || {
        let listed = manager
            .ctl(["node", "ls", "--format", "{{.Hostname}} {{.Status}}"])
            .ok();
        let ready = listed
            .lines()
            .filter(|line| *line == "worker03 Ready")
            .count();
        (ready == 1).then_some(()).ok_or(listed)
    });
}
