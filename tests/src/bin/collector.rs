//! `collector ADDRESS FILE`: takes what OpenTelemetry's exporters send over HTTP, and writes each
//! span as a line of JSON.

use std::{convert::Infallible, io::Write as _, sync::Arc};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
};
use prost::Message as _;
use serde_json::json;
use tokio::sync::Mutex;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, file] = words.as_slice() else {
        anyhow::bail!("usage: collector ADDRESS FILE");
    };
    let listener = tokio::net::TcpListener::bind(address).await?;
    let file = std::fs::File::create(file).with_context(|| format!("cannot write {file}"))?;
    let file = Arc::new(Mutex::new(file));
    loop {
        let (stream, _) = listener.accept().await?;
        let file = Arc::clone(&file);
        let answer = service_fn(move |request: Request<Incoming>| {
            let file = Arc::clone(&file);
            async move {
                let taken = take(request, &file).await;
                let status = taken.map_or_else(
                    |error| {
                        eprintln!("{error:#}");
                        StatusCode::BAD_REQUEST
                    },
                    |()| StatusCode::OK,
                );
                let mut response = Response::new(Full::new(Bytes::new()));
                *response.status_mut() = status;
                Ok::<_, Infallible>(response)
            }
        });
        tokio::spawn(async move {
            let served = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
            if let Err(error) = served.await {
                eprintln!("a connection has ended: {error}");
            }
        });
    }
}

async fn take(request: Request<Incoming>, file: &Mutex<std::fs::File>) -> Result<()> {
    anyhow::ensure!(request.uri().path() == "/v1/traces", "{}", request.uri());
    let body = request.into_body().collect().await?.to_bytes();
    let sent = ExportTraceServiceRequest::decode(body)?;
    let mut lines = String::new();
    for process in sent.resource_spans {
        let about = process.resource.map(|resource| resource.attributes);
        let about = object(&about.unwrap_or_default());
        for span in process
            .scope_spans
            .into_iter()
            .flat_map(|scope| scope.spans)
        {
            let status = span.status.unwrap_or_default();
            let line = json!({
                "service": about["service.name"],
                "host": about["host.name"],
                "name": span.name,
                "trace": hex::encode(&span.trace_id),
                "span": hex::encode(&span.span_id),
                "parent": hex::encode(&span.parent_span_id),
                "milliseconds": (span.end_time_unix_nano - span.start_time_unix_nano) as f64 / 1e6,
                "failed": status.code == 2,
                "message": status.message,
                "attributes": object(&span.attributes),
            });
            lines.push_str(&line.to_string());
            lines.push('\n');
        }
    }
    file.lock().await.write_all(lines.as_bytes())?;
    Ok(())
}

fn object(pairs: &[KeyValue]) -> serde_json::Value {
    let value = |pair: &KeyValue| match pair.value.as_ref().and_then(|any| any.value.as_ref()) {
        Some(Value::StringValue(text)) => json!(text),
        Some(Value::IntValue(number)) => json!(number),
        Some(Value::BoolValue(on)) => json!(on),
        other => json!(format!("{other:?}")),
    };
    let pairs = pairs.iter().map(|pair| (pair.key.clone(), value(pair)));
    serde_json::Value::Object(pairs.collect())
}
