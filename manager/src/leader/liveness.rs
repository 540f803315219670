//! Who is ready and who is down.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use model::{Id, Node, NodeId, Refusal, node::NodeState};
use tokio_util::sync::CancellationToken;

use super::Manager;
use crate::{dispatcher, store::Transaction};

/// Heartbeats that may be missed.
const MISSED: u32 = 3;
/// Nodes that one entry of the log marks down: it must be small enough for the slowest manager.
const AT_ONCE: usize = 50;

pub(super) async fn run(manager: Arc<Manager>, ending: CancellationToken) {
    let mut last = Instant::now();
    let mut before = period(&manager);
    loop {
        let period = period(&manager);
        if let Some(excused) = shortened(before, period) {
            manager.sessions().excuse(excused);
        }
        before = period;
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
        let limit = period * MISSED;
        mark_down(&manager, limit, manager.sessions().silent(now, limit)).await;
    }
}

/// What is excused where the period gets shorter: hosts that beat more seldom until now have done
/// nothing wrong.
fn shortened(before: Duration, period: Duration) -> Option<Duration> {
    let shorter = before.checked_sub(period).filter(|it| !it.is_zero())?;
    Some(shorter * MISSED)
}

pub(super) fn period(manager: &Manager) -> Duration {
    let least = Duration::from_millis(50);
    let view = manager.store().view();
    view.cluster().map_or(Duration::from_secs(1), |record| {
        record.public.spec.heartbeat_period.max(least)
    })
}

/// Several by one transaction: when a network is cut they are many.
async fn mark_down(manager: &Manager, limit: Duration, silent: Vec<NodeId>) {
    let view = manager.store().view();
    let (mut lost, mut unknown) = (Vec::new(), Vec::new());
    for id in silent {
        match view.node(&id) {
            Some(node) if is_down(node) => {}
            Some(_) => lost.push(id),
            None => unknown.push(id),
        }
    }
    for id in &unknown {
        manager.sessions().forget(id);
    }
    for some in lost.chunks(AT_ONCE) {
        let some = some.to_vec();
        let sessions = Arc::clone(manager.sessions());
        let marked = manager.store().update(move |tx| {
            for id in &some {
                // It may have been heard of meanwhile.
                if sessions.is_silent(id, Instant::now(), limit) {
                    sessions.give_up(id);
                    lose(tx, id);
                }
            }
            Ok(())
        });
        if let Err(error) = marked.await {
            tracing::warn!(%error, "nodes could not be marked down; it is tried again");
            return;
        }
    }
}

fn lose(tx: &mut Transaction, id: &NodeId) {
    let Some(node) = tx.tables().node(id) else {
        return;
    };
    let mut node = node.clone();
    let hostname = &node.description.hostname;
    tracing::warn!(node = %id, hostname, "heartbeats are missed: the node is down");
    node.status.state = NodeState::Down;
    "heartbeat failure".clone_into(&mut node.status.message);
    tx.set_node(node);
    dispatcher::lost(tx, id);
}

fn is_down(node: &Node) -> bool {
    node.status.state == NodeState::Down
}

/// A node whose heartbeats were only late is ready again: its session has gone on, so nothing has to be
/// told anew. Were it to come with another session instead, hosts that are late because all are busy
/// would make more of that. Answers whether the node is there.
pub(crate) async fn beats_again(
    manager: &Manager,
    id: &NodeId,
    session: &Id,
) -> Result<bool, Refusal> {
    match manager.store().view().node(id).map(is_down) {
        None => return Ok(false),
        Some(false) => return Ok(true),
        Some(true) => {}
    }
    let (id, session) = (id.clone(), session.clone());
    let sessions = Arc::clone(manager.sessions());
    let set = manager.store().update(move |tx| {
        // It may have left meanwhile.
        let is_present = sessions.is_present(&id, &session);
        let Some(node) = tx.tables().node(&id).filter(|_| is_present) else {
            return Ok(false);
        };
        if is_down(node) {
            let mut node = node.clone();
            tracing::info!(node = %id, hostname = node.description.hostname, "heartbeats are back: the node is ready");
            node.status.state = NodeState::Ready;
            node.status.message = String::new();
            tx.set_node(node);
            dispatcher::returned(tx, &id);
        }
        Ok(true)
    });
    set.await.map(|(is_there, _)| is_there)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatcher::Sessions;

    #[test]
    fn a_shorter_period_marks_nobody_down() {
        let second = Duration::from_secs(1);
        let (now, sessions, node) = (Instant::now(), Sessions::new(), NodeId::from("n1"));
        sessions.expect(&node, now);
        // Just before its next heartbeat by the old period, which is one of five seconds.
        let late = now + 5 * second;
        assert!(sessions.is_silent(&node, late, second * MISSED));
        sessions.excuse(shortened(5 * second, second).unwrap());
        assert!(!sessions.is_silent(&node, late, second * MISSED));
        assert_eq!(shortened(second, second), None);
        assert_eq!(shortened(second, 5 * second), None);
    }
}
