//! `node ps`.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};

use super::node::resolve;
use super::{capitalised, text};
use crate::failure::Failure;
use crate::flags::Filters;
use crate::output::Listing;
use crate::output::table::{ellipsis, short_id};
use crate::output::when::since;
use crate::session::Session;

/// List the tasks on nodes, by default on the one you are on
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl node ps worker01 --filter desired-state=running")]
pub struct NodePsArgs {
    #[command(flatten)]
    list: super::ListFlags,
    /// Show ids in place of names
    #[arg(long)]
    no_resolve: bool,
    /// Show ids and errors whole
    #[arg(long)]
    no_trunc: bool,
    /// Names or ids of nodes
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,
}

/// The columns of task lists.
pub const TASKS: Listing = Listing {
    columns: "{{.ID}}\t{{.Name}}\t{{.Image}}\t{{.Node}}\t{{.DesiredState}}\t{{.CurrentState}}\t{{.Error}}\t{{.Ports}}",
    headings: &[
        ("ID", "ID"),
        ("Name", "NAME"),
        ("Image", "IMAGE"),
        ("Node", "NODE"),
        ("DesiredState", "DESIRED STATE"),
        ("CurrentState", "CURRENT STATE"),
        ("Error", "ERROR"),
        ("Ports", "PORTS"),
    ],
    quiet: "{{.ID}}",
};

/// `node ps`.
pub async fn node_ps(session: &Session, args: NodePsArgs) -> Result<(), Failure> {
    let client = session.client().await?;
    let mut filters = Filters::parse(&args.list.filter)?;
    let names = if args.nodes.is_empty() {
        vec!["self".to_owned()]
    } else {
        args.nodes.clone()
    };
    for name in &names {
        let id = resolve(session, name).await?;
        let node = client.get(format!("/nodes/{id}")).value().await?;
        filters.add("node", text(&node, "/ID"));
    }
    let tasks = client.get("/tasks").filters(&filters).value().await?;
    let mut resolved = BTreeMap::new();
    if !args.no_resolve {
        for task in tasks.as_array().into_iter().flatten() {
            for (pointer, kind, name) in [
                ("/ServiceID", "services", "/Spec/Name"),
                ("/NodeID", "nodes", "/Description/Hostname"),
            ] {
                let id = text(task, pointer).to_owned();
                if id.is_empty() || resolved.contains_key(&id) {
                    continue;
                }
                // An object that is gone is shown by its id.
                if let Ok(object) = client.get(format!("/{kind}/{id}")).value().await {
                    resolved.insert(id, text(&object, name).to_owned());
                }
            }
        }
    }
    let rows = rows(&tasks, &resolved, args.no_trunc, session.now());
    session.print(&TASKS.render(&rows, args.list.format.as_deref(), args.list.quiet)?)
}

/// The rows of a task list; older tasks of a slot are indented under the newest.
pub fn rows(tasks: &Value, names: &BTreeMap<String, String>, whole: bool, now: i64) -> Vec<Value> {
    let name_of = |id: &str| names.get(id).cloned().unwrap_or_else(|| id.to_owned());
    let mut list: Vec<(String, &Value)> = tasks
        .as_array()
        .into_iter()
        .flatten()
        .map(|task| {
            let slot = task["Slot"].as_u64().filter(|s| *s > 0);
            let part = slot.map_or_else(|| text(task, "/NodeID").to_owned(), |s| s.to_string());
            (
                format!("{}.{part}", name_of(text(task, "/ServiceID"))),
                task,
            )
        })
        .collect();
    list.sort_by(|a, b| {
        (super::natural_key(&a.0), text(b.1, "/CreatedAt"))
            .cmp(&(super::natural_key(&b.0), text(a.1, "/CreatedAt")))
    });
    let mut previous = String::new();
    list.into_iter()
        .map(|(name, task)| {
            let shown = if name == previous { format!(" \\_ {name}") } else { name.clone() };
            previous = name;
            let image = text(task, "/Spec/ContainerSpec/Image");
            let image = if whole { image } else { image.split('@').next().unwrap_or(image) };
            let error = match text(task, "/Status/Err") {
                "" => String::new(),
                error if whole => format!("\"{error}\""),
                error => format!("\"{}\"", ellipsis(error, 30)),
            };
            let ports: Vec<String> = task
                .pointer("/Status/PortStatus/Ports")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .map(|p| format!("*:{}->{}/{}", p["PublishedPort"], p["TargetPort"], text(p, "/Protocol")))
                .collect();
            json!({
                "ID": if whole { text(task, "/ID") } else { short_id(text(task, "/ID")) },
                "Name": shown,
                "Image": image,
                "Node": name_of(text(task, "/NodeID")),
                "DesiredState": capitalised(text(task, "/DesiredState")),
                "CurrentState": format!("{} {}", capitalised(text(task, "/Status/State")), since(text(task, "/Status/Timestamp"), now)).trim(),
                "Error": error,
                "Ports": ports.join(","),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        let task = |id: &str, slot: u32, state: &str, made: &str, error: &str| {
            json!({"ID": id, "ServiceID": "s", "NodeID": "n", "Slot": slot, "DesiredState": "running", "CreatedAt": made,
                   "Spec": {"ContainerSpec": {"Image": "app:1@sha256:00"}},
                   "Status": {"State": state, "Timestamp": "2023-11-14T22:13:20Z", "Err": error}})
        };
        let tasks = json!([
            task(
                "aaaaaaaaaaaaaaaaaaaaaaaaa",
                1,
                "failed",
                "2023-01-01T00:00:00Z",
                "task: non-zero exit (137): killed"
            ),
            task(
                "bbbbbbbbbbbbbbbbbbbbbbbbb",
                1,
                "running",
                "2023-01-02T00:00:00Z",
                ""
            ),
            task(
                "ccccccccccccccccccccccccc",
                10,
                "running",
                "2023-01-02T00:00:00Z",
                ""
            ),
            task(
                "ddddddddddddddddddddddddd",
                2,
                "running",
                "2023-01-02T00:00:00Z",
                ""
            ),
        ]);
        let names = BTreeMap::from([
            ("s".to_owned(), "web".to_owned()),
            ("n".to_owned(), "worker01".to_owned()),
        ]);
        insta::assert_snapshot!(TASKS.render(&rows(&tasks, &names, false, 1_700_000_120), None, false).unwrap(), @r#"
        ID             NAME        IMAGE     NODE       DESIRED STATE   CURRENT STATE           ERROR                              PORTS
        bbbbbbbbbbbb   web.1       app:1     worker01   Running         Running 2 minutes ago                                      
        aaaaaaaaaaaa    \_ web.1   app:1     worker01   Running         Failed 2 minutes ago    "task: non-zero exit (137): ki…"   
        dddddddddddd   web.2       app:1     worker01   Running         Running 2 minutes ago                                      
        cccccccccccc   web.10      app:1     worker01   Running         Running 2 minutes ago                                      
        "#);
    }
}
