//! Sizes and durations in Docker's words. Source: the behaviour of the `go-units` library.

/// `1.23MB`: decimal, three digits.
pub fn size(bytes: f64) -> String {
    scaled(
        bytes,
        1000.0,
        &["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"],
        3,
    )
}

/// `1.234MB`: decimal, four digits, as in progress and stats.
pub fn size4(bytes: f64) -> String {
    scaled(
        bytes,
        1000.0,
        &["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"],
        4,
    )
}

/// `1.177MiB`: binary, four digits.
pub fn binary_size(bytes: f64) -> String {
    scaled(
        bytes,
        1024.0,
        &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"],
        4,
    )
}

fn scaled(mut value: f64, base: f64, units: &[&str], digits: usize) -> String {
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    format!("{}{}", significant(value, digits), units[unit])
}

/// C's and Go's `%.Ng`: N significant digits, no trailing zeroes.
pub fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let scientific = format!("{value:.*e}", digits.saturating_sub(1));
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let strip = |text: &str| {
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text.to_owned()
        }
    };
    if exponent < -4 || exponent >= digits as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", strip(mantissa), exponent.abs());
    }
    let after_point = (digits as i32 - 1 - exponent).max(0) as usize;
    strip(&format!("{value:.after_point$}"))
}

/// `About a minute`, `5 minutes`, `3 weeks`.
pub fn duration(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let minutes = seconds / 60;
    let hours = (seconds + 1800) / 3600;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

/// `5 minutes ago`.
pub fn ago(seconds: i64) -> String {
    format!("{} ago", duration(seconds))
}

/// Go's printing of a duration: `2160h0m0s`, `5s`, `1.5s`, `300ms`.
pub fn go_duration(nanos: i64) -> String {
    if nanos == 0 {
        return "0s".to_owned();
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let n = nanos.unsigned_abs();
    let fraction = |value: u64, unit: u64| {
        let digits = format!("{:0width$}", value % unit, width = unit.ilog10() as usize);
        let digits = digits.trim_end_matches('0');
        if digits.is_empty() {
            format!("{}", value / unit)
        } else {
            format!("{}.{digits}", value / unit)
        }
    };
    let text = if n < 1_000 {
        format!("{n}ns")
    } else if n < 1_000_000 {
        format!("{}µs", fraction(n, 1_000))
    } else if n < 1_000_000_000 {
        format!("{}ms", fraction(n, 1_000_000))
    } else {
        let (hours, minutes) = (n / 3_600_000_000_000, n / 60_000_000_000 % 60);
        let seconds = fraction(n % 60_000_000_000, 1_000_000_000);
        match (hours, minutes) {
            (0, 0) => format!("{seconds}s"),
            (0, minutes) => format!("{minutes}m{seconds}s"),
            (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
        }
    };
    format!("{sign}{text}")
}

/// `512m`, `1.5g`, `64KiB`: binary, as memory flags are read.
pub fn parse_memory(text: &str) -> Result<i64, String> {
    parse_scaled(text, 1024.0)
}

fn parse_scaled(text: &str, base: f64) -> Result<i64, String> {
    let trimmed = text.trim();
    let split = trimmed
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let bad = || format!("{text:?} is not a size: write a number with b, k, m, g or t, as in 512m");
    let number: f64 = number.parse().map_err(|_| bad())?;
    let power = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return Err(bad()),
    };
    let bytes = number * base.powi(power);
    if bytes > i64::MAX as f64 {
        Err(format!("{text:?} is too large a size"))
    } else {
        Ok(bytes as i64)
    }
}

/// Go's durations, `1h30m`, `1.5s`, `300ms`, to nanoseconds.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let bad = || {
        format!(
            "{text:?} is not a duration: write a number with ns, us, ms, s, m or h, as in 1m30s"
        )
    };
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(bad());
    }
    let mut nanos = 0.0_f64;
    while !rest.is_empty() {
        let split = rest
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .ok_or_else(bad)?;
        let number: f64 = rest[..split].parse().map_err(|_| bad())?;
        rest = &rest[split..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(bad()),
        };
        nanos += number * unit;
        rest = &rest[end..];
    }
    if nanos > i64::MAX as f64 {
        return Err(format!("{text:?} is too long a duration"));
    }
    Ok(if negative {
        -(nanos as i64)
    } else {
        nanos as i64
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_dockers() {
        let cases = [
            (0.0, "0B"),
            (1.0, "1B"),
            (999.0, "999B"),
            (1000.0, "1kB"),
            (1234.0, "1.23kB"),
            (7_833_000.0, "7.83MB"),
            (78_100_000.0, "78.1MB"),
            (123_456_789.0, "123MB"),
            (1_500_000_000.0, "1.5GB"),
            (999_900.0, "1e+03kB"),
        ];
        for (bytes, wanted) in cases {
            assert_eq!(size(bytes), wanted);
        }
        assert_eq!(binary_size(1_234_567.0), "1.177MiB");
        assert_eq!(binary_size(1024.0), "1KiB");
        assert_eq!(size4(1_234_567.0), "1.235MB");
    }

    #[test]
    fn durations_read_as_dockers() {
        let cases = [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5399, "About an hour"),
            (5400, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (14 * 86400, "2 weeks"),
            (60 * 86400, "2 months"),
            (730 * 86400, "2 years"),
            (-5, "Less than a second"),
        ];
        for (seconds, wanted) in cases {
            assert_eq!(duration(seconds), wanted, "{seconds}");
        }
    }

    #[test]
    fn go_durations_both_ways() {
        let cases = [
            ("2160h0m0s", 7_776_000_000_000_000),
            ("5s", 5_000_000_000),
            ("1.5s", 1_500_000_000),
            ("300ms", 300_000_000),
            ("1m30s", 90_000_000_000),
            ("1h0m0s", 3_600_000_000_000),
            ("0s", 0),
        ];
        for (text, nanos) in cases {
            assert_eq!(parse_duration(text), Ok(nanos), "{text}");
            assert_eq!(go_duration(nanos), text);
        }
        assert_eq!(parse_duration("1.5h"), Ok(5_400_000_000_000));
        for bad in ["", "5", "s", "1x", "1..2s", "-"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn memory_is_binary() {
        let cases = [
            ("512m", 536_870_912),
            ("1g", 1_073_741_824),
            ("1.5k", 1536),
            ("100", 100),
            ("64KiB", 65536),
            ("1B", 1),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_memory(text), Ok(bytes), "{text}");
        }
        for bad in ["", "m", "5x", "-1m", "1 2"] {
            assert!(parse_memory(bad).is_err(), "{bad}");
        }
    }
}
