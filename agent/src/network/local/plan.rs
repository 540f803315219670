//! What becomes of the wish for a local network: pure.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use model::{
    NetworkSpec, Refusal,
    network::{IpamConfig, Subnet},
    subnet::{fixed, overlap},
};

use super::{BridgeOptions, LocalNetwork, LocalNetworks};

/// What a new network must keep away from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// By a route of this host.
    Route(IpNetwork),
    /// By a network of the cluster.
    Cluster {
        name: String,
        subnets: Vec<IpNetwork>,
    },
    /// The name of a device.
    Device(String),
}

/// RFC 8200, section 5.
const LEAST_MTU_OF_IPV6: u32 = 1280;

/// The network with every choice made, or why there is none.
pub fn plan(
    spec: NetworkSpec,
    id: String,
    created_at: i64,
    local: &LocalNetworks,
    taken: &[Taken],
) -> Result<LocalNetwork, Refusal> {
    let name = &spec.name;
    if local.iter().any(|other| other.name() == name) {
        return Err(Refusal::conflict(format!(
            "network with name {name} already exists; remove it first or choose another name"
        )));
    }
    let in_cluster =
        |one: &Taken| matches!(one, Taken::Cluster { name: other, .. } if other == name);
    if taken.iter().any(in_cluster) {
        return Err(Refusal::conflict(format!(
            "network with name {name} already exists in the cluster; choose another name"
        )));
    }
    if spec.ingress {
        return Err(Refusal::invalid(format!(
            "network {name}: an ingress network has the driver overlay"
        )));
    }
    if !matches!(spec.ipam_driver.as_str(), "" | "default") {
        return Err(Refusal::invalid(format!(
            "IPAM driver {:?} is not known; leave --ipam-driver out",
            spec.ipam_driver
        )));
    }
    let options = BridgeOptions::read(name, &spec.options)?;
    if let Some(device) = options.device {
        let others = local.iter().filter_map(|other| other.options().device);
        let devices = taken.iter().filter_map(|one| match one {
            Taken::Device(name) => Some(name.clone()),
            Taken::Route(_) | Taken::Cluster { .. } => None,
        });
        if others.chain(devices).any(|other| other == device) {
            return Err(Refusal::conflict(format!(
                "network {name}: this host has a device {device} already; choose another {}",
                super::options::DEVICE
            )));
        }
    }
    let subnets = subnets(&spec, &id, local, taken)?;
    if let Some(mtu) = options.mtu.filter(|mtu| *mtu < LEAST_MTU_OF_IPV6)
        && subnets.iter().any(|one| one.subnet.is_ipv6())
    {
        return Err(Refusal::invalid(format!(
            "network {name}: IPv6 needs an MTU of {LEAST_MTU_OF_IPV6} at least, not {mtu}; write a larger one or \
             leave --ipv6 out"
        )));
    }
    Ok(LocalNetwork {
        id,
        created_at,
        spec,
        subnets,
    })
}

/// What has addresses, with its name.
fn addressed(local: &LocalNetworks, taken: &[Taken]) -> Vec<(IpNetwork, String)> {
    let mut all = Vec::new();
    for network in local.iter() {
        let of = format!("of network {}", network.name());
        all.extend(network.subnets.iter().map(|one| (one.subnet, of.clone())));
    }
    for one in taken {
        match one {
            Taken::Route(route) => all.push((*route, "that this host has a route to".to_owned())),
            Taken::Cluster { name, subnets } => {
                let of = format!("of network {name}");
                all.extend(subnets.iter().map(|subnet| (*subnet, of.clone())));
            }
            Taken::Device(_) => {}
        }
    }
    all
}

fn subnets(
    spec: &NetworkSpec,
    id: &str,
    local: &LocalNetworks,
    taken: &[Taken],
) -> Result<Vec<Subnet>, Refusal> {
    let name = &spec.name;
    let addressed = addressed(local, taken);
    let mut subnets: Vec<Subnet> = Vec::new();
    for config in &spec.ipam {
        if *config == IpamConfig::default() {
            continue;
        }
        if config.subnet.is_none() {
            return Err(Refusal::invalid(format!(
                "network {name}: a gateway, range or reserved address without its subnet; name the subnet too (--subnet)"
            )));
        }
        let subnet = fixed(config)?;
        let ipv6 = subnet.subnet.is_ipv6();
        if ipv6 && !spec.ipv6 {
            return Err(Refusal::invalid(format!(
                "subnet {} is IPv6; ask for it with --ipv6",
                subnet.subnet
            )));
        }
        if subnets.iter().any(|other| other.subnet.is_ipv6() == ipv6) {
            return Err(Refusal::forbidden(format!(
                "network {name}: bridge driver doesn't support multiple subnets; name one IPv4 and one IPv6 subnet at most"
            )));
        }
        if let Some((other, whose)) = addressed
            .iter()
            .find(|(other, _)| overlap(*other, subnet.subnet))
        {
            return Err(Refusal::forbidden(format!(
                "Pool overlaps with other one on this address space: {} and {other} {whose}; choose another, or leave --subnet out to have a free one chosen",
                subnet.subnet
            )));
        }
        subnets.push(subnet);
    }
    let taken: Vec<IpNetwork> = addressed.into_iter().map(|(subnet, _)| subnet).collect();
    let whole = |subnet: IpNetwork| {
        fixed(&IpamConfig {
            subnet: Some(subnet),
            ..IpamConfig::default()
        })
    };
    if !subnets.iter().any(|subnet| subnet.subnet.is_ipv4()) {
        let free = free_ipv4(&taken).ok_or_else(|| {
            Refusal::forbidden(format!(
                "network {name}: could not find an available, non-overlapping IPv4 address pool among the defaults; name one (--subnet) or remove networks"
            ))
        })?;
        subnets.push(whole(free.into())?);
    }
    if spec.ipv6 && !subnets.iter().any(|subnet| subnet.subnet.is_ipv6()) {
        let free = free_ipv6(id, &taken).ok_or_else(|| {
            Refusal::forbidden(format!(
                "network {name}: no IPv6 subnet is free; name one (--subnet)"
            ))
        })?;
        subnets.push(whole(free.into())?);
    }
    subnets.sort_by_key(|subnet| subnet.subnet.is_ipv6());
    Ok(subnets)
}

/// Docker's local pools, in its order: 172.17 to 172.31 as /16, then 192.168.0.0/16 as /20.
fn candidates() -> impl Iterator<Item = Ipv4Network> {
    let sixteens = (17..=31).map(|second| (Ipv4Addr::new(172, second, 0, 0), 16));
    let twenties = (0..16).map(|third| (Ipv4Addr::new(192, 168, third * 16, 0), 20));
    sixteens
        .chain(twenties)
        .filter_map(|(ip, prefix)| Ipv4Network::new(ip, prefix).ok())
}

/// The first pool that is free. A default route covers everything and takes nothing.
pub fn free_ipv4(taken: &[IpNetwork]) -> Option<Ipv4Network> {
    let mut taken: Vec<IpNetwork> = taken.to_vec();
    taken.retain(|one| one.prefix() > 0);
    candidates().find(|free| !taken.iter().any(|other| overlap((*free).into(), *other)))
}

/// A unique local /64 (RFC 4193): the 40 bits that are to be random are the id's.
fn free_ipv6(id: &str, taken: &[IpNetwork]) -> Option<Ipv6Network> {
    let digits = id
        .get(..10)
        .and_then(|part| u128::from_str_radix(part, 16).ok());
    let site = (0xfd_u128 << 120) | (digits.unwrap_or_default() << 80);
    let mut all = (0..=u128::from(u16::MAX))
        .filter_map(|number| Ipv6Network::new(Ipv6Addr::from(site | (number << 64)), 64).ok());
    all.find(|free| {
        let mut others = taken.iter().filter(|one| one.prefix() > 0);
        !others.any(|other| overlap((*free).into(), *other))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> LocalNetworks {
        let one = |name: &str, subnet: &str| {
            LocalNetwork::builtin(name, format!("{name}-id"), 0, subnet.parse().unwrap())
        };
        LocalNetworks {
            bridge: one(super::super::BRIDGE, "172.17.0.0/16"),
            gateway_bridge: one(super::super::GATEWAY_BRIDGE, "172.18.0.0/16"),
            custom: Vec::new(),
        }
    }

    fn asked(name: &str, subnets: &[&str], ipv6: bool) -> NetworkSpec {
        let of = |subnet: &&str| IpamConfig {
            subnet: Some(subnet.parse().unwrap()),
            ..IpamConfig::default()
        };
        NetworkSpec {
            name: name.into(),
            ipv6,
            ipam: subnets.iter().map(of).collect(),
            ..NetworkSpec::default()
        }
    }

    fn taken() -> Vec<Taken> {
        vec![
            Taken::Route("10.0.0.0/8".parse().unwrap()),
            Taken::Cluster {
                name: "ch03".into(),
                subnets: vec!["172.19.4.0/24".parse().unwrap()],
            },
            Taken::Device("eth0".into()),
        ]
    }

    fn planned(spec: NetworkSpec) -> Result<Vec<String>, Refusal> {
        let network = plan(spec, "ab".repeat(32), 0, &local(), &taken())?;
        let subnets = network.subnets.iter();
        Ok(subnets.map(|one| one.subnet.to_string()).collect())
    }

    #[test]
    fn subnets_keep_away_from_routes() {
        for (routes, expected) in [
            (vec![], "172.17.0.0/16"),
            (vec!["0.0.0.0/0"], "172.17.0.0/16"),
            (vec!["172.17.5.0/24"], "172.18.0.0/16"),
            (vec!["172.16.0.0/12"], "192.168.0.0/20"),
            (vec!["172.16.0.0/12", "192.168.1.0/24"], "192.168.16.0/20"),
        ] {
            let taken: Vec<IpNetwork> = routes.iter().map(|route| route.parse().unwrap()).collect();
            let free = free_ipv4(&taken).unwrap().to_string();
            assert_eq!(free, expected, "{routes:?}");
        }
        let all = ["172.16.0.0/12", "192.168.0.0/16"].map(|net| net.parse().unwrap());
        assert_eq!(free_ipv4(&all), None);
    }

    #[test]
    fn ipv6_needs_its_mtu() {
        for (mtu, ipv6, fine) in [
            ("1279", true, false),
            ("1280", true, true),
            ("68", false, true),
        ] {
            let mut spec = asked("red", &[], ipv6);
            spec.options
                .insert(model::network::OPTION_MTU.to_owned(), mtu.to_owned());
            assert_eq!(planned(spec).is_ok(), fine, "{mtu} {ipv6}");
        }
    }

    #[test]
    fn a_network_gets_what_is_free() {
        assert_eq!(
            planned(asked("red", &[], false)).unwrap(),
            ["172.20.0.0/16"]
        );
        assert_eq!(
            planned(asked("red", &[], true)).unwrap(),
            ["172.20.0.0/16", "fdab:abab:abab::/64"]
        );
        assert_eq!(
            planned(asked("red", &["fd00:1::/64", "192.168.7.0/24"], true)).unwrap(),
            ["192.168.7.0/24", "fd00:1::/64"]
        );
    }

    #[test]
    fn wrong_wishes_are_refused_by_name() {
        let mut device = asked("red", &[], false);
        let name = (super::super::options::DEVICE.to_owned(), "eth0".to_owned());
        device.options.extend([name]);
        let mut ingress = asked("red", &[], false);
        ingress.ingress = true;
        let mut gateway = asked("red", &[], false);
        gateway.ipam.push(IpamConfig {
            gateway: Some([192, 168, 7, 1].into()),
            ..IpamConfig::default()
        });
        for (spec, status, words) in [
            (asked("bridge", &[], false), 409, "already exists"),
            (asked("ch03", &[], false), 409, "exists in the cluster"),
            (asked("red", &["10.1.0.0/16"], false), 403, "has a route"),
            (
                asked("red", &["172.17.9.0/24"], false),
                403,
                "network bridge",
            ),
            (asked("red", &["172.19.0.0/16"], false), 403, "network ch03"),
            (asked("red", &["fd00:1::/64"], false), 400, "--ipv6"),
            (
                asked("red", &["192.168.7.0/24", "192.168.8.0/24"], false),
                403,
                "multiple subnets",
            ),
            (device, 409, "device eth0"),
            (ingress, 400, "overlay"),
            (gateway, 400, "without its subnet"),
        ] {
            let refusal = planned(spec).unwrap_err();
            assert_eq!(refusal.kind.status(), status, "{}", refusal.message);
            assert!(refusal.message.contains(words), "{}", refusal.message);
        }
    }
}
