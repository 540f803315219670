//! `events`.

use clap::Args;
use serde_json::Value;

use super::text;
use crate::failure::Failure;
use crate::flags::Filters;
use crate::output::listing::render_one;
use crate::output::when::{moment, rfc3339_nanos};
use crate::session::Session;

/// Show what happens, as it happens
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ovnctl events --filter type=network\n  ovnctl events --filter type=task --filter service=echo\n  ovnctl events --since 10m --until 0s --format json"
)]
pub struct EventsArgs {
    /// Show only what fits: type=…, event=…, container=…, service=…, node=…
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// From here
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Up to here, then end
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

/// `events`.
pub async fn events(session: &Session, args: EventsArgs) -> Result<(), Failure> {
    let filters = Filters::parse(&args.filter)?;
    let zone = session.surroundings.zone;
    let time = |text: &Option<String>| {
        text.as_ref()
            .map(|t| moment(t, session.now_nanos(), zone))
            .transpose()
    };
    let call = session.client().await?.get("/events").filters(&filters);
    let mut stream = call
        .maybe("since", time(&args.since)?)
        .maybe("until", time(&args.until)?)
        .values()
        .await?;
    let mut missed = false;
    while let Some(event) = stream.next().await? {
        missed = event["Type"] == "daemon" && event["Action"] == "missed";
        match args.format.as_deref().filter(|f| !f.is_empty()) {
            Some(format) => session.print(&render_one(&event, format)?)?,
            None => session.line(&line(&event, zone))?,
        }
    }
    if missed {
        return Err(Failure::new(
            "events came faster than they were read here, and ovnd has let go; ask again with --since",
        ));
    }
    Ok(())
}

fn line(event: &Value, zone: time::UtcOffset) -> String {
    let nanos = event["timeNano"]
        .as_i64()
        .filter(|n| *n != 0)
        .map(i128::from);
    let nanos =
        nanos.unwrap_or_else(|| i128::from(event["time"].as_i64().unwrap_or(0)) * 1_000_000_000);
    let mut pairs: Vec<String> = event
        .pointer("/Actor/Attributes")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    pairs.sort();
    let details = if pairs.is_empty() {
        String::new()
    } else {
        format!(" ({})", pairs.join(", "))
    };
    format!(
        "{} {} {} {}{details}",
        rfc3339_nanos(nanos, zone),
        text(event, "/Type"),
        text(event, "/Action"),
        text(event, "/Actor/ID")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line() {
        let event = json!({"Type": "network", "Action": "connect", "timeNano": 1_700_000_000_000_000_001_i64,
            "Actor": {"ID": "n1", "Attributes": {"type": "overlay", "name": "ch03"}}});
        assert_eq!(
            line(&event, time::UtcOffset::UTC),
            "2023-11-14T22:13:20.000000001Z network connect n1 (name=ch03, type=overlay)"
        );
    }
}
