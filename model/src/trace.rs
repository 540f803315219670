//! Where in a trace something was asked for.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A span and the trace it is of: `traceparent` of W3C Trace Context, 3.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct TraceParent {
    /// Never 0.
    pub trace: u128,
    /// Never 0.
    pub span: u64,
    /// Whether somebody writes the trace down.
    pub sampled: bool,
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.sampled);
        write!(f, "00-{:032x}-{:016x}-{flags:02x}", self.trace, self.span)
    }
}

/// What is no `traceparent`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no traceparent of W3C Trace Context")]
pub struct NotATrace(String);

impl FromStr for TraceParent {
    type Err = NotATrace;

    /// Versions to come may have more behind the flags.
    fn from_str(text: &str) -> Result<Self, NotATrace> {
        parse(text).ok_or_else(|| NotATrace(text.chars().take(64).collect()))
    }
}

fn parse(text: &str) -> Option<TraceParent> {
    let mut parts = text.split('-');
    let version = hex(parts.next()?, 2)?;
    let trace = hex(parts.next()?, 32)?;
    let span = u64::try_from(hex(parts.next()?, 16)?).ok()?;
    let flags = hex(parts.next()?, 2)?;
    let more = parts.next().is_some();
    let sound = version != 0xff && trace != 0 && span != 0 && (version > 0 || !more);
    sound.then_some(TraceParent {
        trace,
        span,
        sampled: flags & 1 == 1,
    })
}

/// Exactly so many digits, lower-case.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let lower = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (text.len() == digits && text.bytes().all(lower))
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten()
}

impl From<TraceParent> for String {
    fn from(parent: TraceParent) -> Self {
        parent.to_string()
    }
}

impl TryFrom<String> for TraceParent {
    type Error = NotATrace;

    fn try_from(text: String) -> Result<Self, NotATrace> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_parent_is_read_and_written_alike() {
        let parent: TraceParent = EXAMPLE.parse().unwrap();
        assert!(parent.sampled);
        assert_eq!(parent.span, 0x00f0_67aa_0ba9_02b7);
        assert_eq!(parent.to_string(), EXAMPLE);
        let unsampled = EXAMPLE.replace("-01", "-00");
        assert!(!unsampled.parse::<TraceParent>().unwrap().sampled);
        let later = format!("{}-more", EXAMPLE.replacen("00", "cc", 1));
        assert_eq!(later.parse::<TraceParent>(), Ok(parent));
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            assert!(text.parse::<TraceParent>().is_err(), "{text}");
        }
    }
}
