//! The data keys of one log: the one that everything is sealed under from now on, and those of
//! before, which still open what was sealed earlier.

use super::{
    SealError,
    seal::{DataKey, KEY_LEN},
};

/// What an older data key is sealed as, under the present one.
const OLDER: &str = "older data key";

pub(super) struct Keys {
    current: DataKey,
    bytes: [u8; KEY_LEN],
    older: Vec<(DataKey, [u8; KEY_LEN])>,
}

impl Keys {
    pub(super) fn new(bytes: [u8; KEY_LEN]) -> Self {
        Self {
            current: DataKey::from_bytes(&bytes),
            bytes,
            older: Vec::new(),
        }
    }

    /// For wrapping.
    pub(super) fn bytes(&self) -> &[u8; KEY_LEN] {
        &self.bytes
    }

    pub(super) fn has_older(&self) -> bool {
        !self.older.is_empty()
    }

    /// These keys with a new one before them.
    pub(super) fn followed_by(&self, bytes: [u8; KEY_LEN]) -> Self {
        let before = std::iter::once(&self.bytes).chain(self.older.iter().map(|(_, bytes)| bytes));
        Self {
            older: before
                .map(|bytes| (DataKey::from_bytes(bytes), *bytes))
                .collect(),
            ..Self::new(bytes)
        }
    }

    pub(super) fn seal(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        self.current.seal(name, plain)
    }

    pub(super) fn open(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let opened = self.current.open(name, sealed);
        opened.or_else(|error| self.open_older(name, sealed).ok_or(error))
    }

    fn open_older(&self, name: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let mut older = self.older.iter();
        older.find_map(|(key, _)| key.open(name, sealed).ok())
    }

    /// A record as the present key seals it, if it was sealed under an older one.
    pub(super) fn renewed(&self, name: &str, sealed: &[u8]) -> Option<Result<Vec<u8>, SealError>> {
        if self.current.open(name, sealed).is_ok() {
            return None;
        }
        let plain = self.open_older(name, sealed)?;
        Some(self.seal(name, &plain))
    }

    /// The older keys, sealed under the present one.
    pub(super) fn older(&self) -> Result<Vec<Vec<u8>>, SealError> {
        let older = self.older.iter();
        older.map(|(_, bytes)| self.seal(OLDER, bytes)).collect()
    }

    /// Takes up what [`Self::older`] has given.
    pub(super) fn add_older(&mut self, sealed: &[u8]) -> Result<(), SealError> {
        let bytes = self.current.open(OLDER, sealed)?;
        let bytes = <[u8; KEY_LEN]>::try_from(bytes);
        let bytes = bytes.map_err(|_| SealError::Open(OLDER.to_owned()))?;
        self.older.push((DataKey::from_bytes(&bytes), bytes));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_before_opens_and_is_sealed_anew() {
        let first = Keys::new([1; KEY_LEN]);
        let record = first.seal("log 7", b"early").expect("sealed");
        let second = first.followed_by([2; KEY_LEN]).followed_by([3; KEY_LEN]);
        assert_eq!(second.open("log 7", &record).expect("older key"), b"early");
        let renewed = second.renewed("log 7", &record).expect("older");
        let renewed = renewed.expect("sealed");
        assert!(second.renewed("log 7", &renewed).is_none(), "it is new");
        assert!(
            first.open("log 7", &renewed).is_err(),
            "not for the old key"
        );

        let mut found = Keys::new([3; KEY_LEN]);
        assert!(found.open("log 7", &record).is_err());
        for sealed in second.older().expect("sealed") {
            found.add_older(&sealed).expect("its own");
        }
        assert_eq!(found.open("log 7", &record).expect("older key"), b"early");
        assert!(found.add_older(b"something").is_err());
    }
}
