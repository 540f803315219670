//! Raft's state machine: the store in memory, its snapshot on [`Disk`].

use std::{io::Cursor, sync::Arc};

use openraft::{
    Entry, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta,
    StorageError, StorageIOError, StoredMembership, storage::RaftStateMachine,
};
use serde::{Deserialize, Serialize};

use super::{Applied, Disk, DiskError, Peer, TypeConfig};
use crate::store::{Store, Tables, TablesImage};

pub(super) const SNAPSHOT: &str = "snapshot";

#[derive(Serialize, Deserialize)]
pub(super) struct StoredSnapshot {
    pub(super) meta: SnapshotMeta<u64, Peer>,
    /// A [`TablesImage`] as MessagePack.
    pub(super) image: Vec<u8>,
}

/// Applies committed entries to a [`Store`].
pub struct Machine {
    disk: Disk,
    store: Store,
    applied: Option<LogId<u64>>,
    membership: StoredMembership<u64, Peer>,
}

impl Machine {
    /// Starts from the last snapshot on disk; Raft replays what came after.
    pub fn load(disk: Disk, store: Store) -> Result<Self, DiskError> {
        let mut machine = Self {
            disk,
            store,
            applied: None,
            membership: StoredMembership::default(),
        };
        if let Some(stored) = machine.disk.state::<StoredSnapshot>(SNAPSHOT)? {
            machine.take_up(&stored)?;
        }
        Ok(machine)
    }

    fn take_up(&mut self, stored: &StoredSnapshot) -> Result<(), DiskError> {
        let image: TablesImage = rmp_serde::from_slice(&stored.image)
            .map_err(|error| DiskError::Decode(error.to_string()))?;
        self.store.restore(Tables::from(image));
        self.applied = stored.meta.last_log_id;
        self.membership = stored.meta.last_membership.clone();
        Ok(())
    }
}

/// Takes a snapshot of the tables as they were when it was asked for.
pub struct SnapshotBuilder {
    disk: Disk,
    tables: Arc<Tables>,
    applied: Option<LogId<u64>>,
    membership: StoredMembership<u64, Peer>,
}

fn storing(error: DiskError) -> StorageError<u64> {
    StorageIOError::write_state_machine(&error).into()
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError<u64>> {
        let tables = Arc::clone(&self.tables);
        let encoded = tokio::task::spawn_blocking(move || rmp_serde::to_vec_named(&tables.image()));
        let image = encoded
            .await
            .map_err(|error| DiskError::Storage(error.to_string()))
            .and_then(|image| image.map_err(|error| DiskError::Decode(error.to_string())))
            .map_err(storing)?;
        let id = self.applied.map_or_else(
            || "empty".to_owned(),
            |last| format!("{}-{}", last.leader_id, last.index),
        );
        let meta = SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
            snapshot_id: id,
        };
        let stored = StoredSnapshot { meta, image };
        let saved = self.disk.set_state(SNAPSHOT, &stored).await;
        saved.map_err(storing)?;
        Ok(Snapshot {
            meta: stored.meta,
            snapshot: Box::new(Cursor::new(stored.image)),
        })
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<u64>>, StoredMembership<u64, Peer>), StorageError<u64>> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Applied>, StorageError<u64>>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut answers = Vec::new();
        for entry in entries {
            let index = entry.log_id.index;
            let mut overtaken = false;
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(proposal) => overtaken = !self.store.apply(index, proposal),
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                }
            }
            self.applied = Some(entry.log_id);
            answers.push(Applied { index, overtaken });
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            disk: self.disk.clone(),
            tables: self.store.view(),
            applied: self.applied,
            membership: self.membership.clone(),
        }
    }

    async fn begin_receiving_snapshot(
        &mut self,
    ) -> Result<Box<Cursor<Vec<u8>>>, StorageError<u64>> {
        Ok(Box::new(Cursor::new(Vec::new())))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, Peer>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError<u64>> {
        let stored = StoredSnapshot {
            meta: meta.clone(),
            image: snapshot.into_inner(),
        };
        self.take_up(&stored).map_err(storing)?;
        self.disk
            .set_state(SNAPSHOT, &stored)
            .await
            .map_err(storing)
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<Snapshot<TypeConfig>>, StorageError<u64>> {
        let stored: Option<StoredSnapshot> = self.disk.state(SNAPSHOT).map_err(storing)?;
        Ok(stored.map(|stored| Snapshot {
            meta: stored.meta,
            snapshot: Box::new(Cursor::new(stored.image)),
        }))
    }
}
