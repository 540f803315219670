//! Looking at containers: lists with Docker's filters, sizes.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use model::{ContainerId, Refusal};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{ContainerView, Engine, ListOptions, Status, now};

impl Engine {
    /// Newest first.
    pub fn list(&self, options: &ListOptions) -> Result<Vec<ContainerView>, Refusal> {
        let bounds = |key: &str| -> Result<Option<i64>, Refusal> {
            match options.filters.get(key).and_then(|values| values.first()) {
                Some(reference) => Ok(Some(self.inspect(reference)?.created_at)),
                None => Ok(None),
            }
        };
        let (before, since) = (bounds("before")?, bounds("since")?);
        if let Some(unknown) = options
            .filters
            .keys()
            .find(|key| !KNOWN.contains(&key.as_str()))
        {
            return Err(Refusal::invalid(format!("invalid filter '{unknown}'")));
        }
        for status in options.filters.get("status").into_iter().flatten() {
            if !STATUSES.contains(&status.as_str()) {
                return Err(Refusal::invalid(format!(
                    "invalid filter 'status={status}'"
                )));
            }
        }
        let implied = ["status", "exited"]
            .iter()
            .any(|key| options.filters.contains_key(*key));
        let mut views: Vec<ContainerView> = self
            .all()
            .iter()
            .filter(|container| !container.signal.borrow().removed)
            .map(|container| {
                let execs = self.exec_ids(&container.id);
                container.record().view(&container.directory, execs)
            })
            .collect();
        views.sort_by_key(|view| std::cmp::Reverse(view.created_at));
        views.retain(|view| {
            before.is_none_or(|limit| view.created_at < limit)
                && since.is_none_or(|limit| view.created_at > limit)
                && options
                    .filters
                    .iter()
                    .all(|(key, values)| matches(view, key, values))
        });
        if let Some(limit) = options.limit.filter(|limit| *limit > 0) {
            views.truncate(limit);
        } else if !options.all && !implied {
            views.retain(|view| {
                matches!(
                    view.state.status,
                    Status::Running | Status::Paused | Status::Restarting
                )
            });
        }
        Ok(views)
    }

    pub fn inspect(&self, reference: &str) -> Result<ContainerView, Refusal> {
        let container = self.find(reference)?;
        let execs = self.exec_ids(&container.id);
        let view = container.record().view(&container.directory, execs);
        Ok(view)
    }

    /// Bytes of the writable layer (`SizeRw`) and of everything (`SizeRootFs`). Walks the disk.
    pub async fn size(&self, reference: &str) -> Result<(u64, u64), Refusal> {
        let container = self.find(reference)?;
        let upper = container.directory.join("upper");
        let layers = container.record().layers.clone();
        tokio::task::spawn_blocking(move || {
            let own = tree_size(&upper);
            (
                own,
                own + layers.iter().map(|layer| tree_size(layer)).sum::<u64>(),
            )
        })
        .await
        .map_err(|error| Refusal::internal(format!("measuring died: {error}")))
    }

    /// Image ids with the containers that use them, for `rmi` and prune.
    pub fn images_in_use(&self) -> BTreeMap<String, Vec<ContainerId>> {
        let mut map: BTreeMap<String, Vec<ContainerId>> = BTreeMap::new();
        for container in self.all() {
            let record = container.record();
            let mounted = record.mounts.iter().filter_map(|point| point.image());
            let mut images: Vec<&str> = mounted.chain([record.image_id.as_str()]).collect();
            images.sort_unstable();
            images.dedup();
            for image in images {
                let users = map.entry(image.to_owned()).or_default();
                users.push(container.id.clone());
            }
        }
        map
    }

    /// Name, version and path of the OCI runtime, for `docker info` and `version`.
    pub fn runtime_version(&self) -> (String, String, PathBuf) {
        let path = self.executor.runtime.clone();
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        (name, self.executor.version(), path)
    }
}

const KNOWN: &[&str] = &[
    "id",
    "name",
    "label",
    "label!",
    "status",
    "exited",
    "ancestor",
    "network",
    "volume",
    "health",
    "before",
    "since",
    "is-task",
    "expose",
    "publish",
    "isolation",
];
const STATUSES: &[&str] = &[
    "created",
    "running",
    "paused",
    "restarting",
    "removing",
    "exited",
    "dead",
];

fn matches(view: &ContainerView, key: &str, values: &[String]) -> bool {
    let any =
        |test: &dyn Fn(&str) -> bool| values.is_empty() || values.iter().any(|value| test(value));
    match key {
        "id" => any(&|value| view.id.as_str().starts_with(value)),
        "name" => any(&|value| {
            view.name
                .contains(value.trim_start_matches(['/', '^']).trim_end_matches('$'))
        }),
        "label" => values
            .iter()
            .all(|value| label_matches(&view.effective.labels, value)),
        "label!" => !values
            .iter()
            .any(|value| label_matches(&view.effective.labels, value)),
        "status" => any(&|value| view.state.status.as_str() == value),
        "exited" => any(&|value| {
            view.state.status == Status::Exited && value.parse() == Ok(view.state.exit_code)
        }),
        "ancestor" => any(&|value| {
            let short = view.image_id.trim_start_matches("sha256:");
            let tagless = |name: &str| name.strip_suffix(":latest").unwrap_or(name).to_owned();
            tagless(&view.spec.image) == tagless(value)
                || view.image_id == value
                || (value.len() >= 4 && short.starts_with(value.trim_start_matches("sha256:")))
        }),
        "network" => any(&|value| {
            view.network.endpoints.iter().any(|endpoint| {
                endpoint.network_name == value || endpoint.network_id.starts_with(value)
            })
        }),
        "volume" => any(&|value| {
            view.mounts
                .iter()
                .any(|point| point.volume() == Some(value) || point.destination == value)
        }),
        "health" => any(&|value| match &view.state.health {
            None => value == "none",
            Some(health) => format!("{:?}", health.status).to_lowercase() == value,
        }),
        "is-task" => any(&|value| {
            let is = view
                .effective
                .labels
                .contains_key("com.docker.swarm.task.id");
            matches!(value, "true" | "1") == is
        }),
        "expose" => any(&|value| {
            view.effective
                .exposed_ports
                .iter()
                .any(|port| port.starts_with(value))
        }),
        "publish" => false,
        _ => true,
    }
}

/// `name` or `name=value`.
pub(super) fn label_matches(labels: &BTreeMap<String, String>, wish: &str) -> bool {
    match wish.split_once('=') {
        Some((name, value)) => labels.get(name).is_some_and(|found| found == value),
        None => labels.contains_key(wish),
    }
}

/// Docker's `until`: Unix seconds, RFC 3339, or a duration such as `1h30m` back from now.
pub(super) fn parse_until(text: &str) -> Result<i64, Refusal> {
    let invalid = || Refusal::invalid(format!("invalid time {text:?}: give a duration or a time"));
    if let Ok(seconds) = text.parse::<i64>() {
        return Ok(seconds * 1_000_000_000);
    }
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(time.unix_timestamp_nanos() as i64);
    }
    let mut total = 0i64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .ok_or_else(invalid)?;
        let unit = rest[digits..]
            .find(|c: char| c.is_ascii_digit())
            .map_or(rest.len(), |at| digits + at);
        let seconds = match &rest[digits..unit] {
            "h" => 3600,
            "m" => 60,
            "s" => 1,
            _ => return Err(invalid()),
        };
        total += rest[..digits].parse::<i64>().map_err(|_| invalid())? * seconds;
        rest = &rest[unit..];
    }
    Ok(now() - total * 1_000_000_000)
}

/// Bytes of all files below a directory; links are not followed.
pub(super) fn tree_size(path: &Path) -> u64 {
    let mut total = 0;
    let mut open = vec![path.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(facts) = entry.metadata() else {
                continue;
            };
            if facts.is_dir() {
                open.push(entry.path());
            } else {
                total += facts.len();
            }
        }
    }
    total
}
