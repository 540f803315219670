//! A part of a volume or an image: found without leaving it, and bound from its open descriptor,
//! so that nothing which is renamed or linked meanwhile leads elsewhere.

use std::{
    fs,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Component, Path, PathBuf},
};

use model::Refusal;
use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::{Mode, SFlag, fstat},
};

use super::{OciError, rootfs::open_root};

/// What to do with symbolic links on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// One that leads out, or is absolute, is refused: a volume is a folder of the host.
    Beneath,
    /// The whole is their root, as an image's is.
    InRoot,
}

/// Whether a subpath stays inside by its words alone, as Docker asks of it.
pub fn check_subpath(subpath: &str) -> Result<(), Refusal> {
    let mut depth = 0usize;
    let mut inside = true;
    for component in Path::new(subpath).components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => inside = false,
        }
    }
    if inside {
        return Ok(());
    }
    Err(Refusal::invalid(format!(
        "subpath {subpath:?} must be a relative path that stays inside; write it without a leading / and .."
    )))
}

/// Mounts for the making of one container, in the private mount namespace of whoever makes it:
/// the host never sees them, and they are gone with the namespace at the latest.
pub struct Temporary {
    folder: PathBuf,
    places: Vec<PathBuf>,
}

impl Temporary {
    /// In a folder that is made when it is needed.
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            places: Vec::new(),
        }
    }

    /// A new folder of its own, to mount at.
    pub fn folder(&mut self) -> Result<PathBuf, OciError> {
        let place = self.next();
        fs::create_dir_all(&place).map_err(OciError::io(format!("making {}", place.display())))?;
        self.places.push(place.clone());
        Ok(place)
    }

    /// Binds the part of `whole`; `name` is what the user calls the whole.
    pub fn bind_part(
        &mut self,
        whole: &Path,
        subpath: &str,
        links: Links,
        name: &str,
    ) -> Result<PathBuf, OciError> {
        let part = find(whole, subpath, links, name)?;
        let facts = fstat(&part).map_err(failed(name, subpath))?;
        let is_folder = SFlag::from_bits_truncate(facts.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
        let place = if is_folder {
            self.folder()?
        } else {
            fs::create_dir_all(&self.folder).map_err(OciError::io("making a temporary folder"))?;
            let place = self.next();
            fs::write(&place, "").map_err(OciError::io(format!("making {}", place.display())))?;
            self.places.push(place.clone());
            place
        };
        mount(
            Some(format!("/proc/self/fd/{}", part.as_raw_fd()).as_str()),
            &place,
            None::<&str>,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None::<&str>,
        )
        .map_err(failed(name, subpath))?;
        Ok(place)
    }

    fn next(&self) -> PathBuf {
        self.folder.join(self.places.len().to_string())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        for place in self.places.iter().rev() {
            let _ = umount2(place, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
        }
    }
}

fn find(whole: &Path, subpath: &str, links: Links, name: &str) -> Result<OwnedFd, OciError> {
    let root = open_root(whole).map_err(OciError::io(format!("opening {}", whole.display())))?;
    let inside = match links {
        Links::Beneath => ResolveFlag::RESOLVE_BENEATH,
        Links::InRoot => ResolveFlag::RESOLVE_IN_ROOT,
    };
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .mode(Mode::empty())
        .resolve(inside | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    loop {
        match openat2(&root, subpath, how) {
            // Something was renamed just now, and the kernel cannot tell whether it led out.
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            other => return other.map_err(failed(name, subpath)),
        }
    }
}

fn failed(name: &str, subpath: &str) -> impl Fn(Errno) -> OciError + use<> {
    let what = format!("the subpath {subpath:?} of {name}");
    move |error| {
        OciError::Wish(match error {
            Errno::ENOENT => Refusal::invalid(format!(
                "{what} does not exist; make it before the container"
            )),
            Errno::ENOTDIR => Refusal::invalid(format!("{what} leads through a file")),
            Errno::EXDEV => Refusal::invalid(format!(
                "{what} leads out of it by a symbolic link; name a path that stays inside"
            )),
            Errno::ELOOP => Refusal::invalid(format!("{what} is a circle of symbolic links")),
            other => Refusal::internal(format!("{what}: {other}")),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn words_that_stay_inside() {
        for (subpath, fine) in [
            ("a", true),
            ("a/b/../c", true),
            ("./a", true),
            ("a/..", true),
            ("/a", false),
            ("..", false),
            ("a/../../b", false),
        ] {
            assert_eq!(check_subpath(subpath).is_ok(), fine, "{subpath}");
        }
    }

    #[test]
    fn links_do_not_lead_out() {
        let directory = tempfile::tempdir().unwrap();
        let whole = directory.path().join("whole");
        fs::create_dir_all(whole.join("real/deep")).unwrap();
        fs::write(directory.path().join("secret"), "").unwrap();
        for (link, to) in [
            ("inside", "real"),
            ("up", "../secret"),
            ("real/back", "../real/deep"),
            ("absolute", "/real"),
            ("circle", "circle"),
        ] {
            symlink(to, whole.join(link)).unwrap();
        }
        let words = |subpath, links| {
            find(&whole, subpath, links, "volume data")
                .map(drop)
                .map_err(|error| error.to_string())
                .err()
                .unwrap_or_default()
        };
        for (subpath, beneath, in_root) in [
            ("real/deep", "", ""),
            ("inside/deep", "", ""),
            ("real/back", "", ""),
            ("absolute/deep", "leads out", ""),
            ("up", "leads out", "does not exist"),
            ("real/none", "does not exist", "does not exist"),
            ("circle", "circle", "circle"),
        ] {
            for (links, expected) in [(Links::Beneath, beneath), (Links::InRoot, in_root)] {
                let words = words(subpath, links);
                assert!(
                    words.contains(expected) && words.is_empty() == expected.is_empty(),
                    "{subpath} {links:?}: {words}"
                );
            }
        }
    }
}
