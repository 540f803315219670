//! Which of the host's addresses lead to a port: what an entry says of an interface, by the
//! addresses that the interface has at present. Pure.

use std::collections::BTreeSet;

use crate::{
    desired::{Desired, HostPort, Published},
    view::Facts,
};

/// What an entry means on this host: one port, or one of each address of its interface.
pub fn host_ports(published: &Published, facts: &Facts) -> Vec<HostPort> {
    let port = published.host_port();
    let Some(interface) = &published.interface else {
        return vec![port];
    };
    let addresses = facts.interfaces.get(interface).into_iter().flatten();
    addresses
        .map(|address| HostPort {
            address: Some(*address),
            ..port
        })
        .collect()
}

/// Ports that are not published for want of their interface, as sentences.
pub fn unpublished(desired: &Desired, facts: &Facts) -> BTreeSet<String> {
    let all = desired.published.values();
    let bound = all.filter_map(|published| Some((published, published.interface.as_ref()?)));
    bound
        .filter(|(published, _)| host_ports(published, facts).is_empty())
        .map(|(published, interface)| {
            format!(
                "port {}: interface {interface} is not there or has no address; this host \
                 publishes the port once it has one",
                published.host_port()
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::desired::Protocol;

    #[test]
    fn an_interface_means_its_addresses() {
        let port = |interface: Option<&str>| Published {
            network: "ingress".into(),
            protocol: Protocol::Tcp,
            port: 80,
            address: None,
            interface: interface.map(str::to_owned),
            target: 8080,
            backends: [].into(),
        };
        let addresses: Vec<IpAddr> = ["192.0.2.1", "2001:db8::1"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        let facts = Facts {
            interfaces: [("eth1".to_owned(), addresses.iter().copied().collect())].into(),
            ..Facts::default()
        };
        let found = |interface| -> Vec<String> {
            let ports = host_ports(&port(interface), &facts);
            ports.iter().map(ToString::to_string).collect()
        };
        assert_eq!(found(None), ["80/tcp"]);
        assert_eq!(
            found(Some("eth1")),
            ["192.0.2.1:80/tcp", "[2001:db8::1]:80/tcp"]
        );
        assert!(found(Some("eth2")).is_empty());
        let mut desired = Desired::default();
        for name in [None, Some("eth1"), Some("eth2")] {
            let id = name.unwrap_or("all").to_owned();
            desired.published.insert(id, port(name));
        }
        let said: Vec<String> = unpublished(&desired, &facts).into_iter().collect();
        assert!(
            said.len() == 1 && said[0].starts_with("port 80/tcp: interface eth2"),
            "{said:?}"
        );
    }
}
