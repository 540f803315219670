//! `node ls`, `inspect`, `update`, `promote`, `demote`, `rm`, `ps`.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{ListFlags, capitalised, natural_key, text};
use crate::client::ClientError;
use crate::failure::Failure;
use crate::flags::Filters;
use crate::output::Listing;
use crate::output::units::binary_size;
use crate::session::Session;

/// Manage the hosts of the cluster
#[derive(Subcommand, Debug)]
pub enum NodeCommand {
    /// Make managers workers
    Demote(NamesArgs),
    Inspect(InspectArgs),
    #[command(alias = "list")]
    Ls(LsArgs),
    /// Make workers managers
    Promote(NamesArgs),
    Ps(super::tasks::NodePsArgs),
    #[command(alias = "remove")]
    Rm(RmArgs),
    Update(UpdateArgs),
}

/// List the nodes of the cluster
///
/// The node you are on is marked with a star. Runs on managers.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ovnctl node ls\n  ovnctl node ls --filter role=worker --format '{{.Hostname}} {{.Status}}'"
)]
pub struct LsArgs {
    #[command(flatten)]
    list: ListFlags,
}

/// Change the role of nodes
///
/// promote: worker to manager; demote: manager to worker.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ovnctl node promote worker01\n  ovnctl node demote manager02")]
pub struct NamesArgs {
    /// Names or ids of nodes
    #[arg(value_name = "NODE", required = true)]
    nodes: Vec<String>,
}

/// Show everything known of nodes
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ovnctl node inspect self --pretty\n  ovnctl node inspect -f '{{.Status.Addr}}' worker01"
)]
pub struct InspectArgs {
    /// json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Print it for people
    #[arg(long)]
    pretty: bool,
    /// Names or ids of nodes; self is the one you are on
    #[arg(value_name = "NODE", required = true)]
    nodes: Vec<String>,
}

/// Remove nodes from the cluster
///
/// Only those that are down, unless forced; a manager must be demoted first.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl node rm worker03")]
pub struct RmArgs {
    /// Remove a node that is still up
    #[arg(short, long)]
    force: bool,
    /// Names or ids of nodes
    #[arg(value_name = "NODE", required = true)]
    nodes: Vec<String>,
}

/// Change a node's availability, role or labels
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ovnctl node update --availability drain worker01\n  ovnctl node update --label-add disk=ssd worker01"
)]
pub struct UpdateArgs {
    /// active, pause or drain
    #[arg(long, value_name = "WORD")]
    availability: Option<String>,
    /// Add or change a label
    #[arg(long, value_name = "KEY=VALUE")]
    label_add: Vec<String>,
    /// Remove a label
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
    /// worker or manager
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
    /// Name or id of the node
    #[arg(value_name = "NODE")]
    node: String,
}

/// The columns of `node ls`.
pub const NODES: Listing = Listing {
    columns: "{{.ID}} {{if .Self}}*{{else}} {{end}}\t{{.Hostname}}\t{{.Status}}\t{{.Availability}}\t{{.ManagerStatus}}\t{{.EngineVersion}}",
    headings: &[
        ("ID", "ID"),
        ("Self", ""),
        ("Hostname", "HOSTNAME"),
        ("Status", "STATUS"),
        ("Availability", "AVAILABILITY"),
        ("ManagerStatus", "MANAGER STATUS"),
        ("EngineVersion", "ENGINE VERSION"),
        ("TLSStatus", "TLS STATUS"),
    ],
    quiet: "{{.ID}}",
};

/// Runs one of them.
pub async fn run(session: &Session, command: NodeCommand) -> Result<(), Failure> {
    match command {
        NodeCommand::Demote(args) => change_role(session, &args.nodes, "worker").await,
        NodeCommand::Promote(args) => change_role(session, &args.nodes, "manager").await,
        NodeCommand::Inspect(args) => inspect(session, args).await,
        NodeCommand::Ls(args) => ls(session, args).await,
        NodeCommand::Ps(args) => super::tasks::node_ps(session, args).await,
        NodeCommand::Rm(args) => rm(session, args).await,
        NodeCommand::Update(args) => update(session, args).await,
    }
}

/// The rows of `node ls`, sorted by host name as people count.
pub fn rows(nodes: &Value, info: &Value) -> Vec<Value> {
    let own = text(info, "/Swarm/NodeID");
    let wanted = &info["Swarm"]["Cluster"]["TLSInfo"];
    let mut nodes: Vec<&Value> = nodes.as_array().into_iter().flatten().collect();
    nodes.sort_by_cached_key(|node| natural_key(text(node, "/Description/Hostname")));
    nodes
        .into_iter()
        .map(|node| {
            let leader = node
                .pointer("/ManagerStatus/Leader")
                .and_then(Value::as_bool)
                .unwrap_or(false);
            let manager = if leader {
                "Leader".to_owned()
            } else {
                capitalised(text(node, "/ManagerStatus/Reachability"))
            };
            let has = &node["Description"]["TLSInfo"];
            let tls = match () {
                () if text(has, "/TrustRoot").is_empty() => "Unknown",
                () if text(wanted, "/TrustRoot").is_empty() => "Unknown",
                () if has == wanted => "Ready",
                () => "Needs Rotation",
            };
            json!({
                "ID": text(node, "/ID"),
                "Self": text(node, "/ID") == own,
                "Hostname": text(node, "/Description/Hostname"),
                "Status": capitalised(text(node, "/Status/State")),
                "Availability": capitalised(text(node, "/Spec/Availability")),
                "ManagerStatus": manager,
                "EngineVersion": text(node, "/Description/Engine/EngineVersion"),
                "TLSStatus": tls,
            })
        })
        .collect()
}

async fn ls(session: &Session, args: LsArgs) -> Result<(), Failure> {
    let filters = Filters::parse(&args.list.filter)?;
    let client = session.client().await?;
    let nodes = client.get("/nodes").filters(&filters).value().await?;
    let info = if args.list.quiet {
        Value::Null
    } else {
        client.get("/info").value().await?
    };
    let format = session.format(args.list.format.as_deref(), "nodesFormat", args.list.quiet)?;
    session.print(&NODES.render(&rows(&nodes, &info), format.as_deref(), args.list.quiet)?)
}

/// `self` stands for the node asked.
pub async fn resolve(session: &Session, name: &str) -> Result<String, Failure> {
    if name != "self" {
        return Ok(name.to_owned());
    }
    let info = session.client().await?.get("/info").value().await?;
    match text(&info, "/Swarm/NodeID") {
        "" => Err(Failure::new(
            "this node is not part of a swarm: join one with ovnctl swarm join, or make one with ovnctl swarm init",
        )),
        id => Ok(id.to_owned()),
    }
}

async fn inspect(session: &Session, args: InspectArgs) -> Result<(), Failure> {
    let client = session.client().await?;
    let fetch = async |name: &str| {
        let id = resolve(session, name).await?;
        Ok(client.get(format!("/nodes/{id}")).value().await?)
    };
    if !args.pretty {
        return super::inspect::print_all(session, &args.nodes, args.format.as_deref(), fetch)
            .await;
    }
    for name in &args.nodes {
        session.print(&pretty(&fetch(name).await?))?;
    }
    Ok(())
}

fn pretty(node: &Value) -> String {
    let mut lines = vec![format!("ID:\t\t\t{}", text(node, "/ID"))];
    let labels = |pointer: &str, lines: &mut Vec<String>| {
        let map = node
            .pointer(pointer)
            .and_then(Value::as_object)
            .filter(|m| !m.is_empty());
        for (key, value) in map.into_iter().flatten() {
            lines.push(format!(" - {key}={}", value.as_str().unwrap_or_default()));
        }
    };
    lines.push("Labels:".to_owned());
    labels("/Spec/Labels", &mut lines);
    lines.push(format!(
        "Hostname:\t\t{}",
        text(node, "/Description/Hostname")
    ));
    lines.push(format!("Joined at:\t\t{}", text(node, "/CreatedAt")));
    lines.push("Status:".to_owned());
    lines.push(format!(
        " State:\t\t\t{}",
        capitalised(text(node, "/Status/State"))
    ));
    if !text(node, "/Status/Message").is_empty() {
        lines.push(format!(" Message:\t\t{}", text(node, "/Status/Message")));
    }
    lines.push(format!(
        " Availability:\t\t{}",
        capitalised(text(node, "/Spec/Availability"))
    ));
    lines.push(format!(" Address:\t\t{}", text(node, "/Status/Addr")));
    if node.get("ManagerStatus").is_some_and(Value::is_object) {
        let leader = node
            .pointer("/ManagerStatus/Leader")
            .and_then(Value::as_bool)
            .unwrap_or(false);
        lines.push("Manager Status:".to_owned());
        lines.push(format!(
            " Address:\t\t{}",
            text(node, "/ManagerStatus/Addr")
        ));
        lines.push(format!(
            " Raft Status:\t\t{}",
            capitalised(text(node, "/ManagerStatus/Reachability"))
        ));
        lines.push(format!(" Leader:\t\t{}", if leader { "Yes" } else { "No" }));
    }
    let number = |pointer: &str| node.pointer(pointer).and_then(Value::as_f64).unwrap_or(0.0);
    lines.push("Platform:".to_owned());
    lines.push(format!(
        " Operating System:\t{}",
        text(node, "/Description/Platform/OS")
    ));
    lines.push(format!(
        " Architecture:\t\t{}",
        text(node, "/Description/Platform/Architecture")
    ));
    lines.push("Resources:".to_owned());
    lines.push(format!(
        " CPUs:\t\t\t{}",
        number("/Description/Resources/NanoCPUs") / 1e9
    ));
    lines.push(format!(
        " Memory:\t\t{}",
        binary_size(number("/Description/Resources/MemoryBytes"))
    ));
    lines.push(format!(
        "Engine Version:\t\t{}",
        text(node, "/Description/Engine/EngineVersion")
    ));
    lines.push("Engine Labels:".to_owned());
    labels("/Description/Engine/Labels", &mut lines);
    lines.join("\n") + "\n"
}

async fn rm(session: &Session, args: RmArgs) -> Result<(), Failure> {
    let client = session.client().await?;
    session
        .each(&args.nodes, async |name| {
            client
                .delete(format!("/nodes/{name}"))
                .flag("force", args.force)
                .done()
                .await?;
            Ok(name.to_owned())
        })
        .await
}

/// How often an edit is begun anew because the node has changed since it was read.
const EDITS: u32 = 5;

/// Reads a node, edits its specification and sends it whole; false when the edit changed nothing.
/// A node changes by itself, most of all when its manager has just been started, so what was
/// read may be old when it is sent: then it is read again.
async fn edit(
    session: &Session,
    name: &str,
    change: impl Fn(&mut Value) -> Result<(), Failure>,
) -> Result<bool, Failure> {
    let client = session.client().await?;
    let id = resolve(session, name).await?;
    let mut tries = 0;
    loop {
        tries += 1;
        let node = client.get(format!("/nodes/{id}")).value().await?;
        let mut spec = node["Spec"].clone();
        change(&mut spec)?;
        if spec == node["Spec"] {
            return Ok(false);
        }
        let version = node
            .pointer("/Version/Index")
            .and_then(Value::as_u64)
            .unwrap_or(0);
        let sent = client
            .post(format!("/nodes/{}/update", text(&node, "/ID")))
            .query("version", version)
            .json(&spec)
            .done()
            .await;
        match sent {
            Err(ClientError::Refused { message, .. })
                if message.contains("out of sequence") && tries < EDITS => {}
            sent => return sent.map(|()| true).map_err(Failure::from),
        }
    }
}

async fn change_role(session: &Session, nodes: &[String], role: &str) -> Result<(), Failure> {
    session
        .each(nodes, async |name| {
            let changed = edit(session, name, |spec| {
                spec["Role"] = json!(role);
                Ok(())
            })
            .await?;
            Ok(match (changed, role) {
                (true, "manager") => format!("Node {name} promoted to a manager in the swarm."),
                (true, _) => format!("Manager {name} demoted in the swarm."),
                (false, role) => format!("Node {name} is already a {role}."),
            })
        })
        .await
}

async fn update(session: &Session, args: UpdateArgs) -> Result<(), Failure> {
    edit(session, &args.node, |spec| apply(spec, &args)).await?;
    session.line(&args.node)
}

fn apply(spec: &mut Value, args: &UpdateArgs) -> Result<(), Failure> {
    if let Some(role) = &args.role {
        if !matches!(role.as_str(), "worker" | "manager") {
            return Err(Failure::new(format!(
                "--role {role:?}: use worker or manager"
            )));
        }
        spec["Role"] = json!(role);
    }
    if let Some(word) = &args.availability {
        if !matches!(word.as_str(), "active" | "pause" | "drain") {
            return Err(Failure::new(format!(
                "--availability {word:?}: use active, pause or drain"
            )));
        }
        spec["Availability"] = json!(word);
    }
    if args.label_add.is_empty() && args.label_rm.is_empty() {
        return Ok(());
    }
    let mut labels: Map<String, Value> = spec["Labels"].as_object().cloned().unwrap_or_default();
    for key in &args.label_rm {
        if labels.remove(key).is_none() {
            return Err(Failure::new(format!(
                "key {key} doesn't exist in node's labels"
            )));
        }
    }
    for pair in &args.label_add {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        labels.insert(key.to_owned(), json!(value));
    }
    spec["Labels"] = Value::Object(labels);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        let nodes = json!([
            {"ID": "worker2idworker2idworker2", "Spec": {"Availability": "drain", "Role": "worker"},
             "Description": {"Hostname": "worker10", "Engine": {"EngineVersion": "0.1.0"}}, "Status": {"State": "down"}},
            {"ID": "managerxidmanagerxidmanag", "Spec": {"Availability": "active", "Role": "manager"},
             "Description": {"Hostname": "manager01", "Engine": {"EngineVersion": "0.1.0"}}, "Status": {"State": "ready"},
             "ManagerStatus": {"Leader": true, "Reachability": "reachable", "Addr": "10.0.0.1:2377"}},
            {"ID": "worker1idworker1idworker1", "Spec": {"Availability": "active", "Role": "worker"},
             "Description": {"Hostname": "worker2", "Engine": {"EngineVersion": "0.1.0"}}, "Status": {"State": "ready"}},
        ]);
        let info = json!({"Swarm": {"NodeID": "managerxidmanagerxidmanag"}});
        insta::assert_snapshot!(NODES.render(&rows(&nodes, &info), None, false).unwrap(), @r"
        ID                            HOSTNAME    STATUS    AVAILABILITY   MANAGER STATUS   ENGINE VERSION
        managerxidmanagerxidmanag *   manager01   Ready     Active         Leader           0.1.0
        worker1idworker1idworker1     worker2     Ready     Active                          0.1.0
        worker2idworker2idworker2     worker10    Down      Drain                           0.1.0
        ");
    }

    #[test]
    fn edits() {
        let args = |words: &[&str]| {
            use clap::Parser;
            #[derive(Parser)]
            struct Only {
                #[command(flatten)]
                args: UpdateArgs,
            }
            Only::parse_from([&["x"], words].concat()).args
        };
        let mut spec = json!({"Role": "worker", "Availability": "active", "Labels": {"a": "1"}});
        apply(
            &mut spec,
            &args(&[
                "--label-add",
                "b=2",
                "--label-rm",
                "a",
                "--availability",
                "drain",
                "n",
            ]),
        )
        .unwrap();
        assert_eq!(
            spec,
            json!({"Role": "worker", "Availability": "drain", "Labels": {"b": "2"}})
        );
        assert!(apply(&mut spec, &args(&["--label-rm", "zzz", "n"])).is_err());
        assert!(apply(&mut spec, &args(&["--role", "king", "n"])).is_err());
    }
}
