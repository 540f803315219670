//! `service ls`, `ps`, `inspect`, `logs`, `rm`: what is printed.

use serde_json::{Value, json};

use super::fake::{Fake, Reply, frame};
use super::{ID, cluster, ok, path, web};

#[tokio::test]
async fn lists_and_removal() {
    let fake = cluster(Value::Null);
    let cases = [
        (
            "ls",
            "ID             NAME      MODE         REPLICAS   IMAGE     PORTS\nsvc1svc1svc1   web       replicated   2/2        a:1       *:8080->80/tcp\n".to_owned(),
        ),
        ("ls -q", "svc1svc1svc1\n".to_owned()),
        ("ps -q web", "task1task1task1task1abcde\ntask2task2task2task2abcde\n".to_owned()),
        ("ps --no-trunc --format {{.ID}} web", "task1task1task1task1abcde\ntask2task2task2task2abcde\n".to_owned()),
        (
            "ps --format {{.Name}}/{{.Node}}/{{.Image}} --filter node=w1 web gone",
            "web.1/w1/a:1\nweb.2/w1/a:1\nno such service: gone\n".to_owned(),
        ),
        ("ps --no-resolve --format {{.Name}}@{{.Node}} web", format!("{ID}.1@node1\n{ID}.2@node1\n")),
        ("ps gone", "no such service: gone\n".to_owned()),
        ("rm web gone", "web\nError response from daemon: no DELETE /services/gone\n".to_owned()),
        ("inspect gone", "[]\nError: no such service: gone\n".to_owned()),
        ("inspect -f {{.ID}} web", format!("{ID}\n")),
    ];
    for (words, wanted) in cases {
        let words: Vec<&str> = ["service"]
            .into_iter()
            .chain(words.split_whitespace())
            .collect();
        let done = fake.ctl(&words, "").await;
        assert_eq!(done.out + &done.err, wanted, "{words:?}");
        assert_eq!(done.status, i32::from(words.contains(&"gone")), "{words:?}");
    }
    let done = fake
        .ctl(&["service", "inspect", "--pretty", "web"], "")
        .await;
    assert!(
        done.out
            .contains("\nNetworks: ch03 \nEndpoint Mode:\tvip\n"),
        "{}",
        done.out
    );
}

#[tokio::test]
async fn formats_may_come_from_dockers_settings() {
    let fake = cluster(Value::Null);
    let settings = r#"{"servicesFormat": "{{.Name}}={{.Replicas}}", "tasksFormat": "{{.Name}}"}"#;
    std::fs::write(fake.folder().join("config.json"), settings).unwrap();
    let cases: [(&[&str], &str); 4] = [
        (&["service", "ls"], "web=2/2\n"),
        (&["service", "ls", "-q"], "svc1svc1svc1\n"),
        (&["service", "ls", "--format", "{{.Mode}}"], "replicated\n"),
        (&["service", "ps", "web"], "web.1\nweb.2\n"),
    ];
    for (words, wanted) in cases {
        assert_eq!(fake.ctl(words, "").await.out, wanted, "{words:?}");
    }
}

/// A service of twelve tasks with two lines of log, one of a task that is gone.
fn with_logs() -> Fake {
    let line = |task: &str, text: &str| {
        format!(
            "com.docker.swarm.node.id=node1,com.docker.swarm.service.id={ID},com.docker.swarm.task.id={task},x=1%202 {text}\n"
        )
    };
    let bytes = [
        frame(
            1,
            line("taskAtaskAtaskAtaskAtaskA", "hello there").as_bytes(),
        ),
        frame(2, line("gonegonegonegonegonegone1", "oops").as_bytes()),
    ]
    .concat();
    Fake::start(move |asked, _| match path(&asked.line) {
        "GET /services/web" | "GET /services/svc1svc1svc1svc1svc1svc1s" => {
            let mut service = web(&Value::Null);
            service["Spec"]["Mode"]["Replicated"]["Replicas"] = json!(12);
            ok(service)
        }
        "GET /services/web/logs" => Reply::Chunks(bytes.chunks(7).map(<[u8]>::to_vec).collect()),
        "GET /tasks/taskAtaskAtaskAtaskAtaskA" => {
            ok(json!({"Slot": 3, "Spec": {"ContainerSpec": {"TTY": true}}}))
        }
        "GET /nodes/node1" => ok(json!({"Description": {"Hostname": "w1"}})),
        other => Reply::Json(404, json!({"message": other})),
    })
}

#[tokio::test]
async fn logs_come_with_task_and_node() {
    let fake = with_logs();
    let cases = [
        (
            "",
            "web.3.taskAtaskAta@w1     | hello there\n",
            "web.?.gonegonegone@w1     | oops\n",
        ),
        (
            "--no-task-ids",
            "web.3@w1     | hello there\n",
            "web.?@w1     | oops\n",
        ),
        (
            "--details",
            "web.3.taskAtaskAta@w1     | x=1 2 hello there\n",
            "web.?.gonegonegone@w1     | x=1 2 oops\n",
        ),
        (
            "--no-trunc",
            "web.3.taskAtaskAtaskAtaskAtaskA@w1     | hello there\n",
            "web.?.gonegonegonegonegonegone1@w1     | oops\n",
        ),
    ];
    for (flag, out, err) in cases {
        let words = ["service", "logs"]
            .into_iter()
            .chain(flag.split_whitespace());
        let words: Vec<&str> = words.chain(["web"]).collect();
        let done = fake.ctl(&words, "").await;
        assert_eq!(
            (done.status, done.out.as_str(), done.err.as_str()),
            (0, out, err),
            "{flag}"
        );
    }
    let done = fake
        .ctl(&["service", "logs", "--no-resolve", "web"], "")
        .await;
    let wanted = format!("{ID}.3.taskAtaskAta@node1 ");
    assert!(done.out.starts_with(&wanted), "{}", done.out);
}

#[tokio::test]
async fn logs_raw_and_of_what_is_not_there() {
    let fake = with_logs();
    let words = [
        "service", "logs", "-f", "-n", "5", "--since", "5", "-t", "--raw", "web",
    ];
    let done = fake.ctl(&words, "").await;
    assert!(done.out.ends_with(" hello there\n"), "{}", done.out);
    assert_eq!(
        fake.lines().pop().as_deref(),
        Some("GET /services/web/logs?follow=1&since=5&stderr=1&stdout=1&tail=5&timestamps=1")
    );
    let cases = [
        (
            "taskAtaskAtaskAtaskAtaskA",
            "tty service logs only supported with --raw\n",
        ),
        ("gone", "no such task or service: gone\n"),
    ];
    for (target, message) in cases {
        let done = fake.ctl(&["service", "logs", target], "").await;
        assert_eq!((done.status, done.err.as_str()), (1, message));
    }
}
