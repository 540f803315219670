//! Writing below one directory and nowhere else.
//!
//! Directories are opened with `openat2(RESOLVE_IN_ROOT)` (man 2 openat2): links are followed
//! as for a process whose root is the layer, so they end inside it. The last name of a path is
//! always used with a directory descriptor and never followed.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2},
    sys::{
        stat::{
            FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstat, fstatat,
            makedev, mkdirat, mknodat, utimensat,
        },
        time::TimeSpec,
    },
    unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat},
};
use xattr::FileExt;

/// Owner, mode, time and extended attributes of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    pub uid: u32,
    pub gid: u32,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, i64),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Special files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
}

pub struct Tree {
    root: OwnedFd,
    /// Layers below, highest first.
    parents: Vec<OwnedFd>,
    /// The directory used last: entries of one directory follow each other.
    last: Option<(Vec<u8>, OwnedFd)>,
}

const DIRECTORY: OFlag = OFlag::O_DIRECTORY
    .union(OFlag::O_CLOEXEC)
    .union(OFlag::O_RDONLY);
const NOFOLLOW: AtFlags = AtFlags::AT_SYMLINK_NOFOLLOW;

impl Tree {
    pub fn open(root: &Path, parents: &[PathBuf]) -> io::Result<Self> {
        let open = |path: &Path| File::open(path).map(OwnedFd::from);
        Ok(Self {
            root: open(root)?,
            parents: parents
                .iter()
                .map(|path| open(path))
                .collect::<io::Result<_>>()?,
            last: None,
        })
    }

    /// Gives the root the mode and owner it has in the layer below, or 0755 of root.
    pub fn imply_root(&self) -> io::Result<()> {
        let below = self.parents.first().map(fstat).transpose()?;
        imply(&self.root, below.as_ref())
    }

    pub fn set_root(&self, attributes: &Attributes) -> io::Result<()> {
        apply(&File::from(self.root.try_clone()?), attributes)
    }

    pub fn file(
        &mut self,
        directory: &[Vec<u8>],
        name: &[u8],
        attributes: &Attributes,
        content: &mut dyn Read,
    ) -> io::Result<u64> {
        let mut file = self.create(directory, name)?;
        let size = io::copy(content, &mut file)?;
        apply(&file, attributes)?;
        let (seconds, nanos) = attributes.mtime;
        let time = TimeSpec::new(seconds, nanos);
        nix::sys::stat::futimens(&file, &time, &time)?;
        Ok(size)
    }

    pub fn directory(
        &mut self,
        directory: &[Vec<u8>],
        name: &[u8],
        attributes: &Attributes,
    ) -> io::Result<()> {
        let parent = self.enter(directory)?;
        let name = OsStr::from_bytes(name);
        match mkdirat(&parent, name, Mode::from_bits_truncate(0o700)) {
            Err(Errno::EEXIST) if is_directory(&stat(&parent, name)?) => {}
            Err(Errno::EEXIST) => {
                unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir)?;
                mkdirat(&parent, name, Mode::from_bits_truncate(0o700))?;
            }
            other => other?,
        }
        let made = openat(&parent, name, DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty())?;
        apply(&File::from(made), attributes)
    }

    pub fn symlink(
        &mut self,
        directory: &[Vec<u8>],
        name: &[u8],
        target: &[u8],
        attributes: &Attributes,
    ) -> io::Result<()> {
        let parent = self.clear(directory, name)?;
        let name = OsStr::from_bytes(name);
        symlinkat(OsStr::from_bytes(target), &parent, name)?;
        own(&parent, name, attributes)?;
        date(&parent, name, attributes.mtime)
    }

    /// Links to a file of this layer, or copies the file of a layer below; gives the bytes
    /// copied.
    pub fn hard_link(
        &mut self,
        directory: &[Vec<u8>],
        name: &[u8],
        target: &[Vec<u8>],
    ) -> io::Result<u64> {
        let (target_name, target_directory) = target.split_last().ok_or(Errno::EINVAL)?;
        let target_name = OsStr::from_bytes(target_name);
        if let Ok(from) = resolve(&self.root, target_directory, OFlag::empty()) {
            match stat(&from, target_name) {
                Ok(found) if is_directory(&found) => return Err(Errno::EPERM.into()),
                Ok(_) if target_directory == directory && target_name.as_bytes() == name => {
                    return Ok(0);
                }
                Ok(_) => {
                    let parent = self.clear(directory, name)?;
                    linkat(
                        &from,
                        target_name,
                        &parent,
                        OsStr::from_bytes(name),
                        AtFlags::empty(),
                    )?;
                    return Ok(0);
                }
                Err(_) => {}
            }
        }
        let mut original = self
            .parents
            .iter()
            .find_map(|parent| resolve(parent, target, OFlag::O_NOFOLLOW).ok())
            .map(File::from)
            .ok_or(Errno::ENOENT)?;
        let found = fstat(&original)?;
        if SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits()) != SFlag::S_IFREG {
            return Err(Errno::ENOENT.into());
        }
        let attributes = Attributes {
            uid: found.st_uid,
            gid: found.st_gid,
            mode: found.st_mode & 0o7777,
            mtime: (found.st_mtime, found.st_mtime_nsec),
            xattrs: Vec::new(),
        };
        self.file(directory, name, &attributes, &mut original)
    }

    pub fn node(
        &mut self,
        directory: &[Vec<u8>],
        name: &[u8],
        node: Node,
        attributes: &Attributes,
    ) -> io::Result<()> {
        let parent = self.clear(directory, name)?;
        let name = OsStr::from_bytes(name);
        let (kind, device) = match node {
            Node::Char(major, minor) => (SFlag::S_IFCHR, makedev(major.into(), minor.into())),
            Node::Block(major, minor) => (SFlag::S_IFBLK, makedev(major.into(), minor.into())),
            Node::Fifo => (SFlag::S_IFIFO, 0),
        };
        mknodat(&parent, name, kind, Mode::empty(), device)?;
        own(&parent, name, attributes)?;
        // The node was made a line above and nobody else writes here: it is no link.
        let mode = Mode::from_bits_truncate(attributes.mode);
        fchmodat(&parent, name, mode, FchmodatFlags::FollowSymlink)?;
        date(&parent, name, attributes.mtime)
    }

    /// Hides everything that lower layers have below a directory.
    pub fn opaque(&mut self, directory: &[Vec<u8>]) -> io::Result<()> {
        let directory = File::from(self.enter(directory)?);
        directory.set_xattr("trusted.overlay.opaque", b"y")
    }

    /// Hides a name of lower layers. What this layer itself has there stays; a directory must
    /// then not merge with the one below.
    pub fn whiteout(&mut self, directory: &[Vec<u8>], name: &[u8]) -> io::Result<()> {
        let parent = self.enter(directory)?;
        let os_name = OsStr::from_bytes(name);
        match stat(&parent, os_name) {
            Ok(found) if is_directory(&found) => {
                let mut path = directory.to_vec();
                path.push(name.to_vec());
                self.opaque(&path)
            }
            Ok(_) => Ok(()),
            Err(Errno::ENOENT) => Ok(mknodat(
                &parent,
                os_name,
                SFlag::S_IFCHR,
                Mode::empty(),
                makedev(0, 0),
            )?),
            Err(error) => Err(error.into()),
        }
    }

    /// Sets a directory's time; one that was replaced by something else meanwhile is left.
    pub fn time(&self, path: &[Vec<u8>], (seconds, nanos): (i64, i64)) -> io::Result<()> {
        let Ok(directory) = resolve(&self.root, path, OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW)
        else {
            return Ok(());
        };
        let time = TimeSpec::new(seconds, nanos);
        Ok(nix::sys::stat::futimens(&directory, &time, &time)?)
    }

    fn create(&mut self, directory: &[Vec<u8>], name: &[u8]) -> io::Result<File> {
        let parent = self.clear(directory, name)?;
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o600);
        Ok(openat(&parent, OsStr::from_bytes(name), flags, mode)?.into())
    }

    /// The directory, with nothing of that name in it.
    fn clear(&mut self, directory: &[Vec<u8>], name: &[u8]) -> io::Result<OwnedFd> {
        let parent = self.enter(directory)?;
        let os_name = OsStr::from_bytes(name);
        match unlinkat(&parent, os_name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(Errno::EISDIR) => {
                self.last = None;
                // Follows no links (std::fs::remove_dir_all, "Security"), and the descriptor
                // cannot be swapped under it.
                let path = PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd()));
                std::fs::remove_dir_all(path.join(os_name))?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(parent)
    }

    /// Opens a directory of the layer; makes it and those above it where they are missing.
    fn enter(&mut self, path: &[Vec<u8>]) -> io::Result<OwnedFd> {
        let key = path.join(&b'/');
        if let Some((last, directory)) = &self.last
            && *last == key
        {
            return directory.try_clone();
        }
        let directory = match resolve(&self.root, path, OFlag::O_DIRECTORY) {
            Err(Errno::ENOENT) => self.imply(path)?,
            other => other?,
        };
        self.last = Some((key, directory.try_clone()?));
        Ok(directory)
    }

    fn imply(&mut self, path: &[Vec<u8>]) -> io::Result<OwnedFd> {
        let (name, above) = path.split_last().ok_or(Errno::ENOENT)?;
        let above = self.enter(above)?;
        let name = OsStr::from_bytes(name);
        mkdirat(&above, name, Mode::from_bits_truncate(0o700))?;
        let made = openat(&above, name, DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty())?;
        let below = self
            .parents
            .iter()
            .find_map(|parent| resolve(parent, path, OFlag::O_NOFOLLOW | OFlag::O_PATH).ok());
        let below = below
            .map(|found| fstat(&found))
            .transpose()?
            .filter(is_directory);
        imply(&made, below.as_ref())?;
        Ok(made)
    }
}

fn resolve(root: &OwnedFd, path: &[Vec<u8>], flags: OFlag) -> nix::Result<OwnedFd> {
    let joined = path.join(&b'/');
    let joined = if joined.is_empty() {
        b"."
    } else {
        joined.as_slice()
    };
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, OsStr::from_bytes(joined), how)
}

fn stat(directory: &OwnedFd, name: &OsStr) -> nix::Result<FileStat> {
    fstatat(directory, name, NOFOLLOW)
}

fn is_directory(found: &FileStat) -> bool {
    found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits()
}

fn imply(directory: &OwnedFd, below: Option<&FileStat>) -> io::Result<()> {
    let (uid, gid, mode) = below.map_or((0, 0, 0o755), |found| {
        (found.st_uid, found.st_gid, found.st_mode & 0o7777)
    });
    fchown(
        directory,
        Some(Uid::from_raw(uid)),
        Some(Gid::from_raw(gid)),
    )?;
    Ok(fchmod(directory, Mode::from_bits_truncate(mode))?)
}

/// Owner first: a change of owner clears setuid bits and capabilities.
fn apply(file: &File, attributes: &Attributes) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
    fchown(file.as_fd(), Some(uid), Some(gid))?;
    fchmod(file, Mode::from_bits_truncate(attributes.mode))?;
    for (name, value) in &attributes.xattrs {
        match file.set_xattr(OsStr::from_bytes(name), value) {
            // A file system without attributes runs most images all the same.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
            other => other?,
        }
    }
    Ok(())
}

fn own(directory: &OwnedFd, name: &OsStr, attributes: &Attributes) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
    Ok(fchownat(directory, name, Some(uid), Some(gid), NOFOLLOW)?)
}

fn date(directory: &OwnedFd, name: &OsStr, (seconds, nanos): (i64, i64)) -> io::Result<()> {
    let time = TimeSpec::new(seconds, nanos);
    Ok(utimensat(
        directory,
        name,
        &time,
        &time,
        UtimensatFlags::NoFollowSymlink,
    )?)
}
