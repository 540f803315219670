//! Times as Docker writes and reads them. Everywhere inside, a time is nanoseconds since the
//! Unix epoch in an `i64`.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// What Go prints for a time that was never set.
pub const ZERO: &str = "0001-01-01T00:00:00Z";

/// RFC 3339 in UTC with up to nine digits of the second, trailing zeros left out (Go's
/// RFC3339Nano). Zero is "never".
pub fn rfc3339(nanos: i64) -> String {
    if nanos == 0 {
        return ZERO.to_owned();
    }
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(nanos))
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_else(|| ZERO.to_owned())
}

/// RFC 3339 in UTC with always nine digits: what log lines begin with, so that they align.
pub fn rfc3339_fixed(nanos: i64) -> String {
    let whole = OffsetDateTime::from_unix_timestamp(seconds(nanos)).ok();
    let text = whole
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_else(|| ZERO.to_owned());
    format!(
        "{}.{:09}Z",
        text.trim_end_matches('Z'),
        nanos.rem_euclid(1_000_000_000)
    )
}

/// Reads `since` and `until`: Unix seconds, with or without a fraction, or RFC 3339.
pub fn parse(text: &str) -> Option<i64> {
    if let Ok(at) = OffsetDateTime::parse(text, &Rfc3339) {
        return i64::try_from(at.unix_timestamp_nanos()).ok();
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let negative = seconds.starts_with('-');
    let seconds: i64 = seconds.parse().ok()?;
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: i64 = format!("{fraction:0<9}").parse().ok()?;
    seconds
        .checked_mul(1_000_000_000)?
        .checked_add(if negative { -nanos } else { nanos })
}

/// Reads `until` of a prune: a moment, a date (UTC), or how long ago in Go's notation
/// (`24h`, `1h30m`).
pub fn parse_ago(text: &str, now: i64) -> Option<i64> {
    let date = || parse(&format!("{text}T00:00:00Z"));
    let local = || parse(&format!("{text}Z"));
    parse(text)
        .or_else(date)
        .or_else(local)
        .or_else(|| now.checked_sub(go_duration(text)?))
}

/// Nanoseconds of a duration in Go's notation.
fn go_duration(text: &str) -> Option<i64> {
    const UNITS: &[(&str, f64)] = &[
        ("ns", 1.0),
        ("us", 1e3),
        ("µs", 1e3),
        ("ms", 1e6),
        ("h", 3.6e12),
        ("m", 6e10),
        ("s", 1e9),
    ];
    let mut rest = text;
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let (unit, factor) = UNITS.iter().find(|(unit, _)| tail.starts_with(unit))?;
        total += number.parse::<f64>().ok()? * factor;
        rest = &tail[unit.len()..];
    }
    Some(total as i64)
}

/// Seconds since the epoch, rounded down.
pub fn seconds(nanos: i64) -> i64 {
    nanos.div_euclid(1_000_000_000)
}

/// How long something took, in Docker's words: `Less than a second`, `5 seconds`,
/// `About a minute`, `3 hours`, …
pub fn human(nanos: i64) -> String {
    let seconds = nanos / 1_000_000_000;
    let minutes = seconds / 60;
    let hours = (nanos as f64 / 3.6e12).round() as i64;
    match seconds {
        i64::MIN..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn written_as_go_writes_them() {
        for (nanos, text) in [
            (0, ZERO),
            (1_700_000_000 * SECOND, "2023-11-14T22:13:20Z"),
            (
                1_700_000_000 * SECOND + 120_000_000,
                "2023-11-14T22:13:20.12Z",
            ),
            (1_700_000_000 * SECOND + 1, "2023-11-14T22:13:20.000000001Z"),
        ] {
            assert_eq!(rfc3339(nanos), text);
        }
        assert_eq!(
            rfc3339_fixed(1_700_000_000 * SECOND + 120_000_000),
            "2023-11-14T22:13:20.120000000Z"
        );
    }

    #[test]
    fn since_and_until_are_read() {
        for (text, nanos) in [
            ("1700000000", Some(1_700_000_000 * SECOND)),
            ("1700000000.5", Some(1_700_000_000 * SECOND + SECOND / 2)),
            ("1700000000.000000001", Some(1_700_000_000 * SECOND + 1)),
            ("2023-11-14T22:13:20Z", Some(1_700_000_000 * SECOND)),
            (
                "2023-11-14T23:13:20.5+01:00",
                Some(1_700_000_000 * SECOND + SECOND / 2),
            ),
            ("yesterday", None),
            ("1.x", None),
            ("", None),
        ] {
            assert_eq!(parse(text), nanos, "{text}");
        }
    }

    #[test]
    fn moments_of_a_prune() {
        let now = 1_700_000_000 * SECOND;
        for (text, nanos) in [
            ("24h", Some(now - 24 * 3600 * SECOND)),
            ("1h30m", Some(now - 5400 * SECOND)),
            ("1.5s", Some(now - 1_500_000_000)),
            ("500ms", Some(now - 500_000_000)),
            ("1700000000", Some(now)),
            ("2023-11-14", Some(1_699_920_000 * SECOND)),
            ("2023-11-14T22:13:20", Some(now)),
            ("soon", None),
            ("5 apples", None),
            ("", None),
        ] {
            assert_eq!(parse_ago(text, now), nanos, "{text}");
        }
    }

    #[test]
    fn durations_in_words() {
        for (seconds, words) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (180, "3 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (3 * 86400, "3 days"),
            (21 * 86400, "3 weeks"),
            (100 * 86400, "3 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(human(seconds * SECOND), words);
        }
    }
}
