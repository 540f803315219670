//! Every key against the table: what is unknown or has a wrong form is a problem, what has no
//! meaning in a cluster is a warning.

use super::keys::{Branch, Fate, Form, TREE, word};
use super::node::{Node, Value};
use super::problem::{Problem, Warning};
use super::suggest::nearest;
use super::value;

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What is ignored.
    pub warnings: Vec<Warning>,
}

/// Checks a whole file.
pub fn check(root: &Node) -> Findings {
    let mut findings = Findings::default();
    if root.is_map() {
        map(root, &TREE, "", &mut findings);
    } else {
        let message = format!(
            "a compose file is a mapping with the key services, not {}",
            root.kind()
        );
        findings.problems.push(Problem::new(root.at, "", message));
    }
    findings
}

fn walk(node: &Node, branch: &Branch, path: &str, findings: &mut Findings) {
    let Some(key) = branch.key else {
        return;
    };
    if key.fate == Fate::Warned {
        if !node.is_null() {
            findings.warnings.push(Warning {
                at: Some(node.at),
                message: format!("{path} is ignored: {}", key.note),
            });
        }
        return;
    }
    let fits = match &node.value {
        Value::Null => true,
        Value::Map(_) if branch.allows(Form::Map) => {
            map(node, branch, path, findings);
            true
        }
        Value::Map(_) if branch.allows(Form::Pairs) => {
            for entry in node.entries().iter().filter(|e| e.value.is_map()) {
                let message = format!("expected a text, found {}", entry.value.kind());
                let path = format!("{path}.{}", entry.key);
                findings
                    .problems
                    .push(Problem::new(entry.value.at, &path, message));
            }
            true
        }
        Value::List(items) if branch.allows(Form::List) => {
            if let Some(inner) = branch.child("[]") {
                for (index, item) in items.iter().enumerate() {
                    walk(item, inner, &format!("{path}[{index}]"), findings);
                }
            }
            true
        }
        Value::List(items) if branch.allows(Form::Texts) || branch.allows(Form::Pairs) => {
            for (index, item) in items.iter().enumerate().filter(|(_, i)| i.text().is_none()) {
                let message = match item.entries() {
                    // `- a: b` where `- "a: b"` or a mapping was meant.
                    [entry] => format!(
                        "expected a text, found a mapping; quote it if \"{}: …\" is meant as text",
                        entry.key
                    ),
                    _ => format!("expected a text, found {}", item.kind()),
                };
                findings
                    .problems
                    .push(Problem::new(item.at, &format!("{path}[{index}]"), message));
            }
            true
        }
        Value::Scalar { text, .. } => scalar(node, text, key.forms, path, findings),
        Value::Map(_) | Value::List(_) => branch.allows(Form::Any),
    };
    if !fits {
        let wanted: Vec<String> = key.forms.iter().map(|form| word(*form)).collect();
        let message = format!("expected {}, found {}", wanted.join(" or "), node.kind());
        findings.problems.push(Problem::new(node.at, path, message));
    }
}

fn map(node: &Node, branch: &Branch, path: &str, findings: &mut Findings) {
    for entry in node.entries() {
        let inner = if path.is_empty() {
            entry.key.clone()
        } else {
            format!("{path}.{}", entry.key)
        };
        match branch.child(&entry.key) {
            Some(child) => walk(&entry.value, child, &inner, findings),
            // Extensions are allowed wherever the keys are fixed.
            None if entry.key.starts_with("x-") => {}
            None => {
                let place = if path.is_empty() {
                    "a compose file".to_owned()
                } else {
                    path.to_owned()
                };
                let problem = Problem::new(
                    entry.at,
                    &inner,
                    format!("there is no key \"{}\" in {place}", entry.key),
                );
                findings
                    .problems
                    .push(problem.help(way_out(&entry.key, branch)));
            }
        }
    }
}

fn way_out(key: &str, branch: &Branch) -> String {
    for (name, child) in &branch.children {
        if child.children.contains_key(key) {
            return format!("did you mean {key} below {name}?");
        }
    }
    if let Some(near) = nearest(key, branch.children.keys().copied()) {
        return format!("did you mean {near}?");
    }
    let names: Vec<&str> = branch.children.keys().copied().collect();
    format!(
        "there are {}; own additions begin with x-",
        names.join(", ")
    )
}

/// True when a form for single values is allowed at all; a wrong value is reported here.
fn scalar(node: &Node, text: &str, forms: &[Form], path: &str, findings: &mut Findings) -> bool {
    let mut reason = None;
    for form in forms {
        let checked = match form {
            Form::Text | Form::Any => Ok(()),
            Form::Int => value::int(text).map(drop),
            Form::Count => value::count(text).map(drop),
            Form::Number => value::number(text).map(drop),
            Form::Bool => value::boolean(text).map(drop),
            Form::Duration => value::duration(text).map(drop),
            Form::Size => value::size(text).map(drop),
            Form::OneOf(words) => one_of(text, words),
            Form::Texts | Form::Pairs | Form::Map | Form::List => continue,
        };
        match checked {
            Ok(()) => return true,
            Err(why) => reason = Some(why),
        }
    }
    match reason {
        Some(why) => {
            findings.problems.push(Problem::new(node.at, path, why));
            true
        }
        None => false,
    }
}

fn one_of(text: &str, words: &'static [&'static str]) -> Result<(), String> {
    if words.contains(&text) {
        return Ok(());
    }
    let hint = nearest(text, words.iter().copied())
        .map(|near| format!("; did you mean {near}?"))
        .unwrap_or_default();
    Err(format!("{text:?} is none of {}{hint}", words.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::read::read;

    fn found(text: &str) -> (Vec<String>, Vec<String>) {
        let findings = check(&read(text, 0).unwrap().root);
        let problem = |p: Problem| {
            let help = p.help.map(|h| format!(" [{h}]")).unwrap_or_default();
            format!("{}: {}{help}", p.path, p.message)
        };
        (
            findings.problems.into_iter().map(problem).collect(),
            findings.warnings.into_iter().map(|w| w.message).collect(),
        )
    }

    #[test]
    fn what_is_wrong_is_named_with_a_way_out() {
        let cases = [
            (
                "servcies: {}",
                "servcies: there is no key \"servcies\" in a compose file [did you mean services?]",
            ),
            (
                "services: {a: {image: x, replicas: 2}}",
                "services.a.replicas: there is no key \"replicas\" in services.a [did you mean replicas below deploy?]",
            ),
            (
                "services: {a: {deploy: {replica: 2}}}",
                "services.a.deploy.replica: there is no key \"replica\" in services.a.deploy [did you mean replicas?]",
            ),
            (
                "services: {a: {deploy: {replicas: two}}}",
                "services.a.deploy.replicas: \"two\" is not a whole number",
            ),
            (
                "services: {a: {deploy: {mode: globl}}}",
                "services.a.deploy.mode: \"globl\" is none of replicated, global, replicated-job, global-job; did you mean global?",
            ),
            (
                "services: {a: {image: [x]}}",
                "services.a.image: expected a text, found a list",
            ),
            (
                "services: {a: {ports: 80}}",
                "services.a.ports: expected a list, found a single value",
            ),
            (
                "services: {a: {tty: maybe}}",
                "services.a.tty: \"maybe\" is neither true nor false",
            ),
            (
                "services: {a: {environment: {X: {y: z}}}}",
                "services.a.environment.X: expected a text, found a mapping",
            ),
            (
                "services: {a: {environment: [X: y]}}",
                "services.a.environment[0]: expected a text, found a mapping; quote it if \"X: …\" is meant as text",
            ),
            (
                "services: {a: {healthcheck: {interval: 5}}}",
                "services.a.healthcheck.interval: \"5\" is not a duration: write a number with ns, us, ms, s, m or h, as in 1m30s",
            ),
            (
                "[a]",
                ": a compose file is a mapping with the key services, not a list",
            ),
        ];
        for (text, wanted) in cases {
            assert_eq!(found(text).0, [wanted], "{text}");
        }
    }

    #[test]
    fn every_key_without_meaning_is_warned_about_by_name() {
        for key in crate::compose::keys::all().filter(|k| k.fate == Fate::Warned) {
            let mut text = "{v: 1}".to_owned();
            for segment in key.path.split('.').rev() {
                text = match segment {
                    "[]" => format!("[{text}]"),
                    "*" => format!("{{name: {text}}}"),
                    other => format!("{{{other}: {text}}}"),
                };
            }
            let (problems, warnings) = found(&text);
            let path = key.path.replace('*', "name").replace(".[]", "[0]");
            assert_eq!(problems, Vec::<String>::new(), "{text}");
            assert_eq!(warnings, [format!("{path} is ignored: {}", key.note)]);
        }
    }

    #[test]
    fn extensions_and_nothing_are_fine() {
        let text = "x-a: {b: 1}\nservices: {a: {x-b: 1, image: x, ports: , networks: {default: }}}";
        assert_eq!(found(text), (vec![], vec![]));
    }
}
