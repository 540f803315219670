//! Lists of tasks: `node ps`, and what `service ps` and `stack ps` share with it.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};

use super::node::resolve;
use super::service::shown_image;
use super::{capitalised, text};
use crate::failure::Failure;
use crate::flags::Filters;
use crate::output::Listing;
use crate::output::table::{ellipsis, short_id};
use crate::output::when::since;
use crate::session::Session;

/// The flags of every list of tasks.
#[derive(Args, Debug, Default, Clone)]
pub struct TaskListFlags {
    /// Show only what fits: desired-state=…, id=…, label=…, name=…, node=…; repeatable
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub filter: Vec<String>,
    /// table, 'table TEMPLATE', json, or a Go template such as '{{.Name}}'
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Show ids in place of names
    #[arg(long)]
    pub no_resolve: bool,
    /// Show ids and errors whole
    #[arg(long)]
    pub no_trunc: bool,
    /// Print only ids
    #[arg(short, long)]
    pub quiet: bool,
}

/// List the tasks on nodes, by default on the one you are on
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl node ps worker01 --filter desired-state=running")]
pub struct NodePsArgs {
    #[command(flatten)]
    list: TaskListFlags,
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
    let mut failures = Vec::new();
    let mut found = false;
    for name in &names {
        let id = resolve(session, name).await?;
        match client
            .get(format!("/nodes/{id}"))
            .value()
            .await
            .map_err(Failure::from)
        {
            Ok(node) => {
                found = true;
                filters.add("node", text(&node, "/ID"));
            }
            Err(failure) => failures.push(failure.text().to_owned()),
        }
    }
    if found {
        let tasks = client.get("/tasks").filters(&filters).value().await?;
        show(session, &tasks, &args.list).await?;
    }
    if failures.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(failures.join("\n")))
    }
}

/// Prints tasks as the flags say, with names in place of ids.
pub async fn show(session: &Session, tasks: &Value, flags: &TaskListFlags) -> Result<(), Failure> {
    let names = if flags.no_resolve {
        BTreeMap::new()
    } else {
        names(session, tasks).await?
    };
    let rows = rows(tasks, &names, flags.no_trunc || flags.quiet, session.now());
    let format = session.format(flags.format.as_deref(), "tasksFormat", flags.quiet)?;
    session.print(&TASKS.render(&rows, format.as_deref(), flags.quiet)?)
}

/// The names of the services and nodes of tasks, by id.
pub async fn names(session: &Session, tasks: &Value) -> Result<BTreeMap<String, String>, Failure> {
    let client = session.client().await?;
    let mut resolved = BTreeMap::new();
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
            let call = client.get(format!("/{kind}/{id}"));
            let call = call.maybe("insertDefaults", (kind == "services").then_some("false"));
            let found = call.value().await;
            let shown = found.map_or_else(|_| id.clone(), |object| text(&object, name).to_owned());
            resolved.insert(id, shown);
        }
    }
    Ok(resolved)
}

/// `--filter node=NAME`: the API wants the id, and self is the node asked.
pub async fn resolve_node_filter(session: &Session, filters: &mut Filters) -> Result<(), Failure> {
    let client = session.client().await?;
    for name in filters.take("node") {
        let id = resolve(session, &name).await?;
        let node = client.get(format!("/nodes/{id}")).value().await?;
        filters.add("node", text(&node, "/ID"));
    }
    Ok(())
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
            let image = if whole { image } else { shown_image(image) };
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
                "CurrentState": format!("{} {}", capitalised(text(task, "/Status/State")), since(text(task, "/Status/Timestamp"), now).to_lowercase()).trim(),
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
