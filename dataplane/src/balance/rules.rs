//! The rules of a sandbox's virtual IPs as text and as netlink messages.

use std::{collections::BTreeSet, net::IpAddr};

use super::{Chain, fingerprint};
use crate::{
    firewall::{
        self, ELEMENTS_PER_MESSAGE,
        expressions::{DNAT, compare, dnat_numbered, load, meta, nat, reject},
        maps::{IPV4, IPV6, goto, numbered},
        rule_of,
    },
    netlink::Message,
    rules::{self, Part, octets, vips},
};

/// In the sandbox's namespace, beside the resolver's.
pub const TABLE: &str = "overnet-vips";
const MAP: u32 = 0x8;
const VERDICT: u32 = 0xffff_ff00;

/// What is the same for every sandbox.
///
/// The condition on the connection's state does nothing but keep the kernel tracking connections
/// of both families; in a chain of this kind it is read once per connection.
pub fn hooks() -> Vec<rules::Chain> {
    let hook = |name: &str, hook, mut more: Vec<Vec<Part>>| {
        let mut rules = vec![
            vec![Part::ToVip { ipv6: false }],
            vec![Part::ToVip { ipv6: true }],
        ];
        rules.append(&mut more);
        rules::Chain {
            name: name.into(),
            kind: "nat".into(),
            hook,
            priority: -100,
            device: None,
            rules,
        }
    };
    vec![
        hook("prerouting", 0, vec![vec![Part::Established]]),
        hook("output", 3, Vec::new()),
    ]
}

/// The rules of one chain, as `nft` would write them.
pub fn text(ipv6: bool, backends: &BTreeSet<IpAddr>) -> Vec<String> {
    let family = if ipv6 { "ip6" } else { "ip" };
    let mut addresses = backends.iter();
    match (addresses.next(), backends.len()) {
        (None, _) => vec![
            "meta l4proto tcp reject with tcp reset".into(),
            "reject with icmpx port-unreachable".into(),
        ],
        (Some(only), 1) => vec![format!("dnat {family} to {only}")],
        (Some(first), count) => {
            let elements = backends.iter().enumerate();
            let list: Vec<_> = elements.map(|(n, to)| format!("{n} : {to}")).collect();
            vec![
                format!(
                    "dnat {family} to numgen random mod {count} map {{ {} }}",
                    list.join(", ")
                ),
                format!("dnat {family} to {first}"),
            ]
        }
    }
}

/// The comment of rule `place` of `count`, by which the chain's backends are known again.
pub fn note(print: u64, place: usize, count: usize) -> String {
    format!("{print:016x} {place}/{count}")
}

/// The fingerprint that the comments of a whole chain tell; 0 when they do not.
pub fn print_of(notes: &[String]) -> u64 {
    let first = notes.first().and_then(|note| note.split(' ').next());
    let print = first.and_then(|hex| u64::from_str_radix(hex, 16).ok());
    let whole = |print: u64| {
        let mut places = notes.iter().enumerate();
        places.all(|(place, found)| *found == note(print, place, notes.len()))
    };
    print.filter(|print| whole(*print)).unwrap_or_default()
}

pub fn map(ipv6: bool, id: u32) -> Message {
    let (kind, length) = if ipv6 { IPV6 } else { IPV4 };
    let mut message = firewall::message(firewall::NEW_SET, crate::netlink::CREATE);
    message.text(1, TABLE).text(2, vips(ipv6)).big(3, MAP);
    message.big(4, kind).big(5, length).big(6, VERDICT);
    message.big(10, id);
    message
}

/// Elements of the map of one family; `kind` adds or removes.
pub fn elements(
    kind: u16,
    ipv6: bool,
    elements: &[(IpAddr, Option<Chain>)],
) -> impl Iterator<Item = Message> {
    let flags = if kind == firewall::NEW_ELEMENTS {
        crate::netlink::CREATE
    } else {
        0
    };
    elements.chunks(ELEMENTS_PER_MESSAGE).map(move |chunk| {
        let mut message = firewall::message(kind, flags);
        message.text(1, TABLE).text(2, vips(ipv6));
        message.nest(3, |list| {
            for (address, chain) in chunk {
                list.nest(1, |item| {
                    item.nest(1, |key| {
                        key.attribute(1, &octets(address));
                    });
                    if let Some(chain) = chain {
                        item.nest(2, |data| goto(data, &chain.to_string()));
                    }
                });
            }
        });
        message
    })
}

/// A chain without a hook.
pub fn chain(kind: u16, flags: u16, chain: Chain) -> Message {
    let mut message = firewall::message(kind, flags);
    message.text(1, TABLE).text(3, &chain.to_string());
    message
}

/// Removes all rules of the chain.
pub fn flush(chain: Chain) -> Message {
    let mut message = firewall::message(firewall::DEL_RULE, 0);
    message.text(1, TABLE).text(2, &chain.to_string());
    message
}

/// The rules for `backends` at the end of `chain`, which has none; `set` is a number that no other
/// set of the transaction has.
///
/// While a transaction that replaces the chain is committed, a packet that is in it already goes on
/// by the old rules, but finds the map of the old rule empty: the map's elements belong to the
/// generation that the kernel has just left. Behind the map therefore stands a rule without one,
/// else the packet would leave for the virtual address itself, where nobody answers.
pub fn fill(chain: Chain, backends: &BTreeSet<IpAddr>, set: u32) -> Vec<Message> {
    let print = fingerprint(backends);
    let name = chain.to_string();
    let rule = |place, count, write: &dyn Fn(&mut Message)| {
        rule_of(TABLE, &name, &note(print, place, count), write)
    };
    let ipv6 = chain.ipv6;
    let mut addresses = backends.iter();
    match (addresses.next(), backends.len()) {
        (None, _) => vec![
            rule(0, 2, &|list| {
                meta(list, 16);
                compare(list, true, &[6]);
                reject(list, 1, 0);
            }),
            rule(1, 2, &|list| reject(list, 2, 1)),
        ],
        (Some(first), count) => {
            let to_first = |list: &mut Message| {
                load(list, 1, &octets(first));
                nat(list, DNAT, ipv6, false);
            };
            if count == 1 {
                return vec![rule(0, 1, &to_first)];
            }
            let mut messages = numbered(TABLE, &name, backends, set);
            messages.push(rule(0, 2, &|list| {
                dnat_numbered(list, &name, count, ipv6, None);
            }));
            messages.push(rule(1, 2, &to_first));
            messages
        }
    }
}
