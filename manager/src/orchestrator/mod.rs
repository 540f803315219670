//! From what services ask for to the tasks there should be.
//!
//! Invariant: everything here is a function of the tables and a moment; a manager that was
//! killed goes on from what is stored.

pub(crate) mod depends;
pub mod duration;
pub mod handover;
mod jobs;
mod plan;
mod reap;
mod rebalance;
mod restart;
mod services;
mod slots;
#[cfg(test)]
mod tests;
mod update;

pub use rebalance::rebalance;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use model::{Node, NodeId, ServiceId, Task, TaskState, service::LABEL_REBALANCE};

use self::plan::Plan;
use crate::{
    decision::{BATCH, Decision},
    dispatcher::Sessions,
    leader::loops::Loop,
    store::{StoreChange, Tables},
};

/// A moment (nanoseconds since the Unix epoch) that is `by` after `moment`.
fn later(moment: i64, by: Duration) -> i64 {
    moment.saturating_add(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX))
}

/// What should change about one service's tasks; of a service that is gone, about what is left.
pub fn decide(tables: &Tables, service: &ServiceId, now: i64) -> Decision {
    look(tables, service, now).0
}

/// Says beside the decision whether the service waits for others.
fn look(tables: &Tables, id: &ServiceId, now: i64) -> (Decision, bool) {
    let Some(service) = tables.work().service(id) else {
        return (reap::removed(tables, id, now), false);
    };
    let tasks: Vec<&Task> = tables.work().tasks_of(id).collect();
    let mut plan = Plan::new(tables, service, &tasks, now);
    plan.gated = depends::is_gated(tables, service, &tasks);
    if service.spec.mode.is_job() {
        jobs::decide(&mut plan, &tasks);
    } else {
        services::decide(&mut plan, &tasks);
    }
    (plan.decision, plan.gated)
}

/// The loop; it remembers which services were touched since it looked at them, and when it has
/// to look again.
#[derive(Default)]
pub(crate) struct OrchestratorLoop {
    touched: BTreeSet<ServiceId>,
    due: BTreeMap<ServiceId, i64>,
    /// Services that wait for others.
    gated: BTreeSet<ServiceId>,
}

impl Loop for OrchestratorLoop {
    fn name(&self) -> &'static str {
        "orchestrator"
    }

    fn start_over(&mut self, tables: &Tables) {
        let services = tables.work().services().map(|service| service.id.clone());
        let of_tasks = tables.work().tasks().map(|task| task.service.clone());
        self.touched = services.chain(of_tasks).collect();
        self.due.clear();
        self.gated.clear();
    }

    fn note(&mut self, before: &Tables, change: &StoreChange) -> bool {
        match change {
            StoreChange::SetService(service) => self.touch(&service.id),
            StoreChange::RemoveService(id) => self.touch(id),
            // What comes before is between the allocator, the scheduler and the node.
            StoreChange::SetTask(task)
                if task.status.state >= TaskState::Starting || !task.is_wanted() =>
            {
                self.touch(&task.service)
            }
            StoreChange::SetNode(node) => match before.node(&node.id) {
                Some(old) if is_same_place(old, node) => false,
                _ => self.touch_node(before, &node.id),
            },
            StoreChange::RemoveNode(id) => self.touch_node(before, id),
            StoreChange::SetCluster(record) => {
                let limit = record.public.spec.task_history_limit;
                let old = before.cluster();
                if old.is_some_and(|old| old.public.spec.task_history_limit != limit) {
                    self.start_over(before);
                    return true;
                }
                false
            }
            StoreChange::SetTask(_)
            | StoreChange::RemoveTask(_)
            | StoreChange::SetNetwork(_)
            | StoreChange::RemoveNetwork(_)
            | StoreChange::SetEndpoint(_)
            | StoreChange::RemoveEndpoint(_)
            | StoreChange::SetCursor { .. }
            | StoreChange::EndRest { .. }
            | StoreChange::SetPayload(_)
            | StoreChange::RemovePayload(_) => false,
        }
    }

    fn decide(&mut self, tables: &Tables, _: &Sessions, now: i64) -> Decision {
        let due = self.due.iter().filter(|(_, moment)| **moment <= now);
        self.touched.extend(due.map(|(id, _)| id.clone()));
        self.touched.append(&mut self.gated);
        let mut all = Decision::default();
        while let Some(id) = self.touched.pop_first() {
            let (decision, gated) = look(tables, &id, now);
            self.due.remove(&id);
            if all.changes.len() + decision.changes.len() > BATCH && !all.changes.is_empty() {
                self.touched.insert(id);
                all.look_at(now);
                break;
            }
            all.changes.extend(decision.changes);
            if let Some(moment) = decision.again {
                self.due.insert(id.clone(), moment);
            }
            if gated {
                self.gated.insert(id);
            }
        }
        if let Some(moment) = self.due.values().min() {
            all.look_at(*moment);
        }
        all
    }
}

impl OrchestratorLoop {
    fn touch(&mut self, service: &ServiceId) -> bool {
        self.touched.insert(service.clone());
        true
    }

    /// The services with tasks there, and those that may want one there now.
    fn touch_node(&mut self, before: &Tables, node: &NodeId) -> bool {
        let work = before.work();
        let there = work.tasks_at(node).map(|task| task.service.clone());
        self.touched.extend(there);
        let wide = work
            .services()
            .filter(|s| s.spec.mode.is_global() || s.spec.labels.contains_key(LABEL_REBALANCE));
        self.touched.extend(wide.map(|service| service.id.clone()));
        true
    }
}

/// Whether nothing changed that placement looks at.
fn is_same_place(old: &Node, new: &Node) -> bool {
    old.spec == new.spec
        && old.status.state == new.status.state
        && old.status.address == new.status.address
        && old.description == new.description
}
