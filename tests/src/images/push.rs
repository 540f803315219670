//! The registry's HTTP API (OCI distribution specification 1.1), spoken by hand: the lab does not
//! lean on the very code it tests.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{http, lab::Host};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Sends a manifest or a list of them, under a tag; gives its descriptor.
pub fn push_manifest(
    registry: &Host,
    (name, tag): (&str, &str),
    manifest: &Value,
) -> Result<Value> {
    let bytes = serde_json::to_vec(manifest)?;
    let kind = manifest["mediaType"].as_str().context("a media type")?;
    let path = format!("/v2/{name}/manifests/{tag}");
    send(registry, "PUT", &path, kind, &bytes)?;
    Ok(json!({"mediaType": kind, "digest": digest(&bytes), "size": bytes.len()}))
}

/// Sends a blob and gives its descriptor.
pub fn push_blob(registry: &Host, name: &str, kind: &str, bytes: &[u8]) -> Result<Value> {
    let digest = digest(bytes);
    let begun = send(
        registry,
        "POST",
        &format!("/v2/{name}/blobs/uploads/"),
        LAYER,
        &[],
    )?;
    let place = begun
        .header("location")
        .context("the registry names no place for a blob")?;
    // The place is a whole URL or a path, and may bring a query of its own.
    let place = place
        .split_once("://")
        .and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]))
        .unwrap_or(place);
    let separator = if place.contains('?') { '&' } else { '?' };
    let path = format!("{place}{separator}digest={digest}");
    send(registry, "PUT", &path, "application/octet-stream", bytes)?;
    Ok(json!({"mediaType": kind, "digest": digest, "size": bytes.len()}))
}

fn send(
    registry: &Host,
    method: &str,
    path: &str,
    kind: &str,
    body: &[u8],
) -> Result<http::Response> {
    let response = registry.within(|| {
        let stream = std::net::TcpStream::connect(("127.0.0.1", 5000))?;
        http::request(stream, method, path, &[("Content-Type", kind)], body)
    })??;
    if !(200..300).contains(&response.status) {
        bail!(
            "the registry answers {} to {method} {path}: {}",
            response.status,
            response.text()
        );
    }
    Ok(response)
}

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}
