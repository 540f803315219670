//! Go's built-in functions and Docker's additions.

use std::cmp::Ordering;
use std::fmt::Write as _;

use serde_json::Value;

use super::TemplateError;
use super::eval::{kind, truth};
use super::print::{go_quote, go_text};

fn fail<T>(text: impl Into<String>) -> Result<T, TemplateError> {
    Err(TemplateError(text.into()))
}

pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value, TemplateError> {
    let count = |wanted: usize| {
        if arguments.len() == wanted {
            Ok(())
        } else {
            fail(format!(
                "{name} takes {wanted} argument(s), not {}",
                arguments.len()
            ))
        }
    };
    let text = |index: usize| -> Result<&str, TemplateError> {
        match &arguments[index] {
            Value::String(text) => Ok(text),
            Value::Null => Ok(""),
            other => fail(format!("{name}: {} where a string belongs", kind(other))),
        }
    };
    match name {
        "json" => {
            count(1)?;
            Ok(Value::String(arguments[0].to_string()))
        }
        "lower" | "upper" | "title" => {
            count(1)?;
            let text = text(0)?;
            Ok(Value::String(match name {
                "lower" => text.to_lowercase(),
                "upper" => text.to_uppercase(),
                _ => title(text),
            }))
        }
        "split" => {
            count(2)?;
            Ok(Value::Array(
                text(0)?.split(text(1)?).map(Value::from).collect(),
            ))
        }
        "join" => {
            count(2)?;
            match &arguments[0] {
                Value::Array(list) => {
                    let parts: Vec<String> = list.iter().map(go_text).collect();
                    Ok(Value::String(parts.join(text(1)?)))
                }
                Value::Null => Ok(Value::from("")),
                other => fail(format!("join: {} where a list belongs", kind(other))),
            }
        }
        "pad" => {
            count(3)?;
            let text = text(0)?;
            if text.is_empty() {
                return Ok(Value::from(""));
            }
            // Wider than any terminal, and no more than that.
            let blank = |n: usize| " ".repeat(n.min(4096));
            Ok(Value::String(format!(
                "{}{text}{}",
                blank(whole(name, &arguments[1])?),
                blank(whole(name, &arguments[2])?)
            )))
        }
        "truncate" => {
            count(2)?;
            Ok(Value::String(
                text(0)?.chars().take(whole(name, &arguments[1])?).collect(),
            ))
        }
        "len" => {
            count(1)?;
            match &arguments[0] {
                Value::String(text) => Ok(Value::from(text.len())),
                Value::Array(list) => Ok(Value::from(list.len())),
                Value::Object(map) => Ok(Value::from(map.len())),
                Value::Null => Ok(Value::from(0)),
                other => fail(format!("len: {} has no length", kind(other))),
            }
        }
        "index" => index(arguments),
        "slice" => slice(arguments),
        "not" => {
            count(1)?;
            Ok(Value::Bool(!truth(&arguments[0])))
        }
        "eq" => {
            let Some((first, rest)) = arguments.split_first().filter(|(_, rest)| !rest.is_empty())
            else {
                return fail("eq takes at least 2 arguments");
            };
            Ok(Value::Bool(rest.iter().any(|other| same(first, other))))
        }
        "ne" => {
            count(2)?;
            Ok(Value::Bool(!same(&arguments[0], &arguments[1])))
        }
        "lt" | "le" | "gt" | "ge" => {
            count(2)?;
            let order = order(name, &arguments[0], &arguments[1])?;
            Ok(Value::Bool(match name {
                "lt" => order.is_lt(),
                "le" => order.is_le(),
                "gt" => order.is_gt(),
                _ => order.is_ge(),
            }))
        }
        "print" => Ok(Value::String(print(arguments))),
        "println" => {
            let parts: Vec<String> = arguments.iter().map(go_text).collect();
            Ok(Value::String(format!("{}\n", parts.join(" "))))
        }
        "printf" => printf(arguments),
        "urlquery" => {
            let bytes = print(arguments);
            let escaped = bytes.bytes().map(|b| match b {
                b if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) => (b as char).to_string(),
                b' ' => "+".to_owned(),
                b => format!("%{b:02X}"),
            });
            Ok(Value::String(escaped.collect()))
        }
        _ => fail(format!("there is no function \"{name}\"")),
    }
}

fn whole(name: &str, value: &Value) -> Result<usize, TemplateError> {
    match value.as_u64() {
        Some(number) => Ok(number as usize),
        None => fail(format!(
            "{name}: {} where a whole number belongs",
            kind(value)
        )),
    }
}

fn title(text: &str) -> String {
    let mut begins = true;
    text.chars()
        .map(|c| {
            let out = if begins {
                c.to_uppercase().next().unwrap_or(c)
            } else {
                c
            };
            begins = !(c.is_alphanumeric() || c == '_' || c == '\'');
            out
        })
        .collect()
}

fn index(arguments: &[Value]) -> Result<Value, TemplateError> {
    let Some((collection, keys)) = arguments.split_first() else {
        return fail("index takes at least 1 argument");
    };
    let mut current = collection.clone();
    for key in keys {
        current = match (&current, key) {
            (Value::Object(map), Value::String(key)) => match map.get(key) {
                Some(value) => value.clone(),
                // Go gives the zero value of the map's type, which for labels is an empty string.
                None if map.values().all(Value::is_string) => Value::from(""),
                None => Value::Null,
            },
            (Value::Array(list), Value::Number(number)) => {
                let position = number.as_u64().unwrap_or(u64::MAX) as usize;
                match list.get(position) {
                    Some(value) => value.clone(),
                    None => {
                        return fail(format!(
                            "index: {number} is out of range, the list has {} entries",
                            list.len()
                        ));
                    }
                }
            }
            (Value::Null, _) => {
                return fail(format!(
                    "index: there is nothing to look {} up in",
                    go_text(key)
                ));
            }
            (other, key) => {
                return fail(format!(
                    "index: {} has no entry under {}",
                    kind(other),
                    kind(key)
                ));
            }
        };
    }
    Ok(current)
}

fn slice(arguments: &[Value]) -> Result<Value, TemplateError> {
    let Some((collection, bounds)) = arguments.split_first().filter(|(_, b)| b.len() <= 2) else {
        return fail("slice takes 1 to 3 arguments");
    };
    let length = match collection {
        Value::String(text) => text.len(),
        Value::Array(list) => list.len(),
        other => return fail(format!("slice: {} cannot be sliced", kind(other))),
    };
    let begin = bounds.first().map_or(Ok(0), |b| whole("slice", b))?;
    let end = bounds.get(1).map_or(Ok(length), |b| whole("slice", b))?;
    if begin > end || end > length {
        return fail(format!(
            "slice: {begin}..{end} is out of range, the length is {length}"
        ));
    }
    match collection {
        Value::String(text) => match text.get(begin..end) {
            Some(part) => Ok(Value::from(part)),
            None => fail("slice: the cut goes through a character"),
        },
        Value::Array(list) => Ok(Value::Array(list[begin..end].to_vec())),
        _ => fail("slice: nothing to slice"),
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (a, b) => a == b,
    }
}

fn order(name: &str, a: &Value, b: &Value) -> Result<Ordering, TemplateError> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => Ok(a
            .as_f64()
            .partial_cmp(&b.as_f64())
            .unwrap_or(Ordering::Equal)),
        (Value::String(a), Value::String(b)) => Ok(a.cmp(b)),
        (a, b) => fail(format!(
            "{name}: {} and {} cannot be compared",
            kind(a),
            kind(b)
        )),
    }
}

/// Go's `Sprint`: a space between two neighbours that are both no strings.
fn print(arguments: &[Value]) -> String {
    let mut text = String::new();
    for (position, value) in arguments.iter().enumerate() {
        if position > 0 && (!value.is_string() && !arguments[position - 1].is_string()) {
            text.push(' ');
        }
        text.push_str(&go_text(value));
    }
    text
}

fn hexadecimal(text: &str) -> String {
    let mut digits = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

fn printf(arguments: &[Value]) -> Result<Value, TemplateError> {
    let Some((Value::String(format), mut values)) = arguments.split_first() else {
        return fail("printf takes a format first");
    };
    let mut text = String::new();
    let mut characters = format.chars().peekable();
    while let Some(c) = characters.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let (mut left, mut zero, mut plus, mut sharp) = (false, false, false, false);
        while let Some(flag) = characters.next_if(|c| matches!(c, '-' | '0' | '+' | '#' | ' ')) {
            match flag {
                '-' => left = true,
                '0' => zero = true,
                '+' => plus = true,
                '#' => sharp = true,
                _ => {}
            }
        }
        let digits = |from: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            let mut number = None;
            while let Some(digit) = from.next_if(char::is_ascii_digit) {
                number = Some(
                    number.unwrap_or(0_usize).saturating_mul(10) + digit as usize - '0' as usize,
                );
            }
            number
        };
        let width = digits(&mut characters).unwrap_or(0).min(4096);
        let precision = characters
            .next_if_eq(&'.')
            .map(|_| digits(&mut characters).unwrap_or(0).min(64));
        let Some(verb) = characters.next() else {
            text.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            text.push('%');
            continue;
        }
        let Some((value, rest)) = values.split_first() else {
            let _ = write!(text, "%!{verb}(MISSING)");
            continue;
        };
        values = rest;
        let number = value.as_f64().unwrap_or(0.0);
        let mut part = match verb {
            's' | 'v' => {
                let whole = if sharp && value.is_string() {
                    go_quote(&go_text(value))
                } else {
                    go_text(value)
                };
                precision.map_or(whole.clone(), |n| whole.chars().take(n).collect())
            }
            'q' => go_quote(&go_text(value)),
            'd' => match value {
                Value::Number(n) => {
                    if plus && number >= 0.0 {
                        format!("+{n}")
                    } else {
                        n.to_string()
                    }
                }
                other => format!("%!d({})", go_text(other)),
            },
            't' => go_text(value),
            'f' | 'F' => format!("{number:.*}", precision.unwrap_or(6)),
            'g' | 'e' => number.to_string(),
            'x' => match value {
                Value::Number(n) => format!("{:x}", n.as_i64().unwrap_or(0)),
                other => hexadecimal(&go_text(other)),
            },
            'X' => format!("{:X}", value.as_i64().unwrap_or(0)),
            'o' => format!("{:o}", value.as_i64().unwrap_or(0)),
            'b' => format!("{:b}", value.as_i64().unwrap_or(0)),
            'c' => value
                .as_u64()
                .and_then(|n| char::from_u32(n as u32))
                .unwrap_or('\u{fffd}')
                .to_string(),
            'T' => kind(value).to_owned(),
            other => format!("%!{other}({})", go_text(value)),
        };
        let missing = width.saturating_sub(part.chars().count());
        if left {
            part.push_str(&" ".repeat(missing));
        } else if zero && value.is_number() {
            let sign = usize::from(part.starts_with(['-', '+']));
            part.insert_str(sign, &"0".repeat(missing));
        } else {
            part.insert_str(0, &" ".repeat(missing));
        }
        text.push_str(&part);
    }
    if !values.is_empty() {
        let extra: Vec<String> = values.iter().map(go_text).collect();
        let _ = write!(text, "%!(EXTRA {})", extra.join(", "));
    }
    Ok(Value::String(text))
}
