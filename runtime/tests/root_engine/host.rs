//! An engine of its own on this machine, with one image and the host's network.

use std::{
    any::Any,
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
use model::{ContainerId, Refusal};
use runtime::{
    engine::*,
    network::{ConnectRequest, Connected, Network, NetworkMode},
};

pub struct OneImage(PathBuf);

impl Images for OneImage {
    fn resolve<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<ResolvedImage, Refusal>> {
        Box::pin(async move {
            let (digit, layers) = match reference {
                "busybox" => ("a", vec![self.0.clone()]),
                // What lies beside it, where a test has made it.
                "tools" => (
                    "b",
                    ["below", "above"].map(|n| self.0.with_file_name(n)).into(),
                ),
                _ => return Err(Refusal::not_found(format!("No such image: {reference}"))),
            };
            Ok(ResolvedImage {
                id: format!("sha256:{}", digit.repeat(64)),
                layers,
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
pub struct HostOnly(pub Mutex<Vec<ContainerId>>);

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
    fn rewire<'a>(&'a self, _: &'a ConnectRequest) -> BoxFuture<'a, Result<Connected, Refusal>> {
        Box::pin(async { Ok(Connected::default()) })
    }
    fn renamed<'a>(&'a self, _: &'a ConnectRequest) -> BoxFuture<'a, Option<Connected>> {
        Box::pin(async { None })
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

pub struct Host {
    pub directory: tempfile::TempDir,
    pub parent: String,
    pub network: Arc<HostOnly>,
    pub engine: Option<Arc<Engine>>,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Host {
    pub async fn new() -> Self {
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

    pub fn config(&self) -> EngineConfig {
        EngineConfig {
            network: self.network.clone(),
            ..config_in(self.directory.path(), &self.parent)
        }
    }

    pub async fn boot(&mut self) {
        self.engine = Some(Engine::start(self.config()).await.unwrap());
    }

    pub fn engine(&self) -> &Arc<Engine> {
        self.engine.as_ref().unwrap()
    }

    pub async fn create(&self, spec: ContainerSpec) -> String {
        self.engine().create(spec).await.unwrap().id.to_string()
    }

    /// Runs to the end: code, stdout, stderr.
    pub async fn run(&self, spec: ContainerSpec) -> (i64, String, String) {
        let id = self.create(spec).await;
        let wait = self.engine().wait(&id, WaitCondition::NextExit).unwrap();
        self.engine().start_container(&id).await.unwrap();
        let exit = limit(wait).await;
        let (out, err) = self.output(&id).await;
        (exit.code, out, err)
    }

    pub async fn output(&self, id: &str) -> (String, String) {
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

    pub fn nothing_left(&self) {
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
        // Else it writes into the folder that is about to be removed.
        if let Some(engine) = self.engine.take() {
            let ends = async {
                let _ = tokio::time::timeout(Duration::from_secs(5), engine.shutdown()).await;
            };
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(ends));
        }
        // Whatever the test left running dies by its own pid files.
        let bundles = self.directory.path().join("run/b");
        for entry in fs::read_dir(bundles).into_iter().flatten().flatten() {
            if let Some(pid) = runtime::oci::read_pid(&entry.path().join("init.pid")) {
                // SAFETY: kill takes two integers.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        }
        let mounted = runtime::oci::mountinfo::at_or_below(self.directory.path());
        for place in mounted.unwrap_or_default() {
            let _ = nix::mount::umount2(&place, nix::mount::MntFlags::MNT_DETACH);
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
        // A program of the runtime's that is on its way out may still write there.
        let folder = self.directory.path();
        while folder.exists() && Instant::now() < deadline {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// An engine in a directory.
pub fn config_in(directory: &Path, parent: &str) -> EngineConfig {
    EngineConfig {
        root: directory.join("root"),
        run_dir: directory.join("run"),
        // Another runtime program than the one found first, for example /usr/sbin/runc.
        runtime: std::env::var_os("OVERNET_TEST_RUNTIME").map(Into::into),
        monitor: None,
        cgroup_parent: parent.to_owned(),
        init: None,
        images: Arc::new(OneImage(directory.join("layer"))),
        network: Arc::new(HostOnly::default()),
    }
}

pub fn entries(path: &Path) -> Vec<String> {
    fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

pub fn both() -> LogOptions {
    LogOptions {
        stdout: true,
        stderr: true,
        ..LogOptions::default()
    }
}

pub fn sh(script: &str) -> ContainerSpec {
    ContainerSpec {
        command: Some(vec!["sh".into(), "-c".into(), script.into()]),
        network: NetworkMode::Host,
        ..ContainerSpec::new("busybox")
    }
}

pub async fn limit<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work)
        .await
        .expect("in 20 s")
}

pub async fn until(what: &str, mut test: impl FnMut() -> bool) {
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
