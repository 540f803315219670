//! Variables and labels: from the file itself and from files it names.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::{Cx, flag, texts};
use crate::compose::dotenv;
use crate::compose::merge::as_map;
use crate::compose::node::Node;
use crate::compose::problem::Problem;

/// A `KEY=VALUE` list or a mapping; a key alone has an empty value.
pub fn pairs(node: Option<&Node>, path: &'static str) -> Map<String, Json> {
    let Some(node) = node else {
        return Map::new();
    };
    as_map(node, path)
        .entries()
        .iter()
        .map(|e| {
            (
                e.key.clone(),
                Json::from(e.value.text().unwrap_or_default()),
            )
        })
        .collect()
}

/// `Env`: env_file first, then environment, sorted. A name without a value takes it from the
/// environment; one that is not set there goes as a bare name, as Docker sends it.
pub fn variables(cx: &Cx<'_>, service: &Node, path: &str) -> Result<Vec<String>, Problem> {
    let mut all: BTreeMap<String, Option<String>> = BTreeMap::new();
    if let Some(files) = service.get("env_file") {
        let files = if files.is_list() {
            files.items()
        } else {
            std::slice::from_ref(files)
        };
        for (index, file) in files.iter().enumerate() {
            all.extend(env_file(cx, file, &format!("{path}.env_file[{index}]"))?);
        }
    }
    if let Some(node) = service.get("environment") {
        for entry in as_map(node, "services.*.environment").entries() {
            let value = match entry.value.text() {
                Some(text) => Some(text.to_owned()),
                None => cx.around.variables.get(&entry.key).cloned(),
            };
            if entry.key.is_empty() {
                return Err(Problem::new(
                    entry.at,
                    &format!("{path}.environment"),
                    "a name is missing before the =",
                ));
            }
            all.insert(entry.key.clone(), value);
        }
    }
    let lines = all.into_iter().map(|(name, value)| match value {
        Some(value) => format!("{name}={value}"),
        None => name,
    });
    Ok(lines.collect())
}

fn env_file(cx: &Cx<'_>, file: &Node, path: &str) -> Result<Vec<dotenv::Pair>, Problem> {
    let name = if file.is_map() {
        file.get("path")
    } else {
        Some(file)
    };
    let Some(name) = name else {
        return Err(Problem::new(file.at, path, "the path is missing"));
    };
    let optional = file.get("required").is_some_and(|n| !flag(Some(n)));
    let bytes = match cx.read(name, path) {
        Ok(bytes) => bytes,
        Err(_) if optional => return Ok(Vec::new()),
        Err(problem) => return Err(problem),
    };
    let text = String::from_utf8(bytes)
        .map_err(|_| Problem::new(name.at, path, "the file is not UTF-8 text"))?;
    let lookup = |name: &str| cx.around.variables.get(name).cloned();
    let pairs = match file.text_of("format") {
        Some("raw") => dotenv::parse_raw(&text),
        _ => dotenv::parse(&text, &lookup),
    };
    let pairs = pairs.map_err(|bad| {
        let shown = name.text().unwrap_or_default();
        Problem::new(
            name.at,
            path,
            format!("{shown}, line {}: {}", bad.line, bad.message),
        )
    })?;
    Ok(pairs
        .into_iter()
        .map(|(name, value)| {
            let value = value.or_else(|| lookup(&name));
            (name, value)
        })
        .collect())
}

/// Labels of the containers: label_file first, then labels.
pub fn labels(cx: &Cx<'_>, service: &Node, path: &str) -> Result<Map<String, Json>, Problem> {
    let mut all = Map::new();
    if let Some(node) = service.get("label_file") {
        for (index, _) in texts(Some(node)).iter().enumerate() {
            let file = if node.is_list() {
                &node.items()[index]
            } else {
                node
            };
            let pairs = env_file(cx, file, &format!("{path}.label_file"))?;
            all.extend(
                pairs
                    .into_iter()
                    .map(|(k, v)| (k, Json::from(v.unwrap_or_default()))),
            );
        }
    }
    all.extend(cx.labels(service.get("labels"), "services.*.labels"));
    Ok(all)
}
