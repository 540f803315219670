//! What goes through this host's tunnels, by the host at the other end.
//!
//! Counting costs every packet a little, so it is done only while somebody looks: in a table of
//! our own, which goes when [`Traffic`] does. The kernel adds a peer to the sets by itself with its
//! first packet. Nothing else of ours reads or writes the table.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{
    encryption,
    firewall::{
        GET_ELEMENTS, NEW_SET, edge,
        expressions::{compare, expression, meta, payload},
        get, message, names, new_chain, removal, rule_of, table,
    },
    netlink::{CREATE, Message, Netlink, attributes},
    rules::Chain,
};

const TABLE: &str = "overnet_traffic";
/// Peers that a set holds.
const PEERS: u32 = 10_000;
const UDP: u8 = 17;
// linux/netfilter/nf_tables.h
const META_PROTOCOL_FAMILY: u32 = 15;
const META_TRANSPORT: u32 = 16;
const SET_EVALUATED: u32 = 0x20;
const UPDATE: u32 = 1;
const IPV4: u8 = 2;
const IPV6: u8 = 10;

/// Since the table was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counter {
    /// As the kernel handles them: merged ones count once.
    pub packets: u64,
    /// With the outer IP header.
    pub bytes: u64,
}

/// Both directions of the tunnel to one peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flow {
    pub sent: Counter,
    pub received: Counter,
}

/// Counts while it lives.
pub struct Traffic {
    socket: Netlink,
}

/// One set: its name, its direction and family.
struct Counted {
    set: &'static str,
    received: bool,
    ipv6: bool,
}

const SETS: [Counted; 4] = [
    Counted {
        set: "sent4",
        received: false,
        ipv6: false,
    },
    Counted {
        set: "sent6",
        received: false,
        ipv6: true,
    },
    Counted {
        set: "received4",
        received: true,
        ipv6: false,
    },
    Counted {
        set: "received6",
        received: true,
        ipv6: true,
    },
];

impl Traffic {
    /// Begins to count VXLAN on that UDP port, and on that of encrypted networks, from zero, in the calling thread's network
    /// namespace.
    pub fn open(port: u16) -> io::Result<Self> {
        let mut socket = Netlink::open(libc::NETLINK_NETFILTER)?;
        socket.transaction(enclosed(made(port)))?;
        Ok(Self { socket })
    }

    /// The counters by the peers' addresses.
    pub fn read(&mut self) -> io::Result<BTreeMap<IpAddr, Flow>> {
        let mut flows = BTreeMap::<IpAddr, Flow>::new();
        for counted in &SETS {
            let mut ask = get(GET_ELEMENTS);
            ask.text(1, TABLE).text(2, counted.set);
            self.socket.dump(ask, |_, body| {
                if names(body, 1, 2).0 != TABLE {
                    return;
                }
                for (address, counter) in elements(body) {
                    let flow = flows.entry(address).or_default();
                    if counted.received {
                        flow.received = counter;
                    } else {
                        flow.sent = counter;
                    }
                }
            })?;
        }
        Ok(flows)
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        if let Err(error) = self.socket.transaction(enclosed(removal(TABLE))) {
            tracing::warn!(%error, "the table of the tunnels' counters stays");
        }
    }
}

/// Takes away what a killed daemon has left.
pub fn sweep() -> io::Result<()> {
    Netlink::open(libc::NETLINK_NETFILTER)?.transaction(enclosed(removal(TABLE)))
}

fn enclosed(mut messages: Vec<Message>) -> Vec<Message> {
    messages.insert(0, edge(16, None));
    messages.push(edge(17, None));
    messages
}

fn made(port: u16) -> Vec<Message> {
    let mut batch = removal(TABLE);
    batch.push(table(TABLE, crate::firewall::NEW_TABLE, CREATE));
    for (counted, id) in SETS.iter().zip(1..) {
        batch.push(new_set(counted, id));
    }
    for (name, hook) in [("sent", 3), ("received", 1)] {
        batch.push(new_chain(
            TABLE,
            &Chain {
                name: name.to_owned(),
                kind: "filter".to_owned(),
                hook,
                // Before whatever might drop it on the way in, after that on the way out.
                priority: if hook == 1 { -300 } else { 300 },
                device: None,
                rules: Vec::new(),
            },
        ));
    }
    // Of encrypted networks on the way into WireGuard and out of it, where peers are the same.
    for port in [port, encryption::inner_port(port)] {
        batch.extend(SETS.iter().map(|counted| rule(counted, port)));
    }
    batch
}

fn new_set(counted: &Counted, id: u32) -> Message {
    let (kind, length) = if counted.ipv6 { (8, 16) } else { (7, 4) };
    let mut message = message(NEW_SET, CREATE);
    message
        .text(1, TABLE)
        .text(2, counted.set)
        .big(3, SET_EVALUATED)
        .big(4, kind)
        .big(5, length)
        .big(10, id);
    message.nest(9, |about| {
        about.big(1, PEERS);
    });
    message.nest(17, |expression| {
        expression.text(1, "counter");
    });
    message
}

fn rule(counted: &Counted, port: u16) -> Message {
    let chain = if counted.received { "received" } else { "sent" };
    rule_of(TABLE, chain, counted.set, |list| {
        meta(list, META_PROTOCOL_FAMILY);
        compare(list, true, &[if counted.ipv6 { IPV6 } else { IPV4 }]);
        meta(list, META_TRANSPORT);
        compare(list, true, &[UDP]);
        // Destination port.
        payload(list, 2, 2, 2);
        compare(list, true, &port.to_be_bytes());
        match (counted.ipv6, counted.received) {
            (false, true) => payload(list, 1, 12, 4),
            (false, false) => payload(list, 1, 16, 4),
            (true, true) => payload(list, 1, 8, 16),
            (true, false) => payload(list, 1, 24, 16),
        }
        expression(list, "dynset", |e| {
            e.text(1, counted.set).big(3, UPDATE).big(4, 1);
            e.nest(7, |counter| {
                counter.text(1, "counter");
            });
        });
    })
}

/// Keys and counters of one message of a dump.
fn elements(body: &[u8]) -> Vec<(IpAddr, Counter)> {
    let of = |bytes, wanted: u16| {
        attributes(bytes)
            .find(|(kind, _)| *kind == wanted)
            .map_or(&[][..], |(_, value)| value)
    };
    let list = of(body.get(4..).unwrap_or_default(), 3);
    attributes(list)
        .filter_map(|(_, element)| {
            let address = address(of(of(element, 1), 1))?;
            let counter = of(of(element, 7), 2);
            let number = |kind| {
                let bytes = of(counter, kind).try_into();
                bytes.map_or(0, u64::from_be_bytes)
            };
            let counter = Counter {
                bytes: number(1),
                packets: number(2),
            };
            Some((address, counter))
        })
        .collect()
}

fn address(key: &[u8]) -> Option<IpAddr> {
    match key.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(key).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(key).ok()?).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read_and_strange_ones_left_out() {
        let mut body = Message::new(0, 0, &[1, 0, 0, 0]);
        body.nest(3, |list| {
            for key in [&[192, 0, 2, 7][..], &[1, 2, 3]] {
                list.nest(1, |element| {
                    element.nest(1, |data| {
                        data.attribute(1, key);
                    });
                    element.nest(7, |expression| {
                        expression.text(1, "counter");
                        expression.nest(2, |counter| {
                            counter.attribute(1, &1500_u64.to_be_bytes());
                            counter.attribute(2, &3_u64.to_be_bytes());
                        });
                    });
                });
            }
        });
        let counter = Counter {
            packets: 3,
            bytes: 1500,
        };
        let body = &body.bytes()[16..];
        assert_eq!(elements(body), [("192.0.2.7".parse().unwrap(), counter)]);
        for end in 0..body.len() {
            elements(&body[..end]);
        }
    }
}
