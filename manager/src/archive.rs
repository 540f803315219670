//! The archive of a cluster's state: sealed under a passphrase, and told from everything that is
//! none before anything is made of it.
//!
//! ```text
//! magic (8) · format (u16) · length of the header (u32) · header (JSON, in clear)
//! state, AES-256-GCM; all before it is authenticated with it
//! SHA-256 of all before
//! ```
//!
//! Numbers are big-endian. The key comes from the passphrase by PBKDF2-HMAC-SHA-256 (RFC 8018).
//! The checksum says whether the bytes are those that were written, so that a wrong passphrase
//! is not mistaken for a bad copy. A format is never read by guessing: what changes the meaning
//! of a byte has the next number.

use std::num::NonZeroU32;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use model::ClusterId;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    pbkdf2::{self, PBKDF2_HMAC_SHA256},
    rand::{SecureRandom as _, SystemRandom},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

const MAGIC: &[u8; 8] = b"OVNSTATE";
/// What this build writes, and the newest that it reads.
const FORMAT: u16 = 1;
const KEY_LEN: usize = 32;
const SALT_LEN: usize = 16;
const TAG_LEN: usize = 16;
const CHECKSUM_LEN: usize = 32;
/// Magic, format and the header's length.
const PREFIX_LEN: usize = MAGIC.len() + 2 + 4;
/// Steps from passphrase to key: about a fifth of a second.
const ROUNDS: u32 = 600_000;
/// More are no archive but an attempt to keep this host busy.
const MOST_ROUNDS: u32 = 20_000_000;
/// Shorter ones are found by trying.
const LEAST_PASSPHRASE: usize = 8;

/// What an archive says of itself without the passphrase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    pub cluster: ClusterId,
    /// Nanoseconds since the Unix epoch.
    pub made_at: i64,
    /// The version of the software that made it.
    pub made_by: String,
    /// The last entry of the log that is in it.
    pub index: u64,
}

#[derive(Serialize, Deserialize)]
struct Header {
    #[serde(flatten)]
    about: About,
    rounds: u32,
    salt: String,
    nonce: String,
    /// Of the sealed state, in bytes.
    length: u64,
}

/// Why an archive is not made, or not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    #[error(
        "the passphrase is too short: it guards every secret of the cluster, so take at least {LEAST_PASSPHRASE} characters"
    )]
    Short,
    #[error("the system's random source failed")]
    Random,
    #[error("this is no archive of `ovnctl cluster backup`")]
    Foreign,
    #[error("the archive is cut: {there} of {whole} bytes are there; take another copy of it")]
    Cut { there: usize, whole: usize },
    #[error("the archive is not as it was written: its checksum is wrong; take another copy of it")]
    Changed,
    #[error(
        "the archive has format {0} and this daemon reads up to {FORMAT}: it was made by a newer version; restore it with that version"
    )]
    NewerFormat(u16),
    #[error(
        "the archive was made by version {made_by}, and this daemon has version {own}: it may hold what this one does not know; install that version on this host first"
    )]
    NewerVersion { made_by: String, own: String },
    #[error("the passphrase is not that of this archive")]
    Passphrase,
}

/// Seals a state.
pub fn write(about: About, state: &[u8], passphrase: &str) -> Result<Vec<u8>, ArchiveError> {
    if passphrase.chars().count() < LEAST_PASSPHRASE {
        return Err(ArchiveError::Short);
    }
    let random = SystemRandom::new();
    let mut salt = [0; SALT_LEN];
    let mut nonce = [0; NONCE_LEN];
    random
        .fill(&mut salt)
        .and_then(|()| random.fill(&mut nonce))
        .map_err(|_| ArchiveError::Random)?;
    let header = serde_json::to_vec(&Header {
        about,
        rounds: ROUNDS,
        salt: STANDARD.encode(salt),
        nonce: STANDARD.encode(nonce),
        length: (state.len() + TAG_LEN) as u64,
    })
    .map_err(|_| ArchiveError::Random)?;
    let mut archive = MAGIC.to_vec();
    archive.extend_from_slice(&FORMAT.to_be_bytes());
    archive.extend_from_slice(
        &u32::try_from(header.len())
            .unwrap_or(u32::MAX)
            .to_be_bytes(),
    );
    archive.extend_from_slice(&header);
    let mut sealed = state.to_vec();
    cipher(passphrase, &salt, ROUNDS)
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(&archive),
            &mut sealed,
        )
        .map_err(|_| ArchiveError::Random)?;
    archive.append(&mut sealed);
    let checksum = Sha256::digest(&archive);
    archive.extend_from_slice(&checksum);
    Ok(archive)
}

/// Opens an archive: what it says of itself, and the state. `own` is the version of this
/// software.
pub fn read(archive: &[u8], passphrase: &str, own: &str) -> Result<(About, Vec<u8>), ArchiveError> {
    let magic = archive.len().min(MAGIC.len());
    if archive.is_empty() || archive[..magic] != MAGIC[..magic] {
        return Err(ArchiveError::Foreign);
    }
    let cut = |whole| ArchiveError::Cut {
        there: archive.len(),
        whole,
    };
    let prefix = archive.get(..PREFIX_LEN).ok_or(cut(PREFIX_LEN))?;
    let format = u16::from_be_bytes([prefix[8], prefix[9]]);
    if format > FORMAT {
        return Err(ArchiveError::NewerFormat(format));
    }
    let header_len = u32::from_be_bytes([prefix[10], prefix[11], prefix[12], prefix[13]]) as usize;
    let body = PREFIX_LEN.saturating_add(header_len);
    let header = archive.get(PREFIX_LEN..body).ok_or(cut(body))?;
    let header: Header = serde_json::from_slice(header).map_err(|_| ArchiveError::Changed)?;
    let length = usize::try_from(header.length).unwrap_or(usize::MAX);
    let whole = body.saturating_add(length).saturating_add(CHECKSUM_LEN);
    if archive.len() < whole {
        return Err(cut(whole));
    }
    let (written, checksum) = archive.split_at(archive.len() - CHECKSUM_LEN);
    if archive.len() > whole || Sha256::digest(written).as_slice() != checksum {
        return Err(ArchiveError::Changed);
    }
    if is_newer(&header.about.made_by, own) {
        return Err(ArchiveError::NewerVersion {
            made_by: header.about.made_by,
            own: own.to_owned(),
        });
    }
    let bytes = |text: &str| STANDARD.decode(text).map_err(|_| ArchiveError::Changed);
    let salt = bytes(&header.salt)?;
    let nonce = Nonce::try_assume_unique_for_key(&bytes(&header.nonce)?)
        .map_err(|_| ArchiveError::Changed)?;
    if header.rounds > MOST_ROUNDS {
        return Err(ArchiveError::Changed);
    }
    let (clear, sealed) = written.split_at(body);
    let mut state = sealed.to_vec();
    let plain = cipher(passphrase, &salt, header.rounds)
        .open_in_place(nonce, Aad::from(clear), &mut state)
        .map_err(|_| ArchiveError::Passphrase)?
        .len();
    state.truncate(plain);
    Ok((header.about, state))
}

fn cipher(passphrase: &str, salt: &[u8], rounds: u32) -> LessSafeKey {
    let rounds = NonZeroU32::new(rounds).unwrap_or(NonZeroU32::MIN);
    let mut key = [0; KEY_LEN];
    pbkdf2::derive(
        PBKDF2_HMAC_SHA256,
        rounds,
        salt,
        passphrase.as_bytes(),
        &mut key,
    );
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).expect("the key has the cipher's length"))
}

/// Whether version `one` comes after `other`; what follows a hyphen does not count.
fn is_newer(one: &str, other: &str) -> bool {
    let numbers = |text: &str| -> Vec<u64> {
        let plain = text.split(['-', '+']).next().unwrap_or_default();
        plain.split('.').map(|n| n.parse().unwrap_or(0)).collect()
    };
    numbers(one) > numbers(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSPHRASE: &str = "correct horse";

    fn archive(made_by: &str) -> Vec<u8> {
        let about = About {
            cluster: "cluster1".into(),
            made_at: 7,
            made_by: made_by.to_owned(),
            index: 42,
        };
        write(about, b"all the secrets", PASSPHRASE).expect("sealed")
    }

    fn refused(archive: &[u8], passphrase: &str) -> ArchiveError {
        read(archive, passphrase, "0.1.0").expect_err("refused")
    }

    #[test]
    fn an_archive_opens_with_its_passphrase_only() {
        let archive = archive("0.1.0");
        assert!(!archive.windows(7).any(|part| part == b"secrets"));
        let (about, state) = read(&archive, PASSPHRASE, "0.1.0").expect("its own passphrase");
        assert_eq!((about.cluster.as_str(), about.index), ("cluster1", 42));
        assert_eq!(state, b"all the secrets");
        assert_eq!(refused(&archive, "wrong"), ArchiveError::Passphrase);
        assert_ne!(archive, self::archive("0.1.0"), "no salt is used twice");
        assert_eq!(write(about, b"", "short"), Err(ArchiveError::Short));
    }

    #[test]
    fn what_is_none_is_told_from_what_is_damaged() {
        let whole = archive("0.1.0");
        for cut in [1, 8, 13, 20, whole.len() / 2, whole.len() - 1] {
            let said = refused(&whole[..cut], PASSPHRASE);
            assert!(matches!(said, ArchiveError::Cut { .. }), "{cut}: {said}");
        }
        // Every byte counts; the first ones decide what the rest is taken for.
        for at in (PREFIX_LEN..whole.len()).step_by(7) {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            let said = refused(&changed, PASSPHRASE);
            let expected = matches!(said, ArchiveError::Changed | ArchiveError::Cut { .. });
            assert!(expected, "{at}: {said}");
        }
        let longer = [whole.as_slice(), b"more"].concat();
        assert_eq!(refused(&longer, PASSPHRASE), ArchiveError::Changed);
        for foreign in [&b""[..], b"PK\x03\x04", b"something else altogether"] {
            assert_eq!(refused(foreign, PASSPHRASE), ArchiveError::Foreign);
        }
        let mut newer = whole;
        newer[9] = 2;
        assert_eq!(refused(&newer, PASSPHRASE), ArchiveError::NewerFormat(2));
    }

    #[test]
    fn a_forged_header_does_not_open() {
        // With a checksum of its own, as anyone can make one.
        let whole = archive("0.1.0");
        let mut forged = whole[..whole.len() - CHECKSUM_LEN].to_vec();
        let name = forged.windows(8).position(|part| part == b"cluster1");
        forged[name.expect("in clear") + 7] = b'2';
        let checksum = Sha256::digest(&forged);
        forged.extend_from_slice(&checksum);
        assert_eq!(refused(&forged, PASSPHRASE), ArchiveError::Passphrase);
    }

    #[test]
    fn newer_versions_are_not_guessed_at() {
        for (made_by, fine) in [
            ("0.1.0", true),
            ("0.0.9", true),
            ("0.1.0-rc1", true),
            ("0.1.1", false),
            ("0.10.0", false),
            ("1.0.0", false),
        ] {
            let said = read(&archive(made_by), PASSPHRASE, "0.1.0");
            assert_eq!(said.is_ok(), fine, "{made_by}: {said:?}");
        }
    }
}
