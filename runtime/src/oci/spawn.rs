//! Starting a monitor with its pipes, without forking this process's memory.

use std::{
    ffi::CString,
    fs::File,
    io::{PipeWriter, Write as _, pipe},
    os::fd::{AsRawFd as _, OwnedFd, RawFd},
    path::Path,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn},
    sys::{
        signal::{SigSet, Signal},
        stat::Mode,
        wait::waitpid,
    },
    unistd::Pid,
};

use super::OciError;

/// A monitor that is about to go its own way.
pub(super) struct Monitor {
    pid: Pid,
    /// It tells the container's first process, or why there is none.
    pub sync: File,
    /// It waits for a byte or the end here.
    pub start: Option<PipeWriter>,
    /// It says here that its attach socket is there.
    pub attach: Option<File>,
}

const SYNC: RawFd = 3;
const START: RawFd = 4;
const ATTACH: RawFd = 5;

/// conmon 2.1 looks once more at what it kept of a listener that left while output came, after it has
/// freed it. Several that leave at once made glibc give that memory back (mallopt(3)), and the look was
/// the end of conmon and of the container.
const KEEPS_MEMORY: &str = "MALLOC_TRIM_THRESHOLD_=1073741824";

pub(super) fn monitor(
    program: &Path,
    arguments: &[String],
    attach: bool,
) -> Result<Monitor, OciError> {
    spawn(program, arguments, attach)
        .map_err(OciError::io(format!("running {}", program.display())))
}

fn spawn(program: &Path, arguments: &[String], attach: bool) -> std::io::Result<Monitor> {
    let (sync, sync_child) = pipe()?;
    let (start_child, start) = pipe()?;
    let (attach_here, attach_child) = pipe()?;

    let mut actions = PosixSpawnFileActions::init()?;
    actions.add_open(0, "/dev/null", OFlag::O_RDWR, Mode::empty())?;
    actions.add_open(1, "/dev/null", OFlag::O_RDWR, Mode::empty())?;
    actions.add_open(2, "/dev/null", OFlag::O_RDWR, Mode::empty())?;
    // Moved out of the way first: a source might bear the number of another's target.
    let sync_high = high(&sync_child)?;
    let start_high = high(&start_child)?;
    let attach_high = high(&attach_child)?;
    actions.add_dup2(sync_high.as_raw_fd(), SYNC)?;
    actions.add_dup2(start_high.as_raw_fd(), START)?;
    let mut environment = vec![
        c_string(&format!("_OCI_SYNCPIPE={SYNC}"))?,
        c_string(&format!("_OCI_STARTPIPE={START}"))?,
        c_string("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")?,
        c_string(KEEPS_MEMORY)?,
    ];
    if attach {
        actions.add_dup2(attach_high.as_raw_fd(), ATTACH)?;
        environment.push(c_string(&format!("_OCI_ATTACHPIPE={ATTACH}"))?);
    }

    // Rust ignores SIGPIPE; the container must not inherit that.
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK,
    )?;
    let mut defaults = SigSet::empty();
    defaults.add(Signal::SIGPIPE);
    attributes.set_sigdefault(&defaults)?;
    attributes.set_sigmask(&SigSet::empty())?;

    let arguments = arguments
        .iter()
        .map(|argument| c_string(argument))
        .collect::<std::io::Result<Vec<_>>>()?;
    let pid = posix_spawn(program, &actions, &attributes, &arguments, &environment)?;
    Ok(Monitor {
        pid,
        sync: File::from(OwnedFd::from(sync)),
        start: Some(start),
        attach: attach.then(|| File::from(OwnedFd::from(attach_here))),
    })
}

fn high(fd: &impl std::os::fd::AsFd) -> std::io::Result<OwnedFd> {
    use std::os::fd::FromRawFd as _;
    let copy = fcntl(fd.as_fd(), FcntlArg::F_DUPFD_CLOEXEC(64))?;
    // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

fn c_string(text: &str) -> std::io::Result<CString> {
    CString::new(text).map_err(std::io::Error::other)
}

impl Monitor {
    /// Lets it call the runtime.
    pub fn start_now(&mut self) {
        if let Some(start) = &mut self.start {
            let _ = start.write_all(b"1");
        }
    }

    /// The process we started ends as soon as the monitor proper runs on its own.
    pub fn reap(&mut self) {
        let _ = waitpid(self.pid, None);
    }
}
