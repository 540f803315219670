//! Rows of forwarding and neighbour tables, in batches.

use std::io;

use super::{
    deeds::{index, is_gone},
    links::{self, DEL_NEIGHBOUR, NEW_NEIGHBOUR},
    linux::Linux,
};
use crate::{
    netlink::{Message, Netlink},
    plan::Entries,
    view::{Place, bridge_name, vxlan_name},
};

impl Linux {
    pub(super) fn drop_entries(&mut self, segment: &str, entries: &Entries) -> io::Result<()> {
        let route = self.route(&self.place_of(segment))?;
        let mut messages = Vec::new();
        // With its device the entries are gone, too.
        if let Ok(tunnel) = index(route, &vxlan_name(segment)) {
            let forwards = entries.forwards.iter();
            messages.extend(forwards.flat_map(|(mac, _)| links::drop_forward(tunnel, *mac)));
        }
        for (mac, port) in &entries.locals {
            if let Ok(port) = index(route, port) {
                messages.push(links::local(DEL_NEIGHBOUR, port, *mac));
            }
        }
        if let Ok(bridge) = index(route, &bridge_name(segment)) {
            let neighbours = entries.neighbours.iter();
            messages.extend(
                neighbours.map(|(at, mac)| links::neighbour(DEL_NEIGHBOUR, bridge, *at, *mac)),
            );
        }
        send(route, messages, true)
    }

    pub(super) fn set_entries(
        &mut self,
        segment: &str,
        place: &Place,
        entries: &Entries,
    ) -> io::Result<()> {
        let route = self.route(place)?;
        let mut messages = Vec::with_capacity(entries.len());
        if !entries.forwards.is_empty() {
            let tunnel = index(route, &vxlan_name(segment))?;
            let forwards = entries.forwards.iter();
            messages.extend(forwards.map(|(mac, vtep)| links::set_forward(tunnel, *mac, *vtep)));
        }
        for (mac, port) in &entries.locals {
            let port = index(route, port)?;
            messages.push(links::local(NEW_NEIGHBOUR, port, *mac));
        }
        if !entries.neighbours.is_empty() {
            let bridge = index(route, &bridge_name(segment))?;
            let neighbours = entries.neighbours.iter();
            messages.extend(
                neighbours.map(|(at, mac)| links::neighbour(NEW_NEIGHBOUR, bridge, *at, *mac)),
            );
        }
        send(route, messages, false)
    }
}

fn send(route: &mut Netlink, messages: Vec<Message>, drop: bool) -> io::Result<()> {
    let count = messages.len();
    let mut failures = route.batch(messages)?;
    failures.retain(|(_, error)| !(drop && is_gone(error)));
    let refused = failures.len();
    match failures.into_iter().next() {
        None => Ok(()),
        Some((_, first)) => Err(io::Error::new(
            first.kind(),
            format!("{refused} of {count} refused, the first: {first}"),
        )),
    }
}
