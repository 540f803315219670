//! Secrets and configs: what a service is given, and what is to be created.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::{Cx, Fields, Kind, Object, environment, int, text};
use crate::compose::node::{Entry, Node, Place};
use crate::compose::problem::Problem;

/// `ContainerSpec.Secrets` or `.Configs`, with names of first versions and without ids.
pub fn grants(cx: &Cx<'_>, service: &Node, kind: Kind, path: &str) -> Result<Vec<Json>, Problem> {
    let section = section(kind);
    let mut all: Vec<Json> = Vec::new();
    for (index, item) in service
        .get(section)
        .map(Node::items)
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        let path = format!("{path}.{section}[{index}]");
        let Some(source) = item.text().or_else(|| item.text_of("source")) else {
            return Err(Problem::new(item.at, &path, "source is missing"));
        };
        let found = cx.definition(section, source, item.at, &path)?;
        let target = text(item, "target").unwrap_or_else(|| source.to_owned());
        let file = json!({
            "Name": target,
            "UID": text(item, "uid").unwrap_or_else(|| "0".to_owned()),
            "GID": text(item, "gid").unwrap_or_else(|| "0".to_owned()),
            "Mode": int(item, "mode").unwrap_or(0o444),
        });
        if all
            .iter()
            .any(|other| other["File"]["Name"] == file["Name"])
        {
            return Err(Problem::new(
                item.at,
                &path,
                format!("two {section} have the target {target:?}"),
            ));
        }
        let name = match kind {
            Kind::Secret => "SecretName",
            Kind::Config => "ConfigName",
        };
        all.push(json!({"File": file, name: found.name}));
    }
    Ok(all)
}

/// The key of the kind in a compose file.
pub fn section(kind: Kind) -> &'static str {
    match kind {
        Kind::Secret => "secrets",
        Kind::Config => "configs",
    }
}

/// Those to create, and those that must exist.
pub fn wanted(cx: &mut Cx<'_>) -> (Vec<Object>, Vec<(Kind, String, Place)>) {
    let (mut objects, mut external) = (Vec::new(), Vec::new());
    let root = cx.root;
    let mut names: BTreeMap<(Kind, String), Place> = BTreeMap::new();
    for kind in [Kind::Secret, Kind::Config] {
        for entry in root
            .get(section(kind))
            .map(Node::entries)
            .unwrap_or_default()
        {
            let found = cx.defined(entry);
            let (name, outside) = (found.name, found.external);
            if outside {
                external.push((kind, name, entry.at));
                continue;
            }
            let path = format!("{}.{}", section(kind), entry.key);
            if let Some(other) = names.insert((kind, name.clone()), entry.at) {
                let message = format!("two {} have the name {name:?}", section(kind));
                cx.problems
                    .push(Problem::new(entry.at, &path, message).and(other));
                continue;
            }
            match object(cx, entry, kind, name, &path) {
                Ok(object) => objects.push(object),
                Err(problem) => cx.problems.push(problem),
            }
        }
    }
    (objects, external)
}

fn object(
    cx: &Cx<'_>,
    entry: &Entry,
    kind: Kind,
    name: String,
    path: &str,
) -> Result<Object, Problem> {
    let node = &entry.value;
    let ways: Vec<&str> = ["file", "content", "environment", "driver"]
        .into_iter()
        .filter(|way| node.get(way).is_some())
        .collect();
    let content = match ways.as_slice() {
        [way] => {
            let at = node.get(way).map_or(entry.at, |n| n.at);
            let given = node.text_of(way).unwrap_or_default();
            match *way {
                "file" => node
                    .get("file")
                    .map(|file| cx.read(file, &format!("{path}.file")))
                    .transpose()?,
                "content" => Some(given.as_bytes().to_vec()),
                "environment" => {
                    let Some(value) = cx.around.variables.get(given) else {
                        let message = format!("the variable {given} is not set");
                        return Err(Problem::new(at, &format!("{path}.environment"), message)
                            .help(format!("set {given} in the environment or in a .env file")));
                    };
                    Some(value.as_bytes().to_vec())
                }
                _ => None,
            }
        }
        [] => {
            return Err(Problem::new(
                entry.at,
                path,
                format!("the {} has no content", kind.word()),
            )
            .help("give it file, content or environment, or say external: true"));
        }
        several => {
            let message = format!("{} exclude one another", several.join(" and "));
            return Err(Problem::new(entry.at, path, message).help("keep one of them"));
        }
    };
    let limit = match kind {
        Kind::Secret => 500 << 10,
        Kind::Config => 1000 << 10,
    };
    match content.as_ref().map(Vec::len) {
        Some(0) => {
            return Err(Problem::new(
                entry.at,
                path,
                format!("the {} is empty", kind.word()),
            ));
        }
        Some(length) if length >= limit => {
            let message = format!(
                "the {} has {length} bytes; it must be smaller than {limit}",
                kind.word()
            );
            return Err(Problem::new(entry.at, path, message));
        }
        _ => {}
    }
    let labels = match kind {
        Kind::Secret => "secrets.*.labels",
        Kind::Config => "configs.*.labels",
    };
    let mut spec = Fields::default();
    spec.put("Labels", Some(cx.labels(node.get("labels"), labels)));
    if let Some(driver) = node.text_of("driver") {
        let options = environment::pairs(node.get("driver_opts"), "secrets.*.driver_opts");
        spec.put("Driver", Some(json!({"Name": driver, "Options": options})));
    }
    if let Some(driver) = node.text_of("template_driver") {
        spec.put("Templating", Some(json!({"Name": driver})));
    }
    Ok(Object {
        kind,
        name,
        content,
        spec: spec.done(),
    })
}
