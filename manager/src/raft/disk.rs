//! The file of the log: redb with three tables, every value but the wrapped data keys sealed.

use std::{io::ErrorKind, path::Path, sync::Arc};

use arc_swap::{ArcSwap, ArcSwapOption};
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
    TableError,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{SealError, WrappingKey, keys::Keys};

/// Entries by index.
const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
/// Vote, purge mark, snapshot and this voter's number, by name.
const STATE: TableDefinition<&str, &[u8]> = TableDefinition::new("state");
/// The data key, wrapped; two of them while the key that it is wrapped under is being replaced.
const KEYS: TableDefinition<u64, &[u8]> = TableDefinition::new("keys");
/// Data keys of before, sealed under the present one, until nothing needs them.
const OLDER: TableDefinition<u64, &[u8]> = TableDefinition::new("older keys");

const RAFT_ID: &str = "raft id";

/// Why the log could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("the cluster's log {path} cannot be opened: {reason}")]
    Open { path: String, reason: String },
    #[error("the cluster's log cannot be read or written: {0}")]
    Storage(String),
    #[error("the cluster's log is damaged: {0}")]
    Damaged(String),
    #[error("the cluster's log holds a record that is none: {0}")]
    Decode(String),
    #[error("the cluster's log: {0}")]
    Seal(#[from] SealError),
}

impl DiskError {
    fn storage(error: impl Into<redb::Error>) -> Self {
        match error.into() {
            redb::Error::Corrupted(what) => Self::Damaged(what),
            other => Self::Storage(other.to_string()),
        }
    }

    fn opening(path: &Path, error: DatabaseError) -> Self {
        match error {
            DatabaseError::Storage(StorageError::Corrupted(what)) => Self::Damaged(what),
            DatabaseError::Storage(StorageError::Io(error))
                if matches!(
                    error.kind(),
                    ErrorKind::InvalidData | ErrorKind::UnexpectedEof
                ) =>
            {
                Self::Damaged(error.to_string())
            }
            DatabaseError::RepairAborted | DatabaseError::UpgradeRequired(_) => {
                Self::Damaged(error.to_string())
            }
            other => Self::Open {
                path: path.display().to_string(),
                reason: other.to_string(),
            },
        }
    }

    /// Whether what is on disk is not what was written: trying again is of no use.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Damaged(_) | Self::Decode(_) | Self::Seal(_) => true,
            Self::Open { .. } | Self::Storage(_) => false,
        }
    }
}

/// Shared handle to the file.
#[derive(Clone)]
pub struct Disk {
    inner: Arc<Inner>,
}

struct Inner {
    /// Absent once closed: the file's lock goes with it, whoever still has a handle.
    database: ArcSwapOption<Database>,
    keys: ArcSwap<Keys>,
    raft_id: u64,
}

impl Disk {
    pub async fn create(path: &Path, key: &WrappingKey, raft_id: u64) -> Result<Self, DiskError> {
        let (data_key, wrapped) = key.generate()?;
        let path = path.to_owned();
        blocking(move || {
            let database = Database::create(&path).map_err(|error| DiskError::Open {
                path: path.display().to_string(),
                reason: error.to_string(),
            })?;
            restrict(&path)?;
            let disk = Self {
                inner: Arc::new(Inner {
                    database: ArcSwapOption::from_pointee(database),
                    keys: ArcSwap::from_pointee(Keys::new(data_key)),
                    raft_id,
                }),
            };
            let id = disk.encode(RAFT_ID, &raft_id)?;
            disk.write(|batch| {
                let mut keys = batch.open_table(KEYS)?;
                keys.insert(0, wrapped.as_slice())?;
                batch.open_table(LOG)?;
                batch.open_table(STATE)?.insert(RAFT_ID, id.as_slice())?;
                Ok(())
            })?;
            Ok(disk)
        })
        .await
    }

    pub async fn open(path: &Path, key: &WrappingKey) -> Result<Self, DiskError> {
        let file = path.to_owned();
        let (database, wraps, older) = blocking(move || {
            let database =
                Database::open(&file).map_err(|error| DiskError::opening(&file, error))?;
            let reading = database.begin_read().map_err(DiskError::storage)?;
            let wraps = rows(&reading.open_table(KEYS).map_err(DiskError::storage)?)?;
            let older = match reading.open_table(OLDER) {
                Ok(older) => rows(&older)?,
                Err(TableError::TableDoesNotExist(_)) => Vec::new(),
                Err(error) => return Err(DiskError::storage(error)),
            };
            Ok((database, wraps, older))
        })
        .await?;
        let data_key = wraps
            .iter()
            .find_map(|wrap| key.unwrap(wrap).ok())
            .ok_or_else(|| DiskError::Open {
                path: path.display().to_string(),
                reason: "it is encrypted under another key than this node's".to_owned(),
            })?;
        let mut keys = Keys::new(data_key);
        for sealed in &older {
            keys.add_older(sealed)?;
        }
        let mut inner = Inner {
            database: ArcSwapOption::from_pointee(database),
            keys: ArcSwap::from_pointee(keys),
            raft_id: 0,
        };
        let sealed = inner
            .read_sealed(RAFT_ID)?
            .ok_or_else(|| DiskError::Decode("the voter's number is missing".to_owned()))?;
        inner.raft_id = decode(&inner.keys.load().open(RAFT_ID, &sealed)?)?;
        let disk = Self {
            inner: Arc::new(inner),
        };
        // A change of keys was broken off, or what it left is done away with now that nobody
        // writes.
        if wraps.len() > 1 {
            disk.rotate(key).await?;
        }
        if disk.inner.keys.load().has_older() {
            disk.in_background(Self::renew).await?;
        }
        Ok(disk)
    }

    /// Lets go of the file; later reads and writes fail.
    pub fn close(&self) {
        self.inner.database.store(None);
    }

    /// This manager's number among the voters.
    pub fn raft_id(&self) -> u64 {
        self.inner.raft_id
    }

    /// Makes the log open under this key, too. Nothing changes where it does already: what is
    /// tried again and again does not pile up.
    pub async fn add_key(&self, key: &WrappingKey) -> Result<(), DiskError> {
        let wraps = self.in_background(Self::wraps).await?;
        if wraps.iter().any(|wrap| key.unwrap(wrap).is_ok()) {
            return Ok(());
        }
        let wrapped = key.wrap(self.inner.keys.load().bytes())?;
        self.in_background(move |disk| {
            disk.write(|batch| {
                let mut keys = batch.open_table(KEYS)?;
                let next = keys.last()?.map_or(0, |(slot, _)| slot.value() + 1);
                keys.insert(next, wrapped.as_slice())?;
                Ok(())
            })
        })
        .await
    }

    /// The data key, as each key wraps it that opens the log.
    pub(super) fn wraps(&self) -> Result<Vec<Vec<u8>>, DiskError> {
        let reading = self.inner.database()?.begin_read();
        let reading = reading.map_err(DiskError::storage)?;
        rows(&reading.open_table(KEYS).map_err(DiskError::storage)?)
    }

    /// From now on the log opens under this key only, and what is written is sealed under a new
    /// data key. Older records are sealed anew when the log is opened the next time.
    pub async fn rotate(&self, key: &WrappingKey) -> Result<(), DiskError> {
        let (data_key, wrapped) = key.generate()?;
        let next = self.inner.keys.load().followed_by(data_key);
        let older = next.older()?;
        self.in_background(move |disk| {
            disk.write(|batch| {
                let mut keys = batch.open_table(KEYS)?;
                keys.retain(|_, _| false)?;
                keys.insert(0, wrapped.as_slice())?;
                let mut table = batch.open_table(OLDER)?;
                table.retain(|_, _| false)?;
                for (slot, sealed) in (0..).zip(&older) {
                    table.insert(slot, sealed.as_slice())?;
                }
                Ok(())
            })?;
            // Not before: nothing may be sealed under a key that is not on disk. Who has sealed
            // under the one before and writes later is read by the older keys.
            disk.inner.keys.store(Arc::new(next));
            Ok(())
        })
        .await
    }

    /// Seals everything under the present key; nobody may write meanwhile.
    fn renew(&self) -> Result<(), DiskError> {
        let keys = self.inner.keys.load_full();
        let reading = self.inner.database()?.begin_read();
        let reading = reading.map_err(DiskError::storage)?;
        let (mut log, mut state) = (Vec::new(), Vec::new());
        let entries = reading.open_table(LOG).map_err(DiskError::storage)?;
        for row in entries.iter().map_err(DiskError::storage)? {
            let (index, sealed) = row.map_err(DiskError::storage)?;
            let name = entry_name(index.value());
            if let Some(renewed) = keys.renewed(&name, sealed.value()) {
                log.push((index.value(), renewed?));
            }
        }
        let records = reading.open_table(STATE).map_err(DiskError::storage)?;
        for row in records.iter().map_err(DiskError::storage)? {
            let (name, sealed) = row.map_err(DiskError::storage)?;
            if let Some(renewed) = keys.renewed(name.value(), sealed.value()) {
                state.push((name.value().to_owned(), renewed?));
            }
        }
        self.write(|batch| {
            let mut table = batch.open_table(LOG)?;
            for (index, sealed) in &log {
                table.insert(index, sealed.as_slice())?;
            }
            let mut table = batch.open_table(STATE)?;
            for (name, sealed) in &state {
                table.insert(name.as_str(), sealed.as_slice())?;
            }
            batch.open_table(OLDER)?.retain(|_, _| false)?;
            Ok(())
        })?;
        self.inner.keys.store(Arc::new(Keys::new(*keys.bytes())));
        Ok(())
    }

    /// Reads a named record.
    pub fn state<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, DiskError> {
        let Some(sealed) = self.inner.read_sealed(name)? else {
            return Ok(None);
        };
        decode(&self.inner.keys.load().open(name, &sealed)?).map(Some)
    }

    /// Writes a named record and waits for the disk.
    pub async fn set_state<T: Serialize>(&self, name: &str, value: &T) -> Result<(), DiskError> {
        let sealed = self.encode(name, value)?;
        let name = name.to_owned();
        self.in_background(move |disk| {
            disk.write(|batch| {
                let mut state = batch.open_table(STATE)?;
                state.insert(name.as_str(), sealed.as_slice())?;
                Ok(())
            })
        })
        .await
    }

    /// Appends entries, all in one transaction, and waits for the disk.
    pub async fn append<T: Serialize>(&self, entries: Vec<(u64, T)>) -> Result<(), DiskError> {
        let mut sealed = Vec::with_capacity(entries.len());
        for (index, entry) in &entries {
            sealed.push((*index, self.encode(&entry_name(*index), entry)?));
        }
        self.in_background(move |disk| {
            disk.write(|batch| {
                let mut log = batch.open_table(LOG)?;
                for (index, entry) in &sealed {
                    log.insert(index, entry.as_slice())?;
                }
                Ok(())
            })
        })
        .await
    }

    /// Removes the entries from `first` on.
    pub async fn truncate(&self, first: u64) -> Result<(), DiskError> {
        self.in_background(move |disk| {
            disk.write(|batch| {
                batch.open_table(LOG)?.retain_in(first.., |_, _| false)?;
                Ok(())
            })
        })
        .await
    }

    /// Removes the entries up to `last` and notes how far, in one transaction.
    pub async fn purge<T: Serialize>(
        &self,
        last: u64,
        name: &str,
        mark: &T,
    ) -> Result<(), DiskError> {
        let mark = self.encode(name, mark)?;
        let name = name.to_owned();
        self.in_background(move |disk| {
            disk.write(|batch| {
                batch.open_table(LOG)?.retain_in(..=last, |_, _| false)?;
                let mut state = batch.open_table(STATE)?;
                state.insert(name.as_str(), mark.as_slice())?;
                Ok(())
            })
        })
        .await
    }

    /// The entries of a range, in order.
    pub fn entries<T: DeserializeOwned>(
        &self,
        range: impl std::ops::RangeBounds<u64>,
    ) -> Result<Vec<T>, DiskError> {
        let reading = self
            .inner
            .database()?
            .begin_read()
            .map_err(DiskError::storage)?;
        let log = reading.open_table(LOG).map_err(DiskError::storage)?;
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        let mut entries = Vec::new();
        for row in log.range::<u64>(bounds).map_err(DiskError::storage)? {
            let (index, sealed) = row.map_err(DiskError::storage)?;
            let keys = self.inner.keys.load();
            let plain = keys.open(&entry_name(index.value()), sealed.value())?;
            entries.push(decode(&plain)?);
        }
        Ok(entries)
    }

    /// The last entry.
    pub fn last_entry<T: DeserializeOwned>(&self) -> Result<Option<T>, DiskError> {
        let reading = self
            .inner
            .database()?
            .begin_read()
            .map_err(DiskError::storage)?;
        let log = reading.open_table(LOG).map_err(DiskError::storage)?;
        let Some((index, sealed)) = log.last().map_err(DiskError::storage)? else {
            return Ok(None);
        };
        let name = entry_name(index.value());
        decode(&self.inner.keys.load().open(&name, sealed.value())?).map(Some)
    }

    fn encode<T: Serialize>(&self, name: &str, value: &T) -> Result<Vec<u8>, DiskError> {
        let plain =
            rmp_serde::to_vec_named(value).map_err(|error| DiskError::Decode(error.to_string()))?;
        Ok(self.inner.keys.load().seal(name, &plain)?)
    }

    fn write(
        &self,
        fill: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), DiskError> {
        let batch = self
            .inner
            .database()?
            .begin_write()
            .map_err(DiskError::storage)?;
        fill(&batch).map_err(DiskError::storage)?;
        batch.commit().map_err(DiskError::storage)
    }

    async fn in_background<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, DiskError> + Send + 'static,
    ) -> Result<T, DiskError> {
        let disk = self.clone();
        blocking(move || work(&disk)).await
    }
}

impl Inner {
    fn database(&self) -> Result<Arc<Database>, DiskError> {
        let closed = || DiskError::Storage("it has been closed".to_owned());
        self.database.load_full().ok_or_else(closed)
    }

    fn read_sealed(&self, name: &str) -> Result<Option<Vec<u8>>, DiskError> {
        let reading = self.database()?.begin_read().map_err(DiskError::storage)?;
        let state = reading.open_table(STATE).map_err(DiskError::storage)?;
        let sealed = state.get(name).map_err(DiskError::storage)?;
        Ok(sealed.map(|value| value.value().to_vec()))
    }
}

fn rows(table: &redb::ReadOnlyTable<u64, &[u8]>) -> Result<Vec<Vec<u8>>, DiskError> {
    let mut values = Vec::new();
    for row in table.iter().map_err(DiskError::storage)? {
        let (_, value) = row.map_err(DiskError::storage)?;
        values.push(value.value().to_vec());
    }
    Ok(values)
}

fn entry_name(index: u64) -> String {
    format!("log {index}")
}

fn decode<T: DeserializeOwned>(plain: &[u8]) -> Result<T, DiskError> {
    rmp_serde::from_slice(plain).map_err(|error| DiskError::Decode(error.to_string()))
}

fn restrict(path: &Path) -> Result<(), DiskError> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(DiskError::storage)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DiskError> + Send + 'static,
) -> Result<T, DiskError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|error| DiskError::Storage(error.to_string()))?
}
