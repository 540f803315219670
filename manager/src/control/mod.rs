//! The verbs: checked against a snapshot, carried out as one transaction. Pure but for the
//! identifiers, which are random.

mod attach;
mod check;
mod encryption;
mod network;
mod node;
mod payload;
mod ports;
mod service;
mod sheet;
mod task;
#[cfg(test)]
mod tests;

pub use attach::{Attempt, attach, detach, endpoint_advance, endpoint_name};
pub(crate) use encryption::check_newcomer;
pub use network::{find_network, is_emptying, network_create, network_remove};
pub(crate) use node::newcomer;
pub use node::{admit, cluster_update, find_node, node_remove, node_update};
pub use sheet::task_sheet;

pub use payload::{find_payload, payload_create, payload_remove, payload_update, shown};
pub use service::{
    draft, find_service, service_create, service_remove, service_status, service_update,
};
pub use task::find_task;

use model::{Id, Refusal};
use rand::Rng as _;

pub(crate) fn new_id() -> Id {
    Id::from_random(rand::rng().random())
}

/// Refuses an update that was made from another version than the current one.
fn in_sequence(seen: u64, current: u64) -> Result<(), Refusal> {
    if seen == current {
        return Ok(());
    }
    Err(Refusal::out_of_sequence(format!(
        "update out of sequence: version {seen} was seen, {current} is current; read the object again"
    )))
}
