//! `ovnd dataplane`: the wish, the sight and the difference, for whoever debugs a network.

use std::path::Path;

use anyhow::{Context, bail};
use dataplane::{Dataplane, Desired, dns, plan};

use crate::config::{DataplaneAction, Settings};

/// Where the running daemon leaves its wish when it is asked for it.
const ANSWER: &str = "desired.json";

/// Runs one of the commands and prints to standard output.
pub async fn run(action: DataplaneAction, settings: &Settings) -> anyhow::Result<()> {
    let (file, deed) = match &action {
        DataplaneAction::Show { file } => (file.as_deref(), Deed::Show),
        DataplaneAction::Plan { file } => (file.as_deref(), Deed::Plan),
        DataplaneAction::Apply { file } => (Some(file.as_path()), Deed::Apply),
    };
    let path = file.map_or_else(|| settings.run.join(ANSWER), Path::to_path_buf);
    let desired = read(&path)?;
    let dataplane = Dataplane::start(dataplane::Config {
        run_dir: settings.run.clone(),
        dns: dns::DnsConfig {
            inherited: Vec::new(),
            keeper: std::sync::Arc::new(dns::Forgetful),
        },
    })?;
    let outcome = carry_out(&dataplane, desired, deed).await;
    dataplane.shutdown().await;
    outcome
}

#[derive(Debug, Clone, Copy)]
enum Deed {
    Show,
    Plan,
    Apply,
}

async fn carry_out(dataplane: &Dataplane, desired: Desired, deed: Deed) -> anyhow::Result<()> {
    match deed {
        Deed::Show => {
            let shown = serde_json::json!({
                "desired": desired,
                "observed": dataplane.observe().await?,
                "obstacles": dataplane.probe().await,
            });
            println!("{}", serde_json::to_string_pretty(&shown)?);
        }
        Deed::Plan => {
            let plan = plan(&desired, &dataplane.observe().await?);
            if plan.is_empty() {
                println!("nothing to do: the kernel matches the wish");
            }
            for reason in &plan.reasons {
                println!("{reason}");
            }
        }
        Deed::Apply => {
            let report = dataplane.replace(desired).await;
            for failure in &report.failures {
                eprintln!("{failure}");
            }
            if !report.failures.is_empty() {
                bail!("{} steps failed", report.failures.len());
            }
        }
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Desired> {
    let text = std::fs::read(path).with_context(|| {
        format!(
            "{} cannot be read; is ovnd running, with the same --run? A written wish is named by --file",
            path.display()
        )
    })?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no wish", path.display()))
}
