//! Reading containers' cgroups, of version 1, hybrid or 2, and processes for `top`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use model::Refusal;
use tokio::process::Command;

use super::{Engine, InterfaceStats, Processes, Stats, now};

const ROOT: &str = "/sys/fs/cgroup";
/// The kernel's user-space clock.
const TICK: u64 = 1_000_000_000 / 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// Also hybrid: the controllers are in version 1.
    V1,
    V2,
}

pub(super) fn version() -> Version {
    static VERSION: OnceLock<Version> = OnceLock::new();
    *VERSION.get_or_init(|| {
        if Path::new(ROOT).join("cgroup.controllers").exists() {
            Version::V2
        } else {
            Version::V1
        }
    })
}

/// The directory of a controller's cgroup; `cgroup` has no leading slash.
fn directory(controller: &str, cgroup: &str) -> PathBuf {
    match version() {
        Version::V2 => Path::new(ROOT).join(cgroup),
        Version::V1 => Path::new(ROOT).join(controller).join(cgroup),
    }
}

/// Removes what a runtime that was cut short left. Empty directories only.
pub(super) fn remove(cgroup: &str) {
    if version() == Version::V2 {
        let _ = fs::remove_dir(Path::new(ROOT).join(cgroup));
        return;
    }
    for entry in fs::read_dir(ROOT).into_iter().flatten().flatten() {
        let _ = fs::remove_dir(entry.path().join(cgroup));
    }
}

/// Whether the kernel killed for want of memory.
pub(super) fn oom_killed(cgroup: &str) -> bool {
    let file = match version() {
        Version::V2 => "memory.events",
        Version::V1 => "memory.oom_control",
    };
    table(&directory("memory", cgroup).join(file))
        .get("oom_kill")
        .is_some_and(|count| *count > 0)
}

/// Bytes that the container holds and the kernel cannot take back from files.
pub(super) fn unreclaimable(cgroup: &str) -> u64 {
    let memory = directory("memory", cgroup);
    let (usage, prefix) = match version() {
        Version::V2 => ("memory.current", ""),
        Version::V1 => ("memory.usage_in_bytes", "total_"),
    };
    let stat = table(&memory.join("memory.stat"));
    let of = |name: &str| stat.get(&format!("{prefix}{name}")).copied();
    let files = of("inactive_file").unwrap_or_default() + of("active_file").unwrap_or_default();
    number(&memory.join(usage)).saturating_sub(files)
}

fn number(path: &Path) -> u64 {
    fs::read_to_string(path)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or_default()
}

fn table(path: &Path) -> BTreeMap<String, u64> {
    fs::read_to_string(path)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

impl Engine {
    /// One reading; all zero when it does not run.
    pub async fn stats(&self, reference: &str) -> Result<Stats, Refusal> {
        let container = self.find(reference)?;
        let running = container.running();
        let process = container.record().process;
        let Some(process) = process.filter(|_| running) else {
            return Ok(Stats {
                read_at: now(),
                ..Stats::default()
            });
        };
        let cgroup = self.cgroup_of(&container.id);
        tokio::task::spawn_blocking(move || read(&cgroup, process.pid))
            .await
            .map_err(|error| Refusal::internal(format!("reading cgroups died: {error}")))
    }

    /// `ps_args` empty: `-ef`.
    pub async fn top(&self, reference: &str, ps_args: &str) -> Result<Processes, Refusal> {
        let container = self.find(reference)?;
        if !container.running() {
            return Err(Refusal::conflict(format!(
                "container {} is not running",
                container.id
            )));
        }
        let controller = if version() == Version::V1 { "pids" } else { "" };
        let cgroup = self.cgroup_of(&container.id);
        let pids: Vec<String> =
            fs::read_to_string(directory(controller, &cgroup).join("cgroup.procs"))
                .unwrap_or_default()
                .lines()
                .map(str::to_owned)
                .collect();
        let arguments = if ps_args.is_empty() { "-ef" } else { ps_args };
        let output = Command::new("ps")
            .args(arguments.split_whitespace())
            .output()
            .await
            .map_err(|error| {
                Refusal::internal(format!("running ps: {error}; install the package procps"))
            })?;
        if !output.status.success() {
            return Err(Refusal::invalid(format!(
                "ps {arguments}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            )));
        }
        select(&String::from_utf8_lossy(&output.stdout), &pids)
    }
}

/// The rows of `ps` that belong to these processes.
fn select(text: &str, pids: &[String]) -> Result<Processes, Refusal> {
    let mut lines = text.lines();
    let titles: Vec<String> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let column = titles
        .iter()
        .position(|title| title == "PID")
        .ok_or_else(|| Refusal::invalid("Couldn't find PID field in ps output"))?;
    let rows = lines
        .filter_map(|line| {
            let mut row: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            if row.len() > titles.len() {
                let rest = row.split_off(titles.len() - 1).join(" ");
                row.push(rest);
            }
            pids.contains(row.get(column)?).then_some(row)
        })
        .collect();
    Ok(Processes { titles, rows })
}

fn read(cgroup: &str, pid: i32) -> Stats {
    let mut stats = Stats {
        read_at: now(),
        online_cpus: std::thread::available_parallelism().map_or(1, |count| count.get() as u32),
        host_cpu: host_cpu(),
        networks: networks(pid),
        ..Stats::default()
    };
    let memory = directory("memory", cgroup);
    let cpu = directory("cpu", cgroup);
    let pids = directory("pids", cgroup);
    stats.memory_stats = table(&memory.join("memory.stat"));
    stats.pids = number(&pids.join("pids.current"));
    stats.pids_limit = number(&pids.join("pids.max"));
    let throttle = table(&cpu.join("cpu.stat"));
    let of = |name: &str| throttle.get(name).copied().unwrap_or_default();
    stats.periods = of("nr_periods");
    stats.throttled_periods = of("nr_throttled");
    match version() {
        Version::V2 => {
            stats.cpu_total = of("usage_usec") * 1000;
            stats.cpu_user = of("user_usec") * 1000;
            stats.cpu_system = of("system_usec") * 1000;
            stats.throttled_time = of("throttled_usec") * 1000;
            stats.memory_usage = number(&memory.join("memory.current"));
            stats.memory_max_usage = number(&memory.join("memory.peak"));
            stats.memory_limit = number(&memory.join("memory.max"));
            let io = fs::read_to_string(memory.join("io.stat")).unwrap_or_default();
            for field in io.split_whitespace() {
                match field.split_once('=') {
                    Some(("rbytes", value)) => stats.blkio_read += value.parse().unwrap_or(0),
                    Some(("wbytes", value)) => stats.blkio_write += value.parse().unwrap_or(0),
                    _ => {}
                }
            }
        }
        Version::V1 => {
            let account = directory("cpuacct", cgroup);
            stats.cpu_total = number(&account.join("cpuacct.usage"));
            let split = table(&account.join("cpuacct.stat"));
            stats.cpu_user = split.get("user").copied().unwrap_or_default() * TICK;
            stats.cpu_system = split.get("system").copied().unwrap_or_default() * TICK;
            stats.throttled_time = of("throttled_time");
            stats.memory_usage = number(&memory.join("memory.usage_in_bytes"));
            stats.memory_max_usage = number(&memory.join("memory.max_usage_in_bytes"));
            stats.memory_limit = number(&memory.join("memory.limit_in_bytes"));
            let block = directory("blkio", cgroup).join("blkio.throttle.io_service_bytes");
            for line in fs::read_to_string(block).unwrap_or_default().lines() {
                let fields: Vec<&str> = line.split(' ').collect();
                if let [_, kind, value] = fields[..] {
                    let value: u64 = value.parse().unwrap_or(0);
                    match kind {
                        "Read" => stats.blkio_read += value,
                        "Write" => stats.blkio_write += value,
                        _ => {}
                    }
                }
            }
        }
    }
    let host_memory = fs::read_to_string("/proc/meminfo")
        .unwrap_or_default()
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .trim()
                .strip_suffix(" kB")?
                .parse()
                .ok()
        })
        .map_or(0, |kilobytes: u64| kilobytes * 1024);
    if stats.memory_limit == 0 || stats.memory_limit > host_memory {
        stats.memory_limit = host_memory;
    }
    stats
}

fn host_cpu() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = text.lines().next().unwrap_or_default();
    // Guest time is part of user time.
    first
        .split_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum::<u64>()
        * TICK
}

fn networks(pid: i32) -> BTreeMap<String, InterfaceStats> {
    fs::read_to_string(format!("/proc/{pid}/net/dev"))
        .unwrap_or_default()
        .lines()
        .skip(2)
        .filter_map(|line| {
            let (name, rest) = line.split_once(':')?;
            let name = name.trim();
            let n: Vec<u64> = rest
                .split_whitespace()
                .filter_map(|f| f.parse().ok())
                .collect();
            (name != "lo" && n.len() >= 12).then(|| {
                let stats = InterfaceStats {
                    rx_bytes: n[0],
                    rx_packets: n[1],
                    rx_errors: n[2],
                    rx_dropped: n[3],
                    tx_bytes: n[8],
                    tx_packets: n[9],
                    tx_errors: n[10],
                    tx_dropped: n[11],
                };
                (name.to_owned(), stats)
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_ps() {
        let text = "UID   PID  PPID CMD\nroot  1 0 init\nweb 42 1 sh -c sleep 1\n";
        let found = select(text, &["42".to_owned()]).unwrap();
        assert_eq!(found.titles, ["UID", "PID", "PPID", "CMD"]);
        assert_eq!(found.rows, [["web", "42", "1", "sh -c sleep 1"]]);
        assert!(select("A B\n", &[]).is_err());
    }
}
