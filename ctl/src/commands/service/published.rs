//! How the hosts see a service's published ports, for people.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::commands::{natural_key, text};

/// Hosts and tasks that a line names one by one.
const NAMED: usize = 6;

/// One paragraph for each port, and in it one line for all hosts that see it alike.
pub fn on_hosts(ports: &Value) -> String {
    let mut lines = vec!["Published on:".to_owned()];
    for port in array(ports) {
        lines.push(format!(" {} to {}", text(port, "/Port"), port["Target"]));
        let mut alike: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for host in array(&port["Hosts"]) {
            let hosts = alike.entry(sight(host)).or_default();
            hosts.push(text(host, "/Host/Name"));
        }
        for (sight, hosts) in alike {
            lines.push(format!("  {}: {sight}", some(hosts)));
        }
    }
    lines.join("\n") + "\n"
}

/// What one host says, without figures, so that hosts can be compared.
fn sight(host: &Value) -> String {
    let why: Vec<&str> = array(&host["Why"]).filter_map(Value::as_str).collect();
    let why = why.join("; ");
    let tasks = || some(array(&host["Tasks"]).map(task).collect());
    match text(host, "/State") {
        "leads" => format!("leads to {}", tasks()),
        "may-drop" => format!("leads to {}, if it lets it through: {why}", tasks()),
        "drops" => format!("does not reach all of {}: {why}", tasks()),
        "taken" => format!("does not have the port: {why}"),
        "refuses" => format!("refuses: {why}"),
        "elsewhere" => "does not publish it".to_owned(),
        _ => format!("not known: {why}"),
    }
}

fn task(way: &Value) -> &str {
    match text(way, "/Task") {
        "" => text(way, "/Address"),
        name => name,
    }
}

fn some(mut names: Vec<&str>) -> String {
    names.sort_by_cached_key(|name| natural_key(name));
    // A task has an address of each family.
    names.dedup();
    let shown = names[..names.len().min(NAMED)].join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn hosts_that_see_it_alike_share_a_line() {
        let host = |name: &str, state: &str, why: &[&str], tasks: &[&str]| {
            let tasks: Vec<_> = tasks
                .iter()
                .map(|task| json!({"Task": task, "Address": "10.0.0.9"}))
                .collect();
            json!({"Host": {"Name": name}, "State": state, "Why": why, "Tasks": tasks})
        };
        let many: Vec<String> = (0..8).map(|number| format!("w{number}")).collect();
        let mut hosts: Vec<Value> = many
            .iter()
            .map(|name| host(name, "leads", &[], &["web.10", "web.2", "web.2", ""]))
            .collect();
        hosts.push(host("x", "taken", &["it is already in use"], &["web.2"]));
        hosts.push(host("y", "elsewhere", &[], &[]));
        let ports = json!([{"Port": "8000/tcp", "Target": 8080, "Hosts": hosts}]);
        assert_eq!(
            on_hosts(&ports),
            "Published on:\n 8000/tcp to 8080\n  \
             x: does not have the port: it is already in use\n  \
             y: does not publish it\n  \
             w0, w1, w2, w3, w4, w5 and 2 more: leads to 10.0.0.9, web.2, web.10\n"
        );
    }
}
