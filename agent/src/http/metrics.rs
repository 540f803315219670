//! `/metrics` (Prometheus' text format, version 0.0.4) and `/health` (for probes). Both are on the API's
//! sockets, and on the address of the setting `metrics`, where nothing else is served.

use std::{collections::BTreeMap, fmt::Write as _, time::UNIX_EPOCH};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use model::{
    control::{Answer as Reply, Verb},
    node::Role,
};
use runtime::engine::{ListOptions, Status};
use serde_json::json;
use tokio::net::TcpListener;

use super::{AppState, json_with};
use crate::{cluster::Standing, paths::Total};

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(health))
}

/// Serves the two pages, and nothing that could change anything, until the daemon ends.
pub async fn serve_metrics(listener: TcpListener, state: AppState) -> std::io::Result<()> {
    let shutdown = state.shutdown.clone();
    axum::serve(listener, routes().with_state(state))
        .with_graceful_shutdown(async move { shutdown.cancelled().await })
        .await
}

/// What is counted, with its help text, kind and values by label.
struct Family {
    name: &'static str,
    help: &'static str,
    kind: &'static str,
    values: Vec<(String, f64)>,
}

fn gauge(name: &'static str, help: &'static str, value: f64) -> Family {
    Family {
        name,
        help,
        kind: "gauge",
        values: vec![(String::new(), value)],
    }
}

fn counter(name: &'static str, help: &'static str, value: f64) -> Family {
    Family {
        kind: "counter",
        ..gauge(name, help, value)
    }
}

async fn metrics(State(state): State<AppState>) -> Response {
    let mut families = vec![Family {
        name: "overnet_build_info",
        help: "Always 1; the label has the version.",
        kind: "gauge",
        values: vec![(format!("version=\"{}\"", env!("CARGO_PKG_VERSION")), 1.0)],
    }];
    families.extend(containers(&state));
    families.push(gauge(
        "overnet_images",
        "Images on this host.",
        state.images.list().len() as f64,
    ));
    families.extend(membership(&state));
    families.extend(nodes(&state).await);
    families.extend(networks(&state));
    families.extend(paths(&state).await);
    families.extend(process());
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        render(&families),
    )
        .into_response()
}

fn containers(state: &AppState) -> Option<Family> {
    let options = ListOptions {
        all: true,
        ..ListOptions::default()
    };
    let containers = state.engine.list(&options).ok()?;
    let all = [
        Status::Created,
        Status::Running,
        Status::Paused,
        Status::Restarting,
        Status::Removing,
        Status::Exited,
        Status::Dead,
    ];
    let count = |wanted: Status| {
        containers
            .iter()
            .filter(|c| c.state.status == wanted)
            .count()
    };
    Some(Family {
        name: "overnet_containers",
        help: "Containers of this host by state.",
        kind: "gauge",
        values: all
            .into_iter()
            .map(|wanted| {
                (
                    format!("state=\"{}\"", wanted.as_str()),
                    count(wanted) as f64,
                )
            })
            .collect(),
    })
}

fn membership(state: &AppState) -> Vec<Family> {
    let local = state.local();
    let manager = local.role == Some(Role::Manager);
    let mut families = vec![
        gauge(
            "overnet_session_up",
            "1 while this node has a session with its cluster's leader; 0 outside of any cluster too.",
            f64::from(u8::from(local.state == Standing::Active)),
        ),
        gauge(
            "overnet_manager",
            "1 on managers.",
            f64::from(u8::from(manager)),
        ),
    ];
    let expiry = state
        .cluster
        .certificate_life()
        .and_then(|(_, to)| to.duration_since(UNIX_EPOCH).ok());
    families.extend(expiry.map(|at| {
        gauge(
            "overnet_certificate_expiry_timestamp_seconds",
            "When this node's certificate ends, as seconds since 1970.",
            at.as_secs() as f64,
        )
    }));
    families
}

/// Only managers know the nodes.
async fn nodes(state: &AppState) -> Option<Family> {
    if !state.local().control_available() {
        return None;
    }
    let Ok(Reply::Nodes(nodes)) = state.call(Verb::NodeList).await else {
        return None;
    };
    use model::node::NodeState::{Disconnected, Down, Ready, Unknown};
    let count = |wanted| {
        nodes
            .iter()
            .filter(|node| node.status.state == wanted)
            .count()
    };
    Some(Family {
        name: "overnet_nodes",
        help: "Nodes of the cluster by state; on managers.",
        kind: "gauge",
        values: [
            (Ready, "ready"),
            (Down, "down"),
            (Disconnected, "disconnected"),
            (Unknown, "unknown"),
        ]
        .into_iter()
        .map(|(wanted, word)| (format!("state=\"{word}\""), count(wanted) as f64))
        .collect(),
    })
}

fn networks(state: &AppState) -> [Family; 3] {
    let status = state.networks.status();
    [
        counter(
            "overnet_dataplane_changes_total",
            "Changes of networks that were carried out since the start.",
            status.requests as f64,
        ),
        counter(
            "overnet_dataplane_drifts_total",
            "Differences that somebody else made in the kernel and that were put right.",
            status.drifts as f64,
        ),
        gauge(
            "overnet_dataplane_failures",
            "Steps that the kernel refuses at present.",
            status.failed.len() as f64,
        ),
    ]
}

/// To each host that this one shares a network with.
async fn paths(state: &AppState) -> Vec<Family> {
    let ends = state.networks.tunnel_ends().await;
    let names: BTreeMap<_, _> = ends
        .values()
        .map(|end| (&end.node, &end.hostname))
        .collect();
    let paths = state.networks.paths();
    let known: Vec<_> = paths
        .iter()
        .filter_map(|(node, path)| Some((*names.get(node)?, path)))
        .collect();
    let of_size = |value: fn(Total) -> u64| {
        let lines = known.iter().flat_map(|(peer, path)| {
            [("small", path.small), ("full", path.full)].map(|(size, total)| {
                let labels = format!("peer=\"{peer}\",size=\"{size}\"");
                (labels, value(total) as f64)
            })
        });
        lines.collect::<Vec<_>>()
    };
    let seconds = known.iter().filter_map(|(peer, path)| {
        let median = path.sight.median?;
        Some((format!("peer=\"{peer}\""), median.as_secs_f64()))
    });
    let family = |name, help, kind, values| Family {
        name,
        help,
        kind,
        values,
    };
    vec![
        family(
            "overnet_path_probes_total",
            "Probes through the tunnels to another host and back, of small and of full size.",
            "counter",
            of_size(|total| total.sent),
        ),
        family(
            "overnet_path_lost_total",
            "Those of them that did not come back.",
            "counter",
            of_size(|total| total.lost),
        ),
        family(
            "overnet_path_rtt_seconds",
            "Median of the last small ones, there and back.",
            "gauge",
            seconds.collect(),
        ),
    ]
}

/// The names that all exporters have for the process.
fn process() -> Vec<Family> {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> = stat
        .rsplit_once(") ")
        .map(|(_, rest)| {
            rest.split(' ')
                .map(|field| field.parse().unwrap_or(0.0))
                .collect()
        })
        .unwrap_or_default();
    let field = |number: usize| fields.get(number).copied().unwrap_or(0.0);
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .unwrap_or(4096);
    vec![
        counter(
            "process_cpu_seconds_total",
            "Processor time of ovnd, user and system.",
            (field(11) + field(12)) / 100.0,
        ),
        gauge(
            "process_resident_memory_bytes",
            "Memory of ovnd.",
            field(21) * page as f64,
        ),
        gauge(
            "process_open_fds",
            "Open files of ovnd.",
            std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as f64,
        ),
    ]
}

fn render(families: &[Family]) -> String {
    let mut text = String::new();
    for Family {
        name,
        help,
        kind,
        values,
    } in families
    {
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in values {
            let _ = if labels.is_empty() {
                writeln!(text, "{name} {value}")
            } else {
                writeln!(text, "{name}{{{labels}}} {value}")
            };
        }
    }
    text
}

/// 200 when this host does what it was told, else 503 with the reasons.
async fn health(State(state): State<AppState>) -> Response {
    let local = state.local();
    let mut problems = Vec::new();
    if !matches!(local.state, Standing::Active | Standing::Inactive) {
        problems.push(format!(
            "the node is {}: {}",
            local.state.word(),
            local.error
        ));
    }
    let failed = state.networks.status().failed.len();
    if failed > 0 {
        problems.push(format!(
            "{failed} steps of networks fail; ovnd dataplane plan shows them"
        ));
    }
    let (status, word) = if problems.is_empty() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "degraded")
    };
    json_with(status, &json!({"Status": word, "Problems": problems}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_as_prometheus_reads_them() {
        let families = [
            counter("a_total", "How many.", 3.0),
            Family {
                values: vec![
                    ("state=\"up\"".to_owned(), 1.5),
                    ("state=\"down\"".to_owned(), 0.0),
                ],
                ..gauge("b_seconds", "How long.", 0.0)
            },
        ];
        assert_eq!(
            render(&families),
            "# HELP a_total How many.\n# TYPE a_total counter\na_total 3\n\
             # HELP b_seconds How long.\n# TYPE b_seconds gauge\n\
             b_seconds{state=\"up\"} 1.5\nb_seconds{state=\"down\"} 0\n"
        );
    }

    #[test]
    fn this_process_has_used_memory() {
        let families = process();
        let memory = families
            .iter()
            .find(|f| f.name == "process_resident_memory_bytes")
            .unwrap();
        assert!(memory.values[0].1 > 1e6);
    }
}
