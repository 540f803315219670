//! The body that the flags become.

use serde_json::{Map, Value, json};

use super::{ContainerFlags, Streams};
use crate::flags::mount::{Volume, mount, tmpfs, volume};
use crate::flags::network::{Attachment, settings};
use crate::flags::variables::{environment, labels};
use crate::flags::{pairs, port, resource, restart_policy, strict_pairs};
use crate::output::units::{parse_duration, parse_memory};
use crate::session::Surroundings;

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
