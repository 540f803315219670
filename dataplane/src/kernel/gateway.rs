//! The host's own ends on ingress networks.

use std::{io, os::fd::AsRawFd};

use super::{
    deeds::{allow_absent, index},
    links::{self, NEW_NEIGHBOUR},
    linux::Linux,
    place::set,
};
use crate::{
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
}
