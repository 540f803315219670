//! From what is wanted and what is seen to steps with their reasons. Pure.
//!
//! Removals come first, in the reverse order of creation; both are sorted, so that equal inputs
//! give equal plans.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{
    desired::Desired,
    rules::Ruleset,
    view::{
        Bridge, Forwarding, Interface, Mac, Observed, Place, Port, Segment, Table, View, Vxlan,
        bridge_name, vxlan_name,
    },
    want::want,
};

/// Entries of one kind that are named one by one in the reasons; more are counted.
const NAMED: usize = 8;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// Why, as sentences: the object, what was wanted, what was found.
    pub reasons: Vec<String>,
}

/// One deed. The variants stand in the order in which they are carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Step {
    DropTable(Place),
    /// Unbinds a namespace that we made; its devices go by `DropPort`.
    DropSandbox(PathBuf),
    DropInterface {
        sandbox: PathBuf,
        name: String,
    },
    DropRoutes {
        sandbox: PathBuf,
        routes: BTreeSet<(IpAddr, String)>,
    },
    DropEntries {
        segment: String,
        entries: Entries,
    },
    DropPort {
        place: Place,
        segment: String,
        port: String,
    },
    DropAddresses {
        segment: String,
        addresses: BTreeSet<IpNetwork>,
    },
    DropVxlan {
        segment: String,
    },
    DropBridge {
        place: Place,
        segment: String,
    },
    /// The namespace of an overlay network, with all that is in it.
    DropNamespace {
        segment: String,
    },
    SetForwarding(Forwarding),
    /// The namespace of an overlay network, br_netfilter off.
    MakeNamespace {
        segment: String,
    },
    MakeBridge {
        place: Place,
        segment: String,
        bridge: Bridge,
    },
    SetBridge {
        place: Place,
        segment: String,
        bridge: Bridge,
    },
    MakeVxlan {
        segment: String,
        vxlan: Vxlan,
    },
    SetVxlan {
        segment: String,
        port: Port,
    },
    MakeSandbox {
        sandbox: PathBuf,
        id: String,
    },
    /// A veth pair whose far end is born in the sandbox.
    MakePair(Box<Pair>),
    SetPort {
        place: Place,
        segment: String,
        name: String,
        port: Port,
    },
    SetInterface {
        sandbox: PathBuf,
        name: String,
        interface: Interface,
    },
    SetRoutes {
        sandbox: PathBuf,
        routes: BTreeSet<(IpAddr, String)>,
    },
    SetEntries {
        segment: String,
        place: Place,
        entries: Entries,
    },
    /// Replaces the whole table in one transaction.
    SetTable {
        place: Place,
        rules: Box<Ruleset>,
    },
    /// Elements of one set of the host's table.
    SetElements {
        set: String,
        add: BTreeSet<Vec<u8>>,
        remove: BTreeSet<Vec<u8>>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    pub place: Place,
    pub segment: String,
    pub name: String,
    pub port: Port,
    pub sandbox: PathBuf,
    pub inner: String,
    pub interface: Interface,
}

/// Rows of a segment's forwarding and neighbour tables.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entries {
    pub forwards: Vec<(Mac, IpAddr)>,
    pub locals: Vec<(Mac, String)>,
    pub neighbours: Vec<(IpAddr, Mac)>,
}

impl Entries {
    pub fn is_empty(&self) -> bool {
        self.forwards.is_empty() && self.locals.is_empty() && self.neighbours.is_empty()
    }

    pub fn len(&self) -> usize {
        self.forwards.len() + self.locals.len() + self.neighbours.len()
    }
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    pub(crate) fn step(&mut self, step: Step, reason: impl Into<String>) {
        self.steps.push(step);
        self.reasons.push(reason.into());
    }

    /// Puts the steps into the order of carrying out.
    pub fn sorted(mut self) -> Self {
        self.steps.sort_by_key(Step::rank);
        self
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return writeln!(out, "nothing to do");
        }
        self.reasons
            .iter()
            .try_for_each(|reason| writeln!(out, "{reason}"))
    }
}

/// The whole plan.
pub fn plan(desired: &Desired, observed: &Observed) -> Plan {
    let wanted = want(desired, &observed.facts);
    diff(desired, &wanted, &observed.view)
}

/// The difference of two views.
pub fn diff(desired: &Desired, wanted: &View, seen: &View) -> Plan {
    let mut plan = Plan::default();
    let names = Names::new(desired);
    let tags: BTreeSet<&String> = wanted.segments.keys().chain(seen.segments.keys()).collect();
    for tag in tags {
        diff_segment(
            &mut plan,
            &names,
            tag,
            wanted.segments.get(tag),
            seen.segments.get(tag),
        );
    }
    for path in seen
        .sandboxes
        .keys()
        .filter(|path| !wanted.sandboxes.contains_key(*path))
    {
        plan.step(
            Step::DropSandbox(path.clone()),
            format!("sandbox {}: not wanted any more", path.display()),
        );
    }
    for (id, sandbox) in &desired.sandboxes {
        if let Some(wanted) = wanted.sandboxes.get(&sandbox.netns) {
            diff_sandbox(&mut plan, desired, id, wanted, seen);
        }
    }
    diff_host(&mut plan, desired, wanted, seen);
    plan.sorted()
}

/// Names for the sentences.
pub struct Names(BTreeMap<String, String>);

impl Names {
    pub fn new(desired: &Desired) -> Self {
        Self(
            desired
                .networks
                .iter()
                .map(|(id, network)| (crate::view::tag(id), network.name.clone()))
                .collect(),
        )
    }

    fn of(&self, tag: &str) -> String {
        self.0.get(tag).map_or_else(
            || format!("network {tag}"),
            |name| format!("network {name}"),
        )
    }
}

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
            strays: if rebuilt || empty_tunnel {
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

/// `wanted` and `seen` may be whole segments or the same few rows of both.
pub fn diff_entries(plan: &mut Plan, name: &str, tag: &str, wanted: &Segment, seen: &Segment) {
    let set = Entries {
        forwards: changed(&wanted.forwards, &seen.forwards),
        locals: changed(&wanted.locals, &seen.locals),
        neighbours: changed(&wanted.neighbours, &seen.neighbours),
    };
    let mut drop = Entries {
        forwards: gone(&wanted.forwards, &seen.forwards),
        locals: gone(&wanted.locals, &seen.locals),
        neighbours: gone(&wanted.neighbours, &seen.neighbours),
    };
    for mac in seen
        .strays
        .iter()
        .filter(|mac| !wanted.forwards.contains_key(*mac))
    {
        drop.forwards.push((*mac, IpAddr::from([0, 0, 0, 0])));
    }
    if !drop.is_empty() {
        sentences(plan, name, &drop, "is not wanted");
        plan.steps.push(Step::DropEntries {
            segment: tag.into(),
            entries: drop,
        });
    }
    if !set.is_empty() {
        sentences(plan, name, &set, "is missing or another");
        plan.steps.push(Step::SetEntries {
            segment: tag.into(),
            place: wanted.place(tag),
            entries: set,
        });
    }
}

fn sentences(plan: &mut Plan, name: &str, entries: &Entries, what: &str) {
    if entries.len() > NAMED {
        plan.reasons.push(format!(
            "{name}: {} forwarding and {} neighbour entries: each {what}",
            entries.forwards.len() + entries.locals.len(),
            entries.neighbours.len()
        ));
        return;
    }
    for (mac, vtep) in &entries.forwards {
        plan.reasons
            .push(format!("{name}: forwarding entry {mac} to {vtep} {what}"));
    }
    for (mac, port) in &entries.locals {
        plan.reasons.push(format!(
            "{name}: forwarding entry {mac} to port {port} {what}"
        ));
    }
    for (address, mac) in &entries.neighbours {
        plan.reasons
            .push(format!("{name}: neighbour entry {address} at {mac} {what}"));
    }
}

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
                && (families.contains(&via.is_ipv6()) || ours.contains(device.as_str()))
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
    diff_table(
        plan,
        &name,
        Place::Sandbox(path.into()),
        wanted.table.as_ref(),
        found.table.as_ref(),
        crate::rules::sandbox,
    );
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
    match (standing, found.interfaces.get(&wish.name)) {
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

pub fn diff_host(plan: &mut Plan, desired: &Desired, wanted: &View, seen: &View) {
    let missing = Forwarding {
        ipv4: wanted.forwarding.ipv4 && !seen.forwarding.ipv4,
        ipv6: wanted.forwarding.ipv6 && !seen.forwarding.ipv6,
    };
    if missing != Forwarding::default() {
        plan.step(
            Step::SetForwarding(missing),
            "host: forwarding between interfaces is off; local networks need it",
        );
    }
    let rules = || crate::rules::host(desired).unwrap_or_default();
    // The same rules with other elements is the case of every joining host: no new table.
    if let (Some(want), Some(have)) = (&wanted.table, &seen.table)
        && want.chains == have.chains
        && want.sets.keys().eq(have.sets.keys())
    {
        for (set, elements) in &want.sets {
            let have = &have.sets[set];
            let (add, remove) = (difference(elements, have), difference(have, elements));
            if !add.is_empty() || !remove.is_empty() {
                plan.step(
                    Step::SetElements {
                        set: set.clone(),
                        add: add.clone(),
                        remove: remove.clone(),
                    },
                    format!(
                        "host: nftables set {set}: {} elements to add, {} to remove",
                        add.len(),
                        remove.len()
                    ),
                );
            }
        }
        return;
    }
    diff_table(
        plan,
        "host",
        Place::Host,
        wanted.table.as_ref(),
        seen.table.as_ref(),
        rules,
    );
}

fn diff_table(
    plan: &mut Plan,
    name: &str,
    place: Place,
    wanted: Option<&Table>,
    found: Option<&Table>,
    rules: impl Fn() -> Ruleset,
) {
    let why = match (wanted, found) {
        (None, None) => return,
        (None, Some(_)) => {
            plan.step(
                Step::DropTable(place),
                format!("{name}: nftables table overnet is not wanted any more"),
            );
            return;
        }
        (Some(_), None) => format!("{name}: nftables table overnet is missing"),
        (Some(wanted), Some(found)) if wanted == found => return,
        (Some(wanted), Some(found)) => table_differs(name, wanted, found),
    };
    plan.step(
        Step::SetTable {
            place,
            rules: Box::new(rules()),
        },
        why,
    );
}

fn table_differs(name: &str, wanted: &Table, found: &Table) -> String {
    for (chain, rules) in &wanted.chains {
        match found.chains.get(chain) {
            None => return format!("{name}: nftables chain {chain} is missing"),
            Some(have) if have != rules => {
                return format!(
                    "{name}: nftables chain {chain}: wanted {} rules, found {} rules or others",
                    rules.len(),
                    have.len()
                );
            }
            Some(_) => {}
        }
    }
    format!("{name}: nftables table overnet has chains or sets that are not ours")
}

impl Step {
    /// Place in the order of carrying out.
    pub fn rank(&self) -> u8 {
        match self {
            Self::DropTable(_) => 0,
            Self::DropRoutes { .. } => 1,
            Self::DropEntries { .. } => 2,
            Self::DropInterface { .. } => 3,
            Self::DropPort { .. } => 4,
            Self::DropSandbox(_) => 5,
            Self::DropAddresses { .. } => 6,
            Self::DropVxlan { .. } => 7,
            Self::DropBridge { .. } => 8,
            Self::DropNamespace { .. } => 9,
            // The filter stands before the first tunnel.
            Self::SetTable {
                place: Place::Host, ..
            } => 20,
            Self::SetElements { .. } => 21,
            Self::SetForwarding(_) => 22,
            Self::MakeNamespace { .. } => 23,
            Self::MakeBridge { .. } => 24,
            Self::SetBridge { .. } => 25,
            Self::MakeVxlan { .. } => 26,
            Self::SetVxlan { .. } => 27,
            Self::MakeSandbox { .. } => 28,
            Self::SetTable { .. } => 29,
            // Who may be reached is known before there is anyone to reach them.
            Self::SetEntries { entries, .. } if entries.locals.is_empty() => 30,
            Self::MakePair(_) => 31,
            Self::SetPort { .. } => 32,
            Self::SetEntries { .. } => 33,
            Self::SetInterface { .. } => 34,
            Self::SetRoutes { .. } => 35,
        }
    }
}

fn field<T: PartialEq + fmt::Display>(why: &mut Vec<String>, name: &str, wanted: &T, found: &T) {
    if wanted != found {
        why.push(format!("{name}: wanted {wanted}, found {found}"));
    }
}

fn changed<K: Ord + Copy, V: PartialEq + Clone>(
    wanted: &BTreeMap<K, V>,
    seen: &BTreeMap<K, V>,
) -> Vec<(K, V)> {
    wanted
        .iter()
        .filter(|(key, value)| seen.get(key) != Some(value))
        .map(|(key, value)| (*key, value.clone()))
        .collect()
}

fn gone<K: Ord + Copy, V: Clone>(wanted: &BTreeMap<K, V>, seen: &BTreeMap<K, V>) -> Vec<(K, V)> {
    seen.iter()
        .filter(|(key, _)| !wanted.contains_key(key))
        .map(|(key, value)| (*key, value.clone()))
        .collect()
}

fn difference<T: Ord + Clone>(left: &BTreeSet<T>, right: &BTreeSet<T>) -> BTreeSet<T> {
    left.difference(right).cloned().collect()
}

fn list(items: impl Iterator<Item = impl fmt::Display>) -> String {
    items
        .map(|item| item.to_string())
        .collect::<Vec<_>>()
        .join(", ")
}
