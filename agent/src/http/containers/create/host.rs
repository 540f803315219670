//! `HostConfig`: what a container gets of its host.

use std::collections::{BTreeMap, HashMap};

use api::docker::{
    EndpointSettings, HostConfig, HostConfigCgroupnsModeEnum, HostConfigIsolationEnum,
    HostConfigLogConfig, RestartPolicy as GivenPolicy, RestartPolicyNameEnum,
};
use model::Refusal;
use runtime::engine::{DeviceSpec, HostSpec, LogSpec, Resources, RestartPolicy, Ulimit};

use super::{Lookup, filled, ports, refuse_if, text};
use crate::http::containers::{mounts, network};

pub(super) struct ReadHost {
    pub host: HostSpec,
    pub network: runtime::network::NetworkMode,
    pub dns: Vec<std::net::IpAddr>,
    pub dns_search: Vec<String>,
    pub dns_options: Vec<String>,
    pub extra_hosts: Vec<String>,
}

pub(super) fn host(
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
    let mut published = ports::read(port_bindings.unwrap_or_default())?;
    let mut publish_all = publish_all_ports.unwrap_or(false);
    if !matches!(network, runtime::network::NetworkMode::Networks(_)) {
        if !published.is_empty() || publish_all {
            warnings.push("Published ports are discarded when using host, none or another container's network".to_owned());
        }
        (published, publish_all) = (Vec::new(), false);
    }
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
            console_size: crate::http::containers::console_size(
                console_size
                    .map(|size| {
                        size.iter()
                            .map(|n| u16::try_from(*n).unwrap_or(u16::MAX))
                            .collect::<Vec<_>>()
                    })
                    .as_deref(),
            ),
            ports: published,
            publish_all,
        },
    })
}

pub(in crate::http::containers) fn limit(field: &str, given: Option<i64>) -> Result<i64, Refusal> {
    match given.unwrap_or(0) {
        negative @ ..0 => Err(Refusal::invalid(format!(
            "HostConfig.{field}: {negative} is negative; 0 means no limit"
        ))),
        value => Ok(value),
    }
}

pub(in crate::http::containers) fn restart(policy: GivenPolicy) -> Result<RestartPolicy, Refusal> {
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
