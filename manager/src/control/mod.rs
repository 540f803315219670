//! The verbs: checked against a snapshot, carried out as one transaction. Pure but for the
//! identifiers, which are random.

mod attach;
mod network;
mod node;
mod sheet;

pub use attach::{Attempt, attach, detach, endpoint_advance};
pub use network::{find_network, network_create, network_remove};
pub use node::{admit, cluster_update, find_node, node_remove, node_update};
pub use sheet::task_sheet;

use model::Id;
use rand::Rng as _;

pub(crate) fn new_id() -> Id {
    Id::from_random(rand::rng().random())
}
