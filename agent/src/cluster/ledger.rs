//! What this host was told last: on disk first, then published.

use std::{
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use model::{Assignments, Generation, Increment};

use super::{files::write_whole, stream::Feed};

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
    #[error("this node has left the cluster")]
    Closed,
}

/// The ledger of one membership.
pub(super) struct Ledger {
    path: PathBuf,
    feed: Arc<Feed>,
    /// Whether the membership is over; held while writing, so that none comes after the end.
    closed: Mutex<bool>,
}

impl Ledger {
    /// Publishes what lies on disk. A damaged ledger counts as none: the first full set mends it.
    pub(super) fn open(path: PathBuf, feed: Arc<Feed>) -> Self {
        match fs::read(&path) {
            Ok(bytes) => match rmp_serde::from_slice::<Assignments>(&bytes) {
                Ok(assignments) => feed.replace(assignments),
                Err(error) => tracing::warn!("{} is damaged: {error}", path.display()),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!("{} cannot be read: {error}", path.display()),
        }
        Self {
            path,
            feed,
            closed: Mutex::new(false),
        }
    }

    pub(super) fn accept_full(&self, full: Assignments) -> Result<(), LedgerError> {
        self.accept(full.generation, || {
            self.write(&full)?;
            self.feed.replace(full);
            Ok(())
        })
    }

    pub(super) fn accept_increment(&self, increment: Increment) -> Result<(), LedgerError> {
        self.accept(increment.generation, || {
            let mut next = (*self.feed.current()).clone();
            next.apply(&increment);
            self.write(&next)?;
            self.feed.step(next, increment);
            Ok(())
        })
    }

    /// Ends the membership: nothing is accepted any more, and nothing assigned.
    pub(super) fn close(&self) {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        *closed = true;
        self.feed.replace(Assignments::default());
    }

    fn accept(
        &self,
        offered: Generation,
        take: impl FnOnce() -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return Err(LedgerError::Closed);
        }
        let accepted = self.feed.current().generation;
        if offered < accepted {
            return Err(LedgerError::Older { offered, accepted });
        }
        take()
    }

    fn write(&self, assignments: &Assignments) -> io::Result<()> {
        let bytes = rmp_serde::to_vec_named(assignments).map_err(io::Error::other)?;
        write_whole(&self.path, &bytes)
    }
}

#[cfg(test)]
mod tests {
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
        let path = root.path().join("ledger");
        let feed = Arc::new(Feed::new());
        let ledger = Ledger::open(path.clone(), Arc::clone(&feed));
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
        assert!(ledger.accept_increment(step(0)).is_err());
        assert!(ledger.accept_increment(step(7)).is_ok());

        let again = Arc::new(Feed::new());
        Ledger::open(path, Arc::clone(&again));
        assert_eq!(*again.current(), at(2, 7));

        ledger.close();
        assert_eq!(*feed.current(), Assignments::default());
        assert!(matches!(
            ledger.accept_full(at(3, 0)),
            Err(LedgerError::Closed)
        ));
    }
}
