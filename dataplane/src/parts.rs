//! Which parts of the wish a change touches, and the plan for these parts only. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use crate::{
    desired::{Change, Desired, Interface, NetworkKind, Sandbox},
    ingress,
    plan::{Names, Plan, Step, diff_host, diff_ports, diff_sandbox, diff_segment},
    view::{Observed, Place, View, port_name, tag},
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
    /// Sandboxes that are compared as they were seen last, unless the network's look leaves a
    /// doubt: many containers are not looked at because something happened to one.
    hanging: BTreeSet<PathBuf>,
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
                self.add_sandbox(sandbox);
                if let Some(before) = desired.sandboxes.get(id) {
                    self.add_sandbox(before);
                }
            }
            Change::SetPublished(id, published) => {
                self.ports = true;
                let before = desired.published.get(id).map(|before| &before.network);
                let networks = [Some(&published.network), before];
                // The first makes the gateway; more of them are the host's table alone.
                let known = ingress::networks(desired);
                let new = networks.into_iter().flatten();
                for network in new.filter(|network| !known.contains(network.as_str())) {
                    self.host = true;
                    self.add_network(network);
                }
            }
            Change::RemovePublished(id) => {
                self.ports = true;
                let published = &desired.published;
                let before = published.get(id).map(|before| &before.network);
                let on =
                    |network: &String| published.values().filter(|p| p.network == *network).count();
                // The last one takes the gateway along.
                if let Some(network) = before.filter(|network| on(network) == 1) {
                    self.host = true;
                    self.add_network(network);
                }
            }
            Change::RemoveSandbox(id) => {
                if let Some(before) = desired.sandboxes.get(id) {
                    self.add_sandbox(before);
                }
            }
            // Rows and virtual IPs have a way of their own.
            Change::SetRemote(..)
            | Change::RemoveRemote(_)
            | Change::SetVip(..)
            | Change::RemoveVip(_) => {}
        }
    }

    fn add_network(&mut self, id: &str) {
        self.networks.insert(id.to_owned());
        self.changed.insert(id.to_owned());
    }

    fn add_sandbox(&mut self, sandbox: &Sandbox) {
        self.sandboxes.insert(sandbox.netns.clone());
        self.host |= sandbox.interfaces.iter().any(|i| i.publishes);
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
        parts.hanging = on(desired, &parts.networks).cloned().collect();
        parts
    }

    /// Adds the sandboxes of the networks that change.
    pub fn widen(mut self, desired: &Desired) -> Self {
        self.sandboxes.extend(on(desired, &self.changed).cloned());
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

    /// Where one must look, too, once the networks have been looked at: sandboxes with an
    /// interface whose other end has gone or is silent.
    pub fn doubts(&self, desired: &Desired, seen: &View) -> Vec<Place> {
        let stands = |interface: &Interface| {
            let segment = seen.segments.get(&tag(&interface.network));
            let port = port_name(&interface.endpoint);
            segment.is_some_and(|s| s.ports.contains_key(&port) && !s.silent.contains(&port))
        };
        let doubtful = |sandbox: &&Sandbox| {
            let hangs = self.hanging.contains(&sandbox.netns);
            hangs && !sandbox.interfaces.iter().all(stands)
        };
        let sandboxes = desired.sandboxes.values().filter(doubtful);
        let place = |sandbox: &Sandbox| Place::Sandbox(sandbox.netns.clone());
        sandboxes.map(place).collect()
    }
}

/// The sandboxes with an interface on one of `networks`.
fn on<'a>(
    desired: &'a Desired,
    networks: &'a BTreeSet<String>,
) -> impl Iterator<Item = &'a PathBuf> {
    let hangs = |sandbox: &&Sandbox| {
        let mut interfaces = sandbox.interfaces.iter();
        interfaces.any(|interface| networks.contains(&interface.network))
    };
    let sandboxes = desired.sandboxes.values().filter(hangs);
    sandboxes.map(|sandbox| &sandbox.netns)
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
    for path in parts.sandboxes.union(&parts.hanging) {
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
        let wanted = want_host(desired, facts);
        diff_ports(&mut plan, desired, &wanted, observed);
    }
    plan.sorted()
}
