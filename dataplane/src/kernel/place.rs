//! Network namespaces: making, binding, entering, and the sockets inside.

use std::{
    fs::{self, File},
    io,
    os::fd::AsFd,
    path::Path,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};

use crate::netlink::Netlink;

/// linux/magic.h
const NSFS_MAGIC: i64 = 0x6e73_6673;
/// rtnetlink groups: links, neighbours (FDB included), addresses, routes.
const ROUTE_GROUPS: [u32; 6] = [1, 3, 5, 9, 7, 11];
/// NFNLGRP_NFTABLES
const NFT_GROUP: u32 = 7;

/// The sockets that we hold in one namespace.
pub struct Sockets {
    pub route: Netlink,
    pub nft: Option<Netlink>,
    /// Not blocking.
    pub events: Vec<Netlink>,
}

impl Sockets {
    /// In the namespace of the calling thread.
    pub fn open_here(firewall: bool) -> io::Result<Self> {
        let route_events = Netlink::open(libc::NETLINK_ROUTE)?;
        for group in ROUTE_GROUPS {
            route_events.socket.add_membership(group)?;
        }
        route_events.socket.set_non_blocking(true)?;
        let mut events = vec![route_events];
        let mut nft = None;
        if firewall {
            nft = Some(Netlink::open(libc::NETLINK_NETFILTER)?);
            let changes = Netlink::open(libc::NETLINK_NETFILTER)?;
            changes.socket.add_membership(NFT_GROUP)?;
            changes.socket.set_non_blocking(true)?;
            events.push(changes);
        }
        Ok(Self {
            route: Netlink::open(libc::NETLINK_ROUTE)?,
            nft,
            events,
        })
    }
}

/// Runs `work` on a thread of its own inside the namespace `netns`.
pub fn inside<T: Send>(
    netns: impl AsFd + Sync,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(&netns, CloneFlags::CLONE_NEWNET)?;
            work()
        });
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a namespace thread panicked")))
    })
}

/// Opens the namespace that is bound at `path`, or makes one and binds it there.
pub fn open_or_make(path: &Path) -> io::Result<File> {
    if is_namespace(path) {
        return File::open(path);
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // Of a start that was killed between the two steps only the empty file is left.
    File::options().create(true).append(true).open(path)?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let source = Path::new("/proc/thread-self/ns/net");
            mount(
                Some(source),
                path,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )?;
            File::open(path)
        });
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a namespace thread panicked")))
    })
}

/// Whether a namespace is bound at `path`; an empty file is what an interrupted start leaves.
pub fn is_namespace(path: &Path) -> bool {
    nix::sys::statfs::statfs(path).is_ok_and(|found| found.filesystem_type().0 == NSFS_MAGIC)
}

/// The namespace itself goes when its last process and socket do.
pub fn unbind(path: &Path) -> io::Result<()> {
    while is_namespace(path) {
        umount2(path, MntFlags::MNT_DETACH)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes one setting of the calling thread's namespace, `net/ipv4/ip_forward` for example.
pub fn set(name: &str, value: &str) -> io::Result<()> {
    fs::write(Path::new("/proc/sys").join(name), value)
}
