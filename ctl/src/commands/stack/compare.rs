//! Whether a service is already as it shall be, and where not.

use serde_json::{Map, Value};

/// One field that differs: `TaskTemplate.ContainerSpec.Image: "a" -> "b"`.
pub type Difference = String;

/// The fields in which two specifications differ, in words; what goes without saying does not
/// count: empty values, and defaults that a daemon fills in.
pub fn differences(now: &Value, wanted: &Value) -> Vec<Difference> {
    let mut list = Vec::new();
    compare(&plain(now, ""), &plain(wanted, ""), "", &mut list);
    list
}

fn compare(now: &Value, wanted: &Value, path: &str, list: &mut Vec<Difference>) {
    if now == wanted {
        return;
    }
    match (now, wanted) {
        (Value::Object(a), Value::Object(b)) => {
            let names = a.keys().chain(b.keys().filter(|k| !a.contains_key(*k)));
            for name in names {
                let (x, y) = (
                    a.get(name).unwrap_or(&Value::Null),
                    b.get(name).unwrap_or(&Value::Null),
                );
                let inner = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                compare(x, y, &inner, list);
            }
        }
        (Value::Array(a), Value::Array(b)) if path.ends_with("Env") => {
            // The values may be private: only names are shown.
            let name = |v: &Value| {
                v.as_str()
                    .unwrap_or_default()
                    .split('=')
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            };
            let changed = b
                .iter()
                .filter(|v| !a.contains(v))
                .chain(a.iter().filter(|v| !b.contains(v)));
            let mut names: Vec<String> = changed.map(name).collect();
            names.sort();
            names.dedup();
            list.push(format!("{path}: {}", names.join(", ")));
        }
        _ => list.push(format!("{path}: {} -> {}", word(now), word(wanted))),
    }
}

fn word(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        other => {
            let text = other.to_string();
            match text.char_indices().nth(120) {
                Some((cut, _)) => format!("{}…", &text[..cut]),
                None => text,
            }
        }
    }
}

/// A specification without what goes without saying.
fn plain(value: &Value, path: &str) -> Value {
    match value {
        Value::Object(map) => {
            let fields: Map<String, Value> = map
                .iter()
                .filter_map(|(name, value)| {
                    let inner = format!("{path}/{name}");
                    let value = plain(value, &inner);
                    let said = !empty(&value) && !implied(&inner, &value);
                    (said || kept(&inner)).then(|| (name.clone(), value))
                })
                .collect();
            Value::Object(fields)
        }
        Value::Array(items) => Value::Array(items.iter().map(|item| plain(item, path)).collect()),
        Value::Number(number) if path.ends_with("/MaxFailureRatio") => {
            // A daemon may keep it in millionths.
            let millionths = number.as_f64().unwrap_or(0.0) * 1e6;
            Value::from(millionths.round())
        }
        other => other.clone(),
    }
}

fn empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) => false,
    }
}

/// Fields whose empty value means something.
fn kept(path: &str) -> bool {
    path.starts_with("/Mode/") || path.ends_with("/Parallelism") || path.ends_with("/Init")
}

/// Five seconds in nanoseconds.
const FIVE_SECONDS: i64 = 5_000_000_000;

/// Defaults that a daemon writes into what it stores, Docker's or ours.
fn implied(path: &str, value: &Value) -> bool {
    match path {
        "/UpdateConfig/FailureAction" | "/RollbackConfig/FailureAction" => value == "pause",
        "/UpdateConfig/Monitor"
        | "/RollbackConfig/Monitor"
        | "/TaskTemplate/RestartPolicy/Delay" => value == FIVE_SECONDS,
        "/UpdateConfig/Order" | "/RollbackConfig/Order" => value == "stop-first",
        "/TaskTemplate/RestartPolicy/Condition" => value == "any",
        "/TaskTemplate/Runtime" => value == "container",
        "/TaskTemplate/ContainerSpec/Isolation" => value == "default",
        "/EndpointSpec/Mode" => value == "vip",
        "/TaskTemplate/ForceUpdate" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_goes_without_saying_is_no_difference() {
        let wanted = json!({"Name": "a", "TaskTemplate": {"ContainerSpec": {"Image": "x", "Env": ["A=1"]}, "Resources": {}, "Placement": {}, "ForceUpdate": 0},
            "UpdateConfig": {"Parallelism": 1, "Order": "start-first", "MaxFailureRatio": 0.333_333_3},
            "Mode": {"Replicated": {"Replicas": 1}}, "EndpointSpec": {}});
        let stored = json!({"Name": "a", "TaskTemplate": {"ContainerSpec": {"Image": "x", "Env": ["A=1"], "Isolation": "default", "DNSConfig": {}}, "Runtime": "container", "ForceUpdate": 3,
                "RestartPolicy": {"Condition": "any", "Delay": 5_000_000_000_i64, "MaxAttempts": 0}},
            "UpdateConfig": {"Parallelism": 1, "Order": "start-first", "FailureAction": "pause", "Monitor": 5_000_000_000_i64, "MaxFailureRatio": 0.333_333},
            "Mode": {"Replicated": {"Replicas": 1}}, "EndpointSpec": {"Mode": "vip"}, "Labels": null});
        assert_eq!(differences(&stored, &wanted), Vec::<String>::new());
    }

    #[test]
    fn differences_are_named() {
        let cases = [
            (
                json!({"A": {"B": 1}}),
                json!({"A": {"B": 2}}),
                vec!["A.B: 1 -> 2"],
            ),
            (json!({"A": "x"}), json!({}), vec!["A: \"x\" -> none"]),
            (
                json!({"Mode": {"Global": {}}}),
                json!({"Mode": {"Replicated": {"Replicas": 0}}}),
                vec![
                    "Mode.Global: {} -> none",
                    "Mode.Replicated: none -> {\"Replicas\":0}",
                ],
            ),
            (
                json!({"Mode": {"Replicated": {"Replicas": 1}}}),
                json!({"Mode": {"Replicated": {"Replicas": 0}}}),
                vec!["Mode.Replicated.Replicas: 1 -> 0"],
            ),
            (
                json!({"Env": ["A=1", "B=secret"]}),
                json!({"Env": ["A=1", "B=other", "C=1"]}),
                vec!["Env: B, C"],
            ),
        ];
        for (now, wanted, text) in cases {
            assert_eq!(differences(&now, &wanted), text, "{now} {wanted}");
        }
    }
}
