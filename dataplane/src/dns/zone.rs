//! What the containers' names mean: a value that costs next to nothing to copy, so that every
//! change makes a new one and questions are answered from whichever they found.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use imbl::HashMap;
use ipnetwork::IpNetwork;

use super::{entry::Entry, members::Members};
use crate::desired::{Change, Desired, Network, Remote, Sandbox, Vip};

/// All names of all networks of this host, and who may see which.
///
/// The same wish gives the same zone, by whatever steps it was reached.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Zone {
    /// By network id.
    networks: HashMap<Arc<str>, Arc<NetworkNames>>,
    /// By sandbox id.
    askers: HashMap<Arc<str>, Arc<Asker>>,
    /// By endpoint id.
    remotes: HashMap<Arc<str>, Arc<Endpoint>>,
    /// By the virtual IPs' ids.
    vips: HashMap<Arc<str>, Arc<Endpoint>>,
}

/// A sandbox that asks.
#[derive(Debug, PartialEq)]
pub struct Asker {
    /// The networks it sees, the first interface's first.
    networks: Vec<Arc<str>>,
    endpoints: Vec<Endpoint>,
    /// Who knows the foreign names; absent for a sandbox that has no name server.
    pub upstreams: Option<Arc<[SocketAddr]>>,
}

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reverse {
    /// Full names, `name.network`.
    Names(Vec<String>),
    /// The address belongs to one of the asker's networks, and nobody has it.
    Nobody,
    /// Not ours to say.
    Foreign,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct NetworkNames {
    /// As the user gave it; absent while only endpoints speak of the network.
    name: Option<Arc<str>>,
    subnets: Arc<[IpNetwork]>,
    /// By name in lower case.
    entries: HashMap<Arc<[u8]>, Arc<Entry>>,
    /// Canonical names by address.
    owners: HashMap<IpAddr, Arc<Members<Arc<str>>>>,
}

#[derive(Debug, PartialEq)]
struct Endpoint {
    network: Arc<str>,
    virtual_ip: bool,
    addresses: Box<[IpAddr]>,
    /// The canonical one first.
    names: Box<[Arc<str>]>,
}

impl From<&Desired> for Zone {
    fn from(desired: &Desired) -> Self {
        let mut zone = Self::default();
        for (id, network) in &desired.networks {
            zone.set_network(id, network);
        }
        for (id, sandbox) in &desired.sandboxes {
            zone.set_sandbox(id, sandbox);
        }
        // By address, so that a name's members arrive in the order in which they are kept.
        let mut remotes: Vec<_> = desired.remotes.iter().collect();
        remotes.sort_by_key(|(_, remote)| remote.addresses.first());
        for (id, remote) in remotes {
            zone.set_remote(id, remote);
        }
        for (id, vip) in &desired.vips {
            zone.set_vip(id, vip);
        }
        zone
    }
}

impl Zone {
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::SetUnderlay(_) | Change::SetPublished(..) | Change::RemovePublished(_) => {}
            Change::SetNetwork(id, network) => self.set_network(id, network),
            Change::RemoveNetwork(id) => self.edit(id, |names| {
                names.name = None;
                names.subnets = Arc::default();
            }),
            Change::SetSandbox(id, sandbox) => self.set_sandbox(id, sandbox),
            Change::RemoveSandbox(id) => {
                if let Some(old) = self.askers.remove(id.as_str()) {
                    self.withdraw(&old.endpoints);
                }
            }
            Change::SetRemote(id, remote) => self.set_remote(id, remote),
            Change::RemoveRemote(id) => {
                if let Some(old) = self.remotes.remove(id.as_str()) {
                    self.withdraw(std::slice::from_ref(&*old));
                }
            }
            Change::SetVip(id, vip) => self.set_vip(id, vip),
            Change::RemoveVip(id) => {
                if let Some(old) = self.vips.remove(id.as_str()) {
                    self.withdraw(std::slice::from_ref(&*old));
                }
            }
        }
    }

    pub fn asker(&self, sandbox: &str) -> Option<&Asker> {
        self.askers.get(sandbox).map(|asker| &**asker)
    }

    /// Sandboxes that have a name server.
    pub fn served(&self, sandbox: &str) -> bool {
        self.asker(sandbox)
            .is_some_and(|asker| asker.upstreams.is_some())
    }

    /// What `name` (lower case, dots between the labels, none at the end) means to `asker`: the
    /// entry of the first of its networks that knows the name and is `wanted` there, or else
    /// that of any that knows it. Absent: no network of the asker knows it.
    pub fn resolve(
        &self,
        asker: &Asker,
        name: &[u8],
        wanted: impl Fn(&Entry) -> bool,
    ) -> Option<&Entry> {
        let mut known = None;
        for network in self.visible(asker) {
            if let Some(entry) = network.entries.get(name) {
                if wanted(entry) {
                    return Some(entry);
                }
                known = Some(&**entry);
            }
        }
        if known.is_some() || !name.contains(&b'.') {
            return known;
        }
        for network in self.visible(asker) {
            let entry = network
                .without_suffix(name)
                .and_then(|short| network.entries.get(short));
            if let Some(entry) = entry {
                if wanted(entry) {
                    return Some(entry);
                }
                known = Some(&**entry);
            }
        }
        known
    }

    pub fn reverse(&self, asker: &Asker, address: IpAddr) -> Reverse {
        let mut ours = false;
        for network in self.visible(asker) {
            if let Some(owners) = network.owners.get(&address) {
                let full = |name: &Arc<str>| match &network.name {
                    Some(suffix) => format!("{name}.{suffix}"),
                    None => name.to_string(),
                };
                return Reverse::Names(owners.iter().map(full).collect());
            }
            ours |= network.subnets.iter().any(|s| s.contains(address));
        }
        if ours {
            Reverse::Nobody
        } else {
            Reverse::Foreign
        }
    }

    fn visible<'z>(&'z self, asker: &Asker) -> impl Iterator<Item = &'z NetworkNames> {
        asker
            .networks
            .iter()
            .filter_map(|id| self.networks.get(id).map(|names| &**names))
    }

    fn set_network(&mut self, id: &str, network: &Network) {
        let name = Some(Arc::from(network.name.as_str()));
        let subnets = network.subnets.iter().map(|s| s.subnet).collect();
        self.edit(id, |names| {
            names.name = name;
            names.subnets = subnets;
        });
    }

    fn set_sandbox(&mut self, id: &str, sandbox: &Sandbox) {
        let mut networks: Vec<Arc<str>> = Vec::new();
        for interface in &sandbox.interfaces {
            if !networks.iter().any(|n| **n == *interface.network) {
                networks.push(Arc::from(interface.network.as_str()));
            }
        }
        let asker = Arc::new(Asker {
            networks,
            endpoints: sandbox
                .interfaces
                .iter()
                .map(|interface| {
                    let addresses = interface.addresses.iter().map(IpNetwork::ip);
                    Endpoint::new(&interface.network, addresses, &interface.names)
                })
                .collect(),
            upstreams: sandbox
                .dns
                .as_ref()
                .map(|dns| Arc::from(dns.upstreams.as_slice())),
        });
        let old = self.askers.insert(Arc::from(id), Arc::clone(&asker));
        if old.as_ref().is_some_and(|o| o.endpoints == asker.endpoints) {
            return;
        }
        if let Some(old) = old {
            self.withdraw(&old.endpoints);
        }
        self.announce(&asker.endpoints);
    }

    fn set_remote(&mut self, id: &str, remote: &Remote) {
        let endpoint = Endpoint::new(
            &remote.network,
            remote.addresses.iter().copied(),
            &remote.names,
        );
        let old = self.remotes.get(id).cloned();
        if old.as_deref() == Some(&endpoint) {
            return;
        }
        if let Some(old) = old {
            self.withdraw(std::slice::from_ref(&*old));
        }
        self.announce(std::slice::from_ref(&endpoint));
        self.remotes.insert(Arc::from(id), Arc::new(endpoint));
    }

    fn set_vip(&mut self, id: &str, vip: &Vip) {
        let mut endpoint = Endpoint::new(&vip.network, vip.addresses.iter().copied(), &vip.names);
        endpoint.virtual_ip = true;
        let old = self.vips.get(id).cloned();
        if old.as_deref() == Some(&endpoint) {
            return;
        }
        if let Some(old) = old {
            self.withdraw(std::slice::from_ref(&*old));
        }
        self.announce(std::slice::from_ref(&endpoint));
        self.vips.insert(Arc::from(id), Arc::new(endpoint));
    }

    fn announce(&mut self, endpoints: &[Endpoint]) {
        for endpoint in endpoints.iter().filter(|e| !e.names.is_empty()) {
            self.edit(&endpoint.network, |names| names.announce(endpoint));
        }
    }

    fn withdraw(&mut self, endpoints: &[Endpoint]) {
        for endpoint in endpoints.iter().filter(|e| !e.names.is_empty()) {
            self.edit(&endpoint.network, |names| names.withdraw(endpoint));
        }
    }

    /// Changes what is known of a network; one of which nothing is known any more is dropped.
    fn edit(&mut self, id: &str, change: impl FnOnce(&mut NetworkNames)) {
        if let Some(names) = self.networks.get_mut(id) {
            let names = Arc::make_mut(names);
            change(names);
            if names.is_unknown() {
                self.networks.remove(id);
            }
        } else {
            let mut names = NetworkNames::default();
            change(&mut names);
            if !names.is_unknown() {
                self.networks.insert(Arc::from(id), Arc::new(names));
            }
        }
    }
}

impl Endpoint {
    fn new(network: &str, addresses: impl Iterator<Item = IpAddr>, names: &[String]) -> Self {
        Self {
            network: Arc::from(network),
            virtual_ip: false,
            addresses: addresses.collect(),
            names: names.iter().map(|name| Arc::from(name.as_str())).collect(),
        }
    }
}

impl NetworkNames {
    fn is_unknown(&self) -> bool {
        self.name.is_none() && self.entries.is_empty() && self.owners.is_empty()
    }

    /// `web` of `web.ch03` on the network `ch03`.
    fn without_suffix<'n>(&self, name: &'n [u8]) -> Option<&'n [u8]> {
        let suffix = self.name.as_ref()?.as_bytes();
        let split = name.len().checked_sub(suffix.len())?;
        let (short, end) = name.split_at(split);
        if end.eq_ignore_ascii_case(suffix) {
            short.strip_suffix(b".")
        } else {
            None
        }
    }

    fn announce(&mut self, endpoint: &Endpoint) {
        for name in &endpoint.names {
            let entry = self.entries.entry(key(name)).or_default();
            Arc::make_mut(entry).announce(&endpoint.addresses, endpoint.virtual_ip);
        }
        if let Some(canonical) = endpoint.names.first() {
            for address in &endpoint.addresses {
                let owners = self.owners.entry(*address).or_default();
                Arc::make_mut(owners).add(Arc::clone(canonical));
            }
        }
    }

    fn withdraw(&mut self, endpoint: &Endpoint) {
        for name in &endpoint.names {
            let key = key(name);
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            let entry = Arc::make_mut(entry);
            entry.withdraw(&endpoint.addresses, endpoint.virtual_ip);
            if entry.is_unknown() {
                self.entries.remove(&key);
            }
        }
        if let Some(canonical) = endpoint.names.first() {
            for address in &endpoint.addresses {
                let Some(owners) = self.owners.get_mut(address) else {
                    continue;
                };
                let owners = Arc::make_mut(owners);
                owners.subtract(canonical);
                if owners.is_empty() {
                    self.owners.remove(address);
                }
            }
        }
    }
}

fn key(name: &str) -> Arc<[u8]> {
    Arc::from(name.to_ascii_lowercase().into_bytes())
}

#[cfg(test)]
mod tests;
