//! How many tasks of services run, for daemons that do not say.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::commands::text;
use crate::failure::Failure;
use crate::flags::Filters;
use crate::session::Session;

/// Services with their `ServiceStatus`; tasks and nodes are asked for only when one lacks it (API before 1.41).
pub async fn with_status(session: &Session, mut services: Value) -> Result<Value, Failure> {
    let lacking: Vec<String> = services
        .as_array()
        .into_iter()
        .flatten()
        .filter(|service| !service["ServiceStatus"].is_object())
        .map(|service| text(service, "/ID").to_owned())
        .collect();
    if lacking.is_empty() {
        return Ok(services);
    }
    let client = session.client().await?;
    let mut filters = Filters::default();
    for id in &lacking {
        filters.add("service", id);
    }
    let tasks = client.get("/tasks").filters(&filters).value().await?;
    let nodes = client.get("/nodes").value().await?;
    let list = services.as_array_mut();
    for service in list.into_iter().flatten() {
        if let Value::Object(fields) = service
            && !fields.get("ServiceStatus").is_some_and(Value::is_object)
        {
            let status = count(&Value::Object(fields.clone()), &tasks, &nodes);
            fields.insert("ServiceStatus".to_owned(), status);
        }
    }
    Ok(services)
}

fn count(service: &Value, tasks: &Value, nodes: &Value) -> Value {
    let up: BTreeSet<&str> = nodes
        .as_array()
        .into_iter()
        .flatten()
        .filter(|node| text(node, "/Status/State") != "down")
        .map(|node| text(node, "/ID"))
        .collect();
    let (mut running, mut desired) = (0, 0);
    let own = tasks
        .as_array()
        .into_iter()
        .flatten()
        .filter(|task| text(task, "/ServiceID") == text(service, "/ID"));
    for task in own {
        desired += u64::from(text(task, "/DesiredState") == "running");
        running += u64::from(
            text(task, "/Status/State") == "running" && up.contains(text(task, "/NodeID")),
        );
    }
    let replicas = service
        .pointer("/Spec/Mode/Replicated/Replicas")
        .and_then(Value::as_u64);
    json!({"RunningTasks": running, "DesiredTasks": replicas.unwrap_or(desired), "CompletedTasks": 0})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_on_lost_nodes_do_not_run() {
        let task = |node: &str, desired: &str, state: &str| json!({"ServiceID": "s", "NodeID": node, "DesiredState": desired, "Status": {"State": state}});
        let tasks = json!([
            task("a", "running", "running"),
            task("b", "running", "running"),
            task("a", "running", "preparing"),
            task("a", "shutdown", "shutdown"),
        ]);
        let nodes = json!([{"ID": "a", "Status": {"State": "ready"}}, {"ID": "b", "Status": {"State": "down"}}]);
        let global = json!({"ID": "s", "Spec": {"Mode": {"Global": {}}}});
        let replicated = json!({"ID": "s", "Spec": {"Mode": {"Replicated": {"Replicas": 5}}}});
        assert_eq!(
            count(&global, &tasks, &nodes),
            json!({"RunningTasks": 1, "DesiredTasks": 3, "CompletedTasks": 0})
        );
        assert_eq!(count(&replicated, &tasks, &nodes)["DesiredTasks"], 5);
    }
}
