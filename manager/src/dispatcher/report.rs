//! What a node says of its tasks.

use model::{EndpointState, Node, NodeId, Task, TaskId, TaskState, TaskStatus, node::NodeState};

use crate::{
    allocator,
    store::{StoreChange, Transaction},
};

/// Applies what a node says: of its own tasks, forward only, and only states that are a node's
/// to write; the rest is old news and is ignored. A task that runs enters load balancing, and
/// one that is over gives its addresses back, by the same transaction.
pub fn report(tx: &mut Transaction, node: &NodeId, statuses: Vec<(TaskId, TaskStatus)>) {
    // A word that was long under way does not undo that its node was lost.
    let down = |node: &Node| node.status.state == NodeState::Down;
    let is_down = tx.tables().node(node).is_some_and(down);
    for (id, status) in statuses {
        let Some(task) = tx.tables().work().task(&id) else {
            continue;
        };
        if task.node.as_ref() != Some(node) || !is_news(&task.status, &status) {
            continue;
        }
        let mut task = task.clone();
        task.status = status;
        if task.status.state.is_final() {
            let gone: Vec<StoreChange> = allocator::release(tx.tables(), &task).collect();
            for change in gone {
                tx.push(change);
            }
            task.endpoints = Vec::new();
        } else if is_serving(&task) && !is_down {
            set_endpoints(tx, &task, EndpointState::Active);
        }
        tx.set_task(task);
    }
}

/// A node is down: its tasks leave load balancing everywhere, at once.
pub fn lost(tx: &mut Transaction, node: &NodeId) {
    let tasks: Vec<Task> = tx.tables().work().tasks_at(node).cloned().collect();
    for task in tasks {
        set_endpoints(tx, &task, EndpointState::Draining);
    }
}

/// A node is back: those of its tasks that nobody replaced meanwhile are in load balancing again.
pub fn returned(tx: &mut Transaction, node: &NodeId) {
    let tasks: Vec<Task> = tx.tables().work().tasks_at(node).cloned().collect();
    for task in tasks.iter().filter(|task| is_serving(task)) {
        set_endpoints(tx, task, EndpointState::Active);
    }
}

fn set_endpoints(tx: &mut Transaction, task: &Task, state: EndpointState) {
    for id in &task.endpoints {
        if let Some(endpoint) = tx.tables().endpoint(id)
            && endpoint.state != state
        {
            let mut endpoint = endpoint.clone();
            endpoint.state = state;
            tx.set_endpoint(endpoint);
        }
    }
}

/// Runs, and nobody has asked it to stop.
fn is_serving(task: &Task) -> bool {
    task.status.state == TaskState::Running && task.is_wanted()
}

fn is_news(old: &TaskStatus, new: &TaskStatus) -> bool {
    let assigned = old.state >= TaskState::Assigned && !old.state.is_final();
    let writable = matches!(
        new.state,
        TaskState::Accepted
            | TaskState::Preparing
            | TaskState::Ready
            | TaskState::Starting
            | TaskState::Running
            | TaskState::Complete
            | TaskState::Shutdown
            | TaskState::Failed
            | TaskState::Rejected
    );
    assigned && writable && (new.state > old.state || (new.state == old.state && new != old))
}
