//! What a node says of its tasks.

use model::{EndpointState, NodeId, TaskId, TaskState, TaskStatus};

use crate::store::Transaction;

/// Takes over what a node says of its own tasks; statuses only move forward. A task that runs
/// enters load balancing, one that has ended gives its endpoints back, in the same transaction.
pub fn report(tx: &mut Transaction, node: &NodeId, statuses: Vec<(TaskId, TaskStatus)>) {
    for (id, status) in statuses {
        let Some(task) = tx.tables().work().task(&id) else {
            continue;
        };
        let old = &task.status;
        if task.node.as_ref() != Some(node) || status.state < old.state || status == *old {
            continue;
        }
        let (is_final, wanted) = (status.state.is_final(), task.is_wanted());
        if old.state.is_final() {
            continue;
        }
        let (state, mut task) = (status.state, task.clone());
        task.status = status;
        for endpoint in &task.endpoints {
            let Some(endpoint) = tx.tables().endpoint(endpoint) else {
                continue;
            };
            if is_final {
                let id = endpoint.id.clone();
                tx.remove_endpoint(&id);
            } else if state == TaskState::Running
                && wanted
                && endpoint.state < EndpointState::Active
            {
                let mut endpoint = endpoint.clone();
                endpoint.state = EndpointState::Active;
                tx.set_endpoint(endpoint);
            }
        }
        tx.set_task(task);
    }
}
