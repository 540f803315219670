//! One service: its ServiceSpec.

use serde_json::{Value as Json, json};

use super::{
    Cx, DEPENDS_ON, Fields, IMAGE, Service, container, deploy, environment, networks, ports, text,
};
use crate::compose::merge::as_map;
use crate::compose::node::{Entry, Node};
use crate::compose::problem::Problem;
use crate::compose::suggest::nearest;
use crate::compose::value;
use crate::reference::Reference;

/// Converts one service.
pub fn service(cx: &mut Cx<'_>, entry: &Entry) -> Result<Service, Problem> {
    let path = format!("services.{}", entry.key);
    let node = &entry.value;
    let name = cx.scoped(&entry.key);
    valid_name(entry, &name, &path)?;
    let image = image(entry, &path)?;
    let depends_on = dependencies(cx, node, &path)?;
    let mut labels = cx.labels(
        node.get("deploy").and_then(|d| d.get("labels")),
        "services.*.deploy.labels",
    );
    labels.insert(IMAGE.to_owned(), json!(image));
    if !depends_on.is_empty() {
        let list: Vec<String> = depends_on
            .iter()
            .map(|(name, condition)| format!("{name}:{condition}"))
            .collect();
        labels.insert(DEPENDS_ON.to_owned(), json!(list.join(",")));
    }
    let mut task = Fields::default();
    task.put(
        "ContainerSpec",
        Some(container::container(cx, node, &image, &path)?),
    );
    task.put("LogDriver", Some(log_driver(node)));
    task.keep("Resources", deploy::resources(node, &path)?);
    task.put("RestartPolicy", Some(deploy::restart(node, &path)?));
    task.keep("Placement", deploy::placement(cx, node, &path)?);
    task.put(
        "Networks",
        Some(networks::attachments(cx, &entry.key, node, &path)?),
    );
    task.keep("ForceUpdate", json!(0));
    let published = ports::ports(cx, node, &path)?;
    let endpoint = node
        .get("deploy")
        .and_then(|d| d.text_of("endpoint_mode"))
        .unwrap_or_default();
    let at = node.get("ports").map_or(entry.at, |n| n.at);
    let mut spec = Fields::default();
    spec.put("Name", Some(name.clone()));
    spec.put("Labels", Some(labels));
    spec.put("TaskTemplate", Some(task.done()));
    spec.put("Mode", Some(deploy::mode(node, &path)?));
    spec.put("UpdateConfig", Some(deploy::update(node, "update_config")));
    spec.put(
        "RollbackConfig",
        Some(deploy::update(node, "rollback_config")),
    );
    spec.keep(
        "EndpointSpec",
        ports::with_mode(published, endpoint, at, &format!("{path}.ports"))?,
    );
    Ok(Service {
        name,
        short: entry.key.clone(),
        image,
        spec: spec.done(),
        depends_on,
    })
}

fn valid_name(entry: &Entry, name: &str, path: &str) -> Result<(), Problem> {
    let fine = entry.key.starts_with(|c: char| c.is_ascii_alphanumeric())
        && entry.key.ends_with(|c: char| c.is_ascii_alphanumeric())
        && entry
            .key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if !fine {
        let message = format!("{:?} is no name of a service", entry.key);
        return Err(Problem::new(entry.at, path, message).help("use letters, digits, - and _"));
    }
    if name.len() > 63 {
        let message = format!(
            "the full name {name:?} has {} characters; 63 are the limit",
            name.len()
        );
        return Err(Problem::new(entry.at, path, message));
    }
    Ok(())
}

fn image(entry: &Entry, path: &str) -> Result<String, Problem> {
    let Some(node) = entry.value.get("image") else {
        let problem = Problem::new(entry.at, path, "image is missing");
        return Err(if entry.value.get("build").is_some() {
            problem.help("build the image, push it to a registry that every host reaches, and name it with image:")
        } else {
            problem.help("name the image that the service runs")
        });
    };
    let image = node.text().unwrap_or_default();
    Reference::parse(image).map_err(|m| Problem::new(node.at, &format!("{path}.image"), m))?;
    Ok(image.to_owned())
}

fn dependencies(
    cx: &mut Cx<'_>,
    node: &Node,
    path: &str,
) -> Result<Vec<(String, &'static str)>, Problem> {
    let Some(given) = node.get("depends_on") else {
        return Ok(Vec::new());
    };
    let path = format!("{path}.depends_on");
    let known = cx
        .root
        .get("services")
        .map(Node::entries)
        .unwrap_or_default();
    let mut list = Vec::new();
    for entry in as_map(given, "services.*.depends_on").entries() {
        let optional = entry
            .value
            .text_of("required")
            .is_some_and(|t| value::boolean(t) == Ok(false));
        let there = known.iter().find(|e| e.key == entry.key);
        if there.is_none_or(|e| e.value.get("provider").is_some()) {
            if optional || there.is_some() {
                cx.warn(
                    entry.at,
                    format!(
                        "{path}: {} is not waited for: it is not part of the stack",
                        entry.key
                    ),
                );
                continue;
            }
            if cx.inactive.contains(&entry.key) {
                let message = format!(
                    "the service \"{}\" is left out: none of its profiles is active",
                    entry.key
                );
                return Err(Problem::new(entry.at, &path, message)
                    .help("name its profile with --profile, or say required: false"));
            }
            let problem = Problem::new(
                entry.at,
                &path,
                format!("there is no service \"{}\"", entry.key),
            );
            return Err(
                match nearest(&entry.key, known.iter().map(|e| e.key.as_str())) {
                    Some(near) => problem.help(format!("did you mean {near}?")),
                    None => problem,
                },
            );
        }
        let condition = match entry.value.text_of("condition") {
            Some("service_healthy") => "healthy",
            Some("service_completed_successfully") => "completed",
            _ => "started",
        };
        list.push((cx.scoped(&entry.key), condition));
    }
    Ok(list)
}

fn log_driver(node: &Node) -> Json {
    let Some(logging) = node.get("logging") else {
        return Json::Null;
    };
    let mut fields = Fields::default();
    fields.put("Name", text(logging, "driver"));
    fields.put(
        "Options",
        Some(environment::pairs(
            logging.get("options"),
            "services.*.logging.options",
        )),
    );
    fields.done()
}
