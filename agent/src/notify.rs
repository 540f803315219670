//! What the service manager and the daemon tell each other: sd_notify(3), sd_listen_fds_with_names(3)
//! and the file descriptor store, spoken directly.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    time::Duration,
};

/// The line to the service manager; every call does nothing and succeeds without one.
/// Cheap to clone and to share.
#[derive(Debug, Clone)]
pub struct Notifier {}

impl Notifier {
    /// Reads NOTIFY_SOCKET and WATCHDOG_USEC. Call it once, first thing in `main`.
    pub fn from_env() -> Self {
        todo!()
    }

    pub fn ready(&self) -> io::Result<()> {
        todo!()
    }

    pub fn stopping(&self) -> io::Result<()> {
        todo!()
    }

    /// One line for `systemctl status`; line breaks become spaces.
    pub fn status(&self, _text: &str) -> io::Result<()> {
        todo!()
    }

    pub fn ping_watchdog(&self) -> io::Result<()> {
        todo!()
    }

    /// How often to ping: half of what the service manager allows. Absent: it does not watch.
    pub fn watchdog_period(&self) -> Option<Duration> {
        todo!()
    }
}

impl dataplane::dns::FdKeeper for Notifier {
    fn store(&self, _name: &str, _fd: BorrowedFd<'_>) -> io::Result<()> {
        todo!()
    }
    fn remove(&self, _name: &str) -> io::Result<()> {
        todo!()
    }
}

/// Takes the descriptors that the service manager passed (LISTEN_PID, LISTEN_FDS,
/// LISTEN_FDNAMES), with their names, and makes them close-on-exec. Empty when the environment
/// is meant for another process, and at the second call.
pub fn inherited_fds() -> Vec<(String, OwnedFd)> {
    todo!()
}
