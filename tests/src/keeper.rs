//! Runs one daemon as systemd would: speaks the server's side of the notify protocol
//! (sd_notify(3)), holds the file descriptors the daemon stores, and hands them to its next
//! life. The lab runs one keeper for each `ovnd`.
//!
//! The control socket is a unix stream socket. A client sends one word a line and gets one line
//! back: `ok …` or `error: …`.
//!
//! | word | deed | answer |
//! |---|---|---|
//! | `start` | starts the child if it does not run, waits for its READY=1 | `ok PID` |
//! | `kill` | SIGKILL to the child, waits for its end; keeps its descriptors | `ok` |
//! | `stop` | SIGTERM, waits (SIGKILL after `stop_timeout`); keeps its descriptors | `ok` |
//! | `status` | | `ok STATE PID FDS TEXT`: STATE is `ready`, `starting` or `stopped`; PID 0 without child; FDS is the number of descriptors held; TEXT is the last STATUS= |
//! | `quit` | `stop`, lets go of all descriptors, ends the keeper | `ok` |

mod process;

use std::{
    collections::BTreeMap,
    ffi::{CString, OsString},
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, IoSliceMut, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::{
            ffi::OsStrExt,
            net::{UnixDatagram, UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
        socket::{ControlMessageOwned, MsgFlags, recvmsg},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use self::process::{is_same, spawn};

/// What to run and how.
#[derive(Debug, Clone)]
pub struct KeeperOptions {
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// Added to the keeper's own environment.
    pub env: BTreeMap<OsString, OsString>,
    /// Where the keeper listens; replaced if it exists. Usable as soon as it exists, also while the
    /// child starts.
    pub control_socket: PathBuf,
    /// Gets the child's stdout and stderr, appended.
    pub log_file: PathBuf,
    /// How long `start` waits for READY=1 before it answers with an error (the child runs on).
    pub start_timeout: Duration,
    /// How long `stop` waits before SIGKILL.
    pub stop_timeout: Duration,
    /// WATCHDOG_USEC of the child: without WATCHDOG=1 for that long it is killed and restarted, as
    /// with `Restart=on-watchdog`. Absent: no watchdog.
    pub watchdog: Option<Duration>,
}

/// Starts the child at once and serves the control socket until `quit`, SIGTERM or SIGINT.
/// Blocks; run it as a process of its own, in the namespaces the child shall have.
pub fn run(options: KeeperOptions) -> anyhow::Result<()> {
    let mut keeper = Keeper::new(options)?;
    keeper.start()?;
    while !keeper.over() {
        keeper.turn()?;
    }
    Ok(())
}

/// Sends one word to the keeper at `control_socket` and returns the text after `ok`.
/// Fails with the keeper's sentence, or when nobody listens.
pub fn ask(control_socket: &Path, word: &str, timeout: Duration) -> anyhow::Result<String> {
    let at = control_socket.display();
    let mut stream =
        UnixStream::connect(control_socket).with_context(|| format!("no keeper at {at}"))?;
    stream.set_read_timeout(Some(timeout))?;
    writeln!(stream, "{word}")?;
    let mut line = String::new();
    BufReader::new(stream)
        .read_line(&mut line)
        .with_context(|| format!("no answer to {word:?} from the keeper at {at}"))?;
    match line.trim_end().strip_prefix("ok") {
        Some(rest) => Ok(rest.trim_start().to_owned()),
        None => bail!("keeper at {at}: {word}: {}", line.trim_end()),
    }
}

struct Keeper {
    options: KeeperOptions,
    control: UnixListener,
    notify: UnixDatagram,
    signals: SignalFd,
    clients: Vec<Client>,
    child: Option<Child>,
    /// The descriptors the child stored, oldest first.
    kept: Vec<(String, OwnedFd)>,
    /// The child's last STATUS=.
    status: String,
    quitting: bool,
}

struct Child {
    pid: Pid,
    /// Readable once the child has ended.
    pidfd: OwnedFd,
    ready: bool,
    /// When SIGKILL follows SIGTERM.
    kill_at: Option<Instant>,
    /// The last sign of life that the watchdog counts.
    alive_at: Instant,
    /// Start anew after the end: the watchdog killed it.
    again: bool,
}

struct Client {
    stream: UnixStream,
    heard: Vec<u8>,
    waiting: Option<Waiting>,
    gone: bool,
}

#[derive(Clone, Copy)]
enum Waiting {
    Ready { until: Instant },
    End,
}

impl Keeper {
    fn new(options: KeeperOptions) -> anyhow::Result<Self> {
        ensure!(!options.command.is_empty(), "keeper: no command to run");
        let fresh = |path: &Path| -> anyhow::Result<()> {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(error).with_context(|| format!("cannot replace {}", path.display()))
                }
                _ => Ok(()),
            }
        };
        let notify_path = notify_path(&options.control_socket);
        fresh(&notify_path)?;
        fresh(&options.control_socket)?;
        let listen = || format!("cannot listen at {}", options.control_socket.display());
        let notify = UnixDatagram::bind(&notify_path).with_context(listen)?;
        notify.set_nonblocking(true)?;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGTERM);
        mask.add(Signal::SIGINT);
        mask.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&mask, flags)?;
        let control = UnixListener::bind(&options.control_socket).with_context(listen)?;
        control.set_nonblocking(true)?;
        Ok(Self {
            options,
            control,
            notify,
            signals,
            clients: Vec::new(),
            child: None,
            kept: Vec::new(),
            status: String::new(),
            quitting: false,
        })
    }

    fn over(&self) -> bool {
        self.quitting && self.child.is_none() && self.clients.iter().all(|c| c.waiting.is_none())
    }

    /// Waits until something happens and deals with it.
    fn turn(&mut self) -> anyhow::Result<()> {
        let timeout = match self.next_deadline() {
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now());
                // Rounded up: waking too early would only turn in circles.
                PollTimeout::try_from(left.as_millis() as u64 + 1).unwrap_or(PollTimeout::MAX)
            }
            None => PollTimeout::NONE,
        };
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut waited = vec![
            readable(self.notify.as_fd()),
            readable(self.control.as_fd()),
            readable(self.signals.as_fd()),
        ];
        waited.extend(self.child.iter().map(|c| readable(c.pidfd.as_fd())));
        waited.extend(self.clients.iter().map(|c| readable(c.stream.as_fd())));
        match poll(&mut waited, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("poll"),
        }
        drop(waited);

        // What the child said before its end counts, so it is heard first.
        while self.hear_child()? {}
        self.bury_child()?;
        while let Ok(Some(_)) = self.signals.read_signal() {
            self.quitting = true;
            self.terminate();
        }
        while let Ok((stream, _)) = self.control.accept() {
            stream.set_nonblocking(true)?;
            self.clients.push(Client {
                stream,
                heard: Vec::new(),
                waiting: None,
                gone: false,
            });
        }
        self.keep_time();
        self.serve_clients();
        Ok(())
    }

    fn next_deadline(&self) -> Option<Instant> {
        let watchdog = self.watchdog_deadline();
        let kill = self.child.as_ref().and_then(|child| child.kill_at);
        let clients = self.clients.iter().filter_map(|c| match c.waiting {
            Some(Waiting::Ready { until }) => Some(until),
            _ => None,
        });
        clients.chain(watchdog).chain(kill).min()
    }

    fn watchdog_deadline(&self) -> Option<Instant> {
        let child = self.child.as_ref()?;
        let counts = child.ready && child.kill_at.is_none() && !child.again;
        Some(child.alive_at + self.options.watchdog.filter(|_| counts)?)
    }

    fn keep_time(&mut self) {
        let now = Instant::now();
        let hung = self.watchdog_deadline().is_some_and(|at| at <= now);
        let Some(child) = &mut self.child else { return };
        if hung {
            child.again = true;
            let _ = kill(child.pid, Signal::SIGKILL);
        } else if child.kill_at.is_some_and(|at| at <= now) {
            child.kill_at = None;
            let _ = kill(child.pid, Signal::SIGKILL);
        }
    }

    /// Takes one message from the notify socket; false when there is none.
    fn hear_child(&mut self) -> anyhow::Result<bool> {
        let mut text = [0; 4096];
        let mut parts = [IoSliceMut::new(&mut text)];
        let mut space = nix::cmsg_space!([RawFd; 253]);
        let message = match recvmsg::<()>(
            self.notify.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        ) {
            Ok(message) => message,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(false),
            Err(error) => return Err(error).context("notify socket"),
        };
        let mut fds = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(passed) = control {
                // SAFETY: the kernel has just made these descriptors for this process.
                fds.extend(passed.iter().map(|&fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        let length = message.bytes;
        let text = String::from_utf8_lossy(&text[..length]).into_owned();
        self.take_message(&text, fds);
        Ok(true)
    }

    fn take_message(&mut self, text: &str, fds: Vec<OwnedFd>) {
        let value = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        };
        let name = value("FDNAME").unwrap_or("stored");
        if value("FDSTOREREMOVE") == Some("1") {
            self.kept.retain(|(kept, _)| kept != name);
        } else if value("FDSTORE") == Some("1") {
            for fd in fds {
                if !self.kept.iter().any(|(_, kept)| is_same(kept, &fd)) {
                    self.kept.push((name.to_owned(), fd));
                }
            }
        }
        if let Some(status) = value("STATUS") {
            status.clone_into(&mut self.status);
        }
        if let Some(child) = &mut self.child {
            if value("READY") == Some("1") {
                child.ready = true;
                child.alive_at = Instant::now();
            }
            if value("WATCHDOG") == Some("1") {
                child.alive_at = Instant::now();
            }
        }
    }

    fn bury_child(&mut self) -> anyhow::Result<()> {
        let Some(child) = &self.child else {
            return Ok(());
        };
        match waitpid(child.pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => return Ok(()),
            // ECHILD: somebody else has buried it.
            Ok(_) | Err(_) => {}
        }
        let again = child.again && !self.quitting;
        self.child = None;
        self.status.clear();
        if again {
            self.start()?;
        }
        Ok(())
    }

    fn terminate(&mut self) {
        if let Some(child) = &mut self.child {
            child.again = false;
            child.kill_at = Some(Instant::now() + self.options.stop_timeout);
            let _ = kill(child.pid, Signal::SIGTERM);
        }
    }

    fn serve_clients(&mut self) {
        let mut clients = std::mem::take(&mut self.clients);
        for client in &mut clients {
            client.read();
            if let Some(waiting) = client.waiting
                && let Some(answer) = self.settle(waiting)
            {
                client.answer(&answer);
            }
            while client.waiting.is_none()
                && let Some(word) = client.next_word()
            {
                match self.obey(&word) {
                    Ok(waiting) => client.waiting = Some(waiting),
                    Err(answer) => client.answer(&answer),
                }
                if let Some(waiting) = client.waiting
                    && let Some(answer) = self.settle(waiting)
                {
                    client.answer(&answer);
                }
            }
        }
        clients.retain(|client| !client.gone);
        self.clients = clients;
    }

    /// What to wait for, or the answer.
    fn obey(&mut self, word: &str) -> Result<Waiting, String> {
        match word {
            "start" => {
                if self.child.is_none()
                    && let Err(error) = self.start()
                {
                    return Err(format!("error: {error:#}"));
                }
                Ok(Waiting::Ready {
                    until: Instant::now() + self.options.start_timeout,
                })
            }
            "kill" => {
                if let Some(child) = &mut self.child {
                    child.again = false;
                    let _ = kill(child.pid, Signal::SIGKILL);
                }
                Ok(Waiting::End)
            }
            "stop" => {
                self.terminate();
                Ok(Waiting::End)
            }
            "quit" => {
                self.quitting = true;
                self.terminate();
                Ok(Waiting::End)
            }
            "status" => Err(self.describe()),
            other => Err(format!(
                "error: unknown word {other:?}; known are start, kill, stop, status and quit"
            )),
        }
    }

    /// The answer, once there is one.
    fn settle(&self, waiting: Waiting) -> Option<String> {
        match (waiting, &self.child) {
            (Waiting::Ready { .. }, Some(child)) if child.ready => {
                Some(format!("ok {}", child.pid))
            }
            (Waiting::Ready { .. }, None) => Some(format!(
                "error: the child ended before READY=1; its words are in {}",
                self.options.log_file.display()
            )),
            (Waiting::Ready { until }, Some(_)) => (until <= Instant::now()).then(|| {
                format!(
                    "error: no READY=1 after {:?}; the child runs on, its words are in {}",
                    self.options.start_timeout,
                    self.options.log_file.display()
                )
            }),
            (Waiting::End, None) => Some("ok".to_owned()),
            (Waiting::End, Some(_)) => None,
        }
    }

    fn describe(&self) -> String {
        let (state, pid) = match &self.child {
            Some(child) if child.ready => ("ready", child.pid.as_raw()),
            Some(child) => ("starting", child.pid.as_raw()),
            None => ("stopped", 0),
        };
        let answer = format!("ok {state} {pid} {} {}", self.kept.len(), self.status);
        answer.trim_end().to_owned()
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.options.log_file)
            .with_context(|| format!("cannot write {}", self.options.log_file.display()))?;
        let nothing = File::open("/dev/null").context("/dev/null")?;
        let words = self.command_line()?;
        let environment = self.environment()?;
        let kept: Vec<RawFd> = self.kept.iter().map(|(_, fd)| fd.as_raw_fd()).collect();
        let standard = [nothing.as_raw_fd(), log.as_raw_fd(), log.as_raw_fd()];
        let pid = spawn(&words, &environment, standard, &kept)?;
        // SAFETY: the call takes a pid and flags and returns a new descriptor or -1.
        let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
        ensure!(pidfd >= 0, "pidfd_open: {}", Errno::last());
        self.child = Some(Child {
            pid,
            // SAFETY: the kernel has just made it for us.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd as RawFd) },
            ready: false,
            kill_at: None,
            alive_at: Instant::now(),
            again: false,
        });
        Ok(())
    }

    /// The command, run by a shell that puts its own process id into LISTEN_PID and then becomes the
    /// command: the id is known only after the fork, when memory can no longer be had safely.
    fn command_line(&self) -> anyhow::Result<Vec<CString>> {
        let script = if self.kept.is_empty() {
            c"exec \"$@\""
        } else {
            c"export LISTEN_PID=$$; exec \"$@\""
        };
        let mut words: Vec<CString> = [c"/bin/sh", c"-c", script, c"sh"].map(CString::from).into();
        for word in &self.options.command {
            words.push(CString::new(word.as_bytes()).context("command")?);
        }
        Ok(words)
    }

    fn environment(&self) -> anyhow::Result<Vec<CString>> {
        const OURS: [&str; 6] = [
            "LISTEN_PID",
            "LISTEN_FDS",
            "LISTEN_FDNAMES",
            "NOTIFY_SOCKET",
            "WATCHDOG_USEC",
            "WATCHDOG_PID",
        ];
        let mut all: BTreeMap<OsString, OsString> = std::env::vars_os()
            .filter(|(name, _)| !OURS.iter().any(|ours| name == ours))
            .collect();
        all.extend(self.options.env.clone());
        let notify = std::path::absolute(notify_path(&self.options.control_socket))?;
        all.insert("NOTIFY_SOCKET".into(), notify.into());
        if let Some(limit) = self.options.watchdog {
            all.insert("WATCHDOG_USEC".into(), limit.as_micros().to_string().into());
        }
        if !self.kept.is_empty() {
            let names: Vec<&str> = self.kept.iter().map(|(name, _)| name.as_str()).collect();
            all.insert("LISTEN_FDS".into(), names.len().to_string().into());
            all.insert("LISTEN_FDNAMES".into(), names.join(":").into());
        }
        all.into_iter()
            .map(|(name, value)| {
                let mut both = name;
                both.push("=");
                both.push(value);
                CString::new(both.as_bytes()).context("environment")
            })
            .collect()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.options.control_socket);
        let _ = std::fs::remove_file(notify_path(&self.options.control_socket));
    }
}

impl Client {
    fn read(&mut self) {
        let mut bytes = [0; 256];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => {
                    self.gone = true;
                    // Nobody is left to hear an answer.
                    self.waiting = None;
                    return;
                }
                Ok(length) if self.heard.len() < 4096 => {
                    self.heard.extend_from_slice(&bytes[..length]);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => {
                    self.gone = true;
                    self.waiting = None;
                    return;
                }
            }
        }
    }

    fn next_word(&mut self) -> Option<String> {
        let end = self.heard.iter().position(|&b| b == b'\n')?;
        let line: Vec<u8> = self.heard.drain(..=end).collect();
        Some(String::from_utf8_lossy(&line).trim().to_owned())
    }

    fn answer(&mut self, line: &str) {
        self.waiting = None;
        // A line fits into any socket buffer; who does not read it has gone.
        if writeln!(self.stream, "{line}").is_err() {
            self.gone = true;
        }
    }
}

fn notify_path(control_socket: &Path) -> PathBuf {
    let mut path = control_socket.as_os_str().to_owned();
    path.push(".notify");
    path.into()
}

#[cfg(test)]
mod tests;
