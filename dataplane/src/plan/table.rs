//! Forwarding and the nftables tables.

use super::{Plan, Step, difference, tunnel::diff_tunnels};
use crate::{
    desired::Desired,
    ingress,
    rules::{Ruleset, TableName},
    view::{Forwarding, Observed, Passage, Place, Table, View, gateway_name},
};

pub fn diff_host(plan: &mut Plan, desired: &Desired, wanted: &View, observed: &Observed) {
    diff_ingress(plan, desired, wanted, observed);
    diff_tunnels(plan, desired, wanted, &observed.view);
    let seen = &observed.view;
    let missing = Forwarding {
        ipv4: wanted.forwarding.ipv4 && !seen.forwarding.ipv4,
        ipv6: wanted.forwarding.ipv6 && !seen.forwarding.ipv6,
    };
    if missing != Forwarding::default() {
        plan.step(
            Step::SetForwarding(missing),
            "host: forwarding between interfaces is off; networks of this host need it",
        );
    }
    let Forwarding { ipv4, ipv6 } = wanted.forwarding;
    diff_passage(plan, false, ipv4, seen.passages.ipv4);
    diff_passage(plan, true, ipv6, seen.passages.ipv6);
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
        (Place::Host, TableName::Overnet),
        wanted.table.as_ref(),
        seen.table.as_ref(),
        rules,
    );
}

/// Docker's firewall is opened where it would drop what is forwarded for us.
fn diff_passage(plan: &mut Plan, ipv6: bool, wanted: bool, seen: Option<Passage>) {
    let Some(passage) = seen else {
        return;
    };
    let reason = if wanted && passage.drops && !passage.is_open() {
        "Docker's firewall drops what is forwarded for our networks"
    } else if !wanted && passage.rules > 0 {
        "our rules in Docker's firewall are not wanted"
    } else {
        return;
    };
    let open = wanted;
    plan.step(Step::SetPassage { ipv6, open }, format!("host: {reason}"));
}

/// Gateways and published ports.
fn diff_ingress(plan: &mut Plan, desired: &Desired, wanted: &View, observed: &Observed) {
    let seen = &observed.view;
    for (tag, found) in &seen.gateways {
        let want = wanted.gateways.get(tag);
        if want.is_none_or(|want| want.port != found.port) {
            plan.step(
                Step::DropGateway {
                    segment: tag.clone(),
                },
                format!("host: gateway {} is not wanted", gateway_name(tag)),
            );
        }
    }
    for (tag, want) in &wanted.gateways {
        let found = seen.gateways.get(tag);
        let found = found.filter(|found| found.port == want.port);
        if found == Some(want) {
            continue;
        }
        let state = if found.is_none() {
            "missing"
        } else {
            "another"
        };
        let reason = format!("host: gateway {} is {state}", gateway_name(tag));
        let (segment, gateway) = (tag.clone(), want.clone());
        plan.step(
            if found.is_none() {
                Step::MakeGateway { segment, gateway }
            } else {
                Step::SetGateway { segment, gateway }
            },
            reason,
        );
    }
    diff_ports(plan, desired, observed);
}

/// Published ports and the sockets that hold them.
pub fn diff_ports(plan: &mut Plan, desired: &Desired, observed: &Observed) {
    let (facts, seen) = (&observed.facts, &observed.view);
    let ports = ingress::ports(desired, facts);
    let rules = ingress::rules::host(desired, facts);
    let change = match (&rules, &seen.ingress) {
        (Some(rules), Some(seen)) => ingress::difference(rules, seen),
        _ => None,
    };
    let before = plan.steps.len();
    match change {
        // Ports and tasks come and go, and no new table is made for them.
        Some(change) => {
            if !change.is_empty() {
                let reason = format!(
                    "host: published ports: {} chains, {} elements to remove, {} to add",
                    change.chains.len(),
                    change.leave.values().map(Vec::len).sum::<usize>(),
                    change.enter.values().map(Vec::len).sum::<usize>(),
                );
                plan.step(Step::SetPorts(Box::new(change)), reason);
            }
        }
        None => diff_table(
            plan,
            "host",
            (Place::Host, TableName::Ingress),
            rules.as_ref().map(Ruleset::table).as_ref(),
            seen.ingress.as_ref(),
            || rules.clone().unwrap_or_default(),
        ),
    }
    if plan.steps.len() > before && rules.is_some() {
        let (allowed, subnets) = ingress::rules::flows(desired, facts);
        // Part of what the table is for, and no reason of its own.
        plan.steps.push(Step::CutPublished { allowed, subnets });
    }
    let (hold, free) = (
        difference(&ports, &seen.ports),
        difference(&seen.ports, &ports),
    );
    for (ports, word) in [(&hold, "held"), (&free, "free")] {
        for port in ports {
            plan.reasons
                .push(format!("host: port {port} is to be {word}"));
        }
    }
    plan.steps.extend(hold.into_iter().map(Step::HoldPort));
    plan.steps.extend(free.into_iter().map(Step::FreePort));
}

pub(super) fn diff_table(
    plan: &mut Plan,
    name: &str,
    (place, table): (Place, TableName),
    wanted: Option<&Table>,
    found: Option<&Table>,
    rules: impl Fn() -> Ruleset,
) {
    let text = table.text();
    let why = match (wanted, found) {
        (None, None) => return,
        (None, Some(_)) => {
            plan.step(
                Step::DropTable { place, table },
                format!("{name}: nftables table {text} is not wanted any more"),
            );
            return;
        }
        (Some(_), None) => format!("{name}: nftables table {text} is missing"),
        (Some(wanted), Some(found)) if wanted == found => return,
        (Some(wanted), Some(found)) => table_differs(name, text, wanted, found),
    };
    plan.step(
        Step::SetTable {
            place,
            rules: Box::new(rules()),
        },
        why,
    );
}

fn table_differs(name: &str, table: &str, wanted: &Table, found: &Table) -> String {
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
    format!("{name}: nftables table {table} has other chains, sets or elements")
}
