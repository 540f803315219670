//! What Docker's clients say of themselves to a registry: `X-Registry-Auth`.

use base64::{Engine as _, alphabet, engine::general_purpose};
use model::Refusal;
use runtime::images::Auth;
use serde::Deserialize;

/// The header's JSON.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    pub registrytoken: String,
    pub serveraddress: Option<String>,
}

impl Credentials {
    pub fn auth(self) -> Option<Auth> {
        if !self.registrytoken.is_empty() {
            return Some(Auth::Bearer(self.registrytoken));
        }
        (!self.username.is_empty()).then_some(Auth::Basic {
            username: self.username,
            password: self.password,
        })
    }
}

/// Reads the header's text: base64 of JSON, in either alphabet, padded or not. Empty text and
/// `null` are nobody.
pub fn decode(text: &[u8]) -> Result<Option<Auth>, Refusal> {
    let bad = |reason: String| {
        Refusal::invalid(format!(
            "the X-Registry-Auth header is not base64url JSON: {reason}"
        ))
    };
    let text: Vec<u8> = text
        .iter()
        .filter(|b| **b != b'=')
        .map(|b| match b {
            b'+' => b'-',
            b'/' => b'_',
            other => *other,
        })
        .collect();
    let engine = general_purpose::GeneralPurpose::new(&alphabet::URL_SAFE, general_purpose::NO_PAD);
    let bytes = engine
        .decode(text)
        .map_err(|error| bad(error.to_string()))?;
    if bytes.is_empty() || bytes == b"null" {
        return Ok(None);
    }
    let credentials: Credentials =
        serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    Ok(credentials.auth())
}
