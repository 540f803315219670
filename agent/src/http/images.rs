//! `/images…`, `/distribution/…`, `/auth`
//!
//! Names contain slashes, so everything below `/images/` that is no fixed word is one path that
//! ends in what is wanted of the image.

mod changes;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::SystemTime,
};

use api::{
    Query,
    event::{Actor, EventView},
    filters::Filters,
};
use axum::{
    Router,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use futures_util::{Future, StreamExt, TryStreamExt};
use model::Refusal;
use runtime::{
    engine::ListOptions,
    images::{Auth, ByteStream, Digest, Image, Progress, PullEvent, Reference, Removed, Use},
};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{Answer, AppState, Asked, Given, access::Caller, containers::check_platform, json};
use crate::{
    clock,
    registry_auth::{self, Credentials},
};

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/images/json", get(list))
        .route("/images/create", post(create))
        .route("/images/load", post(load))
        .route("/images/get", get(save))
        .route("/images/prune", post(prune))
        .route("/images/search", get(search))
        .route("/images/{*rest}", get(read).post(write).delete(remove))
        .route("/distribution/{*rest}", get(distribution))
        .route("/auth", post(login))
}

async fn list(State(state): State<AppState>, Asked(query): Asked) -> Answer {
    let filters = query.filters(&["reference", "dangling", "label", "before", "since", "until"])?;
    let edge = |name: &str| -> Result<Option<i64>, Refusal> {
        let image = filters
            .values(name)
            .first()
            .map(|name| state.images.resolve(name));
        Ok(image.transpose()?.map(|image| image.created_at()))
    };
    let (before, since) = (edge("before")?, edge("since")?);
    let until = until(&filters)?;
    let shown: Vec<_> = state
        .images
        .list()
        .iter()
        .filter(|image| before.is_none_or(|edge| image.created_at() < edge))
        .filter(|image| since.is_none_or(|edge| image.created_at() > edge))
        .filter(|image| until.is_none_or(|until| image.created_at() <= until))
        .filter(|image| view::fits(image, &filters))
        .map(view::summary)
        .collect();
    Ok(json(&shown))
}

async fn create(
    State(state): State<AppState>,
    caller: Caller,
    Asked(query): Asked,
    request: Request,
) -> Answer {
    if let Some(source) = query.text("fromSrc").filter(|source| !source.is_empty()) {
        caller.may_import()?;
        return import(state, source, &query, request).await;
    }
    check_platform(query.text("platform").unwrap_or_default())?;
    let text = query.text("fromImage").unwrap_or_default();
    let name: Reference = text.parse()?;
    let name = match query.text("tag").filter(|tag| !tag.is_empty()) {
        None => name.or_latest(),
        Some(digest) if digest.starts_with("sha256:") => name.with_digest(
            digest
                .parse::<Digest>()
                .map_err(|error| Refusal::invalid(error.to_string()))?,
        ),
        Some(tag) => name.with_tag(tag)?,
    };
    let auth = credentials(request.headers())?;
    streamed(move |progress| async move {
        state.images.pull(&name, auth.as_ref(), &progress).await?;
        tell(&state, "pull", &name.familiar());
        Ok(())
    })
    .await
}

async fn import(state: AppState, source: &str, query: &Query, request: Request) -> Answer {
    let (repository, tag) = (query.text("repo"), query.text("tag"));
    check_platform(query.text("platform").unwrap_or_default())?;
    if source != "-" {
        return Err(Refusal::not_implemented(
            "import takes the file system from the request only; download the file and import it from there",
        )
        .into());
    }
    let name = match repository.filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => {
            let name: Reference = text.parse()?;
            Some(match tag.filter(|tag| !tag.is_empty()) {
                None => name.or_latest(),
                Some(tag) => name.with_tag(tag)?,
            })
        }
    };
    let message = query.text("message").filter(|text| !text.is_empty());
    let config = changes::apply(
        &view::imported(),
        query.all("changes"),
        message.unwrap_or("Imported from -"),
    )?;
    let body = body(request);
    streamed(move |progress| async move {
        let image = state.images.import(body, name.as_ref(), config).await?;
        progress.send(PullEvent::status(image.id.to_string()));
        tell(&state, "import", image.id.as_str());
        Ok(())
    })
    .await
}

async fn read(State(state): State<AppState>, Path(rest): Path<String>) -> Answer {
    match split(&rest) {
        Some((name, "json")) => Ok(json(&view::inspect(&state.images.resolve(name)?))),
        Some((name, "history")) => Ok(json(&state.images.history(name)?)),
        Some((name, "get")) => archive(&state, &[name.to_owned()]),
        _ => Err(no_page(&rest)),
    }
}

async fn write(
    State(state): State<AppState>,
    Path(rest): Path<String>,
    Asked(query): Asked,
    headers: HeaderMap,
) -> Answer {
    let tag = query.text("tag").filter(|tag| !tag.is_empty());
    match split(&rest) {
        Some((name, "tag")) => {
            let repository: Reference = query.text("repo").unwrap_or_default().parse()?;
            let to = match tag {
                Some(tag) => repository.with_tag(tag)?,
                None => repository.or_latest(),
            };
            state.images.tag(name, &to)?;
            tell(&state, "tag", &to.familiar());
            Ok(StatusCode::CREATED.into_response())
        }
        Some((name, "push")) => {
            let name: Reference = name.parse()?;
            let name =
                tag.map_or_else(|| Ok(name.clone().or_latest()), |tag| name.with_tag(tag))?;
            let auth = credentials(&headers)?;
            streamed(move |progress| async move {
                state.images.push(&name, auth.as_ref(), &progress).await?;
                tell(&state, "push", &name.familiar());
                Ok(())
            })
            .await
        }
        _ => Err(no_page(&rest)),
    }
}

async fn remove(
    State(state): State<AppState>,
    Path(name): Path<String>,
    Asked(query): Asked,
) -> Answer {
    let users = users(&state)?;
    let removed = state
        .images
        .remove(&name, query.flag("force"), &|id| {
            users.get(id).cloned().unwrap_or_default()
        })
        .await?;
    for line in &removed {
        match line {
            Removed::Untagged(name) => tell(&state, "untag", name),
            Removed::Deleted(id) => tell(&state, "delete", id),
        }
    }
    Ok(json(&removed))
}

/// The filter `until` in seconds since the epoch.
fn until(filters: &Filters) -> Result<Option<i64>, Refusal> {
    let nanos = filters
        .values("until")
        .first()
        .map(|text| super::containers::until(text, clock::now_nanos()))
        .transpose()?;
    Ok(nanos.map(|nanos| nanos / 1_000_000_000))
}

async fn prune(State(state): State<AppState>, Asked(query): Asked) -> Answer {
    let filters = query.filters(&["dangling", "label", "label!", "until"])?;
    // Docker takes only images without a name unless told otherwise.
    let dangling = !(filters.exact("dangling", "false") || filters.exact("dangling", "0"));
    let until = until(&filters)?;
    let users = users(&state)?;
    let kept = |image: &Image| {
        !view::labelled(image, &filters) || until.is_some_and(|until| image.created_at() > until)
    };
    let pruned = state
        .images
        .prune(dangling, &kept, &|id| {
            users.get(id).cloned().unwrap_or_default()
        })
        .await?;
    Ok(json(&serde_json::json!({
        "ImagesDeleted": pruned.removed,
        "SpaceReclaimed": pruned.reclaimed,
    })))
}

async fn load(State(state): State<AppState>, request: Request) -> Answer {
    let body = body(request);
    streamed(move |progress| async move {
        for image in state.images.load(body, &progress).await? {
            tell(&state, "load", image.id.as_str());
        }
        Ok(())
    })
    .await
}

async fn save(State(state): State<AppState>, Asked(query): Asked) -> Answer {
    archive(&state, query.all("names"))
}

fn archive(state: &AppState, names: &[String]) -> Answer {
    if names.is_empty() {
        return Err(Refusal::invalid("name at least one image to save").into());
    }
    let body = Body::from_stream(state.images.save(names)?);
    Ok(([(header::CONTENT_TYPE, "application/x-tar")], body).into_response())
}

/// Registries have no search of their own; only Docker Hub has one, which is not asked.
async fn search() -> Answer {
    Ok(json(&[(); 0]))
}

async fn distribution(
    State(state): State<AppState>,
    Path(rest): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let Some((name, "json")) = split(&rest) else {
        return Err(no_page(&rest));
    };
    let auth = credentials(&headers)?;
    Ok(json(
        &state
            .images
            .distribution(&name.parse()?, auth.as_ref())
            .await?,
    ))
}

async fn login(State(state): State<AppState>, Given(wish): Given<Credentials>) -> Answer {
    let server = wish.serveraddress.clone().unwrap_or_default();
    let host = server
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let host = host
        .split('/')
        .next()
        .filter(|host| !host.is_empty())
        .unwrap_or("docker.io");
    let auth = wish
        .auth()
        .ok_or_else(|| Refusal::invalid("a user name with its password is needed to log in"))?;
    state.images.login(host, &auth).await?;
    Ok(json(
        &serde_json::json!({ "Status": "Login Succeeded", "IdentityToken": "" }),
    ))
}

pub(super) fn credentials(headers: &HeaderMap) -> Result<Option<Auth>, Refusal> {
    match headers.get("x-registry-auth").map(HeaderValue::as_bytes) {
        Some(text) => registry_auth::decode(text),
        None => Ok(None),
    }
}

/// Runs something that reports progress. What fails before its first line fails as a request;
/// later the failure is the last line, as Docker's clients expect. The work ends with the
/// client.
async fn streamed<F>(work: impl FnOnce(Progress) -> F) -> Answer
where
    F: Future<Output = Result<(), Refusal>> + Send + 'static,
{
    let (sender, mut lines) = mpsc::unbounded_channel();
    let progress = Progress::new(move |event| {
        // Nobody listens any more: the work is about to be given up.
        let _ = sender.send(line(&event));
    });
    let task = AbortOnDropHandle::new(tokio::spawn(work(progress)));
    let Some(first) = lines.recv().await else {
        finished(task.await)?;
        return Ok(stream(futures_util::stream::empty()));
    };
    Ok(stream(async_stream::stream! {
        yield first;
        while let Some(line) = lines.recv().await {
            yield line;
        }
        if let Err(refusal) = finished(task.await) {
            yield line(&serde_json::json!({
                "errorDetail": { "message": refusal.message },
                "error": refusal.message,
            }));
        }
    }))
}

fn finished(end: Result<Result<(), Refusal>, tokio::task::JoinError>) -> Result<(), Refusal> {
    end.unwrap_or_else(|error| Err(Refusal::internal(format!("the transfer failed: {error}"))))
}

fn stream(lines: impl futures_util::Stream<Item = Bytes> + Send + 'static) -> Response {
    let body = Body::from_stream(lines.map(Ok::<_, io::Error>));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn line(value: &impl serde::Serialize) -> Bytes {
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.extend_from_slice(b"\r\n");
    bytes.into()
}

fn body(request: Request) -> ByteStream {
    request
        .into_body()
        .into_data_stream()
        .map_err(io::Error::other)
        .boxed()
}

/// `NAME/ACTION`, where the name has slashes of its own.
fn split(rest: &str) -> Option<(&str, &str)> {
    rest.rsplit_once('/')
}

fn no_page(rest: &str) -> super::Failure {
    super::Failure(Refusal::not_found(format!(
        "page not found: /images/{rest}"
    )))
}

/// Which containers stand on which image, or mount it.
fn users(state: &AppState) -> Result<BTreeMap<Digest, Vec<Use>>, Refusal> {
    let mut users: BTreeMap<Digest, Vec<Use>> = BTreeMap::new();
    for container in state.engine.list(&ListOptions {
        all: true,
        ..ListOptions::default()
    })? {
        let images: BTreeSet<&str> = container.images().collect();
        for image in images.into_iter().filter_map(|image| image.parse().ok()) {
            let id = container.id.to_string();
            users.entry(image).or_default().push(Use {
                container: id.chars().take(12).collect(),
                running: container.state.pid != 0,
            });
        }
    }
    Ok(users)
}

fn tell(state: &AppState, action: &str, image: &str) {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    state.events.publish(EventView {
        status: Some(action.into()),
        id: Some(image.into()),
        kind: "image".into(),
        action: action.into(),
        actor: Actor {
            id: image.into(),
            attributes: [("name".to_owned(), image.to_owned())]
                .into_iter()
                .collect(),
        },
        scope: "local".into(),
        time: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        time_nano: i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        ..EventView::default()
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_slashes() {
        for (rest, parts) in [
            ("busybox/json", Some(("busybox", "json"))),
            (
                "127.0.0.1:5000/a/b:c/history",
                Some(("127.0.0.1:5000/a/b:c", "history")),
            ),
            ("busybox", None),
        ] {
            assert_eq!(split(rest), parts, "{rest}");
        }
    }

    #[test]
    fn credentials_come_padded_or_not() {
        let basic = Auth::Basic {
            username: "u".into(),
            password: "p".into(),
        };
        for (text, auth) in [
            (
                "eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InAifQ==",
                Some(basic.clone()),
            ),
            ("eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InAifQ", Some(basic)),
            ("e30=", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-registry-auth", text.parse().unwrap());
            assert_eq!(credentials(&headers), Ok(auth), "{text}");
        }
        let mut headers = HeaderMap::new();
        headers.insert("x-registry-auth", "!".parse().unwrap());
        assert!(credentials(&headers).is_err());
    }
}
