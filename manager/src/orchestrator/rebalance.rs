//! Moving tasks from full nodes to emptier ones: a second task in the same slot, which the
//! scheduler places, and the first goes once the second serves.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use model::{
    NodeId, Service, Task, TaskState,
    service::{LABEL_REBALANCE, LABEL_REBALANCE_RATE, ServiceMode},
};

use super::{
    later,
    plan::{Making, Place, Plan, is_serving},
    slots::{Slot, State},
};
use crate::{decision::Decision, store::Tables};

/// Moves a minute without [`LABEL_REBALANCE_RATE`].
const RATE: usize = 1;
const MINUTE: Duration = Duration::from_secs(60);

/// All moves that make the service's nodes even, and how many there are.
pub fn rebalance(tables: &Tables, service: &Service, now: i64) -> (Decision, u64) {
    let tasks: Vec<&Task> = tables.work().tasks_of(&service.id).collect();
    let mut plan = Plan::new(tables, service, &tasks, now);
    let grouped = super::slots::group(&tasks);
    let moves = moves(&plan, &grouped);
    for place in &moves {
        begin(&mut plan, place);
    }
    (plan.decision, moves.len() as u64)
}

/// Moves a few a minute if the service asks for it, while nothing else changes.
pub(super) fn by_itself(
    plan: &mut Plan<'_>,
    grouped: &BTreeMap<Place, Slot<'_>>,
    states: &BTreeMap<Place, State<'_>>,
) {
    let labels = &plan.service.spec.labels;
    let calm = || {
        let still = |slot: &Slot<'_>| match slot.wanted.as_slice() {
            [] => true,
            [task] => is_serving(task),
            _ => false,
        };
        states
            .values()
            .all(|s| !matches!(s, State::Changed | State::Dirty(_)))
            && grouped.values().all(still)
    };
    if labels.get(LABEL_REBALANCE).is_none_or(|on| on != "true") || !calm() {
        return;
    }
    let rate = labels.get(LABEL_REBALANCE_RATE);
    let rate = rate.and_then(|text| text.parse().ok()).unwrap_or(RATE);
    let due = |task: &&&Task| later(task.meta.created_at, MINUTE);
    let recent: Vec<i64> = grouped
        .values()
        .flat_map(|slot| &slot.wanted)
        .filter(|task| due(task) > plan.now)
        .map(|task| due(&task))
        .collect();
    let moves = moves(plan, grouped);
    if moves.is_empty() {
        return;
    }
    for place in moves.iter().take(rate.saturating_sub(recent.len())) {
        begin(plan, place);
    }
    if let Some(moment) = recent.into_iter().min() {
        plan.decision.look_at(moment);
    }
}

fn begin(plan: &mut Plan<'_>, place: &Place) {
    plan.create(&Making {
        place,
        desired: TaskState::Running,
        start_after: 0,
        attempt: 0,
        like: None,
    });
}

/// The slots whose tasks should move: from the fullest node while another, on which there is
/// room, has at least two fewer.
fn moves<'s>(plan: &Plan<'_>, grouped: &'s BTreeMap<Place, Slot<'_>>) -> Vec<&'s Place> {
    if !matches!(plan.service.spec.mode, ServiceMode::Replicated { .. }) {
        return Vec::new();
    }
    let mut movable: HashMap<&NodeId, Vec<&Place>> = HashMap::new();
    let mut counts: HashMap<&NodeId, u64> = plan
        .tables
        .nodes()
        .filter(|node| plan.is_eligible(node))
        .map(|node| (&node.id, 0))
        .collect();
    let mut room: HashMap<&NodeId, u64> = counts.keys().map(|id| (*id, room(plan, id))).collect();
    for (place, slot) in grouped {
        for task in &slot.wanted {
            if let Some(count) = task.node.as_ref().and_then(|id| counts.get_mut(id)) {
                *count += 1;
            }
        }
        if let [task] = slot.wanted.as_slice()
            && is_serving(task)
            && plan.is_clean(task)
            && let Some((id, _)) = task.node.as_ref().and_then(|id| counts.get_key_value(id))
        {
            movable.entry(*id).or_default().push(place);
        }
    }
    let mut found = Vec::new();
    loop {
        let fullest = movable
            .iter()
            .filter(|(_, places)| !places.is_empty())
            .map(|(id, _)| (counts[id], *id))
            .max();
        let emptiest = counts
            .iter()
            .filter(|(id, _)| room.get(*id).is_some_and(|room| *room > 0))
            .map(|(id, count)| (*count, *id))
            .min();
        let (Some((most, from)), Some((least, to))) = (fullest, emptiest) else {
            return found;
        };
        if most < least + 2 {
            return found;
        }
        found.extend(movable.get_mut(from).and_then(Vec::pop));
        for (id, count) in &mut counts {
            if *id == from {
                *count -= 1;
            } else if *id == to {
                *count += 1;
            }
        }
        if let Some(room) = room.get_mut(to) {
            *room -= 1;
        }
    }
}

/// How many more tasks of the service the node has the reserved processors and memory for.
fn room(plan: &Plan<'_>, id: &NodeId) -> u64 {
    let Some(node) = plan.tables.node(id) else {
        return 0;
    };
    let asked = &plan.service.spec.task.reservations;
    let alive = |task: &&Task| task.is_alive();
    let fits = |all: i64, one: i64, used: i64| match one {
        ..=0 => u64::MAX,
        _ => u64::try_from((all - used) / one).unwrap_or(0),
    };
    let tasks = || plan.tables.work().tasks_at(id).filter(alive);
    let cpus: i64 = tasks().map(|t| t.spec.reservations.nano_cpus).sum();
    let memory: i64 = tasks().map(|t| t.spec.reservations.memory_bytes).sum();
    let about = &node.description;
    let own = tasks().filter(|task| task.service == plan.service.id);
    let most = match plan.service.spec.task.placement.max_replicas {
        0 => u64::MAX,
        most => most.saturating_sub(own.count() as u64),
    };
    fits(about.nano_cpus, asked.nano_cpus, cpus)
        .min(fits(about.memory_bytes, asked.memory_bytes, memory))
        .min(most)
}
