//! `service ps`.

use clap::Args;
use serde_json::Value;

use crate::commands::tasks::{TaskListFlags, resolve_node_filter, show};
use crate::commands::text;
use crate::failure::Failure;
use crate::flags::Filters;
use crate::session::Session;

/// List the tasks of services
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ovnctl service ps echo\n  ovnctl service ps echo --filter desired-state=running --filter node=worker01\n  ovnctl service ps --no-trunc echo"
)]
pub struct PsArgs {
    #[command(flatten)]
    list: TaskListFlags,
    /// Names or ids of services
    #[arg(value_name = "SERVICE", required = true)]
    services: Vec<String>,
}

/// `service ps`.
pub async fn ps(session: &Session, args: PsArgs) -> Result<(), Failure> {
    let client = session.client().await?;
    let mut filters = Filters::parse(&args.list.filter)?;
    let ask = async |kind: &str| {
        let mut by = Filters::default();
        for name in &args.services {
            by.add(kind, name);
        }
        client.get("/services").filters(&by).value().await
    };
    let (by_id, by_name) = (ask("id").await?, ask("name").await?);
    let mut missing = Vec::new();
    let mut found = false;
    for name in &args.services {
        match choose(name, &by_id, &by_name)? {
            Some(id) => {
                found = true;
                filters.add("service", &id);
            }
            None => missing.push(format!("no such service: {name}")),
        }
    }
    if found {
        resolve_node_filter(session, &mut filters).await?;
        let tasks = client.get("/tasks").filters(&filters).value().await?;
        show(session, &tasks, &args.list).await?;
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(missing.join("\n")))
    }
}

/// The whole id, else the whole name, else the one id that begins so.
fn choose(name: &str, by_id: &Value, by_name: &Value) -> Result<Option<String>, String> {
    let each = |list: &Value| -> Vec<(String, String)> {
        list.as_array()
            .into_iter()
            .flatten()
            .map(|s| (text(s, "/ID").to_owned(), text(s, "/Spec/Name").to_owned()))
            .collect()
    };
    let (ids, names) = (each(by_id), each(by_name));
    let exact = ids
        .iter()
        .find(|(id, _)| id == name)
        .or_else(|| names.iter().find(|(_, n)| n == name));
    if let Some((id, _)) = exact {
        return Ok(Some(id.clone()));
    }
    let mut begins = ids.iter().filter(|(id, _)| id.starts_with(name));
    match (begins.next(), begins.next()) {
        (Some(_), Some(_)) => Err(format!(
            "multiple services found with provided prefix: {name}"
        )),
        (first, _) => Ok(first.map(|(id, _)| id.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn id_then_name_then_prefix() {
        let list = json!([
            {"ID": "abc1", "Spec": {"Name": "web"}},
            {"ID": "abd2", "Spec": {"Name": "abc1"}},
        ]);
        let cases = [
            ("abc1", Ok(Some("abc1"))),
            ("web", Ok(Some("abc1"))),
            ("abd", Ok(Some("abd2"))),
            ("we", Ok(None)),
            ("ab", Err(())),
        ];
        for (name, wanted) in cases {
            let chosen = choose(name, &list, &list).map_err(drop);
            assert_eq!(chosen, wanted.map(|id| id.map(str::to_owned)), "{name}");
        }
    }
}
