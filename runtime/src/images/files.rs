//! The store's folders: blobs, unpacked layers, and who is holding them.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;

use super::{
    digest::Digest,
    unpack::{UnpackError, unpack},
};

/// What is known of an unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerInfo {
    pub diff_id: Digest,
    /// Bytes of the uncompressed tar.
    pub tar_size: u64,
    /// Bytes of its files.
    pub size: u64,
}

/// Why a layer did not come into being. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error("its content is {found}, the image's configuration promises {promised}")]
    Differs { promised: Digest, found: Digest },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Folders below the root. Paths only; nothing is kept in memory but the pins.
pub struct Files {
    root: PathBuf,
    pins: Mutex<HashMap<Digest, usize>>,
    turns: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
}

impl Files {
    /// Makes the folders and empties `tmp`.
    pub fn open(root: &Path) -> io::Result<Self> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        remove_if_there(&root.join("tmp"))?;
        for folder in ["blobs/sha256", "partial", "layers", "tmp"] {
            builder.create(root.join(folder))?;
        }
        Ok(Self {
            root: root.into(),
            pins: Mutex::default(),
            turns: Mutex::default(),
        })
    }

    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    pub fn partial(&self, digest: &Digest) -> PathBuf {
        self.root.join("partial").join(digest.hex())
    }

    pub fn layer(&self, chain: &Digest) -> PathBuf {
        self.root.join("layers").join(chain.hex())
    }

    /// The lower directory of a layer.
    pub fn diff(&self, chain: &Digest) -> PathBuf {
        self.layer(chain).join("diff")
    }

    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob(digest).is_file()
    }

    pub fn read_blob(&self, digest: &Digest) -> io::Result<Vec<u8>> {
        fs::read(self.blob(digest))
    }

    /// Keeps small content under its digest.
    pub fn write_blob(&self, bytes: &[u8]) -> io::Result<Digest> {
        let digest = Digest::of(bytes);
        if !self.has_blob(&digest) {
            write_atomically(&self.temporary(), &self.blob(&digest), bytes)?;
        }
        Ok(digest)
    }

    /// Moves a finished file to its digest's place. The caller has checked the digest.
    pub fn adopt_blob(&self, file: &Path, digest: &Digest) -> io::Result<()> {
        File::open(file)?.sync_all()?;
        fs::rename(file, self.blob(digest))
    }

    /// A path in `tmp` that nobody has.
    pub fn temporary(&self) -> PathBuf {
        self.root
            .join("tmp")
            .join(hex::encode(rand::random::<[u8; 12]>()))
    }

    pub fn layer_info(&self, chain: &Digest) -> Option<LayerInfo> {
        let bytes = fs::read(self.layer(chain).join("layer.json")).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Unpacks a layer onto those below (lowest first) and puts it in its place at once, or not
    /// at all. Blocks.
    pub fn make_layer(
        &self,
        below: &[Digest],
        diff_id: &Digest,
        content: impl Read,
    ) -> Result<(Digest, LayerInfo), LayerError> {
        let chain = Digest::chain(below.last(), diff_id);
        if let Some(info) = self.layer_info(&chain) {
            return Ok((chain, info));
        }
        let work = Scratch::directory(self.temporary())?;
        let diff = work.path.join("diff");
        fs::create_dir(&diff)?;
        let parents: Vec<_> = below.iter().rev().map(|chain| self.diff(chain)).collect();
        let made = unpack(content, &diff, &parents)?;
        if made.diff_id != *diff_id {
            return Err(LayerError::Differs {
                promised: diff_id.clone(),
                found: made.diff_id,
            });
        }
        let info = LayerInfo {
            diff_id: made.diff_id,
            tar_size: made.tar_size,
            size: made.size,
        };
        let mut file = File::create(work.path.join("layer.json"))?;
        file.write_all(&serde_json::to_vec(&info).map_err(io::Error::other)?)?;
        // A layer holds thousands of files; one sync of the file system settles them all, so
        // that the rename is not on disk before what it names.
        nix::unistd::syncfs(&file).map_err(io::Error::from)?;
        match fs::rename(&work.path, self.layer(&chain)) {
            Ok(()) => {}
            // Somebody else made the same layer meanwhile.
            Err(_) if self.layer_info(&chain).is_some() => {}
            Err(error) => return Err(error.into()),
        }
        Ok((chain, info))
    }

    /// One at a time for each digest: the second who wants a layer waits and finds it done.
    pub async fn turn(&self, digest: &Digest) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = lock(&self.turns);
            turns.retain(|_, turn| turn.strong_count() > 0);
            turns
                .get(digest)
                .and_then(Weak::upgrade)
                .unwrap_or_else(|| {
                    let turn = Arc::new(tokio::sync::Mutex::new(()));
                    turns.insert(digest.clone(), Arc::downgrade(&turn));
                    turn
                })
        };
        turn.lock_owned().await
    }

    /// Keeps blobs and layers of these digests from [`Files::collect`].
    pub fn pin(self: &Arc<Self>, digests: impl IntoIterator<Item = Digest>) -> Pin {
        let digests: Vec<_> = digests.into_iter().collect();
        let mut pins = lock(&self.pins);
        for digest in &digests {
            *pins.entry(digest.clone()).or_default() += 1;
        }
        drop(pins);
        Pin {
            files: Arc::clone(self),
            digests,
        }
    }

    /// The chain id of a directory that [`Files::diff`] gave.
    pub fn chain_of(&self, diff: &Path) -> Option<Digest> {
        let folder = diff.strip_prefix(self.root.join("layers")).ok()?.parent()?;
        format!("sha256:{}", folder.to_str()?).parse().ok()
    }

    /// Removes every blob, begun download and layer that is neither wanted nor pinned; gives
    /// the layers removed and the bytes freed.
    pub fn collect(
        &self,
        wanted_blobs: &BTreeSet<Digest>,
        wanted_layers: &BTreeSet<Digest>,
    ) -> io::Result<(Vec<Digest>, u64)> {
        // Held throughout: whoever pins now finds a thing whole or gone, never half.
        let pins = lock(&self.pins);
        let (mut removed, mut freed) = (Vec::new(), 0);
        for folder in ["blobs/sha256", "partial"] {
            for (digest, path) in named(&self.root.join(folder))? {
                if !wanted_blobs.contains(&digest) && !pins.contains_key(&digest) {
                    freed += fs::metadata(&path).map_or(0, |found| found.len());
                    fs::remove_file(&path)?;
                }
            }
        }
        let mut rubbish = Vec::new();
        for (chain, path) in named(&self.root.join("layers"))? {
            if !wanted_layers.contains(&chain) && !pins.contains_key(&chain) {
                freed += self.layer_info(&chain).map_or(0, |info| info.size);
                let away = self.temporary();
                fs::rename(&path, &away)?;
                rubbish.push(away);
                removed.push(chain);
            }
        }
        drop(pins);
        for path in rubbish {
            fs::remove_dir_all(path)?;
        }
        Ok((removed, freed))
    }
}

/// Keeps layers on disk, whatever happens to the images that brought them, until dropped.
pub struct Pin {
    files: Arc<Files>,
    digests: Vec<Digest>,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = lock(&self.files.pins);
        for digest in &self.digests {
            if let Some(count) = pins.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    pins.remove(digest);
                }
            }
        }
    }
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Pin").field(&self.digests).finish()
    }
}

/// A path in `tmp` that is removed when given up.
pub struct Scratch {
    pub path: PathBuf,
}

impl Scratch {
    pub fn directory(path: PathBuf) -> io::Result<Self> {
        fs::create_dir(&path)?;
        Ok(Self { path })
    }

    pub fn file(path: PathBuf) -> io::Result<(Self, File)> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        Ok((Self { path }, file))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // After a rename there is nothing to remove; what fails here is removed on next open.
        let _ = remove_if_there(&self.path);
    }
}

/// Replaces a file in one step that survives a crash.
pub fn write_atomically(temporary: &Path, target: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(temporary, target)?;
    target
        .parent()
        .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Entries of a folder whose names are digests.
fn named(folder: &Path) -> io::Result<Vec<(Digest, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if let Some(Ok(digest)) = name.to_str().map(|hex| format!("sha256:{hex}").parse()) {
            found.push((digest, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// A thread that panicked elsewhere leaves counts that are still counts.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
