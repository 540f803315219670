//! Virtual IPs in one sandbox: new connections to a virtual address, of whatever protocol and
//! port, go to one of its backends. What is wanted and what is seen are values; [`nft`] is the
//! one way so far of bringing them into the kernel.
//!
//! ```text
//! output, prerouting: ip daddr vmap @vips4 ─▶ vip4-TAG: dnat to numgen random mod N map {…}
//!                                          └▶ vip4-TAG: refuse (no backend)
//! ```

pub mod nft;
pub mod rules;
mod touched;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    str::FromStr,
};

use serde::{Deserialize, Serialize};

pub use touched::Touched;

use crate::{
    desired::{Desired, Sandbox, Vip},
    view::tag,
};

/// The chain of one virtual IP and address family: `vip4-` or `vip6-` and the tag of its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Chain {
    pub ipv6: bool,
    tag: u64,
}

/// What balances in one sandbox: the same shape for the wanted and the seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    /// What is the same for every sandbox stands, and nothing that is not ours.
    pub sound: bool,
    pub addresses: BTreeMap<IpAddr, Chain>,
    /// With the fingerprints of their backends.
    pub chains: BTreeMap<Chain, u64>,
}

/// From one [`Balance`] to another, with what the kernel must know of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Everything is made anew; the rest is then all that there is to be.
    pub whole: bool,
    /// New backends; absent: the chain goes.
    pub chains: BTreeMap<Chain, Option<Backends>>,
    /// Absent: the address goes.
    pub addresses: BTreeMap<IpAddr, Option<Chain>>,
    /// The backends that flows to these addresses may go on to; others of UDP and ICMP, and
    /// handshakes that nobody answered, begin anew.
    pub flows: BTreeMap<IpAddr, BTreeSet<IpAddr>>,
}

/// Sorted addresses of one family.
pub type Backends = std::sync::Arc<BTreeSet<IpAddr>>;

impl Default for Balance {
    fn default() -> Self {
        Self {
            sound: true,
            addresses: BTreeMap::new(),
            chains: BTreeMap::new(),
        }
    }
}

impl Balance {
    pub fn apply(&mut self, change: &Change) {
        if change.whole {
            *self = Self::default();
        }
        for (chain, backends) in &change.chains {
            match backends {
                Some(backends) => self.chains.insert(*chain, fingerprint(backends)),
                None => self.chains.remove(chain),
            };
        }
        for (address, chain) in &change.addresses {
            match chain {
                Some(chain) => self.addresses.insert(*address, *chain),
                None => self.addresses.remove(address),
            };
        }
    }
}

impl Change {
    pub fn is_empty(&self) -> bool {
        !self.whole && self.chains.is_empty() && self.addresses.is_empty()
    }
}

/// FNV-1a over a list of addresses; never 0.
pub fn fingerprint(backends: &BTreeSet<IpAddr>) -> u64 {
    let octets = backends.iter().flat_map(crate::rules::octets);
    let hash = octets.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.max(1)
}

/// Everything that `sandbox` should balance; nothing for one without a virtual IP in reach whose
/// connections nobody counts: tracking costs each of its packets something.
pub fn wanted(desired: &Desired, sandbox: &Sandbox) -> Option<Balance> {
    let mut balance = Balance::default();
    for (id, vip) in visible(desired, sandbox) {
        add(&mut balance, id, vip);
    }
    (sandbox.counted || !balance.chains.is_empty()).then_some(balance)
}

/// Of two that claim one address the greater id wins.
fn add(balance: &mut Balance, id: &str, vip: &Vip) {
    for address in &vip.addresses {
        let chain = Chain::new(id, address.is_ipv6());
        balance.addresses.insert(*address, chain);
        let print = || fingerprint(&backends(vip, chain.ipv6));
        balance.chains.entry(chain).or_insert_with(print);
    }
}

fn visible<'a>(
    desired: &'a Desired,
    sandbox: &'a Sandbox,
) -> impl Iterator<Item = (&'a String, &'a Vip)> {
    let vips = desired.vips.iter();
    vips.filter(|(_, vip)| sees(sandbox, vip))
}

/// Whether the sandbox has an interface on the network of `vip`.
pub fn sees(sandbox: &Sandbox, vip: &Vip) -> bool {
    let mut interfaces = sandbox.interfaces.iter();
    interfaces.any(|interface| interface.network == vip.network)
}

/// The addresses of one family that get new connections.
pub fn backends(vip: &Vip, ipv6: bool) -> BTreeSet<IpAddr> {
    let all = vip.backends.values().flatten().copied();
    all.filter(|address| address.is_ipv6() == ipv6).collect()
}

/// From what is seen to what is wanted; `wanted` is of `sandbox`.
pub fn difference(
    desired: &Desired,
    sandbox: &Sandbox,
    wanted: &Balance,
    seen: Option<&Balance>,
) -> Change {
    let nothing = Balance::default();
    let whole = seen.is_none_or(|seen| !seen.sound);
    let seen = seen.filter(|seen| seen.sound).unwrap_or(&nothing);
    let mut change = Change {
        whole,
        ..Change::default()
    };
    let differs = |chain: &Chain| wanted.chains.get(chain) != seen.chains.get(chain);
    for (id, vip) in visible(desired, sandbox) {
        for chain in [Chain::new(id, false), Chain::new(id, true)] {
            if wanted.chains.contains_key(&chain) && differs(&chain) {
                change.set(chain, vip, &backends(vip, chain.ipv6).into());
            }
        }
    }
    for chain in seen.chains.keys() {
        if !wanted.chains.contains_key(chain) {
            change.chains.insert(*chain, None);
        }
    }
    for (address, chain) in &wanted.addresses {
        if seen.addresses.get(address) != Some(chain) {
            change.addresses.insert(*address, Some(*chain));
        }
    }
    for address in seen.addresses.keys() {
        if !wanted.addresses.contains_key(address) {
            change.addresses.insert(*address, None);
            change.flows.insert(*address, BTreeSet::new());
        }
    }
    change
}

impl Change {
    fn set(&mut self, chain: Chain, vip: &Vip, backends: &Backends) {
        let addresses = vip.addresses.iter();
        for address in addresses.filter(|address| address.is_ipv6() == chain.ipv6) {
            self.flows.insert(*address, (**backends).clone());
        }
        self.chains.insert(chain, Some(backends.clone()));
    }
}

impl Chain {
    pub fn new(id: &str, ipv6: bool) -> Self {
        let tag = u64::from_str_radix(&tag(id), 16).unwrap_or_default();
        Self { ipv6, tag }
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.ipv6 { 6 } else { 4 };
        write!(out, "vip{family}-{:011x}", self.tag)
    }
}

impl From<Chain> for String {
    fn from(chain: Chain) -> Self {
        chain.to_string()
    }
}

impl FromStr for Chain {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let strange = || format!("{name:?} is not a chain of a virtual IP");
        let (family, tag) = name.split_once('-').ok_or_else(strange)?;
        let ipv6 = match family {
            "vip4" => false,
            "vip6" => true,
            _ => return Err(strange()),
        };
        let tag = u64::from_str_radix(tag, 16).map_err(|_| strange())?;
        let chain = Self { ipv6, tag };
        (chain.to_string() == name)
            .then_some(chain)
            .ok_or_else(strange)
    }
}

impl TryFrom<String> for Chain {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

#[cfg(test)]
mod tests;
