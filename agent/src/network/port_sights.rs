//! How this host sees ports that it is to publish. Pure.

use std::{collections::BTreeSet, net::IpAddr};

use dataplane::{
    Counters, Desired, Failure,
    desired::{HostPort, Published},
    firewall::foreign::Dropping,
    ingress::host_ports,
    view::Facts,
};
use model::{
    interface::InterfaceName,
    publish::{HeldPort, PortSight, TaskTraffic},
};

use super::published;

/// The hook of netfilter that forwarded packets pass.
const FORWARD: u32 = 2;

/// What the dataplane was told, has done and has counted.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    pub desired: &'a Desired,
    pub facts: &'a Facts,
    /// Ports that lead somewhere.
    pub held: &'a BTreeSet<HostPort>,
    pub failures: &'a [Failure],
    pub counters: &'a Counters,
    /// Chains of others.
    pub dropping: &'a [Dropping],
}

/// One sight of each port.
pub fn sights(ports: &[HeldPort], seen: Seen) -> Vec<PortSight> {
    ports.iter().map(|port| sight(port, seen)).collect()
}

fn sight(port: &HeldPort, seen: Seen) -> PortSight {
    let host_port = host_port(port);
    let interface = port.interface.as_ref().map(InterfaceName::as_str);
    let mut wanted = seen.desired.published.values();
    let wanted = wanted.find(|published| {
        published.host_port() == host_port && published.interface.as_deref() == interface
    });
    PortSight {
        port: *port,
        told: wanted.is_some(),
        obstacle: wanted.and_then(|published| obstacle(published, seen)),
        drops: drops(seen.dropping),
        tasks: wanted.map_or_else(Vec::new, |published| traffic(published, seen.counters)),
    }
}

fn obstacle(published: &Published, seen: Seen) -> Option<String> {
    let places = host_ports(published, seen.facts);
    if let (Some(interface), true) = (&published.interface, places.is_empty()) {
        return Some(format!(
            "interface {interface} is not there or has no address"
        ));
    }
    let port = places.iter().find(|port| !seen.held.contains(port))?;
    let name = format!("port {port}:");
    let mut failures = seen.failures.iter();
    let failed = failures.find(|failure| failure.sentence.contains(&name));
    Some(failed.map_or_else(
        || "this host is about to publish it".to_owned(),
        |failure| failure.sentence.clone(),
    ))
}

fn drops(chains: &[Dropping]) -> Vec<String> {
    let forwarded = chains.iter().filter(|chain| chain.hook == FORWARD);
    forwarded
        .map(|chain| {
            let Dropping {
                family,
                table,
                chain,
                ..
            } = chain;
            format!(
                "chain {chain} of table {family} {table} drops what no rule of it accepts; `ovnctl doctor` there names the rule"
            )
        })
        .collect()
}

fn traffic(published: &Published, counters: &Counters) -> Vec<TaskTraffic> {
    let addresses: BTreeSet<&IpAddr> = published.backends.values().flatten().collect();
    addresses
        .into_iter()
        .map(|address| {
            let counted = counters.get(address).copied().unwrap_or_default();
            TaskTraffic {
                address: *address,
                connections: counted.connections,
                sent: counted.packets_in,
                received: counted.packets_out,
                crossed: counted.crossed,
            }
        })
        .collect()
}

/// As the dataplane names it where no interface is asked for.
pub fn host_port(port: &HeldPort) -> HostPort {
    HostPort {
        protocol: published::protocol(port.protocol),
        port: port.port,
        address: port.address,
    }
}

#[cfg(test)]
mod tests {
    use dataplane::{Counted, desired};
    use model::service::Protocol;

    use super::*;

    fn held(port: u16) -> HeldPort {
        HeldPort {
            protocol: Protocol::Tcp,
            port,
            address: None,
            interface: None,
        }
    }

    #[test]
    fn what_stands_in_the_way_is_said() {
        let task = IpAddr::from([10, 0, 0, 9]);
        let published = |port| Published {
            network: "ingress".into(),
            protocol: desired::Protocol::Tcp,
            port,
            address: None,
            interface: None,
            target: 80,
            backends: [("e1".to_owned(), vec![task])].into(),
        };
        let desired = Desired {
            published: [8000, 8001, 8002]
                .map(|port| (port.to_string(), published(port)))
                .into(),
            ..Desired::default()
        };
        let counted = Counted {
            connections: 3,
            packets_in: 12,
            packets_out: 9,
            crossed: 2,
            ..Counted::default()
        };
        let failure = Failure {
            scope: "host".into(),
            sentence: "hold port 8001/tcp: it is already in use".into(),
        };
        let chain = |hook| Dropping {
            family: "ip",
            table: "filter".into(),
            chain: "FORWARD".into(),
            hook,
        };
        let seen = Seen {
            desired: &desired,
            facts: &Facts::default(),
            held: &[host_port(&held(8000))].into(),
            failures: &[failure],
            counters: &[(task, counted)].into(),
            dropping: &[chain(1), chain(2)],
        };
        let sights = sights(&[8000, 8001, 8002, 8003].map(held), seen);
        let obstacles: Vec<_> = sights
            .iter()
            .map(|sight| sight.obstacle.as_deref())
            .collect();
        assert_eq!(
            obstacles,
            [
                None,
                Some("hold port 8001/tcp: it is already in use"),
                Some("this host is about to publish it"),
                None,
            ]
        );
        let told: Vec<bool> = sights.iter().map(|sight| sight.told).collect();
        assert_eq!(told, [true, true, true, false]);
        assert_eq!(sights[0].drops.len(), 1, "{:?}", sights[0].drops);
        let traffic = TaskTraffic {
            address: task,
            connections: 3,
            sent: 12,
            received: 9,
            crossed: 2,
        };
        assert_eq!(sights[0].tasks, [traffic]);
        assert_eq!(sights[3].tasks, []);
    }
}
