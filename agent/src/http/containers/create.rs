//! From what a client sends to the engine's wish. Every field Docker knows is looked at: it is
//! taken, refused by name, or named in a warning.

use std::collections::{BTreeMap, HashMap};

use api::docker::{
    ContainerCreateBody, EndpointSettings, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum,
    HostConfigIsolationEnum, HostConfigLogConfig, NetworkingConfig, RestartPolicy as GivenPolicy,
    RestartPolicyNameEnum,
};
use model::{ContainerId, Refusal};
use runtime::engine::{
    ContainerSpec, DeviceSpec, Healthcheck, HostSpec, LogSpec, Resources, RestartPolicy, Ulimit,
};
use serde::Deserialize;

use super::{mounts, network};

/// What else is looked up while a wish is read.
pub(super) struct Lookup<'a> {
    /// The full id of a container named by the user.
    pub container: &'a dyn Fn(&str) -> Result<ContainerId, Refusal>,
    /// Names that `Runtime` may have.
    pub runtimes: &'a [&'a str],
}

/// Fields that clients send and the API's own description has lost.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Leftover {
    #[serde(rename = "MacAddress")]
    mac_address: String,
    #[serde(rename = "HostConfig")]
    host_config: LeftoverHost,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LeftoverHost {
    #[serde(rename = "KernelMemory")]
    kernel_memory: i64,
    #[serde(rename = "KernelMemoryTCP")]
    kernel_memory_tcp: i64,
}

/// What cannot be honoured, for the refusal's sentence.
pub(super) fn absent(option: &str) -> Refusal {
    Refusal::not_implemented(format!("{option} is not there yet; leave it out"))
}

fn refuse_if(given: bool, option: &str) -> Result<(), Refusal> {
    if given { Err(absent(option)) } else { Ok(()) }
}

fn filled<T>(list: Option<&Vec<T>>) -> bool {
    list.is_some_and(|list| !list.is_empty())
}

fn text(given: Option<String>) -> String {
    given.unwrap_or_default()
}

/// Reads a whole creation request; gives the wish and what the user should be warned of.
pub(super) fn read(
    name: Option<String>,
    body: ContainerCreateBody,
    leftover: &Leftover,
    lookup: &Lookup<'_>,
) -> Result<(ContainerSpec, Vec<String>), Refusal> {
    let mut warnings = Vec::new();
    let opaque = serde_json::to_value(&body.host_config).unwrap_or_default();
    let ContainerCreateBody {
        hostname,
        domainname,
        user,
        attach_stdin,
        attach_stdout,
        attach_stderr,
        exposed_ports,
        tty,
        open_stdin,
        stdin_once,
        env,
        cmd,
        healthcheck,
        // Windows only; Docker ignores it on Linux too.
        args_escaped: _,
        image,
        volumes,
        working_dir,
        entrypoint,
        network_disabled,
        on_build,
        labels,
        stop_signal,
        stop_timeout,
        shell,
        host_config,
        networking_config,
    } = body;
    let image = text(image);
    if image.is_empty() {
        return Err(Refusal::invalid(
            "no image specified; give Image a name such as busybox:latest",
        ));
    }
    refuse_if(
        !leftover.mac_address.is_empty(),
        "MacAddress (--mac-address)",
    )?;
    refuse_if(
        leftover.host_config.kernel_memory > 0,
        "HostConfig.KernelMemory",
    )?;
    refuse_if(
        leftover.host_config.kernel_memory_tcp > 0,
        "HostConfig.KernelMemoryTCP",
    )?;
    for (given, field) in [
        (filled(on_build.as_ref()), "OnBuild"),
        (filled(shell.as_ref()), "Shell"),
    ] {
        if given {
            warnings.push(format!(
                "{field} concerns building images and has no effect here"
            ));
        }
    }
    let host_config = host_config.unwrap_or_default();
    let NetworkingConfig { endpoints_config } = networking_config.unwrap_or_default();
    let read = host(
        host_config,
        endpoints_config.unwrap_or_default(),
        lookup,
        &mut warnings,
    )?;
    let host_network = matches!(read.network, runtime::network::NetworkMode::Host);
    let spec = ContainerSpec {
        name,
        image,
        command: cmd.filter(|words| !words.is_empty()),
        entrypoint: entrypoint.filter(|words| !words.is_empty()),
        env: env.unwrap_or_default(),
        labels: labels.unwrap_or_default().into_iter().collect(),
        hostname: text(hostname),
        domainname: text(domainname),
        user: text(user),
        working_dir: text(working_dir),
        tty: tty.unwrap_or(false),
        open_stdin: open_stdin.unwrap_or(false),
        stdin_once: stdin_once.unwrap_or(false),
        attach_stdin: attach_stdin.unwrap_or(false),
        attach_stdout: attach_stdout.unwrap_or(false),
        attach_stderr: attach_stderr.unwrap_or(false),
        stop_signal: stop_signal.filter(|signal| !signal.is_empty()),
        stop_timeout,
        health: healthcheck.map(health).transpose()?.flatten(),
        exposed_ports: exposed_ports.unwrap_or_default().into_iter().collect(),
        volumes: volumes.unwrap_or_default().into_iter().collect(),
        host: read.host,
        network: if network_disabled.unwrap_or(false) {
            runtime::network::NetworkMode::None
        } else {
            read.network
        },
        dns: read.dns,
        dns_search: read.dns_search,
        dns_options: read.dns_options,
        extra_hosts: read.extra_hosts,
        opaque,
    };
    if host_network && !spec.exposed_ports.is_empty() {
        tracing::debug!("exposed ports mean nothing in the host's network");
    }
    Ok((spec, warnings))
}

fn health(config: HealthConfig) -> Result<Option<Healthcheck>, Refusal> {
    let HealthConfig {
        test,
        interval,
        timeout,
        retries,
        start_period,
        start_interval,
    } = config;
    let test = test.unwrap_or_default();
    match test.first().map(String::as_str) {
        None | Some("NONE" | "CMD" | "CMD-SHELL") => {}
        Some(other) => {
            return Err(Refusal::invalid(format!(
                "Healthcheck.Test: {other:?} is not one of NONE, CMD, CMD-SHELL"
            )));
        }
    }
    let span = |field: &str, nanos: Option<i64>| match nanos.unwrap_or(0) {
        0 => Ok(std::time::Duration::ZERO),
        nanos if nanos < 1_000_000 => Err(Refusal::invalid(format!(
            "{field} in Healthcheck cannot be less than one millisecond"
        ))),
        nanos => Ok(std::time::Duration::from_nanos(nanos.unsigned_abs())),
    };
    let retries = u32::try_from(retries.unwrap_or(0))
        .map_err(|_| Refusal::invalid("Healthcheck.Retries cannot be negative"))?;
    let check = Healthcheck {
        test,
        interval: span("Interval", interval)?,
        timeout: span("Timeout", timeout)?,
        start_period: span("StartPeriod", start_period)?,
        start_interval: span("StartInterval", start_interval)?,
        retries,
    };
    Ok((check != Healthcheck::default()).then_some(check))
}

struct ReadHost {
    host: HostSpec,
    network: runtime::network::NetworkMode,
    dns: Vec<std::net::IpAddr>,
    dns_search: Vec<String>,
    dns_options: Vec<String>,
    extra_hosts: Vec<String>,
}

fn host(
    config: HostConfig,
    endpoints: HashMap<String, EndpointSettings>,
    lookup: &Lookup<'_>,
    warnings: &mut Vec<String>,
) -> Result<ReadHost, Refusal> {
    let HostConfig {
        cpu_shares,
        memory,
        cgroup_parent,
        blkio_weight,
        blkio_weight_device,
        blkio_device_read_bps,
        blkio_device_write_bps,
        blkio_device_read_iops,
        blkio_device_write_iops,
        cpu_period,
        cpu_quota,
        cpu_realtime_period,
        cpu_realtime_runtime,
        cpuset_cpus,
        cpuset_mems,
        devices,
        device_cgroup_rules,
        device_requests,
        memory_reservation,
        memory_swap,
        memory_swappiness,
        nano_cpus,
        oom_kill_disable,
        init,
        pids_limit,
        ulimits,
        cpu_count,
        cpu_percent,
        io_maximum_iops,
        io_maximum_bandwidth,
        binds,
        // The client writes that file itself.
        container_id_file: _,
        log_config,
        network_mode,
        port_bindings,
        restart_policy,
        auto_remove,
        volume_driver,
        volumes_from,
        mounts,
        console_size,
        annotations,
        cap_add,
        cap_drop,
        cgroupns_mode,
        dns,
        dns_options,
        dns_search,
        extra_hosts,
        group_add,
        ipc_mode,
        cgroup,
        links,
        oom_score_adj,
        pid_mode,
        privileged,
        publish_all_ports,
        readonly_rootfs,
        security_opt,
        storage_opt,
        tmpfs,
        uts_mode,
        userns_mode,
        shm_size,
        sysctls,
        runtime,
        isolation,
        masked_paths,
        readonly_paths,
    } = config;

    refuse_if(
        !text(cgroup_parent).is_empty(),
        "HostConfig.CgroupParent (--cgroup-parent)",
    )?;
    refuse_if(
        filled(blkio_weight_device.as_ref()),
        "HostConfig.BlkioWeightDevice (--blkio-weight-device)",
    )?;
    refuse_if(
        filled(blkio_device_read_bps.as_ref()),
        "HostConfig.BlkioDeviceReadBps (--device-read-bps)",
    )?;
    refuse_if(
        filled(blkio_device_write_bps.as_ref()),
        "HostConfig.BlkioDeviceWriteBps (--device-write-bps)",
    )?;
    refuse_if(
        filled(blkio_device_read_iops.as_ref()),
        "HostConfig.BlkioDeviceReadIOps (--device-read-iops)",
    )?;
    refuse_if(
        filled(blkio_device_write_iops.as_ref()),
        "HostConfig.BlkioDeviceWriteIOps (--device-write-iops)",
    )?;
    refuse_if(
        cpu_realtime_period.unwrap_or(0) != 0,
        "HostConfig.CpuRealtimePeriod (--cpu-rt-period)",
    )?;
    refuse_if(
        cpu_realtime_runtime.unwrap_or(0) != 0,
        "HostConfig.CpuRealtimeRuntime (--cpu-rt-runtime)",
    )?;
    refuse_if(
        filled(device_requests.as_ref()),
        "HostConfig.DeviceRequests (--gpus)",
    )?;
    refuse_if(!text(cgroup).is_empty(), "HostConfig.Cgroup")?;
    refuse_if(filled(links.as_ref()), "HostConfig.Links (--link)")?;
    refuse_if(
        filled(volumes_from.as_ref()),
        "HostConfig.VolumesFrom (--volumes-from)",
    )?;
    refuse_if(
        storage_opt.is_some_and(|map| !map.is_empty()),
        "HostConfig.StorageOpt (--storage-opt)",
    )?;
    refuse_if(
        !matches!(text(volume_driver).as_str(), "" | "local"),
        "HostConfig.VolumeDriver (--volume-driver) other than local",
    )?;
    refuse_if(
        matches!(cgroupns_mode, Some(HostConfigCgroupnsModeEnum::HOST)),
        "HostConfig.CgroupnsMode host (--cgroupns=host)",
    )?;
    if port_bindings.is_some_and(|map| !map.is_empty()) || publish_all_ports.unwrap_or(false) {
        return Err(Refusal::not_implemented(
            "publishing ports (-p, -P) is not there yet; leave it out and reach the container over its network",
        ));
    }
    for (given, field) in [
        (cpu_count.unwrap_or(0) != 0, "CpuCount"),
        (cpu_percent.unwrap_or(0) != 0, "CpuPercent"),
        (io_maximum_iops.unwrap_or(0) != 0, "IOMaximumIOps"),
        (io_maximum_bandwidth.unwrap_or(0) != 0, "IOMaximumBandwidth"),
        (
            matches!(
                isolation,
                Some(HostConfigIsolationEnum::HYPERV | HostConfigIsolationEnum::PROCESS)
            ),
            "Isolation",
        ),
    ] {
        if given {
            return Err(Refusal::invalid(format!(
                "HostConfig.{field} exists on Windows only; leave it out"
            )));
        }
    }
    let runtime = text(runtime);
    if !runtime.is_empty() && !lookup.runtimes.contains(&runtime.as_str()) {
        return Err(Refusal::invalid(format!(
            "unknown or invalid runtime name: {runtime}; this host has {}",
            lookup.runtimes.join(", ")
        )));
    }
    if annotations.is_some_and(|map| !map.is_empty()) {
        warnings.push("HostConfig.Annotations are kept and have no effect".to_owned());
    }
    let auto_remove = auto_remove.unwrap_or(false);
    let restart = restart_policy.map_or(Ok(RestartPolicy::No), restart)?;
    if auto_remove && restart != RestartPolicy::No {
        return Err(Refusal::invalid(
            "can't create 'AutoRemove' container with restart policy",
        ));
    }
    let network = network::read(
        network_mode.as_deref().unwrap_or(""),
        endpoints,
        lookup.container,
    )?;
    let of_container = |field: &str, mode: Option<String>| -> Result<String, Refusal> {
        let mode = text(mode);
        match mode.strip_prefix("container:") {
            Some(other) => (lookup.container)(other)
                .map(|id| format!("container:{id}"))
                .map_err(|refusal| Refusal {
                    message: format!("{field}: {}", refusal.message),
                    ..refusal
                }),
            None => Ok(mode),
        }
    };
    Ok(ReadHost {
        network,
        dns: dns
            .unwrap_or_default()
            .iter()
            .map(|server| {
                server.parse().map_err(|_| {
                    Refusal::invalid(format!("HostConfig.Dns: {server:?} is not an IP address"))
                })
            })
            .collect::<Result<_, _>>()?,
        dns_search: dns_search.unwrap_or_default(),
        dns_options: dns_options.unwrap_or_default(),
        extra_hosts: extra_hosts.unwrap_or_default(),
        host: HostSpec {
            mounts: mounts::read(binds, mounts, tmpfs)?,
            restart,
            auto_remove,
            init: init.unwrap_or(false),
            read_only: readonly_rootfs.unwrap_or(false),
            privileged: privileged.unwrap_or(false),
            cap_add: cap_add.unwrap_or_default(),
            cap_drop: cap_drop.unwrap_or_default(),
            security_opt: security_opt.unwrap_or_default(),
            group_add: group_add.unwrap_or_default(),
            devices: devices
                .unwrap_or_default()
                .into_iter()
                .map(|device| {
                    let host = text(device.path_on_host);
                    let container = device
                        .path_in_container
                        .filter(|path| !path.is_empty())
                        .unwrap_or_else(|| host.clone());
                    DeviceSpec {
                        host: host.into(),
                        container: container.into(),
                        permissions: device
                            .cgroup_permissions
                            .filter(|permissions| !permissions.is_empty())
                            .unwrap_or_else(|| "rwm".to_owned()),
                    }
                })
                .collect(),
            device_cgroup_rules: device_cgroup_rules.unwrap_or_default(),
            sysctls: sysctls.unwrap_or_default().into_iter().collect(),
            ulimits: ulimits
                .unwrap_or_default()
                .into_iter()
                .map(|limit| Ulimit {
                    name: text(limit.name),
                    soft: limit.soft.unwrap_or(0),
                    hard: limit.hard.unwrap_or(0),
                })
                .collect(),
            shm_size: u64::try_from(shm_size.unwrap_or(0)).map_err(|_| {
                Refusal::invalid("HostConfig.ShmSize: SHM size can not be less than 0")
            })?,
            oom_score_adj: oom_score_adj
                .filter(|score| *score != 0)
                .map(|score| {
                    i32::try_from(score)
                        .ok()
                        .filter(|score| (-1000..=1000).contains(score))
                        .ok_or_else(|| {
                            Refusal::invalid(format!(
                                "Invalid value {score}, range for oom score adj is [-1000, 1000]"
                            ))
                        })
                })
                .transpose()?,
            pid_mode: of_container("HostConfig.PidMode", pid_mode)?,
            ipc_mode: of_container("HostConfig.IpcMode", ipc_mode)?,
            uts_mode: text(uts_mode),
            userns_mode: text(userns_mode),
            resources: Resources {
                memory: limit("Memory", memory)?,
                memory_reservation: limit("MemoryReservation", memory_reservation)?,
                memory_swap: memory_swap.unwrap_or(0),
                // The client sends -1 for "not given".
                memory_swappiness: memory_swappiness.filter(|value| *value != -1),
                oom_kill_disable: oom_kill_disable.unwrap_or(false),
                nano_cpus: limit("NanoCpus", nano_cpus)?,
                cpu_shares: limit("CpuShares", cpu_shares)?,
                cpu_period: limit("CpuPeriod", cpu_period)?,
                cpu_quota: cpu_quota.unwrap_or(0),
                cpuset_cpus: text(cpuset_cpus),
                cpuset_mems: text(cpuset_mems),
                pids_limit: pids_limit.unwrap_or(0),
                blkio_weight: blkio_weight.unwrap_or(0),
            },
            log: log_config.map_or_else(|| Ok(LogSpec::default()), log)?,
            masked_paths,
            readonly_paths,
            console_size: super::console_size(
                console_size
                    .map(|size| {
                        size.iter()
                            .map(|n| u16::try_from(*n).unwrap_or(u16::MAX))
                            .collect::<Vec<_>>()
                    })
                    .as_deref(),
            ),
        },
    })
}

fn limit(field: &str, given: Option<i64>) -> Result<i64, Refusal> {
    match given.unwrap_or(0) {
        negative @ ..0 => Err(Refusal::invalid(format!(
            "HostConfig.{field}: {negative} is negative; 0 means no limit"
        ))),
        value => Ok(value),
    }
}

fn restart(policy: GivenPolicy) -> Result<RestartPolicy, Refusal> {
    let count = policy.maximum_retry_count.unwrap_or(0);
    let tries = u32::try_from(count).map_err(|_| {
        Refusal::invalid("invalid restart policy: maximum retry count cannot be negative")
    })?;
    let name = policy.name.unwrap_or(RestartPolicyNameEnum::EMPTY);
    let read = match name {
        RestartPolicyNameEnum::EMPTY | RestartPolicyNameEnum::NO => RestartPolicy::No,
        RestartPolicyNameEnum::ALWAYS => RestartPolicy::Always,
        RestartPolicyNameEnum::UNLESS_STOPPED => RestartPolicy::UnlessStopped,
        RestartPolicyNameEnum::ON_FAILURE => RestartPolicy::OnFailure(tries),
    };
    if tries > 0 && !matches!(read, RestartPolicy::OnFailure(_)) {
        return Err(Refusal::invalid(format!(
            "invalid restart policy: maximum retry count can only be used with 'on-failure', not {name:?}"
        )));
    }
    Ok(read)
}

fn log(config: HostConfigLogConfig) -> Result<LogSpec, Refusal> {
    let driver = text(config.typ);
    if !matches!(driver.as_str(), "" | "json-file" | "local" | "none") {
        return Err(Refusal::invalid(format!(
            "logger: no log driver named '{driver}' is registered; there are json-file, local and none"
        )));
    }
    Ok(LogSpec {
        driver,
        options: config
            .config
            .unwrap_or_default()
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
    })
}

#[cfg(test)]
mod tests {
    use runtime::network::NetworkMode;

    use super::*;

    fn read_body(body: &str) -> Result<(ContainerSpec, Vec<String>), Refusal> {
        let find = |name: &str| {
            if name == "other" {
                Ok(ContainerId::new("0".repeat(64)))
            } else {
                Err(Refusal::not_found(format!("No such container: {name}")))
            }
        };
        let lookup = Lookup {
            container: &find,
            runtimes: &["crun", "runc"],
        };
        let leftover = api::read(body.as_bytes())?;
        read(
            Some("api".into()),
            api::read(body.as_bytes())?,
            &leftover,
            &lookup,
        )
    }

    /// What the stock client sends for `run -d --name api --network ch03 echo`.
    const RUN: &str = r#"{"Hostname":"","Domainname":"","User":"","AttachStdin":false,"AttachStdout":false,
        "AttachStderr":false,"Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":null,"Cmd":null,"Image":"echo",
        "Volumes":{},"WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":{},"HostConfig":{"Binds":null,
        "ContainerIDFile":"","LogConfig":{"Type":"","Config":{}},"NetworkMode":"ch03","PortBindings":{},
        "RestartPolicy":{"Name":"no","MaximumRetryCount":0},"AutoRemove":false,"VolumeDriver":"","VolumesFrom":null,
        "ConsoleSize":[40,120],"CapAdd":null,"CapDrop":null,"CgroupnsMode":"","Dns":[],"DnsOptions":[],"DnsSearch":[],
        "ExtraHosts":null,"GroupAdd":null,"IpcMode":"","Cgroup":"","Links":null,"OomScoreAdj":0,"PidMode":"",
        "Privileged":false,"PublishAllPorts":false,"ReadonlyRootfs":false,"SecurityOpt":null,"UTSMode":"",
        "UsernsMode":"","ShmSize":0,"Isolation":"","CpuShares":0,"Memory":0,"NanoCpus":0,"CgroupParent":"",
        "BlkioWeight":0,"BlkioWeightDevice":[],"BlkioDeviceReadBps":[],"BlkioDeviceWriteBps":[],
        "BlkioDeviceReadIOps":[],"BlkioDeviceWriteIOps":[],"CpuPeriod":0,"CpuQuota":0,"CpuRealtimePeriod":0,
        "CpuRealtimeRuntime":0,"CpusetCpus":"","CpusetMems":"","Devices":[],"DeviceCgroupRules":null,
        "DeviceRequests":null,"MemoryReservation":0,"MemorySwap":0,"MemorySwappiness":-1,"OomKillDisable":false,
        "PidsLimit":0,"Ulimits":[],"CpuCount":0,"CpuPercent":0,"IOMaximumIOps":0,"IOMaximumBandwidth":0,
        "MaskedPaths":null,"ReadonlyPaths":null},"NetworkingConfig":{"EndpointsConfig":{"ch03":{"IPAMConfig":null,
        "Links":null,"Aliases":null,"MacAddress":"","DriverOpts":null,"GwPriority":0,"NetworkID":"","EndpointID":"",
        "Gateway":"","IPAddress":"","IPPrefixLen":0,"IPv6Gateway":"","GlobalIPv6Address":"",
        "GlobalIPv6PrefixLen":0,"DNSNames":null}}}}"#;

    #[test]
    fn the_stock_clients_request() {
        let (spec, warnings) = read_body(RUN).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(
            (spec.image.as_str(), spec.name.as_deref()),
            ("echo", Some("api"))
        );
        assert_eq!((spec.command, spec.entrypoint), (None, None));
        assert_eq!(spec.host.console_size, Some((40, 120)));
        assert_eq!(spec.host.resources.memory_swappiness, None);
        assert_eq!(spec.host.masked_paths, None);
        let NetworkMode::Networks(wishes) = spec.network else {
            panic!("{:?}", spec.network)
        };
        assert_eq!(wishes.len(), 1);
        assert_eq!(wishes[0].network, "ch03");
        assert_eq!(spec.opaque["NetworkMode"], "ch03");
    }

    #[test]
    fn keys_in_any_case_mean_the_same() {
        fn lower(value: serde_json::Value) -> serde_json::Value {
            match value {
                serde_json::Value::Object(map) => map
                    .into_iter()
                    .map(|(key, value)| (key.to_lowercase(), lower(value)))
                    .collect(),
                other => other,
            }
        }
        let body = lower(serde_json::from_str(RUN).unwrap()).to_string();
        assert!(body.contains("\"hostconfig\""));
        assert_eq!(read_body(&body).unwrap().0, read_body(RUN).unwrap().0);
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        for (host, status, words) in [
            (
                r#""PortBindings":{"80/tcp":[{"HostPort":"8080"}]}"#,
                501,
                "publishing ports",
            ),
            (r#""PublishAllPorts":true"#, 501, "publishing ports"),
            (r#""Links":["a:b"]"#, 501, "Links"),
            (r#""VolumesFrom":["a"]"#, 501, "VolumesFrom"),
            (r#""DeviceRequests":[{"Count":-1}]"#, 501, "--gpus"),
            (r#""CgroupParent":"x""#, 501, "CgroupParent"),
            (r#""CgroupnsMode":"host""#, 501, "CgroupnsMode"),
            (r#""KernelMemory":5"#, 501, "KernelMemory"),
            (r#""StorageOpt":{"size":"1G"}"#, 501, "StorageOpt"),
            (r#""CpuCount":1"#, 400, "Windows"),
            (r#""Isolation":"hyperv""#, 400, "Windows"),
            (
                r#""Isolation":"strong""#,
                400,
                "not one of default, process, hyperv",
            ),
            (r#""Runtime":"kata""#, 400, "crun, runc"),
            (r#""Memory":-5"#, 400, "Memory"),
            (r#""Dns":["server"]"#, 400, "not an IP address"),
            (r#""OomScoreAdj":5000"#, 400, "oom score"),
            (r#""LogConfig":{"Type":"syslog"}"#, 400, "syslog"),
            (
                r#""AutoRemove":true,"RestartPolicy":{"Name":"always"}"#,
                400,
                "AutoRemove",
            ),
            (
                r#""RestartPolicy":{"Name":"always","MaximumRetryCount":3}"#,
                400,
                "on-failure",
            ),
            (r#""PidMode":"container:nobody""#, 404, "PidMode"),
        ] {
            let body = format!(r#"{{"Image":"echo","HostConfig":{{{host}}}}}"#);
            let refusal = read_body(&body).unwrap_err();
            assert_eq!(refusal.kind.status(), status, "{host}: {}", refusal.message);
            assert!(
                refusal.message.contains(words),
                "{host}: {}",
                refusal.message
            );
        }
        for (body, words) in [
            (r#"{"Cmd":["a"]}"#, "no image"),
            (
                r#"{"Image":"a","MacAddress":"02:42:00:00:00:01"}"#,
                "MacAddress",
            ),
            (
                r#"{"Image":"a","Healthcheck":{"Test":["RUN"]}}"#,
                "CMD-SHELL",
            ),
            (
                r#"{"Image":"a","Healthcheck":{"Test":["CMD","x"],"Interval":5}}"#,
                "one millisecond",
            ),
        ] {
            assert!(
                read_body(body).unwrap_err().message.contains(words),
                "{body}"
            );
        }
    }

    #[test]
    fn what_is_there_is_taken() {
        let (spec, warnings) = read_body(
            r#"{"image":"echo","cmd":["sh","-c","ls"],"Entrypoint":[""],"StopTimeout":3,"Tty":true,
            "ExposedPorts":{"80/tcp":{}},"Healthcheck":{"Test":["CMD","true"],"Interval":2000000000,"Retries":2},
            "HostConfig":{"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":4},"PidMode":"container:other",
            "Ulimits":[{"Name":"nofile","Soft":5,"Hard":6}],"NanoCpus":1500000000,"Annotations":{"a":"b"},
            "MaskedPaths":[],"Devices":[{"PathOnHost":"/dev/null"}]}}"#,
        )
        .unwrap();
        assert_eq!(spec.host.restart, RestartPolicy::OnFailure(4));
        assert_eq!(spec.host.pid_mode, format!("container:{}", "0".repeat(64)));
        assert_eq!(spec.host.masked_paths, Some(Vec::new()));
        assert_eq!(spec.host.devices[0].permissions, "rwm");
        assert_eq!(spec.entrypoint.as_deref(), Some(&[String::new()][..]));
        assert_eq!(spec.health.unwrap().interval.as_secs(), 2);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("Annotations"));
    }
}
