//! `service create`.

use std::fmt::Write as _;

use clap::Args;
use serde_json::{Value, json};

use super::lookup::{Wanted, look_up};
use super::send;
use crate::commands::text;
use crate::failure::Failure;
use crate::flags::service::CreateFlags;
use crate::output::Listing;
use crate::progress::{self, Asked};
use crate::session::Session;

/// Create a service
///
/// Its tasks are placed on the hosts of the cluster, found by name through one virtual address,
/// restarted when they fail and moved when their host does.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ovnctl service create --replicas 6 --publish 8000:8080 --name echo registry:5000/example/echo:latest\n  ovnctl service create --name api --network ch03 --constraint node.role==worker --secret db-password api:1\n  ovnctl service create --mode global --mount type=bind,source=/var/log,target=/logs,readonly --name logs shipper:2\n  ovnctl service create --mode replicated-job --replicas 10 --max-concurrent 2 --name report report:1\n  ovnctl service create --dry-run --replicas 12 --reserve-memory 1g --name big app:1"
)]
pub struct CreateArgs {
    /// Do not wait until the tasks run
    #[arg(short, long)]
    detach: bool,
    /// Only say where the tasks would go, and why not elsewhere
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    flags: CreateFlags,
    /// Do not ask the registry for the image's digest and platforms
    #[arg(long)]
    no_resolve_image: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// Let the hosts pull with your credentials of the registry
    #[arg(long)]
    with_registry_auth: bool,
    /// Image to run
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Command and arguments in the container
    #[arg(
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<String>,
}

/// `service create`.
pub async fn create(session: &Session, args: CreateArgs) -> Result<(), Failure> {
    let flags = &args.flags;
    let wanted = Wanted {
        networks: flags.networks(),
        secrets: flags.secret.iter().map(|s| s.source.clone()).collect(),
        configs: flags.config.iter().map(|c| c.source.clone()).collect(),
    };
    // What is wrong in itself is told before anything is asked.
    flags.check()?;
    let references = look_up(session, &wanted).await?;
    let image = send::with_tag(&args.image);
    let mut spec = flags.spec(&image, &args.command, &session.surroundings, &references)?;
    let auth = if args.with_registry_auth {
        Some(send::credentials(session, &args.image)?)
    } else {
        None
    };
    if !args.no_resolve_image {
        send::pin(session, &mut spec, auth.as_deref()).await?;
    }
    if args.dry_run {
        return dry_run(session, &spec).await;
    }
    let id = send::create(session, &spec, auth.as_deref()).await?;
    session.line(&id)?;
    if args.detach {
        return Ok(());
    }
    progress::show(session, &id, Asked::Change, args.quiet).await
}

const PLACES: Listing = Listing {
    columns: "{{.Slot}}\t{{.Node}}\t{{.NodeID}}",
    headings: &[("Slot", "SLOT"), ("Node", "NODE"), ("NodeID", "NODE ID")],
    quiet: "{{.Node}}",
};

async fn dry_run(session: &Session, spec: &Value) -> Result<(), Failure> {
    let answer = session
        .client()
        .await?
        .post("/services/create")
        .query("dryRun", 1)
        .json(spec)
        .value()
        .await?;
    if !text(&answer, "/ID").is_empty() {
        return Err(Failure::new(format!(
            "this daemon does not know --dry-run and has created service {}: remove it with ovnctl service rm {0}",
            text(&answer, "/ID")
        )));
    }
    session.print(&places(&answer)?)
}

/// Where tasks would go, and those that would wait with the reason.
fn places(answer: &Value) -> Result<String, Failure> {
    let rows: Vec<Value> = answer["Assignments"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|place| {
            json!({
                "Slot": place["Slot"].as_u64().filter(|slot| *slot > 0).map_or_else(String::new, |slot| slot.to_string()),
                "Node": text(place, "/Hostname"),
                "NodeID": text(place, "/NodeID"),
            })
        })
        .collect();
    let mut told = if rows.is_empty() {
        String::new()
    } else {
        PLACES.render(&rows, None, false)?
    };
    for waiting in answer["Unplaced"].as_array().into_iter().flatten() {
        let count = waiting["Count"].as_u64().unwrap_or(0);
        let tasks = if count == 1 { "task" } else { "tasks" };
        let _ = writeln!(
            told,
            "{count} {tasks} would wait: {}",
            text(waiting, "/Reason")
        );
    }
    if told.is_empty() {
        told.push_str("no task would be made\n");
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dry_run_says() {
        let answer = json!({
            "Assignments": [
                {"Slot": 1, "NodeID": "n1", "Hostname": "worker01"},
                {"Slot": 2, "NodeID": "n2", "Hostname": "worker02"},
            ],
            "Unplaced": [{"Count": 4, "Reason": "no suitable node (insufficient resources on 2 nodes)"}],
        });
        insta::assert_snapshot!(places(&answer).unwrap(), @r"
        SLOT      NODE       NODE ID
        1         worker01   n1
        2         worker02   n2
        4 tasks would wait: no suitable node (insufficient resources on 2 nodes)
        ");
        assert_eq!(places(&json!({})).unwrap(), "no task would be made\n");
    }
}
