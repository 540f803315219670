//! The messages we write by hand are byte for byte those of netlink-packet-route's types.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Instant,
};

use dataplane::{kernel::links, netlink::Message, view::Mac};
use netlink_packet_core::{
    NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourHeader, NeighbourMessage,
        NeighbourState,
    },
    route::RouteType,
};

const NEW: u16 = 28;
const MAC: [u8; 6] = [2, 0x42, 10, 0, 0, 2];
const HEADER: usize = 16;

fn typed(
    family: AddressFamily,
    (index, state): (u32, NeighbourState),
    flags: NeighbourFlags,
    attributes: Vec<NeighbourAttribute>,
) -> Vec<u8> {
    let mut neighbour = NeighbourMessage::default();
    neighbour.header = NeighbourHeader {
        family,
        ifindex: index,
        state,
        flags,
        kind: RouteType::Unspec,
    };
    neighbour.attributes = attributes;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE;
    let payload = NetlinkPayload::from(RouteNetlinkMessage::NewNeighbour(neighbour));
    let mut message = NetlinkMessage::new(header, payload);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn forward(vtep: Ipv4Addr) -> Vec<u8> {
    typed(
        AddressFamily::Bridge,
        (7, NeighbourState::Other(0x40 | 0x02)),
        NeighbourFlags::Own | NeighbourFlags::Controller,
        vec![
            NeighbourAttribute::LinkLayerAddress(MAC.to_vec()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet(vtep)),
        ],
    )
}

/// All but length and sequence number, which are filled in when a message is sent.
#[track_caller]
fn same(ours: &Message, theirs: &[u8]) {
    let ours = ours.bytes();
    assert_eq!(ours.len(), theirs.len());
    assert_eq!(ours[4..8], theirs[4..8], "type and flags");
    assert_eq!(ours[HEADER..], theirs[HEADER..], "neighbour and attributes");
}

#[test]
fn neighbours_are_written_as_the_typed_crate_writes_them() {
    let vtep = Ipv4Addr::new(192, 0, 2, 1);
    same(
        &links::set_forward(7, Mac(MAC), IpAddr::V4(vtep)),
        &forward(vtep),
    );
    same(
        &links::local(NEW, 9, Mac(MAC)),
        &typed(
            AddressFamily::Bridge,
            (9, NeighbourState::Other(0x40 | 0x02)),
            NeighbourFlags::Controller,
            vec![NeighbourAttribute::LinkLayerAddress(MAC.to_vec())],
        ),
    );
    let v4 = Ipv4Addr::new(10, 0, 0, 2);
    let v6: Ipv6Addr = "fd00::2".parse().unwrap();
    let mac = NeighbourAttribute::LinkLayerAddress(MAC.to_vec());
    for (address, family, typed_address) in [
        (
            IpAddr::V4(v4),
            AddressFamily::Inet,
            NeighbourAddress::Inet(v4),
        ),
        (
            IpAddr::V6(v6),
            AddressFamily::Inet6,
            NeighbourAddress::Inet6(v6),
        ),
    ] {
        same(
            &links::neighbour(NEW, 5, address, Mac(MAC)),
            &typed(
                family,
                (5, NeighbourState::Permanent),
                NeighbourFlags::empty(),
                vec![NeighbourAttribute::Destination(typed_address), mac.clone()],
            ),
        );
    }
}

/// Not a limit but a figure, for the decision record.
#[test]
fn what_ten_thousand_rows_cost() {
    const ROWS: u32 = 10_000;
    let each = |rounds: &mut dyn FnMut(Ipv4Addr)| {
        let mut best = f64::MAX;
        for _ in 0..10 {
            let start = Instant::now();
            for row in 0..ROWS {
                rounds(Ipv4Addr::from(row));
            }
            best = best.min(start.elapsed().as_secs_f64() / f64::from(ROWS) * 1e9);
        }
        best
    };
    let by_hand = each(&mut |vtep| {
        black_box(links::set_forward(7, Mac(MAC), IpAddr::V4(vtep)).bytes());
    });
    let by_type = each(&mut |vtep| {
        black_box(forward(vtep));
    });
    println!("by hand {by_hand:.0} ns, by type {by_type:.0} ns a message");
}
