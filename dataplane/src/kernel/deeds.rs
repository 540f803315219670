//! Carrying out steps: one arm each, and a sentence for every refusal.

use std::{collections::BTreeSet, fs::File, io, net::IpAddr, os::fd::AsRawFd, path::Path};

use super::{
    links::{self, DEL_ADDRESS, DEL_ROUTE, NEW_ADDRESS, NEW_NEIGHBOUR, NEW_ROUTE},
    linux::Linux,
    place::{set, unbind},
    sentences::{path, reason, scope, what},
    sight, ways,
};
use crate::{
    balance, conntrack, firewall,
    netlink::{Netlink, u32_at},
    plan::{Pair, Step},
    report::Failure,
    rules::TableName,
    view::{
        Bridge, HANDED_DEVICE, Interface, Place, Port, Vxlan, bridge_name, gateway_name, is_guest,
        vxlan_name,
    },
};

/// A group of links that nobody else gives to his: ours are in it for the moment of their removal.
const LEAVING: u32 = 0x4f56_4e45;

/// The ports of one place that the first of these steps remove.
fn ports_that_go(steps: &[Step]) -> (Place, Vec<&str>) {
    let Some(Step::DropPort { place: first, .. }) = steps.first() else {
        return (Place::Host, Vec::new());
    };
    let ports = steps.iter().map_while(|step| match step {
        Step::DropPort { place, port, .. } if place == first => Some(port.as_str()),
        _ => None,
    });
    (first.clone(), ports.collect())
}

impl Linux {
    /// Carries out `steps` in their order. What stands on something that failed is left out: the
    /// failure of its ground says enough. Scopes are segments' tags and sandboxes' paths.
    pub fn apply(&mut self, steps: &[Step]) -> Vec<Failure> {
        let _part = trace::part!("netlink", steps = steps.len()).entered();
        let (mut failures, mut broken) = (Vec::new(), BTreeSet::new());
        let mut rest = steps;
        while let Some(step) = rest.first() {
            let (place, ports) = ports_that_go(rest);
            if ports.len() > 1 && self.drop_ports(&place, &ports).is_ok() {
                rest = &rest[ports.len()..];
                continue;
            }
            rest = &rest[1..];
            let ground = self.ground(step);
            if ground.iter().any(|object| broken.contains(object)) {
                continue;
            }
            if let Err(error) = self.deed(step) {
                let scope = scope(step);
                failures.push(Failure {
                    scope: scope.clone(),
                    sentence: format!("cannot {}: {}", what(step), reason(step, &error)),
                });
                if matches!(
                    step,
                    Step::MakeNamespace { .. }
                        | Step::MakeBridge { .. }
                        | Step::MakeVxlan { .. }
                        | Step::MakeSandbox { .. }
                ) {
                    broken.insert(scope);
                }
            }
        }
        failures
    }

    /// Removes ports of one place together: the kernel waits until nobody uses a device any more,
    /// some ten milliseconds, for each one or once for all.
    fn drop_ports(&mut self, place: &Place, ports: &[&str]) -> io::Result<()> {
        let route = self.route(place)?;
        let marked = ports.iter().map(|port| links::set_group(port, LEAVING));
        let failed = route.batch(marked)?;
        if let Some((_, error)) = failed.into_iter().find(|(_, error)| !is_gone(error)) {
            return Err(error);
        }
        gone_is_fine(route.request(links::delete_group(LEAVING)))
    }

    /// The place that a step touches, besides the sandbox of a pair.
    pub fn touches(&self, step: &Step) -> Place {
        match step {
            Step::DropTable { place, .. }
            | Step::DropPort { place, .. }
            | Step::DropBridge { place, .. }
            | Step::MakeBridge { place, .. }
            | Step::SetBridge { place, .. }
            | Step::SetPort { place, .. }
            | Step::SetEntries { place, .. }
            | Step::SetTable { place, .. } => place.clone(),
            Step::MakePair(pair) => pair.place.clone(),
            Step::DropSandbox(sandbox)
            | Step::DropInterface { sandbox, .. }
            | Step::DropRoutes { sandbox, .. }
            | Step::MakeSandbox { sandbox, .. }
            | Step::SetInterface { sandbox, .. }
            | Step::SetRoutes { sandbox, .. }
            | Step::DropBalance(sandbox)
            | Step::SetBalance { sandbox, .. } => Place::Sandbox(sandbox.clone()),
            Step::DropEntries { segment, .. } | Step::DropAddresses { segment, .. } => {
                self.place_of(segment)
            }
            Step::DropVxlan { segment }
            | Step::DropNamespace { segment }
            | Step::MakeNamespace { segment }
            | Step::MakeVxlan { segment, .. }
            | Step::SetVxlan { segment, .. } => Place::Overlay(segment.clone()),
            Step::SetForwarding(_)
            | Step::SetPassage { .. }
            | Step::SetElements { .. }
            | Step::DropGateway { .. }
            | Step::MakeGateway { .. }
            | Step::SetGateway { .. }
            | Step::CutPublished { .. }
            | Step::SetTunnel { .. }
            | Step::DropTunnel { .. }
            | Step::SetWay { .. }
            | Step::DropWay { .. }
            | Step::SetPorts(_)
            | Step::HoldPort(..)
            | Step::FreePort(..) => Place::Host,
        }
    }

    #[allow(clippy::unused_self)] // beside `touches`
    fn ground(&self, step: &Step) -> Vec<String> {
        match step {
            Step::MakePair(pair) => vec![pair.segment.clone(), path(&pair.sandbox)],
            other => vec![scope(other)],
        }
    }

    fn deed(&mut self, step: &Step) -> io::Result<()> {
        match step {
            Step::DropTable { place, table } => firewall::remove(self.nft(place)?, *table),
            Step::DropGateway { segment } => {
                let name = gateway_name(segment);
                gone_is_fine(self.host.route.request(links::delete_link(&name)))
            }
            Step::MakeGateway { segment, gateway } => self.make_gateway(segment, gateway),
            Step::SetGateway { segment, gateway } => {
                self.set_interface(&Place::Host, &gateway_name(segment), gateway)
            }
            Step::CutPublished { allowed, subnets } => {
                let nft = self.nft(&Place::Host)?;
                conntrack::cut_published(nft, allowed, subnets).map(drop)
            }
            Step::HoldPort(port) => self.publish(*port),
            Step::FreePort(port) => {
                self.ports.free(port);
                Ok(())
            }
            Step::SetTable { place, rules } if rules.name == TableName::Ingress => {
                let mut rules = rules.clone();
                if *place == Place::Host {
                    self.only_held(&mut rules);
                }
                firewall::replace(self.nft(place)?, &rules)?;
                match place {
                    Place::Sandbox(sandbox) => self.forget_closed(sandbox),
                    Place::Host | Place::Overlay(_) => Ok(()),
                }
            }
            Step::SetTable { place, rules } => firewall::replace(self.nft(place)?, rules),
            Step::SetPorts(change) => {
                let mut change = change.clone();
                change.only(&self.ports.published());
                self.set_ports(&change)
            }
            Step::SetElements { set, add, remove } => {
                firewall::change_set(self.nft(&Place::Host)?, set, add, remove)
            }
            Step::DropBalance(sandbox) => {
                let place = Place::Sandbox(sandbox.clone());
                balance::nft::remove(self.nft(&place)?)
            }
            Step::SetBalance { sandbox, change } => self.set_balance(sandbox, change),
            Step::DropSandbox(sandbox) => {
                if is_guest(sandbox) {
                    self.leave_guest(sandbox)?;
                }
                self.forget(sandbox);
                if sandbox.parent() == Some(&self.folder) {
                    unbind(sandbox)?;
                }
                Ok(())
            }
            Step::MakeSandbox { sandbox, .. } => self.make_sandbox(sandbox),
            Step::DropNamespace { segment } => self.drop_namespace(segment),
            Step::MakeNamespace { segment } => self.make_namespace(segment),
            Step::DropInterface { sandbox, name } => {
                let route = self.route(&Place::Sandbox(sandbox.clone()))?;
                gone_is_fine(route.request(links::delete_link(name)))
            }
            Step::DropRoutes { sandbox, routes } => self.routes(DEL_ROUTE, sandbox, routes),
            Step::SetRoutes { sandbox, routes } => self.routes(NEW_ROUTE, sandbox, routes),
            Step::DropEntries { segment, entries } => self.drop_entries(segment, entries),
            Step::SetEntries {
                segment,
                place,
                entries,
            } => self.set_entries(segment, place, entries),
            Step::DropPort { place, port, .. } => {
                gone_is_fine(self.route(place)?.request(links::delete_link(port)))
            }
            Step::DropAddresses { segment, addresses } => {
                let route = self.route(&self.place_of(segment))?;
                let bridge = index(route, &bridge_name(segment))?;
                addresses.iter().try_for_each(|address| {
                    gone_is_fine(route.request(links::address(DEL_ADDRESS, bridge, *address)))
                })
            }
            Step::DropVxlan { segment } => {
                let route = self.route(&Place::Overlay(segment.clone()))?;
                gone_is_fine(route.request(links::delete_link(&vxlan_name(segment))))
            }
            Step::DropBridge { place, segment } => {
                let route = self.route(place)?;
                gone_is_fine(route.request(links::delete_link(&bridge_name(segment))))
            }
            Step::SetForwarding(wanted) => {
                if wanted.ipv4 {
                    set("net/ipv4/ip_forward", "1")?;
                }
                if wanted.ipv6 {
                    set("net/ipv6/conf/all/forwarding", "1")?;
                }
                Ok(())
            }
            Step::SetPassage { ipv6, open } => match &mut self.host.nft {
                Some(nft) => firewall::docker::set(nft, *ipv6, *open),
                None => Ok(()),
            },
            Step::MakeBridge {
                place,
                segment,
                bridge,
            } => {
                let route = self.route(place)?;
                let ours = bridge_name(segment);
                let name = bridge.device.clone().unwrap_or_else(|| ours.clone());
                make_bridge(route, &name, &ours, bridge)?;
                if *place == Place::Host {
                    // This host's programs reach its containers' ports at 127.0.0.1.
                    set(&format!("net/ipv4/conf/{name}/route_localnet"), "1")?;
                }
                let index = index(route, &name)?;
                route.request(links::set_link(index, Some(bridge.mtu), None, None))?;
                bridge.addresses.iter().try_for_each(|address| {
                    route.request(links::address(NEW_ADDRESS, index, *address))
                })
            }
            Step::SetBridge {
                place,
                segment,
                bridge,
            } => {
                let route = self.route(place)?;
                let name = bridge_name(segment);
                let index = index(route, &name)?;
                // Even the same MAC, set again, makes the kernel forget all neighbours.
                let held = sight::mac(route, &name)?;
                let mac = (held != Some(bridge.mac)).then_some(bridge.mac);
                route.request(links::set_link(index, Some(bridge.mtu), mac, None))?;
                bridge.addresses.iter().try_for_each(|address| {
                    route.request(links::address(NEW_ADDRESS, index, *address))
                })
            }
            Step::MakeVxlan { segment, vxlan } => self.make_vxlan(segment, vxlan),
            Step::SetVxlan { segment, port } => {
                let place = Place::Overlay(segment.clone());
                self.set_port(&place, segment, &vxlan_name(segment), port)
            }
            Step::SetPort {
                place,
                segment,
                name,
                port,
            } => self.set_port(place, segment, name, port),
            Step::SetTunnel {
                device,
                tunnel,
                local,
                key,
            } => self.set_tunnel(device, tunnel, (*local, key)),
            Step::DropTunnel { device } => self.drop_tunnel(device),
            Step::SetWay {
                ipv6,
                set,
                gone,
                old,
            } => ways::set(&mut self.host.route, *ipv6, (set, gone, *old)),
            Step::DropWay { ipv6, way } => ways::remove(&mut self.host.route, *ipv6, way),
            Step::MakePair(pair) => self.make_pair(pair),
            Step::SetInterface {
                sandbox,
                name,
                interface,
            } => self.set_interface(&Place::Sandbox(sandbox.clone()), name, interface),
        }
    }

    pub(super) fn route(&mut self, place: &Place) -> io::Result<&mut Netlink> {
        if *place == Place::Host {
            return Ok(&mut self.host.route);
        }
        let space = self.space(place)?.ok_or_else(no_namespace)?;
        Ok(&mut space.sockets.route)
    }

    pub(super) fn nft(&mut self, place: &Place) -> io::Result<&mut Netlink> {
        let sockets = if *place == Place::Host {
            &mut self.host
        } else {
            &mut self.space(place)?.ok_or_else(no_namespace)?.sockets
        };
        sockets
            .nft
            .as_mut()
            .ok_or_else(|| io::Error::other("there is no nftables socket in this namespace"))
    }

    fn make_vxlan(&mut self, segment: &str, vxlan: &Vxlan) -> io::Result<()> {
        let name = vxlan_name(segment);
        let place = Place::Overlay(segment.to_owned());
        let space = self.space(&place)?.ok_or_else(no_namespace)?;
        let namespace = space.namespace.as_raw_fd();
        // Asked of the host's socket, so that the tunnel's UDP socket is the host's.
        self.host
            .route
            .request(links::vxlan(&name, vxlan, namespace))?;
        let made = self.set_port(&place, segment, &name, &vxlan.port);
        if made.is_err() {
            // A device that cannot be opened must not look like one that only is down.
            let removed = self.route(&place)?.request(links::delete_link(&name));
            if let Err(error) = removed {
                tracing::warn!("cannot remove {name} after a failure: {error}");
            }
        }
        made
    }

    pub(super) fn set_port(
        &mut self,
        place: &Place,
        segment: &str,
        name: &str,
        port: &Port,
    ) -> io::Result<()> {
        let route = self.route(place)?;
        let bridge = index(route, &bridge_name(segment))?;
        let device = index(route, name)?;
        for message in links::set_port(device, bridge, port) {
            route.request(message)?;
        }
        Ok(())
    }

    fn make_pair(&mut self, pair: &Pair) -> io::Result<()> {
        let handed = pair.inner.starts_with(HANDED_DEVICE);
        let (sandbox, namespace) = if handed {
            (Place::Host, File::open(self.path(&Place::Host))?)
        } else {
            let sandbox = Place::Sandbox(pair.sandbox.clone());
            let space = self.space(&sandbox)?.ok_or_else(no_namespace)?;
            let namespace = space.namespace.try_clone()?;
            (sandbox, namespace)
        };
        let route = self.route(&pair.place)?;
        let bridge = index(route, &bridge_name(&pair.segment))?;
        route.request(links::pair(
            &pair.name,
            pair.port.mtu,
            bridge,
            &pair.inner,
            &pair.interface,
            namespace.as_raw_fd(),
        ))?;
        if is_guest(&pair.sandbox) && !handed {
            self.open_guest(pair)?;
        }
        self.set_port(&pair.place, &pair.segment, &pair.name, &pair.port)?;
        // With its port a row of the forwarding table goes and comes.
        let route = self.route(&pair.place)?;
        let port = index(route, &pair.name)?;
        route.request(links::local(NEW_NEIGHBOUR, port, pair.interface.mac))?;
        let route = self.route(&sandbox)?;
        let inner = index(route, &pair.inner)?;
        route.request(links::set_alias(inner, &pair.name))?;
        if handed {
            // Its addresses are none of the host's; its owner gives them to it in its place.
            return Ok(());
        }
        self.set_interface(&sandbox, &pair.inner, &pair.interface)
    }

    pub(super) fn set_interface(
        &mut self,
        place: &Place,
        name: &str,
        wanted: &Interface,
    ) -> io::Result<()> {
        let route = self.route(place)?;
        let device = index(route, name)?;
        let sight = sight::look(route, false, false)?.sandbox();
        let found = sight.interfaces.get(name);
        let same = |held: &Interface| held.mac == wanted.mac;
        let mac = (!found.is_some_and(same)).then_some(wanted.mac);
        route.request(links::set_link(device, Some(wanted.mtu), mac, None))?;
        let none = BTreeSet::new();
        let held = found.map_or(&none, |interface| &interface.addresses);
        for address in held.difference(&wanted.addresses) {
            gone_is_fine(route.request(links::address(DEL_ADDRESS, device, *address)))?;
        }
        for address in wanted.addresses.difference(held) {
            route.request(links::address(NEW_ADDRESS, device, *address))?;
        }
        Ok(())
    }

    fn routes(
        &mut self,
        kind: u16,
        sandbox: &Path,
        routes: &BTreeSet<(IpAddr, String)>,
    ) -> io::Result<()> {
        let route = self.route(&Place::Sandbox(sandbox.to_owned()))?;
        for (via, device) in routes {
            let done = index(route, device)
                .and_then(|index| route.request(links::default_route(kind, index, *via)));
            if kind == DEL_ROUTE {
                gone_is_fine(done)?;
            } else {
                done?;
            }
        }
        Ok(())
    }
}

/// Makes the device, and gives one whose name a user chose the name of ours too, by which it is
/// known. One that a kill has left between the two is known by its MAC.
fn make_bridge(route: &mut Netlink, name: &str, ours: &str, bridge: &Bridge) -> io::Result<()> {
    let made = route.request(links::bridge(name, bridge));
    if bridge.device.is_none() {
        return made;
    }
    match made {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
            if sight::mac(route, name)? != Some(bridge.mac) {
                let taken = format!("device {name} is there already and is not ours");
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, taken));
            }
        }
        made => made?,
    }
    let device = index(route, name)?;
    route.request(links::add_name(device, ours))
}

pub(super) fn index(route: &mut Netlink, name: &str) -> io::Result<u32> {
    let mut found = None;
    route
        .dump(links::get_link(name), |_, body| found = u32_at(body, 4))
        .map_err(|error| io::Error::new(error.kind(), format!("device {name}: {error}")))?;
    found.ok_or_else(|| io::Error::other(format!("device {name}: the kernel did not say")))
}

pub(super) fn is_gone(error: &io::Error) -> bool {
    let gone = [
        libc::ENOENT,
        libc::ENODEV,
        libc::ESRCH,
        libc::EADDRNOTAVAIL,
        libc::ENXIO,
    ];
    error
        .raw_os_error()
        .is_some_and(|code| gone.contains(&code))
        || error.kind() == io::ErrorKind::NotFound
}

pub(super) fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if !is_gone(&error) => Err(error),
        _ => Ok(()),
    }
}

pub(super) fn allow_absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub(super) fn no_namespace() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "its network namespace is gone")
}
