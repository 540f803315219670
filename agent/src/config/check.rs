//! What settings cannot mean, each alone and together.

use std::{collections::BTreeSet, fmt, path::Path, time::Duration};

use tracing_subscriber::EnvFilter;

use super::Settings;

/// A shorter period would be noise, a longer one would find no lost host.
const HEARTBEAT: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(60);

/// Why a setting is refused, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub key: &'static str,
    what: String,
}

impl Problem {
    pub fn new(key: &'static str, what: impl Into<String>) -> Self {
        Self {
            key,
            what: what.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.what)
    }
}

/// All of them; empty when the daemon may start.
pub(super) fn problems(settings: &Settings) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut say = |key, what: String| found.push(Problem::new(key, what));
    let sockets = settings
        .sockets
        .iter()
        .map(|path| ("socket", path.as_path()));
    let paths = [
        ("root", settings.root.as_path()),
        ("run", settings.run.as_path()),
        ("resolv-conf", settings.resolv_conf.as_path()),
    ];
    let plugin = settings.docker_plugin.as_deref();
    let plugin = plugin.map(|path| ("docker-plugin", path));
    for (key, path) in paths.into_iter().chain(sockets).chain(plugin) {
        if !path.is_absolute() {
            say(key, format!("{} must be an absolute path", path.display()));
        }
    }
    if !(1..u16::MAX).contains(&settings.wireguard_port) {
        say(
            "wireguard-port",
            format!(
                "{} is not possible, since the next port is needed too; write 51820 for example",
                settings.wireguard_port
            ),
        );
    }
    if settings.root.starts_with(&settings.run) {
        say(
            "root",
            format!(
                "{} lies in `run` ({}), which ends with the boot; keep them apart",
                settings.root.display(),
                settings.run.display()
            ),
        );
    }
    let mut seen = BTreeSet::<&Path>::new();
    for path in &settings.sockets {
        if !seen.insert(path) {
            say(
                "socket",
                format!("{} is given twice; once is enough", path.display()),
            );
        }
    }
    let parent = &settings.cgroup_parent;
    if parent.is_empty() || parent.contains("..") || parent.starts_with('/') {
        say(
            "cgroup-parent",
            format!("{parent:?} must be a relative path without `..`, such as \"overnet\""),
        );
    }
    if let Some(heartbeat) = settings.heartbeat
        && !HEARTBEAT.contains(&heartbeat)
    {
        say(
            "heartbeat",
            format!("{heartbeat:?} is not between 10ms and 1m; \"1s\" is usual"),
        );
    }
    for registry in &settings.insecure_registries {
        if registry.contains('/') || registry.contains(char::is_whitespace) || registry.is_empty() {
            say(
                "insecure-registry",
                format!(
                    "{registry:?} is not HOST[:PORT]; write \"registry:5000\" for example, without http://"
                ),
            );
        }
    }
    for (place, (key, value)) in settings.labels.iter().enumerate() {
        let earlier = settings.labels[..place].iter().find(|(k, _)| k == key);
        if let Some((_, other)) = earlier
            && other != value
        {
            say(
                "label",
                format!("{key:?} is given both as {other:?} and as {value:?}; keep one"),
            );
        }
    }
    if let Err(error) = EnvFilter::try_new(&settings.log) {
        say(
            "log",
            format!(
                "{:?} is no log filter ({error}); write \"info\" or \"info,dataplane=debug\"",
                settings.log
            ),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::{File, Flags, Settings};

    fn refused(text: &str) -> Vec<String> {
        let file: File = toml::from_str(text).unwrap();
        let settled = Settings::merge(Flags::default(), file);
        settled.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn contradictions_are_refused() {
        for (text, key, why) in [
            ("root = '/run/overnet/state'", "root", "keep them apart"),
            ("root = 'data'", "root", "absolute"),
            ("socket = ['/a', '/b', '/a']", "socket", "twice"),
            ("heartbeat = '2m'", "heartbeat", "between"),
            ("heartbeat = '0s'", "heartbeat", "between"),
            (
                "label = ['disk=ssd', 'disk=hdd']",
                "label",
                "\"ssd\" and as \"hdd\"",
            ),
            ("label = ['=x']", "label", "KEY=VALUE"),
            (
                "node-generic-resource = ['gpu']",
                "node-generic-resource",
                "KIND=NUMBER",
            ),
            (
                "node-generic-resource = ['gpu=2', 'gpu=a']",
                "node-generic-resource",
                "either",
            ),
            ("cgroup-parent = '../x'", "cgroup-parent", "relative"),
            ("log = 'info,=x=y'", "log", "filter"),
            (
                "insecure-registry = ['http://registry:5000']",
                "insecure-registry",
                "without http",
            ),
        ] {
            let found = refused(text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(
                found[0].starts_with(&format!("{key}: ")),
                "{text}: {found:?}"
            );
            assert!(found[0].contains(why), "{text}: {found:?}");
        }
    }

    #[test]
    fn what_is_usual_is_taken() {
        for text in [
            "",
            "label = ['disk=ssd', 'disk=ssd', 'rack=']",
            "root = '/run/overnet-state'",
            "insecure-registry = ['registry:5000', '192.0.2.5']",
            "log = 'debug'",
        ] {
            assert_eq!(refused(text), [] as [&str; 0], "{text}");
        }
    }
}
