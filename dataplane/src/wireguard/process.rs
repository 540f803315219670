//! The process of one device: a TUN device, a UDP socket and a control socket, all three opened
//! by whoever starts it; what it could do as root it gives up before the first packet.

use std::{
    io::{self, IoSlice, IoSliceMut, Read as _, Write as _},
    net::SocketAddr,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, getsockname, recvmsg,
        sendmsg, setsockopt, sockopt,
    },
    unistd::{Gid, Uid},
};

use super::{
    device::{Device, ROOM, Sink, TICK},
    uapi::{self, Request, State},
};

/// File descriptors that the process begins with.
pub const TUN: RawFd = 3;
pub const UDP: RawFd = 4;
pub const CONTROL: RawFd = 5;

/// Packets of one side before the other has its turn.
const TURN: usize = 128;
/// Most datagrams that one call sends (UDP_MAX_SEGMENTS of linux/udp.h is 64 in older kernels).
const SEGMENTS: usize = 64;
/// Bytes of one call, below what an IP packet holds.
const BURST: usize = 62_000;
/// A request and its answer take no longer; packets wait meanwhile.
const PATIENCE: Duration = Duration::from_millis(500);
/// Who has no rights anywhere.
const NOBODY: u32 = 65_534;

/// Runs until the device is removed. `empty` is a folder without anything in it.
pub fn run(empty: &Path) -> io::Result<()> {
    // SAFETY: the three are open and nobody else's: that is the contract of this process.
    let [tun, udp, control] = [TUN, UDP, CONTROL].map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    let control = UnixListener::from(control);
    control.set_nonblocking(true)?;
    // What a kernel does not have costs speed alone.
    let merges = setsockopt(&udp, sockopt::UdpGroSegment, &true).is_ok();
    let own = own_place(udp.as_raw_fd())?;
    give_up_rights(empty)?;
    tracing::debug!(merges, "packets are carried");
    let mut sockets = Sockets {
        tun,
        udp,
        burst: Burst::default(),
    };
    let mut device = Device::new();
    let mut buffer = vec![0; ROOM].into_boxed_slice();
    let mut awake = false;
    let mut turned = Instant::now();
    loop {
        let ready = wait(&sockets, &control, awake)?;
        let now = Instant::now();
        if ready.control {
            for stream in control.incoming().map_while(Result::ok) {
                if let Err(error) = answer(stream, &mut device, own) {
                    tracing::warn!("a request is not answered: {error}");
                }
            }
        }
        if ready.tun && !from_host(&mut sockets, &mut device, &mut buffer, now)? {
            return Ok(());
        }
        if ready.udp {
            from_network(&mut sockets, &mut device, &mut buffer, now);
        }
        if !awake || now.saturating_duration_since(turned) >= TICK {
            turned = now;
            awake = device.tick(now, &mut sockets);
        }
        sockets.flush();
    }
}

struct Ready {
    tun: bool,
    udp: bool,
    control: bool,
}

fn wait(sockets: &Sockets, control: &UnixListener, awake: bool) -> io::Result<Ready> {
    let of = |fd| PollFd::new(fd, PollFlags::POLLIN);
    let mut all = [
        of(sockets.tun.as_fd()),
        of(sockets.udp.as_fd()),
        of(control.as_fd()),
    ];
    let timeout = if awake {
        PollTimeout::from(TICK.as_millis() as u16)
    } else {
        PollTimeout::NONE
    };
    match poll(&mut all, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let is_ready = |fd: &PollFd<'_>| fd.any().unwrap_or_default();
    let [tun, udp, control] = &all;
    Ok(Ready {
        tun: is_ready(tun),
        udp: is_ready(udp),
        control: is_ready(control),
    })
}

/// Answers whether the device is still there.
fn from_host(
    sockets: &mut Sockets,
    device: &mut Device,
    buffer: &mut [u8],
    now: Instant,
) -> io::Result<bool> {
    for _ in 0..TURN {
        match nix::unistd::read(&sockets.tun, buffer) {
            Ok(length) => device.outgoing(&buffer[..length], now, sockets),
            // The last: its link is down.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::EIO) => break,
            // Somebody has removed it.
            Err(Errno::EBADFD | Errno::ENODEV) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

fn from_network(sockets: &mut Sockets, device: &mut Device, buffer: &mut [u8], now: Instant) {
    let mut room = nix::cmsg_space!(i32);
    for _ in 0..TURN {
        let socket = sockets.udp.as_raw_fd();
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let Ok(message) = recvmsg::<SockaddrStorage>(socket, &mut parts, Some(&mut room), flags)
        else {
            return;
        };
        let (length, from) = (message.bytes, message.address.as_ref().and_then(place));
        let merged = message.cmsgs().ok().and_then(|mut all| {
            all.find_map(|one| match one {
                ControlMessageOwned::UdpGroSegments(size) => usize::try_from(size).ok(),
                _ => None,
            })
        });
        let Some(from) = from else { continue };
        // Datagrams that the kernel has put together, all of one size but the last.
        let size = merged.filter(|size| *size > 0).unwrap_or(length.max(1));
        for datagram in buffer[..length].chunks(size) {
            device.incoming(from, datagram, now, sockets);
        }
    }
}

fn place(address: &SockaddrStorage) -> Option<SocketAddr> {
    let four = address
        .as_sockaddr_in()
        .map(|a| SocketAddr::V4((*a).into()));
    four.or_else(|| {
        address
            .as_sockaddr_in6()
            .map(|a| SocketAddr::V6((*a).into()))
    })
}

fn own_place(socket: RawFd) -> io::Result<SocketAddr> {
    let own: SockaddrStorage = getsockname(socket)?;
    place(&own).ok_or_else(|| io::Error::other("its socket has no address"))
}

struct Sockets {
    tun: OwnedFd,
    udp: OwnedFd,
    burst: Burst,
}

/// Datagrams to one place that one call sends: all of one size but the last.
#[derive(Default)]
struct Burst {
    to: Option<SocketAddr>,
    size: usize,
    count: usize,
    closed: bool,
    bytes: Vec<u8>,
}

impl Burst {
    /// Whether the packet can go with those that are there.
    fn takes(&self, packet: &[u8], to: SocketAddr) -> bool {
        self.to == Some(to)
            && !self.closed
            && self.count < SEGMENTS
            && packet.len() <= self.size
            && self.bytes.len() + packet.len() <= BURST
    }

    fn add(&mut self, packet: &[u8], to: SocketAddr) {
        if self.count == 0 {
            self.to = Some(to);
            self.size = packet.len();
            self.closed = false;
        }
        self.closed |= packet.len() < self.size;
        self.count += 1;
        self.bytes.extend_from_slice(packet);
    }

    fn clear(&mut self) {
        self.count = 0;
        self.to = None;
        self.bytes.clear();
    }
}

impl Sink for Sockets {
    fn network(&mut self, packet: &[u8], to: SocketAddr) {
        if !self.burst.takes(packet, to) {
            self.flush();
        }
        self.burst.add(packet, to);
    }

    fn host(&mut self, packet: &[u8]) {
        // A host that takes no packets loses them, as from any device.
        let _ = nix::unistd::write(&self.tun, packet);
    }
}

impl Sockets {
    /// What the network does not take is lost, as with any device.
    fn flush(&mut self) {
        let Some(to) = self.burst.to.filter(|_| self.burst.count > 0) else {
            return;
        };
        let to = SockaddrStorage::from(to);
        let (bytes, size) = (&self.burst.bytes, self.burst.size);
        let send = |bytes: &[u8], messages: &[ControlMessage<'_>]| {
            let socket = self.udp.as_raw_fd();
            let parts = [IoSlice::new(bytes)];
            sendmsg(socket, &parts, messages, MsgFlags::empty(), Some(&to))
        };
        let segment = u16::try_from(size).unwrap_or_default();
        let whole = self.burst.count > 1
            && send(bytes, &[ControlMessage::UdpGsoSegments(&segment)]).is_ok();
        if !whole {
            // One alone, or a way with less room than a datagram: the kernel cuts each.
            for datagram in bytes.chunks(size.max(1)) {
                let _ = send(datagram, &[]);
            }
        }
        self.burst.clear();
    }
}

/// One request, one answer.
fn answer(mut stream: UnixStream, device: &mut Device, own: SocketAddr) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut text = Vec::new();
    let mut part = [0; 4096];
    while !text.ends_with(b"\n\n") {
        match stream.read(&mut part)? {
            0 => return Ok(()),
            length => text.extend_from_slice(&part[..length]),
        }
    }
    let text = String::from_utf8_lossy(&text);
    let answer = match uapi::parse_request(&text) {
        Ok(Request::Get) => State {
            pid: nix::unistd::getpid().as_raw(),
            public_key: device.public_key(),
            listen_port: own.port(),
            local_address: Some(own.ip()),
            peers: device.peers(),
        }
        .to_answer(),
        Ok(Request::Set(settings)) => match device.set(settings, Instant::now()) {
            Ok(()) => "errno=0\n\n".to_owned(),
            Err(why) => refuse(&why),
        },
        Err(why) => refuse(&why),
    };
    stream.write_all(answer.as_bytes())
}

fn refuse(why: &str) -> String {
    tracing::warn!("a request is refused: {why}");
    uapi::refusal().to_owned()
}

/// Nobody's user, in an empty folder, for ever.
fn give_up_rights(empty: &Path) -> io::Result<()> {
    nix::unistd::chroot(empty)?;
    nix::unistd::chdir("/")?;
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    nix::unistd::setgroups(&[])?;
    nix::unistd::setresgid(group, group, group)?;
    nix::unistd::setresuid(user, user, user)?;
    for option in [libc::PR_SET_NO_NEW_PRIVS, libc::PR_SET_DUMPABLE] {
        let value: libc::c_ulong = libc::c_ulong::from(option == libc::PR_SET_NO_NEW_PRIVS);
        // SAFETY: both options take one number and touch no memory.
        if unsafe { libc::prctl(option, value, 0, 0, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place_of(last: u8) -> SocketAddr {
        SocketAddr::new([192, 0, 2, last].into(), 1)
    }

    #[test]
    fn a_burst_is_of_one_size_but_for_its_end() {
        let mut burst = Burst::default();
        assert!(!burst.takes(&[0; 10], place_of(1)));
        burst.add(&[0; 10], place_of(1));
        assert!(burst.takes(&[0; 10], place_of(1)));
        assert!(!burst.takes(&[0; 10], place_of(2)), "to another");
        assert!(!burst.takes(&[0; 11], place_of(1)), "longer");
        burst.add(&[0; 9], place_of(1));
        assert!(!burst.takes(&[0; 9], place_of(1)), "after its end");
        burst.clear();
        burst.add(&[0; 1000], place_of(1));
        let mut count = 1;
        while burst.takes(&[0; 1000], place_of(1)) {
            burst.add(&[0; 1000], place_of(1));
            count += 1;
        }
        assert_eq!((count, burst.bytes.len()), (62, 62_000));
        burst.clear();
        burst.add(&[0; 100], place_of(2));
        while burst.takes(&[0; 100], place_of(2)) {
            burst.add(&[0; 100], place_of(2));
        }
        assert_eq!(burst.count, SEGMENTS);
    }
}
