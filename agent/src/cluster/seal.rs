//! The ledger at rest: AES-256-GCM under a random key, which lies beside it, wrapped under a key
//! derived from the node's private key (HKDF-SHA256, RFC 5869).
//!
//! The private key changes when a worker's certificate is renewed, and counts together with the
//! unlock key while autolock is on. Before the next one is written the random key is wrapped under
//! both, so the ledger opens whichever one is found after a crash; then there is a new random key.

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, KeyType, Salt},
    rand::{SecureRandom as _, SystemRandom},
};

const KEY_LEN: usize = 32;
/// Nonce, key, tag.
const WRAPPED_LEN: usize = NONCE_LEN + KEY_LEN + 16;
const MAGIC: &[u8; 8] = b"OVNLEDG1";

#[derive(Debug, thiserror::Error)]
pub(super) enum SealError {
    #[error("it is no ledger of this version")]
    Shape,
    #[error("it was sealed under another key, or changed")]
    Key,
    #[error("the system's random source failed")]
    Random,
}

/// Seals and opens one ledger.
pub(super) struct Seal {
    key: [u8; KEY_LEN],
    /// The key, wrapped for each private key that is to open it.
    wraps: Vec<Vec<u8>>,
}

impl Seal {
    /// A new random key for the holder of the private key.
    pub(super) fn new(private_key: &str) -> Result<Self, SealError> {
        let mut key = [0; KEY_LEN];
        SystemRandom::new()
            .fill(&mut key)
            .map_err(|_| SealError::Random)?;
        let wraps = vec![seal(&wrapping_key(private_key), &key)?];
        Ok(Self { key, wraps })
    }

    /// Lets the holder of another private key open what is sealed from now on, too.
    pub(super) fn also_for(&mut self, private_key: &str) -> Result<(), SealError> {
        self.wraps
            .push(seal(&wrapping_key(private_key), &self.key)?);
        Ok(())
    }

    /// The whole file.
    pub(super) fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut file = MAGIC.to_vec();
        file.push(u8::try_from(self.wraps.len()).map_err(|_| SealError::Shape)?);
        for wrap in &self.wraps {
            file.extend_from_slice(wrap);
        }
        file.extend(seal(&self.key, plain)?);
        Ok(file)
    }

    /// Opens a file, and goes on with its key.
    pub(super) fn open(private_key: &str, file: &[u8]) -> Result<(Self, Vec<u8>), SealError> {
        let rest = file.strip_prefix(MAGIC).ok_or(SealError::Shape)?;
        let (count, rest) = rest.split_first().ok_or(SealError::Shape)?;
        let (wraps, body) = rest
            .split_at_checked(usize::from(*count) * WRAPPED_LEN)
            .ok_or(SealError::Shape)?;
        let wrapping = wrapping_key(private_key);
        let wraps: Vec<Vec<u8>> = wraps.chunks(WRAPPED_LEN).map(<[u8]>::to_vec).collect();
        let key = wraps
            .iter()
            .find_map(|wrap| open(&wrapping, wrap).ok())
            .and_then(|key| key.try_into().ok())
            .ok_or(SealError::Key)?;
        let plain = open(&key, body)?;
        Ok((Self { key, wraps }, plain))
    }
}

struct KeyLength;

impl KeyType for KeyLength {
    fn len(&self) -> usize {
        KEY_LEN
    }
}

fn wrapping_key(private_key: &str) -> [u8; KEY_LEN] {
    let salt = Salt::new(HKDF_SHA256, b"overnet ledger encryption v1");
    let mut bytes = [0; KEY_LEN];
    salt.extract(private_key.trim().as_bytes())
        .expand(&[b"wrap"], KeyLength)
        .and_then(|okm| okm.fill(&mut bytes))
        .expect("HKDF gives one key length");
    bytes
}

fn cipher(key: &[u8; KEY_LEN]) -> LessSafeKey {
    let key = UnboundKey::new(&AES_256_GCM, key).expect("the key has the cipher's length");
    LessSafeKey::new(key)
}

fn seal(key: &[u8; KEY_LEN], plain: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut nonce = [0; NONCE_LEN];
    SystemRandom::new()
        .fill(&mut nonce)
        .map_err(|_| SealError::Random)?;
    let mut body = plain.to_vec();
    let assumed = Nonce::assume_unique_for_key(nonce);
    cipher(key)
        .seal_in_place_append_tag(assumed, Aad::empty(), &mut body)
        .map_err(|_| SealError::Random)?;
    let mut sealed = nonce.to_vec();
    sealed.append(&mut body);
    Ok(sealed)
}

fn open(key: &[u8; KEY_LEN], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or(SealError::Shape)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Shape)?;
    let mut body = body.to_vec();
    let plain = cipher(key)
        .open_in_place(nonce, Aad::empty(), &mut body)
        .map_err(|_| SealError::Key)?;
    Ok(plain.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_opens_under_its_keys_only() {
        let mut first = Seal::new("key one").unwrap();
        let file = first.seal(b"s3cret").unwrap();
        assert!(!file.windows(6).any(|part| part == b"s3cret"));
        assert_eq!(Seal::open("key one", &file).unwrap().1, b"s3cret");
        assert!(matches!(Seal::open("key two", &file), Err(SealError::Key)));

        first.also_for("key two").unwrap();
        let both = first.seal(b"s3cret").unwrap();
        for key in ["key one", "key two"] {
            assert_eq!(Seal::open(key, &both).unwrap().1, b"s3cret", "{key}");
        }
        let (again, _) = Seal::open("key two", &both).unwrap();
        let last = again.seal(b"s3cret").unwrap();
        for cut in [0, 8, 9, 40, last.len() - 1] {
            assert!(Seal::open("key two", &last[..cut]).is_err(), "{cut}");
        }
    }
}
