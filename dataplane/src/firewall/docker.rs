//! Docker on the same host drops forwarded packets that none of its rules accepts, and has a chain
//! for the rules of others (docs.docker.com, "Packet filtering and firewalls"): there we let our
//! devices through. What our own tables drop stays dropped.

use std::io;

use super::{
    DEL_RULE, GET_CHAIN, GET_RULE, edge,
    expressions::{compare, expression, meta, verdict},
    first_rule_of, foreign, get, message, names, note_of,
};
use crate::{
    netlink::{Message, Netlink, attributes},
    view::{Passage, Passages},
};

const TABLE: &str = "filter";
const CHAIN: &str = "DOCKER-USER";
/// What our rules say of themselves, with nftables' numbers of the device that they look at.
const RULES: [(&str, u32); Passage::RULES] = [
    ("overnet: from its networks", 6),
    ("overnet: to its networks", 7),
];
/// Of every device of ours.
const DEVICES: &[u8] = b"ovt";
const FORWARD: u32 = 2;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
const HANDLE: u16 = 3;

/// Where Docker has its chain.
pub fn look(socket: &mut Netlink) -> io::Result<Passages> {
    let (mut drops, mut there) = ([false; 2], [false; 2]);
    let mut question = get(GET_CHAIN);
    question.set_family(0);
    socket.dump(question, |_, body| {
        let families = [body.first() == Some(&IPV4), body.first() == Some(&IPV6)];
        let (table, chain) = names(body, 1, 3);
        if table != TABLE {
            return;
        }
        let dropping = foreign::read(body).is_some_and(|chain| chain.hook == FORWARD);
        for (place, _) in families.iter().enumerate().filter(|(_, own)| **own) {
            there[place] |= chain == CHAIN;
            drops[place] |= dropping;
        }
    })?;
    let mut passage = |place: usize, ipv6| -> io::Result<Option<Passage>> {
        let rules = || ours(socket, ipv6).map(|rules| rules.len());
        there[place].then(rules).transpose().map(|rules| {
            rules.map(|rules| Passage {
                drops: drops[place],
                rules,
            })
        })
    };
    Ok(Passages {
        ipv4: passage(0, false)?,
        ipv6: passage(1, true)?,
    })
}

/// Puts our rules first, or takes them away.
pub fn set(socket: &mut Netlink, ipv6: bool, open: bool) -> io::Result<()> {
    let mut batch = Vec::new();
    for handle in ours(socket, ipv6)? {
        let mut message = message(DEL_RULE, 0);
        message.text(1, TABLE).text(2, CHAIN);
        message.attribute(HANDLE, &handle);
        batch.push(message);
    }
    if open {
        batch.extend(RULES.iter().map(|(note, device)| rule(note, *device)));
    }
    for message in &mut batch {
        message.set_family(family(ipv6));
    }
    batch.insert(0, edge(16, None));
    batch.push(edge(17, None));
    socket.transaction(batch)
}

/// As `iptables -I DOCKER-USER -i ovt+ -j ACCEPT` writes it, so that iptables can show it.
fn rule(note: &str, device: u32) -> Message {
    first_rule_of(TABLE, CHAIN, note, |list| {
        meta(list, device);
        compare(list, true, DEVICES);
        expression(list, "counter", |_| {});
        verdict(list, 1);
    })
}

fn family(ipv6: bool) -> u8 {
    if ipv6 { IPV6 } else { IPV4 }
}

/// The handles of our rules in it.
fn ours(socket: &mut Netlink, ipv6: bool) -> io::Result<Vec<Vec<u8>>> {
    let mut handles = Vec::new();
    let mut question = get(GET_RULE);
    question.set_family(family(ipv6));
    question.text(1, TABLE).text(2, CHAIN);
    socket.dump(question, |_, body| {
        let (table, chain) = names(body, 1, 2);
        let note = note_of(body);
        if table == TABLE && chain == CHAIN && RULES.iter().any(|(own, _)| *own == note) {
            let mut all = attributes(body.get(4..).unwrap_or_default());
            let handle = all.find(|(kind, _)| *kind == HANDLE);
            handles.extend(handle.map(|(_, handle)| handle.to_vec()));
        }
    })?;
    Ok(handles)
}
