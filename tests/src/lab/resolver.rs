//! The underlay's name server: answers the lab's host names, says NXDOMAIN to the rest. It is
//! what a container's foreign names are forwarded to.

use std::net::{IpAddr, UdpSocket};

use anyhow::{Context, Result};

/// Serves the names of a hosts file on UDP port 53 for ever.
pub fn run(hosts: &str) -> Result<()> {
    let names = parse_hosts(hosts);
    let socket = UdpSocket::bind(("::", 53)).context("cannot listen on port 53")?;
    let mut packet = [0; 1500];
    loop {
        let (length, peer) = socket.recv_from(&mut packet)?;
        if let Some(answer) = answer(&packet[..length], &names) {
            let _ = socket.send_to(&answer, peer);
        }
    }
}

fn parse_hosts(text: &str) -> Vec<(String, IpAddr)> {
    let mut names = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else {
            continue;
        };
        names.extend(words.map(|name| (name.to_owned(), address)));
    }
    names
}

const HEADER: usize = 12;
const A: u16 = 1;
const AAAA: u16 = 28;

/// RFC 1035, one question; absent when the packet is none.
fn answer(query: &[u8], names: &[(String, IpAddr)]) -> Option<Vec<u8>> {
    let is_question = query.get(2)? & 0x80 == 0 && query.get(4..6)? == [0, 1];
    if !is_question {
        return None;
    }
    let mut labels = Vec::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes(query.get(at..at + 2)?.try_into().ok()?);
    let question = query.get(HEADER..at + 4)?;
    let name = labels.join(".");
    let known = names.iter().any(|(own, _)| *own == name);
    let records: Vec<Vec<u8>> = names
        .iter()
        .filter(|(own, _)| *own == name)
        .filter_map(|(_, address)| match address {
            IpAddr::V4(v4) if kind == A => Some(v4.octets().to_vec()),
            IpAddr::V6(v6) if kind == AAAA => Some(v6.octets().to_vec()),
            _ => None,
        })
        .collect();
    let mut reply = query.get(..2)?.to_vec();
    // Response, recursion as asked and available; code 3 is NXDOMAIN.
    reply.extend([0x84 | (query[2] & 1), if known { 0x80 } else { 0x83 }]);
    reply.extend([0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
    reply.extend(question);
    for record in records {
        reply.extend([0xc0, HEADER as u8]);
        reply.extend(kind.to_be_bytes());
        reply.extend([0, 1, 0, 0, 0, 30, 0, record.len() as u8]);
        reply.extend(record);
    }
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(name: &str, kind: u16) -> Vec<u8> {
        let mut query = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(label.len() as u8);
            query.extend(label.bytes());
        }
        query.push(0);
        query.extend(kind.to_be_bytes());
        query.extend([0, 1]);
        answer(
            &query,
            &parse_hosts("192.168.77.2 registry\nfd77::2 registry\n# x\n"),
        )
        .unwrap()
    }

    #[test]
    fn known_names_have_addresses_others_do_not_exist() {
        let four = ask("Registry", A);
        assert_eq!((four[3] & 0xf, four[7]), (0, 1));
        assert!(four.ends_with(&[192, 168, 77, 2]));
        assert_eq!(ask("registry", AAAA)[7], 1);
        assert_eq!(
            (ask("registry", 15)[3] & 0xf, ask("registry", 15)[7]),
            (0, 0)
        );
        assert_eq!(ask("no.where", A)[3] & 0xf, 3);
        assert_eq!(answer(b"short", &[]), None);
    }
}
