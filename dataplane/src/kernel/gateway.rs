//! The host's own ends on ingress networks, and the ports that lead there.

use std::{io, net::Ipv6Addr, os::fd::AsRawFd};

use socket2::{Domain, Socket, Type};

use super::{
    deeds::{allow_absent, index},
    links::{self, NEW_NEIGHBOUR},
    linux::Linux,
    place::set,
};
use crate::{
    desired::Protocol,
    view::{Interface, Place, bridge_name, gateway_name},
    want::local_port,
};

impl Linux {
    pub(super) fn make_gateway(&mut self, segment: &str, gateway: &Interface) -> io::Result<()> {
        let name = gateway_name(segment);
        let overlay = Place::Overlay(segment.to_owned());
        let host = std::fs::File::open("/proc/thread-self/ns/net")?;
        let route = self.route(&overlay)?;
        let bridge = index(route, &bridge_name(segment))?;
        let mtu = gateway.mtu;
        route.request(links::pair(
            &gateway.port,
            mtu,
            bridge,
            &name,
            gateway,
            host.as_raw_fd(),
        ))?;
        let port = local_port(mtu, false);
        self.set_port(&overlay, segment, &gateway.port, &port)?;
        let route = self.route(&overlay)?;
        let port = index(route, &gateway.port)?;
        route.request(links::local(NEW_NEIGHBOUR, port, gateway.mac))?;
        // Before it is up: nobody advertises there, and this host's programs reach tasks from
        // 127.0.0.1. Answers of any sender are welcome that the routes lead back to.
        allow_absent(set(&format!("net/ipv6/conf/{name}/accept_ra"), "0"))?;
        allow_absent(set(&format!("net/ipv6/conf/{name}/accept_dad"), "0"))?;
        set(&format!("net/ipv4/conf/{name}/route_localnet"), "1")?;
        let device = index(&mut self.host.route, &name)?;
        let alias = links::set_alias(device, &gateway.port);
        self.host.route.request(alias)?;
        self.set_interface(&Place::Host, &name, gateway)
    }

    /// Binds the port of all addresses and does not listen: other programs are told that it is in
    /// use, and what the rules do not lead away is refused.
    pub(super) fn hold(&mut self, protocol: Protocol, port: u16) -> io::Result<()> {
        let kind = match protocol {
            Protocol::Tcp => Type::STREAM,
            Protocol::Udp => Type::DGRAM,
            // Few kernels have its sockets, and few programs take its ports.
            Protocol::Sctp => return self.note_held(protocol, port, Vec::new()),
        };
        let mut sockets = Vec::new();
        let ipv4 = std::net::Ipv4Addr::UNSPECIFIED;
        let addresses = [ipv4.into(), Ipv6Addr::UNSPECIFIED.into()];
        for address in addresses.map(|ip: std::net::IpAddr| std::net::SocketAddr::new(ip, port)) {
            let domain = Domain::for_address(address);
            let socket = match Socket::new(domain, kind, None) {
                // A kernel without IPv6.
                Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => continue,
                other => other?,
            };
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            socket.bind(&address.into())?;
            sockets.push(socket);
        }
        self.note_held(protocol, port, sockets)
    }

    #[allow(clippy::unnecessary_wraps)] // the end of `hold`
    fn note_held(&mut self, protocol: Protocol, port: u16, held: Vec<Socket>) -> io::Result<()> {
        self.held.insert((protocol, port), held);
        Ok(())
    }
}
