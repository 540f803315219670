//! Network namespaces of others: whose they are, what is in them, and where we hold them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use nix::mount::{MsFlags, mount};

pub use crate::kernel::place::is_namespace;
use crate::{
    kernel::{
        place::{inside, unbind},
        sight,
    },
    netlink::Netlink,
    view::PORT,
};

/// What a namespace has before it becomes a guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    pub devices: BTreeSet<String>,
    /// It has a default route, of whatever family.
    pub routed: bool,
    /// Its interfaces that are ours and up, by their other ends.
    pub ours: BTreeMap<String, String>,
}

/// Whether both paths lead to one namespace. A path that leads nowhere is like no other.
pub fn same(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
    matches!((place(one), place(other)), (Ok(one), Ok(other)) if one == other)
}

/// Looks into the namespace at `path`. It takes a thread of its own, and blocks for it.
pub fn look(path: &Path) -> io::Result<Surroundings> {
    let namespace = File::open(path)?;
    let not_one = || io::Error::new(io::ErrorKind::InvalidInput, "it is no network namespace");
    if !is_namespace(path) {
        return Err(not_one());
    }
    let read = || {
        let file = |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
        let devices = file("dev")?;
        let (ipv4, ipv6) = (file("route")?, file("ipv6_route").unwrap_or_default());
        let links = sight::look(&mut Netlink::open(libc::NETLINK_ROUTE)?, false, false)?.links;
        let ours = links
            .into_values()
            .filter(|link| link.up && link.alias.starts_with(PORT));
        Ok(Surroundings {
            ours: ours.map(|link| (link.alias, link.name)).collect(),
            devices: devices_in(&devices),
            routed: is_routed(&ipv4) || is_routed_ipv6(&ipv6),
        })
    };
    inside(&namespace, read).map_err(|error| match error.raw_os_error() {
        // Of another kind: of mounts, say.
        Some(libc::EINVAL) => not_one(),
        _ => error,
    })
}

/// Holds the namespace at `source` by a mount at `target`.
pub fn bind(source: &Path, target: &Path) -> io::Result<()> {
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder)?;
    }
    unbind(target)?;
    File::create(target)?;
    let bound = mount(
        Some(source),
        target,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    );
    bound.map_err(|error| {
        // The mount's error says more than that of the empty file.
        let _ = fs::remove_file(target);
        error.into()
    })
}

/// Of `/proc/net/dev`: two lines of headings, then a device a line.
fn devices_in(text: &str) -> BTreeSet<String> {
    let names = text.lines().skip(2).filter_map(|line| line.split_once(':'));
    names.map(|(name, _)| name.trim().to_owned()).collect()
}

/// Of `/proc/net/route`: device, destination, …, mask in the eighth column.
fn is_routed(text: &str) -> bool {
    text.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(1) == Some(&"00000000") && fields.get(7) == Some(&"00000000")
    })
}

/// Of `/proc/net/ipv6_route`: destination, its length, …, device. The kernel's own route to
/// nowhere is on `lo`.
fn is_routed_ipv6(text: &str) -> bool {
    text.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let default = fields
            .first()
            .is_some_and(|to| to.bytes().all(|b| b == b'0'));
        default && fields.get(1) == Some(&"00") && fields.last() != Some(&"lo")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_tells_is_read() {
        let dev = "Inter-|   Receive\n face |bytes\n    lo:       0  0\n  eth0: 12 3\n";
        assert_eq!(
            devices_in(dev),
            BTreeSet::from(["eth0".into(), "lo".into()])
        );
        let heading = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n";
        let default = "eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        let subnet = "eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert!(is_routed(&format!("{heading}{subnet}{default}")));
        assert!(!is_routed(&format!("{heading}{subnet}")));
        let zeros = "0".repeat(32);
        let line = |device: &str| {
            format!("{zeros} 00 {zeros} 00 {zeros} ffffffff 00000001 00000000 00200200 {device}\n")
        };
        assert!(!is_routed_ipv6(&line("lo")));
        assert!(is_routed_ipv6(&line("eth0")));
    }

    #[test]
    fn what_is_no_namespace_is_no_guest() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let said = look(file.path()).unwrap_err().to_string();
        assert!(said.contains("no network namespace"), "{said}");
        assert!(look(Path::new("/nonexistent")).is_err());
        assert!(!same(file.path(), Path::new("/nonexistent")));
        assert!(!same(Path::new("/nonexistent"), Path::new("/nonexistent")));
        assert!(same(file.path(), file.path()));
    }
}
