//! What goes through the tunnels of all hosts: they are asked, over their sessions.

use model::{HostTraffic, NodeId};

use super::desk::{Order, Word};
use crate::{control, leader::Manager, wire::TrafficQuestion};

impl Manager {
    /// What every host with a session has counted; whoever does not answer in time is left out.
    pub(crate) async fn traffic_list(&self) -> Vec<(NodeId, HostTraffic)> {
        let order = control::new_id();
        let view = self.store().view();
        let count = |node: &model::Node| {
            let order = order.clone();
            (node.id.clone(), Order::Count(TrafficQuestion { order }))
        };
        let orders = view.nodes().map(count).collect();
        let mut counted = Vec::new();
        let hear = |node, word| {
            if let Word::Counted(traffic) = word {
                counted.push((node, traffic));
            }
        };
        self.desk().ask(orders, &order, hear).await;
        counted
    }
}
