//! Whether this kernel can do what networks need: tried in a namespace that is thrown away, because
//! no list of modules tells what is built in, forbidden or broken.

use std::io;

use nix::sched::{CloneFlags, unshare};

use super::links::NEW_LINK;
use crate::{
    firewall,
    netlink::{CREATE, DUMP, EXCLUSIVE, Message, Netlink},
    rules::{Chain, Part, Ruleset},
};

/// Of nfnetlink: connection tracking, and its message that lists.
const CONNTRACK_LIST: u16 = 1 << 8 | 1;

/// One thing that was tried.
#[derive(Debug)]
pub struct Trial {
    /// In words.
    pub feature: &'static str,
    /// The module that has it.
    pub module: &'static str,
    pub result: io::Result<()>,
}

/// Tries everything. The error: there can be no network namespace at all.
pub fn trial() -> io::Result<Vec<Trial>> {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET)?;
                Ok(in_this_namespace())
            })
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread of the trial panicked")))
    })
}

fn in_this_namespace() -> Vec<Trial> {
    let link = |kind: &str| Netlink::open(libc::NETLINK_ROUTE)?.request(device(kind));
    let rule = |kind: &str, hook, part: Part| {
        firewall::replace(
            &mut Netlink::open(libc::NETLINK_NETFILTER)?,
            &table(kind, hook, part),
        )
    };
    let flows = || {
        let message = Message::new(CONNTRACK_LIST, DUMP, &[0; 4]);
        Netlink::open(libc::NETLINK_NETFILTER)?.dump(message, |_, _| {})
    };
    let one = |feature, module, result| Trial {
        feature,
        module,
        result,
    };
    vec![
        one("bridges", "bridge", link("bridge")),
        one("pairs of virtual Ethernet devices", "veth", link("veth")),
        one("VXLAN tunnels", "vxlan", link("vxlan")),
        one("nftables", "nf_tables", rule("filter", 0, Part::Count)),
        one(
            "nftables: address translation",
            "nft_chain_nat",
            rule("nat", 4, Part::Masquerade),
        ),
        one(
            "nftables: connection tracking",
            "nft_ct",
            rule("filter", 0, Part::Notrack),
        ),
        one(
            "nftables: rewriting of ports",
            "nf_tables",
            rule(
                "filter",
                3,
                Part::SetPort {
                    tcp: false,
                    source: false,
                    port: 53,
                },
            ),
        ),
        one(
            "nftables: route lookups",
            "nft_fib_inet",
            rule("filter", 0, Part::ToHost),
        ),
        one("lists of connections", "nf_conntrack_netlink", flows()),
    ]
}

/// A link of that kind; a tunnel has to have its number.
fn device(kind: &str) -> Message {
    let mut message = Message::new(NEW_LINK, CREATE | EXCLUSIVE, &[0; 16]);
    message.text(3, &format!("try-{kind}"));
    message.nest(18, |info| {
        info.text(1, kind);
        if kind == "vxlan" {
            info.nest(2, |data| {
                data.number(1, 1).attribute(15, &4789_u16.to_be_bytes());
            });
        }
    });
    message
}

fn table(kind: &str, hook: u32, part: Part) -> Ruleset {
    Ruleset {
        chains: vec![Chain {
            name: "try".to_owned(),
            kind: kind.to_owned(),
            hook,
            // Before connection tracking, where leaving it out is allowed; source translation has 100.
            priority: if kind == "nat" { 100 } else { -300 },
            device: None,
            rules: vec![vec![part]],
        }],
        ..Ruleset::default()
    }
}
