//! This node's manager: begun when the node's role says so, ended when it says so no longer.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use manager::leader::{Manager, Start};
use model::{cluster::DEFAULT_MANAGER_PORT, control::ClusterEvent, node::Role};
use tokio::sync::broadcast;

use super::{
    Standing,
    files::Membership,
    lock,
    member::{Member, Shared},
};
use crate::clock;

/// How often a manager that could not be opened is tried again.
const OPEN_AGAIN: Duration = Duration::from_secs(2);
/// How long the leader may say that a manager has no part in consensus before it believes so and
/// joins anew: a moment behind is no sign of an old disk.
const STRANGE_FOR: Duration = Duration::from_secs(5);

/// Follows the node's role until the membership stops.
pub(super) async fn run(shared: Arc<Shared>, member: Arc<Member>) {
    let mut role = member.role();
    loop {
        let now = *role.borrow_and_update();
        let lasts = async {
            // The sender lives in the member.
            let _ = role.wait_for(|role| *role != now).await;
        };
        match now {
            Role::Worker => {
                discard(&shared);
                lasts.await;
            }
            Role::Manager => {
                tokio::select! {
                    () = serve(&shared, &member) => {}
                    () = lasts => {}
                }
                if let Some(manager) = member.set_manager(None) {
                    manager.shutdown().await;
                }
            }
        }
    }
}

/// What a manager leaves behind when the node is a worker: nothing.
fn discard(shared: &Shared) {
    let folder = shared.folder.manager();
    // What was put aside, if anything.
    let _ = std::fs::remove_dir_all(folder.with_extension("damaged"));
    match std::fs::remove_dir_all(&folder) {
        Ok(()) => tracing::info!("this node is a worker now; the cluster's state is deleted here"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!("{} cannot be deleted: {error}", folder.display()),
    }
}

/// Serves as a manager; returns when it has to begin anew.
async fn serve(shared: &Arc<Shared>, member: &Arc<Member>) {
    let manager = opened(shared, member).await;
    let mut advertised = member.advertised();
    let moved = async {
        let known = manager.advertise_address().ip();
        // The sender lives in the member.
        let _ = advertised.wait_for(|address| *address != known).await;
    };
    tokio::select! {
        () = forward(manager.events(), shared.events.clone()) => {}
        () = lock::follow(shared, member, &manager) => {}
        () = estranged(member) => {
            tracing::error!("the other managers do not know this one any more: its state is old; it is deleted here and fetched anew");
            close(shared, member).await;
            discard(shared);
        }
        () = moved => {
            tracing::info!("this manager is opened again at the host's new address");
            close(shared, member).await;
        }
        reason = manager.until_stopped() => {
            tracing::error!(%reason, "consensus has stopped; this manager is opened again");
            close(shared, member).await;
            shared.trouble(&format!("this manager has stopped: {reason}"));
            tokio::time::sleep(OPEN_AGAIN).await;
            set_aside(shared, member).await;
        }
    }
}

async fn close(shared: &Shared, member: &Member) {
    shared.change(|state| state.serves = false);
    if let Some(manager) = member.set_manager(None) {
        manager.shutdown().await;
    }
}

/// Puts a damaged state aside where other managers have it whole; whether that was so.
async fn set_aside(shared: &Shared, member: &Member) -> bool {
    if member.others().is_empty() {
        return false;
    }
    let folder = shared.folder.manager();
    let unlock_key = member.unlock_key();
    let damage = Manager::examine(&folder, &member.identity, unlock_key.as_ref()).await;
    let Some(damage) = damage else {
        return false;
    };
    let aside = folder.with_extension("damaged");
    // One is enough to look into.
    let _ = std::fs::remove_dir_all(&aside);
    match std::fs::rename(&folder, &aside) {
        Ok(()) => {
            let aside = aside.display();
            tracing::error!(
                "the cluster's state is damaged here: {damage}; it is put aside as {aside} and fetched anew from the other managers"
            );
            true
        }
        Err(error) => {
            shared.trouble(&format!(
                "the cluster's state in {} is damaged ({damage}) and cannot be put aside: {error}",
                folder.display()
            ));
            false
        }
    }
}

/// Returns when the leader has said for a while that this manager has no part in consensus.
async fn estranged(member: &Member) {
    let mut told = member.told();
    loop {
        let strange = told.wait_for(|told| told.role == Role::Manager && !told.part);
        if strange.await.is_err() {
            return std::future::pending().await;
        }
        let again = told.wait_for(|told| told.part || told.role == Role::Worker);
        if tokio::time::timeout(STRANGE_FOR, again).await.is_err() {
            return;
        }
    }
}

/// The manager of this node; opened again and again if something (a taken port, for example)
/// is in its way.
async fn opened(shared: &Shared, member: &Member) -> Arc<Manager> {
    loop {
        if let Some(manager) = member.manager() {
            return manager;
        }
        match Manager::start(&shared.folder.manager(), start(member)).await {
            Ok(manager) => {
                member.set_manager(Some(Arc::clone(&manager)));
                member.bound(shared, manager.listen_address());
                shared.change(|state| {
                    if state.state == Standing::Error {
                        state.state = Standing::Pending;
                    }
                    state.error.clear();
                    state.serves = true;
                });
                return manager;
            }
            Err(refusal) => {
                shared.trouble(&refusal.message);
                if set_aside(shared, member).await {
                    continue;
                }
            }
        }
        tokio::time::sleep(OPEN_AGAIN).await;
    }
}

fn start(member: &Member) -> Start {
    let membership = member.membership();
    Start {
        identity: Arc::clone(&member.identity),
        unlock_key: member.unlock_key(),
        listen: listen(&membership),
        advertise: advertise(&membership),
        remotes: member.others(),
    }
}

fn listen(membership: &Membership) -> SocketAddr {
    membership
        .listen
        .unwrap_or_else(|| ([0, 0, 0, 0], DEFAULT_MANAGER_PORT).into())
}

/// What the other managers are told; port 0: the one that will be bound.
pub(super) fn advertise(membership: &Membership) -> SocketAddr {
    let port = membership.advertise_port;
    let port = port.unwrap_or_else(|| listen(membership).port());
    (membership.advertise, port).into()
}

async fn forward(mut from: broadcast::Receiver<ClusterEvent>, to: broadcast::Sender<ClusterEvent>) {
    loop {
        match from.recv().await {
            Ok(event) => {
                // Nobody listening is fine.
                let _ = to.send(event);
            }
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::warn!("{missed} events of the cluster were missed");
                let _ = to.send(ClusterEvent::missed(missed, clock::now_nanos()));
            }
            Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
        }
    }
}
