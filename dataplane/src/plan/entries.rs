//! Rows of forwarding and neighbour tables.

use std::{collections::BTreeMap, net::IpAddr};

use super::{Entries, Plan, Step};
use crate::view::Segment;

/// Entries of one kind that are named one by one in the reasons; more are counted.
const NAMED: usize = 8;

/// `wanted` and `seen` may be whole segments or the same few rows of both.
pub fn diff_entries(plan: &mut Plan, name: &str, tag: &str, wanted: &Segment, seen: &Segment) {
    let mut set = Entries {
        forwards: changed(&wanted.forwards, &seen.forwards),
        locals: changed(&wanted.locals, &seen.locals),
        neighbours: changed(&wanted.neighbours, &seen.neighbours),
    };
    let mut drop = Entries {
        forwards: gone(&wanted.forwards, &seen.forwards),
        locals: gone(&wanted.locals, &seen.locals),
        neighbours: gone(&wanted.neighbours, &seen.neighbours),
    };
    for mac in seen
        .strays
        .iter()
        .filter(|mac| !wanted.forwards.contains_key(*mac))
    {
        drop.forwards.push((*mac, IpAddr::from([0, 0, 0, 0])));
    }
    if !drop.is_empty() {
        sentences(plan, name, &drop, "is not wanted");
        plan.steps.push(Step::DropEntries {
            segment: tag.into(),
            entries: drop,
        });
    }
    if !set.is_empty() {
        sentences(plan, name, &set, "is missing or another");
        // Those of ports wait for the ports, the others for nothing.
        let locals = Entries {
            locals: std::mem::take(&mut set.locals),
            ..Entries::default()
        };
        let parts = [set, locals].into_iter();
        plan.steps.extend(
            parts
                .filter(|part| !part.is_empty())
                .map(|entries| Step::SetEntries {
                    segment: tag.into(),
                    place: wanted.place(tag),
                    entries,
                }),
        );
    }
}

fn sentences(plan: &mut Plan, name: &str, entries: &Entries, what: &str) {
    if entries.len() > NAMED {
        plan.reasons.push(format!(
            "{name}: {} forwarding and {} neighbour entries: each {what}",
            entries.forwards.len() + entries.locals.len(),
            entries.neighbours.len()
        ));
        return;
    }
    for (mac, vtep) in &entries.forwards {
        plan.reasons
            .push(format!("{name}: forwarding entry {mac} to {vtep} {what}"));
    }
    for (mac, port) in &entries.locals {
        plan.reasons.push(format!(
            "{name}: forwarding entry {mac} to port {port} {what}"
        ));
    }
    for (address, mac) in &entries.neighbours {
        plan.reasons
            .push(format!("{name}: neighbour entry {address} at {mac} {what}"));
    }
}

fn changed<K: Ord + Copy, V: PartialEq + Clone>(
    wanted: &BTreeMap<K, V>,
    seen: &BTreeMap<K, V>,
) -> Vec<(K, V)> {
    wanted
        .iter()
        .filter(|(key, value)| seen.get(key) != Some(value))
        .map(|(key, value)| (*key, value.clone()))
        .collect()
}

fn gone<K: Ord + Copy, V: Clone>(wanted: &BTreeMap<K, V>, seen: &BTreeMap<K, V>) -> Vec<(K, V)> {
    seen.iter()
        .filter(|(key, _)| !wanted.contains_key(key))
        .map(|(key, value)| (*key, value.clone()))
        .collect()
}
