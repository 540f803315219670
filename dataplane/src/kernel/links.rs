//! Messages of rtnetlink: links, addresses, routes, forwarding and neighbour entries.
//! Numbers are those of linux/if_link.h, linux/neighbour.h and linux/rtnetlink.h.

use std::{net::IpAddr, os::fd::RawFd};

use ipnetwork::IpNetwork;

use crate::{
    netlink::{CREATE, EXCLUSIVE, Message, REPLACE},
    rules::octets,
    view::{Bridge, Interface, Mac, Port, PortFlags, Vxlan},
};

/// IFLA_GROUP of linux/if_link.h.
const GROUP: u16 = 27;
pub const NEW_LINK: u16 = 16;
pub const DEL_LINK: u16 = 17;
pub const GET_LINK: u16 = 18;
const SET_LINK: u16 = 19;
pub const NEW_ADDRESS: u16 = 20;
pub const DEL_ADDRESS: u16 = 21;
pub const GET_ADDRESS: u16 = 22;
pub const NEW_ROUTE: u16 = 24;
pub const DEL_ROUTE: u16 = 25;
pub const GET_ROUTE: u16 = 26;
pub const NEW_NEIGHBOUR: u16 = 28;
pub const DEL_NEIGHBOUR: u16 = 29;
pub const GET_NEIGHBOUR: u16 = 30;
pub const NEW_NAME: u16 = 108;
pub const AF_BRIDGE: u8 = 7;
/// IFLA_PROP_LIST and IFLA_ALT_IFNAME of linux/if_link.h.
pub const PROPERTIES: u16 = 52;
pub const OTHER_NAME: u16 = 53;
/// Route protocol number by which our routes are known (free in /etc/iproute2/rt_protos).
const PROTOCOL: u8 = 79;
const NODAD: u8 = 0x02;
const STATE_PERMANENT: u16 = 0x80;
/// As `bridge fdb … static`: the bridge keeps it for NOARP, the VXLAN device asks for REACHABLE.
const STATE_STATIC: u16 = 0x40 | 0x02;
const SELF: u8 = 0x02;
const CONTROLLER: u8 = 0x04;

fn link_header(index: u32, up: Option<bool>) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    if let Some(up) = up {
        header[8] = u8::from(up);
        header[12] = 1;
    }
    header
}

/// Without its MTU: only one that is set later is kept when ports come and go.
pub fn bridge(name: &str, wanted: &Bridge) -> Message {
    let mut message = Message::new(NEW_LINK, CREATE | EXCLUSIVE, &link_header(0, Some(true)));
    message.text(3, name).attribute(1, &wanted.mac.0);
    message.nest(18, |info| {
        info.text(1, "bridge");
        info.nest(2, |data| {
            data.attribute(23, &[0]); // mcast_snooping: nobody asks the questions it needs
            data.number(1, 0); // forward_delay: a port forwards at once
        });
    });
    message
}

/// Born in the namespace `netns`; its UDP socket is in that of the socket it is asked by.
pub fn vxlan(name: &str, wanted: &Vxlan, netns: RawFd) -> Message {
    let mut message = Message::new(NEW_LINK, CREATE | EXCLUSIVE, &link_header(0, None));
    message
        .text(3, name)
        .number(4, wanted.port.mtu)
        .number(28, netns as u32);
    message.nest(18, |info| {
        info.text(1, "vxlan");
        info.nest(2, |data| {
            data.number(1, wanted.id)
                .attribute(15, &wanted.udp_port.to_be_bytes());
            data.attribute(
                if wanted.local.is_ipv6() { 17 } else { 4 },
                &octets(&wanted.local),
            );
            data.attribute(7, &[u8::from(wanted.learning)]);
        });
    });
    message
}

pub fn pair(
    name: &str,
    mtu: u32,
    bridge: u32,
    inner: &str,
    far: &Interface,
    netns: RawFd,
) -> Message {
    let mut message = Message::new(NEW_LINK, CREATE | EXCLUSIVE, &link_header(0, Some(true)));
    message.text(3, name).number(4, mtu).number(10, bridge);
    message.nest(18, |info| {
        info.text(1, "veth");
        info.nest(2, |data| {
            data.nest(1, |peer| {
                // Down: at this moment the peer has no peer yet, and opening it is refused.
                peer.raw(&link_header(0, None));
                peer.text(3, inner)
                    .number(4, far.mtu)
                    .attribute(1, &far.mac.0);
                peer.number(28, netns as u32);
            });
        });
    });
    message
}

pub fn set_link(index: u32, mtu: Option<u32>, mac: Option<Mac>, bridge: Option<u32>) -> Message {
    let mut message = Message::new(NEW_LINK, 0, &link_header(index, Some(true)));
    if let Some(mtu) = mtu {
        message.number(4, mtu);
    }
    if let Some(mac) = mac {
        message.attribute(1, &mac.0);
    }
    if let Some(bridge) = bridge {
        message.number(10, bridge);
    }
    message
}

pub fn set_alias(index: u32, alias: &str) -> Message {
    let mut message = Message::new(NEW_LINK, 0, &link_header(index, None));
    message.text(20, alias);
    message
}

/// Gives a device a further name, by which it is found as by its own.
pub fn add_name(index: u32, name: &str) -> Message {
    let mut message = Message::new(NEW_NAME, CREATE, &link_header(index, None));
    message.nest(PROPERTIES, |list| {
        list.text(OTHER_NAME, name);
    });
    message
}

pub fn set_flags(index: u32, flags: PortFlags) -> Message {
    let mut header = link_header(index, None);
    header[0] = AF_BRIDGE;
    let mut message = Message::new(SET_LINK, 0, &header);
    message.nest(12, |port| {
        for (kind, on) in [
            (8, flags.learning),
            (9, flags.flood),
            (27, flags.multicast_flood),
            (30, flags.broadcast_flood),
            (32, flags.neigh_suppress),
            (33, flags.isolated),
        ] {
            port.attribute(kind, &[u8::from(on)]);
        }
    });
    message
}

/// By `RTM_SETLINK`: with `RTM_NEWLINK` a name that is gone would mean all links of the group.
pub fn set_group(name: &str, group: u32) -> Message {
    let mut message = Message::new(SET_LINK, 0, &link_header(0, None));
    message.text(3, name).number(GROUP, group);
    message
}

/// All links of a group in one go.
pub fn delete_group(group: u32) -> Message {
    let mut message = Message::new(DEL_LINK, 0, &link_header(0, None));
    message.number(GROUP, group);
    message
}

pub fn delete_link(name: &str) -> Message {
    let mut message = Message::new(DEL_LINK, 0, &link_header(0, None));
    message.text(3, name);
    message
}

pub fn get_link(name: &str) -> Message {
    let mut message = Message::new(GET_LINK, crate::netlink::ACK, &link_header(0, None));
    message.text(3, name);
    message
}

pub fn address(kind: u16, index: u32, address: IpNetwork) -> Message {
    let family = family(address.ip());
    let mut header = [family, address.prefix(), NODAD, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&index.to_ne_bytes());
    let flags = if kind == NEW_ADDRESS {
        CREATE | REPLACE
    } else {
        0
    };
    let mut message = Message::new(kind, flags, &header);
    let bytes = octets(&address.ip());
    message.attribute(2, &bytes).attribute(1, &bytes);
    if let IpNetwork::V4(net) = address
        && net.prefix() < 31
    {
        message.attribute(4, &net.broadcast().octets());
    }
    message
}

pub fn default_route(kind: u16, index: u32, via: IpAddr) -> Message {
    let header = [family(via), 0, 0, 0, 254, PROTOCOL, 0, 1, 0, 0, 0, 0];
    let mut header = header;
    if kind == DEL_ROUTE {
        header[5] = 0;
    }
    let flags = if kind == NEW_ROUTE {
        CREATE | REPLACE
    } else {
        0
    };
    let mut message = Message::new(kind, flags, &header);
    message.attribute(5, &octets(&via)).number(4, index);
    message
}

fn neighbour_header(family: u8, index: u32, state: u16, flags: u8) -> [u8; 12] {
    let mut header = [0; 12];
    header[0] = family;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&state.to_ne_bytes());
    header[10] = flags;
    header
}

/// One message for both tables, the VXLAN device's and the bridge's.
pub fn set_forward(vxlan: u32, mac: Mac, vtep: IpAddr) -> Message {
    let header = neighbour_header(AF_BRIDGE, vxlan, STATE_STATIC, SELF | CONTROLLER);
    let mut message = Message::new(NEW_NEIGHBOUR, CREATE | REPLACE, &header);
    message.attribute(2, &mac.0).attribute(1, &octets(&vtep));
    message
}

/// Two messages: one for both ends at the first table that lacks the entry.
pub fn drop_forward(vxlan: u32, mac: Mac) -> [Message; 2] {
    [SELF, CONTROLLER].map(|table| {
        let header = neighbour_header(AF_BRIDGE, vxlan, 0, table);
        let mut message = Message::new(DEL_NEIGHBOUR, 0, &header);
        message.attribute(2, &mac.0);
        message
    })
}

pub fn local(kind: u16, port: u32, mac: Mac) -> Message {
    let header = neighbour_header(AF_BRIDGE, port, STATE_STATIC, CONTROLLER);
    let flags = if kind == NEW_NEIGHBOUR {
        CREATE | REPLACE
    } else {
        0
    };
    let mut message = Message::new(kind, flags, &header);
    message.attribute(2, &mac.0);
    message
}

pub fn neighbour(kind: u16, bridge: u32, address: IpAddr, mac: Mac) -> Message {
    let header = neighbour_header(family(address), bridge, STATE_PERMANENT, 0);
    let flags = if kind == NEW_NEIGHBOUR {
        CREATE | REPLACE
    } else {
        0
    };
    let mut message = Message::new(kind, flags, &header);
    message.attribute(1, &octets(&address)).attribute(2, &mac.0);
    message
}

pub fn dump_links(ports: bool) -> Message {
    let mut header = link_header(0, None);
    if ports {
        header[0] = AF_BRIDGE;
    }
    Message::new(GET_LINK, crate::netlink::DUMP, &header)
}

pub fn dump_addresses() -> Message {
    Message::new(GET_ADDRESS, crate::netlink::DUMP, &[0; 8])
}

pub fn dump_routes() -> Message {
    Message::new(GET_ROUTE, crate::netlink::DUMP, &[0; 12])
}

pub fn dump_neighbours(bridge_table: bool) -> Message {
    let family = if bridge_table { AF_BRIDGE } else { 0 };
    Message::new(
        GET_NEIGHBOUR,
        crate::netlink::DUMP,
        &neighbour_header(family, 0, 0, 0),
    )
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv6() { 10 } else { 2 }
}

/// What [`Port`] asks of a device that exists.
pub fn set_port(index: u32, bridge: u32, port: &Port) -> [Message; 2] {
    [
        set_link(index, Some(port.mtu), None, Some(bridge)),
        set_flags(index, port.flags),
    ]
}
