//! Keys of Curve25519, written in base64 as WireGuard's own tools do.

use std::{fmt, fs, io, path::Path, str::FromStr};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use boringtun::x25519;
use rand::{TryRngCore as _, rngs::OsRng};
use serde::{Deserialize, Serialize};

const LENGTH: usize = 32;

/// What others know a host by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; LENGTH]);

/// Known to its host alone. Neither shown nor serialized.
#[derive(Clone)]
pub struct PrivateKey([u8; LENGTH]);

impl PrivateKey {
    /// From the system's random source.
    pub fn generate() -> io::Result<Self> {
        let mut bytes = [0; LENGTH];
        OsRng.try_fill_bytes(&mut bytes).map_err(io::Error::other)?;
        Ok(Self(bytes))
    }

    pub fn from_bytes(bytes: [u8; LENGTH]) -> Self {
        Self(bytes)
    }

    pub fn bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }

    pub fn public(&self) -> PublicKey {
        PublicKey(x25519::PublicKey::from(&self.secret()).to_bytes())
    }

    pub(super) fn secret(&self) -> x25519::StaticSecret {
        x25519::StaticSecret::from(self.0)
    }

    /// The content of the file that [`Self::read`] reads.
    pub fn to_text(&self) -> String {
        BASE64_STANDARD.encode(self.0) + "\n"
    }

    pub fn read(path: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(path)?;
        match decode(&text) {
            Some(bytes) => Ok(Self(bytes)),
            None => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} has no key in it", path.display()),
            )),
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("PrivateKey(hidden)")
    }
}

fn decode(text: &str) -> Option<[u8; LENGTH]> {
    let bytes = BASE64_STANDARD.decode(text.trim()).ok()?;
    bytes.try_into().ok()
}

impl fmt::Display for PublicKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&BASE64_STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl FromStr for PublicKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = decode(text).ok_or_else(|| format!("{text:?} is no key"))?;
        Ok(Self(bytes))
    }
}

impl Serialize for PublicKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_private_key_is_not_shown_and_the_public_one_is_read_back() {
        let key = PrivateKey::generate().unwrap();
        let public = key.public();
        assert_eq!(public.to_string().parse::<PublicKey>().unwrap(), public);
        assert_ne!(PrivateKey::generate().unwrap().public(), public);
        assert_eq!(format!("{key:?}"), "PrivateKey(hidden)");
        assert!("AAAA".parse::<PublicKey>().is_err());
    }

    #[test]
    fn a_key_is_read_back_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let key = PrivateKey::generate().unwrap();
        fs::write(&path, key.to_text()).unwrap();
        assert_eq!(PrivateKey::read(&path).unwrap().public(), key.public());
        fs::write(&path, "AAAA\n").unwrap();
        assert!(
            PrivateKey::read(&path)
                .unwrap_err()
                .to_string()
                .contains("no key")
        );
    }
}
