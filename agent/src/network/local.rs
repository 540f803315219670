//! The host's own networks: `bridge` and `docker_gwbridge`, their subnets and addresses.
//!
//! They are chosen once, on first need, away from everything the host routes already, and
//! kept on disk, because containers remember their addresses.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use ipnetwork::{IpNetwork, Ipv4Network};
use model::Refusal;
use serde::{Deserialize, Serialize};

use super::record::{Survives, write_atomically};

/// The default network of containers, as Docker names it.
pub const BRIDGE: &str = "bridge";
/// Carries the egress of containers on overlay networks, as Docker names it.
pub const GATEWAY_BRIDGE: &str = "docker_gwbridge";

/// A network that only this host knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalNetwork {
    /// 64 hex characters.
    pub id: String,
    pub name: String,
    pub subnet: Ipv4Network,
    pub gateway: Ipv4Addr,
    /// Nanoseconds since the Unix epoch.
    pub created_at: i64,
}

/// Both networks, as they lie on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalNetworks {
    pub bridge: LocalNetwork,
    pub gateway_bridge: LocalNetwork,
}

impl LocalNetworks {
    /// Reads them from `directory`, or chooses and writes them.
    pub fn open(
        directory: &Path,
        routes: &[IpNetwork],
        now: i64,
        mut new_id: impl FnMut() -> String,
    ) -> Result<Self, Refusal> {
        let path = file(directory);
        match std::fs::read(&path) {
            Ok(bytes) => {
                return serde_json::from_slice(&bytes).map_err(|error| {
                    Refusal::internal(format!(
                        "{} is damaged ({error}); remove it to have new subnets chosen",
                        path.display()
                    ))
                });
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(&path, &error)),
        }
        let mut taken = routes.to_vec();
        let mut make = |name: &str| -> Result<LocalNetwork, Refusal> {
            let subnet = choose_subnet(&taken).ok_or_else(|| {
                Refusal::internal(format!(
                    "no subnet is left for network {name}: every candidate collides with a route of this host"
                ))
            })?;
            taken.push(subnet.into());
            Ok(LocalNetwork {
                id: new_id(),
                name: name.to_owned(),
                gateway: Ipv4Addr::from(u32::from(subnet.network()) + 1),
                subnet,
                created_at: now,
            })
        };
        let networks = Self {
            bridge: make(BRIDGE)?,
            gateway_bridge: make(GATEWAY_BRIDGE)?,
        };
        let bytes = serde_json::to_vec_pretty(&networks)
            .map_err(|error| Refusal::internal(format!("local networks: {error}")))?;
        write_atomically(&path, &bytes, Survives::PowerLoss)
            .map_err(|error| unreadable(&path, &error))?;
        Ok(networks)
    }

    pub fn iter(&self) -> impl Iterator<Item = &LocalNetwork> {
        [&self.bridge, &self.gateway_bridge].into_iter()
    }
}

fn file(directory: &Path) -> PathBuf {
    directory.join("local-networks.json")
}

fn unreadable(path: &Path, error: &std::io::Error) -> Refusal {
    Refusal::internal(format!("{}: {error}", path.display()))
}

/// Docker's local pools, in its order: 172.17 to 172.31 as /16, then 192.168.0.0/16 as /20.
fn candidates() -> impl Iterator<Item = Ipv4Network> {
    let sixteens = (17..=31).map(|second| (Ipv4Addr::new(172, second, 0, 0), 16));
    let twenties = (0..16).map(|third| (Ipv4Addr::new(192, 168, third * 16, 0), 20));
    sixteens
        .chain(twenties)
        .filter_map(|(ip, prefix)| Ipv4Network::new(ip, prefix).ok())
}

fn choose_subnet(taken: &[IpNetwork]) -> Option<Ipv4Network> {
    candidates().find(|candidate| !taken.iter().any(|other| overlaps(*candidate, *other)))
}

fn overlaps(ours: Ipv4Network, other: IpNetwork) -> bool {
    match other {
        // A default route covers everything and collides with nothing.
        IpNetwork::V4(other) if other.prefix() > 0 => {
            ours.contains(other.network()) || other.contains(ours.network())
        }
        _ => false,
    }
}

/// Gives addresses of one local subnet serially, so that a used one rests as long as possible.
#[derive(Debug, Default)]
pub struct LocalAddresses {
    given: BTreeMap<String, BTreeSet<Ipv4Addr>>,
    next: BTreeMap<String, u32>,
}

impl LocalAddresses {
    /// Marks an address as in use, for containers that were found running.
    pub fn adopt(&mut self, network: &LocalNetwork, address: Ipv4Addr) {
        self.given
            .entry(network.id.clone())
            .or_default()
            .insert(address);
        let next = self.next.entry(network.id.clone()).or_default();
        *next = (*next).max(u32::from(address).wrapping_add(1));
    }

    /// Gives the wanted address, or the next free one.
    pub fn give(
        &mut self,
        network: &LocalNetwork,
        wanted: Option<IpAddr>,
    ) -> Result<Ipv4Addr, Refusal> {
        let given = self.given.entry(network.id.clone()).or_default();
        let first = u32::from(network.subnet.network()) + 1;
        let last = u32::from(network.subnet.broadcast()) - 1;
        let free = |address: Ipv4Addr, given: &BTreeSet<Ipv4Addr>| {
            address != network.gateway && !given.contains(&address)
        };
        if let Some(wanted) = wanted {
            let IpAddr::V4(address) = wanted else {
                return Err(Refusal::invalid(format!(
                    "network {} has no IPv6 subnet for address {wanted}",
                    network.name
                )));
            };
            if !(first..=last).contains(&u32::from(address)) {
                return Err(Refusal::invalid(format!(
                    "address {wanted} is outside subnet {} of network {}",
                    network.subnet, network.name
                )));
            }
            if !free(address, given) {
                return Err(Refusal::conflict(format!(
                    "address {wanted} on network {} is in use; choose another or leave out --ip",
                    network.name
                )));
            }
            given.insert(address);
            return Ok(address);
        }
        let next = self.next.entry(network.id.clone()).or_insert(first);
        let start = if (first..=last).contains(next) {
            *next
        } else {
            first
        };
        let address = (start..=last)
            .chain(first..start)
            .map(Ipv4Addr::from)
            .find(|address| free(*address, given))
            .ok_or_else(|| {
                Refusal::conflict(format!(
                    "network {} ({}) has no free address; remove containers",
                    network.name, network.subnet
                ))
            })?;
        *next = u32::from(address) + 1;
        given.insert(address);
        Ok(address)
    }

    pub fn take_back(&mut self, network_id: &str, address: IpAddr) {
        if let (Some(given), IpAddr::V4(address)) = (self.given.get_mut(network_id), address) {
            given.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(subnet: &str) -> LocalNetwork {
        let subnet: Ipv4Network = subnet.parse().unwrap();
        LocalNetwork {
            id: "n".into(),
            name: BRIDGE.into(),
            gateway: Ipv4Addr::from(u32::from(subnet.network()) + 1),
            subnet,
            created_at: 0,
        }
    }

    #[test]
    fn subnets_keep_away_from_routes() {
        for (routes, expected) in [
            (vec![], "172.17.0.0/16"),
            (vec!["0.0.0.0/0"], "172.17.0.0/16"),
            (vec!["172.17.5.0/24"], "172.18.0.0/16"),
            (vec!["172.16.0.0/12"], "192.168.0.0/20"),
            (vec!["172.16.0.0/12", "192.168.1.0/24"], "192.168.16.0/20"),
        ] {
            let taken: Vec<IpNetwork> = routes.iter().map(|route| route.parse().unwrap()).collect();
            assert_eq!(
                choose_subnet(&taken).unwrap().to_string(),
                expected,
                "{routes:?}"
            );
        }
        assert_eq!(
            choose_subnet(&[
                "172.16.0.0/12".parse().unwrap(),
                "192.168.0.0/16".parse().unwrap()
            ]),
            None
        );
    }

    #[test]
    fn addresses_are_serial_and_come_back_last() {
        let network = network("10.9.0.0/29");
        let mut addresses = LocalAddresses::default();
        let mut given: Vec<u8> = (0..5)
            .map(|_| addresses.give(&network, None).unwrap().octets()[3])
            .collect();
        assert_eq!(given, [2, 3, 4, 5, 6]);
        assert!(addresses.give(&network, None).is_err());
        addresses.take_back("n", "10.9.0.3".parse().unwrap());
        addresses.take_back("n", "10.9.0.6".parse().unwrap());
        given = (0..2)
            .map(|_| addresses.give(&network, None).unwrap().octets()[3])
            .collect();
        assert_eq!(given, [3, 6]);
    }

    #[test]
    fn fixed_addresses_are_checked() {
        let network = network("10.9.0.0/29");
        let mut addresses = LocalAddresses::default();
        for (wanted, fine) in [
            ("10.9.0.4", true),
            ("10.9.0.4", false),
            ("10.9.0.1", false),
            ("10.9.1.4", false),
            ("fd00::1", false),
        ] {
            assert_eq!(
                addresses
                    .give(&network, Some(wanted.parse().unwrap()))
                    .is_ok(),
                fine,
                "{wanted}"
            );
        }
    }
}
