//! `extends`: services on top of others, of the same file or another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Loader, Variables, clean, folder, root_services};
use crate::compose::merge;
use crate::compose::node::{Node, Place};
use crate::compose::problem::{Problem, Problems};
use crate::compose::suggest::nearest;

/// At most so many services extend one another in a row.
const CHAIN: usize = 32;

impl Loader<'_, '_> {
    /// Merges below every service of a file what it extends.
    pub(super) fn extend_all(
        &mut self,
        root: &mut Node,
        path: Option<&Path>,
        variables: &Variables,
    ) -> Result<(), Problems> {
        let names: Vec<String> = root
            .get("services")
            .map(|s| s.entries().iter().map(|e| e.key.clone()).collect())
            .unwrap_or_default();
        let mut done = BTreeMap::new();
        for name in names {
            let service =
                self.extended(root, &name, path, variables, &mut Vec::new(), &mut done)?;
            if let Some(services) = root_services(root) {
                services.set(&name, service);
            }
        }
        Ok(())
    }

    /// A service with what it extends merged below it.
    fn extended(
        &mut self,
        root: &Node,
        name: &str,
        path: Option<&Path>,
        variables: &Variables,
        chain: &mut Vec<(PathBuf, String)>,
        done: &mut BTreeMap<String, Node>,
    ) -> Result<Node, Problems> {
        if let Some(service) = done.get(name) {
            return Ok(service.clone());
        }
        let mut service = root
            .get("services")
            .and_then(|s| s.entry(name))
            .map(|entry| entry.value.clone())
            .ok_or_else(|| Problem::bare(format!("there is no service \"{name}\"")))?;
        let Some(extends) = service.remove("extends").map(|e| e.value) else {
            return Ok(service);
        };
        let key = format!("services.{name}.extends");
        let this = (
            path.map(Path::to_path_buf).unwrap_or_default(),
            name.to_owned(),
        );
        if chain.contains(&this) || chain.len() >= CHAIN {
            let message = if chain.contains(&this) {
                let names: Vec<&str> = chain.iter().map(|(_, name)| name.as_str()).collect();
                format!("the service extends itself, through {}", names.join(", "))
            } else {
                format!("more than {CHAIN} services extend one another here")
            };
            return Err(Problem::new(extends.at, &key, message).into());
        }
        chain.push(this);
        let wanted = extends.text().or_else(|| extends.text_of("service"));
        let Some(wanted) = wanted else {
            return Err(Problem::new(extends.at, &key, "the name of a service is missing").into());
        };
        let below = match extends.get("file") {
            None => {
                exists(root, wanted, extends.at, &key)?;
                self.extended(root, wanted, path, variables, chain, done)?
            }
            Some(file) => {
                let shown = file.text().unwrap_or_default();
                let other_path = clean(&self.sources.base(file.at).join(shown));
                let bytes = self.fetch(&other_path, file.at, &key)?;
                let (other, warnings) =
                    self.parse(shown, &bytes, &folder(&other_path), variables)?;
                exists(&other, wanted, extends.at, &key)?;
                let prefix = format!("services.{wanted}.");
                self.warnings.extend(
                    warnings
                        .into_iter()
                        .filter(|w| w.message.starts_with(&prefix)),
                );
                self.extended(
                    &other,
                    wanted,
                    Some(&other_path),
                    variables,
                    chain,
                    &mut BTreeMap::new(),
                )?
            }
        };
        chain.pop();
        let merged = merge::services(below, service);
        done.insert(name.to_owned(), merged.clone());
        Ok(merged)
    }
}

fn exists(root: &Node, name: &str, at: Place, key: &str) -> Result<(), Problem> {
    let services = root.get("services").map(Node::entries).unwrap_or_default();
    if services.iter().any(|entry| entry.key == name) {
        return Ok(());
    }
    let mut problem = Problem::new(at, key, format!("there is no service \"{name}\" to extend"));
    if let Some(near) = nearest(name, services.iter().map(|e| e.key.as_str())) {
        problem = problem.help(format!("did you mean {near}?"));
    }
    Err(problem)
}
