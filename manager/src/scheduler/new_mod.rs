//! Gives tasks their nodes: filters, then ranks, never more than a node has.

pub mod constraint;
mod group;
mod hosts;
mod obstacle;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use model::{
    ServiceId, ServiceSpec, Task, TaskState,
    control::{DryRun, Placed},
    service::ServiceMode,
};

use self::{
    group::{Group, Queue, Wish},
    hosts::Hosts,
    obstacle::{Obstacle, Obstacles},
};
use crate::{
    decision::Decision,
    store::{Stage, StoreChange, Tables},
};

/// Tasks that one decision moves at most, so that one entry of the log stays small.
const MOST: usize = 256;
/// Groups that are remembered at most.
const GROUPS: usize = 256;

/// Where waiting tasks go, decided from nothing but the state.
pub fn decide(tables: &Tables, now: i64) -> Decision {
    Scheduler::default().decide(tables, now)
}

/// Decides like [`decide`], and remembers what it knows of nodes and groups for the next time.
#[derive(Debug, Default)]
pub struct Scheduler {
    hosts: Hosts,
    groups: HashMap<(ServiceId, u64), Group>,
}

impl Scheduler {
    /// Nodes for tasks that wait, or why they go on waiting. To be made on the state that was
    /// looked at.
    pub fn decide(&mut self, tables: &Tables, now: i64) -> Decision {
        self.hosts.catch_up(tables, now);
        let mut decision = Decision::default();
        let mut assigned: Vec<Task> = Vec::new();
        // The groups for which nothing is left in this look.
        let mut full: HashMap<(ServiceId, u64), String> = HashMap::new();
        let mut waiting = tables.work().tasks_in(Stage::Pending);
        let mut moved = 0;
        loop {
            let mut batch: HashMap<(ServiceId, u64), Vec<&Task>> = HashMap::new();
            let mut collected = 0;
            let mut ended = true;
            for task in waiting.by_ref() {
                if task.node.is_some() {
                    moved += self.check_chosen(tables, task, now, &mut decision, &mut assigned);
                } else {
                    let key = (task.service.clone(), task.spec_version);
                    if let Some(reason) = full.get(&key) {
                        moved += usize::from(explain(task, reason, &mut decision));
                    } else {
                        batch.entry(key).or_default().push(task);
                        collected += 1;
                    }
                }
                if moved + collected >= MOST {
                    ended = false;
                    break;
                }
            }
            let mut keys: Vec<_> = batch.keys().cloned().collect();
            keys.sort();
            for key in keys {
                let tasks = batch.remove(&key).unwrap_or_default();
                let placed =
                    self.place_group(tables, &key, &tasks, now, &mut decision, &mut assigned);
                moved += placed;
                if let Some((first, reason)) = tasks.get(placed).zip(self.reason(&key, now)) {
                    let _ = first;
                    for task in &tasks[placed..] {
                        moved += usize::from(explain(task, &reason, &mut decision));
                    }
                    full.insert(key, reason);
                }
            }
            if ended {
                break;
            }
            if moved >= MOST {
                decision.look_at(now);
                break;
            }
        }
        // What was decided counts once it is committed, which the next look sees.
        for task in &assigned {
            self.hosts.free(task);
        }
        decision
    }
}
