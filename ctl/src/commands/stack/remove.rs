//! `stack rm`.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::of_stack;
use crate::commands::text;
use crate::compose::convert::stack_name;
use crate::failure::Failure;
use crate::session::Session;

/// Looking whether the tasks are gone: no event tells of tasks.
const PAUSE: Duration = Duration::from_millis(200);

/// Remove stacks: their services, secrets, configs and networks
///
/// Volumes stay.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl stack rm echo")]
pub struct RmArgs {
    /// Return at once instead of waiting until the tasks have stopped (default true)
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = crate::flags::boolean)]
    detach: Option<bool>,
    /// Names of stacks
    #[arg(value_name = "STACK", required = true)]
    stacks: Vec<String>,
}

/// `stack rm`.
pub async fn rm(session: &Session, args: RmArgs) -> Result<(), Failure> {
    let mut failures = Vec::new();
    for name in &args.stacks {
        if let Err(failure) = remove(session, name, args.detach == Some(false)).await {
            failures.push(failure.text().to_owned());
        }
    }
    if failures.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(failures.join("\n")))
    }
}

async fn remove(session: &Session, name: &str, wait: bool) -> Result<(), Failure> {
    stack_name(name).map_err(|problem| Failure::new(problem.message))?;
    let client = session.client().await?;
    let filters = of_stack(name);
    let list = async |path: &str| -> Result<Vec<Value>, Failure> {
        let value = client.get(path).filters(&filters).value().await?;
        Ok(value.as_array().cloned().unwrap_or_default())
    };
    let services = list("/services").await?;
    let networks = list("/networks").await?;
    let secrets = list("/secrets").await?;
    let configs = list("/configs").await?;
    if services.is_empty() && networks.is_empty() && secrets.is_empty() && configs.is_empty() {
        session.note(&format!("Nothing found in stack: {name}"));
        return Ok(());
    }
    // What cannot be removed does not keep the rest.
    let mut failures = Vec::new();
    let mut note = |result: Result<(), Failure>| {
        if let Err(failure) = result {
            failures.push(failure.text().to_owned());
        }
    };
    for item in &services {
        note(service(session, item).await);
    }
    for (kind, items) in [("secret", &secrets), ("config", &configs)] {
        for item in items {
            note(one(session, kind, text(item, "/Spec/Name"), text(item, "/ID")).await);
        }
    }
    for item in &networks {
        note(one(session, "network", text(item, "/Name"), text(item, "/Id")).await);
    }
    if !failures.is_empty() {
        return Err(Failure::new(format!(
            "failed to remove some resources from stack {name}: {}",
            failures.join("; ")
        )));
    }
    if !wait {
        return Ok(());
    }
    loop {
        let tasks = client.get("/tasks").filters(&filters).value().await?;
        let mut left = tasks.as_array().into_iter().flatten();
        if !left.any(|task| !ended(text(task, "/Status/State"))) {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn ended(state: &str) -> bool {
    matches!(
        state,
        "complete" | "shutdown" | "failed" | "rejected" | "remove" | "orphaned"
    )
}

/// Removes one service and says so.
pub async fn service(session: &Session, service: &Value) -> Result<(), Failure> {
    one(
        session,
        "service",
        text(service, "/Spec/Name"),
        text(service, "/ID"),
    )
    .await
}

async fn one(session: &Session, kind: &str, name: &str, id: &str) -> Result<(), Failure> {
    session.line(&format!("Removing {kind} {name}"))?;
    let deleted = session
        .client()
        .await?
        .delete(format!("/{kind}s/{id}"))
        .done()
        .await;
    match deleted.map_err(Failure::from) {
        Err(failure) if !failure.is_not_found() => Err(Failure::new(format!(
            "failed to remove {kind} {name}: {}",
            failure.text()
        ))),
        _ => Ok(()),
    }
}
