//! nftables over netlink: writing a [`Ruleset`] in one transaction, and reading ours back.
//! Numbers are those of linux/netfilter/nf_tables.h; all are in network byte order.

use std::{collections::BTreeSet, io};

use crate::{
    netlink::{CREATE, DUMP, Message, Netlink, attributes, text_of},
    rules::{Chain, Part, Ruleset, Set, TABLE, comment, octets},
    view::Table,
};

const SUBSYSTEM: u16 = 10 << 8;
const INET: u8 = 1;
const NEW_TABLE: u16 = 0;
const DEL_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const NEW_SET: u16 = 9;
const GET_SET: u16 = 10;
const NEW_ELEMENTS: u16 = 12;
const GET_ELEMENTS: u16 = 13;
const DEL_ELEMENTS: u16 = 14;
const APPEND: u16 = 0x800;
/// An attribute has 16 bits for its length.
const ELEMENTS_PER_MESSAGE: usize = 500;

/// Replaces the whole table.
pub fn replace(socket: &mut Netlink, rules: &Ruleset) -> io::Result<()> {
    let mut batch = vec![edge(16), table(NEW_TABLE, CREATE), table(DEL_TABLE, 0)];
    batch.push(table(NEW_TABLE, CREATE));
    for (index, (name, set)) in rules.sets.iter().enumerate() {
        batch.push(new_set(name, set, index as u32 + 1));
        batch.extend(elements(NEW_ELEMENTS, CREATE, name, &set.elements));
    }
    for chain in &rules.chains {
        batch.push(new_chain(chain));
        batch.extend(chain.rules.iter().map(|rule| new_rule(&chain.name, rule)));
    }
    batch.push(edge(17));
    socket.transaction(batch)
}

pub fn remove(socket: &mut Netlink) -> io::Result<()> {
    // Made first, so that removing what is gone is no error.
    socket.transaction(vec![
        edge(16),
        table(NEW_TABLE, CREATE),
        table(DEL_TABLE, 0),
        edge(17),
    ])
}

pub fn change_set(
    socket: &mut Netlink,
    set: &str,
    add: &BTreeSet<Vec<u8>>,
    remove: &BTreeSet<Vec<u8>>,
) -> io::Result<()> {
    let mut batch = vec![edge(16)];
    batch.extend(elements(DEL_ELEMENTS, 0, set, remove));
    batch.extend(elements(NEW_ELEMENTS, CREATE, set, add));
    batch.push(edge(17));
    socket.transaction(batch)
}

/// Our table in the socket's namespace.
pub fn read(socket: &mut Netlink) -> io::Result<Option<Table>> {
    let mut found = None::<Table>;
    socket.dump(get(GET_CHAIN), |_, body| {
        let (table, name) = names(body, 1, 3);
        if table == TABLE {
            found
                .get_or_insert_default()
                .chains
                .entry(name)
                .or_default();
        }
    })?;
    socket.dump(get(GET_SET), |_, body| {
        let (table, name) = names(body, 1, 2);
        if table == TABLE {
            found.get_or_insert_default().sets.entry(name).or_default();
        }
    })?;
    let Some(mut found) = found else {
        return Ok(None);
    };
    socket.dump(get(GET_RULE), |_, body| {
        let (table, chain) = names(body, 1, 2);
        if table == TABLE {
            let note = attributes(body.get(4..).unwrap_or_default())
                .find(|(kind, _)| *kind == 7)
                .map_or_else(String::new, |(_, data)| {
                    text_of(data.get(2..).unwrap_or_default())
                });
            found.chains.entry(chain).or_default().push(note);
        }
    })?;
    for (name, elements) in &mut found.sets {
        let mut message = get(GET_ELEMENTS);
        message.text(1, TABLE).text(2, name);
        socket.dump(message, |_, body| {
            let lists = attributes(body.get(4..).unwrap_or_default()).filter(|(k, _)| *k == 3);
            for (_, element) in lists.flat_map(|(_, list)| attributes(list)) {
                let key = attributes(element).find(|(kind, _)| *kind == 1);
                if let Some((_, value)) = key.and_then(|(_, key)| attributes(key).next()) {
                    elements.insert(value.to_vec());
                }
            }
        })?;
    }
    Ok(Some(found))
}

fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// The messages that open (16) and close (17) a transaction.
fn edge(kind: u16) -> Message {
    Message::new(kind, 0, &header(0, 10))
}

fn message(kind: u16, flags: u16) -> Message {
    Message::new(SUBSYSTEM | kind, flags, &header(INET, 0))
}

fn get(kind: u16) -> Message {
    message(kind, DUMP)
}

fn names(body: &[u8], table: u16, name: u16) -> (String, String) {
    let find = |wanted| {
        attributes(body.get(4..).unwrap_or_default())
            .find(|(kind, _)| *kind == wanted)
            .map_or_else(String::new, |(_, value)| text_of(value))
    };
    (find(table), find(name))
}

fn table(kind: u16, flags: u16) -> Message {
    let mut message = message(kind, flags);
    message.text(1, TABLE);
    message
}

fn new_set(name: &str, set: &Set, id: u32) -> Message {
    let mut message = message(NEW_SET, CREATE);
    message
        .text(1, TABLE)
        .text(2, name)
        .big(3, 0)
        .big(4, set.key_type)
        .big(5, set.key_length);
    message.big(10, id);
    message
}

fn elements<'a>(
    kind: u16,
    flags: u16,
    set: &'a str,
    elements: &'a BTreeSet<Vec<u8>>,
) -> impl Iterator<Item = Message> + 'a {
    let all: Vec<&Vec<u8>> = elements.iter().collect();
    let chunks: Vec<Vec<&Vec<u8>>> = all
        .chunks(ELEMENTS_PER_MESSAGE)
        .map(<[_]>::to_vec)
        .collect();
    chunks.into_iter().map(move |chunk| {
        let mut message = message(kind, flags);
        message.text(1, TABLE).text(2, set);
        message.nest(3, |list| {
            for element in &chunk {
                list.nest(1, |item| {
                    item.nest(1, |key| {
                        key.attribute(1, element);
                    });
                });
            }
        });
        message
    })
}

fn new_chain(chain: &Chain) -> Message {
    let mut message = message(NEW_CHAIN, CREATE);
    message.text(1, TABLE).text(3, &chain.name);
    message.nest(4, |hook| {
        hook.big(1, chain.hook).big(2, chain.priority as u32);
    });
    message.big(5, 1).text(7, &chain.kind);
    message
}

fn new_rule(chain: &str, rule: &[Part]) -> Message {
    let mut message = message(NEW_RULE, CREATE | APPEND);
    message.text(1, TABLE).text(2, chain);
    message.nest(4, |list| rule.iter().for_each(|part| write(list, part)));
    // As `nft` writes comments: type 0, length, text with its NUL.
    let text = comment(rule);
    let mut note = vec![0, text.len() as u8 + 1];
    note.extend_from_slice(text.as_bytes());
    note.push(0);
    message.attribute(7, &note);
    message
}

fn expression(list: &mut Message, name: &str, fill: impl FnOnce(&mut Message)) {
    list.nest(1, |element| {
        element.text(1, name);
        element.nest(2, fill);
    });
}

/// Loads into register 1.
fn meta(list: &mut Message, key: u32) {
    expression(list, "meta", |e| {
        e.big(2, key).big(1, 1);
    });
}

/// `base` is 1 for the network header, 2 for the transport header.
fn payload(list: &mut Message, base: u32, offset: u32, length: u32) {
    expression(list, "payload", |e| {
        e.big(1, 1).big(2, base).big(3, offset).big(4, length);
    });
}

fn compare(list: &mut Message, equal: bool, value: &[u8]) {
    expression(list, "cmp", |e| {
        e.big(1, 1).big(2, u32::from(!equal));
        e.nest(3, |data| {
            data.attribute(1, value);
        });
    });
}

fn lookup(list: &mut Message, set: &str, inverted: bool) {
    expression(list, "lookup", |e| {
        e.text(1, set).big(2, 1);
        if inverted {
            e.big(5, 1);
        }
    });
}

fn masked(list: &mut Message, mask: &[u8], zero: &[u8]) {
    expression(list, "bitwise", |e| {
        e.big(1, 1).big(2, 1).big(3, mask.len() as u32);
        e.nest(4, |data| {
            data.attribute(1, mask);
        });
        e.nest(5, |data| {
            data.attribute(1, zero);
        });
    });
}

fn verdict(list: &mut Message, code: u32) {
    expression(list, "immediate", |e| {
        e.big(1, 0);
        e.nest(2, |data| {
            data.nest(2, |verdict| {
                verdict.big(1, code);
            });
        });
    });
}

fn port(list: &mut Message, protocol: u8, number: u16) {
    meta(list, 16);
    compare(list, true, &[protocol]);
    payload(list, 2, 2, 2);
    compare(list, true, &number.to_be_bytes());
}

fn subnet(list: &mut Message, net: &ipnetwork::IpNetwork, source: bool) {
    let (offset, length) = match (net.is_ipv6(), source) {
        (false, true) => (12, 4),
        (false, false) => (16, 4),
        (true, true) => (8, 16),
        (true, false) => (24, 16),
    };
    payload(list, 1, offset, length);
    masked(list, &octets(&net.mask()), &vec![0; length as usize]);
    compare(list, true, &octets(&net.network()));
}

/// Names are compared with their NUL and padding, prefixes without.
fn device(list: &mut Message, key: u32, name: &str, whole: bool, equal: bool) {
    let mut bytes = name.as_bytes().to_vec();
    if whole {
        bytes.resize(16, 0);
    }
    meta(list, key);
    compare(list, equal, &bytes);
}

fn write(list: &mut Message, part: &Part) {
    match part {
        Part::Ipv4 | Part::Ipv6 => {
            meta(list, 15);
            compare(list, true, &[if *part == Part::Ipv4 { 2 } else { 10 }]);
        }
        Part::UdpTo(number) => port(list, 17, *number),
        Part::TcpTo(number) => port(list, 6, *number),
        Part::VniIn(set) => {
            payload(list, 2, 12, 3);
            lookup(list, set, false);
        }
        Part::SourceNotIn { set, ipv6 } => {
            if *ipv6 {
                payload(list, 1, 8, 16);
            } else {
                payload(list, 1, 12, 4);
            }
            lookup(list, set, true);
        }
        Part::From(net) => subnet(list, net, true),
        Part::To(net) => subnet(list, net, false),
        Part::In(name) => device(list, 6, name, true, true),
        Part::Out(name) => device(list, 7, name, true, true),
        Part::NotOut(name) => device(list, 7, name, true, false),
        Part::InOurs => device(list, 6, "ovtb", false, true),
        Part::OutOurs => device(list, 7, "ovtb", false, true),
        Part::Established => {
            expression(list, "ct", |e| {
                e.big(1, 1).big(2, 0);
            });
            // The state is a number of the host's byte order: established 2, related 4.
            masked(list, &6_u32.to_ne_bytes(), &[0; 4]);
            compare(list, false, &[0; 4]);
        }
        Part::Count => expression(list, "counter", |_| {}),
        Part::Accept => verdict(list, 1),
        Part::Drop => verdict(list, 0),
        Part::Notrack => expression(list, "notrack", |_| {}),
        Part::Masquerade => expression(list, "masq", |_| {}),
        Part::DnatDns => {
            let load = |list: &mut Message, register: u32, value: &[u8]| {
                expression(list, "immediate", |e| {
                    e.big(1, register);
                    e.nest(2, |data| {
                        data.attribute(1, value);
                    });
                });
            };
            load(list, 1, &crate::dns::ADDRESS.octets());
            load(list, 2, &crate::dns::PORT.to_be_bytes());
            expression(list, "nat", |e| {
                e.big(1, 1).big(2, 2).big(3, 1).big(5, 2);
            });
        }
    }
}
