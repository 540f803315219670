//! The nftables of a namespace: read once, and again only when somebody else committed something.

use std::{collections::BTreeSet, io, net::IpAddr, path::Path};

use super::{
    deeds::{allow_absent, no_namespace},
    linux::{Linux, Space},
    place::{inside, set},
};
use crate::{
    balance::{Balance, Change, nft},
    conntrack, firewall, ingress,
    netlink::Netlink,
    rules::TableName,
    view::{Passages, Place, Table},
};

/// Readings in a row that others' commits may spoil.
const ATTEMPTS: usize = 5;
/// Seconds, the most first: the kernel counts in ticks and takes as many as fit 31 bits, which
/// depends on its HZ (100, 250, 300, 1000).
const LONGEST: [&str; 4] = ["21474836", "8589934", "7158278", "2147483"];

/// What a sandbox's namespace holds as of a generation of its nftables.
pub struct Tables {
    generation: u32,
    pub resolver: Option<Table>,
    pub balance: Option<Balance>,
    pub ingress: Option<Table>,
    pub back: Option<Table>,
}

/// What the host's namespace holds as of a generation of its nftables. With a thousand published
/// ports a reading costs ten milliseconds, and every container is a reason to look at the host.
pub struct HostTables {
    generation: u32,
    pub host: Option<Table>,
    pub ingress: Option<Table>,
    pub passages: Passages,
}

impl Space {
    fn nft(&mut self) -> io::Result<&mut Netlink> {
        let socket = self.sockets.nft.as_mut();
        socket.ok_or_else(|| io::Error::other("there is no nftables socket in this namespace"))
    }

    /// What the namespace holds now.
    pub fn tables(&mut self) -> io::Result<&Tables> {
        for _ in 0..ATTEMPTS {
            let generation = firewall::generation(self.nft()?)?;
            if self
                .tables
                .as_ref()
                .is_some_and(|t| t.generation == generation)
            {
                break;
            }
            // A reading that a commit fell into is told by the next turn.
            self.tables = Some(Tables {
                generation,
                resolver: firewall::read(self.nft()?, TableName::Overnet)?,
                ingress: firewall::read(self.nft()?, TableName::Ingress)?,
                back: firewall::read(self.nft()?, TableName::Back)?,
                balance: nft::read(self.nft()?)?,
            });
        }
        self.tables
            .as_ref()
            .ok_or_else(|| io::Error::other("nftables change faster than they can be read"))
    }
}

impl Linux {
    /// What the host holds now; nothing without nftables.
    pub(super) fn host_tables(&mut self) -> io::Result<Option<&HostTables>> {
        let Some(nft) = &mut self.host.nft else {
            return Ok(None);
        };
        for _ in 0..ATTEMPTS {
            let generation = firewall::generation(nft)?;
            let known = self.tables.as_ref();
            if known.is_some_and(|known| known.generation == generation) {
                break;
            }
            // A reading that a commit fell into is told by the next turn.
            self.tables = Some(HostTables {
                generation,
                host: firewall::read(nft, TableName::Overnet)?,
                ingress: firewall::read(nft, TableName::Ingress)?,
                passages: firewall::docker::look(nft)?,
            });
        }
        Ok(self.tables.as_ref())
    }

    /// Brings a change of published ports into the host's table.
    pub(super) fn set_ports(&mut self, change: &ingress::Change) -> io::Result<()> {
        let mut known = self.tables.take();
        let nft = self.nft(&Place::Host)?;
        firewall::ports::write(nft, change)?;
        let lost = change.lost();
        if !lost.is_empty() {
            ingress::nudge::all(conntrack::established(nft, &lost)?);
        }
        let generation = firewall::generation(nft)?;
        // Where ours was the only commit, all is known of it without another reading.
        if let Some(tables) = &mut known
            && generation == firewall::next_generation(tables.generation)
            && let Some(table) = &mut tables.ingress
        {
            change.apply(table);
            tables.generation = generation;
            self.tables = known;
        }
        Ok(())
    }

    pub(super) fn set_balance(&mut self, sandbox: &Path, change: &Change) -> io::Result<()> {
        let place = Place::Sandbox(sandbox.to_owned());
        let space = self.space(&place)?.ok_or_else(no_namespace)?;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 || space.tables.is_none() {
                space.tables()?;
            }
            let Some(mut tables) = space.tables.take() else {
                continue;
            };
            let known = tables.balance.as_ref();
            match nft::write(space.nft()?, tables.generation, known, change)? {
                nft::Outcome::Stale => continue,
                nft::Outcome::Done => {}
            }
            tables.generation = firewall::next_generation(tables.generation);
            tables.balance.get_or_insert_default().apply(change);
            space.tables = Some(tables);
            if change.whole {
                inside(&space.namespace, lasting)?;
            }
            conntrack::cut(space.nft()?, &change.flows)?;
            return Ok(());
        }
        Err(io::Error::other(
            "somebody else changes nftables all the time",
        ))
    }

    /// Connections into a sandbox, see [`conntrack::count`].
    pub fn flows(&mut self, sandbox: &Path, own: &BTreeSet<IpAddr>) -> io::Result<u64> {
        let place = Place::Sandbox(sandbox.to_owned());
        let space = self.space(&place)?.ok_or_else(no_namespace)?;
        conntrack::count(space.nft()?, own)
    }
}

impl Linux {
    /// See [`brief`].
    pub(super) fn forget_closed(&mut self, sandbox: &Path) -> io::Result<()> {
        let place = Place::Sandbox(sandbox.to_owned());
        let space = self.space(&place)?.ok_or_else(no_namespace)?;
        inside(&space.namespace, brief)
    }
}

/// A connection that was reset leaves its client's port soon: the next one from there may come by
/// another host.
fn brief() -> io::Result<()> {
    allow_absent(set("net/netfilter/nf_conntrack_tcp_timeout_close", "1"))
}

/// Quiet connections live on, and packets that tracking finds odd keep their translation.
fn lasting() -> io::Result<()> {
    let name = |key: &str| format!("net/netfilter/nf_conntrack_tcp_{key}");
    let mut tried = LONGEST
        .iter()
        .map(|seconds| set(&name("timeout_established"), seconds));
    let longest = tried.find(|done| {
        !done
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::InvalidInput)
    });
    allow_absent(longest.unwrap_or(Ok(())))?;
    allow_absent(set(&name("be_liberal"), "1"))
}
