//! `/events`: what happened here and in the cluster, past and future, in one stream.

use std::{convert::Infallible, sync::Arc};

use api::{
    ApiVersion,
    event::{self, EventView},
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::Response,
    routing::get,
};
use runtime::engine::{Event, EventKind};
use tokio::sync::broadcast::error::RecvError;

use super::{Answer, AppState, Asked, Spoken};
use crate::clock;

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/events", get(events))
}

async fn events(
    State(state): State<AppState>,
    Spoken(version): Spoken,
    headers: HeaderMap,
    Asked(query): Asked,
) -> Answer {
    let filters = query.filters(event::FILTERS)?;
    // Zero is the beginning here, where elsewhere it is "not given".
    let given = query.text("since").is_some_and(|text| !text.is_empty());
    let since = query.moment("since")?.or(given.then_some(0));
    let until = query.moment("until")?;
    let form = Form::chosen(
        version,
        headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()),
    );

    // Listen first and look back then, so that nothing falls between the two.
    let mut engine = state.engine.events();
    let (mut past, mut others) = state.events.listen(since);
    let mut looked_back_to = i64::MIN;
    if let Some(since) = since {
        let remembered = state.engine.past_events(since);
        looked_back_to = remembered.last().map_or(i64::MIN, |event| event.time);
        past.extend(remembered.iter().filter_map(of_engine));
        past.sort_by_key(|event| event.time_nano);
    }
    let keep = move |event: &EventView| {
        event.passes(&filters) && until.is_none_or(|until| event.time_nano <= until)
    };
    // A reader that was too slow is told so, and goes on with the oldest that is left.
    let engine_id = Arc::clone(&state.engine_id);
    let missed = move |count| EventView::missed(&engine_id, count, clock::now_nanos());
    let shutdown = state.shutdown.clone();
    let stream = async_stream::stream! {
        for event in past {
            if keep(&event) {
                yield Ok::<_, Infallible>(form.line(&event.for_version(version)));
            }
        }
        let ended = sleep_until(until);
        tokio::pin!(ended);
        loop {
            // All arms are cancel-safe: receivers keep what was not taken.
            let event = tokio::select! {
                () = shutdown.cancelled() => return,
                () = &mut ended => return,
                event = engine.recv() => match event {
                    Ok(event) if event.time > looked_back_to => match of_engine(&event) {
                        Some(event) => event,
                        None => continue,
                    },
                    Ok(_) => continue,
                    Err(RecvError::Lagged(count)) => missed(count),
                    Err(RecvError::Closed) => return,
                },
                event = others.recv() => match event {
                    Ok(event) => event,
                    Err(RecvError::Lagged(count)) => missed(count),
                    Err(RecvError::Closed) => return,
                },
            };
            if keep(&event) {
                yield Ok(form.line(&event.for_version(version)));
            }
        }
    };
    let mut response = Response::new(Body::from_stream(stream));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(form.content_type()),
    );
    Ok(response)
}

async fn sleep_until(until: Option<i64>) {
    match until {
        None => std::future::pending().await,
        Some(until) => {
            let left = u64::try_from(until - clock::now_nanos()).unwrap_or(0);
            tokio::time::sleep(std::time::Duration::from_nanos(left)).await;
        }
    }
}

fn of_engine(event: &Event) -> Option<EventView> {
    let kind = match event.kind {
        EventKind::Container => "container",
        EventKind::Volume => "volume",
        // Translated into events of the networks.
        EventKind::Networks => return None,
    };
    Some(EventView::new(
        "local",
        kind,
        &event.action,
        &event.id,
        event.attributes.clone(),
        event.time,
    ))
}

/// How the messages are strung together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Lines,
    NewlineDelimited,
    /// RFC 7464: each text begins with a record separator.
    Sequence,
}

impl Form {
    /// Since 1.52 the client may choose; before, it is always `application/json`.
    fn chosen(version: ApiVersion, accept: Option<&str>) -> Self {
        if version < ApiVersion::new(1, 52) {
            return Self::Json;
        }
        accept
            .unwrap_or_default()
            .split(',')
            .find_map(
                |entry| match entry.split(';').next().unwrap_or_default().trim() {
                    "application/jsonl" => Some(Self::Lines),
                    "application/x-ndjson" => Some(Self::NewlineDelimited),
                    "application/json-seq" => Some(Self::Sequence),
                    "application/json" => Some(Self::Json),
                    _ => None,
                },
            )
            .unwrap_or(Self::Json)
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Lines => "application/jsonl",
            Self::NewlineDelimited => "application/x-ndjson",
            Self::Sequence => "application/json-seq",
        }
    }

    fn line(self, event: &EventView) -> Bytes {
        let mut bytes = Vec::with_capacity(256);
        if self == Self::Sequence {
            bytes.push(0x1e);
        }
        if let Err(error) = serde_json::to_writer(&mut bytes, event) {
            tracing::error!(%error, "an event could not be written");
        }
        bytes.push(b'\n');
        bytes.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let new = ApiVersion::new(1, 53);
        for (version, accept, form) in [
            (new, None, Form::Json),
            (
                new,
                Some("application/jsonl, application/json"),
                Form::Lines,
            ),
            (
                new,
                Some("text/html, application/x-ndjson;q=1"),
                Form::NewlineDelimited,
            ),
            (new, Some("application/json-seq"), Form::Sequence),
            (
                ApiVersion::new(1, 50),
                Some("application/jsonl"),
                Form::Json,
            ),
        ] {
            assert_eq!(Form::chosen(version, accept), form, "{accept:?}");
        }
        assert_eq!(Form::Sequence.line(&EventView::default())[0], 0x1e);
    }
}
