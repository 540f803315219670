//! From a container's wish and what was given for it to a sandbox: pure functions.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use dataplane::desired::{self, Dns, Interface, NetworkKind, Sandbox};
use ipnetwork::IpNetwork;
use model::{ContainerId, EndpointId, control::Attached, endpoint::MacAddress};
use runtime::network::{ConnectRequest, ConnectedEndpoint, NetworkWish};

use super::{
    local::LocalNetwork,
    record::{GivenEndpoint, SandboxRecord},
    translate,
};
use crate::host::Resolvers;

/// Where a container's network namespace is bound.
pub fn netns_path(run_dir: &Path, container: &ContainerId) -> PathBuf {
    run_dir.join("netns").join(container.as_str())
}

/// A network that a container is on, with what was given there.
#[derive(Debug, Clone)]
pub enum Given {
    Overlay {
        attached: Box<Attached>,
        aliases: Vec<String>,
    },
    Local {
        network: Box<LocalNetwork>,
        /// One of each subnet.
        addresses: Vec<IpNetwork>,
        aliases: Vec<String>,
        /// That the resolver answers.
        names: Vec<String>,
    },
}

impl Given {
    /// Containers reach the outside over it.
    pub fn is_way_out(&self) -> bool {
        match self {
            Self::Local { network, .. } => !network.spec.internal,
            Self::Overlay { .. } => false,
        }
    }
}

/// What a container is called on a local network: nothing on the host's own two, as in Docker.
pub fn local_names(
    request: &ConnectRequest,
    wish: &NetworkWish,
    network: &LocalNetwork,
) -> Vec<String> {
    if network.is_builtin() {
        return Vec::new();
    }
    let mut names = vec![request.name.clone()];
    names.extend(aliases(request, wish));
    names
}

/// The further names a container has on a cluster network: aliases, short id, host name.
pub fn aliases(request: &ConnectRequest, wish: &NetworkWish) -> Vec<String> {
    let mut names = wish.aliases.clone();
    // A guest has neither, and its id means nothing to anyone.
    if !request.hostname.is_empty() {
        names.push(request.container.short().to_owned());
        names.push(request.hostname.clone());
    }
    let mut seen = BTreeSet::from([request.name.clone()]);
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// Interfaces in the order asked for, `eth0` first; the first local network that is not internal
/// carries the default route.
pub fn interfaces(container: &ContainerId, given: &[Given]) -> Vec<Interface> {
    let mut routed = BTreeSet::new();
    given
        .iter()
        .enumerate()
        .map(|(index, given)| {
            let name = format!("eth{index}");
            match given {
                Given::Overlay { attached, .. } => Interface {
                    endpoint: attached.endpoint.id.to_string(),
                    network: attached.network.id.to_string(),
                    name,
                    addresses: attached.endpoint.addresses.clone(),
                    mac: attached.endpoint.mac.0,
                    default_via: Vec::new(),
                    publishes: attached.network.spec.ingress,
                    names: Vec::new(),
                },
                Given::Local {
                    network, addresses, ..
                } => {
                    let mut default_via = network.ways_out();
                    // One of each family.
                    default_via.retain(|via| routed.insert(via.is_ipv6()));
                    Interface {
                        endpoint: local_endpoint_id(container, network),
                        network: network.id.clone(),
                        name,
                        addresses: addresses.clone(),
                        mac: mac(addresses).0,
                        default_via,
                        publishes: false,
                        names: Vec::new(),
                    }
                }
            }
        })
        .collect()
}

/// Whether it may reach the outside. Publishing a port gives no leave to.
pub fn wants_egress<'a>(attached: impl Iterator<Item = &'a Attached>) -> bool {
    let (ingress, own): (Vec<_>, Vec<_>) =
        attached.partition(|attached| attached.network.spec.ingress);
    if own.is_empty() {
        return !ingress.is_empty();
    }
    own.iter().any(|attached| !attached.network.spec.internal)
}

/// By the first address, as everywhere.
fn mac(addresses: &[IpNetwork]) -> MacAddress {
    let first = addresses.first().map(IpNetwork::ip);
    MacAddress::from_ip(first.unwrap_or(IpAddr::from([0, 0, 0, 0])))
}

fn local_endpoint_id(container: &ContainerId, network: &LocalNetwork) -> String {
    format!(
        "{}-{}",
        container.short(),
        network.id.get(..12).unwrap_or(&network.id)
    )
}

/// What `inspect` shows of each network, the gateway bridge left out.
pub fn shown(given: &[Given], container: &ContainerId) -> Vec<ConnectedEndpoint> {
    given
        .iter()
        .filter_map(|given| match given {
            Given::Overlay { attached, aliases } => Some(ConnectedEndpoint {
                network_name: attached.network.spec.name.clone(),
                network_id: attached.network.id.to_string(),
                endpoint_id: attached.endpoint.id.to_string(),
                addresses: attached
                    .endpoint
                    .addresses
                    .iter()
                    .map(|address| (address.ip(), address.prefix()))
                    .collect(),
                gateways: attached
                    .network
                    .subnets
                    .iter()
                    .map(|subnet| subnet.gateway)
                    .collect(),
                mac: attached.endpoint.mac.to_string(),
                aliases: aliases.clone(),
                dns_names: attached.endpoint.names.clone(),
            }),
            Given::Local { network, .. } if network.is_gateway_bridge() => None,
            Given::Local {
                network,
                addresses,
                aliases,
                names,
            } => Some(ConnectedEndpoint {
                network_name: network.name().to_owned(),
                network_id: network.id.clone(),
                endpoint_id: local_endpoint_id(container, network),
                addresses: addresses
                    .iter()
                    .map(|one| (one.ip(), one.prefix()))
                    .collect(),
                gateways: network.ways_out(),
                mac: mac(addresses).to_string(),
                aliases: aliases.clone(),
                dns_names: names.clone(),
            }),
        })
        .collect()
}

/// The dataplane's wish for one container. Interfaces on networks that this host no longer
/// takes part in are left out; names are there once the container runs, a task's once the
/// manager says that it is in use.
pub fn wish(
    record: &SandboxRecord,
    netns: PathBuf,
    networks: &BTreeSet<String>,
    task_names: impl Fn(&EndpointId) -> Vec<String>,
    upstreams: &[SocketAddr],
) -> Sandbox {
    let names: BTreeMap<&str, &GivenEndpoint> = record
        .endpoints
        .iter()
        .map(|given| (given.endpoint.as_str(), given))
        .collect();
    let interfaces: Vec<Interface> = record
        .interfaces
        .iter()
        .filter(|interface| networks.contains(&interface.network))
        .map(|interface| Interface {
            names: match names.get(interface.endpoint.as_str()) {
                Some(given) if given.task => task_names(&given.endpoint),
                Some(given) if record.running => given.names.clone(),
                None if record.running => names_on(record, &interface.endpoint),
                _ => Vec::new(),
            },
            ..interface.clone()
        })
        .collect();
    let upstreams = if record.request.dns.is_empty() {
        upstreams.to_vec()
    } else {
        record
            .request
            .dns
            .iter()
            .map(|ip| SocketAddr::new(*ip, 53))
            .collect()
    };
    Sandbox {
        netns,
        dns: (!interfaces.is_empty()).then_some(Dns { upstreams }),
        // Who takes a task away waits for its connections.
        counted: record.endpoints.iter().any(|endpoint| endpoint.task),
        interfaces,
    }
}

/// The names of a container on a local network.
fn names_on(record: &SandboxRecord, endpoint: &str) -> Vec<String> {
    let mut endpoints = record.connected.endpoints.iter();
    let found = endpoints.find(|one| one.endpoint_id == endpoint);
    found.map(|one| one.dns_names.clone()).unwrap_or_default()
}

/// A local network as the dataplane knows it.
pub fn local_wish(network: &LocalNetwork) -> desired::Network {
    let options = network.options();
    let subnets = network.subnets.iter();
    desired::Network {
        name: network.name().to_owned(),
        kind: NetworkKind::Bridge {
            masquerade: options.masquerade,
            isolated: options.isolated,
            internal: network.spec.internal,
            device: options.device,
        },
        subnets: subnets.map(translate::subnet).collect(),
        mtu: options.mtu,
    }
}

/// Text of a container's resolv.conf: our server, the host's or the user's search list.
pub fn resolv_conf(request: &ConnectRequest, resolvers: &Resolvers, own_server: bool) -> String {
    let mut text = String::new();
    if own_server {
        text.push_str("nameserver 127.0.0.11\n");
    } else {
        let asked: Vec<IpAddr> = if request.dns.is_empty() {
            resolvers.servers.iter().map(SocketAddr::ip).collect()
        } else {
            request.dns.clone()
        };
        for server in asked {
            text.extend(["nameserver ", &server.to_string(), "\n"]);
        }
    }
    let search = if request.dns_search.is_empty() {
        &resolvers.search
    } else {
        &request.dns_search
    };
    // A search list of `.` is Docker's way to ask for none.
    if !search.is_empty() && search != &["."] {
        text.extend(["search ", &search.join(" "), "\n"]);
    }
    let mut options = request.dns_options.clone();
    if own_server && !options.iter().any(|option| option.starts_with("ndots")) {
        options.push("ndots:0".to_owned());
    }
    if !options.is_empty() {
        text.extend(["options ", &options.join(" "), "\n"]);
    }
    text
}

/// Cluster endpoints of this node that no container of it has or is about to have.
pub fn stale_endpoints(
    assignments: &model::Assignments,
    node: &model::NodeId,
    held: &BTreeSet<EndpointId>,
    connecting: &BTreeSet<ContainerId>,
) -> Vec<EndpointId> {
    assignments
        .endpoints
        .values()
        .filter(|endpoint| endpoint.node == *node && !held.contains(&endpoint.id))
        .filter(|endpoint| match &endpoint.owner {
            model::EndpointOwner::Container { id, .. } => !connecting.contains(id),
            // The manager takes a task's endpoint back with the task.
            model::EndpointOwner::Task { .. } => false,
        })
        .map(|endpoint| endpoint.id.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use runtime::network::NetworkMode;

    use super::*;

    fn request() -> ConnectRequest {
        ConnectRequest {
            container: ContainerId::from_random([0xab; 32]),
            name: "api".into(),
            hostname: "abababababab".into(),
            mode: NetworkMode::None,
            dns: vec![],
            dns_search: vec![],
            dns_options: vec![],
            ports: vec![],
        }
    }

    #[test]
    fn aliases_are_unique_and_leave_out_the_name() {
        let wish = NetworkWish {
            network: "ch03".into(),
            aliases: vec!["web".into(), "api".into(), "web".into()],
            addresses: vec![],
            interface: None,
            endpoint: None,
        };
        assert_eq!(aliases(&request(), &wish), ["web", "abababababab"]);
    }

    #[test]
    fn resolv_conf_forms() {
        let resolvers = Resolvers {
            servers: vec!["192.0.2.1:53".parse().unwrap()],
            search: vec!["a.example".into()],
        };
        let mut asked = request();
        for (search, options, own, expected) in [
            (
                vec![],
                vec![],
                true,
                "nameserver 127.0.0.11\nsearch a.example\noptions ndots:0\n",
            ),
            (
                vec![],
                vec![],
                false,
                "nameserver 192.0.2.1\nsearch a.example\n",
            ),
            (
                vec!["."],
                vec!["ndots:2"],
                true,
                "nameserver 127.0.0.11\noptions ndots:2\n",
            ),
        ] {
            asked.dns_search = search.into_iter().map(String::from).collect();
            asked.dns_options = options.into_iter().map(String::from).collect();
            assert_eq!(resolv_conf(&asked, &resolvers, own), expected);
        }
    }
}
