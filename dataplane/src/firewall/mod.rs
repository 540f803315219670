//! nftables over netlink: writing a [`Ruleset`] in one transaction, and reading ours back.
//! Numbers are those of linux/netfilter/nf_tables.h; all are in network byte order.

pub mod docker;
pub mod expressions;
pub mod foreign;
pub mod maps;
pub mod ports;

use std::{collections::BTreeSet, io};

use crate::{
    netlink::{ACK, CREATE, DUMP, Message, Netlink, attributes, text_of},
    rules::{Chain, Part, Ruleset, Set, TableName, comment},
    view::Table,
};

/// The table whose sets change by elements.
const TABLE: &str = "overnet";
pub const SUBSYSTEM: u16 = 10 << 8;
const INET: u8 = 1;
pub const NEW_TABLE: u16 = 0;
pub const DEL_TABLE: u16 = 2;
pub const NEW_CHAIN: u16 = 3;
pub const GET_CHAIN: u16 = 4;
pub const NEW_RULE: u16 = 6;
pub const GET_RULE: u16 = 7;
pub const NEW_SET: u16 = 9;
pub const GET_SET: u16 = 10;
pub const NEW_ELEMENTS: u16 = 12;
pub const GET_ELEMENTS: u16 = 13;
pub const DEL_ELEMENTS: u16 = 14;
pub const APPEND: u16 = 0x800;
pub const DEL_CHAIN: u16 = 5;
pub const DEL_RULE: u16 = 8;
const NEW_GENERATION: u16 = 15;
const GET_GENERATION: u16 = 16;
/// An attribute has 16 bits for its length.
pub const ELEMENTS_PER_MESSAGE: usize = 500;

/// Replaces the whole table.
pub fn replace(socket: &mut Netlink, rules: &Ruleset) -> io::Result<()> {
    let name = rules.name.text();
    let mut batch = vec![
        table(name, NEW_TABLE, CREATE),
        table(name, DEL_TABLE, 0),
        table(name, NEW_TABLE, CREATE),
    ];
    let mut ids = 1..;
    for ((set, wanted), id) in rules.sets.iter().zip(&mut ids) {
        batch.push(new_set(name, set, wanted, id));
        batch.extend(elements(NEW_ELEMENTS, CREATE, name, set, &wanted.elements));
    }
    for ((map, wanted), id) in rules.maps.iter().zip(&mut ids) {
        batch.push(maps::declare(name, map, wanted, id));
    }
    // Maps and rules lead to chains.
    batch.extend(rules.chains.iter().map(|chain| new_chain(name, chain)));
    for (map, wanted) in &rules.maps {
        batch.extend(maps::fill(name, map, wanted));
    }
    for chain in &rules.chains {
        for rule in &chain.rules {
            batch.extend(rule_with_maps(name, &chain.name, rule, &mut ids));
        }
    }
    socket.transaction(enclose(batch, rules.name))
}

/// A rule at the chain's end, after the anonymous maps that it has.
pub fn rule_with_maps(
    table: &str,
    chain: &str,
    rule: &[Part],
    ids: &mut impl Iterator<Item = u32>,
) -> Vec<Message> {
    let mut messages = Vec::new();
    for part in rule {
        if let Part::DnatAmong { backends, .. } = part {
            let id = ids.next().unwrap_or_default();
            messages.extend(maps::numbered(table, chain, backends, id));
        }
    }
    messages.push(new_rule(table, chain, rule));
    messages
}

pub fn remove(socket: &mut Netlink, name: TableName) -> io::Result<()> {
    socket.transaction(enclose(removal(name.text()), name))
}

/// A table is made first, so that removing what is gone is no error.
pub fn removal(name: &str) -> Vec<Message> {
    vec![table(name, NEW_TABLE, CREATE), table(name, DEL_TABLE, 0)]
}

fn enclose(mut messages: Vec<Message>, name: TableName) -> Vec<Message> {
    for message in &mut messages {
        message.set_family(name.family());
    }
    messages.insert(0, edge(16, None));
    messages.push(edge(17, None));
    messages
}

/// Elements of one set of the table `overnet`.
pub fn change_set(
    socket: &mut Netlink,
    set: &str,
    add: &BTreeSet<Vec<u8>>,
    remove: &BTreeSet<Vec<u8>>,
) -> io::Result<()> {
    let mut batch = vec![edge(16, None)];
    batch.extend(elements(DEL_ELEMENTS, 0, TABLE, set, remove));
    batch.extend(elements(NEW_ELEMENTS, CREATE, TABLE, set, add));
    batch.push(edge(17, None));
    socket.transaction(batch)
}

/// One of our tables in the socket's namespace.
pub fn read(socket: &mut Netlink, name: TableName) -> io::Result<Option<Table>> {
    let mut found = None::<Table>;
    let ask = |kind| {
        let mut message = get(kind);
        message.set_family(name.family());
        message
    };
    socket.dump(ask(GET_CHAIN), |_, body| {
        let (table, chain) = names(body, 1, 3);
        if table == name.text() {
            found
                .get_or_insert_default()
                .chains
                .entry(chain)
                .or_default();
        }
    })?;
    socket.dump(ask(GET_SET), |_, body| {
        let (table, set) = names(body, 1, 2);
        if table == name.text() && !maps::is_anonymous(body) {
            found.get_or_insert_default().sets.entry(set).or_default();
        }
    })?;
    let Some(mut found) = found else {
        return Ok(None);
    };
    socket.dump(ask(GET_RULE), |_, body| {
        let (table, chain) = names(body, 1, 2);
        if table == name.text() {
            found.chains.entry(chain).or_default().push(note_of(body));
        }
    })?;
    for (set, elements) in &mut found.sets {
        let mut message = ask(GET_ELEMENTS);
        message.text(1, name.text()).text(2, set);
        socket.dump(message, |_, body| {
            let lists = attributes(body.get(4..).unwrap_or_default()).filter(|(k, _)| *k == 3);
            let items = lists.flat_map(|(_, list)| attributes(list));
            elements.extend(items.filter_map(|(_, item)| maps::element(item)));
        })?;
    }
    Ok(Some(found))
}

fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// The messages that open (16) and close (17) a transaction. With a generation in the first the
/// kernel refuses the whole (ERESTART) when anything was committed since.
pub fn edge(kind: u16, generation: Option<u32>) -> Message {
    let mut message = Message::new(kind, 0, &header(0, 10));
    if let Some(generation) = generation {
        message.big(1, generation);
    }
    message
}

/// Counts the commits of the socket's namespace.
pub fn generation(socket: &mut Netlink) -> io::Result<u32> {
    let mut found = None;
    socket.dump(message(GET_GENERATION, ACK), |kind, body| {
        if kind == SUBSYSTEM | NEW_GENERATION {
            let number = attributes(body.get(4..).unwrap_or_default())
                .find(|(kind, _)| *kind == 1)
                .and_then(|(_, value)| value.try_into().ok());
            found = number.map(u32::from_be_bytes);
        }
    })?;
    found.ok_or_else(|| io::Error::other("nftables did not tell its generation"))
}

/// What one commit makes of a generation; none is 0.
pub fn next_generation(generation: u32) -> u32 {
    generation.wrapping_add(1).max(1)
}

pub fn message(kind: u16, flags: u16) -> Message {
    Message::new(SUBSYSTEM | kind, flags, &header(INET, 0))
}

pub fn get(kind: u16) -> Message {
    message(kind, DUMP)
}

pub fn names(body: &[u8], table: u16, name: u16) -> (String, String) {
    let find = |wanted| {
        attributes(body.get(4..).unwrap_or_default())
            .find(|(kind, _)| *kind == wanted)
            .map_or_else(String::new, |(_, value)| text_of(value))
    };
    (find(table), find(name))
}

pub fn table(name: &str, kind: u16, flags: u16) -> Message {
    let mut message = message(kind, flags);
    message.text(1, name);
    message
}

fn new_set(table: &str, name: &str, set: &Set, id: u32) -> Message {
    let mut message = message(NEW_SET, CREATE);
    message
        .text(1, table)
        .text(2, name)
        .big(3, 0)
        .big(4, set.key_type)
        .big(5, set.key_length);
    message.big(10, id);
    if set.counted {
        message.nest(17, |expression| {
            expression.text(1, "counter");
            expression.nest(2, |_| {});
        });
    }
    message
}

pub fn elements<'a>(
    kind: u16,
    flags: u16,
    table: &'a str,
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
        message.text(1, table).text(2, set);
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

pub fn new_chain(table: &str, chain: &Chain) -> Message {
    let mut message = message(NEW_CHAIN, CREATE);
    message.text(1, table).text(3, &chain.name);
    if chain.kind.is_empty() {
        return message;
    }
    message.nest(4, |hook| {
        hook.big(1, chain.hook).big(2, chain.priority as u32);
        if let Some(device) = &chain.device {
            hook.text(3, device);
        }
    });
    message.big(5, 1).text(7, &chain.kind);
    message
}

pub fn new_rule(table: &str, chain: &str, rule: &[Part]) -> Message {
    let fill = |list: &mut Message| {
        for part in rule {
            expressions::write(list, chain, part);
        }
    };
    rule_of(table, chain, &comment(rule), fill)
}

/// A rule at the chain's end; `note` is at most 120 bytes.
pub fn rule_of(table: &str, chain: &str, note: &str, fill: impl FnOnce(&mut Message)) -> Message {
    rule_at(CREATE | APPEND, (table, chain), note, fill)
}

/// A rule before all others of the chain.
pub fn first_rule_of(
    table: &str,
    chain: &str,
    note: &str,
    fill: impl FnOnce(&mut Message),
) -> Message {
    rule_at(CREATE, (table, chain), note, fill)
}

fn rule_at(
    flags: u16,
    (table, chain): (&str, &str),
    note: &str,
    fill: impl FnOnce(&mut Message),
) -> Message {
    let mut message = message(NEW_RULE, flags);
    message.text(1, table).text(2, chain);
    message.nest(4, fill);
    // As `nft` writes comments: type 0, length, text with its NUL.
    let mut bytes = vec![0, note.len() as u8 + 1];
    bytes.extend_from_slice(note.as_bytes());
    bytes.push(0);
    message.attribute(7, &bytes);
    message
}

/// The comment in a rule's attributes; empty when it has none.
pub fn note_of(body: &[u8]) -> String {
    attributes(body.get(4..).unwrap_or_default())
        .find(|(kind, _)| *kind == 7)
        .map_or_else(String::new, |(_, data)| {
            text_of(data.get(2..).unwrap_or_default())
        })
}
