//! Edits of a specification in JSON that never fail on what a daemon sent.

use serde_json::{Map, Value};

/// The value at `path`, made on the way where it is missing; what is no object on the way becomes one.
pub fn at<'a>(value: &'a mut Value, path: &[&str]) -> &'a mut Value {
    path.iter()
        .fold(value, |place, name| entry(place, name, || Value::Null))
}

fn entry<'a>(place: &'a mut Value, name: &str, make: impl FnOnce() -> Value) -> &'a mut Value {
    object(place).entry(name).or_insert_with(make)
}

/// The object here; anything else is replaced by an empty one.
pub fn object(place: &mut Value) -> &mut Map<String, Value> {
    if !place.is_object() {
        *place = Value::Object(Map::new());
    }
    match place {
        Value::Object(map) => map,
        _ => unreachable!("anything else was replaced just above"),
    }
}

/// Sets a field, or removes it when the value is what Go leaves out: null, false, 0, and empty texts, lists and maps.
pub fn put(value: &mut Value, path: &[&str], new: Value) {
    let Some((last, before)) = path.split_last() else {
        return;
    };
    if is_empty(&new) {
        if value.pointer(&format!("/{}", path.join("/"))).is_some() {
            object(at(value, before)).remove(*last);
        }
        return;
    }
    object(at(value, before)).insert((*last).to_owned(), new);
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// The entries of a list, none when it is missing.
pub fn list(value: &Value, path: &[&str]) -> Vec<Value> {
    value
        .pointer(&format!("/{}", path.join("/")))
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default()
}

/// The texts of a list, none when it is missing.
pub fn texts(value: &Value, path: &[&str]) -> Vec<String> {
    list(value, path)
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// A list of texts after `add` and `remove`: no text twice, sorted so that an edit that changes nothing changes nothing.
pub fn edit_texts(value: &mut Value, path: &[&str], add: &[String], remove: &[String]) {
    if add.is_empty() && remove.is_empty() {
        return;
    }
    let mut result = texts(value, path);
    result.extend_from_slice(add);
    result.retain(|text| !remove.contains(text));
    result.sort();
    result.dedup();
    put(value, path, Value::from(result));
}

/// A map after `add` (`KEY=VALUE`) and `remove` (`KEY`); keys that are not there are no error.
pub fn edit_map(value: &mut Value, path: &[&str], add: &[String], remove: &[String]) {
    if add.is_empty() && remove.is_empty() {
        return;
    }
    let map = object(at(value, path));
    for pair in add {
        let (key, text) = pair.split_once('=').unwrap_or((pair, ""));
        map.insert(key.to_owned(), Value::from(text));
    }
    for key in remove {
        map.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn places_are_made_and_empties_left_out() {
        let mut spec = json!({"A": "no object"});
        put(&mut spec, &["A", "B", "C"], json!(1));
        put(&mut spec, &["X", "Y"], json!(0));
        assert_eq!(spec, json!({"A": {"B": {"C": 1}}}));
        put(&mut spec, &["A", "B", "C"], json!(""));
        assert_eq!(spec, json!({"A": {"B": {}}}));
    }

    #[test]
    fn lists_and_maps() {
        let own =
            |texts: &[&str]| -> Vec<String> { texts.iter().map(|t| (*t).to_owned()).collect() };
        let mut spec = json!({"L": ["b", "a"], "M": {"x": "1", "y": "2"}});
        edit_texts(&mut spec, &["L"], &own(&["c", "a"]), &own(&["b", "zz"]));
        edit_map(&mut spec, &["M"], &own(&["z=3", "w"]), &own(&["x", "zz"]));
        edit_texts(&mut spec, &["Untouched"], &[], &[]);
        assert_eq!(
            spec,
            json!({"L": ["a", "c"], "M": {"y": "2", "z": "3", "w": ""}})
        );
        edit_texts(&mut spec, &["L"], &[], &own(&["a", "c"]));
        assert!(spec.get("L").is_none());
    }
}
