//! What is said to the process of a device: WireGuard's cross-platform text protocol, as far as we
//! need it. A request is `get=1` or `set=1` with lines `key=value`, ended by an empty line; the
//! answer ends with `errno=N` and an empty line. Pure.
//!
//! Lines of our own: `pid`, `own_public_key` in place of the private key that nobody has to be
//! told, and `handshake_age_sec` in place of a time of day.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use super::keys::{PrivateKey, PublicKey};

/// A peer: where it is, and whose packets come from it and go to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerSettings {
    pub endpoint: SocketAddr,
    pub address: IpAddr,
}

/// What changes.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub private_key: Option<PrivateKey>,
    /// `None` removes.
    pub peers: BTreeMap<PublicKey, Option<PeerSettings>>,
}

#[derive(Debug, Clone)]
pub enum Request {
    Get,
    Set(Settings),
}

/// What a device says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    pub pid: i32,
    /// Absent before it has a key.
    pub public_key: Option<PublicKey>,
    pub listen_port: u16,
    /// Where it sends from; absent of one of an earlier version.
    pub local_address: Option<IpAddr>,
    pub peers: BTreeMap<PublicKey, PeerState>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerState {
    pub settings: PeerSettings,
    /// Seconds since the last handshake.
    pub handshake_age: Option<u64>,
    pub sent: u64,
    pub received: u64,
}

impl Settings {
    pub fn is_empty(&self) -> bool {
        self.private_key.is_none() && self.peers.is_empty()
    }

    /// As a request; it has the private key in it.
    pub fn to_request(&self) -> String {
        let mut text = "set=1\n".to_owned();
        if let Some(key) = &self.private_key {
            line(&mut text, "private_key", &hex::encode(key.bytes()));
        }
        for (key, peer) in &self.peers {
            line(&mut text, "public_key", &hex::encode(key.0));
            match peer {
                None => line(&mut text, "remove", "true"),
                Some(peer) => write_peer(&mut text, peer),
            }
        }
        text.push('\n');
        text
    }
}

fn line(text: &mut String, key: &str, value: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{key}={value}");
}

fn write_peer(text: &mut String, peer: &PeerSettings) {
    line(text, "endpoint", &peer.endpoint.to_string());
    line(text, "replace_allowed_ips", "true");
    let bits = if peer.address.is_ipv6() { 128 } else { 32 };
    line(text, "allowed_ip", &format!("{}/{bits}", peer.address));
}

fn pairs(text: &str) -> impl Iterator<Item = Result<(&str, &str), String>> {
    let lines = text.lines().take_while(|line| !line.is_empty());
    lines.map(|line| {
        line.split_once('=')
            .ok_or_else(|| "a line is not KEY=VALUE".to_owned())
    })
}

fn key(value: &str) -> Result<[u8; 32], String> {
    let bytes = hex::decode(value)
        .ok()
        .and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| "a key is not 64 hexadecimal digits".to_owned())
}

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, String> {
    value
        .parse()
        .map_err(|_| format!("{key}={value} is no number that fits"))
}

/// A peer while its lines are read.
#[derive(Default)]
struct Lines {
    remove: bool,
    endpoint: Option<SocketAddr>,
    address: Option<IpAddr>,
    handshake_age: Option<u64>,
    sent: u64,
    received: u64,
}

impl Lines {
    fn read(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "remove" => self.remove = value == "true",
            "endpoint" => {
                let endpoint = value.parse();
                self.endpoint =
                    Some(endpoint.map_err(|_| format!("endpoint={value} is no address"))?);
            }
            "allowed_ip" => {
                let net = value.parse::<ipnetwork::IpNetwork>();
                let net = net.map_err(|_| format!("allowed_ip={value} is no prefix"))?;
                let whole = if net.is_ipv6() { 128 } else { 32 };
                if net.prefix() != whole || self.address.is_some() {
                    return Err("a peer has one allowed_ip, which is one address".to_owned());
                }
                self.address = Some(net.ip());
            }
            "replace_allowed_ips" | "persistent_keepalive_interval" | "protocol_version" => {}
            "handshake_age_sec" => self.handshake_age = Some(number(name, value)?),
            "tx_bytes" => self.sent = number(name, value)?,
            "rx_bytes" => self.received = number(name, value)?,
            _ => return Err(format!("{name} is not known")),
        }
        Ok(())
    }

    fn settings(&self) -> Result<PeerSettings, String> {
        match (self.endpoint, self.address) {
            (Some(endpoint), Some(address)) => Ok(PeerSettings { endpoint, address }),
            _ => Err("a peer needs an endpoint and an allowed_ip".to_owned()),
        }
    }
}

/// Reads a request. The sentence of an error has no key in it.
pub fn parse_request(text: &str) -> Result<Request, String> {
    let mut pairs = pairs(text);
    match pairs.next() {
        Some(Ok(("get", "1"))) => return Ok(Request::Get),
        Some(Ok(("set", "1"))) => {}
        _ => return Err("a request begins with get=1 or set=1".to_owned()),
    }
    let mut settings = Settings::default();
    let mut peer = None::<(PublicKey, Lines)>;
    let mut done = |peer: (PublicKey, Lines)| -> Result<(), String> {
        let (key, lines) = peer;
        let set = if lines.remove {
            None
        } else {
            Some(lines.settings()?)
        };
        settings.peers.insert(key, set);
        Ok(())
    };
    let mut private = None;
    for pair in pairs {
        match (pair?, &mut peer) {
            (("public_key", value), _) => {
                let next = (PublicKey(key(value)?), Lines::default());
                if let Some(before) = peer.replace(next) {
                    done(before)?;
                }
            }
            ((name, value), Some((_, lines))) => lines.read(name, value)?,
            (("private_key", value), None) => private = Some(PrivateKey::from_bytes(key(value)?)),
            ((name, _), None) => return Err(format!("{name} is not known")),
        }
    }
    if let Some(last) = peer {
        done(last)?;
    }
    settings.private_key = private;
    Ok(Request::Set(settings))
}

impl State {
    /// As an answer.
    pub fn to_answer(&self) -> String {
        let mut text = String::new();
        line(&mut text, "pid", &self.pid.to_string());
        line(&mut text, "listen_port", &self.listen_port.to_string());
        if let Some(address) = &self.local_address {
            line(&mut text, "local_address", &address.to_string());
        }
        if let Some(key) = &self.public_key {
            line(&mut text, "own_public_key", &hex::encode(key.0));
        }
        for (key, peer) in &self.peers {
            line(&mut text, "public_key", &hex::encode(key.0));
            write_peer(&mut text, &peer.settings);
            if let Some(age) = peer.handshake_age {
                line(&mut text, "handshake_age_sec", &age.to_string());
            }
            line(&mut text, "tx_bytes", &peer.sent.to_string());
            line(&mut text, "rx_bytes", &peer.received.to_string());
        }
        text.push_str("errno=0\n\n");
        text
    }

    pub fn parse(text: &str) -> Result<Self, String> {
        let mut state = Self::default();
        let mut peers = Vec::<(PublicKey, Lines)>::new();
        for pair in pairs(text) {
            match (pair?, peers.last_mut()) {
                (("errno", "0"), _) => {}
                (("errno", code), _) => return Err(format!("it answers with error {code}")),
                (("public_key", value), _) => {
                    peers.push((PublicKey(key(value)?), Lines::default()));
                }
                ((name, value), Some((_, lines))) => lines.read(name, value)?,
                (("pid", value), None) => state.pid = number("pid", value)?,
                (("listen_port", value), None) => {
                    state.listen_port = number("listen_port", value)?;
                }
                (("local_address", value), None) => {
                    let address = value.parse();
                    let wrong = |_| format!("local_address {value} is no address");
                    state.local_address = Some(address.map_err(wrong)?);
                }
                (("own_public_key", value), None) => {
                    state.public_key = Some(PublicKey(key(value)?));
                }
                _ => {}
            }
        }
        for (key, lines) in peers {
            let peer = PeerState {
                settings: lines.settings()?,
                handshake_age: lines.handshake_age,
                sent: lines.sent,
                received: lines.received,
            };
            state.peers.insert(key, peer);
        }
        Ok(state)
    }

    /// What leads from here to these peers; the key comes beside.
    pub fn difference(&self, wanted: &BTreeMap<PublicKey, PeerSettings>) -> Settings {
        let mut settings = Settings::default();
        for key in self.peers.keys().filter(|key| !wanted.contains_key(key)) {
            settings.peers.insert(*key, None);
        }
        for (key, peer) in wanted {
            let found = self.peers.get(key).map(|found| &found.settings);
            if found != Some(peer) {
                settings.peers.insert(*key, Some(*peer));
            }
        }
        settings
    }
}

/// The answer to what was refused.
pub fn refusal() -> &'static str {
    // EINVAL
    "errno=22\n\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> PeerSettings {
        PeerSettings {
            endpoint: SocketAddr::new([192, 0, 2, last].into(), 51820),
            address: [192, 0, 2, last].into(),
        }
    }

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let private = PrivateKey::from_bytes([7; 32]);
        let settings = Settings {
            private_key: Some(private.clone()),
            peers: [
                (PublicKey([1; 32]), Some(peer(1))),
                (PublicKey([2; 32]), None),
            ]
            .into(),
        };
        let text = settings.to_request();
        assert!(text.starts_with("set=1\nprivate_key=0707"), "{text}");
        assert!(text.ends_with("\nremove=true\n\n"), "{text}");
        let Ok(Request::Set(read)) = parse_request(&text) else {
            panic!("{text}");
        };
        assert_eq!(read.peers, settings.peers);
        assert_eq!(read.private_key.unwrap().public(), private.public());
        assert!(matches!(parse_request("get=1\n\n"), Ok(Request::Get)));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let key = "ab".repeat(32);
        for text in [
            String::new(),
            "set=2\n\n".to_owned(),
            "set=1\nprivate_key=abcd\n\n".to_owned(),
            "set=1\nnonsense\n\n".to_owned(),
            "set=1\nlisten_port=1\n\n".to_owned(),
            format!("set=1\npublic_key={key}\n\n"),
            format!("set=1\npublic_key={key}\nendpoint=host:1\n\n"),
            format!("set=1\npublic_key={key}\nendpoint=192.0.2.1:1\nallowed_ip=0.0.0.0/0\n\n"),
            format!(
                "set=1\npublic_key={key}\nendpoint=192.0.2.1:1\nallowed_ip=192.0.2.1/32\nallowed_ip=192.0.2.2/32\n\n"
            ),
        ] {
            let refused = parse_request(&text);
            assert!(refused.is_err(), "{text}");
            assert!(!refused.unwrap_err().contains("abab"), "{text}");
        }
    }

    #[test]
    fn the_state_is_read_back_and_compared() {
        let of = |last| PeerState {
            settings: peer(last),
            handshake_age: (last == 1).then_some(5),
            sent: 10,
            received: 20,
        };
        let state = State {
            pid: 7,
            public_key: Some(PublicKey([9; 32])),
            listen_port: 51820,
            local_address: Some([192, 0, 2, 9].into()),
            peers: [(PublicKey([1; 32]), of(1)), (PublicKey([2; 32]), of(2))].into(),
        };
        assert_eq!(State::parse(&state.to_answer()).unwrap(), state);
        assert!(State::parse(refusal()).is_err());
        let same = [(PublicKey([1; 32]), peer(1)), (PublicKey([2; 32]), peer(2))].into();
        assert!(state.difference(&same).is_empty());
        let other = [(PublicKey([1; 32]), peer(4)), (PublicKey([3; 32]), peer(3))].into();
        let expected = [
            (PublicKey([1; 32]), Some(peer(4))),
            (PublicKey([2; 32]), None),
            (PublicKey([3; 32]), Some(peer(3))),
        ];
        assert_eq!(state.difference(&other).peers, expected.into());
    }
}
