//! `system df`, `system prune`, and the long names of `info` and `events`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{events, info, text};
use crate::failure::Failure;
use crate::flags::Filters;
use crate::output::Listing;
use crate::output::units::size;
use crate::session::Session;

/// Manage the daemon
#[derive(Subcommand, Debug)]
pub enum SystemCommand {
    Df(DfArgs),
    Events(events::EventsArgs),
    Info(info::InfoArgs),
    Prune(PruneArgs),
}

/// Show how much disk is used
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl system df")]
pub struct DfArgs {
    /// table, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Remove stopped containers, unused networks and unused images
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl system prune --volumes")]
pub struct PruneArgs {
    /// All unused images, not only those without a name
    #[arg(short, long)]
    all: bool,
    /// Only what fits: until=24h, label=…
    #[arg(long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Anonymous volumes too
    #[arg(long)]
    volumes: bool,
}

/// The columns of `system df`.
pub const USAGE: Listing = Listing {
    columns: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
    headings: &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ],
    quiet: "{{.Type}}",
};

/// Runs one of the group.
pub async fn run(session: &Session, command: SystemCommand) -> Result<(), Failure> {
    match command {
        SystemCommand::Df(args) => {
            let usage = session.client().await?.get("/system/df").value().await?;
            session.print(&USAGE.render(&rows(&usage), args.format.as_deref(), false)?)
        }
        SystemCommand::Events(args) => events::events(session, args).await,
        SystemCommand::Info(args) => info::info(session, args).await,
        SystemCommand::Prune(args) => prune(session, args).await,
    }
}

fn rows(usage: &Value) -> Vec<Value> {
    let list = |name: &str| usage[name].as_array().cloned().unwrap_or_default();
    let number = |value: &Value, pointer: &str| {
        value
            .pointer(pointer)
            .and_then(Value::as_f64)
            .unwrap_or(0.0)
            .max(0.0)
    };
    let row = |kind: &str, total: usize, active: usize, bytes: f64, free: f64| {
        let share = if bytes > 0.0 {
            format!(" ({:.0}%)", (free / bytes * 100.0).floor())
        } else {
            String::new()
        };
        json!({
            "Type": kind, "TotalCount": total.to_string(), "Active": active.to_string(),
            "Size": size(bytes), "Reclaimable": format!("{}{share}", size(free)),
        })
    };
    let images = list("Images");
    let used = |image: &Value| number(image, "/Containers") > 0.0;
    let layers = number(usage, "/LayersSize");
    let kept: f64 = images
        .iter()
        .filter(|i| used(i))
        .map(|i| number(i, "/Size") - number(i, "/SharedSize"))
        .sum();
    let containers = list("Containers");
    let runs = |c: &Value| matches!(text(c, "/State"), "running" | "paused" | "restarting");
    let written: f64 = containers.iter().map(|c| number(c, "/SizeRw")).sum();
    let idle: f64 = containers
        .iter()
        .filter(|c| !runs(c))
        .map(|c| number(c, "/SizeRw"))
        .sum();
    let volumes = list("Volumes");
    let bound = |v: &Value| number(v, "/UsageData/RefCount") > 0.0;
    let held: f64 = volumes.iter().map(|v| number(v, "/UsageData/Size")).sum();
    let loose: f64 = volumes
        .iter()
        .filter(|v| !bound(v))
        .map(|v| number(v, "/UsageData/Size"))
        .sum();
    vec![
        row(
            "Images",
            images.len(),
            images.iter().filter(|i| used(i)).count(),
            layers,
            (layers - kept).max(0.0),
        ),
        row(
            "Containers",
            containers.len(),
            containers.iter().filter(|c| runs(c)).count(),
            written,
            idle,
        ),
        row(
            "Local Volumes",
            volumes.len(),
            volumes.iter().filter(|v| bound(v)).count(),
            held,
            loose,
        ),
    ]
}

async fn prune(session: &Session, args: PruneArgs) -> Result<(), Failure> {
    let filters = Filters::parse(&args.filter)?;
    let mut warning = String::from(
        "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n",
    );
    if args.volumes {
        warning.push_str("  - all anonymous volumes not used by at least one container\n");
    }
    warning.push_str(if args.all {
        "  - all images without at least one container associated to them\n"
    } else {
        "  - all dangling images\n"
    });
    if !args.force
        && !session
            .confirm(&format!("{warning}\nAre you sure you want to continue?"))
            .await?
    {
        return Err(Failure::new("system prune has been cancelled"));
    }
    let client = session.client().await?;
    let mut image_filters = filters.clone();
    image_filters.add("dangling", if args.all { "false" } else { "true" });
    let mut steps = vec![
        (
            "Containers",
            "/containers/prune",
            "ContainersDeleted",
            &filters,
        ),
        ("Networks", "/networks/prune", "NetworksDeleted", &filters),
    ];
    if args.volumes {
        steps.push(("Volumes", "/volumes/prune", "VolumesDeleted", &filters));
    }
    steps.push(("Images", "/images/prune", "ImagesDeleted", &image_filters));
    let mut freed = 0.0;
    for (title, path, field, filters) in steps {
        let answer = client.post(path).filters(filters).value().await?;
        freed += answer["SpaceReclaimed"].as_f64().unwrap_or(0.0);
        let names: Vec<String> = answer[field]
            .as_array()
            .into_iter()
            .flatten()
            .map(|entry| {
                match (
                    entry.as_str(),
                    text(entry, "/Deleted"),
                    text(entry, "/Untagged"),
                ) {
                    (Some(name), ..) => name.to_owned(),
                    (None, "", untagged) => format!("untagged: {untagged}"),
                    (None, deleted, _) => format!("deleted: {deleted}"),
                }
            })
            .collect();
        if !names.is_empty() {
            session.line(&format!("Deleted {title}:\n{}\n", names.join("\n")))?;
        }
    }
    session.line(&format!("Total reclaimed space: {}", size(freed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        let usage = json!({"LayersSize": 10_000_000, "Images": [{"Containers": 1, "Size": 4_000_000, "SharedSize": 0}, {"Containers": 0, "Size": 6_000_000}],
            "Containers": [{"State": "running", "SizeRw": 10}, {"State": "exited", "SizeRw": 30}], "Volumes": null});
        insta::assert_snapshot!(USAGE.render(&rows(&usage), None, false).unwrap(), @r"
        TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE
        Images          2         1         10MB      6MB (60%)
        Containers      2         1         40B       30B (75%)
        Local Volumes   0         0         0B        0B
        ");
    }
}
