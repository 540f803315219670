//! `service update`, `scale`, `rollback`, `rebalance`: edits, calls, ends.

use serde_json::{Value, json};

use super::{ID, cluster, web};

#[tokio::test]
async fn an_update_sends_the_whole_specification() {
    let fake = cluster(Value::Null);
    let words = "service update -d --env-add C=3 --env-rm A --label-add b=2 --label-rm a --publish-add 9000:90 --publish-rm 80 \
        --mount-rm /d --secret-rm pw --secret-add pw2 --network-add n2 --force --limit-cpu 1 --restart-delay 2s \
        --update-order start-first web";
    let words: Vec<&str> = words.split_whitespace().collect();
    let done = fake.ctl(&words, "").await;
    assert_eq!(
        (done.status, done.out.as_str(), done.err.as_str()),
        (0, "web\n", "")
    );
    assert_eq!(
        fake.lines(),
        [
            "GET /services/web?insertDefaults=false".to_owned(),
            "GET /networks/n2?scope=swarm".to_owned(),
            "GET /secrets?filters=%7B%22name%22%3A%7B%22pw2%22%3Atrue%7D%7D".to_owned(),
            format!("POST /services/{ID}/update?registryAuthFrom=spec&version=7"),
        ]
    );
    let wanted: Value = serde_json::from_str(include_str!("update.json")).unwrap();
    assert_eq!(fake.asked()[3].body, wanted);
}

async fn edited(flags: &str) -> Value {
    let fake = cluster(Value::Null);
    let mut words = vec!["service", "update", "-d"];
    words.extend(flags.split_whitespace());
    words.push("web");
    let done = fake.ctl(&words, "").await;
    assert_eq!(done.status, 0, "{flags}: {}", done.err);
    fake.asked()
        .pop()
        .map(|asked| asked.body)
        .unwrap_or_default()
}

#[tokio::test]
async fn each_edit_changes_only_its_field() {
    assert_eq!(edited("").await, web(&Value::Null)["Spec"]);
    let resource = json!([{"DiscreteResourceSpec": {"Kind": "GPU", "Value": 1}}]);
    let cases = [
        ("--args x", "/ContainerSpec/Args", json!(["x"])),
        (
            "--host-add a:1.2.3.4",
            "/ContainerSpec/Hosts",
            json!(["1.2.3.4 a"]),
        ),
        (
            "--dns-add 1.1.1.1",
            "/ContainerSpec/DNSConfig",
            json!({"Nameservers": ["1.1.1.1"]}),
        ),
        ("--group-add g", "/ContainerSpec/Groups", json!(["g"])),
        (
            "--constraint-add node.role==worker",
            "/Placement/Constraints",
            json!(["node.role==worker"]),
        ),
        (
            "--placement-pref-add spread=a",
            "/Placement/Preferences/0/Spread/SpreadDescriptor",
            json!("a"),
        ),
        (
            "--sysctl-add a=b",
            "/ContainerSpec/Sysctls",
            json!({"a": "b"}),
        ),
        (
            "--ulimit-add nofile=3",
            "/ContainerSpec/Ulimits",
            json!([{"Name": "nofile", "Hard": 3, "Soft": 3}]),
        ),
        (
            "--generic-resource-add GPU=1",
            "/Resources/Reservations/GenericResources",
            resource,
        ),
        (
            "--container-label-add q=r",
            "/ContainerSpec/Labels",
            json!({"q": "r"}),
        ),
        (
            "--config-add cf",
            "/ContainerSpec/Configs/0/ConfigID",
            json!("cfg1"),
        ),
        (
            "--mount-add type=tmpfs,target=/e",
            "/ContainerSpec/Mounts/0/Target",
            json!("/e"),
        ),
        (
            "--replicas-max-per-node 3",
            "/Placement/MaxReplicas",
            json!(3),
        ),
        ("--tty", "/ContainerSpec/TTY", json!(true)),
        ("--tty=false", "/ContainerSpec/TTY", Value::Null),
        ("--init=false", "/ContainerSpec/Init", json!(false)),
        ("--env-add A=9", "/ContainerSpec/Env", json!(["A=9", "B=2"])),
        ("--network-rm ch03", "/Networks", Value::Null),
        ("--force", "/ForceUpdate", json!(1)),
        (
            "--no-healthcheck",
            "/ContainerSpec/Healthcheck",
            json!({"Test": ["NONE"]}),
        ),
        (
            "--env-rm NO --label-rm NO --secret-rm NO --mount-rm NO",
            "/ContainerSpec/Env",
            json!(["A=1", "B=2"]),
        ),
    ];
    for (flags, pointer, wanted) in cases {
        let spec = edited(flags).await;
        let found = spec["TaskTemplate"].pointer(pointer).cloned();
        assert_eq!(found.unwrap_or_default(), wanted, "{flags}");
        assert_eq!(spec["Labels"]["overnet.drain-timeout"], "9s", "{flags}");
        assert_eq!(
            spec["TaskTemplate"]["SomethingNew"]["kept"], true,
            "{flags}"
        );
    }
    assert_eq!(
        edited("--replicas 0").await["Mode"]["Replicated"]["Replicas"],
        0
    );
}

#[tokio::test]
async fn images_credentials_scale_and_rollback() {
    let read = "GET /services/web?insertDefaults=false";
    let post = |query: &str| format!("POST /services/{ID}/update?{query}version=7");
    let cases = [
        (
            "service update -d --image b:2 --with-registry-auth web",
            vec![
                read.to_owned(),
                "GET /distribution/b:2/json".to_owned(),
                post(""),
            ],
            "web\n",
        ),
        (
            "service scale -d web=3",
            vec![read.to_owned(), post("")],
            "web scaled to 3\n",
        ),
        (
            "service rollback -d web",
            vec![read.to_owned(), post("rollback=previous&")],
            "web\n",
        ),
        (
            "service update -d --rollback web",
            vec![
                read.to_owned(),
                post("registryAuthFrom=spec&rollback=previous&"),
            ],
            "web\n",
        ),
        (
            "service rebalance web",
            vec!["POST /services/web/rebalance".to_owned()],
            "web: nothing to move\n",
        ),
    ];
    for (words, calls, out) in cases {
        let fake = cluster(Value::Null);
        let words: Vec<&str> = words.split_whitespace().collect();
        let done = fake.ctl(&words, "").await;
        assert_eq!(
            (done.status, done.out.as_str()),
            (0, out),
            "{words:?}: {}",
            done.err
        );
        assert_eq!(fake.lines(), calls, "{words:?}");
        let with_auth = fake.asked().iter().filter(|a| a.auth.is_some()).count();
        let wanted = if words.contains(&"--with-registry-auth") {
            2
        } else {
            0
        };
        assert_eq!(with_auth, wanted, "{words:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_done_is_told_and_the_rest_done() {
    let cases = [
        (
            "scale -d web=3 web=x gone=1",
            "web scaled to 3\n",
            "web: invalid replicas value x: it must be a whole number\ngone: Error response from daemon: no GET /services/gone\n",
        ),
        (
            "update --rollback --force web",
            "",
            "other flags may not be combined with --rollback\n",
        ),
        (
            "update --network-add ch03 web",
            "",
            "service is already attached to network ch03\n",
        ),
        (
            "update --max-concurrent 2 web",
            "",
            "max-concurrent can only be used with replicated-job mode\n",
        ),
    ];
    for (words, out, err) in cases {
        let fake = cluster(Value::Null);
        let words: Vec<&str> = ["service"]
            .into_iter()
            .chain(words.split_whitespace())
            .collect();
        let done = fake.ctl(&words, "").await;
        assert_eq!(
            (done.status, done.out.as_str(), done.err.as_str()),
            (1, out, err)
        );
    }
    let fake = cluster(Value::Null);
    let done = fake.ctl(&["service", "scale", "web"], "").await;
    assert!(
        done.err
            .starts_with("invalid scale specifier 'web'.\nSee 'ovnctl service scale --help'.\n"),
        "{}",
        done.err
    );
}

#[tokio::test]
async fn how_an_update_ends_decides_the_status() {
    let cases = [
        ("paused", "update", 1, "service update paused: why\n"),
        (
            "rollback_paused",
            "update",
            1,
            "service rollback paused: why\n",
        ),
        (
            "rollback_completed",
            "update",
            1,
            "service update rolled back: why\n",
        ),
        ("rollback_completed", "rollback", 0, ""),
        ("completed", "update", 0, ""),
    ];
    for (state, command, status, err) in cases {
        let fake = cluster(json!({"State": state, "Message": "why"}));
        let done = fake.ctl(&["service", command, "web"], "").await;
        assert_eq!(
            (done.status, done.err.as_str()),
            (status, err),
            "{state}: {}",
            done.out
        );
        assert!(done.out.starts_with("web\n"), "{}", done.out);
    }
    let fake = cluster(json!({"State": "paused", "Message": "why"}));
    let done = fake.ctl(&["service", "update", "-q", "web"], "").await;
    assert_eq!((done.status, done.out.as_str()), (1, "web\n"));
}
