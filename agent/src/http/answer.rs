//! From results to HTTP answers, and from HTTP requests to what handlers read.

use std::convert::Infallible;

use api::{ApiVersion, ErrorBody, Query};
use axum::{
    extract::{FromRequest, FromRequestParts, Request},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use http_body_util::{BodyExt, Limited};
use model::Refusal;
use serde::{Serialize, de::DeserializeOwned};

/// What a handler gives.
pub type Answer<T = Response> = Result<T, Failure>;

/// A refusal on its way to the client.
#[derive(Debug)]
pub struct Failure(pub Refusal);

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Refusal { kind, message } = self.0;
        if kind == model::RefusalKind::Internal {
            tracing::error!(%message, "a request failed");
        }
        let status =
            StatusCode::from_u16(kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        json_with(status, &ErrorBody { message })
    }
}

/// 200 with a JSON body.
pub fn json<T: Serialize>(value: &T) -> Response {
    json_with(StatusCode::OK, value)
}

/// A JSON body, ended by a newline as Docker's are.
pub fn json_with<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            (status, [(header::CONTENT_TYPE, "application/json")], bytes).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// 204.
pub fn done() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// 204, or 304 when there was nothing to do.
pub fn done_or_unchanged(changed: bool) -> Response {
    if changed {
        done()
    } else {
        StatusCode::NOT_MODIFIED.into_response()
    }
}

/// The query string.
pub struct Asked(pub Query);

impl<S: Sync> FromRequestParts<S> for Asked {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self(Query::parse(parts.uri.query().unwrap_or_default())))
    }
}

/// The version of the API the client speaks.
#[derive(Debug, Clone, Copy)]
pub struct Spoken(pub ApiVersion);

impl<S: Sync> FromRequestParts<S> for Spoken {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(parts
            .extensions
            .get::<Self>()
            .copied()
            .unwrap_or(Self(ApiVersion::default())))
    }
}

/// Largest JSON body in bytes; the largest real ones are seccomp profiles and configs.
const BODY_LIMIT: usize = 16 << 20;

async fn collect(request: Request) -> Result<axum::body::Bytes, Failure> {
    let refused = |what: String| {
        Failure(Refusal::invalid(format!(
            "the request body {what}; at most {} MiB are taken",
            BODY_LIMIT >> 20
        )))
    };
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|text| text.to_str().ok()?.parse::<usize>().ok());
    if let Some(length) = length.filter(|length| *length > BODY_LIMIT) {
        return Err(refused(format!("has {length} bytes")));
    }
    match Limited::new(request.into_body(), BODY_LIMIT)
        .collect()
        .await
    {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => Err(refused(format!("could not be read ({error})"))),
    }
}

/// A JSON body that has to be there.
pub struct Given<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Given<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Failure> {
        Ok(Self(api::read(&collect(request).await?)?))
    }
}

/// A JSON body that may be left out.
pub struct Optional<T>(pub T);

impl<S: Sync, T: DeserializeOwned + Default> FromRequest<S> for Optional<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Failure> {
        Ok(Self(api::body::read_or_default(&collect(request).await?)?))
    }
}

/// The body as it came, for handlers that read it twice.
pub struct Raw(pub axum::body::Bytes);

impl<S: Sync> FromRequest<S> for Raw {
    type Rejection = Failure;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Failure> {
        Ok(Self(collect(request).await?))
    }
}
