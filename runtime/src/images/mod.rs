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
mod catalog;
pub mod digest;
pub mod event;
mod files;
pub mod image;
mod load;
mod manifest;
mod pull;
mod push;
pub mod reference;
mod registry;
mod save;
pub mod unpack;

use std::{
    fs::File,
    io,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use model::Refusal;
use nix::fcntl::{Flock, FlockArg};
use oci_client::RegistryOperation;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tracing::warn;

use self::{
    catalog::{Catalog, Record},
    files::{Files, write_atomically},
    registry::Registry,
};

pub use build::{Compression, ImageBuilder, LayerFile};
pub use digest::Digest;
pub use event::{Progress, ProgressDetail, PullEvent};
pub use files::Pin;
pub use image::{
    Auth, Descriptor, Distribution, HistoryEntry, Image, Loaded, Platform, Pruned, Removed, Use,
};
pub use oci_spec::image::ImageConfiguration;
pub use reference::Reference;

/// Where a store lives and whom it trusts.
#[derive(Debug, Clone)]
pub struct Config {
    /// For example `/var/lib/overnet/images`; made when missing, mode 0700.
    pub root: PathBuf,
    /// `host` or `host:port` that may speak plain http or show any certificate.
    /// Loopback addresses are always taken so, as Docker does.
    pub insecure_registries: Vec<String>,
    /// Who is asked for names without a registry, in place of Docker Hub.
    pub default_registry: Option<String>,
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
            default_registry: None,
            certs: "/etc/overnet/certs.d".into(),
        }
    }
}

/// The images of this host. Cheap to clone; all methods may be called at once.
#[derive(Clone)]
pub struct ImageStore {
    inner: Arc<Inner>,
}

/// A stream of bytes as HTTP bodies and files give them.
pub type ByteStream = BoxStream<'static, io::Result<Bytes>>;

struct Inner {
    config: Config,
    files: Arc<Files>,
    catalog: Mutex<Catalog>,
    _lock: Flock<File>,
}

impl ImageStore {
    /// Opens (or makes) a store and clears what a killed predecessor left half done. One
    /// process at a time.
    pub fn open(config: Config) -> Result<Self, Refusal> {
        let root = config.root.display().to_string();
        let failed = |error: &dyn std::fmt::Display| {
            Refusal::internal(format!("the image store {root} cannot be opened: {error}"))
        };
        std::fs::create_dir_all(&config.root).map_err(|e| failed(&e))?;
        let lock = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(config.root.join("lock"))
            .map_err(|e| failed(&e))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
            failed(&format!(
                "another process holds it ({errno}); stop that one or choose another root"
            ))
        })?;
        let files = Files::open(&config.root).map_err(|e| failed(&e))?;
        let path = config.root.join("catalog.json");
        let catalog = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                failed(&format!(
                    "{} is damaged ({error}); move it away and pull the images again",
                    path.display()
                ))
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Catalog::default(),
            Err(error) => return Err(failed(&error)),
        };
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                files: Arc::new(files),
                catalog: Mutex::new(catalog),
                _lock: lock,
            }),
        })
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
        let id = self.inner.pull(reference, auth, progress).await?;
        self.resolve(id.as_str())
    }

    /// Finds an image by id (with or without `sha256:`), unique id prefix, name, name with tag
    /// or name with digest.
    pub fn resolve(&self, name_or_id: &str) -> Result<Image, Refusal> {
        let catalog = self.inner.catalog();
        let id = catalog.find(name_or_id)?.id().clone();
        self.inner.image(&catalog, &id)
    }

    /// All images, newest first. One that cannot be read is left out and logged.
    pub fn list(&self) -> Vec<Image> {
        let catalog = self.inner.catalog();
        let read = |id| match self.inner.image(&catalog, id) {
            Ok(image) => Some(image),
            Err(refusal) => {
                warn!(%id, %refusal, "image left out of the list");
                None
            }
        };
        let mut images: Vec<_> = catalog.images.keys().filter_map(read).collect();
        images.sort_by_key(|image| std::cmp::Reverse(seconds(&image.created)));
        images
    }

    /// Keeps these layers (as in [`Image::layers`]) until the pin is dropped. Take it before
    /// the image could go, and again for every container found after a restart: nothing is
    /// collected before the first removal.
    pub fn pin(&self, layers: &[PathBuf]) -> Result<Pin, Refusal> {
        let chains: Option<Vec<_>> = layers
            .iter()
            .map(|dir| self.inner.files.chain_of(dir))
            .collect();
        let chains = chains.ok_or_else(|| {
            Refusal::invalid(format!(
                "{layers:?} are no layers of {}",
                self.inner.config.root.display()
            ))
        })?;
        let pin = self.inner.files.pin(chains);
        match layers.iter().find(|layer| !layer.is_dir()) {
            None => Ok(pin),
            Some(gone) => Err(Refusal::not_found(format!(
                "layer {} is gone; pull its image again",
                gone.display()
            ))),
        }
    }

    /// Takes a name away, and the image with its last name. `in_use` tells for an image id
    /// which containers stand on it.
    pub async fn remove(
        &self,
        name_or_id: &str,
        force: bool,
        in_use: &(dyn Fn(&Digest) -> Vec<Use> + Send + Sync),
    ) -> Result<Vec<Removed>, Refusal> {
        let mut lines = self
            .inner
            .change(|catalog| catalog.remove(name_or_id, force, &|id| in_use(id)))?;
        if lines.iter().any(|line| matches!(line, Removed::Deleted(_))) {
            lines.extend(self.inner.collect().await?.removed);
        }
        Ok(lines)
    }

    /// Removes images without a tag (`dangling_only`) or all that no container uses, then every
    /// blob and layer nothing names. Images that `keep` holds back stay.
    pub async fn prune(
        &self,
        dangling_only: bool,
        keep: &(dyn Fn(&Image) -> bool + Send + Sync),
        in_use: &(dyn Fn(&Digest) -> Vec<Use> + Send + Sync),
    ) -> Result<Pruned, Refusal> {
        let victims: Vec<_> = self
            .list()
            .into_iter()
            .filter(|image| !dangling_only || image.repo_tags.is_empty())
            .filter(|image| !keep(image) && in_use(&image.id).is_empty())
            .map(|image| image.id)
            .collect();
        let mut pruned = Pruned::default();
        for id in victims {
            let removed = self
                .inner
                .change(|catalog| catalog.remove(id.as_str(), true, &|id| in_use(id)));
            match removed {
                Ok(lines) => pruned.removed.extend(lines),
                // A container took it, or somebody else removed it, a moment ago.
                Err(refusal) => warn!(%id, %refusal, "image not pruned"),
            }
        }
        let collected = self.inner.collect().await?;
        pruned.removed.extend(collected.removed);
        pruned.reclaimed = collected.reclaimed;
        Ok(pruned)
    }

    /// Gives an image one more name; the name's former image loses it.
    pub fn tag(&self, name_or_id: &str, name: &Reference) -> Result<(), Refusal> {
        if name.digest().is_some() {
            return Err(Refusal::invalid(
                "refusing to create a tag with a digest reference",
            ));
        }
        self.inner.change(|catalog| {
            let id = catalog.find(name_or_id)?.id().clone();
            catalog.name(&name.clone().or_latest(), &id);
            if let Some(record) = catalog.images.get_mut(&id) {
                record.last_tagged = now();
            }
            Ok(())
        })
    }

    /// Lines of `docker history`, newest first.
    pub fn history(&self, name_or_id: &str) -> Result<Vec<HistoryEntry>, Refusal> {
        let image = self.resolve(name_or_id)?;
        let sizes: Vec<_> = image
            .layers
            .iter()
            .filter_map(|dir| self.inner.files.chain_of(dir))
            .map(|chain| {
                self.inner
                    .files
                    .layer_info(&chain)
                    .map_or(0, |info| info.size)
            })
            .collect();
        Ok(image::history(&image, &sizes))
    }

    /// Sends an image to its registry under this name; gives the manifest's digest.
    pub async fn push(
        &self,
        reference: &Reference,
        auth: Option<&Auth>,
        progress: &Progress,
    ) -> Result<Digest, Refusal> {
        self.inner.push(reference, auth, progress).await
    }

    /// Images as one tar that is a docker-archive and an OCI layout at once. Ids without a
    /// name are saved nameless.
    pub fn save(&self, names: &[String]) -> Result<ByteStream, Refusal> {
        self.inner.save(names)
    }

    /// Takes in a docker-archive or OCI layout, plain or compressed.
    pub async fn load(
        &self,
        archive: ByteStream,
        progress: &Progress,
    ) -> Result<Vec<Loaded>, Refusal> {
        self.inner.load(archive, progress).await
    }

    /// Makes an image of one layer from the tar of a whole file system (`docker import`).
    pub async fn import(
        &self,
        tar: ByteStream,
        name: Option<&Reference>,
        config: ImageConfiguration,
    ) -> Result<Image, Refusal> {
        let id = self.inner.import(tar, name, config).await?;
        self.resolve(id.as_str())
    }

    /// Asks the registry what a name means, without pulling.
    pub async fn distribution(
        &self,
        reference: &Reference,
        auth: Option<&Auth>,
    ) -> Result<Distribution, Refusal> {
        self.inner.distribution(reference, auth).await
    }

    /// Checks credentials against a registry (`docker login`).
    pub async fn login(&self, registry: &str, auth: &Auth) -> Result<(), Refusal> {
        // Any name will do: only the registry's door is asked.
        let name: Reference = format!("{registry}/login:check").parse()?;
        let registry = Registry::connect(&self.inner.config, &name, Some(auth)).await?;
        registry.authenticate(RegistryOperation::Pull).await?;
        registry.knock().await
    }
}

impl Inner {
    fn catalog(&self) -> MutexGuard<'_, Catalog> {
        // Changes are made on a copy, so a panic elsewhere leaves a whole catalogue.
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the catalogue on disk first, then in memory; a refused or failed change changes
    /// nothing.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Catalog) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let mut catalog = self.catalog();
        let mut next = catalog.clone();
        let answer = change(&mut next)?;
        if next != *catalog {
            let path = self.config.root.join("catalog.json");
            serde_json::to_vec(&next)
                .map_err(io::Error::other)
                .and_then(|bytes| write_atomically(&self.files.temporary(), &path, &bytes))
                .map_err(|error| {
                    Refusal::internal(format!("{} cannot be written: {error}", path.display()))
                })?;
            *catalog = next;
        }
        Ok(answer)
    }

    /// Puts a complete image into the catalogue under these names; tells whether anything
    /// about it is new.
    fn admit(&self, id: &Digest, record: Record, names: &[Reference]) -> Result<bool, Refusal> {
        self.change(|catalog| {
            let before = catalog.clone();
            let tagged = names.iter().any(|name| name.tag().is_some());
            let old = before.images.get(id);
            let last_tagged = old.map_or(record.last_tagged, |old| old.last_tagged);
            let mut record = Record {
                last_tagged,
                ..record
            };
            for name in names {
                catalog.name(name, id);
            }
            if tagged && (catalog.tags != before.tags || old.is_none()) {
                record.last_tagged = now();
            }
            catalog.images.insert(id.clone(), record);
            Ok(*catalog != before)
        })
    }

    fn image(&self, catalog: &Catalog, id: &Digest) -> Result<Image, Refusal> {
        let broken = |reason: String| {
            Refusal::internal(format!(
                "image {} cannot be read: {reason}; pull it again",
                id.short()
            ))
        };
        let record = catalog
            .images
            .get(id)
            .ok_or_else(|| broken("it is not there".into()))?;
        let raw = self
            .files
            .read_blob(id)
            .map_err(|error| broken(error.to_string()))?;
        let config = ImageConfiguration::from_reader(raw.as_slice())
            .map_err(|error| broken(registry::chain(&error)))?;
        let shown = |names: Vec<&str>| {
            names
                .into_iter()
                .map(|n| reference::familiar(n).into())
                .collect()
        };
        Ok(Image {
            id: id.clone(),
            created: config.created().clone().unwrap_or_default(),
            config,
            raw_config: raw.into(),
            layers: record
                .layers
                .iter()
                .map(|layer| self.files.diff(&layer.chain))
                .collect(),
            repo_tags: shown(catalog.tags_of(id)),
            repo_digests: shown(catalog.digests_of(id)),
            size: record.size,
            last_tagged: record.last_tagged,
            manifest: record.manifest.clone(),
        })
    }

    fn write_blob(&self, bytes: &[u8]) -> Result<Digest, Refusal> {
        self.files.write_blob(bytes).map_err(|error| {
            Refusal::internal(format!(
                "{} cannot be written: {error}",
                self.config.root.display()
            ))
        })
    }

    /// Removes blobs and layers that nothing names.
    async fn collect(self: &Arc<Self>) -> Result<Pruned, Refusal> {
        let inner = Arc::clone(self);
        let work = tokio::task::spawn_blocking(move || {
            // The catalogue stays locked: what it names now is what is kept.
            let catalog = inner.catalog();
            let (blobs, layers) = catalog.wanted();
            inner.files.collect(&blobs, &layers)
        });
        let (layers, reclaimed) =
            work.await
                .map_err(io::Error::other)
                .flatten()
                .map_err(|error| {
                    Refusal::internal(format!("unused layers cannot be removed: {error}"))
                })?;
        let removed = layers
            .into_iter()
            .map(|chain| Removed::Deleted(chain.to_string()))
            .collect();
        Ok(Pruned { removed, reclaimed })
    }
}

/// Unix seconds.
fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Unix seconds of an RFC 3339 text; 0 for anything else.
fn seconds(text: &str) -> i64 {
    OffsetDateTime::parse(text, &Rfc3339).map_or(0, OffsetDateTime::unix_timestamp)
}
