//! Settings: the only place that knows flags, variables and the configuration file.
//!
//! Precedence: flag, then environment, then file, then default. Everything is parsed and
//! checked before anything starts.

mod check;
mod file;
mod generic;
mod remote;

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use model::task::GenericResource;
use serde::Deserialize;

pub use self::remote::Remote;
use self::{check::Problem, file::File};
use crate::{api_socket::ApiSocket, host::Declared, role::Role};

/// What was typed.
#[derive(Debug, Parser)]
#[command(
    name = "ovnd",
    version,
    about = "Overnet's agent: containers and overlay networks of this host",
    long_about = "ovnd runs on every host of an Overnet cluster. It serves the Docker Engine API on a \
                  unix socket, runs containers, and keeps this host's part of the overlay networks in \
                  place. Without a command it runs as the daemon.",
    after_help = "Examples:\n  ovnd\n  ovnd --root /srv/overnet --insecure-registry registry:5000\n  \
                  ovnd settings\n  ovnd doctor\n  ovnd dataplane show"
)]
pub struct Typed {
    #[command(flatten)]
    pub flags: Flags,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Clone, Default, Args)]
pub struct Flags {
    /// Configuration file (TOML; the keys are the long flags)
    #[arg(long, global = true, value_name = "FILE", env = "OVND_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where state that survives a reboot is kept [default: /var/lib/overnet]
    #[arg(long, global = true, value_name = "DIR", env = "OVND_ROOT")]
    pub root: Option<PathBuf>,
    /// Where state that ends with the boot is kept [default: /run/overnet]
    #[arg(long, global = true, value_name = "DIR", env = "OVND_RUN")]
    pub run: Option<PathBuf>,
    /// API socket; may be given several times [default: RUN/ovnd.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Vec<PathBuf>,
    /// Address on which the API is served too; may be given several times. Others reach it only with
    /// `--tlsverify`; the port is 2376, without TLS 2375 [default: none]
    #[arg(long, value_name = "tcp://ADDRESS[:PORT]")]
    pub host: Vec<String>,
    /// Speak TLS there, and only with clients that have a certificate
    #[arg(long)]
    pub tlsverify: bool,
    /// Certificate of the authority that clients' certificates are of
    #[arg(long, value_name = "FILE")]
    pub tlscacert: Option<PathBuf>,
    /// This host's certificate
    #[arg(long, value_name = "FILE")]
    pub tlscert: Option<PathBuf>,
    /// The key of this host's certificate
    #[arg(long, value_name = "FILE")]
    pub tlskey: Option<PathBuf>,
    /// What a client may do: its certificate's common or alternative name, or OU=UNIT, and none,
    /// read-only, operator or admin; may be given several times
    #[arg(long, value_name = "NAME=ROLE")]
    pub client: Vec<String>,
    /// What clients may do that no `--client` names, and those without TLS [default: read-only]
    #[arg(long, value_name = "ROLE")]
    pub default_client_role: Option<Role>,
    /// Registry that is spoken to over plain HTTP; may be given several times
    #[arg(long, value_name = "HOST[:PORT]")]
    pub insecure_registry: Vec<String>,
    /// Registry that is asked for names without one, in place of Docker Hub
    #[arg(long, value_name = "HOST[:PORT]")]
    pub default_registry: Option<String>,
    /// OCI runtime program [default: crun, else runc, from PATH]
    #[arg(long, value_name = "PATH")]
    pub runtime: Option<PathBuf>,
    /// Parent of the containers' control groups [default: overnet]
    #[arg(long, value_name = "NAME")]
    pub cgroup_parent: Option<String>,
    /// How often hosts tell the managers that they live, in a cluster that this host makes; others
    /// do as their cluster says [default: 1s]
    #[arg(long, value_name = "DURATION")]
    pub heartbeat: Option<String>,
    /// Resolver configuration that containers' foreign names follow [default: /etc/resolv.conf]
    #[arg(long, value_name = "FILE")]
    pub resolv_conf: Option<PathBuf>,
    /// What containers get that mount /var/run/docker.sock: ours where the host has none (auto),
    /// ours (overnet), or what the host has (host) [default: auto]
    #[arg(long, value_name = "auto|overnet|host")]
    pub docker_socket: Option<SocketChoice>,
    /// Serve the network plugin of a Docker Engine of this host at this socket; Docker looks for it at
    /// /run/docker/plugins/overnet.sock [default: off]
    #[arg(long, value_name = "PATH")]
    pub docker_plugin: Option<PathBuf>,
    /// Serve a picture of the cluster to browsers there; with a token (`ovnctl visualizer` tells
    /// it) unless the address is of this host only, such as 127.0.0.1. The port is 9080 [default: off]
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    pub visualizer: Option<String>,
    /// Label of this engine, KEY=VALUE; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// Resource of this host that services reserve, KIND=NUMBER, or KIND=NAME for each one that
    /// has a name; may be given several times
    #[arg(long, value_name = "KIND=VALUE")]
    pub node_generic_resource: Vec<String>,
    /// Address and port of `/metrics` and `/health` for others [default: on the API's socket only]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics: Option<SocketAddr>,
    /// UDP port of WireGuard for encrypted networks; the next one is needed too while keys are
    /// rotated [default: 51820]
    #[arg(long, value_name = "PORT")]
    pub wireguard_port: Option<u16>,
    /// Log filter, for example `info` or `agent=debug,dataplane=trace` [default: info,openraft=off]
    #[arg(long, value_name = "FILTER", env = "OVND_LOG")]
    pub log: Option<String>,
    /// Log as one JSON object a line
    #[arg(long)]
    pub log_json: bool,
}

/// Whose socket a service gets that mounts Docker's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SocketChoice {
    #[default]
    Auto,
    Overnet,
    Host,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show, compare or apply this host's networks, without a cluster too
    Dataplane {
        #[command(subcommand)]
        action: DataplaneAction,
    },
    /// Look for what is wrong with this host and its cluster; works without the daemon too
    Doctor {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Carry the packets of one WireGuard device; started by the daemon alone
    #[command(hide = true)]
    Wireguard {
        /// Its name
        #[arg(long, value_name = "NAME")]
        device: String,
        /// A folder with nothing in it
        #[arg(long, value_name = "FOLDER")]
        empty: PathBuf,
    },
    /// Write the manual pages into a folder
    #[command(hide = true)]
    Man {
        /// The folder
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
    /// Check the configuration, and that the data is of no later version, and print the settings in
    /// force; changes nothing
    Settings,
}

#[derive(Debug, Subcommand)]
pub enum DataplaneAction {
    /// Print the wish and what the kernel has, as JSON
    Show {
        /// A written wish; default: the running daemon's
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Print what would be changed, and why
    Plan {
        /// A written wish; default: the running daemon's
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Make the kernel match a written wish
    Apply {
        /// The wish, as `show` prints it
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
}

/// What it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub root: PathBuf,
    pub run: PathBuf,
    pub sockets: Vec<PathBuf>,
    pub remote: Remote,
    pub insecure_registries: Vec<String>,
    pub default_registry: Option<String>,
    pub runtime: Option<PathBuf>,
    pub cgroup_parent: String,
    pub heartbeat: Option<Duration>,
    pub resolv_conf: PathBuf,
    pub docker_socket: SocketChoice,
    pub docker_plugin: Option<PathBuf>,
    pub visualizer: Option<SocketAddr>,
    pub labels: Vec<(String, String)>,
    pub generic_resources: Vec<GenericResource>,
    pub metrics: Option<SocketAddr>,
    pub wireguard_port: u16,
    pub log: String,
    pub log_json: bool,
}

/// The file that is read when no other is named, if it exists.
pub const DEFAULT_FILE: &str = "/etc/overnet/ovnd.toml";

/// Of managers that do not answer openraft writes many lines a second; ours is one.
const DEFAULT_LOG: &str = "info,openraft=off";

impl Settings {
    /// Reads the file that applies and lays the flags over it. The error has a line a mistake.
    pub fn load(flags: &Flags) -> anyhow::Result<Self> {
        let read = match &flags.config {
            Some(path) => file::read(path)?,
            None if Path::new(DEFAULT_FILE).exists() => file::read(Path::new(DEFAULT_FILE))?,
            None => file::Read::default(),
        };
        let Settled { settings, problems } = Self::merge(flags.clone(), read.file.clone());
        if problems.is_empty() {
            return Ok(settings);
        }
        let sentences: Vec<String> = problems
            .iter()
            .map(|problem| {
                let place = match read.place(problem.key) {
                    Some(place) if !flags.sets(problem.key) => place,
                    _ => format!("--{}", problem.key),
                };
                format!("{place}: {problem}")
            })
            .collect();
        anyhow::bail!(sentences.join("\n"))
    }

    /// What the choice of `docker_socket` means here.
    pub fn api_socket(&self) -> ApiSocket {
        ApiSocket {
            path: match self.docker_socket {
                SocketChoice::Host => None,
                SocketChoice::Auto | SocketChoice::Overnet => {
                    Some(self.run.join("containers.sock"))
                }
            },
            always: self.docker_socket == SocketChoice::Overnet,
        }
    }

    /// What the owner says of the host.
    pub fn declared(&self) -> Declared {
        Declared {
            labels: self.labels.clone(),
            generic_resources: self.generic_resources.clone(),
        }
    }

    /// As a configuration file that says the same.
    pub fn to_toml(&self) -> String {
        let text = |path: &Path| toml::Value::from(path.display().to_string());
        let mut table = toml::Table::new();
        let mut put = |key: &str, value: toml::Value| {
            table.insert(key.to_owned(), value);
        };
        put("root", text(&self.root));
        put("run", text(&self.run));
        let sockets = self.sockets.iter().map(|path| text(path));
        put("socket", toml::Value::Array(sockets.collect()));
        self.remote.write(&mut put);
        put("insecure-registry", self.insecure_registries.clone().into());
        if let Some(registry) = &self.default_registry {
            put("default-registry", registry.clone().into());
        }
        if let Some(runtime) = &self.runtime {
            put("runtime", text(runtime));
        }
        put("cgroup-parent", self.cgroup_parent.clone().into());
        if let Some(heartbeat) = self.heartbeat {
            put("heartbeat", format!("{}ms", heartbeat.as_millis()).into());
        }
        put("resolv-conf", text(&self.resolv_conf));
        let choice = match self.docker_socket {
            SocketChoice::Auto => "auto",
            SocketChoice::Overnet => "overnet",
            SocketChoice::Host => "host",
        };
        put("docker-socket", choice.into());
        if let Some(plugin) = &self.docker_plugin {
            put("docker-plugin", text(plugin));
        }
        let label = |(key, value): &(String, String)| format!("{key}={value}");
        let labels = self.labels.iter().map(label).map(toml::Value::from);
        put("label", toml::Value::Array(labels.collect()));
        let resources = self.generic_resources.iter().map(generic::text);
        let resources = resources.map(toml::Value::from).collect();
        put("node-generic-resource", toml::Value::Array(resources));
        if let Some(visualizer) = self.visualizer {
            put("visualizer", visualizer.to_string().into());
        }
        if let Some(metrics) = self.metrics {
            put("metrics", metrics.to_string().into());
        }
        put("wireguard-port", i64::from(self.wireguard_port).into());
        put("log", self.log.clone().into());
        put("log-json", self.log_json.into());
        table.to_string()
    }

    fn merge(flags: Flags, file: File) -> Settled {
        let mut problems = Vec::new();
        let run = flags
            .run
            .or(file.run)
            .unwrap_or_else(|| PathBuf::from("/run/overnet"));
        let sockets = first_filled(flags.socket, file.socket);
        let written = remote::Written {
            host: first_filled(flags.host, file.host),
            tlsverify: flags.tlsverify || file.tlsverify.unwrap_or(false),
            tlscacert: flags.tlscacert.or(file.tlscacert),
            tlscert: flags.tlscert.or(file.tlscert),
            tlskey: flags.tlskey.or(file.tlskey),
            client: first_filled(flags.client, file.client),
            default_client_role: flags.default_client_role.or(file.default_client_role),
        };
        let remote = Remote::read(written, &mut problems);
        let heartbeat = flags.heartbeat.or(file.heartbeat).and_then(|text| {
            let duration = parse_duration(&text);
            if duration.is_none() {
                problems.push(Problem::new(
                    "heartbeat",
                    format!("{text:?} is no duration; write \"500ms\", \"1s\" or \"1m\""),
                ));
            }
            duration
        });
        let default_registry = flags.default_registry.or(file.default_registry);
        if let Some(registry) = &default_registry
            && !is_registry(registry)
        {
            problems.push(Problem::new(
                "default-registry",
                format!(
                    "{registry:?} is no registry; write HOST:PORT, or HOST with a dot in it, without https://"
                ),
            ));
        }
        let visualizer = flags.visualizer.or(file.visualizer).and_then(|text| {
            let address = parse_listen(&text);
            if address.is_none() {
                problems.push(Problem::new(
                    "visualizer",
                    format!(
                        "{text:?} is no ADDRESS[:PORT]; write \"127.0.0.1:9080\" or \"0.0.0.0\""
                    ),
                ));
            }
            address
        });
        let mut labels = Vec::new();
        for label in first_filled(flags.label, file.label) {
            match label.split_once('=') {
                Some((key, value)) if !key.is_empty() => {
                    labels.push((key.to_owned(), value.to_owned()));
                }
                _ => problems.push(Problem::new(
                    "label",
                    format!("{label:?} is not KEY=VALUE; write \"disk=ssd\" for example"),
                )),
            }
        }
        let given = first_filled(flags.node_generic_resource, file.node_generic_resource);
        let generic_resources = generic::read(&given).unwrap_or_else(|why| {
            problems.push(Problem::new("node-generic-resource", why));
            Vec::new()
        });
        let settings = Self {
            root: flags
                .root
                .or(file.root)
                .unwrap_or_else(|| PathBuf::from("/var/lib/overnet")),
            sockets: if sockets.is_empty() {
                vec![run.join("ovnd.sock")]
            } else {
                sockets
            },
            run,
            remote,
            insecure_registries: first_filled(flags.insecure_registry, file.insecure_registry),
            default_registry,
            runtime: flags.runtime.or(file.runtime),
            cgroup_parent: flags
                .cgroup_parent
                .or(file.cgroup_parent)
                .unwrap_or_else(|| "overnet".to_owned()),
            heartbeat,
            resolv_conf: flags
                .resolv_conf
                .or(file.resolv_conf)
                .unwrap_or_else(|| PathBuf::from("/etc/resolv.conf")),
            docker_socket: flags
                .docker_socket
                .or(file.docker_socket)
                .unwrap_or_default(),
            docker_plugin: flags.docker_plugin.or(file.docker_plugin),
            visualizer,
            labels,
            generic_resources,
            metrics: flags.metrics.or(file.metrics),
            wireguard_port: flags
                .wireguard_port
                .or(file.wireguard_port)
                .unwrap_or(WIREGUARD_PORT),
            log: flags
                .log
                .or(file.log)
                .unwrap_or_else(|| DEFAULT_LOG.to_owned()),
            log_json: flags.log_json || file.log_json.unwrap_or(false),
        };
        problems.extend(check::problems(&settings));
        Settled { settings, problems }
    }
}

/// Settings, and what speaks against starting with them.
struct Settled {
    settings: Settings,
    problems: Vec<Problem>,
}

impl Flags {
    /// Whether the flag of that name, or its variable, was given.
    fn sets(&self, key: &str) -> bool {
        match key {
            "root" => self.root.is_some(),
            "run" => self.run.is_some(),
            "socket" => !self.socket.is_empty(),
            "host" => !self.host.is_empty(),
            "tlsverify" => self.tlsverify,
            "tlscacert" => self.tlscacert.is_some(),
            "tlscert" => self.tlscert.is_some(),
            "tlskey" => self.tlskey.is_some(),
            "client" => !self.client.is_empty(),
            "default-client-role" => self.default_client_role.is_some(),
            "insecure-registry" => !self.insecure_registry.is_empty(),
            "runtime" => self.runtime.is_some(),
            "cgroup-parent" => self.cgroup_parent.is_some(),
            "heartbeat" => self.heartbeat.is_some(),
            "resolv-conf" => self.resolv_conf.is_some(),
            "docker-socket" => self.docker_socket.is_some(),
            "docker-plugin" => self.docker_plugin.is_some(),
            "default-registry" => self.default_registry.is_some(),
            "visualizer" => self.visualizer.is_some(),
            "label" => !self.label.is_empty(),
            "node-generic-resource" => !self.node_generic_resource.is_empty(),
            "metrics" => self.metrics.is_some(),
            "wireguard-port" => self.wireguard_port.is_some(),
            "log" => self.log.is_some(),
            "log-json" => self.log_json,
            _ => false,
        }
    }
}

/// A registry is what an image's name could begin with.
fn is_registry(text: &str) -> bool {
    let name = format!("{text}/name").parse::<runtime::images::Reference>();
    name.is_ok_and(|name| name.registry() == text)
}

fn first_filled<T>(first: Vec<T>, second: Vec<T>) -> Vec<T> {
    if first.is_empty() { second } else { first }
}

/// WireGuard's own.
const WIREGUARD_PORT: u16 = 51820;

/// The visualizer's port where none is named.
pub const VISUALIZER_PORT: u16 = 9080;

/// Reads `ADDRESS` or `ADDRESS:PORT`; an IPv6 address with a port stands in brackets.
pub fn parse_listen(text: &str) -> Option<SocketAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(address) => Some(SocketAddr::new(address, VISUALIZER_PORT)),
        Err(_) => text.parse().ok(),
    }
}

/// Reads `500ms`, `2s`, `1m` or `1h`.
fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        "h" => Duration::from_secs(number.saturating_mul(3600)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_defaults_fill_the_rest() {
        let file: File = toml::from_str("root = '/srv/a'\nrun = '/run/a'\nlog = 'debug'").unwrap();
        let flags = Flags {
            root: Some("/srv/b".into()),
            default_registry: Some("registry:5000".into()),
            ..Flags::default()
        };
        let Settled { settings, problems } = Settings::merge(flags, file);
        assert_eq!(problems.len(), 0);
        assert_eq!(settings.root, Path::new("/srv/b"));
        assert_eq!(settings.sockets, [PathBuf::from("/run/a/ovnd.sock")]);
        assert_eq!(settings.log, "debug");
        assert_eq!(settings.default_registry.as_deref(), Some("registry:5000"));
        assert_eq!(settings.cgroup_parent, "overnet");
    }

    #[test]
    fn what_is_printed_says_the_same() {
        let file: File = toml::from_str(
            "host = ['tcp://0.0.0.0', 'tcp://[::1]:99']\ntlsverify = true\ntlscacert = '/ca.pem'\ntlscert = '/cert.pem'\ntlskey = '/key.pem'\nclient = ['ci=operator', 'OU=staff=none']\ndefault-client-role = 'none'\nheartbeat = '2s'\ndefault-registry = 'registry:5000'\nvisualizer = '0.0.0.0'\nlabel = ['disk=ssd']\nnode-generic-resource = ['gpu=a', 'gpu=b', 'slot=3']\nruntime = '/usr/bin/runc'\ndocker-socket = 'host'",
        )
        .unwrap();
        let given = Settings::merge(Flags::default(), file).settings;
        let again: File = toml::from_str(&given.to_toml()).unwrap();
        assert_eq!(Settings::merge(Flags::default(), again).settings, given);
    }

    #[test]
    fn mistakes_are_placed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ovnd.toml");
        std::fs::write(
            &path,
            "log = 'info'\nheartbeat = 'fast'\nlabel = ['nokey']\n",
        )
        .unwrap();
        let flags = Flags {
            config: Some(path.clone()),
            cgroup_parent: Some("../x".into()),
            default_registry: Some("http://registry:5000".into()),
            visualizer: Some("manager:9080".into()),
            ..Flags::default()
        };
        let error = Settings::load(&flags).unwrap_err().to_string();
        let lines: Vec<&str> = error.lines().collect();
        assert_eq!(lines.len(), 5, "{error}");
        for beginning in [
            &format!("{}, line 2: heartbeat: \"fast\"", path.display()),
            &format!("{}, line 3: label: ", path.display()),
            "--cgroup-parent: ",
            "--default-registry: ",
            "--visualizer: ",
        ] {
            let placed = lines.iter().any(|line| line.starts_with(beginning));
            assert!(placed, "no {beginning} in {error}");
        }
    }

    #[test]
    fn where_the_visualizer_listens() {
        for (text, expected) in [
            ("127.0.0.1", Some("127.0.0.1:9080")),
            ("0.0.0.0:80", Some("0.0.0.0:80")),
            ("::", Some("[::]:9080")),
            ("[::1]:1", Some("[::1]:1")),
            ("[::1]", Some("[::1]:9080")),
            ("", None),
            (":9080", None),
            ("host:1", None),
            ("127.0.0.1:99999", None),
        ] {
            let expected = expected.map(|address| address.parse().unwrap());
            assert_eq!(parse_listen(text), expected, "{text:?}");
        }
    }

    #[test]
    fn durations() {
        for (text, millis) in [("500ms", 500), ("2s", 2000), ("1m", 60_000)] {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(millis));
        }
        assert!(parse_duration("5").is_none());
    }
}
