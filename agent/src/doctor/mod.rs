//! What is wrong with this host and its cluster, what it means, and the command that mends it.
//!
//! [`look`] reads; [`host`], [`cluster`], [`paths`] and [`ports`] judge what was read and are pure. The daemon answers
//! for both (`GET /overnet/doctor`); `ovnd doctor` looks at the host itself where no daemon does.

pub mod cluster;
pub mod host;
pub mod look;
pub mod paths;
pub mod ports;

use std::{fmt::Write as _, process::ExitCode};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::{config::Settings, wish};

/// Where the daemon answers.
pub const QUESTION: &str = "/overnet/doctor";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// Works, and will not for long or not for all.
    Warning,
    /// Something does not work.
    Error,
}

/// The outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Finding {
    /// `kernel`, `disk`, `node worker01`, …
    pub check: String,
    pub level: Level,
    pub found: String,
    /// What follows from it; empty when all is well.
    #[serde(default)]
    pub means: String,
    /// The command, or what to do; empty when all is well.
    #[serde(default)]
    pub mend: String,
}

impl Finding {
    fn fine(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            level: Level::Ok,
            found: found.into(),
            means: String::new(),
            mend: String::new(),
        }
    }

    fn warning(check: &str, found: String, means: &str, mend: impl Into<String>) -> Self {
        Self {
            check: check.to_owned(),
            level: Level::Warning,
            found,
            means: means.to_owned(),
            mend: mend.into(),
        }
    }

    fn error(check: &str, found: String, means: &str, mend: impl Into<String>) -> Self {
        Self {
            level: Level::Error,
            ..Self::warning(check, found, means, mend)
        }
    }
}

/// What this host lacks for containers, a sentence each: what, why it matters and the way out.
pub async fn lacks(settings: &Settings) -> Vec<String> {
    let findings = look::needed(settings).await;
    let bad = findings
        .into_iter()
        .filter(|finding| finding.level != Level::Ok);
    bad.map(|finding| {
        let Finding {
            check,
            found,
            means,
            mend,
            ..
        } = finding;
        format!("{check}: {found}. {means} Mend: {mend}")
    })
    .collect()
}

/// `ovnd doctor`: status 1 when there is an error among the findings.
pub async fn command(settings: &Settings, json: bool) -> anyhow::Result<ExitCode> {
    let socket = wish::socket(settings)?;
    let findings = match wish::ask(socket, QUESTION).await {
        Ok(answer) => serde_json::from_value(answer).context("not a doctor's answer")?,
        Err(error) => {
            let mut findings = vec![Finding::error(
                "daemon",
                format!("ovnd does not answer at {}: {error:#}", socket.display()),
                "Containers and networks go on as they are; nothing is started, moved or repaired.",
                "systemctl status ovnd; journalctl -u ovnd -n 50",
            )];
            findings.extend(host::examine(&look::host(settings, None).await));
            findings
        }
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        print!("{}", render(&findings));
    }
    let bad = findings.iter().any(|finding| finding.level == Level::Error);
    Ok(ExitCode::from(u8::from(bad)))
}

/// For people: what is wrong last, where a terminal shows it.
fn render(findings: &[Finding]) -> String {
    let mut text = String::new();
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| finding.level);
    let mut counts = [0; 3];
    for finding in sorted {
        counts[finding.level as usize] += 1;
        let word = match finding.level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{word:<8} {}: {}", finding.check, finding.found);
        for (title, value) in [("means", &finding.means), ("mend", &finding.mend)] {
            if !value.is_empty() {
                let _ = writeln!(text, "           {:<6} {value}", format!("{title}:"));
            }
        }
    }
    let [fine, warnings, errors] = counts;
    let many = |count: usize, word: &str| match count {
        1 => format!("1 {word}"),
        _ => format!("{count} {word}s"),
    };
    let _ = writeln!(
        text,
        "{}: {fine} ok, {}, {}",
        many(findings.len(), "check"),
        many(warnings, "warning"),
        many(errors, "error")
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_come_last_with_the_way_out() {
        let findings = [
            Finding::error("disk", "full".to_owned(), "Nothing fits.", "rm things"),
            Finding::fine("kernel", "6.1"),
        ];
        assert_eq!(
            render(&findings),
            "ok       kernel: 6.1\n\
             error    disk: full\n           means: Nothing fits.\n           mend:  rm things\n\
             2 checks: 1 ok, 0 warnings, 1 error\n"
        );
    }
}
