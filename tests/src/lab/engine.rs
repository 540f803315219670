//! A real Docker Engine on a host of the lab, Debian's: its programs are unpacked, not installed, and
//! all that it keeps lies with the host and ends with it.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};

use super::{Host, Output, registry, stock::unpacked};
use crate::wait;

const SOCKET: &str = "unix:///run/docker.sock";
const LIMIT: Duration = Duration::from_secs(60);

/// A running engine; it ends when this is dropped.
pub struct DockerEngine {
    host: Host,
    client: PathBuf,
    daemon: Option<Child>,
}

impl DockerEngine {
    /// Starts it on `host` and waits until it answers.
    pub fn start(host: &Host) -> Result<Self> {
        let docker = unpacked(&host.cache(), "docker.io")?;
        let mut engine = Self {
            host: host.clone(),
            client: docker.join("usr/bin/docker"),
            daemon: None,
        };
        engine.launch()?;
        Ok(engine)
    }

    /// Starts it again after [`Self::kill`].
    pub fn launch(&mut self) -> Result<()> {
        let cache = self.host.cache();
        let (mut path, mut libraries) = (Vec::new(), Vec::new());
        for package in ["docker.io", "containerd", "libdevmapper1.02.1"] {
            let folder = unpacked(&cache, package)?;
            path.extend([folder.join("usr/bin"), folder.join("usr/sbin")]);
            libraries.extend(["usr/lib", "lib"].map(|at| folder.join(at).join("x86_64-linux-gnu")));
        }
        let own = std::env::var_os("PATH").unwrap_or_default();
        path.extend(std::env::split_paths(&own));
        path.push(PathBuf::from("/usr/sbin"));
        let program = unpacked(&cache, "docker.io")?.join("usr/sbin/dockerd");
        let mut command = Command::new(program);
        command
            .args(["--data-root", "/run/overnet/docker"])
            .args(["--exec-root", "/run/docker-exec"])
            .args(["--pidfile", "/run/docker.pid", "-H", SOCKET])
            .args(["-H", "unix:///run/overnet/docker.sock"])
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none"])
            .args(["--userland-proxy=false", "--storage-driver=vfs"])
            .args([
                "--exec-opt=native.cgroupdriver=cgroupfs",
                "--log-level=error",
            ])
            .arg(format!("--insecure-registry=registry:{}", registry::PORT))
            .env("PATH", std::env::join_paths(path)?)
            .env("LD_LIBRARY_PATH", std::env::join_paths(libraries)?)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.log())?);
        self.daemon = Some(self.host.spawn(command)?);
        let answers = || {
            let asked = self.words("version");
            asked.success().then_some(()).ok_or(format!("{asked:?}"))
        };
        wait::until("the Docker Engine answers", LIMIT, answers);
        Ok(())
    }

    /// The API socket, usable from the machine itself.
    pub fn socket(&self) -> PathBuf {
        self.host.dir().join("run/docker.sock")
    }

    /// What it has said.
    pub fn log(&self) -> PathBuf {
        self.host.dir().join("dockerd.log")
    }

    /// Ends it at once, as SIGKILL does.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut daemon) = self.daemon.take() else {
            return Ok(());
        };
        daemon.kill().context("cannot end dockerd")?;
        daemon.wait()?;
        Ok(())
    }

    /// What its own command line is called with, its program first.
    pub fn command<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let client = self.client.display().to_string();
        let config = self.host.cache().join("docker.config");
        let first = [
            client,
            "--config".to_owned(),
            config.display().to_string(),
            "-H".to_owned(),
            SOCKET.to_owned(),
        ];
        let words = words.into_iter().map(str::to_owned);
        first.into_iter().chain(words).collect()
    }

    /// Runs it with these words, which have no spaces within.
    pub fn words(&self, words: &str) -> Output {
        self.host.exec(self.command(words.split_whitespace()))
    }
}

impl Drop for DockerEngine {
    fn drop(&mut self) {
        // What it leaves in the host's control groups goes with the host.
        let _ = self.kill();
    }
}
