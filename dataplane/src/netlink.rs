//! A blocking netlink socket that sends batches, and the few attributes we need, by hand:
//! one way of reading and writing serves rtnetlink and nftables, and costs no copy per message.

use std::{io, ops::ControlFlow};

use netlink_sys::{Socket, SocketAddr};
use nix::sys::{
    socket::{setsockopt, sockopt},
    time::{TimeVal, TimeValLike},
};

pub const REQUEST: u16 = 0x1;
pub const ACK: u16 = 0x4;
pub const DUMP: u16 = 0x300;
pub const REPLACE: u16 = 0x100;
pub const EXCLUSIVE: u16 = 0x200;
pub const CREATE: u16 = 0x400;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEADER: usize = 16;
const NESTED: u16 = 0x8000;
const REPLY_SECONDS: i64 = 20;
/// The least that the kernel grants (net.core.wmem_default is rarely smaller).
const SEND_BUFFER: usize = 128 << 10;
/// Messages in one send; more gain nothing (measured) and need a larger receive buffer.
const BATCH: usize = 64;

/// One message under construction, the netlink header included.
pub struct Message(Vec<u8>);

impl Message {
    /// `fixed` is the family's header after netlink's.
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(fixed);
        Self(bytes)
    }

    pub fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length =
            u16::try_from(value.len() + 4).expect("attributes are written in small pieces");
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// As nftables wants its numbers.
    pub fn big(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.open(kind | NESTED, fill)
    }

    /// A nest without the flag, as old attributes of links are.
    pub fn open(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.0.len();
        self.attribute(kind, &[]);
        fill(self);
        let length = u16::try_from(self.0.len() - start).expect("nests are small");
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Of a message of nftables: its first byte after netlink's header.
    pub fn set_family(&mut self, family: u8) -> &mut Self {
        self.0[HEADER] = family;
        self
    }

    /// As it stands: length and sequence number are filled in when it is sent.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn seal(&mut self, sequence: u32, ack: bool) -> &[u8] {
        let length = self.0.len() as u32;
        self.0[0..4].copy_from_slice(&length.to_ne_bytes());
        if ack {
            self.0[6] |= ACK as u8;
        }
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        &self.0
    }
}

/// A message received: its type and all after netlink's header.
pub struct Received<'a> {
    pub kind: u16,
    pub flags: u16,
    pub port: u32,
    pub sequence: u32,
    pub body: &'a [u8],
}

/// Walks the messages of one datagram.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(bytes, 0)? as usize;
        let message = bytes.get(..length)?;
        let received = Received {
            kind: u16_at(message, 4)?,
            flags: u16_at(message, 6)?,
            sequence: u32_at(message, 8)?,
            port: u32_at(message, 12)?,
            body: message.get(HEADER..)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(received)
    })
}

/// Walks attributes; ends at the first that is cut short.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A string attribute without its closing NUL.
pub fn text_of(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

/// A socket belongs for ever to the network namespace that it was opened in.
pub struct Netlink {
    pub socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// `protocol` is `libc::NETLINK_ROUTE` or `libc::NETLINK_NETFILTER`.
    pub fn open(protocol: i32) -> io::Result<Self> {
        let mut socket = Socket::new(protocol as isize)?;
        socket.bind_auto()?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        socket.set_rx_buf_sz(4_u32 << 20)?;
        // Without an end a reply that never comes would hold the thread for ever.
        setsockopt(
            &socket,
            sockopt::ReceiveTimeout,
            &TimeVal::seconds(REPLY_SECONDS),
        )?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: Vec::with_capacity(256 << 10),
        })
    }

    /// The number that the kernel knows the socket by, also in what it tells others of its deeds.
    pub fn port(&self) -> u32 {
        let mut address = SocketAddr::new(0, 0);
        match self.socket.get_address(&mut address) {
            Ok(()) => address.port_number(),
            Err(_) => 0,
        }
    }

    /// Takes what waits on a socket that does not block; answers whether something was lost.
    pub fn hear(&mut self, mut visit: impl FnMut(Received<'_>)) -> bool {
        let mut lost = false;
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(_) => messages(&self.buffer).for_each(&mut visit),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => lost = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return lost,
            }
        }
    }

    pub fn request(&mut self, mut message: Message) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let last = self.sequence;
        self.socket.send(message.seal(last, true), 0)?;
        let mut result = Ok(());
        self.receive(last, |sequence, error| {
            if sequence == last {
                result = error.map_or(Ok(()), Err);
            }
        })?;
        result
    }

    /// Sends all, an acknowledgement for the last of each batch only; answers the failures by
    /// the messages' places.
    pub fn batch(
        &mut self,
        messages: impl IntoIterator<Item = Message>,
    ) -> io::Result<Vec<(usize, io::Error)>> {
        let mut failures = Vec::new();
        let mut messages = messages.into_iter().enumerate().peekable();
        let mut bytes = Vec::with_capacity(BATCH * 96);
        while let Some((first, _)) = messages.peek() {
            let (first, start) = (*first, self.sequence.wrapping_add(1));
            bytes.clear();
            for count in 1..=BATCH {
                let Some((_, mut message)) = messages.next() else {
                    break;
                };
                self.sequence = self.sequence.wrapping_add(1);
                let last = count == BATCH || messages.peek().is_none();
                bytes.extend_from_slice(message.seal(self.sequence, last));
            }
            self.socket.send(&bytes, 0)?;
            self.receive(self.sequence, |sequence, error| {
                if let Some(error) = error {
                    failures.push((first + sequence.wrapping_sub(start) as usize, error));
                }
            })?;
        }
        Ok(failures)
    }

    /// One transaction of nftables: nothing of it stays when one message is refused.
    pub fn transaction(&mut self, messages: Vec<Message>) -> io::Result<()> {
        let _part = trace::part!("nftables", messages = messages.len()).entered();
        let mut bytes = Vec::new();
        let count = messages.len();
        let first = self.sequence.wrapping_add(1);
        for (index, mut message) in messages.into_iter().enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            // Refusals are always answered; of the rest the last before the closing one says
            // that all have been looked at.
            bytes.extend_from_slice(message.seal(self.sequence, index + 2 == count));
        }
        // What is sent at once may be as large as the socket's buffer.
        if bytes.len() > SEND_BUFFER {
            setsockopt(&self.socket, sockopt::SndBufForce, &(bytes.len() * 2))?;
        }
        self.socket.send(&bytes, 0)?;
        let (last, mut first_error) = (self.sequence.wrapping_sub(1), None);
        self.read(|received| {
            let place = received.sequence.wrapping_sub(first) as usize;
            if received.kind == ERROR && place < count {
                if let Some(error) = errno(received.body) {
                    first_error.get_or_insert(error);
                }
                // A transaction refused as a whole is answered at its first message alone.
                if received.sequence == last || received.sequence == first {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        first_error.map_or(Ok(()), Err)
    }

    /// Hands every message of the answer to `visit`: its type and all after netlink's header.
    pub fn dump(
        &mut self,
        mut message: Message,
        mut visit: impl FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        self.socket.send(message.seal(self.sequence, false), 0)?;
        let wanted = self.sequence;
        self.read(|received| {
            if received.sequence != wanted {
                return Ok(ControlFlow::Continue(()));
            }
            match received.kind {
                DONE => Ok(ControlFlow::Break(())),
                ERROR => match errno(received.body) {
                    Some(error) => Err(error),
                    None => Ok(ControlFlow::Break(())),
                },
                kind => {
                    visit(kind, received.body);
                    Ok(ControlFlow::Continue(()))
                }
            }
        })
    }

    fn receive(
        &mut self,
        last: u32,
        mut visit: impl FnMut(u32, Option<io::Error>),
    ) -> io::Result<()> {
        self.read(|received| {
            if received.kind == ERROR {
                visit(received.sequence, errno(received.body));
                if received.sequence == last {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    fn read(
        &mut self,
        mut visit: impl FnMut(Received<'_>) -> io::Result<ControlFlow<()>>,
    ) -> io::Result<()> {
        loop {
            self.buffer.clear();
            self.socket.recv(&mut self.buffer, 0)?;
            for received in messages(&self.buffer) {
                if visit(received)?.is_break() {
                    return Ok(());
                }
            }
        }
    }
}

fn errno(body: &[u8]) -> Option<io::Error> {
    let code = u32_at(body, 0)? as i32;
    (code != 0).then(|| io::Error::from_raw_os_error(-code))
}
