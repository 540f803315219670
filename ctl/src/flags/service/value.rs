//! Values of service flags: each function reads one and says what is wrong with it.

use serde_json::{Map, Value, json};

use crate::flags::comma_fields;
use crate::flags::resource::ulimit as read_ulimit;
use crate::output::units::{parse_duration, parse_memory};

/// A Go duration that is not negative, in nanoseconds.
pub fn duration(text: &str) -> Result<i64, String> {
    match parse_duration(text)? {
        nanos if nanos < 0 => Err("duration cannot be negative".to_owned()),
        nanos => Ok(nanos),
    }
}

/// A size in bytes, as in 64m.
pub fn size(text: &str) -> Result<i64, String> {
    parse_memory(text)
}

/// Processors, as in 0.5, in billionths.
pub fn processors(text: &str) -> Result<i64, String> {
    let number: f64 = text
        .trim()
        .parse()
        .map_err(|_| format!("{text:?} is no number of processors: write 0.5 or 2"))?;
    if !(0.0..=1_000_000.0).contains(&number) {
        return Err(format!(
            "{text:?} is no number of processors: write 0.5 or 2"
        ));
    }
    Ok((number * 1e9).round() as i64)
}

/// A ratio of failures, 0 to 1.
pub fn ratio(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
        _ => Err(format!("{text:?} is no ratio: write a number from 0 to 1")),
    }
}

/// `spread=node.labels.KEY` to a placement preference.
pub fn preference(text: &str) -> Result<Value, String> {
    match text.split_once('=') {
        Some(("spread", over)) if !over.contains('=') && !over.is_empty() => {
            Ok(json!({"Spread": {"SpreadDescriptor": over}}))
        }
        Some((other, _)) if other != "spread" => Err(format!(
            "unsupported placement preference {other} (only spread is supported)"
        )),
        _ => Err(
            "placement preference must be of the format \"<strategy>=<arg>\", as in spread=node.labels.rack"
                .to_owned(),
        ),
    }
}

/// `KIND=NUMBER` to a generic resource.
pub fn generic(text: &str) -> Result<Value, String> {
    let Some((kind, count)) = text.split_once('=').filter(|(kind, _)| !kind.is_empty()) else {
        return Err(format!(
            "invalid generic-resource format `{text}` expected `name=value`"
        ));
    };
    match count.parse::<i64>() {
        Ok(count) if count > 0 => {
            Ok(json!({"DiscreteResourceSpec": {"Kind": kind, "Value": count}}))
        }
        Ok(_) => Err(format!("{text}: the number must be above 0")),
        Err(_) => Err(format!(
            "invalid generic-resource request `{text}`, Named Generic Resources is not supported for service create or update"
        )),
    }
}

/// `HOST:IP` to the line `IP HOST` of a hosts file.
pub fn host(text: &str) -> Result<String, String> {
    let line = crate::flags::resource::extra_host(text)
        .map_err(|_| format!("bad format for add-host: {text:?}: write HOST:IP"))?;
    match line.split_once(':') {
        Some((_, "host-gateway")) => Err(format!(
            "{text:?}: host-gateway is not the same on all hosts: write an address"
        )),
        Some((name, ip)) => Ok(format!("{ip} {name}")),
        None => Err(format!("bad format for add-host: {text:?}: write HOST:IP")),
    }
}

/// `NAME=SOFT[:HARD]`.
pub fn ulimit(text: &str) -> Result<Value, String> {
    read_ulimit(text)
}

/// An address of a name server.
pub fn address(text: &str) -> Result<String, String> {
    text.trim()
        .parse::<std::net::IpAddr>()
        .map(|ip| ip.to_string())
        .map_err(|_| format!("{text:?} is no IP address"))
}

/// `KEY=VALUE` or `KEY`; the key must not be empty.
pub fn label(text: &str) -> Result<String, String> {
    if text.is_empty() || text.starts_with('=') {
        return Err(format!("invalid label '{text}': empty name"));
    }
    Ok(text.to_owned())
}

/// `NAME[:started|healthy|completed]`: what a service waits for.
pub fn dependency(text: &str) -> Result<String, String> {
    let (name, condition) = text.split_once(':').unwrap_or((text, "started"));
    if name.is_empty() && !text.is_empty() || name.contains(',') {
        return Err(format!("{text:?}: write NAME[:started|healthy|completed]"));
    }
    match condition {
        "started" | "healthy" | "completed" => Ok(text.to_owned()),
        other => Err(format!(
            "{text:?}: {other:?} is no condition: use started, healthy or completed"
        )),
    }
}

/// `NAME` or `name=NAME,alias=…,driver-opt=K=V` of `--network`; `Target` holds the name as written.
pub fn network(text: &str) -> Result<Value, String> {
    let mut attachment = Map::new();
    let mut aliases = Vec::new();
    let mut options = Map::new();
    if !text.contains('=') {
        if text.is_empty() {
            return Err("network name/id is not specified".to_owned());
        }
        return Ok(json!({"Target": text}));
    }
    for field in comma_fields(text)? {
        let Some((key, value)) = field.split_once('=') else {
            return Err(format!("invalid field {field}: write KEY=VALUE"));
        };
        let value = value.trim();
        match key.trim().to_lowercase().as_str() {
            "name" => drop(attachment.insert("Target".to_owned(), json!(value))),
            "alias" => aliases.push(json!(value)),
            "driver-opt" => {
                let Some((k, v)) = value.split_once('=') else {
                    return Err(format!(
                        "invalid key value pair format in driver options: {value}"
                    ));
                };
                options.insert(k.trim().to_owned(), json!(v.trim()));
            }
            other => {
                return Err(format!(
                    "invalid field key {other}: there are name, alias and driver-opt"
                ));
            }
        }
    }
    if attachment.is_empty() {
        return Err("network name/id is not specified".to_owned());
    }
    if !aliases.is_empty() {
        attachment.insert("Aliases".to_owned(), Value::Array(aliases));
    }
    if !options.is_empty() {
        attachment.insert("DriverOpts".to_owned(), Value::Object(options));
    }
    Ok(Value::Object(attachment))
}

/// Words as a shell would cut them: quotes and backslashes keep spaces. Source: POSIX shell, section 2.2, Quoting.
pub fn shell_words(text: &str) -> Result<Words, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next() {
                        Some(end) if end == c => break,
                        Some('\\') if c == '"' => word.extend(characters.next()),
                        Some(other) => word.push(other),
                        None => return Err(format!("{text:?}: a quote is not closed")),
                    }
                }
            }
            '\\' => match characters.next() {
                Some(next) => word.get_or_insert_default().push(next),
                None => return Err(format!("{text:?} ends with a backslash")),
            },
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(Words(words))
}

/// The words of one flag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(pub Vec<String>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_as_a_shell_does() {
        let cases: [(&str, Option<&[&str]>); 8] = [
            ("sh -c 'a  b'", Some(&["sh", "-c", "a  b"])),
            (r#"a "b \" c" d\ e"#, Some(&["a", "b \" c", "d e"])),
            ("  a\tb\n", Some(&["a", "b"])),
            ("''", Some(&[""])),
            ("a''b", Some(&["ab"])),
            ("", Some(&[])),
            ("'a", None),
            ("a\\", None),
        ];
        for (text, wanted) in cases {
            let wanted = wanted.map(|w| Words(w.iter().map(|t| (*t).to_owned()).collect()));
            assert_eq!(shell_words(text).ok(), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_good_and_what_is_not() {
        assert_eq!(duration("1m30s"), Ok(90_000_000_000));
        assert_eq!(processors(".5"), Ok(500_000_000));
        assert_eq!(host("a:10.0.0.1"), Ok("10.0.0.1 a".to_owned()));
        assert_eq!(host("a:::1"), Ok("::1 a".to_owned()));
        assert_eq!(
            generic("GPU=2"),
            Ok(json!({"DiscreteResourceSpec": {"Kind": "GPU", "Value": 2}}))
        );
        assert_eq!(
            preference("spread=node.labels.dc"),
            Ok(json!({"Spread": {"SpreadDescriptor": "node.labels.dc"}}))
        );
        assert_eq!(network("ch03"), Ok(json!({"Target": "ch03"})));
        assert_eq!(
            network("name=n,alias=a,alias=b,driver-opt=x=1"),
            Ok(json!({"Target": "n", "Aliases": ["a", "b"], "DriverOpts": {"x": "1"}}))
        );
        let bad = [
            duration("-1s").err(),
            duration("5").err(),
            processors("x").err(),
            processors("nan").err(),
            ratio("1.5").err(),
            host("a").err(),
            host("a:host-gateway").err(),
            generic("GPU").err(),
            generic("GPU=UUID1").err(),
            generic("GPU=0").err(),
            preference("foo").err(),
            preference("pack=x").err(),
            preference("spread=").err(),
            label("=x").err(),
            address("x").err(),
            network("").err(),
            network("alias=a").err(),
            network("name=n,bogus=1").err(),
            network("name=n,driver-opt=x").err(),
            dependency("db:ready").err(),
            dependency(":healthy").err(),
        ];
        for (position, message) in bad.iter().enumerate() {
            assert!(message.is_some(), "bad value number {position} was taken");
        }
        for good in ["db", "db:started", "db:healthy", "migrate:completed", ""] {
            assert!(dependency(good).is_ok(), "{good}");
        }
    }
}
