//! WireGuard devices of the kernel: messages of generic netlink. Numbers are those of
//! linux/wireguard.h and linux/genetlink.h.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
};

use crate::{
    netlink::{ACK, CREATE, DUMP, EXCLUSIVE, Message, Netlink, attributes, text_of, u16_at},
    rules::octets,
    view::Tunnel,
    wireguard::{
        PrivateKey, PublicKey,
        uapi::{PeerSettings, Settings},
    },
};

/// Of generic netlink: the family that knows the others.
const CONTROLLER: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY: &str = "wireguard";
const GET_DEVICE: u8 = 0;
const SET_DEVICE: u8 = 1;
/// WGPEER_F_REMOVE_ME, WGPEER_F_REPLACE_ALLOWEDIPS
const REMOVE: u32 = 1;
const REPLACE_ADDRESSES: u32 = 2;
/// Peers in one message: an attribute has 16 bits for its length.
const PEERS: usize = 200;
const IPV4: u16 = 2;
const IPV6: u16 = 10;

/// Asks for the number that messages to WireGuard bear.
pub fn get_family() -> Message {
    let mut message = Message::new(CONTROLLER, ACK, &[GET_FAMILY, 1, 0, 0]);
    message.text(2, FAMILY);
    message
}

/// A link of the kind.
pub fn new_link(name: &str) -> Message {
    let mut message = Message::new(super::links::NEW_LINK, CREATE | EXCLUSIVE, &[0; 16]);
    message.text(3, name);
    message.nest(18, |info| {
        info.text(1, FAMILY);
    });
    message
}

fn to_device(family: u16, command: u8, flags: u16, device: &str) -> Message {
    let mut message = Message::new(family, flags, &[command, 1, 0, 0]);
    message.text(2, device);
    message
}

pub fn get_device(family: u16, device: &str) -> Message {
    to_device(family, GET_DEVICE, DUMP, device)
}

/// Key, port and changes of peers, in as many messages as they take.
pub fn set_device(family: u16, device: &str, port: u16, settings: &Settings) -> Vec<Message> {
    let mut first = to_device(family, SET_DEVICE, 0, device);
    if let Some(key) = &settings.private_key {
        first.attribute(3, key.bytes());
        first.attribute(6, &port.to_ne_bytes());
    }
    let peers: Vec<_> = settings.peers.iter().collect();
    let mut messages = vec![first];
    for chunk in peers.chunks(PEERS) {
        let mut message = to_device(family, SET_DEVICE, 0, device);
        message.nest(8, |list| {
            for (at, (key, peer)) in chunk.iter().enumerate() {
                list.nest(at as u16, |one| write_peer(one, key, peer.as_ref()));
            }
        });
        messages.push(message);
    }
    messages
}

fn write_peer(one: &mut Message, key: &PublicKey, peer: Option<&PeerSettings>) {
    one.attribute(1, &key.0);
    let Some(peer) = peer else {
        one.number(3, REMOVE);
        return;
    };
    one.number(3, REPLACE_ADDRESSES);
    one.attribute(4, &socket_address(peer.endpoint));
    one.nest(9, |list| {
        list.nest(0, |net| {
            let (family, bits) = if peer.address.is_ipv6() {
                (IPV6, 128)
            } else {
                (IPV4, 32)
            };
            net.attribute(1, &family.to_ne_bytes())
                .attribute(2, &octets(&peer.address))
                .attribute(3, &[bits]);
        });
    });
}

/// `struct sockaddr_in` or `sockaddr_in6`.
fn socket_address(at: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(28);
    let family = if at.is_ipv6() { IPV6 } else { IPV4 };
    bytes.extend(family.to_ne_bytes());
    bytes.extend(at.port().to_be_bytes());
    match at.ip() {
        IpAddr::V4(address) => {
            bytes.extend(address.octets());
            bytes.extend([0; 8]);
        }
        IpAddr::V6(address) => {
            bytes.extend([0; 4]);
            bytes.extend(address.octets());
            bytes.extend([0; 4]);
        }
    }
    bytes
}

/// What the kernel says of a device, a part with each message.
fn read_device(body: &[u8], tunnel: &mut Tunnel) {
    for (kind, value) in attributes(body.get(4..).unwrap_or_default()) {
        match kind {
            4 => tunnel.public_key = value.try_into().ok().map(PublicKey),
            6 => tunnel.port = u16_at(value, 0).unwrap_or_default(),
            8 => {
                let peers = attributes(value).filter_map(|(_, peer)| read_peer(peer));
                tunnel.peers.extend(peers);
            }
            _ => {}
        }
    }
}

/// A peer by the address that it may use: where its packets came from last may be another.
fn read_peer(peer: &[u8]) -> Option<(PublicKey, SocketAddr)> {
    let (mut key, mut port, mut address) = (None, 0, None);
    for (kind, value) in attributes(peer) {
        match kind {
            1 => key = value.try_into().ok().map(PublicKey),
            4 => port = u16::from_be(u16_at(value, 2)?),
            9 => {
                for (_, net) in attributes(value) {
                    let found = attributes(net).find(|(kind, _)| *kind == 2);
                    address = found.and_then(|(_, value)| super::sight::ip(value));
                }
            }
            _ => {}
        }
    }
    Some((key?, SocketAddr::new(address?, port)))
}

/// The kernel's WireGuard, in the calling thread's network namespace.
pub struct Kernel {
    socket: Netlink,
    family: u16,
}

impl Kernel {
    /// Nothing where the kernel has none; a link of the kind loads its module.
    pub fn open() -> io::Result<Option<Self>> {
        let mut socket = Netlink::open(libc::NETLINK_GENERIC)?;
        let mut family = None;
        let asked = socket.dump(get_family(), |_, body| {
            let all = attributes(body.get(4..).unwrap_or_default());
            let mut named = false;
            let mut number = None;
            for (kind, value) in all {
                match kind {
                    1 => number = u16_at(value, 0),
                    2 => named = text_of(value) == FAMILY,
                    _ => {}
                }
            }
            if named {
                family = number;
            }
        });
        match asked {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            asked => asked?,
        }
        Ok(family.map(|family| Self { socket, family }))
    }

    pub fn read(&mut self, device: &str) -> io::Result<Tunnel> {
        let mut tunnel = Tunnel::default();
        let ask = get_device(self.family, device);
        self.socket
            .dump(ask, |_, body| read_device(body, &mut tunnel))?;
        Ok(tunnel)
    }

    pub fn set(&mut self, device: &str, port: u16, settings: &Settings) -> io::Result<()> {
        let messages = set_device(self.family, device, port, settings);
        messages
            .into_iter()
            .try_for_each(|message| self.socket.request(message))
    }
}

/// What leads a device of the kernel from `seen` to `wanted`.
pub fn difference(seen: &Tunnel, wanted: &Tunnel, key: PrivateKey) -> Settings {
    let of = |at: &SocketAddr| PeerSettings {
        endpoint: *at,
        address: at.ip(),
    };
    let mut peers: BTreeMap<PublicKey, Option<PeerSettings>> = seen
        .peers
        .keys()
        .filter(|key| !wanted.peers.contains_key(key))
        .map(|key| (*key, None))
        .collect();
    for (key, at) in &wanted.peers {
        if seen.peers.get(key) != Some(at) {
            peers.insert(*key, Some(of(at)));
        }
    }
    let same = seen.public_key == wanted.public_key && seen.port == wanted.port;
    Settings {
        private_key: (!same).then_some(key),
        peers,
    }
}

#[cfg(test)]
#[path = "wireguard_tests.rs"]
mod tests;
