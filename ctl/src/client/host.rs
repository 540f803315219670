//! Which daemon to talk to.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// The socket used when neither a flag nor the environment names one.
pub const DEFAULT_HOST: &str = "unix:///run/overnet/ovnd.sock";

/// Docker's ports, without TLS and with it.
const PLAIN_PORT: u16 = 2375;
const TLS_PORT: u16 = 2376;

/// Where a daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// `unix:///path`.
    Unix(PathBuf),
    /// `tcp://host:port`.
    Tcp(String),
}

impl Host {
    /// Reads `unix:///path`, `tcp://host:port`, `http://host:port` or a bare absolute path.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::with_port(text, PLAIN_PORT)
    }

    /// The same, with the port of an address that names none.
    fn with_port(text: &str, port: u16) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix://") {
            if path.is_empty() {
                return Err(format!(
                    "bad host {text:?}: the path of the socket is missing, as in {DEFAULT_HOST}"
                ));
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        if text.starts_with('/') {
            return Ok(Self::Unix(PathBuf::from(text)));
        }
        if let Some(rest) = text
            .strip_prefix("tcp://")
            .or_else(|| text.strip_prefix("http://"))
        {
            let address = rest.trim_end_matches('/');
            if address.is_empty() {
                return Err(format!(
                    "bad host {text:?}: an address is missing, as in tcp://192.0.2.1:2375"
                ));
            }
            if address.contains('/') {
                return Err(format!(
                    "bad host {text:?}: a path after the address is not supported"
                ));
            }
            let has_port = address
                .rsplit_once(':')
                .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            return Ok(Self::Tcp(if has_port {
                address.to_owned()
            } else {
                format!("{address}:{port}")
            }));
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(format!(
                "bad host {text:?}: {scheme}:// is not supported; use unix:///path or tcp://host:port \
                 (for a remote machine: ssh -L /tmp/o.sock:/run/overnet/ovnd.sock HOST, then -H unix:///tmp/o.sock)"
            ));
        }
        Err(format!(
            "bad host {text:?}: it must begin with unix:// or tcp://"
        ))
    }

    /// The flag wins over OVERNET_HOST, that over DOCKER_HOST, that over the default.
    pub fn choose(
        flag: Option<&str>,
        variables: &BTreeMap<String, String>,
        tls: bool,
    ) -> Result<Self, String> {
        let named = |name: &str| {
            variables
                .get(name)
                .map(String::as_str)
                .filter(|v| !v.is_empty())
        };
        let text = flag
            .or_else(|| named("OVERNET_HOST"))
            .or_else(|| named("DOCKER_HOST"))
            .unwrap_or(DEFAULT_HOST);
        Self::with_port(text, if tls { TLS_PORT } else { PLAIN_PORT })
    }

    /// What requests say in their header `Host`.
    pub fn authority(&self) -> &str {
        match self {
            Self::Unix(_) => "overnet",
            Self::Tcp(address) => address,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read() {
        let cases = [
            ("unix:///run/x.sock", "unix:///run/x.sock"),
            ("/run/x.sock", "unix:///run/x.sock"),
            ("tcp://127.0.0.1:2375", "tcp://127.0.0.1:2375"),
            ("tcp://10.0.0.1", "tcp://10.0.0.1:2375"),
            ("http://[::1]:99/", "tcp://[::1]:99"),
        ];
        for (text, wanted) in cases {
            assert_eq!(Host::parse(text).expect(text).to_string(), wanted);
        }
        for bad in ["unix://", "ssh://me@host", "localhost:2375", "tcp://", ""] {
            assert!(Host::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_flag_wins_then_our_variable_then_dockers() {
        let vars = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let both = vars(&[("OVERNET_HOST", "unix:///o"), ("DOCKER_HOST", "unix:///d")]);
        assert_eq!(
            Host::choose(Some("unix:///f"), &both, false)
                .unwrap()
                .to_string(),
            "unix:///f"
        );
        assert_eq!(
            Host::choose(None, &both, false).unwrap().to_string(),
            "unix:///o"
        );
        assert_eq!(
            Host::choose(None, &vars(&[("DOCKER_HOST", "unix:///d")]), false)
                .unwrap()
                .to_string(),
            "unix:///d"
        );
        assert_eq!(
            Host::choose(None, &vars(&[("OVERNET_HOST", "")]), false)
                .unwrap()
                .to_string(),
            DEFAULT_HOST
        );
        let tcp = vars(&[("DOCKER_HOST", "tcp://manager01")]);
        for (tls, expected) in [
            (false, "tcp://manager01:2375"),
            (true, "tcp://manager01:2376"),
        ] {
            let chosen = Host::choose(None, &tcp, tls).unwrap();
            assert_eq!(chosen.to_string(), expected);
        }
    }
}
