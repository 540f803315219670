//! The cluster's certificate authority: root, node certificates, join tokens.

mod authority;
mod identity;
mod read;
mod rotation;
mod token;

pub use authority::{Authority, Subject};
pub use identity::{Identity, Member, certificate_request, member_of, request_with};
pub use rotation::{announced, begin, finish, waiting};
pub use token::{Token, new_tokens, root_digest};

/// Why a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("a certificate could not be made: {0}")]
    Make(#[from] rcgen::Error),
    #[error("a certificate cannot be read: {0}")]
    Read(String),
    #[error("{0}")]
    Root(String),
    #[error("the certificate names no member of a cluster: {0}")]
    NoMember(String),
}
