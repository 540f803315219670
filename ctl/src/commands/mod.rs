//! One file a group of commands: flags, calls, output.

pub mod archive;
pub mod cluster;
pub mod cluster_backup;
pub mod completion;
pub mod config;
pub mod container;
pub mod copy;
pub mod doctor;
pub mod events;
pub mod exec;
pub mod image;
pub mod info;
pub mod inspect;
pub mod lifecycle;
pub mod logs;
pub mod migrate;
pub mod network;
pub mod network_attach;
pub mod network_check;
pub mod node;
pub mod ps;
pub mod pull;
pub mod registry;
pub mod run;
pub mod secret;
pub mod service;
pub mod stack;
pub mod stats;
pub mod swarm;
pub mod swarm_update;
pub mod system;
pub mod tasks;
pub mod visualizer;
pub mod volume;

use clap::Args;
use serde_json::Value;

/// `--filter`, `--format`, `--quiet` of a list.
#[derive(Args, Debug, Default, Clone)]
pub struct ListFlags {
    /// Show only what fits, such as name=web or label=tier=front; repeatable
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub filter: Vec<String>,
    /// table, 'table TEMPLATE', json, or a Go template such as '{{.Name}}'
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Print only ids
    #[arg(short, long)]
    pub quiet: bool,
}

/// The text of a field, empty when absent.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// `a=1,b=2`, sorted.
pub(crate) fn joined_pairs(map: Option<&Value>) -> String {
    let mut pairs: Vec<String> = map
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.sort();
    pairs.join(",")
}

/// `web2` before `web10`: digits compare as numbers.
pub(crate) fn natural_key(text: &str) -> Vec<(u8, u64, String)> {
    let mut key = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let digits = first.is_ascii_digit();
        let end = rest
            .find(|c: char| c.is_ascii_digit() != digits)
            .unwrap_or(rest.len());
        let (part, tail) = rest.split_at(end);
        key.push(if digits {
            (0, part.parse().unwrap_or(u64::MAX), part.to_owned())
        } else {
            (1, 0, part.to_owned())
        });
        rest = tail;
    }
    key
}

/// Capitalises the first letter: `ready` to `Ready`.
pub(crate) fn capitalised(word: &str) -> String {
    let mut characters = word.chars();
    characters
        .next()
        .map(|c| c.to_uppercase().chain(characters).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_people_count() {
        let mut names = ["web10", "web2", "api", "web1a", "web1"];
        names.sort_by_key(|n| natural_key(n));
        assert_eq!(names, ["api", "web1", "web1a", "web2", "web10"]);
    }
}
