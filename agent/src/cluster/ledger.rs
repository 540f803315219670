//! What this host was told last: on disk first, sealed, then published.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use model::{Assignments, Generation, Increment};

use super::{
    files::{Folder, write_whole},
    seal::{Seal, SealError},
    stream::Feed,
};

/// Why what a manager says is not accepted; the session then starts anew.
#[derive(Debug, thiserror::Error)]
pub(super) enum LedgerError {
    #[error(
        "the manager's state {offered} is older than {accepted}, which this host has accepted already"
    )]
    Older {
        offered: Generation,
        accepted: Generation,
    },
    #[error("the ledger cannot be written: {0}")]
    Write(#[from] io::Error),
    #[error("the ledger cannot be sealed: {0}")]
    Seal(#[from] SealError),
    #[error("this node has left the cluster")]
    Closed,
}

/// The ledger of one membership.
pub(super) struct Ledger {
    path: PathBuf,
    /// See [`Ledger::keep_open`].
    open_path: PathBuf,
    feed: Arc<Feed>,
    /// Held while writing, so that none comes after the end.
    inner: Mutex<Inner>,
}

struct Inner {
    /// Whether a copy without secrets lies beside it.
    open: bool,
    /// Whether the membership is over.
    closed: bool,
    /// Absent while the system's random source failed.
    seal: Option<Seal>,
}

impl Ledger {
    /// Publishes what lies on disk. A damaged ledger counts as none: the first full set mends it.
    /// `locked` says that the private key is sealed on disk, so that the ledger will not open at
    /// the next start.
    pub(super) fn open(folder: &Folder, feed: Arc<Feed>, private_key: &str, locked: bool) -> Self {
        let path = folder.ledger();
        let mut seal = None;
        match fs::read(&path) {
            Ok(file) => match read(private_key, &file) {
                Ok((found, assignments)) => {
                    seal = Some(found);
                    feed.replace(assignments);
                }
                Err(reason) => tracing::warn!("{} is damaged: {reason}", path.display()),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!("{} cannot be read: {error}", path.display()),
        }
        let open_path = folder.open_ledger();
        if !locked {
            // Left by a kill while autolock was turned off; not there, mostly.
            let _ = fs::remove_file(&open_path);
        }
        Self {
            path,
            open_path,
            feed,
            inner: Mutex::new(Inner {
                closed: false,
                open: locked,
                seal: seal.or_else(|| Seal::new(private_key).ok()),
            }),
        }
    }

    pub(super) fn accept_full(&self, full: Assignments) -> Result<(), LedgerError> {
        self.accept(full.generation, |inner| {
            self.write(&full, inner)?;
            self.feed.replace(full);
            Ok(())
        })
    }

    /// Takes increments that came together: written once, published one by one.
    pub(super) fn accept_increments(&self, increments: Vec<Increment>) -> Result<(), LedgerError> {
        let Some(offered) = increments.iter().map(|i| i.generation).min() else {
            return Ok(());
        };
        self.accept(offered, |inner| {
            let mut steps = Vec::with_capacity(increments.len());
            let mut next = self.feed.current();
            for increment in increments {
                let mut after = (*next).clone();
                after.apply(&increment);
                next = Arc::new(after);
                steps.push((Arc::clone(&next), increment));
            }
            self.write(&next, inner)?;
            for (next, increment) in steps {
                self.feed.step(next, increment);
            }
            Ok(())
        })
    }

    /// Ends the membership: nothing is accepted any more, and nothing assigned.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        self.feed.replace(Assignments::default());
    }

    /// The next private key is about to be written: from now on both open the ledger.
    pub(super) fn expect_key(&self, private_key: &str) -> Result<(), LedgerError> {
        self.rekey(|seal| seal.also_for(private_key))
    }

    /// The next private key is written: the one before opens nothing any more, and what it has
    /// opened tells nothing of what comes.
    pub(super) fn settle_key(&self, private_key: &str) -> Result<(), LedgerError> {
        self.rekey(|seal| {
            *seal = Seal::new(private_key)?;
            Ok(())
        })
    }

    fn rekey(
        &self,
        change: impl FnOnce(&mut Seal) -> Result<(), SealError>,
    ) -> Result<(), LedgerError> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(LedgerError::Closed);
        }
        change(inner.seal.as_mut().ok_or(SealError::Random)?)?;
        self.write(&self.feed.current(), &inner)
    }

    /// Keeps, or deletes, a copy that opens without any key: with it the host of a manager goes
    /// on while it is locked. It has no payloads of secrets and configs and no credentials; what is
    /// in the specs of tasks, commands and environments, it has in clear.
    pub(super) fn keep_open(&self, open: bool) -> Result<(), LedgerError> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(LedgerError::Closed);
        }
        if open {
            write_open(&self.open_path, &self.feed.current())?;
        } else {
            match fs::remove_file(&self.open_path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        inner.open = open;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(
        &self,
        offered: Generation,
        take: impl FnOnce(&Inner) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        let inner = self.lock();
        if inner.closed {
            return Err(LedgerError::Closed);
        }
        let accepted = self.feed.current().generation;
        if offered < accepted {
            return Err(LedgerError::Older { offered, accepted });
        }
        take(&inner)
    }

    fn write(&self, assignments: &Assignments, inner: &Inner) -> Result<(), LedgerError> {
        let seal = inner.seal.as_ref().ok_or(SealError::Random)?;
        let bytes = rmp_serde::to_vec_named(assignments).map_err(io::Error::other)?;
        if inner.open {
            write_open(&self.open_path, assignments)?;
        }
        Ok(write_whole(&self.path, &seal.seal(&bytes)?)?)
    }
}

fn write_open(path: &Path, assignments: &Assignments) -> io::Result<()> {
    let mut open = assignments.clone();
    open.payloads.clear();
    for task in open.tasks.values_mut() {
        Arc::make_mut(&mut task.spec)
            .container
            .registry_auth
            .clear();
    }
    let bytes = rmp_serde::to_vec_named(&open).map_err(io::Error::other)?;
    write_whole(path, &bytes)
}

/// The copy that [`Ledger::keep_open`] keeps.
pub(super) fn read_open(path: &Path) -> Option<Assignments> {
    let read = fs::read(path).map_err(|error| error.to_string());
    let read = read.and_then(|bytes| rmp_serde::from_slice(&bytes).map_err(|e| e.to_string()));
    read.inspect_err(|reason| tracing::warn!("{} cannot be read: {reason}", path.display()))
        .ok()
}

fn read(private_key: &str, file: &[u8]) -> Result<(Seal, Assignments), String> {
    let (seal, plain) = Seal::open(private_key, file).map_err(|error| error.to_string())?;
    let assignments = rmp_serde::from_slice(&plain).map_err(|error| error.to_string())?;
    Ok((seal, assignments))
}

#[cfg(test)]
mod tests {
    use model::{Meta, Payload, PayloadKind, PayloadSpec};

    use super::*;

    fn at(epoch: u64, index: u64) -> Assignments {
        Assignments {
            generation: Generation { epoch, index },
            ..Assignments::default()
        }
    }

    #[test]
    fn older_words_are_refused() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = Folder::new(root.path());
        folder.make().expect("made");
        let feed = Arc::new(Feed::new());
        let ledger = Ledger::open(&folder, Arc::clone(&feed), "key one", false);
        for (epoch, index, fine) in [
            (1, 5, true),
            (1, 5, true),
            (1, 4, false),
            (2, 1, true),
            (1, 9, false),
        ] {
            let accepted = ledger.accept_full(at(epoch, index));
            assert_eq!(accepted.is_ok(), fine, "{epoch}.{index}");
        }
        let step = |index| Increment {
            generation: Generation { epoch: 2, index },
            changes: Vec::new(),
        };
        assert!(ledger.accept_increments(vec![step(0)]).is_err());
        assert!(ledger.accept_increments(vec![step(6), step(7)]).is_ok());

        let found = |key: &str| {
            let again = Arc::new(Feed::new());
            Ledger::open(&folder, Arc::clone(&again), key, false);
            again.current().generation.index
        };
        assert_eq!((found("key one"), found("key two")), (7, 0));
        ledger.expect_key("key two").expect("written");
        assert_eq!((found("key one"), found("key two")), (7, 7));
        ledger.settle_key("key two").expect("written");
        assert_eq!((found("key one"), found("key two")), (0, 7));

        ledger.close();
        assert_eq!(*feed.current(), Assignments::default());
        assert!(matches!(
            ledger.accept_full(at(3, 0)),
            Err(LedgerError::Closed)
        ));
    }

    #[test]
    fn the_open_copy_has_no_secrets() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = Folder::new(root.path());
        folder.make().expect("made");
        let ledger = Ledger::open(&folder, Arc::new(Feed::new()), "key one", false);
        let secret = Payload {
            id: "s1".into(),
            meta: Meta::default(),
            kind: PayloadKind::Secret,
            spec: PayloadSpec::default(),
        };
        let mut full = at(1, 5);
        full.payloads.insert("s1".into(), secret);
        ledger.accept_full(full.clone()).expect("accepted");
        let open = folder.open_ledger();
        assert!(!open.exists());
        ledger.keep_open(true).expect("written");
        let mut without = full.clone();
        without.payloads.clear();
        assert_eq!(read_open(&open), Some(without.clone()));
        // It follows what is accepted.
        full.generation.index = 6;
        without.generation.index = 6;
        ledger.accept_full(full).expect("accepted");
        assert_eq!(read_open(&open), Some(without));
        ledger.keep_open(false).expect("deleted");
        assert!(!open.exists());
        // What a kill has left is deleted at the next start.
        fs::write(&open, "left").expect("written");
        Ledger::open(&folder, Arc::new(Feed::new()), "key one", false);
        assert!(!open.exists());
    }
}
