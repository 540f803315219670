//! Reading one namespace: links, ports, addresses, routes, neighbours.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use ipnetwork::IpNetwork;

use super::{links, ways};
use crate::{
    netlink::{Netlink, attributes, text_of, u16_at, u32_at},
    view::{Bridge, Interface, Mac, PORT, Port, PortFlags, Sandbox, Segment, Vxlan},
};

/// A namespace as the kernel tells it.
#[derive(Debug, Default)]
pub struct Sight {
    pub links: BTreeMap<u32, Link>,
    pub addresses: BTreeMap<u32, BTreeSet<IpNetwork>>,
    /// Default routes: next hop and device.
    pub routes: Vec<(IpAddr, u32)>,
    /// Of the table of encrypted networks, see [`ways::read_route`].
    pub ways: Vec<(bool, Option<(IpAddr, u32)>)>,
    /// Device, MAC, tunnel endpoint (or none: the bridge's table), static.
    pub forwards: Vec<(u32, Mac, Option<IpAddr>, bool)>,
    pub neighbours: Vec<(u32, IpAddr, Mac)>,
}

#[derive(Debug, Default, Clone)]
pub struct Link {
    pub name: String,
    pub kind: String,
    pub alias: String,
    /// Further ones.
    pub names: Vec<String>,
    pub mtu: u32,
    pub up: bool,
    /// Both ends of a veth pair are up.
    pub carrier: bool,
    pub mac: Mac6,
    pub controller: u32,
    pub flags: PortFlags,
    pub vxlan_id: u32,
    pub vxlan_port: u16,
    pub vxlan_local: Option<IpAddr>,
    pub vxlan_learning: bool,
}

type Mac6 = Option<Mac>;

pub fn look(socket: &mut Netlink, with_tables: bool, with_routes: bool) -> io::Result<Sight> {
    let mut sight = Sight::default();
    socket.dump(links::dump_links(false), |_, body| {
        if let Some((index, link)) = link(body) {
            sight.links.insert(index, link);
        }
    })?;
    socket.dump(links::dump_links(true), |_, body| {
        let index = u32_at(body, 4).unwrap_or_default();
        let port = attributes(body.get(16..).unwrap_or_default()).find(|(kind, _)| *kind == 12);
        if let (Some(link), Some((_, port))) = (sight.links.get_mut(&index), port) {
            link.flags = flags(port);
        }
    })?;
    socket.dump(links::dump_addresses(), |_, body| {
        let prefix = body.get(1).copied().unwrap_or_default();
        let index = u32_at(body, 4).unwrap_or_default();
        let mut found = None;
        for (kind, value) in attributes(body.get(8..).unwrap_or_default()) {
            if kind == 2 || (kind == 1 && found.is_none()) {
                found = ip(value);
            }
        }
        if let Some(net) = found.and_then(|address| IpNetwork::new(address, prefix).ok()) {
            sight.addresses.entry(index).or_default().insert(net);
        }
    })?;
    if with_routes {
        socket.dump(links::dump_routes(), |_, body| {
            sight.ways.extend(ways::read_route(body));
            let main_default = body.get(1) == Some(&0) && body.get(4) == Some(&254);
            let (mut via, mut device) = (None, 0);
            for (kind, value) in attributes(body.get(12..).unwrap_or_default()) {
                match kind {
                    5 => via = ip(value),
                    4 => device = u32_at(value, 0).unwrap_or_default(),
                    _ => {}
                }
            }
            if let (true, Some(via)) = (main_default, via) {
                sight.routes.push((via, device));
            }
        })?;
    }
    if with_tables {
        socket.dump(links::dump_neighbours(true), |_, body| {
            let index = u32_at(body, 4).unwrap_or_default();
            let state = u16_at(body, 8).unwrap_or_default();
            let (mac, destination) = neighbour(body);
            if let Some(mac) = mac
                && state & 0x80 == 0
            {
                sight
                    .forwards
                    .push((index, mac, destination, state & 0x40 != 0));
            }
        })?;
        socket.dump(links::dump_neighbours(false), |_, body| {
            let index = u32_at(body, 4).unwrap_or_default();
            let permanent = u16_at(body, 8).is_some_and(|state| state & 0x80 != 0);
            if let (true, (Some(mac), Some(address))) = (permanent, neighbour(body)) {
                sight.neighbours.push((index, address, mac));
            }
        })?;
    }
    Ok(sight)
}

/// The MAC of one device.
pub fn mac(socket: &mut Netlink, device: &str) -> io::Result<Option<Mac>> {
    let mut found = None;
    socket.dump(links::get_link(device), |_, body| {
        found = link(body).and_then(|(_, link)| link.mac);
    })?;
    Ok(found)
}

impl Link {
    /// The tag of the bridge of ours that it is, and whether its own name says so.
    pub fn bridge_tag(&self) -> Option<(&str, bool)> {
        if let Some(tag) = self.name.strip_prefix("ovtb") {
            return Some((tag, true));
        }
        let mut others = self.names.iter();
        others.find_map(|name| Some((name.strip_prefix("ovtb")?, false)))
    }

    /// It is a device of ours.
    pub fn is_ours(&self) -> bool {
        self.name.starts_with("ovt") || self.bridge_tag().is_some()
    }
}

impl Sight {
    /// The segment whose bridge is called `bridge`.
    pub fn segment(&self, bridge: &str, vxlan: &str, own_namespace: bool) -> Segment {
        let mut segment = Segment {
            own_namespace,
            ..Segment::default()
        };
        let by_name = |name: &str| self.links.iter().find(|(_, link)| link.name == name);
        let master = by_name(bridge).map(|(index, _)| *index);
        if let Some((index, link)) = by_name(bridge) {
            segment.bridge = Some(Bridge {
                device: link
                    .bridge_tag()
                    .filter(|(_, own)| !own)
                    .map(|_| link.name.clone()),
                mac: link.mac.unwrap_or(Mac([0; 6])),
                mtu: link.mtu,
                up: link.up,
                addresses: self.own_addresses(*index),
            });
        }
        let port = |link: &Link| Port {
            mtu: link.mtu,
            up: link.up,
            attached: master == Some(link.controller),
            flags: link.flags,
        };
        let tunnel = by_name(vxlan).map(|(index, _)| *index);
        if let Some((_, link)) = by_name(vxlan) {
            segment.vxlan = Some(Vxlan {
                id: link.vxlan_id,
                udp_port: link.vxlan_port,
                local: link.vxlan_local.unwrap_or(IpAddr::from([0, 0, 0, 0])),
                learning: link.vxlan_learning,
                port: port(link),
            });
        }
        let ports: BTreeMap<u32, &Link> = self
            .links
            .iter()
            .filter(|(_, link)| link.name.starts_with(PORT))
            .filter(|(_, link)| own_namespace || master == Some(link.controller))
            .map(|(index, link)| (*index, link))
            .collect();
        segment.ports = ports
            .values()
            .map(|link| (link.name.clone(), port(link)))
            .collect();
        let silent = ports.values().filter(|link| !link.carrier);
        segment.silent = silent.map(|link| link.name.clone()).collect();
        let (mut tunnelled, mut bridged) = (BTreeMap::new(), BTreeSet::new());
        for (index, mac, destination, fixed) in &self.forwards {
            if Some(*index) == tunnel {
                match destination {
                    Some(vtep) => {
                        tunnelled.insert(*mac, *vtep);
                    }
                    None if *fixed => {
                        bridged.insert(*mac);
                    }
                    None => {}
                }
            } else if let Some(link) = ports.get(index)
                && *fixed
            {
                segment.locals.insert(*mac, link.name.clone());
            }
        }
        segment.strays = bridged
            .iter()
            .filter(|mac| !tunnelled.contains_key(mac))
            .copied()
            .collect();
        for (mac, vtep) in tunnelled {
            if bridged.contains(&mac) {
                segment.forwards.insert(mac, vtep);
            } else {
                segment.strays.insert(mac);
            }
        }
        segment.neighbours = self
            .neighbours
            .iter()
            .filter(|(index, ..)| Some(*index) == master)
            .filter(|(_, address, _)| !address.is_multicast())
            .map(|(_, address, mac)| (*address, *mac))
            .collect();
        segment
    }

    pub fn sandbox(&self) -> Sandbox {
        let name = |index: &u32| self.links.get(index).map(|link| link.name.clone());
        Sandbox {
            loopback_up: self.links.values().any(|link| link.name == "lo" && link.up),
            interfaces: self
                .links
                .iter()
                .filter(|(_, link)| link.name != "lo")
                .map(|(index, link)| {
                    let interface = Interface {
                        port: link.alias.clone(),
                        mac: link.mac.unwrap_or(Mac([0; 6])),
                        mtu: link.mtu,
                        up: link.up,
                        addresses: self.own_addresses(*index),
                    };
                    (link.name.clone(), interface)
                })
                .collect(),
            routes: self
                .routes
                .iter()
                .filter_map(|(via, index)| Some((*via, name(index)?)))
                .collect(),
            table: None,
            balance: None,
            ingress: None,
            back: None,
        }
    }

    /// Without the link-local ones of IPv6, which the kernel makes.
    pub fn own_addresses(&self, index: u32) -> BTreeSet<IpNetwork> {
        let all = self.addresses.get(&index).into_iter().flatten();
        all.filter(|net| match net.ip() {
            IpAddr::V4(_) => true,
            IpAddr::V6(address) => !address.is_unicast_link_local(),
        })
        .copied()
        .collect()
    }
}

fn link(body: &[u8]) -> Option<(u32, Link)> {
    let index = u32_at(body, 4)?;
    let state = u32_at(body, 8)?;
    let mut link = Link {
        up: state & 1 != 0,
        carrier: state & 0x1_0000 != 0,
        ..Link::default()
    };
    for (kind, value) in attributes(body.get(16..)?) {
        match kind {
            1 => link.mac = value.try_into().ok().map(Mac),
            3 => link.name = text_of(value),
            4 => link.mtu = u32_at(value, 0)?,
            20 => link.alias = text_of(value),
            links::PROPERTIES => link.names.extend(other_names(value)),
            10 => link.controller = u32_at(value, 0)?,
            18 => {
                for (kind, value) in attributes(value) {
                    match kind {
                        1 => link.kind = text_of(value),
                        2 if link.kind == "vxlan" => vxlan(&mut link, value),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some((index, link))
}

fn other_names(list: &[u8]) -> impl Iterator<Item = String> {
    let names = attributes(list).filter(|(kind, _)| *kind == links::OTHER_NAME);
    names.map(|(_, name)| text_of(name))
}

fn vxlan(link: &mut Link, data: &[u8]) {
    for (kind, value) in attributes(data) {
        match kind {
            1 => link.vxlan_id = u32_at(value, 0).unwrap_or_default(),
            4 | 17 => link.vxlan_local = ip(value),
            7 => link.vxlan_learning = value != [0],
            15 => link.vxlan_port = u16_at(value, 0).map(u16::from_be).unwrap_or_default(),
            _ => {}
        }
    }
}

fn flags(port: &[u8]) -> PortFlags {
    let mut flags = PortFlags::default();
    for (kind, value) in attributes(port) {
        let on = value.first() == Some(&1);
        match kind {
            8 => flags.learning = on,
            9 => flags.flood = on,
            27 => flags.multicast_flood = on,
            30 => flags.broadcast_flood = on,
            32 => flags.neigh_suppress = on,
            33 => flags.isolated = on,
            _ => {}
        }
    }
    flags
}

fn neighbour(body: &[u8]) -> (Option<Mac>, Option<IpAddr>) {
    let (mut mac, mut address) = (None, None);
    for (kind, value) in attributes(body.get(12..).unwrap_or_default()) {
        match kind {
            1 => address = ip(value),
            2 => mac = value.try_into().ok().map(Mac),
            _ => {}
        }
    }
    (mac, address)
}

pub(super) fn ip(value: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(value) {
        return Some(IpAddr::from(four));
    }
    <[u8; 16]>::try_from(value).ok().map(IpAddr::from)
}
