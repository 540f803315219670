//! A layer's tar becomes a directory that overlayfs takes as a lower layer.
//!
//! The tar comes from strangers. Every path is resolved by the kernel inside the layer's own
//! directory ([`tree`]), so neither `..` nor a symbolic link nor a hard link leads out of it.
//! Deletions of lower layers (OCI image spec, layer.md, "Whiteouts") are written in overlayfs'
//! own form: a character device 0:0, or `trusted.overlay.opaque=y` on a directory.

mod decide;
mod tree;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};
use tar::{Archive, Entry, EntryType};

use self::{
    decide::{Name, classify, components},
    tree::{Attributes, Tree},
};
use super::digest::Digest;

pub(crate) use self::decide::keep_xattr;
pub use self::decide::{Pack, packing};

/// What came out of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Bytes of the uncompressed tar.
    pub tar_size: u64,
    /// Bytes of its files.
    pub size: u64,
}

/// Why a layer was not unpacked. The directory may hold part of it; throw it away.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// An entry names something outside of the layer.
    #[error("entry {entry:?} points outside of the image")]
    Escape { entry: String },
    /// An entry is of a kind no layer has.
    #[error("entry {entry:?} is of an unknown kind {kind:#04x}")]
    Kind { entry: String, kind: u8 },
    /// The system refused what an entry asks for.
    #[error("entry {entry:?} cannot be unpacked: {source}")]
    Entry { entry: String, source: io::Error },
    /// The stream is no tar, is cut short or is compressed in a way nobody knows.
    #[error("the layer is no readable archive: {0}")]
    Archive(#[source] io::Error),
}

/// Unpacks a layer, compressed or not, into the empty directory `into`. `parents` are the
/// layers below, **highest first**: directories that the tar implies but does not list take
/// their owner and mode from there, and hard links may point there. Blocks.
pub fn unpack(layer: impl Read, into: &Path, parents: &[PathBuf]) -> Result<Unpacked, UnpackError> {
    let mut counted = Counted::new(decompress(layer).map_err(UnpackError::Archive)?);
    let open = |source| UnpackError::Entry {
        entry: "/".into(),
        source,
    };
    let mut sink = Sink {
        tree: Tree::open(into, parents).map_err(open)?,
        whiteouts: BTreeSet::new(),
        opaque: BTreeSet::new(),
        times: BTreeMap::new(),
        size: 0,
    };
    sink.tree.imply_root().map_err(open)?;
    let mut archive = Archive::new(&mut counted);
    for entry in archive.entries().map_err(UnpackError::Archive)? {
        let mut entry = entry.map_err(UnpackError::Archive)?;
        sink.take(&mut entry)?;
    }
    // Padding behind the last entry belongs to the diff id.
    io::copy(&mut counted, &mut io::sink()).map_err(UnpackError::Archive)?;
    let size = sink.size;
    sink.finish()?;
    Ok(Unpacked {
        tar_size: counted.bytes,
        diff_id: Digest::finish(counted.hasher),
        size,
    })
}

/// Undoes whatever compression the first bytes tell of.
pub fn decompress<'a>(layer: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut reader = BufReader::with_capacity(128 << 10, layer);
    let pack = packing(reader.fill_buf()?).map_err(|name| {
        io::Error::new(
            io::ErrorKind::Unsupported,
            format!("it is compressed with {name}; gzip, zstd and no compression are understood"),
        )
    })?;
    Ok(match pack {
        Pack::None => Box::new(reader),
        Pack::Gzip => Box::new(MultiGzDecoder::new(reader)),
        Pack::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(reader)?),
    })
}

/// Hashes and counts what is read through it.
pub struct Counted<R> {
    inner: R,
    pub hasher: Sha256,
    pub bytes: u64,
}

impl<R: Read> Counted<R> {
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            hasher: Sha256::new(),
            bytes: 0,
        }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

struct Sink {
    tree: Tree,
    /// Directory and name; written last, when it is known what the layer itself has there.
    whiteouts: BTreeSet<(Vec<Vec<u8>>, Vec<u8>)>,
    opaque: BTreeSet<Vec<Vec<u8>>>,
    /// Directories' times; set last, as filling a directory changes them.
    times: BTreeMap<Vec<Vec<u8>>, (i64, i64)>,
    size: u64,
}

impl Sink {
    fn take<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), UnpackError> {
        let raw = entry.path_bytes().into_owned();
        let shown = || String::from_utf8_lossy(&raw).into_owned();
        let failed = |source| UnpackError::Entry {
            entry: shown(),
            source,
        };
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        let path = components(&raw).ok_or_else(|| UnpackError::Escape { entry: shown() })?;
        let Some((name, directory)) = path.split_last() else {
            if kind.is_dir() {
                let attributes = attributes(entry).map_err(failed)?;
                self.times.insert(Vec::new(), attributes.mtime);
                self.tree.set_root(&attributes).map_err(failed)?;
            }
            return Ok(());
        };
        match classify(name) {
            Name::Plain => {}
            Name::Opaque => {
                self.opaque.insert(directory.to_vec());
                return Ok(());
            }
            Name::Whiteout(hidden) => {
                self.whiteouts.insert((directory.to_vec(), hidden.to_vec()));
                return Ok(());
            }
            Name::Bookkeeping => return Ok(()),
            Name::Invalid => return Err(UnpackError::Escape { entry: shown() }),
        }
        let attributes = attributes(entry).map_err(failed)?;
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.size += self
                    .tree
                    .file(directory, name, &attributes, entry)
                    .map_err(failed)?;
            }
            EntryType::Directory => {
                self.tree
                    .directory(directory, name, &attributes)
                    .map_err(failed)?;
                self.times.insert(path.clone(), attributes.mtime);
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default();
                self.tree
                    .symlink(directory, name, &target, &attributes)
                    .map_err(failed)?;
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().unwrap_or_default();
                let target = components(&target)
                    .filter(|target| !target.is_empty())
                    .ok_or_else(|| UnpackError::Escape { entry: shown() })?;
                self.size += self
                    .tree
                    .hard_link(directory, name, &target)
                    .map_err(failed)?;
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let header = entry.header();
                let major = header.device_major().map_err(failed)?.unwrap_or(0);
                let minor = header.device_minor().map_err(failed)?.unwrap_or(0);
                let node = match kind {
                    EntryType::Char => tree::Node::Char(major, minor),
                    EntryType::Block => tree::Node::Block(major, minor),
                    _ => tree::Node::Fifo,
                };
                self.tree
                    .node(directory, name, node, &attributes)
                    .map_err(failed)?;
            }
            other => {
                return Err(UnpackError::Kind {
                    entry: shown(),
                    kind: other.as_byte(),
                });
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), UnpackError> {
        let failed = |path: &[Vec<u8>]| {
            let entry = String::from_utf8_lossy(&path.join(&b'/')).into_owned();
            move |source| UnpackError::Entry { entry, source }
        };
        for directory in &self.opaque {
            self.tree.opaque(directory).map_err(failed(directory))?;
        }
        for (directory, name) in &self.whiteouts {
            self.tree
                .whiteout(directory, name)
                .map_err(failed(directory))?;
        }
        // Deepest first is not needed: times of a directory do not change its parent's.
        for (path, mtime) in &self.times {
            self.tree.time(path, *mtime).map_err(failed(path))?;
        }
        Ok(())
    }
}

fn attributes<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<Attributes> {
    let header = entry.header();
    let too_big = |_| io::Error::new(io::ErrorKind::InvalidData, "owner does not fit 32 bits");
    let mut attributes = Attributes {
        uid: u32::try_from(or_zero(&header.as_old().uid, header.uid())?).map_err(too_big)?,
        gid: u32::try_from(or_zero(&header.as_old().gid, header.gid())?).map_err(too_big)?,
        mode: or_zero(&header.as_old().mode, header.mode().map(u64::from))? as u32 & 0o7777,
        mtime: (
            i64::try_from(or_zero(&header.as_old().mtime, header.mtime())?).unwrap_or(0),
            0,
        ),
        xattrs: Vec::new(),
    };
    if let Some(extensions) = entry.pax_extensions()? {
        for extension in extensions {
            let extension = extension?;
            let (key, value) = (extension.key_bytes(), extension.value_bytes());
            if key == b"mtime" {
                if let Some(time) = decide::pax_time(value) {
                    attributes.mtime = time;
                }
            } else if let Some(name) = key.strip_prefix(b"SCHILY.xattr.")
                && keep_xattr(name)
            {
                attributes.xattrs.push((name.to_vec(), value.to_vec()));
            }
        }
    }
    Ok(attributes)
}

/// Some writers leave a number's field empty and mean nought.
fn or_zero(field: &[u8], read: io::Result<u64>) -> io::Result<u64> {
    if field.iter().all(|b| matches!(b, 0 | b' ')) {
        Ok(0)
    } else {
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_left_empty_are_nought() {
        for blank in [0, b' '] {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(EntryType::Directory);
            header.set_path("folder").unwrap();
            header.set_size(0);
            let old = header.as_old_mut();
            (old.mode, old.uid, old.gid) = ([blank; 8], [blank; 8], [blank; 8]);
            old.mtime = [blank; 12];
            header.set_cksum();
            let mut builder = tar::Builder::new(Vec::new());
            builder.append(&header, io::empty()).unwrap();
            let bytes = builder.into_inner().unwrap();
            let mut archive = Archive::new(&bytes[..]);
            let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
            let found = attributes(&mut entry).unwrap();
            assert_eq!((found.mode, found.uid, found.gid), (0, 0, 0));
            assert_eq!(found.mtime, (0, 0));
        }
    }
}
