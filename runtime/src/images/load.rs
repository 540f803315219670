//! Images from a tar: docker-archive (`manifest.json`), OCI layout (`index.json`), or the tar
//! of one file system.

mod archive;

use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    path::Path,
    sync::Arc,
};

use flate2::{Compression, write::GzEncoder};
use futures_util::TryStreamExt;
use model::Refusal;
use oci_spec::image::{ImageConfiguration, RootFsBuilder};
use tokio::sync::oneshot;
use tokio_util::io::{StreamReader, SyncIoBridge};

use self::archive::{Archive, DockerImage};
use super::{
    ByteStream, Inner,
    catalog::{LayerRecord, Record},
    digest::Digest,
    event::{Progress, PullEvent},
    files::{Files, Pin, Scratch},
    image::Loaded,
    manifest::{
        self, OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, OCI_MANIFEST, Parsed, Pointer,
    },
    pull::{chains, diff_ids},
    reference::Reference,
    unpack::{Counted, Pack, decompress, packing},
};

/// The parts of an image that lie in the store as blobs, held until the catalogue names them.
pub(super) struct Parts {
    pub config: Vec<u8>,
    pub layers: Vec<Pointer>,
    /// Byte for byte with its media type; one is made when absent.
    pub manifest: Option<(Vec<u8>, String)>,
    pub pins: Vec<Pin>,
}

impl Inner {
    pub(super) async fn load(
        self: &Arc<Self>,
        stream: ByteStream,
        progress: &Progress,
    ) -> Result<Vec<Loaded>, Refusal> {
        let reader = SyncIoBridge::new(StreamReader::new(stream));
        let files = Arc::clone(&self.files);
        let archive = received(move || Archive::read(&files, reader))
            .await
            .map_err(unreadable)?;
        let archive = Arc::new(archive);
        let mut loaded = Vec::new();
        if let Some(images) = archive.docker_images()? {
            for image in images {
                loaded.push(self.load_docker(&archive, image, progress).await?);
            }
        } else if let Some(choices) = archive.oci_images()? {
            for choice in choices {
                loaded.push(self.load_oci(&archive, &choice, progress).await?);
            }
        } else {
            return Err(Refusal::invalid(
                "the archive holds neither manifest.json (docker save) nor index.json (OCI layout)",
            ));
        }
        for image in &loaded {
            for name in &image.names {
                progress.send(PullEvent::text(format!(
                    "Loaded image: {}",
                    name.familiar()
                )));
            }
            if image.names.is_empty() {
                progress.send(PullEvent::text(format!("Loaded image ID: {}", image.id)));
            }
        }
        Ok(loaded)
    }

    async fn load_docker(
        self: &Arc<Self>,
        archive: &Arc<Archive>,
        image: DockerImage,
        progress: &Progress,
    ) -> Result<Loaded, Refusal> {
        let names = image
            .repo_tags
            .iter()
            .flatten()
            .map(|name| name.parse::<Reference>().map(Reference::or_latest))
            .collect::<Result<Vec<_>, _>>()?;
        let config = archive.small(&image.config)?;
        let diff_ids = diff_ids(&config, image.layers.len(), &image.config)?;
        let mut parts = Parts {
            config,
            layers: Vec::new(),
            manifest: None,
            pins: Vec::new(),
        };
        for (chain, file) in chains(&diff_ids).iter().zip(&image.layers) {
            let known = self.known_layer(chain);
            let (files, archive, file) =
                (Arc::clone(&self.files), Arc::clone(archive), file.clone());
            let (pointer, pin) = match known {
                Some(known) => known,
                None => blocking(move || keep(&files, archive.path(&file)?))
                    .await
                    .map_err(unreadable)?,
            };
            parts.layers.push(pointer);
            parts.pins.push(pin);
        }
        let id = self.assemble(parts, &names, progress).await?;
        Ok(Loaded { id, names })
    }

    async fn load_oci(
        self: &Arc<Self>,
        archive: &Arc<Archive>,
        choice: &manifest::Choice,
        progress: &Progress,
    ) -> Result<Loaded, Refusal> {
        let names = archive::names(choice);
        let mut pointer = choice.pointer.clone();
        let wrong =
            |reason: String| Refusal::invalid(format!("a manifest of the archive {reason}"));
        let mut raw = archive.blob(&pointer.digest)?;
        let mut parsed = manifest::parse(&raw).map_err(wrong)?;
        if let Parsed::Index { choices, .. } = &parsed {
            let host = manifest::host();
            pointer = manifest::choose(choices, &host)
                .ok_or_else(|| {
                    wrong(format!(
                        "has no image for {}/{}",
                        host.os, host.architecture
                    ))
                })?
                .pointer
                .clone();
            raw = archive.blob(&pointer.digest)?;
            parsed = manifest::parse(&raw).map_err(wrong)?;
        }
        let Parsed::Image(image) = parsed else {
            return Err(wrong("is a list of lists".into()));
        };
        let mut pins = Vec::new();
        for layer in &image.layers {
            pins.push(self.files.pin([layer.digest.clone()]));
            let (files, archive, digest) = (
                Arc::clone(&self.files),
                Arc::clone(archive),
                layer.digest.clone(),
            );
            blocking(move || keep_as(&files, archive.blob_path(&digest)?, &digest))
                .await
                .map_err(unreadable)?;
        }
        let config = archive.blob(&image.config.digest)?;
        let manifest = Some((raw, image.media_type));
        let parts = Parts {
            config,
            layers: image.layers,
            manifest,
            pins,
        };
        let id = self.assemble(parts, &names, progress).await?;
        Ok(Loaded { id, names })
    }

    /// Unpacks the layers of an image whose blobs are there, and puts it into the catalogue.
    pub(super) async fn assemble(
        self: &Arc<Self>,
        parts: Parts,
        names: &[Reference],
        progress: &Progress,
    ) -> Result<Digest, Refusal> {
        let shown = names.first().map_or_else(
            || format!("image {}", Digest::of(&parts.config).short()),
            Reference::familiar,
        );
        let diff_ids = diff_ids(&parts.config, parts.layers.len(), &shown)?;
        let chains = chains(&diff_ids);
        let config = Pointer {
            media_type: OCI_CONFIG.into(),
            digest: Digest::of(&parts.config),
            size: parts.config.len() as u64,
        };
        let (manifest, manifest_type) = parts.manifest.unwrap_or_else(|| {
            (
                manifest::compose(&config, &parts.layers),
                OCI_MANIFEST.into(),
            )
        });
        let small = [config.digest.clone(), Digest::of(&manifest)];
        let _pin = self.files.pin(chains.iter().cloned().chain(small));
        let mut layers = Vec::new();
        let mut size = 0;
        for (at, pointer) in parts.layers.iter().enumerate() {
            let info = self
                .unpack(pointer, &chains[..at], &diff_ids[at], &shown, progress)
                .await?;
            size += info.size;
            layers.push(LayerRecord {
                chain: chains[at].clone(),
                blob: pointer.digest.clone(),
                media_type: pointer.media_type.clone(),
                blob_size: pointer.size,
            });
        }
        let manifest = self.write_blob(&manifest)?;
        let id = self.write_blob(&parts.config)?;
        self.admit(
            &id,
            Record {
                manifest,
                manifest_type,
                layers,
                size,
                last_tagged: 0,
            },
            names,
        )?;
        drop(parts.pins);
        Ok(id)
    }

    pub(super) async fn import(
        self: &Arc<Self>,
        tar: ByteStream,
        name: Option<&Reference>,
        mut config: ImageConfiguration,
    ) -> Result<Digest, Refusal> {
        let files = Arc::clone(&self.files);
        let mut reader = SyncIoBridge::new(StreamReader::new(tar.map_err(io::Error::other)));
        let (pointer, pin, diff_id) = received(move || {
            let (scratch, mut file) = Scratch::file(files.temporary())?;
            io::copy(&mut reader, &mut file)?;
            drop(file);
            let mut content = Counted::new(decompress(File::open(&scratch.path)?)?);
            io::copy(&mut content, &mut io::sink())?;
            let (pointer, pin) = keep(&files, &scratch.path)?;
            Ok((pointer, pin, Digest::finish(content.hasher)))
        })
        .await
        .map_err(unreadable)?;
        fill_rootfs(&mut config, &[diff_id])?;
        let config = serde_json::to_vec(&config)
            .map_err(|error| Refusal::invalid(format!("the image's configuration: {error}")))?;
        let parts = Parts {
            config,
            layers: vec![pointer],
            manifest: None,
            pins: vec![pin],
        };
        let names: Vec<_> = name
            .cloned()
            .map(Reference::or_latest)
            .into_iter()
            .collect();
        self.assemble(parts, &names, &Progress::none()).await
    }

    /// A layer that some image has already, held.
    fn known_layer(&self, chain: &Digest) -> Option<(Pointer, Pin)> {
        let catalog = self.catalog();
        let layer = catalog
            .images
            .values()
            .flat_map(|r| &r.layers)
            .find(|l| l.chain == *chain)?;
        let pointer = Pointer {
            media_type: layer.media_type.clone(),
            digest: layer.blob.clone(),
            size: layer.blob_size,
        };
        let pin = self.files.pin([layer.blob.clone()]);
        Some((pointer, pin))
    }
}

/// Writes the layers' diff ids into a configuration.
pub(super) fn fill_rootfs(
    config: &mut ImageConfiguration,
    diff_ids: &[Digest],
) -> Result<(), Refusal> {
    let rootfs = RootFsBuilder::default()
        .typ("layers")
        .diff_ids(diff_ids.iter().map(ToString::to_string).collect::<Vec<_>>())
        .build()
        .map_err(|error| Refusal::internal(format!("the image's configuration: {error}")))?;
    config.set_rootfs(rootfs);
    Ok(())
}

/// Makes a blob of a layer's file, compressing it when it is not. The file is used up.
fn keep(files: &Arc<Files>, layer: &Path) -> io::Result<(Pointer, Pin)> {
    let mut start = [0; 8];
    let read = File::open(layer)?.read(&mut start)?;
    let pack = packing(&start[..read]).map_err(|name| {
        io::Error::new(
            io::ErrorKind::Unsupported,
            format!("a layer is compressed with {name}"),
        )
    })?;
    let (scratch, media_type) = match pack {
        Pack::Gzip => (Scratch { path: layer.into() }, OCI_LAYER_GZIP),
        Pack::Zstd => (Scratch { path: layer.into() }, OCI_LAYER_ZSTD),
        Pack::None => {
            let (scratch, file) = Scratch::file(files.temporary())?;
            // Fast: it is local work that somebody waits for, and pushes are few.
            let mut encoder = GzEncoder::new(io::BufWriter::new(file), Compression::fast());
            io::copy(&mut BufReader::new(File::open(layer)?), &mut encoder)?;
            encoder
                .finish()?
                .into_inner()
                .map_err(io::IntoInnerError::into_error)?;
            (scratch, OCI_LAYER_GZIP)
        }
    };
    let mut content = Counted::new(File::open(&scratch.path)?);
    io::copy(&mut content, &mut io::sink())?;
    let (size, digest) = (content.bytes, Digest::finish(content.hasher));
    let pin = files.pin([digest.clone()]);
    files.adopt_blob(&scratch.path, &digest)?;
    Ok((
        Pointer {
            media_type: media_type.into(),
            digest,
            size,
        },
        pin,
    ))
}

/// Makes a blob of a file that must have this digest; the file is used up.
fn keep_as(files: &Files, file: &Path, digest: &Digest) -> io::Result<()> {
    if files.has_blob(digest) {
        return Ok(());
    }
    let mut content = Counted::new(File::open(file)?);
    io::copy(&mut content, &mut io::sink())?;
    let found = Digest::finish(content.hasher);
    if found != *digest {
        return Err(io::Error::other(format!(
            "blob {digest} has the digest {found}"
        )));
    }
    // Two images of an archive may share the file.
    let scratch = Scratch {
        path: files.temporary(),
    };
    fs::copy(file, &scratch.path)?;
    files.adopt_blob(&scratch.path, digest)
}

/// Layers built in memory become blobs of the store.
pub(super) fn keep_bytes(
    files: &Arc<Files>,
    bytes: &[u8],
    media_type: &str,
) -> io::Result<(Pointer, Pin)> {
    let digest = Digest::of(bytes);
    let pin = files.pin([digest.clone()]);
    files.write_blob(bytes)?;
    let media_type = if media_type.is_empty() {
        OCI_LAYER
    } else {
        media_type
    };
    Ok((
        Pointer {
            media_type: media_type.into(),
            digest,
            size: bytes.len() as u64,
        },
        pin,
    ))
}

/// Work that reads what a client sends. It takes as long as the client likes, and therefore a thread of
/// its own: tokio's are for short work.
async fn received<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (done, result) = oneshot::channel();
    let receiving = std::thread::Builder::new().name("receive".to_owned());
    receiving.spawn(move || {
        // Nobody waits any more when the client is gone.
        let _ = done.send(work());
    })?;
    result.await.map_err(io::Error::other)?
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

fn unreadable(error: io::Error) -> Refusal {
    Refusal::invalid(format!(
        "the archive cannot be loaded: {error}; nothing of it was kept"
    ))
}
