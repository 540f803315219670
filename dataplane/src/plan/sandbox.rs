//! One sandbox: its namespace, interfaces, routes and table.

use std::{collections::BTreeSet, path::Path};

use super::{Pair, Plan, Step, difference, field, list, table::diff_table};
use crate::{
    balance,
    desired::Desired,
    ingress,
    rules::TableName,
    view::{Interface, PORT, Place, View, handed_device, is_guest, is_handed},
};

/// Everything of one sandbox, the veth pairs included.
pub fn diff_sandbox(
    plan: &mut Plan,
    desired: &Desired,
    id: &str,
    wanted: &crate::view::Sandbox,
    seen: &View,
) {
    let Some(wish) = desired.sandboxes.get(id) else {
        return;
    };
    let path = wish.netns.as_path();
    let name = format!("sandbox {id}");
    let empty = crate::view::Sandbox::default();
    let found = seen.sandboxes.get(path);
    let guest = is_guest(path);
    if guest && found.is_none() {
        // Whoever looks after guests takes it out of the wish.
        if is_handed(path) {
            hand_over(plan, desired, &name, wish, wanted, seen);
        }
        return;
    }
    if found.is_none_or(|found| !found.loopback_up) {
        plan.step(
            Step::MakeSandbox {
                sandbox: path.into(),
                id: id.into(),
            },
            format!("{name}: its namespace is missing or its loopback is down"),
        );
    }
    let found = found.unwrap_or(&empty);
    let mut fresh = BTreeSet::new();
    for interface in &wish.interfaces {
        let Some(inner) = wanted.interfaces.get(&interface.name) else {
            continue;
        };
        let made = diff_interface(plan, desired, &name, path, interface, inner, found, seen);
        if made {
            fresh.insert(interface.name.clone());
        }
    }
    let standing: BTreeSet<_> = found
        .routes
        .iter()
        .filter(|(_, device)| !fresh.contains(device))
        .cloned()
        .collect();
    // Only next hops of a family that we have a wish for are ours to judge.
    let families: BTreeSet<bool> = wanted.routes.iter().map(|(via, _)| via.is_ipv6()).collect();
    let ours: BTreeSet<_> = wish
        .interfaces
        .iter()
        .map(|interface| interface.name.as_str())
        .collect();
    let extra: BTreeSet<_> = standing
        .iter()
        .filter(|(via, device)| {
            !wanted.routes.contains(&(*via, device.clone()))
                && (families.contains(&via.is_ipv6()) && !guest || ours.contains(device.as_str()))
        })
        .cloned()
        .collect();
    if !extra.is_empty() {
        let text = list(
            extra
                .iter()
                .map(|(via, device)| format!("{via} over {device}")),
        );
        plan.step(
            Step::DropRoutes {
                sandbox: path.into(),
                routes: extra,
            },
            format!("{name}: default route by {text} is not wanted"),
        );
    }
    let missing = difference(&wanted.routes, &standing);
    if !missing.is_empty() {
        let text = list(
            missing
                .iter()
                .map(|(via, device)| format!("{via} over {device}")),
        );
        plan.step(
            Step::SetRoutes {
                sandbox: path.into(),
                routes: missing,
            },
            format!("{name}: default route by {text} is missing"),
        );
    }
    let table = |table| (Place::Sandbox(path.into()), table);
    diff_table(
        plan,
        &name,
        table(TableName::Overnet),
        wanted.table.as_ref(),
        found.table.as_ref(),
        crate::rules::sandbox,
    );
    diff_table(
        plan,
        &name,
        table(TableName::Ingress),
        wanted.ingress.as_ref(),
        found.ingress.as_ref(),
        || ingress::rules::marks(desired, wish).unwrap_or_default(),
    );
    // Its chains hang on interfaces and go with them.
    let back = found.back.as_ref().filter(|_| fresh.is_empty());
    diff_table(
        plan,
        &name,
        table(TableName::Back),
        wanted.back.as_ref(),
        back,
        || ingress::rules::back(desired, wish).unwrap_or_default(),
    );
    diff_balance(plan, desired, wish, &name, wanted, found);
}

/// Interfaces that the guest's owner is to take into a namespace of which we do not know yet. Those
/// whose other end is there have been made.
fn hand_over(
    plan: &mut Plan,
    desired: &Desired,
    name: &str,
    wish: &crate::desired::Sandbox,
    wanted: &crate::view::Sandbox,
    seen: &View,
) {
    for interface in &wish.interfaces {
        let segment = crate::view::tag(&interface.network);
        let port = crate::view::port_name(&interface.endpoint);
        let ports = seen.segments.get(&segment).map(|segment| &segment.ports);
        let known = desired.networks.contains_key(&interface.network);
        if !known || ports.is_some_and(|ports| ports.contains_key(&port)) {
            continue;
        }
        let Some(inner) = wanted.interfaces.get(&interface.name) else {
            continue;
        };
        plan.step(
            Step::MakePair(Box::new(Pair {
                place: Place::Overlay(segment.clone()),
                segment,
                name: port,
                port: crate::want::local_port(inner.mtu, false),
                sandbox: wish.netns.clone(),
                inner: handed_device(&interface.endpoint),
                interface: inner.clone(),
            })),
            format!("{name}: its interface is missing"),
        );
    }
}

fn diff_balance(
    plan: &mut Plan,
    desired: &Desired,
    wish: &crate::desired::Sandbox,
    name: &str,
    wanted: &crate::view::Sandbox,
    found: &crate::view::Sandbox,
) {
    let sandbox = wish.netns.clone();
    let Some(wanted) = &wanted.balance else {
        if found.balance.is_some() {
            plan.step(
                Step::DropBalance(sandbox),
                format!("{name}: its virtual IPs are not wanted any more"),
            );
        }
        return;
    };
    let change = balance::difference(desired, wish, wanted, found.balance.as_ref());
    if change.is_empty() {
        return;
    }
    let reason = if change.whole {
        format!("{name}: the rules of its virtual IPs are missing or others")
    } else {
        format!(
            "{name}: virtual IPs: {} chains and {} addresses are missing, others or not wanted",
            change.chains.len(),
            change.addresses.len()
        )
    };
    let change = Box::new(change);
    plan.step(Step::SetBalance { sandbox, change }, reason);
}

/// Answers whether the interface is made anew.
#[allow(clippy::too_many_arguments)] // one wish and what is known of it, in one place
fn diff_interface(
    plan: &mut Plan,
    desired: &Desired,
    name: &str,
    path: &Path,
    wish: &crate::desired::Interface,
    inner: &Interface,
    found: &crate::view::Sandbox,
    seen: &View,
) -> bool {
    let segment = crate::view::tag(&wish.network);
    let port = crate::view::port_name(&wish.endpoint);
    let standing = seen
        .segments
        .get(&segment)
        .is_some_and(|s| s.ports.contains_key(&port));
    let Some(network) = desired.networks.get(&wish.network) else {
        return false;
    };
    let (own, isolated) = match network.kind {
        crate::desired::NetworkKind::Overlay { .. } => (true, false),
        crate::desired::NetworkKind::Bridge { isolated, .. } => (false, isolated),
    };
    let place = if own {
        Place::Overlay(segment.clone())
    } else {
        Place::Host
    };
    let make = |plan: &mut Plan, why: String| {
        plan.step(
            Step::MakePair(Box::new(Pair {
                place: place.clone(),
                segment: segment.clone(),
                name: port.clone(),
                port: crate::want::local_port(inner.mtu, isolated),
                sandbox: path.into(),
                inner: wish.name.clone(),
                interface: inner.clone(),
            })),
            why,
        );
        true
    };
    let have = found.interfaces.get(&wish.name);
    // An interface of a guest's own stays: the kernel refuses to make one beside it, and says so.
    let have = have.filter(|have| !is_guest(path) || have.port.starts_with(PORT));
    match (standing, have) {
        (false, None) => make(plan, format!("{name}: interface {} is missing", wish.name)),
        (true, None) => {
            plan.step(
                Step::DropPort {
                    place: place.clone(),
                    segment: segment.clone(),
                    port: port.clone(),
                },
                format!("{name}: port {port} has lost its interface {}", wish.name),
            );
            make(plan, format!("{name}: interface {} is missing", wish.name))
        }
        (false, Some(_)) => {
            plan.step(
                Step::DropInterface {
                    sandbox: path.into(),
                    name: wish.name.clone(),
                },
                format!("{name}: interface {} has lost its port {port}", wish.name),
            );
            make(
                plan,
                format!("{name}: interface {} is made anew", wish.name),
            )
        }
        (true, Some(have)) if have.port != port => {
            plan.step(
                Step::DropInterface {
                    sandbox: path.into(),
                    name: wish.name.clone(),
                },
                format!("{name}: interface {} belongs to another port", wish.name),
            );
            plan.step(
                Step::DropPort {
                    place: place.clone(),
                    segment: segment.clone(),
                    port: port.clone(),
                },
                format!("{name}: port {port} belongs to another interface"),
            );
            make(
                plan,
                format!("{name}: interface {} is made anew", wish.name),
            )
        }
        (true, Some(have)) => {
            let mut why = Vec::new();
            field(&mut why, "MTU", &inner.mtu, &have.mtu);
            field(&mut why, "MAC", &inner.mac, &have.mac);
            field(&mut why, "up", &inner.up, &have.up);
            let missing = difference(&inner.addresses, &have.addresses);
            if !missing.is_empty() {
                why.push(format!("address {} is missing", list(missing.iter())));
            }
            let extra = difference(&have.addresses, &inner.addresses);
            if !extra.is_empty() {
                why.push(format!("address {} is not wanted", list(extra.iter())));
            }
            if !why.is_empty() {
                plan.step(
                    Step::SetInterface {
                        sandbox: path.into(),
                        name: wish.name.clone(),
                        interface: inner.clone(),
                    },
                    format!("{name}: interface {}: {}", wish.name, why.join("; ")),
                );
            }
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::PathBuf};

    use super::*;
    use crate::{
        desired::{self, Network, NetworkKind, Subnet},
        view::{Mac, Sandbox, Segment, guest_name, handed_name, port_name, tag},
        want::want_sandbox,
    };

    /// One sandbox on a local network, bound at this path, with a default route.
    fn wish(path: &str) -> Desired {
        let interface = desired::Interface {
            endpoint: "e1".into(),
            network: "n1".into(),
            name: "eth0".into(),
            addresses: vec!["10.0.0.5/24".parse().unwrap()],
            mac: [2, 0, 0, 0, 0, 5],
            default_via: vec!["10.0.0.1".parse().unwrap()],
            publishes: false,
            names: vec![],
        };
        let network = Network {
            name: "front".into(),
            kind: NetworkKind::Bridge {
                masquerade: true,
                isolated: false,
                internal: false,
                device: None,
            },
            subnets: vec![Subnet {
                subnet: "10.0.0.0/24".parse().unwrap(),
                gateway: "10.0.0.1".parse().unwrap(),
            }],
            mtu: None,
        };
        let sandbox = desired::Sandbox {
            netns: path.into(),
            interfaces: vec![interface],
            dns: None,
            counted: false,
        };
        Desired {
            networks: BTreeMap::from([("n1".into(), network)]),
            sandboxes: BTreeMap::from([("s1".into(), sandbox)]),
            ..Desired::default()
        }
    }

    fn steps(path: &str, found: Option<Sandbox>) -> Vec<Step> {
        let desired = wish(path);
        let wanted = want_sandbox(
            &desired,
            &crate::view::Facts::default(),
            &desired.sandboxes["s1"],
        );
        let mut seen = View::default();
        if let Some(found) = found {
            seen.sandboxes.insert(PathBuf::from(path), found);
        }
        let mut plan = Plan::default();
        diff_sandbox(&mut plan, &desired, "s1", &wanted, &seen);
        plan.sorted().steps
    }

    #[test]
    fn what_is_handed_out_is_made_once_and_on_the_host() {
        let path = format!("/run/netns/{}", handed_name("s1"));
        let made = steps(&path, None);
        let [Step::MakePair(pair)] = &made[..] else {
            panic!("{made:?}");
        };
        assert_eq!(pair.inner, handed_device("e1"));
        assert_eq!(pair.name, port_name("e1"));
        // Its owner has it, or is about to.
        let desired = wish(&path);
        let facts = crate::view::Facts::default();
        let wanted = want_sandbox(&desired, &facts, &desired.sandboxes["s1"]);
        let mut segment = Segment::default();
        let port = crate::want::local_port(1450, false);
        segment.ports.insert(port_name("e1"), port);
        let mut seen = View::default();
        seen.segments.insert(tag("n1"), segment);
        let mut plan = Plan::default();
        diff_sandbox(&mut plan, &desired, "s1", &wanted, &seen);
        assert_eq!(plan.steps, []);
        // One that has arrived is like every guest's.
        let there = Sandbox {
            loopback_up: true,
            ..Sandbox::default()
        };
        let made = steps(&path, Some(there));
        let own = made.iter().find_map(|step| match step {
            Step::MakePair(pair) => Some(pair.inner.as_str()),
            _ => None,
        });
        assert_eq!(own, Some("eth0"), "{made:?}");
    }

    /// What somebody else has there: an interface of our wish's name, and a default route.
    fn of_another(port: &str) -> Sandbox {
        let interface = Interface {
            port: port.into(),
            mac: Mac([2, 9, 9, 9, 9, 9]),
            mtu: 1500,
            up: true,
            addresses: BTreeSet::new(),
        };
        Sandbox {
            loopback_up: true,
            interfaces: BTreeMap::from([("eth0".into(), interface)]),
            routes: BTreeSet::from([("192.0.2.1".parse().unwrap(), "ppp0".into())]),
            ..Sandbox::default()
        }
    }

    #[test]
    fn nothing_of_a_guests_own_is_made_or_dropped() {
        let guest = format!("/run/netns/{}", guest_name("s1"));
        let drops = |step: &Step| {
            matches!(
                step,
                Step::DropInterface { .. } | Step::DropRoutes { .. } | Step::MakeSandbox { .. }
            )
        };
        assert_eq!(steps(&guest, None), []);
        let beside = steps(&guest, Some(of_another("")));
        assert!(!beside.iter().any(drops), "{beside:?}");
        assert!(beside.iter().any(|step| matches!(step, Step::MakePair(_))));
        // One of ours that has lost its other end goes, there too.
        let lost = steps(&guest, Some(of_another(&port_name("e9"))));
        assert!(
            lost.iter()
                .any(|step| matches!(step, Step::DropInterface { .. }))
        );
        // In a sandbox of ours all is ours.
        let own = steps("/run/netns/s1", Some(of_another("")));
        assert!(
            own.iter()
                .any(|step| matches!(step, Step::DropInterface { .. }))
        );
        assert!(
            own.iter()
                .any(|step| matches!(step, Step::DropRoutes { .. }))
        );
        let missing = steps("/run/netns/s1", None);
        assert!(
            missing
                .iter()
                .any(|step| matches!(step, Step::MakeSandbox { .. }))
        );
    }
}
