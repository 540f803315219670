//! The flags of `run` and `create`, and the body they become.

use clap::Args;
use serde_json::{Map, Value, json};

use super::mount::{Volume, mount, tmpfs, volume};
use super::network::{Attachment, settings};
use super::variables::{environment, labels};
use super::{pairs, port, resource, restart_policy, strict_pairs};
use crate::output::units::{parse_duration, parse_memory};
use crate::session::Surroundings;

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
    /// Mount a bind, volume or tmpfs: type=…,source=…,target=…
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

impl ContainerFlags {
    /// `--attach`, or its default: output and error, and input with `-i`.
    pub fn streams(&self) -> Result<Streams, String> {
        if self.attach.is_empty() {
            return Ok(Streams {
                input: self.interactive,
                output: true,
                error: true,
            });
        }
        let mut streams = Streams {
            input: self.interactive,
            ..Streams::default()
        };
        for name in &self.attach {
            match name.to_lowercase().as_str() {
                "stdin" => streams.input = true,
                "stdout" => streams.output = true,
                "stderr" => streams.error = true,
                _ => return Err(format!("--attach {name:?}: use stdin, stdout or stderr")),
            }
        }
        Ok(streams)
    }

    /// The attachments; `--ip`, `--network-alias` and the like belong to the first.
    fn attachments(&self) -> Result<Vec<Attachment>, String> {
        let mut list = self
            .network
            .iter()
            .map(|n| Attachment::parse(n))
            .collect::<Result<Vec<_>, _>>()?;
        let extra = !self.network_alias.is_empty()
            || self.ip.is_some()
            || self.ip6.is_some()
            || !self.link.is_empty()
            || !self.link_local_ip.is_empty()
            || self.mac_address.is_some();
        if list.is_empty() && extra {
            list.push(Attachment {
                network: "default".to_owned(),
                ..Attachment::default()
            });
        }
        let Some(first) = list.first_mut() else {
            return Ok(list);
        };
        for (flag, given, field) in [
            ("--ip", &self.ip, &mut first.ip),
            ("--ip6", &self.ip6, &mut first.ip6),
            ("--mac-address", &self.mac_address, &mut first.mac),
        ] {
            if let Some(value) = given {
                if field.is_some() {
                    return Err(format!(
                        "{flag} is given both as a flag and inside --network"
                    ));
                }
                *field = Some(value.clone());
            }
        }
        first.aliases.extend(self.network_alias.iter().cloned());
        if first.is_users() {
            first.links.extend(self.link.iter().cloned());
        }
        first.link_local.extend(self.link_local_ip.iter().cloned());
        if first.network == "default" && !self.network_alias.is_empty() {
            return Err("--network-alias works only with a --network of your own".to_owned());
        }
        Ok(list)
    }

    /// The body of `POST /containers/create`.
    pub fn body(
        &self,
        image: &str,
        command: &[String],
        around: &Surroundings,
    ) -> Result<Value, String> {
        let streams = self.streams()?;
        let mut body = Map::new();
        let mut put = |name: &str, value: Value| drop(body.insert(name.to_owned(), value));
        put("Hostname", json!(self.hostname.clone().unwrap_or_default()));
        put(
            "Domainname",
            json!(self.domainname.clone().unwrap_or_default()),
        );
        put("User", json!(self.user.clone().unwrap_or_default()));
        put("AttachStdin", json!(streams.input));
        put("AttachStdout", json!(streams.output));
        put("AttachStderr", json!(streams.error));
        put("Tty", json!(self.tty));
        put("OpenStdin", json!(self.interactive));
        put("StdinOnce", json!(self.interactive && streams.input));
        put(
            "Env",
            json!(environment(
                &self.env_file,
                &self.env,
                &around.directory,
                &around.variables
            )?),
        );
        put(
            "Cmd",
            if command.is_empty() {
                Value::Null
            } else {
                json!(command)
            },
        );
        if let Some(health) = self.healthcheck()? {
            put("Healthcheck", health);
        }
        put("Image", json!(image));
        put(
            "WorkingDir",
            json!(self.workdir.clone().unwrap_or_default()),
        );
        put(
            "Entrypoint",
            self.entrypoint.as_ref().map_or(Value::Null, |e| json!([e])),
        );
        put(
            "Labels",
            pairs(&labels(&self.label_file, &self.label, &around.directory)?),
        );
        if let Some(signal) = &self.stop_signal {
            put("StopSignal", json!(signal));
        }
        if let Some(seconds) = self.stop_timeout {
            put("StopTimeout", json!(seconds));
        }
        let (mut exposed, mut bindings) = (Map::new(), Map::new());
        for text in &self.expose {
            port::expose(text, &mut exposed)?;
        }
        for text in &self.publish {
            port::publish(text, &mut exposed, &mut bindings)?;
        }
        if !exposed.is_empty() {
            put("ExposedPorts", Value::Object(exposed));
        }
        let (mut binds, mut anonymous) = (Vec::new(), Map::new());
        for text in &self.volume {
            match volume(text, &around.directory)? {
                Volume::Bind(bind) => binds.push(bind),
                Volume::Anonymous(target) => drop(anonymous.insert(target, json!({}))),
            }
        }
        put("Volumes", Value::Object(anonymous));
        let (mode, endpoints) = settings(&self.attachments()?)?;
        put(
            "HostConfig",
            self.host_config(&binds, bindings, &mode, around)?,
        );
        put("NetworkingConfig", json!({"EndpointsConfig": endpoints}));
        Ok(Value::Object(body))
    }

    fn healthcheck(&self) -> Result<Option<Value>, String> {
        let mut health = Map::new();
        if self.no_healthcheck {
            if self.health_cmd.is_some()
                || self.health_interval.is_some()
                || self.health_timeout.is_some()
            {
                return Err("--no-healthcheck cannot be combined with --health-… flags".to_owned());
            }
            return Ok(Some(json!({"Test": ["NONE"]})));
        }
        if let Some(command) = &self.health_cmd {
            health.insert("Test".to_owned(), json!(["CMD-SHELL", command]));
        }
        for (flag, name, text) in [
            ("--health-interval", "Interval", &self.health_interval),
            ("--health-timeout", "Timeout", &self.health_timeout),
            (
                "--health-start-period",
                "StartPeriod",
                &self.health_start_period,
            ),
            (
                "--health-start-interval",
                "StartInterval",
                &self.health_start_interval,
            ),
        ] {
            if let Some(text) = text {
                let nanos = parse_duration(text).map_err(|e| format!("{flag}: {e}"))?;
                health.insert(name.to_owned(), json!(nanos));
            }
        }
        if let Some(retries) = self.health_retries {
            health.insert("Retries".to_owned(), json!(retries));
        }
        Ok((!health.is_empty()).then_some(Value::Object(health)))
    }

    fn host_config(
        &self,
        binds: &[String],
        bindings: Map<String, Value>,
        mode: &str,
        around: &Surroundings,
    ) -> Result<Value, String> {
        if self.rm && self.restart != "no" && !self.restart.is_empty() {
            return Err(
                "--rm and --restart cannot be combined: a removed container cannot be restarted"
                    .to_owned(),
            );
        }
        let mut host = Map::new();
        let mut put = |name: &str, value: Value| drop(host.insert(name.to_owned(), value));
        let (cap_add, cap_drop) = (capabilities(&self.cap_add), capabilities(&self.cap_drop));
        put("NetworkMode", json!(mode));
        put("RestartPolicy", restart_policy(&self.restart)?);
        put("AutoRemove", json!(self.rm));
        put("PortBindings", Value::Object(bindings));
        put(
            "LogConfig",
            json!({
                "Type": self.log_driver.clone().unwrap_or_default(),
                "Config": strict_pairs("--log-opt", &self.log_opt)?,
            }),
        );
        for (name, list) in [
            ("Binds", binds),
            ("CapAdd", &cap_add),
            ("CapDrop", &cap_drop),
            ("Dns", &self.dns),
            ("DnsOptions", &self.dns_option),
            ("DnsSearch", &self.dns_search),
            ("GroupAdd", &self.group_add),
            ("Links", &self.link),
            ("VolumesFrom", &self.volumes_from),
            ("DeviceCgroupRules", &self.device_cgroup_rule),
        ] {
            if !list.is_empty() {
                put(name, json!(list));
            }
        }
        for (name, text) in [
            ("CgroupnsMode", &self.cgroupns),
            ("CgroupParent", &self.cgroup_parent),
            ("CpusetCpus", &self.cpuset_cpus),
            ("CpusetMems", &self.cpuset_mems),
            ("IpcMode", &self.ipc),
            ("PidMode", &self.pid),
            ("Runtime", &self.runtime),
            ("UTSMode", &self.uts),
            ("UsernsMode", &self.userns),
            ("VolumeDriver", &self.volume_driver),
            ("ContainerIDFile", &self.cidfile),
        ] {
            if let Some(text) = text {
                put(name, json!(text));
            }
        }
        for (name, on) in [
            ("Privileged", self.privileged),
            ("PublishAllPorts", self.publish_all),
            ("ReadonlyRootfs", self.read_only),
            ("Init", self.init),
            ("OomKillDisable", self.oom_kill_disable),
        ] {
            if on {
                put(name, json!(true));
            }
        }
        for (name, number) in [
            ("BlkioWeight", self.blkio_weight.map(i64::from)),
            ("CpuPeriod", self.cpu_period),
            ("CpuQuota", self.cpu_quota),
            ("CpuShares", self.cpu_shares),
            ("MemorySwappiness", self.memory_swappiness),
            ("OomScoreAdj", self.oom_score_adj),
            ("PidsLimit", self.pids_limit),
        ] {
            if let Some(number) = number {
                put(name, json!(number));
            }
        }
        for (flag, name, text) in [
            ("--memory", "Memory", &self.memory),
            (
                "--memory-reservation",
                "MemoryReservation",
                &self.memory_reservation,
            ),
            ("--shm-size", "ShmSize", &self.shm_size),
        ] {
            if let Some(text) = text {
                put(
                    name,
                    json!(parse_memory(text).map_err(|e| format!("{flag}: {e}"))?),
                );
            }
        }
        if let Some(text) = &self.memory_swap {
            put(
                "MemorySwap",
                json!(resource::swap(text).map_err(|e| format!("--memory-swap: {e}"))?),
            );
        }
        if let Some(text) = &self.cpus {
            put("NanoCpus", json!(resource::cpus(text)?));
        }
        for (name, flag, texts) in [
            ("Sysctls", "--sysctl", &self.sysctl),
            ("StorageOpt", "--storage-opt", &self.storage_opt),
            ("Annotations", "--annotation", &self.annotation),
        ] {
            if !texts.is_empty() {
                put(name, strict_pairs(flag, texts)?);
            }
        }
        let each = |texts: &[String], read: &dyn Fn(&str) -> Result<Value, String>| {
            texts.iter().map(|t| read(t)).collect::<Result<Vec<_>, _>>()
        };
        for (name, list) in [
            ("Ulimits", each(&self.ulimit, &resource::ulimit)?),
            ("Devices", each(&self.device, &resource::device)?),
            (
                "ExtraHosts",
                each(&self.add_host, &|t| {
                    resource::extra_host(t).map(Value::from)
                })?,
            ),
            (
                "Mounts",
                each(&self.mount, &|t| mount(t, &around.directory))?,
            ),
        ] {
            if !list.is_empty() {
                put(name, Value::Array(list));
            }
        }
        if !self.tmpfs.is_empty() {
            put(
                "Tmpfs",
                Value::Object(
                    self.tmpfs
                        .iter()
                        .map(|t| tmpfs(t))
                        .collect::<Result<_, _>>()?,
                ),
            );
        }
        let (options, open_paths) = self.security(around)?;
        if !options.is_empty() {
            put("SecurityOpt", json!(options));
        }
        if open_paths {
            put("MaskedPaths", json!([]));
            put("ReadonlyPaths", json!([]));
        }
        Ok(Value::Object(host))
    }

    /// A seccomp profile is read here and sent whole; `systempaths=unconfined` becomes two empty lists.
    fn security(&self, around: &Surroundings) -> Result<(Vec<String>, bool), String> {
        let mut options = Vec::new();
        let mut open_paths = false;
        for option in &self.security_opt {
            let (name, value) = option
                .split_once('=')
                .or_else(|| option.split_once(':'))
                .unwrap_or((option, ""));
            match (name, value) {
                ("systempaths", "unconfined") => open_paths = true,
                ("seccomp", "unconfined" | "builtin") => options.push(format!("seccomp={value}")),
                ("seccomp", file) => {
                    let text =
                        std::fs::read_to_string(around.directory.join(file)).map_err(|e| {
                            format!("--security-opt seccomp={file}: cannot read the profile: {e}")
                        })?;
                    let profile: Value = serde_json::from_str(&text).map_err(|e| {
                        format!("--security-opt seccomp={file}: the profile is no JSON: {e}")
                    })?;
                    options.push(format!("seccomp={profile}"));
                }
                ("no-new-privileges", "" | "true") => options.push("no-new-privileges".to_owned()),
                _ => options.push(option.clone()),
            }
        }
        Ok((options, open_paths))
    }
}

/// `net_admin` to `CAP_NET_ADMIN`; ALL stays.
fn capabilities(names: &[String]) -> Vec<String> {
    let full = |name: &String| {
        let name = name.trim().to_uppercase();
        if name == "ALL" || name.starts_with("CAP_") {
            name
        } else {
            format!("CAP_{name}")
        }
    };
    names.iter().map(full).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use time::UtcOffset;

    use super::*;

    /// The body without what every container has.
    fn body(words: &str) -> Result<Value, String> {
        #[derive(Parser)]
        #[command(disable_help_flag = true)]
        struct Only {
            #[command(flatten)]
            flags: ContainerFlags,
        }
        let around = Surroundings {
            variables: [("HOME".to_owned(), "/root".to_owned())].into(),
            zone: UtcOffset::UTC,
            directory: "/here".into(),
        };
        let words = std::iter::once("run").chain(words.split_whitespace());
        let make = |flags: &ContainerFlags| flags.body("image", &[], &around);
        let plain = make(&Only::parse_from(["run"]).flags)?;
        let mut body = make(
            &Only::try_parse_from(words)
                .map_err(|e| e.to_string())?
                .flags,
        )?;
        for part in ["", "/HostConfig"] {
            let same = plain
                .pointer(part)
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default();
            if let Some(map) = body.pointer_mut(part).and_then(Value::as_object_mut) {
                map.retain(|name, value| same.get(name) != Some(value));
            }
        }
        Ok(body)
    }

    #[test]
    fn flags_become_fields() {
        let host = |value: Value| json!({"HostConfig": value});
        let cases = [
            ("", json!({})),
            (
                "-i -t",
                json!({"AttachStdin": true, "Tty": true, "OpenStdin": true, "StdinOnce": true}),
            ),
            (
                "-e A=1 -e HOME -e GONE -w /w -u 1:2 -h h",
                json!({"Hostname": "h", "User": "1:2", "Env": ["A=1", "HOME=/root", "GONE"], "WorkingDir": "/w"}),
            ),
            (
                "--entrypoint sh --label a=b --label c --stop-signal INT --stop-timeout 3",
                json!({"Entrypoint": ["sh"], "Labels": {"a": "b", "c": ""}, "StopSignal": "INT", "StopTimeout": 3}),
            ),
            (
                "--no-healthcheck",
                json!({"Healthcheck": {"Test": ["NONE"]}}),
            ),
            (
                "--health-cmd true --health-interval 3s --health-retries 2",
                json!({"Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 3_000_000_000_i64, "Retries": 2}}),
            ),
            (
                "-v ./a:/a -v /anonymous",
                json!({"Volumes": {"/anonymous": {}}, "HostConfig": {"Binds": ["/here/a:/a"]}}),
            ),
            (
                "--memory 64m --memory-swap=-1 --cpus 1.5 --pids-limit=-1 --shm-size 1m",
                host(
                    json!({"PidsLimit": -1, "Memory": 67_108_864, "ShmSize": 1_048_576, "MemorySwap": -1, "NanoCpus": 1_500_000_000}),
                ),
            ),
            (
                "--cap-add net_admin --cap-drop ALL --privileged --read-only --init",
                host(
                    json!({"CapAdd": ["CAP_NET_ADMIN"], "CapDrop": ["ALL"], "Privileged": true, "ReadonlyRootfs": true, "Init": true}),
                ),
            ),
            (
                "--restart on-failure:3",
                host(json!({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}})),
            ),
            (
                "--security-opt systempaths=unconfined --security-opt no-new-privileges:true",
                host(
                    json!({"SecurityOpt": ["no-new-privileges"], "MaskedPaths": [], "ReadonlyPaths": []}),
                ),
            ),
            ("--network ch03", host(json!({"NetworkMode": "ch03"}))),
            (
                "--network ch03 --ip 10.0.1.9 --network-alias web",
                json!({"HostConfig": {"NetworkMode": "ch03"}, "NetworkingConfig": {"EndpointsConfig": {"ch03":
                {"IPAMConfig": {"IPv4Address": "10.0.1.9"}, "Aliases": ["web"]}}}}),
            ),
            (
                "--tmpfs /t:size=1m --sysctl net.core.somaxconn=9 --add-host a:10.0.0.1 --dns 10.0.0.2",
                host(
                    json!({"Dns": ["10.0.0.2"], "Sysctls": {"net.core.somaxconn": "9"}, "ExtraHosts": ["a:10.0.0.1"], "Tmpfs": {"/t": "size=1m"}}),
                ),
            ),
        ];
        for (words, mut wanted) in cases {
            if wanted.get("HostConfig").is_none()
                && let Some(map) = wanted.as_object_mut()
            {
                map.insert("HostConfig".to_owned(), json!({}));
            }
            let mut found = body(words).expect(words);
            if found.get("HostConfig").is_none() {
                found["HostConfig"] = json!({});
            }
            assert_eq!(found, wanted, "{words}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        for words in [
            "--rm --restart always",
            "--no-healthcheck --health-cmd true",
            "--network-alias a",
            "--network name=a,ip=10.0.0.1 --ip 10.0.0.2",
            "--security-opt seccomp=/nonexistent.json",
            "--attach nowhere",
            "--health-interval soon",
            "--memory lots",
        ] {
            assert!(body(words).is_err(), "{words}");
        }
    }
}
