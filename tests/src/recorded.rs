//! The same requests to a real Docker Engine, once, and to ours, each time: which fields an answer
//! has and of which kind they are. `scripts/record-docker` writes down the engine's.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::http;

/// The version of the API that both are asked in: the recorded engine's.
pub const VERSION: &str = "v1.41";
/// How long a task may take to run.
const LIMIT: Duration = Duration::from_secs(60);

/// One request. `{address}`, `{now}` and what was kept stand in paths and bodies.
struct Step {
    name: &'static str,
    method: &'static str,
    path: &'static str,
    body: &'static str,
    /// The answer's `Id` or `ID` is known by that name from then on.
    keep: &'static str,
    /// Asked again until it says so.
    until: &'static str,
}

const fn step(name: &'static str, method: &'static str, path: &'static str) -> Step {
    Step {
        name,
        method,
        path,
        body: "",
        keep: "",
        until: "",
    }
}

const fn get(name: &'static str, path: &'static str) -> Step {
    step(name, "GET", path)
}

const fn post(name: &'static str, path: &'static str, body: &'static str) -> Step {
    Step {
        body,
        ..step(name, "POST", path)
    }
}

const SERVICE: &str = r#"{"Name":"api","Labels":{"a":"b"},"TaskTemplate":{"ContainerSpec":{"Image":"example/toolbox:1",
"Command":["/bin/sleep","100000"],"Env":["A=b"],"Labels":{"c":"d"},"Hosts":["192.0.2.9 other"],"StopGracePeriod":1000000000,
"Mounts":[{"Type":"volume","Source":"data","Target":"/data"}],"Healthcheck":{"Test":["CMD","/bin/true"],"Interval":1000000000}},
"Resources":{"Limits":{"MemoryBytes":67108864},"Reservations":{"MemoryBytes":4194304}},
"RestartPolicy":{"Condition":"on-failure","Delay":1000000000,"MaxAttempts":3},"Placement":{"Constraints":["node.role==manager"]}},"Mode":{"Replicated":{"Replicas":1}},
"UpdateConfig":{"Parallelism":1,"FailureAction":"pause","Order":"stop-first","MaxFailureRatio":0.25}}"#;

/// In order; each stands on those before it. `IMAGE` as a body is an archive with a busybox.
const STEPS: &[Step] = &[
    get("version", "/version"),
    get("info-alone", "/info"),
    post(
        "image-import",
        "/images/create?fromSrc=-&repo=example/toolbox&tag=1",
        "IMAGE",
    ),
    get("images", "/images/json"),
    get("image", "/images/example/toolbox:1/json"),
    get("image-history", "/images/example/toolbox:1/history"),
    post(
        "volume-create",
        "/volumes/create",
        r#"{"Name":"data","Labels":{"a":"b"}}"#,
    ),
    get("volume", "/volumes/data"),
    get("volumes", "/volumes"),
    post(
        "container-create",
        "/containers/create?name=web",
        r#"{"Image":"example/toolbox:1","Cmd":["/bin/sleep","100000"],"Labels":{"a":"b"},"Env":["A=b"],"Hostname":"web","ExposedPorts":{"80/tcp":{}},"StopTimeout":1,"HostConfig":{"NetworkMode":"none","Memory":67108864,"Binds":["data:/data"],"RestartPolicy":{"Name":"always"}}}"#,
    ),
    get("container-created", "/containers/web/json"),
    step("container-start", "POST", "/containers/web/start"),
    get("container", "/containers/web/json"),
    get("containers", "/containers/json?all=1"),
    get("containers-sizes", "/containers/json?size=1"),
    get("top", "/containers/web/top"),
    get("changes", "/containers/web/changes"),
    get("stats", "/containers/web/stats?stream=false&one-shot=1"),
    Step {
        keep: "exec",
        ..post(
            "exec-create",
            "/containers/web/exec",
            r#"{"Cmd":["/bin/true"],"AttachStdout":true}"#,
        )
    },
    get("exec", "/exec/{exec}/json"),
    post(
        "update",
        "/containers/web/update",
        r#"{"Memory":134217728,"MemorySwap":268435456}"#,
    ),
    get("networks", "/networks"),
    get("network-none", "/networks/none"),
    get("df", "/system/df"),
    get("no-container", "/containers/nobody/json"),
    post(
        "container-conflict",
        "/containers/create?name=web",
        r#"{"Image":"example/toolbox:1"}"#,
    ),
    post("container-bad", "/containers/create?name=bad", "{"),
    get("no-image", "/images/nothing/json"),
    get("no-volume", "/volumes/nothing"),
    get("no-network", "/networks/nothing"),
    get(
        "bad-filter",
        "/containers/json?filters=%7B%22colour%22%3A%7B%22red%22%3Atrue%7D%7D",
    ),
    get("no-swarm", "/services"),
    post(
        "swarm-init",
        "/swarm/init",
        r#"{"ListenAddr":"{address}:2377","AdvertiseAddr":"{address}","Spec":{"Orchestration":{"TaskHistoryRetentionLimit":5}}}"#,
    ),
    get("swarm", "/swarm"),
    get("info-manager", "/info"),
    get("nodes", "/nodes"),
    Step {
        keep: "network",
        ..post(
            "overlay-create",
            "/networks/create",
            r#"{"Name":"ch03","Driver":"overlay","Attachable":true,"Labels":{"a":"b"},"IPAM":{"Config":[{"Subnet":"10.77.0.0/24"}]}}"#,
        )
    },
    get("overlay", "/networks/ch03"),
    Step {
        keep: "secret",
        ..post(
            "secret-create",
            "/secrets/create",
            r#"{"Name":"key","Data":"aGVsbG8=","Labels":{"a":"b"}}"#,
        )
    },
    get("secret", "/secrets/{secret}"),
    get("secrets", "/secrets"),
    Step {
        keep: "config",
        ..post(
            "config-create",
            "/configs/create",
            r#"{"Name":"conf","Data":"aGVsbG8="}"#,
        )
    },
    get("config", "/configs/{config}"),
    get("configs", "/configs"),
    post("service-create", "/services/create", SERVICE),
    get("service", "/services/api"),
    Step {
        until: "\"State\":\"running\"",
        ..get("tasks", "/tasks")
    },
    get("services", "/services?status=true"),
    get("services-defaults", "/services/api?insertDefaults=true"),
    get("no-service", "/services/nothing"),
    get("no-task", "/tasks/nothing"),
    get("no-node", "/nodes/nothing"),
    post("service-conflict", "/services/create", SERVICE),
    step("service-remove", "DELETE", "/services/api"),
    step("container-remove", "DELETE", "/containers/web?force=1"),
    get("events", "/events?since=0&until={now}"),
    step("secret-remove", "DELETE", "/secrets/{secret}"),
    step("config-remove", "DELETE", "/configs/{config}"),
    step("overlay-remove", "DELETE", "/networks/{network}"),
    step("swarm-leave", "POST", "/swarm/leave"),
    step("swarm-leave-forced", "POST", "/swarm/leave?force=1"),
];

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub request: String,
    pub status: u16,
    /// What is no JSON is left out; of several texts, one after the other, a list.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub body: Value,
}

/// Plays all requests to the engine at `socket`, whose host has `address`.
pub fn play(socket: &Path, address: &str) -> Result<BTreeMap<String, Answer>> {
    let mut known = BTreeMap::from([("address".to_owned(), address.to_owned())]);
    let mut answers = BTreeMap::new();
    for step in STEPS {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        known.insert("now".to_owned(), now.as_secs_f64().to_string());
        let filled = |text: &str| {
            let fill = |text: String, (name, value): (&String, &String)| {
                text.replace(&format!("{{{name}}}"), value)
            };
            known.iter().fold(text.to_owned(), fill)
        };
        let (path, body) = (filled(step.path), filled(step.body));
        let body = if body == "IMAGE" {
            image()?
        } else {
            body.into_bytes()
        };
        let deadline = Instant::now() + LIMIT;
        let response = loop {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(LIMIT))?;
            let headers = [("Content-Type", "application/json")];
            let target = format!("/{VERSION}{path}");
            let response = http::request(stream, step.method, &target, &headers, &body)
                .with_context(|| format!("{} {path}", step.method))?;
            if response.text().contains(step.until) {
                break response;
            }
            if Instant::now() > deadline {
                bail!(
                    "{} {path} never says {}: {}; before: {}",
                    step.method,
                    step.until,
                    response.text(),
                    told(&answers)
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        let texts = serde_json::Deserializer::from_slice(&response.body).into_iter::<Value>();
        let mut texts = texts.collect::<Result<Vec<_>, _>>().unwrap_or_default();
        let body = match texts.len() {
            0 => Value::Null,
            1 if step.name != "events" => texts.remove(0),
            _ => Value::Array(texts),
        };
        if !step.keep.is_empty() {
            let id = body
                .get("Id")
                .or_else(|| body.get("ID"))
                .and_then(Value::as_str);
            let id = id.with_context(|| {
                format!(
                    "{} {path}: no id in {body}; before: {}",
                    step.method,
                    told(&answers)
                )
            })?;
            known.insert(step.keep.to_owned(), id.to_owned());
        }
        let answer = Answer {
            request: format!("{} {}", step.method, step.path),
            status: response.status,
            body,
        };
        answers.insert(step.name.to_owned(), answer);
    }
    Ok(answers)
}

/// What has been refused so far, for messages.
fn told(answers: &BTreeMap<String, Answer>) -> String {
    let refused = answers.values().filter(|answer| answer.status >= 400);
    let lines =
        refused.map(|answer| format!("{} {} {}", answer.request, answer.status, answer.body));
    lines.collect::<Vec<_>>().join("\n")
}

/// A file system with nothing but the host's static busybox.
fn image() -> Result<Vec<u8>> {
    let found = Command::new("sh")
        .args(["-c", "command -v busybox"])
        .output()?;
    let busybox =
        std::fs::read(String::from_utf8_lossy(&found.stdout).trim()).context("busybox")?;
    let mut tar = tar::Builder::new(Vec::new());
    let header = |size: u64| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(size);
        header
    };
    let mut program = header(busybox.len() as u64);
    tar.append_data(&mut program, "bin/busybox", &busybox[..])?;
    for name in ["sleep", "true"] {
        let mut link = header(0);
        link.set_entry_type(tar::EntryType::Symlink);
        tar.append_link(&mut link, format!("bin/{name}"), "busybox")?;
    }
    Ok(tar.into_inner()?)
}

/// Paths below which keys are data, not fields.
const MAPS: &[&str] = &[
    "Labels",
    "Networks",
    "Containers",
    "Ports",
    "ExposedPorts",
    "Volumes",
    "Options",
    "Config",
    "Attributes",
    "IndexConfigs",
    "Runtimes",
    "EndpointsConfig",
    "GraphDriver.Data",
    "Peers",
    "stats",
    "Details",
];

/// What a value looks like, many of a kind laid over one another.
#[derive(Debug, Default, Clone, PartialEq)]
struct Shape {
    kinds: BTreeSet<&'static str>,
    fields: BTreeMap<String, Shape>,
    items: Option<Box<Shape>>,
}

impl Shape {
    fn take(&mut self, value: &Value, path: &str) {
        match value {
            Value::Null => self.kinds.insert("null"),
            Value::Bool(_) => self.kinds.insert("boolean"),
            Value::Number(_) => self.kinds.insert("number"),
            Value::String(_) => self.kinds.insert("string"),
            Value::Array(items) => {
                for item in items {
                    let path = format!("{path}[]");
                    self.items.get_or_insert_default().take(item, &path);
                }
                self.kinds.insert("array")
            }
            Value::Object(fields) => {
                let map = MAPS
                    .iter()
                    .any(|map| path == *map || path.ends_with(&format!(".{map}")));
                for (key, value) in fields {
                    let key = if map { "*" } else { key.as_str() };
                    let field = self.fields.entry(key.to_owned()).or_default();
                    field.take(value, &join(path, key));
                }
                self.kinds.insert("object")
            }
        };
    }

    fn kinds(&self) -> String {
        let kinds: Vec<&str> = self.kinds.iter().copied().collect();
        kinds.join(" or ")
    }

    fn against(&self, ours: &Self, path: &str, found: &mut Vec<(String, String)>) {
        if self.kinds != ours.kinds {
            found.push((
                path.to_owned(),
                format!("{} / {}", self.kinds(), ours.kinds()),
            ));
        }
        let keys: BTreeSet<&String> = self.fields.keys().chain(ours.fields.keys()).collect();
        // Where one of both has no entry there is nothing to compare.
        let data = |shape: &Self| shape.fields.keys().all(|key| key == "*");
        let nothing = self.fields.is_empty() || ours.fields.is_empty();
        for key in keys {
            let path = join(path, key);
            match (self.fields.get(key), ours.fields.get(key)) {
                (Some(theirs), Some(ours)) => theirs.against(ours, &path, found),
                _ if nothing && data(self) && data(ours) => {}
                (Some(theirs), None) => found.push((path, format!("{} / -", theirs.kinds()))),
                (None, Some(ours)) => found.push((path, format!("- / {}", ours.kinds()))),
                (None, None) => {}
            }
        }
        if let (Some(theirs), Some(ours)) = (&self.items, &ours.items) {
            theirs.against(ours, &format!("{path}[]"), found);
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// Where ours differs: the answer's name, the field, and `Docker's / ours`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deviation {
    pub answer: String,
    pub field: String,
    pub what: String,
}

/// All of them.
pub fn compare(
    theirs: &BTreeMap<String, Answer>,
    ours: &BTreeMap<String, Answer>,
) -> Vec<Deviation> {
    let mut all = Vec::new();
    for (name, docker) in theirs {
        let Some(answer) = ours.get(name) else {
            continue;
        };
        let mut found = Vec::new();
        if docker.status != answer.status {
            found.push((
                "status".to_owned(),
                format!("{} / {}", docker.status, answer.status),
            ));
        }
        let shape = |value: &Value| {
            let mut shape = Shape::default();
            shape.take(value, "");
            shape
        };
        shape(&docker.body).against(&shape(&answer.body), "", &mut found);
        all.extend(found.into_iter().map(|(field, what)| Deviation {
            answer: name.clone(),
            field,
            what,
        }));
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn differ(theirs: Value, ours: Value) -> Vec<String> {
        let answers = |body| {
            let answer = Answer {
                request: String::new(),
                status: 200,
                body,
            };
            BTreeMap::from([("x".to_owned(), answer)])
        };
        let found = compare(&answers(theirs), &answers(ours));
        let lines = found
            .iter()
            .map(|one| format!("{}: {}", one.field, one.what));
        lines.collect()
    }

    #[test]
    fn fields_kinds_and_nulls_are_told_apart() {
        for (theirs, ours, expected) in [
            (json!({"a": 1}), json!({"a": 2}), &[][..]),
            (json!({"a": 1}), json!({"a": "1"}), &["a: number / string"]),
            (json!({"a": null}), json!({}), &["a: null / -"]),
            (json!({"a": null}), json!({"a": []}), &["a: null / array"]),
            (json!({}), json!({"b": {}}), &["b: - / object"]),
            (
                json!([{"a": 1}, {"b": 1}]),
                json!([{"a": 1}]),
                &["[].b: number / -"],
            ),
            (json!({"l": []}), json!({"l": [1]}), &[]),
            (json!({"Labels": {"x": "y"}}), json!({"Labels": {}}), &[]),
            (
                json!({"Labels": {"x": "y"}}),
                json!({"Labels": {"z": 1}}),
                &["Labels.*: string / number"],
            ),
            (
                json!({"a": {"b": 1}}),
                json!({"a": {}}),
                &["a.b: number / -"],
            ),
        ] {
            assert_eq!(
                differ(theirs.clone(), ours.clone()),
                expected,
                "{theirs} {ours}"
            );
        }
    }
}
