//! What the engine asks of whoever gives containers their network.

use std::{net::IpAddr, path::PathBuf};

use futures_util::future::BoxFuture;
use model::{ContainerId, EndpointId, Refusal};
use serde::{Deserialize, Serialize};

/// The seam between containers and networks. The engine calls it; it never calls the engine.
pub trait Network: Send + Sync + 'static {
    /// Checks a wish without changing anything: unknown networks, networks that are not
    /// attachable, addresses outside the subnet. Called when a container is created.
    fn check<'a>(&'a self, request: &'a ConnectRequest) -> BoxFuture<'a, Result<(), Refusal>>;

    /// Makes the container's network namespace with its interfaces, names and routes, ready
    /// for the first packet. Idempotent: an existing sandbox of that container is adopted.
    fn connect<'a>(
        &'a self,
        request: &'a ConnectRequest,
    ) -> BoxFuture<'a, Result<Connected, Refusal>>;

    /// The wish of a container that is connected has become another by networks more or less: what
    /// it has from now on. All of it or nothing; its other networks go on undisturbed.
    fn rewire<'a>(
        &'a self,
        request: &'a ConnectRequest,
    ) -> BoxFuture<'a, Result<Connected, Refusal>>;

    /// The container runs (or was found running after a restart of the daemon): its names
    /// may be answered.
    fn started<'a>(&'a self, container: &'a ContainerId) -> BoxFuture<'a, ()>;

    /// The container has another name from now on: what it has then, where that is something else
    /// than before.
    fn renamed<'a>(&'a self, request: &'a ConnectRequest) -> BoxFuture<'a, Option<Connected>>;

    /// Takes everything back. Idempotent; unknown containers are fine.
    fn disconnect<'a>(&'a self, container: &'a ContainerId) -> BoxFuture<'a, Result<(), Refusal>>;

    /// Called once when the engine starts, with the containers that still run: sandboxes of
    /// all others are taken back.
    fn adopt<'a>(&'a self, running: &'a [ConnectRequest]) -> BoxFuture<'a, Result<(), Refusal>>;
}

/// A container's wish for a network, kept with the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectRequest {
    pub container: ContainerId,
    /// Without the leading slash.
    pub name: String,
    pub hostname: String,
    pub mode: NetworkMode,
    /// Docker's `--dns`; empty: the host's resolvers.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    #[serde(default)]
    pub dns_search: Vec<String>,
    #[serde(default)]
    pub dns_options: Vec<String>,
    /// Ports of the host that are to lead to it.
    #[serde(default)]
    pub ports: Vec<PortBinding>,
}

/// A port of the host that leads to a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortBinding {
    /// Of the container.
    pub target: u16,
    pub protocol: model::service::Protocol,
    /// The host's first and last port that will do; absent: any free one.
    pub published: Option<(u16, u16)>,
    /// The only address of the host that leads there.
    #[serde(default)]
    pub address: Option<IpAddr>,
}

impl PortBinding {
    /// `8080/tcp`, as Docker writes ports of containers.
    pub fn target(&self) -> String {
        format!("{}/{}", self.target, self.protocol.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// The host's own namespace.
    Host,
    /// A namespace with nothing but loopback.
    None,
    /// The namespace of another container.
    Container(ContainerId),
    /// Named networks, the first of which gives the default route; `bridge` is the host's
    /// local default.
    Networks(Vec<NetworkWish>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkWish {
    /// Name, id or unique id prefix as the user wrote it.
    pub network: String,
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Fixed addresses, at most one of each family.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Name of the interface; absent: the next free one of `eth0`, `eth1`, ….
    #[serde(default)]
    pub interface: Option<String>,
    /// The endpoint that the cluster has given already (a task's); absent: one is asked for.
    #[serde(default)]
    pub endpoint: Option<EndpointId>,
}

impl NetworkWish {
    /// That network, with nothing asked for.
    pub fn named(network: impl Into<String>) -> Self {
        Self {
            network: network.into(),
            aliases: Vec::new(),
            addresses: Vec::new(),
            interface: None,
            endpoint: None,
        }
    }
}

/// The place of the wish that means the network of this name and id: by the name before the id,
/// which a wish may give in part.
pub fn find_wish(wishes: &[NetworkWish], name: &str, id: &str) -> Option<usize> {
    let by_name = wishes.iter().position(|wish| wish.network == name);
    by_name.or_else(|| {
        let part = |wish: &NetworkWish| !wish.network.is_empty() && id.starts_with(&wish.network);
        wishes.iter().position(part)
    })
}

/// What a container gets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connected {
    /// The namespace to run in; absent: the host's.
    pub netns: Option<PathBuf>,
    /// Text of the container's /etc/resolv.conf.
    pub resolv_conf: String,
    /// Lines for /etc/hosts beside localhost's.
    pub hosts: Vec<(IpAddr, String)>,
    pub endpoints: Vec<ConnectedEndpoint>,
    /// As asked, each with the one port of the host that was chosen.
    #[serde(default)]
    pub ports: Vec<PortBinding>,
    /// Hosts that had not confirmed in time; shown in the container's status.
    #[serde(default)]
    pub late: Vec<String>,
}

/// One entry of `NetworkSettings.Networks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectedEndpoint {
    pub network_name: String,
    pub network_id: String,
    pub endpoint_id: String,
    /// IPv4 and then IPv6, each with its prefix length.
    pub addresses: Vec<(IpAddr, u8)>,
    pub gateways: Vec<IpAddr>,
    pub mac: String,
    pub aliases: Vec<String>,
    /// All names that DNS answers for it.
    pub dns_names: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_goes_before_the_beginning_of_an_id() {
        let wishes = ["re", "red", "abc123"].map(NetworkWish::named);
        for (name, id, found) in [
            ("red", "xyz", Some(1)),
            ("red", "re999", Some(1)),
            ("blue", "abc123def", Some(2)),
            ("blue", "re999", Some(0)),
            ("blue", "xyz", None),
        ] {
            assert_eq!(find_wish(&wishes, name, id), found, "{name} {id}");
        }
    }
}
