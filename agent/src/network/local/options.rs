//! Options of the driver `bridge`, under Docker's names.

use std::{collections::BTreeMap, net::IpAddr};

use model::{
    Refusal,
    network::{OPTION_ENCRYPTED, OPTION_MTU},
};

/// Containers of the network reach each other.
pub const ICC: &str = "com.docker.network.bridge.enable_icc";
/// What leaves the host bears the host's address.
pub const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
/// The bridge's name as a device.
pub const DEVICE: &str = "com.docker.network.bridge.name";
/// Shown of the network `bridge` only.
pub const DEFAULT: &str = "com.docker.network.bridge.default_bridge";
/// The host's address that ports are published at which name none.
const BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
/// How containers are reached from outside.
const MODES: [&str; 2] = [
    "com.docker.network.bridge.gateway_mode_ipv4",
    "com.docker.network.bridge.gateway_mode_ipv6",
];
/// Docker's; others are a client's own notes, kept and shown.
const KNOWN: &str = "com.docker.network.";
/// Of a device's name, see IFNAMSIZ of linux/if.h.
const LONGEST: usize = 15;
/// The least MTU of IPv4 (RFC 791), and the most of a veth.
const MTU: std::ops::RangeInclusive<u32> = 68..=65_535;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeOptions {
    pub masquerade: bool,
    /// Containers do not reach each other.
    pub isolated: bool,
    pub mtu: Option<u32>,
    pub device: Option<String>,
    pub binding: Option<IpAddr>,
}

impl Default for BridgeOptions {
    fn default() -> Self {
        Self {
            masquerade: true,
            isolated: false,
            mtu: None,
            device: None,
            binding: None,
        }
    }
}

impl BridgeOptions {
    /// Refused, naming the option: what is not understood.
    pub fn read(network: &str, options: &BTreeMap<String, String>) -> Result<Self, Refusal> {
        let mut read = Self::default();
        for (key, value) in options {
            let wrong = |form: &str| {
                Refusal::invalid(format!(
                    "network {network}: option {key}={value:?} is not understood; {form}"
                ))
            };
            let flag = || boolean(value).ok_or_else(|| wrong("write true or false"));
            match key.as_str() {
                ICC => read.isolated = !flag()?,
                MASQUERADE => read.masquerade = flag()?,
                DEFAULT => {
                    flag()?;
                }
                OPTION_MTU => {
                    let mtu = value.parse().ok().filter(|mtu| MTU.contains(mtu));
                    read.mtu = Some(mtu.ok_or_else(|| wrong("write bytes from 68 to 65535"))?);
                }
                DEVICE => {
                    let fine = is_device_name(value);
                    read.device = Some(value.clone()).filter(|_| fine);
                    if !fine {
                        return Err(wrong(
                            "a device's name has 1 to 15 letters, digits, dots, dashes and underscores, and does not begin with ovt",
                        ));
                    }
                }
                BINDING => {
                    let address = value.parse::<std::net::Ipv4Addr>();
                    let address = address.map_err(|_| wrong("write an IPv4 address"))?;
                    read.binding = Some(address.into()).filter(|ip: &IpAddr| !ip.is_unspecified());
                }
                OPTION_ENCRYPTED => {
                    return Err(Refusal::invalid(format!(
                        "network {network}: option encrypted is for networks that leave the host; \
                         make it with --driver overlay, or leave the option out"
                    )));
                }
                mode if MODES.contains(&mode) && value == "nat" => {}
                other if other.starts_with(KNOWN) => {
                    return Err(Refusal::not_implemented(format!(
                        "network {network}: option {other}={value} is not there; leave it out"
                    )));
                }
                _ => {}
            }
        }
        Ok(read)
    }
}

fn is_device_name(name: &str) -> bool {
    let inside = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=LONGEST).contains(&name.len())
        && name.bytes().all(inside)
        && !matches!(name, "." | "..")
        && !name.starts_with("ovt")
}

/// As Go reads them, which Docker is written in.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<BridgeOptions, Refusal> {
        let pairs = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        BridgeOptions::read("red", &pairs.collect())
    }

    #[test]
    fn options_are_read_or_refused_by_name() {
        assert_eq!(of(&[("my.note", "x")]).unwrap(), BridgeOptions::default());
        let read = of(&[
            (ICC, "false"),
            (MASQUERADE, "0"),
            (OPTION_MTU, "1400"),
            (DEVICE, "br-red"),
            (BINDING, "127.0.0.1"),
            (MODES[0], "nat"),
        ]);
        let wanted = BridgeOptions {
            masquerade: false,
            isolated: true,
            mtu: Some(1400),
            device: Some("br-red".into()),
            binding: Some([127, 0, 0, 1].into()),
        };
        assert_eq!(read.unwrap(), wanted);
        for (key, value, status) in [
            (ICC, "maybe", 400),
            (OPTION_ENCRYPTED, "", 400),
            (OPTION_MTU, "10", 400),
            (OPTION_MTU, "big", 400),
            (DEVICE, "", 400),
            (DEVICE, "a/b", 400),
            (DEVICE, "sixteen-letters-", 400),
            (DEVICE, "ovtb1", 400),
            (BINDING, "::1", 400),
            (MODES[0], "routed", 501),
            ("com.docker.network.container_iface_prefix", "web", 501),
        ] {
            let refusal = of(&[(key, value)]).unwrap_err();
            assert_eq!(refusal.kind.status(), status, "{key}={value}");
            assert!(refusal.message.contains(key), "{}", refusal.message);
        }
    }
}
