//! Wall-clock time as the store and the certificates write it, and what to say when two hosts
//! do not agree on it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::Refusal;

/// How far a host's clock may be from the manager's when it joins. Certificates are dated back
/// one hour, so nothing that passes here is refused by TLS afterwards.
pub const TOLERANCE: Duration = Duration::from_secs(50 * 60);

/// Nanoseconds since the Unix epoch; 0 for a clock before it.
pub fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
        })
}

/// Refuses clocks so far apart that certificates would not be valid on one of the hosts.
pub fn check_agreement(local: i64, manager: i64) -> Result<(), Refusal> {
    let apart = Duration::from_nanos(local.abs_diff(manager));
    if apart <= TOLERANCE {
        return Ok(());
    }
    let side = if local < manager {
        "behind"
    } else {
        "ahead of"
    };
    Err(Refusal::invalid(format!(
        "this host's clock is {} {side} the manager's, so certificates would not be valid here; set the clock (for example with chrony or timedatectl) and join again",
        in_words(apart)
    )))
}

fn in_words(time: Duration) -> String {
    let minutes = time.as_secs() / 60;
    match (minutes / (24 * 60), minutes / 60 % 24, minutes % 60) {
        (0, 0, m) => format!("{m} minutes"),
        (0, h, m) => format!("{h} h {m} min"),
        (d, h, _) => format!("{d} days {h} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60 * 1_000_000_000;

    #[test]
    fn clocks_far_apart_are_named() {
        for (local, manager, said) in [
            (0, 0, None),
            (49 * MINUTE, 0, None),
            (0, 49 * MINUTE, None),
            (0, 51 * MINUTE, Some("51 minutes behind")),
            (125 * MINUTE, 0, Some("2 h 5 min ahead of")),
            (0, 3 * 24 * 60 * MINUTE, Some("3 days 0 h behind")),
        ] {
            let answer = check_agreement(local, manager);
            match said {
                None => assert!(answer.is_ok(), "{local} {manager}"),
                Some(words) => {
                    let sentence = answer.expect_err("too far apart").message;
                    assert!(sentence.contains(words), "{sentence}");
                }
            }
        }
    }
}
