//! Why a request was not carried out, in one sentence for the person who made it.

use serde::{Deserialize, Serialize};

/// A refusal names the thing, the reason and the way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub kind: RefusalKind,
    pub message: String,
}

/// What class of refusal it is; the HTTP edge maps each to Docker's status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalKind {
    /// The request itself is wrong (400).
    Invalid,
    /// The credentials are missing or wrong (401).
    Unauthorized,
    /// The request is understood and not allowed (403).
    Forbidden,
    /// The object does not exist (404).
    NotFound,
    /// The object exists already, or is in use (409).
    Conflict,
    /// The version named is not the current one (500 in Docker).
    OutOfSequence,
    /// Something broke on our side (500).
    Internal,
    /// The feature is not there (501).
    NotImplemented,
    /// Not now: no manager, no leader, locked, not a swarm member (503).
    Unavailable,
}

macro_rules! constructors {
    ($($name:ident => $kind:ident),* $(,)?) => {
        impl Refusal {
            $(pub fn $name(message: impl Into<String>) -> Self {
                Self { kind: RefusalKind::$kind, message: message.into() }
            })*
        }
    };
}

constructors! {
    invalid => Invalid,
    unauthorized => Unauthorized,
    forbidden => Forbidden,
    not_found => NotFound,
    conflict => Conflict,
    out_of_sequence => OutOfSequence,
    internal => Internal,
    not_implemented => NotImplemented,
    unavailable => Unavailable,
}

impl RefusalKind {
    /// Docker's HTTP status code for the class.
    pub fn status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::OutOfSequence | Self::Internal => 500,
            Self::NotImplemented => 501,
            Self::Unavailable => 503,
        }
    }
}
