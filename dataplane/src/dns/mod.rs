//! The name server of the containers: at 127.0.0.11 inside each sandbox's network namespace,
//! for the names of the networks that the sandbox has interfaces on; everything else is asked
//! of the sandbox's upstream servers from the host's namespace.
//!
//! ```text
//! Desired, Change ─▶ Zone (a value, swapped whole) ─▶ answer(packet) ─▶ reply | forward | nothing
//!                                                        ▲    one thread for UDP of all sandboxes,
//!                                                        │    tasks for TCP and for forwarded questions
//! ```

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::desired::{Change, Desired};

/// Where the sockets listen in each sandbox's namespace.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The port of the sockets, UDP and TCP. Port 53 of [`ADDRESS`] is redirected to it by the
/// sandbox's nftables rules, so that a container can run a name server of its own on port 53.
pub const PORT: u16 = 61053;

/// What every file descriptor name begins with that [`DnsServer`] gives to its [`FdKeeper`].
pub const FD_PREFIX: &str = "dns.";

/// Keeps file descriptors beyond the end of this process: systemd's file descriptor store.
///
/// A stored descriptor is a duplicate; the next process gets it back by name through
/// [`DnsConfig::inherited`]. Names are at most 80 characters of `[a-z0-9.]` and the sandbox's id.
pub trait FdKeeper: Send + Sync {
    fn store(&self, name: &str, fd: BorrowedFd<'_>) -> io::Result<()>;
    /// Removing what is not there is fine.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// Keeps nothing: for tests and for a daemon that runs without systemd.
#[derive(Debug, Clone, Copy, Default)]
pub struct Forgetful;

impl FdKeeper for Forgetful {
    fn store(&self, _name: &str, _fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }
    fn remove(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }
}

pub struct DnsConfig {
    /// Descriptors that the previous process left with the keeper, by name. Those whose name
    /// does not begin with [`FD_PREFIX`] are closed unseen: hand over your own only.
    pub inherited: Vec<(String, OwnedFd)>,
    pub keeper: Arc<dyn FdKeeper>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("name server of sandbox {sandbox}: cannot enter its network namespace {}: {source}", path.display())]
    Netns {
        sandbox: String,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "name server of sandbox {sandbox}: cannot listen at 127.0.0.11:{PORT}/{protocol}: {source}; is `lo` up in its namespace?"
    )]
    Listen {
        sandbox: String,
        protocol: &'static str,
        source: io::Error,
    },
    #[error("name server: cannot start: {0}")]
    Start(io::Error),
    #[error("name server: it has been shut down")]
    Down,
}

/// The name server of all sandboxes of this host.
pub struct DnsServer {}

impl DnsServer {
    /// Starts without any name and any socket; inherited sockets wait for [`Self::open`].
    /// Call it inside a tokio runtime whose threads stay in the host's network namespace.
    pub fn start(_config: DnsConfig) -> Result<Self, Error> {
        todo!()
    }

    /// Takes over the whole wish. Sockets (inherited ones too) of sandboxes that are not in it, or
    /// have no `dns` there, are closed and forgotten: call it only when the wish is known.
    pub fn replace(&self, _desired: &Desired) {
        todo!()
    }

    /// Takes over steps from the present wish. Sockets of removed sandboxes are closed.
    /// Costs some 10 µs a change however large the networks are; questions never wait for it.
    pub fn apply(&self, _changes: &[Change]) {
        todo!()
    }

    /// Makes the sandbox's sockets, UDP and TCP, in the namespace bound at `netns`, where `lo`
    /// must be up; or adopts the inherited ones if they belong to that very namespace. Does
    /// nothing when they are already there. Fed by [`Self::replace`] or [`Self::apply`] before or
    /// after; until then questions are answered SERVFAIL.
    pub async fn open(&self, _sandbox: &str, _netns: &Path) -> Result<(), Error> {
        todo!()
    }

    /// Closes the sandbox's sockets and takes them from the keeper. Closing twice is fine.
    pub fn close(&self, _sandbox: &str) {
        todo!()
    }

    /// Stops answering and waits for all tasks. The keeper keeps the sockets, so questions wait
    /// in them for the next process.
    pub async fn shutdown(self) {
        todo!()
    }
}
