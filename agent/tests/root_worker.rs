//! Tasks of hand-made assignments on the real engine with crun and conmon; needs root,
//! busybox-static, crun, conmon.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use agent::{
    api_socket::ApiSocket,
    cluster::{LocalState, LogSource as _, Standing, Update},
    worker::{Config, Flows, Leader, Worker},
};
use futures_util::{StreamExt as _, future::BoxFuture, stream::BoxStream};
use model::{
    Assignments, Change, ContainerId, Increment, Meta, Payload, PayloadKind, Refusal, Task, TaskId,
    log::LogOptions,
    node::NodeDescription,
    payload::{Content, PayloadSpec},
    service::ServiceMode,
    task::{
        ContainerSpec, Driver, FileTarget, Handover, HealthSpec, ImageOptions, Mount, MountKind,
        PayloadReference, RestartPolicy, TaskSpec, TaskState, TaskStatus, VolumeOptions,
    },
};
use runtime::{
    engine::{Engine, EngineConfig},
    images::{self, ImageBuilder, ImageConfiguration, ImageStore},
    network::{ConnectRequest, Connected, Network},
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;

const LIMIT: Duration = Duration::from_secs(30);
/// Nobody listens there, so a pull fails at once and the image on this host is used.
const IMAGE: &str = "127.0.0.1:1/busybox:latest";

/// Gives everybody the host's network.
struct HostOnly;

impl Network for HostOnly {
    fn check<'a>(&'a self, _: &'a ConnectRequest) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(async { Ok(()) })
    }
    fn connect<'a>(&'a self, _: &'a ConnectRequest) -> BoxFuture<'a, Result<Connected, Refusal>> {
        Box::pin(async { Ok(Connected::default()) })
    }
    fn rewire<'a>(&'a self, _: &'a ConnectRequest) -> BoxFuture<'a, Result<Connected, Refusal>> {
        Box::pin(async { Ok(Connected::default()) })
    }
    fn renamed<'a>(&'a self, _: &'a ConnectRequest) -> BoxFuture<'a, Option<Connected>> {
        Box::pin(async { None })
    }
    fn started<'a>(&'a self, _: &'a ContainerId) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
    fn disconnect<'a>(&'a self, _: &'a ContainerId) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(async { Ok(()) })
    }
    fn adopt<'a>(&'a self, _: &'a [ConnectRequest]) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(async { Ok(()) })
    }
}

/// A manager that is made of what the test says.
struct ByHand {
    assignments: Mutex<Assignments>,
    updates: Mutex<Option<mpsc::UnboundedSender<Update>>>,
    standing: watch::Sender<LocalState>,
    reported: watch::Sender<BTreeMap<TaskId, TaskStatus>>,
}

impl ByHand {
    fn change(&self, changes: Vec<Change>) {
        let increment = Increment {
            changes,
            ..Increment::default()
        };
        self.assignments.lock().unwrap().apply(&increment);
        if let Some(updates) = &*self.updates.lock().unwrap() {
            updates
                .send(Update::Increment(Arc::new(increment)))
                .unwrap();
        }
    }

    /// The status of a task once it is in this state.
    async fn until(&self, task: &str, state: TaskState) -> TaskStatus {
        let id = TaskId::new(task);
        let mut reported = self.reported.subscribe();
        let there =
            reported.wait_for(|all| all.get(&id).is_some_and(|status| status.state == state));
        match tokio::time::timeout(LIMIT, there).await {
            Ok(all) => all.unwrap()[&id].clone(),
            Err(late) => panic!(
                "{task} is not {state:?} ({late}): {:?}",
                self.reported.borrow().get(&id)
            ),
        }
    }

    fn in_sight(&self, is: bool) {
        self.standing.send_modify(|state| {
            state.state = Standing::Active;
            state.error = if is { String::new() } else { "gone".into() };
        });
    }
}

impl Leader for ByHand {
    fn updates(&self) -> BoxStream<'static, Update> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let full = self.assignments.lock().unwrap().clone();
        sender.send(Update::Full(Arc::new(full))).unwrap();
        *self.updates.lock().unwrap() = Some(sender);
        UnboundedReceiverStream::new(receiver).boxed()
    }
    fn standing(&self) -> watch::Receiver<LocalState> {
        self.standing.subscribe()
    }
    fn report(&self, statuses: Vec<(TaskId, TaskStatus)>) -> BoxFuture<'_, Result<(), Refusal>> {
        self.reported.send_modify(|all| all.extend(statuses));
        Box::pin(async { Ok(()) })
    }
}

/// Connections that the test says there are.
#[derive(Default)]
struct Counted {
    there: AtomicU32,
    asked: AtomicU32,
}

impl Flows for Counted {
    fn established<'a>(&'a self, _: &'a ContainerId) -> BoxFuture<'a, u64> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { self.there.load(Ordering::Relaxed).into() })
    }
}

struct Host {
    directory: tempfile::TempDir,
    parent: String,
    leader: Arc<ByHand>,
    flows: Arc<Counted>,
    up: Option<(Arc<Engine>, Arc<Worker>)>,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Host {
    async fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut host = Self {
            directory: tempfile::tempdir().unwrap(),
            parent: format!("overnet-worker-{}-{number}", std::process::id()),
            leader: Arc::new(ByHand {
                assignments: Mutex::default(),
                updates: Mutex::default(),
                standing: watch::channel(LocalState::default()).0,
                reported: watch::Sender::default(),
            }),
            flows: Arc::default(),
            up: None,
        };
        host.leader.in_sight(true);
        host.boot().await;
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn boot(&mut self) {
        let store = ImageStore::open(images::Config::new(self.path("images"))).unwrap();
        if store.resolve(IMAGE).is_err() {
            let layer = self.path("layer");
            for part in ["bin", "etc", "proc", "sys", "dev", "tmp", "run"] {
                fs::create_dir_all(layer.join(part)).unwrap();
            }
            fs::copy("/bin/busybox", layer.join("bin/busybox")).unwrap();
            for tool in [
                "sh", "cat", "sleep", "test", "touch", "rm", "echo", "ls", "dd",
            ] {
                symlink("busybox", layer.join("bin").join(tool)).unwrap();
            }
            let builder = ImageBuilder::new(ImageConfiguration::default());
            let builder = builder.layer_from_dir(&layer).unwrap();
            builder
                .store(&store, &IMAGE.parse().unwrap())
                .await
                .unwrap();
        }
        let engine = Engine::start(EngineConfig {
            root: self.path("root"),
            run_dir: self.path("run"),
            runtime: None,
            monitor: None,
            cgroup_parent: self.parent.clone(),
            init: None,
            images: Arc::new(store.clone()),
            network: Arc::new(HostOnly),
        });
        let engine = engine.await.unwrap();
        let config = Config {
            root: self.path("root"),
            run_dir: self.path("run"),
            socket: ApiSocket::default(),
            describe: Arc::new(NodeDescription::default),
        };
        let (leader, flows) = (Arc::clone(&self.leader), Arc::clone(&self.flows));
        let worker = Worker::start(config, Arc::clone(&engine), store, leader, flows).unwrap();
        self.up = Some((engine, worker));
    }

    async fn kill_daemon(&mut self) {
        let (engine, worker) = self.up.take().unwrap();
        worker.shutdown().await;
        engine.shutdown().await;
    }

    fn engine(&self) -> &Engine {
        &self.up.as_ref().unwrap().0
    }

    fn give(&self, task: &Task) {
        self.leader
            .change(vec![Change::SetTask(Box::new(task.clone()))]);
    }

    async fn container_is_gone(&self, task: &Task) {
        let begun = Instant::now();
        while self.engine().inspect(&task.name()).is_ok() {
            assert!(begun.elapsed() < LIMIT, "its container is still there");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn down(mut self) {
        let tasks: Vec<Task> = {
            let assignments = self.leader.assignments.lock().unwrap();
            assignments.tasks.values().cloned().collect()
        };
        for task in &tasks {
            self.leader
                .change(vec![Change::RemoveTask(task.id.clone())]);
        }
        for task in &tasks {
            self.container_is_gone(task).await;
        }
        let left = |name: &str| fs::read_dir(self.path(name)).unwrap().count();
        assert_eq!((left("run/payloads"), left("root/containers")), (0, 0));
        self.kill_daemon().await;
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.path("run/b"))
            .into_iter()
            .flatten()
            .flatten()
        {
            if let Some(pid) = runtime::oci::read_pid(&entry.path().join("init.pid")) {
                let pid = nix::unistd::Pid::from_raw(pid);
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
        }
        let mounted = ["run/payloads", "root/volumes"]
            .map(|name| runtime::oci::mountinfo::at_or_below(&self.path(name)).unwrap_or_default());
        for place in mounted.concat() {
            let _ = nix::mount::umount2(&place, nix::mount::MntFlags::MNT_DETACH);
        }
        for controller in fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
        {
            let parent = controller.path().join(&self.parent);
            for child in fs::read_dir(&parent).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(child.path());
            }
            let _ = fs::remove_dir(parent);
        }
    }
}

fn task(id: &str, script: &str, change: impl FnOnce(&mut TaskSpec)) -> Task {
    let mut spec = TaskSpec {
        container: ContainerSpec {
            image: IMAGE.into(),
            command: vec!["/bin/sh".into(), "-c".into(), script.into()],
            // The first process of a namespace ignores what it has no handler for.
            stop_signal: "SIGKILL".into(),
            ..ContainerSpec::default()
        },
        ..TaskSpec::default()
    };
    change(&mut spec);
    Task {
        id: id.into(),
        meta: Meta::default(),
        service: "s1".into(),
        service_name: "web".into(),
        slot: 1,
        node: Some("n1".into()),
        spec: Arc::new(spec),
        spec_version: 1,
        labels: BTreeMap::new(),
        mode: ServiceMode::default(),
        status: TaskStatus {
            state: TaskState::Assigned,
            ..TaskStatus::default()
        },
        desired: TaskState::Running,
        start_after: 0,
        endpoints: Vec::new(),
        ports: Vec::new(),
        generic_resources: Vec::new(),
        job_iteration: None,
        handover: Handover::Pending,
        in_since: 0,
        attempt: 0,
        drain: Duration::from_secs(5),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_prepared_started_stopped_and_forgotten() {
    let host = Host::new().await;
    let secret = "a-secret-for-one-task";
    let given = PayloadReference {
        id: "p1".into(),
        name: "key".into(),
        file: Some(FileTarget {
            name: "key".into(),
            uid: "0".into(),
            gid: "0".into(),
            mode: 0o400,
        }),
    };
    let mut one = task(
        "t1",
        "cat /run/secrets/key; echo $WHO; exec sleep 1000",
        |spec| {
            spec.container.secrets = vec![given];
            spec.container.env = vec!["WHO={{.Task.Name}}".into()];
        },
    );
    one.desired = TaskState::Ready;
    host.give(&one);
    let waits = host.leader.until("t1", TaskState::Accepted).await;
    assert!(waits.error.is_empty() || waits.error.contains("secret key"));
    host.leader
        .change(vec![Change::SetPayload(Box::new(Payload {
            id: "p1".into(),
            meta: Meta::default(),
            kind: PayloadKind::Secret,
            spec: PayloadSpec {
                name: "key".into(),
                data: Content(secret.as_bytes().to_vec()),
                ..PayloadSpec::default()
            },
        }))]);
    host.leader.until("t1", TaskState::Ready).await;
    one.desired = TaskState::Running;
    host.give(&one);
    let running = host.leader.until("t1", TaskState::Running).await;
    assert!(running.container.unwrap().pid > 0);
    let view = host.engine().inspect("web.1.t1").unwrap();
    assert_eq!(view.effective.labels["com.docker.swarm.task.id"], "t1");
    let options = LogOptions {
        stdout: true,
        stderr: true,
        follow: true,
        ..LogOptions::default()
    };
    let worker = &host.up.as_ref().unwrap().1;
    let mut lines = worker.logs(&"t1".into(), &options).unwrap();
    // The monitor may have written the line in parts.
    let mut line = String::new();
    while !line.ends_with('\n') {
        let part = tokio::time::timeout(LIMIT, lines.next()).await.unwrap();
        line.push_str(std::str::from_utf8(&part.unwrap().data).unwrap());
    }
    assert_eq!(line, format!("{secret}web.1.t1\n"));
    let record = host
        .path("root/containers")
        .join(view.id.as_str())
        .join("record.json");
    assert!(!fs::read_to_string(record).unwrap().contains(secret));

    one.desired = TaskState::Shutdown;
    host.give(&one);
    let over = host.leader.until("t1", TaskState::Shutdown).await;
    assert_eq!(over.container.unwrap().exit_code, 137);
    assert!(
        host.engine().inspect("web.1.t1").is_ok(),
        "kept until it is reaped"
    );
    host.down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_run_says_why() {
    let host = Host::new().await;
    for (id, script, change, state, words) in [
        (
            "code",
            "exit 3",
            (|_| ()) as fn(&mut TaskSpec),
            TaskState::Failed,
            "task: non-zero exit (3)",
        ),
        ("done", "exit 0", |_| (), TaskState::Complete, ""),
        (
            "image",
            "",
            |spec| spec.container.image = "127.0.0.1:1/nobody".into(),
            TaskState::Rejected,
            "127.0.0.1:1",
        ),
        (
            "bind",
            "",
            |spec| {
                spec.container.mounts = vec![Mount {
                    source: "/not/there".into(),
                    target: "/x".into(),
                    ..Mount::default()
                }];
            },
            TaskState::Rejected,
            "bind source path does not exist: /not/there",
        ),
        (
            "mounted",
            "",
            |spec| {
                spec.container.mounts = vec![Mount {
                    kind: MountKind::Image,
                    source: "127.0.0.1:1/tools".into(),
                    target: "/x".into(),
                    ..Mount::default()
                }];
            },
            TaskState::Rejected,
            "127.0.0.1:1",
        ),
        (
            "options",
            "",
            |spec| {
                spec.container.mounts = vec![volume("data", &[("type", "tmpfs")], "")];
            },
            TaskState::Rejected,
            "missing required option: \"device\"",
        ),
        (
            "program",
            "",
            |spec| spec.container.command = vec!["/no/program".into()],
            TaskState::Failed,
            "no such file or directory",
        ),
        (
            "memory",
            "dd if=/dev/zero of=/dev/null bs=64M count=1 & wait $!; exec dd if=/dev/zero of=/dev/null bs=64M count=1",
            |spec| spec.limits.memory_bytes = 16 << 20,
            TaskState::Failed,
            "out of memory, its limit is 16 MiB",
        ),
    ] {
        host.give(&task(id, script, change));
        let status = host.leader.until(id, state).await;
        assert!(status.error.contains(words), "{id}: {:?}", status.error);
    }
    host.down().await;
}

fn volume(name: &str, options: &[(&str, &str)], subpath: &str) -> Mount {
    let options = options
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Mount {
        kind: MountKind::Volume,
        source: name.into(),
        target: "/v".into(),
        volume: Some(VolumeOptions {
            driver: Some(Driver {
                name: "local".into(),
                options: options.collect(),
            }),
            subpath: subpath.into(),
            ..VolumeOptions::default()
        }),
        ..Mount::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_has_a_part_of_a_device_and_of_an_image() {
    let host = Host::new().await;
    let device = host.path("device");
    fs::create_dir_all(device.join("part")).unwrap();
    let bind = [
        ("type", "none"),
        ("device", device.to_str().unwrap()),
        ("o", "bind"),
    ];
    let image = Mount {
        kind: MountKind::Image,
        source: IMAGE.into(),
        target: "/tools".into(),
        image: Some(ImageOptions {
            subpath: "bin".into(),
        }),
        ..Mount::default()
    };
    let script =
        "/tools/busybox echo written >/v/file; touch /tools/x || /tools/busybox touch /v/refused";
    host.give(&task("t1", script, |spec| {
        spec.container.mounts = vec![volume("disk", &bind, "part"), image];
    }));
    host.leader.until("t1", TaskState::Complete).await;
    let part = device.join("part");
    assert_eq!(fs::read_to_string(part.join("file")).unwrap(), "written\n");
    assert!(part.join("refused").exists());
    host.down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_runs_when_it_is_healthy_and_fails_when_it_no_longer_is() {
    let host = Host::new().await;
    let one = task(
        "t1",
        "sleep 1; touch /ok; sleep 2; rm /ok; exec sleep 1000",
        |spec| {
            spec.container.health = Some(HealthSpec {
                test: vec!["CMD".into(), "/bin/test".into(), "-e".into(), "/ok".into()],
                interval: Some(Duration::from_millis(100)),
                start_period: Some(Duration::from_secs(20)),
                start_interval: Some(Duration::from_millis(100)),
                retries: Some(2),
                ..HealthSpec::default()
            });
        },
    );
    host.give(&one);
    host.leader.until("t1", TaskState::Starting).await;
    host.leader.until("t1", TaskState::Running).await;
    let failed = host.leader.until("t1", TaskState::Failed).await;
    assert!(
        failed.error.contains("unhealthy container"),
        "{}",
        failed.error
    );
    host.down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_comes_back_goes_on_where_it_was() {
    let mut host = Host::new().await;
    let (one, two) = (
        task("t1", "exec sleep 1000", |_| ()),
        task("t2", "exec sleep 1", |_| ()),
    );
    for task in [&one, &two] {
        host.give(task);
        host.leader
            .until(task.id.as_str(), TaskState::Running)
            .await;
    }
    let before = host.engine().inspect(&one.name()).unwrap();
    host.kill_daemon().await;
    // What it had reported is what the manager assigns.
    {
        let reported = host.leader.reported.borrow().clone();
        let mut assignments = host.leader.assignments.lock().unwrap();
        for task in assignments.tasks.values_mut() {
            task.status = reported[&task.id].clone();
        }
    }
    host.boot().await;
    host.leader.until("t2", TaskState::Complete).await;
    let after = host.engine().inspect(&one.name()).unwrap();
    assert_eq!((before.id, before.state.pid), (after.id, after.state.pid));
    let status = host.leader.until("t1", TaskState::Running).await;
    assert_eq!(status.restarts, 0);
    host.down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_manager_a_failed_task_is_started_again() {
    let host = Host::new().await;
    let one = task("t1", "exec sleep 1000", |spec| {
        spec.restart = Some(RestartPolicy {
            delay: Duration::from_millis(100),
            ..RestartPolicy::default()
        });
    });
    host.give(&one);
    host.leader.until("t1", TaskState::Running).await;
    host.leader.in_sight(false);
    host.engine().kill(&one.name(), None).await.unwrap();
    let mut reported = host.leader.reported.subscribe();
    let id = TaskId::new("t1");
    let again = reported.wait_for(|all| all[&id].restarts == 1);
    tokio::time::timeout(LIMIT, again).await.unwrap().unwrap();
    assert!(host.engine().inspect(&one.name()).unwrap().state.pid > 0);
    // With one in sight the end is a failure, and the manager's to see to.
    host.leader.in_sight(true);
    host.engine().kill(&one.name(), None).await.unwrap();
    host.leader.until("t1", TaskState::Failed).await;
    host.down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_end_before_their_task_does() {
    let host = Host::new().await;
    let mut one = task("t1", "exec sleep 1000", |_| ());
    host.give(&one);
    host.leader.until("t1", TaskState::Running).await;
    host.flows.there.store(2, Ordering::Relaxed);
    // An endpoint of its own would need a network; that it has one is all that counts here.
    one.endpoints = vec!["e1".into()];
    one.desired = TaskState::Shutdown;
    one.handover = Handover::Out;
    one.drain = Duration::from_secs(600);
    host.give(&one);
    let begun = Instant::now();
    while host.flows.asked.load(Ordering::Relaxed) < 3 {
        assert!(begun.elapsed() < LIMIT, "connections are not counted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(
        host.engine().inspect(&one.name()).unwrap().state.pid > 0,
        "it drains"
    );
    host.flows.there.store(0, Ordering::Relaxed);
    let begun = Instant::now();
    host.leader.until("t1", TaskState::Shutdown).await;
    assert!(begun.elapsed() < Duration::from_secs(10));
    host.down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_start_together() {
    const COUNT: usize = 33;
    let host = Host::new().await;
    let begun = Instant::now();
    let tasks: Vec<Task> = (0..COUNT)
        .map(|n| task(&format!("t{n}"), "exec sleep 1000", |_| ()))
        .collect();
    for task in &tasks {
        host.give(task);
    }
    for task in &tasks {
        host.leader
            .until(task.id.as_str(), TaskState::Running)
            .await;
    }
    eprintln!("{COUNT} tasks ran after {:?}", begun.elapsed());
    let begun = Instant::now();
    host.down().await;
    eprintln!("and were gone after {:?}", begun.elapsed());
}
