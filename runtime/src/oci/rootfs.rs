//! Root file systems by overlayfs, and looking into one without leaving it.

use std::{
    fs::File,
    io::Read as _,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    path::{Component, Path, PathBuf},
    process::Command,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    mount::{MsFlags, mount},
    sys::stat::{Mode, mkdirat},
    unistd::chdir,
};

use super::OciError;

/// Layers, bottom first, and the writable directory, which has `upper` and `work` in it.
#[derive(Debug, Clone)]
pub struct Layers {
    pub lower: Vec<PathBuf>,
    pub writable: PathBuf,
}

/// Mounts the layers at a directory. To be called in a private mount namespace: it changes the
/// thread's working directory.
pub fn mount_overlay(layers: &Layers, at: &Path) -> Result<(), OciError> {
    let mut lower = layers.lower.clone();
    if lower.is_empty() {
        let empty = layers.writable.join("empty");
        std::fs::create_dir_all(&empty).map_err(OciError::io("making an empty layer"))?;
        lower.push(empty);
    }
    let upper = directory(&layers.writable.join("upper"))?;
    let work = directory(&layers.writable.join("work"))?;
    let above = format!(
        ",upperdir={},workdir={}",
        upper.as_raw_fd(),
        work.as_raw_fd()
    );
    overlay(&lower, &above, MsFlags::empty(), at)
}

/// Mounts layers, bottom first, at a directory so that nothing in it can be changed. `empty` is
/// made. To be called as [`mount_overlay`].
pub fn mount_image(layers: &[PathBuf], empty: &Path, at: &Path) -> Result<(), OciError> {
    std::fs::create_dir_all(empty).map_err(OciError::io("making an empty layer"))?;
    // Without a writable layer the kernel wants two at least; and one layer by itself would show
    // the marks of files that it deletes.
    let mut lower = vec![empty.to_owned()];
    lower.extend(layers.iter().cloned());
    if lower.len() == 1 {
        lower.push(empty.join("below"));
        std::fs::create_dir_all(&lower[1]).map_err(OciError::io("making an empty layer"))?;
    }
    overlay(&lower, "", MsFlags::MS_RDONLY, at)
}

/// Directories are named by descriptor numbers, so that 128 long paths fit into the one page
/// that mount(2) takes.
fn overlay(lower: &[PathBuf], above: &str, flags: MsFlags, at: &Path) -> Result<(), OciError> {
    let mut layers = Vec::with_capacity(lower.len());
    for path in lower.iter().rev() {
        layers.push(directory(path)?);
    }
    let names: Vec<String> = layers.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    let options = format!("lowerdir={}{above}", names.join(":"));
    let io = |doing: String| {
        move |error: Errno| OciError::Io {
            doing,
            source: error.into(),
        }
    };
    chdir("/proc/self/fd").map_err(io("entering /proc/self/fd".into()))?;
    mount(
        Some("overlay"),
        at,
        Some("overlay"),
        flags,
        Some(options.as_str()),
    )
    .map_err(io(format!("mounting the layers at {}", at.display())))?;
    chdir("/").map_err(io("entering /".into()))
}

fn directory(path: &Path) -> Result<OwnedFd, OciError> {
    open(
        path,
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .map_err(|error| OciError::Io {
        doing: format!("opening {}", path.display()),
        source: error.into(),
    })
}

/// Opens the directory that paths are looked up in.
pub fn open_root(path: &Path) -> std::io::Result<OwnedFd> {
    Ok(open(
        path,
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?)
}

/// Opens a path as a process with that root would, symbolic links included.
pub fn open_in(root: impl AsFd, path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
    let relative = path.trim_start_matches('/');
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, if relative.is_empty() { "." } else { relative }, how)
}

/// Reads a small text file; absent or unreadable is empty.
pub fn read_in(root: impl AsFd, path: &str) -> String {
    let Ok(fd) = open_in(root, path, OFlag::O_RDONLY) else {
        return String::new();
    };
    let mut text = String::new();
    let _ = File::from(fd).take(4 << 20).read_to_string(&mut text);
    text
}

/// Makes a directory and its parents, following links inside the root only.
pub fn ensure_dir(root: impl AsFd, path: &str) -> nix::Result<OwnedFd> {
    let directory = OFlag::O_PATH | OFlag::O_DIRECTORY;
    match open_in(&root, path, directory) {
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    let mut so_far = String::new();
    let mut current = open_in(&root, "/", directory)?;
    for component in Path::new(path).components() {
        let Component::Normal(name) = component else {
            continue;
        };
        so_far.push('/');
        so_far.push_str(&name.to_string_lossy());
        current = match open_in(&root, &so_far, directory) {
            Err(Errno::ENOENT) => {
                mkdirat(&current, name, Mode::from_bits_truncate(0o755))?;
                open_in(&root, &so_far, directory)?
            }
            other => other?,
        };
    }
    Ok(current)
}

/// Copies what an image has at a path into a new volume, ownership and all.
pub fn copy_into(root: impl AsFd, path: &str, volume: &Path) -> Result<(), OciError> {
    let Ok(source) = open_in(root, path, OFlag::O_PATH | OFlag::O_DIRECTORY) else {
        return Ok(());
    };
    let from = format!("/proc/{}/fd/{}/.", std::process::id(), source.as_raw_fd());
    let output = Command::new("cp")
        .args(["-a", "--", &from])
        .arg(volume)
        .output()
        .map_err(OciError::io("copying into the volume"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(OciError::Refused(format!(
        "copying the image's {path} into a new volume: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    )))
}
