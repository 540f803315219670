//! `/containers…`

mod archive;
mod create;
mod mounts;
mod network;
pub(super) use self::network::wish;
mod show;
mod stats;
mod streams;
mod update;

use api::{Query, docker::ContainerCreateBody, timestamp};
use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
    routing::{get, post},
};
use model::{ContainerId, Refusal};
use runtime::engine::{ContainerSpec, ListOptions, MountKind, RemoveOptions, StopOptions};

use super::{
    Answer, AppState, Asked, Raw, Spoken, access::Caller, answer::done_or_unchanged, done, json,
    json_with,
};
use crate::clock;

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/containers/json", get(list))
        .route("/containers/create", post(make))
        .route("/containers/prune", post(prune))
        .route("/containers/{id}", axum::routing::delete(remove))
        .route("/containers/{id}/json", get(inspect))
        .route("/containers/{id}/start", post(start))
        .route("/containers/{id}/stop", post(stop))
        .route("/containers/{id}/restart", post(restart))
        .route("/containers/{id}/kill", post(kill))
        .route("/containers/{id}/pause", post(pause))
        .route("/containers/{id}/unpause", post(unpause))
        .route("/containers/{id}/rename", post(rename))
        .route("/containers/{id}/resize", post(resize))
        .route("/containers/{id}/top", get(top))
        .route("/containers/{id}/changes", get(changes))
        .merge(archive::routes())
        .merge(stats::routes())
        .merge(streams::routes())
        .merge(update::routes())
}

async fn list(State(state): State<AppState>, Asked(query): Asked) -> Answer {
    let limit = query
        .number("limit")?
        .and_then(|n| usize::try_from(n).ok())
        .filter(|n| *n > 0);
    let options = ListOptions {
        all: query.flag("all"),
        limit,
        filters: query.any_filters()?.into_map(),
    };
    let summaries = summaries(&state, &options, query.flag("size")).await?;
    Ok(json(&summaries))
}

/// Containers as lists show them; with sizes the disk is walked.
pub(super) async fn summaries(
    state: &AppState,
    options: &ListOptions,
    sizes: bool,
) -> Result<Vec<api::container::Summary>, Refusal> {
    let now = clock::now_nanos();
    let mut summaries = Vec::new();
    for view in state.engine.list(options)? {
        let mut summary = show::summary(&view, now);
        if sizes {
            // A container that is gone meanwhile has no size.
            if let Ok((own, all)) = state.engine.size(view.id.as_str()).await {
                summary.size_rw = Some(own);
                summary.size_root_fs = Some(all);
            }
        }
        summaries.push(summary);
    }
    Ok(summaries)
}

async fn make(
    State(state): State<AppState>,
    caller: Caller,
    Asked(query): Asked,
    Raw(body): Raw,
) -> Answer {
    let name = query
        .text("name")
        .map(|name| name.trim_start_matches('/').to_owned());
    if let Some(name) = &name {
        model::name::check_container_name(name)?;
    }
    if let Some(platform) = query.text("platform") {
        check_platform(platform)?;
    }
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(
            Refusal::invalid("config cannot be empty in order to create a container").into(),
        );
    }
    let (spec, mut warnings) = read_request(&state, name, &body)?;
    caller.may_make(&state, &spec)?;
    let created = state.engine.create(spec).await?;
    warnings.extend(created.warnings);
    let body = serde_json::json!({ "Id": created.id, "Warnings": warnings });
    Ok(json_with(StatusCode::CREATED, &body))
}

fn read_request(
    state: &AppState,
    name: Option<String>,
    body: &[u8],
) -> Result<(ContainerSpec, Vec<String>), Refusal> {
    let (runtime, _, _) = state.engine.runtime_version();
    let known = |name: &str| state.engine.inspect(name).map(|view| view.id);
    let (mut spec, warnings) = wish_of(name, body, &runtime, &known)?;
    let socket = state.settings.api_socket().here();
    for mount in &mut spec.host.mounts {
        if let MountKind::Bind { source, .. } = &mut mount.kind
            && let Some(ours) = socket.in_place_of(source, &spec.labels)
        {
            *source = ours;
        }
    }
    Ok((spec, warnings))
}

/// The wish that the body of a creation comes to, and what the user should be warned of; `known`
/// finds containers that it names.
pub fn wish_of(
    name: Option<String>,
    body: &[u8],
    runtime: &str,
    known: &dyn Fn(&str) -> Result<ContainerId, Refusal>,
) -> Result<(ContainerSpec, Vec<String>), Refusal> {
    let given: ContainerCreateBody = api::read(body)?;
    let leftover: create::Leftover = api::read(body)?;
    let lookup = create::Lookup {
        container: known,
        runtimes: &[runtime, "runc", "io.containerd.runc.v2"],
    };
    create::read(name, given, &leftover, &lookup)
}

/// `linux[/ARCHITECTURE]`, and it must be this host's; empty: any.
pub(super) fn check_platform(platform: &str) -> Result<(), Refusal> {
    if platform.is_empty() {
        return Ok(());
    }
    let mut parts = platform.split('/');
    let os = parts.next().unwrap_or_default();
    let machine = std::env::consts::ARCH;
    let ours = api::system::go_architecture(machine);
    let architecture = parts.next().unwrap_or(ours);
    if os == "linux" && (architecture == ours || architecture == machine) {
        return Ok(());
    }
    Err(Refusal::invalid(format!(
        "platform {platform} cannot run here; this host is linux/{ours}"
    )))
}

async fn inspect(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Spoken(version): Spoken,
    Asked(query): Asked,
) -> Answer {
    let view = state.engine.inspect(&id)?;
    let mut shown = show::inspect(&view, version);
    if query.flag("size") {
        let (own, all) = state.engine.size(view.id.as_str()).await?;
        shown.size_rw = Some(own);
        shown.size_root_fs = Some(all);
    }
    Ok(json(&shown))
}

/// The name of a checkpoint is refused rather than ignored, because the container would not
/// be what was asked for.
async fn start(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Asked(query): Asked,
) -> Answer {
    if query.text("checkpoint").is_some() {
        return Err(create::absent("starting from a checkpoint").into());
    }
    Ok(done_or_unchanged(state.engine.start_container(&id).await?))
}

fn stop_options(query: &Query) -> Result<StopOptions, Refusal> {
    Ok(StopOptions {
        signal: query.text("signal").map(str::to_owned),
        timeout: query.number("t")?,
    })
}

async fn stop(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Asked(query): Asked,
) -> Answer {
    Ok(done_or_unchanged(
        state.engine.stop(&id, stop_options(&query)?).await?,
    ))
}

async fn restart(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Asked(query): Asked,
) -> Answer {
    state.engine.restart(&id, stop_options(&query)?).await?;
    Ok(done())
}

async fn kill(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Asked(query): Asked,
) -> Answer {
    state.engine.kill(&id, query.text("signal")).await?;
    Ok(done())
}

async fn pause(State(state): State<AppState>, Path(id): Path<String>) -> Answer {
    state.engine.pause(&id).await?;
    Ok(done())
}

async fn unpause(State(state): State<AppState>, Path(id): Path<String>) -> Answer {
    state.engine.unpause(&id).await?;
    Ok(done())
}

async fn rename(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Asked(query): Asked,
) -> Answer {
    let name = query
        .text("name")
        .unwrap_or_default()
        .trim_start_matches('/');
    model::name::check_container_name(name)?;
    state.engine.rename(&id, name).await?;
    Ok(done())
}

async fn remove(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Asked(query): Asked,
) -> Answer {
    if query.flag("link") {
        return Err(create::absent("removing a link (rm --link)").into());
    }
    let options = RemoveOptions {
        force: query.flag("force"),
        volumes: query.flag("v"),
    };
    state.engine.remove(&id, options).await?;
    Ok(done())
}

/// `h` and `w` of a resize.
pub(super) fn size_asked(query: &Query) -> Result<(u16, u16), Refusal> {
    let side = |name: &str| {
        let number = query.number(name)?.unwrap_or(0);
        u16::try_from(number).map_err(|_| {
            Refusal::invalid(format!(
                "parameter {name}: {number} is no size of a terminal"
            ))
        })
    };
    Ok((side("h")?, side("w")?))
}

/// Docker's `[rows, columns]`; zeros mean that the client has no terminal.
pub(super) fn console_size(size: Option<&[u16]>) -> Option<(u16, u16)> {
    match size {
        Some([rows, columns]) if *rows > 0 && *columns > 0 => Some((*rows, *columns)),
        _ => None,
    }
}

async fn resize(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Asked(query): Asked,
) -> Answer {
    let (rows, columns) = size_asked(&query)?;
    state.engine.resize(&id, rows, columns).await?;
    Ok(Response::default())
}

async fn top(State(state): State<AppState>, Path(id): Path<String>, Asked(query): Asked) -> Answer {
    let found = state
        .engine
        .top(&id, query.text("ps_args").unwrap_or_default())
        .await?;
    Ok(json(
        &serde_json::json!({ "Titles": found.titles, "Processes": found.rows }),
    ))
}

async fn changes(State(state): State<AppState>, Path(id): Path<String>) -> Answer {
    let changes: Vec<_> = state
        .engine
        .changes(&id)
        .await?
        .into_iter()
        .map(|change| serde_json::json!({ "Path": change.path, "Kind": change.kind as u8 }))
        .collect();
    Ok(json(&changes))
}

/// `until` of a prune, in nanoseconds since the epoch.
pub(super) fn until(text: &str, now: i64) -> Result<i64, Refusal> {
    timestamp::parse_ago(text, now).ok_or_else(|| {
        Refusal::invalid(format!(
            "invalid filter \"until\": {text:?} is neither a time nor a duration such as 24h"
        ))
    })
}

async fn prune(State(state): State<AppState>, Asked(query): Asked) -> Answer {
    let mut filters = query.filters(&["label", "label!", "until"])?.into_map();
    for text in filters.get_mut("until").into_iter().flatten() {
        *text = timestamp::rfc3339(until(text, clock::now_nanos())?);
    }
    let pruned = state.engine.prune(&filters).await?;
    Ok(json(&serde_json::json!({
        "ContainersDeleted": pruned.deleted,
        "SpaceReclaimed": pruned.reclaimed,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_platforms() {
        assert_eq!(size_asked(&Query::parse("h=40&w=120")).unwrap(), (40, 120));
        assert!(size_asked(&Query::parse("h=-1&w=1")).is_err());
        assert_eq!(console_size(Some(&[0, 0])), None);
        assert_eq!(console_size(Some(&[40, 120])), Some((40, 120)));
        assert!(check_platform("linux").is_ok());
        assert!(check_platform(&format!("linux/{}", std::env::consts::ARCH)).is_ok());
        for platform in ["windows", "linux/s390x"] {
            assert!(
                check_platform(platform)
                    .unwrap_err()
                    .message
                    .contains(platform)
            );
        }
    }
}
