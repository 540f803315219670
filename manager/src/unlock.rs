//! Autolock: a manager's private key lies on its disk under a key that is not there.
//!
//! The log and the ledger are under keys that the private key opens, so whoever has the disk and
//! not the unlock key has nothing of them, and cannot speak for the node.

use base64::{
    Engine as _,
    alphabet::STANDARD as ALPHABET,
    engine::general_purpose::{GeneralPurpose, NO_PAD, STANDARD},
};
use model::Refusal;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::raft::{DataKey, SealError};

const PREFIX: &str = "SWMKEY-1-";
const LENGTH: usize = 32;
/// What is sealed; a sealed key is no other record.
const NAME: &str = "node key";
const BEGIN: &str = "-----BEGIN OVERNET LOCKED KEY-----";
const END: &str = "-----END OVERNET LOCKED KEY-----";
/// As Docker writes keys.
const UNPADDED: GeneralPurpose = GeneralPurpose::new(&ALPHABET, NO_PAD);

/// The key that unlocks managers, `SWMKEY-1-…`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UnlockKey([u8; LENGTH]);

impl UnlockKey {
    pub fn generate() -> Result<Self, SealError> {
        let mut bytes = [0; LENGTH];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| SealError::Random)?;
        Ok(Self(bytes))
    }

    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let bytes = text
            .trim()
            .strip_prefix(PREFIX)
            .and_then(|rest| UNPADDED.decode(rest).ok())
            .and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| {
            Refusal::invalid(
                "swarm could not be unlocked: invalid key provided: it has to look like SWMKEY-1-…, as `ovnctl swarm unlock-key` on another manager shows it",
            )
        })
    }

    /// A private key (PEM), sealed, in the form of PEM.
    pub fn lock(&self, private_key: &str) -> Result<String, SealError> {
        let sealed = DataKey::from_bytes(&self.0).seal(NAME, private_key.as_bytes())?;
        Ok(format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(sealed)))
    }

    /// The private key that was locked.
    pub fn open(&self, locked: &str) -> Result<String, SealError> {
        let damaged = || SealError::Open(NAME.to_owned());
        let text = locked.trim().strip_prefix(BEGIN);
        let text = text.and_then(|rest| rest.strip_suffix(END));
        let sealed = text.and_then(|text| STANDARD.decode(text.trim()).ok());
        let plain = DataKey::from_bytes(&self.0).open(NAME, &sealed.ok_or_else(damaged)?)?;
        String::from_utf8(plain).map_err(|_| damaged())
    }
}

/// What a node's log and ledger are encrypted under: its private key, and the unlock key where there
/// is one. A private key that lay on the disk before autolock was turned on opens nothing that
/// was written later.
pub fn at_rest(private_key: &str, unlock_key: Option<&UnlockKey>) -> String {
    match unlock_key {
        None => private_key.to_owned(),
        Some(unlock_key) => format!("{}\n{unlock_key}", private_key.trim()),
    }
}

/// Whether a block of PEM is a private key that was locked.
pub fn is_locked(block: &str) -> bool {
    block.starts_with(BEGIN)
}

impl std::fmt::Display for UnlockKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{PREFIX}{}", UNPADDED.encode(self.0))
    }
}

impl std::fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UnlockKey(hidden)")
    }
}

impl From<UnlockKey> for String {
    fn from(key: UnlockKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for UnlockKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).map_err(|refusal| refusal.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_key_opens_with_its_unlock_key_only() {
        let key = UnlockKey::generate().expect("random");
        let locked = key
            .lock("-----BEGIN PRIVATE KEY-----\nsecret")
            .expect("sealed");
        assert!(is_locked(&locked) && !locked.contains("secret"), "{locked}");
        let opened = key.open(&locked).expect("its own key");
        assert_eq!(opened, "-----BEGIN PRIVATE KEY-----\nsecret");
        let other = UnlockKey::generate().expect("random");
        assert!(other.open(&locked).is_err(), "another key");
        assert!(key.open(&locked[..60]).is_err(), "cut");
        assert!(
            key.open("-----BEGIN PRIVATE KEY-----").is_err(),
            "not locked"
        );
    }

    #[test]
    fn keys_are_read_as_they_are_written() {
        let key = UnlockKey::generate().expect("random");
        let text = key.to_string();
        assert_eq!(text.len(), PREFIX.len() + 43, "{text}");
        assert_eq!(UnlockKey::parse(&format!(" {text}\n")), Ok(key.clone()));
        let packed = rmp_serde::to_vec_named(&key).expect("written");
        assert_eq!(
            rmp_serde::from_slice::<UnlockKey>(&packed).expect("read"),
            key
        );
        assert!(!format!("{key:?}").contains(&text[PREFIX.len()..]));
        for wrong in ["", "SWMKEY-1-", "SWMKEY-1-AAAA", "SWMTKN-1-x", &text[1..]] {
            assert!(UnlockKey::parse(wrong).is_err(), "{wrong}");
        }
    }
}
