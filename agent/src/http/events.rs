//! `/events`: what happened here and in the cluster, past and future, in one stream.

use std::{convert::Infallible, sync::Arc, time::Duration};

use api::{
    ApiVersion, Filters,
    event::{self, EventView},
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::Response,
    routing::get,
};
use futures_util::StreamExt as _;
use runtime::engine::{Event, EventKind};
use tokio::sync::{
    broadcast::{
        self,
        error::{RecvError, TryRecvError},
    },
    mpsc,
};
use tokio_stream::wrappers::ReceiverStream;

use super::{Answer, AppState, Asked, Spoken, bus, serve::Hangup};
use crate::clock;

/// How long a listener that has missed events may go on taking nothing.
const PATIENCE: Duration = Duration::from_secs(30);
/// Events that are there at once are handed over together, about so many bytes.
const PIECE: usize = 16 << 10;

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/events", get(events))
}

async fn events(
    State(state): State<AppState>,
    Spoken(version): Spoken,
    hangup: Hangup,
    headers: HeaderMap,
    Asked(query): Asked,
) -> Answer {
    let filters = query.filters(event::FILTERS)?;
    // Zero is the beginning here, where elsewhere it is "not given".
    let given = query.text("since").is_some_and(|text| !text.is_empty());
    let since = query.moment("since")?.or(given.then_some(0));
    let form = Form::chosen(
        version,
        headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()),
    );
    // Listen first and look back then, so that nothing falls between the two.
    let engine = state.engine.events();
    let (mut past, others) = state.events.listen(since);
    let mut looked_back_to = i64::MIN;
    if let Some(since) = since {
        let remembered = state.engine.past_events(since);
        looked_back_to = remembered.last().map_or(i64::MIN, |event| event.time);
        past.extend(remembered.iter().filter_map(of_engine).map(Arc::new));
        past.sort_by_key(|event| event.time_nano);
    }
    let listener = Listener {
        engine,
        others,
        looked_back_to,
        filters,
        until: query.moment("until")?,
        version,
        form,
        engine_id: Arc::clone(&state.engine_id),
        hangup,
    };
    let (sender, pieces) = mpsc::channel(1);
    let shutdown = state.shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = listener.tell(past, sender) => {}
        }
    });
    let pieces = ReceiverStream::new(pieces).map(Ok::<_, Infallible>);
    let mut response = Response::new(Body::from_stream(pieces));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(form.content_type()),
    );
    Ok(response)
}

/// Somebody who hears of events. Nothing is kept for one who is slow but what waits for all: once it
/// has missed some it is told so, and the stream ends; one that takes not even that is cut off.
struct Listener {
    engine: broadcast::Receiver<Event>,
    others: broadcast::Receiver<Arc<EventView>>,
    /// Of the engine's events those until then have been told.
    looked_back_to: i64,
    filters: Filters,
    until: Option<i64>,
    version: ApiVersion,
    form: Form,
    engine_id: Arc<str>,
    hangup: Hangup,
}

impl Listener {
    async fn tell(mut self, past: Vec<Arc<EventView>>, sender: mpsc::Sender<Bytes>) {
        let mut piece = Vec::new();
        for event in past {
            self.add(&mut piece, &event);
        }
        if !self.give(piece, &sender).await {
            return;
        }
        let ended = sleep_until(self.until);
        tokio::pin!(ended);
        loop {
            let mut piece = Vec::new();
            // All arms are cancel-safe: receivers keep what was not taken.
            let mut heard = tokio::select! {
                () = sender.closed() => return,
                () = &mut ended => return,
                event = self.engine.recv() => event.map(|event| self.add_engines(&mut piece, &event)),
                event = self.others.recv() => event.map(|event| self.add(&mut piece, &event)),
            };
            while heard.is_ok() && piece.len() < PIECE {
                heard = match self.engine.try_recv() {
                    Ok(event) => {
                        self.add_engines(&mut piece, &event);
                        Ok(())
                    }
                    Err(TryRecvError::Lagged(count)) => Err(RecvError::Lagged(count)),
                    Err(_) => match self.others.try_recv() {
                        Ok(event) => {
                            self.add(&mut piece, &event);
                            Ok(())
                        }
                        Err(TryRecvError::Lagged(count)) => Err(RecvError::Lagged(count)),
                        Err(_) => break,
                    },
                };
            }
            if let Err(RecvError::Lagged(count)) = heard {
                let missed = EventView::missed(&self.engine_id, count, clock::now_nanos());
                self.add(&mut piece, &missed);
            }
            if !self.give(piece, &sender).await || heard.is_err() {
                return;
            }
        }
    }

    fn add_engines(&self, piece: &mut Vec<u8>, event: &Event) {
        if event.time > self.looked_back_to
            && let Some(event) = of_engine(event)
        {
            self.add(piece, &event);
        }
    }

    fn add(&self, piece: &mut Vec<u8>, event: &EventView) {
        let in_time = self.until.is_none_or(|until| event.time_nano <= until);
        if in_time && event.passes(&self.filters) {
            self.form.write(piece, &event.for_version(self.version));
        }
    }

    /// Whether the listener is still there, and has taken the piece.
    async fn give(&self, piece: Vec<u8>, sender: &mpsc::Sender<Bytes>) -> bool {
        if piece.is_empty() {
            return true;
        }
        loop {
            match tokio::time::timeout(PATIENCE, sender.reserve()).await {
                Ok(Ok(place)) => {
                    place.send(piece.into());
                    return true;
                }
                Ok(Err(_gone)) => return false,
                Err(_) if self.has_missed() => {
                    tracing::info!("a listener to events that does not read is cut off");
                    self.hangup.cut();
                    return false;
                }
                Err(_) => {}
            }
        }
    }

    fn has_missed(&self) -> bool {
        self.engine.len() > runtime::engine::EVENTS_WAITING || self.others.len() > bus::WAITING
    }
}

async fn sleep_until(until: Option<i64>) {
    match until {
        None => std::future::pending().await,
        Some(until) => {
            let left = u64::try_from(until - clock::now_nanos()).unwrap_or(0);
            tokio::time::sleep(Duration::from_nanos(left)).await;
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

    fn write(self, piece: &mut Vec<u8>, event: &EventView) {
        if self == Self::Sequence {
            piece.push(0x1e);
        }
        if let Err(error) = serde_json::to_writer(&mut *piece, event) {
            tracing::error!(%error, "an event could not be written");
        }
        piece.push(b'\n');
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
        let mut piece = Vec::new();
        Form::Sequence.write(&mut piece, &EventView::default());
        assert_eq!(piece[0], 0x1e);
    }

    /// Hears the bus only; the engine's sender keeps that side open.
    fn listener(bus: &bus::EventBus) -> (Listener, broadcast::Sender<Event>) {
        let (engine, receiver) = broadcast::channel(1);
        let listener = Listener {
            engine: receiver,
            others: bus.listen(None).1,
            looked_back_to: i64::MIN,
            filters: Filters::parse("", event::FILTERS).unwrap(),
            until: None,
            version: ApiVersion::new(1, 53),
            form: Form::Lines,
            engine_id: "engine".into(),
            hangup: Hangup::default(),
        };
        (listener, engine)
    }

    #[tokio::test]
    async fn who_has_missed_some_is_told_and_the_stream_ends() {
        let bus = bus::EventBus::new();
        let (listener, _engine) = listener(&bus);
        for _ in 0..=bus::WAITING {
            bus.publish(EventView::default());
        }
        let (sender, mut pieces) = mpsc::channel(1);
        tokio::spawn(listener.tell(Vec::new(), sender));
        let mut heard = Vec::new();
        while let Some(piece) = pieces.recv().await {
            heard.extend(piece);
        }
        let heard = String::from_utf8(heard).unwrap();
        assert_eq!(heard.lines().count(), 1, "{heard}");
        assert!(heard.contains("missed"), "{heard}");
    }
}
