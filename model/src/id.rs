//! Identifiers: 25 characters of lower-case base36 for cluster objects, 64 hex
//! characters for containers, as Docker's clients expect them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Characters in a cluster object's identifier.
pub const ID_LENGTH: usize = 25;
/// Bytes of randomness that [`Id::from_random`] takes.
pub const ID_RANDOM_BYTES: usize = 17;

/// The identifier of a cluster object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Id(String);

pub type NodeId = Id;
pub type NetworkId = Id;
pub type EndpointId = Id;
pub type ClusterId = Id;
pub type ServiceId = Id;
pub type TaskId = Id;
/// Of a secret or a config.
pub type SecretId = Id;

impl Id {
    /// Forms an identifier of exactly [`ID_LENGTH`] characters from random bytes.
    ///
    /// The top bit is forced so that the number always has 26 or more digits in
    /// base 36; the leading ones, which are not uniform, are dropped.
    pub fn from_random(mut bytes: [u8; ID_RANDOM_BYTES]) -> Self {
        bytes[0] |= 0x80;
        let digits = base36(&bytes);
        Self(digits[digits.len() - ID_LENGTH..].to_owned())
    }

    /// Takes an identifier as it was stored or sent; no check is made, because a
    /// look-up of a wrong one simply finds nothing.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The digits of a big-endian number in base 36, most significant first, without padding.
pub fn base36(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut number = bytes.to_vec();
    let mut digits = Vec::new();
    while number.iter().any(|byte| *byte != 0) {
        let mut remainder = 0u32;
        for byte in &mut number {
            let value = remainder * 256 + u32::from(*byte);
            *byte = (value / 36) as u8;
            remainder = value % 36;
        }
        digits.push(DIGITS[remainder as usize] as char);
    }
    digits.iter().rev().collect()
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Id {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for Id {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl AsRef<str> for Id {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Id {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A container's identifier: 64 lower-case hex characters; the first 12 are what people see.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct ContainerId(String);

impl ContainerId {
    pub fn from_random(bytes: [u8; 32]) -> Self {
        use fmt::Write as _;
        let mut text = String::with_capacity(64);
        for byte in bytes {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }

    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_25_characters_whatever_the_randomness() {
        for fill in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let id = Id::from_random([fill; ID_RANDOM_BYTES]);
            assert_eq!(id.as_str().len(), ID_LENGTH, "{fill:#x}");
            assert!(
                id.as_str()
                    .bytes()
                    .all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
            );
        }
    }

    #[test]
    fn base36_counts() {
        for (bytes, digits) in [
            (&[35u8][..], "z"),
            (&[36], "10"),
            (&[1, 0], "74"),
            (&[0], ""),
        ] {
            assert_eq!(base36(bytes), digits);
        }
    }

    #[test]
    fn container_ids_are_hex_and_shorten() {
        let id = ContainerId::from_random([0xab; 32]);
        assert_eq!(id.as_str().len(), 64);
        assert_eq!(id.short(), "abababababab");
    }
}
