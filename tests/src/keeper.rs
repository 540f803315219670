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

use std::{
    collections::BTreeMap,
    ffi::{CString, OsString},
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, IoSliceMut, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::{
            ffi::OsStrExt,
            fs::MetadataExt,
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

/// Whether two descriptors are of the same file or socket.
fn is_same(a: &OwnedFd, b: &OwnedFd) -> bool {
    let identity = |fd: &OwnedFd| {
        let metadata = File::from(fd.try_clone().ok()?).metadata().ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    identity(a).is_some_and(|found| Some(found) == identity(b))
}

/// Runs `words[0]` with `standard` as descriptors 0 to 2 and `kept` as 3, 4, ….
fn spawn(
    words: &[CString],
    environment: &[CString],
    standard: [RawFd; 3],
    kept: &[RawFd],
) -> anyhow::Result<Pid> {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        let all = strings.iter().map(|s| s.as_ptr());
        all.chain([std::ptr::null()]).collect()
    };
    let argv = pointers(words);
    let envp = pointers(environment);
    let wanted: Vec<RawFd> = standard.iter().chain(kept).copied().collect();
    let mut moved = vec![-1; wanted.len()];
    // SAFETY: the child calls nothing but async-signal-safe functions on memory that was laid out
    // before, and ends in execve or _exit.
    match unsafe { libc::fork() } {
        -1 => bail!("fork: {}", Errno::last()),
        // SAFETY: as above: system calls on memory that was laid out before.
        0 => unsafe {
            libc::setsid();
            let mut none = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
            // First out of the way, above all places, then each into its place.
            let above = wanted.len() as RawFd;
            for (at, &fd) in wanted.iter().enumerate() {
                moved[at] = libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, above);
            }
            for (at, &fd) in moved.iter().enumerate() {
                if libc::dup2(fd, at as RawFd) < 0 {
                    libc::_exit(126);
                }
            }
            libc::execve(argv[0], argv.as_ptr(), envp.as_ptr());
            libc::_exit(127)
        },
        pid => Ok(Pid::from_raw(pid)),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::UdpSocket,
        os::fd::BorrowedFd,
        sync::atomic::{AtomicBool, Ordering},
    };

    use nix::sys::socket::{ControlMessage, UnixAddr, sendmsg};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Not a test but the child of the others: a daemon of few words.
    #[test]
    fn child_of_the_keeper() {
        let Some(folder) = std::env::var_os("KEEPER_TEST_CHILD") else {
            return;
        };
        let folder = PathBuf::from(folder);
        let line = UnixDatagram::unbound().unwrap();
        let path = std::env::var("NOTIFY_SOCKET").unwrap();
        let variable = |name| std::env::var(name).ok();
        let report = match variable("LISTEN_FDS") {
            None => {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                let fds = [socket.as_raw_fd()];
                for _ in 0..2 {
                    sendmsg(
                        line.as_raw_fd(),
                        &[std::io::IoSlice::new(b"FDSTORE=1\nFDNAME=first\n")],
                        &[ControlMessage::ScmRights(&fds)],
                        MsgFlags::empty(),
                        Some(&UnixAddr::new(path.as_str()).unwrap()),
                    )
                    .unwrap();
                }
                format!("made {}", socket.local_addr().unwrap())
            }
            Some(count) => {
                assert_eq!(variable("LISTEN_PID"), Some(std::process::id().to_string()));
                // SAFETY: the keeper passed it.
                let fd = unsafe { BorrowedFd::borrow_raw(3) };
                let socket = UdpSocket::from(fd.try_clone_to_owned().unwrap());
                socket.set_nonblocking(true).unwrap();
                let mut question = [0; 16];
                let heard = socket.recv(&mut question).unwrap_or(0);
                format!(
                    "got {count} {} {} {}",
                    variable("LISTEN_FDNAMES").unwrap(),
                    socket.local_addr().unwrap(),
                    String::from_utf8_lossy(&question[..heard])
                )
            }
        };
        std::fs::write(folder.join("report"), report).unwrap();
        line.send_to(b"READY=1\nSTATUS=at work\n", &path).unwrap();
        // The watchdog's turn: a child that hangs once lives on quietly the second time.
        while variable("WATCHDOG_USEC").is_some() && folder.join("pings").exists() {
            line.send_to(b"WATCHDOG=1", &path).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
        loop {
            std::thread::park();
        }
    }

    fn options(folder: &Path) -> KeeperOptions {
        let child = [
            "--exact",
            "keeper::tests::child_of_the_keeper",
            "--nocapture",
        ];
        let mut command = vec![std::env::current_exe().unwrap().into_os_string()];
        command.extend(child.iter().map(OsString::from));
        KeeperOptions {
            command,
            env: [("KEEPER_TEST_CHILD".into(), folder.into())].into(),
            control_socket: folder.join("control"),
            log_file: folder.join("log"),
            start_timeout: PATIENCE,
            stop_timeout: PATIENCE,
            watchdog: None,
        }
    }

    /// A keeper on a thread that has quit by the end of the test, however it ends.
    struct Running {
        control: PathBuf,
        thread: Option<std::thread::JoinHandle<anyhow::Result<()>>>,
    }

    impl Running {
        fn start(options: KeeperOptions) -> Self {
            let control = options.control_socket.clone();
            let ended = std::sync::Arc::new(AtomicBool::new(false));
            let thread = std::thread::spawn({
                let ended = std::sync::Arc::clone(&ended);
                move || {
                    let result = run(options);
                    ended.store(true, Ordering::SeqCst);
                    result
                }
            });
            let begun = Instant::now();
            while !control.exists() && !ended.load(Ordering::SeqCst) {
                assert!(begun.elapsed() < PATIENCE, "no control socket");
                std::thread::yield_now();
            }
            Self {
                control,
                thread: Some(thread),
            }
        }

        fn ask(&self, word: &str) -> String {
            ask(&self.control, word, PATIENCE).unwrap()
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = ask(&self.control, "quit", PATIENCE);
            let _ = self.thread.take().map(std::thread::JoinHandle::join);
        }
    }

    #[test]
    fn stored_descriptors_outlive_the_child() {
        let folder = tempfile::tempdir().unwrap();
        let report = || std::fs::read_to_string(folder.path().join("report")).unwrap();
        let keeper = Running::start(options(folder.path()));
        let pid = keeper.ask("start");
        // Stored twice, held once.
        assert_eq!(keeper.ask("status"), format!("ready {pid} 1 at work"));
        let address = report().strip_prefix("made ").unwrap().to_owned();

        keeper.ask("kill");
        assert_eq!(keeper.ask("status"), "stopped 0 1");
        let asker = UdpSocket::bind("127.0.0.1:0").unwrap();
        asker.send_to(b"anybody?", &address).unwrap();

        let next = keeper.ask("start");
        assert_ne!(next, pid);
        assert_eq!(report(), format!("got 1 first {address} anybody?"));
        keeper.ask("stop");
        keeper.ask("stop");
        assert_eq!(keeper.ask("status"), "stopped 0 1");
        let error = ask(&keeper.control, "dance", PATIENCE).unwrap_err();
        assert!(error.to_string().contains("unknown word"), "{error}");
    }

    #[test]
    fn a_child_that_ends_early_is_an_error_with_the_place_of_its_words() {
        let folder = tempfile::tempdir().unwrap();
        let mut options = options(folder.path());
        options.command = ["sh", "-c", "echo no luck; exit 3"]
            .map(OsString::from)
            .into();
        let keeper = Running::start(options);
        let error = ask(&keeper.control, "start", PATIENCE).unwrap_err();
        assert!(
            error.to_string().contains("ended before READY=1"),
            "{error}"
        );
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
        assert!(log.contains("no luck"), "{log}");
    }

    #[test]
    fn a_child_that_hangs_is_restarted() {
        let folder = tempfile::tempdir().unwrap();
        let pings = folder.path().join("pings");
        std::fs::write(&pings, "").unwrap();
        let mut options = options(folder.path());
        options.watchdog = Some(Duration::from_secs(2));
        let keeper = Running::start(options);
        let pid = keeper.ask("start");
        std::fs::remove_file(&pings).unwrap();
        let begun = Instant::now();
        loop {
            let status = keeper.ask("status");
            if !status.contains(&format!(" {pid} ")) {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{status}");
            std::thread::sleep(Duration::from_millis(20));
        }
        println!("restarted after {:?}", begun.elapsed());
    }
}
