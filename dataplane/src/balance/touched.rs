//! One virtual IP among many: what changes in each sandbox, without looking at the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
};

use super::{Chain, Change, backends, sees, visible};
use crate::{
    desired::{Desired, Sandbox},
    plan::Step,
    view::View,
};

/// Virtual IPs that a batch of changes touched, with the addresses and networks that they had
/// before.
#[derive(Debug, Default)]
pub struct Touched(BTreeMap<String, (BTreeSet<IpAddr>, BTreeSet<String>)>);

impl Touched {
    /// `desired` is the wish before the change of `id`.
    pub fn add(&mut self, desired: &Desired, id: &str) {
        let (addresses, networks) = self.0.entry(id.to_owned()).or_default();
        if let Some(before) = desired.vips.get(id) {
            addresses.extend(&before.addresses);
            networks.insert(before.network.clone());
        }
    }

    /// Networks in which something changes.
    fn networks<'a>(&'a self, desired: &'a Desired) -> BTreeSet<&'a str> {
        let now = self.0.keys().filter_map(|id| desired.vips.get(id));
        let before = self.0.values().flat_map(|(_, networks)| networks);
        let now = now.map(|vip| vip.network.as_str());
        now.chain(before.map(String::as_str)).collect()
    }

    /// One step for each sandbox concerned; those that have not been looked at, or lack the
    /// ground or need it no more, are added to `looked`, as all in it are planned as a whole.
    pub fn steps(
        &self,
        desired: &Desired,
        seen: &View,
        looked: &mut BTreeSet<PathBuf>,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.0.is_empty() {
            return steps;
        }
        let networks = self.networks(desired);
        let concerned = desired.sandboxes.values().filter(|sandbox| {
            let mut interfaces = sandbox.interfaces.iter();
            interfaces.any(|interface| networks.contains(interface.network.as_str()))
        });
        for sandbox in concerned {
            let path = &sandbox.netns;
            let stands = seen
                .sandboxes
                .get(path)
                .and_then(|seen| seen.balance.as_ref())
                .is_some_and(|balance| balance.sound);
            let stays = sandbox.counted || visible(desired, sandbox).next().is_some();
            if !stands || !stays {
                looked.insert(path.clone());
            } else if !looked.contains(path) {
                let change = Box::new(self.change(desired, sandbox));
                let sandbox = path.clone();
                steps.push(Step::SetBalance { sandbox, change });
            }
        }
        steps
    }

    /// What brings `sandbox`, which stood as the wish before, to what `desired` says now.
    pub fn change(&self, desired: &Desired, sandbox: &Sandbox) -> Change {
        let mut change = Change::default();
        for (id, (before, _)) in &self.0 {
            let now = desired.vips.get(id).filter(|vip| sees(sandbox, vip));
            let addresses = now.map(|vip| vip.addresses.as_slice()).unwrap_or_default();
            for chain in [Chain::new(id, false), Chain::new(id, true)] {
                let mut claimed = addresses.iter();
                match now {
                    Some(vip) if claimed.any(|address| address.is_ipv6() == chain.ipv6) => {
                        change.set(chain, vip, &backends(vip, chain.ipv6).into());
                    }
                    _ => {
                        change.chains.insert(chain, None);
                    }
                }
            }
            for address in before.iter().chain(addresses) {
                let owner = visible(desired, sandbox)
                    .filter(|(_, vip)| vip.addresses.contains(address))
                    .last();
                let chain = owner.map(|(id, _)| Chain::new(id, address.is_ipv6()));
                change.addresses.insert(*address, chain);
                if chain.is_none() {
                    change.flows.insert(*address, BTreeSet::new());
                }
            }
        }
        change
    }
}
