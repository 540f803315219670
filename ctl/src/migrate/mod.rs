//! A running Swarm as stack files: what its API shows, written as compose files that deploy the same.
//! Pure functions; secrets' contents are in no API, and are named instead.

mod objects;
mod service;
mod shape;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value as Json;

use self::{
    objects::{Kind, Objects},
    shape::Map,
};
use crate::compose::write::yaml;

/// The label of everything that belongs to a stack.
const NAMESPACE: &str = "com.docker.stack.namespace";
/// The image as the user wrote it, without what a deploy has added.
const IMAGE: &str = "com.docker.stack.image";
/// Where services go that belong to no stack.
const NO_STACK: &str = "unstacked";

/// The answers of the lists of the same names.
#[derive(Debug, Default)]
pub struct Cluster {
    pub services: Vec<Json>,
    pub networks: Vec<Json>,
    pub configs: Vec<Json>,
    pub secrets: Vec<Json>,
}

/// One stack.
#[derive(Debug, PartialEq, Eq)]
pub struct StackFile {
    pub name: String,
    /// The compose file.
    pub text: String,
}

/// What is to be written.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Migration {
    pub stacks: Vec<StackFile>,
    /// Contents of configs by their names.
    pub configs: BTreeMap<String, Vec<u8>>,
    /// Commands that make what the files expect to be there, in order.
    pub before: Vec<String>,
    /// What could not be carried over, and what will be different.
    pub remarks: Vec<String>,
}

/// Names of a stack's things begin with its own.
fn short<'a>(stack: &str, name: &'a str) -> &'a str {
    name.strip_prefix(stack)
        .and_then(|rest| rest.strip_prefix('_'))
        .filter(|rest| !rest.is_empty())
        .unwrap_or(name)
}

fn stack_of(labels: &Json) -> Option<&str> {
    labels[NAMESPACE].as_str().filter(|name| !name.is_empty())
}

/// Text of a field; empty when it is absent.
fn text<'a>(value: &'a Json, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Json::as_str)
        .unwrap_or_default()
}

fn list<'a>(value: &'a Json, pointer: &str) -> &'a [Json] {
    value
        .pointer(pointer)
        .and_then(Json::as_array)
        .map_or(&[], Vec::as_slice)
}

/// Writes everything as stack files.
pub fn migrate(cluster: &Cluster) -> Migration {
    let mut stacks = BTreeMap::<&str, Vec<&Json>>::new();
    for service in &cluster.services {
        let stack = stack_of(&service["Spec"]["Labels"]).unwrap_or(NO_STACK);
        stacks.entry(stack).or_default().push(service);
    }
    let mut migration = Migration::default();
    for (stack, mut services) in stacks {
        services.sort_by_key(|service| text(service, "/Spec/Name"));
        let file = file(cluster, stack, &services, &mut migration);
        migration.stacks.push(file);
    }
    migration.before.sort_by_key(|command| {
        // Networks are expected by more than one file.
        (!command.contains(" network "), command.clone())
    });
    migration.before.dedup();
    migration
}

fn file(
    cluster: &Cluster,
    stack: &str,
    services: &[&Json],
    migration: &mut Migration,
) -> StackFile {
    let mut objects = Objects::new(cluster, stack);
    let mut remarks = Vec::new();
    if stack == NO_STACK {
        remarks.push(format!(
            "these services belong to no stack; deployed as the stack {NO_STACK} their names begin with {NO_STACK}_, and they are found under their own on their networks"
        ));
    }
    let mut all = Map::default();
    for service in services {
        let name = text(service, "/Spec/Name");
        let mut notes = Vec::new();
        let body = service::service(&service["Spec"], &mut objects, &mut notes);
        all.put(short(stack, name), Some(body.done()));
        remarks.extend(
            notes
                .into_iter()
                .map(|note| format!("service {name}: {note}")),
        );
    }
    let mut root = Map::default();
    root.put("services", Some(all.done()));
    for kind in Kind::ALL {
        root.put(
            kind.section(),
            objects.section(kind, migration, &mut remarks),
        );
    }
    let mut text = format!("# The stack {stack}, as it ran.\n");
    for remark in &remarks {
        let _ = writeln!(text, "# {}", remark.replace('\n', " "));
    }
    text.push_str(&yaml(&root.done()));
    let named = remarks
        .into_iter()
        .map(|remark| format!("{stack}: {remark}"));
    migration.remarks.extend(named);
    StackFile {
        name: stack.to_owned(),
        text,
    }
}
