//! Networks, volumes, configs and secrets that a stack's services use: defined in its file where
//! they are the stack's own, expected to be there where they are not.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value as Json;

use super::{
    Cluster, Migration, list,
    shape::{Map, flag, items, pairs, plain, quoted, word},
    short, stack_of, text,
};
use crate::compose::node::Node;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Network,
    Volume,
    Config,
    Secret,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Network, Self::Volume, Self::Config, Self::Secret];

    pub fn section(self) -> &'static str {
        match self {
            Self::Network => "networks",
            Self::Volume => "volumes",
            Self::Config => "configs",
            Self::Secret => "secrets",
        }
    }
}

/// What a stack's services use.
pub struct Objects<'a> {
    cluster: &'a Cluster,
    stack: &'a str,
    /// Full names by their keys in the file.
    used: BTreeMap<(Kind, String), String>,
    /// How services mount a volume that is the stack's own.
    volumes: BTreeMap<String, Json>,
}

impl<'a> Objects<'a> {
    pub fn new(cluster: &'a Cluster, stack: &'a str) -> Self {
        Self {
            cluster,
            stack,
            used: BTreeMap::new(),
            volumes: BTreeMap::new(),
        }
    }

    pub fn stack(&self) -> &'a str {
        self.stack
    }

    /// The key of a thing that a service uses, by its full name.
    pub fn key(&mut self, kind: Kind, name: &str) -> String {
        let mut key = short(self.stack, name).to_owned();
        // Two full names may have one short one: `web_data` and `data` in the stack web.
        if self
            .used
            .get(&(kind, key.clone()))
            .is_some_and(|other| other != name)
        {
            name.clone_into(&mut key);
        }
        self.used.insert((kind, key.clone()), name.to_owned());
        key
    }

    /// A network by id or name.
    pub fn network(&mut self, target: &str) -> Option<String> {
        let networks = self.cluster.networks.iter();
        let mut named = networks.filter(|n| text(n, "/Id") == target || text(n, "/Name") == target);
        let name = named.next().map(|n| text(n, "/Name").to_owned())?;
        Some(self.key(Kind::Network, &name))
    }

    /// A volume as a service mounts it.
    pub fn volume(&mut self, name: &str, options: &Json) -> String {
        let key = self.key(Kind::Volume, name);
        if stack_of(&options["Labels"]) == Some(self.stack) {
            self.volumes.insert(key.clone(), options.clone());
        }
        key
    }

    /// The section of the file; notes what has to be there beforehand.
    pub fn section(
        &self,
        kind: Kind,
        migration: &mut Migration,
        remarks: &mut Vec<String>,
    ) -> Option<Node> {
        let mut section = Map::default();
        for ((_, key), name) in self.used.iter().filter(|((of, _), _)| *of == kind) {
            let body = match kind {
                Kind::Network => self.network_body(key, name, migration, remarks),
                Kind::Volume => self.volume_body(key, name),
                Kind::Config => self.config_body(key, name, migration, remarks),
                Kind::Secret => {
                    migration.before.push(format!(
                        "ovnctl secret create {} FILE   # its content is in no API: bring it along",
                        for_a_shell(name)
                    ));
                    external(key, name)
                }
            };
            section.keep(key, body.done());
        }
        (!section.is_empty()).then(|| section.done())
    }

    /// Whether the stack makes it, under the name that a deploy gives it.
    fn is_own(&self, labels: &Json, key: &str, name: &str) -> bool {
        stack_of(labels) == Some(self.stack) && name == format!("{}_{key}", self.stack)
    }

    fn network_body(
        &self,
        key: &str,
        name: &str,
        migration: &mut Migration,
        remarks: &mut Vec<String>,
    ) -> Map {
        let networks = &self.cluster.networks;
        let found = networks.iter().find(|n| text(n, "/Name") == name);
        let Some(network) = found.filter(|n| text(n, "/Scope") == "swarm") else {
            // `host`, and such as every host has.
            return external(key, name);
        };
        let options = options(network);
        if !self.is_own(&network["Labels"], key, name) {
            let mut words = vec!["ovnctl network create --driver=overlay".to_owned()];
            for (word, field) in [("--attachable", "Attachable"), ("--internal", "Internal")] {
                words.extend((network[field] == true).then(|| word.to_owned()));
            }
            words.extend(given_subnets(network).map(|subnet| format!("--subnet={subnet}")));
            words.extend(options.iter().map(|(option, value)| match value.as_str() {
                "" => format!("--opt {}", for_a_shell(option)),
                value => format!("--opt {}", for_a_shell(&format!("{option}={value}"))),
            }));
            words.push(for_a_shell(name));
            migration.before.push(words.join(" "));
            return external(key, name);
        }
        let mut body = Map::default();
        let driver = text(network, "/Driver");
        body.put("driver", (driver != "overlay").then(|| quoted(driver)));
        if driver != "overlay" {
            remarks.push(format!("network {name}: the driver {driver} is not there"));
        }
        let mut map = Map::default();
        for (option, value) in &options {
            map.keep(option, quoted(value));
        }
        body.put("driver_opts", Some(map.done()));
        body.put("attachable", flag(&network["Attachable"]));
        body.put("internal", flag(&network["Internal"]));
        body.put("enable_ipv6", flag(&network["EnableIPv6"]));
        let subnets = given_subnets(network).map(|subnet| {
            let mut config = Map::default();
            config.put("subnet", Some(quoted(subnet)));
            config.done()
        });
        let mut ipam = Map::default();
        ipam.put("config", Some(items(subnets)));
        body.put("ipam", Some(ipam.done()));
        body.put("labels", own_labels(&network["Labels"]));
        body
    }

    fn volume_body(&self, key: &str, name: &str) -> Map {
        let Some(options) = self.volumes.get(key) else {
            return external(key, name);
        };
        let mut body = Map::default();
        if name != format!("{}_{key}", self.stack) {
            body.put("name", Some(quoted(name)));
        }
        body.put("driver", word(&options["DriverConfig"]["Name"]));
        body.put("driver_opts", pairs(&options["DriverConfig"]["Options"]));
        body.put("labels", own_labels(&options["Labels"]));
        body
    }

    fn config_body(
        &self,
        key: &str,
        name: &str,
        migration: &mut Migration,
        remarks: &mut Vec<String>,
    ) -> Map {
        let mut configs = self.cluster.configs.iter();
        let spec = configs.find(|c| text(c, "/Spec/Name") == name);
        let spec = spec.map_or(&Json::Null, |config| &config["Spec"]);
        let Ok(content) = STANDARD.decode(text(spec, "/Data")) else {
            remarks.push(format!("config {name}: its content cannot be read"));
            return external(key, name);
        };
        migration.configs.insert(name.to_owned(), content);
        if stack_of(&spec["Labels"]) != Some(self.stack) {
            let (word, file) = (for_a_shell(name), for_a_shell(&format!("configs/{name}")));
            let command = format!("ovnctl config create {word} {file}");
            migration.before.push(command);
            return external(key, name);
        }
        let mut body = Map::default();
        if name != format!("{}_{key}", self.stack) {
            body.put("name", Some(quoted(name)));
        }
        body.put("file", Some(quoted(&format!("./configs/{name}"))));
        body.put("template_driver", word(&spec["Templating"]["Name"]));
        body.put("labels", own_labels(&spec["Labels"]));
        body
    }
}

/// As one word of a command.
fn for_a_shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/=:,@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn external(key: &str, name: &str) -> Map {
    let mut body = Map::default();
    body.put("external", Some(plain(true)));
    body.put("name", (key != name).then(|| quoted(name)));
    body
}

/// Those of the user's.
pub fn own_labels(labels: &Json) -> Option<Node> {
    let labels = labels.as_object()?.iter();
    let mut map = Map::default();
    for (key, value) in labels.filter(|(key, _)| !key.starts_with("com.docker.stack.")) {
        map.keep(key, quoted(value.as_str().unwrap_or_default()));
    }
    Some(map.done())
}

/// Options of the driver but for those that Swarm has added.
fn options(network: &Json) -> BTreeMap<String, String> {
    let options = network["Options"].as_object().into_iter().flatten();
    let own = options.filter(|(key, _)| *key != "com.docker.network.driver.overlay.vxlanid_list");
    own.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect()
}

/// Subnets, but not those that look like Swarm's choice: it takes /24s of 10.0.0.0/8, and another
/// cluster chooses its own.
fn given_subnets(network: &Json) -> impl Iterator<Item = &str> {
    let configs = list(network, "/IPAM/Config").iter();
    configs
        .map(|config| text(config, "/Subnet"))
        .filter(|subnet| !subnet.is_empty())
        .filter(|subnet| !(subnet.starts_with("10.") && subnet.ends_with(".0/24")))
}
