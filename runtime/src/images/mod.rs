//! Images of one host: pulled, unpacked, named, handed to containers as layer directories.
//!
//! On disk, under [`Config::root`]:
//!
//! | path | what | becomes true by |
//! | --- | --- | --- |
//! | `lock` | held while the store is open | `flock` |
//! | `blobs/sha256/HEX` | manifests, configurations, layers as the registry sent them | rename |
//! | `partial/HEX` | the begun download of a layer, resumed by the next pull | append |
//! | `layers/CHAIN/diff` | an unpacked layer, ready as an overlayfs lower directory | rename of `layers/CHAIN` |
//! | `layers/CHAIN/layer.json` | its diff id and sizes | same rename |
//! | `catalog.json` | which images there are and what they are called | rename |
//! | `tmp/*` | work in progress; emptied on open | - |
//!
//! Order of writing: blobs, layers, catalogue. Whatever dies in between leaves whole blobs and
//! whole layers that nothing names; the next pull uses them, a removal or prune takes them.
//! Compressed blobs are kept beside the unpacked layers, so that a push or save gives back the
//! very digests that were pulled (gzip and zstd cannot be re-created bit for bit).

pub mod build;
pub mod digest;
pub mod event;
pub mod image;
pub mod reference;

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use model::Refusal;

pub use build::ImageBuilder;
pub use digest::Digest;
pub use event::{Progress, ProgressDetail, PullEvent};
pub use image::{
    Auth, Descriptor, Distribution, HistoryEntry, Image, Loaded, Platform, Pruned, Removed, Use,
};
pub use reference::Reference;

/// Where a store lives and whom it trusts.
#[derive(Debug, Clone)]
pub struct Config {
    /// For example `/var/lib/overnet/images`; made when missing, mode 0700.
    pub root: PathBuf,
    /// `host` or `host:port` that may speak plain http or show any certificate.
    /// Loopback addresses are always taken so, as Docker does.
    pub insecure_registries: Vec<String>,
    /// Private authorities: `CERTS/HOST[:PORT]/*.crt` in PEM, laid out as Docker's
    /// `/etc/docker/certs.d`.
    pub certs: PathBuf,
}

impl Config {
    /// A store under `root` that trusts what the host trusts.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            insecure_registries: Vec::new(),
            certs: "/etc/overnet/certs.d".into(),
        }
    }
}

/// The images of this host. Cheap to clone; all methods may be called at once.
#[derive(Clone)]
pub struct ImageStore {
    inner: Arc<()>,
}

/// A stream of bytes as HTTP bodies and files give them.
pub type ByteStream = BoxStream<'static, std::io::Result<Bytes>>;

/// Keeps layers on disk, whatever happens to the images that brought them, until dropped.
#[derive(Debug)]
pub struct Pin {}

impl ImageStore {
    /// Opens (or makes) a store and clears what a killed predecessor left half done. One
    /// process at a time.
    pub fn open(config: Config) -> Result<Self, Refusal> {
        todo!()
    }

    /// Brings an image from its registry: manifest, configuration and layers are checked
    /// against their digests, then named. A name without tag and digest means `latest`.
    /// Cancel-safe: a dropped pull leaves nothing but a part to resume from.
    pub async fn pull(
        &self,
        reference: &Reference,
        auth: Option<&Auth>,
        progress: &Progress,
    ) -> Result<Image, Refusal> {
        todo!()
    }

    /// Finds an image by id (with or without `sha256:`), unique id prefix, name, name with tag
    /// or name with digest.
    pub fn resolve(&self, name_or_id: &str) -> Result<Image, Refusal> {
        todo!()
    }

    /// All images, newest first.
    pub fn list(&self) -> Vec<Image> {
        todo!()
    }

    /// Keeps these layers (as in [`Image::layers`]) until the pin is dropped. Take it before
    /// the image could go, and again for every container found after a restart: nothing is
    /// collected before the first removal.
    pub fn pin(&self, layers: &[PathBuf]) -> Result<Pin, Refusal> {
        todo!()
    }

    /// Takes a name away, and the image with its last name. `in_use` tells for an image id
    /// which containers stand on it.
    pub async fn remove(
        &self,
        name_or_id: &str,
        force: bool,
        in_use: &(dyn Fn(&Digest) -> Vec<Use> + Send + Sync),
    ) -> Result<Vec<Removed>, Refusal> {
        todo!()
    }

    /// Removes images without a tag (`dangling_only`) or all that no container uses, then every
    /// blob and layer nothing names.
    pub async fn prune(
        &self,
        dangling_only: bool,
        keep: &(dyn Fn(&Image) -> bool + Send + Sync),
        in_use: &(dyn Fn(&Digest) -> Vec<Use> + Send + Sync),
    ) -> Result<Pruned, Refusal> {
        todo!()
    }

    /// Gives an image one more name; the name's former image loses it.
    pub fn tag(&self, name_or_id: &str, name: &Reference) -> Result<(), Refusal> {
        todo!()
    }

    /// Lines of `docker history`, newest first.
    pub fn history(&self, name_or_id: &str) -> Result<Vec<HistoryEntry>, Refusal> {
        todo!()
    }

    /// Sends an image to its registry under this name; gives the manifest's digest.
    pub async fn push(
        &self,
        reference: &Reference,
        auth: Option<&Auth>,
        progress: &Progress,
    ) -> Result<Digest, Refusal> {
        todo!()
    }

    /// Images as one tar that is a docker-archive and an OCI layout at once.
    pub fn save(&self, names: &[String]) -> Result<ByteStream, Refusal> {
        todo!()
    }

    /// Takes in a docker-archive or OCI layout, plain or compressed.
    pub async fn load(
        &self,
        archive: ByteStream,
        progress: &Progress,
    ) -> Result<Vec<Loaded>, Refusal> {
        todo!()
    }

    /// Asks the registry what a name means, without pulling.
    pub async fn distribution(
        &self,
        reference: &Reference,
        auth: Option<&Auth>,
    ) -> Result<Distribution, Refusal> {
        todo!()
    }

    /// Checks credentials against a registry (`docker login`).
    pub async fn login(&self, registry: &str, auth: &Auth) -> Result<(), Refusal> {
        todo!()
    }
}
