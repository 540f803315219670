//! Whole commands against a fake daemon: what is asked, what is printed, how it ends.

mod fake;

use fake::{Fake, Reply, frame};
use serde_json::{Value, json};

fn ok(value: Value) -> Reply {
    Reply::Json(200, value)
}

fn missing(message: &str) -> Reply {
    Reply::Json(404, json!({"message": message}))
}

/// A daemon with a container `c1` that writes to both streams and ends with `status`.
fn container(status: i32) -> Fake {
    Fake::start(
        move |asked, _| match asked.line.split('?').next().unwrap_or_default() {
            "POST /containers/create" => {
                Reply::Json(201, json!({"Id": "c1", "Warnings": ["no swap limit"]}))
            }
            "POST /containers/c1/attach" => {
                let bytes = [frame(1, b"out\n"), frame(2, b"err\n")].concat();
                Reply::Hijack {
                    bytes,
                    echoes: asked.line.contains("stdin=1"),
                }
            }
            "POST /containers/c1/wait" => Reply::AfterStart(json!({"StatusCode": status})),
            "POST /containers/c1/start" => Reply::Json(204, Value::Null),
            other => missing(&format!("unexpected {other}")),
        },
    )
}

#[tokio::test]
async fn run_in_the_foreground_asks_in_dockers_order() {
    let fake = container(3);
    let done = fake
        .ctl(
            &[
                "run",
                "--rm",
                "--network",
                "ch03",
                "toolbox",
                "wget",
                "-qO-",
                "http://api:8080",
            ],
            "",
        )
        .await;
    assert_eq!(
        (done.status, done.out.as_str(), done.err.as_str()),
        (3, "out\n", "WARNING: no swap limit\nerr\n")
    );
    assert_eq!(
        fake.lines(),
        [
            "POST /containers/create",
            "POST /containers/c1/attach?stream=1&stdout=1&stderr=1",
            "POST /containers/c1/wait?condition=removed",
            "POST /containers/c1/start",
        ]
    );
    let body = &fake.asked()[0].body;
    assert_eq!(body["Cmd"], json!(["wget", "-qO-", "http://api:8080"]));
    assert_eq!(body["HostConfig"]["NetworkMode"], "ch03");
    assert_eq!(body["HostConfig"]["AutoRemove"], true);
    assert_eq!(body["NetworkingConfig"], json!({"EndpointsConfig": {}}));
}

#[tokio::test]
async fn run_passes_standard_input_and_its_end() {
    let fake = container(0);
    let done = fake
        .ctl(&["run", "-i", "toolbox", "cat"], "typed text")
        .await;
    assert_eq!((done.status, done.out.as_str()), (0, "out\ntyped text"));
    assert_eq!(fake.asked()[0].body["StdinOnce"], true);
}

#[tokio::test]
async fn run_in_the_background_prints_the_id() {
    let fake = container(0);
    let done = fake
        .ctl(
            &["run", "-d", "--name", "api", "--cidfile", "cid", "echo"],
            "",
        )
        .await;
    assert_eq!((done.status, done.out.as_str()), (0, "c1\n"));
    assert_eq!(
        fake.lines(),
        [
            "POST /containers/create?name=api",
            "POST /containers/c1/start"
        ]
    );
    assert_eq!(
        std::fs::read_to_string(fake.folder().join("cid")).unwrap(),
        "c1"
    );
    let again = fake
        .ctl(&["run", "-d", "--cidfile", "cid", "echo"], "")
        .await;
    assert_eq!(again.status, 125);
    assert!(again.err.contains("exists already"), "{}", again.err);
}

#[tokio::test]
async fn a_missing_image_is_pulled_and_the_run_goes_on() {
    let fake =
        Fake::start(
            |asked, before| match asked.line.split('?').next().unwrap_or_default() {
                "POST /containers/create" if before == 0 => {
                    missing("No such image: registry:5000/example/echo:v1")
                }
                "POST /containers/create" => Reply::Json(201, json!({"Id": "c1", "Warnings": []})),
                "POST /images/create" => Reply::Chunks(vec![
                b"{\"status\":\"Pulling from example/echo\",\"id\":\"v1\"}\n{\"status\":\"Downlo"
                    .to_vec(),
                b"ading\",\"progressDetail\":{\"current\":1,\"total\":2},\"id\":\"ab\"}\n".to_vec(),
                b"{\"status\":\"Pull complete\",\"id\":\"ab\"}".to_vec(),
            ]),
                "POST /containers/c1/start" => Reply::Json(204, Value::Null),
                other => missing(other),
            },
        );
    let done = fake
        .ctl(&["run", "-d", "registry:5000/example/echo:v1"], "")
        .await;
    assert_eq!((done.status, done.out.as_str()), (0, "c1\n"));
    assert_eq!(
        done.err,
        "Unable to find image 'registry:5000/example/echo:v1' locally\nv1: Pulling from example/echo\nab: Pull complete\n"
    );
    assert_eq!(
        fake.lines()[1],
        "POST /images/create?fromImage=registry%3A5000%2Fexample%2Fecho&tag=v1"
    );
}

#[tokio::test]
async fn a_run_that_cannot_be_ends_with_125_126_127() {
    let cases = [
        (Some("network ch99 not found"), None, 125),
        (
            None,
            Some("exec: \"nope\": executable file not found in $PATH"),
            127,
        ),
        (None, Some("exec /etc/passwd: permission denied"), 126),
        (None, Some("no address is left in ch03"), 125),
    ];
    for (create, start, status) in cases {
        let fake = Fake::start(move |asked, _| match asked.line.as_str() {
            "POST /containers/create" => match create {
                Some(message) => missing(message),
                None => Reply::Json(201, json!({"Id": "c1", "Warnings": []})),
            },
            _ => Reply::Json(500, json!({"message": start})),
        });
        let done = fake.ctl(&["run", "-d", "echo"], "").await;
        assert_eq!(done.status, status, "{}", done.err);
        let message = create.or(start).unwrap();
        assert!(
            done.err
                .starts_with(&format!("ovnctl: Error response from daemon: {message}")),
            "{}",
            done.err
        );
    }
}

#[tokio::test]
async fn exec_prints_both_streams_and_ends_with_the_commands_status() {
    let fake = Fake::start(|asked, _| match asked.line.as_str() {
        "GET /containers/api/json" => ok(json!({"Id": "c1"})),
        "POST /containers/api/exec" => Reply::Json(201, json!({"Id": "e1"})),
        "POST /exec/e1/start" => Reply::Hijack {
            bytes: [frame(1, b"a"), frame(2, b"b"), frame(1, b"c")].concat(),
            echoes: false,
        },
        "GET /exec/e1/json" => ok(json!({"ExitCode": 7})),
        other => missing(other),
    });
    let done = fake
        .ctl(&["exec", "-e", "X=1", "api", "ls", "-l", "--color"], "")
        .await;
    assert_eq!(
        (done.status, done.out.as_str(), done.err.as_str()),
        (7, "ac", "b")
    );
    assert_eq!(
        fake.lines(),
        [
            "GET /containers/api/json",
            "POST /containers/api/exec",
            "POST /exec/e1/start",
            "GET /exec/e1/json"
        ]
    );
    assert_eq!(fake.asked()[1].body["Cmd"], json!(["ls", "-l", "--color"]));
}

#[tokio::test]
async fn logs_are_cut_into_their_streams() {
    let fake = Fake::start(
        |asked, _| match asked.line.split('?').next().unwrap_or_default() {
            "GET /containers/api/json" => ok(json!({"Id": "c1", "Config": {"Tty": false}})),
            "GET /containers/c1/logs" => {
                let bytes = [frame(1, b"one\n"), frame(2, b"two\n")].concat();
                Reply::Chunks(bytes.chunks(3).map(<[u8]>::to_vec).collect())
            }
            other => missing(other),
        },
    );
    let done = fake.ctl(&["logs", "-f", "--tail", "5", "api"], "").await;
    assert_eq!(
        (done.status, done.out.as_str(), done.err.as_str()),
        (0, "one\n", "two\n")
    );
    assert_eq!(
        fake.lines()[1],
        "GET /containers/c1/logs?follow=1&stderr=1&stdout=1&tail=5"
    );
}

#[tokio::test]
async fn swarm_init_and_join() {
    let fake = Fake::start(|asked, _| match asked.line.as_str() {
        "POST /swarm/init" => ok(json!("node1")),
        "GET /nodes/node1" => {
            ok(json!({"ID": "node1", "ManagerStatus": {"Addr": "10.1.0.1:2377"}}))
        }
        "GET /swarm" => ok(
            json!({"JoinTokens": {"Worker": "SWMTKN-1-w", "Manager": "SWMTKN-1-m"}, "Version": {"Index": 9}, "Spec": {"Name": "default"}}),
        ),
        "POST /swarm/join" => ok(Value::Null),
        "GET /info" => ok(json!({"Swarm": {"NodeID": "node1", "ControlAvailable": false}})),
        line if line.starts_with("POST /swarm/update") => ok(Value::Null),
        other => missing(other),
    });
    let done = fake
        .ctl(
            &[
                "swarm",
                "init",
                "--advertise-addr",
                "10.1.0.1",
                "--default-addr-pool",
                "10.20.0.0/16",
            ],
            "",
        )
        .await;
    assert_eq!(done.status, 0, "{}", done.err);
    insta::assert_snapshot!(done.out, @r"
    Swarm initialized: current node (node1) is now a manager.

    To add a worker to this swarm, run the following command:

        ovnctl swarm join --token SWMTKN-1-w 10.1.0.1:2377

    To add a manager to this swarm, run 'ovnctl swarm join-token manager' and follow the instructions.
    ");
    assert_eq!(
        fake.lines(),
        ["POST /swarm/init", "GET /nodes/node1", "GET /swarm"]
    );
    let body = &fake.asked()[0].body;
    assert_eq!(body["ListenAddr"], "0.0.0.0:2377");
    assert_eq!(
        (&body["SubnetSize"], &body["DefaultAddrPool"]),
        (&json!(24), &json!(["10.20.0.0/16"]))
    );
    let joined = fake
        .ctl(
            &["swarm", "join", "--token", "SWMTKN-1-w", "10.1.0.1:2377"],
            "",
        )
        .await;
    assert_eq!(joined.out, "This node joined a swarm as a worker.\n");
    let token = fake
        .ctl(&["swarm", "join-token", "-q", "--rotate", "manager"], "")
        .await;
    assert_eq!(token.out, "SWMTKN-1-m\n");
    let update = "POST /swarm/update?version=9&rotateWorkerToken=false&rotateManagerToken=true&rotateManagerUnlockKey=false";
    assert!(
        fake.lines().contains(&update.to_owned()),
        "{:?}",
        fake.lines()
    );
}

#[tokio::test]
async fn network_create_and_rm() {
    let fake = Fake::start(|asked, _| match asked.line.as_str() {
        "POST /networks/create" => Reply::Json(201, json!({"Id": "n1", "Warning": ""})),
        "GET /networks/ch03" | "GET /networks/used" => ok(json!({"Id": "n1"})),
        "DELETE /networks/ch03" => Reply::Json(204, Value::Null),
        "DELETE /networks/used" => {
            Reply::Json(403, json!({"message": "network used is in use by api"}))
        }
        other => missing(other),
    });
    let done = fake
        .ctl(
            &[
                "network",
                "create",
                "--driver=overlay",
                "--attachable",
                "ch03",
            ],
            "",
        )
        .await;
    assert_eq!((done.status, done.out.as_str()), (0, "n1\n"));
    insta::assert_json_snapshot!(fake.asked()[0].body, @r#"
    {
      "Name": "ch03",
      "Driver": "overlay",
      "Scope": "",
      "IPAM": {
        "Driver": "default",
        "Options": {},
        "Config": []
      },
      "Internal": false,
      "Attachable": true,
      "Ingress": false,
      "ConfigOnly": false,
      "ConfigFrom": null,
      "Options": {},
      "Labels": {}
    }
    "#);
    let done = fake
        .ctl(&["network", "rm", "ch03", "used", "gone"], "")
        .await;
    assert_eq!((done.status, done.out.as_str()), (1, "ch03\n"));
    assert_eq!(
        done.err,
        "Error response from daemon: network used is in use by api\nError response from daemon: GET /networks/gone\n"
    );
}

#[tokio::test]
async fn pull_fails_with_the_error_in_the_stream_and_sends_credentials() {
    let fake = Fake::start(|_, _| {
        Reply::Chunks(vec![
            br#"{"status":"Pulling"}{"errorDetail":{"message":"manifest unknown"},"error":"x"}"#
                .to_vec(),
        ])
    });
    std::fs::write(
        fake.folder().join("config.json"),
        r#"{"auths":{"registry:5000":{"auth":"bWU6cHc="}}}"#,
    )
    .unwrap();
    let done = fake.ctl(&["pull", "registry:5000/a/b:v1"], "").await;
    assert_eq!(
        (done.status, done.out.as_str(), done.err.as_str()),
        (1, "Pulling\n", "manifest unknown\n")
    );
    assert!(fake.asked()[0].auth.is_some());
}

#[tokio::test]
async fn inspect_tries_the_kinds_in_order() {
    let fake = Fake::start(|asked, _| match asked.line.as_str() {
        "GET /networks/ch03" => ok(json!({"Name": "ch03", "Labels": {"b": "2", "a": "1"}})),
        "GET /info" => ok(json!({"Swarm": {"ControlAvailable": false}})),
        other => missing(other),
    });
    let done = fake
        .ctl(
            &[
                "inspect",
                "-f",
                "{{range $k, $v := .Labels}}{{$k}}={{$v}} {{end}}",
                "ch03",
            ],
            "",
        )
        .await;
    assert_eq!((done.status, done.out.as_str()), (0, "a=1 b=2 \n"));
    assert_eq!(
        fake.lines(),
        [
            "GET /containers/ch03/json",
            "GET /images/ch03/json",
            "GET /networks/ch03"
        ]
    );
    let done = fake.ctl(&["inspect", "nothing"], "").await;
    assert_eq!(
        (done.status, done.out.as_str(), done.err.as_str()),
        (1, "[]\n", "No such object: nothing\n")
    );
    let done = fake
        .ctl(&["network", "inspect", "-f", "{{.Nmae}}", "ch03"], "")
        .await;
    assert_eq!(
        (done.status, done.err.as_str()),
        (
            1,
            "template error: .Nmae: there is no field \"Nmae\"; there are Labels, Name\n"
        )
    );
}

#[tokio::test]
async fn flags_may_be_written_as_go_allows() {
    let fake = container(0);
    let done = fake
        .ctl(
            &[
                "run",
                "-d",
                "--rm=false",
                "--init=true",
                "--name",
                "a",
                "--name=b",
                "--pids-limit",
                "-1",
                "-eA=1",
                "echo",
                "-h",
                "--rm",
            ],
            "",
        )
        .await;
    assert_eq!(done.status, 0, "{}", done.err);
    let asked = &fake.asked()[0];
    assert_eq!(asked.line, "POST /containers/create?name=b");
    assert_eq!(asked.body["Cmd"], json!(["-h", "--rm"]));
    assert_eq!(asked.body["Env"], json!(["A=1"]));
    let host = &asked.body["HostConfig"];
    assert_eq!(
        (&host["AutoRemove"], &host["Init"], &host["PidsLimit"]),
        (&json!(false), &json!(true), &json!(-1))
    );
}

#[tokio::test]
async fn wrong_command_lines_and_help() {
    let fake = Fake::start(|asked, _| missing(&asked.line));
    let cases: [(&[&str], i32); 6] = [
        (&["run", "--bogus", "x"], 125),
        (&["ps", "--bogus"], 125),
        (&["frob"], 1),
        (&["rm"], 1),
        (&["--help"], 0),
        (&["run", "--help"], 0),
    ];
    for (words, status) in cases {
        assert_eq!(fake.ctl(words, "").await.status, status, "{words:?}");
    }
    let help = fake.ctl(&["run", "--help"], "").await.out;
    assert!(
        help.contains("--hostname") && help.contains("Examples:") && !help.contains("--rm[="),
        "{help}"
    );
    let overview = fake.ctl(&["--help"], "").await.out;
    assert!(
        overview.contains("Common Commands") && overview.contains("network "),
        "{overview}"
    );
}

#[tokio::test]
async fn a_daemon_that_is_not_there() {
    let fake = Fake::start(|asked, _| missing(&asked.line));
    let done = fake
        .ctl(&["-H", "unix:///nonexistent/x.sock", "ps"], "")
        .await;
    assert_eq!(done.status, 1);
    assert!(done.err.contains("Is ovnd running?"), "{}", done.err);
    let done = fake
        .ctl(&["-H", "unix:///nonexistent/x.sock", "run", "echo"], "")
        .await;
    assert_eq!(done.status, 125);
}

#[tokio::test]
async fn one_failure_does_not_stop_the_others() {
    let fake = Fake::start(|asked, _| match asked.line.as_str() {
        "DELETE /containers/a?force=1" | "DELETE /containers/c?force=1" => {
            Reply::Json(204, Value::Null)
        }
        _ => Reply::Json(409, json!({"message": "b is busy"})),
    });
    let done = fake.ctl(&["rm", "-f", "a", "b", "c"], "").await;
    assert_eq!(
        (done.status, done.out.as_str(), done.err.as_str()),
        (1, "a\nc\n", "Error response from daemon: b is busy\n")
    );
}

#[tokio::test]
async fn visualizer_is_opened_where_it_is_not_and_its_address_is_printed() {
    let served = || json!({"Listen": "127.0.0.1:9080", "URL": "http://127.0.0.1:9080/"});
    let fake = Fake::start(move |asked, before| match asked.line.as_str() {
        "GET /overnet/visualizer" if before == 0 => ok(json!({"Listen": "", "URL": ""})),
        _ => ok(served()),
    });
    let done = fake.ctl(&["visualizer"], "").await;
    assert_eq!(
        (done.status, done.out.as_str()),
        (0, "http://127.0.0.1:9080/\n")
    );
    let done = fake.ctl(&["visualizer"], "").await;
    assert_eq!(done.out, "http://127.0.0.1:9080/\n");
    let done = fake.ctl(&["visualizer", "--listen", "0.0.0.0"], "").await;
    assert_eq!(done.status, 0);
    let done = fake.ctl(&["visualizer", "--stop"], "").await;
    assert_eq!(done.out, "The visualizer is served no longer.\n");
    assert_eq!(
        fake.lines(),
        [
            "GET /overnet/visualizer",
            "POST /overnet/visualizer",
            "GET /overnet/visualizer",
            "POST /overnet/visualizer",
            "DELETE /overnet/visualizer",
        ]
    );
    assert_eq!(fake.asked()[3].body, json!({"Listen": "0.0.0.0"}));
    let docker = Fake::start(|_, _| missing("page not found"));
    let done = docker.ctl(&["visualizer"], "").await;
    assert_eq!(done.status, 1);
    assert!(done.err.contains("it is ovnd that has one"), "{}", done.err);
}
