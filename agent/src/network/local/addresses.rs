//! Addresses of the host's own networks: given serially, so that a used one rests as long as
//! possible.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnetwork::IpNetwork;
use model::{
    Refusal,
    network::Subnet,
    subnet::{bounds, to_ip, to_number},
};

use super::LocalNetwork;

/// By network id; IPv4 and IPv6 side by side.
#[derive(Debug, Default)]
pub struct LocalAddresses {
    given: BTreeMap<String, BTreeSet<IpAddr>>,
    /// The last ones given, by subnet.
    last: BTreeMap<(String, IpNetwork), IpAddr>,
}

impl LocalAddresses {
    /// Marks an address as in use, for containers that were found running.
    pub fn adopt(&mut self, network: &LocalNetwork, address: IpAddr) {
        let given = self.given.entry(network.id.clone()).or_default();
        given.insert(address);
        let mut subnets = network.subnets.iter();
        if let Some(subnet) = subnets.find(|subnet| subnet.subnet.contains(address)) {
            let last = self.last.entry((network.id.clone(), subnet.subnet));
            let last = last.or_insert(address);
            *last = (*last).max(address);
        }
    }

    /// One address of each subnet, with its prefix length: the wanted one, or the next free one.
    /// All or none.
    pub fn give(
        &mut self,
        network: &LocalNetwork,
        wanted: &[IpAddr],
    ) -> Result<Vec<IpNetwork>, Refusal> {
        check(network, wanted)?;
        let mut chosen = Vec::new();
        for subnet in &network.subnets {
            let mut wanted = wanted.iter().copied();
            let wanted = wanted.find(|address| subnet.subnet.contains(*address));
            let address = self.choose(network, subnet, wanted)?;
            let with_prefix = IpNetwork::new(address, subnet.subnet.prefix());
            chosen.extend(with_prefix.ok());
        }
        let given = self.given.entry(network.id.clone()).or_default();
        for (subnet, address) in network.subnets.iter().zip(&chosen) {
            given.insert(address.ip());
            let place = (network.id.clone(), subnet.subnet);
            self.last.insert(place, address.ip());
        }
        Ok(chosen)
    }

    fn choose(
        &self,
        network: &LocalNetwork,
        subnet: &Subnet,
        wanted: Option<IpAddr>,
    ) -> Result<IpAddr, Refusal> {
        let in_use = |address: &IpAddr| {
            let given = self.given.get(&network.id);
            *address == subnet.gateway || given.is_some_and(|given| given.contains(address))
        };
        if let Some(wanted) = wanted {
            let edge = wanted == subnet.subnet.network()
                || (wanted.is_ipv4() && wanted == subnet.subnet.broadcast());
            if edge {
                return Err(Refusal::invalid(format!(
                    "address {wanted} is the network or broadcast address of {}; choose another",
                    subnet.subnet
                )));
            }
            if in_use(&wanted) {
                return Err(Refusal::forbidden(format!(
                    "Address already in use: {wanted} on network {}; choose another or leave out --ip",
                    network.name()
                )));
            }
            return Ok(wanted);
        }
        let (first, last) = bounds(subnet);
        let place = (network.id.clone(), subnet.subnet);
        let after = self.last.get(&place).map(|address| to_number(*address) + 1);
        let start = after
            .filter(|next| (first..=last).contains(next))
            .unwrap_or(first);
        let reserved: BTreeSet<IpAddr> = subnet.aux_addresses.values().copied().collect();
        (start..=last)
            .chain(first..start)
            .map(|number| to_ip(number, subnet.subnet.is_ipv4()))
            .find(|address| !in_use(address) && !reserved.contains(address))
            .ok_or_else(|| {
                Refusal::conflict(format!(
                    "network {} ({}) has no free address; remove containers",
                    network.name(),
                    subnet.range
                ))
            })
    }

    pub fn take_back(&mut self, network_id: &str, address: IpAddr) {
        if let Some(given) = self.given.get_mut(network_id) {
            given.remove(&address);
        }
    }

    /// The network is gone.
    pub fn forget(&mut self, network_id: &str) {
        self.given.remove(network_id);
        self.last.retain(|(id, _), _| id != network_id);
    }
}

/// Whether these addresses can be asked for on the network at all.
pub fn check(network: &LocalNetwork, wanted: &[IpAddr]) -> Result<(), Refusal> {
    if network.is_builtin() && !wanted.is_empty() {
        return Err(Refusal::invalid(format!(
            "user specified IP address is supported on user defined networks only; leave out --ip, or name another network than {}",
            network.name()
        )));
    }
    let has = |address: &IpAddr| {
        let mut subnets = network.subnets.iter();
        subnets.any(|subnet| subnet.subnet.contains(*address))
    };
    match wanted.iter().find(|address| !has(address)) {
        None => Ok(()),
        Some(address) => {
            let subnets = network.subnets.iter();
            let subnets: Vec<String> = subnets.map(|one| one.subnet.to_string()).collect();
            Err(Refusal::invalid(format!(
                "address {address} is outside {} of network {}; choose one inside or leave it out",
                subnets.join(", "),
                network.name()
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{NetworkSpec, network::IpamConfig, subnet::fixed};

    use super::*;

    fn network(configs: &[IpamConfig]) -> LocalNetwork {
        LocalNetwork {
            id: "n".into(),
            created_at: 0,
            spec: NetworkSpec {
                name: "red".into(),
                ..NetworkSpec::default()
            },
            subnets: configs.iter().map(|one| fixed(one).unwrap()).collect(),
        }
    }

    fn config(subnet: &str) -> IpamConfig {
        IpamConfig {
            subnet: Some(subnet.parse().unwrap()),
            ..IpamConfig::default()
        }
    }

    fn last_octets(addresses: &mut LocalAddresses, network: &LocalNetwork, n: usize) -> Vec<u8> {
        let one = |_| match addresses.give(network, &[]).unwrap()[0].ip() {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(address) => address.octets()[15],
        };
        (0..n).map(one).collect()
    }

    #[test]
    fn addresses_are_serial_and_come_back_last() {
        let network = network(&[config("10.9.0.0/29")]);
        let mut addresses = LocalAddresses::default();
        assert_eq!(last_octets(&mut addresses, &network, 5), [2, 3, 4, 5, 6]);
        assert!(addresses.give(&network, &[]).is_err());
        addresses.take_back("n", "10.9.0.3".parse().unwrap());
        addresses.take_back("n", "10.9.0.6".parse().unwrap());
        assert_eq!(last_octets(&mut addresses, &network, 2), [3, 6]);
    }

    #[test]
    fn ranges_and_reserved_addresses_are_respected() {
        let mut small = config("10.9.0.0/24");
        small.ip_range = Some("10.9.0.128/30".parse().unwrap());
        small.aux_addresses = [("router".into(), "10.9.0.129".parse().unwrap())].into();
        let network = network(&[small]);
        let mut addresses = LocalAddresses::default();
        assert_eq!(last_octets(&mut addresses, &network, 3), [128, 130, 131]);
        assert!(addresses.give(&network, &[]).is_err());
        // By hand all of the subnet may be had, reserved ones too.
        for wanted in ["10.9.0.5", "10.9.0.129"] {
            let wanted = wanted.parse().unwrap();
            assert_eq!(addresses.give(&network, &[wanted]).unwrap()[0].ip(), wanted);
        }
    }

    #[test]
    fn both_families_are_given_or_none() {
        let network = network(&[config("10.9.0.0/29"), config("fd00:9::/64")]);
        let mut addresses = LocalAddresses::default();
        let wanted = ["10.9.0.4".parse().unwrap(), "fd00:9::4".parse().unwrap()];
        let given = addresses.give(&network, &wanted).unwrap();
        let text: Vec<String> = given.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["10.9.0.4/29", "fd00:9::4/64"]);
        let half = ["10.9.0.5".parse().unwrap(), wanted[1]];
        assert_eq!(
            addresses.give(&network, &half).unwrap_err().kind.status(),
            403
        );
        assert!(
            addresses.give(&network, &half[..1]).is_ok(),
            "it was not kept"
        );
    }

    #[test]
    fn fixed_addresses_are_checked() {
        let network = network(&[config("10.9.0.0/29")]);
        let mut addresses = LocalAddresses::default();
        for (wanted, fine) in [
            ("10.9.0.4", true),
            ("10.9.0.4", false),
            ("10.9.0.1", false),
            ("10.9.0.0", false),
            ("10.9.0.7", false),
            ("10.9.1.4", false),
            ("fd00::1", false),
        ] {
            let given = addresses.give(&network, &[wanted.parse().unwrap()]);
            assert_eq!(given.is_ok(), fine, "{wanted}");
        }
    }
}
