//! Content addresses. Only SHA-256 is taken: it is what every registry serves, and the text
//! becomes a file name, so nothing but 64 lower-case hex digits may pass.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// `sha256:` and 64 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// The text is no SHA-256 digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no digest: it must be sha256: and 64 lower-case hex digits")]
pub struct BadDigest(pub String);

const PREFIX: &str = "sha256:";

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self::finish(Sha256::new_with_prefix(bytes))
    }

    /// The digest a hasher has come to.
    pub fn finish(hasher: Sha256) -> Self {
        Self(format!("{PREFIX}{}", hex::encode(hasher.finalize())))
    }

    /// The 64 hex digits.
    pub fn hex(&self) -> &str {
        &self.0[PREFIX.len()..]
    }

    /// The first twelve hex digits, as people see ids.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }

    /// With `sha256:` in front.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of a stack of layers: the lowest layer's is its diff id, each further one hashes
    /// the id below, a space and its diff id (OCI image spec, config.md, "Layer ChainID").
    pub fn chain(parent: Option<&Self>, diff: &Self) -> Self {
        match parent {
            None => diff.clone(),
            Some(parent) => Self::of(format!("{parent} {diff}")),
        }
    }
}

impl FromStr for Digest {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<Self, BadDigest> {
        let good = text.strip_prefix(PREFIX).is_some_and(|hex| {
            hex.len() == 64
                && hex
                    .bytes()
                    .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        });
        if good {
            Ok(Self(text.into()))
        } else {
            Err(BadDigest(text.into()))
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = BadDigest;

    fn try_from(text: String) -> Result<Self, BadDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lower_case_sha256_passes() {
        let hex = "0123456789abcdef".repeat(4);
        for (text, good) in [
            (format!("sha256:{hex}"), true),
            (format!("sha256:{}", hex.to_uppercase()), false),
            (format!("sha512:{hex}"), false),
            (format!("sha256:{}", &hex[1..]), false),
            ("sha256:../../../../etc/passwd".into(), false),
            (hex, false),
            (String::new(), false),
        ] {
            assert_eq!(text.parse::<Digest>().is_ok(), good, "{text}");
        }
    }

    #[test]
    fn chain_ids_follow_the_specification() {
        let (a, b) = (Digest::of("a"), Digest::of("b"));
        assert_eq!(Digest::chain(None, &a), a);
        assert_eq!(Digest::chain(Some(&a), &b), Digest::of(format!("{a} {b}")));
    }
}
