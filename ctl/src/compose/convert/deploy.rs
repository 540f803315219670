//! `deploy`: mode, resources, restarts, placement, updates.

use serde_json::{Value as Json, json};

use super::{Cx, Fields, duration, int, number, size, text, texts};
use crate::compose::node::Node;
use crate::compose::problem::Problem;
use crate::compose::value;

/// `Mode`.
pub fn mode(service: &Node, path: &str) -> Result<Json, Problem> {
    let deploy = service.get("deploy");
    let given = deploy
        .and_then(|d| d.get("replicas"))
        .or_else(|| service.get("scale"));
    let replicas = given
        .and_then(Node::text)
        .and_then(|t| value::count(t).ok());
    let word = deploy
        .and_then(|d| d.text_of("mode"))
        .unwrap_or("replicated");
    match (word, given) {
        ("global" | "global-job", Some(node)) => {
            let message = format!(
                "replicas have no meaning with mode: {word}, which runs one task on each host"
            );
            Err(
                Problem::new(node.at, &format!("{path}.deploy.replicas"), message)
                    .help("leave replicas out, or use mode: replicated"),
            )
        }
        ("global", None) => Ok(json!({"Global": {}})),
        ("global-job", None) => Ok(json!({"GlobalJob": {}})),
        ("replicated-job", _) => {
            let count = replicas.unwrap_or(1);
            Ok(json!({"ReplicatedJob": {"MaxConcurrent": count, "TotalCompletions": count}}))
        }
        _ => Ok(json!({"Replicated": {"Replicas": replicas.unwrap_or(1)}})),
    }
}

/// `TaskTemplate.Resources`.
pub fn resources(service: &Node, path: &str) -> Result<Json, Problem> {
    let resources = service.get("deploy").and_then(|d| d.get("resources"));
    let limits = resources.and_then(|r| r.get("limits"));
    let reserved = resources.and_then(|r| r.get("reservations"));
    let cpus = |node: Option<&Node>, key: &str| match node {
        Some(node) => {
            let text = node.text().unwrap_or_default();
            value::nano_cpus(text)
                .map(Some)
                .map_err(|m| Problem::new(node.at, &format!("{path}.{key}"), m))
        }
        None => Ok(None),
    };
    let of = |node: Option<&Node>, key: &str| node.and_then(|n| size(n, key));
    let mut limit = Fields::default();
    let nanos = cpus(
        limits
            .and_then(|l| l.get("cpus"))
            .or_else(|| service.get("cpus")),
        "deploy.resources.limits.cpus",
    )?;
    limit.put("NanoCPUs", nanos);
    limit.put(
        "MemoryBytes",
        of(limits, "memory").or_else(|| size(service, "mem_limit")),
    );
    let pids = limits
        .and_then(|l| int(l, "pids"))
        .or_else(|| int(service, "pids_limit"));
    limit.put("Pids", pids.filter(|p| *p > 0));
    let mut reserve = Fields::default();
    reserve.put(
        "NanoCPUs",
        cpus(
            reserved.and_then(|r| r.get("cpus")),
            "deploy.resources.reservations.cpus",
        )?,
    );
    reserve.put(
        "MemoryBytes",
        of(reserved, "memory").or_else(|| size(service, "mem_reservation")),
    );
    let generic: Vec<Json> = reserved
        .and_then(|r| r.get("generic_resources"))
        .map(Node::items)
        .unwrap_or_default()
        .iter()
        .filter_map(|item| {
            let spec = item.get("discrete_resource_spec")?;
            Some(json!({"DiscreteResourceSpec": {"Kind": text(spec, "kind")?, "Value": int(spec, "value")?}}))
        })
        .collect();
    reserve.put("GenericResources", Some(generic));
    let mut all = Fields::default();
    all.put("Limits", Some(limit.done()))
        .put("Reservations", Some(reserve.done()));
    Ok(all.done())
}

/// `TaskTemplate.RestartPolicy`: deploy.restart_policy, else what `restart` says.
pub fn restart(service: &Node, path: &str) -> Result<Json, Problem> {
    let mut fields = Fields::default();
    if let Some(policy) = service.get("deploy").and_then(|d| d.get("restart_policy")) {
        fields.put("Condition", text(policy, "condition"));
        fields.put("Delay", duration(policy, "delay"));
        fields.put("MaxAttempts", int(policy, "max_attempts"));
        fields.put("Window", duration(policy, "window"));
        return Ok(fields.done());
    }
    let Some(node) = service.get("restart") else {
        return Ok(Json::Null);
    };
    let word = node.text().unwrap_or_default();
    let (name, attempts) = word
        .split_once(':')
        .map_or((word, None), |(n, a)| (n, Some(a)));
    let bad = || {
        Problem::new(
            node.at,
            &format!("{path}.restart"),
            format!("{word:?} is no restart policy"),
        )
        .help("use no, always, unless-stopped or on-failure[:N]")
    };
    match (name, attempts) {
        // `no` without quotes is a boolean to some writers of YAML.
        ("no" | "false" | "", None) => fields.put("Condition", Some("none")),
        ("always" | "unless-stopped", None) => fields.put("Condition", Some("any")),
        ("on-failure", attempts) => {
            let count = attempts
                .map(|a| a.parse::<u32>().map_err(|_| bad()))
                .transpose()?;
            fields
                .put("Condition", Some("on-failure"))
                .put("MaxAttempts", count)
        }
        _ => return Err(bad()),
    };
    Ok(fields.done())
}

/// `TaskTemplate.Placement`.
pub fn placement(cx: &mut Cx<'_>, service: &Node, path: &str) -> Result<Json, Problem> {
    let placement = service.get("deploy").and_then(|d| d.get("placement"));
    let constraints = texts(placement.and_then(|p| p.get("constraints")));
    for constraint in &constraints {
        if !constraint.contains("==") && !constraint.contains("!=") {
            let at = placement
                .and_then(|p| p.get("constraints"))
                .map_or(service.at, |n| n.at);
            let message = format!("{constraint:?} is no constraint");
            return Err(
                Problem::new(at, &format!("{path}.deploy.placement.constraints"), message)
                    .help("write node.role == manager, or != for the contrary"),
            );
        }
    }
    let preferences: Vec<Json> = placement
        .and_then(|p| p.get("preferences"))
        .map(Node::items)
        .unwrap_or_default()
        .iter()
        .filter_map(|item| Some(json!({"Spread": {"SpreadDescriptor": text(item, "spread")?}})))
        .collect();
    let platforms: Vec<Json> = service
        .get("platform")
        .and_then(Node::text)
        .map(|platform| {
            let mut parts = platform.split('/');
            let (os, architecture) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            if parts.next().is_some() {
                let message = format!("{path}.platform: the variant of {platform} is ignored: hosts are told apart by system and architecture");
                cx.warn(service.at, message);
            }
            json!({"Architecture": architecture, "OS": os})
        })
        .into_iter()
        .collect();
    let mut fields = Fields::default();
    fields
        .put("Constraints", Some(constraints))
        .put("Preferences", Some(preferences));
    fields.put(
        "MaxReplicas",
        placement.and_then(|p| int(p, "max_replicas_per_node")),
    );
    fields.put("Platforms", Some(platforms));
    Ok(fields.done())
}

/// `UpdateConfig` or `RollbackConfig`.
pub fn update(service: &Node, key: &str) -> Json {
    let Some(config) = service.get("deploy").and_then(|d| d.get(key)) else {
        return Json::Null;
    };
    let mut fields = Fields::default();
    fields.put("Parallelism", Some(int(config, "parallelism").unwrap_or(1)));
    fields.put("Delay", duration(config, "delay"));
    fields.put("FailureAction", text(config, "failure_action"));
    fields.put("Monitor", duration(config, "monitor"));
    fields.keep(
        "MaxFailureRatio",
        json!(number(config, "max_failure_ratio").unwrap_or(0.0)),
    );
    fields.put("Order", text(config, "order"));
    fields.done()
}
