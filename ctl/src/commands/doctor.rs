//! `doctor`.

use std::fmt::Write as _;

use clap::Args;
use serde_json::Value;

use super::text;
use crate::failure::Failure;
use crate::session::Session;

/// Look for what is wrong with this host and its cluster
#[derive(Args, Debug)]
#[command(after_help = "Status 1 when there is an error among the findings.\n\
                  When the daemon does not run, on its host: ovnd doctor\n\n\
                  Examples:\n  ovnctl doctor\n  ovnctl doctor --quiet")]
pub struct DoctorArgs {
    /// table, or json
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
    /// Only what is not well
    #[arg(short, long)]
    quiet: bool,
}

/// `doctor`.
pub async fn doctor(session: &Session, args: DoctorArgs) -> Result<(), Failure> {
    let client = session.client().await?;
    let answer = client
        .get("/overnet/doctor")
        .value()
        .await
        .map_err(|error| {
            let failure = Failure::from(error);
            if failure.is_not_found() {
                Failure::new("this daemon has no doctor: it is not ovnd, or an older one")
            } else {
                failure
            }
        })?;
    let mut findings: Vec<Value> = answer.as_array().cloned().unwrap_or_default();
    let worst = findings.iter().any(|f| text(f, "/Level") == "error");
    if args.quiet {
        findings.retain(|f| text(f, "/Level") != "ok");
    }
    if args.format == "json" {
        session.print(&format!("{:#}\n", Value::Array(findings)))?;
    } else {
        session.print(&table(findings))?;
    }
    if worst {
        return Err(Failure::silent(1));
    }
    Ok(())
}

/// The findings of an answer.
pub(super) fn findings(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// What is wrong comes last, where a terminal shows it.
pub(super) fn table(mut findings: Vec<Value>) -> String {
    let rank = |finding: &Value| match text(finding, "/Level") {
        "ok" => 0,
        "warning" => 1,
        _ => 2,
    };
    findings.sort_by_key(rank);
    let mut out = String::new();
    let mut counts = [0; 3];
    for finding in &findings {
        counts[rank(finding)] += 1;
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "{:<8} {}: {}",
            text(finding, "/Level"),
            text(finding, "/Check"),
            text(finding, "/Found")
        );
        for (title, value) in [("means:", "/Means"), ("mend:", "/Mend")] {
            if !text(finding, value).is_empty() {
                let _ = writeln!(out, "           {title:<6} {}", text(finding, value));
            }
        }
    }
    let [fine, warnings, errors] = counts;
    let many = |count: usize, word: &str| match count {
        1 => format!("1 {word}"),
        _ => format!("{count} {word}s"),
    };
    let (warnings, errors) = (many(warnings, "warning"), many(errors, "error"));
    let _ = writeln!(out, "{fine} ok, {warnings}, {errors}");
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_come_last_with_the_way_out() {
        let findings = vec![
            json!({"Check": "disk", "Level": "error", "Found": "full", "Means": "Nothing fits.", "Mend": "rm"}),
            json!({"Check": "kernel", "Level": "ok", "Found": "6.1"}),
        ];
        assert_eq!(
            table(findings),
            "ok       kernel: 6.1\nerror    disk: full\n           means: Nothing fits.\n           \
             mend:  rm\n1 ok, 0 warnings, 1 error\n"
        );
    }
}
