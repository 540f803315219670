//! Ports of this host that lead to its own containers: `run --publish`, and tasks in host mode.

use std::{net::IpAddr, time::Duration};

use dataplane::desired::{Change as Step, HostPort, Published};
use ipnetwork::IpNetwork;
use model::Refusal;
use runtime::network::{ConnectRequest, NetworkMode, PortBinding};

use super::{
    Inner, Networks,
    published::{self, protocol},
    record::SandboxRecord,
};

/// Where a choice of our own begins and ends, as the kernel's and Docker's.
const DYNAMIC: (u16, u16) = (32_768, 60_999);
/// How long a chosen port waits for its container's network.
const KEEP: Duration = Duration::from_secs(60);

fn host_port(port: &PortBinding, published: u16) -> HostPort {
    HostPort {
        protocol: protocol(port.protocol),
        port: published,
        address: port.address,
    }
}

/// Whether two claims cannot stand beside each other.
fn collide(one: &HostPort, other: &HostPort) -> bool {
    let same = (one.protocol, one.port) == (other.protocol, other.port);
    let both = one.address.zip(other.address);
    same && both.is_none_or(|(one, other)| one == other)
}

impl Networks {
    /// Chooses the host's ports for a container; they are kept until its network stands.
    pub(super) async fn choose_ports(
        &self,
        inner: &Inner,
        request: &ConnectRequest,
    ) -> Result<Vec<PortBinding>, Refusal> {
        if request.ports.is_empty() {
            return Ok(Vec::new());
        }
        let services = published::all(&inner.assignments, &inner.backends, &self.node());
        let mut taken: Vec<(HostPort, &str)> = Vec::new();
        for published in services.values() {
            let interface = published.interface.as_deref();
            let ports = self.places(published.host_port(), interface).await;
            taken.extend(ports.into_iter().map(|port| (port, "a service")));
        }
        let mut chosen = Vec::new();
        let binding = self.binding(request);
        for port in &request.ports {
            let port = &PortBinding {
                address: port.address.or(binding),
                ..port.clone()
            };
            let (first, last) = port.published.unwrap_or(DYNAMIC);
            let mut why = String::new();
            let mut found = None;
            for number in first..=last {
                let wanted = host_port(port, number);
                let by = taken.iter().find(|(other, _)| collide(other, &wanted));
                let by = by.map(|(_, by)| *by);
                if let Some(by) = by.or_else(|| Self::container_with(inner, &wanted)) {
                    why = format!("it is already allocated to {by}");
                    continue;
                }
                match self.dataplane.keep_ports(vec![wanted], KEEP).await {
                    Ok(()) => {
                        found = Some((number, wanted));
                        break;
                    }
                    Err(refused) => why = refused.into_iter().map(|(_, why)| why).collect(),
                }
            }
            let Some((number, wanted)) = found else {
                self.give_up(&chosen);
                return Err(Refusal::internal(format!(
                    "port {} of this host cannot lead to port {} of container {}: {why}",
                    if first == last {
                        first.to_string()
                    } else {
                        format!("{first}-{last}")
                    },
                    port.target(),
                    request.name
                )));
            };
            taken.push((wanted, &request.name));
            chosen.push(PortBinding {
                published: Some((number, number)),
                ..port.clone()
            });
        }
        Ok(chosen)
    }

    /// Where ports are published that name no address: as the first of the container's networks
    /// says that lead there.
    fn binding(&self, request: &ConnectRequest) -> Option<IpAddr> {
        let NetworkMode::Networks(wishes) = &request.mode else {
            return None;
        };
        let mut networks = wishes.iter().filter_map(|wish| self.local_of(wish));
        let first = networks.find(|network| !network.spec.internal)?;
        first.options().binding
    }

    /// The ports that this one means, which is only of the addresses of `interface` if there is
    /// one.
    pub(super) async fn places(&self, port: HostPort, interface: Option<&str>) -> Vec<HostPort> {
        let Some(interface) = interface else {
            return vec![port];
        };
        let addresses = self.dataplane.addresses(interface).await.into_iter();
        let at = |address| HostPort {
            address: Some(address),
            ..port
        };
        addresses.map(at).collect()
    }

    /// The container that has a port which cannot stand beside this one.
    pub(super) fn container_with<'a>(inner: &'a Inner, wanted: &HostPort) -> Option<&'a str> {
        let mut records = inner.sandboxes.values();
        let has = |record: &&SandboxRecord| {
            let mut ports = record.connected.ports.iter();
            ports.any(|port| {
                let own = port.published.map(|(number, _)| host_port(port, number));
                own.is_some_and(|own| collide(&own, wanted))
            })
        };
        records.find(has).map(|record| record.request.name.as_str())
    }

    /// Frees ports that nothing leads to yet.
    pub(super) fn give_up(&self, ports: &[PortBinding]) {
        let ports = ports
            .iter()
            .filter_map(|port| Some(host_port(port, port.published?.0)));
        self.dataplane.release_ports(ports.collect());
    }
}

/// The ports of a container as the dataplane knows them.
pub(super) fn steps(record: &SandboxRecord) -> Vec<Step> {
    let all = record.connected.ports.iter();
    all.filter_map(|port| {
        let published = published(record, port)?;
        Some(Step::SetPublished(id(record, port), published))
    })
    .collect()
}

/// What takes them back.
pub(super) fn removals(record: &SandboxRecord) -> Vec<Step> {
    let all = record.connected.ports.iter();
    all.map(|port| Step::RemovePublished(id(record, port)))
        .collect()
}

fn id(record: &SandboxRecord, port: &PortBinding) -> String {
    let (number, _) = port.published.unwrap_or_default();
    format!("{}.{}", record.request.container, host_port(port, number))
}

/// By the interface that the container's answers leave by.
fn published(record: &SandboxRecord, port: &PortBinding) -> Option<Published> {
    let mut interfaces = record.interfaces.iter();
    let ingress = interfaces.find(|interface| interface.publishes);
    let local = |network: &str| record.local.iter().any(|(id, _)| id == network);
    let through = ingress.or_else(|| {
        let mut interfaces = record.interfaces.iter();
        interfaces.find(|interface| local(&interface.network) && !interface.default_via.is_empty())
    })?;
    let addresses: Vec<IpAddr> = through.addresses.iter().map(IpNetwork::ip).collect();
    Some(Published {
        network: through.network.clone(),
        protocol: protocol(port.protocol),
        port: port.published?.0,
        address: port.address,
        interface: None,
        target: port.target,
        backends: [(through.endpoint.clone(), addresses)].into(),
    })
}

#[cfg(test)]
mod tests {
    use dataplane::desired::Protocol;

    use super::*;

    #[test]
    fn claims_collide_unless_their_addresses_differ() {
        let port = |address: Option<&str>| HostPort {
            address: address.map(|address| address.parse().unwrap()),
            ..HostPort::any(Protocol::Tcp, 80)
        };
        let (any, one, other) = (port(None), port(Some("192.0.2.1")), port(Some("192.0.2.2")));
        assert!(collide(&any, &any) && collide(&any, &one) && collide(&one, &one));
        assert!(!collide(&one, &other));
        assert!(!collide(&any, &HostPort::any(Protocol::Udp, 80)));
        assert!(!collide(&any, &HostPort::any(Protocol::Tcp, 81)));
    }
}
