//! Join tokens: `SWMTKN-1-<digest of the root certificate>-<secret>`, both base 36.
//!
//! The digest lets a newcomer know the right cluster before it says the secret.

use model::{Refusal, id::base36};
use rand::Rng as _;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use sha2::{Digest as _, Sha256};

const PREFIX: &str = "SWMTKN-1-";
const DIGEST_LENGTH: usize = 50;
const SECRET_LENGTH: usize = 25;

/// A token taken apart.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub digest: String,
    pub secret: String,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({})", self.digest)
    }
}

impl Token {
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let wrong = || {
            Refusal::invalid(
                "invalid join token: it has to look like SWMTKN-1-…-…; ask a manager for it with `ovnctl swarm join-token worker`",
            )
        };
        let rest = text.trim().strip_prefix(PREFIX).ok_or_else(wrong)?;
        let (digest, secret) = rest.split_once('-').ok_or_else(wrong)?;
        let base36 = |part: &str| {
            part.bytes()
                .all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
        };
        let lengths = digest.len() == DIGEST_LENGTH && secret.len() == SECRET_LENGTH;
        if !lengths || !base36(digest) || !base36(secret) {
            return Err(wrong());
        }
        Ok(Self {
            digest: digest.to_owned(),
            secret: secret.to_owned(),
        })
    }

    /// Compares without telling by its time how much was right.
    pub fn equals(&self, other: &str) -> bool {
        let own = Sha256::digest(self.to_string());
        let other = Sha256::digest(other);
        own == other
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{PREFIX}{}-{}", self.digest, self.secret)
    }
}

/// 50 characters: SHA-256 of the root certificate's DER form. There must be no other certificate
/// beside it, because the digest would not vouch for that one.
pub fn root_digest(root_pem: &str) -> Result<String, super::CaError> {
    let mut all = CertificateDer::pem_slice_iter(root_pem.as_bytes());
    let root = all
        .next()
        .ok_or_else(|| super::CaError::Read("there is no certificate".to_owned()))?
        .map_err(|error| super::CaError::Read(error.to_string()))?;
    if all.next().is_some() {
        return Err(super::CaError::Read(
            "there is more than one root certificate".to_owned(),
        ));
    }
    Ok(padded(&Sha256::digest(&root), DIGEST_LENGTH))
}

/// Makes tokens for newcomers to whom this root is shown.
pub fn new_tokens(root_pem: &str) -> Result<impl Fn() -> String + use<>, super::CaError> {
    let digest = root_digest(root_pem)?;
    Ok(move || {
        Token {
            digest: digest.clone(),
            secret: new_secret(),
        }
        .to_string()
    })
}

/// 25 characters that hold 128 random bits.
pub fn new_secret() -> String {
    let bytes: [u8; 16] = rand::rng().random();
    padded(&bytes, SECRET_LENGTH)
}

fn padded(bytes: &[u8], length: usize) -> String {
    format!("{:0>length$}", base36(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_strictly() {
        let good = Token {
            digest: "a".repeat(50),
            secret: new_secret(),
        };
        let text = good.to_string();
        assert_eq!(Token::parse(&text).expect("good"), good);
        assert!(good.equals(&text));
        for wrong in [
            String::new(),
            "SWMTKN-1-".to_owned(),
            text.replace("SWMTKN-1", "SWMTKN-2"),
            text[..text.len() - 1].to_owned(),
            text.to_uppercase(),
            format!("{text}-x"),
        ] {
            let refused = Token::parse(&wrong).expect_err(&wrong);
            assert!(refused.message.contains("join token"), "{refused}");
            assert!(!good.equals(&wrong));
        }
    }

    #[test]
    fn a_digest_vouches_for_one_certificate() {
        let root = || {
            let made = crate::ca::Authority::create(time::OffsetDateTime::now_utc());
            made.expect("a root").root_pem().to_owned()
        };
        let (own, other) = (root(), root());
        assert_eq!(root_digest(&own).expect("read").len(), DIGEST_LENGTH);
        assert!(root_digest(&format!("{own}{other}")).is_err());
        assert!(root_digest("").is_err());
    }

    #[test]
    fn digests_and_secrets_keep_their_length() {
        assert_eq!(padded(&[0; 32], 50).len(), 50);
        assert_eq!(padded(&[0xff; 32], 50).len(), 50);
        assert_eq!(padded(&[0xff; 16], 25).len(), 25);
        assert_eq!(new_secret().len(), 25);
        assert_ne!(new_secret(), new_secret());
    }
}
