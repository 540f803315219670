//! conmon's attach socket: packets with one byte of stream number in front; and its control
//! pipe for the terminal's size.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
};

use bytes::Bytes;
use nix::{
    fcntl::{OFlag, open},
    sys::{
        socket::{
            AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, UnixAddr, connect, recv, send,
            shutdown, socket,
        },
        stat::Mode,
    },
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
};

use crate::engine::{Output, Stream};

/// conmon reads at most 32 KiB of a packet and drops the rest of it.
const PACKET: usize = 8 * 1024;

/// A connected socket; nothing of the output is missed from now on.
pub struct Connection(AsyncFd<OwnedFd>);

/// What to do with the container's input.
pub struct Input {
    pub from: mpsc::Receiver<Bytes>,
    /// Bytes that end the session when typed on a terminal.
    pub detach: Option<Vec<u8>>,
}

/// Connects to `DIR/attach`. The path may be longer than a socket address.
pub fn connect_in(dir: &Path) -> io::Result<Connection> {
    let dir = open(
        dir,
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    let address = UnixAddr::new(format!("/proc/self/fd/{}/attach", dir.as_raw_fd()).as_str())?;
    let fd = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    connect(fd.as_raw_fd(), &address)?;
    let flags = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_GETFL)?;
    nix::fcntl::fcntl(
        &fd,
        nix::fcntl::FcntlArg::F_SETFL(OFlag::from_bits_truncate(flags) | OFlag::O_NONBLOCK),
    )?;
    let both = Interest::READABLE | Interest::WRITABLE;
    // SAFETY: an owned descriptor is the same one for life.
    let fd = unsafe { AsyncFd::register_with_interest(fd, both) }?;
    Ok(Connection(fd))
}

impl Connection {
    /// Carries bytes until the process has ended, the listener has gone, or the detach keys were
    /// typed. A closed `input.from` half-closes.
    pub async fn carry(self, output: Option<mpsc::Sender<Output>>, input: Option<Input>) {
        let reading = async {
            let mut packet = vec![0; 64 * 1024];
            loop {
                let count = match self
                    .0
                    .async_io(Interest::READABLE, |fd| {
                        Ok(recv(fd.as_raw_fd(), &mut packet, MsgFlags::empty())?)
                    })
                    .await
                {
                    Ok(0) | Err(_) => return,
                    Ok(count) => count,
                };
                let stream = if packet[0] == 3 {
                    Stream::Stderr
                } else {
                    Stream::Stdout
                };
                let bytes = Bytes::copy_from_slice(&packet[1..count]);
                if let Some(output) = &output
                    && output.send(Output { stream, bytes }).await.is_err()
                {
                    return;
                }
            }
        };
        let writing = async {
            let Some(mut input) = input else {
                return false;
            };
            let mut matched = 0;
            while let Some(bytes) = input.from.recv().await {
                let end = input
                    .detach
                    .as_ref()
                    .and_then(|keys| find_keys(keys, &mut matched, &bytes));
                for chunk in bytes[..end.unwrap_or(bytes.len())].chunks(PACKET) {
                    if self.send(chunk).await.is_err() {
                        return false;
                    }
                }
                if end.is_some() {
                    return true;
                }
            }
            let _ = shutdown(self.0.as_raw_fd(), Shutdown::Write);
            false
        };
        tokio::pin!(reading, writing);
        let gone = async {
            match &output {
                Some(output) => output.closed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = &mut reading => return,
            () = gone => return,
            detached = &mut writing => if detached { return },
        }
        match &output {
            Some(output) => tokio::select! {
                () = &mut reading => {}
                () = output.closed() => {}
            },
            None => reading.await,
        }
    }

    async fn send(&self, chunk: &[u8]) -> io::Result<()> {
        self.0
            .async_io(Interest::WRITABLE, |fd| {
                Ok(send(fd.as_raw_fd(), chunk, MsgFlags::MSG_NOSIGNAL)?)
            })
            .await
            .map(|_| ())
    }
}

/// Where in these bytes the key sequence ends, counting what came before.
fn find_keys(keys: &[u8], matched: &mut usize, bytes: &[u8]) -> Option<usize> {
    for (at, byte) in bytes.iter().enumerate() {
        if *byte == keys[*matched] {
            *matched += 1;
            if *matched == keys.len() {
                return Some((at + 1).saturating_sub(keys.len()));
            }
        } else {
            *matched = usize::from(*byte == keys[0]);
        }
    }
    None
}

/// Parses Docker's notation: `ctrl-p,ctrl-q`, `a`, `ctrl-[`. Absent when it makes no sense.
pub fn detach_keys(text: &str) -> Option<Vec<u8>> {
    let text = if text.is_empty() {
        "ctrl-p,ctrl-q"
    } else {
        text
    };
    text.split(',')
        .map(|key| match (key.as_bytes(), key.strip_prefix("ctrl-")) {
            ([byte], _) => Some(*byte),
            (_, Some(letter)) if letter.len() == 1 => {
                let byte = letter.as_bytes()[0].to_ascii_uppercase();
                (b'@'..=b'_').contains(&byte).then(|| byte - b'@')
            }
            _ => None,
        })
        .collect()
}

/// Tells the monitor the terminal's size.
pub fn resize(dir: &Path, rows: u16, columns: u16) -> io::Result<()> {
    use std::io::Write as _;
    let fd = open(
        &dir.join("ctl"),
        OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    std::fs::File::from(fd).write_all(format!("1 {rows} {columns}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        for (text, wanted) in [
            ("", Some(vec![16, 17])),
            ("ctrl-p,ctrl-q", Some(vec![16, 17])),
            ("ctrl-[,a", Some(vec![27, b'a'])),
            ("ctrl-1", None),
            ("meta-x", None),
        ] {
            assert_eq!(detach_keys(text), wanted, "{text}");
        }
    }

    #[test]
    fn keys_are_found_across_reads() {
        let mut matched = 0;
        assert_eq!(find_keys(&[16, 17], &mut matched, &[1, 16]), None);
        assert_eq!(find_keys(&[16, 17], &mut matched, &[17, 5]), Some(0));
        let mut matched = 0;
        assert_eq!(find_keys(&[16, 17], &mut matched, &[1, 2, 16, 17]), Some(2));
    }
}
