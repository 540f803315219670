//! The thin executor under the engine: an OCI runtime program (crun, runc) and conmon, its
//! monitor. Nothing is decided here.
//!
//! A container's root file system is mounted in a private mount namespace that only its monitor
//! and the container see. When both are gone the mount is gone too, whatever happened to this
//! process. Of our mounts the host sees the file systems of volumes only, which containers share.

pub mod attach;
pub mod bundle;
pub mod capability;
pub mod mountinfo;
pub mod part;
pub mod private;
pub mod rootfs;
pub mod seccomp;
mod spawn;
pub mod user;

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::Deserialize;
use tokio::io::{Interest, unix::AsyncFd};

/// Where the two programs and their state are.
#[derive(Debug, Clone)]
pub struct Executor {
    pub runtime: PathBuf,
    pub monitor: PathBuf,
    /// The runtime's `--root`.
    pub state_dir: PathBuf,
    /// conmon's exit files, named by container.
    pub exit_dir: PathBuf,
    /// conmon's links to attach sockets.
    pub socket_dir: PathBuf,
    /// crun before 1.9 refuses a host with both cgroup versions; it is run without seeing
    /// the second.
    pub hide_unified: bool,
}

/// Why a program did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// The runtime's own words.
    #[error("{0}")]
    Refused(String),
    /// What was asked for cannot be had; told to the user as it is.
    #[error(transparent)]
    Wish(#[from] model::Refusal),
    #[error("{doing}: {source}")]
    Io {
        doing: String,
        source: std::io::Error,
    },
}

impl OciError {
    pub fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

/// What to hand to a new monitor.
#[derive(Debug, Clone)]
pub struct Launch<'a> {
    pub container: &'a str,
    pub bundle: &'a Path,
    pub tty: bool,
    pub stdin: bool,
    pub leave_stdin_open: bool,
    /// Absent: nothing is kept.
    pub log: Option<&'a Path>,
    /// Bytes.
    pub log_max: Option<u64>,
}

/// What to hand to the monitor of one more process in a container.
#[derive(Debug, Clone)]
pub struct LaunchExec<'a> {
    pub container: &'a str,
    pub exec: &'a str,
    /// Its own directory with `process.json` and `exit/`.
    pub dir: &'a Path,
    pub tty: bool,
    pub stdin: bool,
}

/// A process and what tells it from a later one with the same number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ProcessId {
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`: clock ticks since boot.
    pub start_time: u64,
}

impl ProcessId {
    /// Looks a running process up.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        if matches!(fields.next()?, "Z" | "X") {
            return None;
        }
        let start_time = fields.nth(18)?.parse().ok()?;
        Some(Self { pid, start_time })
    }

    pub fn alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}

/// An exec that waits for its streams to be connected.
pub struct PreparedExec {
    sync: File,
    start: Option<std::io::PipeWriter>,
}

#[derive(Deserialize)]
struct SyncMessage {
    data: i64,
    #[serde(default)]
    message: String,
}

/// All of the environment that the runtime gets: it takes a service manager's NOTIFY_SOCKET as
/// meant for the container.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Executor {
    /// Creates (does not start) the container of a bundle. To be called in the private mount
    /// namespace in which its root file system is mounted. Returns the first process and the
    /// monitor.
    pub fn create(&self, launch: &Launch<'_>) -> Result<(ProcessId, ProcessId), OciError> {
        let mut arguments = self.monitor_arguments(launch.container, launch.container);
        arguments.extend([
            "-b".into(),
            launch.bundle.display().to_string(),
            "-p".into(),
            launch.bundle.join("init.pid").display().to_string(),
            "-P".into(),
            launch.bundle.join("monitor.pid").display().to_string(),
            "--exit-dir".into(),
            self.exit_dir.display().to_string(),
            "-l".into(),
            launch.log.map_or_else(
                || "none".into(),
                |path| format!("k8s-file:{}", path.display()),
            ),
        ]);
        if let Some(max) = launch.log_max {
            arguments.extend(["--log-size-max".into(), max.to_string()]);
        }
        for (wanted, flag) in [
            (launch.tty, "-t"),
            (launch.stdin, "-i"),
            (launch.leave_stdin_open, "--leave-stdin-open"),
        ] {
            if wanted {
                arguments.push(flag.into());
            }
        }
        let mut child = spawn::monitor(&self.monitor, &arguments, false)?;
        child.start_now();
        child.reap();
        let mut text = String::new();
        read_line(&mut child.sync, &mut text)?;
        let pid = parse_sync(&text)?;
        let process = ProcessId::of(pid as i32).unwrap_or(ProcessId {
            pid: pid as i32,
            start_time: 0,
        });
        let monitor = read_pid(&launch.bundle.join("monitor.pid"))
            .and_then(ProcessId::of)
            .unwrap_or_default();
        Ok((process, monitor))
    }

    /// Starts the monitor of an exec; the command waits for [`PreparedExec::run`].
    pub fn prepare_exec(&self, launch: &LaunchExec<'_>) -> Result<PreparedExec, OciError> {
        let mut arguments = self.monitor_arguments(launch.container, launch.exec);
        let dir = launch.dir;
        arguments.extend([
            "-b".into(),
            dir.display().to_string(),
            "-e".into(),
            "--exec-attach".into(),
            "--exec-process-spec".into(),
            dir.join("process.json").display().to_string(),
            "-p".into(),
            dir.join("pid").display().to_string(),
            "-P".into(),
            dir.join("monitor.pid").display().to_string(),
            "--exit-dir".into(),
            dir.join("exit").display().to_string(),
            "-l".into(),
            "none".into(),
        ]);
        if launch.tty {
            arguments.push("-t".into());
        }
        if launch.stdin {
            arguments.push("-i".into());
        }
        let mut child = spawn::monitor(&self.monitor, &arguments, true)?;
        child.start_now();
        child.reap();
        let mut attach = child.attach.take().expect("asked for");
        let mut text = String::new();
        let _ = read_line(&mut attach, &mut text);
        Ok(PreparedExec {
            sync: child.sync,
            start: child.start.take(),
        })
    }

    pub fn start(&self, container: &str) -> Result<(), OciError> {
        self.call(&["start", container])
    }

    pub fn kill(&self, container: &str, signal: i32) -> Result<(), OciError> {
        self.call(&["kill", container, &signal.to_string()])
    }

    /// Also of one that is half made; one that is not known is fine.
    pub fn delete(&self, container: &str) -> Result<(), OciError> {
        if !self.state_dir.join(container).exists() {
            return Ok(());
        }
        self.call(&["delete", "--force", container])
    }

    pub fn pause(&self, container: &str) -> Result<(), OciError> {
        self.call(&["pause", container])
    }

    pub fn resume(&self, container: &str) -> Result<(), OciError> {
        self.call(&["resume", container])
    }

    /// Gives a container that runs the limits of the file, in the form of `linux.resources`.
    pub fn update(&self, container: &str, limits: &Path) -> Result<(), OciError> {
        let limits = limits.display().to_string();
        self.call(&["update", "--resources", &limits, container])
    }

    /// The first line of `--version`.
    pub fn version(&self) -> String {
        Command::new(&self.runtime)
            .env_clear()
            .env("PATH", SEARCH_PATH)
            .arg("--version")
            .output()
            .ok()
            .and_then(|output| String::from_utf8(output.stdout).ok())
            .and_then(|text| text.lines().next().map(str::to_owned))
            .unwrap_or_default()
    }

    fn call(&self, arguments: &[&str]) -> Result<(), OciError> {
        let output = Command::new(&self.runtime)
            .env_clear()
            .env("PATH", SEARCH_PATH)
            .arg("--root")
            .arg(&self.state_dir)
            .args(self.runtime_options())
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(OciError::io(format!("running {}", self.runtime.display())))?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        Err(OciError::Refused(first_words(&text)))
    }

    fn runtime_options(&self) -> &'static [&'static str] {
        let is_crun = self
            .runtime
            .file_name()
            .is_some_and(|name| name.to_string_lossy().contains("crun"));
        if is_crun {
            &["--cgroup-manager=cgroupfs"]
        } else {
            &[]
        }
    }

    fn monitor_arguments(&self, container: &str, unique: &str) -> Vec<String> {
        let mut arguments: Vec<String> = vec![
            self.monitor.display().to_string(),
            "--api-version".into(),
            "1".into(),
            "-c".into(),
            container.into(),
            "-u".into(),
            unique.into(),
            "-r".into(),
            self.runtime.display().to_string(),
            "--socket-dir-path".into(),
            self.socket_dir.display().to_string(),
            "--log-level".into(),
            "warning".into(),
            "--no-sync-log".into(),
            "--runtime-arg".into(),
            "--root".into(),
            "--runtime-arg".into(),
            self.state_dir.display().to_string(),
        ];
        for option in self.runtime_options() {
            arguments.push("--runtime-arg".into());
            arguments.push((*option).into());
        }
        arguments
    }
}

impl PreparedExec {
    /// Lets the command run; gives its process number.
    pub fn run(&mut self) -> Result<i32, OciError> {
        drop(self.start.take());
        let mut text = String::new();
        read_line(&mut self.sync, &mut text)?;
        Ok(parse_sync(&text)? as i32)
    }

    /// Blocks until it ended; absent when its monitor was killed.
    pub fn wait(mut self) -> Option<i64> {
        let mut text = String::new();
        read_line(&mut self.sync, &mut text).ok()?;
        parse_sync(&text).ok()
    }
}

fn parse_sync(text: &str) -> Result<i64, OciError> {
    let message: SyncMessage = serde_json::from_str(text.trim()).map_err(|_| {
        OciError::Refused(if text.is_empty() {
            "the container's monitor died at once".to_owned()
        } else {
            text.trim().to_owned()
        })
    })?;
    if message.data < 0 {
        return Err(OciError::Refused(first_words(&message.message)));
    }
    Ok(message.data)
}

/// crun starts its lines with a time stamp or its own name; people need what follows.
fn first_words(text: &str) -> String {
    let line = text
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("no reason given")
        .trim();
    match line.split_once(": ") {
        Some((stamp, rest)) if stamp.starts_with("20") && stamp.ends_with('Z') => rest.to_owned(),
        _ => line.to_owned(),
    }
}

fn read_line(file: &mut File, text: &mut String) -> Result<(), OciError> {
    let mut byte = [0];
    loop {
        let count = file
            .read(&mut byte)
            .map_err(OciError::io("reading the monitor's answer"))?;
        if count == 0 || byte[0] == b'\n' {
            return Ok(());
        }
        text.push(byte[0] as char);
    }
}

/// Reads a pid file.
pub fn read_pid(path: &Path) -> Option<i32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Ends when the process has; at once when it is not there.
pub async fn ended(process: ProcessId) {
    let Ok(fd) = pidfd(process.pid) else { return };
    if !process.alive() {
        return;
    }
    // SAFETY: an owned descriptor is the same one for life.
    let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    if let Ok(ready) = registered {
        let _ = ready.readable().await;
    }
}

/// Sends `process` a signal, never a later one with the same number; `ESRCH` when it has ended.
pub fn signal(process: ProcessId, signal: i32) -> std::io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let fd = pidfd(process.pid)?;
    // Whoever has the number now is whom the descriptor means.
    if !process.alive() {
        return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
    }
    let nothing = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: pidfd_send_signal(2) reads no memory of ours when it is given no siginfo.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            fd.as_raw_fd(),
            signal,
            nothing,
            0,
        )
    };
    if sent == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

fn pidfd(pid: i32) -> std::io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd as _;
    // SAFETY: pidfd_open takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
    let fd = unsafe { std::os::fd::OwnedFd::from_raw_fd(fd as i32) };
    Ok(fd)
}
