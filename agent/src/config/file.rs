//! The configuration file: its keys, where each stands, and what is wrong with it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::{CommandFactory, error::ContextKind, error::ContextValue};
use serde::Deserialize;
use toml::de::DeTable;

use super::{SocketChoice, Typed};
use crate::role::Role;

/// The file's content; unknown keys are refused, because a typing error must not pass silently.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct File {
    pub root: Option<PathBuf>,
    pub run: Option<PathBuf>,
    pub socket: Vec<PathBuf>,
    pub host: Vec<String>,
    pub tlsverify: Option<bool>,
    pub tlscacert: Option<PathBuf>,
    pub tlscert: Option<PathBuf>,
    pub tlskey: Option<PathBuf>,
    pub client: Vec<String>,
    pub default_client_role: Option<Role>,
    pub insecure_registry: Vec<String>,
    pub default_registry: Option<String>,
    pub runtime: Option<PathBuf>,
    pub cgroup_parent: Option<String>,
    pub heartbeat: Option<String>,
    pub resolv_conf: Option<PathBuf>,
    pub docker_socket: Option<SocketChoice>,
    pub docker_plugin: Option<PathBuf>,
    pub visualizer: Option<String>,
    pub label: Vec<String>,
    pub node_generic_resource: Vec<String>,
    pub metrics: Option<SocketAddr>,
    pub wireguard_port: Option<u16>,
    pub log: Option<String>,
    pub log_json: Option<bool>,
}

/// Every key, with a line as it may be written.
const KEYS: [(&str, &str); 25] = [
    ("root", "root = \"/var/lib/overnet\""),
    ("run", "run = \"/run/overnet\""),
    ("socket", "socket = [\"/run/overnet/ovnd.sock\"]"),
    ("host", "host = [\"tcp://0.0.0.0:2376\"]"),
    ("tlsverify", "tlsverify = true"),
    ("tlscacert", "tlscacert = \"/etc/overnet/tls/ca.pem\""),
    ("tlscert", "tlscert = \"/etc/overnet/tls/cert.pem\""),
    ("tlskey", "tlskey = \"/etc/overnet/tls/key.pem\""),
    ("client", "client = [\"ci=operator\"]"),
    (
        "default-client-role",
        "default-client-role = \"none\", \"read-only\", \"operator\" or \"admin\"",
    ),
    (
        "insecure-registry",
        "insecure-registry = [\"registry:5000\"]",
    ),
    ("default-registry", "default-registry = \"registry:5000\""),
    ("runtime", "runtime = \"/usr/bin/crun\""),
    ("cgroup-parent", "cgroup-parent = \"overnet\""),
    ("heartbeat", "heartbeat = \"1s\""),
    ("resolv-conf", "resolv-conf = \"/etc/resolv.conf\""),
    (
        "docker-socket",
        "docker-socket = \"auto\", \"overnet\" or \"host\"",
    ),
    (
        "docker-plugin",
        "docker-plugin = \"/run/docker/plugins/overnet.sock\"",
    ),
    ("wireguard-port", "wireguard-port = 51820"),
    ("visualizer", "visualizer = \"127.0.0.1:9080\""),
    ("label", "label = [\"disk=ssd\"]"),
    (
        "node-generic-resource",
        "node-generic-resource = [\"gpu=2\"]",
    ),
    ("metrics", "metrics = \"127.0.0.1:9323\""),
    ("log", "log = \"info\""),
    ("log-json", "log-json = true"),
];

/// A file that was understood.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub file: File,
    path: PathBuf,
    /// The line of each key.
    lines: BTreeMap<String, usize>,
}

impl Read {
    /// Where a setting stands, if it is in the file.
    pub fn place(&self, key: &str) -> Option<String> {
        let line = self.lines.get(key)?;
        Some(format!("{}, line {line}", self.path.display()))
    }
}

pub(super) fn read(path: &Path) -> anyhow::Result<Read> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("configuration file {} cannot be read", path.display()))?;
    let (file, lines) = parse(&text).map_err(|mistakes| {
        let sentences: Vec<String> = mistakes
            .into_iter()
            .map(|(line, what)| format!("{}, line {line}: {what}", path.display()))
            .collect();
        anyhow::anyhow!(sentences.join("\n"))
    })?;
    Ok(Read {
        file,
        path: path.to_owned(),
        lines,
    })
}

type Lines = BTreeMap<String, usize>;

/// The error has each mistake with its line.
fn parse(text: &str) -> Result<(File, Lines), Vec<(usize, String)>> {
    let line = |offset: usize| text[..offset.min(text.len())].matches('\n').count() + 1;
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        vec![(line(at), error.message().to_owned())]
    })?;
    let (mut lines, mut unknown, mut spans) = (Lines::new(), Vec::new(), Vec::new());
    for (key, value) in table.get_ref() {
        let (name, at) = (key.get_ref().to_string(), line(key.span().start));
        if KEYS.iter().any(|(known, _)| *known == name) {
            spans.push((value.span(), name.clone()));
            lines.insert(name, at);
        } else {
            unknown.push((at, stranger(&name)));
        }
    }
    if !unknown.is_empty() {
        unknown.sort_unstable();
        return Err(unknown);
    }
    match toml::from_str(text) {
        Ok(file) => Ok((file, lines)),
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            let key = spans
                .iter()
                .find(|(span, _)| span.contains(&at))
                .map(|(_, key)| key.as_str());
            let form = KEYS.iter().find(|(known, _)| Some(*known) == key);
            let sentence = match form {
                Some((key, form)) => format!("{key}: {}; write {form}", error.message()),
                None => error.message().to_owned(),
            };
            Err(vec![(line(at), sentence)])
        }
    }
}

/// A key is a flag's long name, so the flags' own finder of slips knows what was meant.
fn stranger(key: &str) -> String {
    let slip = Typed::command()
        .try_get_matches_from(["ovnd".to_owned(), format!("--{}", key.replace('_', "-"))])
        .err()
        .and_then(|error| match error.get(ContextKind::SuggestedArg) {
            Some(ContextValue::String(flag)) => Some(flag.trim_start_matches('-').to_owned()),
            _ => None,
        })
        .filter(|flag| KEYS.iter().any(|(known, _)| known == flag))
        .or_else(|| {
            let dashes = key.replace('_', "-");
            KEYS.iter()
                .find(|(known, _)| *known == dashes)
                .map(|(known, _)| (*known).to_owned())
        });
    if let Some(meant) = slip {
        return format!("there is no setting {key:?}; did you mean {meant:?}?");
    }
    let known: Vec<&str> = KEYS.iter().map(|(known, _)| *known).collect();
    format!(
        "there is no setting {key:?}; there are {}",
        known.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, Settings};

    /// The file that packages install.
    const SHIPPED: &str = include_str!("../../../packaging/ovnd.toml");

    fn mistakes(text: &str) -> Vec<(usize, String)> {
        parse(text).unwrap_err()
    }

    #[test]
    fn unknown_keys_are_named_with_what_was_meant() {
        let found = mistakes("log = 'info'\nheart-beat = '1s'\n\nlog_json = true\nbanana = 1\n");
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].0, 2);
        assert!(
            found[0].1.ends_with("did you mean \"heartbeat\"?"),
            "{found:?}"
        );
        assert_eq!(found[1].0, 4);
        assert!(
            found[1].1.ends_with("did you mean \"log-json\"?"),
            "{found:?}"
        );
        assert_eq!(found[2].0, 5);
        assert!(found[2].1.contains("there are root, run"), "{found:?}");
    }

    #[test]
    fn wrong_types_are_named_with_the_right_form() {
        let found = mistakes("log = 'info'\nlog-json = 'yes'\n");
        assert_eq!(found[0].0, 2);
        assert!(found[0].1.starts_with("log-json: "), "{found:?}");
        assert!(found[0].1.ends_with("write log-json = true"), "{found:?}");
        let found = mistakes("socket = '/run/a.sock'\n");
        assert!(found[0].1.contains("write socket = ["), "{found:?}");
        let found = mistakes("docker-socket = 'mine'\n");
        assert!(found[0].1.starts_with("docker-socket: "), "{found:?}");
    }

    #[test]
    fn what_is_no_toml_has_its_line() {
        assert_eq!(mistakes("log = 'info'\nroot = /srv\n")[0].0, 2);
        assert_eq!(mistakes("log = 'a'\nlog = 'b'\n")[0].0, 2);
    }

    #[test]
    fn the_shipped_file_sets_nothing_and_names_every_setting_with_its_default() {
        assert_eq!(parse(SHIPPED).unwrap().0, File::default());
        let opened: String = SHIPPED
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let (mut file, lines) = parse(&opened).unwrap();
        assert_eq!(lines.into_keys().collect::<Vec<_>>(), {
            let mut known: Vec<&str> = KEYS.iter().map(|(key, _)| *key).collect();
            known.sort_unstable();
            known
        });
        // These have no default value but an example.
        file.insecure_registry.clear();
        file.host.clear();
        file.client.clear();
        (file.tlscacert, file.tlscert, file.tlskey) = (None, None, None);
        file.label.clear();
        file.node_generic_resource.clear();
        (file.runtime, file.heartbeat, file.metrics) = (None, None, None);
        (file.default_registry, file.visualizer, file.docker_plugin) = (None, None, None);
        assert_eq!(
            Settings::merge(Flags::default(), file).settings,
            Settings::merge(Flags::default(), File::default()).settings
        );
    }
}
