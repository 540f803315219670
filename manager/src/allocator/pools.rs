//! The free addresses of all networks during one decision.

use std::collections::{BTreeMap, HashMap};

use ipnetwork::IpNetwork;
use model::{Network, NetworkId};

use crate::{
    ipam::{Next, Walk},
    store::{Rest, StoreChange, Tables},
};

/// Hands out each free address once.
pub(super) struct Pools<'a> {
    tables: &'a Tables,
    rested: &'a dyn Fn(&Rest) -> bool,
    of_network: HashMap<NetworkId, Vec<Pool<'a>>>,
    /// The last address given of each subnet.
    given: BTreeMap<(NetworkId, IpNetwork), IpNetwork>,
    met_rest: bool,
}

struct Pool<'a> {
    subnet: IpNetwork,
    walk: Walk<'a>,
    /// How the walk ended.
    ended: Option<Next>,
}

impl<'a> Pools<'a> {
    pub(super) fn new(tables: &'a Tables, rested: &'a dyn Fn(&Rest) -> bool) -> Self {
        Self {
            tables,
            rested,
            of_network: HashMap::new(),
            given: BTreeMap::new(),
            met_rest: false,
        }
    }

    /// One address of each family that the network has, IPv4 first, or why there is none.
    pub(super) fn take(&mut self, network: &Network) -> Result<Vec<IpNetwork>, String> {
        let mut taken = Vec::new();
        for v6 in families(network) {
            taken.push(self.take_one(network, v6)?);
        }
        Ok(taken)
    }

    /// An address of one family, or why there is none.
    pub(super) fn take_one(&mut self, network: &Network, v6: bool) -> Result<IpNetwork, String> {
        // The tables outlive the pools; the caller's reference need not.
        let tables = self.tables;
        if !self.of_network.contains_key(&network.id)
            && let Some(stored) = tables.network(&network.id)
        {
            let pools = stored.subnets.iter().map(|subnet| Pool {
                subnet: subnet.subnet,
                walk: Walk::new(tables, stored, subnet),
                ended: None,
            });
            self.of_network.insert(network.id.clone(), pools.collect());
        }
        let pools = self.of_network.get_mut(&network.id).into_iter().flatten();
        let mut resting = false;
        let mut ranges = Vec::new();
        for pool in pools.filter(|pool| pool.subnet.is_ipv6() == v6) {
            let next = pool.ended.unwrap_or_else(|| pool.walk.next(self.rested));
            match next {
                Next::Free(address) => {
                    let address = IpNetwork::new(address, pool.subnet.prefix())
                        .map_err(|error| error.to_string())?;
                    self.given
                        .insert((network.id.clone(), pool.subnet), address);
                    return Ok(address);
                }
                Next::Resting => resting = true,
                Next::None => {}
            }
            pool.ended = Some(next);
            ranges.push(pool.subnet.to_string());
        }
        let (name, ranges) = (&network.spec.name, ranges.join(", "));
        if resting {
            self.met_rest = true;
            return Err(format!(
                "network {name} has only addresses in {ranges} that rest after their last use; one is given in a few seconds"
            ));
        }
        Err(format!(
            "network {name} has no free address left in {ranges}; remove tasks or containers from it, or make a network with a larger --subnet"
        ))
    }

    /// Whether somebody waits for an address at rest.
    pub(super) fn met_rest(&self) -> bool {
        self.met_rest
    }

    /// Where the next decision goes on.
    pub(super) fn cursors(self) -> impl Iterator<Item = StoreChange> {
        self.given
            .into_iter()
            .map(|((network, subnet), last)| StoreChange::SetCursor {
                network,
                subnet,
                last: last.ip(),
            })
    }
}

/// Whether IPv6, for each family of the network; IPv4 first.
pub(super) fn families(network: &Network) -> impl Iterator<Item = bool> + '_ {
    [false, true].into_iter().filter(|v6| {
        let mut subnets = network.subnets.iter();
        subnets.any(|subnet| subnet.subnet.is_ipv6() == *v6)
    })
}
