//! Who is ready and who is down.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use model::{NodeId, node::NodeState};
use tokio_util::sync::CancellationToken;

use super::Manager;
use crate::dispatcher;

/// Heartbeats that may be missed.
const MISSED: u32 = 3;

pub(super) async fn run(manager: Arc<Manager>, ending: CancellationToken) {
    let mut last = Instant::now();
    loop {
        let period = period(&manager);
        let tick = period / 4;
        tokio::select! {
            () = tokio::time::sleep(tick) => {}
            () = ending.cancelled() => return,
        }
        let now = Instant::now();
        let lateness = now.saturating_duration_since(last).saturating_sub(tick);
        last = now;
        if lateness > period / 2 {
            tracing::warn!(
                ?lateness,
                "this manager was late itself; its hosts are excused"
            );
            manager.sessions().excuse(lateness);
        }
        for node in manager.sessions().silent(now, period * MISSED) {
            mark_down(&manager, node).await;
        }
    }
}

pub(super) fn period(manager: &Manager) -> Duration {
    let least = Duration::from_millis(50);
    let view = manager.store().view();
    view.cluster().map_or(Duration::from_secs(1), |record| {
        record.public.spec.heartbeat_period.max(least)
    })
}

async fn mark_down(manager: &Manager, id: NodeId) {
    let view = manager.store().view();
    let Some(node) = view.node(&id) else {
        manager.sessions().forget(&id);
        return;
    };
    if node.status.state == NodeState::Down {
        return;
    }
    tracing::warn!(node = %id, hostname = node.description.hostname, "heartbeats are missed: the node is down");
    let marked = manager
        .store()
        .update(move |tx| {
            if let Some(node) = tx.tables().node(&id) {
                let mut node = node.clone();
                node.status.state = NodeState::Down;
                "heartbeat failure".clone_into(&mut node.status.message);
                tx.set_node(node);
                dispatcher::lost(tx, &id);
            }
            Ok(())
        })
        .await;
    if let Err(error) = marked {
        tracing::warn!(%error, "a node could not be marked down; it is tried again");
    }
}
