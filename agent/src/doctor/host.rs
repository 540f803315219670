//! Checks of one host, over what [`super::look`] has seen.

use dataplane::{Failure, TUNNELS, firewall::foreign::Dropping, kernel::WireguardBy};

use super::Finding;

/// Failures that are named one by one.
const NAMED: usize = 5;

/// What was seen of a host.
#[derive(Debug, Clone)]
pub struct HostSight {
    /// `uname -r`.
    pub kernel: String,
    /// The error: no network namespace could be made.
    pub features: Result<Vec<Feature>, String>,
    /// Names of /proc/filesystems.
    pub filesystems: Vec<String>,
    pub programs: Vec<Program>,
    pub ip_forward: Option<bool>,
    pub inotify_instances: Option<u64>,
    /// Neighbours that all namespaces may have together; a namespace other than the first has no
    /// such setting.
    pub neighbours: Option<u64>,
    pub open_files: u64,
    pub cgroups: Cgroups,
    /// The device that tunnels leave by, and its MTU.
    pub underlay: Option<(String, u32)>,
    pub dropping: Vec<Dropping>,
    /// What encrypts, or why nothing does.
    pub encryption: Result<WireguardBy, String>,
    /// A program, not the kernel, listens on the VXLAN port.
    pub tunnel_port_taken: bool,
    /// A program listens on the managers' port and this host is no manager.
    pub manager_port_taken: bool,
    pub clock_synchronised: Option<bool>,
    pub disk: Option<Disk>,
    /// With the reason why it cannot be reached.
    pub registries: Vec<(String, Option<String>)>,
    /// The dataplane's own sentences about what is in its way.
    pub obstacles: Vec<String>,
    /// What the dataplane could not do, and tries again.
    pub failed: Vec<Failure>,
    /// The UDP ports of WireGuard.
    pub wireguard_ports: [u16; 2],
    /// One of them that another program has.
    pub wireguard_port_taken: Option<u16>,
}

/// A feature of the kernel that was tried, with why it failed.
#[derive(Debug, Clone)]
pub struct Feature {
    pub name: String,
    pub module: String,
    pub error: Option<String>,
}

/// Major, minor, patch.
pub type Version = [u32; 3];

#[derive(Debug, Clone)]
pub struct Program {
    pub name: String,
    /// Debian's package that has it.
    pub package: String,
    /// What is missing without it.
    pub purpose: String,
    pub needed: bool,
    /// The oldest version that ovnd is tried with.
    pub least: Option<Version>,
    /// The first line of `--version`; absent: there is no such program.
    pub version: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub struct Cgroups {
    pub mounted: bool,
    pub unified: bool,
    pub controllers: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Disk {
    pub path: String,
    /// `ext4`, `nfs`, …; empty when unknown.
    pub kind: String,
    pub free: u64,
    pub total: u64,
    /// Share of inodes that are free, in per cent; file systems without inodes have 100.
    pub free_inodes: u64,
}

const CONTROLLERS: [&str; 4] = ["cpu", "memory", "pids", "cpuset"];
/// Layers of images cannot lie on these.
const NO_UPPER: [&str; 3] = ["nfs", "overlay", "fuse"];
const GIB: u64 = 1 << 30;

/// Every check of a host.
pub fn examine(sight: &HostSight) -> Vec<Finding> {
    let mut findings = vec![
        kernel(sight),
        forwarding(sight.ip_forward),
        limits(sight),
        clock(sight.clock_synchronised),
        encryption(&sight.encryption),
    ];
    findings.extend(needed(&sight.filesystems, &sight.cgroups, &sight.programs));
    findings.extend(sight.underlay.as_ref().map(mtu));
    findings.extend(sight.disk.as_ref().map(disk));
    findings.extend(ports(sight));
    findings.extend(firewall(&sight.dropping, sight.wireguard_ports));
    findings.extend(sight.registries.iter().map(registry));
    findings.extend(
        sight
            .failed
            .iter()
            .take(NAMED)
            .map(|failure| failed(sight, failure)),
    );
    findings.extend(sight.obstacles.iter().map(|sentence| {
        Finding::error(
            "networks",
            sentence.clone(),
            "Networks of this host are incomplete until it is gone.",
            "ovnd dataplane plan shows what is missing",
        )
    }));
    findings
}

/// What containers need beside networks.
pub fn needed(filesystems: &[String], groups: &Cgroups, programs: &[Program]) -> Vec<Finding> {
    let mut findings = vec![overlay(filesystems), cgroups(groups)];
    findings.extend(programs.iter().map(program));
    findings
}

fn failed(sight: &HostSight, failure: &Failure) -> Finding {
    let [first, second] = sight.wireguard_ports;
    if failure.scope == TUNNELS {
        return Finding::error(
            "encrypted networks",
            failure.sentence.clone(),
            "This host's containers reach no other host on encrypted networks, and nothing leaves in clear.",
            format!(
                "it is tried again by itself; where a port is taken: ss -ulpn 'sport = {first} or sport = {second}' shows by what, and wireguard-port in ovnd.toml takes others; ip link show type wireguard and ls -l /dev/net/tun show what there is"
            ),
        );
    }
    Finding::error(
        "networks",
        failure.sentence.clone(),
        "Networks of this host are incomplete until it is done; it is tried again by itself.",
        "ovnd dataplane plan shows what is missing, and journalctl -u ovnd since when",
    )
}

fn encryption(by: &Result<WireguardBy, String>) -> Finding {
    match by {
        Ok(WireguardBy::Kernel) => Finding::fine("encryption", "the kernel's WireGuard is there"),
        Ok(WireguardBy::Process) => Finding::fine(
            "encryption",
            "by a process of ovnd's, as the kernel has no WireGuard (modprobe wireguard is faster)",
        ),
        Err(why) => Finding::warning(
            "encryption",
            why.clone(),
            "No container of this host can be on an encrypted network.",
            "modprobe wireguard, or modprobe tun",
        ),
    }
}

fn kernel(sight: &HostSight) -> Finding {
    let means = "Networks of containers cannot be built on this host.";
    let features = match &sight.features {
        Ok(features) => features,
        Err(error) => {
            return Finding::error(
                "kernel",
                format!("no network namespace can be made: {error}"),
                means,
                "run ovnd as root, on a kernel with CONFIG_NET_NS",
            );
        }
    };
    let broken: Vec<&Feature> = features.iter().filter(|f| f.error.is_some()).collect();
    if broken.is_empty() {
        let names: Vec<&str> = features.iter().map(|f| f.name.as_str()).collect();
        return Finding::fine(
            "kernel",
            format!("{}: {} work", sight.kernel, names.join(", ")),
        );
    }
    let found: Vec<String> = broken
        .iter()
        .map(|f| format!("{}: {}", f.name, f.error.as_deref().unwrap_or_default()))
        .collect();
    let modules: Vec<&str> = broken.iter().map(|f| f.module.as_str()).collect();
    Finding::error(
        "kernel",
        format!("{} lacks {}", sight.kernel, found.join("; ")),
        means,
        format!("modprobe -a {}", modules.join(" ")),
    )
}

fn overlay(filesystems: &[String]) -> Finding {
    if filesystems.iter().any(|name| name == "overlay") {
        return Finding::fine("file systems", "overlay is there");
    }
    Finding::error(
        "file systems",
        "the kernel has no overlay file system".to_owned(),
        "No container can be created.",
        "modprobe overlay",
    )
}

fn cgroups(cgroups: &Cgroups) -> Finding {
    if !cgroups.mounted {
        return Finding::error(
            "control groups",
            "none are mounted at /sys/fs/cgroup".to_owned(),
            "No container can be started.",
            "mount -t cgroup2 none /sys/fs/cgroup",
        );
    }
    let version = if cgroups.unified { 2 } else { 1 };
    let missing: Vec<&str> = CONTROLLERS
        .into_iter()
        .filter(|wanted| !cgroups.controllers.iter().any(|c| c == wanted))
        .collect();
    if missing.is_empty() {
        return Finding::fine("control groups", format!("version {version}"));
    }
    Finding::warning(
        "control groups",
        format!("version {version} without {}", missing.join(", ")),
        "Limits and figures of these are not there for containers.",
        "boot the kernel with cgroup_enable=memory, or take its cgroup_disable= away",
    )
}

fn forwarding(on: Option<bool>) -> Finding {
    match on {
        Some(true) => Finding::fine("forwarding", "net.ipv4.ip_forward is 1"),
        Some(false) => Finding::warning(
            "forwarding",
            "net.ipv4.ip_forward is 0".to_owned(),
            "ovnd turns it on when a network needs it; whatever turns it off again cuts containers off.",
            "sysctl -w net.ipv4.ip_forward=1; grep -rs ip_forward /etc/sysctl.conf /etc/sysctl.d",
        ),
        None => Finding::error(
            "forwarding",
            "net.ipv4.ip_forward cannot be read".to_owned(),
            "Without /proc/sys networks cannot be built.",
            "mount -t proc proc /proc",
        ),
    }
}

fn limits(sight: &HostSight) -> Finding {
    if sight.open_files < 65_536 {
        return Finding::warning(
            "limits",
            format!("ovnd may open {} files", sight.open_files),
            "Each container takes about ten; when they run out, nothing more starts.",
            "LimitNOFILE=1048576 in the unit ovnd.service",
        );
    }
    if let Some(instances) = sight.inotify_instances
        && instances < 512
    {
        return Finding::warning(
            "limits",
            format!("fs.inotify.max_user_instances is {instances}"),
            "Programs in containers that watch files fail from about fifty containers on.",
            "sysctl -w fs.inotify.max_user_instances=1024",
        );
    }
    if let Some(neighbours) = sight.neighbours
        && neighbours < 8192
    {
        return Finding::warning(
            "limits",
            format!("net.ipv4.neigh.default.gc_thresh3 is {neighbours}"),
            "With some fifty containers that each speak to twenty others, connections fail: no route to host.",
            "sysctl -w net.ipv4.neigh.default.gc_thresh3=32768 net.ipv6.neigh.default.gc_thresh3=32768",
        );
    }
    Finding::fine("limits", format!("{} open files", sight.open_files))
}

fn clock(synchronised: Option<bool>) -> Finding {
    match synchronised {
        Some(false) => Finding::warning(
            "clock",
            "the kernel's clock is not synchronised".to_owned(),
            "Certificates of a cluster are refused by hosts whose clocks are hours apart.",
            "apt-get install systemd-timesyncd, or timedatectl set-ntp true",
        ),
        Some(true) => Finding::fine("clock", "synchronised"),
        None => Finding::fine(
            "clock",
            "the kernel does not tell whether it is synchronised",
        ),
    }
}

fn program(program: &Program) -> Finding {
    let check = format!("program {}", program.name);
    let mend = format!("apt-get install {}", program.package);
    if let Some(version) = &program.version {
        let least = program.least.unwrap_or_default();
        if read(version).is_none_or(|has| has >= least) {
            return Finding::fine(check, version.clone());
        }
        let [major, minor, patch] = least;
        return Finding::warning(
            &check,
            format!("{version}, which is older than {major}.{minor}.{patch}"),
            "ovnd is tried with that version and later ones; containers may not start.",
            format!("{mend} from a newer release of the distribution (Debian 12 has it)"),
        );
    }
    let found = "not there".to_owned();
    if program.needed {
        Finding::error(&check, found, &program.purpose, mend)
    } else {
        Finding::warning(&check, found, &program.purpose, mend)
    }
}

/// The version in what a program says of itself.
fn read(said: &str) -> Option<Version> {
    let word = said
        .split_whitespace()
        .find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
    let mut numbers = word.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let mut next = || numbers.next().and_then(Result::ok);
    Some([next()?, next().unwrap_or(0), next().unwrap_or(0)])
}

fn mtu((device, mtu): &(String, u32)) -> Finding {
    let inner = mtu.saturating_sub(50);
    if *mtu < 1500 {
        return Finding::warning(
            "MTU",
            format!("{device} has {mtu}: overlay networks over it have {inner}"),
            "Hosts of one network need the same MTU; where they differ, large packets are lost.",
            format!(
                "ip link set {device} mtu 1500, or the driver option com.docker.network.driver.mtu={inner} for networks"
            ),
        );
    }
    Finding::fine(
        "MTU",
        format!("{device} has {mtu}, overlay networks have {inner}"),
    )
}

fn disk(disk: &Disk) -> Finding {
    if NO_UPPER.iter().any(|kind| disk.kind.starts_with(kind)) {
        return Finding::error(
            "disk",
            format!("{} lies on {}", disk.path, disk.kind),
            "Containers cannot have their layers there.",
            "set root in /etc/overnet/ovnd.toml to a folder on a local disk",
        );
    }
    let percent = disk.free.saturating_mul(100) / disk.total.max(1);
    let free = format!(
        "{} has {:.1} GiB ({percent} %) and {} % of its inodes free",
        disk.path,
        disk.free as f64 / GIB as f64,
        disk.free_inodes
    );
    let means = "Images cannot be pulled, and a manager whose log cannot be written stops.";
    let mend = "ovnctl system prune --all, or a larger disk";
    if disk.free < GIB / 4 || disk.free_inodes < 1 {
        Finding::error("disk", free, means, mend)
    } else if disk.free < 2 * GIB || percent < 5 || disk.free_inodes < 5 {
        Finding::warning("disk", free, means, mend)
    } else {
        Finding::fine("disk", free)
    }
}

fn ports(sight: &HostSight) -> Vec<Finding> {
    let mut findings = Vec::new();
    if sight.tunnel_port_taken {
        findings.push(Finding::error(
            "port 4789/udp",
            "a program listens on it".to_owned(),
            "Tunnels to other hosts cannot be built.",
            "ss -ulpn 'sport = 4789' shows which; stop it, or swarm init --data-path-port another",
        ));
    }
    if sight.manager_port_taken {
        findings.push(Finding::warning(
            "port 2377/tcp",
            "a program listens on it, and this host is no manager of Overnet's".to_owned(),
            "This host cannot become a manager; Docker's Swarm mode has the same port.",
            "ss -tlpn 'sport = 2377' shows which; docker swarm leave, or swarm init --listen-addr",
        ));
    }
    let [first, second] = sight.wireguard_ports;
    if let Some(port) = sight.wireguard_port_taken {
        findings.push(Finding::warning(
            &format!("port {port}/udp"),
            "a program listens on it".to_owned(),
            "Encrypted networks do not work on this host.",
            format!("ss -ulpn 'sport = {port}' shows which; stop it, or take another by wireguard-port in ovnd.toml"),
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::fine(
            "ports",
            format!(
                "2377/tcp, 4789/udp, and for encrypted networks {first}/udp and {second}/udp are free or ours"
            ),
        ));
    }
    findings
}

/// Whether a rule in such a chain lets ours through is not read; that it drops is a fact.
fn firewall(dropping: &[Dropping], [first, second]: [u16; 2]) -> Vec<Finding> {
    let findings: Vec<Finding> = dropping
        .iter()
        .filter_map(|chain| {
            let Dropping { family, table, chain, hook } = chain;
            let found = format!("chain {chain} of table {family} {table} drops what no rule of it accepts");
            let rule = |words: &str| format!("nft insert rule {family} {table} {chain} {words} accept");
            match hook {
                1 => Some(Finding::warning(
                    "firewall",
                    found,
                    "Other hosts reach this one only by rules for UDP 4789, for encrypted networks those of WireGuard, and on managers TCP 2377.",
                    format!(
                        "{}; {}",
                        rule(&format!("udp dport {{ 4789, {first}, {second} }}")),
                        rule("tcp dport 2377")
                    ),
                )),
                2 => Some(Finding::warning(
                    "firewall",
                    found,
                    "Containers reach the outside, and are reached by published ports, only by rules for it.",
                    format!("{}; {}", rule("iifname \"ovt*\""), rule("oifname \"ovt*\"")),
                )),
                _ => None,
            }
        })
        .collect();
    if findings.is_empty() {
        return vec![Finding::fine(
            "firewall",
            "no chain of others drops by its policy",
        )];
    }
    findings
}

fn registry((name, error): &(String, Option<String>)) -> Finding {
    let check = format!("registry {name}");
    match error {
        None => Finding::fine(check, "answers"),
        Some(error) => Finding::warning(
            &check,
            error.clone(),
            "Images of it cannot be pulled; tasks with such an image wait as preparing or are rejected.",
            format!("curl -v http://{name}/v2/"),
        ),
    }
}

#[cfg(test)]
#[path = "host_tests.rs"]
mod tests;
