//! Points in time, from and to the forms the API and the user write.

use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

use super::units::{ago, parse_duration};

/// Seconds since 1970 of an RFC 3339 time; `None` for Go's zero time and for rubbish.
pub fn unix_seconds(text: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    (time.year() > 1).then(|| time.unix_timestamp())
}

/// `5 minutes ago`, or an empty text for an unknown time.
pub fn since(text: &str, now: i64) -> String {
    unix_seconds(text)
        .map(|then| ago(now - then))
        .unwrap_or_default()
}

/// `2026-01-02 15:04:05 +0000 UTC`, Go's own way of printing a time.
pub fn go_time(seconds: i64, offset: UtcOffset) -> String {
    let Ok(time) = OffsetDateTime::from_unix_timestamp(seconds) else {
        return String::new();
    };
    let time = time.to_offset(offset);
    let form = format_description!(
        "[year]-[month]-[day] [hour]:[minute]:[second] [offset_hour sign:mandatory][offset_minute]"
    );
    let zone = if offset.is_utc() { " UTC" } else { "" };
    time.format(&form)
        .map(|text| format!("{text}{zone}"))
        .unwrap_or_default()
}

/// `2026-01-02 15:04:05.5 +0000 utc`: a time of the API as Docker's pages for people print it; rubbish stays.
pub fn moment_text(text: &str) -> String {
    let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) else {
        return text.to_owned();
    };
    let whole = go_time(time.unix_timestamp(), UtcOffset::UTC);
    let fraction = format!(".{:09}", time.nanosecond());
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    match whole.split_at_checked(19) {
        Some((seconds, zone)) => format!("{seconds}{fraction}{}", zone.to_lowercase()),
        None => whole,
    }
}

/// `2026-01-02T15:04:05.123456789+00:00` with all nine digits, as `events` prints.
pub fn rfc3339_nanos(nanos: i128, offset: UtcOffset) -> String {
    let Ok(time) = OffsetDateTime::from_unix_timestamp_nanos(nanos) else {
        return String::new();
    };
    let form = if offset.is_utc() {
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:9]Z")
            .to_vec()
    } else {
        format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:9][offset_hour sign:mandatory]:[offset_minute]"
        )
        .to_vec()
    };
    time.to_offset(offset).format(&form).unwrap_or_default()
}

/// `--since` and `--until`: Unix seconds, a duration back from now, or a date, to `seconds.nanoseconds`.
pub fn moment(text: &str, now_nanos: i128, offset: UtcOffset) -> Result<String, String> {
    let text = text.trim();
    let plain = |nanos: i128| {
        let (seconds, rest) = (
            nanos.div_euclid(1_000_000_000),
            nanos.rem_euclid(1_000_000_000),
        );
        format!("{seconds}.{rest:09}")
    };
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return Ok(text.to_owned());
    }
    if let Ok(back) = parse_duration(text) {
        return Ok(plain(now_nanos - i128::from(back)));
    }
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(plain(time.unix_timestamp_nanos()));
    }
    let zone = format!(
        "{:+03}:{:02}",
        offset.whole_hours(),
        offset.minutes_past_hour().abs()
    );
    for missing in ["", ":00", ":00:00", "T00:00:00"] {
        if let Ok(time) = OffsetDateTime::parse(
            &format!("{}{missing}{zone}", text.trim_end_matches('Z')),
            &Rfc3339,
        ) {
            return Ok(plain(time.unix_timestamp_nanos()));
        }
    }
    Err(format!(
        "{text:?} is not a time: write 42m (back from now), 2026-01-31T15:04:05Z or Unix seconds"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read() {
        let now = 1_700_000_000_000_000_000;
        let cases = [
            ("1699999000", "1699999000"),
            ("1699999000.5", "1699999000.5"),
            ("10m", "1699999400.000000000"),
            ("2023-11-14T22:13:20Z", "1700000000.000000000"),
            ("2023-11-14T22:13:20.25Z", "1700000000.250000000"),
            ("2023-11-14T22:13:20", "1700000000.000000000"),
            ("2023-11-14", "1699920000.000000000"),
        ];
        for (text, wanted) in cases {
            assert_eq!(
                moment(text, now, UtcOffset::UTC).as_deref(),
                Ok(wanted),
                "{text}"
            );
        }
        assert!(moment("yesterday", now, UtcOffset::UTC).is_err());
        assert!(moment("", now, UtcOffset::UTC).is_err());
    }

    #[test]
    fn times_are_printed() {
        assert_eq!(
            go_time(1_700_000_000, UtcOffset::UTC),
            "2023-11-14 22:13:20 +0000 UTC"
        );
        assert_eq!(
            rfc3339_nanos(1_700_000_000_000_000_001, UtcOffset::UTC),
            "2023-11-14T22:13:20.000000001Z"
        );
        assert_eq!(
            since("2023-11-14T22:13:20Z", 1_700_000_300),
            "5 minutes ago"
        );
        assert_eq!(since("0001-01-01T00:00:00Z", 1_700_000_300), "");
    }
}
