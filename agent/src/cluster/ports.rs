//! Ports across hosts, the agent's side: what a manager asks for is kept, or refused by a sentence.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use manager::{client::Connection, wire::PortOrder};
use model::{NodeId, control::Verb, publish::HeldPort};

use super::ClusterNode;

/// Whoever can keep ports of this host from other programs.
pub trait PortKeeper: Send + Sync + 'static {
    /// All of them or none; one sentence for each that cannot be had.
    fn keep<'a>(&'a self, ports: &'a [HeldPort], time: Duration) -> BoxFuture<'a, Vec<String>>;

    /// Gives up those that are only kept.
    fn release<'a>(&'a self, ports: &'a [HeldPort]) -> BoxFuture<'a, ()>;
}

impl ClusterNode {
    /// Names who keeps this host's ports; the first one stays.
    pub fn serve_ports(&self, keeper: Arc<dyn PortKeeper>) {
        // A second one is a mistake of the daemon's start, and without harm.
        let _ = self.shared.ports.set(keeper);
    }
}

/// Carries out an order, and says how it went.
pub(super) async fn obey(
    connection: Connection,
    node: NodeId,
    keeper: Arc<dyn PortKeeper>,
    order: PortOrder,
) {
    let Some(time) = order.keep else {
        keeper.release(&order.ports).await;
        return;
    };
    let refused = keeper.keep(&order.ports, time).await;
    let verb = Verb::PortsKept {
        node,
        order: order.order,
        refused,
    };
    if let Err(error) = connection.call(&verb).await {
        tracing::debug!(%error, "the word about ports did not reach the manager");
    }
}
