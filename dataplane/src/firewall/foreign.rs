//! Chains of others in this namespace that drop what none of their rules accepts: the usual reason
//! why a network that is right does not work.

use std::io;

use super::{GET_CHAIN, docker, get, names};
use crate::{
    netlink::{Netlink, attributes},
    rules::TableName,
    view::Passage,
};

/// NF_DROP of linux/netfilter.h.
const DROP: u32 = 0;

/// A base chain that is not ours, and whose policy is to drop.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dropping {
    /// `ip`, `ip6`, `inet`, …
    pub family: &'static str,
    pub table: String,
    pub chain: String,
    /// Of netfilter: 1 input, 2 forward, 3 output.
    pub hook: u32,
}

/// Those in the calling thread's network namespace that stand in our way, sorted: not Docker's
/// where our rules are in it.
pub fn dropping() -> io::Result<Vec<Dropping>> {
    let mut socket = Netlink::open(libc::NETLINK_NETFILTER)?;
    let mut found = Vec::new();
    let mut question = get(GET_CHAIN);
    question.set_family(0);
    socket.dump(question, |_, body| found.extend(read(body)))?;
    found.sort();
    let passages = docker::look(&mut socket)?;
    for (family, passage) in [("ip", passages.ipv4), ("ip6", passages.ipv6)] {
        if passage.is_some_and(Passage::is_open) {
            found.retain(|one| (one.family, one.table.as_str(), one.hook) != (family, "filter", 2));
        }
    }
    Ok(found)
}

/// What a chain of the kernel's list is, if it is one of these.
pub fn read(body: &[u8]) -> Option<Dropping> {
    let family = match body.first()? {
        1 => "inet",
        2 => "ip",
        7 => "bridge",
        10 => "ip6",
        // `netdev` and `arp` chains stand in nobody's way by a policy.
        _ => return None,
    };
    let (table, chain) = names(body, 1, 3);
    let ours = [TableName::Overnet, TableName::Ingress, TableName::Back];
    if ours.iter().any(|name| name.text() == table) {
        return None;
    }
    let big = |bytes: &[u8]| bytes.try_into().ok().map(u32::from_be_bytes);
    let (mut hook, mut policy) = (None, None);
    for (kind, value) in attributes(body.get(4..)?) {
        match kind {
            4 => {
                hook = attributes(value)
                    .find(|(kind, _)| *kind == 1)
                    .and_then(|(_, value)| big(value));
            }
            5 => policy = big(value),
            _ => {}
        }
    }
    (policy? == DROP).then_some(Dropping {
        family,
        table,
        chain,
        hook: hook?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Message;

    fn answer(family: u8, table: &str, policy: u32) -> Vec<u8> {
        let mut message = Message::new(0, 0, &[family, 0, 0, 0]);
        message.text(1, table).text(3, "FORWARD");
        message.nest(4, |hook| {
            hook.big(1, 2).big(2, 0);
        });
        message.big(5, policy);
        message.bytes()[16..].to_vec()
    }

    #[test]
    fn only_chains_of_others_that_drop_are_reported() {
        let expected = Dropping {
            family: "ip",
            table: "filter".to_owned(),
            chain: "FORWARD".to_owned(),
            hook: 2,
        };
        assert_eq!(read(&answer(2, "filter", DROP)), Some(expected));
        assert_eq!(read(&answer(2, "filter", 1)), None);
        assert_eq!(read(&answer(1, "overnet", DROP)), None);
        assert_eq!(read(&[]), None);
    }
}
