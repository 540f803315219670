//! From a packet and a zone to a packet: the whole decision, without any socket.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use rand::{Rng, SeedableRng, rngs::SmallRng, seq::SliceRandom};

use super::{
    entry::Entry,
    members::Members,
    wire::{Query, Rcode, Reply, Unfit, class, refuse, rtype},
    zone::{Asker, Reverse, Zone},
};

/// What to do with a packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Send so many bytes of the output buffer back.
    Reply(usize),
    /// Ask these, in order, and pass their answer on.
    Forward(Arc<[SocketAddr]>),
    Ignore,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// What one answering thread keeps from question to question.
pub struct Scratch {
    random: SmallRng,
    addresses: Vec<IpAddr>,
}

impl Scratch {
    pub fn new() -> Self {
        Self {
            random: SmallRng::from_os_rng(),
            addresses: Vec::new(),
        }
    }

    /// As many members as fit in random order. Of many more, a random stretch: enough to spread
    /// the load, and the work stays that of the answer's size.
    fn pick<T: Ord + Copy + Into<IpAddr>>(&mut self, members: &Members<T>, room: usize) {
        let all = members.len();
        let start = if all > room {
            self.random.random_range(0..all)
        } else {
            0
        };
        self.addresses.clear();
        self.addresses
            .extend(members.window(start, room).map(|&address| address.into()));
        self.addresses.shuffle(&mut self.random);
    }
}

/// Answers `packet`, asked by `sandbox`, into `out`, which has [`super::wire::PLAIN_UDP`] bytes at
/// least.
pub fn answer(
    zone: &Zone,
    sandbox: &str,
    packet: &[u8],
    transport: Transport,
    scratch: &mut Scratch,
    out: &mut [u8],
) -> Outcome {
    let query = match Query::parse(packet) {
        Ok(query) => query,
        Err(Unfit::Ignore) => return Outcome::Ignore,
        Err(Unfit::Refuse(rcode)) => {
            return refuse(packet, rcode, out).map_or(Outcome::Ignore, Outcome::Reply);
        }
    };
    let limit = match transport {
        Transport::Udp => query.udp_limit(),
        Transport::Tcp => out.len(),
    };
    if query.edns.is_some_and(|edns| edns.version != 0) {
        return Outcome::Reply(Reply::new(&query, limit, out).finish(Rcode::BadVers));
    }
    let Some((asker, upstreams)) = zone
        .asker(sandbox)
        .and_then(|asker| Some((asker, asker.upstreams.as_ref()?)))
    else {
        return Outcome::Reply(Reply::new(&query, limit, out).finish(Rcode::ServFail));
    };
    let mut reply = Reply::new(&query, limit, out);
    let own = match query.qclass {
        class::IN | class::ANY => answer_own(zone, asker, &query, scratch, &mut reply),
        _ => None,
    };
    match own {
        Some(rcode) => Outcome::Reply(reply.finish(rcode)),
        None if upstreams.is_empty() => Outcome::Reply(reply.finish(Rcode::ServFail)),
        None => Outcome::Forward(Arc::clone(upstreams)),
    }
}

/// Nothing: the name is none of ours.
fn answer_own(
    zone: &Zone,
    asker: &Asker,
    query: &Query<'_>,
    scratch: &mut Scratch,
    reply: &mut Reply<'_, '_, '_>,
) -> Option<Rcode> {
    let wanted = |entry: &Entry| match query.qtype {
        rtype::A => !entry.v4().is_empty(),
        rtype::AAAA => !entry.v6().is_empty(),
        _ => true,
    };
    if let Some(entry) = zone.resolve(asker, query.name(), wanted) {
        if matches!(query.qtype, rtype::A | rtype::ANY) {
            add(entry.v4(), 4, scratch, reply);
        }
        if matches!(query.qtype, rtype::AAAA | rtype::ANY) {
            add(entry.v6(), 16, scratch, reply);
        }
        return Some(Rcode::NoError);
    }
    match zone.reverse(asker, query.reverse_address()?) {
        Reverse::Names(names) => {
            if matches!(query.qtype, rtype::PTR | rtype::ANY) {
                for name in names {
                    reply.pointer(&name);
                }
            }
            Some(Rcode::NoError)
        }
        Reverse::Nobody => Some(Rcode::NxDomain),
        Reverse::Foreign => None,
    }
}

fn add<T: Ord + Copy + Into<IpAddr>>(
    members: &Members<T>,
    size: usize,
    scratch: &mut Scratch,
    reply: &mut Reply<'_, '_, '_>,
) {
    let room = reply.room_for(size);
    if members.len() > room {
        reply.truncate();
    }
    scratch.pick(members, room);
    for &address in &scratch.addresses {
        reply.address(address);
    }
}

#[cfg(test)]
mod tests;
