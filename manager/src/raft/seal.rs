//! Encryption at rest: AES-256-GCM under a random data key, which is wrapped by a key derived
//! from the node's private key (HKDF-SHA256, RFC 5869).

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Salt},
    rand::{SecureRandom, SystemRandom},
};

pub(super) const KEY_LEN: usize = 32;

/// Why something could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("the system's random source failed")]
    Random,
    #[error("{0} cannot be decrypted: the key is another one, or the data was changed")]
    Open(String),
}

/// Encrypts records. A record is bound to its name, so records cannot be exchanged.
pub struct DataKey {
    key: LessSafeKey,
    random: SystemRandom,
}

impl DataKey {
    pub(crate) fn from_bytes(bytes: &[u8; KEY_LEN]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, bytes).expect("the key has the cipher's length");
        Self {
            key: LessSafeKey::new(key),
            random: SystemRandom::new(),
        }
    }

    /// Nonce (12 bytes), ciphertext, tag (16 bytes).
    pub fn seal(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0u8; NONCE_LEN];
        self.random
            .fill(&mut nonce)
            .map_err(|_| SealError::Random)?;
        let mut body = plain.to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(name.as_bytes()),
                &mut body,
            )
            .map_err(|_| SealError::Random)?;
        let mut sealed = Vec::with_capacity(NONCE_LEN + body.len());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    pub fn open(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let failed = || SealError::Open(name.to_owned());
        let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or_else(failed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| failed())?;
        let mut body = body.to_vec();
        let plain = self
            .key
            .open_in_place(nonce, Aad::from(name.as_bytes()), &mut body)
            .map_err(|_| failed())?
            .len();
        body.truncate(plain);
        Ok(body)
    }
}

/// Wraps data keys; derived from a node's private key, and from the cluster's unlock key where
/// there is one.
pub struct WrappingKey(DataKey);

const WRAPPED: &str = "data key";

impl WrappingKey {
    /// What [`crate::unlock::at_rest`] gives.
    pub fn from_node_key(private_key: &[u8]) -> Self {
        let salt = Salt::new(HKDF_SHA256, b"overnet log encryption v1");
        let mut bytes = [0u8; KEY_LEN];
        salt.extract(private_key)
            .expand(&[b"wrap"], KeyLength)
            .and_then(|okm| okm.fill(&mut bytes))
            .expect("HKDF gives one key length");
        Self(DataKey::from_bytes(&bytes))
    }

    /// A new random data key and its wrapped form.
    pub fn generate(&self) -> Result<([u8; KEY_LEN], Vec<u8>), SealError> {
        let mut bytes = [0u8; KEY_LEN];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| SealError::Random)?;
        let wrapped = self.wrap(&bytes)?;
        Ok((bytes, wrapped))
    }

    pub fn wrap(&self, data_key: &[u8; KEY_LEN]) -> Result<Vec<u8>, SealError> {
        self.0.seal(WRAPPED, data_key)
    }

    pub fn unwrap(&self, wrapped: &[u8]) -> Result<[u8; KEY_LEN], SealError> {
        let bytes = self.0.open(WRAPPED, wrapped)?;
        bytes
            .try_into()
            .map_err(|_| SealError::Open(WRAPPED.to_owned()))
    }
}

struct KeyLength;

impl ring::hkdf::KeyType for KeyLength {
    fn len(&self) -> usize {
        KEY_LEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_opens_under_its_key_and_name_only() {
        let node = WrappingKey::from_node_key(b"key one");
        let (bytes, wrapped) = node.generate().expect("random");
        let data = DataKey::from_bytes(&bytes);
        let sealed = data.seal("log 7", b"secret").expect("seal");
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        assert_eq!(data.open("log 7", &sealed).expect("own record"), b"secret");
        assert!(data.open("log 8", &sealed).is_err(), "another name");
        let mut changed = sealed.clone();
        *changed.last_mut().expect("not empty") ^= 1;
        assert!(data.open("log 7", &changed).is_err(), "changed");
        assert!(data.open("log 7", &sealed[..5]).is_err(), "cut");

        let again = DataKey::from_bytes(&node.unwrap(&wrapped).expect("own wrap"));
        assert_eq!(again.open("log 7", &sealed).expect("same key"), b"secret");
        assert!(
            WrappingKey::from_node_key(b"key two")
                .unwrap(&wrapped)
                .is_err()
        );
    }
}
