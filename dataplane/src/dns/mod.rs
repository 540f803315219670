//! The name server of the containers: at 127.0.0.11 inside each sandbox's network namespace,
//! for the names of the networks that the sandbox has interfaces on; everything else is asked
//! of the sandbox's upstream servers from the host's namespace.
//!
//! ```text
//! Desired, Change ─▶ Zone (a value, swapped whole) ─▶ answer(packet) ─▶ reply | forward | nothing
//!                                                        ▲    one thread for UDP of all sandboxes,
//!                                                        │    tasks for TCP and for forwarded questions
//! ```

mod answer;
mod entry;
mod forward;
mod members;
mod responder;
pub(crate) mod sockets;
mod tcp;
mod udp;
mod wire;
mod zone;

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use socket2::Socket;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::responder::Responder;
use crate::desired::{Change, Desired};
use forward::ForwarderPool;
use sockets::{Failure, Kind, NetnsIdentity};
use tcp::TcpSandbox;
use udp::{UdpListener, UdpServer};
use zone::Zone;

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
        "name server of sandbox {sandbox}: cannot listen at 127.0.0.11:{PORT}/{protocol}: {source}"
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
pub struct DnsServer {
    /// What questions are answered from.
    zone: Arc<ArcSwap<Zone>>,
    /// The same, for whoever changes it.
    writer: Mutex<Zone>,
    sandboxes: Mutex<BTreeMap<String, Opened>>,
    /// Not yet adopted, by name.
    inherited: Mutex<BTreeMap<String, OwnedFd>>,
    /// One sandbox is opened at a time, so that opening one twice at once does not fail.
    opening: tokio::sync::Mutex<()>,
    keeper: Arc<dyn FdKeeper>,
    udp: UdpServer,
    forwarders: ForwarderPool,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// The sockets of a sandbox that are served.
struct Opened {
    netns: NetnsIdentity,
    udp: u64,
    /// Ends the TCP side.
    stop: CancellationToken,
}

impl DnsServer {
    /// Starts without any name and any socket; inherited sockets wait for [`Self::open`].
    /// Call it inside a tokio runtime whose threads stay in the host's network namespace.
    pub fn start(config: DnsConfig) -> Result<Self, Error> {
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|error| Error::Start(io::Error::other(error)))?;
        let zone = Arc::new(ArcSwap::from_pointee(Zone::default()));
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let ours = |(name, _): &(String, OwnedFd)| name.starts_with(FD_PREFIX);
        Ok(Self {
            udp: UdpServer::start(Arc::clone(&zone)).map_err(Error::Start)?,
            zone,
            writer: Mutex::default(),
            sandboxes: Mutex::default(),
            inherited: Mutex::new(config.inherited.into_iter().filter(ours).collect()),
            opening: tokio::sync::Mutex::default(),
            keeper: config.keeper,
            forwarders: ForwarderPool::new(runtime, tasks.clone(), stop.clone()),
            tasks,
            stop,
        })
    }

    /// Takes over the whole wish. Sockets (inherited ones too) of sandboxes that are not in it, or
    /// have no `dns` there, are closed and forgotten: call it only when the wish is known.
    pub fn replace(&self, desired: &Desired) {
        let zone = Zone::from(desired);
        let orphans: Vec<String> = lock(&self.sandboxes)
            .keys()
            .cloned()
            .chain(lock(&self.inherited).keys().filter_map(|n| sandbox_of(n)))
            .filter(|sandbox| !zone.served(sandbox))
            .collect();
        let mut writer = lock(&self.writer);
        *writer = zone;
        self.zone.store(Arc::new(writer.clone()));
        drop(writer);
        for sandbox in orphans {
            self.close(&sandbox);
        }
    }

    /// Takes over steps from the present wish. Sockets of removed sandboxes are closed.
    /// Costs some 10 µs a change however large the networks are; questions never wait for it.
    pub fn apply(&self, changes: &[Change]) {
        let mut writer = lock(&self.writer);
        for change in changes {
            writer.apply(change);
        }
        self.zone.store(Arc::new(writer.clone()));
        let orphans: Vec<&String> = changes
            .iter()
            .filter_map(|change| match change {
                Change::SetSandbox(id, _) | Change::RemoveSandbox(id) => Some(id),
                _ => None,
            })
            .filter(|id| !writer.served(id))
            .collect();
        drop(writer);
        for sandbox in orphans {
            self.close(sandbox);
        }
    }

    /// Makes the sandbox's sockets, UDP and TCP, in the namespace bound at `netns`, where `lo`
    /// must be up; or adopts the inherited ones if they belong to that very namespace. Does
    /// nothing when they are already there. Fed by [`Self::replace`] or [`Self::apply`] before or
    /// after; until then questions are answered SERVFAIL.
    pub async fn open(&self, sandbox: &str, netns: &Path) -> Result<(), Error> {
        let _turn = self.opening.lock().await;
        if self.stop.is_cancelled() {
            return Err(Error::Down);
        }
        let enter = |source| Error::Netns {
            sandbox: sandbox.to_owned(),
            path: netns.to_owned(),
            source,
        };
        let listen = |kind: Kind, source| Error::Listen {
            sandbox: sandbox.to_owned(),
            protocol: kind.word(),
            source,
        };
        let identity = NetnsIdentity::of_path(netns).map_err(enter)?;
        let present = lock(&self.sandboxes).get(sandbox).map(|o| o.netns);
        match present {
            Some(present) if present == identity => return Ok(()),
            Some(_) => self.close(sandbox),
            None => {}
        }

        let mut sockets = Vec::new();
        for kind in [Kind::Udp, Kind::Tcp] {
            sockets.push((kind, self.adopt(sandbox, kind, identity)));
        }
        let missing: Vec<Kind> = sockets
            .iter()
            .filter(|(_, socket)| socket.is_none())
            .map(|(kind, _)| *kind)
            .collect();
        if !missing.is_empty() {
            let made = sockets::listen_in(netns.to_owned(), missing, ADDRESS, PORT)
                .await
                .map_err(|failure| match failure {
                    Failure::Enter(source) => enter(source),
                    Failure::Listen(kind, source) => listen(kind, source),
                })?;
            let places = sockets.iter_mut().filter(|(_, socket)| socket.is_none());
            for ((kind, place), socket) in places.zip(made) {
                let name = fd_name(*kind, sandbox);
                if let Err(error) = self.keeper.store(&name, socket.as_fd()) {
                    tracing::warn!(%error, sandbox, "name server: the socket will not survive a restart");
                }
                *place = Some(socket);
            }
        }
        let opened = self
            .serve(sandbox, identity, sockets)
            .map_err(|e| listen(e.0, e.1))?;
        lock(&self.sandboxes).insert(sandbox.to_owned(), opened);
        Ok(())
    }

    /// Closes the sandbox's sockets and takes them from the keeper. Closing twice is fine.
    pub fn close(&self, sandbox: &str) {
        let opened = lock(&self.sandboxes).remove(sandbox);
        if let Some(opened) = &opened {
            opened.stop.cancel();
            self.udp.forget(opened.udp);
        }
        for kind in [Kind::Udp, Kind::Tcp] {
            let name = fd_name(kind, sandbox);
            let inherited = lock(&self.inherited).remove(&name);
            if opened.is_some() || inherited.is_some() {
                self.discard(&name);
            }
        }
    }

    /// Stops answering and waits for all tasks. The keeper keeps the sockets, so questions wait
    /// in them for the next process.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        // The thread ends after its present batch; waiting for it blocks for microseconds.
        self.udp.stop();
    }

    /// The inherited socket, if it is in the right place.
    fn adopt(&self, sandbox: &str, kind: Kind, netns: NetnsIdentity) -> Option<Socket> {
        let name = fd_name(kind, sandbox);
        let socket = Socket::from(lock(&self.inherited).remove(&name)?);
        if sockets::fits(&socket, kind, netns, SocketAddr::from((ADDRESS, PORT))) {
            return Some(socket);
        }
        tracing::info!(
            sandbox,
            "name server: the kept socket is of an earlier namespace"
        );
        self.discard(&name);
        None
    }

    fn discard(&self, name: &str) {
        if let Err(error) = self.keeper.remove(name) {
            tracing::warn!(%error, name, "name server: a closed socket stays with the keeper");
        }
    }

    fn serve(
        &self,
        sandbox: &str,
        netns: NetnsIdentity,
        sockets: Vec<(Kind, Option<Socket>)>,
    ) -> Result<Opened, (Kind, io::Error)> {
        let id: Arc<str> = Arc::from(sandbox);
        let stop = self.stop.child_token();
        let forwarder = self.forwarders.forwarder();
        let mut udp = 0;
        for (kind, socket) in sockets {
            let Some(socket) = socket else { continue };
            match kind {
                Kind::Udp => {
                    let listener = UdpListener {
                        sandbox: Arc::clone(&id),
                        socket: socket.into(),
                        forwarder: forwarder.clone(),
                    };
                    udp = self.udp.watch(listener).map_err(|e| (kind, e))?;
                }
                Kind::Tcp => {
                    let listener = TcpListener::from_std(socket.into()).map_err(|e| {
                        self.udp.forget(udp);
                        (kind, e)
                    })?;
                    let tcp = TcpSandbox {
                        sandbox: Arc::clone(&id),
                        zone: Arc::clone(&self.zone),
                        forwarder: forwarder.clone(),
                        stop: stop.clone(),
                    };
                    self.tasks
                        .spawn(tcp::serve(listener, tcp, self.tasks.clone()));
                }
            }
        }
        Ok(Opened { netns, udp, stop })
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn fd_name(kind: Kind, sandbox: &str) -> String {
    format!("{FD_PREFIX}{}.{sandbox}", kind.word())
}

fn sandbox_of(fd_name: &str) -> Option<String> {
    let rest = fd_name.strip_prefix(FD_PREFIX)?;
    rest.split_once('.').map(|(_, sandbox)| sandbox.to_owned())
}

/// What is guarded is whole after every statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
