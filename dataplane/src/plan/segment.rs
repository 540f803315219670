//! One network: its bridge, VXLAN device and ports.

use std::collections::{BTreeMap, BTreeSet};

use super::{Names, Plan, Step, difference, entries::diff_entries, field, list};
use crate::view::{Place, Port, Segment, Vxlan, bridge_name, vxlan_name};

pub fn diff_segment(
    plan: &mut Plan,
    names: &Names,
    tag: &str,
    wanted: Option<&Segment>,
    seen: Option<&Segment>,
) {
    let name = names.of(tag);
    let nothing = Segment::default();
    let Some(wanted) = wanted else {
        let Some(seen) = seen else { return };
        if seen.own_namespace {
            plan.step(
                Step::DropNamespace {
                    segment: tag.into(),
                },
                format!("{name}: not wanted any more"),
            );
            return;
        }
        for port in seen.ports.keys() {
            plan.step(
                Step::DropPort {
                    place: Place::Host,
                    segment: tag.into(),
                    port: port.clone(),
                },
                format!("{name}: port {port} is not wanted any more"),
            );
        }
        plan.step(
            Step::DropBridge {
                place: Place::Host,
                segment: tag.into(),
            },
            format!("{name}: not wanted any more"),
        );
        return;
    };
    let place = wanted.place(tag);
    if wanted.own_namespace && seen.is_none() {
        plan.step(
            Step::MakeNamespace {
                segment: tag.into(),
            },
            format!("{name}: its namespace is missing"),
        );
    }
    let seen = seen.unwrap_or(&nothing);
    let mut rebuilt = false;
    if let Some(bridge) = &wanted.bridge {
        let device = bridge_name(tag);
        match &seen.bridge {
            None => {
                rebuilt = true;
                plan.step(
                    Step::MakeBridge {
                        place: place.clone(),
                        segment: tag.into(),
                        bridge: bridge.clone(),
                    },
                    format!("{name}: bridge {device} is missing"),
                );
            }
            Some(found) => {
                let mut why = Vec::new();
                field(&mut why, "MTU", &bridge.mtu, &found.mtu);
                field(&mut why, "MAC", &bridge.mac, &found.mac);
                field(&mut why, "up", &bridge.up, &found.up);
                let missing = difference(&bridge.addresses, &found.addresses);
                if !missing.is_empty() {
                    why.push(format!("address {} is missing", list(missing.iter())));
                }
                if !why.is_empty() {
                    plan.step(
                        Step::SetBridge {
                            place: place.clone(),
                            segment: tag.into(),
                            bridge: bridge.clone(),
                        },
                        format!("{name}: bridge {device}: {}", why.join("; ")),
                    );
                }
                let extra = difference(&found.addresses, &bridge.addresses);
                if !extra.is_empty() {
                    plan.step(
                        Step::DropAddresses {
                            segment: tag.into(),
                            addresses: extra.clone(),
                        },
                        format!("{name}: bridge {device} has address {}", list(extra.iter())),
                    );
                }
            }
        }
    }
    // A VXLAN device that is made anew has no entries any more.
    let mut empty_tunnel = false;
    if let Some(vxlan) = &wanted.vxlan {
        empty_tunnel = diff_vxlan(plan, &name, tag, vxlan, seen.vxlan.as_ref(), rebuilt);
    }
    for port in seen
        .ports
        .keys()
        .filter(|port| !wanted.ports.contains_key(*port))
    {
        plan.step(
            Step::DropPort {
                place: place.clone(),
                segment: tag.into(),
                port: port.clone(),
            },
            format!("{name}: port {port} is not wanted any more"),
        );
    }
    for (port, want) in &wanted.ports {
        let Some(found) = seen.ports.get(port) else {
            continue;
        };
        let why = port_differs(want, found, rebuilt);
        if !why.is_empty() {
            plan.step(
                Step::SetPort {
                    place: place.clone(),
                    segment: tag.into(),
                    name: port.clone(),
                    port: want.clone(),
                },
                format!("{name}: port {port}: {}", why.join("; ")),
            );
        }
    }
    // The kernel forgets a device's neighbours with the device, and with its MAC.
    let found = seen.bridge.as_ref().map(|bridge| bridge.mac);
    let flushed = rebuilt || found != wanted.bridge.as_ref().map(|bridge| bridge.mac);
    let bare;
    let seen = if flushed || empty_tunnel {
        bare = Segment {
            locals: if rebuilt {
                BTreeMap::new()
            } else {
                seen.locals.clone()
            },
            neighbours: if flushed {
                BTreeMap::new()
            } else {
                seen.neighbours.clone()
            },
            forwards: if rebuilt || empty_tunnel {
                BTreeMap::new()
            } else {
                seen.forwards.clone()
            },
            strays: if empty_tunnel {
                BTreeSet::new()
            } else {
                seen.strays.clone()
            },
            ..Segment::default()
        };
        &bare
    } else {
        seen
    };
    diff_entries(plan, &name, tag, wanted, seen);
}

/// Answers whether the device is made anew.
fn diff_vxlan(
    plan: &mut Plan,
    name: &str,
    tag: &str,
    wanted: &Vxlan,
    seen: Option<&Vxlan>,
    rebuilt: bool,
) -> bool {
    let device = vxlan_name(tag);
    let Some(found) = seen else {
        plan.step(
            Step::MakeVxlan {
                segment: tag.into(),
                vxlan: wanted.clone(),
            },
            format!("{name}: VXLAN device {device} is missing"),
        );
        return true;
    };
    let mut why = Vec::new();
    field(&mut why, "id", &wanted.id, &found.id);
    field(&mut why, "UDP port", &wanted.udp_port, &found.udp_port);
    field(&mut why, "local address", &wanted.local, &found.local);
    field(&mut why, "learning", &wanted.learning, &found.learning);
    if !why.is_empty() {
        let why = why
            .into_iter()
            .map(|why| format!("vxlan {why}"))
            .collect::<Vec<_>>();
        plan.step(
            Step::DropVxlan {
                segment: tag.into(),
            },
            format!("{name}: {device}: {}", why.join("; ")),
        );
        plan.step(
            Step::MakeVxlan {
                segment: tag.into(),
                vxlan: wanted.clone(),
            },
            format!("{name}: {device} is made anew"),
        );
        return true;
    }
    let why = port_differs(&wanted.port, &found.port, rebuilt);
    if !why.is_empty() {
        plan.step(
            Step::SetVxlan {
                segment: tag.into(),
                port: wanted.port.clone(),
            },
            format!("{name}: {device}: {}", why.join("; ")),
        );
    }
    false
}

fn port_differs(wanted: &Port, found: &Port, rebuilt: bool) -> Vec<String> {
    let mut why = Vec::new();
    field(&mut why, "MTU", &wanted.mtu, &found.mtu);
    field(&mut why, "up", &wanted.up, &found.up);
    field(
        &mut why,
        "attached to the bridge",
        &wanted.attached,
        &(found.attached && !rebuilt),
    );
    let (want, have) = (wanted.flags, found.flags);
    if found.attached && !rebuilt {
        field(&mut why, "learning", &want.learning, &have.learning);
        field(&mut why, "flooding", &want.flood, &have.flood);
        field(
            &mut why,
            "multicast flooding",
            &want.multicast_flood,
            &have.multicast_flood,
        );
        field(
            &mut why,
            "broadcast flooding",
            &want.broadcast_flood,
            &have.broadcast_flood,
        );
        field(
            &mut why,
            "neigh_suppress",
            &want.neigh_suppress,
            &have.neigh_suppress,
        );
        field(&mut why, "isolated", &want.isolated, &have.isolated);
    }
    why
}
