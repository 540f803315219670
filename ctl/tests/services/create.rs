//! `service create`: flags to bodies, refusals, the progress in a pipe.

use serde_json::{Value, json};

use super::fake::{Fake, Reply};
use super::{ID, body, cluster, ok};

async fn create(fake: &Fake, flags: &str) -> super::fake::Done {
    let mut words = vec!["service", "create", "-d", "--no-resolve-image"];
    words.extend(flags.split_whitespace());
    words.push("a:1");
    fake.ctl(&words, "").await
}

#[tokio::test]
async fn the_users_own_service() {
    let fake = cluster(Value::Null);
    let words = "service create --replicas 1 --publish 8000:8080 --name echo registry:5000/example/echo:latest";
    let words: Vec<&str> = words.split_whitespace().collect();
    let done = fake.ctl(&words, "").await;
    assert_eq!((done.status, done.err.as_str()), (0, "careful\n"));
    assert_eq!(
        done.out.lines().collect::<Vec<_>>(),
        [
            ID,
            "overall progress: 0 out of 2 tasks",
            "1/2:  ",
            "2/2:  ",
            "overall progress: 1 out of 2 tasks",
            "overall progress: 2 out of 2 tasks",
            "verify: Waiting 1 seconds to verify that tasks are stable...",
            "verify: Service svc1svc1svc1svc1svc1svc1s converged",
        ]
    );
    assert_eq!(
        fake.lines()[..4],
        [
            "GET /distribution/registry:5000/example/echo:latest/json".to_owned(),
            "POST /services/create".to_owned(),
            format!("GET /services/{ID}?insertDefaults=false"),
            format!(
                "GET /tasks?filters=%7B%22_up-to-date%22%3A%7B%22true%22%3Atrue%7D%2C%22service%22%3A%7B%22{ID}%22%3Atrue%7D%7D"
            ),
        ]
    );
    let spec = body(&fake, "POST /services/create");
    let digest = "ab".repeat(32);
    assert_eq!(
        spec,
        json!({
            "Name": "echo", "Labels": {},
            "TaskTemplate": {
                "ContainerSpec": {"Image": format!("registry:5000/example/echo:latest@sha256:{digest}"), "Init": false, "DNSConfig": {}},
                "Resources": {"Limits": {}, "Reservations": {}},
                "Placement": {"Platforms": [{"Architecture": "amd64", "OS": "linux"}]},
                "ForceUpdate": 0,
            },
            "Mode": {"Replicated": {"Replicas": 1}},
            "EndpointSpec": {"Mode": "vip", "Ports": [{"Protocol": "tcp", "TargetPort": 8080, "PublishedPort": 8000, "PublishMode": "ingress"}]},
        })
    );
}

/// The wanted body is what Docker's client 28.2.2 sends for the same flags, and our labels.
#[tokio::test]
async fn every_flag() {
    let fake = cluster(Value::Null);
    let flags = "--name full -e A=1 --env B -e A=2 -l x=y --container-label c=d --hostname h -u me --group g -t \
        --read-only --init --stop-signal TERM --stop-grace-period 5s --mount type=volume,source=v,target=/d,volume-opt=a=b \
        --mount type=tmpfs,target=/t,tmpfs-size=1m --secret pw --secret source=pw2,target=/x/y,uid=5,mode=0400 --config cf \
        --network name=n2,alias=z --network ch03 --endpoint-mode dnsrr --publish mode=host,target=80,published=81 --limit-cpu .5 \
        --limit-memory 64m --limit-pids 7 --reserve-cpu 0.25 --reserve-memory 32m --generic-resource GPU=2 \
        --constraint node.role==worker --placement-pref spread=node.labels.dc --replicas-max-per-node 2 \
        --restart-condition on-failure --restart-delay 1s --restart-max-attempts 3 --restart-window 2m --update-parallelism 2 \
        --update-delay 1s --update-monitor 3s --update-failure-action rollback --update-max-failure-ratio .1 \
        --update-order start-first --rollback-parallelism 0 --dns 1.1.1.1 --dns-option ndots:1 --dns-search x.y \
        --host a:10.0.0.1 --log-driver local --log-opt max-size=1m --health-cmd true --health-interval 2s --health-retries 3 \
        --health-timeout 1s --health-start-period 1s --health-start-interval 1s --cap-add net_admin --cap-drop ALL \
        --sysctl net.x=1 --ulimit nofile=1:2 --oom-score-adj 5 -w /w --drain-timeout 30s --update-progress-deadline 5m \
        --rebalance --rebalance-max-moves 2 --depends-on db:healthy --depends-on cache";
    let mut words = vec!["service", "create", "-d", "--no-resolve-image"];
    words.extend(flags.split_whitespace());
    words.extend(["--entrypoint", "sh -c \"a b\"", "a:1", "cmd", "-x"]);
    let done = fake.ctl(&words, "").await;
    assert_eq!(
        (done.status, done.out),
        (0, format!("{ID}\n")),
        "{}",
        done.err
    );
    assert_eq!(
        fake.lines(),
        [
            "GET /networks/n2?scope=swarm",
            "GET /networks/ch03?scope=swarm",
            "GET /secrets?filters=%7B%22name%22%3A%7B%22pw%22%3Atrue%2C%22pw2%22%3Atrue%7D%7D",
            "GET /configs?filters=%7B%22name%22%3A%7B%22cf%22%3Atrue%7D%7D",
            "POST /services/create",
        ]
    );
    let wanted: Value = serde_json::from_str(include_str!("every_flag.json")).unwrap();
    assert_eq!(body(&fake, "POST /services/create"), wanted);
}

#[tokio::test]
async fn modes_and_refusals() {
    let cases = [
        ("", Ok(json!({"Replicated": {}}))),
        ("--replicas 0", Ok(json!({"Replicated": {"Replicas": 0}}))),
        ("--mode global", Ok(json!({"Global": {}}))),
        (
            "--mode replicated-job --replicas 5 --max-concurrent 2",
            Ok(json!({"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 5}})),
        ),
        (
            "--mode replicated-job --replicas 5",
            Ok(json!({"ReplicatedJob": {"MaxConcurrent": 5, "TotalCompletions": 5}})),
        ),
        ("--mode global-job", Ok(json!({"GlobalJob": {}}))),
        (
            "--mode globl",
            Err(
                "Unknown mode: globl, only replicated, global, replicated-job and global-job supported",
            ),
        ),
        (
            "--mode global --replicas 2",
            Err("replicas can only be used with replicated or replicated-job mode"),
        ),
        (
            "--mode global --replicas-max-per-node 2",
            Err("replicas-max-per-node can only be used with replicated or replicated-job mode"),
        ),
        (
            "--max-concurrent 2",
            Err("max-concurrent can only be used with replicated-job mode"),
        ),
        (
            "--mode global-job --update-delay 1s",
            Err("update and rollback configuration is not supported for jobs"),
        ),
        (
            "--no-healthcheck --health-cmd x",
            Err("--no-healthcheck conflicts with --health-* options"),
        ),
        (
            "--secret nope",
            Err("secret not found: nope: make it with ovnctl secret create"),
        ),
        (
            "--secret pw --secret pw",
            Err("duplicate secret target for pw not allowed"),
        ),
        (
            "--network ch99",
            Err("Error response from daemon: no GET /networks/ch99"),
        ),
        (
            "--credential-spec file://x",
            Err(
                "--credential-spec: credential specs are for Windows containers and the hosts here run Linux: leave the flag out",
            ),
        ),
    ];
    for (flags, wanted) in cases {
        let fake = cluster(Value::Null);
        let done = create(&fake, flags).await;
        match wanted {
            Ok(mode) => {
                assert_eq!(done.status, 0, "{flags}: {}", done.err);
                assert_eq!(
                    body(&fake, "POST /services/create")["Mode"],
                    mode,
                    "{flags}"
                );
            }
            Err(message) => {
                assert_eq!(
                    (done.status, done.err),
                    (1, format!("{message}\n")),
                    "{flags}"
                );
                let sent = fake.lines().iter().any(|line| line.starts_with("POST"));
                assert!(!sent, "{flags}");
            }
        }
    }
}

#[tokio::test]
async fn flags_that_cannot_be_read_end_with_125() {
    let cases = [
        ("--publish 127.0.0.1:80:80", "hostip is not supported"),
        (
            "--publish published=1,target=x",
            "invalid target port (x): value must be an integer",
        ),
        (
            "--placement-pref foo",
            "placement preference must be of the format \"<strategy>=<arg>\"",
        ),
        ("--restart-delay foo", "--restart-delay"),
        ("--limit-cpu foo", "--limit-cpu"),
        (
            "--generic-resource GPU",
            "invalid generic-resource format `GPU` expected `name=value`",
        ),
        ("--host foo", "bad format for add-host"),
        ("--label =x", "invalid label '=x': empty name"),
        ("--replicas x", "--replicas"),
        ("--depends-on db:ready", "use started, healthy or completed"),
        ("--bogus", "--bogus"),
    ];
    for (flags, message) in cases {
        let fake = cluster(Value::Null);
        let done = create(&fake, flags).await;
        assert_eq!(done.status, 125, "{flags}: {}", done.err);
        assert!(done.err.contains(message), "{flags}: {}", done.err);
        assert!(fake.lines().is_empty(), "{flags}");
    }
}

#[tokio::test]
async fn an_image_no_registry_knows_is_sent_by_its_tag() {
    let fake = Fake::start(|asked, _| match asked.line.as_str() {
        "POST /services/create" => Reply::Json(201, json!({"ID": ID})),
        other => Reply::Json(404, json!({"message": other})),
    });
    let done = fake.ctl(&["service", "create", "-d", "mine"], "").await;
    assert_eq!((done.status, done.out), (0, format!("{ID}\n")));
    assert!(
        done.err.starts_with(
            "image mine:latest could not be accessed on a registry to record\nits digest."
        ),
        "{}",
        done.err
    );
    let spec = body(&fake, "POST /services/create");
    assert_eq!(
        spec["TaskTemplate"]["ContainerSpec"]["Image"],
        "mine:latest"
    );
}

#[tokio::test]
async fn a_dry_run_says_where_tasks_would_go() {
    let fake = Fake::start(|asked, _| match asked.line.as_str() {
        "POST /services/create?dryRun=1" => ok(json!({
            "Assignments": [{"Slot": 1, "NodeID": "n1", "Hostname": "worker01"}],
            "Unplaced": [{"Count": 2, "Reason": "no suitable node (insufficient resources on 3 nodes)"}]})),
        other => Reply::Json(404, json!({"message": other})),
    });
    let done = create(&fake, "--dry-run --replicas 3").await;
    assert_eq!(
        (done.status, done.out.as_str()),
        (
            0,
            "SLOT      NODE       NODE ID\n1         worker01   n1\n2 tasks would wait: no suitable node (insufficient resources on 3 nodes)\n"
        )
    );
}
