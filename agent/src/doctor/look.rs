//! Reads what the checks of a host need. Whatever cannot be read is absent, never an error.

use std::{
    fs,
    net::IpAddr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use dataplane::{
    firewall::foreign,
    kernel::{trial, wireguard_here},
};
use tokio::{net::TcpStream, process::Command, time::timeout};

use super::{
    Finding,
    host::{self, Cgroups, Disk, Feature, HostSight, Program, Version},
};
use crate::config::Settings;

const TUNNEL_PORT: u16 = model::cluster::DEFAULT_DATA_PATH_PORT;
const MANAGER_PORT: u16 = model::cluster::DEFAULT_MANAGER_PORT;
/// State of a listening socket in /proc/net/tcp, and of an open one in /proc/net/udp.
const LISTENS: &str = "0A";
const OPEN: &str = "07";
/// The versions of Debian 12, which ovnd is tried with.
const OLDEST: [(&str, Version); 3] = [
    ("crun", [1, 8, 1]),
    ("runc", [1, 1, 5]),
    ("conmon", [2, 1, 6]),
];
/// How long a registry may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Looks at this host; `data_path` is the address that tunnels leave from, if there is a cluster.
pub async fn host(settings: &Settings, data_path: Option<IpAddr>) -> HostSight {
    let root = settings.root.clone();
    // Namespaces and netlink block.
    let looked = tokio::task::spawn_blocking(|| {
        let dropping = foreign::dropping().unwrap_or_default();
        (features(), dropping, wireguard_here())
    });
    let (features, dropping, encryption) = looked.await.unwrap_or_else(|error| {
        let error = error.to_string();
        (Err(error.clone()), Vec::new(), Err(error))
    });
    let mut registries = Vec::new();
    for name in &settings.insecure_registries {
        registries.push((name.clone(), unreachable(name).await));
    }
    let number = |path: &str| text(path).trim().parse::<u64>().ok();
    let wireguard_ports = [
        settings.wireguard_port,
        settings.wireguard_port.saturating_add(1),
    ];
    HostSight {
        kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
        features,
        filesystems: filesystems(),
        programs: programs(settings).await,
        ip_forward: number("/proc/sys/net/ipv4/ip_forward").map(|value| value != 0),
        inotify_instances: number("/proc/sys/fs/inotify/max_user_instances"),
        neighbours: number("/proc/sys/net/ipv4/neigh/default/gc_thresh3"),
        open_files: nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
            .map_or(0, |(_, most)| most),
        cgroups: cgroups(),
        underlay: underlay(data_path),
        dropping,
        encryption,
        tunnel_port_taken: taken(["udp", "udp6"], OPEN, TUNNEL_PORT, |_| false),
        manager_port_taken: taken(["tcp", "tcp6"], LISTENS, MANAGER_PORT, |_| false),
        wireguard_ports,
        wireguard_port_taken: wireguard_ports
            .into_iter()
            .find(|port| taken(["udp", "udp6"], OPEN, *port, is_wireguard)),
        clock_synchronised: synchronised(),
        disk: disk(&root),
        registries,
        obstacles: Vec::new(),
        failed: Vec::new(),
    }
}

/// What containers need beside networks, as it is on this host.
pub async fn needed(settings: &Settings) -> Vec<Finding> {
    host::needed(&filesystems(), &cgroups(), &programs(settings).await)
}

fn filesystems() -> Vec<String> {
    text("/proc/filesystems")
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .map(str::to_owned)
        .collect()
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn features() -> Result<Vec<Feature>, String> {
    let tried = trial().map_err(|error| error.to_string())?;
    Ok(tried
        .into_iter()
        .map(|trial| Feature {
            name: trial.feature.to_owned(),
            module: trial.module.to_owned(),
            error: trial.result.err().map(|error| error.to_string()),
        })
        .collect())
}

async fn programs(settings: &Settings) -> Vec<Program> {
    let runtime = match &settings.runtime {
        Some(path) => path.clone(),
        None => PathBuf::from(if version(Path::new("crun")).await.is_some() {
            "crun"
        } else {
            "runc"
        }),
    };
    let wanted = [
        (runtime, "crun", "No container can be started.", true),
        (
            "conmon".into(),
            "conmon",
            "No container can be started.",
            true,
        ),
        ("ps".into(), "procps", "`ovnctl top` does not work.", false),
        (
            "tini-static".into(),
            "tini",
            "`run --init` does not work.",
            false,
        ),
    ];
    let mut found = Vec::new();
    for (path, package, purpose, needed) in wanted {
        let name = path.file_name().and_then(|name| name.to_str());
        found.push(Program {
            least: OLDEST
                .iter()
                .find(|(known, _)| name == Some(*known))
                .map(|(_, least)| *least),
            version: version(&path).await,
            name: path.display().to_string(),
            package: package.to_owned(),
            purpose: purpose.to_owned(),
            needed,
        });
    }
    found
}

/// The first line of what a program says of itself.
async fn version(program: &Path) -> Option<String> {
    let run = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(PATIENCE, run).await.ok()?.ok()?;
    let said = if output.stdout.is_empty() {
        output.stderr
    } else {
        output.stdout
    };
    Some(
        String::from_utf8_lossy(&said)
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned(),
    )
}

fn cgroups() -> Cgroups {
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let controllers = if unified {
        text("/sys/fs/cgroup/cgroup.controllers")
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    } else {
        enabled(&text("/proc/cgroups"))
    };
    Cgroups {
        mounted: unified
            || fs::read_dir("/sys/fs/cgroup").is_ok_and(|mut dir| dir.next().is_some()),
        unified,
        controllers,
    }
}

/// Names of /proc/cgroups whose last column is 1.
fn enabled(table: &str) -> Vec<String> {
    table
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let name = fields.next()?;
            (fields.last()? == "1").then(|| name.to_owned())
        })
        .collect()
}

/// The device with that address, else the one of the default route.
fn underlay(data_path: Option<IpAddr>) -> Option<(String, u32)> {
    let device = match data_path {
        Some(address) => device_of(address)?,
        None => default_device(&text("/proc/net/route"))?,
    };
    let mtu = text(&format!("/sys/class/net/{device}/mtu"))
        .trim()
        .parse()
        .ok()?;
    Some((device, mtu))
}

fn device_of(wanted: IpAddr) -> Option<String> {
    nix::ifaddrs::getifaddrs().ok()?.find_map(|interface| {
        let address = interface.address?;
        let ip: IpAddr = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => v4.ip().into(),
            (_, Some(v6)) => v6.ip().into(),
            _ => return None,
        };
        (ip == wanted).then_some(interface.interface_name)
    })
}

/// Lines of /proc/net/route: device, destination, …, mask in the eighth column.
fn default_device(table: &str) -> Option<String> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let all = fields.get(1)? == &"00000000" && fields.get(7)? == &"00000000";
        all.then(|| fields.first().map(|device| (*device).to_owned()))?
    })
}

/// Whether a program has the port. Tunnels are sockets of the kernel's own: they are in the same
/// tables, and no process has them open. Processes that are `ours` count for nobody.
fn taken(tables: [&str; 2], state: &str, port: u16, ours: fn(&Path) -> bool) -> bool {
    tables
        .iter()
        .flat_map(|table| sockets(&text(&format!("/proc/net/{table}")), state, port))
        .any(|inode| is_open(&inode, ours))
}

/// Inodes of the sockets at a port, in a table of /proc/net.
fn sockets(table: &str, state: &str, port: u16) -> Vec<String> {
    let port = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let here = fields.get(1)?.ends_with(&port) && *fields.get(3)? == state;
            here.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
        })
        .collect()
}

/// Whether that is a WireGuard device's process, of whatever version.
fn is_wireguard(process: &Path) -> bool {
    let words = fs::read(process.join("cmdline")).unwrap_or_default();
    words.starts_with(b"ovnd\0wireguard\0")
}

/// Whether any process that is not ours has the socket open.
fn is_open(inode: &str, ours: fn(&Path) -> bool) -> bool {
    let wanted = PathBuf::from(format!("socket:[{inode}]"));
    let folders = fs::read_dir("/proc").into_iter().flatten().flatten();
    folders
        .map(|process| process.path())
        .filter(|process| !ours(process))
        .filter_map(|process| fs::read_dir(process.join("fd")).ok())
        .flat_map(Iterator::flatten)
        .any(|file| fs::read_link(file.path()).is_ok_and(|target| target == wanted))
}

fn synchronised() -> Option<bool> {
    // SAFETY: the struct is plain integers, for which zero is a value; no mode is set, so the call
    // only reads the kernel's clock state into it.
    let state = unsafe {
        let mut clock: libc::timex = std::mem::zeroed();
        libc::adjtimex(&raw mut clock)
    };
    (state >= 0).then_some(state != libc::TIME_ERROR)
}

fn disk(root: &Path) -> Option<Disk> {
    // Before the first start there is only a folder above it.
    let there = root.ancestors().find(|path| path.exists())?;
    let space = nix::sys::statvfs::statvfs(there).ok()?;
    let unit = space.fragment_size();
    let inodes = space.files();
    Some(Disk {
        path: root.display().to_string(),
        kind: kind_of(there, &text("/proc/self/mounts")),
        free: space.blocks_available().saturating_mul(unit),
        total: space.blocks().saturating_mul(unit),
        free_inodes: match inodes {
            0 => 100,
            all => space.files_available().saturating_mul(100) / all,
        },
    })
}

/// The file system of the longest mount point above a path; the later mount covers the earlier.
fn kind_of(path: &Path, mounts: &str) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut best = (0, String::new());
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(place), Some(kind)) = (fields.next(), fields.next()) else {
            continue;
        };
        let length = Path::new(place).as_os_str().as_bytes().len();
        if path.starts_with(place) && length >= best.0 {
            best = (length, kind.to_owned());
        }
    }
    best.1
}

/// Why nobody answers at `HOST[:PORT]`, port 80 by default.
async fn unreachable(name: &str) -> Option<String> {
    let address = match name.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => name.to_owned(),
        _ => format!("{name}:80"),
    };
    match timeout(PATIENCE, TcpStream::connect(&address)).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(format!("{address}: {error}")),
        Err(_) => Some(format!(
            "{address}: no answer within {} s",
            PATIENCE.as_secs()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_found_by_port_and_state() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 00000000:12B5 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0 0\n";
        assert_eq!(sockets(table, OPEN, 4789), ["4711"]);
        assert_eq!(sockets(table, OPEN, 4790), [] as [&str; 0]);
        assert_eq!(sockets(table, LISTENS, 4789), [] as [&str; 0]);
    }

    #[test]
    fn a_programs_socket_is_told_from_one_that_nobody_has_open() {
        use std::os::fd::AsRawFd;
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        let link = link.display().to_string();
        let inode = link.trim_start_matches("socket:[").trim_end_matches(']');
        assert!(is_open(inode, |_| false));
        assert!(!is_open(inode, |_| true));
        assert!(!is_open("0", |_| false));
    }

    #[test]
    fn the_nearest_mount_counts() {
        let mounts = "/dev/a / ext4 rw 0 0\nserver:/x /usr nfs4 rw 0 0\nnone /usr tmpfs rw 0 0\n";
        assert_eq!(kind_of(Path::new("/usr/bin"), mounts), "tmpfs");
        assert_eq!(kind_of(Path::new("/etc"), mounts), "ext4");
    }

    #[test]
    fn default_routes_and_controllers_are_read() {
        let routes = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
            eth1\t0000000A\t00000000\t1\t0\t0\t0\t00FFFFFF\n\
            eth0\t00000000\t0100000A\t3\t0\t0\t0\t00000000\n";
        assert_eq!(default_device(routes), Some("eth0".to_owned()));
        assert_eq!(
            enabled(
                "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t5\t1\nmemory\t0\t1\t0\n"
            ),
            ["cpu"]
        );
    }

    #[tokio::test]
    async fn a_registry_that_is_not_there_is_named() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let name = listener.local_addr().unwrap().to_string();
        assert_eq!(unreachable(&name).await, None);
        drop(listener);
        assert!(unreachable(&name).await.unwrap().starts_with(&name));
    }
}
