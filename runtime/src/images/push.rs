//! Pushing: blobs the registry lacks, then the manifest that names them.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use model::Refusal;
use oci_client::{RegistryOperation, errors::OciDistributionError};
use tokio_util::io::ReaderStream;

use super::{
    Inner,
    digest::Digest,
    event::{Progress, PullEvent},
    image::Auth,
    manifest::Parsed,
    reference::Reference,
    registry::Registry,
};

/// As many layers at once as Docker's daemon sends by default.
const LAYERS_AT_ONCE: usize = 5;

impl Inner {
    pub(super) async fn push(
        self: &Arc<Self>,
        name: &Reference,
        auth: Option<&Auth>,
        progress: &Progress,
    ) -> Result<Digest, Refusal> {
        if name.digest().is_some() {
            return Err(Refusal::invalid(format!(
                "{} cannot be pushed: give a tag instead of the digest",
                name.familiar()
            )));
        }
        let name = name.clone().or_latest();
        let shown = name.familiar();
        let record = {
            let catalog = self.catalog();
            let found = catalog.find(&shown).map_err(|_| {
                Refusal::not_found(format!(
                    "An image does not exist locally with the tag: {}",
                    name.familiar_name()
                ))
            })?;
            catalog.images.get(found.id()).cloned()
        }
        .ok_or_else(|| Refusal::not_found(format!("No such image: {shown}")))?;
        let _pin = self
            .files
            .pin(record.layers.iter().map(|layer| layer.blob.clone()));
        let read = |digest: &Digest| {
            self.files
                .read_blob(digest)
                .map_err(|error| Refusal::internal(format!("blob {digest} of {shown}: {error}")))
        };
        let raw = read(&record.manifest)?;
        let wrong = |reason: String| Refusal::internal(format!("the manifest of {shown} {reason}"));
        let Parsed::Image(image) = super::manifest::parse(&raw).map_err(wrong)? else {
            return Err(wrong("is a list".into()));
        };
        progress.send(PullEvent::status(format!(
            "The push refers to repository [{}]",
            name.name()
        )));
        let registry = Registry::connect(&self.config, &name, auth).await?;
        registry.authenticate(RegistryOperation::Push).await?;
        let sender = &registry;
        stream::iter(image.layers)
            .map(|layer| async move {
                self.push_blob(sender, &layer.digest, layer.size, progress)
                    .await
            })
            .buffer_unordered(LAYERS_AT_ONCE)
            .try_collect::<()>()
            .await?;
        let config = read(&image.config.digest)?;
        registry.put_blob(config, &image.config.digest).await?;
        let size = raw.len();
        registry.put_manifest(raw, &image.media_type).await?;
        let tag = name.tag().unwrap_or_default();
        progress.send(PullEvent::status(format!(
            "{tag}: digest: {} size: {size}",
            record.manifest
        )));
        progress.send(PullEvent {
            aux: Some(serde_json::json!({ "Tag": tag, "Digest": record.manifest, "Size": size })),
            ..PullEvent::default()
        });
        // As after a pull, the image is known by what the registry calls it.
        self.change(|catalog| {
            let id = catalog.find(&shown)?.id().clone();
            catalog.name(&name.with_digest(record.manifest.clone()), &id);
            Ok(())
        })?;
        Ok(record.manifest)
    }

    async fn push_blob(
        &self,
        registry: &Registry,
        digest: &Digest,
        size: u64,
        progress: &Progress,
    ) -> Result<(), Refusal> {
        let short = digest.short().to_owned();
        progress.send(PullEvent::layer(&short, "Preparing"));
        if registry.has_blob(digest).await? {
            progress.send(PullEvent::layer(short, "Layer already exists"));
            return Ok(());
        }
        let file = tokio::fs::File::open(self.files.blob(digest))
            .await
            .map_err(|error| {
                Refusal::internal(format!(
                    "layer {digest} cannot be read: {error}; pull the image again"
                ))
            })?;
        let (reporter, id) = (progress.clone(), short.clone());
        let mut sent = 0;
        let body = ReaderStream::with_capacity(file, 256 << 10)
            .inspect_ok(move |piece| {
                sent += piece.len() as u64;
                reporter.send(PullEvent::bytes(&id, "Pushing", sent, size));
            })
            .map_err(OciDistributionError::IoError);
        let pushed = registry
            .client
            .push_blob_stream(&registry.reference, body, digest.as_str(), Some(size))
            .await;
        match pushed {
            Ok(_) => {
                progress.send(PullEvent::layer(short, "Pushed"));
                Ok(())
            }
            Err(error) => Err(registry.explain(&error).await),
        }
    }
}
