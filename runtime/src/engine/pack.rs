//! Files of a container as a tar.

use std::{
    fs::{self, File, FileType, Metadata},
    io::{self, Read as _, Write},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
};

use bytes::Bytes;
use nix::sys::stat::{major, minor};
use tar::{Builder, EntryType, Header};
use tokio::sync::mpsc;

use super::files::is_own;

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
    let device = (reach == Reach::Own).then_some(facts.dev());
    add(
        &mut builder,
        Path::new(path),
        Path::new(name),
        &facts,
        device,
    )?;
    builder.into_inner()?.flush()
}

/// `device`: folders that are on another one are not gone into.
fn add<W: Write>(
    builder: &mut Builder<W>,
    at: &Path,
    name: &Path,
    facts: &Metadata,
    device: Option<u64>,
) -> io::Result<()> {
    let kind = facts.file_type();
    let mut header = Header::new_gnu();
    header.set_metadata(facts);
    if kind.is_dir() {
        header.set_size(0);
        builder.append_data(&mut header, name, io::empty())?;
        if device.is_some_and(|device| device != facts.dev()) {
            return Ok(());
        }
        let mut entries: Vec<_> = fs::read_dir(at)?.collect::<io::Result<_>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            if device.is_some() && is_own(&path) {
                continue;
            }
            // What has gone meanwhile is not there.
            if let Ok(facts) = fs::symlink_metadata(&path) {
                add(
                    builder,
                    &path,
                    &name.join(entry.file_name()),
                    &facts,
                    device,
                )?;
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
    match File::open(at) {
        Ok(file) => {
            // As long as the header says, whatever is written to it or cut off meanwhile.
            let content = file.chain(io::repeat(0)).take(facts.len());
            builder.append_data(&mut header, name, content)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
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
