//! The kernel's connection tracking over netlink: ending flows that lead nowhere, and counting
//! those into a sandbox. Numbers are those of linux/netfilter/nfnetlink_conntrack.h.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use ipnetwork::IpNetwork;

use crate::netlink::{ACK, DUMP, Message, Netlink, attributes};

const SUBSYSTEM: u16 = 1 << 8;
const NEW: u16 = 0;
const GET: u16 = 1;
const DELETE: u16 = 2;
const GET_STATISTICS: u16 = 5;
/// More entries than that are filtered by the kernel, at the price of several walks.
const FEW: u32 = 512;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

const SEEN_REPLY: u32 = 2;
const ASSURED: u32 = 4;
/// Its destination.
const TRANSLATED: u32 = 0x20;

/// States of TCP (linux/netfilter/nf_conntrack_tcp.h) in which the server may still have to
/// answer; in the last two only until it has closed itself.
const TCP_OPEN: [u8; 2] = [2, 3];
const TCP_CLOSING: [u8; 2] = [4, 5];
/// The side has sent a FIN.
const CLOSE_INIT: u8 = 4;
const SCTP_ESTABLISHED: u8 = 4;

/// Seconds that the kernel gives a UDP flow from its last packet: with an answer, and as a stream.
const UDP_TIMEOUTS: [u32; 2] = [30, 120];
/// Seconds in which a UDP flow's last packet is recent.
const RECENT: u32 = 2;

/// One connection, its tuple in the direction of its first packet.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Flow {
    protocol: u8,
    source: IpAddr,
    /// 0 where there are no ports.
    source_port: u16,
    /// As its first sender wrote it.
    destination: IpAddr,
    /// Of the destination; 0 where there are no ports.
    port: u16,
    /// Who answers: the backend behind a virtual address, or the destination itself.
    answerer: IpAddr,
    status: u32,
    /// Seconds that are left.
    timeout: u32,
    state: u8,
    /// Of the answering side, `IP_CT_TCP_FLAG_*`.
    answer_flags: u8,
    /// The first attribute with its header: deleting needs it as it came.
    tuple: Vec<u8>,
    id: Vec<u8>,
}

impl Flow {
    /// Whether it must begin anew when only `backends` may serve its destination: it would go on
    /// unasked for as long as it lives, or never get an answer.
    fn is_astray(&self, backends: &BTreeSet<IpAddr>) -> bool {
        let moves = match self.protocol {
            UDP | ICMP | ICMPV6 => true,
            _ => self.status & SEEN_REPLY == 0,
        };
        moves && !backends.contains(&self.answerer)
    }

    /// Whether a server at one of `own` is still at work for it.
    fn is_at_work(&self, own: &BTreeSet<IpAddr>) -> bool {
        if !own.contains(&self.destination) || own.contains(&self.source) {
            return false;
        }
        match self.protocol {
            TCP => {
                let closing = TCP_CLOSING.contains(&self.state);
                TCP_OPEN.contains(&self.state) || closing && self.answer_flags & CLOSE_INIT == 0
            }
            SCTP => self.state == SCTP_ESTABLISHED,
            UDP => {
                let stream = usize::from(self.status & ASSURED != 0);
                UDP_TIMEOUTS[stream].saturating_sub(self.timeout) <= RECENT
            }
            _ => false,
        }
    }
}

/// Ends the flows to the virtual addresses `wanted` that go to none of the backends given
/// there: those of UDP and ICMP, and handshakes without an answer. Established connections of TCP
/// and SCTP go on. Answers how many.
pub fn cut(socket: &mut Netlink, wanted: &BTreeMap<IpAddr, BTreeSet<IpAddr>>) -> io::Result<usize> {
    let entries = entries(socket)?;
    if entries == 0 || wanted.is_empty() {
        return Ok(0);
    }
    let mut astray = Vec::new();
    for ipv6 in [false, true] {
        if !wanted.keys().any(|address| address.is_ipv6() == ipv6) {
            continue;
        }
        let icmp = if ipv6 { ICMPV6 } else { ICMP };
        let filters = if entries <= FEW {
            vec![Filter::All]
        } else {
            vec![
                Filter::Protocol(UDP),
                Filter::Protocol(icmp),
                Filter::Unanswered,
            ]
        };
        for filter in filters {
            dump(socket, ipv6, &filter, |flow| {
                let backends = wanted.get(&flow.destination);
                if backends.is_some_and(|backends| flow.is_astray(backends)) {
                    astray.push((ipv6, flow));
                }
            })?;
        }
    }
    delete(socket, astray)
}

/// Ends flows that were translated into `subnets` to a task that is not allowed for their
/// protocol and port: those of UDP, and handshakes without an answer. Answers how many.
pub fn cut_published(
    socket: &mut Netlink,
    allowed: &BTreeMap<u32, BTreeSet<IpAddr>>,
    subnets: &[IpNetwork],
) -> io::Result<usize> {
    let entries = entries(socket)?;
    if entries == 0 {
        return Ok(0);
    }
    let mut astray = Vec::new();
    let nobody = BTreeSet::new();
    for ipv6 in [false, true] {
        let filters = if entries <= FEW {
            vec![Filter::All]
        } else {
            vec![Filter::Protocol(UDP), Filter::Unanswered]
        };
        for filter in filters {
            dump(socket, ipv6, &filter, |flow| {
                let inside = subnets.iter().any(|net| net.contains(flow.answerer));
                let to = allowed.get(&place(flow.protocol, flow.port));
                if flow.status & TRANSLATED != 0 && inside && flow.is_astray(to.unwrap_or(&nobody))
                {
                    astray.push((ipv6, flow));
                }
            })?;
        }
    }
    delete(socket, astray)
}

/// A protocol and a port as one number.
pub fn place(protocol: u8, port: u16) -> u32 {
    u32::from(protocol) << 16 | u32::from(port)
}

/// Both ends, the client's first, of the connections of TCP that were translated to one of
/// `answerers` and that nobody has begun to end.
pub fn established(
    socket: &mut Netlink,
    answerers: &BTreeSet<IpAddr>,
) -> io::Result<Vec<(SocketAddr, SocketAddr)>> {
    let mut found = Vec::new();
    for ipv6 in [false, true] {
        if !answerers.iter().any(|address| address.is_ipv6() == ipv6) {
            continue;
        }
        dump(socket, ipv6, &Filter::Protocol(TCP), |flow| {
            let open = flow.protocol == TCP && TCP_OPEN.contains(&flow.state);
            if open && flow.status & TRANSLATED != 0 && answerers.contains(&flow.answerer) {
                let client = SocketAddr::new(flow.source, flow.source_port);
                found.push((client, SocketAddr::new(flow.destination, flow.port)));
            }
        })?;
    }
    Ok(found)
}

fn delete(socket: &mut Netlink, astray: Vec<(bool, Flow)>) -> io::Result<usize> {
    let count = astray.len();
    let deletions = astray.into_iter().map(|(ipv6, flow)| {
        let mut message = message(DELETE, 0, ipv6);
        message.raw(&flow.tuple);
        message.attribute(12, &flow.id);
        message
    });
    // Others than "gone by itself" are no reason to stop either: the next change tries again.
    for (_, error) in socket.batch(deletions)? {
        if error.raw_os_error() != Some(libc::ENOENT) {
            return Err(error);
        }
    }
    Ok(count)
}

/// Connections into a sandbox that has the addresses `own`: of TCP and SCTP those that are
/// established, of UDP those that had a packet just now. A sandbox's connections to itself do
/// not count.
pub fn count(socket: &mut Netlink, own: &BTreeSet<IpAddr>) -> io::Result<u64> {
    if entries(socket)? == 0 {
        return Ok(0);
    }
    let mut found = 0;
    for address in own {
        if let IpAddr::V4(address) = address {
            dump(socket, false, &Filter::To(*address), |flow| {
                found += u64::from(flow.destination == *address && flow.is_at_work(own));
            })?;
        }
    }
    if own.iter().any(IpAddr::is_ipv6) {
        // The kernel's filter by an IPv6 address lets everything through but that address.
        dump(socket, true, &Filter::All, |flow| {
            found += u64::from(flow.is_at_work(own));
        })?;
    }
    Ok(found)
}

/// How many connections the socket's namespace tracks.
fn entries(socket: &mut Netlink) -> io::Result<u32> {
    let mut entries = 0;
    socket.dump(message(GET_STATISTICS, ACK, false), |_, body| {
        let number = inner(body.get(4..).unwrap_or_default(), 1);
        if let Some(Ok(bytes)) = number.map(<[u8; 4]>::try_from) {
            entries = u32::from_be_bytes(bytes);
        }
    })?;
    Ok(entries)
}

/// What the kernel is asked to leave out. Kernels before 5.8 answer with everything.
enum Filter {
    All,
    Protocol(u8),
    Unanswered,
    To(Ipv4Addr),
}

fn dump(
    socket: &mut Netlink,
    ipv6: bool,
    filter: &Filter,
    mut visit: impl FnMut(Flow),
) -> io::Result<()> {
    let mut message = message(GET, DUMP, ipv6);
    match filter {
        Filter::All => {}
        Filter::Protocol(protocol) => {
            message.nest(1, |tuple| {
                tuple.nest(2, |part| {
                    part.attribute(1, &[*protocol]);
                });
            });
            message.nest(25, |flags| {
                flags.number(1, 1 << 3);
            });
        }
        Filter::To(address) => {
            message.nest(1, |tuple| {
                tuple.nest(1, |part| {
                    part.attribute(2, &address.octets());
                });
            });
            message.nest(25, |flags| {
                flags.number(1, 1 << 1);
            });
        }
        Filter::Unanswered => {
            message.big(3, 0).big(26, SEEN_REPLY);
        }
    }
    socket.dump(message, |kind, body| {
        if kind == SUBSYSTEM | NEW
            && let Some(flow) = parse(body.get(4..).unwrap_or_default())
        {
            visit(flow);
        }
    })
}

fn message(kind: u16, flags: u16, ipv6: bool) -> Message {
    let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    Message::new(SUBSYSTEM | kind, flags, &[family as u8, 0, 0, 0])
}

fn inner(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|(kind, _)| *kind == wanted)
        .map(|(_, value)| value)
}

fn parse(body: &[u8]) -> Option<Flow> {
    let (tuple, answer) = (inner(body, 1)?, inner(body, 2)?);
    let big = |kind| {
        let bytes = inner(body, kind)?.try_into().ok()?;
        Some(u32::from_be_bytes(bytes))
    };
    let addresses = |tuple| {
        let ip = inner(tuple, 1)?;
        let of = |v4, v6| address(inner(ip, v4).or_else(|| inner(ip, v6))?);
        Some((of(1, 3)?, of(2, 4)?))
    };
    let (source, destination) = addresses(tuple)?;
    let (answerer, _) = addresses(answer)?;
    let protocol = *inner(inner(tuple, 2)?, 1)?.first()?;
    let ports = inner(tuple, 2)?;
    let port = |kind| {
        let bytes = inner(ports, kind).and_then(|port| port.try_into().ok());
        bytes.map_or(0, u16::from_be_bytes)
    };
    let details = inner(body, 4).unwrap_or_default();
    let of_protocol = inner(details, if protocol == SCTP { 3 } else { 1 }).unwrap_or_default();
    let first = |kind| inner(of_protocol, kind).and_then(|value| value.first().copied());
    // The whole attribute, its header too.
    let mut header = (tuple.len() as u16 + 4).to_ne_bytes().to_vec();
    header.extend_from_slice(&(1_u16 | 0x8000).to_ne_bytes());
    header.extend_from_slice(tuple);
    header.resize(header.len().next_multiple_of(4), 0);
    Some(Flow {
        protocol,
        source,
        source_port: port(2),
        destination,
        port: port(3),
        answerer,
        status: big(3).unwrap_or_default(),
        timeout: big(7).unwrap_or_default(),
        state: first(1).unwrap_or_default(),
        answer_flags: if protocol == TCP {
            first(5).unwrap_or_default()
        } else {
            0
        },
        tuple: header,
        id: inner(body, 12).unwrap_or_default().to_vec(),
    })
}

fn address(value: &[u8]) -> Option<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(value) {
        return Some(bytes.into());
    }
    <[u8; 16]>::try_from(value).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests;
