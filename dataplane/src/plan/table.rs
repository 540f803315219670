//! Forwarding and the nftables tables.

use super::{Plan, Step, difference};
use crate::{
    desired::Desired,
    rules::Ruleset,
    view::{Forwarding, Place, Table, View},
};

pub fn diff_host(plan: &mut Plan, desired: &Desired, wanted: &View, seen: &View) {
    let missing = Forwarding {
        ipv4: wanted.forwarding.ipv4 && !seen.forwarding.ipv4,
        ipv6: wanted.forwarding.ipv6 && !seen.forwarding.ipv6,
    };
    if missing != Forwarding::default() {
        plan.step(
            Step::SetForwarding(missing),
            "host: forwarding between interfaces is off; local networks need it",
        );
    }
    let rules = || crate::rules::host(desired).unwrap_or_default();
    // The same rules with other elements is the case of every joining host: no new table.
    if let (Some(want), Some(have)) = (&wanted.table, &seen.table)
        && want.chains == have.chains
        && want.sets.keys().eq(have.sets.keys())
    {
        for (set, elements) in &want.sets {
            let have = &have.sets[set];
            let (add, remove) = (difference(elements, have), difference(have, elements));
            if !add.is_empty() || !remove.is_empty() {
                plan.step(
                    Step::SetElements {
                        set: set.clone(),
                        add: add.clone(),
                        remove: remove.clone(),
                    },
                    format!(
                        "host: nftables set {set}: {} elements to add, {} to remove",
                        add.len(),
                        remove.len()
                    ),
                );
            }
        }
        return;
    }
    diff_table(
        plan,
        "host",
        Place::Host,
        wanted.table.as_ref(),
        seen.table.as_ref(),
        rules,
    );
}

pub(super) fn diff_table(
    plan: &mut Plan,
    name: &str,
    place: Place,
    wanted: Option<&Table>,
    found: Option<&Table>,
    rules: impl Fn() -> Ruleset,
) {
    let why = match (wanted, found) {
        (None, None) => return,
        (None, Some(_)) => {
            plan.step(
                Step::DropTable(place),
                format!("{name}: nftables table overnet is not wanted any more"),
            );
            return;
        }
        (Some(_), None) => format!("{name}: nftables table overnet is missing"),
        (Some(wanted), Some(found)) if wanted == found => return,
        (Some(wanted), Some(found)) => table_differs(name, wanted, found),
    };
    plan.step(
        Step::SetTable {
            place,
            rules: Box::new(rules()),
        },
        why,
    );
}

fn table_differs(name: &str, wanted: &Table, found: &Table) -> String {
    for (chain, rules) in &wanted.chains {
        match found.chains.get(chain) {
            None => return format!("{name}: nftables chain {chain} is missing"),
            Some(have) if have != rules => {
                return format!(
                    "{name}: nftables chain {chain}: wanted {} rules, found {} rules or others",
                    rules.len(),
                    have.len()
                );
            }
            Some(_) => {}
        }
    }
    format!("{name}: nftables table overnet has chains or sets that are not ours")
}
