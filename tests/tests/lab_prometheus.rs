//! What Prometheus makes of the metrics: its own tool reads them, and the alerts and the dashboard
//! that are shipped speak of what the daemons really say.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use tests::{Lab, Options, wait};

const LIMIT: Duration = Duration::from_secs(60);

fn packaging(file: &str) -> PathBuf {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    top.join("../packaging").join(file)
}

/// Runs promtool with `input`; what it says if it is not content.
fn promtool(words: &[&str], input: &str) -> Result<(), String> {
    let mut child = Command::new("promtool")
        .args(words)
        .current_dir(packaging("prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    output.status.success().then_some(()).ok_or(said)
}

/// The names of metrics of ours in a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = |word: &&str| word.starts_with("overnet_") || word.starts_with("process_");
    words.filter(ours).map(str::to_owned).collect()
}

#[test]
fn metrics_alerts_and_dashboard_go_together() {
    promtool(&["check", "rules", "overnet.rules.yml"], "").unwrap();
    promtool(&["test", "rules", "overnet.test.yml"], "").unwrap();

    let lab = Lab::up(Options {
        workers: 1,
        ..Options::for_test("prometheus")
    })
    .unwrap();
    let manager = lab.host("manager01");
    let rules = fs::read_to_string(packaging("prometheus/overnet.rules.yml")).unwrap();
    let dashboard = fs::read_to_string(packaging("grafana/overnet.json")).unwrap();
    let board: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    assert!(board["panels"].as_array().unwrap().len() > 10);
    let spoken_of = &names(&rules) | &names(&dashboard);
    assert!(spoken_of.len() > 10, "{spoken_of:?}");
    let metrics = wait::until("the metrics that are spoken of are there", LIMIT, || {
        let metrics = manager.api("GET", "/metrics", b"").unwrap().text();
        let missing = &spoken_of - &names(&metrics);
        if missing.is_empty() {
            Ok(metrics)
        } else {
            Err(missing)
        }
    });
    promtool(&["check", "metrics"], &metrics).unwrap();
    let page = packaging("../docs/reference/metrics.md");
    let page = fs::read_to_string(page).unwrap();
    let untold = &names(&metrics) - &names(&page);
    assert!(
        untold.is_empty(),
        "docs/reference/metrics.md lacks {untold:?}"
    );
    for alert in rules
        .lines()
        .filter_map(|line| line.split_once("- alert: "))
    {
        assert!(page.contains(&format!("| `{}` |", alert.1)), "{}", alert.1);
    }
    lab.down().unwrap();
}
