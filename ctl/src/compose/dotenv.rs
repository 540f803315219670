//! `.env` and `env_file`: `KEY=VALUE` lines with quotes, comments and interpolation, as Compose
//! reads them, and Docker's raw form without any of it (`format: raw`).

use std::collections::BTreeSet;

use super::interpolate::{BYTES, TOO_MUCH, expand};

/// One line's outcome: a name, and its value if it has one.
pub type Pair = (String, Option<String>);

/// What is wrong, with the line counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// The line.
    pub line: usize,
    /// The sentence.
    pub message: String,
}

/// Reads Compose's form. Earlier lines and `lookup` give the values of variables; `lookup` wins.
pub fn parse(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Vec<Pair>, BadLine> {
    let mut pairs: Vec<Pair> = Vec::new();
    let text = text.trim_start_matches('\u{feff}');
    let mut rest = text;
    // Lines are counted on from the last one: from the beginning each time would take minutes.
    let (mut line, mut counted) = (1, 0);
    let mut bytes = 0;
    while !rest.is_empty() {
        let at = text.len() - rest.len();
        line += text[counted..at].matches('\n').count();
        counted = at;
        let bad = |message: String| BadLine { line, message };
        let (first, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let trimmed = first.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            rest = after;
            continue;
        }
        let trimmed = trimmed
            .strip_prefix("export ")
            .map_or(trimmed, str::trim_start);
        let Some(split) = trimmed.find(['=', ':']) else {
            let name = trimmed.split(" #").next().unwrap_or(trimmed).trim();
            check(name).map_err(bad)?;
            pairs.push((name.to_owned(), None));
            rest = after;
            continue;
        };
        let name = trimmed[..split].trim();
        check(name).map_err(bad)?;
        // The value may go on over several lines inside quotes.
        let start = text.len() - rest.len()
            + (trimmed.as_ptr() as usize - rest.as_ptr() as usize)
            + split
            + 1;
        let value = text[start..].trim_start_matches([' ', '\t']);
        let known = |wanted: &str| {
            lookup(wanted).or_else(|| {
                let found = pairs.iter().rev().find(|(name, _)| name == wanted)?;
                found.1.clone()
            })
        };
        let expanded = |text: &str| {
            expand(text, &known, &mut BTreeSet::new()).map_err(|e| BadLine {
                line,
                message: format!("{name}: {}", e.message),
            })
        };
        let first = value.chars().next().filter(|c| matches!(c, '"' | '\''));
        let (value, left) = if let Some(quote) = first {
            let (inner, left) = quoted(value, quote)
                .ok_or_else(|| bad(format!("{name}: the quote {quote} is not closed")))?;
            let value = if quote == '"' {
                expanded(&unescape(inner))?
            } else {
                inner.to_owned()
            };
            (value, left)
        } else {
            let (line, left) = value.split_once('\n').unwrap_or((value, ""));
            let cut = line
                .find(" #")
                .or_else(|| line.find("\t#"))
                .or(line.starts_with('#').then_some(0));
            (expanded(line[..cut.unwrap_or(line.len())].trim())?, left)
        };
        bytes += value.len();
        if bytes > BYTES {
            return Err(bad(format!("{name}: {TOO_MUCH}")));
        }
        pairs.push((name.to_owned(), Some(value)));
        rest = left;
    }
    Ok(pairs)
}

/// Reads Docker's raw form: everything after the first `=` is the value.
pub fn parse_raw(text: &str) -> Result<Vec<Pair>, BadLine> {
    let mut pairs = Vec::new();
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (line.trim_end(), None),
        };
        check(name).map_err(|message| BadLine {
            line: index + 1,
            message,
        })?;
        pairs.push((name.to_owned(), value));
    }
    Ok(pairs)
}

fn check(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("a name is missing before the =".to_owned());
    }
    if name.contains(char::is_whitespace) {
        return Err(format!("{name:?}: a name cannot contain spaces"));
    }
    Ok(())
}

/// What is between the quotes, and what follows the line of the closing one.
fn quoted(text: &str, quote: char) -> Option<(&str, &str)> {
    let mut escaped = false;
    for (index, c) in text.char_indices().skip(1) {
        match c {
            '\\' if quote == '"' && !escaped => escaped = true,
            c if c == quote && !escaped => {
                let left = &text[index + 1..];
                return Some((
                    &text[1..index],
                    left.split_once('\n').map_or("", |(_, left)| left),
                ));
            }
            _ => escaped = false,
        }
    }
    None
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match characters.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('$') => out.push_str("$$"),
            Some(c @ ('"' | '\\' | '\'')) => out.push(c),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Pair>, BadLine> {
        parse(text, &|name| (name == "HOME").then(|| "/root".to_owned()))
    }

    #[test]
    fn every_form() {
        let cases: [(&str, &str, Option<&str>); 17] = [
            ("A=1", "A", Some("1")),
            ("export A=1", "A", Some("1")),
            ("  A = 1  ", "A", Some("1")),
            ("A: 1", "A", Some("1")),
            ("A=", "A", Some("")),
            ("A", "A", None),
            ("A=x # comment", "A", Some("x")),
            ("A=x#y", "A", Some("x#y")),
            ("A='x $HOME # y'", "A", Some("x $HOME # y")),
            ("A=\"x $HOME\\n\\\"q\\\"\" # c", "A", Some("x /root\n\"q\"")),
            ("A=\"\\$HOME\"", "A", Some("$HOME")),
            ("A=${HOME}/x", "A", Some("/root/x")),
            ("A=${NO:-d}", "A", Some("d")),
            ("A='two\nlines'\n", "A", Some("two\nlines")),
            ("\u{feff}A=1\r\n", "A", Some("1")),
            ("# c\n\nA=a=b", "A", Some("a=b")),
            ("한글=값", "한글", Some("값")),
        ];
        for (text, name, value) in cases {
            let wanted = vec![(name.to_owned(), value.map(str::to_owned))];
            assert_eq!(read(text), Ok(wanted), "{text}");
        }
        let chain = read("A=1\nB=${A}2\nHOME=x\nC=$HOME\n").unwrap();
        assert_eq!(chain[1].1.as_deref(), Some("12"));
        assert_eq!(chain[3].1.as_deref(), Some("/root"));
    }

    #[test]
    fn values_that_double_are_stopped_and_many_lines_are_quick() {
        let mut text = "A=xxxxxxxxxxxxxxxx\n".to_owned();
        text.push_str(&"A=$A$A\n".repeat(40));
        let error = read(&text).unwrap_err();
        assert!(error.message.contains("add up to more than"), "{error:?}");
        assert_eq!(read(&"\n".repeat(1 << 20)), Ok(Vec::new()));
    }

    #[test]
    fn wrong_lines_are_numbered() {
        let cases = [
            ("A=1\n=x", 2),
            ("\n\nA B=1", 3),
            ("A=\"x\ny", 1),
            ("A='1\n2'\nB=${", 3),
        ];
        for (text, line) in cases {
            assert_eq!(read(text).unwrap_err().line, line, "{text:?}");
        }
    }

    #[test]
    fn raw_takes_quotes_literally() {
        let pairs = parse_raw("A=\"x\" # y\nB\n").unwrap();
        assert_eq!(pairs[0].1.as_deref(), Some("\"x\" # y"));
        assert_eq!(pairs[1], ("B".to_owned(), None));
        assert_eq!(parse_raw("A=1\n=x").unwrap_err().line, 2);
    }
}
