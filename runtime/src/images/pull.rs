//! Pulling: manifest, configuration, layers side by side, each checked against its digest.

mod blob;

use std::{fs::File, sync::Arc};

use bytes::Bytes;
use model::Refusal;
use oci_client::RegistryOperation;
use oci_spec::image::ImageConfiguration;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use self::blob::fetch_small;
use super::{
    Inner,
    catalog::{LayerRecord, Record},
    digest::Digest,
    event::{Progress, PullEvent},
    files::{LayerError, LayerInfo},
    image::{Auth, Descriptor, Distribution, Platform},
    manifest::{self, ACCEPTED, Manifest, Parsed, Pointer},
    reference::Reference,
    registry::Registry,
};

/// As many layers at once as Docker's daemon takes by default.
const LAYERS_AT_ONCE: usize = 3;
/// Manifests and configurations are kept in memory; larger ones are no honest ones.
const SMALL: u64 = 8 << 20;

impl Inner {
    /// Pulls and names an image; gives its id.
    pub(super) async fn pull(
        self: &Arc<Self>,
        name: &Reference,
        auth: Option<&Auth>,
        progress: &Progress,
    ) -> Result<Digest, Refusal> {
        let name = name.clone().or_latest();
        let shown = name.familiar();
        let registry = Arc::new(Registry::connect(&self.config, &name, auth).await?);
        registry.authenticate(RegistryOperation::Pull).await?;
        let (raw, top) = fetch_manifest(&registry, &name).await?;
        progress.send(PullEvent {
            id: Some(name.tag().map_or_else(|| top.to_string(), Into::into)),
            ..PullEvent::status(format!("Pulling from {}", name.repository()))
        });
        let wrong = |reason: String| Refusal::internal(format!("the manifest of {shown} {reason}"));
        let (raw, image) = match manifest::parse(&raw).map_err(wrong)? {
            Parsed::Image(image) => (raw, image),
            Parsed::Index { choices, .. } => {
                let host = manifest::host();
                let choice = manifest::choose(&choices, &host).ok_or_else(|| {
                    Refusal::not_found(format!(
                        "no matching manifest for {}/{} in the manifest list entries of {shown}",
                        host.os, host.architecture
                    ))
                })?;
                let inner = name.with_digest(choice.pointer.digest.clone());
                let (raw, _) = fetch_manifest(&registry, &inner).await?;
                match manifest::parse(&raw).map_err(wrong)? {
                    Parsed::Image(image) => (raw, image),
                    Parsed::Index { .. } => return Err(wrong("is a list of lists".into())),
                }
            }
        };
        // Held to the end, so that a removal or prune beside us takes nothing away.
        let held = image
            .layers
            .iter()
            .chain([&image.config])
            .map(|pointer| pointer.digest.clone());
        let _pin = self.files.pin(held.chain([Digest::of(&raw)]));
        let config = self.config_of(&registry, &image, &shown).await?;
        let diff_ids = diff_ids(&config, image.layers.len(), &shown)?;
        let layers = self
            .layers(&registry, &image, &diff_ids, &shown, progress)
            .await?;
        let size = layers.iter().map(|(_, info)| info.size).sum();
        let layers = layers.into_iter().map(|(record, _)| record).collect();
        let manifest = self.write_blob(&raw)?;
        let id = self.write_blob(&config)?;
        let mut names = vec![name.with_digest(top.clone())];
        if name.tag().is_some() && name.digest().is_none() {
            names.push(name.clone());
        }
        let record = Record {
            manifest,
            manifest_type: image.media_type,
            layers,
            size,
            last_tagged: 0,
        };
        let new = self.admit(&id, record, &names)?;
        progress.send(PullEvent::status(format!("Digest: {top}")));
        progress.send(PullEvent::status(if new {
            format!("Status: Downloaded newer image for {shown}")
        } else {
            format!("Status: Image is up to date for {shown}")
        }));
        Ok(id)
    }

    async fn config_of(
        &self,
        registry: &Registry,
        image: &Manifest,
        shown: &str,
    ) -> Result<Vec<u8>, Refusal> {
        if let Ok(config) = self.files.read_blob(&image.config.digest) {
            return Ok(config);
        }
        if image.config.size > SMALL {
            return Err(Refusal::internal(format!(
                "the configuration of {shown} has {} bytes; more than {SMALL} are not taken",
                image.config.size
            )));
        }
        fetch_small(registry, &image.config).await
    }

    async fn layers(
        self: &Arc<Self>,
        registry: &Arc<Registry>,
        image: &Manifest,
        diff_ids: &[Digest],
        shown: &str,
        progress: &Progress,
    ) -> Result<Vec<(LayerRecord, LayerInfo)>, Refusal> {
        let chains = chains(diff_ids);
        let _pin = self.files.pin(chains.iter().cloned());
        let gate = Arc::new(Semaphore::new(LAYERS_AT_ONCE));
        // Tasks, so that later layers arrive while an earlier one is unpacked; they end with us.
        let downloads: Vec<_> = image
            .layers
            .iter()
            .zip(&chains)
            .map(|(pointer, chain)| {
                let id = pointer.digest.short().to_owned();
                if self.files.has_blob(&pointer.digest) {
                    let there = self.files.layer_info(chain).is_some();
                    let status = if there {
                        "Already exists"
                    } else {
                        "Download complete"
                    };
                    progress.send(PullEvent::layer(id, status));
                    return None;
                }
                progress.send(PullEvent::layer(id, "Pulling fs layer"));
                let (inner, registry, gate) =
                    (Arc::clone(self), Arc::clone(registry), Arc::clone(&gate));
                let (pointer, progress) = (pointer.clone(), progress.clone());
                Some(AbortOnDropHandle::new(tokio::spawn(async move {
                    let _permit = gate.acquire().await;
                    inner.download(&registry, &pointer, &progress).await
                })))
            })
            .collect();
        let mut done = Vec::new();
        for (at, download) in downloads.into_iter().enumerate() {
            if let Some(download) = download {
                download
                    .await
                    .map_err(|e| Refusal::internal(format!("the download of {shown}: {e}")))??;
            }
            let pointer = &image.layers[at];
            let info = self
                .unpack(pointer, &chains[..at], &diff_ids[at], shown, progress)
                .await?;
            let record = LayerRecord {
                chain: chains[at].clone(),
                blob: pointer.digest.clone(),
                media_type: pointer.media_type.clone(),
                blob_size: pointer.size,
            };
            done.push((record, info));
        }
        Ok(done)
    }

    /// Makes a layer's directory from its blob, unless it is there.
    pub(super) async fn unpack(
        self: &Arc<Self>,
        pointer: &Pointer,
        below: &[Digest],
        diff_id: &Digest,
        shown: &str,
        progress: &Progress,
    ) -> Result<LayerInfo, Refusal> {
        let chain = Digest::chain(below.last(), diff_id);
        if let Some(info) = self.files.layer_info(&chain) {
            return Ok(info);
        }
        let short = pointer.digest.short().to_owned();
        let turn = self.files.turn(&chain).await;
        progress.send(PullEvent::bytes(&short, "Extracting", 0, pointer.size));
        let (inner, below, diff_id) = (Arc::clone(self), below.to_vec(), diff_id.clone());
        let blob = self.files.blob(&pointer.digest);
        let made = tokio::task::spawn_blocking(move || {
            // Held by the thread: it goes on when the pull is given up.
            let _turn = turn;
            inner.files.make_layer(&below, &diff_id, File::open(blob)?)
        })
        .await
        .map_err(|error| Refusal::internal(format!("unpacking of {shown}: {error}")))?;
        match made {
            Ok((_, info)) => {
                progress.send(PullEvent::layer(short, "Pull complete"));
                Ok(info)
            }
            Err(LayerError::Differs { promised, found }) => Err(Refusal::internal(format!(
                "layer {} of {shown} is refused: its content is {found}, but the image's \
                 configuration promises {promised}; push the image again",
                pointer.digest
            ))),
            Err(error) => Err(Refusal::internal(format!(
                "layer {} of {shown} cannot be unpacked: {error}",
                pointer.digest
            ))),
        }
    }

    pub(super) async fn distribution(
        &self,
        name: &Reference,
        auth: Option<&Auth>,
    ) -> Result<Distribution, Refusal> {
        let name = name.clone().or_latest();
        let registry = Registry::connect(&self.config, &name, auth).await?;
        registry.authenticate(RegistryOperation::Pull).await?;
        let (raw, digest) = fetch_manifest(&registry, &name).await?;
        let wrong =
            |reason| Refusal::invalid(format!("the manifest of {} {reason}", name.familiar()));
        let parsed = manifest::parse(&raw).map_err(wrong)?;
        let media_type = parsed.media_type().to_owned();
        let platforms = match parsed {
            Parsed::Index { choices, .. } => choices
                .into_iter()
                .filter_map(|choice| choice.platform)
                .collect(),
            Parsed::Image(image) => {
                let config = self.config_of(&registry, &image, &name.familiar()).await?;
                vec![
                    serde_json::from_slice::<Platform>(&config).map_err(|error| {
                        wrong(format!("has an unreadable configuration: {error}"))
                    })?,
                ]
            }
        };
        let size = raw.len() as u64;
        Ok(Distribution {
            descriptor: Descriptor {
                media_type,
                digest,
                size,
            },
            platforms,
        })
    }
}

/// The chain id of each layer, lowest first.
pub fn chains(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chains: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chains.push(Digest::chain(chains.last(), diff_id));
    }
    chains
}

/// The layers that a configuration promises.
pub fn diff_ids(config: &[u8], layers: usize, shown: &str) -> Result<Vec<Digest>, Refusal> {
    let wrong = |reason: String| {
        Refusal::internal(format!("the configuration of {shown} is refused: {reason}"))
    };
    let config =
        ImageConfiguration::from_reader(config).map_err(|e| wrong(super::registry::chain(&e)))?;
    let diff_ids = config.rootfs().diff_ids();
    if diff_ids.len() != layers {
        return Err(wrong(format!(
            "it names {} layers, the manifest {layers}",
            diff_ids.len()
        )));
    }
    diff_ids
        .iter()
        .map(|id| id.parse().map_err(|error| wrong(format!("{error}"))))
        .collect()
}

/// A manifest byte for byte and its digest, which is checked when the name has one.
async fn fetch_manifest(registry: &Registry, name: &Reference) -> Result<(Bytes, Digest), Refusal> {
    let reference = registry.on_the_wire(name);
    let (raw, _) = match registry
        .client
        .pull_manifest_raw(&reference, &registry.auth, ACCEPTED)
        .await
    {
        Ok(answer) => answer,
        Err(error) => return Err(registry.explain(&error).await),
    };
    let digest = Digest::of(&raw);
    match name.digest() {
        Some(wanted) if *wanted != digest => Err(Refusal::internal(format!(
            "registry {} sent a manifest {digest} for {}; nothing was kept",
            registry.host(),
            name.familiar()
        ))),
        _ => Ok((raw, digest)),
    }
}
