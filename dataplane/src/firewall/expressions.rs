//! The expressions that rules consist of, part by part.

use crate::{
    netlink::Message,
    rules::{Part, bound, octets, published, vips},
    view::TUNNEL,
};

pub const DNAT: u32 = 1;

pub fn expression(list: &mut Message, name: &str, fill: impl FnOnce(&mut Message)) {
    list.nest(1, |element| {
        element.text(1, name);
        element.nest(2, fill);
    });
}

/// Loads into register 1.
pub fn meta(list: &mut Message, key: u32) {
    expression(list, "meta", |e| {
        e.big(2, key).big(1, 1);
    });
}

/// `base` is 1 for the network header, 2 for the transport header.
pub fn payload(list: &mut Message, base: u32, offset: u32, length: u32) {
    expression(list, "payload", |e| {
        e.big(1, 1).big(2, base).big(3, offset).big(4, length);
    });
}

pub fn compare(list: &mut Message, equal: bool, value: &[u8]) {
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

pub fn load(list: &mut Message, register: u32, value: &[u8]) {
    expression(list, "immediate", |e| {
        e.big(1, register);
        e.nest(2, |data| {
            data.attribute(1, value);
        });
    });
}

/// Loads a property of the connection into register 1: 0 its state, 2 its status, 3 its mark.
fn connection(list: &mut Message, key: u32) {
    expression(list, "ct", |e| {
        e.big(1, 1).big(2, key);
    });
}

/// Replaces what is in register 1 by its value in a map.
fn value(list: &mut Message, map: &str) {
    expression(list, "lookup", |e| {
        e.text(1, map).big(2, 1).big(3, 1);
    });
}

/// Translates the source (0) or the destination (1) to the address in register 1, and to the port
/// in register 2.
pub fn nat(list: &mut Message, kind: u32, ipv6: bool, port: bool) {
    expression(list, "nat", |e| {
        e.big(1, kind).big(2, if ipv6 { 10 } else { 2 }).big(3, 1);
        if port {
            e.big(5, 2);
        }
    });
}

/// To one of `count` addresses in the map `name` at random.
pub fn dnat_numbered(list: &mut Message, name: &str, count: usize, ipv6: bool, port: Option<u16>) {
    expression(list, "numgen", |e| {
        e.big(1, 1).big(2, count as u32).big(3, 1).big(4, 0);
    });
    value(list, name);
    if let Some(port) = port {
        load(list, 2, &port.to_be_bytes());
    }
    nat(list, DNAT, ipv6, port.is_some());
}

/// `kind` is 1 for a reset of TCP, 2 for an ICMP message of the packet's family.
pub fn reject(list: &mut Message, kind: u32, code: u8) {
    expression(list, "reject", |e| {
        e.big(1, kind).attribute(2, &[code]);
    });
}

pub fn verdict(list: &mut Message, code: u32) {
    expression(list, "immediate", |e| {
        e.big(1, 0);
        e.nest(2, |data| {
            data.nest(2, |verdict| {
                verdict.big(1, code);
            });
        });
    });
}

/// Of the source (offset 0) or the destination (2).
fn port(list: &mut Message, protocol: u8, offset: u32, number: u16) {
    meta(list, 16);
    compare(list, true, &[protocol]);
    payload(list, 2, offset, 2);
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

pub fn write(list: &mut Message, chain: &str, part: &Part) {
    match part {
        Part::Ipv4 | Part::Ipv6 => {
            meta(list, 15);
            compare(list, true, &[if *part == Part::Ipv4 { 2 } else { 10 }]);
        }
        Part::UdpTo(number) => port(list, 17, 2, *number),
        Part::TcpTo(number) => port(list, 6, 2, *number),
        Part::UdpFrom(number) => port(list, 17, 0, *number),
        Part::TcpFrom(number) => port(list, 6, 0, *number),
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
        Part::SourceIn { set, ipv6 } => {
            if *ipv6 {
                payload(list, 1, 8, 16);
            } else {
                payload(list, 1, 12, 4);
            }
            lookup(list, set, false);
        }
        Part::DestinationIn { set, ipv6 } => {
            if *ipv6 {
                payload(list, 1, 24, 16);
            } else {
                payload(list, 1, 16, 4);
            }
            lookup(list, set, false);
        }
        Part::From(net) => subnet(list, net, true),
        Part::To(net) => subnet(list, net, false),
        Part::In(name) => device(list, 6, name, true, true),
        Part::Out(name) => device(list, 7, name, true, true),
        Part::NotOut(name) => device(list, 7, name, true, false),
        Part::InOurs => device(list, 6, "ovtb", false, true),
        Part::OutOurs => device(list, 7, "ovtb", false, true),
        Part::InTunnel => device(list, 6, TUNNEL, false, true),
        Part::NotInTunnel => device(list, 6, TUNNEL, false, false),
        Part::NotOutTunnel => device(list, 7, TUNNEL, false, false),
        Part::Established => {
            connection(list, 0);
            // The state is a number of the host's byte order: established 2, related 4.
            masked(list, &6_u32.to_ne_bytes(), &[0; 4]);
            compare(list, false, &[0; 4]);
        }
        Part::Count => expression(list, "counter", |_| {}),
        Part::Accept => verdict(list, 1),
        Part::Drop => verdict(list, 0),
        Part::Notrack => expression(list, "notrack", |_| {}),
        Part::Masquerade => expression(list, "masq", |_| {}),
        Part::ToVip { ipv6 } => {
            // Without a condition on the family of the packet another one's bytes would be read.
            meta(list, 15);
            compare(list, true, &[if *ipv6 { 10 } else { 2 }]);
            if *ipv6 {
                payload(list, 1, 24, 16);
            } else {
                payload(list, 1, 16, 4);
            }
            expression(list, "lookup", |e| {
                e.text(1, vips(*ipv6)).big(2, 1).big(3, 0);
            });
        }
        Part::ToHost => {
            expression(list, "fib", |e| {
                e.big(1, 1).big(2, 3).big(3, 2);
            });
            // RTN_LOCAL, a number of the host's byte order.
            compare(list, true, &2_u32.to_ne_bytes());
        }
        Part::ToPublished { ipv6 } => {
            meta(list, 15);
            compare(list, true, &[if *ipv6 { 10 } else { 2 }]);
            // The parts of the key lie in registers of four bytes each.
            expression(list, "meta", |e| {
                e.big(2, 16).big(1, 8);
            });
            expression(list, "payload", |e| {
                e.big(1, 9).big(2, 2).big(3, 2).big(4, 2);
            });
            expression(list, "lookup", |e| {
                e.text(1, published(*ipv6)).big(2, 8).big(3, 0);
            });
        }
        Part::ToBound { ipv6 } => {
            meta(list, 15);
            compare(list, true, &[if *ipv6 { 10 } else { 2 }]);
            let (offset, length) = if *ipv6 { (24, 16) } else { (16, 4) };
            let next = 8 + length / 4;
            expression(list, "payload", |e| {
                e.big(1, 8).big(2, 1).big(3, offset).big(4, length);
            });
            expression(list, "meta", |e| {
                e.big(2, 16).big(1, next);
            });
            expression(list, "payload", |e| {
                e.big(1, next + 1).big(2, 2).big(3, 2).big(4, 2);
            });
            expression(list, "lookup", |e| {
                e.text(1, bound(*ipv6)).big(2, 8).big(3, 0);
            });
        }
        Part::GoTo(to) => expression(list, "immediate", |e| {
            e.big(1, 0);
            e.nest(2, |data| super::maps::goto(data, to));
        }),
        Part::DnatAmong { backends, port } => {
            let ipv6 = backends.iter().any(std::net::IpAddr::is_ipv6);
            dnat_numbered(list, chain, backends.len(), ipv6, Some(*port));
        }
        Part::DnatTo { backend, port } => {
            load(list, 1, &octets(backend));
            load(list, 2, &port.to_be_bytes());
            nat(list, DNAT, backend.is_ipv6(), true);
        }
        Part::ResetTcp => {
            meta(list, 16);
            compare(list, true, &[6]);
            reject(list, 1, 0);
        }
        Part::Unreachable => reject(list, 2, 1),
        Part::InGateway => device(list, 6, "ovtg", false, true),
        Part::OutGateway => device(list, 7, "ovtg", false, true),
        Part::NotOutGateway => device(list, 7, "ovtg", false, false),
        Part::Translated => {
            connection(list, 2);
            // IPS_DST_NAT
            masked(list, &0x20_u32.to_ne_bytes(), &[0; 4]);
            compare(list, false, &[0; 4]);
        }
        Part::SnatTo(address) => {
            load(list, 1, &octets(address));
            nat(list, 0, address.is_ipv6(), false);
        }
        Part::New => {
            connection(list, 0);
            masked(list, &8_u32.to_ne_bytes(), &[0; 4]);
            compare(list, false, &[0; 4]);
        }
        Part::MarkHost => {
            payload(list, 0, 6, 6);
            value(list, "hosts");
            expression(list, "ct", |e| {
                e.big(2, 3).big(4, 1);
            });
        }
        Part::Opens => {
            meta(list, 16);
            compare(list, true, &[6]);
            payload(list, 2, 13, 1);
            // FIN, SYN, RST and ACK, of which SYN alone is set.
            masked(list, &[0x17], &[0]);
            compare(list, true, &[0x02]);
        }
        Part::ByAnotherHost => {
            expression(list, "payload", |e| {
                e.big(1, 8).big(2, 0).big(3, 6).big(4, 6);
            });
            expression(list, "ct", |e| {
                e.big(1, 10).big(2, 3);
            });
            expression(list, "lookup", |e| {
                e.text(1, "ways").big(2, 8).big(5, 1);
            });
        }
        Part::MarkPacket => {
            connection(list, 3);
            expression(list, "meta", |e| {
                e.big(2, 3).big(3, 1);
            });
        }
        Part::Marked(mark) => {
            meta(list, 3);
            compare(list, true, &mark.to_ne_bytes());
        }
        Part::BackToHost => {
            meta(list, 3);
            value(list, "back");
            expression(list, "payload", |e| {
                e.big(5, 1).big(2, 0).big(3, 0).big(4, 6);
                e.big(6, 0).big(7, 0);
            });
        }
        Part::SetPort { tcp, source, port } => {
            load(list, 1, &port.to_be_bytes());
            expression(list, "payload", |e| {
                e.big(5, 1).big(2, 2);
                e.big(3, if *source { 0 } else { 2 }).big(4, 2);
                // The checksum of the internet protocols, and where it lies.
                e.big(6, 1).big(7, if *tcp { 16 } else { 6 });
            });
        }
    }
}
