//! `volume create`, `ls`, `inspect`, `rm`, `prune`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{ListFlags, joined_pairs, natural_key, text};
use crate::failure::Failure;
use crate::flags::{Filters, pairs};
use crate::output::Listing;
use crate::output::units::size;
use crate::session::Session;

/// Manage volumes
#[derive(Subcommand, Debug)]
pub enum VolumeCommand {
    Create(CreateArgs),
    /// Show everything known of volumes
    Inspect(super::inspect::TypedArgs),
    #[command(alias = "list")]
    Ls(LsArgs),
    Prune(PruneArgs),
    #[command(alias = "remove")]
    Rm(RmArgs),
}

/// Create a volume on this host
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ovnctl volume create data\n  \
    ovnctl volume create -o type=tmpfs -o device=tmpfs -o o=size=64m,uid=1000 scratch\n  \
    ovnctl volume create -o type=nfs -o device=:/export -o o=addr=nas.lan,nfsvers=4 shared\n  \
    ovnctl volume create -o type=none -o device=/srv/data -o o=bind disk")]
pub struct CreateArgs {
    /// Driver
    #[arg(short, long, value_name = "NAME", default_value = "local")]
    driver: String,
    /// Set a label
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Option of the driver: type=…, device=…, o=…, as mount(8) has them
    #[arg(short, long, value_name = "KEY=VALUE")]
    opt: Vec<String>,
    /// Name (default: a random one)
    #[arg(value_name = "VOLUME")]
    name: Option<String>,
}

/// List volumes
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl volume ls --filter dangling=true")]
pub struct LsArgs {
    #[command(flatten)]
    list: ListFlags,
}

/// Remove volumes that no container uses
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl volume rm data")]
pub struct RmArgs {
    /// A volume that does not exist is no error
    #[arg(short, long)]
    force: bool,
    /// Names
    #[arg(value_name = "VOLUME", required = true)]
    volumes: Vec<String>,
}

/// Remove volumes that nothing uses
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl volume prune -f")]
pub struct PruneArgs {
    /// Named ones too
    #[arg(short, long)]
    all: bool,
    /// Only those that fit: label=…
    #[arg(long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// The columns of `volume ls`.
pub const VOLUMES: Listing = Listing {
    columns: "{{.Driver}}\t{{.Name}}",
    headings: &[
        ("Driver", "DRIVER"),
        ("Name", "VOLUME NAME"),
        ("Scope", "SCOPE"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Labels", "LABELS"),
        ("Links", "LINKS"),
        ("Size", "SIZE"),
    ],
    quiet: "{{.Name}}",
};

/// Runs one of the group.
pub async fn run(session: &Session, command: VolumeCommand) -> Result<(), Failure> {
    let client = session.client().await?;
    match command {
        VolumeCommand::Create(args) => {
            let body = json!({
                "Name": args.name.unwrap_or_default(), "Driver": args.driver,
                "DriverOpts": pairs(&args.opt), "Labels": pairs(&args.label),
            });
            let volume = client.post("/volumes/create").json(&body).value().await?;
            session.line(text(&volume, "/Name"))
        }
        VolumeCommand::Inspect(args) => super::inspect::typed(session, args, "volume").await,
        VolumeCommand::Ls(args) => {
            let filters = Filters::parse(&args.list.filter)?;
            let answer = client.get("/volumes").filters(&filters).value().await?;
            let rows = rows(&answer["Volumes"]);
            session.print(&VOLUMES.render(&rows, args.list.format.as_deref(), args.list.quiet)?)
        }
        VolumeCommand::Prune(args) => prune(session, args).await,
        VolumeCommand::Rm(args) => {
            session
                .each(&args.volumes, async |name| {
                    client
                        .delete(format!("/volumes/{name}"))
                        .flag("force", args.force)
                        .done()
                        .await?;
                    Ok(name.to_owned())
                })
                .await
        }
    }
}

/// The rows of `volume ls`.
pub fn rows(volumes: &Value) -> Vec<Value> {
    let mut volumes: Vec<&Value> = volumes.as_array().into_iter().flatten().collect();
    volumes.sort_by_cached_key(|volume| natural_key(text(volume, "/Name")));
    let usage = |volume: &Value, pointer: &str| {
        volume
            .pointer(pointer)
            .and_then(Value::as_i64)
            .filter(|n| *n >= 0)
    };
    volumes
        .into_iter()
        .map(|volume| {
            json!({
                "Driver": text(volume, "/Driver"),
                "Name": text(volume, "/Name"),
                "Scope": text(volume, "/Scope"),
                "Mountpoint": text(volume, "/Mountpoint"),
                "Labels": joined_pairs(volume.get("Labels")),
                "Links": usage(volume, "/UsageData/RefCount").map_or_else(|| "N/A".to_owned(), |n| n.to_string()),
                "Size": usage(volume, "/UsageData/Size").map_or_else(|| "N/A".to_owned(), |n| size(n as f64)),
            })
        })
        .collect()
}

async fn prune(session: &Session, args: PruneArgs) -> Result<(), Failure> {
    let mut filters = Filters::parse(&args.filter)?;
    if args.all {
        filters.add("all", "true");
    }
    let kind = if args.all { "local" } else { "anonymous local" };
    let question = format!(
        "WARNING! This will remove {kind} volumes not used by at least one container.\nAre you sure you want to continue?"
    );
    if !args.force && !session.confirm(&question).await? {
        return Err(Failure::new("volume prune has been cancelled"));
    }
    let answer = session
        .client()
        .await?
        .post("/volumes/prune")
        .filters(&filters)
        .value()
        .await?;
    let names: Vec<&str> = answer["VolumesDeleted"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if !names.is_empty() {
        session.line(&format!("Deleted Volumes:\n{}\n", names.join("\n")))?;
    }
    session.line(&format!(
        "Total reclaimed space: {}",
        size(answer["SpaceReclaimed"].as_f64().unwrap_or(0.0))
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        let volumes =
            json!([{"Driver": "local", "Name": "データ"}, {"Driver": "local", "Name": "cache"}]);
        insta::assert_snapshot!(VOLUMES.render(&rows(&volumes), None, false).unwrap(), @r"
        DRIVER    VOLUME NAME
        local     cache
        local     データ
        ");
    }
}
