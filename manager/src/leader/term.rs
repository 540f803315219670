//! The loops of the leader: all begin when this manager gains the lead, all have ended before it
//! takes another place.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    Manager, Place, liveness, loops, network_keys::NetworkKeysLoop, roles, rotation::RotationLoop,
};
use crate::{
    allocator::AllocatorLoop,
    dispatcher::OrphansLoop,
    orchestrator::{OrchestratorLoop, handover::HandoverLoop},
    raft::Lead,
    scheduler::SchedulerLoop,
};

/// How long a new leader leaves its hosts to find it, beside the heartbeats they may miss.
const GRACE: Duration = Duration::from_secs(10);
/// Pause before a lead that could not be confirmed is looked at again.
const LOOK: Duration = Duration::from_millis(100);

/// Follows the lead until the manager ends.
pub(super) async fn run(manager: Arc<Manager>) {
    let mut lead = manager.consensus.lead();
    while !manager.ending.is_cancelled() {
        let now = lead.borrow_and_update().clone();
        if !now.leading {
            take(&manager, &now);
            tokio::select! {
                changed = lead.changed() => if changed.is_err() { return },
                () = manager.ending.cancelled() => return,
            }
            continue;
        }
        // Everything that earlier leaders have promised is applied before the first decision.
        match manager.consensus.barrier().await {
            Ok(()) => reign(&manager, &mut lead, now.term).await,
            Err(error) => {
                tracing::debug!(%error, "the lead is not confirmed yet");
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

/// Takes a place that is not the leader's.
fn take(manager: &Manager, lead: &Lead) {
    let leader = lead.leader.as_ref().and_then(|peer| peer.address);
    manager.place.send_modify(|place| {
        *place = match (leader, &*place) {
            (Some(address), _) => Place::Following(address),
            (None, Place::Nobody(since)) => Place::Nobody(*since),
            (None, _) => Place::Nobody(Instant::now()),
        };
    });
}

async fn reign(manager: &Arc<Manager>, lead: &mut watch::Receiver<Lead>, term: u64) {
    let until = manager.ending.child_token();
    let view = manager.store.view();
    let nodes = view.nodes().map(|node| node.id.clone());
    manager.sessions.begin(nodes, Instant::now(), GRACE);
    manager.path_desk.begin();
    let mut tasks = JoinSet::new();
    tasks.spawn(liveness::run(Arc::clone(manager), until.clone()));
    tasks.spawn(roles::run(Arc::clone(manager), until.clone()));
    begin(manager, &mut tasks, &until, OrchestratorLoop::default());
    begin(manager, &mut tasks, &until, AllocatorLoop);
    begin(manager, &mut tasks, &until, SchedulerLoop::default());
    begin(manager, &mut tasks, &until, OrphansLoop);
    begin(manager, &mut tasks, &until, HandoverLoop::default());
    begin(manager, &mut tasks, &until, RotationLoop);
    begin(manager, &mut tasks, &until, NetworkKeysLoop);
    tracing::info!(term, "this manager leads the cluster");
    manager.place.send_replace(Place::Leading(until.clone()));
    tokio::select! {
        _ = lead.wait_for(|lead| !lead.leading || lead.term != term) => {
            tracing::warn!(term, "this manager leads the cluster no longer");
        }
        () = manager.ending.cancelled() => {}
    }
    let now = lead.borrow().clone();
    let follow = Lead {
        leading: false,
        ..now
    };
    take(manager, &follow);
    until.cancel();
    while tasks.join_next().await.is_some() {}
}

fn begin<L: loops::Loop>(
    manager: &Manager,
    tasks: &mut JoinSet<()>,
    until: &CancellationToken,
    looped: L,
) {
    tasks.spawn(loops::run(
        looped,
        manager.store.clone(),
        Arc::clone(&manager.sessions),
        until.clone(),
    ));
}
