//! What one container sees and may do.

use std::{collections::BTreeMap, fs};

use model::RefusalKind;
use runtime::engine::*;

use super::host::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codes_output_environment_and_user() {
    let host = Host::new().await;
    let (code, out, err) = host.run(sh("echo out; echo err >&2; exit 7")).await;
    assert_eq!((code, out.as_str(), err.as_str()), (7, "out\n", "err\n"));

    let mut spec = sh(
        "echo $FROM_IMAGE-$OWN-$DROPPED-$HOME; id -u; id -G; pwd; cat /etc/resolv.conf; hostname",
    );
    spec.env = vec!["OWN=1".into(), "DROPPED".into()];
    spec.user = "web".into();
    spec.working_dir = "/srv/new".into();
    spec.hostname = "named".into();
    let (_, out, _) = host.run(spec).await;
    assert_eq!(
        out,
        "yes-1--/data\n33\n33 4\n/srv/new\nnameserver 127.0.0.11\nnamed\n"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_short_run_is_told_how_it_ended() {
    let host = Host::new().await;
    for _ in 0..40 {
        let id = host.create(sh("exit 3")).await;
        host.engine().start_container(&id).await.unwrap();
        let wait = host.engine().wait(&id, WaitCondition::NotRunning).unwrap();
        assert_eq!(limit(wait).await.code, 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confinement() {
    let host = Host::new().await;
    let caps = "grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/self/status";
    let (_, out, _) = host.run(sh(caps)).await;
    assert_eq!(
        out,
        "CapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nNoNewPrivs:\t0\nSeccomp:\t2\n"
    );
    let mut spec = sh(caps);
    spec.host.cap_drop = vec!["ALL".into()];
    spec.host.cap_add = vec!["NET_RAW".into()];
    spec.host.security_opt = vec!["no-new-privileges".into(), "seccomp=unconfined".into()];
    let (_, out, _) = host.run(spec).await;
    assert_eq!(
        out,
        "CapEff:\t0000000000002000\nCapBnd:\t0000000000002000\nNoNewPrivs:\t1\nSeccomp:\t0\n"
    );
    let mut spec = sh(
        "mount -t tmpfs x /tmp && echo mounted; touch /x && echo wrote; head -c1 /proc/kcore | wc -c; touch /t/y && echo tmpfs",
    );
    spec.host.read_only = true;
    spec.host.mounts.push(MountSpec {
        target: "/t".into(),
        read_only: false,
        kind: MountKind::Tmpfs {
            size: Some(1 << 20),
            mode: None,
            options: Vec::new(),
        },
    });
    let (_, out, _) = host.run(spec).await;
    assert_eq!(out, "0\ntmpfs\n");
    let mut spec = sh("mount -t tmpfs x /tmp && echo mounted");
    spec.host.privileged = true;
    assert_eq!(host.run(spec).await.1, "mounted\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits() {
    let host = Host::new().await;
    let mut spec = sh("exec sleep 60");
    spec.host.resources.memory = 32 << 20;
    spec.host.resources.pids_limit = 17;
    spec.host.resources.nano_cpus = 500_000_000;
    let id = host.create(spec).await;
    host.engine().start_container(&id).await.unwrap();
    let stats = host.engine().stats(&id).await.unwrap();
    assert_eq!((stats.memory_limit, stats.pids_limit), (32 << 20, 17));
    assert!(stats.pids >= 1);
    let top = host.engine().top(&id, "").await.unwrap();
    assert_eq!(top.rows.len(), 1, "{top:?}");
    host.engine()
        .remove(
            &id,
            RemoveOptions {
                force: true,
                volumes: true,
            },
        )
        .await
        .unwrap();

    let mut spec = sh("x=a; while :; do x=$x$x; done");
    spec.host.resources.memory = 16 << 20;
    let id = host.create(spec).await;
    let wait = host.engine().wait(&id, WaitCondition::NextExit).unwrap();
    host.engine().start_container(&id).await.unwrap();
    assert_eq!(limit(wait).await.code, 137);
    assert!(host.engine().inspect(&id).unwrap().state.oom_killed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_and_binds() {
    let host = Host::new().await;
    let volume = |name: &str, read_only| MountSpec {
        target: "/data".into(),
        read_only,
        kind: MountKind::Volume {
            name: Some(name.into()),
            no_copy: false,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            subpath: String::new(),
        },
    };
    let mut spec = sh("cat /data/seed; echo more >/data/more");
    spec.host.mounts = vec![volume("keep", false)];
    assert_eq!(host.run(spec).await.1, "seed\n");
    let mut spec = sh("cat /data/more; touch /data/no || echo refused");
    spec.host.mounts = vec![volume("keep", true)];
    assert_eq!(host.run(spec).await.1, "more\nrefused\n");
    let refusal = host
        .engine()
        .volume_remove("keep", false)
        .await
        .unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Conflict);
    host.engine().prune(&BTreeMap::new()).await.unwrap();
    host.engine().volume_remove("keep", false).await.unwrap();

    let source = host.directory.path().join("made/for/it");
    let mut spec = sh("echo there >/b/file");
    spec.host.auto_remove = true;
    spec.volumes.insert("/anonymous".into());
    spec.host.mounts = vec![MountSpec {
        target: "/b".into(),
        read_only: false,
        kind: MountKind::Bind {
            source: source.display().to_string(),
            create_source: true,
            propagation: String::new(),
            non_recursive: false,
        },
    }];
    let id = host.create(spec).await;
    let wait = host.engine().wait(&id, WaitCondition::Removed).unwrap();
    host.engine().start_container(&id).await.unwrap();
    limit(wait).await;
    assert_eq!(fs::read_to_string(source.join("file")).unwrap(), "there\n");
    assert_eq!(host.engine().volume_list(&BTreeMap::new()).unwrap(), []);
    host.nothing_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_in_dockers_words() {
    let host = Host::new().await;
    let engine = host.engine();
    for (result, kind, text) in [
        (
            engine.inspect("nope").map(drop),
            RefusalKind::NotFound,
            "No such container: nope",
        ),
        (
            engine.create(ContainerSpec::new("absent")).await.map(drop),
            RefusalKind::NotFound,
            "No such image: absent",
        ),
    ] {
        let refusal = result.unwrap_err();
        assert_eq!((refusal.kind, refusal.message.as_str()), (kind, text));
    }
    let named = || ContainerSpec {
        name: Some("api".into()),
        ..sh("sleep 60")
    };
    let id = host.create(named()).await;
    let refusal = engine.create(named()).await.unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Conflict);
    assert_eq!(
        refusal.message,
        format!(
            "Conflict. The container name \"/api\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
        )
    );
    assert_eq!(engine.inspect(&id[..6]).unwrap().id.as_str(), id);
    assert!(engine.start_container("api").await.unwrap());
    assert!(!engine.start_container("/api").await.unwrap());
    let refusal = engine
        .remove("api", RemoveOptions::default())
        .await
        .unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Conflict);
    engine.rename("api", "web").await.unwrap();
    engine
        .remove(
            "web",
            RemoveOptions {
                force: true,
                volumes: false,
            },
        )
        .await
        .unwrap();

    let mut spec = sh("");
    spec.command = Some(vec!["no-such-program".into()]);
    let id = host.create(spec).await;
    let refusal = engine.start_container(&id).await.unwrap_err();
    assert!(
        refusal
            .message
            .contains("executable file not found in $PATH"),
        "{refusal}"
    );
    assert_eq!(engine.inspect(&id).unwrap().state.exit_code, 127);
    engine.remove(&id, RemoveOptions::default()).await.unwrap();
    host.nothing_left();
}
