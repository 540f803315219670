//! Events: `/events`.

use std::{borrow::Cow, collections::BTreeMap};

use model::control::ClusterEvent;
use serde::{Deserialize, Serialize};

use crate::{ApiVersion, Filters};

/// One message of the stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventView {
    /// Fields of API versions before 1.52, for containers and images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(rename = "Type")]
    pub kind: String,
    #[serde(rename = "Action")]
    pub action: String,
    #[serde(rename = "Actor")]
    pub actor: Actor,
    /// `local` or `swarm`.
    pub scope: String,
    /// Seconds since the epoch.
    pub time: i64,
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Actor {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}

/// Names that `/events` can be filtered by.
pub const FILTERS: &[&str] = &[
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "task",
    "type",
    "volume",
];

impl EventView {
    /// An event of `scope` `local` or `swarm`; `time` in nanoseconds since the epoch.
    pub fn new(
        scope: &str,
        kind: impl Into<String>,
        action: impl Into<String>,
        id: impl Into<String>,
        attributes: BTreeMap<String, String>,
        time: i64,
    ) -> Self {
        Self {
            kind: kind.into(),
            action: action.into(),
            actor: Actor {
                id: id.into(),
                attributes,
            },
            scope: scope.to_owned(),
            time: crate::timestamp::seconds(time),
            time_nano: time,
            ..Self::default()
        }
    }

    /// Tells that `count` events are missing here: who keeps a picture has to look again.
    pub fn missed(engine_id: &str, count: u64, time: i64) -> Self {
        let attributes = [("count".to_owned(), count.to_string())].into();
        Self::new("local", "daemon", "missed", engine_id, attributes, time)
    }

    /// With the fields that 1.52 dropped, for those who still read them.
    pub fn for_version(&self, version: ApiVersion) -> Cow<'_, Self> {
        if version >= ApiVersion::new(1, 52) || !matches!(self.kind.as_str(), "container" | "image")
        {
            return Cow::Borrowed(self);
        }
        let of_container = self.kind == "container";
        let image = self.actor.attributes.get("image");
        Cow::Owned(Self {
            status: Some(self.action.clone()),
            id: Some(self.actor.id.clone()),
            from: image.filter(|_| of_container).cloned(),
            ..self.clone()
        })
    }

    /// Whether the filters let the event pass. `event` matches the word before a colon too
    /// (`exec_create: sh` is an `exec_create`); a kind's own filter matches id, its beginning
    /// or name.
    pub fn passes(&self, filters: &Filters) -> bool {
        let word = self.action.split(':').next().unwrap_or_default();
        let name = self.actor.attributes.get("name").map_or("", String::as_str);
        let named = |value: &str| {
            value == self.actor.id
                || value == name
                || (!value.is_empty() && self.actor.id.starts_with(value))
                || (self.kind == "image"
                    && self
                        .actor
                        .id
                        .split(':')
                        .next()
                        .is_some_and(|repository| repository == value))
        };
        let own_kind = |kind: &str| {
            !filters.has(kind)
                || if self.kind == kind {
                    filters.any(kind, named)
                } else if kind == "container" && self.kind == "network" {
                    // A container's connects and disconnects are events of the network.
                    let container = self.actor.attributes.get("container");
                    filters.any(kind, |value| {
                        container.is_some_and(|id| !value.is_empty() && id.starts_with(value))
                    })
                } else if self.kind == "task" && matches!(kind, "service" | "node") {
                    // What happens to a task happens to its service and on its node.
                    let of = |key: &str| {
                        let value = self.actor.attributes.get(key);
                        value.map_or("", String::as_str)
                    };
                    let (name, id) = (of(kind), of(&format!("{kind}.id")));
                    filters.any(kind, |value| {
                        value == name || (!value.is_empty() && id.starts_with(value))
                    })
                } else if kind == "image" && self.kind == "container" {
                    let image = self
                        .actor
                        .attributes
                        .get("image")
                        .map_or("", String::as_str);
                    filters.any(kind, |value| {
                        image == value || image.split(':').next() == Some(value)
                    })
                } else {
                    false
                }
        };
        filters.exact("type", &self.kind)
            && filters.exact("scope", &self.scope)
            && filters.any("event", |value| value == word || value == self.action)
            && filters.labels("label", |key| {
                self.actor.attributes.get(key).map(String::as_str)
            })
            && [
                "config",
                "container",
                "daemon",
                "image",
                "network",
                "node",
                "plugin",
                "secret",
                "service",
                "task",
                "volume",
            ]
            .into_iter()
            .all(own_kind)
    }
}

impl From<&ClusterEvent> for EventView {
    fn from(event: &ClusterEvent) -> Self {
        Self::new(
            "swarm",
            &event.kind,
            &event.action,
            &event.id,
            event.attributes.clone(),
            event.time,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started() -> EventView {
        let attributes = [("name", "api"), ("image", "echo:latest"), ("tier", "web")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        EventView::new(
            "local",
            "container",
            "start",
            "abcdef",
            attributes.into(),
            1_500_000_000,
        )
    }

    #[test]
    fn filters_let_pass_or_not() {
        for (text, passes) in [
            ("", true),
            (r#"{"type":["container"]}"#, true),
            (r#"{"type":["network"]}"#, false),
            (r#"{"container":["api"]}"#, true),
            (r#"{"container":["abc"]}"#, true),
            (r#"{"container":["other"]}"#, false),
            (r#"{"event":["start","die"]}"#, true),
            (r#"{"event":["die"]}"#, false),
            (r#"{"label":["tier=web"]}"#, true),
            (r#"{"label":["tier=db"]}"#, false),
            (r#"{"image":["echo"]}"#, true),
            (r#"{"network":["n"]}"#, false),
            (r#"{"scope":["swarm"]}"#, false),
        ] {
            let filters = Filters::parse(text, FILTERS).unwrap();
            assert_eq!(started().passes(&filters), passes, "{text}");
        }
        let exec = EventView {
            action: "exec_create: sh -c ls".into(),
            ..started()
        };
        assert!(exec.passes(&Filters::parse(r#"{"event":["exec_create"]}"#, FILTERS).unwrap()));
    }

    #[test]
    fn a_task_is_found_by_its_service_and_node() {
        let attributes = [
            ("name", "web.1.t"),
            ("service", "web"),
            ("service.id", "sid"),
            ("node", "worker01"),
            ("node.id", "nid"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let event = EventView::new("swarm", "task", "running", "tid", attributes.into(), 1);
        for (text, passes) in [
            (r#"{"type":["task"]}"#, true),
            (r#"{"task":["tid"]}"#, true),
            (r#"{"service":["web"]}"#, true),
            (r#"{"service":["si"]}"#, true),
            (r#"{"service":["we"]}"#, false),
            (r#"{"node":["worker01"],"event":["running"]}"#, true),
            (r#"{"node":["other"]}"#, false),
            (r#"{"container":["tid"]}"#, false),
        ] {
            let filters = Filters::parse(text, FILTERS).unwrap();
            assert_eq!(event.passes(&filters), passes, "{text}");
        }
    }

    #[test]
    fn old_clients_get_the_old_fields() {
        let text =
            |version| serde_json::to_string(&started().for_version(version)).expect("plain data");
        assert_eq!(
            text(ApiVersion::new(1, 53)),
            r#"{"Type":"container","Action":"start","Actor":{"ID":"abcdef","Attributes":{"image":"echo:latest","name":"api","tier":"web"}},"scope":"local","time":1,"timeNano":1500000000}"#
        );
        assert!(text(ApiVersion::new(1, 50)).starts_with(
            r#"{"status":"start","id":"abcdef","from":"echo:latest","Type":"container""#
        ));
    }
}
