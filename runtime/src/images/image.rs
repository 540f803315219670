//! What the store hands out about an image.

use std::path::PathBuf;

use bytes::Bytes;
use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};

use super::{digest::Digest, reference::Reference};

/// An image that is complete on this host.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of the configuration, as Docker's image id.
    pub id: Digest,
    pub config: ImageConfiguration,
    /// The configuration byte for byte, with fields OCI does not know (`Healthcheck`, ...).
    pub raw_config: Bytes,
    /// Directories for overlayfs `lowerdir`, **lowest first** (overlayfs wants them reversed).
    /// They are read-only by agreement and stay only while the image exists or a [`Pin`] is
    /// held.
    ///
    /// [`Pin`]: super::Pin
    pub layers: Vec<PathBuf>,
    /// Short form, sorted: `busybox:latest`.
    pub repo_tags: Vec<String>,
    /// Short form, sorted: `busybox@sha256:...`.
    pub repo_digests: Vec<String>,
    /// Bytes of the layers when unpacked (sum of their files).
    pub size: u64,
    /// RFC 3339, as in the configuration; empty when it names none.
    pub created: String,
    /// Unix seconds of the last tagging on this host; 0 when never tagged.
    pub last_tagged: i64,
    /// The manifest a push would send: the registry's own, or one made when the image was
    /// loaded or built.
    pub manifest: Digest,
}

impl Image {
    /// Unix seconds of [`Image::created`]; 0 when it names none.
    pub fn created_at(&self) -> i64 {
        super::seconds(&self.created)
    }
}

/// One line of `docker history`; shaped as Docker's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HistoryEntry {
    /// The image id on the top line, `<missing>` on the others.
    pub id: String,
    /// Unix seconds.
    pub created: i64,
    pub created_by: String,
    pub tags: Option<Vec<String>>,
    pub size: u64,
    pub comment: String,
}

/// One line of the answer of a removal; serialised as Docker's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Removed {
    /// A name that no longer leads anywhere.
    Untagged(String),
    /// An image id, or the chain id of a layer nobody needed any more.
    Deleted(String),
}

/// Who uses an image, as the container engine knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// Short container id.
    pub container: String,
    /// A running container keeps its image even against force.
    pub running: bool,
}

/// What a prune took away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    pub removed: Vec<Removed>,
    /// Bytes freed on disk.
    pub reclaimed: u64,
}

/// What a registry says about a name; shaped as Docker's `/distribution/{name}/json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Distribution {
    pub descriptor: Descriptor,
    pub platforms: Vec<Platform>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Descriptor {
    #[serde(rename = "mediaType")]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    pub architecture: String,
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Credentials for one registry.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Auth {
    Basic {
        username: String,
        password: String,
    },
    /// A ready bearer token (Docker's `registrytoken`).
    Bearer(String),
}

impl std::fmt::Debug for Auth {
    /// Secrets stay out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Basic { username, .. } => write!(f, "Auth::Basic({username})"),
            Self::Bearer(_) => f.write_str("Auth::Bearer"),
        }
    }
}

/// What a `load` or an import brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    pub id: Digest,
    pub names: Vec<Reference>,
}

/// Joins a configuration's history, lowest first, with the sizes of the layers, lowest first.
/// Lines marked empty have no layer; layers without a line get one.
pub(super) fn history(image: &Image, sizes: &[u64]) -> Vec<HistoryEntry> {
    let mut sizes = sizes.iter().copied();
    let mut lines: Vec<_> = image
        .config
        .history()
        .iter()
        .flatten()
        .map(|line| HistoryEntry {
            id: MISSING.into(),
            created: line.created().as_deref().map_or(0, super::seconds),
            created_by: line.created_by().clone().unwrap_or_default(),
            tags: None,
            size: if line.empty_layer() == Some(true) {
                0
            } else {
                sizes.next().unwrap_or(0)
            },
            comment: line.comment().clone().unwrap_or_default(),
        })
        .collect();
    lines.extend(sizes.map(|size| HistoryEntry {
        id: MISSING.into(),
        created: super::seconds(&image.created),
        created_by: String::new(),
        tags: None,
        size,
        comment: String::new(),
    }));
    lines.reverse();
    if let Some(top) = lines.first_mut() {
        top.id = image.id.to_string();
        top.tags = (!image.repo_tags.is_empty()).then(|| image.repo_tags.clone());
    }
    lines
}

const MISSING: &str = "<missing>";
