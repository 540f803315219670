//! Containers of the real engine with crun and conmon; needs root, busybox-static, crun, conmon.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    any::Any,
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, future::BoxFuture};
use model::{ContainerId, Refusal, RefusalKind};
use runtime::{
    engine::*,
    network::{ConnectRequest, Connected, Network, NetworkMode},
};

struct OneImage(PathBuf);

impl Images for OneImage {
    fn resolve<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<ResolvedImage, Refusal>> {
        Box::pin(async move {
            if reference != "busybox" {
                return Err(Refusal::not_found(format!("No such image: {reference}")));
            }
            Ok(ResolvedImage {
                id: format!("sha256:{}", "a".repeat(64)),
                layers: vec![self.0.clone()],
                defaults: ImageDefaults {
                    command: vec!["sh".into()],
                    env: vec!["FROM_IMAGE=yes".into(), "DROPPED=1".into()],
                    ..ImageDefaults::default()
                },
            })
        })
    }

    fn pin(&self, _: &[PathBuf]) -> Result<Box<dyn Any + Send + Sync>, Refusal> {
        Ok(Box::new(()))
    }
}

/// Gives everybody the host's network and notes who is connected.
#[derive(Default)]
struct HostOnly(Mutex<Vec<ContainerId>>);

impl Network for HostOnly {
    fn check<'a>(&'a self, _: &'a ConnectRequest) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(async { Ok(()) })
    }
    fn connect<'a>(
        &'a self,
        request: &'a ConnectRequest,
    ) -> BoxFuture<'a, Result<Connected, Refusal>> {
        self.0.lock().unwrap().push(request.container.clone());
        Box::pin(async {
            Ok(Connected {
                resolv_conf: "nameserver 127.0.0.11\n".into(),
                ..Connected::default()
            })
        })
    }
    fn started<'a>(&'a self, _: &'a ContainerId) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
    fn disconnect<'a>(&'a self, container: &'a ContainerId) -> BoxFuture<'a, Result<(), Refusal>> {
        self.0.lock().unwrap().retain(|id| id != container);
        Box::pin(async { Ok(()) })
    }
    fn adopt<'a>(&'a self, running: &'a [ConnectRequest]) -> BoxFuture<'a, Result<(), Refusal>> {
        *self.0.lock().unwrap() = running.iter().map(|r| r.container.clone()).collect();
        Box::pin(async { Ok(()) })
    }
}

struct Host {
    directory: tempfile::TempDir,
    parent: String,
    network: Arc<HostOnly>,
    engine: Option<Arc<Engine>>,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Host {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let layer = directory.path().join("layer");
        for part in ["bin", "etc", "proc", "sys", "dev", "tmp", "root", "data"] {
            fs::create_dir_all(layer.join(part)).unwrap();
        }
        fs::copy("/bin/busybox", layer.join("bin/busybox")).unwrap();
        for tool in [
            "sh", "cat", "echo", "sleep", "id", "ls", "touch", "mkdir", "env", "hostname", "stty",
            "kill", "dd", "true", "grep", "head", "mount", "pwd", "seq", "test", "wc",
        ] {
            symlink("busybox", layer.join("bin").join(tool)).unwrap();
        }
        fs::write(
            layer.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/data:/bin/sh\n",
        )
        .unwrap();
        fs::write(
            layer.join("etc/group"),
            "root:x:0:\nweb:x:33:\nlogs:x:4:web\n",
        )
        .unwrap();
        fs::write(layer.join("data/seed"), "seed\n").unwrap();
        let parent = format!(
            "overnet-test-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let mut host = Self {
            directory,
            parent,
            network: Arc::default(),
            engine: None,
        };
        host.boot().await;
        host
    }

    fn config(&self) -> EngineConfig {
        EngineConfig {
            root: self.directory.path().join("root"),
            run_dir: self.directory.path().join("run"),
            // Another runtime program than the one found first, for example /usr/sbin/runc.
            runtime: std::env::var_os("OVERNET_TEST_RUNTIME").map(Into::into),
            monitor: None,
            cgroup_parent: self.parent.clone(),
            init: None,
            images: Arc::new(OneImage(self.directory.path().join("layer"))),
            network: self.network.clone(),
        }
    }

    async fn boot(&mut self) {
        self.engine = Some(Engine::start(self.config()).await.unwrap());
    }

    fn engine(&self) -> &Arc<Engine> {
        self.engine.as_ref().unwrap()
    }

    async fn create(&self, spec: ContainerSpec) -> String {
        self.engine().create(spec).await.unwrap().id.to_string()
    }

    /// Runs to the end: code, stdout, stderr.
    async fn run(&self, spec: ContainerSpec) -> (i64, String, String) {
        let id = self.create(spec).await;
        let wait = self.engine().wait(&id, WaitCondition::NextExit).unwrap();
        self.engine().start_container(&id).await.unwrap();
        let exit = limit(wait).await;
        let (out, err) = self.output(&id).await;
        (exit.code, out, err)
    }

    async fn output(&self, id: &str) -> (String, String) {
        let mut lines = self.engine().logs(id, both()).unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        while let Some(line) = lines.next().await {
            let text = String::from_utf8_lossy(&line.bytes).into_owned();
            match line.stream {
                Stream::Stdout => out.push_str(&text),
                Stream::Stderr => err.push_str(&text),
            }
        }
        (out, err)
    }

    fn nothing_left(&self) {
        let run = self.directory.path().join("run");
        for part in ["b", "x", "s", "r", "e"] {
            assert_eq!(entries(&run.join(part)), Vec::<String>::new(), "run/{part}");
        }
        assert_eq!(
            entries(&self.directory.path().join("root/containers")),
            Vec::<String>::new()
        );
        assert_eq!(*self.network.0.lock().unwrap(), Vec::<ContainerId>::new());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let here = self.directory.path().display().to_string();
        assert!(!mounts.contains(&here), "mounts are left");
        let cgroup = Path::new("/sys/fs/cgroup/memory").join(&self.parent);
        let left: Vec<_> = fs::read_dir(cgroup)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .collect();
        assert!(left.is_empty(), "cgroups are left: {left:?}");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Whatever the test left running dies by its own pid files.
        let bundles = self.directory.path().join("run/b");
        for entry in fs::read_dir(bundles).into_iter().flatten().flatten() {
            if let Some(pid) = runtime::oci::read_pid(&entry.path().join("init.pid")) {
                // SAFETY: kill takes two integers.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            let mut left = false;
            for controller in fs::read_dir("/sys/fs/cgroup")
                .into_iter()
                .flatten()
                .flatten()
            {
                let parent = controller.path().join(&self.parent);
                for child in fs::read_dir(&parent).into_iter().flatten().flatten() {
                    let _ = fs::remove_dir(child.path());
                }
                left |= parent.exists() && fs::remove_dir(parent).is_err();
            }
            if !left {
                break;
            }
            std::thread::yield_now();
        }
    }
}

fn entries(path: &Path) -> Vec<String> {
    fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn both() -> LogOptions {
    LogOptions {
        stdout: true,
        stderr: true,
        ..LogOptions::default()
    }
}

fn sh(script: &str) -> ContainerSpec {
    ContainerSpec {
        command: Some(vec!["sh".into(), "-c".into(), script.into()]),
        network: NetworkMode::Host,
        ..ContainerSpec::new("busybox")
    }
}

async fn limit<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work)
        .await
        .expect("in 20 s")
}

async fn until(what: &str, mut test: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !test() {
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "{what}: not in 20 s"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("{what}: {:?}", begin.elapsed());
}

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

async fn wait_for_line(host: &Host, id: &str, wanted: &str) {
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
    let mut spec = sh("stty size; read x; stty size; echo got $x; read y");
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
    input.send("hello\n".into()).await.unwrap();
    read_until(&mut attached, &mut text, "got hello").await;
    assert!(text.contains("44 55"), "{text}");
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

    let exec_id = engine
        .exec_create(&id, exec(&["stty", "size"], true))
        .await
        .unwrap();
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
