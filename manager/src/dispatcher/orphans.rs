//! Tasks whose node has been gone for so long that nobody waits for it any more.

use model::{TaskState, node::NodeState};

use super::Sessions;
use crate::{
    allocator,
    decision::Decision,
    leader::loops::Loop,
    store::{StoreChange, Tables},
};

/// How long a node may be down before its tasks are given up, nanoseconds.
const PATIENCE: i64 = 24 * 3600 * 1_000_000_000;

/// Gives up the tasks of nodes that have been down for a day; their addresses go to rest.
/// When a node went down is when it was written last.
pub fn orphans(tables: &Tables, now: i64) -> Decision {
    let mut decision = Decision::default();
    for node in tables.nodes() {
        if node.status.state != NodeState::Down {
            continue;
        }
        let mut held = tables
            .work()
            .tasks_at(&node.id)
            .filter(|task| !task.status.state.is_final())
            .peekable();
        if held.peek().is_none() {
            continue;
        }
        let end = node.meta.updated_at.saturating_add(PATIENCE);
        if now < end {
            decision.look_at(end);
            continue;
        }
        for task in held {
            decision.changes.extend(allocator::release(tables, task));
            let mut task = task.clone();
            task.endpoints = Vec::new();
            task.status.state = TaskState::Orphaned;
            task.status.at = now;
            "task was on a node that has been down for a day".clone_into(&mut task.status.message);
            decision.changes.push(StoreChange::SetTask(Box::new(task)));
        }
    }
    decision
}

/// Giving up as a loop of the leader.
#[derive(Default)]
pub(crate) struct OrphansLoop;

impl Loop for OrphansLoop {
    fn name(&self) -> &'static str {
        "orphans"
    }

    fn start_over(&mut self, _: &Tables) {}

    fn note(&mut self, _: &Tables, change: &StoreChange) -> bool {
        matches!(change, StoreChange::SetNode(node) if node.status.state == NodeState::Down)
    }

    fn decide(&mut self, tables: &Tables, _: &Sessions, now: i64) -> Decision {
        orphans(tables, now)
    }
}
