//! Services that run to completion: so many times, or once on each node.

use std::collections::BTreeMap;

use model::{Task, TaskState, service::ServiceMode};

use super::{
    plan::{Place, Plan},
    reap,
    slots::{self, Slot, State},
};

pub(super) fn decide<'a>(plan: &mut Plan<'a>, tasks: &[&'a Task]) {
    let iteration = plan.service.job.map(|job| job.iteration);
    let (current, old): (Vec<&Task>, Vec<&Task>) = tasks
        .iter()
        .partition(|task| task.job_iteration == iteration);
    for task in old {
        if plan.is_full() {
            return;
        }
        if reap::is_over(plan, task) {
            plan.forget(task);
        } else if task.is_wanted() {
            plan.stop(task);
        }
    }
    let grouped = slots::group(&current);
    let mut states = BTreeMap::new();
    let mut active: u64 = 0;
    for (place, slot) in &grouped {
        if plan.is_full() {
            return;
        }
        let state = if is_complete(slot) {
            State::Finished
        } else {
            slots::settle(plan, place, slot)
        };
        active += u64::from(matches!(
            state,
            State::Clean | State::Changed | State::Dirty(_)
        ));
        reap::slot(plan, slot, &state);
        states.insert(place.clone(), state);
    }
    let none = Slot::default();
    for place in missing(plan, &states, active) {
        if plan.is_full() {
            return;
        }
        slots::place_anew(plan, &place, grouped.get(&place).unwrap_or(&none), None);
    }
}

fn is_complete(slot: &Slot<'_>) -> bool {
    slot.all()
        .any(|task| task.status.state == TaskState::Complete)
}

fn missing(plan: &Plan<'_>, states: &BTreeMap<Place, State<'_>>, active: u64) -> Vec<Place> {
    let unused = |place: &Place| !states.get(place).is_some_and(State::is_used);
    match plan.service.spec.mode {
        ServiceMode::ReplicatedJob { concurrent, total } => {
            let room = usize::try_from(concurrent.saturating_sub(active)).unwrap_or(usize::MAX);
            (0..total)
                .map(Place::Slot)
                .filter(unused)
                .take(room.min(crate::decision::BATCH))
                .collect()
        }
        _ => plan
            .tables
            .nodes()
            .filter(|node| plan.is_eligible(node))
            .map(|node| Place::Node(node.id.clone()))
            .filter(unused)
            .collect(),
    }
}
