//! Who claims a forwarding or neighbour entry: so that one remote endpoint among many is
//! programmed without looking at the others. Pure.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use crate::{
    desired::{Desired, Remote},
    plan::{Entries, Step},
    view::{Mac, Place, tag},
};

/// By network id.
#[derive(Debug, Default)]
pub struct Rows(HashMap<String, Claims>);

/// Endpoint ids by what they claim; of several the greatest wins, as in the whole plan.
#[derive(Debug, Default)]
struct Claims {
    macs: HashMap<Mac, BTreeSet<String>>,
    addresses: HashMap<IpAddr, BTreeSet<String>>,
}

/// Entries that a batch of changes touched.
#[derive(Debug, Default)]
pub struct Touched(HashMap<String, (HashSet<Mac>, HashSet<IpAddr>)>);

impl Rows {
    pub fn new(desired: &Desired) -> Self {
        let mut rows = Self::default();
        for (id, remote) in &desired.remotes {
            rows.add(id, remote);
        }
        rows
    }

    pub fn add(&mut self, id: &str, remote: &Remote) {
        let claims = self.0.entry(remote.network.clone()).or_default();
        let mac = claims.macs.entry(Mac(remote.mac)).or_default();
        mac.insert(id.to_owned());
        for address in &remote.addresses {
            let address = claims.addresses.entry(*address).or_default();
            address.insert(id.to_owned());
        }
    }

    pub fn remove(&mut self, id: &str, remote: &Remote) {
        let Some(claims) = self.0.get_mut(&remote.network) else {
            return;
        };
        release(&mut claims.macs, &Mac(remote.mac), id);
        for address in &remote.addresses {
            release(&mut claims.addresses, address, id);
        }
        if claims.macs.is_empty() && claims.addresses.is_empty() {
            self.0.remove(&remote.network);
        }
    }

    /// The steps that bring the touched entries to what `desired` says now. Networks in `left_out`
    /// are planned as a whole.
    pub fn steps(
        &self,
        desired: &Desired,
        touched: &Touched,
        left_out: &BTreeSet<String>,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        let local: HashSet<(&str, Mac)> = desired
            .sandboxes
            .values()
            .flat_map(|sandbox| &sandbox.interfaces)
            .map(|interface| (interface.network.as_str(), Mac(interface.mac)))
            .collect();
        let none = Claims::default();
        for (network, (macs, addresses)) in &touched.0 {
            let wanted = desired.networks.get(network).is_some_and(|network| {
                matches!(network.kind, crate::desired::NetworkKind::Overlay { .. })
            });
            if left_out.contains(network) || !wanted || desired.underlay.is_none() {
                continue;
            }
            let claims = self.0.get(network).unwrap_or(&none);
            let is_local = |mac: Mac| local.contains(&(network.as_str(), mac));
            let (mut set, mut drop) = (Entries::default(), Entries::default());
            for mac in macs.iter().copied().filter(|mac| !is_local(*mac)) {
                let winner = claims.macs.get(&mac).and_then(BTreeSet::last);
                match winner.and_then(|id| desired.remotes.get(id)) {
                    Some(remote) => set.forwards.push((mac, remote.vtep)),
                    None => drop.forwards.push((mac, IpAddr::from([0, 0, 0, 0]))),
                }
            }
            for address in addresses {
                let claimants = claims.addresses.get(address).into_iter().flatten().rev();
                let mut remotes = claimants.filter_map(|id| desired.remotes.get(id));
                match remotes.find(|remote| !is_local(Mac(remote.mac))) {
                    Some(remote) => set.neighbours.push((*address, Mac(remote.mac))),
                    None => drop.neighbours.push((*address, Mac([0; 6]))),
                }
            }
            let segment = tag(network);
            if !drop.is_empty() {
                steps.push(Step::DropEntries {
                    segment: segment.clone(),
                    entries: drop,
                });
            }
            if !set.is_empty() {
                steps.push(Step::SetEntries {
                    place: Place::Overlay(segment.clone()),
                    segment,
                    entries: set,
                });
            }
        }
        steps
    }
}

impl Touched {
    pub fn add(&mut self, remote: &Remote) {
        let (macs, addresses) = self.0.entry(remote.network.clone()).or_default();
        macs.insert(Mac(remote.mac));
        addresses.extend(&remote.addresses);
    }
}

fn release<K: std::hash::Hash + Eq>(claims: &mut HashMap<K, BTreeSet<String>>, key: &K, id: &str) {
    if let Some(ids) = claims.get_mut(key) {
        ids.remove(id);
        if ids.is_empty() {
            claims.remove(key);
        }
    }
}
