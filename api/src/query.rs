//! Query strings, read as leniently as Docker reads them.

use std::collections::BTreeMap;

use model::Refusal;

use crate::{Filters, timestamp};

/// The parameters of one request; the first of several equal ones counts, except in [`Query::all`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    values: BTreeMap<String, Vec<String>>,
}

impl Query {
    /// Reads the part after `?`, percent-decoded (`application/x-www-form-urlencoded`).
    pub fn parse(text: &str) -> Self {
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            values.entry(decode(key)).or_default().push(decode(value));
        }
        Self { values }
    }

    /// A parameter's text; an empty one counts as not given.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.all(name)
            .first()
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    }

    pub fn all(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Docker's reading of a boolean: empty, `0`, `no`, `false`, `none` in any case are false,
    /// everything else is true.
    pub fn flag(&self, name: &str) -> bool {
        self.flag_or(name, false)
    }

    /// As [`Query::flag`], with the value of a parameter that is not given.
    pub fn flag_or(&self, name: &str, absent: bool) -> bool {
        match self.all(name).first() {
            None => absent,
            Some(text) => !matches!(
                text.trim().to_ascii_lowercase().as_str(),
                "" | "0" | "no" | "false" | "none"
            ),
        }
    }

    /// A whole number.
    pub fn number(&self, name: &str) -> Result<Option<i64>, Refusal> {
        self.text(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    Refusal::invalid(format!("parameter {name}: {text:?} is not a whole number"))
                })
            })
            .transpose()
    }

    /// A moment, in nanoseconds since the epoch; zero counts as not given.
    pub fn moment(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let nanos = timestamp::parse(text).ok_or_else(|| {
            Refusal::invalid(format!(
                "parameter {name}: {text:?} is neither Unix seconds nor an RFC 3339 time"
            ))
        })?;
        Ok((nanos != 0).then_some(nanos))
    }

    /// The `filters` parameter; names that are not in `allowed` are refused.
    pub fn filters(&self, allowed: &[&str]) -> Result<Filters, Refusal> {
        Filters::parse(self.text("filters").unwrap_or(""), allowed)
    }

    /// The `filters` parameter, with whatever names; whoever uses them refuses unknown ones.
    pub fn any_filters(&self) -> Result<Filters, Refusal> {
        Filters::parse_any(self.text("filters").unwrap_or(""))
    }

    /// The version an update saw.
    pub fn version(&self) -> Result<u64, Refusal> {
        let text = self.text("version").unwrap_or("");
        text.parse().map_err(|_| {
            Refusal::invalid(format!(
                "parameter version: {text:?} is not the version of the object; read it first and send its Version.Index"
            ))
        })
    }
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |b: u8| (b as char).to_digit(16).map(|digit| digit as u8);
        match bytes[at] {
            b'+' => decoded.push(b' '),
            b'%' => {
                let pair = bytes
                    .get(at + 1)
                    .copied()
                    .and_then(hex)
                    .zip(bytes.get(at + 2).copied().and_then(hex));
                match pair {
                    Some((high, low)) => {
                        decoded.push(high * 16 + low);
                        at += 2;
                    }
                    None => decoded.push(b'%'),
                }
            }
            byte => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_of_every_client() {
        for (text, value) in [
            ("all=1", true),
            ("all=true", true),
            ("all=True", true),
            ("all=0", false),
            ("all=False", false),
            ("all=", false),
            ("all", false),
            ("", false),
        ] {
            assert_eq!(Query::parse(text).flag("all"), value, "{text}");
        }
        assert!(Query::parse("").flag_or("stream", true));
    }

    #[test]
    fn values_are_decoded() {
        let query = Query::parse("filters=%7B%22a%22%3A%5B%22b+c%22%5D%7D&t=5&x=%zz&e=");
        assert_eq!(query.text("filters"), Some("{\"a\":[\"b c\"]}"));
        assert_eq!(query.number("t").unwrap(), Some(5));
        assert_eq!(query.text("x"), Some("%zz"));
        assert_eq!(query.text("e"), None);
        assert!(query.number("x").is_err());
        assert!(Query::parse("version=x").version().is_err());
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in ".*") {
            let _ = Query::parse(&text);
        }
    }
}
