//! From a container's wish to the OCI `config.json`. Pure: everything looked up comes in.

use std::path::{Path, PathBuf};

use model::Refusal;
use serde_json::{Map, Value, json};

use super::{capability, seccomp, user::User};
use crate::engine::{ContainerSpec, DeviceSpec, Effective, HostSpec, Resources};

/// What was looked up for the conversion.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    pub spec: &'a ContainerSpec,
    pub effective: &'a Effective,
    pub user: &'a User,
    pub rootfs: &'a Path,
    pub cgroup: &'a str,
    /// Absent: the host's.
    pub netns: Option<&'a Path>,
    /// Namespaces of other processes to share: (kind, path).
    pub shared: &'a [(&'static str, PathBuf)],
    /// In order; parents before children.
    pub mounts: &'a [Mount],
    /// The program for `--init`.
    pub init: Option<&'a Path>,
    /// (device, is block, major, minor, mode, uid, gid).
    pub devices: &'a [Device],
    pub cgroup_v2: bool,
    /// Capabilities that can be given at all, as [`capability::held`].
    pub capabilities: u64,
}

/// A mount with its source on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub target: String,
    pub kind: &'static str,
    pub source: String,
    pub options: Vec<String>,
}

/// A device node to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub wish: DeviceSpec,
    pub block: bool,
    pub major: u64,
    pub minor: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];
/// Where the init program is seen in the container.
pub const INIT_TARGET: &str = "/sbin/docker-init";
const SHM_SIZE: u64 = 64 << 20;

/// The whole `config.json`.
pub fn config(facts: &Facts<'_>) -> Result<Value, Refusal> {
    let host = &facts.spec.host;
    let capabilities = capability::within(
        capability::effective(host.privileged, &host.cap_add, &host.cap_drop)?,
        facts.capabilities,
    );
    let security = Security::parse(host)?;
    let mut linux = json!({
        "namespaces": namespaces(facts),
        "resources": resources(facts),
        "cgroupsPath": facts.cgroup,
        "rootfsPropagation": "private",
        "maskedPaths": paths(host, security.unmasked, host.masked_paths.as_ref(), MASKED),
        "readonlyPaths": paths(host, security.unmasked, host.readonly_paths.as_ref(), READ_ONLY),
    });
    let sysctls = sysctls(facts);
    if !sysctls.is_empty() {
        linux["sysctl"] = Value::Object(sysctls);
    }
    let devices: Vec<Value> = facts
        .devices
        .iter()
        .map(|device| {
            json!({
                "path": device.wish.container, "type": if device.block { "b" } else { "c" },
                "major": device.major, "minor": device.minor, "fileMode": device.mode & 0o777,
                "uid": device.uid, "gid": device.gid,
            })
        })
        .collect();
    if !devices.is_empty() {
        linux["devices"] = json!(devices);
    }
    if let Some(profile) = match security.seccomp {
        Some(profile) => profile,
        None if host.privileged => None,
        None => Some(seccomp::default_profile(&capabilities)),
    } {
        linux["seccomp"] = profile;
    }
    let mut argv = facts.effective.argv.clone();
    if facts.init.is_some() {
        argv.splice(0..0, [INIT_TARGET.to_owned(), "--".to_owned()]);
    }
    let process = process(&Process {
        argv: &argv,
        env: environment(facts),
        working_dir: &facts.effective.working_dir,
        user: facts.user,
        tty: facts.spec.tty,
        capabilities: &capabilities,
        no_new_privileges: security.no_new_privileges,
        host,
    });
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": facts.rootfs, "readonly": host.read_only},
        "mounts": mounts(facts),
        "linux": linux,
    });
    if host.uts_mode != "host" {
        config["hostname"] = json!(facts.effective.hostname);
    }
    Ok(config)
}

/// A process of a container, the first or a later one.
pub struct Process<'a> {
    pub argv: &'a [String],
    pub env: Vec<String>,
    pub working_dir: &'a str,
    pub user: &'a User,
    pub tty: bool,
    pub capabilities: &'a [String],
    pub no_new_privileges: bool,
    pub host: &'a HostSpec,
}

/// The OCI `process` object, for `config.json` and for execs.
pub fn process(process: &Process<'_>) -> Value {
    let set = process.capabilities;
    let mut value = json!({
        "terminal": process.tty,
        "user": {
            "uid": process.user.uid,
            "gid": process.user.gid,
            "additionalGids": process.user.groups,
        },
        "args": process.argv,
        "env": process.env,
        "cwd": if process.working_dir.is_empty() { "/" } else { process.working_dir },
        "noNewPrivileges": process.no_new_privileges,
        "capabilities": {"bounding": set, "effective": set, "permitted": set},
    });
    if let Some(score) = process.host.oom_score_adj {
        value["oomScoreAdj"] = json!(score);
    }
    let limits: Vec<Value> = process
        .host
        .ulimits
        .iter()
        .map(|limit| {
            let number = |value: i64| if value < 0 { u64::MAX } else { value as u64 };
            json!({
                "type": format!("RLIMIT_{}", limit.name.to_ascii_uppercase()),
                "soft": number(limit.soft), "hard": number(limit.hard),
            })
        })
        .collect();
    if !limits.is_empty() {
        value["rlimits"] = json!(limits);
    }
    if let (Some((rows, columns)), true) = (process.host.console_size, process.tty) {
        value["consoleSize"] = json!({"height": rows, "width": columns});
    }
    value
}

/// What `--security-opt` says.
#[derive(Debug, Default, PartialEq)]
pub struct Security {
    pub no_new_privileges: bool,
    /// Outer: said at all; inner: absent means unconfined.
    pub seccomp: Option<Option<Value>>,
    pub unmasked: bool,
}

impl Security {
    pub fn parse(host: &HostSpec) -> Result<Self, Refusal> {
        let mut security = Self::default();
        for option in &host.security_opt {
            let (name, value) = option
                .split_once(['=', ':'])
                .unwrap_or((option.as_str(), ""));
            match (name, value) {
                ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
                ("no-new-privileges", "false") => security.no_new_privileges = false,
                ("seccomp", "unconfined") => security.seccomp = Some(None),
                ("seccomp", "builtin" | "default") => security.seccomp = None,
                ("seccomp", text) => {
                    let profile = serde_json::from_str(text).map_err(|error| {
                        Refusal::invalid(format!("decoding the seccomp profile failed: {error}"))
                    })?;
                    security.seccomp = Some(Some(profile));
                }
                ("systempaths", "unconfined") => security.unmasked = true,
                ("apparmor" | "label", _) => {}
                _ => {
                    return Err(Refusal::invalid(format!(
                        "invalid --security-opt: {option:?}"
                    )));
                }
            }
        }
        Ok(security)
    }
}

fn paths(host: &HostSpec, unmasked: bool, own: Option<&Vec<String>>, usual: &[&str]) -> Value {
    match own {
        Some(own) => json!(own),
        None if host.privileged || unmasked => json!([]),
        None => json!(usual),
    }
}

/// Docker's PATH, HOSTNAME, TERM and HOME, then the wish's.
fn environment(facts: &Facts<'_>) -> Vec<String> {
    let mut env = vec![
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        format!("HOSTNAME={}", facts.effective.hostname),
    ];
    if facts.spec.tty {
        env.push("TERM=xterm".to_owned());
    }
    merge_environment(&mut env, &facts.effective.env);
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(format!("HOME={}", facts.user.home));
    }
    env
}

/// Later entries win at the place of the earlier one; a bare name removes it.
pub fn merge_environment(env: &mut Vec<String>, more: &[String]) {
    for entry in more {
        let name = entry.split('=').next().unwrap_or_default();
        let place = env
            .iter()
            .position(|old| old.split('=').next() == Some(name));
        match (place, entry.contains('=')) {
            (Some(place), true) => env[place].clone_from(entry),
            (Some(place), false) => {
                env.remove(place);
            }
            (None, true) => env.push(entry.clone()),
            (None, false) => {}
        }
    }
}

fn namespaces(facts: &Facts<'_>) -> Value {
    let host = &facts.spec.host;
    let mut list = vec![json!({"type": "mount"})];
    let mut add = |kind: &'static str, is_host: bool| {
        if let Some((_, path)) = facts.shared.iter().find(|(name, _)| *name == kind) {
            list.push(json!({"type": kind, "path": path}));
        } else if !is_host {
            list.push(json!({"type": kind}));
        }
    };
    add("pid", host.pid_mode == "host");
    add("ipc", host.ipc_mode == "host");
    add("uts", host.uts_mode == "host");
    add("cgroup", !facts.cgroup_v2 || host.privileged);
    if let Some(path) = facts.netns {
        list.push(json!({"type": "network", "path": path}));
    }
    json!(list)
}

fn sysctls(facts: &Facts<'_>) -> Map<String, Value> {
    let mut map = Map::new();
    if facts.netns.is_some()
        && !matches!(
            facts.spec.network,
            crate::network::NetworkMode::Container(_)
        )
    {
        map.insert("net.ipv4.ip_unprivileged_port_start".into(), json!("0"));
        map.insert("net.ipv4.ping_group_range".into(), json!("0 2147483647"));
    }
    for (name, value) in &facts.spec.host.sysctls {
        map.insert(name.clone(), json!(value));
    }
    map
}

fn mounts(facts: &Facts<'_>) -> Value {
    let host = &facts.spec.host;
    let taken = |target: &str| facts.mounts.iter().any(|mount| mount.target == target);
    let sys = if host.privileged { "rw" } else { "ro" };
    let size = format!(
        "size={}",
        if host.shm_size == 0 {
            SHM_SIZE
        } else {
            host.shm_size
        }
    );
    let mut list = Vec::new();
    let mut add = |target: &str, kind: &str, source: &str, options: &[&str]| {
        if !taken(target) {
            list.push(
                json!({"destination": target, "type": kind, "source": source, "options": options}),
            );
        }
    };
    add("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]);
    add(
        "/dev",
        "tmpfs",
        "tmpfs",
        &["nosuid", "strictatime", "mode=755", "size=65536k"],
    );
    add(
        "/dev/pts",
        "devpts",
        "devpts",
        &[
            "nosuid",
            "noexec",
            "newinstance",
            "ptmxmode=0666",
            "mode=0620",
            "gid=5",
        ],
    );
    add(
        "/sys",
        "sysfs",
        "sysfs",
        &["nosuid", "noexec", "nodev", sys],
    );
    add(
        "/sys/fs/cgroup",
        "cgroup",
        "cgroup",
        &[sys, "nosuid", "noexec", "nodev"],
    );
    add(
        "/dev/mqueue",
        "mqueue",
        "mqueue",
        &["nosuid", "noexec", "nodev"],
    );
    if host.ipc_mode == "host" {
        add("/dev/shm", "bind", "/dev/shm", &["rbind", "rw"]);
    } else if host.ipc_mode != "none" {
        add(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", &size],
        );
    }
    for mount in facts.mounts {
        list.push(json!({
            "destination": mount.target, "type": mount.kind,
            "source": mount.source, "options": mount.options,
        }));
    }
    if let Some(init) = facts.init {
        list.push(json!({
            "destination": INIT_TARGET, "type": "bind", "source": init,
            "options": ["bind", "ro"],
        }));
    }
    json!(list)
}

/// As many as the kernel can have (`PID_MAX_LIMIT`): not all runtimes know a word for no limit.
const MOST_PROCESSES: i64 = 4 << 20;

fn resources(facts: &Facts<'_>) -> Value {
    let mut resources = limits(&facts.spec.host.resources);
    resources["devices"] = json!(device_rules(facts));
    resources
}

/// The limits of a container that runs: none of processes has to be said, too.
pub fn new_limits(wish: &Resources) -> Value {
    let mut resources = limits(wish);
    if wish.pids_limit <= 0 {
        resources["pids"] = json!({"limit": MOST_PROCESSES});
    }
    resources
}

fn limits(wish: &Resources) -> Value {
    let mut memory = Map::new();
    let mut cpu = Map::new();
    let put = |map: &mut Map<String, Value>, name: &str, value: i64| {
        if value != 0 {
            map.insert(name.into(), json!(value));
        }
    };
    put(&mut memory, "limit", wish.memory);
    put(&mut memory, "reservation", wish.memory_reservation);
    put(
        &mut memory,
        "swap",
        match (wish.memory, wish.memory_swap) {
            (0, _) => 0,
            (memory, 0) => memory.saturating_mul(2),
            (_, swap) => swap,
        },
    );
    if let Some(value) = wish.memory_swappiness.filter(|value| *value >= 0) {
        memory.insert("swappiness".into(), json!(value));
    }
    if wish.oom_kill_disable {
        memory.insert("disableOOMKiller".into(), json!(true));
    }
    put(&mut cpu, "shares", wish.cpu_shares);
    if wish.nano_cpus > 0 {
        put(&mut cpu, "period", 100_000);
        put(&mut cpu, "quota", wish.nano_cpus / 10_000);
    } else {
        put(&mut cpu, "period", wish.cpu_period);
        put(&mut cpu, "quota", wish.cpu_quota);
    }
    for (name, value) in [("cpus", &wish.cpuset_cpus), ("mems", &wish.cpuset_mems)] {
        if !value.is_empty() {
            cpu.insert(name.into(), json!(value));
        }
    }
    let mut resources = json!({});
    if !memory.is_empty() {
        resources["memory"] = Value::Object(memory);
    }
    if !cpu.is_empty() {
        resources["cpu"] = Value::Object(cpu);
    }
    if wish.pids_limit > 0 {
        resources["pids"] = json!({"limit": wish.pids_limit});
    }
    if wish.blkio_weight > 0 {
        resources["blockIO"] = json!({"weight": wish.blkio_weight});
    }
    resources
}

fn device_rules(facts: &Facts<'_>) -> Value {
    let host = &facts.spec.host;
    if host.privileged {
        return json!([{"allow": true, "access": "rwm"}]);
    }
    let mut rules = vec![json!({"allow": false, "access": "rwm"})];
    for (kind, access) in [("c", "m"), ("b", "m")] {
        rules.push(json!({"allow": true, "type": kind, "access": access}));
    }
    for (major, minor) in [
        (1, 3),
        (1, 5),
        (1, 7),
        (1, 8),
        (1, 9),
        (5, 0),
        (5, 1),
        (5, 2),
    ] {
        rules.push(
            json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm"}),
        );
    }
    rules.push(json!({"allow": true, "type": "c", "major": 136, "access": "rwm"}));
    for device in facts.devices {
        rules.push(json!({
            "allow": true, "type": if device.block { "b" } else { "c" },
            "major": device.major, "minor": device.minor, "access": device.wish.permissions,
        }));
    }
    for text in &host.device_cgroup_rules {
        let fields: Vec<&str> = text.split([' ', ':']).collect();
        if let [kind, major, minor, access] = fields[..] {
            let mut rule = json!({"allow": true, "type": kind, "access": access});
            for (name, value) in [("major", major), ("minor", minor)] {
                if let Ok(number) = value.parse::<i64>() {
                    rule[name] = json!(number);
                }
            }
            rules.push(rule);
        }
    }
    json!(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configure(change: impl FnOnce(&mut ContainerSpec)) -> Value {
        let mut spec = ContainerSpec::new("x");
        change(&mut spec);
        let effective = Effective {
            argv: vec!["/bin/true".into()],
            hostname: "box".into(),
            ..Effective::default()
        };
        config(&Facts {
            spec: &spec,
            effective: &effective,
            user: &User {
                home: "/root".into(),
                ..User::default()
            },
            rootfs: Path::new("/r"),
            cgroup: "/overnet/1",
            netns: Some(Path::new("/n")),
            shared: &[],
            mounts: &[],
            init: None,
            devices: &[],
            cgroup_v2: false,
            capabilities: u64::MAX,
        })
        .unwrap()
    }

    #[test]
    fn fields_follow_the_wish() {
        for (pointer, change, wanted) in [
            (
                "/linux/cgroupsPath",
                (|_| ()) as fn(&mut ContainerSpec),
                json!("/overnet/1"),
            ),
            ("/process/env/1", |_| (), json!("HOSTNAME=box")),
            ("/process/cwd", |_| (), json!("/")),
            (
                "/linux/sysctl/net.ipv4.ip_unprivileged_port_start",
                |_| (),
                json!("0"),
            ),
            (
                "/linux/seccomp/defaultAction",
                |_| (),
                json!("SCMP_ACT_ERRNO"),
            ),
            ("/linux/namespaces/4/path", |_| (), json!("/n")),
            ("/linux/maskedPaths/3", |_| (), json!("/proc/kcore")),
            ("/linux/seccomp", |s| s.host.privileged = true, Value::Null),
            (
                "/linux/maskedPaths",
                |s| s.host.privileged = true,
                json!([]),
            ),
            (
                "/linux/resources/devices/0/allow",
                |s| s.host.privileged = true,
                json!(true),
            ),
            (
                "/linux/resources/cpu/quota",
                |s| s.host.resources.nano_cpus = 1_500_000_000,
                json!(150_000),
            ),
            (
                "/linux/resources/memory/swap",
                |s| s.host.resources.memory = 1 << 30,
                json!(2u64 << 30),
            ),
            (
                "/linux/resources/pids/limit",
                |s| s.host.resources.pids_limit = 9,
                json!(9),
            ),
            ("/root/readonly", |s| s.host.read_only = true, json!(true)),
            (
                "/process/noNewPrivileges",
                |s| s.host.security_opt = vec!["no-new-privileges".into()],
                json!(true),
            ),
            (
                "/linux/namespaces/3/type",
                |s| s.host.pid_mode = "host".into(),
                json!("network"),
            ),
        ] {
            let found = configure(change);
            assert_eq!(
                found.pointer(pointer).cloned().unwrap_or_default(),
                wanted,
                "{pointer}"
            );
        }
    }

    #[test]
    fn the_result_is_an_oci_configuration() {
        let text = configure(|spec| spec.host.resources.memory = 1 << 30).to_string();
        serde_json::from_str::<oci_spec::runtime::Spec>(&text).unwrap();
    }

    #[test]
    fn environments_merge() {
        let list = |words: &str| words.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let mut env = list("A=1 B=2");
        merge_environment(&mut env, &list("B=3 A C=4 D"));
        assert_eq!(env, list("B=3 C=4"));
    }
}
