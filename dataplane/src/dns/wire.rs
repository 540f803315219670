//! DNS messages (RFC 1035 section 4, RFC 6891 for EDNS): as much as it takes to understand a
//! question and to write an answer, in place and without allocation.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How long others may keep an answer, in seconds. Low, because containers come and go.
pub const TTL: u32 = 5;
/// The largest UDP answer, in bytes, that a client gets which does not speak EDNS.
pub const PLAIN_UDP: usize = 512;
/// The largest UDP answer at all, whatever a client says it takes.
pub const MAX_UDP: usize = 4096;
/// The largest message over TCP.
pub const MAX_TCP: usize = 65535;

pub const HEADER: usize = 12;
const MAX_NAME: usize = 255;
const OPT_RECORD: usize = 11;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rcode {
    NoError = 0,
    FormErr = 1,
    ServFail = 2,
    NxDomain = 3,
    NotImp = 4,
    /// Needs the OPT record for its upper bits.
    BadVers = 16,
}

pub mod rtype {
    pub const A: u16 = 1;
    pub const PTR: u16 = 12;
    pub const AAAA: u16 = 28;
    pub const OPT: u16 = 41;
    pub const ANY: u16 = 255;
}

pub mod class {
    pub const IN: u16 = 1;
    pub const ANY: u16 = 255;
}

/// A packet that asks exactly one thing.
#[derive(Debug)]
pub struct Query<'p> {
    packet: &'p [u8],
    name: [u8; MAX_NAME],
    name_len: usize,
    pub qtype: u16,
    pub qclass: u16,
    question_end: usize,
    pub edns: Option<Edns>,
}

/// What the client's OPT record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edns {
    pub udp_size: u16,
    pub version: u8,
    dnssec_ok: bool,
}

/// Why a packet is no [`Query`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// Not answered: too short for a header, or itself an answer.
    Ignore,
    Refuse(Rcode),
}

impl<'p> Query<'p> {
    pub fn parse(packet: &'p [u8]) -> Result<Self, Unfit> {
        if packet.len() < HEADER || packet[2] & 0x80 != 0 {
            return Err(Unfit::Ignore);
        }
        if packet[2] & 0x78 != 0 {
            return Err(Unfit::Refuse(Rcode::NotImp));
        }
        let count = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
        if count(4) != 1 {
            return Err(Unfit::Refuse(Rcode::FormErr));
        }
        let records = count(6) + count(8) + count(10);
        Self::parse_body(packet, records).ok_or(Unfit::Refuse(Rcode::FormErr))
    }

    fn parse_body(packet: &'p [u8], records: usize) -> Option<Self> {
        let mut query = Self {
            packet,
            name: [0; MAX_NAME],
            name_len: 0,
            qtype: 0,
            qclass: 0,
            question_end: 0,
            edns: None,
        };
        let mut reader = Reader { packet, at: HEADER };
        query.read_name(&mut reader)?;
        query.qtype = reader.u16()?;
        query.qclass = reader.u16()?;
        query.question_end = reader.at;
        for _ in 0..records {
            reader.skip_name()?;
            let rtype = reader.u16()?;
            let udp_size = reader.u16()?;
            let ttl = reader.take(4)?;
            let length = reader.u16()?;
            reader.take(usize::from(length))?;
            if rtype == rtype::OPT {
                query.edns = Some(Edns {
                    udp_size,
                    version: ttl[1],
                    dnssec_ok: ttl[2] & 0x80 != 0,
                });
            }
        }
        Some(query)
    }

    fn read_name(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        let mut ours = true;
        loop {
            let length = usize::from(reader.u8()?);
            if length == 0 {
                break;
            }
            if length > 63 {
                return None; // A pointer has nothing to point to yet.
            }
            let label = reader.take(length)?;
            if self.name_len + length + 1 > MAX_NAME - 1 {
                return None;
            }
            if self.name_len > 0 {
                self.name[self.name_len] = b'.';
                self.name_len += 1;
            }
            for &byte in label {
                ours &= byte != b'.';
                self.name[self.name_len] = byte.to_ascii_lowercase();
                self.name_len += 1;
            }
        }
        if !ours {
            // A dot inside a label would look like two labels; no name of ours has one.
            self.name_len = 0;
        }
        Some(())
    }

    /// The name asked for in lower case, with dots between the labels and none at the end; empty
    /// for the root and for names that cannot be written so.
    pub fn name(&self) -> &[u8] {
        &self.name[..self.name_len]
    }

    /// The question as it stands in the packet.
    pub fn question(&self) -> &'p [u8] {
        &self.packet[HEADER..self.question_end]
    }

    /// The largest answer over UDP, in bytes.
    pub fn udp_limit(&self) -> usize {
        match self.edns {
            Some(edns) => usize::from(edns.udp_size).clamp(PLAIN_UDP, MAX_UDP),
            None => PLAIN_UDP,
        }
    }

    /// The address of a reverse question about one whole address (RFC 1035 section 3.5,
    /// RFC 3596 section 2.5).
    pub fn reverse_address(&self) -> Option<IpAddr> {
        let name = std::str::from_utf8(self.name()).ok()?;
        if let Some(rest) = name.strip_suffix(".in-addr.arpa") {
            let mut octets = [0; 4];
            let mut labels = rest.split('.');
            for octet in octets.iter_mut().rev() {
                let label = labels.next()?;
                if !label.bytes().all(|b| b.is_ascii_digit()) {
                    return None;
                }
                *octet = label.parse().ok()?;
            }
            labels.next().is_none().then_some(())?;
            Some(Ipv4Addr::from(octets).into())
        } else {
            let rest = name.strip_suffix(".ip6.arpa")?;
            let mut number = 0u128;
            let mut labels = rest.split('.');
            for place in 0..32 {
                let label = labels.next()?;
                let digit = label.chars().next()?.to_digit(16)?;
                if label.len() != 1 {
                    return None;
                }
                number |= u128::from(digit) << (4 * place);
            }
            labels.next().is_none().then_some(())?;
            Some(Ipv6Addr::from(number).into())
        }
    }
}

/// Whether `reply` answers `request`: an answer with the same id, about the same question.
///
/// A server that understood nothing may leave the question out; that counts as an answer only if
/// it is an error.
pub fn answers(request: &[u8], reply: &[u8]) -> bool {
    if reply.len() < HEADER || reply[..2] != request[..2] || reply[2] & 0xf8 != 0x80 {
        return false;
    }
    let Ok(query) = Query::parse(request) else {
        return false;
    };
    if reply[4..6] == [0, 0] {
        return rcode(reply) != Rcode::NoError as u8 && rcode(reply) != Rcode::NxDomain as u8;
    }
    let question = query.question();
    let (name, kind) = question.split_at(question.len() - 4);
    reply[4..6] == [0, 1]
        && reply.len() >= query.question_end
        && reply[HEADER..HEADER + name.len()].eq_ignore_ascii_case(name)
        && reply[HEADER + name.len()..query.question_end] == *kind
}

/// The lower four bits of a message's response code.
pub fn rcode(message: &[u8]) -> u8 {
    message[3] & 0x0f
}

/// Writes an answer without records to `packet` into `out`; returns its length. `out` takes
/// at least [`PLAIN_UDP`] bytes. Nothing when the packet must not be answered.
pub fn refuse(packet: &[u8], rcode: Rcode, out: &mut [u8]) -> Option<usize> {
    match Query::parse(packet) {
        Ok(query) => Some(Reply::new(&query, out.len(), out).finish(rcode)),
        Err(Unfit::Ignore) => None,
        Err(Unfit::Refuse(_)) => {
            write_header(packet, rcode, out);
            out[4..HEADER].fill(0);
            Some(HEADER)
        }
    }
}

/// `reply` as it is if the asker of `packet` takes it over UDP; else only its question, marked as
/// truncated.
pub fn fit(packet: &[u8], mut reply: Vec<u8>) -> Vec<u8> {
    let Ok(query) = Query::parse(packet) else {
        return reply;
    };
    if reply.len()
        <= query
            .udp_limit()
            .max(query.edns.map_or(0, |e| usize::from(e.udp_size)))
    {
        return reply;
    }
    let rcode = rcode(&reply);
    reply.resize(PLAIN_UDP, 0);
    let mut cut = Reply::new(&query, PLAIN_UDP, &mut reply);
    cut.truncate();
    let length = cut.finish(Rcode::NoError);
    reply[3] |= rcode;
    reply.truncate(length);
    reply
}

fn write_header(packet: &[u8], rcode: Rcode, out: &mut [u8]) {
    out[..2].copy_from_slice(&packet[..2]);
    // An answer; opcode and "recursion desired" as asked.
    out[2] = 0x80 | (packet[2] & 0x79);
    // "Recursion available"; "checking disabled" as asked.
    out[3] = 0x80 | (packet[3] & 0x10) | (rcode as u8 & 0x0f);
}

/// An answer being written. What does not fit is left out and the answer marked as truncated.
pub struct Reply<'q, 'p, 'o> {
    query: &'q Query<'p>,
    out: &'o mut [u8],
    at: usize,
    answers: u16,
    truncated: bool,
}

impl<'q, 'p, 'o> Reply<'q, 'p, 'o> {
    /// At most `limit` bytes; `out` and `limit` are at least [`PLAIN_UDP`].
    pub fn new(query: &'q Query<'p>, limit: usize, out: &'o mut [u8]) -> Self {
        let length = limit.min(out.len());
        let out = &mut out[..length];
        out[HEADER..query.question_end].copy_from_slice(query.question());
        Self {
            query,
            out,
            at: query.question_end,
            answers: 0,
            truncated: false,
        }
    }

    /// How many more addresses of the size (4 or 16 bytes) fit.
    pub fn room_for(&self, size: usize) -> usize {
        (self.end() - self.at) / (12 + size)
    }

    pub fn truncate(&mut self) {
        self.truncated = true;
    }

    pub fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.record(rtype::A, &address.octets()),
            IpAddr::V6(address) => self.record(rtype::AAAA, &address.octets()),
        }
    }

    /// Adds a PTR record with `name`; one that cannot be written as a domain name is left out.
    pub fn pointer(&mut self, name: &str) {
        let mut data = [0; MAX_NAME];
        let mut at = 0;
        for label in name.split('.') {
            let end = at + 1 + label.len();
            if label.is_empty() || label.len() > 63 || end >= MAX_NAME {
                return;
            }
            data[at] = label.len() as u8;
            data[at + 1..end].copy_from_slice(label.as_bytes());
            at = end;
        }
        self.record(rtype::PTR, &data[..=at]);
    }

    /// Completes the answer and returns its length.
    pub fn finish(self, rcode: Rcode) -> usize {
        let Self {
            query,
            out,
            mut at,
            answers,
            truncated,
        } = self;
        write_header(query.packet, rcode, out);
        if truncated {
            out[2] |= 0x02;
        }
        let additional = u16::from(query.edns.is_some());
        for (place, count) in [(4, 1), (6, answers), (8, 0), (10, additional)] {
            out[place..place + 2].copy_from_slice(&u16::to_be_bytes(count));
        }
        if let Some(edns) = query.edns {
            let record = &mut out[at..at + OPT_RECORD];
            record.fill(0);
            record[1..3].copy_from_slice(&rtype::OPT.to_be_bytes());
            record[3..5].copy_from_slice(&(MAX_UDP as u16).to_be_bytes());
            record[5] = rcode as u8 >> 4;
            record[7] = if edns.dnssec_ok { 0x80 } else { 0 };
            at += OPT_RECORD;
        }
        at
    }

    /// Where the records must end: the OPT record keeps its place.
    fn end(&self) -> usize {
        self.out.len()
            - if self.query.edns.is_some() {
                OPT_RECORD
            } else {
                0
            }
    }

    fn record(&mut self, rtype: u16, data: &[u8]) {
        let length = 12 + data.len();
        if self.end() - self.at < length {
            self.truncated = true;
            return;
        }
        let record = &mut self.out[self.at..self.at + length];
        // The owner is the name of the question: a pointer to its place.
        record[..2].copy_from_slice(&[0xc0, HEADER as u8]);
        record[2..4].copy_from_slice(&rtype.to_be_bytes());
        record[4..6].copy_from_slice(&class::IN.to_be_bytes());
        record[6..10].copy_from_slice(&TTL.to_be_bytes());
        record[10..12].copy_from_slice(&(data.len() as u16).to_be_bytes());
        record[12..].copy_from_slice(data);
        self.at += length;
        self.answers += 1;
    }
}

struct Reader<'p> {
    packet: &'p [u8],
    at: usize,
}

impl<'p> Reader<'p> {
    fn take(&mut self, length: usize) -> Option<&'p [u8]> {
        let bytes = self.packet.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(bytes)
    }

    fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn u16(&mut self) -> Option<u16> {
        let bytes = self.take(2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn skip_name(&mut self) -> Option<()> {
        loop {
            match self.u8()? {
                0 => return Some(()),
                length @ 1..=63 => {
                    self.take(usize::from(length))?;
                }
                0xc0.. => {
                    self.u8()?;
                    return Some(());
                }
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests;
