//! The routing table that leads packets of encrypted networks, and the rule that sends them there.
//! Numbers are those of linux/fib_rules.h and linux/rtnetlink.h.

use std::{collections::BTreeSet, io, net::IpAddr};

use super::{
    deeds::{gone_is_fine, index},
    links::{DEL_ROUTE, NEW_ROUTE},
    sight::Link,
};
use crate::{
    netlink::{CREATE, DUMP, EXCLUSIVE, Message, Netlink, REPLACE, attributes, u16_at, u32_at},
    rules::octets,
    view::{Way, Ways},
};

/// Ours, out of the way of everybody's numbers.
const TABLE: u32 = 0x4f56;
/// Before all rules that tools make by themselves, after the one of local addresses.
const PRIORITY: u32 = 79;
const NEW_RULE: u16 = 32;
const DEL_RULE: u16 = 33;
const GET_RULE: u16 = 34;
/// See `links`: by it our routes are known.
const PROTOCOL: u8 = 79;
const UDP: u8 = 17;
const UNICAST: u8 = 1;
const UNREACHABLE: u8 = 7;
const SCOPE_LINK: u8 = 253;

fn family(ipv6: bool) -> u8 {
    if ipv6 { 10 } else { 2 }
}

pub fn rule(kind: u16, ipv6: bool, port: u16) -> Message {
    // To a table; the table's number has no room in the header.
    let header = [family(ipv6), 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    let flags = if kind == NEW_RULE {
        CREATE | EXCLUSIVE
    } else {
        0
    };
    let mut message = Message::new(kind, flags, &header);
    let range = [port.to_ne_bytes(), port.to_ne_bytes()].concat();
    message
        .number(6, PRIORITY)
        .number(15, TABLE)
        .attribute(21, &[PROTOCOL])
        .attribute(22, &[UDP])
        .attribute(24, &range);
    message
}

/// To one host by a device, or to nobody.
pub fn route(kind: u16, ipv6: bool, to: Option<(IpAddr, u32)>) -> Message {
    let bits = match to {
        None => 0,
        Some(_) if ipv6 => 128,
        Some(_) => 32,
    };
    let (way, scope) = match to {
        None => (UNREACHABLE, 0),
        Some(_) => (UNICAST, if ipv6 { 0 } else { SCOPE_LINK }),
    };
    let header = [
        family(ipv6),
        bits,
        0,
        0,
        0,
        PROTOCOL,
        scope,
        way,
        0,
        0,
        0,
        0,
    ];
    let flags = if kind == NEW_ROUTE {
        CREATE | REPLACE
    } else {
        0
    };
    let mut message = Message::new(kind, flags, &header);
    message.number(15, TABLE);
    if let Some((address, device)) = to {
        message.attribute(1, &octets(&address));
        if device != 0 {
            message.number(4, device);
        }
    }
    message
}

/// Brings the table to what is wanted; the way out is closed before the first packet is sent to it.
pub fn set(
    socket: &mut Netlink,
    ipv6: bool,
    (set, gone, old): (&Way, &BTreeSet<IpAddr>, Option<u16>),
) -> io::Result<()> {
    if set.closed {
        socket.request(route(NEW_ROUTE, ipv6, None))?;
    }
    if let Some(port) = set.rule {
        match socket.request(rule(NEW_RULE, ipv6, port)) {
            Err(error) if error.raw_os_error() != Some(libc::EEXIST) => return Err(error),
            _ => {}
        }
    }
    if let Some(port) = old {
        gone_is_fine(socket.request(rule(DEL_RULE, ipv6, port)))?;
    }
    for address in gone {
        gone_is_fine(socket.request(route(DEL_ROUTE, ipv6, Some((*address, 0)))))?;
    }
    // A host that cannot be led to is no reason to leave out the others.
    let mut result = Ok(());
    for (address, device) in &set.routes {
        let done = index(socket, device)
            .and_then(|device| socket.request(route(NEW_ROUTE, ipv6, Some((*address, device)))));
        if result.is_ok() {
            result = done;
        }
    }
    result
}

pub fn remove(socket: &mut Netlink, ipv6: bool, way: &Way) -> io::Result<()> {
    if let Some(port) = way.rule {
        gone_is_fine(socket.request(rule(DEL_RULE, ipv6, port)))?;
    }
    for address in way.routes.keys() {
        gone_is_fine(socket.request(route(DEL_ROUTE, ipv6, Some((*address, 0)))))?;
    }
    if way.closed {
        gone_is_fine(socket.request(route(DEL_ROUTE, ipv6, None)))?;
    }
    Ok(())
}

/// A route of our table, from the body of its message: to whom, and by which device; neither where
/// it ends there.
pub fn read_route(body: &[u8]) -> Option<(bool, Option<(IpAddr, u32)>)> {
    let ipv6 = body.first() == Some(&family(true));
    let (mut table, mut to, mut device) = (0, None, 0);
    for (kind, value) in attributes(body.get(12..)?) {
        match kind {
            1 => to = super::sight::ip(value),
            4 => device = u32_at(value, 0)?,
            15 => table = u32_at(value, 0)?,
            _ => {}
        }
    }
    if table != TABLE {
        return None;
    }
    match *body.get(7)? {
        UNREACHABLE if to.is_none() => Some((ipv6, None)),
        UNICAST => Some((ipv6, Some((to?, device)))),
        _ => None,
    }
}

/// The port of a rule that leads to our table.
fn read_rule(body: &[u8]) -> Option<(bool, u16)> {
    let ipv6 = body.first() == Some(&family(true));
    let (mut table, mut protocol, mut port) = (0, 0, None);
    for (kind, value) in attributes(body.get(12..)?) {
        match kind {
            15 => table = u32_at(value, 0)?,
            22 => protocol = *value.first()?,
            24 => port = u16_at(value, 0),
            _ => {}
        }
    }
    let ours = table == TABLE && protocol == UDP;
    ours.then_some((ipv6, port?))
}

/// What the kernel has of ours, the routes having been read with the others.
pub fn read<'a>(
    socket: &mut Netlink,
    routes: &[(bool, Option<(IpAddr, u32)>)],
    link: impl Fn(u32) -> Option<&'a Link>,
) -> io::Result<Ways> {
    let mut ways = Ways::default();
    for (ipv6, route) in routes {
        let way = of(&mut ways, *ipv6);
        match route {
            None => way.closed = true,
            Some((to, device)) => {
                if let Some(link) = link(*device) {
                    way.routes.insert(*to, link.name.clone());
                }
            }
        }
    }
    for ipv6 in [false, true] {
        let header = [family(ipv6), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let asked = socket.dump(Message::new(GET_RULE, DUMP, &header), |_, body| {
            if let Some((ipv6, port)) = read_rule(body) {
                of(&mut ways, ipv6).rule = Some(port);
            }
        });
        match asked {
            // A kernel without IPv6 has no rules of it.
            Err(error) if ipv6 && error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
            asked => asked?,
        }
    }
    Ok(ways)
}

fn of(ways: &mut Ways, ipv6: bool) -> &mut Way {
    if ipv6 { &mut ways.ipv6 } else { &mut ways.ipv4 }
}
