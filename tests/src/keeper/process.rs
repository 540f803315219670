//! Descriptors compared, and a child born with those it shall have.

use std::{
    ffi::CString,
    fs::File,
    os::{
        fd::{OwnedFd, RawFd},
        unix::fs::MetadataExt,
    },
};

use anyhow::bail;
use nix::{errno::Errno, unistd::Pid};

/// Whether two descriptors are of the same file or socket.
pub(super) fn is_same(a: &OwnedFd, b: &OwnedFd) -> bool {
    let identity = |fd: &OwnedFd| {
        let metadata = File::from(fd.try_clone().ok()?).metadata().ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    identity(a).is_some_and(|found| Some(found) == identity(b))
}

/// Runs `words[0]` with `standard` as descriptors 0 to 2 and `kept` as 3, 4, ….
pub(super) fn spawn(
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
