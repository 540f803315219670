//! `include`: files of their own folder and environment, beside the one that names them.

use std::path::{Path, PathBuf};

use super::{Loader, Variables, clean, folder};
use crate::compose::merge;
use crate::compose::node::{Node, Place, Value};
use crate::compose::problem::{Problem, Problems};

impl Loader<'_, '_> {
    /// What one entry of `include` brings.
    pub(super) fn include(
        &mut self,
        item: &Node,
        base: &Path,
        variables: &Variables,
        chain: &[PathBuf],
    ) -> Result<Node, Problems> {
        let texts = |node: Option<&Node>| -> Vec<(String, Place)> {
            let node = node.into_iter();
            node.flat_map(|n| {
                if n.is_list() {
                    n.items()
                } else {
                    std::slice::from_ref(n)
                }
            })
            .filter_map(|n| Some((n.text()?.to_owned(), n.at)))
            .collect()
        };
        let paths = if item.is_map() {
            texts(item.get("path"))
        } else {
            texts(Some(item))
        };
        let Some((first, _)) = paths.first() else {
            return Err(Problem::new(item.at, "include", "the path is missing").into());
        };
        let directory = match item.text_of("project_directory") {
            Some(directory) => clean(&base.join(directory)),
            None => folder(&clean(&base.join(first))),
        };
        let named: Vec<PathBuf> = texts(item.get("env_file"))
            .into_iter()
            .map(|(name, _)| clean(&base.join(name)))
            .collect();
        let variables = self.environment(&directory, &named, variables)?;
        let mut root: Option<Node> = None;
        for (name, at) in paths {
            let path = clean(&base.join(&name));
            if chain.contains(&path) {
                return Err(Problem::new(
                    at,
                    "include",
                    format!("{name} includes itself, through {}", trail(chain)),
                )
                .into());
            }
            let bytes = self.fetch(&path, at, "include")?;
            let node = self.file(&name, Some(&path), &bytes, &directory, &variables, chain)?;
            root = Some(match root {
                None => node,
                Some(root) => merge::files(root, node),
            });
        }
        root.ok_or_else(|| Problem::new(item.at, "include", "the path is missing").into())
    }
}

/// Adds what an include brought; the same name twice is refused unless both are equal.
pub(super) fn import(root: &mut Node, other: Node) -> Result<(), Problem> {
    let Value::Map(sections) = other.value else {
        return Ok(());
    };
    for section in sections {
        if !matches!(
            section.key.as_str(),
            "services" | "networks" | "volumes" | "configs" | "secrets"
        ) {
            continue;
        }
        if root.get(&section.key).is_none() {
            root.set(&section.key, Node::new(Value::Map(Vec::new()), section.at));
        }
        let Value::Map(entries) = section.value.value else {
            continue;
        };
        let Value::Map(all) = &mut root.value else {
            return Ok(());
        };
        let Some(here) = all.iter_mut().find(|e| e.key == section.key) else {
            continue;
        };
        for entry in entries {
            match here.value.entry(&entry.key) {
                None => here.value.set(&entry.key, entry.value),
                Some(old) if old.value == entry.value => {}
                Some(old) => {
                    let path = format!("{}.{}", section.key, entry.key);
                    let message = "an included file has this name too, with other content";
                    return Err(Problem::new(old.at, &path, message).help("rename one of the two"));
                }
            }
        }
    }
    Ok(())
}

fn trail(chain: &[PathBuf]) -> String {
    let names: Vec<String> = chain.iter().map(|p| p.display().to_string()).collect();
    names.join(", ")
}
