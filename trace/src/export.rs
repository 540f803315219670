//! Spans on their way to a collector (OpenTelemetry Protocol over HTTP).

use std::time::Duration;

use model::TraceParent;
use opentelemetry::{
    Context, KeyValue,
    trace::{
        SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
        TracerProvider as _,
    },
};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

use crate::TARGET;

/// What is left to send must not hold a program's end back for longer.
const END: Duration = Duration::from_secs(2);

/// Sends the spans of this process.
#[derive(Debug)]
pub struct Exporter {
    provider: SdkTracerProvider,
    program: &'static str,
}

impl Exporter {
    /// As the environment asks for it (OpenTelemetry's "Environment Variable Specification"):
    /// only where it names a collector. Call it outside of a runtime.
    pub fn of_environment(program: &'static str) -> Result<Option<Self>, String> {
        let said = |name: &str| std::env::var(name).unwrap_or_default();
        let endpoints = [
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ];
        let disabled = said("OTEL_SDK_DISABLED").eq_ignore_ascii_case("true")
            || said("OTEL_TRACES_EXPORTER") == "none";
        if disabled || endpoints.iter().all(|name| said(name).is_empty()) {
            return Ok(None);
        }
        // Refused only when a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let exporter = SpanExporter::builder()
            .with_http()
            .build()
            .map_err(|error| format!("traces cannot be exported: {error}; see {}", endpoints[1]))?;
        let host = nix::unistd::gethostname().unwrap_or_default();
        let mut resource = Resource::builder()
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new(
                "host.name",
                host.to_string_lossy().into_owned(),
            ));
        if said("OTEL_SERVICE_NAME").is_empty() {
            resource = resource.with_service_name(program);
        }
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.build())
            .build();
        Ok(Some(Self { provider, program }))
    }

    /// What hands the spans over; it takes nothing else.
    pub fn layer<S>(&self) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer(self.program))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_target(false)
            .with_filter(filter_fn(|about| about.target() == TARGET))
            .boxed()
    }

    /// Sends what is left.
    pub fn end(self) {
        // A collector that does not answer is no reason to fail.
        let _ = self.provider.shutdown_with_timeout(END);
    }
}

/// The span that this is called in, for those who are asked to do a part.
pub fn present() -> Option<TraceParent> {
    let context = Span::current().context();
    let span = context.span();
    let span = span.span_context();
    span.is_valid().then(|| TraceParent {
        trace: u128::from_be_bytes(span.trace_id().to_bytes()),
        span: u64::from_be_bytes(span.span_id().to_bytes()),
        sampled: span.is_sampled(),
    })
}

/// Puts a span that has just been made below one of another process.
pub fn below(span: &Span, above: Option<TraceParent>) {
    let Some(above) = above else { return };
    let remote = SpanContext::new(
        TraceId::from_bytes(above.trace.to_be_bytes()),
        SpanId::from_bytes(above.span.to_be_bytes()),
        TraceFlags::default().with_sampled(above.sampled),
        true,
        TraceState::default(),
    );
    // A span that nobody exports has no place.
    let _ = span.set_parent(Context::new().with_remote_span_context(remote));
}
