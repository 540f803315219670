//! From what is wanted and what is seen to steps with their reasons. Pure.
//!
//! Removals come first, in the reverse order of creation; both are sorted, so that equal inputs
//! give equal plans.

mod entries;
mod sandbox;
mod segment;
mod step;
mod table;
mod tunnel;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

pub use self::{
    entries::diff_entries,
    sandbox::diff_sandbox,
    segment::diff_segment,
    step::{Entries, Pair, Step},
    table::{diff_host, diff_ports},
};
use crate::{
    desired::Desired,
    view::{Observed, View},
    want::want,
};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// Why, as sentences: the object, what was wanted, what was found.
    pub reasons: Vec<String>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    pub(crate) fn step(&mut self, step: Step, reason: impl Into<String>) {
        self.steps.push(step);
        self.reasons.push(reason.into());
    }

    /// Puts the steps into the order of carrying out.
    pub fn sorted(mut self) -> Self {
        self.steps.sort_by_key(Step::rank);
        self
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return writeln!(out, "nothing to do");
        }
        self.reasons
            .iter()
            .try_for_each(|reason| writeln!(out, "{reason}"))
    }
}

/// The whole plan.
pub fn plan(desired: &Desired, observed: &Observed) -> Plan {
    let wanted = want(desired, &observed.facts);
    diff(desired, &wanted, observed)
}

/// The difference of two views.
pub fn diff(desired: &Desired, wanted: &View, observed: &Observed) -> Plan {
    let seen = &observed.view;
    let mut plan = Plan::default();
    let names = Names::new(desired);
    let tags: BTreeSet<&String> = wanted.segments.keys().chain(seen.segments.keys()).collect();
    for tag in tags {
        diff_segment(
            &mut plan,
            &names,
            tag,
            wanted.segments.get(tag),
            seen.segments.get(tag),
        );
    }
    for path in seen
        .sandboxes
        .keys()
        .filter(|path| !wanted.sandboxes.contains_key(*path))
    {
        plan.step(
            Step::DropSandbox(path.clone()),
            format!("sandbox {}: not wanted any more", path.display()),
        );
    }
    for (id, sandbox) in &desired.sandboxes {
        if let Some(wanted) = wanted.sandboxes.get(&sandbox.netns) {
            diff_sandbox(&mut plan, desired, id, wanted, seen);
        }
    }
    diff_host(&mut plan, desired, wanted, observed);
    plan.sorted()
}

/// Names for the sentences.
pub struct Names(BTreeMap<String, String>);

impl Names {
    pub fn new(desired: &Desired) -> Self {
        Self(
            desired
                .networks
                .iter()
                .map(|(id, network)| (crate::view::tag(id), network.name.clone()))
                .collect(),
        )
    }

    fn of(&self, tag: &str) -> String {
        self.0.get(tag).map_or_else(
            || format!("network {tag}"),
            |name| format!("network {name}"),
        )
    }
}

fn field<T: PartialEq + fmt::Display>(why: &mut Vec<String>, name: &str, wanted: &T, found: &T) {
    if wanted != found {
        why.push(format!("{name}: wanted {wanted}, found {found}"));
    }
}

fn difference<T: Ord + Clone>(left: &BTreeSet<T>, right: &BTreeSet<T>) -> BTreeSet<T> {
    left.difference(right).cloned().collect()
}

fn list(items: impl Iterator<Item = impl fmt::Display>) -> String {
    items
        .map(|item| item.to_string())
        .collect::<Vec<_>>()
        .join(", ")
}
