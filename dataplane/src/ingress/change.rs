//! From one table of published ports to another, element by element: whoever comes or goes
//! leaves the rules of the others, and what they have counted, as they are.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use super::rules::gone_name;
use crate::{
    desired::{HostPort, Protocol},
    rules::{Part, Ruleset, bound, octets, published},
    view::Table,
};

/// What the kernel must know of a step from one table to another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Rules by chain; absent: the chain goes.
    pub chains: BTreeMap<String, Option<Vec<Vec<Part>>>>,
    /// Keys by set or map.
    pub leave: BTreeMap<String, Vec<Vec<u8>>>,
    /// Keys by set or map, of a map with the chains that they lead to.
    pub enter: BTreeMap<String, Vec<Entry>>,
}

/// A key, and of a map the chain that it leads to.
pub type Entry = (Vec<u8>, Option<String>);

/// Whether the chain is one port's.
fn is_lead(chain: &str) -> bool {
    chain.starts_with("port4-") || chain.starts_with("port6-")
}

/// Bytes of the keys of a map from ports to chains; none for sets.
fn key_length(set: &str) -> Option<usize> {
    let maps = [
        (published(false), 8),
        (published(true), 8),
        (bound(false), 12),
        (bound(true), 24),
    ];
    let mut maps = maps.into_iter();
    maps.find(|(name, _)| *name == set).map(|(_, bytes)| bytes)
}

/// The key of a port; of the map of bound ports when it has an address.
pub fn key(port: &HostPort) -> Vec<u8> {
    let [high, low] = port.port.to_be_bytes();
    let mut key = port.address.iter().flat_map(octets).collect::<Vec<u8>>();
    key.extend([port.protocol.number(), 0, 0, 0, high, low, 0, 0]);
    key
}

/// The port that a key of one of the maps names.
pub fn port_of(map: &str, key: &[u8]) -> Option<HostPort> {
    let length = key_length(map)?;
    let (address, rest) = key.get(..length)?.split_at(length - 8);
    Some(HostPort {
        protocol: Protocol::of_number(rest[0])?,
        port: u16::from_be_bytes([rest[4], rest[5]]),
        address: address_of(address),
    })
}

fn address_of(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => Some(<[u8; 4]>::try_from(octets).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(octets).ok()?.into()),
        _ => None,
    }
}

/// From what is seen to what is wanted; none when more differs than ports and elements.
pub fn difference(wanted: &Ruleset, seen: &Table) -> Option<Change> {
    let table = wanted.table();
    let frame = |table: &Table| -> BTreeMap<String, Vec<String>> {
        let chains = table.chains.iter().filter(|(name, _)| !is_lead(name));
        chains
            .map(|(name, rules)| (name.clone(), rules.clone()))
            .collect()
    };
    if frame(&table) != frame(seen) || !table.sets.keys().eq(seen.sets.keys()) {
        return None;
    }
    let mut change = Change::default();
    for chain in wanted.chains.iter().filter(|chain| is_lead(&chain.name)) {
        if seen.chains.get(&chain.name) != table.chains.get(&chain.name) {
            let rules = Some(chain.rules.clone());
            change.chains.insert(chain.name.clone(), rules);
        }
    }
    for chain in seen.chains.keys().filter(|chain| is_lead(chain)) {
        if !table.chains.contains_key(chain) {
            change.chains.insert(chain.clone(), None);
        }
    }
    for (set, have) in &seen.sets {
        let want = &table.sets[set];
        let key = |element: &Vec<u8>| {
            let length = key_length(set).unwrap_or(element.len());
            let (key, chain) = element.split_at(length.min(element.len()));
            let chain = (!chain.is_empty()).then(|| String::from_utf8_lossy(chain).into_owned());
            (key.to_vec(), chain)
        };
        let leave: Vec<_> = have.difference(want).map(|one| key(one).0).collect();
        let enter: Vec<_> = want.difference(have).map(key).collect();
        if !leave.is_empty() {
            change.leave.insert(set.clone(), leave);
        }
        if !enter.is_empty() {
            change.enter.insert(set.clone(), enter);
        }
    }
    Some(change)
}

impl Change {
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.leave.is_empty() && self.enter.is_empty()
    }

    /// Tasks whose hosts have been lost with it.
    pub fn lost(&self) -> BTreeSet<IpAddr> {
        let sets = [gone_name(false), gone_name(true)].into_iter();
        let entries = sets.filter_map(|set| self.enter.get(set)).flatten();
        entries.filter_map(|(key, _)| address_of(key)).collect()
    }

    /// Without the ways of ports that are not in `held`: what another program has leads nowhere.
    pub fn only(&mut self, held: &BTreeSet<HostPort>) {
        for (map, entries) in &mut self.enter {
            entries.retain(|(key, _)| port_of(map, key).is_none_or(|port| held.contains(&port)));
        }
    }

    /// What the table reads as after the change.
    pub fn apply(&self, table: &mut Table) {
        for (set, keys) in &self.leave {
            if let Some(elements) = table.sets.get_mut(set) {
                elements.retain(|element| !keys.iter().any(|key| element.starts_with(key)));
            }
        }
        for (chain, rules) in &self.chains {
            match rules {
                Some(rules) => {
                    let notes = rules.iter().map(|rule| crate::rules::comment(rule));
                    table.chains.insert(chain.clone(), notes.collect());
                }
                None => {
                    table.chains.remove(chain);
                }
            }
        }
        for (set, entries) in &self.enter {
            let elements = table.sets.entry(set.clone()).or_default();
            for (key, chain) in entries {
                let mut element = key.clone();
                element.extend(chain.iter().flat_map(|name| name.bytes()));
                elements.insert(element);
            }
        }
    }
}
