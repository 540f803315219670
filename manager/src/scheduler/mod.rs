//! Gives tasks their nodes: filters, then ranks, never more than a node has.

pub mod constraint;
mod dry;
mod group;
mod hosts;
mod looped;
mod obstacle;
#[cfg(test)]
mod tests;

pub use dry::dry_run;
pub(crate) use looped::SchedulerLoop;

use std::collections::HashMap;

use model::{NodeId, ServiceId, Task, TaskState, task::GenericResource};

use self::{
    group::{Group, Queue, Wish},
    hosts::Hosts,
    obstacle::Obstacles,
};
use crate::{
    decision::Decision,
    store::{Stage, StoreChange, Tables},
};

/// Tasks that one decision moves at most, so that one entry of the log stays small.
const MOST: usize = 256;
/// Waiting tasks that are looked through for equal ones: ranking the nodes is most of the work,
/// and is done once for each group.
const WINDOW: usize = 16 * MOST;
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
    groups: HashMap<Key, Group>,
}

/// Tasks of one version of a service are equal.
type Key = (ServiceId, u64);

impl Scheduler {
    /// Nodes for tasks that wait, or why they go on waiting. To be made on the state that was
    /// looked at.
    pub fn decide(&mut self, tables: &Tables, now: i64) -> Decision {
        self.hosts.catch_up(tables, now);
        let mut pass = Pass {
            scheduler: self,
            tables,
            now,
            decision: Decision::default(),
            assigned: Vec::new(),
            full: HashMap::new(),
            moved: 0,
        };
        let mut waiting = tables.work().tasks_in(Stage::Pending).peekable();
        let mut postponed = false;
        while pass.moved < MOST && waiting.peek().is_some() {
            let mut order: Vec<Key> = Vec::new();
            let mut groups: HashMap<Key, Vec<&Task>> = HashMap::new();
            let mut collected = 0;
            while pass.moved < MOST
                && collected < WINDOW
                && let Some(task) = waiting.next()
            {
                let key = (task.service.clone(), task.spec_version);
                if let Some(node) = &task.node {
                    pass.check(task, node, key);
                } else if let Some(reason) = pass.full.get(&key).cloned() {
                    pass.explain(task, &reason);
                } else {
                    let group = groups.entry(key).or_insert_with_key(|key| {
                        order.push(key.clone());
                        Vec::new()
                    });
                    group.push(task);
                    collected += 1;
                }
            }
            for key in order {
                let tasks = groups.remove(&key).unwrap_or_default();
                let room = MOST.saturating_sub(pass.moved).min(tasks.len());
                pass.place(key, &tasks[..room]);
                postponed |= room < tasks.len();
            }
        }
        if postponed || waiting.peek().is_some() {
            pass.decision.look_at(now);
        }
        // What was decided counts once it is committed, which the next look sees.
        let (assigned, decision) = (pass.assigned, pass.decision);
        for task in &assigned {
            self.hosts.free(task);
        }
        decision
    }

    /// The group, as the nodes are now.
    fn group<'a>(
        groups: &'a mut HashMap<Key, Group>,
        hosts: &Hosts,
        key: Key,
        wish: impl FnOnce() -> Wish,
    ) -> &'a Group {
        if groups.len() >= GROUPS && !groups.contains_key(&key) {
            groups.clear();
        }
        let group = groups
            .entry(key)
            .or_insert_with(|| Group::new(wish(), hosts));
        group.catch_up(hosts);
        group
    }
}

/// One look.
struct Pass<'a> {
    scheduler: &'a mut Scheduler,
    tables: &'a Tables,
    now: i64,
    decision: Decision,
    assigned: Vec<Task>,
    /// The groups for which no node is left, and why.
    full: HashMap<Key, String>,
    /// Tasks that something was decided about.
    moved: usize,
}

impl Pass<'_> {
    /// Nodes for as many equal tasks as there is room for.
    fn place(&mut self, key: Key, tasks: &[&Task]) {
        let Some(first) = tasks.first() else { return };
        let Scheduler { hosts, groups } = &mut *self.scheduler;
        let group = Scheduler::group(groups, hosts, key.clone(), || Wish::of(first));
        let mut queue = Queue::new(group, hosts, self.now);
        let mut placed = 0;
        for task in tasks {
            let Some(place) = queue.pop() else { break };
            let Some(node) = &hosts.all[place as usize].node else {
                continue;
            };
            let generic = group.generic(hosts, place);
            let task = assigned(task, node.id.clone(), generic, self.now);
            hosts.take(&task);
            queue.put_back(hosts, place);
            tell(self.tables, &task, &mut self.decision);
            self.assigned.push(task);
            placed += 1;
        }
        self.moved += placed;
        if placed < tasks.len() {
            let reason = queue.obstacles.sentence();
            for task in &tasks[placed..] {
                self.explain(task, &reason);
            }
            self.full.insert(key, reason);
        }
    }

    /// A task whose node was chosen already: only whether it fits.
    fn check(&mut self, task: &Task, node: &NodeId, key: Key) {
        let Scheduler { hosts, groups } = &mut *self.scheduler;
        let Some(place) = hosts.place_of(node) else {
            return self.explain(task, &Obstacles::default().sentence());
        };
        let group = Scheduler::group(groups, hosts, key, || Wish::of(task));
        let count = hosts.count_at(&task.service, place);
        if let Some(obstacle) = group.obstacle(hosts, place, count) {
            let mut obstacles = Obstacles::default();
            obstacles.met(obstacle);
            return self.explain(task, &obstacles.sentence());
        }
        let generic = group.generic(hosts, place);
        let task = assigned(task, node.clone(), generic, self.now);
        hosts.take(&task);
        tell(self.tables, &task, &mut self.decision);
        self.assigned.push(task);
        self.moved += 1;
    }

    /// Written only if it is news.
    fn explain(&mut self, task: &Task, reason: &str) {
        if task.status.error == reason {
            return;
        }
        let mut task = task.clone();
        reason.clone_into(&mut task.status.error);
        let change = StoreChange::SetTask(Box::new(task));
        self.decision.changes.push(change);
        self.moved += 1;
    }
}

fn assigned(task: &Task, node: NodeId, generic: Vec<GenericResource>, now: i64) -> Task {
    let mut task = task.clone();
    task.node = Some(node);
    task.generic_resources = generic;
    task.status.state = TaskState::Assigned;
    task.status.at = now;
    "scheduler assigned task to node".clone_into(&mut task.status.message);
    task.status.error = String::new();
    task
}

/// The task and its endpoints come to the node in one go.
fn tell(tables: &Tables, task: &Task, decision: &mut Decision) {
    let node = task.node.clone().unwrap_or_default();
    for endpoint in task.endpoints.iter().filter_map(|id| tables.endpoint(id)) {
        let mut endpoint = endpoint.clone();
        endpoint.node = node.clone();
        let change = StoreChange::SetEndpoint(Box::new(endpoint));
        decision.changes.push(change);
    }
    let change = StoreChange::SetTask(Box::new(task.clone()));
    decision.changes.push(change);
}
