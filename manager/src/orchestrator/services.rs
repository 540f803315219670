//! Services that run for ever: so many replicas, or one on each node.

use std::collections::{BTreeMap, HashMap};

use model::{NodeId, Task, TaskState, service::ServiceMode};

use super::{
    plan::{Place, Plan, is_serving},
    reap, rebalance,
    slots::{self, Slot, State},
    update,
};

pub(super) fn decide<'a>(plan: &mut Plan<'a>, tasks: &[&'a Task]) {
    let grouped = slots::group(tasks);
    let surplus = match plan.service.spec.mode {
        ServiceMode::Replicated { replicas } => surplus(plan, &grouped, replicas),
        _ => Vec::new(),
    };
    for place in &surplus {
        if plan.is_full() {
            return;
        }
        for task in &grouped[*place].wanted {
            plan.stop(task);
        }
    }
    let mut states = BTreeMap::new();
    for (place, slot) in &grouped {
        if surplus.contains(&place) {
            states.insert(place.clone(), State::Empty);
            continue;
        }
        if plan.is_full() {
            return;
        }
        states.insert(place.clone(), slots::settle(plan, place, slot));
    }
    fill(plan, &grouped, &mut states);
    update::advance(plan, &grouped, &states);
    for (place, slot) in &grouped {
        if plan.is_full() {
            return;
        }
        let state = states.get(place).unwrap_or(&State::Empty);
        reap::slot(plan, slot, state);
    }
    rebalance::by_itself(plan, &grouped, &states);
}

/// Makes the tasks that are missing.
fn fill<'a>(
    plan: &mut Plan<'a>,
    grouped: &BTreeMap<Place, Slot<'a>>,
    states: &mut BTreeMap<Place, State<'a>>,
) {
    let none = Slot::default();
    let missing: Vec<Place> = match plan.service.spec.mode {
        ServiceMode::Replicated { replicas } => {
            let used = states.values().filter(|state| state.is_used()).count();
            let count = usize::try_from(replicas)
                .unwrap_or(usize::MAX)
                .saturating_sub(used);
            (1..)
                .map(Place::Slot)
                .filter(|place| !states.get(place).is_some_and(State::is_used))
                .take(count.min(crate::decision::BATCH))
                .collect()
        }
        _ => plan
            .tables
            .nodes()
            .filter(|node| plan.is_eligible(node))
            .map(|node| Place::Node(node.id.clone()))
            .filter(|place| !states.get(place).is_some_and(State::is_used))
            .collect(),
    };
    for place in missing {
        if plan.is_full() {
            return;
        }
        slots::place_anew(plan, &place, grouped.get(&place).unwrap_or(&none), None);
        states.insert(place, State::Changed);
    }
}

/// The slots to give up so that `replicas` remain: those that do not run first, then so that
/// the nodes end balanced.
fn surplus<'s>(
    plan: &Plan<'_>,
    grouped: &'s BTreeMap<Place, Slot<'_>>,
    replicas: u64,
) -> Vec<&'s Place> {
    let used: Vec<(&Place, &Slot<'_>)> = grouped
        .iter()
        .filter(|(_, slot)| !slot.wanted.is_empty() || slots::is_finished(plan, slot))
        .collect();
    let count = used
        .len()
        .saturating_sub(usize::try_from(replicas).unwrap_or(usize::MAX));
    if count == 0 {
        return Vec::new();
    }
    let mut on_node: HashMap<Option<&NodeId>, usize> = HashMap::new();
    let mut ranked: Vec<(bool, bool, usize, &Place)> = used
        .iter()
        .map(|(place, slot)| {
            let running = |task: &&&Task| task.status.state == TaskState::Running;
            let runs = slot.wanted.iter().find(running);
            let serves = slot.wanted.iter().any(|task| is_serving(task));
            let rank = runs.map_or(0, |task| {
                let count = on_node.entry(task.node.as_ref()).or_default();
                *count += 1;
                *count
            });
            (runs.is_some(), serves, rank, *place)
        })
        .collect();
    ranked.sort_by(|a, b| {
        let first = (a.0, a.1).cmp(&(b.0, b.1));
        first.then(b.2.cmp(&a.2)).then(b.3.cmp(a.3))
    });
    ranked.truncate(count);
    ranked.into_iter().map(|(.., place)| place).collect()
}
