//! Files of a container as a tar.

use std::{
    collections::HashMap,
    fs::{self, File, FileType, Metadata},
    io::{self, Read as _, Write},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use nix::sys::stat::{major, minor};
use tar::{Builder, EntryType, Header};
use tokio::sync::mpsc;

use super::files::is_own;
use crate::images::unpack::keep_xattr;

/// How far a tar goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// All that the container sees below the path.
    Everything,
    /// The container's own files: what is mounted in them is left out, but for the folders that it
    /// is mounted on.
    Own,
}

struct Sender<'a>(&'a mpsc::Sender<io::Result<Bytes>>);

impl Write for Sender<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .blocking_send(Ok(Bytes::copy_from_slice(bytes)))
            .map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends the tar of `path`, which is called `name` in it.
pub(super) fn pack(
    path: &str,
    name: &str,
    reach: Reach,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let output = io::BufWriter::with_capacity(64 << 10, Sender(sender));
    let mut builder = Builder::new(output);
    let facts = fs::symlink_metadata(path)?;
    let mut walk = Walk {
        device: (reach == Reach::Own).then_some(facts.dev()),
        links: HashMap::new(),
    };
    walk.add(&mut builder, Path::new(path), Path::new(name), &facts)?;
    builder.into_inner()?.flush()
}

struct Walk {
    /// Folders that are on another one are not gone into.
    device: Option<u64>,
    /// Files with several names, by device and inode: the one that they have in the tar.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Walk {
    fn add<W: Write>(
        &mut self,
        builder: &mut Builder<W>,
        at: &Path,
        name: &Path,
        facts: &Metadata,
    ) -> io::Result<()> {
        let kind = facts.file_type();
        let mut header = Header::new_gnu();
        header.set_metadata(facts);
        if kind.is_dir() {
            header.set_size(0);
            attributes(builder, at)?;
            builder.append_data(&mut header, name, io::empty())?;
            if self.device.is_some_and(|device| device != facts.dev()) {
                return Ok(());
            }
            for entry in entries(at)? {
                let path = entry.path();
                if self.device.is_some() && is_own(&path) {
                    continue;
                }
                // What has gone meanwhile is not there.
                if let Ok(facts) = fs::symlink_metadata(&path) {
                    self.add(builder, &path, &name.join(entry.file_name()), &facts)?;
                }
            }
            return Ok(());
        }
        if kind.is_symlink() {
            let Ok(target) = fs::read_link(at) else {
                return Ok(());
            };
            header.set_size(0);
            return builder.append_link(&mut header, name, target);
        }
        if let Some(special) = special(kind) {
            header.set_entry_type(special);
            header.set_size(0);
            header.set_device_major(major(facts.rdev()) as u32)?;
            header.set_device_minor(minor(facts.rdev()) as u32)?;
            return builder.append_data(&mut header, name, io::empty());
        }
        if !kind.is_file() {
            // A socket means nothing without the program behind it.
            return Ok(());
        }
        let first = self.links.get(&(facts.dev(), facts.ino()));
        if let Some(first) = first.filter(|_| facts.nlink() > 1) {
            header.set_entry_type(EntryType::Link);
            header.set_size(0);
            return builder.append_link(&mut header, name, first);
        }
        let Some(file) = open(at)? else {
            return Ok(());
        };
        attributes(builder, at)?;
        // As long as the header says, whatever is written to it or cut off meanwhile.
        let content = file.chain(io::repeat(0)).take(facts.len());
        builder.append_data(&mut header, name, content)?;
        if facts.nlink() > 1 {
            let key = (facts.dev(), facts.ino());
            self.links.insert(key, name.to_owned());
        }
        Ok(())
    }
}

/// What a folder holds, by name; nothing if it has gone.
fn entries(at: &Path) -> io::Result<Vec<fs::DirEntry>> {
    let listed = fs::read_dir(at).and_then(Iterator::collect);
    let mut entries: Vec<fs::DirEntry> = match listed {
        Err(error) if has_gone(&error) => Vec::new(),
        listed => listed?,
    };
    entries.sort_by_key(fs::DirEntry::file_name);
    Ok(entries)
}

/// A file's content; none if something else has taken its place, which might keep us waiting.
fn open(at: &Path) -> io::Result<Option<File>> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    match File::options().read(true).custom_flags(flags).open(at) {
        Ok(file) => Ok(file.metadata()?.is_file().then_some(file)),
        Err(error) if has_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn has_gone(error: &io::Error) -> bool {
    let replaced = [libc::ELOOP, libc::ENXIO, libc::ENOTDIR];
    let code = error.raw_os_error();
    error.kind() == io::ErrorKind::NotFound || code.is_some_and(|code| replaced.contains(&code))
}

/// Writes before an entry which extended attributes it has, those that an image may have.
fn attributes<W: Write>(builder: &mut Builder<W>, at: &Path) -> io::Result<()> {
    // A file system without any says so by an error.
    let Ok(names) = xattr::list(at) else {
        return Ok(());
    };
    let kept = names.filter(|name| keep_xattr(name.as_encoded_bytes()));
    let read = kept.filter_map(|name| {
        let value = xattr::get(at, &name).ok()??;
        Some((format!("SCHILY.xattr.{}", name.to_str()?), value))
    });
    let read: Vec<(String, Vec<u8>)> = read.collect();
    if read.is_empty() {
        return Ok(());
    }
    let pairs = read
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_slice()));
    builder.append_pax_extensions(pairs)
}

fn special(kind: FileType) -> Option<EntryType> {
    if kind.is_char_device() {
        Some(EntryType::Char)
    } else if kind.is_block_device() {
        Some(EntryType::Block)
    } else {
        kind.is_fifo().then_some(EntryType::Fifo)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::symlink, net::UnixListener};

    use super::*;

    fn packed(folder: &Path) -> Vec<u8> {
        let (sender, mut receiver) = mpsc::channel(1024);
        pack(folder.to_str().unwrap(), "top", Reach::Own, &sender).unwrap();
        drop(sender);
        let mut bytes = Vec::new();
        while let Some(part) = receiver.blocking_recv() {
            bytes.extend(part.unwrap());
        }
        bytes
    }

    #[test]
    fn hard_links_and_attributes_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a"), vec![b'x'; 1 << 20]).unwrap();
        fs::hard_link(at("a"), at("b")).unwrap();
        xattr::set(at("a"), "user.colour", b"red").unwrap();
        let bytes = packed(folder.path());
        assert!(bytes.len() < (1 << 20) + (64 << 10), "written once");
        let out = tempfile::tempdir().unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        archive.set_unpack_xattrs(true);
        archive.unpack(out.path()).unwrap();
        let [a, b] = ["top/a", "top/b"].map(|name| out.path().join(name));
        assert_eq!(
            fs::metadata(&a).unwrap().ino(),
            fs::metadata(&b).unwrap().ino()
        );
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut colours = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            if let Some(extensions) = entry.pax_extensions().unwrap() {
                for extension in extensions {
                    let extension = extension.unwrap();
                    colours.push((
                        extension.key().unwrap().to_owned(),
                        extension.value().unwrap().to_owned(),
                    ));
                }
            }
        }
        assert_eq!(
            colours,
            [("SCHILY.xattr.user.colour".to_owned(), "red".to_owned())]
        );
    }

    #[test]
    fn what_took_a_files_place_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        symlink("/etc/passwd", at("link")).unwrap();
        for name in ["fifo", "link", "missing"] {
            assert!(open(&at(name)).unwrap().is_none(), "{name}");
        }
        assert!(entries(&at("missing")).unwrap().is_empty());
        assert!(entries(&at("fifo")).unwrap().is_empty());
    }

    #[test]
    fn files_links_and_fifos_are_packed_and_sockets_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("etc")).unwrap();
        fs::write(at("etc/file"), "content").unwrap();
        let long = "x".repeat(150);
        fs::write(at("etc").join(&long), "").unwrap();
        symlink(format!("/{long}"), at("link")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        for reach in [Reach::Everything, Reach::Own] {
            let (sender, mut receiver) = mpsc::channel(1024);
            pack(folder.path().to_str().unwrap(), "top", reach, &sender).unwrap();
            drop(sender);
            let mut bytes = Vec::new();
            while let Some(part) = receiver.blocking_recv() {
                bytes.extend(part.unwrap());
            }
            let mut archive = tar::Archive::new(&bytes[..]);
            let names: Vec<String> = archive
                .entries()
                .unwrap()
                .map(|entry| entry.unwrap().path().unwrap().display().to_string())
                .map(|name| name.trim_end_matches('/').to_owned())
                .collect();
            let wanted = [
                "top",
                "top/etc",
                "top/etc/file",
                &format!("top/etc/{long}"),
                "top/fifo",
                "top/link",
            ];
            assert_eq!(names, wanted, "{reach:?}");
        }
    }
}
