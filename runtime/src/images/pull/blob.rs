//! One blob from a registry into the store, resumed where an earlier attempt ended.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use model::Refusal;
use oci_client::client::BlobResponse;
use sha2::{Digest as _, Sha256};
use tokio::{
    fs,
    io::{AsyncReadExt, AsyncWriteExt},
};
use tracing::{debug, warn};

use crate::images::{
    Inner,
    digest::Digest,
    event::{Progress, PullEvent},
    manifest::Pointer,
    registry::{Registry, chain},
};

/// How often a broken connection is taken up again, as Docker does.
const ATTEMPTS: u32 = 5;
/// Progress lines at most this often by bytes.
const REPORT_EVERY: u64 = 512 << 10;

/// How an attempt ended short of success.
enum Broken {
    /// Worth another attempt from where it stopped.
    Connection(String),
    /// The bytes are not those of the digest.
    Corrupt(String),
    Final(Refusal),
}

impl Inner {
    /// Brings a layer's blob; two pulls that want the same one share the work.
    pub(super) async fn download(
        self: &Arc<Self>,
        registry: &Registry,
        pointer: &Pointer,
        progress: &Progress,
    ) -> Result<(), Refusal> {
        let short = pointer.digest.short();
        let _turn = {
            progress.send(PullEvent::layer(short, "Waiting"));
            self.files.turn(&pointer.digest).await
        };
        if self.files.has_blob(&pointer.digest) {
            progress.send(PullEvent::layer(short, "Download complete"));
            return Ok(());
        }
        let partial = self.files.partial(&pointer.digest);
        let mut attempt = 1;
        loop {
            let resumed = fs::metadata(&partial).await.map_or(0, |found| found.len());
            match self.attempt(registry, pointer, progress).await {
                Ok(()) => break,
                Err(Broken::Final(refusal)) => return Err(refusal),
                Err(Broken::Corrupt(found)) => {
                    let _ = fs::remove_file(&partial).await;
                    // The rotten part may be the one an earlier attempt left.
                    if resumed == 0 {
                        return Err(Refusal::internal(format!(
                            "layer {} from registry {} is corrupt: {found}; nothing of it was \
                             kept. Push the image again",
                            pointer.digest,
                            registry.host()
                        )));
                    }
                    warn!(layer = %pointer.digest, "begun download is corrupt, starting over");
                }
                Err(Broken::Connection(reason)) if attempt < ATTEMPTS => {
                    debug!(layer = %pointer.digest, attempt, reason, "download broke off");
                    let wait = 1 << (attempt - 1);
                    let status = format!(
                        "Retrying in {wait} second{}",
                        if wait == 1 { "" } else { "s" }
                    );
                    progress.send(PullEvent::layer(short, &status));
                    tokio::time::sleep(Duration::from_secs(wait)).await;
                    attempt += 1;
                }
                Err(Broken::Connection(reason)) => {
                    return Err(Refusal::internal(format!(
                        "layer {} from registry {} broke off {attempt} times: {reason}; pull again \
                         to go on where it stopped",
                        pointer.digest,
                        registry.host()
                    )));
                }
            }
        }
        let io =
            |error| Refusal::internal(format!("layer {} cannot be kept: {error}", pointer.digest));
        self.files
            .adopt_blob(&partial, &pointer.digest)
            .map_err(io)?;
        progress.send(PullEvent::layer(short, "Download complete"));
        Ok(())
    }

    async fn attempt(
        &self,
        registry: &Registry,
        pointer: &Pointer,
        progress: &Progress,
    ) -> Result<(), Broken> {
        let short = pointer.digest.short();
        let disk = |error: std::io::Error| {
            Broken::Final(Refusal::internal(format!(
                "layer {} cannot be written: {error}",
                pointer.digest
            )))
        };
        let mut file = fs::OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(self.files.partial(&pointer.digest))
            .await
            .map_err(disk)?;
        let mut hasher = Sha256::new();
        let mut have = rehash(&mut file, &mut hasher).await.map_err(disk)?;
        if have < pointer.size {
            let answer = registry
                .client
                .pull_blob_stream_partial(&registry.reference, pointer.digest.as_str(), have, None)
                .await;
            let mut stream = match answer {
                Ok(BlobResponse::Partial(stream)) => stream,
                Ok(BlobResponse::Full(stream)) => {
                    // No ranges here: from the beginning.
                    file.set_len(0).await.map_err(disk)?;
                    (have, hasher) = (0, Sha256::new());
                    stream
                }
                Err(oci_client::errors::OciDistributionError::RequestError(error)) => {
                    return Err(Broken::Connection(chain(&error)));
                }
                Err(error) => return Err(Broken::Final(registry.explain(&error).await)),
            };
            let mut reported = 0;
            while have < pointer.size {
                let Some(piece) = stream.next().await else {
                    break;
                };
                let piece = match piece {
                    Ok(piece) => piece,
                    Err(error) => {
                        file.flush().await.map_err(disk)?;
                        return Err(Broken::Connection(chain(&error)));
                    }
                };
                hasher.update(&piece);
                have += piece.len() as u64;
                file.write_all(&piece).await.map_err(disk)?;
                if have - reported >= REPORT_EVERY || have == pointer.size {
                    reported = have;
                    progress.send(PullEvent::bytes(short, "Downloading", have, pointer.size));
                }
            }
            file.flush().await.map_err(disk)?;
            if have < pointer.size {
                return Err(Broken::Connection(format!(
                    "the answer ended after {have} of {} bytes",
                    pointer.size
                )));
            }
        }
        progress.send(PullEvent::layer(short, "Verifying Checksum"));
        let found = Digest::finish(hasher);
        if have != pointer.size {
            return Err(Broken::Corrupt(format!(
                "it is longer than its {} bytes",
                pointer.size
            )));
        }
        if found != pointer.digest {
            return Err(Broken::Corrupt(format!(
                "its bytes have the digest {found}"
            )));
        }
        Ok(())
    }
}

/// Hashes what is there already; gives its length.
async fn rehash(file: &mut fs::File, hasher: &mut Sha256) -> std::io::Result<u64> {
    let mut buffer = vec![0; 256 << 10];
    let mut length = 0;
    loop {
        let read = file.read(&mut buffer).await?;
        if read == 0 {
            return Ok(length);
        }
        hasher.update(&buffer[..read]);
        length += read as u64;
    }
}

/// A configuration: small, kept in memory, checked.
pub(super) async fn fetch_small(
    registry: &Registry,
    pointer: &Pointer,
) -> Result<Vec<u8>, Refusal> {
    let answer = registry
        .client
        .pull_blob_stream(&registry.reference, pointer.digest.as_str())
        .await;
    let mut stream = match answer {
        Ok(stream) => stream,
        Err(error) => return Err(registry.explain(&error).await),
    };
    let corrupt = |reason: String| {
        Refusal::internal(format!(
            "configuration {} from registry {} is corrupt: {reason}; push the image again",
            pointer.digest,
            registry.host()
        ))
    };
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece.map_err(|error| corrupt(chain(&error)))?);
        if bytes.len() as u64 > pointer.size {
            return Err(corrupt(format!(
                "it is longer than its {} bytes",
                pointer.size
            )));
        }
    }
    let found = Digest::of(&bytes);
    if found == pointer.digest {
        Ok(bytes)
    } else {
        Err(corrupt(format!("its bytes have the digest {found}")))
    }
}
