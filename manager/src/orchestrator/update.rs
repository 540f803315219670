//! Rolling updates and rollbacks.
//!
//! Invariant: how far an update is follows from the tasks alone: those of the new version that
//! were made since it began are its trials.

use std::{collections::BTreeMap, time::Duration};

use model::{
    Service, Task, TaskState,
    service::{
        FailureAction, LABEL_PROGRESS_DEADLINE, UpdateConfig, UpdateOrder, UpdateState,
        UpdateStatus,
    },
    task::RestartCondition,
};

use super::{
    duration, later,
    plan::{Making, Place, Plan, is_serving},
    restart,
    slots::{Slot, State, stop_all_but},
};
use crate::store::StoreChange;

/// Goes on with the update that is under way, or begins one if tasks are of an older version.
pub(super) fn advance<'a>(
    plan: &mut Plan<'a>,
    slots: &BTreeMap<Place, Slot<'a>>,
    states: &BTreeMap<Place, State<'a>>,
) {
    let dirty = states.values().any(|s| matches!(s, State::Dirty(_)));
    let status = match &plan.service.update {
        Some(status)
            if matches!(
                status.state,
                UpdateState::Updating | UpdateState::RollbackStarted
            ) =>
        {
            status.clone()
        }
        Some(_) if plan.is_paused() => return,
        _ if dirty => {
            let status = UpdateStatus {
                state: UpdateState::Updating,
                started_at: plan.now,
                completed_at: None,
                message: "update in progress".to_owned(),
            };
            let mut service = plan.service.clone();
            service.update = Some(status.clone());
            set(plan, service);
            status
        }
        _ => return,
    };
    let config = plan.update_config();
    let mut tally = Tally::default();
    for (place, slot) in slots {
        if !states.get(place).is_none_or(State::is_used) {
            continue;
        }
        let changed = matches!(states.get(place), None | Some(State::Changed));
        tally.count(plan, place, slot, changed, &status, &config);
    }
    let candidates = candidates(states, &tally);
    let total = tally.tried.len() + candidates.len();
    if let Some((task, reason)) = &tally.failed
        && exceeds(tally.failures, total, config.max_failure_ppm)
        && config.failure_action != FailureAction::Continue
    {
        let why = format!("due to failure or early termination of task {task}{reason}");
        fail(plan, &status, config.failure_action, &why);
        return;
    }
    if candidates.is_empty() {
        if tally.settled {
            complete(plan, &status);
        }
        return;
    }
    let parallel = match config.parallelism {
        0 => usize::MAX,
        some => usize::try_from(some).unwrap_or(usize::MAX),
    };
    for (place, tasks) in candidates
        .into_iter()
        .take(parallel.saturating_sub(tally.busy))
    {
        if plan.is_full() {
            return;
        }
        begin(plan, place, slots.get(place), tasks, config.order);
    }
}

/// The slots to update, those without a serving task first.
fn candidates<'s, 'a>(
    states: &'s BTreeMap<Place, State<'a>>,
    tally: &Tally<'_>,
) -> Vec<(&'s Place, &'s [&'a Task])> {
    let mut found: Vec<_> = states
        .iter()
        .filter_map(|(place, state)| match state {
            State::Dirty(tasks) if !tally.tried.contains(&place) => Some((place, tasks.as_slice())),
            _ => None,
        })
        .collect();
    found.sort_by_key(|(_, tasks)| tasks.iter().any(|task| is_serving(task)));
    found
}

fn exceeds(failures: usize, total: usize, ppm: u32) -> bool {
    failures as u128 * 1_000_000 > u128::from(ppm) * total as u128
}

/// What an update has done so far.
struct Tally<'a> {
    /// Slots with a trial.
    tried: Vec<&'a Place>,
    /// Slots that hold a place among the parallel ones.
    busy: usize,
    /// Slots with a failed trial.
    failures: usize,
    /// The first failed task and what is to be added.
    failed: Option<(String, String)>,
    /// Nothing is left to be watched.
    settled: bool,
}

impl Default for Tally<'_> {
    fn default() -> Self {
        Self {
            tried: Vec::new(),
            busy: 0,
            failures: 0,
            failed: None,
            settled: true,
        }
    }
}

impl<'a> Tally<'a> {
    fn count(
        &mut self,
        plan: &mut Plan<'_>,
        place: &'a Place,
        slot: &Slot<'_>,
        changed: bool,
        status: &UpdateStatus,
        config: &UpdateConfig,
    ) {
        let mut trials: Vec<&Task> = slot
            .all()
            .filter(|task| task.meta.created_at >= status.started_at && plan.is_clean(task))
            .collect();
        trials.sort_by_key(|task| std::cmp::Reverse(task.meta.created_at));
        let Some(newest) = trials.first() else {
            if changed {
                self.busy += 1;
                self.settled = false;
            }
            return;
        };
        self.tried.push(place);
        let failure = trials
            .iter()
            .find_map(|task| Some((*task, failure(plan, task, config)?)));
        let until = if let Some((task, reason)) = failure {
            self.failures += 1;
            self.failed
                .get_or_insert_with(|| (task.id.to_string(), reason));
            Some((task.meta.updated_at, Duration::ZERO))
        } else if is_serving(newest) {
            Some((newest.in_since, config.monitor))
        } else {
            None
        };
        let Some((moment, watched)) = until else {
            self.busy += 1;
            self.settled = false;
            return;
        };
        let free = later(moment, config.delay);
        if free > plan.now {
            self.busy += 1;
            plan.decision.look_at(free);
        }
        let stable = later(moment, watched);
        if stable > plan.now {
            self.settled = false;
            plan.decision.look_at(stable);
        }
    }
}

/// Whether the trial counts as failed, and what to say beside its id.
fn failure(plan: &mut Plan<'_>, task: &Task, config: &UpdateConfig) -> Option<String> {
    if restart::ended_by_itself(task) {
        let condition = plan.service.spec.task.restart.as_ref();
        let condition = condition.map_or(RestartCondition::Any, |policy| policy.condition);
        let meant = task.status.state == TaskState::Complete && condition != RestartCondition::Any;
        let early =
            task.in_since == 0 || task.meta.updated_at <= later(task.in_since, config.monitor);
        return (early && !meant).then(String::new);
    }
    let deadline = plan.service.spec.labels.get(LABEL_PROGRESS_DEADLINE);
    let deadline = deadline.and_then(|text| duration::parse(text))?;
    if !task.is_wanted() || is_serving(task) {
        return None;
    }
    let end = later(task.meta.created_at, deadline);
    if end > plan.now {
        plan.decision.look_at(end);
        return None;
    }
    Some(format!(
        ", which did not become healthy within {deadline:?} ({LABEL_PROGRESS_DEADLINE})"
    ))
}

/// Replaces the tasks of one slot.
fn begin<'a>(
    plan: &mut Plan<'a>,
    place: &Place,
    slot: Option<&Slot<'a>>,
    tasks: &[&'a Task],
    order: UpdateOrder,
) {
    let started = tasks.iter().any(|t| t.status.state == TaskState::Running);
    let keep = usize::from(order == UpdateOrder::StartFirst && started);
    stop_all_but(plan, tasks, keep);
    let stopping = slot.is_some_and(|slot| slot.rest.iter().any(|t| plan.is_stopping(t)));
    let held = keep == 0 && tasks.iter().any(|task| task.node.is_some());
    let desired = if stopping || held {
        TaskState::Ready
    } else {
        plan.running()
    };
    plan.create(&Making {
        place,
        desired,
        start_after: 0,
        attempt: 0,
        like: None,
    });
}

fn set(plan: &mut Plan<'_>, service: Service) {
    let change = StoreChange::SetService(Box::new(service));
    plan.decision.changes.push(change);
}

fn complete(plan: &mut Plan<'_>, status: &UpdateStatus) {
    let (state, message) = if status.state == UpdateState::Updating {
        (UpdateState::Completed, "update completed")
    } else {
        (UpdateState::RollbackCompleted, "rollback completed")
    };
    let mut service = plan.service.clone();
    service.update = Some(UpdateStatus {
        state,
        started_at: status.started_at,
        completed_at: Some(plan.now),
        message: message.to_owned(),
    });
    set(plan, service);
}

/// Stops the update, or turns it back if that is asked for and possible; a rollback is never
/// turned back.
fn fail(plan: &mut Plan<'_>, status: &UpdateStatus, action: FailureAction, why: &str) {
    let mut service = plan.service.clone();
    let back = status.state == UpdateState::RollbackStarted;
    if action == FailureAction::Rollback
        && !back
        && let Some(previous) = service.previous.take()
    {
        service.spec = *previous;
        service.update = Some(UpdateStatus {
            state: UpdateState::RollbackStarted,
            started_at: plan.now,
            completed_at: None,
            message: format!("update rolled back {why}"),
        });
    } else {
        let (state, what) = if back {
            (UpdateState::RollbackPaused, "rollback")
        } else {
            (UpdateState::Paused, "update")
        };
        service.update = Some(UpdateStatus {
            state,
            started_at: status.started_at,
            completed_at: None,
            message: format!("{what} paused {why}"),
        });
    }
    set(plan, service);
}
