//! Traces: the parts that a request has, from the command line to the kernel, on all hosts.
//!
//! A part is a span of `tracing` with the target [`TARGET`], at a level that no log keeps; below it
//! are those that are begun meanwhile. With the feature `export` the spans of a process go to a
//! collector of OpenTelemetry once the environment names one, and calls to other processes bear the
//! place they were made at ([`present`], [`below`]). Without it nothing is made, kept or sent.

#[cfg(feature = "export")]
mod export;
#[cfg(not(feature = "export"))]
mod unexported;

pub use tracing::{self, Instrument, Span};

#[cfg(feature = "export")]
pub use self::export::{Exporter, below, present};
#[cfg(not(feature = "export"))]
pub use self::unexported::{Exporter, below, present};

/// Of all spans that are parts of a trace, and of nothing else.
pub const TARGET: &str = "overnet::trace";

/// A span that may be the first of its trace: `request!("name", field = value)`.
#[macro_export]
macro_rules! request {
    ($name:literal $(, $($fields:tt)*)?) => {
        $crate::tracing::trace_span!(target: $crate::TARGET, $name $(, $($fields)*)?)
    };
}

/// A part of what is being done; no span where nothing is being traced.
#[macro_export]
macro_rules! part {
    ($name:literal $(, $($fields:tt)*)?) => {
        if $crate::Span::current().is_none() {
            $crate::Span::none()
        } else {
            $crate::tracing::trace_span!(target: $crate::TARGET, $name $(, $($fields)*)?)
        }
    };
}

/// Notes in a span how a part of it has failed.
pub fn failed(span: &Span, reason: &dyn std::fmt::Display) {
    span.record("otel.status_code", "ERROR");
    span.record("otel.status_description", reason.to_string());
}
