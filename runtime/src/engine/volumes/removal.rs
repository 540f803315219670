//! Deleting a volume's folder, and never what is mounted in it.

use std::{
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::Mode,
    unistd::{UnlinkatFlags, unlinkat},
};

/// Deletes a folder and all in it; `EXDEV` or `EBUSY` where something is mounted in it, which
/// then keeps all its files. One that is not there is fine.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = open(
        parent,
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    let name = CString::new(name.as_bytes())?;
    let mut open_levels = match enter(parent.as_fd(), &name) {
        Ok(level) => vec![level],
        Err(Errno::ENOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    // A stack of its own: a container may have nested folders deeper than a thread's.
    while let Some(level) = open_levels.last_mut() {
        if let Some(name) = level.left.pop() {
            match unlinkat(&level.folder, name.as_c_str(), UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(Errno::EISDIR) => {
                    let deeper = enter(level.folder.as_fd(), &name)?;
                    open_levels.push(deeper);
                }
                Err(error) => return Err(error.into()),
            }
            continue;
        }
        let name = std::mem::take(&mut level.name);
        open_levels.pop();
        let above = open_levels
            .last()
            .map_or(parent.as_fd(), |level| level.folder.as_fd());
        unlinkat(above, name.as_c_str(), UnlinkatFlags::RemoveDir)?;
    }
    Ok(())
}

struct Level {
    name: CString,
    folder: OwnedFd,
    left: Vec<CString>,
}

/// Opens a folder that is not the root of another mount, and lists it.
fn enter(parent: BorrowedFd<'_>, name: &CStr) -> nix::Result<Level> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(
            ResolveFlag::RESOLVE_NO_XDEV
                | ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS,
        );
    let folder = openat2(parent, name, how)?;
    let mut left = Vec::new();
    for entry in Dir::from_fd(folder.try_clone().map_err(|_| Errno::EMFILE)?)?.iter() {
        let name = entry?.file_name().to_owned();
        if !matches!(name.as_bytes(), b"." | b"..") {
            left.push(name);
        }
    }
    Ok(Level {
        name: name.to_owned(),
        folder,
        left,
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_tree_goes_and_what_links_lead_to_stays() {
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "").unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        fs::write(tree.join("a/b/file"), "").unwrap();
        symlink(&outside, tree.join("a/link")).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert!(outside.join("kept").exists());
        remove_tree(&tree).unwrap();
    }
}
