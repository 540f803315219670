//! Images as a tar that `docker load` of any age and OCI tools read: `manifest.json` and
//! `index.json` over the same blobs, layers uncompressed as Docker writes them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read, Write},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use model::Refusal;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{
    ByteStream, Inner,
    catalog::Record,
    digest::Digest,
    files::{Files, Pin},
    manifest::{self, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Pointer},
    reference::{Reference, familiar},
    unpack::decompress,
};

const PIECE: usize = 64 << 10;

/// One image to be written.
struct Saved {
    id: Digest,
    record: Record,
    /// Full names with tag.
    tags: BTreeSet<String>,
}

impl Inner {
    pub(super) fn save(&self, names: &[String]) -> Result<ByteStream, Refusal> {
        let mut images: BTreeMap<Digest, Saved> = BTreeMap::new();
        let catalog = self.catalog();
        for text in names {
            for (id, tag) in wanted(&catalog, text)? {
                let Some(record) = catalog.images.get(&id) else {
                    continue;
                };
                let saved = images.entry(id.clone()).or_insert_with(|| Saved {
                    id,
                    record: record.clone(),
                    tags: BTreeSet::new(),
                });
                saved.tags.extend(tag);
            }
        }
        drop(catalog);
        let images: Vec<_> = images.into_values().collect();
        let pin = self.files.pin(images.iter().flat_map(|image| {
            let layers = image
                .record
                .layers
                .iter()
                .flat_map(|l| [l.blob.clone(), l.chain.clone()]);
            layers.chain([image.id.clone()]).collect::<Vec<_>>()
        }));
        let (sender, receiver) = mpsc::channel(2);
        let files = Arc::clone(&self.files);
        // A thread of its own: a reader may take as long as it likes, and tokio's are for short work.
        let writing = std::thread::Builder::new().name("save".to_owned());
        let begun = writing.spawn(move || {
            let failed = sender.clone();
            if let Err(error) = write(&files, &images, sender, pin) {
                // Fails when the reader is gone, who then needs no error.
                let _ = failed.blocking_send(Err(error));
            }
        });
        begun.map_err(|error| {
            Refusal::unavailable(format!(
                "the images cannot be saved now: no thread could be started ({error})"
            ))
        })?;
        Ok(ReceiverStream::new(receiver).boxed())
    }
}

/// The images a text means, each with the tag to save it under. A bare name means every tag of
/// its repository.
fn wanted(
    catalog: &super::catalog::Catalog,
    text: &str,
) -> Result<Vec<(Digest, Option<String>)>, Refusal> {
    if let Ok(name) = text.parse::<Reference>()
        && name.tag().is_none()
        && name.digest().is_none()
    {
        let prefix = format!("{}:", name.name());
        let tags = catalog
            .tags
            .iter()
            .filter(|(tag, _)| tag.starts_with(&prefix));
        let found: Vec<_> = tags
            .map(|(tag, id)| (id.clone(), Some(tag.clone())))
            .collect();
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(match catalog.find(text)? {
        super::catalog::Found::Name(name, id) if !name.contains('@') => vec![(id, Some(name))],
        found => vec![(found.id().clone(), None)],
    })
}

fn write(
    files: &Files,
    images: &[Saved],
    sender: mpsc::Sender<io::Result<Bytes>>,
    _pin: Pin,
) -> io::Result<()> {
    let mut tar = tar::Builder::new(ChannelWriter {
        sender,
        buffer: BytesMut::with_capacity(PIECE),
    });
    let mut written = BTreeSet::new();
    let (mut docker, mut index) = (Vec::new(), Vec::new());
    for image in images {
        let mut layers = Vec::new();
        for layer in &image.record.layers {
            let info = files
                .layer_info(&layer.chain)
                .ok_or_else(|| io::Error::other(format!("layer {} is gone", layer.chain)))?;
            if written.insert(info.diff_id.clone()) {
                let content = decompress(File::open(files.blob(&layer.blob))?)?;
                append(&mut tar, &blob(&info.diff_id), info.tar_size, content)?;
            }
            layers.push(Pointer {
                media_type: OCI_LAYER.into(),
                digest: info.diff_id,
                size: info.tar_size,
            });
        }
        let config = files.read_blob(&image.id)?;
        let pointer = Pointer {
            media_type: OCI_CONFIG.into(),
            digest: image.id.clone(),
            size: config.len() as u64,
        };
        let manifest = manifest::compose(&pointer, &layers);
        for content in [&config, &manifest] {
            let digest = Digest::of(content);
            if written.insert(digest.clone()) {
                append(
                    &mut tar,
                    &blob(&digest),
                    content.len() as u64,
                    content.as_slice(),
                )?;
            }
        }
        let tags: Vec<_> = image.tags.iter().map(|tag| familiar(tag)).collect();
        docker.push(json!({
            "Config": blob(&image.id),
            "RepoTags": if tags.is_empty() { None } else { Some(tags) },
            "Layers": layers.iter().map(|layer| blob(&layer.digest)).collect::<Vec<_>>(),
        }));
        let entry = json!({
            "mediaType": OCI_MANIFEST,
            "digest": Digest::of(&manifest),
            "size": manifest.len(),
        });
        if image.tags.is_empty() {
            index.push(entry.clone());
        }
        for tag in &image.tags {
            let mut named = entry.clone();
            named["annotations"] = json!({
                "io.containerd.image.name": tag,
                "org.opencontainers.image.ref.name": tag.rsplit(':').next(),
            });
            index.push(named);
        }
    }
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": index });
    for (name, content) in [
        ("index.json", index.to_string()),
        ("manifest.json", serde_json::Value::from(docker).to_string()),
        (
            "oci-layout",
            json!({ "imageLayoutVersion": "1.0.0" }).to_string(),
        ),
    ] {
        append(&mut tar, name, content.len() as u64, content.as_bytes())?;
    }
    tar.into_inner()?.flush()
}

fn blob(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn append(
    tar: &mut tar::Builder<ChannelWriter>,
    name: &str,
    size: u64,
    content: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_size(size);
    tar.append_data(&mut header, name, content)
}

/// Turns writes into pieces of a stream; waits for the reader.
struct ChannelWriter {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: BytesMut,
}

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = self.buffer.split().freeze();
        if piece.is_empty() {
            return Ok(());
        }
        self.sender
            .blocking_send(Ok(piece))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
