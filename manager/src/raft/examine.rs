//! Whether a log that nobody has open is what was written.

use std::path::Path;

use openraft::Entry;

use super::{Disk, TypeConfig, WrappingKey, alone::replay};

/// What is damaged of the log. Nothing where all of it can be read, and where that cannot be told:
/// somebody has it open, the disk does not answer, it is another key's.
pub async fn examine(path: &Path, key: WrappingKey) -> Option<String> {
    let path = path.to_owned();
    // A task of its own: what is damaged in just the right way may panic below.
    let read = tokio::spawn(async move {
        let disk = Disk::open(&path, &key).await?;
        let read = replay(&disk).and_then(|_| disk.entries::<Entry<TypeConfig>>(..));
        disk.close();
        read.map(drop)
    });
    match read.await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => error.is_damage().then(|| error.to_string()),
        Err(panicked) => Some(format!("it cannot be read: {panicked}")),
    }
}
