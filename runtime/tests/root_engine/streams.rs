//! Attaching, exec, terminals and logs.

use futures_util::StreamExt as _;
use runtime::engine::*;

use super::host::*;

pub async fn wait_for_line(host: &Host, id: &str, wanted: &str) {
    let mut lines = host
        .engine()
        .logs(
            id,
            LogOptions {
                follow: true,
                ..both()
            },
        )
        .unwrap();
    limit(async {
        while let Some(line) = lines.next().await {
            if String::from_utf8_lossy(&line.bytes).contains(wanted) {
                return;
            }
        }
        panic!("the log ended without {wanted:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attach_before_start_and_half_close() {
    let host = Host::new().await;
    let mut spec = sh("echo first; echo err >&2; cat; echo end");
    spec.open_stdin = true;
    spec.stdin_once = true;
    let id = host.create(spec).await;
    let options = AttachOptions {
        stdin: true,
        stdout: true,
        stderr: true,
        stream: true,
        ..AttachOptions::default()
    };
    let mut attached = host.engine().attach(&id, options).await.unwrap();
    host.engine().start_container(&id).await.unwrap();
    let input = attached.input.take().unwrap();
    input.send("typed\n".into()).await.unwrap();
    drop(input);
    let (mut out, mut err) = (String::new(), String::new());
    limit(async {
        while let Some(chunk) = attached.output.recv().await {
            let text = String::from_utf8_lossy(&chunk.bytes).into_owned();
            match chunk.stream {
                Stream::Stdout => out.push_str(&text),
                Stream::Stderr => err.push_str(&text),
            }
        }
    })
    .await;
    assert_eq!(
        (out.as_str(), err.as_str()),
        ("first\ntyped\nend\n", "err\n")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminals_exec_and_detach_keys() {
    let host = Host::new().await;
    let mut spec = sh("stty size; while read x; do stty size; echo got $x; done");
    spec.tty = true;
    spec.open_stdin = true;
    spec.host.console_size = Some((33, 111));
    let id = host.create(spec).await;
    let options = AttachOptions {
        stdin: true,
        stdout: true,
        stderr: true,
        stream: true,
        ..AttachOptions::default()
    };
    let mut attached = host.engine().attach(&id, options).await.unwrap();
    host.engine().start_container(&id).await.unwrap();
    assert!(attached.tty);
    let mut text = String::new();
    read_until(&mut attached, &mut text, "33 111").await;
    host.engine().resize(&id, 44, 55).await.unwrap();
    let input = attached.input.take().unwrap();
    // The monitor hears of the size and of the input by two ways.
    while !text.contains("44 55") {
        text.clear();
        input.send("hello\n".into()).await.unwrap();
        read_until(&mut attached, &mut text, "got hello").await;
    }
    input.send(vec![16u8, 17].into()).await.unwrap();
    limit(async { while attached.output.recv().await.is_some() {} }).await;
    assert_eq!(
        host.engine().inspect(&id).unwrap().state.status,
        Status::Running
    );

    let engine = host.engine();
    let exec = |command: &[&str], tty| ExecSpec {
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        env: vec!["ADDED=1".into()],
        user: "web".into(),
        tty,
        attach_stdin: true,
        attach_stdout: true,
        attach_stderr: true,
        ..ExecSpec::default()
    };
    let script = ["sh", "-c", "echo $ADDED$FROM_IMAGE $(id -u); cat; exit 9"];
    let exec_id = engine.exec_create(&id, exec(&script, false)).await.unwrap();
    let mut attached = engine.exec_start(&exec_id, None).await.unwrap();
    let input = attached.input.take().unwrap();
    input.send("in\n".into()).await.unwrap();
    drop(input);
    let mut text = String::new();
    limit(async {
        while let Some(chunk) = attached.output.recv().await {
            text.push_str(&String::from_utf8_lossy(&chunk.bytes));
        }
    })
    .await;
    assert_eq!(text, "1yes 33\nin\n");
    let view = engine.exec_inspect(&exec_id).unwrap();
    assert_eq!((view.running, view.exit_code), (false, Some(9)));

    // crun sizes an exec's terminal just after the program began, so the program asks until then.
    let sized = [
        "sh",
        "-c",
        "until stty size 2>/dev/null | grep '20 70'; do :; done",
    ];
    let exec_id = engine.exec_create(&id, exec(&sized, true)).await.unwrap();
    let mut attached = engine.exec_start(&exec_id, Some((20, 70))).await.unwrap();
    let mut text = String::new();
    read_until(&mut attached, &mut text, "20 70").await;
    let exec_id = engine
        .exec_create(&id, exec(&["nothing-here"], false))
        .await
        .unwrap();
    let refusal = engine
        .exec_start(&exec_id, None)
        .await
        .map(drop)
        .unwrap_err();
    assert!(
        refusal.message.contains("executable file not found"),
        "{refusal}"
    );
    let view = engine.exec_inspect(&exec_id).unwrap();
    assert_eq!((view.running, view.exit_code), (false, Some(127)));
    assert!(engine.exec_check(&exec_id).is_err(), "it is started once");
}

async fn read_until(attached: &mut Attached, text: &mut String, wanted: &str) {
    limit(async {
        while !text.contains(wanted) {
            let Some(chunk) = attached.output.recv().await else {
                panic!("the output ended without {wanted:?}: {text}");
            };
            text.push_str(&String::from_utf8_lossy(&chunk.bytes));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_tail_since_and_follow() {
    let host = Host::new().await;
    let id = host.create(sh("seq 1 200; sleep 0.3; echo late")).await;
    host.engine().start_container(&id).await.unwrap();
    let follow = LogOptions {
        follow: true,
        tail: Some(0),
        ..both()
    };
    wait_for_line(&host, &id, "200").await;
    let mut lines = host.engine().logs(&id, follow).unwrap();
    let first = limit(lines.next()).await.unwrap();
    assert_eq!(first.bytes, "late\n");
    assert!(
        limit(lines.next()).await.is_none(),
        "it ends with the container"
    );
    for (options, count) in [
        (
            LogOptions {
                tail: Some(3),
                ..both()
            },
            3,
        ),
        (
            LogOptions {
                since: first.time,
                ..both()
            },
            1,
        ),
        (
            LogOptions {
                until: first.time - 1,
                ..both()
            },
            200,
        ),
        (both(), 201),
    ] {
        let lines: Vec<_> = host
            .engine()
            .logs(&id, options.clone())
            .unwrap()
            .collect()
            .await;
        assert_eq!(lines.len(), count, "{options:?}");
    }
}
