//! Ports across hosts, the agent's side: what a manager asks for is kept, or refused by a sentence.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use manager::{
    client::Connection,
    wire::{PortOrder, PortQuestion},
};
use model::{
    NodeId,
    control::Verb,
    publish::{HeldPort, PortSight},
};

use super::ClusterNode;

/// Whoever can keep ports of this host from other programs.
pub trait PortKeeper: Send + Sync + 'static {
    /// All of them or none; one sentence for each that cannot be had.
    fn keep<'a>(&'a self, ports: &'a [HeldPort], time: Duration) -> BoxFuture<'a, Vec<String>>;

    /// Gives up those that are only kept.
    fn release<'a>(&'a self, ports: &'a [HeldPort]) -> BoxFuture<'a, ()>;

    /// What this host sees of each; nothing if it cannot look.
    fn look<'a>(&'a self, ports: &'a [HeldPort]) -> BoxFuture<'a, Vec<PortSight>>;
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
    tell(&connection, &verb).await;
}

/// Looks at ports, and says what is seen.
pub(super) async fn answer(
    connection: Connection,
    node: NodeId,
    keeper: Arc<dyn PortKeeper>,
    question: PortQuestion,
) {
    let sights = keeper.look(&question.ports).await;
    let verb = Verb::PortsSeen {
        node,
        order: question.order,
        sights,
    };
    tell(&connection, &verb).await;
}

/// Answers a manager's question; whoever asked waits no longer than a moment anyway.
pub(super) async fn tell(connection: &Connection, verb: &Verb) {
    if let Err(error) = connection.call(verb).await {
        tracing::debug!(%error, "an answer did not reach the manager");
    }
}
