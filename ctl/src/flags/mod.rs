//! Reading the values of flags into what the API takes.

pub mod container;
pub mod mount;
pub mod network;
pub mod port;
pub mod resource;
pub mod service;
pub mod variables;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// `--filter name=value`, repeatable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads the flags; a filter without `=` is refused.
    pub fn parse(flags: &[String]) -> Result<Self, String> {
        let mut filters = Self::default();
        for flag in flags {
            let Some((name, value)) = flag.split_once('=') else {
                return Err(format!(
                    "bad filter {flag:?}: write NAME=VALUE, as in --filter name=web"
                ));
            };
            filters.add(name.trim().to_lowercase().as_str(), value.trim());
        }
        Ok(filters)
    }

    /// Adds one more.
    pub fn add(&mut self, name: &str, value: &str) {
        self.0
            .entry(name.to_owned())
            .or_default()
            .push(value.to_owned());
    }

    /// Takes out all values of `name`.
    pub fn take(&mut self, name: &str) -> Vec<String> {
        self.0.remove(name).unwrap_or_default()
    }

    /// True when `name` is among them.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The value of the query, `{"label":{"a=b":true}}`; `None` without filters.
    pub fn encode(&self) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        let outer: Map<String, Value> = self
            .0
            .iter()
            .map(|(name, values)| {
                let inner: Map<String, Value> = values
                    .iter()
                    .map(|v| (v.clone(), Value::Bool(true)))
                    .collect();
                (name.clone(), Value::Object(inner))
            })
            .collect();
        Some(Value::Object(outer).to_string())
    }
}

/// `KEY=VALUE` flags to a map; `KEY` alone has an empty value.
pub fn pairs(flags: &[String]) -> Value {
    let map: Map<String, Value> = flags
        .iter()
        .map(|flag| {
            let (key, value) = flag.split_once('=').unwrap_or((flag, ""));
            (key.to_owned(), Value::from(value))
        })
        .collect();
    Value::Object(map)
}

/// `KEY=VALUE` flags to a map; a flag without `=` is refused with the flag's name.
pub fn strict_pairs(flag_name: &str, flags: &[String]) -> Result<Value, String> {
    let mut map = Map::new();
    for flag in flags {
        let Some((key, value)) = flag.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(format!(
                "{flag_name}: {flag:?} is not of the form KEY=VALUE"
            ));
        };
        map.insert(key.to_owned(), Value::from(value));
    }
    Ok(Value::Object(map))
}

/// `--restart no|always|unless-stopped|on-failure[:N]`.
pub fn restart_policy(text: &str) -> Result<Value, String> {
    let (name, count) = match text.split_once(':') {
        Some((name, count)) => (name, Some(count)),
        None => (text, None),
    };
    let count = match count {
        None => 0,
        Some(_) if name != "on-failure" => {
            return Err(format!(
                "--restart {text:?}: only on-failure takes a number of attempts"
            ));
        }
        Some(count) => count.parse::<u32>().map_err(|_| {
            format!("--restart {text:?}: the number of attempts must be a whole number")
        })?,
    };
    match name {
        "" | "no" | "always" | "unless-stopped" | "on-failure" => Ok(
            json!({"Name": if name.is_empty() { "no" } else { name }, "MaximumRetryCount": count}),
        ),
        _ => Err(format!(
            "--restart {text:?}: use no, always, unless-stopped or on-failure[:N]"
        )),
    }
}

/// One line of comma-separated fields; a field in double quotes may hold commas.
pub fn comma_fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    if quoted {
        return Err(format!("{text:?}: a double quote is not closed"));
    }
    fields.push(field);
    Ok(fields)
}

/// Go's words for true and false.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn filters_are_encoded_as_docker_does() {
        let filters = Filters::parse(&strings(&["label=a=b", "label=c", "name=x"])).unwrap();
        assert_eq!(
            filters.encode().unwrap(),
            r#"{"label":{"a=b":true,"c":true},"name":{"x":true}}"#
        );
        assert_eq!(Filters::default().encode(), None);
        assert!(Filters::parse(&strings(&["name"])).is_err());
    }

    #[test]
    fn restart_policies() {
        let cases = [
            ("no", Some(("no", 0))),
            ("always", Some(("always", 0))),
            ("on-failure:3", Some(("on-failure", 3))),
            ("unless-stopped", Some(("unless-stopped", 0))),
            ("on-failure", Some(("on-failure", 0))),
            ("always:3", None),
            ("on-failure:x", None),
            ("sometimes", None),
        ];
        for (text, wanted) in cases {
            let wanted =
                wanted.map(|(name, count)| json!({"Name": name, "MaximumRetryCount": count}));
            assert_eq!(restart_policy(text).ok(), wanted, "{text}");
        }
    }

    #[test]
    fn fields_may_be_quoted() {
        assert_eq!(comma_fields("a=1,b=2").unwrap(), ["a=1", "b=2"]);
        assert_eq!(
            comma_fields(r#"type=x,"opt=o=a,b",c"#).unwrap(),
            ["type=x", "opt=o=a,b", "c"]
        );
        assert!(comma_fields(r#"a,"b"#).is_err());
    }

    #[test]
    fn pairs_with_and_without_a_value() {
        assert_eq!(
            pairs(&strings(&["a=1", "b", "c=x=y"])),
            json!({"a": "1", "b": "", "c": "x=y"})
        );
        assert!(strict_pairs("--opt", &strings(&["a"])).is_err());
    }
}
