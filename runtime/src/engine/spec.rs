//! What a container was asked to be. Plain data: what the user gave, before the image's
//! defaults are merged in; stored with the container and shown as given.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::network::{NetworkMode, PortBinding};

/// A container's wish. `ContainerSpec::new(image)` has Docker's defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Without the leading slash; absent: the engine makes one.
    pub name: Option<String>,
    /// As the user wrote it: name, digest, id or id prefix.
    pub image: String,
    /// Docker's `Cmd`; absent: the image's.
    pub command: Option<Vec<String>>,
    /// Absent: the image's; `[]` or `[""]`: none at all. Giving one drops the image's command.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=value`; a bare `NAME` removes the image's variable.
    pub env: Vec<String>,
    pub labels: BTreeMap<String, String>,
    /// Empty: the short id.
    pub hostname: String,
    pub domainname: String,
    /// `user[:group]`, names or numbers; empty: the image's.
    pub user: String,
    /// Empty: the image's, else `/`.
    pub working_dir: String,
    pub tty: bool,
    pub open_stdin: bool,
    /// Standard input closes when the first attached client's does.
    pub stdin_once: bool,
    /// Shown only; attaching is a request of its own.
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    /// Name or number; absent: the image's, else SIGTERM.
    pub stop_signal: Option<String>,
    /// Seconds; absent: 10; negative: without limit.
    pub stop_timeout: Option<i64>,
    pub health: Option<Healthcheck>,
    /// `8080/tcp`; shown only.
    pub exposed_ports: BTreeSet<String>,
    /// Paths that get an anonymous volume each (Docker's `Config.Volumes`).
    pub volumes: BTreeSet<String>,
    pub host: HostSpec,
    pub network: NetworkMode,
    pub dns: Vec<IpAddr>,
    pub dns_search: Vec<String>,
    pub dns_options: Vec<String>,
    /// `name:address`, where the address may be `host-gateway`.
    pub extra_hosts: Vec<String>,
    /// Whatever else the caller wants back at inspection, for example Docker's `HostConfig`
    /// as it was sent. The engine does not look into it.
    pub opaque: serde_json::Value,
}

/// The part of the wish that concerns the host (Docker's `HostConfig`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostSpec {
    pub mounts: Vec<MountSpec>,
    pub restart: RestartPolicy,
    pub auto_remove: bool,
    /// Run a small init as pid 1 that passes signals on and reaps.
    pub init: bool,
    pub read_only: bool,
    pub privileged: bool,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    /// `no-new-privileges[:true|false]`, `seccomp=unconfined`, `seccomp=<JSON text>`,
    /// `systempaths=unconfined`; `apparmor=` and `label=` are taken and have no effect.
    pub security_opt: Vec<String>,
    pub group_add: Vec<String>,
    pub devices: Vec<DeviceSpec>,
    /// cgroup device rules as `c 1:3 rwm`.
    pub device_cgroup_rules: Vec<String>,
    pub sysctls: BTreeMap<String, String>,
    pub ulimits: Vec<Ulimit>,
    /// Bytes; 0: Docker's 64 MiB.
    pub shm_size: u64,
    pub oom_score_adj: Option<i32>,
    /// Empty or `private`: own; `host`: the host's; `container:<id>`.
    pub pid_mode: String,
    /// Empty, `private` or `shareable`: own; `host`; `none`; `container:<id>`.
    pub ipc_mode: String,
    /// Empty: own; `host`: the host's.
    pub uts_mode: String,
    /// Empty or `host`: none; anything else is refused.
    pub userns_mode: String,
    pub resources: Resources,
    pub log: LogSpec,
    /// Absent: Docker's default set; empty: nothing masked.
    pub masked_paths: Option<Vec<String>>,
    pub readonly_paths: Option<Vec<String>>,
    /// Rows and columns of the first terminal.
    pub console_size: Option<(u16, u16)>,
    /// Ports of the host that lead to the container.
    pub ports: Vec<PortBinding>,
    /// Every exposed port gets one, too.
    pub publish_all: bool,
}

/// Limits; absent or 0 is no limit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Bytes.
    pub memory: i64,
    /// Bytes, soft.
    pub memory_reservation: i64,
    /// Bytes of memory and swap together; -1: unlimited; 0: twice the memory.
    pub memory_swap: i64,
    pub memory_swappiness: Option<i64>,
    pub oom_kill_disable: bool,
    /// Billionths of a processor (`--cpus 1.5` is 1 500 000 000).
    pub nano_cpus: i64,
    pub cpu_shares: i64,
    /// Microseconds.
    pub cpu_period: i64,
    /// Microseconds of each period.
    pub cpu_quota: i64,
    /// `0-2,4`.
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    /// 0 or -1: without limit.
    pub pids_limit: i64,
    /// 10 to 1000; 0: the default.
    pub blkio_weight: u16,
}

/// What is to change of a container that exists; what is 0, empty or absent stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Update {
    /// Without `pids_limit`, `memory_swappiness` and `oom_kill_disable`.
    pub resources: Resources,
    /// 0 or -1: without limit.
    pub pids_limit: Option<i64>,
    pub restart: Option<RestartPolicy>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MountSpec {
    /// Absolute path in the container.
    pub target: String,
    #[serde(default)]
    pub read_only: bool,
    pub kind: MountKind,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    Bind {
        source: String,
        /// `-v` makes a missing source directory, `--mount` refuses it.
        #[serde(default)]
        create_source: bool,
        /// `rprivate` (empty), `rshared`, `rslave`, `private`, `shared`, `slave`.
        #[serde(default)]
        propagation: String,
        #[serde(default)]
        non_recursive: bool,
    },
    Volume {
        /// Absent: an anonymous volume, removed with the container on request.
        name: Option<String>,
        /// Leave the image's content of that path out of a new volume.
        #[serde(default)]
        no_copy: bool,
        #[serde(default)]
        labels: BTreeMap<String, String>,
        /// Of the local driver: `type`, `device`, `o`; empty: as an existing volume has them.
        #[serde(default)]
        options: BTreeMap<String, String>,
        /// A folder or file in the volume in place of all of it; empty: all.
        #[serde(default)]
        subpath: String,
    },
    /// The files of an image, read-only.
    Image {
        /// Name, digest, id or id prefix of an image on this host.
        image: String,
        /// A folder or file in the image in place of all of it; empty: all.
        #[serde(default)]
        subpath: String,
    },
    Tmpfs {
        /// Bytes; absent: half of the memory.
        #[serde(default)]
        size: Option<u64>,
        /// Octal mode as a number; absent: 1777.
        #[serde(default)]
        mode: Option<u32>,
        /// More mount options of `--tmpfs /path:opts`, such as `uid=1000`, `exec`.
        #[serde(default)]
        options: Vec<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSpec {
    pub host: PathBuf,
    pub container: PathBuf,
    /// Of `r`, `w`, `m`.
    pub permissions: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Without the `RLIMIT_`, lower case: `nofile`.
    pub name: String,
    /// -1: without limit.
    pub soft: i64,
    pub hard: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSpec {
    /// Empty or `json-file` or `local`: kept and readable; `none`: dropped.
    pub driver: String,
    /// `max-size` (`10m`) is honoured, others are taken and shown.
    pub options: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    #[default]
    No,
    Always,
    UnlessStopped,
    /// With the number of tries; 0: without limit.
    OnFailure(u32),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", "…"]`; empty: the image's.
    pub test: Vec<String>,
    /// Zero: Docker's default of each.
    pub interval: Duration,
    pub timeout: Duration,
    pub start_period: Duration,
    pub start_interval: Duration,
    pub retries: u32,
}

impl Default for Healthcheck {
    fn default() -> Self {
        Self {
            test: Vec::new(),
            interval: Duration::ZERO,
            timeout: Duration::ZERO,
            start_period: Duration::ZERO,
            start_interval: Duration::ZERO,
            retries: 0,
        }
    }
}

impl ContainerSpec {
    pub fn new(image: impl Into<String>) -> Self {
        Self {
            image: image.into(),
            ..Self::default()
        }
    }
}

impl Default for ContainerSpec {
    fn default() -> Self {
        Self {
            name: None,
            image: String::new(),
            command: None,
            entrypoint: None,
            env: Vec::new(),
            labels: BTreeMap::new(),
            hostname: String::new(),
            domainname: String::new(),
            user: String::new(),
            working_dir: String::new(),
            tty: false,
            open_stdin: false,
            stdin_once: false,
            attach_stdin: false,
            attach_stdout: false,
            attach_stderr: false,
            stop_signal: None,
            stop_timeout: None,
            health: None,
            exposed_ports: BTreeSet::new(),
            volumes: BTreeSet::new(),
            host: HostSpec::default(),
            network: NetworkMode::Networks(vec![crate::network::NetworkWish::named("bridge")]),
            dns: Vec::new(),
            dns_search: Vec::new(),
            dns_options: Vec::new(),
            extra_hosts: Vec::new(),
            opaque: serde_json::Value::Null,
        }
    }
}

/// A command to run in a running container (`POST /containers/{id}/exec`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecSpec {
    pub command: Vec<String>,
    pub env: Vec<String>,
    pub user: String,
    pub working_dir: String,
    pub tty: bool,
    pub privileged: bool,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    pub detach_keys: String,
    /// Rows and columns.
    pub console_size: Option<(u16, u16)>,
}
