//! A socket inside a sandbox of the host's own, from which the way to other hosts is measured.

use std::{
    io::{self, IoSliceMut},
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    path::{Path, PathBuf},
};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt::Ipv4RecvErr,
};
use socket2::Socket;

use crate::dns::sockets::{Failure, Kind, NetnsIdentity, listen_in};

/// Bytes of the headers of IPv4 and UDP.
pub const HEADERS: u32 = 28;
/// An error of the kernel is reported once by the next call, whatever that is about.
const ATTEMPTS: usize = 4;

/// A UDP socket whose packets are never fragmented, and which hears when the kernel of another
/// host says that nobody listens there.
pub struct PathSocket {
    socket: Socket,
    device: String,
}

impl PathSocket {
    /// In the namespace at `netns`, where the interface of that name leads to the other hosts.
    pub async fn open(netns: PathBuf, device: &str, port: u16) -> io::Result<Self> {
        let made = listen_in(netns, vec![Kind::Udp], Ipv4Addr::UNSPECIFIED, port).await;
        let mut sockets = made.map_err(|failure| match failure {
            Failure::Enter(error) | Failure::Listen(_, error) => error,
        })?;
        let nothing = || io::Error::other("no socket was made");
        let socket = sockets.pop().ok_or_else(nothing)?;
        setsockopt(&socket, Ipv4RecvErr, &true)?;
        never_fragment(&socket)?;
        Ok(Self {
            socket,
            device: device.to_owned(),
        })
    }

    /// Whether that is still the namespace at `netns`; another one may be bound there since.
    pub fn is_in(&self, netns: &Path) -> bool {
        match (
            NetnsIdentity::of_socket(&self.socket),
            NetnsIdentity::of_path(netns),
        ) {
            (Ok(own), Ok(found)) => own == found,
            _ => false,
        }
    }

    /// Bytes of the largest packet that the interface takes.
    pub fn mtu(&self) -> io::Result<u32> {
        let mut request = interface_request(&self.device)?;
        // SAFETY: the request is an `ifreq` with a terminated name, which the kernel fills in.
        let done = unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCGIFMTU, &mut request) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: SIOCGIFMTU has written this member.
        let mtu = unsafe { request.ifr_ifru.ifru_mtu };
        u32::try_from(mtu).map_err(io::Error::other)
    }

    pub fn send(&self, to: SocketAddrV4, bytes: &[u8]) -> io::Result<()> {
        self.attempt(|socket| socket.send_to(bytes, &to.into()).map(|_| ()))
    }

    /// The next packet; `WouldBlock` when there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddrV4)> {
        loop {
            let received = self.attempt(|socket| {
                recvmsg::<SockaddrIn>(
                    socket.as_raw_fd(),
                    &mut [IoSliceMut::new(buffer)],
                    None,
                    MsgFlags::MSG_DONTWAIT,
                )
                .map(|message| (message.bytes, message.address))
                .map_err(io::Error::from)
            });
            if let (bytes, Some(from)) = received? {
                return Ok((bytes, from.into()));
            }
        }
    }

    /// The next of our packets that has reached its host, where no program listens: whom it was
    /// sent to, and how many of its bytes came back in `buffer`.
    pub fn refused(&self, buffer: &mut [u8]) -> Option<(usize, SocketAddrV4)> {
        loop {
            let mut control = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in);
            let mut parts = [IoSliceMut::new(buffer)];
            let message = recvmsg::<SockaddrIn>(
                self.socket.as_raw_fd(),
                &mut parts,
                Some(&mut control),
                MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT,
            )
            .ok()?;
            let is_refusal = message.cmsgs().is_ok_and(|mut messages| {
                messages.any(|message| {
                    matches!(message, ControlMessageOwned::Ipv4RecvErr(error, _)
                        if error.ee_origin == libc::SO_EE_ORIGIN_ICMP
                            && i32::try_from(error.ee_errno) == Ok(libc::ECONNREFUSED))
                })
            });
            if let (true, Some(to)) = (is_refusal, message.address) {
                return Some((message.bytes, to.into()));
            }
        }
    }

    fn attempt<T>(&self, mut call: impl FnMut(&Socket) -> io::Result<T>) -> io::Result<T> {
        let mut done = call(&self.socket);
        for _ in 1..ATTEMPTS {
            match &done {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    done = call(&self.socket);
                }
                _ => break,
            }
        }
        done
    }
}

impl AsRawFd for PathSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsFd for PathSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whatever the kernel believes of the path, the packet goes out whole or not at all.
fn never_fragment(socket: &Socket) -> io::Result<()> {
    let value: libc::c_int = libc::IP_PMTUDISC_PROBE;
    // SAFETY: the option takes an int, which outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn interface_request(device: &str) -> io::Result<libc::ifreq> {
    // SAFETY: all zeroes is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    let room = request.ifr_name.len() - 1;
    if device.len() > room {
        return Err(io::Error::other("the interface's name is too long"));
    }
    for (at, byte) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *at = byte as libc::c_char;
    }
    Ok(request)
}
