//! The flags of `run` and `create`, and the body they become.

mod body;

use clap::Args;

/// What a container is made of.
#[derive(Args, Debug, Default)]
pub struct ContainerFlags {
    /// Add a line NAME:IP to the container's /etc/hosts
    #[arg(long, value_name = "NAME:IP")]
    pub add_host: Vec<String>,
    /// Add an annotation for the OCI runtime
    #[arg(long, value_name = "KEY=VALUE")]
    pub annotation: Vec<String>,
    /// Connect only these streams: stdin, stdout, stderr
    #[arg(short, long, value_name = "STREAM")]
    pub attach: Vec<String>,
    /// Relative weight of block I/O, 10 to 1000
    #[arg(long, value_name = "N")]
    pub blkio_weight: Option<u16>,
    /// Add a Linux capability, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_add: Vec<String>,
    /// Drop a Linux capability, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_drop: Vec<String>,
    /// Parent of the container's cgroup
    #[arg(long, value_name = "PATH")]
    pub cgroup_parent: Option<String>,
    /// Cgroup namespace: host or private
    #[arg(long, value_name = "MODE")]
    pub cgroupns: Option<String>,
    /// Write the container's id to this file, which must not exist
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<String>,
    /// Length of a CFS period in microseconds
    #[arg(long, value_name = "N")]
    pub cpu_period: Option<i64>,
    /// Processor time within a CFS period in microseconds
    #[arg(long, value_name = "N")]
    pub cpu_quota: Option<i64>,
    /// Relative weight of processor time
    #[arg(short = 'c', long, value_name = "N")]
    pub cpu_shares: Option<i64>,
    /// Number of processors, such as 1.5
    #[arg(long, value_name = "NUMBER")]
    pub cpus: Option<String>,
    /// Processors to run on, such as 0-3 or 0,2
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Keys that detach from the container (default ctrl-p,ctrl-q)
    #[arg(long, value_name = "KEYS")]
    pub detach_keys: Option<String>,
    /// Give the container a device of the host
    #[arg(long, value_name = "HOST[:CONTAINER[:rwm]]")]
    pub device: Vec<String>,
    /// Add a rule to the allowed devices
    #[arg(long, value_name = "RULE")]
    pub device_cgroup_rule: Vec<String>,
    /// Accepted and ignored, as signatures are not checked
    #[arg(long, hide = true)]
    pub disable_content_trust: bool,
    /// Use this name server
    #[arg(long, value_name = "IP")]
    pub dns: Vec<String>,
    /// Add a resolver option, such as ndots:1
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    pub dns_option: Vec<String>,
    /// Add a search domain
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<String>,
    /// Domain name of the container
    #[arg(long, value_name = "NAME")]
    pub domainname: Option<String>,
    /// Run this instead of the image's entrypoint; empty resets it
    #[arg(long, value_name = "COMMAND")]
    pub entrypoint: Option<String>,
    /// Set a variable; NAME alone takes its value from here
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Read variables from a file, one a line
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<String>,
    /// Name a port the container listens on
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    pub expose: Vec<String>,
    /// Add a group to the user's groups
    #[arg(long, value_name = "GROUP")]
    pub group_add: Vec<String>,
    /// Shell command that tells whether the container is healthy
    #[arg(long, value_name = "COMMAND")]
    pub health_cmd: Option<String>,
    /// Time between two checks
    #[arg(long, value_name = "DURATION")]
    pub health_interval: Option<String>,
    /// Failures in a row that make it unhealthy
    #[arg(long, value_name = "N")]
    pub health_retries: Option<u32>,
    /// Time between two checks while it starts
    #[arg(long, value_name = "DURATION")]
    pub health_start_interval: Option<String>,
    /// Failures do not count for this long after the start
    #[arg(long, value_name = "DURATION")]
    pub health_start_period: Option<String>,
    /// A check that takes longer has failed
    #[arg(long, value_name = "DURATION")]
    pub health_timeout: Option<String>,
    /// Host name inside the container (default: its short id)
    #[arg(short = 'h', long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Run a small init as process 1 that reaps zombies
    #[arg(long)]
    pub init: bool,
    /// Keep standard input open
    #[arg(short, long)]
    pub interactive: bool,
    /// Fixed IPv4 address on the first network
    #[arg(long, value_name = "IP")]
    pub ip: Option<String>,
    /// Fixed IPv6 address on the first network
    #[arg(long, value_name = "IP")]
    pub ip6: Option<String>,
    /// IPC mode: private, host, shareable, none, container:NAME
    #[arg(long, value_name = "MODE")]
    pub ipc: Option<String>,
    /// Set a label
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// Read labels from a file, one a line
    #[arg(long, value_name = "FILE")]
    pub label_file: Vec<String>,
    /// Name another container of the host's default network
    #[arg(long, value_name = "CONTAINER[:ALIAS]")]
    pub link: Vec<String>,
    /// Add a link-local address
    #[arg(long, value_name = "IP")]
    pub link_local_ip: Vec<String>,
    /// Logging driver
    #[arg(long, value_name = "NAME")]
    pub log_driver: Option<String>,
    /// Option of the logging driver
    #[arg(long, value_name = "KEY=VALUE")]
    pub log_opt: Vec<String>,
    /// MAC address on the first network
    #[arg(long, value_name = "MAC")]
    pub mac_address: Option<String>,
    /// Memory limit, such as 512m
    #[arg(short, long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Soft memory limit
    #[arg(long, value_name = "SIZE")]
    pub memory_reservation: Option<String>,
    /// Limit of memory and swap together; -1 for no limit on swap
    #[arg(long, value_name = "SIZE")]
    pub memory_swap: Option<String>,
    /// Tendency to swap, 0 to 100
    #[arg(long, value_name = "N")]
    pub memory_swappiness: Option<i64>,
    /// Mount a bind, volume, tmpfs or image: type=…,source=…,target=…
    #[arg(long, value_name = "SPEC")]
    pub mount: Vec<String>,
    /// Name of the container
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Attach to a network, by name or as name=…,alias=…,ip=…; repeatable
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    pub network: Vec<String>,
    /// Further name of the container on the first network
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    pub network_alias: Vec<String>,
    /// Switch the image's health check off
    #[arg(long)]
    pub no_healthcheck: bool,
    /// Do not kill processes when memory runs out
    #[arg(long)]
    pub oom_kill_disable: bool,
    /// Preference for being killed when memory runs out, -1000 to 1000
    #[arg(long, value_name = "N")]
    pub oom_score_adj: Option<i64>,
    /// PID mode: host or container:NAME
    #[arg(long, value_name = "MODE")]
    pub pid: Option<String>,
    /// Most processes and threads; -1 for no limit
    #[arg(long, value_name = "N")]
    pub pids_limit: Option<i64>,
    /// Platform of the image, such as linux/arm64
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Give all capabilities and devices
    #[arg(long)]
    pub privileged: bool,
    /// Publish a port on this host
    #[arg(short, long, value_name = "[[IP:]HOST:]PORT")]
    pub publish: Vec<String>,
    /// Publish all exposed ports on free ports
    #[arg(short = 'P', long)]
    pub publish_all: bool,
    /// When to pull the image: always, missing or never
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pub pull: String,
    /// Do not show the progress of a pull
    #[arg(short, long)]
    pub quiet: bool,
    /// Mount the root file system read-only
    #[arg(long)]
    pub read_only: bool,
    /// Restart policy: no, always, unless-stopped, on-failure or on-failure:N
    #[arg(long, value_name = "POLICY", default_value = "no")]
    pub restart: String,
    /// Remove the container when it ends
    #[arg(long)]
    pub rm: bool,
    /// OCI runtime
    #[arg(long, value_name = "NAME")]
    pub runtime: Option<String>,
    /// Security option: no-new-privileges, seccomp=FILE|unconfined, apparmor=PROFILE
    #[arg(long, value_name = "OPTION")]
    pub security_opt: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "SIZE")]
    pub shm_size: Option<String>,
    /// Signal that asks the container to stop
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// Seconds from the stop signal to the kill
    #[arg(long, value_name = "SECONDS")]
    pub stop_timeout: Option<i64>,
    /// Option of the storage driver
    #[arg(long, value_name = "KEY=VALUE")]
    pub storage_opt: Vec<String>,
    /// Set a kernel parameter of the container's namespaces
    #[arg(long, value_name = "KEY=VALUE")]
    pub sysctl: Vec<String>,
    /// Mount a tmpfs
    #[arg(long, value_name = "PATH[:OPTIONS]")]
    pub tmpfs: Vec<String>,
    /// Give the container a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Resource limit of the processes
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub ulimit: Vec<String>,
    /// User, by name or number, and group
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// User namespace: host
    #[arg(long, value_name = "MODE")]
    pub userns: Option<String>,
    /// UTS namespace: host
    #[arg(long, value_name = "MODE")]
    pub uts: Option<String>,
    /// Mount a host path or a volume
    #[arg(short, long, value_name = "SOURCE:TARGET[:ro]")]
    pub volume: Vec<String>,
    /// Driver of anonymous volumes
    #[arg(long, value_name = "NAME")]
    pub volume_driver: Option<String>,
    /// Mount the volumes of another container
    #[arg(long, value_name = "CONTAINER")]
    pub volumes_from: Vec<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "PATH")]
    pub workdir: Option<String>,
}

/// Which of a container's streams the user sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// Standard input.
    pub input: bool,
    /// Standard output.
    pub output: bool,
    /// Standard error.
    pub error: bool,
}

#[cfg(test)]
mod tests;
