//! WireGuard devices and the ways into them.

use std::collections::BTreeSet;

use super::{Plan, Step, field};
use crate::{
    desired::Desired,
    view::{Tunnel, View, Way, tunnel_name},
};

pub fn diff_tunnels(plan: &mut Plan, desired: &Desired, wanted: &View, seen: &View) {
    for device in seen.tunnels.keys() {
        if !wanted.tunnels.contains_key(device) {
            plan.step(
                Step::DropTunnel {
                    device: device.clone(),
                },
                format!("host: WireGuard device {device} is not wanted any more"),
            );
        }
    }
    let own = desired.underlay.iter().flat_map(|underlay| {
        let keys = underlay.tunnels.keys.iter();
        keys.map(|(generation, key)| (underlay.address, generation, key))
    });
    for (local, generation, key) in own {
        let device = tunnel_name(*generation);
        let (want, found) = (wanted.tunnels.get(&device), seen.tunnels.get(&device));
        let as_wanted = |want: &&Tunnel| found.is_some_and(|found| found.is_as(want));
        let Some(want) = want.filter(|want| !as_wanted(want)) else {
            continue;
        };
        plan.step(
            Step::SetTunnel {
                device: device.clone(),
                tunnel: want.clone(),
                local,
                key: key.file.clone(),
            },
            format!("host: WireGuard device {device} {}", why(want, found)),
        );
    }
    for ipv6 in [false, true] {
        diff_way(plan, ipv6, wanted.ways.of(ipv6), seen.ways.of(ipv6));
    }
}

fn why(wanted: &Tunnel, found: Option<&Tunnel>) -> String {
    let Some(found) = found else {
        return "is missing".to_owned();
    };
    if found.public_key.is_none() {
        return "has no key, or its process has gone".to_owned();
    }
    let mut why = Vec::new();
    field(&mut why, "MTU", &wanted.mtu, &found.mtu);
    field(&mut why, "up", &wanted.up, &found.up);
    field(&mut why, "UDP port", &wanted.port, &found.port);
    if let (Some(want), Some(has)) = (wanted.local, found.local) {
        field(&mut why, "address", &want, &has);
    }
    if wanted.public_key != found.public_key {
        why.push("has another key".to_owned());
    }
    if wanted.peers != found.peers {
        let (want, have) = (wanted.peers.len(), found.peers.len());
        why.push(format!("wanted {want} peers, found {have} or others"));
    }
    why.join("; ")
}

fn diff_way(plan: &mut Plan, ipv6: bool, wanted: &Way, seen: &Way) {
    if wanted == seen {
        return;
    }
    if *wanted == Way::default() {
        let way = seen.clone();
        plan.step(
            Step::DropWay { ipv6, way },
            "host: routes of encrypted networks are not wanted any more",
        );
        return;
    }
    let mut set = wanted.clone();
    set.routes
        .retain(|to, by| seen.routes.get(to) != Some(&*by));
    set.closed &= !seen.closed;
    set.rule = wanted.rule.filter(|port| seen.rule != Some(*port));
    let gone: BTreeSet<_> = seen
        .routes
        .keys()
        .filter(|to| !wanted.routes.contains_key(to))
        .copied()
        .collect();
    let reason = format!(
        "host: routes of encrypted networks: {} to set, {} to remove{}",
        set.routes.len(),
        gone.len(),
        if set.closed || set.rule.is_some() {
            "; the rule or the end of the table is missing"
        } else {
            ""
        }
    );
    let old = seen.rule.filter(|port| wanted.rule != Some(*port));
    plan.step(
        Step::SetWay {
            ipv6,
            set,
            gone,
            old,
        },
        reason,
    );
}
