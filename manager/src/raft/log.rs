//! openraft's log on [`Disk`].

use std::{fmt::Debug, ops::RangeBounds};

use openraft::{
    Entry, LogId, LogState, OptionalSend, RaftLogReader, StorageError, StorageIOError, Vote,
    storage::{LogFlushed, RaftLogStorage},
};

use super::{Disk, DiskError, TypeConfig, positions};

pub(super) const VOTE: &str = "vote";
pub(super) const PURGED: &str = "purged";

/// The log; clones read the same file.
#[derive(Clone)]
pub struct LogStore {
    disk: Disk,
}

impl LogStore {
    pub fn new(disk: Disk) -> Self {
        Self { disk }
    }
}

pub(super) fn reading(error: DiskError) -> StorageError<u64> {
    StorageIOError::read_logs(&error).into()
}

fn writing(error: DiskError) -> StorageError<u64> {
    StorageIOError::write_logs(&error).into()
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<TypeConfig>>, StorageError<u64>> {
        self.disk.entries(range).map_err(reading)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError<u64>> {
        let purged: Option<LogId<u64>> = self.disk.state(PURGED).map_err(reading)?;
        let last: Option<Entry<TypeConfig>> = self.disk.last_entry().map_err(reading)?;
        Ok(LogState {
            last_purged_log_id: purged,
            last_log_id: last.map(|entry| entry.log_id).or(purged),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), StorageError<u64>> {
        let saved = self.disk.set_state(VOTE, vote).await;
        saved.map_err(|error| StorageIOError::write_vote(&error).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, StorageError<u64>> {
        let vote = self.disk.state(VOTE);
        vote.map_err(|error| StorageIOError::read_vote(&error).into())
    }

    /// What is applied at the start, before anybody is heard: all managers know how far each log is
    /// committed, this one its own, too.
    async fn read_committed(&mut self) -> Result<Option<LogId<u64>>, StorageError<u64>> {
        let known = positions::read(&self.disk).map_err(reading)?;
        Ok(known.get(&self.disk.raft_id()).copied())
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<TypeConfig>,
    ) -> Result<(), StorageError<u64>>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries
            .into_iter()
            .map(|entry| (entry.log_id.index, entry))
            .collect();
        self.disk.append(entries).await.map_err(writing)?;
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId<u64>) -> Result<(), StorageError<u64>> {
        self.disk.truncate(log_id.index).await.map_err(writing)
    }

    async fn purge(&mut self, log_id: LogId<u64>) -> Result<(), StorageError<u64>> {
        let purged = self.disk.purge(log_id.index, PURGED, &log_id).await;
        purged.map_err(writing)
    }
}
