//! The sockets that hold published ports: other programs are told that the port is in use.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};
use tokio::runtime::Handle;

use super::{linux::Linux, sentences::not_held};
use crate::{
    desired::{HostPort, Protocol},
    firewall,
    ingress::{Change, key, port_of, relay, rules::COUNTED},
    report::Counters,
    rules::{Ruleset, bound, published},
    view::Place,
};

/// Ports that are ours: published, or kept for a service that is about to be made.
pub struct HeldPorts {
    /// Absent in tools that only look.
    runtime: Option<Handle>,
    held: BTreeMap<HostPort, Vec<Held>>,
    /// Until when.
    kept: BTreeMap<HostPort, Instant>,
}

/// What keeps a port by being there.
enum Held {
    /// Bound, and nobody reads from it.
    Bound(#[allow(dead_code)] Socket),
    Relay(#[allow(dead_code)] relay::Relay),
}

impl HeldPorts {
    pub fn new() -> Self {
        Self {
            runtime: Handle::try_current().ok(),
            held: BTreeMap::new(),
            kept: BTreeMap::new(),
        }
    }

    /// Those that lead somewhere.
    pub fn published(&self) -> BTreeSet<HostPort> {
        let all = self.held.keys();
        all.filter(|port| !self.kept.contains_key(port))
            .copied()
            .collect()
    }

    pub fn free(&mut self, port: &HostPort) {
        self.held.remove(port);
        self.kept.remove(port);
    }

    /// Takes the port, unless it is ours.
    fn hold(&mut self, port: HostPort) -> io::Result<()> {
        if !self.held.contains_key(&port) {
            let sockets = bind(port, self.runtime.as_ref())?;
            self.held.insert(port, sockets);
        }
        Ok(())
    }
}

impl Linux {
    /// All of `ports` or none are kept for some time; why not, as a sentence for each.
    pub fn keep_ports(
        &mut self,
        ports: &[HostPort],
        time: Duration,
    ) -> Result<(), Vec<(HostPort, String)>> {
        let until = Instant::now() + time;
        let (mut taken, mut refused) = (Vec::new(), Vec::new());
        for port in ports {
            if self.ports.held.contains_key(port) {
                if let Some(kept) = self.ports.kept.get_mut(port) {
                    *kept = until;
                }
                continue;
            }
            match self.ports.hold(*port) {
                Ok(()) => {
                    self.ports.kept.insert(*port, until);
                    taken.push(*port);
                }
                Err(error) => refused.push((*port, not_held(port, &error))),
            }
        }
        if refused.is_empty() {
            return Ok(());
        }
        for port in &taken {
            self.ports.free(port);
        }
        Err(refused)
    }

    /// Gives up those of `ports` that are only kept.
    pub fn release_ports(&mut self, ports: &[HostPort]) {
        for port in ports {
            if self.ports.kept.contains_key(port) {
                self.ports.free(port);
            }
        }
    }

    /// Those that lead somewhere.
    pub fn published_ports(&self) -> BTreeSet<HostPort> {
        self.ports.published()
    }

    /// When the next port that is only kept is given up.
    pub fn ports_due(&self) -> Option<Instant> {
        self.ports.kept.values().min().copied()
    }

    /// Gives up what was kept until now.
    pub fn expire_ports(&mut self) {
        let now = Instant::now();
        let over = self.ports.kept.iter().filter(|(_, until)| **until <= now);
        for port in over.map(|(port, _)| *port).collect::<Vec<_>>() {
            self.ports.free(&port);
        }
    }

    /// Takes a port to publish it. What another program has leads nowhere.
    pub(super) fn publish(&mut self, port: HostPort) -> io::Result<()> {
        let held = self.ports.hold(port);
        if held.is_ok() {
            self.ports.kept.remove(&port);
            return held;
        }
        let map = if let Some(address) = port.address {
            vec![bound(address.is_ipv6())]
        } else {
            vec![published(false), published(true)]
        };
        for map in map {
            let leave = [(map.to_owned(), vec![key(&port)])].into();
            let change = Change {
                leave,
                ..Change::default()
            };
            // It may lead nowhere already, or have no table.
            let _ = firewall::ports::write(self.nft(&Place::Host)?, &change);
        }
        held
    }

    /// What the table of published ports has counted.
    pub fn counters(&mut self) -> io::Result<Counters> {
        let nft = self.nft(&Place::Host)?;
        let mut counters = Counters::new();
        for (place, names) in COUNTED.into_iter().enumerate() {
            for set in [names.0, names.1] {
                for (key, (packets, bytes)) in firewall::ports::counted(nft, set)? {
                    let Some(address) = address(&key) else {
                        continue;
                    };
                    let counted = counters.entry(address).or_default();
                    match place {
                        0 => (counted.packets_in, counted.bytes_in) = (packets, bytes),
                        1 => (counted.packets_out, counted.bytes_out) = (packets, bytes),
                        _ => counted.connections = packets,
                    }
                }
            }
        }
        Ok(counters)
    }

    /// See [`firewall::ports::crossed`].
    pub fn crossed(&mut self, sandbox: &Path) -> io::Result<u64> {
        let place = Place::Sandbox(sandbox.to_owned());
        firewall::ports::crossed(self.nft(&place)?)
    }

    /// Takes the ways of ports that are not ours out of a table to be.
    pub(super) fn only_held(&self, rules: &mut Ruleset) {
        let held = self.ports.published();
        for (name, map) in &mut rules.maps {
            let elements = &mut map.elements;
            elements.retain(|key, _| port_of(name, key).is_none_or(|port| held.contains(&port)));
        }
    }
}

fn address(key: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(key).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(key).map(IpAddr::from))
        .ok()
}

/// Takes the port without leave for others to share it.
fn bind(port: HostPort, runtime: Option<&Handle>) -> io::Result<Vec<Held>> {
    let kind = match port.protocol {
        Protocol::Tcp => Type::STREAM,
        Protocol::Udp => Type::DGRAM,
        // Few kernels have its sockets, and few programs take its ports.
        Protocol::Sctp => return Ok(Vec::new()),
    };
    let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let addresses = port.address.map_or(any.to_vec(), |address| vec![address]);
    let mut held = Vec::new();
    for address in addresses {
        let address = SocketAddr::new(address, port.port);
        let socket = match Socket::new(Domain::for_address(address), kind, None) {
            // A kernel without IPv6.
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => continue,
            other => other?,
        };
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if port.address.is_some() {
            // An address that this host does not have yet leads here once it comes.
            setsockopt(&socket, sockopt::IpFreebind, &true)?;
        }
        let relayed = address.is_ipv6() && port.address.is_none();
        held.push(match runtime {
            Some(runtime) if kind == Type::STREAM => {
                // Ended connections of whoever had the port before do not hinder; that this one
                // listens keeps others away all the same.
                socket.set_reuse_address(true)?;
                socket.bind(&address.into())?;
                Held::Relay(relay::tcp(socket, port.port, relayed, runtime)?)
            }
            Some(runtime) if relayed => {
                socket.bind(&address.into())?;
                Held::Relay(relay::udp(socket, port.port, runtime)?)
            }
            _ => {
                socket.bind(&address.into())?;
                Held::Bound(socket)
            }
        });
    }
    Ok(held)
}
