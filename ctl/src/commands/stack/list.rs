//! `stack ls`, `stack ps`, `stack services`.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};

use crate::commands::service::{SERVICES, rows, with_status};
use crate::commands::tasks::{TaskListFlags, resolve_node_filter, show};
use crate::commands::{ListFlags, natural_key};
use crate::compose::convert::{NAMESPACE, stack_name};
use crate::failure::Failure;
use crate::flags::Filters;
use crate::output::Listing;
use crate::session::Session;

/// List stacks
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl stack ls --format '{{.Name}} {{.Services}}'")]
pub struct LsArgs {
    /// table, 'table TEMPLATE', json, or a Go template such as '{{.Name}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// List the tasks of a stack
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl stack ps echo --filter desired-state=running")]
pub struct PsArgs {
    #[command(flatten)]
    list: TaskListFlags,
    /// Name of the stack
    #[arg(value_name = "STACK")]
    stack: String,
}

/// List the services of a stack
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl stack services echo")]
pub struct ServicesArgs {
    #[command(flatten)]
    list: ListFlags,
    /// Name of the stack
    #[arg(value_name = "STACK")]
    stack: String,
}

const STACKS: Listing = Listing {
    columns: "{{.Name}}\t{{.Services}}",
    headings: &[("Name", "NAME"), ("Services", "SERVICES")],
    quiet: "{{.Name}}",
};

/// `stack ls`.
pub async fn ls(session: &Session, args: LsArgs) -> Result<(), Failure> {
    let mut filters = Filters::default();
    filters.add("label", NAMESPACE);
    let services = session
        .client()
        .await?
        .get("/services")
        .filters(&filters)
        .value()
        .await?;
    let rows = stacks(&services);
    session.print(&STACKS.render(&rows, args.format.as_deref(), false)?)
}

/// Stacks with their number of services, sorted as people count.
fn stacks(services: &Value) -> Vec<Value> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for service in services.as_array().into_iter().flatten() {
        if let Some(name) = service["Spec"]["Labels"][NAMESPACE].as_str() {
            *counts.entry(name).or_default() += 1;
        }
    }
    let mut stacks: Vec<(&str, u64)> = counts.into_iter().collect();
    stacks.sort_by_key(|(name, _)| natural_key(name));
    let row = |(name, count): (&str, u64)| json!({"Name": name, "Services": count.to_string()});
    stacks.into_iter().map(row).collect()
}

/// `stack ps`.
pub async fn ps(session: &Session, args: PsArgs) -> Result<(), Failure> {
    stack_name(&args.stack).map_err(|problem| Failure::new(problem.message))?;
    let mut filters = Filters::parse(&args.list.filter)?;
    filters.add("label", &format!("{NAMESPACE}={}", args.stack));
    resolve_node_filter(session, &mut filters).await?;
    let tasks = session
        .client()
        .await?
        .get("/tasks")
        .filters(&filters)
        .value()
        .await?;
    if tasks.as_array().is_none_or(Vec::is_empty) {
        return Err(Failure::new(format!(
            "nothing found in stack: {}",
            args.stack
        )));
    }
    show(session, &tasks, &args.list).await
}

/// `stack services`.
pub async fn services(session: &Session, args: ServicesArgs) -> Result<(), Failure> {
    stack_name(&args.stack).map_err(|problem| Failure::new(problem.message))?;
    let mut filters = Filters::parse(&args.list.filter)?;
    filters.add("label", &format!("{NAMESPACE}={}", args.stack));
    let call = session
        .client()
        .await?
        .get("/services")
        .filters(&filters)
        .query("status", "true");
    let services = call.value().await?;
    if services.as_array().is_none_or(Vec::is_empty) {
        session.note(&format!("Nothing found in stack: {}", args.stack));
        return Ok(());
    }
    let services = if args.list.quiet {
        services
    } else {
        with_status(session, services).await?
    };
    let format = session.format(
        args.list.format.as_deref(),
        "servicesFormat",
        args.list.quiet,
    )?;
    session.print(&SERVICES.render(&rows(&services), format.as_deref(), args.list.quiet)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_counted_by_label() {
        let of = |stack: &str| json!({"Spec": {"Labels": {NAMESPACE: stack}}});
        let services = json!([of("web10"), of("web2"), of("web10"), {"Spec": {"Labels": {}}}]);
        insta::assert_snapshot!(STACKS.render(&stacks(&services), None, false).unwrap(), @r"
        NAME      SERVICES
        web2      1
        web10     2
        ");
    }
}
