//! `/containers/{id}/archive` and `/containers/{id}/export`: files in and out as tar.

use api::timestamp;
use axum::{
    Router,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderValue, header},
    response::Response,
    routing::get,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::StreamExt;
use model::Refusal;
use runtime::engine::PathStat;

use super::super::{Answer, AppState, Asked, access::Caller, nodes::empty};

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/containers/{id}/archive", get(read).head(stat).put(write))
        .route("/containers/{id}/export", get(export))
}

const STAT_HEADER: &str = "x-docker-container-path-stat";

fn path_asked(query: &api::Query) -> Result<&str, Refusal> {
    query.text("path").ok_or_else(|| {
        Refusal::invalid("parameter path is missing; give it a path in the container")
    })
}

async fn stat(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Asked(query): Asked,
) -> Answer {
    let id = caller.may_enter(&state, &id)?;
    let found = state.engine.path_stat(&id, path_asked(&query)?).await?;
    let mut response = Response::default();
    response
        .headers_mut()
        .insert(STAT_HEADER, stat_header(&found));
    Ok(response)
}

async fn read(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Asked(query): Asked,
) -> Answer {
    let id = caller.may_enter(&state, &id)?;
    let (found, tar) = state.engine.archive_get(&id, path_asked(&query)?).await?;
    let mut response = Response::new(Body::from_stream(tar));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-tar"),
    );
    headers.insert(STAT_HEADER, stat_header(&found));
    Ok(response)
}

async fn write(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Asked(query): Asked,
    request: Request,
) -> Answer {
    let id = caller.may_enter(&state, &id)?;
    let path = path_asked(&query)?.to_owned();
    let tar = request
        .into_body()
        .into_data_stream()
        .map(|part| part.map_err(std::io::Error::other));
    state.engine.archive_put(&id, &path, Box::pin(tar)).await?;
    Ok(empty())
}

async fn export(State(state): State<AppState>, caller: Caller, Path(id): Path<String>) -> Answer {
    let id = caller.may_enter(&state, &id)?;
    let tar = state.engine.export(&id).await?;
    let mut response = Response::new(Body::from_stream(tar));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    Ok(response)
}

fn stat_header(stat: &PathStat) -> HeaderValue {
    let text = serde_json::json!({
        "name": stat.name,
        "size": stat.size,
        "mode": go_mode(stat.mode),
        "mtime": timestamp::rfc3339(stat.modified),
        "linkTarget": stat.link_target,
    })
    .to_string();
    HeaderValue::from_str(&STANDARD.encode(text)).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Go's `os.FileMode` of a `st_mode`: the permissions, and its own bits for the rest.
fn go_mode(mode: u32) -> u32 {
    let kind = match mode & 0o170_000 {
        0o040_000 => 1 << 31,
        0o120_000 => 1 << 27,
        0o060_000 => 1 << 26,
        0o020_000 => 1 << 26 | 1 << 21,
        0o010_000 => 1 << 25,
        0o140_000 => 1 << 24,
        _ => 0,
    };
    let bit = |given: u32, go: u32| if mode & given == 0 { 0 } else { go };
    kind | bit(0o4000, 1 << 23) | bit(0o2000, 1 << 22) | bit(0o1000, 1 << 20) | mode & 0o777
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_gos() {
        for (mode, go) in [
            (0o100_644, 0o644),
            (0o040_755, 1 << 31 | 0o755),
            (0o041_777, 1 << 31 | 1 << 20 | 0o777),
            (0o120_777, 1 << 27 | 0o777),
            (0o104_755, 1 << 23 | 0o755),
            (0o020_666, 1 << 26 | 1 << 21 | 0o666),
        ] {
            assert_eq!(go_mode(mode), go, "{mode:o}");
        }
    }
}
