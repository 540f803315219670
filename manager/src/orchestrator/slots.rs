//! One slot: at most one task is wanted in it, but for the pair of a start-first replacement.

use std::collections::BTreeMap;

use model::{Task, TaskState};

use super::{
    plan::{Health, Making, Place, Plan, is_serving},
    restart,
};

/// The tasks of one place, each list newest first.
#[derive(Default)]
pub(super) struct Slot<'a> {
    pub wanted: Vec<&'a Task>,
    pub rest: Vec<&'a Task>,
}

impl<'a> Slot<'a> {
    pub fn all(&self) -> impl Iterator<Item = &'a Task> + '_ {
        self.wanted.iter().chain(&self.rest).copied()
    }
}

/// What a slot is after it was looked at.
pub(super) enum State<'a> {
    /// Its task is what the service asks for.
    Clean,
    /// Its tasks are those of an older version.
    Dirty(Vec<&'a Task>),
    /// Changed just now.
    Changed,
    /// Its task has ended and is not to be started again.
    Finished,
    Empty,
}

impl State<'_> {
    pub fn is_used(&self) -> bool {
        !matches!(self, Self::Empty)
    }
}

pub(super) fn group<'a>(tasks: &[&'a Task]) -> BTreeMap<Place, Slot<'a>> {
    let mut slots: BTreeMap<Place, Slot<'a>> = BTreeMap::new();
    for task in tasks {
        let slot = slots.entry(Place::of(task)).or_default();
        if task.is_wanted() {
            slot.wanted.push(task);
        } else {
            slot.rest.push(task);
        }
    }
    for slot in slots.values_mut() {
        let newest = |task: &&Task| std::cmp::Reverse((task.meta.created_at, task.id.clone()));
        slot.wanted.sort_by_cached_key(newest);
        slot.rest.sort_by_cached_key(newest);
    }
    slots
}

/// Whether the slot's last task ended by itself and nobody followed: the restart policy has
/// spoken, and only a new version of the service speaks again.
pub(super) fn is_finished(plan: &Plan<'_>, slot: &Slot<'_>) -> bool {
    slot.wanted.is_empty()
        && slot.rest.first().is_some_and(|last| {
            restart::ended_by_itself(last) && (plan.is_paused() || plan.is_clean(last))
        })
}

/// Repairs one slot as far as that does not belong to an update.
pub(super) fn settle<'a>(plan: &mut Plan<'a>, place: &Place, slot: &Slot<'a>) -> State<'a> {
    let of = |health: Health, plan: &Plan<'_>| -> Vec<&'a Task> {
        let is = |task: &&&Task| plan.health(task) == health;
        slot.wanted.iter().filter(is).copied().collect()
    };
    let (good, misfit) = (of(Health::Good, plan), of(Health::Misfit, plan));
    let (lost, ended) = (of(Health::Lost, plan), of(Health::Ended, plan));
    for task in &ended {
        let mut task = Task::clone(task);
        task.desired = TaskState::Shutdown;
        plan.set(task);
    }
    for task in &lost {
        plan.stop(task);
    }
    if matches!(place, Place::Node(_)) {
        for task in &misfit {
            plan.stop(task);
        }
        if good.is_empty() && ended.is_empty() {
            return State::Empty;
        }
    }
    if let Some(best) = good.iter().find(|task| plan.is_clean(task)) {
        let others: Vec<&Task> = good
            .iter()
            .chain(misfit.iter().filter(|_| matches!(place, Place::Slot(_))))
            .filter(|other| other.id != best.id)
            .copied()
            .collect();
        let keep = usize::from(!is_serving(best));
        return if stop_all_but(plan, &others, keep) {
            State::Changed
        } else {
            promote(plan, slot, best)
        };
    }
    if let Some(newest) = good.first() {
        let others: Vec<&Task> = good[1..]
            .iter()
            .chain(misfit.iter().filter(|_| matches!(place, Place::Slot(_))))
            .copied()
            .collect();
        let keep = usize::from(!is_serving(newest));
        if stop_all_but(plan, &others, keep) {
            return State::Changed;
        }
        // The new one of a start-first pair has ended; it is tried again beside the old one.
        if let Some(failed) = ended.iter().find(|task| plan.is_clean(task))
            && !plan.is_paused()
            && restart::again(plan, place, slot, failed)
        {
            return State::Changed;
        }
        promote(plan, slot, newest);
        return State::Dirty(std::iter::once(*newest).chain(others).collect());
    }
    if !misfit.is_empty() && matches!(place, Place::Slot(_)) {
        if let Some(failed) = ended.first() {
            restart::again(plan, place, slot, failed);
        } else {
            move_away(plan, place, slot, &misfit);
        }
        return State::Changed;
    }
    if let Some(gone) = lost.first() {
        let like = plan.is_paused().then_some(*gone);
        place_anew(plan, place, slot, like);
        return State::Changed;
    }
    if let Some(last) = ended.first() {
        return if restart::again(plan, place, slot, last) {
            State::Changed
        } else {
            State::Finished
        };
    }
    if is_finished(plan, slot) {
        State::Finished
    } else {
        State::Empty
    }
}

/// Tasks whose node is drained or no longer fits get a successor at once.
fn move_away<'a>(plan: &mut Plan<'a>, place: &Place, slot: &Slot<'a>, misfit: &[&'a Task]) {
    let like = plan.is_paused().then_some(misfit[0]);
    let started = misfit
        .iter()
        .any(|task| task.status.state == TaskState::Running);
    if plan.starts_first() && started {
        stop_all_but(plan, misfit, 1);
        place_anew(plan, place, slot, like);
        return;
    }
    for task in misfit {
        plan.stop(task);
    }
    let held = misfit.iter().any(|task| task.node.is_some());
    let desired = if held {
        TaskState::Ready
    } else {
        plan.running()
    };
    plan.create(&Making {
        place,
        desired,
        start_after: 0,
        attempt: 0,
        like,
    });
}

/// A new task without delay; prepared only, while an old one is still stopping.
pub(super) fn place_anew<'a>(
    plan: &mut Plan<'a>,
    place: &Place,
    slot: &Slot<'a>,
    like: Option<&'a Task>,
) {
    let held = slot.rest.iter().any(|task| plan.is_stopping(task));
    let desired = if held {
        TaskState::Ready
    } else {
        plan.running()
    };
    plan.create(&Making {
        place,
        desired,
        start_after: 0,
        attempt: 0,
        like,
    });
}

/// Stops all but the newest `keep` that run; says whether anything was to stop.
pub(super) fn stop_all_but(plan: &mut Plan<'_>, tasks: &[&Task], keep: usize) -> bool {
    let mut kept = 0;
    let mut stopped = false;
    for task in tasks {
        if task.status.state == TaskState::Running && kept < keep {
            kept += 1;
        } else {
            plan.stop(task);
            stopped = true;
        }
    }
    stopped
}

/// Lets a task run that was only to be prepared, once its delay is over and the slot is free.
fn promote<'a>(plan: &mut Plan<'a>, slot: &Slot<'a>, task: &Task) -> State<'a> {
    if task.desired != TaskState::Ready || plan.gated {
        return State::Clean;
    }
    if task.start_after > plan.now {
        plan.decision.look_at(task.start_after);
        return State::Clean;
    }
    if slot.rest.iter().any(|old| plan.is_stopping(old)) {
        return State::Clean;
    }
    let mut task = task.clone();
    task.desired = plan.running();
    plan.set(task);
    State::Clean
}
