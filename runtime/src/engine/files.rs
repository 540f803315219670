//! Files of containers: what changed, and copying in and out.

use std::{
    fs,
    io::{self, Read},
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::BoxStream};
use model::Refusal;
use nix::unistd::{chdir, chroot, fchdir};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{
    Change, ChangeKind, Engine, PathStat,
    container::Container,
    create::clean,
    pack::{Reach, pack},
};
use crate::oci::{
    OciError,
    rootfs::{Layers, mount_image, mount_overlay, open_root},
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Reads,
    Writes,
}

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
        let (path, asked) = (path.to_owned(), reference.to_owned());
        self.in_root_of(&container, Access::Reads, move || {
            stat(&path).ok_or_else(|| no_such_path(&path, &asked))
        })
        .await?
    }

    /// A tar of the container's own files, without what is mounted in them.
    pub async fn export(
        &self,
        reference: &str,
    ) -> Result<BoxStream<'static, io::Result<Bytes>>, Refusal> {
        let (_, tar) = self.archive(reference, "/.", Reach::Own).await?;
        Ok(tar)
    }

    /// A tar of the path, its last component as the first entry (`docker cp` out of it).
    pub async fn archive_get(
        &self,
        reference: &str,
        path: &str,
    ) -> Result<(PathStat, BoxStream<'static, io::Result<Bytes>>), Refusal> {
        self.archive(reference, path, Reach::Everything).await
    }

    async fn archive(
        &self,
        reference: &str,
        path: &str,
        reach: Reach,
    ) -> Result<(PathStat, BoxStream<'static, io::Result<Bytes>>), Refusal> {
        let container = self.find(reference)?;
        let found = self.path_stat(reference, path).await?;
        // `/x/.` means what is in it, under the name `.`.
        let name = if path.ends_with("/.") || clean(path) == "/" {
            ".".to_owned()
        } else {
            found.name.clone()
        };
        let path = clean(path);
        let (sender, receiver) = mpsc::channel(2);
        let this = self.arc();
        self.spawn(async move {
            let failures = sender.clone();
            let packed = this
                .in_root_of(&container, Access::Reads, move || {
                    pack(&path, &name, reach, &sender)
                })
                .await;
            let error = match packed {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error,
                Err(refusal) => io::Error::other(refusal.message),
            };
            // The reader may have gone.
            let _ = failures.send(Err(error)).await;
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
        let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(16);
        let feed = tokio::spawn(async move {
            while let Some(chunk) = tar.next().await {
                if sender.send(chunk).await.is_err() {
                    return;
                }
            }
        });
        let (target, asked) = (path.to_owned(), reference.to_owned());
        let unpacked = self
            .in_root_of(&container, Access::Writes, move || {
                let target = Path::new("/").join(&target);
                match fs::metadata(&target) {
                    Err(_) => Err(no_such_path(&target.to_string_lossy(), &asked)),
                    Ok(facts) if !facts.is_dir() => {
                        Err(Refusal::invalid("extraction point is not a directory"))
                    }
                    Ok(_) => unpack(&target, receiver).map_err(|error| {
                        // The archive's own error says where, its source says why.
                        let why = std::error::Error::source(&error)
                            .map_or_else(|| error.to_string(), ToString::to_string);
                        Refusal::invalid(format!("unpacking into {}: {why}", target.display()))
                    }),
                }
            })
            .await;
        feed.abort();
        unpacked?
    }

    /// Works on a thread whose root is the container's: as it sees it, or as its layers give it
    /// when it does not run. No link in there leads out. One that does not run cannot be
    /// started while it is written to; who only reads, however slowly, is in nobody's way.
    async fn in_root_of<T: Send + 'static>(
        &self,
        container: &Arc<Container>,
        access: Access,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let enter = |root: OwnedFd| -> Result<(), OciError> {
            fchdir(&root)
                .and_then(|()| chroot("."))
                .and_then(|()| chdir("/"))
                .map_err(|error| OciError::Io {
                    doing: "entering the container's root".into(),
                    source: error.into(),
                })
        };
        let open =
            |path: &Path| open_root(path).map_err(OciError::io("opening the container's root"));
        let running = container.running();
        let process = container.record().process;
        let result = if let Some(process) = process.filter(|_| running) {
            self.private(move |_| {
                enter(open(&PathBuf::from(format!("/proc/{}/root", process.pid)))?)?;
                Ok(work())
            })
            .await
        } else if access == Access::Reads {
            let mut layers = container.record().layers.clone();
            layers.push(container.directory.join("upper"));
            let directory = container.directory.clone();
            self.private(move |_| {
                let at = directory.join("rootfs");
                mount_image(&layers, &directory.join("empty"), &at)?;
                enter(open(&at)?)?;
                Ok(work())
            })
            .await
        } else {
            let _turn = container.turn.lock().await;
            if container.running() {
                return Err(Refusal::conflict(format!(
                    "container {} has just been started; try again",
                    container.id
                )));
            }
            let layers = Layers {
                lower: container.record().layers.clone(),
                writable: container.directory.clone(),
            };
            self.private(move |_| {
                let at = layers.writable.join("rootfs");
                mount_overlay(&layers, &at)?;
                enter(open(&at)?)?;
                Ok(work())
            })
            .await
        };
        result.map_err(|error| Refusal::internal(error.to_string()))
    }
}

fn no_such_path(path: &str, container: &str) -> Refusal {
    Refusal::not_found(format!(
        "Could not find the file {path} in container {container}"
    ))
}

fn stat(path: &str) -> Option<PathStat> {
    let clean = clean(path);
    let facts = fs::symlink_metadata(&clean).ok()?;
    let link_target = fs::read_link(&clean)
        .map(|target| target.display().to_string())
        .unwrap_or_default();
    Some(PathStat {
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

fn unpack(target: &Path, from: mpsc::Receiver<io::Result<Bytes>>) -> io::Result<()> {
    let mut archive = tar::Archive::new(Receiver {
        from,
        rest: Bytes::new(),
    });
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    archive.set_unpack_xattrs(true);
    archive.set_overwrite(true);
    archive.unpack(target)
}

/// What the writable layer says: whiteouts are character devices 0:0.
pub(super) fn is_own(path: &Path) -> bool {
    OWN.iter().any(|own| path == Path::new(own))
}

fn facts_of(facts: &fs::Metadata) -> (u32, u32, u32) {
    (facts.mode(), facts.uid(), facts.gid())
}

/// Where the engine's own files are mounted; the empty files below are none of the container's.
const OWN: [&str; 3] = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];

fn walk(upper: &Path, at: &Path, layers: &[PathBuf], list: &mut Vec<Change>) {
    let here = upper.join(at.strip_prefix("/").unwrap_or(at));
    for entry in fs::read_dir(here).into_iter().flatten().flatten() {
        let path = at.join(entry.file_name());
        let Ok(facts) = entry.metadata() else {
            continue;
        };
        if is_own(&path) && facts.is_file() && facts.len() == 0 {
            continue;
        }
        let relative = path.strip_prefix("/").unwrap_or(&path).to_owned();
        let mut below = layers.iter().rev();
        let below = below.find_map(|layer| fs::symlink_metadata(layer.join(&relative)).ok());
        let existed = below.is_some();
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
            let so_far = list.len();
            walk(upper, &path, layers, list);
            let same = below.is_none_or(|below| facts_of(&below) == facts_of(&facts));
            // Only there for what is passed over.
            if same
                && list.len() == so_far
                && OWN.iter().any(|own| Path::new(own).starts_with(&path))
            {
                list.pop();
            }
        }
    }
}
