//! Which parts of the wish a change touches, and the plan for these parts only. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use crate::{
    desired::{Change, Desired, NetworkKind, Sandbox},
    ingress,
    plan::{Names, Plan, Step, diff_host, diff_ports, diff_sandbox, diff_segment},
    view::{Observed, Place, tag},
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
                self.networks
                    .extend(ingress::networks(desired).into_iter().map(str::to_owned));
            }
            Change::SetNetwork(id, _) | Change::RemoveNetwork(id) => {
                self.networks.insert(id.clone());
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
                    self.networks.insert(network.clone());
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
                    self.networks.insert(network.clone());
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
        parts
    }

    /// Adds the sandboxes of the networks: their interfaces hang on them.
    pub fn widen(mut self, desired: &Desired) -> Self {
        for sandbox in desired.sandboxes.values() {
            let mut interfaces = sandbox.interfaces.iter();
            if interfaces.any(|interface| self.networks.contains(&interface.network)) {
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
        let wanted = want_host(desired, facts);
        diff_ports(&mut plan, desired, &wanted, observed);
    }
    plan.sorted()
}
