//! Services that come after others.

use model::{
    Refusal, Service, ServiceSpec, Task, TaskState,
    service::{LABEL_DEPENDS_ON, ServiceMode},
};

use super::plan::is_serving;
use crate::store::Tables;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// One of its containers has started.
    Started,
    /// As many tasks as it asks for are running and healthy.
    Healthy,
    /// It has run to completion.
    Completed,
}

/// The services that come first, as the label says.
pub(crate) fn parse(spec: &ServiceSpec) -> Result<Vec<(&str, Condition)>, Refusal> {
    let Some(text) = spec.labels.get(LABEL_DEPENDS_ON) else {
        return Ok(Vec::new());
    };
    let entries = text.split(',').map(str::trim).filter(|e| !e.is_empty());
    entries
        .map(|entry| {
            let (name, word) = entry.split_once(':').unwrap_or((entry, "started"));
            let condition = match word {
                "started" => Condition::Started,
                "healthy" => Condition::Healthy,
                "completed" => Condition::Completed,
                _ => {
                    return Err(Refusal::invalid(format!(
                        "label {LABEL_DEPENDS_ON}: {word:?} is no condition; use started, healthy or completed"
                    )));
                }
            };
            if name == spec.name {
                return Err(Refusal::invalid(format!(
                    "label {LABEL_DEPENDS_ON}: service {name} cannot come after itself"
                )));
            }
            Ok((name, condition))
        })
        .collect()
}

/// Whether the service's first tasks have to wait. Once one was to run, none waits.
pub(super) fn is_gated(tables: &Tables, service: &Service, tasks: &[&Task]) -> bool {
    if !service.spec.labels.contains_key(LABEL_DEPENDS_ON)
        || tasks.iter().any(|task| task.desired != TaskState::Ready)
    {
        return false;
    }
    // Control refused labels that cannot be understood.
    parse(&service.spec).is_ok_and(|first| {
        first
            .iter()
            .any(|(name, condition)| !is_met(tables, name, *condition))
    })
}

fn is_met(tables: &Tables, name: &str, condition: Condition) -> bool {
    let Some(service) = tables.work().service_named(name) else {
        return false;
    };
    let tasks = || tables.work().tasks_of(&service.id);
    let completed = || {
        let ended = |task: &&Task| task.status.state == TaskState::Complete;
        tasks().filter(ended).count() as u64
    };
    match condition {
        Condition::Started => tasks().any(|task| {
            matches!(
                task.status.state,
                TaskState::Starting | TaskState::Running | TaskState::Complete
            )
        }),
        Condition::Healthy => {
            let mut wanted = tasks().filter(|task| task.is_wanted()).peekable();
            wanted.peek().is_some() && wanted.all(is_serving)
        }
        Condition::Completed => match service.spec.mode {
            ServiceMode::ReplicatedJob { total, .. } => completed() >= total,
            ServiceMode::Replicated { replicas } => completed() >= replicas.max(1),
            ServiceMode::Global | ServiceMode::GlobalJob => {
                completed() > 0
                    && tasks().all(|t| !t.is_wanted() || t.status.state == TaskState::Complete)
            }
        },
    }
}
