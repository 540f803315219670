//! What goes through this host's tunnels, told to the manager that asks.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use manager::{client::Connection, wire::TrafficQuestion};
use model::{HostTraffic, NodeId, control::Verb};

use super::{ClusterNode, ports::tell};

/// Whoever counts what goes through this host's tunnels.
pub trait TrafficSource: Send + Sync + 'static {
    /// The latest reading; counts for some seconds because of it, so that the next one tells more.
    fn traffic(&self) -> BoxFuture<'_, HostTraffic>;
}

impl ClusterNode {
    /// Names who counts; the first one stays.
    pub fn serve_traffic(&self, source: Arc<dyn TrafficSource>) {
        // A second one is a mistake of the daemon's start, and without harm.
        let _ = self.shared.traffic.set(source);
    }
}

/// Tells what is counted.
pub(super) async fn answer(
    connection: Connection,
    node: NodeId,
    source: Arc<dyn TrafficSource>,
    question: TrafficQuestion,
) {
    let verb = Verb::TrafficSeen {
        node,
        order: question.order,
        traffic: Box::new(source.traffic().await),
    };
    tell(&connection, &verb).await;
}
