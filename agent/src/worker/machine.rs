//! What to do next with one task: a pure function of the task as assigned, what is known of it,
//! what the runtime shows, and the time.

use std::{fmt::Write as _, time::Duration};

use model::{
    Task,
    task::{ContainerStatus, Handover, RestartCondition, TaskState, TaskStatus},
};

/// For how long no manager has to be in sight before this host decides by itself.
pub(super) const ALONE_AFTER: i64 = 4_000_000_000;
/// A manager that says neither yes nor no to a hand-over is waited for no longer than this.
const HANDOVER_LIMIT: i64 = 10_000_000_000;
/// How often connections are counted while they drain.
const COUNT_EVERY: i64 = 100_000_000;

/// What the runtime shows of a task's container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub id: model::ContainerId,
    /// 0 when it does not run.
    pub pid: i64,
    pub run: Run,
    pub oom_killed: bool,
    /// What its start failed with; empty when it did not.
    pub error: String,
    /// Nanoseconds since the Unix epoch.
    pub finished_at: i64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Run {
    #[default]
    Created,
    Runs(Health),
    Ended {
        code: i64,
    },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Health {
    /// It has no health check.
    #[default]
    Unasked,
    Starting,
    Healthy,
    Unhealthy,
}

/// What this host knows of the task beside what the manager and the runtime say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Own {
    pub status: TaskStatus,
    /// What the last action failed with.
    pub failure: Option<String>,
    /// It was stopped because it was not healthy.
    pub unhealthy: bool,
    /// When its end was asked for first.
    pub ending_since: Option<i64>,
    /// Since when its connections are left to end by themselves.
    pub draining_since: Option<i64>,
    /// Established connections into it, when they were counted last, and how many.
    pub counted: Option<(i64, u64)>,
    /// Since when no manager is in sight.
    pub alone_since: Option<i64>,
    /// Its container ended with the host's last boot.
    pub rebooted: bool,
    /// Names of secrets and configs that have not come yet.
    pub missing: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Nothing,
    /// Pull the image and make the container.
    Prepare,
    Start,
    /// Start the ended container of the same task once more.
    Restart,
    /// Count the established connections into its sandbox.
    Count,
    /// Stop signal, grace period, kill.
    Stop,
    /// Take the container away.
    Remove,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub action: Action,
    /// The status from now on, before the action; absent: as it is.
    pub status: Option<Next>,
    /// When to ask again at the latest, nanoseconds since the Unix epoch.
    pub deadline: Option<i64>,
    pub draining: bool,
    pub unhealthy: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Next {
    pub state: TaskState,
    pub message: &'static str,
    pub error: String,
}

impl Step {
    fn act(action: Action) -> Self {
        Self {
            action,
            status: None,
            deadline: None,
            draining: false,
            unhealthy: false,
        }
    }

    fn wait() -> Self {
        Self::act(Action::Nothing)
    }

    fn until(deadline: i64) -> Self {
        Self {
            deadline: Some(deadline),
            ..Self::wait()
        }
    }

    /// With a new status, unless the task has it already.
    fn becoming(mut self, own: &Own, state: TaskState, message: &'static str, error: &str) -> Self {
        let same = own.status.state == state && own.status.error == error;
        if !same && state >= own.status.state {
            self.status = Some(Next {
                state,
                message,
                error: error.to_owned(),
            });
        }
        self
    }
}

/// The next step. Carrying it out and asking again leads to [`Action::Nothing`].
pub(super) fn decide(task: &Task, own: &Own, seen: Option<&Seen>, now: i64) -> Step {
    if own.status.state.is_final() {
        return over(task, seen);
    }
    if task.desired > TaskState::Complete {
        return ending(task, own, seen, now);
    }
    if let Some(failure) = &own.failure {
        let state = if own.status.state < TaskState::Starting {
            TaskState::Rejected
        } else {
            TaskState::Failed
        };
        let action = match seen.map(|seen| seen.run) {
            Some(Run::Runs(_)) => Step::act(Action::Stop),
            _ => Step::wait(),
        };
        return action.becoming(own, state, "failed", failure);
    }
    match seen {
        None => absent(own),
        Some(seen) => match seen.run {
            Run::Created => created(task, own, seen),
            Run::Runs(health) => runs(own, health),
            Run::Ended { code } => ended(task, own, seen, code, now),
        },
    }
}

/// It has reached a final state: nothing may run, and its container goes when it is to be
/// forgotten.
fn over(task: &Task, seen: Option<&Seen>) -> Step {
    match seen.map(|seen| seen.run) {
        Some(Run::Runs(_)) => Step::act(Action::Stop),
        Some(_) if task.desired == TaskState::Remove => Step::act(Action::Remove),
        _ => Step::wait(),
    }
}

fn ending(task: &Task, own: &Own, seen: Option<&Seen>, now: i64) -> Step {
    let removing = task.desired == TaskState::Remove;
    match seen.map(|seen| seen.run) {
        Some(Run::Runs(_)) if removing => Step::act(Action::Stop),
        Some(Run::Runs(_)) => draining(task, own, now),
        Some(_) if removing => Step::act(Action::Remove),
        _ => Step::wait().becoming(own, TaskState::Shutdown, "shutdown", ""),
    }
}

/// Out of load balancing first, everywhere; then its connections end; then it is stopped.
fn draining(task: &Task, own: &Own, now: i64) -> Step {
    let was_reachable = own.status.state == TaskState::Running && !task.endpoints.is_empty();
    if !was_reachable {
        return Step::act(Action::Stop);
    }
    let asked = own.ending_since.unwrap_or(now);
    if task.handover != Handover::Out {
        let alone = own.alone_since.map(|since| since + ALONE_AFTER);
        let limit = alone.unwrap_or(i64::MAX).min(asked + HANDOVER_LIMIT);
        if now < limit {
            return Step::until(limit);
        }
    }
    let since = own.draining_since.unwrap_or(now);
    let end = since.saturating_add(nanos(task.drain));
    let step = match own.counted {
        Some((_, 0)) => return Step::act(Action::Stop),
        _ if now >= end => return Step::act(Action::Stop),
        Some((at, _)) if now < at + COUNT_EVERY => Step::until((at + COUNT_EVERY).min(end)),
        _ => Step::act(Action::Count),
    };
    Step {
        draining: true,
        ..step
    }
}

fn absent(own: &Own) -> Step {
    if own.status.state >= TaskState::Ready {
        let lost = "its container was removed by somebody else";
        return Step::wait().becoming(own, TaskState::Failed, "failed", lost);
    }
    if own.missing.is_empty() {
        Step::act(Action::Prepare).becoming(own, TaskState::Preparing, "preparing", "")
    } else {
        let waits = format!("waits for {}", own.missing.join(", "));
        Step::wait().becoming(own, TaskState::Accepted, "accepted", &waits)
    }
}

fn created(task: &Task, own: &Own, seen: &Seen) -> Step {
    if !seen.error.is_empty() && own.status.state >= TaskState::Starting {
        return Step::wait().becoming(own, TaskState::Failed, "failed", &seen.error);
    }
    let wanted = matches!(task.desired, TaskState::Running | TaskState::Complete);
    if !wanted {
        return Step::wait().becoming(own, TaskState::Ready, "prepared", "");
    }
    Step::act(Action::Start).becoming(own, TaskState::Starting, "starting", "")
}

fn runs(own: &Own, health: Health) -> Step {
    match health {
        Health::Unasked | Health::Healthy => {
            Step::wait().becoming(own, TaskState::Running, "started", "")
        }
        Health::Starting => Step::wait().becoming(own, TaskState::Starting, "starting", ""),
        Health::Unhealthy => Step {
            unhealthy: true,
            ..Step::act(Action::Stop)
        },
    }
}

fn ended(task: &Task, own: &Own, seen: &Seen, code: i64, now: i64) -> Step {
    if let Some(at) = restart_at(task, own, seen, code) {
        if at <= now {
            return Step::act(Action::Restart);
        }
        return Step::until(at);
    }
    if code == 0 && !own.unhealthy {
        return Step::wait().becoming(own, TaskState::Complete, "finished", "");
    }
    Step::wait().becoming(
        own,
        TaskState::Failed,
        "failed",
        &reason(task, own, seen, code),
    )
}

/// When this host starts the task's container again by itself: when no manager is in sight
/// who could make another task, within the task's policy, and after a reboot.
fn restart_at(task: &Task, own: &Own, seen: &Seen, code: i64) -> Option<i64> {
    if own.status.state < TaskState::Starting {
        return None;
    }
    let decided = own.alone_since.map(|since| since + ALONE_AFTER);
    if own.rebooted {
        // Whoever gave this task knows that it is wanted still.
        return Some(decided.unwrap_or(i64::MIN));
    }
    let decided = decided?;
    let policy = task.spec.restart.clone().unwrap_or_default();
    let condition = match policy.condition {
        RestartCondition::Any if !task.mode.is_job() => true,
        RestartCondition::Any | RestartCondition::OnFailure => code != 0 || own.unhealthy,
        RestartCondition::None => false,
    };
    let tries_left = policy.max_attempts == 0
        || task.attempt.saturating_add(own.status.restarts) < policy.max_attempts;
    (condition && tries_left)
        .then(|| decided.max(seen.finished_at.saturating_add(nanos(policy.delay))))
}

/// Docker's words, and what is known beyond them.
fn reason(task: &Task, own: &Own, seen: &Seen, code: i64) -> String {
    let mut text = format!("task: non-zero exit ({code})");
    if own.unhealthy {
        text.push_str(": dockerexec: unhealthy container");
    } else if seen.oom_killed {
        let limit = task.spec.limits.memory_bytes;
        text.push_str(": out of memory");
        if limit > 0 {
            let _ = write!(text, ", its limit is {} MiB", limit >> 20);
        }
    } else if !seen.error.is_empty() {
        text.push_str(": ");
        text.push_str(&seen.error);
    }
    text
}

/// What a status says of the container.
pub(super) fn container_status(seen: Option<&Seen>) -> Option<ContainerStatus> {
    seen.map(|seen| ContainerStatus {
        id: seen.id.clone(),
        pid: seen.pid,
        exit_code: match seen.run {
            Run::Ended { code } => code,
            Run::Created | Run::Runs(_) => 0,
        },
    })
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
