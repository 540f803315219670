//! `POST /containers/{id}/update`.

use api::docker::{ContainerUpdateBody, ContainerUpdateResponse};
use axum::{
    Router,
    extract::{Path, State},
    routing::post,
};
use model::Refusal;
use runtime::engine::{Resources, Update};

use super::create::{filled, limit, refuse_if, restart, text};
use crate::http::{Answer, AppState, Given, json};

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
    Ok(json(&ContainerUpdateResponse {
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

#[cfg(test)]
mod tests {
    use runtime::engine::RestartPolicy;

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
