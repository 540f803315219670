//! From the merged tree to what is asked of the cluster, in the Engine API's own spelling.

mod container;
mod deploy;
mod environment;
mod grants;
mod mounts;
mod networks;
mod order;
mod ports;
mod service;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value as Json, json};

pub use ports::shown as port_shown;

use super::load::{Loaded, Reader};
use super::node::{Node, Place};
use super::problem::{Problem, Problems, Sources, Warning};
use super::suggest::nearest;
use super::value;

/// The label that says to which stack something belongs.
pub const NAMESPACE: &str = "com.docker.stack.namespace";
/// The label with the image as the file names it.
pub const IMAGE: &str = "com.docker.stack.image";
/// The service label that says what is waited for: `NAME:started|healthy|completed,…`.
pub const DEPENDS_ON: &str = "overnet.depends-on";

/// Secrets or configs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `/secrets`.
    Secret,
    /// `/configs`.
    Config,
}

impl Kind {
    /// `secret` or `config`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Config => "config",
        }
    }
}

/// A network to create.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Its name in the cluster.
    pub name: String,
    /// The body of `POST /networks/create`.
    pub body: Json,
}

/// A secret or config with its content.
#[derive(Clone, PartialEq)]
pub struct Object {
    /// Which.
    pub kind: Kind,
    /// Its name in the cluster, of the first version.
    pub name: String,
    /// The content; `None` where a driver provides it.
    pub content: Option<Vec<u8>>,
    /// The body of create without Name and Data.
    pub spec: Json,
}

impl std::fmt::Debug for Object {
    // The content is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind.word(), self.name)
    }
}

/// A service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its name in the cluster.
    pub name: String,
    /// Its name in the file.
    pub short: String,
    /// The image as the file names it.
    pub image: String,
    /// The body of `POST /services/create`; grants bear the names of first versions, without ids.
    pub spec: Json,
    /// Full names of services and what is waited for.
    pub depends_on: Vec<(String, &'static str)>,
}

/// Everything a stack consists of.
#[derive(Clone, Debug, PartialEq)]
pub struct Stack {
    /// Its name.
    pub name: String,
    /// Networks to create.
    pub networks: Vec<Network>,
    /// Networks that must exist, with the place that says so.
    pub external_networks: Vec<(String, Place)>,
    /// Secrets and configs to create.
    pub objects: Vec<Object>,
    /// Secrets and configs that must exist.
    pub external_objects: Vec<(Kind, String, Place)>,
    /// Services, those that others wait for first.
    pub services: Vec<Service>,
}

/// What conversion may look at.
pub struct Surround<'a> {
    /// The stack's name.
    pub stack: &'a str,
    /// The files, for relative paths.
    pub sources: &'a Sources,
    /// How files are read.
    pub reader: Reader<'a>,
    /// Environment and `.env`.
    pub variables: &'a BTreeMap<String, String>,
}

/// Converts; adds to the warnings.
pub fn convert(
    loaded: &Loaded,
    around: &Surround<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<Stack, Problems> {
    stack_name(around.stack)?;
    let mut cx = Cx {
        root: &loaded.root,
        inactive: &loaded.inactive,
        around,
        warnings,
        problems: Vec::new(),
    };
    if let Some(name) = loaded
        .root
        .get("name")
        .filter(|n| n.text() != Some(around.stack))
    {
        let message = format!(
            "name: the stack is deployed as \"{}\", not as \"{}\"",
            around.stack,
            name.text().unwrap_or_default()
        );
        cx.warn(name.at, message);
    }
    let mut services = Vec::new();
    let mut published = BTreeMap::new();
    for entry in loaded
        .root
        .get("services")
        .map(Node::entries)
        .unwrap_or_default()
    {
        if entry.value.get("provider").is_some() {
            continue;
        }
        match service::service(&mut cx, entry) {
            Ok(service) => {
                let ports = format!("services.{}.ports", entry.key);
                let at = entry.value.get("ports").map_or(entry.at, |n| n.at);
                if let Err(problem) = ports::unique(&service.spec, &mut published, at, &ports) {
                    cx.problems.push(problem);
                }
                services.push(service);
            }
            Err(problem) => cx.problems.push(problem),
        }
    }
    if services.is_empty() && cx.problems.is_empty() {
        let message = if loaded.inactive.is_empty() {
            "there is no service in it: give at least one under the key services"
        } else {
            "no service is left: none of their profiles is active (--profile, COMPOSE_PROFILES)"
        };
        cx.problems.push(Problem::bare(message));
    }
    let (networks, external_networks) = networks::wanted(&mut cx);
    let (objects, external_objects) = grants::wanted(&mut cx);
    let services = match order::order(services) {
        Ok(services) => services,
        Err(message) => {
            let at = loaded.root.get("services").map_or(loaded.root.at, |n| n.at);
            cx.problems.push(Problem::new(at, "services", message));
            Vec::new()
        }
    };
    let problems = std::mem::take(&mut cx.problems);
    Problems(problems).check()?;
    Ok(Stack {
        name: around.stack.to_owned(),
        networks,
        external_networks,
        objects,
        external_objects,
        services,
    })
}

/// Letters, digits, `-` and `_`, beginning with a letter or digit.
pub fn stack_name(name: &str) -> Result<(), Problem> {
    let fine = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.len() <= 63
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if fine {
        return Ok(());
    }
    Err(Problem::bare(format!(
        "invalid stack name: {name:?}: use at most 63 letters, digits, - and _, beginning with a letter or a digit"
    )))
}

pub(crate) struct Cx<'a> {
    root: &'a Node,
    inactive: &'a [String],
    around: &'a Surround<'a>,
    warnings: &'a mut Vec<Warning>,
    problems: Vec<Problem>,
}

impl Cx<'_> {
    fn warn(&mut self, at: Place, message: impl Into<String>) {
        self.warnings.push(Warning {
            at: Some(at),
            message: message.into(),
        });
    }

    fn scoped(&self, name: &str) -> String {
        format!("{}_{name}", self.around.stack)
    }

    /// The labels of something of this stack.
    fn labels(&self, node: Option<&Node>, path: &'static str) -> Map<String, Json> {
        let mut labels = environment::pairs(node, path);
        labels.insert(NAMESPACE.to_owned(), json!(self.around.stack));
        labels
    }

    /// The definition of a name in `networks`, `volumes`, `configs` or `secrets`.
    fn definition(
        &self,
        section: &str,
        name: &str,
        at: Place,
        path: &str,
    ) -> Result<Definition<'_>, Problem> {
        let known = self
            .root
            .get(section)
            .map(Node::entries)
            .unwrap_or_default();
        let Some(entry) = known.iter().find(|e| e.key == name) else {
            let what = section.trim_end_matches('s');
            let problem = Problem::new(
                at,
                path,
                format!("the {what} \"{name}\" is not defined under the key {section}"),
            );
            return Err(match nearest(name, known.iter().map(|e| e.key.as_str())) {
                Some(near) => problem.help(format!("did you mean {near}?")),
                None => problem.help(format!("add {name} under the top-level key {section}")),
            });
        };
        Ok(self.defined(entry))
    }

    fn defined<'n>(&self, entry: &'n super::node::Entry) -> Definition<'n> {
        let node = &entry.value;
        let outside = node.get("external");
        let external = outside.is_some_and(|n| n.is_map() || flag(Some(n)));
        let given = outside
            .and_then(|n| n.text_of("name"))
            .or_else(|| node.text_of("name"));
        let name = match given {
            Some(name) => name.to_owned(),
            None if external => entry.key.clone(),
            None => self.scoped(&entry.key),
        };
        Definition {
            name,
            external,
            node,
        }
    }

    /// The content of a file named in a compose file.
    fn read(&self, node: &Node, path: &str) -> Result<Vec<u8>, Problem> {
        let file = self.path(node);
        (self.around.reader)(&file).map_err(|e| {
            Problem::new(
                node.at,
                path,
                format!("cannot read {}: {e}", file.display()),
            )
        })
    }

    /// A path relative to its file, `~` being the home folder.
    fn path(&self, node: &Node) -> PathBuf {
        let text = node.text().unwrap_or_default();
        self.resolve(text, node.at)
    }

    fn resolve(&self, text: &str, at: Place) -> PathBuf {
        let home = || {
            self.around
                .variables
                .get("HOME")
                .map_or("/root", String::as_str)
        };
        let text = match text.strip_prefix('~') {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{}{rest}", home()),
            _ => text.to_owned(),
        };
        super::load::clean(&self.around.sources.base(at).join(text))
    }
}

/// A name of a top-level section, resolved.
struct Definition<'a> {
    name: String,
    external: bool,
    node: &'a Node,
}

/// A JSON object that leaves out what is not there.
#[derive(Default)]
struct Fields(Map<String, Json>);

impl Fields {
    fn put(&mut self, key: &str, value: Option<impl Into<Json>>) -> &mut Self {
        let value = value.map(Into::into);
        let there = value.filter(|value| match value {
            Json::Null => false,
            Json::Array(list) => !list.is_empty(),
            Json::Object(map) => !map.is_empty(),
            Json::String(text) => !text.is_empty(),
            Json::Bool(_) | Json::Number(_) => true,
        });
        if let Some(value) = there {
            self.0.insert(key.to_owned(), value);
        }
        self
    }

    /// Sets a field whatever it holds: `Global: {}` must not be left out.
    fn keep(&mut self, key: &str, value: Json) -> &mut Self {
        self.0.insert(key.to_owned(), value);
        self
    }

    fn done(&mut self) -> Json {
        Json::Object(std::mem::take(&mut self.0))
    }
}

// The forms were checked against the table, so these readers have nothing to report.

fn text(node: &Node, key: &str) -> Option<String> {
    node.text_of(key).map(str::to_owned)
}

fn flag(node: Option<&Node>) -> bool {
    node.and_then(Node::text)
        .is_some_and(|t| value::boolean(t).unwrap_or(false))
}

/// `Some(true)` or nothing: Go leaves false out.
fn on(node: &Node, key: &str) -> Option<bool> {
    flag(node.get(key)).then_some(true)
}

fn int(node: &Node, key: &str) -> Option<i64> {
    value::int(node.text_of(key)?).ok()
}

fn number(node: &Node, key: &str) -> Option<f64> {
    value::number(node.text_of(key)?).ok()
}

fn duration(node: &Node, key: &str) -> Option<i64> {
    value::duration(node.text_of(key)?).ok()
}

fn size(node: &Node, key: &str) -> Option<i64> {
    value::size(node.text_of(key)?).ok()
}

/// One text or a list of them.
fn texts(node: Option<&Node>) -> Vec<String> {
    let nodes = node.map(|n| {
        if n.is_list() {
            n.items()
        } else {
            std::slice::from_ref(n)
        }
    });
    let nodes = nodes.unwrap_or_default().iter();
    nodes.filter_map(Node::text).map(str::to_owned).collect()
}
