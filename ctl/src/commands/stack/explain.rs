//! What a stack becomes, in words.

use std::fmt::Write as _;

use serde_json::Value;

use crate::commands::text;
use crate::compose::convert::{Service, Stack, port_shown};

/// The text of `stack config --explain`.
pub fn explain(stack: &Stack, inactive: &[String]) -> String {
    let mut out = format!("stack {}\n", stack.name);
    let mut order = Vec::new();
    for network in &stack.networks {
        let attachable = if network.body["Attachable"] == true {
            ", attachable"
        } else {
            ""
        };
        let _ = writeln!(
            out,
            "  network {}: {}{attachable}",
            network.name,
            text(&network.body, "/Driver")
        );
    }
    for (name, _) in &stack.external_networks {
        let _ = writeln!(out, "  network {name}: must exist");
    }
    for object in &stack.objects {
        let size = object
            .content
            .as_ref()
            .map_or("from its driver".to_owned(), |c| {
                format!("{} bytes", c.len())
            });
        let _ = writeln!(out, "  {} {}: {size}", object.kind.word(), object.name);
    }
    for (kind, name, _) in &stack.external_objects {
        let _ = writeln!(out, "  {} {name}: must exist", kind.word());
    }
    for service in &stack.services {
        order.push(service.name.as_str());
        explain_service(&mut out, service);
    }
    for name in inactive {
        let _ = writeln!(
            out,
            "  service {name}: left out, none of its profiles is active"
        );
    }
    let _ = writeln!(out, "  created in this order: {}", order.join(", "));
    out
}

fn explain_service(out: &mut String, service: &Service) {
    let spec = &service.spec;
    let task = &spec["TaskTemplate"];
    let container = &task["ContainerSpec"];
    let _ = writeln!(out, "  service {}", service.name);
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(out, "    {name}: {value}");
        }
    };
    line("image", service.image.clone());
    line("tasks", mode(&spec["Mode"]));
    line(
        "where",
        list(&task["Placement"]["Constraints"], |c| {
            c.as_str().map(str::to_owned)
        }),
    );
    line(
        "command",
        list(&container["Command"], |c| c.as_str().map(str::to_owned)),
    );
    line(
        "arguments",
        list(&container["Args"], |c| c.as_str().map(str::to_owned)),
    );
    // Values may be private: only the names.
    line(
        "variables",
        list(&container["Env"], |e| {
            Some(e.as_str()?.split('=').next()?.to_owned())
        }),
    );
    line(
        "networks",
        list(&task["Networks"], |n| {
            let aliases = list(&n["Aliases"], |a| a.as_str().map(str::to_owned));
            let target = text(n, "/Target");
            Some(if aliases.is_empty() {
                target.to_owned()
            } else {
                format!("{target} (also as {aliases})")
            })
        }),
    );
    line(
        "ports",
        list(&spec["EndpointSpec"]["Ports"], |p| Some(port_shown(p))),
    );
    line(
        "mounts",
        list(&container["Mounts"], |m| {
            let source = text(m, "/Source");
            let arrow = if source.is_empty() { "" } else { " -> " };
            let only = if m["ReadOnly"] == true {
                ", read only"
            } else {
                ""
            };
            Some(format!(
                "{} {source}{arrow}{}{only}",
                text(m, "/Type"),
                text(m, "/Target")
            ))
        }),
    );
    for (field, name, key) in [
        ("Secrets", "secrets", "/SecretName"),
        ("Configs", "configs", "/ConfigName"),
    ] {
        line(
            name,
            list(&container[field], |g| {
                Some(format!("{} as {}", text(g, key), text(g, "/File/Name")))
            }),
        );
    }
    let waits: Vec<String> = service
        .depends_on
        .iter()
        .map(|(name, what)| format!("{name} ({what})"))
        .collect();
    line("waits for", waits.join(", "));
}

fn list(value: &Value, one: impl Fn(&Value) -> Option<String>) -> String {
    let items = value.as_array().into_iter().flatten();
    let texts: Vec<String> = items.filter_map(one).collect();
    texts.join(", ")
}

fn mode(mode: &Value) -> String {
    let count = |pointer: &str| mode.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    match mode
        .as_object()
        .and_then(|m| m.keys().next())
        .map(String::as_str)
    {
        Some("Global") => "one on each host that fits".to_owned(),
        Some("GlobalJob") => "one on each host that fits, until it has ended".to_owned(),
        Some("ReplicatedJob") => format!(
            "{}, until all have ended",
            count("/ReplicatedJob/TotalCompletions")
        ),
        _ => count("/Replicated/Replicas").to_string(),
    }
}
