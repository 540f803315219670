//! `stats`.

use clap::Args;
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::text;
use crate::failure::Failure;
use crate::output::Listing;
use crate::output::table::{ellipsis, short_id};
use crate::output::units::{binary_size, significant, size};
use crate::session::Session;

/// Show what containers use, live
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl stats --no-stream --format '{{.Name}} {{.CPUPerc}}'")]
pub struct StatsArgs {
    /// Show those that do not run too
    #[arg(short, long)]
    all: bool,
    /// table, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Print once and end
    #[arg(long)]
    no_stream: bool,
    /// Show ids whole
    #[arg(long)]
    no_trunc: bool,
    /// Names or ids (default: all that run)
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// The columns of `stats`.
pub const STATS: Listing = Listing {
    columns: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
    headings: &[
        ("ID", "CONTAINER ID"),
        ("Container", "CONTAINER"),
        ("Name", "NAME"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
    ],
    quiet: "{{.ID}}",
};

/// `stats`: the daemon is asked for each round; it measures over a second.
pub async fn stats(session: &Session, args: StatsArgs) -> Result<(), Failure> {
    let client = session.client().await?;
    loop {
        let names = if args.containers.is_empty() {
            let list = client
                .get("/containers/json")
                .flag("all", args.all)
                .value()
                .await?;
            list.as_array()
                .into_iter()
                .flatten()
                .map(|c| text(c, "/Id").to_owned())
                .collect()
        } else {
            args.containers.clone()
        };
        let asked = names.iter().map(|name| async move {
            let answer = client
                .get(format!("/containers/{name}/stats"))
                .query("stream", "false")
                .value()
                .await;
            (name, answer.map_err(Failure::from))
        });
        let mut rows = Vec::new();
        for (name, answer) in join_all(asked).await {
            match answer {
                Ok(sample) => rows.push(row(name, &sample, args.no_trunc)),
                // One that was not named may have ended between the list and the question.
                Err(failure) if args.containers.is_empty() && failure.is_not_found() => {}
                Err(failure) => return Err(failure),
            }
        }
        let table = STATS.render(&rows, args.format.as_deref(), false)?;
        if args.no_stream {
            return session.print(&table);
        }
        let clear = if session.io.output_is_terminal {
            "\x1b[H\x1b[J"
        } else {
            ""
        };
        session.print(&format!("{clear}{table}"))?;
        if names.is_empty() {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    }
}

fn row(name: &str, sample: &Value, whole: bool) -> Value {
    let number = |pointer: &str| {
        sample
            .pointer(pointer)
            .and_then(Value::as_f64)
            .unwrap_or(0.0)
    };
    let cpu =
        number("/cpu_stats/cpu_usage/total_usage") - number("/precpu_stats/cpu_usage/total_usage");
    let system = number("/cpu_stats/system_cpu_usage") - number("/precpu_stats/system_cpu_usage");
    let cpus = number("/cpu_stats/online_cpus").max(1.0);
    let percent = if cpu > 0.0 && system > 0.0 {
        cpu / system * cpus * 100.0
    } else {
        0.0
    };
    // Page cache that can be given back is not counted (v2 and v1 name it differently).
    let cache = [
        "/memory_stats/stats/inactive_file",
        "/memory_stats/stats/total_inactive_file",
    ]
    .iter()
    .map(|pointer| number(pointer))
    .fold(0.0, f64::max);
    let used = number("/memory_stats/usage");
    let used = if cache < used { used - cache } else { used };
    let limit = number("/memory_stats/limit");
    let sum = |field: &str| -> f64 {
        let networks = sample["networks"].as_object();
        networks
            .into_iter()
            .flatten()
            .map(|(_, n)| n[field].as_f64().unwrap_or(0.0))
            .sum()
    };
    let blocks = |op: &str| -> f64 {
        let list = sample
            .pointer("/blkio_stats/io_service_bytes_recursive")
            .and_then(Value::as_array);
        let fits = list
            .into_iter()
            .flatten()
            .filter(|e| text(e, "/op").eq_ignore_ascii_case(op));
        fits.map(|e| e["value"].as_f64().unwrap_or(0.0)).sum()
    };
    let id = text(sample, "/id");
    let id = if id.is_empty() { name } else { id };
    let shown = text(sample, "/name").trim_start_matches('/');
    json!({
        "ID": if whole { id } else { short_id(id) },
        "Container": if whole { name.to_owned() } else { ellipsis(name, 64) },
        "Name": if shown.is_empty() { "--" } else { shown },
        "CPUPerc": format!("{percent:.2}%"),
        "MemUsage": format!("{} / {}", binary_size(used), binary_size(limit)),
        "MemPerc": format!("{:.2}%", if limit > 0.0 { used / limit * 100.0 } else { 0.0 }),
        "NetIO": format!("{} / {}", size(sum("rx_bytes")), size(sum("tx_bytes"))),
        "BlockIO": format!("{} / {}", size(blocks("read")), size(blocks("write"))),
        "PIDs": significant(number("/pids_stats/current"), 12),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        let sample = json!({"id": "4c01db0b339c4c01", "name": "/api",
            "cpu_stats": {"cpu_usage": {"total_usage": 300}, "system_cpu_usage": 2000, "online_cpus": 2},
            "precpu_stats": {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1000},
            "memory_stats": {"usage": 3_000_000, "limit": 10_000_000, "stats": {"inactive_file": 1_000_000}},
            "networks": {"eth0": {"rx_bytes": 1500, "tx_bytes": 10}, "eth1": {"rx_bytes": 500, "tx_bytes": 0}},
            "pids_stats": {"current": 4}});
        insta::assert_snapshot!(STATS.render(&[row("api", &sample, false)], None, false).unwrap(), @r"
        CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT     MEM %     NET I/O     BLOCK I/O   PIDS
        4c01db0b339c   api       40.00%    1.907MiB / 9.537MiB   20.00%    2kB / 10B   0B / 0B     4
        ");
    }
}
