//! The restart policy of one slot.

use model::{
    Task, TaskState,
    task::{RestartCondition, RestartPolicy},
};

use super::{
    later,
    plan::{Making, Place, Plan},
    slots::Slot,
};

/// Not because it was asked to, nor because its node was lost.
pub(super) fn ended_by_itself(task: &Task) -> bool {
    matches!(
        task.status.state,
        TaskState::Complete | TaskState::Failed | TaskState::Rejected
    )
}

/// Makes the successor of a task that has ended, after the delay, if the policy allows one.
pub(super) fn again<'a>(
    plan: &mut Plan<'a>,
    place: &Place,
    slot: &Slot<'a>,
    ended: &'a Task,
) -> bool {
    let like = plan.is_paused().then_some(ended);
    // A new version of the service begins to count anew.
    let attempt = if like.is_some() || plan.is_clean(ended) {
        if !allows(plan, slot, ended) {
            return false;
        }
        ended.attempt.saturating_add(1)
    } else {
        0
    };
    let policy = policy(plan);
    let start_after = later(plan.now, policy.delay);
    let desired = if policy.delay.is_zero() {
        plan.running()
    } else {
        TaskState::Ready
    };
    plan.create(&Making {
        place,
        desired,
        start_after,
        attempt,
        like,
    });
    true
}

fn policy(plan: &Plan<'_>) -> RestartPolicy {
    plan.service.spec.task.restart.clone().unwrap_or_default()
}

fn allows(plan: &Plan<'_>, slot: &Slot<'_>, ended: &Task) -> bool {
    let policy = policy(plan);
    let failed = ended.status.state != TaskState::Complete;
    let condition = match policy.condition {
        RestartCondition::None => false,
        RestartCondition::OnFailure => failed,
        // A job that completed has done what it was for.
        RestartCondition::Any => failed || !plan.service.spec.mode.is_job(),
    };
    if !condition || policy.max_attempts == 0 {
        return condition;
    }
    if policy.window.is_zero() {
        return ended.attempt < policy.max_attempts;
    }
    let begin = plan.now - (later(plan.now, policy.window) - plan.now);
    let recent = slot
        .all()
        .filter(|task| task.attempt > 0 && task.meta.created_at > begin && plan.is_clean(task));
    u64::try_from(recent.count()).unwrap_or(u64::MAX) < policy.max_attempts
}

/// How many ended tasks of a slot the policy needs to remember.
pub(super) fn memory(plan: &Plan<'_>) -> usize {
    let policy = policy(plan);
    if policy.window.is_zero() {
        return 0;
    }
    usize::try_from(policy.max_attempts.min(100)).unwrap_or(100)
}
