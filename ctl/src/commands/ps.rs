//! `ps`.

use clap::Args;
use serde_json::{Value, json};

use super::{ListFlags, joined_pairs, text};
use crate::failure::Failure;
use crate::flags::{Filters, port};
use crate::output::Listing;
use crate::output::table::{ellipsis, short_id};
use crate::output::units::{ago, size};
use crate::output::when::go_time;
use crate::session::Session;
use crate::template::go_quote;

/// List containers
///
/// Only running ones, unless -a is given.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ovnctl ps -a\n  ovnctl ps --filter network=ch03 --format 'table {{.Names}}\\t{{.Status}}'"
)]
pub struct PsArgs {
    /// Show those that do not run too
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    list: ListFlags,
    /// Show the N made last, running or not
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<i64>,
    /// Show the one made last, running or not
    #[arg(short, long)]
    latest: bool,
    /// Show ids and commands whole
    #[arg(long)]
    no_trunc: bool,
    /// Show sizes
    #[arg(short, long)]
    size: bool,
}

const HEADINGS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
    ("Size", "SIZE"),
    ("State", "STATE"),
    ("CreatedAt", "CREATED AT"),
    ("Labels", "LABELS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Mounts", "MOUNTS"),
    ("Networks", "NETWORKS"),
];

/// The columns of `ps`.
pub const CONTAINERS: Listing = Listing {
    columns: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
    headings: HEADINGS,
    quiet: "{{.ID}}",
};

/// The columns of `ps --size`.
pub const SIZED: Listing = Listing {
    columns: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}",
    ..CONTAINERS
};

/// `ps`.
pub async fn ps(session: &Session, args: PsArgs) -> Result<(), Failure> {
    let filters = Filters::parse(&args.list.filter)?;
    let last = if args.latest {
        Some(1)
    } else {
        args.last.filter(|n| *n > 0)
    };
    let sized = args.size
        || args
            .list
            .format
            .as_deref()
            .is_some_and(|f| f.contains(".Size"));
    let containers = session
        .client()
        .await?
        .get("/containers/json")
        .flag("all", args.all)
        .maybe("limit", last)
        .flag("size", sized)
        .filters(&filters)
        .value()
        .await?;
    let rows = rows(
        &containers,
        args.no_trunc,
        session.now(),
        session.surroundings.zone,
    );
    let listing = if args.size { &SIZED } else { &CONTAINERS };
    let format = session.format(args.list.format.as_deref(), "psFormat", args.list.quiet)?;
    session.print(&listing.render(&rows, format.as_deref(), args.list.quiet)?)
}

/// The rows of `ps`, in the daemon's order (newest first).
pub fn rows(containers: &Value, whole: bool, now: i64, zone: time::UtcOffset) -> Vec<Value> {
    containers
        .as_array()
        .into_iter()
        .flatten()
        .map(|container| {
            let id = text(container, "/Id");
            let created = container["Created"].as_i64().unwrap_or(0);
            let command = text(container, "/Command");
            let command = if whole {
                command.to_owned()
            } else {
                ellipsis(command, 20)
            };
            let image = text(container, "/Image");
            let image = if whole { image } else { shown_image(image) };
            let names: Vec<&str> = container["Names"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(|name| name.trim_start_matches('/'))
                .filter(|name| whole || !name.contains('/'))
                .collect();
            let mut networks: Vec<&str> = container
                .pointer("/NetworkSettings/Networks")
                .and_then(Value::as_object)
                .map(|map| map.keys().map(String::as_str).collect())
                .unwrap_or_default();
            networks.sort_unstable();
            let mounts: Vec<String> = container["Mounts"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|m| {
                    if text(m, "/Name").is_empty() {
                        text(m, "/Source")
                    } else {
                        text(m, "/Name")
                    }
                })
                .map(|name| {
                    if whole {
                        name.to_owned()
                    } else {
                        ellipsis(name, 15)
                    }
                })
                .collect();
            let local = container["Mounts"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|m| text(m, "/Driver") == "local")
                .count();
            json!({
                "ID": if whole { id } else { short_id(id) },
                "Image": if image.is_empty() { "<no image>" } else { image },
                "Command": go_quote(&command),
                "RunningFor": ago(now - created),
                "CreatedAt": go_time(created, zone),
                "Status": text(container, "/Status"),
                "State": text(container, "/State"),
                "Ports": port::shown(&container["Ports"]),
                "Names": names.join(","),
                "Labels": joined_pairs(container.get("Labels")),
                "LocalVolumes": local.to_string(),
                "Mounts": mounts.join(","),
                "Networks": networks.join(","),
                "Size": shown_size(container),
            })
        })
        .collect()
}

/// A bare digest is cut like an id, a pinned name loses its digest.
fn shown_image(image: &str) -> &str {
    if image.starts_with("sha256:") {
        short_id(image)
    } else {
        image.split('@').next().unwrap_or(image)
    }
}

fn shown_size(container: &Value) -> String {
    let written = container["SizeRw"].as_f64().unwrap_or(0.0);
    match container["SizeRootFs"]
        .as_f64()
        .filter(|whole| *whole > 0.0)
    {
        Some(whole) => format!("{} (virtual {})", size(written), size(whole)),
        None => size(written),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::UtcOffset;

    #[test]
    fn the_table() {
        let containers = json!([
            {"Id": "4c01db0b339c4c01db0b339c", "Image": "registry:5000/example/echo:latest", "Command": "/echo --port 8080 --verbose",
             "Created": 1_700_000_000, "Status": "Up 5 minutes", "State": "running", "Names": ["/api"],
             "Ports": [{"PrivatePort": 8080, "Type": "tcp"}], "Labels": {"tier": "front"},
             "NetworkSettings": {"Networks": {"ch03": {}}}, "Mounts": []},
            {"Id": "aa01db0b339c4c01db0b339c", "Image": "sha256:0123456789abcdef", "Command": "sh -c \"x\"",
             "Created": 1_699_990_000, "Status": "Exited (3) 2 hours ago", "State": "exited", "Names": ["/名前"], "Ports": [],
             "SizeRw": 12, "SizeRootFs": 7_000_000},
        ]);
        let rows = rows(&containers, false, 1_700_000_300, UtcOffset::UTC);
        insta::assert_snapshot!(CONTAINERS.render(&rows, None, false).unwrap(), @r#"
        CONTAINER ID   IMAGE                               COMMAND                  CREATED         STATUS                   PORTS      NAMES
        4c01db0b339c   registry:5000/example/echo:latest   "/echo --port 8080 -…"   5 minutes ago   Up 5 minutes             8080/tcp   api
        aa01db0b339c   0123456789ab                        "sh -c \"x\""            3 hours ago     Exited (3) 2 hours ago              名前
        "#);
        insta::assert_snapshot!(CONTAINERS.render(&rows, Some("{{.Names}} {{.Label \"tier\"}} {{.CreatedAt}} {{.Networks}} {{.Size}}"), false).unwrap(), @r"
        api front 2023-11-14 22:13:20 +0000 UTC ch03 0B
        名前  2023-11-14 19:26:40 +0000 UTC  12B (virtual 7MB)
        ");
        assert_eq!(
            CONTAINERS.render(&rows, None, true).unwrap(),
            "4c01db0b339c\naa01db0b339c\n"
        );
    }
}
