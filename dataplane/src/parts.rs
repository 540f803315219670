//! Which parts of the wish a change touches, and the plan for these parts only. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use crate::{
    desired::{Change, Desired, Interface, NetworkKind, Sandbox},
    ingress,
    plan::{Names, Plan, Step, diff_host, diff_ports, diff_sandbox, diff_segment},
    view::{Observed, Place, Segment, View, port_name, tag},
    want::{want_host, want_sandbox, want_segment},
};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    /// All of it; the rest is empty then.
    pub all: bool,
    pub host: bool,
    /// The host's published ports alone, without another look at what is seen of the host.
    pub ports: bool,
    /// Network ids.
    pub networks: BTreeSet<String>,
    /// Those of them that change as such: the interfaces of all their sandboxes hang on it.
    changed: BTreeSet<String>,
    pub sandboxes: BTreeSet<PathBuf>,
}

impl Parts {
    /// Adds what `change` touches; `desired` is the wish before it.
    pub fn add(&mut self, desired: &Desired, change: &Change) {
        match change {
            Change::SetUnderlay(underlay) => {
                let place = |u: &crate::desired::Underlay| (u.address, u.port);
                self.all |= desired.underlay.as_ref().map(place) != underlay.as_ref().map(place);
                self.host = true;
                // Each host has a gateway there.
                for network in ingress::networks(desired) {
                    self.add_network(network);
                }
            }
            Change::SetNetwork(id, _) | Change::RemoveNetwork(id) => {
                self.add_network(id);
                self.host = true;
            }
            Change::SetSandbox(id, sandbox) => {
                self.add_sandbox(desired, sandbox);
                if let Some(before) = desired.sandboxes.get(id) {
                    self.add_sandbox(desired, before);
                }
            }
            Change::SetPublished(..) | Change::RemovePublished(_) => self.ports = true,
            Change::RemoveSandbox(id) => {
                if let Some(before) = desired.sandboxes.get(id) {
                    self.add_sandbox(desired, before);
                }
            }
            // Rows and virtual IPs have a way of their own.
            Change::SetRemote(..)
            | Change::RemoveRemote(_)
            | Change::SetVip(..)
            | Change::RemoveVip(_) => {}
        }
    }

    /// Adds the networks that have come to be published over since there were `before`, or no longer
    /// are: the host's gateway comes and goes with that, and all else of a port is in its table.
    pub fn cross(&mut self, before: &BTreeSet<String>, desired: &Desired) {
        let now: BTreeSet<String> = ingress::networks(desired)
            .into_iter()
            .map(str::to_owned)
            .collect();
        for id in before.symmetric_difference(&now) {
            self.host = true;
            self.add_network(id);
        }
    }

    fn add_network(&mut self, id: &str) {
        self.networks.insert(id.to_owned());
        self.changed.insert(id.to_owned());
    }

    fn add_sandbox(&mut self, desired: &Desired, sandbox: &Sandbox) {
        self.sandboxes.insert(sandbox.netns.clone());
        self.ports |= ingress::is_inward(desired, sandbox);
        let networks = sandbox
            .interfaces
            .iter()
            .map(|interface| &interface.network);
        self.networks.extend(networks.cloned());
    }

    /// What may differ when something happened at `places`.
    pub fn at<'a>(desired: &Desired, places: impl IntoIterator<Item = &'a Place>) -> Self {
        let mut parts = Self::default();
        for place in places {
            match place {
                Place::Host => {
                    parts.host = true;
                    let local = desired
                        .networks
                        .iter()
                        .filter(|(_, n)| matches!(n.kind, NetworkKind::Bridge { .. }));
                    parts.networks.extend(local.map(|(id, _)| id.clone()));
                }
                Place::Overlay(at) => {
                    // Of a network that is not wanted any more only the whole plan knows.
                    match desired.networks.keys().find(|id| tag(id) == *at) {
                        Some(id) => parts.networks.insert(id.clone()),
                        None => std::mem::replace(&mut parts.all, true),
                    };
                }
                Place::Sandbox(path) => {
                    parts.sandboxes.insert(path.clone());
                }
            }
        }
        parts
    }

    /// Adds the sandboxes of the networks that change.
    pub fn widen(mut self, desired: &Desired) -> Self {
        for sandbox in desired.sandboxes.values() {
            let mut interfaces = sandbox.interfaces.iter();
            if interfaces.any(|interface| self.changed.contains(&interface.network)) {
                self.sandboxes.insert(sandbox.netns.clone());
            }
        }
        self
    }

    /// Where one must look before [`diff`].
    pub fn places(&self, desired: &Desired) -> BTreeSet<Place> {
        let mut networks = self.networks.clone();
        for sandbox in desired.sandboxes.values() {
            if self.sandboxes.contains(&sandbox.netns) {
                networks.extend(sandbox.interfaces.iter().map(|i| i.network.clone()));
            }
        }
        let mut places: BTreeSet<Place> =
            self.sandboxes.iter().cloned().map(Place::Sandbox).collect();
        let mut host = self.host;
        for id in &networks {
            places.insert(Place::Overlay(tag(id)));
            host |= desired
                .networks
                .get(id)
                .is_none_or(|network| matches!(network.kind, NetworkKind::Bridge { .. }));
        }
        if host {
            places.insert(Place::Host);
        }
        places
    }

    /// Adds, once the networks have been looked at, their sandboxes with an interface whose other
    /// end has gone or is silent, and answers where to look then. The others are as they were:
    /// many containers are not looked at because something happened to one.
    pub fn doubt(&mut self, desired: &Desired, seen: &View) -> Vec<Place> {
        let segments: BTreeMap<&String, Option<&Segment>> = self
            .networks
            .iter()
            .map(|id| (id, seen.segments.get(&tag(id))))
            .collect();
        let falls = |interface: &Interface| {
            segments.get(&interface.network).is_some_and(|segment| {
                let port = port_name(&interface.endpoint);
                segment.is_none_or(|s| !s.ports.contains_key(&port) || s.silent.contains(&port))
            })
        };
        let mut places = Vec::new();
        for sandbox in desired.sandboxes.values() {
            if sandbox.interfaces.iter().any(falls) && self.sandboxes.insert(sandbox.netns.clone())
            {
                places.push(Place::Sandbox(sandbox.netns.clone()));
            }
        }
        places
    }
}

/// The plan for `parts`, which have been widened and looked at.
pub fn diff(desired: &Desired, parts: &Parts, observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    let (facts, seen) = (&observed.facts, &observed.view);
    let names = Names::new(desired);
    for id in &parts.networks {
        let tag = tag(id);
        let wanted = want_segment(desired, facts, id);
        let found = seen.segments.get(&tag);
        diff_segment(&mut plan, &names, &tag, wanted.as_ref(), found);
    }
    let by_path: BTreeMap<&PathBuf, &String> = desired
        .sandboxes
        .iter()
        .map(|(id, sandbox)| (&sandbox.netns, id))
        .collect();
    for path in &parts.sandboxes {
        if let Some(id) = by_path.get(path) {
            let wanted = want_sandbox(desired, facts, &desired.sandboxes[*id]);
            diff_sandbox(&mut plan, desired, id, &wanted, seen);
        } else if seen.sandboxes.contains_key(path) {
            plan.step(
                Step::DropSandbox(path.clone()),
                format!("sandbox {}: not wanted any more", path.display()),
            );
        }
    }
    if parts.host {
        let wanted = want_host(desired, facts);
        diff_host(&mut plan, desired, &wanted, observed);
    } else if parts.ports {
        diff_ports(&mut plan, desired, observed);
    }
    plan.sorted()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{Port, PortFlags};

    #[test]
    fn only_sandboxes_whose_other_end_is_not_well_are_doubted() {
        let mut desired = Desired::default();
        let mut segment = Segment::default();
        for name in ["well", "silent", "gone", "elsewhere"] {
            let network = if name == "elsewhere" { "other" } else { "net" };
            let interface = Interface {
                endpoint: name.to_owned(),
                network: network.to_owned(),
                name: "eth0".to_owned(),
                addresses: Vec::new(),
                mac: [2, 0, 0, 0, 0, 1],
                default_via: Vec::new(),
                names: Vec::new(),
                publishes: false,
            };
            let sandbox = Sandbox {
                netns: PathBuf::from(name),
                interfaces: vec![interface],
                dns: None,
                counted: false,
            };
            desired.sandboxes.insert(name.to_owned(), sandbox);
            let port = port_name(name);
            if name != "gone" {
                let well = Port {
                    mtu: 1450,
                    up: true,
                    attached: true,
                    flags: PortFlags::default(),
                };
                segment.ports.insert(port.clone(), well);
            }
            if name == "silent" {
                segment.silent.insert(port);
            }
        }
        let mut seen = View::default();
        seen.segments.insert(tag("net"), segment);
        let mut parts = Parts::default();
        parts.networks.insert("net".to_owned());
        let place = |name: &str| Place::Sandbox(PathBuf::from(name));
        assert_eq!(
            parts.doubt(&desired, &seen),
            [place("gone"), place("silent")]
        );
        // They are looked at once.
        assert_eq!(parts.doubt(&desired, &seen), []);
        // A network that is not there any more leaves all of them.
        let mut parts = Parts::default();
        parts.networks.insert("net".to_owned());
        assert_eq!(parts.doubt(&desired, &View::default()).len(), 3);
    }
}
