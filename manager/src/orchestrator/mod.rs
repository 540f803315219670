//! From what services ask for to the tasks there should be.
//!
//! Invariant: everything here is a function of the tables and a moment; a manager that was
//! killed goes on from what is stored.

pub mod handover;

use std::time::Duration;

/// A moment (nanoseconds since the Unix epoch) that is `by` after `moment`.
fn later(moment: i64, by: Duration) -> i64 {
    moment.saturating_add(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX))
}
