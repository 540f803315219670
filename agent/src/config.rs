//! Settings: the only place that knows flags, variables and the configuration file.
//!
//! Precedence: flag, then environment, then file, then default. Everything is parsed and
//! checked before anything starts.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use serde::Deserialize;

use crate::api_socket::ApiSocket;

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
                  ovnd dataplane show"
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
    /// How often this host tells the managers that it lives [default: as the cluster says]
    #[arg(long, value_name = "DURATION")]
    pub heartbeat: Option<String>,
    /// Resolver configuration that containers' foreign names follow [default: /etc/resolv.conf]
    #[arg(long, value_name = "FILE")]
    pub resolv_conf: Option<PathBuf>,
    /// What containers get that mount /var/run/docker.sock: ours where the host has none (auto),
    /// ours (overnet), or what the host has (host) [default: auto]
    #[arg(long, value_name = "auto|overnet|host")]
    pub docker_socket: Option<SocketChoice>,
    /// Serve a picture of the cluster to browsers there; with a token (`ovnctl visualizer` tells
    /// it) unless the address is of this host only, such as 127.0.0.1. The port is 9080 [default: off]
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    pub visualizer: Option<String>,
    /// Label of this engine, KEY=VALUE; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// Log filter, for example `info` or `agent=debug,dataplane=trace` [default: info,openraft=warn]
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

/// The file's content; unknown keys are refused, because a typing error must not pass silently.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    root: Option<PathBuf>,
    run: Option<PathBuf>,
    socket: Vec<PathBuf>,
    insecure_registry: Vec<String>,
    default_registry: Option<String>,
    runtime: Option<PathBuf>,
    cgroup_parent: Option<String>,
    heartbeat: Option<String>,
    resolv_conf: Option<PathBuf>,
    docker_socket: Option<SocketChoice>,
    visualizer: Option<String>,
    label: Vec<String>,
    log: Option<String>,
    log_json: Option<bool>,
}

/// What it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub root: PathBuf,
    pub run: PathBuf,
    pub sockets: Vec<PathBuf>,
    pub insecure_registries: Vec<String>,
    pub default_registry: Option<String>,
    pub runtime: Option<PathBuf>,
    pub cgroup_parent: String,
    pub heartbeat: Option<Duration>,
    pub resolv_conf: PathBuf,
    pub docker_socket: SocketChoice,
    pub visualizer: Option<SocketAddr>,
    pub labels: Vec<(String, String)>,
    pub log: String,
    pub log_json: bool,
}

/// The file that is read when no other is named, if it exists.
pub const DEFAULT_FILE: &str = "/etc/overnet/ovnd.toml";

/// At `info` openraft writes its whole state at each start.
const DEFAULT_LOG: &str = "info,openraft=warn";

impl Settings {
    /// Reads the file that applies and lays the flags over it.
    pub fn load(flags: &Flags) -> anyhow::Result<Self> {
        let file = match &flags.config {
            Some(path) => read(path)?,
            None if Path::new(DEFAULT_FILE).exists() => read(Path::new(DEFAULT_FILE))?,
            None => File::default(),
        };
        Self::merge(flags.clone(), file)
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

    fn merge(flags: Flags, file: File) -> anyhow::Result<Self> {
        let run = flags
            .run
            .or(file.run)
            .unwrap_or_else(|| PathBuf::from("/run/overnet"));
        let sockets = first_filled(flags.socket, file.socket);
        let heartbeat = flags
            .heartbeat
            .or(file.heartbeat)
            .map(|text| {
                parse_duration(&text).with_context(|| {
                    format!("heartbeat {text:?} is no duration; write 500ms, 1s or 1m")
                })
            })
            .transpose()?;
        let default_registry = flags.default_registry.or(file.default_registry);
        if let Some(registry) = &default_registry {
            check_registry(registry)?;
        }
        let visualizer = flags
            .visualizer
            .or(file.visualizer)
            .map(|text| {
                parse_listen(&text).with_context(|| {
                    format!(
                        "visualizer {text:?} is no ADDRESS[:PORT]; write 127.0.0.1:9080 or 0.0.0.0"
                    )
                })
            })
            .transpose()?;
        let labels = first_filled(flags.label, file.label)
            .into_iter()
            .map(|label| match label.split_once('=') {
                Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
                _ => bail!("label {label:?} is not KEY=VALUE"),
            })
            .collect::<anyhow::Result<_>>()?;
        let cgroup_parent = flags
            .cgroup_parent
            .or(file.cgroup_parent)
            .unwrap_or_else(|| "overnet".to_owned());
        if cgroup_parent.is_empty()
            || cgroup_parent.contains("..")
            || cgroup_parent.starts_with('/')
        {
            bail!("cgroup-parent {cgroup_parent:?} must be a relative path without `..`");
        }
        Ok(Self {
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
            insecure_registries: first_filled(flags.insecure_registry, file.insecure_registry),
            default_registry,
            runtime: flags.runtime.or(file.runtime),
            cgroup_parent,
            heartbeat,
            resolv_conf: flags
                .resolv_conf
                .or(file.resolv_conf)
                .unwrap_or_else(|| PathBuf::from("/etc/resolv.conf")),
            docker_socket: flags
                .docker_socket
                .or(file.docker_socket)
                .unwrap_or_default(),
            visualizer,
            labels,
            log: flags
                .log
                .or(file.log)
                .unwrap_or_else(|| DEFAULT_LOG.to_owned()),
            log_json: flags.log_json || file.log_json.unwrap_or(false),
        })
    }
}

fn read(path: &Path) -> anyhow::Result<File> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("configuration file {} cannot be read", path.display()))?;
    toml::from_str(&text)
        .with_context(|| format!("configuration file {} is not understood", path.display()))
}

/// A registry is what an image's name could begin with.
fn check_registry(text: &str) -> anyhow::Result<()> {
    let name = format!("{text}/name").parse::<runtime::images::Reference>();
    if name.is_ok_and(|name| name.registry() == text) {
        return Ok(());
    }
    bail!(
        "default-registry {text:?} is no registry; write HOST:PORT, or HOST with a dot in it, without https://"
    )
}

fn first_filled<T>(first: Vec<T>, second: Vec<T>) -> Vec<T> {
    if first.is_empty() { second } else { first }
}

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
fn parse_duration(text: &str) -> anyhow::Result<Duration> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse()?;
    Ok(match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        "h" => Duration::from_secs(number.saturating_mul(3600)),
        _ => bail!("unknown unit {unit:?}"),
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
        let settings = Settings::merge(flags, file).unwrap();
        assert_eq!(settings.root, Path::new("/srv/b"));
        assert_eq!(settings.sockets, [PathBuf::from("/run/a/ovnd.sock")]);
        assert_eq!(settings.log, "debug");
        assert_eq!(settings.default_registry.as_deref(), Some("registry:5000"));
        assert_eq!(settings.cgroup_parent, "overnet");
    }

    #[test]
    fn mistakes_are_refused() {
        assert!(toml::from_str::<File>("rot = '/srv/a'").is_err());
        for flags in [
            Flags {
                heartbeat: Some("fast".into()),
                ..Flags::default()
            },
            Flags {
                visualizer: Some("manager:9080".into()),
                ..Flags::default()
            },
            Flags {
                label: vec!["nokey".into()],
                ..Flags::default()
            },
            Flags {
                cgroup_parent: Some("../x".into()),
                ..Flags::default()
            },
            Flags {
                default_registry: Some("http://registry:5000".into()),
                ..Flags::default()
            },
            Flags {
                default_registry: Some("registry".into()),
                ..Flags::default()
            },
        ] {
            assert!(Settings::merge(flags, File::default()).is_err());
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
        assert!(parse_duration("5").is_err());
    }
}
