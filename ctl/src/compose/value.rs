//! Single values: whole numbers, fractions, booleans, durations, sizes, command lines.

use crate::output::units::{parse_duration, parse_memory};

/// A whole number; `0o17` and `017` are octal, `0x1f` is hexadecimal, `_` may divide digits.
pub fn int(text: &str) -> Result<i64, String> {
    let bad = || format!("{text:?} is not a whole number");
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = digits.replace('_', "");
    let (digits, radix) = match digits.get(..2) {
        Some("0x" | "0X") => (&digits[2..], 16),
        Some("0o" | "0O") => (&digits[2..], 8),
        Some(two) if two.starts_with('0') => (&digits[1..], 8),
        _ => (digits.as_str(), 10),
    };
    if digits.starts_with(['-', '+']) {
        return Err(bad());
    }
    let number = i64::from_str_radix(digits, radix).map_err(|_| bad())?;
    Ok(if negative { -number } else { number })
}

/// A whole number that is not negative.
pub fn count(text: &str) -> Result<i64, String> {
    match int(text)? {
        number if number < 0 => Err(format!("{text:?} is negative")),
        number => Ok(number),
    }
}

/// A finite number.
pub fn number(text: &str) -> Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|n| n.is_finite())
        .ok_or_else(|| format!("{text:?} is not a number"))
}

/// YAML's words for true and false, those of 1.1 included.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "y" | "on" | "1" => Ok(true),
        "false" | "no" | "n" | "off" | "0" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

/// `1m30s` in nanoseconds; negative ones are refused.
pub fn duration(text: &str) -> Result<i64, String> {
    match parse_duration(text)? {
        nanos if nanos < 0 => Err(format!("{text:?} is a negative duration")),
        nanos => Ok(nanos),
    }
}

/// `512m` in bytes.
pub fn size(text: &str) -> Result<i64, String> {
    parse_memory(text)
}

/// `0.5` CPUs in billionths, exactly.
pub fn nano_cpus(text: &str) -> Result<i64, String> {
    let bad = || format!("{text:?} is not a number of CPUs, such as 0.5");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 {
        return Err(format!("{text:?} is finer than a billionth of a CPU"));
    }
    let digits = |part: &str| {
        if part.is_empty() {
            return Some(0);
        }
        let plain = part.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| part.parse::<i64>().ok()).flatten()
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(bad());
    }
    let whole = digits(whole).ok_or_else(bad)?;
    let fraction = digits(&format!("{fraction:0<9}")).ok_or_else(bad)?;
    whole
        .checked_mul(1_000_000_000)
        .and_then(|n| n.checked_add(fraction))
        .ok_or_else(bad)
}

/// Splits a command line as a shell would, without expanding anything.
pub fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => {
                let next = characters
                    .next()
                    .ok_or_else(|| format!("{text:?} ends with a backslash"))?;
                let word = word.get_or_insert_default();
                if quote.is_some() && !matches!(next, '"' | '\\' | '$' | '`') {
                    word.push('\\');
                }
                word.push(next);
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(quote) = quote {
        return Err(format!("{text:?}: the quote {quote} is not closed"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let cases = [
            ("0", Some(0)),
            ("3", Some(3)),
            ("-1", Some(-1)),
            ("0444", Some(0o444)),
            ("0o444", Some(0o444)),
            ("0x1f", Some(31)),
            ("1_000", Some(1000)),
            ("1.5", None),
            ("", None),
            ("--1", None),
            ("08", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(int(text).ok(), wanted, "{text}");
        }
    }

    #[test]
    fn cpus_are_exact() {
        let cases = [
            ("0.5", Some(500_000_000)),
            ("2", Some(2_000_000_000)),
            (".25", Some(250_000_000)),
            ("0.1", Some(100_000_000)),
            ("0.0000000001", None),
            ("x", None),
            (".", None),
            ("-1", None),
            ("99999999999", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(nano_cpus(text).ok(), wanted, "{text}");
        }
    }

    #[test]
    fn command_lines() {
        let cases: [(&str, Option<&[&str]>); 8] = [
            ("a b  c", Some(&["a", "b", "c"])),
            (
                "sh -c 'echo \"$X\" y'",
                Some(&["sh", "-c", "echo \"$X\" y"]),
            ),
            (r#"a "b \" c" d"#, Some(&["a", "b \" c", "d"])),
            (r"a\ b", Some(&["a b"])),
            ("a '' b", Some(&["a", "", "b"])),
            ("", Some(&[])),
            ("a 'b", None),
            ("a\\", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(
                words(text).ok().as_deref(),
                wanted
                    .map(|w| w.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
                    .as_deref(),
                "{text}"
            );
        }
    }
}
