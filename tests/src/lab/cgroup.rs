//! One control group per host in every hierarchy of this machine (v1, v2 and hybrid): it is
//! the root that the host's own namespace sees, the account of what the host uses, and the
//! last resort when a record of processes is lost.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    pub at: PathBuf,
    pub unified: bool,
    /// Mount data of a v1 hierarchy: `cpu,cpuacct` or `none,name=systemd`.
    pub data: String,
}

/// The hierarchies mounted under /sys/fs/cgroup.
pub fn hierarchies() -> Result<Vec<Hierarchy>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mount table")?;
    let controllers = fs::read_to_string("/proc/cgroups").unwrap_or_default();
    Ok(parse(&mounts, &controllers))
}

fn parse(mounts: &str, controllers: &str) -> Vec<Hierarchy> {
    let known: Vec<&str> = controllers
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let mut found = Vec::new();
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, at, kind @ ("cgroup" | "cgroup2"), options, ..] = fields[..] else {
            continue;
        };
        if !at.starts_with("/sys/fs/cgroup") {
            continue;
        }
        let mut data: Vec<&str> = options
            .split(',')
            .filter(|o| known.contains(o) || o.starts_with("name="))
            .collect();
        if data.iter().all(|option| option.starts_with("name=")) {
            data.insert(0, "none");
        }
        let unified = kind == "cgroup2";
        let data = if unified {
            String::new()
        } else {
            data.join(",")
        };
        found.push(Hierarchy {
            at: at.into(),
            unified,
            data,
        });
    }
    found
}

/// Makes the host's group in every hierarchy and gives the `cgroup.procs` files by which a
/// process joins it.
pub fn create(lab: &str, host: &str) -> Result<Vec<PathBuf>> {
    let mut procs = Vec::new();
    for hierarchy in hierarchies()? {
        let group = hierarchy.at.join(lab).join(host);
        make(&hierarchy, &hierarchy.at.join(lab))?;
        make(&hierarchy, &group)?;
        procs.push(group.join("cgroup.procs"));
    }
    Ok(procs)
}

/// The `cgroup.procs` files of a running host, for what joins it later.
pub fn procs(lab: &str, host: &str) -> Result<Vec<PathBuf>> {
    let leaf = |hierarchy: Hierarchy| hierarchy.at.join(lab).join(host).join(LEAF);
    Ok(hierarchies()?
        .into_iter()
        .map(|h| leaf(h).join("cgroup.procs"))
        .collect())
}

/// On v2 a group with members cannot hand controllers down: they live in a leaf.
const LEAF: &str = "system";

/// Called by the host's first process once its namespace stands: moves it into the leaf.
pub fn settle(hierarchies: &[Hierarchy], lab: &str, host: &str) -> Result<()> {
    for hierarchy in hierarchies {
        let group = hierarchy.at.join(lab).join(host);
        let leaf = group.join(LEAF);
        make(hierarchy, &leaf)?;
        fs::write(leaf.join("cgroup.procs"), "0")
            .with_context(|| format!("cannot join the control group {}", leaf.display()))?;
        if hierarchy.unified {
            hand_down(&group);
        }
    }
    Ok(())
}

fn make(hierarchy: &Hierarchy, group: &Path) -> Result<()> {
    match fs::create_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            bail!("cannot make the control group {}: {error}", group.display());
        }
        _ => {}
    }
    let Some(parent) = group.parent() else {
        return Ok(());
    };
    if !hierarchy.unified {
        // A v1 cpuset starts empty and admits nobody.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(value) = fs::read_to_string(parent.join(file)) {
                let _ = fs::write(group.join(file), value.trim());
            }
        }
    } else if !group.ends_with(LEAF) {
        hand_down(parent);
    }
    Ok(())
}

/// What cannot be handed down (a controller bound to v1, or busy) is simply absent below.
fn hand_down(group: &Path) {
    let controllers = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        let _ = fs::write(
            group.join("cgroup.subtree_control"),
            format!("+{controller}"),
        );
    }
}

/// Kills what is left in `lab`'s groups (of one host or of all) and removes them.
pub fn remove(lab: &str, host: Option<&str>) -> Result<()> {
    for hierarchy in hierarchies()? {
        let group = hierarchy.at.join(lab);
        let group = host.map_or(group.clone(), |host| group.join(host));
        let deadline = Instant::now() + Duration::from_secs(20);
        while group.exists() {
            kill_members(&group);
            match remove_tree(&group) {
                Ok(()) => break,
                Err(error) if Instant::now() > deadline => {
                    bail!(
                        "cannot remove the control group {}: {error}",
                        group.display()
                    );
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
    Ok(())
}

fn kill_members(group: &Path) {
    for pid in members(group) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

fn members(group: &Path) -> Vec<i32> {
    let own = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = own.lines().filter_map(|line| line.parse().ok()).collect();
    for child in children(group) {
        pids.extend(members(&child));
    }
    pids
}

fn remove_tree(group: &Path) -> io::Result<()> {
    for child in children(group) {
        remove_tree(&child)?;
    }
    fs::remove_dir(group)
}

fn children(group: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(group) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .map(|e| e.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_and_unified_mount_tables() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
            cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
            cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n\
            cgroup2 /elsewhere cgroup2 rw 0 0\n";
        let found = parse(mounts, "#subsys_name\ncpu 1 1 1\ncpuacct 1 1 1\n");
        let rows: Vec<_> = found.iter().map(|h| (h.data.as_str(), h.unified)).collect();
        assert_eq!(
            rows,
            [
                ("cpu,cpuacct", false),
                ("none,name=systemd", false),
                ("", true)
            ]
        );
    }
}
