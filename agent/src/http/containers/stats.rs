//! `/containers/{id}/stats`: readings of a container's use of the host.

use std::{convert::Infallible, time::Duration};

use api::timestamp;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderValue, header},
    response::Response,
    routing::get,
};
use runtime::engine::Stats;
use serde_json::{Map, Value, json};

use super::super::{Answer, AppState, Asked};

/// How often a stream gives a reading, as in Docker.
const PERIOD: Duration = Duration::from_secs(1);

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/containers/{id}/stats", get(stats))
}

async fn stats(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Asked(query): Asked,
) -> Answer {
    let view = state.engine.inspect(&id)?;
    let (id, name) = (view.id.to_string(), view.name);
    let stream = query.flag_or("stream", true);
    let one_shot = query.flag("one-shot");
    let mut before = Stats::default();
    let mut now = state.engine.stats(&id).await?;
    if !stream && !one_shot {
        // A single answer has two readings in it, so that a client can tell a rate.
        before = now;
        tokio::time::sleep(PERIOD).await;
        now = state.engine.stats(&id).await?;
    }
    let body = async_stream::stream! {
        loop {
            let line = format!("{}\n", shown(&id, &name, &before, &now));
            yield Ok::<_, Infallible>(Bytes::from(line));
            if !stream {
                return;
            }
            tokio::select! {
                () = state.shutdown.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
            before = now;
            now = match state.engine.stats(&id).await {
                Ok(reading) => reading,
                // Removed meanwhile.
                Err(_) => return,
            };
        }
    };
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    Ok(response)
}

fn shown(id: &str, name: &str, before: &Stats, now: &Stats) -> Value {
    let networks: Map<String, Value> = now
        .networks
        .iter()
        .map(|(interface, counts)| {
            let counts = json!({
                "rx_bytes": counts.rx_bytes, "rx_packets": counts.rx_packets,
                "rx_errors": counts.rx_errors, "rx_dropped": counts.rx_dropped,
                "tx_bytes": counts.tx_bytes, "tx_packets": counts.tx_packets,
                "tx_errors": counts.tx_errors, "tx_dropped": counts.tx_dropped,
            });
            (interface.clone(), counts)
        })
        .collect();
    let mut memory =
        json!({ "usage": now.memory_usage, "stats": now.memory_stats, "limit": now.memory_limit });
    if now.memory_max_usage > 0 {
        memory["max_usage"] = now.memory_max_usage.into();
    }
    json!({
        "id": id,
        "name": format!("/{name}"),
        "read": timestamp::rfc3339(now.read_at),
        "preread": timestamp::rfc3339(before.read_at),
        "num_procs": 0,
        "pids_stats": { "current": now.pids, "limit": now.pids_limit },
        "blkio_stats": {
            "io_service_bytes_recursive": [
                { "major": 0, "minor": 0, "op": "read", "value": now.blkio_read },
                { "major": 0, "minor": 0, "op": "write", "value": now.blkio_write },
            ],
            "io_serviced_recursive": [], "io_queue_recursive": [],
            "io_service_time_recursive": [], "io_wait_time_recursive": [],
            "io_merged_recursive": [], "io_time_recursive": [], "sectors_recursive": [],
        },
        "storage_stats": {},
        "cpu_stats": cpu(now),
        "precpu_stats": cpu(before),
        "memory_stats": memory,
        "networks": networks,
    })
}

fn cpu(reading: &Stats) -> Value {
    json!({
        "cpu_usage": {
            "total_usage": reading.cpu_total,
            "usage_in_kernelmode": reading.cpu_system,
            "usage_in_usermode": reading.cpu_user,
        },
        "system_cpu_usage": reading.host_cpu,
        "online_cpus": reading.online_cpus,
        "throttling_data": {
            "periods": reading.periods,
            "throttled_periods": reading.throttled_periods,
            "throttled_time": reading.throttled_time,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_has_what_clients_compute_with() {
        let now = Stats {
            cpu_total: 20,
            host_cpu: 200,
            online_cpus: 2,
            ..Stats::default()
        };
        let before = Stats {
            cpu_total: 10,
            host_cpu: 100,
            ..Stats::default()
        };
        let value = shown("id", "api", &before, &now);
        assert_eq!(
            value.pointer("/cpu_stats/cpu_usage/total_usage").unwrap(),
            20
        );
        assert_eq!(
            value.pointer("/precpu_stats/system_cpu_usage").unwrap(),
            100
        );
        assert_eq!(value["name"], "/api");
    }
}
