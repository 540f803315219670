//! What happened to containers and volumes, in Docker's words.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Mutex,
};

use model::ContainerId;
use serde::Serialize;
use tokio::sync::broadcast;

use super::{Engine, now, record::Record};

/// One entry of `GET /events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    pub kind: EventKind,
    /// `create`, `start`, `die`, `exec_start: sh -c …`, `health_status: healthy` …
    pub action: String,
    /// The container's id or the volume's name.
    pub id: String,
    /// A container's labels, `image`, `name`, and what the action adds (`exitCode`, `signal`,
    /// `execID`, `execDuration`, `oldName`).
    pub attributes: BTreeMap<String, String>,
    /// Nanoseconds since the Unix epoch.
    pub time: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    Container,
    Volume,
    /// The container of that id is on other networks than before.
    Networks,
}

/// Events kept for who asks late, as many as Docker keeps.
const KEPT: usize = 256;
/// Events that wait for a receiver; one that has more before it loses the oldest.
pub const EVENTS_WAITING: usize = 1024;

pub(super) struct EventLog {
    past: Mutex<VecDeque<Event>>,
    sender: broadcast::Sender<Event>,
}

impl EventLog {
    pub fn new() -> Self {
        Self {
            past: Mutex::new(VecDeque::with_capacity(KEPT)),
            sender: broadcast::channel(EVENTS_WAITING).0,
        }
    }

    pub fn add(&self, event: Event) {
        let mut past = self.past.lock().expect("no panic under this lock");
        if past.len() == KEPT {
            past.pop_front();
        }
        past.push_back(event.clone());
        // Nobody may be listening.
        let _ = self.sender.send(event);
    }
}

impl Engine {
    /// From now on; a receiver with more than [`EVENTS_WAITING`] before it loses the oldest.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.sender.subscribe()
    }

    /// The last 256 events with `since <= time`, oldest first, for `since=` in the past.
    pub fn past_events(&self, since: i64) -> Vec<Event> {
        let past = self.events.past.lock().expect("no panic under this lock");
        past.iter()
            .filter(|event| event.time >= since)
            .cloned()
            .collect()
    }

    pub(super) fn tell(&self, record: &Record, action: impl Into<String>, more: &[(&str, String)]) {
        let mut attributes = record.effective.labels.clone();
        attributes.insert("image".into(), record.spec.image.clone());
        attributes.insert("name".into(), record.name.clone());
        for (name, value) in more {
            attributes.insert((*name).to_owned(), value.clone());
        }
        self.events.add(Event {
            kind: EventKind::Container,
            action: action.into(),
            id: record.id.to_string(),
            attributes,
            time: now(),
        });
    }

    pub(super) fn tell_networks(&self, container: &ContainerId) {
        self.events.add(Event {
            kind: EventKind::Networks,
            action: "change".to_owned(),
            id: container.to_string(),
            attributes: BTreeMap::new(),
            time: now(),
        });
    }

    pub(super) fn tell_volume(&self, name: &str, action: &str) {
        self.events.add(Event {
            kind: EventKind::Volume,
            action: action.to_owned(),
            id: name.to_owned(),
            attributes: BTreeMap::from([("driver".into(), "local".into())]),
            time: now(),
        });
    }
}
