//! From start to end, over restarts, and many at once.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use model::RefusalKind;
use runtime::engine::*;

use super::{host::*, streams::wait_for_line};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_kill_pause_and_restart() {
    let host = Host::new().await;
    let engine = host.engine();
    let id = host
        .create(sh(
            "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done",
        ))
        .await;
    engine.start_container(&id).await.unwrap();
    wait_for_line(&host, &id, "ready").await;
    assert!(engine.stop(&id, StopOptions::default()).await.unwrap());
    assert_eq!(engine.inspect(&id).unwrap().state.exit_code, 5);
    assert!(!engine.stop(&id, StopOptions::default()).await.unwrap());

    let id = host
        .create(sh("trap '' TERM; echo ready; while :; do sleep 0.05; done"))
        .await;
    engine.start_container(&id).await.unwrap();
    wait_for_line(&host, &id, "ready").await;
    engine.pause(&id).await.unwrap();
    assert_eq!(engine.inspect(&id).unwrap().state.status, Status::Paused);
    engine.unpause(&id).await.unwrap();
    let begin = Instant::now();
    engine
        .stop(
            &id,
            StopOptions {
                signal: None,
                timeout: Some(1),
            },
        )
        .await
        .unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(1));
    assert_eq!(engine.inspect(&id).unwrap().state.exit_code, 137);
    let first = engine.inspect(&id).unwrap().state.started_at;
    engine.restart(&id, StopOptions::default()).await.unwrap();
    let view = engine.inspect(&id).unwrap();
    assert!(view.state.started_at > first && view.state.status == Status::Running);
    engine.kill(&id, Some("KILL")).await.unwrap();
    let gone = engine.kill(&id, None).await.unwrap_err();
    assert_eq!(gone.kind, RefusalKind::Conflict);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_engine_adopts_what_runs() {
    let mut host = Host::new().await;
    let long = host
        .create(sh("echo one; sleep 1; echo two; exec sleep 60"))
        .await;
    let brief = host.create(sh("sleep 0.2; exit 4")).await;
    let mut spec = sh("sleep 0.2");
    spec.host.auto_remove = true;
    let removed = host.create(spec).await;
    let mut spec = sh("exec sleep 60");
    spec.host.restart = RestartPolicy::Always;
    let always = host.create(spec).await;
    for id in [&long, &brief, &removed, &always] {
        host.engine().start_container(id).await.unwrap();
    }
    let before = host.engine().inspect(&long).unwrap();
    let dead = host.engine().inspect(&always).unwrap().state.pid;
    // What a kill -9 leaves: no task of the engine does anything any more.
    host.engine.take().unwrap().shutdown().await;
    // SAFETY: kill takes two integers; the process is a container of this test.
    unsafe { libc::kill(dead, libc::SIGKILL) };
    let exits = host.directory.path().join("run/x");
    until("exit files", || entries(&exits).len() == 3).await;
    host.boot().await;
    let engine = host.engine();
    let view = engine.inspect(&long).unwrap();
    assert_eq!(
        (view.state.pid, view.state.started_at),
        (before.state.pid, before.state.started_at)
    );
    until("the exit is noticed", || {
        engine.inspect(&brief).unwrap().state.exit_code == 4
    })
    .await;
    until("the removal is made up for", || {
        engine.inspect(&removed).is_err()
    })
    .await;
    until("started again", || {
        let view = engine.inspect(&always).unwrap();
        view.state.status == Status::Running && view.state.pid != dead && view.restart_count == 1
    })
    .await;
    wait_for_line(&host, &long, "two").await;
    let wait = engine.wait(&long, WaitCondition::NextExit).unwrap();
    engine.kill(&long, None).await.unwrap();
    assert_eq!(limit(wait).await.code, 137);
    for id in [&long, &brief, &always] {
        engine
            .remove(
                id,
                RemoveOptions {
                    force: true,
                    volumes: true,
                },
            )
            .await
            .unwrap();
    }
    host.nothing_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_policies() {
    let host = Host::new().await;
    let mut spec = sh("exit 3");
    spec.host.restart = RestartPolicy::OnFailure(2);
    let id = host.create(spec).await;
    host.engine().start_container(&id).await.unwrap();
    until("two more tries", || {
        let view = host.engine().inspect(&id).unwrap();
        view.state.status == Status::Exited && view.restart_count == 2
    })
    .await;
    assert_eq!(host.engine().inspect(&id).unwrap().state.exit_code, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health() {
    let host = Host::new().await;
    let mut spec = sh("exec sleep 60");
    spec.health = Some(Healthcheck {
        test: vec!["CMD-SHELL".into(), "test -e /tmp/fine".into()],
        interval: Duration::from_millis(50),
        retries: 2,
        ..Healthcheck::default()
    });
    let id = host.create(spec).await;
    host.engine().start_container(&id).await.unwrap();
    let status = || {
        host.engine()
            .inspect(&id)
            .unwrap()
            .state
            .health
            .unwrap()
            .status
    };
    until("unhealthy", || status() == HealthStatus::Unhealthy).await;
    let exec = ExecSpec {
        command: vec!["touch".into(), "/tmp/fine".into()],
        ..ExecSpec::default()
    };
    let exec = host.engine().exec_create(&id, exec).await.unwrap();
    host.engine().exec_start_detached(&exec).await.unwrap();
    until("healthy", || status() == HealthStatus::Healthy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copying_and_changes() {
    let host = Host::new().await;
    let id = host.create(sh("echo new >/data/new; exec sleep 60")).await;
    let pack = |name: &str, text: &str| {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o640);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        builder
            .append_data(&mut header, name, text.as_bytes())
            .unwrap();
        bytes::Bytes::from(builder.into_inner().unwrap())
    };
    let stream = |bytes: bytes::Bytes| Box::pin(futures_util::stream::iter([Ok(bytes)]));
    // Before the start, and while it runs.
    host.engine()
        .archive_put(&id, "/data", stream(pack("cold", "cold")))
        .await
        .unwrap();
    host.engine().start_container(&id).await.unwrap();
    host.engine()
        .archive_put(&id, "/data", stream(pack("warm", "warm")))
        .await
        .unwrap();
    let (found, stream) = host.engine().archive_get(&id, "/data/cold").await.unwrap();
    assert_eq!(
        (found.name.as_str(), found.size, found.mode & 0o777),
        ("cold", 4, 0o640)
    );
    let bytes: Vec<u8> = stream.map(|chunk| chunk.unwrap().to_vec()).concat().await;
    let mut archive = tar::Archive::new(&bytes[..]);
    let names: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    assert_eq!(names, ["cold"]);
    assert!(host.engine().path_stat(&id, "/nowhere").await.is_err());
    let changes = host.engine().changes(&id).await.unwrap();
    let changed: Vec<_> = changes
        .iter()
        .map(|c| (c.path.as_str(), c.kind as u8))
        .collect();
    for wanted in [
        ("/data", 0),
        ("/data/cold", 1),
        ("/data/new", 1),
        ("/data/warm", 1),
    ] {
        assert!(changed.contains(&wanted), "{wanted:?} in {changed:?}");
    }
}

/// Who reads a container that does not run keeps nobody from starting it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_is_in_nobodys_way() {
    let host = Host::new().await;
    let script = "test -e /tmp/again && exec sleep 60; busybox rm -r /data; mkdir /data; \
                  dd if=/dev/zero of=/data/big bs=1M count=16 2>/dev/null; touch /tmp/again";
    let id = host.create(sh(script)).await;
    let ended = host.engine().wait(&id, WaitCondition::NextExit).unwrap();
    host.engine().start_container(&id).await.unwrap();
    limit(ended).await;
    let mut export = host.engine().export(&id).await.unwrap();
    let (_, mut copy) = host.engine().archive_get(&id, "/data").await.unwrap();
    let begun = [
        export.next().await.unwrap().unwrap(),
        copy.next().await.unwrap().unwrap(),
    ];
    limit(host.engine().start_container(&id)).await.unwrap();
    let [export_begun, copy_begun] = begun.map(|bytes| bytes.to_vec());
    for (begun, rest) in [(export_begun, export), (copy_begun, copy)] {
        let rest: Vec<u8> = rest.map(|chunk| chunk.unwrap().to_vec()).concat().await;
        let bytes = [begun, rest].concat();
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut sizes = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            sizes.insert(path.trim_start_matches("./").to_owned(), entry.size());
        }
        assert_eq!(sizes.get("data/big"), Some(&(16 << 20)), "{sizes:?}");
        // What was deleted is not there, nor is the mark that says so.
        assert!(!sizes.contains_key("data/seed"), "{sizes:?}");
    }
    // Nor from removing it.
    let ended = host.engine().wait(&id, WaitCondition::NotRunning).unwrap();
    host.engine().kill(&id, None).await.unwrap();
    limit(ended).await;
    let _stopped = host.engine().export(&id).await.unwrap();
    limit(host.engine().remove(&id, RemoveOptions::default()))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_runs_are_fast_and_two_hundred_leak_nothing() {
    let host = Host::new().await;
    let mut times = Vec::new();
    for _ in 0..50 {
        let begin = Instant::now();
        let mut spec = sh("exec true");
        spec.host.auto_remove = true;
        let id = host.create(spec).await;
        let wait = host.engine().wait(&id, WaitCondition::Removed).unwrap();
        host.engine().start_container(&id).await.unwrap();
        let started = begin.elapsed();
        limit(wait).await;
        times.push((started, begin.elapsed()));
    }
    let mut started: Vec<_> = times.iter().map(|time| time.0).collect();
    let mut removed: Vec<_> = times.iter().map(|time| time.1).collect();
    started.sort();
    removed.sort();
    println!(
        "create to running p50 {:?} p99 {:?}; to removed p50 {:?} p99 {:?}",
        started[25], started[49], removed[25], removed[49]
    );
    host.nothing_left();

    let begin = Instant::now();
    let work = (0..200).map(|_| async {
        let mut spec = sh("exec true");
        spec.host.auto_remove = true;
        let id = host.create(spec).await;
        let wait = host.engine().wait(&id, WaitCondition::Removed).unwrap();
        host.engine().start_container(&id).await.unwrap();
        tokio::time::timeout(Duration::from_secs(120), wait)
            .await
            .unwrap();
    });
    futures_util::stream::iter(work)
        .buffer_unordered(16)
        .collect::<Vec<()>>()
        .await;
    println!("200 runs, sixteen at a time: {:?}", begin.elapsed());
    host.nothing_left();
}
