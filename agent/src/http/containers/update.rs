//! `POST /containers/{id}/update`.

use api::docker::{ContainerUpdateBody, ContainerUpdateResponse};
use axum::{
    Router,
    extract::{Path, State},
    routing::post,
};
use model::Refusal;
use runtime::engine::{HostSpec, Resources, RestartPolicy, Update};
use serde_json::{Value, json};

use super::create::{filled, limit, refuse_if, restart, text};
use crate::http::{Answer, AppState, Given, json as answer};

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/containers/{id}/update", post(update))
}

async fn update(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Given(body): Given<ContainerUpdateBody>,
) -> Answer {
    let update = read(body)?;
    state.engine.update(&id, update).await?;
    Ok(answer(&ContainerUpdateResponse {
        warnings: Some(Vec::new()),
    }))
}

/// 0, an empty list and `null` are "as it is", since clients send all fields.
fn read(body: ContainerUpdateBody) -> Result<Update, Refusal> {
    let ContainerUpdateBody {
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
        memory_reservation,
        memory_swap,
        nano_cpus,
        pids_limit,
        restart_policy,
        // What a container has from its start on and for good; Docker passes over it, too.
        devices: _,
        device_cgroup_rules: _,
        device_requests: _,
        memory_swappiness: _,
        oom_kill_disable: _,
        init: _,
        ulimits: _,
        cpu_count: _,
        cpu_percent: _,
        io_maximum_iops: _,
        io_maximum_bandwidth: _,
    } = body;
    for (given, option) in [
        (!text(cgroup_parent).is_empty(), "CgroupParent"),
        (filled(blkio_weight_device.as_ref()), "BlkioWeightDevice"),
        (filled(blkio_device_read_bps.as_ref()), "BlkioDeviceReadBps"),
        (
            filled(blkio_device_write_bps.as_ref()),
            "BlkioDeviceWriteBps",
        ),
        (
            filled(blkio_device_read_iops.as_ref()),
            "BlkioDeviceReadIOps",
        ),
        (
            filled(blkio_device_write_iops.as_ref()),
            "BlkioDeviceWriteIOps",
        ),
        (
            cpu_realtime_period.unwrap_or(0) != 0,
            "CpuRealtimePeriod (--cpu-rt-period)",
        ),
        (
            cpu_realtime_runtime.unwrap_or(0) != 0,
            "CpuRealtimeRuntime (--cpu-rt-runtime)",
        ),
    ] {
        refuse_if(given, option)?;
    }
    let named = restart_policy.filter(|policy| {
        let name = policy.name.as_ref().map(ToString::to_string);
        name.is_some_and(|name| !name.is_empty()) || policy.maximum_retry_count.unwrap_or(0) != 0
    });
    Ok(Update {
        resources: Resources {
            memory: limit("Memory", memory)?,
            memory_reservation: limit("MemoryReservation", memory_reservation)?,
            memory_swap: memory_swap.unwrap_or(0),
            nano_cpus: limit("NanoCpus", nano_cpus)?,
            cpu_shares: limit("CpuShares", cpu_shares)?,
            cpu_period: limit("CpuPeriod", cpu_period)?,
            cpu_quota: cpu_quota.unwrap_or(0),
            cpuset_cpus: text(cpuset_cpus),
            cpuset_mems: text(cpuset_mems),
            blkio_weight: blkio_weight.unwrap_or(0),
            ..Resources::default()
        },
        // 0 is what clients send for "not given".
        pids_limit: pids_limit.filter(|limit| *limit != 0),
        restart: named.map(restart).transpose()?,
    })
}

/// Writes what holds now over a `HostConfig` as it was given once, where that says otherwise.
pub(super) fn show(given: &mut Value, host: &HostSpec) {
    let limits = &host.resources;
    for (name, now) in [
        ("Memory", limits.memory),
        ("MemoryReservation", limits.memory_reservation),
        ("MemorySwap", limits.memory_swap),
        ("NanoCpus", limits.nano_cpus),
        ("CpuShares", limits.cpu_shares),
        ("CpuPeriod", limits.cpu_period),
        ("CpuQuota", limits.cpu_quota),
        ("PidsLimit", limits.pids_limit),
        ("BlkioWeight", i64::from(limits.blkio_weight)),
    ] {
        let shown = given[name].as_i64().unwrap_or(0);
        // Docker has two words for no limit of processes.
        let same = shown == now || (name == "PidsLimit" && shown <= 0 && now <= 0);
        if !same {
            given[name] = now.into();
        }
    }
    for (name, now) in [
        ("CpusetCpus", &limits.cpuset_cpus),
        ("CpusetMems", &limits.cpuset_mems),
    ] {
        if given[name].as_str().unwrap_or_default() != now {
            given[name] = now.as_str().into();
        }
    }
    let (name, tries) = match host.restart {
        RestartPolicy::No => ("no", 0),
        RestartPolicy::Always => ("always", 0),
        RestartPolicy::UnlessStopped => ("unless-stopped", 0),
        RestartPolicy::OnFailure(tries) => ("on-failure", tries),
    };
    let shown = &mut given["RestartPolicy"];
    let word = shown["Name"].as_str().unwrap_or_default();
    let word = if word.is_empty() { "no" } else { word };
    if (word, shown["MaximumRetryCount"].as_u64().unwrap_or(0)) != (name, u64::from(tries)) {
        *shown = json!({"Name": name, "MaximumRetryCount": tries});
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    fn of(body: &str) -> Result<Update, Refusal> {
        read(api::read(body.as_bytes())?)
    }

    #[test]
    fn a_clients_whole_body_changes_what_it_names() {
        let body = r#"{"CpuShares":512,"Memory":0,"NanoCpus":0,"CgroupParent":"","BlkioWeight":0,"BlkioWeightDevice":[],
            "CpusetCpus":"","Devices":null,"KernelMemory":0,"MemorySwappiness":null,"OomKillDisable":null,"PidsLimit":null,
            "Ulimits":null,"CpuCount":0,"RestartPolicy":{"Name":"","MaximumRetryCount":0}}"#;
        let wanted = Update {
            resources: Resources {
                cpu_shares: 512,
                ..Resources::default()
            },
            ..Update::default()
        };
        assert_eq!(of(body).unwrap(), wanted);
        let body =
            r#"{"PidsLimit":-1,"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":3}}"#;
        let read = of(body).unwrap();
        assert_eq!(read.pids_limit, Some(-1));
        assert_eq!(read.restart, Some(RestartPolicy::OnFailure(3)));
    }

    #[test]
    fn what_holds_now_is_shown() {
        let mut host = HostSpec::default();
        let given = json!({"Memory": 0, "PidsLimit": -1, "CpusetCpus": "", "RestartPolicy": {"Name": "", "MaximumRetryCount": 0},
            "CpuShares": null});
        let mut shown = given.clone();
        show(&mut shown, &host);
        assert_eq!(shown, given, "nothing was changed");
        host.resources.memory = 64 << 20;
        host.resources.cpuset_cpus = "0".into();
        host.restart = RestartPolicy::OnFailure(3);
        show(&mut shown, &host);
        assert_eq!(shown["Memory"], 64 << 20);
        assert_eq!(shown["CpusetCpus"], "0");
        let policy = json!({"Name": "on-failure", "MaximumRetryCount": 3});
        assert_eq!(shown["RestartPolicy"], policy);
    }

    #[test]
    fn mistakes_are_named() {
        for (body, status, words) in [
            (r#"{"Memory":-5}"#, 400, "Memory"),
            (r#"{"CpuRealtimePeriod":5}"#, 501, "--cpu-rt-period"),
            (
                r#"{"RestartPolicy":{"Name":"always","MaximumRetryCount":3}}"#,
                400,
                "maximum retry count",
            ),
        ] {
            let refusal = of(body).unwrap_err();
            assert_eq!(refusal.kind.status(), status, "{body}");
            assert!(refusal.message.contains(words), "{}", refusal.message);
        }
    }
}
