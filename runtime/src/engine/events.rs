//! What happened to containers and volumes, in Docker's words.

use std::collections::BTreeMap;

use serde::Serialize;

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
}
