//! Mounting a volume's file system: which calls, their execution, and the kernel's answer in
//! words.

use std::{
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    path::Path,
};

use model::Refusal;
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statvfs::{FsFlags, statvfs},
};

use super::options::FileSystem;
use crate::oci::mountinfo::at_or_below;

/// Mounts it unless something is there already. Blocks: a server may take its time.
pub fn mount_once(volume: &str, wish: &FileSystem, at: &Path) -> Result<(), Refusal> {
    let there = is_mounted(at)?;
    let wish = if there {
        wish.clone()
    } else {
        addressed(volume, wish)?
    };
    // The first call mounts, the others change what is mounted. They change nothing when they
    // are repeated, and somebody may have been killed before them.
    let skipped = usize::from(there);
    for (number, call) in calls(&wish).into_iter().enumerate().skip(skipped) {
        if let Err(error) = carry_out(&call, at) {
            if number > 0 && !there {
                // Half of what was asked for is not what was asked for.
                let _ = umount2(at, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
            }
            return Err(Refusal::internal(words(volume, &wish, error)));
        }
    }
    Ok(())
}

/// Unmounts whatever is mounted there; nothing is fine.
pub fn unmount(volume: &str, at: &Path) -> Result<(), Refusal> {
    while is_mounted(at)? {
        // Lazily, as Docker does: the place is free at once, also while somebody looks into it.
        umount2(at, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).map_err(|error| {
            Refusal::internal(format!(
                "volume {volume}: unmounting {}: {error}",
                at.display()
            ))
        })?;
    }
    Ok(())
}

/// Whether a mount is at this very place.
pub fn is_mounted(at: &Path) -> Result<bool, Refusal> {
    let places = at_or_below(at).map_err(|error| Refusal::internal(error.to_string()))?;
    Ok(places.iter().any(|place| place == at))
}

/// One mount(2).
#[derive(Debug, PartialEq, Eq)]
struct Call<'a> {
    source: Option<&'a str>,
    kind: Option<&'a str>,
    flags: MsFlags,
    data: Option<&'a str>,
}

/// A bind, other flags on it, and propagation take a call each.
fn calls(wish: &FileSystem) -> Vec<Call<'_>> {
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    let mut list = Vec::new();
    let plain = |flags| Call {
        source: None,
        kind: None,
        flags,
        data: None,
    };
    if wish.is_bind() {
        list.push(Call {
            source: Some(&wish.device),
            ..plain(wish.flags & bind)
        });
        let rest = wish.flags - bind;
        if !rest.is_empty() {
            list.push(plain(MsFlags::MS_BIND | MsFlags::MS_REMOUNT | rest));
        }
    } else {
        list.push(Call {
            source: Some(&wish.device),
            kind: Some(&wish.kind),
            flags: wish.flags,
            data: (!wish.data.is_empty()).then_some(wish.data.as_str()),
        });
    }
    if !wish.propagation.is_empty() {
        list.push(plain(wish.propagation));
    } else if wish.is_bind() {
        // Else unmounting the volume would, where the host shares its mounts, also unmount what
        // is mounted below the device itself.
        list.push(plain(MsFlags::MS_SLAVE | MsFlags::MS_REC));
    }
    list
}

fn carry_out(call: &Call<'_>, at: &Path) -> nix::Result<()> {
    let mut flags = call.flags;
    if flags.contains(MsFlags::MS_REMOUNT) {
        // A remount replaces all flags: what the device's own mount forbids stays forbidden.
        let there = statvfs(at)?.flags();
        for (has, keep) in [
            (FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
            (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
            (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
            (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        ] {
            if there.contains(has) {
                flags |= keep;
            }
        }
    }
    mount(call.source, at, call.kind, flags, call.data)
}

/// The kernel takes addresses only.
fn addressed(volume: &str, wish: &FileSystem) -> Result<FileSystem, Refusal> {
    let Some(host) = wish.host() else {
        return Ok(wish.clone());
    };
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(wish.with_address(&address.to_string()));
    }
    let found: Vec<SocketAddr> = (host, 0)
        .to_socket_addrs()
        .map_err(|error| {
            Refusal::internal(format!(
                "volume {volume}: the address of {host} cannot be looked up: {error}; give o=addr= an address, or see to the host's names"
            ))
        })?
        .collect();
    let chosen = found.iter().find(|one| one.is_ipv4()).or(found.first());
    chosen.map_or_else(
        || {
            Err(Refusal::internal(format!(
                "volume {volume}: {host} has no address; give o=addr= an address"
            )))
        },
        |one| Ok(wish.with_address(&one.ip().to_string())),
    )
}

/// Why it was not mounted and what to do. The options are left out: one may be a password.
fn words(volume: &str, wish: &FileSystem, error: Errno) -> String {
    let FileSystem { kind, device, .. } = wish;
    let what = if wish.is_bind() {
        format!("volume {volume}: {device} cannot be bound")
    } else {
        format!("volume {volume}: {device} cannot be mounted as {kind}")
    };
    let why = match error {
        Errno::ENODEV => match kind.as_str() {
            "nfs" | "nfs4" => "the kernel's module nfs is missing; run modprobe nfs, or install \
                               the kernel's further modules and the package nfs-common"
                .to_owned(),
            "cifs" | "smb3" => "the kernel's module cifs is missing; run modprobe cifs, or \
                                install the kernel's further modules and the package cifs-utils"
                .to_owned(),
            _ => format!("this kernel has no file system {kind}; see /proc/filesystems"),
        },
        Errno::ENOENT if wish.device.starts_with('/') => {
            format!("{device} does not exist on this host; make it first")
        }
        Errno::ENOTDIR => format!("{device} is no folder; a volume is one"),
        Errno::ENOTBLK => {
            format!("{device} is no block device; for a file make a loop device (losetup)")
        }
        Errno::EINVAL if wish.is_remote() && wish.host().is_none() => {
            "no server is named; give o=addr=SERVER".to_owned()
        }
        Errno::EINVAL => format!(
            "{error}: an option is not known to {kind}, or {device} holds another file system; dmesg may say more"
        ),
        Errno::EPERM | Errno::EACCES => {
            format!(
                "{error}: the server refuses, or ovnd may not open it (DeviceAllow of its unit)"
            )
        }
        Errno::EBUSY => format!("{error}: it is mounted elsewhere with other options"),
        other => other.to_string(),
    };
    format!("{what}: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(kind: &str, device: &str, o: &str) -> FileSystem {
        let options = [("type", kind), ("device", device), ("o", o)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        FileSystem::of(&options.into()).unwrap().unwrap()
    }

    #[test]
    fn calls_of_a_file_system_and_of_a_bind() {
        let tmpfs = wish("tmpfs", "none", "size=1m,noexec");
        assert_eq!(
            calls(&tmpfs),
            [Call {
                source: Some("none"),
                kind: Some("tmpfs"),
                flags: MsFlags::MS_NOEXEC,
                data: Some("size=1m")
            }]
        );
        let flags = |o: &str| -> Vec<MsFlags> {
            let wish = wish("none", "/srv", o);
            calls(&wish).iter().map(|call| call.flags).collect()
        };
        let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
        assert_eq!(flags("bind"), [MsFlags::MS_BIND, slave]);
        assert_eq!(
            flags("rbind,ro,private"),
            [
                MsFlags::MS_BIND | MsFlags::MS_REC,
                MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY,
                MsFlags::MS_PRIVATE
            ]
        );
    }

    #[test]
    fn reasons_name_the_thing_and_the_way_out_but_no_password() {
        for (wish, error, expected) in [
            (
                wish("nfs", ":/e", "addr=192.0.2.1"),
                Errno::ENODEV,
                "nfs-common",
            ),
            (
                wish("cifs", "//a/b", "password=secret"),
                Errno::ENODEV,
                "cifs-utils",
            ),
            (wish("zfs", "tank", ""), Errno::ENODEV, "no file system zfs"),
            (wish("nfs", ":/e", ""), Errno::EINVAL, "o=addr=SERVER"),
            (
                wish("none", "/srv/no", "bind"),
                Errno::ENOENT,
                "/srv/no does not exist",
            ),
            (wish("ext4", "/img", ""), Errno::ENOTBLK, "losetup"),
        ] {
            let text = words("data", &wish, error);
            assert!(text.starts_with("volume data: "), "{text}");
            assert!(text.contains(expected), "{text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }
}
