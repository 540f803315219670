//! Sockets in other network namespaces.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, SocketAddr},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, Socket, Type};

/// Bytes of questions that wait in a UDP socket while nobody answers.
const RECEIVE_BUFFER: usize = 1 << 20;
/// Connections that wait while nobody accepts.
const BACKLOG: i32 = 128;
/// From linux/sockios.h: a descriptor of the namespace that a socket belongs to.
const SIOCGSKNS: libc::Ioctl = 0x894c;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Udp,
    Tcp,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// Which namespace a path or a socket means: device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetnsIdentity {
    device: u64,
    inode: u64,
}

impl NetnsIdentity {
    pub fn of_path(path: &Path) -> io::Result<Self> {
        Ok(Self::of(&std::fs::metadata(path)?))
    }

    pub fn of_socket(socket: &Socket) -> io::Result<Self> {
        // SAFETY: the request takes no argument and returns a new descriptor or -1.
        let fd = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made `fd` for us; nobody else knows it.
        let namespace = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(Self::of(&namespace.metadata()?))
    }

    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// Why a socket could not be made.
#[derive(Debug)]
pub enum Failure {
    Enter(io::Error),
    Listen(Kind, io::Error),
}

/// Makes sockets of these kinds in the namespace at `netns`, listening at `address`:`port`.
/// A throw-away thread enters it, so no thread of the caller ever leaves its own.
pub async fn listen_in(
    netns: PathBuf,
    kinds: Vec<Kind>,
    address: Ipv4Addr,
    port: u16,
) -> Result<Vec<Socket>, Failure> {
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("dns-netns".into())
        .spawn(move || {
            let _ = done.send(enter(&netns).and_then(|()| {
                let listen = |&kind| {
                    listen(kind, (address, port).into()).map_err(|e| Failure::Listen(kind, e))
                };
                kinds.iter().map(listen).collect()
            }));
        })
        .map_err(Failure::Enter)?;
    result
        .await
        .unwrap_or_else(|_| Err(Failure::Enter(io::Error::other("the thread ended early"))))
}

/// Whether an inherited socket is what [`listen_in`] would make.
pub fn fits(socket: &Socket, kind: Kind, identity: NetnsIdentity, address: SocketAddr) -> bool {
    let wanted = match kind {
        Kind::Udp => Type::DGRAM,
        Kind::Tcp => Type::STREAM,
    };
    NetnsIdentity::of_socket(socket).is_ok_and(|found| found == identity)
        && socket.r#type().is_ok_and(|found| found == wanted)
        && socket
            .local_addr()
            .is_ok_and(|found| found.as_socket() == Some(address))
        && socket.set_nonblocking(true).is_ok()
}

fn enter(netns: &Path) -> Result<(), Failure> {
    let namespace = File::open(netns).map_err(Failure::Enter)?;
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|e| Failure::Enter(e.into()))
}

fn listen(kind: Kind, address: SocketAddr) -> io::Result<Socket> {
    let (kind_of, protocol) = match kind {
        Kind::Udp => (Type::DGRAM, Protocol::UDP),
        Kind::Tcp => (Type::STREAM, Protocol::TCP),
    };
    let socket = Socket::new(
        Domain::IPV4,
        kind_of.nonblocking().cloexec(),
        Some(protocol),
    )?;
    if kind == Kind::Tcp {
        // Old connections in TIME_WAIT must not keep a new socket from the port.
        socket.set_reuse_address(true)?;
    } else {
        // The default holds some 250 questions; a failure costs only the difference.
        let _ = nix::sys::socket::setsockopt(
            &socket,
            nix::sys::socket::sockopt::RcvBufForce,
            &RECEIVE_BUFFER,
        );
    }
    socket.bind(&address.into())?;
    if kind == Kind::Tcp {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}
