//! Go templates as services use them: `{{.Task.Slot}}`, `{{index .Service.Labels "tier"}}`,
//! and in payloads `{{secret "key"}}`, `{{config "name"}}`, `{{env "NAME"}}`.

use std::collections::BTreeMap;

use model::{Refusal, Task, node::NodeDescription};

/// What placeholders stand for.
#[derive(Debug, Clone, Default)]
pub(super) struct Values {
    fields: BTreeMap<&'static str, String>,
    labels: BTreeMap<String, String>,
    /// `secret`, `config` and `env` by kind and name; absent outside payloads.
    functions: Option<BTreeMap<(&'static str, String), Vec<u8>>>,
}

impl Values {
    pub(super) fn of(task: &Task, node: &NodeDescription) -> Self {
        let id = task.node.as_ref().map(ToString::to_string);
        let slot = if task.mode.is_global() {
            id.clone().unwrap_or_default()
        } else {
            task.slot.to_string()
        };
        Self {
            fields: BTreeMap::from([
                (".Service.ID", task.service.to_string()),
                (".Service.Name", task.service_name.clone()),
                (".Node.ID", id.unwrap_or_default()),
                (".Node.Hostname", node.hostname.clone()),
                (".Node.Platform.Architecture", node.architecture.clone()),
                (".Node.Platform.OS", node.os.clone()),
                (".Task.ID", task.id.to_string()),
                (".Task.Name", task.name()),
                (".Task.Slot", slot),
            ]),
            labels: task.labels.clone(),
            functions: None,
        }
    }

    /// The same, with what payload templates may ask for.
    pub(super) fn with_functions(
        &self,
        functions: BTreeMap<(&'static str, String), Vec<u8>>,
    ) -> Self {
        Self {
            functions: Some(functions),
            ..self.clone()
        }
    }

    /// Replaces every placeholder of a text.
    pub(super) fn expand(&self, what: &str, text: &str) -> Result<String, Refusal> {
        if !text.contains("{{") {
            return Ok(text.to_owned());
        }
        let bytes = self.expand_bytes(what, text.as_bytes())?;
        String::from_utf8(bytes).map_err(|_| {
            Refusal::invalid(format!(
                "{what} is not text after its template was expanded"
            ))
        })
    }

    /// As [`Self::expand`], for content that need not be text.
    pub(super) fn expand_bytes(&self, what: &str, text: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut done: Vec<u8> = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = find(rest, b"{{") {
            done.extend_from_slice(&rest[..start]);
            let after = &rest[start + 2..];
            let end = find(after, b"}}").ok_or_else(|| {
                Refusal::invalid(format!(
                    "the template in {what} has a {{{{ without its }}}}"
                ))
            })?;
            let inside = String::from_utf8_lossy(&after[..end]);
            let mut inside = inside.as_ref();
            rest = &after[end + 2..];
            if let Some(trimmed) = inside.strip_prefix("- ") {
                inside = trimmed;
                done.truncate(done.trim_ascii_end().len());
            }
            if let Some(trimmed) = inside.strip_suffix(" -") {
                inside = trimmed;
                rest = rest.trim_ascii_start();
            }
            done.extend(self.value(what, inside.trim())?);
        }
        done.extend_from_slice(rest);
        Ok(done)
    }

    fn value(&self, what: &str, placeholder: &str) -> Result<Vec<u8>, Refusal> {
        if placeholder.starts_with("/*") {
            return Ok(Vec::new());
        }
        if let Some(field) = self.fields.get(placeholder) {
            return Ok(field.clone().into_bytes());
        }
        let words = words(placeholder);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let label = |name: &str| self.labels.get(name).cloned().unwrap_or_default();
        match words[..] {
            ["index", ".Service.Labels", name] => return Ok(label(name).into_bytes()),
            [text] if placeholder.starts_with(['"', '`']) => return Ok(text.into()),
            [path] if path.starts_with(".Service.Labels.") => {
                return Ok(label(&path[".Service.Labels.".len()..]).into_bytes());
            }
            [function @ ("secret" | "config" | "env"), name] => {
                if let Some(functions) = &self.functions {
                    let key = match function {
                        "secret" => "secret",
                        "config" => "config",
                        _ => "env",
                    };
                    return functions
                        .get(&(key, name.to_owned()))
                        .cloned()
                        .ok_or_else(|| {
                            Refusal::invalid(format!(
                                "the template in {what} asks for {key} {name:?}, which the service does not have"
                            ))
                        });
                }
            }
            _ => {}
        }
        Err(Refusal::invalid(format!(
            "the template {{{{{placeholder}}}}} in {what} is not known; there are {}, {{{{index .Service.Labels \"name\"}}}} and in payloads secret, config and env",
            self.fields.keys().copied().collect::<Vec<_>>().join(", ")
        )))
    }
}

/// Words, of which quoted ones may hold spaces.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (word, after) = if matches!(first, '"' | '`') {
            let inside = &rest[1..];
            inside.split_once(first).unwrap_or((inside, ""))
        } else {
            rest.split_once(char::is_whitespace).unwrap_or((rest, ""))
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    words
}

fn find(text: &[u8], pattern: &[u8]) -> Option<usize> {
    text.windows(pattern.len()).position(|part| part == pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values {
        Values {
            fields: BTreeMap::from([
                (".Service.Name", "web".to_owned()),
                (".Task.Slot", "3".to_owned()),
            ]),
            labels: BTreeMap::from([("tier".to_owned(), "front".to_owned())]),
            functions: None,
        }
    }

    #[test]
    fn placeholders() {
        for (text, wanted) in [
            ("plain", Some("plain")),
            ("{{.Service.Name}}-{{ .Task.Slot }}", Some("web-3")),
            ("{{index .Service.Labels \"tier\"}}", Some("front")),
            ("{{.Service.Labels.tier}}", Some("front")),
            ("{{index .Service.Labels \"none\"}}", Some("")),
            ("a {{- .Task.Slot -}} b", Some("a3b")),
            ("{{/* nothing */}}x", Some("x")),
            ("{{\"{{\"}}", Some("{{")),
            ("{{.Nothing}}", None),
            ("{{.Task.Slot", None),
            ("{{env \"A\"}}", None),
        ] {
            let found = values().expand("it", text);
            assert_eq!(found.ok().as_deref(), wanted, "{text}");
        }
    }

    #[test]
    fn payloads_may_ask_for_others() {
        let values = values().with_functions(BTreeMap::from([
            (("secret", "key".to_owned()), b"s3".to_vec()),
            (("env", "HOME".to_owned()), b"/root".to_vec()),
        ]));
        for (text, wanted) in [
            ("k={{secret \"key\"}}", Some("k=s3")),
            ("{{env `HOME`}}/x", Some("/root/x")),
            ("{{config \"key\"}}", None),
        ] {
            let found = values.expand_bytes("it", text.as_bytes()).ok();
            assert_eq!(found.as_deref(), wanted.map(str::as_bytes), "{text}");
        }
    }
}
