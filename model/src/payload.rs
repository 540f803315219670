//! Secrets and configs: immutable content that containers get as files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Meta, SecretId, task::Driver};

/// A secret's content is smaller than this, in bytes.
pub const SECRET_LIMIT: usize = 500 * 1024;
/// A config's content is smaller than this, in bytes.
pub const CONFIG_LIMIT: usize = 1000 * 1024;

/// Which of the two it is; they differ in where they are laid and who may read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PayloadKind {
    Secret,
    Config,
}

impl PayloadKind {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Config => "config",
        }
    }

    /// Content is smaller than this, in bytes.
    pub fn limit(self) -> usize {
        match self {
            Self::Secret => SECRET_LIMIT,
            Self::Config => CONFIG_LIMIT,
        }
    }
}

/// A secret or config as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    pub id: SecretId,
    pub meta: Meta,
    pub kind: PayloadKind,
    pub spec: PayloadSpec,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct PayloadSpec {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub data: Content,
    pub driver: Option<Driver>,
    /// `golang`, or absent.
    pub templating: Option<Driver>,
}

/// Bytes that are not printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Content(#[serde(with = "serde_bytes")] pub Vec<u8>);

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}
