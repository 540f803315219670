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
/// Pause before a key that could not be written is tried again; doubled with each failure.
const AGAIN: Duration = Duration::from_secs(2);
/// How often it is doubled at most: to about a minute.
const DOUBLED: u32 = 5;

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
    let mut failures = 0;
    // The private key is sealed as it should be, and the log still opens under the key of before.
    let mut unsettled = false;
    loop {
        let known = member.unlock_key();
        let other = manager.other_unlock_key(known.as_ref());
        let wanted = if unsettled {
            tokio::time::timeout(pause(failures), other).await.ok()
        } else {
            Some(other.await)
        };
        if let Some(wanted) = wanted {
            if let Err(error) = change(shared, member, manager, wanted).await {
                failures += 1;
                tracing::error!(
                    "this manager's key cannot be sealed as the cluster says: {error:#}"
                );
                tokio::time::sleep(pause(failures)).await;
                continue;
            }
            unsettled = true;
        }
        let sealed_under = member.unlock_key();
        if let Err(error) = manager.settle_unlock_key(sealed_under.as_ref()).await {
            failures += 1;
            tracing::error!(
                "this manager's log still opens under the key of before, which is tried again: {error}"
            );
            continue;
        }
        (failures, unsettled) = (0, false);
        if sealed_under.is_some() {
            tracing::info!(
                "this manager's key is sealed: after a restart it waits for the unlock key"
            );
        } else {
            tracing::info!("this manager's key is not sealed any more");
        }
    }
}

/// Until the next attempt, after so many that failed.
fn pause(failures: u32) -> Duration {
    AGAIN * (1 << failures.saturating_sub(1).min(DOUBLED))
}

/// Seals the private key under another key, or under none. At any moment the disk opens under the
/// key that the private key is sealed under. The log is to be settled afterwards; if the daemon
/// ends before, its next start does it.
async fn change(
    shared: &Shared,
    member: &Member,
    manager: &Manager,
    wanted: Option<UnlockKey>,
) -> anyhow::Result<()> {
    manager.expect_unlock_key(wanted.as_ref()).await?;
    member.lock_with(shared, wanted)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_further_and_further_apart() {
        let seconds = [1, 2, 3, 6, 7, u32::MAX].map(|failures| pause(failures).as_secs());
        assert_eq!(seconds, [2, 4, 8, 64, 64, 64]);
    }
}
