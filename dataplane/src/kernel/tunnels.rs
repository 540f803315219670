//! The WireGuard devices of this host: the kernel's, or TUN devices with a process each. A process
//! is known by its control socket, so it is found again by whoever comes after a kill.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File},
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::{
            fs::DirBuilderExt as _,
            net::{UnixListener, UnixStream},
            process::CommandExt as _,
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::wait::{Id, WaitPidFlag, waitid},
};
use socket2::{Domain, Socket, Type};

use super::{
    deeds::{allow_absent, gone_is_fine, index, is_gone},
    links::{NEW_ADDRESS, delete_link, set_link},
    linux::Linux,
    place::set,
    sight::Sight,
    wireguard::{self, Kernel},
};
use crate::{
    netlink::{CREATE, Message, REPLACE},
    rules::octets,
    view::{TUNNEL, Tunnel},
    wireguard::{
        PrivateKey,
        process::{CONTROL, TUN, UDP},
        uapi::{PeerSettings, State},
    },
};

/// A process answers at once, or its host is at its limit.
const PATIENCE: Duration = Duration::from_secs(2);
/// One that lives shorter has not been of any use; the next is started with the retries.
const SHORT_LIFE: Duration = Duration::from_secs(1);
/// Of the UDP socket, bytes.
const BUFFER: usize = 4 << 20;
/// Packets that wait for the process.
const QUEUE: u32 = 2000;
/// IFLA_TXQLEN of linux/if_link.h.
const QUEUE_LENGTH: u16 = 13;
/// The IPv4 dummy address (RFC 7600).
const DUMMY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8));
/// The program, whatever has become of its file since it was started.
const SELF: &str = "/proc/self/exe";

pub struct Tunnels {
    folder: PathBuf,
    /// Absent where the kernel has no WireGuard.
    kernel: Option<Kernel>,
    processes: BTreeMap<String, Process>,
    /// Started last, by device.
    started: BTreeMap<String, Instant>,
}

/// One that runs.
struct Process {
    pidfd: OwnedFd,
}

impl Tunnels {
    /// Finds out what the kernel can do.
    pub fn open(run_dir: &Path) -> Self {
        let kernel = Kernel::open().unwrap_or_else(|error| {
            tracing::warn!("the kernel does not say whether it has WireGuard: {error}");
            None
        });
        Self {
            folder: run_dir.join("wireguard"),
            kernel,
            processes: BTreeMap::new(),
            started: BTreeMap::new(),
        }
    }

    fn socket(&self, device: &str) -> PathBuf {
        self.folder.join(format!("{device}.sock"))
    }

    /// Become readable when a process ends.
    pub fn ends(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.processes.values().map(|process| process.pidfd.as_fd())
    }

    /// Forgets the processes that have ended; answers whether there were any.
    pub fn reap(&mut self) -> bool {
        let before = self.processes.len();
        self.processes.retain(|device, process| {
            let over = has_ended(&process.pidfd);
            if over {
                tracing::warn!(device, "the process of a WireGuard device has ended");
                // Of another parent there is nothing to take.
                let _ = waitid(
                    Id::PIDFd(process.pidfd.as_fd()),
                    WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG,
                );
            }
            !over
        });
        self.processes.len() != before
    }

    /// All devices of ours.
    pub fn look(&mut self, sight: &Sight) -> BTreeMap<String, Tunnel> {
        let links = sight.links.iter();
        let ours = links.filter(|(_, link)| link.name.starts_with(TUNNEL));
        ours.map(|(index, link)| {
            let read = if link.kind == "wireguard" {
                match &mut self.kernel {
                    Some(kernel) => kernel.read(&link.name),
                    None => Ok(Tunnel::default()),
                }
            } else {
                self.ask(&link.name, "get=1\n\n")
                    .map(|state| self.meet(&link.name, state))
            };
            let mut tunnel = read.unwrap_or_else(|error| {
                tracing::debug!(device = link.name, "does not answer: {error}");
                Tunnel::default()
            });
            tunnel.mtu = link.mtu;
            let addresses = sight.addresses.get(index);
            let dummy = addresses.is_some_and(|all| all.iter().any(|net| net.ip() == DUMMY));
            tunnel.up = link.up && dummy;
            (link.name.clone(), tunnel)
        })
        .collect()
    }

    /// Watches a process that answers, and takes what it says.
    fn meet(&mut self, device: &str, state: State) -> Tunnel {
        if !self.processes.contains_key(device)
            && let Ok(pidfd) = open_process(state.pid)
            && self
                .ask(device, "get=1\n\n")
                .is_ok_and(|again| again.pid == state.pid)
        {
            self.processes.insert(device.to_owned(), Process { pidfd });
        }
        let peers = state.peers.into_iter().map(|(key, peer)| {
            let PeerSettings { endpoint, address } = peer.settings;
            (key, SocketAddr::new(address, endpoint.port()))
        });
        Tunnel {
            public_key: state.public_key,
            local: state.local_address,
            port: state.listen_port,
            peers: peers.collect(),
            ..Tunnel::default()
        }
    }

    fn ask(&self, device: &str, request: &str) -> io::Result<State> {
        let mut stream = UnixStream::connect(self.socket(device))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        State::parse(&answer).map_err(io::Error::other)
    }

    /// Starts the process of a device, which is made if it is not there.
    fn start(&mut self, device: &str, local: IpAddr, port: u16) -> io::Result<()> {
        let now = Instant::now();
        let before = self.started.get(device);
        if before.is_some_and(|before| now.saturating_duration_since(*before) < SHORT_LIFE) {
            return Err(io::Error::other(
                "its process ended at once; the daemon's log says why",
            ));
        }
        let empty = self.folder.join("empty");
        for folder in [&self.folder, &empty] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
        }
        let path = self.socket(device);
        allow_absent(fs::remove_file(&path))?;
        let control = OwnedFd::from(UnixListener::bind(&path)?);
        let tun = open_tun(device)?;
        let udp = open_udp(SocketAddr::new(local, port)).map_err(|error| in_use(port, error))?;
        let mut command = Command::new(SELF);
        command
            .arg0("ovnd")
            .args(["wireguard", "--device", device, "--empty"])
            .arg(&empty)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .current_dir("/");
        let given = [(tun, TUN), (udp, UDP), (control, CONTROL)].map(|(fd, at)| {
            // Away from the numbers that they are to have.
            let high = fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(16));
            high.map(|high| (high, at))
        });
        let mut fds = Vec::new();
        for one in given {
            let (high, at) = one?;
            // SAFETY: the number has just been made, and is nobody else's.
            fds.push((unsafe { OwnedFd::from_raw_fd(high) }, at));
        }
        let numbers: Vec<(i32, i32)> = fds.iter().map(|(fd, at)| (fd.as_raw_fd(), *at)).collect();
        // SAFETY: between fork and exec only these two system calls are made.
        unsafe {
            command.pre_exec(move || {
                libc::setsid();
                for (from, to) in &numbers {
                    if libc::dup2(*from, *to) < 0 {
                        return Err(io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        self.processes.insert(
            device.to_owned(),
            Process {
                pidfd: open_process(pid)?,
            },
        );
        self.started.insert(device.to_owned(), now);
        tracing::info!(device, pid, "the process of a WireGuard device is started");
        Ok(())
    }
}

impl Linux {
    pub(super) fn set_tunnel(
        &mut self,
        device: &str,
        wanted: &Tunnel,
        (local, key): (IpAddr, &Path),
    ) -> io::Result<()> {
        let key = PrivateKey::read(key)?;
        if Some(key.public()) != wanted.public_key {
            return Err(io::Error::other(
                "the file of the private key has another key in it",
            ));
        }
        let link = self.look_at_link(device)?;
        let in_kernel = match &link {
            Some(kind) => kind == "wireguard",
            None => self.tunnels.kernel.is_some(),
        };
        if in_kernel {
            self.set_in_kernel(device, wanted, key, link.is_none())?;
        } else {
            self.set_in_process(device, wanted, (local, key))?;
        }
        // The way back to a sender does not lead by this device, and the kernel takes it for false
        // otherwise; 2 wins over the 1 that a host may have for all, on devices with an address.
        set(&format!("net/ipv4/conf/{device}/rp_filter"), "2")?;
        allow_absent(set(&format!("net/ipv6/conf/{device}/addr_gen_mode"), "1"))?;
        let route = &mut self.host.route;
        let index = index(route, device)?;
        let mut link = set_link(index, Some(wanted.mtu), None, None);
        if !in_kernel {
            link.number(QUEUE_LENGTH, QUEUE);
        }
        route.request(link)?;
        route.request(dummy_address(index))
    }

    /// The kind of the link of that name.
    fn look_at_link(&mut self, device: &str) -> io::Result<Option<String>> {
        let sight = super::sight::look(&mut self.host.route, false, false)?;
        let mut links = sight.links.into_values();
        Ok(links.find(|link| link.name == device).map(|link| link.kind))
    }

    fn set_in_kernel(
        &mut self,
        device: &str,
        wanted: &Tunnel,
        key: PrivateKey,
        make: bool,
    ) -> io::Result<()> {
        if make {
            self.host.route.request(wireguard::new_link(device))?;
        }
        let Some(kernel) = &mut self.tunnels.kernel else {
            return Err(io::Error::other("the kernel has no WireGuard"));
        };
        let seen = kernel.read(device)?;
        let settings = wireguard::difference(&seen, wanted, key);
        kernel.set(device, wanted.port, &settings)
    }

    fn set_in_process(
        &mut self,
        device: &str,
        wanted: &Tunnel,
        (local, key): (IpAddr, PrivateKey),
    ) -> io::Result<()> {
        let found = self.tunnels.ask(device, "get=1\n\n");
        let mut found = found.ok().filter(|state| {
            let stays = state.local_address.is_none_or(|has| has == local);
            stays && state.listen_port == wanted.port
        });
        if found.is_none() {
            self.tunnels.end(device)?;
            match self.tunnels.start(device, local, wanted.port) {
                // Its process lives and cannot be spoken to; with the device it ends.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    self.host.route.request(delete_link(device))?;
                    self.tunnels.start(device, local, wanted.port)?;
                }
                started => started?,
            }
            found = Some(self.tunnels.ask(device, "get=1\n\n")?);
        }
        let state = found.unwrap_or_default();
        let peers = wanted.peers.iter().map(|(key, at)| {
            let settings = PeerSettings {
                endpoint: *at,
                address: at.ip(),
            };
            (*key, settings)
        });
        let mut settings = state.difference(&peers.collect());
        settings.private_key = (state.public_key != wanted.public_key).then_some(key);
        if settings.is_empty() {
            return Ok(());
        }
        self.tunnels.ask(device, &settings.to_request()).map(drop)
    }

    /// With its process, which ends with it.
    pub(super) fn drop_tunnel(&mut self, device: &str) -> io::Result<()> {
        gone_is_fine(self.host.route.request(delete_link(device)))?;
        self.tunnels.end(device)?;
        self.tunnels.started.remove(device);
        allow_absent(fs::remove_file(self.tunnels.socket(device)))
    }
}

impl Tunnels {
    /// Ends a process and waits for its end: two have no place at one device.
    fn end(&mut self, device: &str) -> io::Result<()> {
        if !self.processes.contains_key(device)
            && let Ok(state) = self.ask(device, "get=1\n\n")
        {
            self.meet(device, state);
        }
        let Some(process) = self.processes.remove(device) else {
            return Ok(());
        };
        let fd = process.pidfd.as_raw_fd();
        // SAFETY: the call takes a descriptor that lives, and no memory of ours.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                fd,
                libc::SIGKILL,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        if sent < 0 {
            let error = io::Error::last_os_error();
            if !is_gone(&error) {
                return Err(error);
            }
        }
        let mut fds = [PollFd::new(process.pidfd.as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
        poll(&mut fds, limit)?;
        let _ = waitid(
            Id::PIDFd(process.pidfd.as_fd()),
            WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG,
        );
        Ok(())
    }
}

/// Of the host alone, so that nobody takes it for a source.
fn dummy_address(index: u32) -> Message {
    const SCOPE_HOST: u8 = 254;
    let mut header = [2, 32, 0, SCOPE_HOST, 0, 0, 0, 0];
    header[4..].copy_from_slice(&index.to_ne_bytes());
    let mut message = Message::new(NEW_ADDRESS, CREATE | REPLACE, &header);
    let bytes = octets(&DUMMY);
    message.attribute(2, &bytes).attribute(1, &bytes);
    message
}

fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

fn open_process(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two numbers, and gives a descriptor that is ours alone.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: see above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn tun_file() -> io::Result<File> {
    let opened = File::options().read(true).write(true).open("/dev/net/tun");
    opened.map_err(|error| {
        let sentence = format!(
            "the kernel has no WireGuard, and /dev/net/tun cannot be opened: {error}; load the \
             kernel module wireguard, or tun"
        );
        io::Error::new(error.kind(), sentence)
    })
}

/// The device, which stays when its process goes: routes by it stay too, and what is sent to it
/// meanwhile is dropped.
fn open_tun(device: &str) -> io::Result<OwnedFd> {
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    const TUNSETPERSIST: libc::c_ulong = 0x4004_54cb;
    let file = tun_file()?;
    // SAFETY: all zeroes is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (at, byte) in request.ifr_name.iter_mut().zip(device.bytes().take(15)) {
        *at = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the request is an `ifreq` with a terminated name, which outlives the call.
    if unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call takes a number.
    if unsafe { libc::ioctl(file.as_raw_fd(), TUNSETPERSIST, 1) } < 0 {
        return Err(io::Error::last_os_error());
    }
    fcntl(&file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(file.into())
}

fn open_udp(at: SocketAddr) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, None)?;
    // Large ones are a gain, and no condition.
    let force = |option| {
        let size = BUFFER as libc::c_int;
        // SAFETY: the option takes an int, which outlives the call.
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const size).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        }
    };
    force(libc::SO_RCVBUFFORCE);
    force(libc::SO_SNDBUFFORCE);
    // As the kernel's WireGuard: a narrow way cuts the datagrams instead of losing them.
    let (level, option) = if at.is_ipv6() {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER)
    } else {
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER)
    };
    let value: libc::c_int = libc::IP_PMTUDISC_DONT;
    // SAFETY: the option takes an int, which outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    socket.bind(&at.into())?;
    Ok(socket.into())
}

fn in_use(port: u16, error: io::Error) -> io::Error {
    if error.raw_os_error() != Some(Errno::EADDRINUSE as i32) {
        return error;
    }
    let sentence = format!(
        "UDP port {port} is occupied by another program; find it with `ss -lunp`, or give ovnd \
         another --wireguard-port"
    );
    io::Error::new(error.kind(), sentence)
}

/// What would encrypt here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireguardBy {
    Kernel,
    Process,
}

/// What encrypts on this host, or why nothing does.
pub fn wireguard_here() -> Result<WireguardBy, String> {
    if matches!(Kernel::open(), Ok(Some(_))) {
        return Ok(WireguardBy::Kernel);
    }
    match tun_file() {
        Ok(_) => Ok(WireguardBy::Process),
        Err(error) => Err(error.to_string()),
    }
}
