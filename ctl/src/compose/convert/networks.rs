//! Networks: those of a service, those to create, those that must exist.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use super::{Cx, Fields, Network, environment, flag, text, texts};
use crate::compose::merge::as_map;
use crate::compose::node::{Node, Place};
use crate::compose::problem::Problem;

const DEFAULT: &str = "default";

/// The names in the file of the networks of a service, with their settings.
fn used(service: &Node) -> Vec<(String, Node, Place)> {
    if let Some(mode) = service.text_of("network_mode")
        && matches!(mode, "host" | "bridge" | "none")
    {
        return Vec::new();
    }
    let node = service
        .get("networks")
        .map(|n| as_map(n, "services.*.networks"));
    let entries = node.as_ref().map(Node::entries).unwrap_or_default();
    if entries.is_empty() {
        return vec![(
            DEFAULT.to_owned(),
            Node::new(crate::compose::node::Value::Null, service.at),
            service.at,
        )];
    }
    entries
        .iter()
        .map(|e| (e.key.clone(), e.value.clone(), e.at))
        .collect()
}

/// `TaskTemplate.Networks`, sorted by target as Docker sends them.
pub fn attachments(
    cx: &mut Cx<'_>,
    name: &str,
    service: &Node,
    path: &str,
) -> Result<Vec<Json>, Problem> {
    if let Some(mode) = service.get("network_mode") {
        let word = mode.text().unwrap_or_default();
        let key = format!("{path}.network_mode");
        if matches!(word, "host" | "bridge" | "none") {
            if let Some(networks) = service.get("networks") {
                return Err(Problem::new(
                    mode.at,
                    &key,
                    "network_mode and networks exclude one another",
                )
                .and(networks.at));
            }
            return Ok(vec![json!({"Target": word})]);
        }
        cx.warn(
            mode.at,
            format!(
                "{key} is ignored: \"{word}\" is about one container, and a service has several"
            ),
        );
    }
    let mut all = Vec::new();
    for (network, settings, at) in used(service) {
        let implied = network == DEFAULT
            && cx
                .root
                .get("networks")
                .is_none_or(|n| n.entry(DEFAULT).is_none());
        let target = if implied {
            cx.scoped(DEFAULT)
        } else {
            cx.definition("networks", &network, at, &format!("{path}.networks"))?
                .name
        };
        let mut fields = Fields::default();
        fields.put("Target", Some(target.clone()));
        if !matches!(target.as_str(), "host" | "bridge" | "none") {
            let mut aliases = texts(settings.get("aliases"));
            let named = settings.get("use_service_name_alias");
            if named.is_none_or(|n| n.is_null() || flag(Some(n))) {
                aliases.push(name.to_owned());
            }
            fields.put("Aliases", Some(json!(aliases)));
        }
        let options = environment::pairs(
            settings.get("driver_opts"),
            "services.*.networks.*.driver_opts",
        );
        fields.put("DriverOpts", Some(options));
        all.push(fields.done());
    }
    all.sort_by_key(|a| a["Target"].as_str().unwrap_or_default().to_owned());
    Ok(all)
}

/// Networks that at least one service uses: to create, and external ones.
pub fn wanted(cx: &mut Cx<'_>) -> (Vec<Network>, Vec<(String, Place)>) {
    let (mut create, mut external) = (Vec::new(), Vec::new());
    let root = cx.root;
    let services = root.get("services").map(Node::entries).unwrap_or_default();
    let names: BTreeSet<String> = services
        .iter()
        .filter(|e| e.value.get("provider").is_none())
        .flat_map(|e| used(&e.value))
        .map(|(name, ..)| name)
        .collect();
    let defined = root.get("networks").map(Node::entries).unwrap_or_default();
    if names.contains(DEFAULT) && !defined.iter().any(|e| e.key == DEFAULT) {
        let labels = cx.labels(None, "networks.*.labels");
        create.push(Network {
            name: cx.scoped(DEFAULT),
            body: json!({"Name": cx.scoped(DEFAULT), "Driver": "overlay", "Scope": "swarm", "Labels": labels}),
        });
    }
    for entry in defined {
        if !names.contains(&entry.key) {
            if !flag(entry.value.get("external")) {
                cx.warn(
                    entry.at,
                    format!("networks.{} is not created: no service uses it", entry.key),
                );
            }
            continue;
        }
        let found = cx.defined(entry);
        if found.external {
            external.push((found.name, entry.at));
            continue;
        }
        let body = body(cx, &found.name, &entry.value);
        create.push(Network {
            name: found.name,
            body,
        });
    }
    (create, external)
}

fn body(cx: &Cx<'_>, name: &str, node: &Node) -> Json {
    let mut fields = Fields::default();
    fields.put("Name", Some(name));
    fields.put(
        "Driver",
        Some(text(node, "driver").unwrap_or_else(|| "overlay".to_owned())),
    );
    fields.put("Scope", Some("swarm"));
    for (key, field) in [("internal", "Internal"), ("attachable", "Attachable")] {
        fields.put(field, flag(node.get(key)).then_some(true));
    }
    for (key, field) in [("enable_ipv4", "EnableIPv4"), ("enable_ipv6", "EnableIPv6")] {
        fields.put(field, node.get(key).map(|n| flag(Some(n))));
    }
    if let Some(ipam) = node.get("ipam") {
        let config: Vec<Json> = ipam
            .get("config")
            .map(Node::items)
            .unwrap_or_default()
            .iter()
            .map(|item| {
                let mut fields = Fields::default();
                fields
                    .put("Subnet", text(item, "subnet"))
                    .put("IPRange", text(item, "ip_range"))
                    .put("Gateway", text(item, "gateway"));
                let others = environment::pairs(
                    item.get("aux_addresses"),
                    "networks.*.ipam.config.[].aux_addresses",
                );
                fields.put("AuxiliaryAddresses", Some(others));
                fields.done()
            })
            .collect();
        let mut fields_of_ipam = Fields::default();
        fields_of_ipam.put("Driver", text(ipam, "driver"));
        fields_of_ipam.put(
            "Options",
            Some(environment::pairs(
                ipam.get("options"),
                "networks.*.ipam.options",
            )),
        );
        fields_of_ipam.put("Config", Some(config));
        fields.put("IPAM", Some(fields_of_ipam.done()));
    }
    fields.put(
        "Options",
        Some(environment::pairs(
            node.get("driver_opts"),
            "networks.*.driver_opts",
        )),
    );
    fields.put(
        "Labels",
        Some(cx.labels(node.get("labels"), "networks.*.labels")),
    );
    fields.done()
}
