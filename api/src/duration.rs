//! Durations as Docker sends them: nanoseconds in a signed number.

use std::time::Duration;

use model::Refusal;

/// Nanoseconds; what does not fit (292 years) is the largest there is.
pub fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Refuses negative ones, naming the field.
pub fn read(field: &str, nanos: i64) -> Result<Duration, Refusal> {
    match u64::try_from(nanos) {
        Ok(nanos) => Ok(Duration::from_nanos(nanos)),
        Err(_) => Err(Refusal::invalid(format!(
            "{field}: {nanos} ns is negative; give a duration of zero or more"
        ))),
    }
}

/// As [`read`]; zero means "not given".
pub fn read_set(field: &str, nanos: i64) -> Result<Option<Duration>, Refusal> {
    Ok(Some(read(field, nanos)?).filter(|duration| !duration.is_zero()))
}
