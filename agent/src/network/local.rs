//! The networks that only this host knows: `bridge`, `docker_gwbridge`, and those that users
//! make with the driver `bridge`. They are kept on disk with every choice made, because
//! containers remember their addresses.

mod addresses;
mod options;
mod plan;

use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use ipnetwork::{IpNetwork, Ipv4Network};
use model::{NetworkSpec, Refusal, network::Subnet};
use serde::{Deserialize, Serialize};

pub use self::{
    addresses::{LocalAddresses, check},
    options::BridgeOptions,
    plan::{Taken, plan},
};
use super::record::{Survives, write_atomically};

/// The default network of containers, as Docker names it.
pub const BRIDGE: &str = "bridge";
/// Carries the egress of containers on overlay networks, as Docker names it.
pub const GATEWAY_BRIDGE: &str = "docker_gwbridge";
/// The least part of an id by which a container may name a network.
const SHORT_ID: usize = 12;

/// A network that only this host knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OnDisk")]
pub struct LocalNetwork {
    /// 64 hex characters.
    pub id: String,
    /// Nanoseconds since the Unix epoch.
    pub created_at: i64,
    /// As its maker asked for it.
    pub spec: NetworkSpec,
    /// IPv4 first.
    pub subnets: Vec<Subnet>,
}

/// Files that were written before users could make networks have less of the two of the host.
#[derive(Deserialize)]
#[serde(untagged)]
enum OnDisk {
    Whole {
        id: String,
        created_at: i64,
        spec: NetworkSpec,
        subnets: Vec<Subnet>,
    },
    Builtin {
        id: String,
        created_at: i64,
        name: String,
        subnet: Ipv4Network,
    },
}

impl From<OnDisk> for LocalNetwork {
    fn from(read: OnDisk) -> Self {
        match read {
            OnDisk::Whole {
                id,
                created_at,
                spec,
                subnets,
            } => Self {
                id,
                created_at,
                spec,
                subnets,
            },
            OnDisk::Builtin {
                id,
                created_at,
                name,
                subnet,
            } => Self::builtin(&name, id, created_at, subnet),
        }
    }
}

impl LocalNetwork {
    /// One of the host's own two, with the options that Docker shows of its own.
    fn builtin(name: &str, id: String, created_at: i64, subnet: Ipv4Network) -> Self {
        let own = name == BRIDGE;
        let mut options = vec![
            (options::ICC, if own { "true" } else { "false" }),
            (options::MASQUERADE, "true"),
            (options::DEVICE, name),
        ];
        if own {
            options.push((options::DEFAULT, "true"));
        }
        let options = options
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        Self {
            id,
            created_at,
            spec: NetworkSpec {
                name: name.to_owned(),
                driver: "bridge".to_owned(),
                options: options.collect(),
                ..NetworkSpec::default()
            },
            subnets: vec![Subnet {
                subnet: subnet.into(),
                range: subnet.into(),
                gateway: Ipv4Addr::from(u32::from(subnet.network()) + 1).into(),
                aux_addresses: std::collections::BTreeMap::default(),
            }],
        }
    }

    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// `docker_gwbridge`.
    pub fn is_gateway_bridge(&self) -> bool {
        self.name() == GATEWAY_BRIDGE
    }

    /// Made by the daemon, and for good.
    pub fn is_builtin(&self) -> bool {
        self.name() == BRIDGE || self.is_gateway_bridge()
    }

    /// What the driver's options mean; they were checked when it was made.
    pub fn options(&self) -> BridgeOptions {
        let mut read = BridgeOptions::read(self.name(), &self.spec.options).unwrap_or_default();
        if self.is_builtin() {
            // Docker's names for its own two bridges: beside a Docker Engine they are taken.
            read.device = None;
        }
        read
    }

    /// Next hops of its containers' default routes, one of each family.
    pub fn ways_out(&self) -> Vec<IpAddr> {
        if self.spec.internal {
            return Vec::new();
        }
        self.subnets.iter().map(|subnet| subnet.gateway).collect()
    }
}

/// All of them, as they lie on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalNetworks {
    pub bridge: LocalNetwork,
    pub gateway_bridge: LocalNetwork,
    /// Those of users, in the order of their making.
    #[serde(default)]
    pub custom: Vec<LocalNetwork>,
}

impl LocalNetworks {
    /// Reads them from `directory`, or chooses the host's own two and writes them.
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
            let subnet = plan::free_ipv4(&taken).ok_or_else(|| {
                Refusal::internal(format!(
                    "no subnet is left for network {name}: every candidate collides with a route of this host"
                ))
            })?;
            taken.push(subnet.into());
            Ok(LocalNetwork::builtin(name, new_id(), now, subnet))
        };
        let networks = Self {
            bridge: make(BRIDGE)?,
            gateway_bridge: make(GATEWAY_BRIDGE)?,
            custom: Vec::new(),
        };
        networks.keep(directory)?;
        Ok(networks)
    }

    /// Writes them, so that they outlive a loss of power.
    pub fn keep(&self, directory: &Path) -> Result<(), Refusal> {
        let path = file(directory);
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| Refusal::internal(format!("local networks: {error}")))?;
        write_atomically(&path, &bytes, Survives::PowerLoss)
            .map_err(|error| unreadable(&path, &error))
    }

    pub fn iter(&self) -> impl Iterator<Item = &LocalNetwork> {
        [&self.bridge, &self.gateway_bridge]
            .into_iter()
            .chain(&self.custom)
    }

    pub fn get(&self, id: &str) -> Option<&LocalNetwork> {
        self.iter().find(|network| network.id == id)
    }

    /// By name, by id, by at least twelve characters of it; `default` is Docker's word for
    /// `bridge`.
    pub fn find(&self, reference: &str) -> Option<&LocalNetwork> {
        if reference == "default" {
            return Some(&self.bridge);
        }
        let named = self.iter().find(|network| network.name() == reference);
        named.or_else(|| {
            let mut all = self.iter().filter(|_| reference.len() >= SHORT_ID);
            all.find(|network| network.id.starts_with(reference))
        })
    }

    /// With one more.
    pub fn with(&self, network: LocalNetwork) -> Self {
        let mut more = self.clone();
        more.custom.push(network);
        more
    }

    /// Without that one.
    pub fn without(&self, id: &str) -> Self {
        let mut less = self.clone();
        less.custom.retain(|network| network.id != id);
        less
    }
}

fn file(directory: &Path) -> PathBuf {
    directory.join("local-networks.json")
}

fn unreadable(path: &Path, error: &std::io::Error) -> Refusal {
    Refusal::internal(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(folder: &Path) -> LocalNetworks {
        let mut ids = ["a", "b"].into_iter().map(|one| one.repeat(64));
        let new_id = || ids.next().unwrap_or_default();
        LocalNetworks::open(folder, &[], 5, new_id).unwrap()
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let first = opened(folder.path());
        let spec = NetworkSpec {
            name: "red".into(),
            ..NetworkSpec::default()
        };
        let red = plan(spec, "c".repeat(64), 7, &first, &[]).unwrap();
        first.with(red.clone()).keep(folder.path()).unwrap();
        let again = opened(folder.path());
        assert_eq!(again.find("red"), Some(&red));
        assert_eq!(again.find(&"c".repeat(12)), Some(&red));
        assert_eq!(again.find("ccc"), None);
        assert_eq!(again.without(&red.id), first);
    }

    #[test]
    fn files_of_the_first_form_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let one = |name: &str, subnet: &str| {
            format!(
                r#"{{"id":"{name}-id","name":"{name}","subnet":"{subnet}.0.0/16","gateway":"{subnet}.0.1","created_at":3}}"#
            )
        };
        let text = format!(
            r#"{{"bridge":{},"gateway_bridge":{}}}"#,
            one(BRIDGE, "172.17"),
            one(GATEWAY_BRIDGE, "172.18")
        );
        std::fs::write(file(folder.path()), text).unwrap();
        let read = opened(folder.path());
        assert_eq!(read.bridge.subnets[0].gateway.to_string(), "172.17.0.1");
        assert!(read.gateway_bridge.options().isolated);
        assert!(!read.bridge.options().isolated && read.bridge.options().masquerade);
    }
}
