//! Autolock: a manager's own key is sealed on its disk while the cluster says so, and a manager
//! that finds it sealed at its start waits for the unlock key.

use std::{sync::Arc, time::Duration};

use manager::{leader::Manager, tls::LiveIdentity, unlock::UnlockKey};
use model::{Refusal, node::Role};

use super::{
    ClusterNode, LocalState, SESSION_LIMIT, Standing,
    files::{LockedIdentity, Membership},
    ledger,
    member::{Member, Shared},
};

/// Docker's sentence.
const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it.";
/// The same for `swarm leave`.
pub(super) const LEAVE_LOCKED: &str = "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message.";
/// Pause before a key that could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// A membership that waits for the unlock key.
pub(super) struct Locked {
    membership: Membership,
    identity: LockedIdentity,
}

impl Locked {
    /// What a host goes on with meanwhile: its containers and networks as they were told last,
    /// without what is secret.
    pub(super) fn begin(shared: &Shared, membership: Membership, identity: LockedIdentity) -> Self {
        tracing::warn!("this manager is locked: it waits for `ovnctl swarm unlock`");
        shared.state.send_replace(LocalState {
            state: Standing::Locked,
            node_id: membership.node_id.clone(),
            role: Some(Role::Manager),
            error: LOCKED.to_owned(),
            address: Some(membership.advertise),
            data_path: Some(membership.data_path),
            managers: membership.managers.clone(),
            cluster_id: Some(membership.cluster_id.clone()),
            root_ca_pem: identity.root_pem().to_owned(),
            serves: false,
        });
        if let Some(open) = ledger::read_open(&shared.folder.open_ledger()) {
            shared.feed.replace(open);
        }
        Self {
            membership,
            identity,
        }
    }
}

/// Keeps the private key on disk sealed as the cluster says, for as long as the manager runs.
pub(super) async fn follow(shared: &Shared, member: &Member, manager: &Manager) {
    loop {
        let wanted = manager.other_unlock_key(member.unlock_key().as_ref()).await;
        let locked = wanted.is_some();
        match change(shared, member, manager, wanted).await {
            Ok(()) if locked => tracing::info!(
                "this manager's key is sealed: after a restart it waits for the unlock key"
            ),
            Ok(()) => tracing::info!("this manager's key is not sealed any more"),
            Err(error) => {
                tracing::error!(
                    "this manager's key cannot be sealed as the cluster says: {error:#}"
                );
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// At any moment the disk opens under the key that the private key is sealed under.
async fn change(
    shared: &Shared,
    member: &Member,
    manager: &Manager,
    wanted: Option<UnlockKey>,
) -> anyhow::Result<()> {
    manager.expect_unlock_key(wanted.as_ref()).await?;
    member.lock_with(shared, wanted.clone())?;
    // If this fails, the next start completes it.
    manager.settle_unlock_key(wanted.as_ref()).await?;
    Ok(())
}

impl ClusterNode {
    /// Docker's answer where the manager of this host is locked.
    pub(super) fn refuse_locked(&self) -> Result<(), Refusal> {
        if self.is_locked() {
            return Err(Refusal::unavailable(LOCKED));
        }
        Ok(())
    }

    pub fn is_locked(&self) -> bool {
        self.shared.state.borrow().state == Standing::Locked
    }

    /// Takes up a membership whose key is sealed. Returns once the manager runs; whether the
    /// others are there is another question.
    pub async fn unlock(&self, key: &str) -> Result<(), Refusal> {
        let _turn = self.turn.lock().await;
        let mut locked = self.locked.lock().await;
        let Some(found) = locked.as_ref() else {
            return Err(Refusal::conflict(if self.member.load().is_some() {
                "swarm is not locked"
            } else {
                "This node is not part of a swarm"
            }));
        };
        let key = UnlockKey::parse(key)?;
        let identity = found.identity.open(&key).map_err(|_| {
            Refusal::unauthorized("swarm could not be unlocked: invalid key provided")
        })?;
        let live =
            LiveIdentity::new(identity).map_err(|error| Refusal::internal(error.to_string()))?;
        let membership = found.membership.clone();
        let member = Member::start(&self.shared, membership, live, None, Some(key));
        self.member.store(Some(Arc::clone(&member)));
        *locked = None;
        let mut state = self.shared.state.subscribe();
        let serves = state.wait_for(|state| state.serves || state.role == Some(Role::Worker));
        if tokio::time::timeout(SESSION_LIMIT, serves).await.is_ok() {
            return Ok(());
        }
        let error = self.shared.state.borrow().error.clone();
        Err(Refusal::unavailable(format!(
            "the key is right and this manager is unlocked, but it does not run yet; it is tried again and again. {error}"
        )))
    }
}
