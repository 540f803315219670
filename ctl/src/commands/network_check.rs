//! `network check`.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::{doctor, natural_key, text};
use crate::failure::Failure;
use crate::output::{table::align, units::significant};
use crate::session::Session;

/// How long figures are waited for that the hosts have not told yet.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(500);

/// Tell whether packets pass between the hosts of a network
///
/// The hosts ask each other all the time, with small packets and with those of the size that a container may
/// send; shown is how many of the last came back, and the median and the longest time.
#[derive(Args, Debug)]
#[command(
    after_help = "Status 1 unless all packets pass, as far as hosts are up and measured.\n\n\
                  Examples:\n  ovnctl network check ch03\n  ovnctl network check --format json ch03"
)]
pub struct CheckArgs {
    /// table, or json
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
    /// Name or id of an overlay network
    #[arg(value_name = "NETWORK")]
    network: String,
}

/// `network check`.
pub async fn check(session: &Session, args: CheckArgs) -> Result<(), Failure> {
    let client = session.client().await?;
    let begun = tokio::time::Instant::now();
    let answer = loop {
        let call = client.get("/overnet/paths").query("network", &args.network);
        let answer = call.value().await.map_err(told)?;
        let known = paths(&answer)
            .iter()
            .all(|path| text(path, "/State") != "unknown");
        if known || begun.elapsed() > PATIENCE {
            break answer;
        }
        tokio::time::sleep(LOOK).await;
    };
    let findings = answer["Findings"].as_array().cloned().unwrap_or_default();
    let bad = findings
        .iter()
        .any(|finding| text(finding, "/Level") != "ok");
    if args.format == "json" {
        session.print(&format!("{answer:#}\n"))?;
    } else {
        let rows = align(&rows(paths(&answer)));
        session.print(&format!("{rows}\n{}", doctor::table(findings)))?;
    }
    if bad {
        return Err(Failure::silent(1));
    }
    Ok(())
}

/// A daemon that has no such page has no word for it either.
fn told(error: crate::client::ClientError) -> Failure {
    let failure = Failure::from(error);
    if failure.is_not_found() && failure.text().contains("page not found") {
        return Failure::new("this daemon measures no paths: it is not ovnd, or an older one");
    }
    failure
}

fn paths(answer: &Value) -> &[Value] {
    answer["Paths"].as_array().map_or(&[], Vec::as_slice)
}

/// Cells divided by tabs, one line a direction.
fn rows(paths: &[Value]) -> String {
    let mut sorted: Vec<&Value> = paths.iter().collect();
    sorted.sort_by_cached_key(|path| {
        let key = |pointer| natural_key(text(path, pointer));
        (key("/From/Name"), key("/To/Name"))
    });
    let mut lines = String::from("FROM\tTO\tSMALL\tFULL SIZE\tRTT\tSTATE\n");
    for path in sorted {
        let measured = &path["Measured"];
        let number = |key: &str| measured[key].as_u64().unwrap_or_default();
        let back = |sent: u64, lost: u64| match sent {
            0 => "-".to_owned(),
            _ => format!("{} of {sent}", sent.saturating_sub(lost)),
        };
        let full = match number("FullSent") {
            0 => "-".to_owned(),
            sent => format!(
                "{} ({} B)",
                back(sent, number("FullLost")),
                number("FullSize")
            ),
        };
        let rtt = match (number("MedianRTT"), number("WorstRTT")) {
            (0, _) => "-".to_owned(),
            (median, worst) => format!("{}, at most {}", milliseconds(median), milliseconds(worst)),
        };
        let cells = [
            text(path, "/From/Name"),
            text(path, "/To/Name"),
            &back(number("SmallSent"), number("SmallLost")),
            &full,
            &rtt,
            text(path, "/State"),
        ];
        lines.push_str(&cells.join("\t"));
        lines.push('\n');
    }
    lines
}

fn milliseconds(nanos: u64) -> String {
    let value = nanos as f64 / 1e6;
    if value < 100.0 {
        format!("{} ms", significant(value, 3))
    } else {
        format!("{value:.0} ms")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_direction_is_a_line() {
        let path = |from: &str, to: &str, measured: Value, state: &str| {
            json!({"From": {"ID": "x", "Name": from}, "To": {"ID": "y", "Name": to},
                   "State": state, "Reason": "", "Measured": measured})
        };
        let measured = json!({"SmallSent": 25, "SmallLost": 1, "FullSent": 5, "FullLost": 0,
                              "FullSize": 1450, "MedianRTT": 312_345, "WorstRTT": 12_500_000});
        let answer = [
            path("worker10", "manager01", Value::Null, "unknown"),
            path("worker2", "manager01", measured, "fine"),
        ];
        assert_eq!(
            align(&rows(&answer)),
            "FROM       TO          SMALL      FULL SIZE         RTT                         STATE\n\
             worker2    manager01   24 of 25   5 of 5 (1450 B)   0.312 ms, at most 12.5 ms   fine\n\
             worker10   manager01   -          -                 -                           unknown\n"
        );
    }
}
