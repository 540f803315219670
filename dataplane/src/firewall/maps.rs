//! Maps: named ones, and the anonymous ones from 0, 1, … to addresses.

use std::net::IpAddr;

use super::{ELEMENTS_PER_MESSAGE, NEW_ELEMENTS, NEW_SET, message};
use crate::{
    netlink::{CREATE, Message, attributes, u32_at},
    rules::{Map, octets},
};

const ANONYMOUS: u32 = 0x1;
const CONSTANT: u32 = 0x2;
const MAP: u32 = 0x8;
const VERDICT: u32 = 0xffff_ff00;
const GOTO: i32 = -4;
/// nftables' numbers of the types of addresses, and their length in bytes.
pub const IPV4: (u32, u32) = (7, 4);
pub const IPV6: (u32, u32) = (8, 16);

pub fn declare(table: &str, name: &str, map: &Map, id: u32) -> Message {
    let mut message = message(NEW_SET, CREATE);
    message.text(1, table).text(2, name).big(3, MAP);
    message.big(4, map.key.0).big(5, map.key.1);
    match map.data {
        Some((kind, length)) => message.big(6, kind).big(7, length),
        None => message.big(6, VERDICT),
    };
    message.big(10, id);
    message
}

pub fn fill(table: &str, name: &str, map: &Map) -> Vec<Message> {
    let all: Vec<_> = map.elements.iter().collect();
    let goes = map.data.is_none();
    let chunks = all.chunks(ELEMENTS_PER_MESSAGE);
    let messages = chunks.map(|chunk| {
        let mut message = message(NEW_ELEMENTS, CREATE);
        message.text(1, table).text(2, name);
        message.nest(3, |list| {
            for (key, value) in chunk {
                item(list, key, |data| {
                    if goes {
                        goto(data, &String::from_utf8_lossy(value));
                    } else {
                        data.attribute(1, value);
                    }
                });
            }
        });
        message
    });
    messages.collect()
}

pub fn goto(data: &mut Message, chain: &str) {
    data.nest(2, |verdict| {
        verdict.big(1, GOTO as u32).text(2, chain);
    });
}

fn item(list: &mut Message, key: &[u8], data: impl FnOnce(&mut Message)) {
    list.nest(1, |item| {
        item.nest(1, |value| {
            value.attribute(1, key);
        });
        item.nest(2, data);
    });
}

/// From 0, 1, … to the addresses, which are of one family.
///
/// The map is anonymous, so that it goes with its rule, but bears a name of ours: to find a free
/// number for a name the kernel would read the names of all.
pub fn numbered<'a>(
    table: &str,
    name: &str,
    addresses: impl IntoIterator<Item = &'a IpAddr>,
    id: u32,
) -> Vec<Message> {
    let numbered: Vec<(u32, &IpAddr)> = (0..).zip(addresses).collect();
    let ipv6 = numbered.iter().any(|(_, address)| address.is_ipv6());
    let (kind, length) = if ipv6 { IPV6 } else { IPV4 };
    let mut map = message(NEW_SET, CREATE);
    map.text(1, table).text(2, name);
    map.big(3, ANONYMOUS | CONSTANT | MAP);
    // An integer of the host's byte order, as `numgen` gives.
    map.big(4, 4).big(5, 4).big(6, kind).big(7, length);
    map.nest(9, |description| {
        description.big(1, numbered.len() as u32);
    });
    map.big(10, id);
    let mut messages = vec![map];
    for chunk in numbered.chunks(ELEMENTS_PER_MESSAGE) {
        let mut message = message(NEW_ELEMENTS, CREATE);
        message.text(1, table).text(2, name).big(4, id);
        message.nest(3, |list| {
            for (number, address) in chunk {
                item(list, &number.to_ne_bytes(), |data| {
                    data.attribute(1, &octets(address));
                });
            }
        });
        messages.push(message);
    }
    messages
}

pub fn is_anonymous(body: &[u8]) -> bool {
    let flags = inner(body.get(4..).unwrap_or_default(), 3).and_then(|value| u32_at(value, 0));
    flags.is_some_and(|flags| u32::from_be(flags) & ANONYMOUS != 0)
}

/// The key of an element, and after it its value: bytes, or the name of a chain.
pub fn element(item: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = inner(inner(item, 1)?, 1)?.to_vec();
    if let Some(data) = inner(item, 2) {
        let chain = inner(data, 2).and_then(|verdict| inner(verdict, 2));
        match (inner(data, 1), chain) {
            (Some(value), _) => bytes.extend_from_slice(value),
            (None, Some(chain)) => bytes.extend(chain.strip_suffix(&[0]).unwrap_or(chain)),
            (None, None) => {}
        }
    }
    Some(bytes)
}

/// The value of the first attribute of this kind.
pub fn inner(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|(kind, _)| *kind == wanted)
        .map(|(_, value)| value)
}
