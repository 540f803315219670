//! Tasks whose node has been gone for so long that nobody waits for it any more.

use model::{TaskState, node::NodeState};

use crate::{
    allocator,
    decision::Decision,
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
