//! Old tasks: how many are kept for people to see, and what of them goes.

use model::{ServiceId, Task, TaskState, service::UpdateState};

use super::{
    plan::{self, Plan},
    restart,
    slots::{Slot, State},
};
use crate::{
    decision::{BATCH, Decision},
    store::{StoreChange, Tables},
};

/// Whether nothing of the task can run any more: it has ended, or there is no node to end it.
pub(super) fn is_over(plan: &Plan<'_>, task: &Task) -> bool {
    over(plan.tables, task)
}

fn over(tables: &Tables, task: &Task) -> bool {
    task.status.state.is_final()
        || (task.status.state < TaskState::Assigned && !task.is_wanted())
        || task
            .node
            .as_ref()
            .is_none_or(|node| tables.node(node).is_none())
}

/// Forgets what the history does not keep of one slot.
pub(super) fn slot(plan: &mut Plan<'_>, slot: &Slot<'_>, state: &State<'_>) {
    let limit = plan
        .tables
        .cluster()
        .map_or(0, |record| record.public.spec.task_history_limit);
    let updating = plan.service.update.as_ref().is_some_and(|status| {
        matches!(
            status.state,
            UpdateState::Updating | UpdateState::RollbackStarted
        )
    });
    // The last one says that a slot is finished, and whether an update has failed there.
    let least =
        usize::from(updating || matches!(state, State::Finished)).max(restart::memory(plan));
    let keep = match state {
        State::Empty => 0,
        // A negative limit keeps all.
        _ => usize::try_from(limit).map_or(usize::MAX, |limit| limit.max(least)),
    };
    let mut seen = 0;
    for task in &slot.rest {
        if !is_over(plan, task) {
            continue;
        }
        let held = task.status.state.is_final() && task.desired < TaskState::Remove;
        seen += usize::from(held);
        if !held || seen > keep {
            plan.forget(task);
        }
    }
}

/// The tasks of a service that is gone: each is removed from its node, then forgotten.
pub(super) fn removed(tables: &Tables, service: &ServiceId, now: i64) -> Decision {
    let mut decision = Decision::default();
    for task in tables.work().tasks_of(service) {
        if decision.changes.len() >= BATCH {
            decision.look_at(now);
            break;
        }
        if over(tables, task) {
            plan::forget(tables, task, &mut decision);
        } else if task.desired < TaskState::Remove {
            let mut task = task.clone();
            task.desired = TaskState::Remove;
            decision.changes.push(StoreChange::SetTask(Box::new(task)));
        }
    }
    decision
}
