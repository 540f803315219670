//! The `filters` parameter, in both forms that clients send: `{"label":{"a=b":true}}` and
//! `{"label":["a=b"]}`.

use std::collections::BTreeMap;

use model::Refusal;
use serde_json::Value;

/// Filters by name. Values of one name are alternatives, except labels, which must all hold;
/// different names must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    values: BTreeMap<String, Vec<String>>,
}

impl Filters {
    /// Reads the parameter's text; empty text and `{}` are no filters. Names that are not in
    /// `allowed` are refused.
    pub fn parse(text: &str, allowed: &[&str]) -> Result<Self, Refusal> {
        let filters = Self::parse_any(text)?;
        match filters
            .values
            .keys()
            .find(|name| !allowed.contains(&name.as_str()))
        {
            None => Ok(filters),
            Some(name) => Err(Refusal::invalid(format!(
                "invalid filters: unknown filter {name:?}; known here: {}",
                allowed.join(", ")
            ))),
        }
    }

    /// As [`Filters::parse`], whatever the names.
    pub fn parse_any(text: &str) -> Result<Self, Refusal> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let wrong = |why: String| Refusal::invalid(format!("invalid filters: {why}"));
        let value: Value = serde_json::from_str(text)
            .map_err(|error| wrong(format!("not valid JSON: {error}")))?;
        let map = match value {
            Value::Object(map) => map,
            Value::Null => return Ok(Self::default()),
            _ => return Err(wrong("expected an object of name to values".to_owned())),
        };
        let mut values = BTreeMap::new();
        for (name, given) in map {
            values.insert(name.clone(), list(&name, given).map_err(wrong)?);
        }
        Ok(Self { values })
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Name to values, for whoever does the filtering himself.
    pub fn into_map(self) -> BTreeMap<String, Vec<String>> {
        self.values
            .into_iter()
            .filter(|(_, values)| !values.is_empty())
            .collect()
    }

    /// The values of a filter, none if it is not set.
    pub fn values(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    pub fn has(&self, name: &str) -> bool {
        !self.values(name).is_empty()
    }

    /// Not filtered by `name`, or one of its values satisfies `test`.
    pub fn any(&self, name: &str, test: impl Fn(&str) -> bool) -> bool {
        let values = self.values(name);
        values.is_empty() || values.iter().any(|value| test(value))
    }

    /// Not filtered by `name`, or one of its values is exactly `text`.
    pub fn exact(&self, name: &str, text: &str) -> bool {
        self.any(name, |value| value == text)
    }

    /// Not filtered by `name`, or one of its values begins `text`.
    pub fn prefix(&self, name: &str, text: &str) -> bool {
        self.any(name, |value| text.starts_with(value))
    }

    /// Not filtered by `name`, or one of its values is inside `text`.
    pub fn contained(&self, name: &str, text: &str) -> bool {
        self.any(name, |value| text.contains(value))
    }

    /// All label filters hold: `key` asks that the label exists, `key=value` for its value;
    /// `label!` asks that none holds.
    pub fn labels<'a>(&self, name: &str, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        let holds = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => get(key) == Some(value),
            None => get(wanted).is_some(),
        };
        self.values(name).iter().all(holds) && !self.values(&format!("{name}!")).iter().any(holds)
    }

    /// A filter that is a boolean: `true`, `1`, `false`, `0`.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, Refusal> {
        match self.values(name) {
            [] => Ok(None),
            [one] => match one.to_ascii_lowercase().as_str() {
                "1" | "true" => Ok(Some(true)),
                "0" | "false" => Ok(Some(false)),
                _ => Err(Refusal::invalid(format!(
                    "invalid filter {name:?}: {one:?} is neither true nor false"
                ))),
            },
            _ => Err(Refusal::invalid(format!(
                "invalid filter {name:?}: give it one value"
            ))),
        }
    }

    /// Refuses values of `name` that are not in `known`.
    pub fn check(&self, name: &str, known: &[&str]) -> Result<(), Refusal> {
        match self
            .values(name)
            .iter()
            .find(|value| !known.contains(&value.as_str()))
        {
            None => Ok(()),
            Some(value) => Err(Refusal::invalid(format!(
                "invalid filter {name:?}: {value:?} is not one of {}",
                known.join(", ")
            ))),
        }
    }
}

fn list(name: &str, given: Value) -> Result<Vec<String>, String> {
    let text = |value: Value| match value {
        Value::String(text) => Ok(text),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Number(value) => Ok(value.to_string()),
        other => Err(format!("filter {name:?}: {other} is not text")),
    };
    match given {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => items.into_iter().map(text).collect(),
        Value::Object(map) => Ok(map
            .into_iter()
            .filter(|(_, on)| !matches!(on, Value::Bool(false)))
            .map(|(value, _)| value)
            .collect()),
        scalar => Ok(vec![text(scalar)?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_and_the_empty_one() {
        for (text, values) in [
            (r#"{"label":{"a=b":true}}"#, &["a=b"][..]),
            (r#"{"label":["a=b"]}"#, &["a=b"]),
            (r#"{"label":"a=b"}"#, &["a=b"]),
            (r#"{"label":{"a=b":false}}"#, &[]),
            (r#"{"label":[true, 1]}"#, &["true", "1"]),
            ("{}", &[]),
            ("", &[]),
            ("null", &[]),
        ] {
            assert_eq!(
                Filters::parse(text, &["label"]).unwrap().values("label"),
                values,
                "{text}"
            );
        }
    }

    #[test]
    fn mistakes_are_refused() {
        for (text, words) in [
            ("{", "not valid JSON"),
            ("[]", "expected an object"),
            (
                r#"{"colour":["red"]}"#,
                "unknown filter \"colour\"; known here: label, name",
            ),
            (r#"{"label":[[]]}"#, "is not text"),
        ] {
            let refusal = Filters::parse(text, &["label", "name"]).unwrap_err();
            assert!(refusal.message.contains(words), "{}", refusal.message);
        }
    }

    #[test]
    fn labels_must_all_hold() {
        let labels = |key: &str| match key {
            "a" => Some("1"),
            "b" => Some(""),
            _ => None,
        };
        for (text, fits) in [
            (r#"{"label":["a"]}"#, true),
            (r#"{"label":["a=1","b"]}"#, true),
            (r#"{"label":["a=1","c"]}"#, false),
            (r#"{"label":["a=2"]}"#, false),
            (r#"{"label!":["a"]}"#, false),
            (r#"{"label!":["c"]}"#, true),
            ("{}", true),
        ] {
            let filters = Filters::parse(text, &["label", "label!"]).unwrap();
            assert_eq!(filters.labels("label", labels), fits, "{text}");
        }
    }
}
