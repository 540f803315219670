//! The balancer by nftables: reading what is there, and one transaction per change.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    str::FromStr,
};

use super::{
    Balance, Chain, Change,
    rules::{TABLE, chain, elements, fill, flush, hooks, map, print_of},
};
use crate::{
    firewall::{
        self, DEL_CHAIN, DEL_ELEMENTS, DEL_TABLE, GET_CHAIN, GET_ELEMENTS, GET_RULE, GET_SET,
        NEW_CHAIN, NEW_ELEMENTS, NEW_TABLE, edge, get, maps::inner, names, note_of,
    },
    netlink::{CREATE, Message, Netlink, attributes, text_of},
    rules::{comment, vips},
};

/// What a change comes to at the kernel.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Somebody else committed since the given generation; nothing is changed.
    Stale,
}

/// Brings `change` into the kernel, which holds `known` as of `generation`.
pub fn write(
    socket: &mut Netlink,
    generation: u32,
    known: Option<&Balance>,
    change: &Change,
) -> io::Result<Outcome> {
    if known.is_none() && !change.whole {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("the nftables table {TABLE} is gone"),
        ));
    }
    let messages = messages(generation, known, change);
    match socket.transaction(messages) {
        Ok(()) => Ok(Outcome::Done),
        Err(error) if error.raw_os_error() == Some(libc::ERESTART) => Ok(Outcome::Stale),
        Err(error) => Err(error),
    }
}

fn messages(generation: u32, known: Option<&Balance>, change: &Change) -> Vec<Message> {
    let nothing = Balance::default();
    let known = known.filter(|_| !change.whole).unwrap_or(&nothing);
    let mut batch = vec![edge(16, Some(generation))];
    if change.whole {
        let table = |kind, flags| firewall::table(TABLE, kind, flags);
        batch.extend([
            table(NEW_TABLE, CREATE),
            table(DEL_TABLE, 0),
            table(NEW_TABLE, CREATE),
            map(false, 1),
            map(true, 2),
        ]);
    }
    let (mut leave, mut enter) = (Vec::new(), Vec::new());
    for (address, wanted) in &change.addresses {
        let found = known.addresses.get(address);
        if found == wanted.as_ref() {
            continue;
        }
        if found.is_some() {
            leave.push((*address, None));
        }
        if wanted.is_some() {
            enter.push((*address, *wanted));
        }
    }
    let of = |list: &[(IpAddr, Option<Chain>)], ipv6: bool| -> Vec<_> {
        let family = |(address, _): &&(IpAddr, _)| address.is_ipv6() == ipv6;
        list.iter().filter(family).copied().collect()
    };
    for ipv6 in [false, true] {
        batch.extend(elements(DEL_ELEMENTS, ipv6, &of(&leave, ipv6)));
    }
    for (set, (name, backends)) in (3..).zip(&change.chains) {
        let found = known.chains.get(name).copied();
        let Some(backends) = backends else {
            if found.is_some() {
                batch.push(flush(*name));
                batch.push(chain(DEL_CHAIN, 0, *name));
            }
            continue;
        };
        match found {
            Some(print) if print == super::fingerprint(backends) => continue,
            Some(_) => batch.push(flush(*name)),
            None => batch.push(chain(NEW_CHAIN, CREATE, *name)),
        }
        batch.extend(fill(*name, backends, set));
    }
    for ipv6 in [false, true] {
        batch.extend(elements(NEW_ELEMENTS, ipv6, &of(&enter, ipv6)));
    }
    if change.whole {
        for hook in hooks() {
            batch.push(firewall::new_chain(TABLE, &hook));
            let rules = hook.rules.iter();
            batch.extend(rules.map(|rule| firewall::new_rule(TABLE, &hook.name, rule)));
        }
    }
    batch.push(edge(17, None));
    batch
}

pub fn remove(socket: &mut Netlink) -> io::Result<()> {
    let mut batch = vec![edge(16, None)];
    batch.extend(firewall::removal(TABLE));
    batch.push(edge(17, None));
    socket.transaction(batch)
}

/// What is in the socket's namespace.
pub fn read(socket: &mut Netlink) -> io::Result<Option<Balance>> {
    let mut notes = BTreeMap::<String, Vec<String>>::new();
    let mut there = false;
    socket.dump(get(GET_CHAIN), |_, body| {
        let (table, name) = names(body, 1, 3);
        if table == TABLE {
            there = true;
            notes.insert(name, Vec::new());
        }
    })?;
    let mut maps = BTreeSet::new();
    let mut message = get(GET_SET);
    message.text(1, TABLE);
    let found = socket.dump(message, |_, body| {
        let (table, name) = names(body, 1, 2);
        if table == TABLE {
            there = true;
            maps.insert(name);
        }
    });
    match found {
        // The kernel has no table of this name.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        other => other?,
    }
    if !there {
        return Ok(None);
    }
    let mut message = get(GET_RULE);
    message.text(1, TABLE);
    socket.dump(message, |_, body| {
        let (table, chain) = names(body, 1, 2);
        if table == TABLE {
            notes.entry(chain).or_default().push(note_of(body));
        }
    })?;
    let mut balance = Balance::default();
    for hook in hooks() {
        let wanted: Vec<_> = hook.rules.iter().map(|rule| comment(rule)).collect();
        balance.sound &= notes
            .remove(&hook.name)
            .is_some_and(|found| found == wanted);
    }
    for (name, notes) in notes {
        match name.parse() {
            Ok(chain) => {
                balance.chains.insert(chain, print_of(&notes));
            }
            Err(_) => balance.sound = false,
        }
    }
    for ipv6 in [false, true] {
        if maps.remove(vips(ipv6)) {
            read_map(socket, ipv6, &mut balance)?;
        } else {
            balance.sound = false;
        }
    }
    balance.sound &= maps.iter().all(|name| Chain::from_str(name).is_ok());
    Ok(Some(balance))
}

fn read_map(socket: &mut Netlink, ipv6: bool, balance: &mut Balance) -> io::Result<()> {
    let mut message = get(GET_ELEMENTS);
    message.text(1, TABLE).text(2, vips(ipv6));
    socket.dump(message, |_, body| {
        let lists = attributes(body.get(4..).unwrap_or_default()).filter(|(kind, _)| *kind == 3);
        for (_, element) in lists.flat_map(|(_, list)| attributes(list)) {
            match (address(element), goal(element)) {
                (Some(address), Some(chain)) => {
                    balance.addresses.insert(address, chain);
                }
                _ => balance.sound = false,
            }
        }
    })
}

fn address(element: &[u8]) -> Option<IpAddr> {
    let value = inner(inner(element, 1)?, 1)?;
    if let Ok(bytes) = <[u8; 4]>::try_from(value) {
        return Some(bytes.into());
    }
    <[u8; 16]>::try_from(value).ok().map(IpAddr::from)
}

fn goal(element: &[u8]) -> Option<Chain> {
    let verdict = inner(inner(element, 2)?, 2)?;
    text_of(inner(verdict, 2)?).parse().ok()
}
