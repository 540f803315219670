//! The API for other hosts: addresses, certificates, and who may do what.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use super::check::Problem;
use crate::{
    http::TlsFiles,
    role::{Grant, Role, Roles},
};

/// Docker's ports, without TLS and with it.
const PLAIN_PORT: u16 = 2375;
const TLS_PORT: u16 = 2376;

/// As it was written, wherever.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub host: Vec<String>,
    pub tlsverify: bool,
    pub tlscacert: Option<PathBuf>,
    pub tlscert: Option<PathBuf>,
    pub tlskey: Option<PathBuf>,
    pub client: Vec<String>,
    pub default_client_role: Option<Role>,
}

/// What it means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remote {
    pub addresses: Vec<SocketAddr>,
    /// Absent: addresses of this host only, for clients without a certificate.
    pub tls: Option<TlsFiles>,
    pub roles: Roles,
}

impl Remote {
    pub(super) fn read(written: Written, problems: &mut Vec<Problem>) -> Self {
        let mut addresses = Vec::new();
        for text in &written.host {
            match address(text, written.tlsverify) {
                Ok(address) if addresses.contains(&address) => problems.push(Problem::new(
                    "host",
                    format!("{text} is given twice; once is enough"),
                )),
                Ok(address) if !written.tlsverify && !address.ip().is_loopback() => {
                    problems.push(Problem::new(
                        "host",
                        format!(
                            "{text} would let everybody who reaches it into this host; set tlsverify \
                             with tlscacert, tlscert and tlskey, or listen on 127.0.0.1"
                        ),
                    ));
                }
                Ok(address) => addresses.push(address),
                Err(why) => problems.push(Problem::new("host", why)),
            }
        }
        let mut grants: Vec<Grant> = Vec::new();
        for text in &written.client {
            match text.parse::<Grant>() {
                Ok(grant) => match grants.iter().find(|other| other.bearer == grant.bearer) {
                    Some(other) if other.role != grant.role => problems.push(Problem::new(
                        "client",
                        format!("{other} and {grant} are both given; keep one"),
                    )),
                    Some(_) => {}
                    None => grants.push(grant),
                },
                Err(why) => problems.push(Problem::new("client", why)),
            }
        }
        let roles = Roles {
            grants,
            others: written.default_client_role.unwrap_or_default(),
        };
        if !roles.grants.is_empty() && !written.tlsverify {
            problems.push(Problem::new(
                "client",
                "clients are known by their certificates: set tlsverify, too",
            ));
        }
        Self {
            addresses,
            tls: files(written, problems),
            roles,
        }
    }

    /// As settings that say the same.
    pub(super) fn write(&self, put: &mut dyn FnMut(&str, toml::Value)) {
        let hosts = self.addresses.iter().map(|at| format!("tcp://{at}").into());
        put("host", toml::Value::Array(hosts.collect()));
        put("tlsverify", self.tls.is_some().into());
        if let Some(files) = &self.tls {
            for (key, path) in [
                ("tlscacert", &files.ca),
                ("tlscert", &files.cert),
                ("tlskey", &files.key),
            ] {
                put(key, path.display().to_string().into());
            }
        }
        let clients = self
            .roles
            .grants
            .iter()
            .map(|grant| grant.to_string().into());
        put("client", toml::Value::Array(clients.collect()));
        put("default-client-role", self.roles.others.as_str().into());
    }
}

fn files(written: Written, problems: &mut Vec<Problem>) -> Option<TlsFiles> {
    let given = [
        ("tlscacert", written.tlscacert),
        ("tlscert", written.tlscert),
        ("tlskey", written.tlskey),
    ];
    for (key, path) in &given {
        match path {
            Some(path) if !path.is_absolute() => problems.push(Problem::new(
                key,
                format!("{} must be an absolute path", path.display()),
            )),
            Some(_) if !written.tlsverify => problems.push(Problem::new(
                key,
                "has no effect without tlsverify: set that, too",
            )),
            None if written.tlsverify => problems.push(Problem::new(
                key,
                "is missing: tlsverify needs tlscacert (of the clients' authority), and tlscert and \
                 tlskey (of this host), in PEM",
            )),
            Some(_) | None => {}
        }
    }
    let [ca, cert, key] = given.map(|(_, path)| path);
    match (written.tlsverify, ca, cert, key) {
        (true, Some(ca), Some(cert), Some(key)) => Some(TlsFiles { ca, cert, key }),
        _ => None,
    }
}

/// `tcp://ADDRESS[:PORT]`.
fn address(text: &str, tls: bool) -> Result<SocketAddr, String> {
    let bad = |way_out: &str| format!("{text:?} is no tcp://ADDRESS[:PORT]; {way_out}");
    let Some(rest) = text.strip_prefix("tcp://") else {
        return Err(match text.split_once("://") {
            Some(("unix", path)) => bad(&format!("for a unix socket write socket = [{path:?}]")),
            Some(("fd", _)) => bad("ovnd makes its sockets itself"),
            _ => bad("write \"tcp://0.0.0.0:2376\" for example"),
        });
    };
    let rest = rest.trim_end_matches('/');
    let port = if tls { TLS_PORT } else { PLAIN_PORT };
    if let Some(after) = rest.strip_prefix("localhost") {
        let port = after.strip_prefix(':').map_or_else(
            || after.is_empty().then_some(port),
            |text| text.parse().ok(),
        );
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        return port
            .map(|port| SocketAddr::new(ip, port))
            .ok_or_else(|| bad("write \"tcp://localhost:2376\""));
    }
    let bare = rest.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(ip) => Ok(SocketAddr::new(ip, port)),
        Err(_) => rest.parse().map_err(|_| {
            bad("write an address of this host, as in \"tcp://0.0.0.0:2376\" or \"tcp://[::]:2376\"")
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(written: Written) -> (Remote, Vec<String>) {
        let mut problems = Vec::new();
        let remote = Remote::read(written, &mut problems);
        let problems = problems.iter().map(ToString::to_string);
        (remote, problems.collect())
    }

    fn host(text: &str, tlsverify: bool) -> Written {
        let path = |name: &str| tlsverify.then(|| PathBuf::from(format!("/etc/o/{name}.pem")));
        Written {
            host: vec![text.to_owned()],
            tlsverify,
            tlscacert: path("ca"),
            tlscert: path("cert"),
            tlskey: path("key"),
            ..Written::default()
        }
    }

    #[test]
    fn addresses_are_docker_s_and_open_ones_need_certificates() {
        for (text, tls, expected) in [
            ("tcp://127.0.0.1", false, "127.0.0.1:2375"),
            ("tcp://[::1]:99", false, "[::1]:99"),
            ("tcp://localhost", false, "127.0.0.1:2375"),
            ("tcp://0.0.0.0", true, "0.0.0.0:2376"),
            ("tcp://::", true, "[::]:2376"),
            ("tcp://192.0.2.1:1/", true, "192.0.2.1:1"),
        ] {
            let (remote, problems) = read(host(text, tls));
            assert_eq!(problems, [] as [&str; 0], "{text}");
            assert_eq!(remote.addresses, [expected.parse().unwrap()], "{text}");
            assert_eq!(remote.tls.is_some(), tls);
        }
        for (text, tls, words) in [
            ("tcp://0.0.0.0:2375", false, "would let everybody"),
            ("tcp://192.0.2.1", false, "tlscacert, tlscert and tlskey"),
            ("unix:///run/x.sock", true, "socket = [\"/run/x.sock\"]"),
            ("manager01:2376", true, "tcp://0.0.0.0:2376"),
            ("tcp://manager01:2376", true, "address of this host"),
            ("tcp://:2376", true, "address of this host"),
            ("tcp://localhost.example", true, "localhost:2376"),
        ] {
            let (_, problems) = read(host(text, tls));
            assert_eq!(problems.len(), 1, "{text}: {problems:?}");
            assert!(problems[0].contains(words), "{text}: {problems:?}");
        }
    }

    #[test]
    fn halves_are_refused() {
        let (_, problems) = read(Written {
            tlskey: None,
            ..host("tcp://0.0.0.0", true)
        });
        assert!(
            problems[0].starts_with("tlskey: is missing"),
            "{problems:?}"
        );
        let (_, problems) = read(Written {
            tlscacert: Some("/x".into()),
            client: vec!["ci=admin".into()],
            ..Written::default()
        });
        assert_eq!(problems.len(), 2, "{problems:?}");
        let (_, problems) = read(Written {
            client: vec!["ci=admin".into(), "ci=operator".into(), "x".into()],
            ..host("tcp://0.0.0.0", true)
        });
        assert!(problems[0].contains("keep one"), "{problems:?}");
        assert!(problems[1].contains("NAME=ROLE"), "{problems:?}");
    }
}
