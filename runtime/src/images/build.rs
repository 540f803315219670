//! Images made by hand, without a daemon: a configuration and layers, pushed to a registry or
//! put into a store.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::Path,
};

use flate2::write::GzEncoder;
use model::Refusal;
use oci_client::RegistryOperation;
use oci_spec::image::ImageConfiguration;

use super::{
    Auth, Config, Digest, Image, ImageStore, Progress, Reference,
    load::{Parts, fill_rootfs, keep_bytes},
    manifest::{
        OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, OCI_MANIFEST, Pointer, compose,
    },
    registry::Registry,
};

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    None,
    #[default]
    Gzip,
    Zstd,
}

/// Collects layers in memory; meant for small images.
#[derive(Debug, Clone)]
pub struct ImageBuilder {
    config: ImageConfiguration,
    compression: Compression,
    layers: Vec<Layer>,
}

#[derive(Debug, Clone)]
struct Layer {
    diff_id: Digest,
    packed: Vec<u8>,
    media_type: &'static str,
}

/// One file of a layer made from a list.
#[derive(Debug, Clone)]
pub struct LayerFile {
    /// Relative to the root of the image.
    pub path: String,
    pub bytes: Vec<u8>,
    /// Permission bits, for example 0o755.
    pub mode: u32,
}

impl ImageBuilder {
    /// Starts from a configuration; its `rootfs` is filled in from the layers.
    pub fn new(config: ImageConfiguration) -> Self {
        Self {
            config,
            compression: Compression::default(),
            layers: Vec::new(),
        }
    }

    /// For the layers added from now on.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// A layer of everything below a directory, with links, modes and times as they are there,
    /// owned by root.
    pub fn layer_from_dir(self, directory: impl AsRef<Path>) -> Result<Self, Refusal> {
        let directory = directory.as_ref();
        let make = || {
            let mut tar = tar::Builder::new(Vec::new());
            tar.follow_symlinks(false);
            append_below(&mut tar, directory, Path::new(""))?;
            tar.into_inner()
        };
        let tar = make().map_err(|error: io::Error| {
            Refusal::invalid(format!(
                "no layer can be made of {}: {error}",
                directory.display()
            ))
        })?;
        self.layer_from_tar(tar)
    }

    /// A layer of these files, owned by root; missing directories are made with mode 0755.
    pub fn layer_from_files(
        self,
        files: impl IntoIterator<Item = LayerFile>,
    ) -> Result<Self, Refusal> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut made = BTreeSet::new();
        for file in files {
            let mut append = || {
                let path = Path::new(file.path.trim_start_matches('/'));
                let above: Vec<_> = path
                    .ancestors()
                    .skip(1)
                    .filter(|p| !p.as_os_str().is_empty())
                    .collect();
                for directory in above.into_iter().rev() {
                    if made.insert(directory.to_owned()) {
                        let mut header = header(tar::EntryType::Directory, 0o755);
                        tar.append_data(&mut header, directory, io::empty())?;
                    }
                }
                let mut header = header(tar::EntryType::Regular, file.mode);
                header.set_size(file.bytes.len() as u64);
                tar.append_data(&mut header, path, file.bytes.as_slice())
            };
            append().map_err(|error| {
                Refusal::invalid(format!("{} cannot be put into a layer: {error}", file.path))
            })?;
        }
        let tar = tar
            .into_inner()
            .map_err(|e| Refusal::internal(format!("a layer: {e}")))?;
        self.layer_from_tar(tar)
    }

    /// A layer that is ready as an uncompressed tar.
    pub fn layer_from_tar(mut self, tar: impl Into<Vec<u8>>) -> Result<Self, Refusal> {
        let tar = tar.into();
        let diff_id = Digest::of(&tar);
        let packed = match self.compression {
            Compression::None => Ok((tar, OCI_LAYER)),
            Compression::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
                let packed = encoder.write_all(&tar).and_then(|()| encoder.finish());
                packed.map(|packed| (packed, OCI_LAYER_GZIP))
            }
            Compression::Zstd => zstd::encode_all(tar.as_slice(), 0).map(|p| (p, OCI_LAYER_ZSTD)),
        };
        let (packed, media_type) =
            packed.map_err(|error| Refusal::internal(format!("a layer: {error}")))?;
        self.layers.push(Layer {
            diff_id,
            packed,
            media_type,
        });
        Ok(self)
    }

    /// Puts the image into a store under a name.
    pub async fn store(self, store: &ImageStore, name: &Reference) -> Result<Image, Refusal> {
        let config = self.finished_config()?;
        let mut parts = Parts {
            config,
            layers: Vec::new(),
            manifest: None,
            pins: Vec::new(),
        };
        for layer in &self.layers {
            let (pointer, pin) = keep_bytes(&store.inner.files, &layer.packed, layer.media_type)
                .map_err(|error| Refusal::internal(format!("a layer cannot be kept: {error}")))?;
            parts.layers.push(pointer);
            parts.pins.push(pin);
        }
        let names = [name.clone().or_latest()];
        let id = store
            .inner
            .assemble(parts, &names, &Progress::none())
            .await?;
        store.resolve(id.as_str())
    }

    /// Sends the image straight to a registry, over plain http when `insecure` and it speaks
    /// no TLS; gives the manifest's digest.
    pub async fn push(
        self,
        name: &Reference,
        auth: Option<&Auth>,
        insecure: bool,
    ) -> Result<Digest, Refusal> {
        let config = self.finished_config()?;
        let mut trust = Config::new("");
        if insecure {
            trust.insecure_registries.push(name.registry().into());
        }
        let registry = Registry::connect(&trust, &name.clone().or_latest(), auth).await?;
        registry.authenticate(RegistryOperation::Push).await?;
        let mut pointers = Vec::new();
        let layers = self
            .layers
            .into_iter()
            .map(|layer| (layer.packed, layer.media_type));
        for (bytes, media_type) in layers.chain([(config, OCI_CONFIG)]) {
            let pointer = Pointer {
                media_type: media_type.into(),
                digest: Digest::of(&bytes),
                size: bytes.len() as u64,
            };
            registry.put_blob(bytes, &pointer.digest).await?;
            pointers.push(pointer);
        }
        let config = pointers
            .pop()
            .expect("the configuration was chained to the layers above");
        let manifest = compose(&config, &pointers);
        let digest = Digest::of(&manifest);
        registry.put_manifest(manifest, OCI_MANIFEST).await?;
        Ok(digest)
    }

    fn finished_config(&self) -> Result<Vec<u8>, Refusal> {
        let mut config = self.config.clone();
        let diff_ids: Vec<_> = self
            .layers
            .iter()
            .map(|layer| layer.diff_id.clone())
            .collect();
        fill_rootfs(&mut config, &diff_ids)?;
        serde_json::to_vec(&config)
            .map_err(|error| Refusal::invalid(format!("the image's configuration: {error}")))
    }
}

fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// Entries in the order of their names, so that equal directories make equal layers.
fn append_below(
    tar: &mut tar::Builder<Vec<u8>>,
    directory: &Path,
    inside: &Path,
) -> io::Result<()> {
    let mut entries = std::fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), inside.join(entry.file_name()));
        let found = entry.metadata()?;
        let mut header = tar::Header::new_gnu();
        header.set_metadata_in_mode(&found, tar::HeaderMode::Complete);
        header.set_uid(0);
        header.set_gid(0);
        if found.is_dir() {
            tar.append_data(&mut header, &name, io::empty())?;
            append_below(tar, &path, &name)?;
        } else if found.is_symlink() {
            tar.append_link(&mut header, &name, std::fs::read_link(&path)?)?;
        } else if found.is_file() {
            tar.append_data(&mut header, &name, std::fs::File::open(&path)?)?;
        } else {
            header.set_cksum();
            tar.append_data(&mut header, &name, io::empty())?;
        }
    }
    Ok(())
}
