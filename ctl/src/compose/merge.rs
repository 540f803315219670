//! Putting one file's values over another's, by the rules of the Compose Specification ("Merge
//! and override"): mappings merge, lists are joined without repeats, single values and command
//! lines are replaced, `!reset` takes away and `!override` replaces.

use std::collections::HashMap;

use super::keys::{Branch, Form, TREE};
use super::node::{Entry, Mark, Node, Value};

/// `over` on top of `base`, both whole files.
pub fn files(base: Node, over: Node) -> Node {
    merge(base, over, Some(&TREE))
}

/// `over` on top of `base`, both services: extends.
pub fn services(base: Node, over: Node) -> Node {
    let branch = TREE.child("services").and_then(|b| b.child("*"));
    merge(base, over, branch)
}

/// Carries out the tags that are left when nothing was merged onto their keys.
pub fn settle(node: &mut Node) {
    node.mark = Mark::Merge;
    match &mut node.value {
        Value::Map(entries) => {
            entries.retain(|entry| entry.value.mark != Mark::Reset);
            for entry in entries {
                settle(&mut entry.value);
            }
        }
        Value::List(items) => {
            items.retain(|item| item.mark != Mark::Reset);
            items.iter_mut().for_each(settle);
        }
        Value::Null | Value::Scalar { .. } => {}
    }
}

fn merge(base: Node, over: Node, branch: Option<&Branch>) -> Node {
    if over.mark == Mark::Override || base.is_null() {
        return over;
    }
    if over.is_null() {
        return base;
    }
    let path = branch.and_then(|b| b.key).map_or("", |key| key.path);
    if replaced(path) {
        return over;
    }
    let (base, over) = (uniform(base, path, branch), uniform(over, path, branch));
    let (at, mark) = (over.at, base.mark);
    match (base.value, over.value) {
        (Value::Map(base), Value::Map(over)) if !other_driver(path, &base, &over) => Node {
            value: Value::Map(maps(base, over, branch)),
            at,
            mark,
        },
        (Value::List(base), Value::List(over)) => Node {
            value: Value::List(lists(base, over, path)),
            at,
            mark,
        },
        (_, value) => Node { value, at, mark },
    }
}

fn maps(mut base: Vec<Entry>, over: Vec<Entry>, branch: Option<&Branch>) -> Vec<Entry> {
    let mut index: HashMap<String, usize> = base
        .iter()
        .enumerate()
        .map(|(position, entry)| (entry.key.clone(), position))
        .collect();
    let mut gone = Vec::new();
    for entry in over {
        let child = branch.and_then(|b| b.child(&entry.key));
        match index.get(&entry.key).copied() {
            Some(position) if entry.value.mark == Mark::Reset => gone.push(position),
            Some(position) => {
                let below = &mut base[position];
                let old = std::mem::replace(&mut below.value, Node::new(Value::Null, entry.at));
                below.value = merge(old, entry.value, child);
                below.at = entry.at;
            }
            None => {
                index.insert(entry.key.clone(), base.len());
                base.push(entry);
            }
        }
    }
    let mut position = 0;
    base.retain(|_| {
        position += 1;
        !gone.contains(&(position - 1))
    });
    base
}

fn lists(base: Vec<Node>, over: Vec<Node>, path: &str) -> Vec<Node> {
    let mut joined: Vec<Node> = Vec::with_capacity(base.len() + over.len());
    let mut index: HashMap<String, usize> = HashMap::new();
    for item in base.into_iter().chain(over) {
        let Some(name) = identity(&item, path) else {
            joined.push(item);
            continue;
        };
        if let Some(position) = index.get(&name) {
            joined[*position] = item;
        } else {
            index.insert(name, joined.len());
            joined.push(item);
        }
    }
    joined
}

/// Keys whose later value replaces the earlier one whole.
fn replaced(path: &str) -> bool {
    matches!(
        path,
        "services.*.command"
            | "services.*.entrypoint"
            | "services.*.healthcheck.test"
            | "services.*.extends"
            | "include"
    )
}

/// Options of one logging driver mean nothing to another.
fn other_driver(path: &str, base: &[Entry], over: &[Entry]) -> bool {
    let driver = |entries: &[Entry]| {
        let entry = entries.iter().find(|e| e.key == "driver")?;
        entry.value.text().map(str::to_owned)
    };
    path == "services.*.logging"
        && driver(over).is_some_and(|d| driver(base).is_some_and(|b| b != d))
}

/// What makes two items of a list the same thing.
fn identity(item: &Node, path: &str) -> Option<String> {
    let key = |name: &str| item.text_of(name).unwrap_or_default().to_owned();
    match (path, item.text()) {
        ("services.*.ports", Some(text)) => Some(text.trim_end_matches("/tcp").to_owned()),
        ("services.*.ports", None) => {
            let outside: String = [key("host_ip"), key("published")]
                .into_iter()
                .filter(|part| !part.is_empty())
                .map(|part| part + ":")
                .collect();
            let protocol = match key("protocol").as_str() {
                "" | "tcp" => String::new(),
                other => format!("/{other}"),
            };
            Some(format!("{outside}{}{protocol}", key("target")))
        }
        ("services.*.volumes", Some(text)) => {
            Some(text.split(':').nth(1).unwrap_or(text).to_owned())
        }
        ("services.*.volumes", None) => Some(key("target")),
        ("services.*.configs" | "services.*.secrets", None) => {
            let target = key("target");
            Some(if target.is_empty() {
                key("source")
            } else {
                target
            })
        }
        ("services.*.env_file", None) => Some(key("path")),
        ("networks.*.ipam.config", None) => Some(key("subnet")),
        (_, Some(text)) => Some(text.to_owned()),
        (_, None) => None,
    }
}

/// Brings the several ways of writing one thing to one, so that they can be merged.
fn uniform(node: Node, path: &str, branch: Option<&Branch>) -> Node {
    let pairs = branch.is_some_and(|b| b.allows(Form::Pairs));
    let names = matches!(path, "services.*.depends_on" | "services.*.networks");
    let Node { value, at, mark } = node;
    let value = match value {
        Value::List(items) if pairs || names => {
            let mut entries: Vec<Entry> = Vec::new();
            for item in items {
                let at = item.at;
                let Value::Scalar { text, plain } = item.value else {
                    continue;
                };
                let separator = text.find(if path.ends_with("extra_hosts") {
                    &['=', ':'][..]
                } else {
                    &['='][..]
                });
                let (key, value) = match separator.filter(|_| pairs) {
                    Some(split) => {
                        let value = Value::Scalar {
                            text: text[split + 1..].to_owned(),
                            plain,
                        };
                        (text[..split].to_owned(), value)
                    }
                    None => (text, Value::Null),
                };
                let value = Node::new(value, at);
                match entries.iter_mut().find(|e| e.key == key) {
                    // One host may have several addresses.
                    Some(entry) if path.ends_with("extra_hosts") => {
                        several(&mut entry.value, value);
                    }
                    Some(entry) => entry.value = value,
                    None => entries.push(Entry { key, at, value }),
                }
            }
            Value::Map(entries)
        }
        Value::Scalar { .. }
            if branch.is_some_and(|b| b.allows(Form::Texts) || b.allows(Form::List)) =>
        {
            Value::List(vec![Node::new(value, at)])
        }
        other => other,
    };
    Node { value, at, mark }
}

fn several(old: &mut Node, new: Node) {
    if let Value::List(items) = &mut old.value {
        items.push(new);
    } else {
        let first = old.clone();
        old.value = Value::List(vec![first, new]);
    }
}

/// A `KEY=VALUE` list or a mapping as a mapping.
pub fn as_map(node: &Node, path: &'static str) -> Node {
    let mut branch = &*TREE;
    for segment in path.split('.') {
        match branch.child(segment) {
            Some(child) => branch = child,
            None => return node.clone(),
        }
    }
    uniform(node.clone(), path, Some(branch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::read::read;
    use proptest::prelude::*;

    fn parse(text: &str) -> Node {
        read(text, 0).unwrap().root
    }

    fn service(base: &str, over: &str) -> Node {
        let mut merged = services(parse(base), parse(over));
        settle(&mut merged);
        merged
    }

    #[test]
    fn every_rule() {
        let cases = [
            ("image: a", "image: b", "image: b"),
            ("image: a", "tty: true", "{image: a, tty: true}"),
            ("image: a", "image: ", "image: a"),
            ("command: [a, b]", "command: c d", "command: c d"),
            ("entrypoint: [a]", "entrypoint: [b]", "entrypoint: [b]"),
            (
                "healthcheck: {test: [CMD, a], retries: 3}",
                "healthcheck: {test: b}",
                "healthcheck: {test: b, retries: 3}",
            ),
            (
                "environment: {A: 1, B: 2}",
                "environment: [B=3, C, D=x=y]",
                "environment: {A: 1, B: 3, C: , D: x=y}",
            ),
            ("labels: [a=1]", "labels: {a: 2}", "labels: {a: 2}"),
            (
                "deploy: {labels: [a=1], replicas: 1}",
                "deploy: {labels: [b=1], replicas: 2}",
                "deploy: {labels: {a: 1, b: 1}, replicas: 2}",
            ),
            (
                "depends_on: [a]",
                "depends_on: {a: {condition: service_healthy}, b: {}}",
                "depends_on: {a: {condition: service_healthy}, b: {}}",
            ),
            (
                "networks: [a]",
                "networks: {b: {aliases: [x]}}",
                "networks: {a: , b: {aliases: [x]}}",
            ),
            (
                "dns: 1.1.1.1",
                "dns: [8.8.8.8, 1.1.1.1]",
                "dns: [1.1.1.1, 8.8.8.8]",
            ),
            ("env_file: a", "env_file: [b]", "env_file: [a, b]"),
            ("cap_add: [A, B]", "cap_add: [B, C]", "cap_add: [A, B, C]"),
            (
                "ports: ['80:80', '81:81']",
                "ports: ['80:80/tcp', {target: 81, published: 81}]",
                "ports: ['80:80/tcp', {target: 81, published: 81}]",
            ),
            (
                "ports: ['80:80']",
                "ports: ['8080:80']",
                "ports: ['80:80', '8080:80']",
            ),
            (
                "volumes: ['a:/x', 'b:/y']",
                "volumes: ['c:/x:ro']",
                "volumes: ['c:/x:ro', 'b:/y']",
            ),
            (
                "secrets: [a]",
                "secrets: [{source: b, target: a}, c]",
                "secrets: [{source: b, target: a}, c]",
            ),
            (
                "logging: {driver: a, options: {x: 1}}",
                "logging: {driver: b}",
                "logging: {driver: b}",
            ),
            (
                "logging: {driver: a, options: {x: 1}}",
                "logging: {options: {y: 1}}",
                "logging: {driver: a, options: {x: 1, y: 1}}",
            ),
            (
                "ulimits: {nofile: 1}",
                "ulimits: {nofile: {soft: 1, hard: 2}}",
                "ulimits: {nofile: {soft: 1, hard: 2}}",
            ),
            (
                "extra_hosts: ['a:1.1.1.1']",
                "extra_hosts: ['a=2.2.2.2', 'b:::1']",
                "extra_hosts: {a: 2.2.2.2, b: '::1'}",
            ),
            (
                "ports: ['80:80']",
                "ports: !override ['81:81']",
                "ports: ['81:81']",
            ),
            (
                "{ports: ['80:80'], image: a}",
                "ports: !reset []",
                "image: a",
            ),
            (
                "environment: {A: 1, B: 2}",
                "environment: {A: !reset null}",
                "environment: {B: 2}",
            ),
            ("image: a", "{image: a, tty: !reset null}", "image: a"),
            (
                "deploy: {placement: {constraints: [a]}}",
                "deploy: {placement: {constraints: [b]}}",
                "deploy: {placement: {constraints: [a, b]}}",
            ),
        ];
        for (base, over, wanted) in cases {
            let merged = service(base, over);
            assert_eq!(merged, parse(wanted), "{base} + {over}: {merged:#?}");
        }
    }

    #[test]
    fn whole_files_merge_by_name() {
        let merged = files(
            parse("{services: {a: {image: x}}, networks: {n: {driver: overlay}}}"),
            parse("{services: {a: {tty: true}, b: {image: y}}, networks: {n: {attachable: true}}}"),
        );
        let wanted = "{services: {a: {image: x, tty: true}, b: {image: y}}, networks: {n: {driver: overlay, attachable: true}}}";
        assert_eq!(merged, parse(wanted));
    }

    fn any_service() -> impl Strategy<Value = Node> {
        let word = "[a-c]";
        let list = proptest::collection::vec(word, 0..4);
        let pairs = proptest::collection::btree_map("[a-c]", "[x-z]", 0..4);
        (proptest::option::of(word), list, pairs).prop_map(|(image, list, pairs)| {
            let at = crate::compose::node::Place {
                source: 0,
                start: 0,
                end: 0,
            };
            let text = |t: &str| Node::of_text(t, at);
            let mut node = Node::new(Value::Map(Vec::new()), at);
            if let Some(image) = image {
                node.set("image", text(&image));
            }
            let mut seen = Vec::new();
            for item in list {
                if !seen.contains(&item) {
                    seen.push(item);
                }
            }
            node.set(
                "cap_add",
                Node::new(Value::List(seen.iter().map(|t| text(t)).collect()), at),
            );
            let mut environment = Node::new(Value::Map(Vec::new()), at);
            for (key, value) in pairs {
                environment.set(&key, text(&value));
            }
            node.set("environment", environment);
            node
        })
    }

    proptest! {
        #[test]
        fn merging_groups_either_way(a in any_service(), b in any_service(), c in any_service()) {
            let left = services(services(a.clone(), b.clone()), c.clone());
            let right = services(a, services(b, c));
            prop_assert_eq!(left, right);
        }

        #[test]
        fn merging_with_itself_changes_nothing(a in any_service()) {
            prop_assert_eq!(services(a.clone(), a.clone()), a);
        }
    }
}
