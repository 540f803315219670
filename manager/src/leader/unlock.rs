//! Which key the managers' own keys are to be sealed under.

use std::{sync::Arc, time::Duration};

use model::control::{Answer, Verb};

use super::Manager;
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
