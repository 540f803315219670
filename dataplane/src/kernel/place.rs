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

use super::links::{AF_BRIDGE, DEL_NEIGHBOUR, NEW_NEIGHBOUR};
use crate::{firewall, netlink::Netlink};

/// linux/magic.h
const NSFS_MAGIC: i64 = 0x6e73_6673;
/// rtnetlink groups: links, neighbours (FDB included), addresses.
const ROUTE_GROUPS: [u32; 4] = [1, 3, 5, 9];
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
    pub fn open_here(firewall: bool, listen: bool) -> io::Result<Self> {
        let mut events = Vec::new();
        if listen {
            let route = Netlink::open(libc::NETLINK_ROUTE)?;
            for group in ROUTE_GROUPS {
                route.socket.add_membership(group)?;
            }
            route.socket.set_non_blocking(true)?;
            events.push(route);
        }
        let nft = firewall
            .then(|| Netlink::open(libc::NETLINK_NETFILTER))
            .transpose()?;
        if firewall && listen {
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

    /// Takes all events; answers whether one may concern us, and whether some were lost.
    pub fn hear(&mut self, host: bool) -> (bool, bool) {
        let (mut heard, mut lost) = (false, false);
        // What we commit to nftables here we know; of devices the kernel tells more than was asked.
        let own = self.nft.as_ref().map(Netlink::port);
        for events in &mut self.events {
            let missed = events.hear(|received| {
                heard |= !host
                    || match received.kind {
                        // The host's own neighbours come and go all the time.
                        NEW_NEIGHBOUR | DEL_NEIGHBOUR => received.body.first() == Some(&AF_BRIDGE),
                        kind => kind & !0xff != firewall::SUBSYSTEM || Some(received.port) != own,
                    };
            });
            lost |= missed;
        }
        (heard, lost)
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
