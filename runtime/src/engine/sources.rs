//! The mounts of one start, as the OCI runtime is to make them: where on this host each one's
//! source is. Parts and images get a source made for them.

use std::{
    fs,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use nix::sys::statvfs::{FsFlags, statvfs};

use super::{MountKind, MountPoint, create::clean, launch::Plan, volumes::fill};
use crate::oci::{
    OciError,
    bundle::Mount,
    part::{Links, Temporary},
    rootfs::{copy_into, mount_image},
};

/// All of them, parents before children. To be called in the private mount namespace in which
/// the container is made.
pub(super) fn mounts(
    plan: &Plan,
    root: &impl AsFd,
    temporary: &mut Temporary,
) -> Result<Vec<Mount>, OciError> {
    let record = &plan.record;
    let mut list = Vec::new();
    for (target, file) in [
        ("/etc/resolv.conf", "resolv.conf"),
        ("/etc/hostname", "hostname"),
        ("/etc/hosts", "hosts"),
    ] {
        if !record
            .mounts
            .iter()
            .any(|point| point.destination == target)
        {
            list.push(Mount {
                target: target.into(),
                kind: "bind",
                source: plan.directory.join(file).display().to_string(),
                options: vec!["rbind".into(), "rprivate".into(), "rw".into()],
            });
        }
    }
    for point in &record.mounts {
        let wish = record
            .spec
            .host
            .mounts
            .iter()
            .find(|mount| clean(&mount.target) == point.destination)
            .map(|mount| &mount.kind);
        let (source, how) = match wish {
            Some(MountKind::Tmpfs {
                size,
                mode,
                options,
            }) => {
                list.push(tmpfs(point, *size, *mode, options));
                continue;
            }
            Some(MountKind::Bind {
                create_source,
                non_recursive,
                ..
            }) => {
                if *create_source && !point.source.exists() {
                    fs::create_dir_all(&point.source)
                        .map_err(OciError::io(format!("making {}", point.source.display())))?;
                }
                let how = if *non_recursive { "bind" } else { "rbind" };
                (point.source.clone(), how)
            }
            Some(MountKind::Image { image, subpath }) => {
                let whole = temporary.folder()?;
                mount_image(&point.layers, &plan.bundle.join("empty"), &whole)?;
                let name = format!("image {image}");
                let source = if subpath.is_empty() {
                    whole
                } else {
                    temporary.bind_part(&whole, subpath, Links::InRoot, &name)?
                };
                (source, "rbind")
            }
            Some(MountKind::Volume { subpath, .. }) if !subpath.is_empty() => {
                let name = format!("volume {}", point.name.as_deref().unwrap_or_default());
                let part = temporary.bind_part(&point.source, subpath, Links::Beneath, &name)?;
                (part, "rbind")
            }
            Some(MountKind::Volume { no_copy, .. }) => (filled(point, *no_copy, root)?, "rbind"),
            None => (filled(point, false, root)?, "rbind"),
        };
        list.push(bind(point, &source, how));
    }
    list.sort_by_key(|mount| mount.target.matches('/').count());
    Ok(list)
}

fn filled(point: &MountPoint, no_copy: bool, root: &impl AsFd) -> Result<PathBuf, OciError> {
    fill(&point.source, no_copy, |volume| {
        copy_into(root, &point.destination, volume)
    })?;
    Ok(point.source.clone())
}

fn bind(point: &MountPoint, source: &Path, how: &str) -> Mount {
    let propagation = if point.propagation.is_empty() {
        "rprivate"
    } else {
        &point.propagation
    };
    let mut options = vec![how.to_owned(), propagation.to_owned()];
    let mut words = restrictions(source);
    if !point.writable && !words.contains(&"ro") {
        words.push("ro");
    }
    options.extend(words.into_iter().map(str::to_owned));
    Mount {
        target: point.destination.clone(),
        kind: "bind",
        source: source.display().to_string(),
        options,
    }
}

/// What is forbidden where the source is mounted. It has to be said: crun sets anew all that can
/// be forbidden, and would let a container write to what the host has mounted read-only.
fn restrictions(source: &Path) -> Vec<&'static str> {
    let flags = statvfs(source).map_or(FsFlags::empty(), |facts| facts.flags());
    [
        (FsFlags::ST_RDONLY, "ro"),
        (FsFlags::ST_NOSUID, "nosuid"),
        (FsFlags::ST_NODEV, "nodev"),
        (FsFlags::ST_NOEXEC, "noexec"),
    ]
    .into_iter()
    .filter_map(|(flag, word)| flags.contains(flag).then_some(word))
    .collect()
}

fn tmpfs(point: &MountPoint, size: Option<u64>, mode: Option<u32>, options: &[String]) -> Mount {
    let mut all = vec!["nosuid".to_owned(), "nodev".into(), "noexec".into()];
    all.retain(|option| {
        let opposite = option.strip_prefix("no").unwrap_or_default();
        !options.iter().any(|own| own == opposite)
    });
    all.extend(options.iter().cloned());
    all.extend(size.map(|size| format!("size={size}")));
    all.extend(mode.map(|mode| format!("mode={mode:o}")));
    all.push(if point.writable { "rw" } else { "ro" }.to_owned());
    Mount {
        target: point.destination.clone(),
        kind: "tmpfs",
        source: "tmpfs".into(),
        options: all,
    }
}
