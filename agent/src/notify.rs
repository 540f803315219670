//! What the service manager and the daemon tell each other: sd_notify(3), sd_listen_fds_with_names(3)
//! and the file descriptor store, spoken directly.

use std::{
    ffi::OsStr,
    io::{self, IoSlice},
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::socket::{
        AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socket,
    },
};

/// The first descriptor that a service manager passes (sd-daemon.h).
const FIRST_FD: RawFd = 3;
/// systemd's own limit on a name.
const MAX_NAME: usize = 255;

/// The line to the service manager; every call does nothing and succeeds without one.
/// Cheap to clone and to share.
#[derive(Debug, Clone, Default)]
pub struct Notifier {
    line: Option<Arc<Line>>,
    watchdog: Option<Duration>,
}

#[derive(Debug)]
struct Line {
    socket: OwnedFd,
    address: UnixAddr,
}

impl Notifier {
    /// Reads NOTIFY_SOCKET and WATCHDOG_USEC. Call it once, first thing in `main`.
    pub fn from_env() -> Self {
        let line = std::env::var_os("NOTIFY_SOCKET").and_then(|path| {
            Self::connect(&path)
                .inspect_err(|error| {
                    tracing::warn!(%error, ?path, "NOTIFY_SOCKET is of no use: the service manager hears nothing");
                })
                .ok()
        });
        let watchdog = watchdog(
            std::env::var("WATCHDOG_USEC").ok().as_deref(),
            std::env::var("WATCHDOG_PID").ok().as_deref(),
            std::process::id(),
        );
        Self {
            line: line.map(Arc::new),
            watchdog,
        }
    }

    pub fn ready(&self) -> io::Result<()> {
        self.send("READY=1\n", &[])
    }

    pub fn stopping(&self) -> io::Result<()> {
        self.send("STOPPING=1\n", &[])
    }

    /// One line for `systemctl status`; line breaks become spaces.
    pub fn status(&self, text: &str) -> io::Result<()> {
        self.send(
            &format!("STATUS={}\n", text.replace(['\n', '\r'], " ")),
            &[],
        )
    }

    pub fn ping_watchdog(&self) -> io::Result<()> {
        self.send("WATCHDOG=1\n", &[])
    }

    /// How often to ping: half of what the service manager allows. Absent: it does not watch.
    pub fn watchdog_period(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    fn connect(path: &OsStr) -> io::Result<Line> {
        let address = match path.as_bytes() {
            [b'@', name @ ..] => UnixAddr::new_abstract(name)?,
            bytes => UnixAddr::new(bytes)?,
        };
        let socket = socket(
            AddressFamily::Unix,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        Ok(Line { socket, address })
    }

    fn send(&self, text: &str, fds: &[RawFd]) -> io::Result<()> {
        let Some(line) = &self.line else {
            return Ok(());
        };
        let rights = [ControlMessage::ScmRights(fds)];
        let control = if fds.is_empty() { &[][..] } else { &rights[..] };
        // Not connected but addressed each time, so that a service manager that has made its
        // socket anew is found.
        sendmsg(
            line.socket.as_raw_fd(),
            &[IoSlice::new(text.as_bytes())],
            control,
            MsgFlags::MSG_NOSIGNAL,
            Some(&line.address),
        )?;
        Ok(())
    }
}

impl dataplane::dns::FdKeeper for Notifier {
    fn store(&self, name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
        check_name(name)?;
        // FDPOLL=0: an error state of the socket is ours to handle, not a reason to let go of it.
        let text = format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}\n");
        self.send(&text, &[fd.as_raw_fd()])
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        self.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}\n"), &[])
    }
}

/// A name that systemd would refuse is refused here, where somebody hears of it.
fn check_name(name: &str) -> io::Result<()> {
    let fine = |b: u8| (b' '..0x7f).contains(&b) && b != b':';
    if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(fine) {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{name:?} cannot name a stored descriptor: 1 to 255 printable ASCII characters without colon"
            ),
        ))
    }
}

/// sd_watchdog_enabled(3).
fn watchdog(usec: Option<&str>, pid: Option<&str>, own_pid: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(own_pid)) {
        return None;
    }
    match usec?.parse() {
        Ok(usec) if usec > 0 => Some(Duration::from_micros(usec)),
        _ => None,
    }
}

/// Takes the descriptors that the service manager passed (LISTEN_PID, LISTEN_FDS,
/// LISTEN_FDNAMES), with their names, and makes them close-on-exec. Empty when the environment
/// is meant for another process, and at the second call.
pub fn inherited_fds() -> Vec<(String, OwnedFd)> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Vec::new();
    }
    let variable = |name: &str| std::env::var(name).ok();
    let names = passed_names(
        variable("LISTEN_PID").as_deref(),
        variable("LISTEN_FDS").as_deref(),
        variable("LISTEN_FDNAMES").as_deref(),
        std::process::id(),
    );
    let mut inherited = Vec::new();
    for (fd, name) in (FIRST_FD..).zip(names) {
        // SAFETY: the service manager passed the descriptor to this process, and TAKEN sees to it
        // that it gets one owner only.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        if let Err(error) = fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
            tracing::warn!(%error, fd, name, "a descriptor was announced but not passed");
            continue;
        }
        // SAFETY: as above; it is open, as fcntl has just shown.
        inherited.push((name, unsafe { OwnedFd::from_raw_fd(fd) }));
    }
    inherited
}

/// The names of the passed descriptors, `unknown` where there is none.
fn passed_names(
    pid: Option<&str>,
    count: Option<&str>,
    names: Option<&str>,
    own_pid: u32,
) -> Vec<String> {
    if pid.and_then(|pid| pid.parse().ok()) != Some(own_pid) {
        return Vec::new();
    }
    let count: usize = count.and_then(|count| count.parse().ok()).unwrap_or(0);
    let given = names.into_iter().flat_map(|names| names.split(':'));
    given
        .map(str::to_owned)
        .chain(std::iter::repeat_with(|| "unknown".to_owned()))
        // No kernel lets a process have more, whatever the variable says.
        .take(count.min(1 << 20))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::{fd::AsFd, unix::net::UnixDatagram};

    use dataplane::dns::FdKeeper;
    use nix::sys::socket::{ControlMessageOwned, recvmsg};

    use super::*;

    #[test]
    fn the_watchdog_is_for_whom_it_names() {
        let second = Some(Duration::from_secs(1));
        for (usec, pid, expected) in [
            (Some("1000000"), None, second),
            (Some("1000000"), Some("7"), second),
            (Some("1000000"), Some("8"), None),
            (Some("0"), None, None),
            (Some("soon"), None, None),
            (None, Some("7"), None),
        ] {
            assert_eq!(watchdog(usec, pid, 7), expected, "{usec:?} {pid:?}");
        }
    }

    #[test]
    fn descriptors_have_the_names_that_were_passed() {
        for (pid, count, names, expected) in [
            (Some("7"), Some("2"), Some("a:b"), vec!["a", "b"]),
            (Some("7"), Some("2"), Some("a"), vec!["a", "unknown"]),
            (Some("7"), Some("1"), Some("a:b"), vec!["a"]),
            (Some("7"), Some("1"), None, vec!["unknown"]),
            (Some("8"), Some("1"), Some("a"), vec![]),
            (None, Some("1"), Some("a"), vec![]),
            (Some("7"), None, Some("a"), vec![]),
            (Some("7"), Some("-1"), Some("a"), vec![]),
        ] {
            let found = passed_names(pid, count, names, 7);
            assert_eq!(found, expected, "{pid:?} {count:?} {names:?}");
        }
    }

    #[test]
    fn names_that_systemd_would_refuse_are_refused() {
        let long = "x".repeat(256);
        for (name, fine) in [
            ("dns.udp.0123456789ab", true),
            ("", false),
            ("a:b", false),
            ("a\nb", false),
            ("ä", false),
            (long.as_str(), false),
        ] {
            assert_eq!(check_name(name).is_ok(), fine, "{name}");
        }
    }

    #[test]
    fn without_a_service_manager_every_call_succeeds() {
        let notifier = Notifier::default();
        notifier.ready().unwrap();
        notifier.store("a", io::stdin().as_fd()).unwrap();
        notifier.remove("a").unwrap();
        assert_eq!(notifier.watchdog_period(), None);
    }

    #[test]
    fn a_service_manager_hears_the_words_and_gets_the_descriptors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier {
            line: Some(Arc::new(Notifier::connect(path.as_os_str()).unwrap())),
            watchdog: None,
        };
        let mut text = [0; 256];
        let mut heard = |manager: &UnixDatagram| {
            let length = manager.recv(&mut text).unwrap();
            String::from_utf8(text[..length].to_vec()).unwrap()
        };
        notifier.ready().unwrap();
        assert_eq!(heard(&manager), "READY=1\n");
        notifier.status("two\nlines").unwrap();
        assert_eq!(heard(&manager), "STATUS=two lines\n");
        notifier.ping_watchdog().unwrap();
        assert_eq!(heard(&manager), "WATCHDOG=1\n");
        notifier.stopping().unwrap();
        assert_eq!(heard(&manager), "STOPPING=1\n");
        notifier.remove("held").unwrap();
        assert_eq!(heard(&manager), "FDSTOREREMOVE=1\nFDNAME=held\n");

        let file = tempfile::tempfile().unwrap();
        notifier.store("held", file.as_fd()).unwrap();
        let mut text = [0; 256];
        let mut parts = [io::IoSliceMut::new(&mut text)];
        let mut space = nix::cmsg_space!(RawFd);
        let message = recvmsg::<()>(
            manager.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::empty(),
        )
        .unwrap();
        let fds = message.cmsgs().unwrap().find_map(|c| match c {
            ControlMessageOwned::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let length = message.bytes;
        assert_eq!(fds.map(|fds| fds.len()), Some(1));
        assert_eq!(&text[..length], b"FDSTORE=1\nFDPOLL=0\nFDNAME=held\n");
    }
}
