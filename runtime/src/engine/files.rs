//! Files of containers: what changed, and copying in and out.

use std::{
    fs,
    io::{self, Read},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::BoxStream};
use model::Refusal;
use nix::fcntl::OFlag;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Change, ChangeKind, Engine, PathStat, container::Container, create::clean};
use crate::oci::{
    OciError,
    rootfs::{Layers, mount_overlay, open_in, open_root},
};

impl Engine {
    pub async fn changes(&self, reference: &str) -> Result<Vec<Change>, Refusal> {
        let container = self.find(reference)?;
        let upper = container.directory.join("upper");
        let layers = container.record().layers.clone();
        tokio::task::spawn_blocking(move || {
            let mut list = Vec::new();
            walk(&upper, Path::new("/"), &layers, &mut list);
            list.sort_by(|a, b| a.path.cmp(&b.path));
            list
        })
        .await
        .map_err(|error| Refusal::internal(format!("comparing died: {error}")))
    }

    pub async fn path_stat(&self, reference: &str, path: &str) -> Result<PathStat, Refusal> {
        let container = self.find(reference)?;
        let path = path.to_owned();
        let root = self.view_of(&container).await?;
        stat(&root, &path)
    }

    /// A tar of the path, its last component as the first entry (`docker cp` out of it).
    pub async fn archive_get(
        &self,
        reference: &str,
        path: &str,
    ) -> Result<(PathStat, BoxStream<'static, io::Result<Bytes>>), Refusal> {
        let container = self.find(reference)?;
        let root = self.view_of(&container).await?;
        let found = stat(&root, path)?;
        // `/x/.` means what is in it, under the name `.`.
        let name = if path.ends_with("/.") || clean(path) == "/" {
            ".".to_owned()
        } else {
            found.name.clone()
        };
        let path = clean(path);
        let (sender, receiver) = mpsc::channel(16);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = pack(&root, &path, &name, &sender) {
                let _ = sender.blocking_send(Err(error));
            }
        });
        Ok((found, Box::pin(ReceiverStream::new(receiver))))
    }

    /// Unpacks a plain tar into a directory of the container.
    pub async fn archive_put(
        &self,
        reference: &str,
        path: &str,
        mut tar: BoxStream<'static, io::Result<Bytes>>,
    ) -> Result<(), Refusal> {
        let container = self.find(reference)?;
        if container.record().spec.host.read_only {
            return Err(Refusal::forbidden("container rootfs is marked read-only"));
        }
        let root = self.view_of(&container).await?;
        let target =
            open_in(&root, path, OFlag::O_PATH | OFlag::O_DIRECTORY).map_err(
                |error| match error {
                    nix::Error::ENOTDIR => Refusal::invalid("extraction point is not a directory"),
                    _ => no_such_path(path),
                },
            )?;
        let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(16);
        let feed = tokio::spawn(async move {
            while let Some(chunk) = tar.next().await {
                if sender.send(chunk).await.is_err() {
                    return;
                }
            }
        });
        let unpacked = tokio::task::spawn_blocking(move || {
            // The whole mount stays while its root is open.
            let _root = root;
            unpack(&target, receiver)
        })
        .await
        .map_err(|error| Refusal::internal(format!("unpacking died: {error}")))?;
        feed.abort();
        unpacked.map_err(|error| Refusal::invalid(format!("unpacking into {path}: {error}")))
    }

    /// The container's root as it sees it, or as its layers give it when it does not run.
    async fn view_of(&self, container: &Arc<Container>) -> Result<OwnedFd, Refusal> {
        let record = container.record().clone();
        if let Some(process) = record.process.filter(|_| container.running()) {
            return open_root(&PathBuf::from(format!("/proc/{}/root", process.pid))).map_err(
                |error| Refusal::internal(format!("opening the container's root: {error}")),
            );
        }
        let directory = container.directory.clone();
        self.private(move |_| {
            let at = directory.join("rootfs");
            mount_overlay(
                &Layers {
                    lower: record.layers,
                    writable: directory,
                },
                &at,
            )?;
            open_root(&at).map_err(OciError::io("opening the root file system"))
        })
        .await
        .map_err(|error| Refusal::internal(error.to_string()))
    }
}

fn no_such_path(path: &str) -> Refusal {
    Refusal::not_found(format!("Could not find the file {path} in container"))
}

/// A path below a directory descriptor, for calls that take paths.
fn through(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn stat(root: &OwnedFd, path: &str) -> Result<PathStat, Refusal> {
    let clean = clean(path);
    let last = |flags| open_in(root, &clean, OFlag::O_PATH | flags);
    let fd = last(OFlag::O_NOFOLLOW).map_err(|_| no_such_path(path))?;
    let held = through(&fd);
    // The descriptor is of the link itself; following the magic link stats what it stands for.
    let facts = fs::metadata(&held).map_err(|_| no_such_path(path))?;
    let link_target = if facts.file_type().is_symlink() {
        nix::fcntl::readlinkat(&fd, "")
            .map(|text| text.to_string_lossy().into_owned())
            .unwrap_or_default()
    } else {
        String::new()
    };
    Ok(PathStat {
        name: Path::new(&clean).file_name().map_or_else(
            || "/".to_owned(),
            |name| name.to_string_lossy().into_owned(),
        ),
        size: facts.len(),
        mode: facts.mode(),
        modified: facts.mtime() * 1_000_000_000 + facts.mtime_nsec(),
        link_target,
    })
}

struct Sender<'a>(&'a mpsc::Sender<io::Result<Bytes>>);

impl io::Write for Sender<'_> {
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

fn pack(
    root: &OwnedFd,
    path: &str,
    name: &str,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let mut builder = tar::Builder::new(io::BufWriter::with_capacity(64 << 10, Sender(sender)));
    builder.follow_symlinks(false);
    let fd = open_in(root, path, OFlag::O_PATH | OFlag::O_NOFOLLOW)?;
    let facts = fs::metadata(through(&fd))?;
    if facts.is_dir() {
        builder.append_dir_all(name, through(&fd))?;
    } else {
        let parent = Path::new(path).parent().unwrap_or(Path::new("/"));
        let parent = open_in(
            root,
            &parent.to_string_lossy(),
            OFlag::O_PATH | OFlag::O_DIRECTORY,
        )?;
        let file = Path::new(path).file_name().unwrap_or_default();
        builder.append_path_with_name(through(&parent).join(file), name)?;
    }
    io::Write::flush(&mut builder.into_inner()?)
}

struct Receiver {
    from: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl Read for Receiver {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.from.blocking_recv() {
                Some(chunk) => self.rest = chunk?,
                None => return Ok(0),
            }
        }
        let count = self.rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}

fn unpack(target: &OwnedFd, from: mpsc::Receiver<io::Result<Bytes>>) -> io::Result<()> {
    let mut archive = tar::Archive::new(Receiver {
        from,
        rest: Bytes::new(),
    });
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    archive.set_unpack_xattrs(true);
    archive.set_overwrite(true);
    archive.unpack(through(target))
}

/// What the writable layer says: whiteouts are character devices 0:0.
fn walk(upper: &Path, at: &Path, layers: &[PathBuf], list: &mut Vec<Change>) {
    let here = upper.join(at.strip_prefix("/").unwrap_or(at));
    for entry in fs::read_dir(here).into_iter().flatten().flatten() {
        let path = at.join(entry.file_name());
        let Ok(facts) = entry.metadata() else {
            continue;
        };
        let relative = path.strip_prefix("/").unwrap_or(&path).to_owned();
        let existed = layers
            .iter()
            .any(|layer| fs::symlink_metadata(layer.join(&relative)).is_ok());
        let kind = if facts.file_type().is_char_device() && facts.rdev() == 0 {
            ChangeKind::Deleted
        } else if existed {
            ChangeKind::Modified
        } else {
            ChangeKind::Added
        };
        list.push(Change {
            path: path.display().to_string(),
            kind,
        });
        if facts.is_dir() {
            walk(upper, &path, layers, list);
        }
    }
}
