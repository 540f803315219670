//! A client that only waits hears nothing of a lost host: nothing that it sends can be answered by a
//! reset. So it is made to send: a segment that cannot belong to its connection is acknowledged by
//! what the client does expect (RFC 9293, section 3.10.7.4), and that acknowledgement meets the rule
//! for tasks of lost hosts.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    thread,
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::rules::octets;

/// The segment is not one of the connection, and tracking must not take it for one ("ovng").
pub const MARK: u32 = 0x6f76_6e67;

const TCP: u8 = 6;
const ACK: u8 = 0x10;
/// Numbers so far apart that one of them is outside of any window.
const SEQUENCES: [u32; 2] = [0, 1 << 31];

/// Nudges clients of connections, each given by its client's end and by the end that the client
/// knows, without waiting: there may be a hundred thousand. From the calling thread's namespace.
pub fn all(connections: Vec<(SocketAddr, SocketAddr)>) {
    if connections.is_empty() {
        return;
    }
    let count = connections.len();
    let work = move || {
        // Who is not reached hears of it with the next packet that it sends.
        if let Err(error) = send(&connections) {
            tracing::debug!(%error, "clients of a lost host were not told");
        }
    };
    match thread::Builder::new().name("nudge".into()).spawn(work) {
        Ok(_) => tracing::info!(count, "clients of a lost host's tasks are told"),
        Err(error) => tracing::debug!(%error, "clients of a lost host were not told"),
    }
}

fn send(connections: &[(SocketAddr, SocketAddr)]) -> io::Result<()> {
    for domain in [Domain::IPV4, Domain::IPV6] {
        let ipv6 = domain == Domain::IPV6;
        let mut own = connections.iter().filter(|(to, _)| to.is_ipv6() == ipv6);
        let mut next = own.next();
        if next.is_none() {
            continue;
        }
        // Of this protocol the sender writes the header of IP, too (raw(7)).
        let raw = Protocol::from(libc::IPPROTO_RAW);
        let socket = Socket::new(domain, Type::RAW, Some(raw))?;
        socket.set_mark(MARK)?;
        while let Some((client, server)) = next {
            let to = SockAddr::from(SocketAddr::new(client.ip(), 0));
            for sequence in SEQUENCES {
                // A client that cannot be reached is no reason to leave out the others.
                let _ = socket.send_to(&packet(*server, *client, sequence), &to);
            }
            next = own.next();
        }
    }
    Ok(())
}

/// An acknowledgement without data. The kernel fills in what it knows better: of IPv4 the
/// identification and the checksum of the header.
fn packet(from: SocketAddr, to: SocketAddr, sequence: u32) -> Vec<u8> {
    let mut segment = Vec::with_capacity(60);
    segment.extend(from.port().to_be_bytes());
    segment.extend(to.port().to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend(0_u32.to_be_bytes());
    // Five words of header, the flags, a window, no checksum yet, nothing urgent.
    segment.extend([5 << 4, ACK, 0xff, 0xff, 0, 0, 0, 0]);
    let checksum = checksum(from.ip(), to.ip(), &segment);
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    let length = segment.len() as u16;
    let mut packet = if from.is_ipv6() {
        let [high, low] = length.to_be_bytes();
        vec![6 << 4, 0, 0, 0, high, low, TCP, 64]
    } else {
        let [high, low] = (length + 20).to_be_bytes();
        vec![4 << 4 | 5, 0, high, low, 0, 0, 0, 0, 64, TCP, 0, 0]
    };
    packet.extend(octets(&from.ip()));
    packet.extend(octets(&to.ip()));
    packet.extend(segment);
    packet
}

/// Over the addresses, the protocol, the length and the segment (RFC 9293, section 3.1).
fn checksum(from: IpAddr, to: IpAddr, segment: &[u8]) -> u16 {
    let length = segment.len() as u16;
    let mut sum = u32::from(TCP) + u32::from(length);
    let words = [octets(&from), octets(&to), segment.to_vec()].concat();
    for pair in words.chunks(2) {
        let low = pair.get(1).copied().unwrap_or_default();
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A receiver's sum over the pseudo header and the segment with its checksum is all ones.
    #[test]
    fn a_receiver_finds_the_sum_right() {
        for (from, to) in [
            ("192.168.77.1:8000", "10.1.2.3:40000"),
            ("[fd07::1]:8000", "[fd09::abcd]:40001"),
        ] {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let packet = packet(from, to, SEQUENCES[1]);
            let header = if from.is_ipv6() { 40 } else { 20 };
            assert_eq!(packet.len(), header + 20);
            let segment = &packet[header..];
            assert_eq!(
                segment[..4],
                [0x1f, 0x40, 0x9c, 0x40 + (to.port() - 40_000) as u8]
            );
            assert_eq!(checksum(from.ip(), to.ip(), segment), 0);
        }
    }
}
