//! One host of a lab, as a handle: everything it knows is on disk.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::{fs::symlink, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};

use super::{
    Member, Role, cgroup, daemon,
    host_init::{self, HostSpec},
    members, namespace,
    process::Process,
    registry,
    state::{self, State},
    stock, switch,
    up::{binary, cache_dir},
};
use crate::http::{self, Response};

/// A host; cheap to clone.
#[derive(Debug, Clone)]
pub struct Host {
    lab_dir: PathBuf,
    state: State,
    member: Member,
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// What was run, for messages.
    pub command: String,
    /// Exit status, 128 + N for signal N.
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// The standard output without its last line end.
    ///
    /// # Panics
    /// When the command failed, with everything it said.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.status, 0, "{}", self.describe());
        self.stdout.trim_end().to_owned()
    }

    /// The standard error of a command that had to fail.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn failed(self) -> String {
        assert_ne!(
            self.status,
            0,
            "succeeded, but must not: {}",
            self.describe()
        );
        self.stderr.trim_end().to_owned()
    }

    pub fn success(&self) -> bool {
        self.status == 0
    }

    fn describe(&self) -> String {
        format!(
            "{}: exit status {}\nstdout: {}\nstderr: {}",
            self.command, self.status, self.stdout, self.stderr
        )
    }
}

impl Host {
    pub(super) fn new(lab_dir: &Path, state: &State, member: &Member) -> Self {
        Self {
            lab_dir: lab_dir.to_owned(),
            state: state.clone(),
            member: member.clone(),
        }
    }

    pub fn name(&self) -> &str {
        &self.member.name
    }

    pub fn member(&self) -> &Member {
        &self.member
    }

    /// The host's folder.
    pub fn dir(&self) -> PathBuf {
        self.lab_dir.join(&self.member.name)
    }

    /// What is kept between two labs.
    pub(super) fn cache(&self) -> PathBuf {
        cache_dir(&self.lab_dir)
    }

    /// The API socket, usable from the machine itself.
    pub fn socket(&self) -> PathBuf {
        self.dir().join("ovn.sock")
    }

    pub fn log(&self) -> PathBuf {
        daemon::log_file(&self.dir())
    }

    pub fn is_up(&self) -> bool {
        state::init_of(&self.lab_dir, self.name()).is_some()
    }

    pub(super) fn init(&self) -> Result<Process> {
        let name = self.name();
        let hint = || format!("host {name} is down: `lab start {name}` brings it back");
        state::init_of(&self.lab_dir, name).with_context(hint)
    }

    /// Starts a command as a process of the host; the caller chooses its streams.
    pub fn spawn(&self, mut command: Command) -> Result<Child> {
        command
            .env("DOCKER_HOST", "unix:///run/overnet/ovnd.sock")
            .env("HOME", "/root")
            .env_remove("DOCKER_CONTEXT");
        let procs = cgroup::procs(&self.state.id, self.name())?;
        let cwd = std::env::current_dir().ok();
        namespace::spawn(self.init()?, &procs, cwd.as_deref(), command)
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run(&self, mut command: Command) -> Output {
        let shown = format!("{}: {command:?}", self.name());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = self.spawn(command);
        let output = child.and_then(|child| Ok(child.wait_with_output()?));
        let output = output.unwrap_or_else(|error| panic!("{shown}: {error:#}"));
        Output {
            command: shown,
            status: exit_code(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The host's `ovnctl`.
    pub fn ctl_command<A: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
    ) -> Result<Command> {
        let mut command = Command::new(binary("ovnctl")?);
        command.args(args);
        Ok(command)
    }

    /// The stock docker command line, speaking to this host's socket.
    pub fn docker_command<A: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
    ) -> Result<Command> {
        let cache = self.cache();
        let mut command = Command::new(stock::docker_cli(&cache)?);
        command
            .args(args)
            .env("DOCKER_CONFIG", cache.join("docker.config"));
        Ok(command)
    }

    /// Runs ovnctl. Panics when it cannot be started.
    pub fn ctl<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        self.run(
            self.ctl_command(args)
                .unwrap_or_else(|error| panic!("{error:#}")),
        )
    }

    /// Runs the stock docker command line. Panics when it cannot be started.
    pub fn docker<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        self.run(
            self.docker_command(args)
                .unwrap_or_else(|error| panic!("{error:#}")),
        )
    }

    /// Runs any program. Panics when it cannot be started.
    ///
    /// # Panics
    /// Without a program.
    pub fn exec<A: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = A>) -> Output {
        let mut words = words.into_iter();
        let program = words.next().expect("a program to run");
        let mut command = Command::new(program);
        command.args(words);
        self.run(command)
    }

    /// One request to the API socket.
    pub fn api(&self, method: &str, path: &str, body: &[u8]) -> Result<Response> {
        let socket = self.socket();
        let stream = UnixStream::connect(&socket)
            .with_context(|| format!("nobody answers at {}", socket.display()))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let headers: &[_] = if body.is_empty() {
            &[]
        } else {
            &[("Content-Type", "application/json")]
        };
        Ok(http::request(stream, method, path, headers, body)?)
    }

    /// Runs `work` on a thread inside the host's network namespace.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        namespace::within(self.init()?, work)
    }

    /// Kills ovnd; containers, networks and the keeper with its descriptors stay.
    pub fn kill(&self) -> Result<()> {
        daemon::ask(&self.dir(), "kill").map(drop)
    }

    /// Stops ovnd as `systemctl stop` does.
    pub fn stop(&self) -> Result<()> {
        daemon::ask(&self.dir(), "stop").map(drop)
    }

    /// One line about ovnd, from its keeper: `ready PID DESCRIPTORS STATUS`.
    pub fn daemon_status(&self) -> Result<String> {
        daemon::ask(&self.dir(), "status")
    }

    /// ovnd's process number as the machine sees it.
    pub fn daemon_pid(&self) -> Result<i32> {
        let inside = self.daemon_status()?;
        let inside = inside.split(' ').nth(1).unwrap_or_default().to_owned();
        let hint = || format!("ovnd on {} does not run", self.name());
        let group = cgroup::procs(&self.state.id, self.name())?;
        let group = group.first().with_context(hint)?;
        let pids = fs::read_to_string(group).with_context(hint)?;
        let same = |pid: &&str| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status
                .lines()
                .find(|line| line.starts_with("NSpid:"))
                .unwrap_or_default();
            line.split_whitespace().next_back() == Some(inside.as_str())
        };
        pids.lines()
            .find(same)
            .and_then(|pid| pid.parse().ok())
            .with_context(hint)
    }

    /// Brings the host back to life: namespaces after a crash, then its daemon.
    pub fn start(&self) -> Result<()> {
        if !self.is_up() {
            self.boot()?;
        }
        match self.member.role {
            Role::Registry => {
                registry::start(&binary("lab")?, &self.state.id, &self.dir(), self.init()?)
            }
            Role::Manager | Role::Worker if self.state.daemons => {
                if !daemon::running(&self.dir()) {
                    self.launch_daemon()?;
                }
                daemon::ask(&self.dir(), "start").map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Everything of the host but its disk ends at once.
    pub fn crash(&self) -> Result<()> {
        self.init()?.end()?;
        switch::unplug(switch::init(&self.lab_dir)?, self.name())?;
        cgroup::remove(&self.state.id, Some(self.name()))?;
        let _ = fs::remove_file(state::init_file(&self.lab_dir, self.name()));
        // What ends with the boot, as if /run were memory.
        let run = self.dir().join("run");
        fs::remove_dir_all(&run).with_context(|| format!("cannot empty {}", run.display()))?;
        Ok(())
    }

    /// Namespaces, file tree, cable; no daemon.
    pub(super) fn boot(&self) -> Result<()> {
        let dir = self.dir();
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let resolver = self.state.members.iter().find(|m| m.role == Role::Registry);
        let resolver =
            resolver.map_or_else(String::new, |m| format!("nameserver {}\n", m.address()));
        let spec = HostSpec {
            lab: self.state.id.clone(),
            name: self.name().to_owned(),
            dir: dir.clone(),
            stack: (self.member.role == Role::Manager).then(|| self.state.stack.clone()),
            hosts: members::hosts_file(&self.state.members, self.name()),
            resolv_conf: resolver,
            hierarchies: cgroup::hierarchies()?,
        };
        let init = host_init::start(&binary("lab")?, &self.lab_dir, &spec)?;
        switch::plug(
            switch::init(&self.lab_dir)?,
            init,
            &self.member,
            self.state.mtu,
        )?;
        if self.member.role == Role::Registry {
            fs::write(
                dir.join("underlay.hosts"),
                underlay_names(&self.state.members),
            )?;
        }
        let link = self.socket();
        let _ = fs::remove_file(&link);
        if self.member.role.has_daemon() {
            symlink("run/ovnd.sock", &link).context("cannot link the API socket")?;
        }
        Ok(())
    }

    /// Starts the keeper and with it ovnd, without waiting for it.
    pub(super) fn launch_daemon(&self) -> Result<()> {
        let program = match &self.state.daemon {
            Some(first) => {
                if !self.program().exists() {
                    self.exchange_daemon(first)?;
                }
                self.program()
            }
            None => binary("ovnd")?,
        };
        let mut command: Vec<OsString> = vec!["/usr/bin/env".into()];
        command.extend(self.state.environment.iter().map(OsString::from));
        command.extend([
            program.into(),
            "--insecure-registry".into(),
            format!("registry:{}", registry::PORT).into(),
            // Names without a registry, as the users' files have them.
            "--default-registry".into(),
            format!("registry:{}", registry::PORT).into(),
        ]);
        command.extend(self.state.daemon_args.iter().map(OsString::from));
        let dir = self.dir();
        daemon::launch(
            &binary("lab")?,
            &self.state.id,
            (self.name(), &dir),
            self.init()?,
            &command,
        )
    }

    /// Has the host start another ovnd the next time: an upgrade's files, before its restart. Only in
    /// a lab with [`Options::daemon`](super::Options::daemon).
    pub fn exchange_daemon(&self, program: &Path) -> Result<()> {
        let link = self.program();
        let next = link.with_extension("next");
        let _ = fs::remove_file(&next);
        symlink(program, &next)
            .and_then(|()| fs::rename(&next, &link))
            .with_context(|| format!("cannot give {} another ovnd", self.name()))
    }

    /// What the keeper starts, where the program may be exchanged.
    fn program(&self) -> PathBuf {
        self.dir().join("ovnd")
    }

    /// Waits until ovnd says that it is ready.
    pub(super) fn await_daemon(&self) -> Result<()> {
        let started = daemon::ask(&self.dir(), "start");
        started
            .map(drop)
            .with_context(|| format!("ovnd on {} does not start", self.name()))
    }

    /// Stops the registry's program on the host `registry`.
    pub fn stop_registry(&self) -> Result<()> {
        registry::stop_registry(&self.dir())
    }

    /// Starts it again.
    pub fn start_registry(&self) -> Result<()> {
        registry::start_registry(&self.state.id, &self.dir(), self.init()?)
    }

    /// Lays a cable to another host beside the switch; their addresses lead over it.
    pub fn cable(&self, other: &Self) -> Result<()> {
        let (a, b) = (self.init()?, other.init()?);
        switch::cable((a, &self.member), (b, &other.member), self.state.mtu)
    }
}

fn underlay_names(all: &[Member]) -> String {
    let line = |m: &Member| format!("{} {}\n{} {}\n", m.address(), m.name, m.address6(), m.name);
    all.iter().map(line).collect()
}

/// The shell's way of telling how a command ended.
pub fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}
