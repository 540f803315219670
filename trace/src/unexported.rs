//! Nothing leaves this process.

use model::TraceParent;
use tracing::{Span, Subscriber};
use tracing_subscriber::{Layer, registry::LookupSpan};

/// There is none in this build.
#[derive(Debug)]
pub enum Exporter {}

impl Exporter {
    pub fn of_environment(_: &'static str) -> Result<Option<Self>, String> {
        Ok(None)
    }

    pub fn layer<S>(&self) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        match *self {}
    }

    pub fn end(self) {
        match self {}
    }
}

pub fn present() -> Option<TraceParent> {
    None
}

pub fn below(_: &Span, _: Option<TraceParent>) {}
