//! The table of published ports: one transaction per change, and what its elements have counted.

use std::{collections::BTreeMap, io};

use super::{
    DEL_CHAIN, DEL_ELEMENTS, DEL_RULE, ELEMENTS_PER_MESSAGE, GET_ELEMENTS, GET_RULE, NEW_CHAIN,
    NEW_ELEMENTS, edge, get, maps, maps::inner, message, names, rule_with_maps,
};
use crate::{
    ingress::{Change, Entry},
    netlink::{CREATE, Message, Netlink, attributes, text_of},
    rules::TableName,
};

const TABLE: TableName = TableName::Ingress;

/// Brings a change into the host's table.
pub fn write(socket: &mut Netlink, change: &Change) -> io::Result<()> {
    let mut batch = vec![edge(16, None)];
    for (set, keys) in &change.leave {
        let keys: Vec<_> = keys.iter().map(|key| (key.clone(), None)).collect();
        batch.extend(elements(DEL_ELEMENTS, 0, set, &keys));
    }
    let mut ids = 1..;
    for (name, rules) in &change.chains {
        if let Some(rules) = rules {
            batch.push(chain(NEW_CHAIN, CREATE, name));
            batch.push(flush(name));
            for rule in rules {
                batch.extend(rule_with_maps(TABLE.text(), name, rule, &mut ids));
            }
        } else {
            batch.push(flush(name));
            batch.push(chain(DEL_CHAIN, 0, name));
        }
    }
    for (set, entries) in &change.enter {
        batch.extend(elements(NEW_ELEMENTS, CREATE, set, entries));
    }
    batch.push(edge(17, None));
    socket.transaction(batch)
}

fn chain(kind: u16, flags: u16, name: &str) -> Message {
    let mut message = message(kind, flags);
    message.text(1, TABLE.text()).text(3, name);
    message
}

fn flush(chain: &str) -> Message {
    let mut message = message(DEL_RULE, 0);
    message.text(1, TABLE.text()).text(2, chain);
    message
}

fn elements(kind: u16, flags: u16, set: &str, entries: &[Entry]) -> Vec<Message> {
    let chunks = entries.chunks(ELEMENTS_PER_MESSAGE);
    let messages = chunks.map(|chunk| {
        let mut message = message(kind, flags);
        message.text(1, TABLE.text()).text(2, set);
        message.nest(3, |list| {
            for (key, chain) in chunk {
                list.nest(1, |item| {
                    item.nest(1, |value| {
                        value.attribute(1, key);
                    });
                    if let Some(chain) = chain {
                        item.nest(2, |data| maps::goto(data, chain));
                    }
                });
            }
        });
        message
    });
    messages.collect()
}

/// Packets and bytes by key, of a set whose elements count.
pub fn counted(socket: &mut Netlink, set: &str) -> io::Result<BTreeMap<Vec<u8>, (u64, u64)>> {
    let mut found = BTreeMap::new();
    let mut message = get(GET_ELEMENTS);
    message.text(1, TABLE.text()).text(2, set);
    let read = socket.dump(message, |_, body| {
        let lists = attributes(body.get(4..).unwrap_or_default()).filter(|(kind, _)| *kind == 3);
        for (_, item) in lists.flat_map(|(_, list)| attributes(list)) {
            let key = inner(item, 1).and_then(|key| inner(key, 1));
            let counter = inner(item, 7).and_then(|expression| inner(expression, 2));
            if let (Some(key), Some(counter)) = (key, counter) {
                let number = |kind| {
                    let bytes = inner(counter, kind).and_then(|value| value.try_into().ok());
                    bytes.map_or(0, u64::from_be_bytes)
                };
                found.insert(key.to_vec(), (number(2), number(1)));
            }
        }
    });
    match read {
        // Nothing is published.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(found),
        Err(error) => Err(error),
        Ok(()) => Ok(found),
    }
}

/// How many connections were opened that to this sandbox are ones that another host has led here.
pub fn crossed(socket: &mut Netlink) -> io::Result<u64> {
    let mut found = 0;
    let mut message = get(GET_RULE);
    message.text(1, TABLE.text()).text(2, "prerouting");
    socket.dump(message, |_, body| {
        let (table, chain) = names(body, 1, 2);
        if table == TABLE.text() && chain == "prerouting" {
            let rule = attributes(body.get(4..).unwrap_or_default());
            let lists = rule.filter(|(kind, _)| *kind == 4);
            let all = lists.flat_map(|(_, list)| attributes(list));
            found += all.filter_map(|(_, one)| counter(one)).sum::<u64>();
        }
    })?;
    Ok(found)
}

/// The packets of an expression that counts.
fn counter(expression: &[u8]) -> Option<u64> {
    let name = inner(expression, 1)?;
    if text_of(name) != "counter" {
        return None;
    }
    let packets = inner(inner(expression, 2)?, 2)?;
    packets.try_into().ok().map(u64::from_be_bytes)
}
