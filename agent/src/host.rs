//! What this host is: name, size, routes, resolvers. Read from the kernel's text files.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use ipnetwork::IpNetwork;
use model::{node::NodeDescription, task::GenericResource};

/// Devices of ours start so; of them only bridges have routes of the host's.
const OUR_DEVICES: &str = "ovt";
const OUR_BRIDGES: &str = "ovtb";

fn is_foreign(device: &str) -> bool {
    !device.starts_with(OUR_DEVICES) || device.starts_with(OUR_BRIDGES)
}

/// What only the host's owner knows of it.
#[derive(Debug, Clone, Default)]
pub struct Declared {
    pub labels: Vec<(String, String)>,
    pub generic_resources: Vec<GenericResource>,
}

/// Describes the host as it is now; addresses and certificate facts are the cluster's to fill.
pub fn describe(declared: &Declared) -> NodeDescription {
    let name = nix::sys::utsname::uname().ok();
    let part = |value: Option<&std::ffi::OsStr>| {
        value
            .map(|text| text.to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    NodeDescription {
        hostname: part(name.as_ref().map(nix::sys::utsname::UtsName::nodename)),
        architecture: part(name.as_ref().map(nix::sys::utsname::UtsName::machine)),
        os: "linux".to_owned(),
        nano_cpus: i64::try_from(cpus)
            .unwrap_or(i64::MAX)
            .saturating_mul(1_000_000_000),
        memory_bytes: memory_bytes(),
        engine_version: env!("CARGO_PKG_VERSION").to_owned(),
        engine_labels: declared.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
        generic_resources: declared.generic_resources.clone(),
        routes: routes(),
        ..NodeDescription::default()
    }
}

/// Total memory in bytes; 0 where /proc cannot be read.
pub fn memory_bytes() -> i64 {
    std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
            line.split_whitespace().nth(1)?.parse::<i64>().ok()
        })
        .map_or(0, |kib| kib.saturating_mul(1024))
}

/// Prefixes this host routes, those of its local networks too, default routes left out.
pub fn routes() -> Vec<IpNetwork> {
    let mut routes = std::fs::read_to_string("/proc/net/route")
        .map(|text| parse_ipv4(&text))
        .unwrap_or_default();
    routes.extend(
        std::fs::read_to_string("/proc/net/ipv6_route")
            .map(|text| parse_ipv6(&text))
            .unwrap_or_default(),
    );
    routes.sort_unstable();
    routes.dedup();
    routes
}

/// Lines of `/proc/net/route`: device, destination and mask as hex in the host's byte order.
fn parse_ipv4(text: &str) -> Vec<IpNetwork> {
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (device, destination, mask) = (fields.first()?, fields.get(1)?, fields.get(7)?);
            if !is_foreign(device) {
                return None;
            }
            let address = |hex: &str| {
                u32::from_str_radix(hex, 16)
                    .ok()
                    .map(|n| Ipv4Addr::from(u32::from_be(n)))
            };
            let mask = u32::from(address(mask)?);
            (mask != 0)
                .then(|| {
                    IpNetwork::new(address(destination)?.into(), mask.leading_ones() as u8).ok()
                })
                .flatten()
        })
        .collect()
}

/// Lines of `/proc/net/ipv6_route`: destination and prefix length as hex, device last.
fn parse_ipv6(text: &str) -> Vec<IpNetwork> {
    text.lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (destination, length, device) = (fields.first()?, fields.get(1)?, fields.last()?);
            if !is_foreign(device) || *device == "lo" {
                return None;
            }
            let address = Ipv6Addr::from(u128::from_str_radix(destination, 16).ok()?);
            let length = u8::from_str_radix(length, 16).ok()?;
            let useful = length > 0
                && !address.is_unicast_link_local()
                && !address.is_multicast()
                && !address.is_loopback();
            useful
                .then(|| IpNetwork::new(address.into(), length).ok())
                .flatten()
        })
        .collect()
}

/// The names of the host's network devices.
pub fn devices() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let rows = text.lines().filter_map(|line| line.split_once(':'));
    rows.map(|(name, _)| name.trim().to_owned()).collect()
}

/// The host's resolver settings that containers follow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolvers {
    pub servers: Vec<SocketAddr>,
    pub search: Vec<String>,
}

impl Resolvers {
    /// Reads a resolv.conf; a missing file means no resolvers.
    pub fn read(path: &Path) -> Self {
        std::fs::read_to_string(path)
            .map(|text| Self::parse(&text))
            .unwrap_or_default()
    }

    /// `nameserver` and `search` lines, see resolv.conf(5); scoped addresses are left out.
    fn parse(text: &str) -> Self {
        let mut resolvers = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => resolvers.servers.extend(
                    words
                        .next()
                        .and_then(|word| word.parse::<IpAddr>().ok())
                        .map(|ip| SocketAddr::new(ip, 53)),
                ),
                Some("search" | "domain") => resolvers.search = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        resolvers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_routes_without_defaults_and_ours() {
        let text = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
            ovtg1\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        assert_eq!(
            parse_ipv4(text),
            ["10.0.0.0/24".parse::<IpNetwork>().unwrap()]
        );
    }

    #[test]
    fn ipv6_routes_without_local_ones() {
        let line = |address: &str, length: &str, device: &str| {
            format!(
                "{address} {length} {:032x} 00 {:032x} 00000100 00000001 00000000 00000001 {device}\n",
                0, 0
            )
        };
        let text = line("fd770000000000000000000000000000", "40", "eth0")
            + &line("fe800000000000000000000000000000", "40", "eth0")
            + &line("00000000000000000000000000000000", "00", "eth0")
            + &line("00000000000000000000000000000001", "80", "lo");
        assert_eq!(
            parse_ipv6(&text),
            ["fd77::/64".parse::<IpNetwork>().unwrap()]
        );
    }

    #[test]
    fn resolv_conf() {
        let resolvers = Resolvers::parse(
            "# comment\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nsearch a.example b.example\n",
        );
        assert_eq!(resolvers.servers, ["192.0.2.1:53".parse().unwrap()]);
        assert_eq!(resolvers.search, ["a.example", "b.example"]);
    }
}
