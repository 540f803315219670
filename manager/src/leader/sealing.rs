//! Which key a manager's own key and its log are to be sealed under.

use std::{sync::Arc, time::Duration};

use model::{
    Refusal,
    control::{Answer, Verb},
};

use super::{Manager, wrapping_key};
use crate::{
    store::Watched,
    unlock::UnlockKey,
    wire::{ManagerAnswer, ManagerAsk},
};

/// How soon the leader is asked again when it did not answer.
const AGAIN: Duration = Duration::from_secs(1);

impl Manager {
    /// Waits until the cluster's unlock key is another than the one given, and answers it; none
    /// while autolock is off.
    ///
    /// This manager's own state is the occasion to look and no more: after a start it passes
    /// through its past, with keys that hold no longer, and with none. What holds the leader says.
    pub async fn other_unlock_key(&self, known: Option<&UnlockKey>) -> Option<UnlockKey> {
        let (mut tables, mut watch) = self.store.view_and_watch();
        loop {
            let mut ask_again = false;
            // A manager that has nothing of the state yet knows nothing.
            if let Some(record) = tables.cluster()
                && record.unlock_key.as_ref() != known
            {
                match self.leaders_unlock_key().await {
                    Some(key) if key.as_ref() != known => return key,
                    Some(_) => {}
                    None => ask_again = true,
                }
            }
            let watched = tokio::select! {
                watched = watch.next() => watched,
                () = tokio::time::sleep(AGAIN), if ask_again => continue,
            };
            tables = match watched {
                Watched::StartOver(tables) => tables,
                Watched::Commit(commit) => Arc::clone(&commit.tables),
            };
        }
    }

    /// Makes the log open under this unlock key, too: before the private key is sealed under it.
    pub async fn expect_unlock_key(&self, key: Option<&UnlockKey>) -> Result<(), Refusal> {
        let key = wrapping_key(&self.identity, key);
        let added = self.consensus.add_key(&key).await;
        added.map_err(|error| Refusal::internal(error.to_string()))
    }

    /// The log opens under this unlock key only, and gets another data key: after the private key
    /// was sealed under it.
    pub async fn settle_unlock_key(&self, key: Option<&UnlockKey>) -> Result<(), Refusal> {
        let key = wrapping_key(&self.identity, key);
        let internal = |error: &dyn std::fmt::Display| Refusal::internal(error.to_string());
        let rotated = self.consensus.rotate(&key).await;
        rotated.map_err(|error| internal(&error))?;
        // What the log has so far is soon under the new key, and gone from where it was.
        let taken = self.consensus.snapshot().await;
        taken.map_err(|error| internal(&error))
    }

    /// Absent where no leader answers.
    async fn leaders_unlock_key(&self) -> Option<Option<UnlockKey>> {
        let ask = ManagerAsk::Verb {
            caller: self.identity.current().member().clone(),
            verb: Box::new(Verb::UnlockKey),
        };
        let ManagerAnswer::Verb(answer) = self.ask_leader(ask).await.ok()? else {
            return None;
        };
        let Answer::UnlockKey(text) = *answer else {
            return None;
        };
        if text.0.is_empty() {
            return Some(None);
        }
        let text = String::from_utf8(text.0).ok()?;
        UnlockKey::parse(&text).ok().map(Some)
    }
}
