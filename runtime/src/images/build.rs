//! Images made by hand, without a daemon: a configuration and layers, pushed to a registry or
//! put into a store.

use std::path::Path;

use model::Refusal;
use oci_spec::image::ImageConfiguration;

use super::{Auth, Digest, Image, ImageStore, Reference};

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
        }
    }

    /// For the layers added from now on.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// A layer of everything below a directory, owned by root.
    pub fn layer_from_dir(self, directory: impl AsRef<Path>) -> Result<Self, Refusal> {
        todo!()
    }

    /// A layer of these files, owned by root; missing directories are made with mode 0755.
    pub fn layer_from_files(
        self,
        files: impl IntoIterator<Item = LayerFile>,
    ) -> Result<Self, Refusal> {
        todo!()
    }

    /// A layer that is ready as an uncompressed tar.
    pub fn layer_from_tar(self, tar: impl Into<Vec<u8>>) -> Result<Self, Refusal> {
        todo!()
    }

    /// Puts the image into a store under a name.
    pub async fn store(self, store: &ImageStore, name: &Reference) -> Result<Image, Refusal> {
        todo!()
    }

    /// Sends the image straight to a registry, over plain http when `insecure`; gives the
    /// manifest's digest.
    pub async fn push(
        self,
        name: &Reference,
        auth: Option<&Auth>,
        insecure: bool,
    ) -> Result<Digest, Refusal> {
        todo!()
    }
}
