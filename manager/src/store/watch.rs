//! Watching the store: a snapshot and every later commit, or the word to start over.

use std::sync::Arc;

use tokio::sync::broadcast::{self, error::RecvError};

use super::{Store, StoreChange, Tables};

/// One committed entry and the state after it.
#[derive(Debug)]
pub struct Commit {
    pub index: u64,
    pub changes: Vec<StoreChange>,
    pub tables: Arc<Tables>,
    restored: bool,
}

impl Commit {
    pub(super) fn new(index: u64, changes: Vec<StoreChange>, tables: Arc<Tables>) -> Self {
        Self {
            index,
            changes,
            tables,
            restored: false,
        }
    }

    pub(super) fn restored(tables: Arc<Tables>) -> Self {
        Self {
            index: tables.index(),
            changes: Vec::new(),
            tables,
            restored: true,
        }
    }
}

/// What a watcher is told.
#[derive(Debug)]
pub enum Watched {
    Commit(Arc<Commit>),
    /// The watcher lagged or the store was restored: this is the state to go on from.
    StartOver(Arc<Tables>),
}

/// See [`Store::view_and_watch`].
pub struct Watch {
    store: Store,
    receiver: broadcast::Receiver<Arc<Commit>>,
}

impl Watch {
    pub(super) fn new(store: Store, receiver: broadcast::Receiver<Arc<Commit>>) -> Self {
        Self { store, receiver }
    }

    /// Waits for the next commit.
    pub async fn next(&mut self) -> Watched {
        match self.receiver.recv().await {
            Ok(commit) if !commit.restored => Watched::Commit(commit),
            Ok(commit) => Watched::StartOver(Arc::clone(&commit.tables)),
            // `self.store` keeps a sender, so the channel cannot be closed.
            Err(RecvError::Lagged(_) | RecvError::Closed) => {
                let (tables, again) = self.store.view_and_watch();
                *self = again;
                Watched::StartOver(tables)
            }
        }
    }
}
