//! Which overlay network each network of Docker leads to. Docker tells it once, when the network is
//! made, and expects it to be known ever after.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use model::Refusal;

use crate::network::{Survives, write_atomically};

/// By Docker's id: the id of the overlay network, or nothing for one that has its name.
type Table = BTreeMap<String, Option<String>>;

pub struct Known {
    file: PathBuf,
    table: Mutex<Table>,
}

impl Known {
    pub fn open(file: &Path) -> io::Result<Self> {
        let table = match std::fs::read(file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                io::Error::other(format!("{} is damaged: {error}", file.display()))
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Table::new(),
            Err(error) => return Err(error),
        };
        Ok(Self {
            file: file.to_owned(),
            table: Mutex::new(table),
        })
    }

    pub fn overlay(&self, docker: &str) -> Option<String> {
        self.lock().get(docker).cloned().flatten()
    }

    pub fn learn(&self, docker: &str, overlay: Option<String>) -> Result<(), Refusal> {
        let mut table = self.lock();
        table.insert(docker.to_owned(), overlay);
        self.write(&table)
    }

    pub fn forget(&self, docker: &str) -> Result<(), Refusal> {
        let mut table = self.lock();
        if table.remove(docker).is_none() {
            return Ok(());
        }
        self.write(&table)
    }

    fn write(&self, table: &Table) -> Result<(), Refusal> {
        let written = serde_json::to_vec(table).map_err(io::Error::from);
        let written =
            written.and_then(|bytes| write_atomically(&self.file, &bytes, Survives::PowerLoss));
        written.map_err(|error| Refusal::internal(format!("{}: {error}", self.file.display())))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_once_is_known_after_a_start() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("known.json");
        let known = Known::open(&file).unwrap();
        known.learn("d1", Some("o1".into())).unwrap();
        known.learn("d2", None).unwrap();
        known.learn("d3", Some("o3".into())).unwrap();
        known.forget("d3").unwrap();
        known.forget("d4").unwrap();
        let known = Known::open(&file).unwrap();
        assert_eq!(known.overlay("d1").as_deref(), Some("o1"));
        assert_eq!(known.overlay("d2"), None);
        assert_eq!(known.overlay("d3"), None);
        std::fs::write(&file, "{").unwrap();
        assert!(Known::open(&file).is_err());
    }
}
