//! Networks of Docker, and its containers' places on them.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use model::{Network, Refusal};
use serde_json::{Value, json};

use super::{
    Plugin,
    naming::{name_of, provisional},
    wire::{EndpointRequest, Interface, NetworkRequest, Options, PoolData},
};
use crate::network::guests::{GuestEndpoint, HandedWish, Which};

/// Of `docker network create -o`, and of `--ipam-opt`.
pub(super) const NETWORK: &str = "overnet.network";
/// What Docker puts the options of a network under.
const GENERIC: &str = "com.docker.network.generic";
/// How Docker numbers interfaces in a container.
const PREFIX: &str = "eth";

impl Plugin {
    pub(super) async fn create_network(&self, request: NetworkRequest) -> Result<(), Refusal> {
        let overlays = self.overlays().await?;
        let pools: Vec<&PoolData> = request.ipv4.iter().chain(&request.ipv6).collect();
        let overlay = chosen(&overlays, asked(&request.options), &pools)?;
        self.known
            .learn(&request.network, overlay.map(|one| one.id.to_string()))
    }

    pub(super) fn delete_network(&self, request: &NetworkRequest) -> Result<(), Refusal> {
        self.known.forget(&request.network)
    }

    /// The id of the overlay network; one of which Docker has told nothing has the name of Docker's.
    async fn leads_to(&self, docker: &str) -> Result<String, Refusal> {
        if let Some(overlay) = self.known.overlay(docker) {
            return Ok(overlay);
        }
        let (name, options) = self.docker.network(docker).await?;
        let overlays = self.overlays().await?;
        let wanted = options.get(NETWORK).unwrap_or(&name);
        let overlay = named(&overlays, wanted)?.id.to_string();
        self.known.learn(docker, Some(overlay.clone()))?;
        Ok(overlay)
    }

    pub(super) async fn create_endpoint(&self, request: EndpointRequest) -> Result<Value, Refusal> {
        let given = &request.interface;
        if !given.mac.is_empty() {
            return Err(Refusal::invalid(
                "a hardware address on an overlay network follows from the IP address; leave --mac-address out",
            ));
        }
        let addresses = addresses(given)?;
        let overlay = self.leads_to(&request.network).await?;
        let owner = owner(&request.endpoint);
        let name = name_of(&request.options);
        let endpoint = if let Some(reserved) = self.reserved(&overlay, &addresses).await {
            let endpoint = self.networks.hand_on(&reserved.owner, &owner).await?;
            let name = name.unwrap_or_else(|| provisional(&request.endpoint));
            self.networks.name_guest(&owner, &name, &[]).await?;
            endpoint
        } else {
            let wish = HandedWish {
                network: overlay,
                name: name.unwrap_or_else(|| provisional(&request.endpoint)),
                aliases: Vec::new(),
                addresses,
                owner,
            };
            self.networks.hand_out(wish).await?
        };
        Ok(json!({"Interface": answer(given, &endpoint)}))
    }

    pub(super) async fn join(&self, request: EndpointRequest) -> Result<Value, Refusal> {
        let owner = owner(&request.endpoint);
        let handed = self
            .networks
            .hand_to(&owner, request.sandbox.into())
            .await?;
        self.unnamed.notify_one();
        Ok(json!({
            "InterfaceName": {"SrcName": handed.device, "DstPrefix": PREFIX},
            "StaticRoutes": [],
            // The way out, and published ports, are over Docker's own bridge.
            "DisableGatewayService": handed.internal,
        }))
    }

    /// What is not there has left already.
    pub(super) async fn leave(&self, request: &EndpointRequest) -> Result<(), Refusal> {
        let which = Which {
            owner: Some(owner(&request.endpoint)),
            ..Which::default()
        };
        self.networks.detach_guests(&which).await.map(drop)
    }
}

/// What an endpoint of Docker's is called among the guests.
pub(super) fn owner(endpoint: &str) -> String {
    format!("docker {endpoint}")
}

fn asked(options: &Options) -> Option<&str> {
    options.get(GENERIC)?.get(NETWORK)?.as_str()
}

/// The network of that name or id.
pub(super) fn named<'a>(overlays: &'a [Network], wanted: &str) -> Result<&'a Network, Refusal> {
    let mut all = overlays.iter();
    let by_name = all.find(|one| one.spec.name == wanted);
    let by_id = || overlays.iter().find(|one| one.id.as_str() == wanted);
    let found = by_name.or_else(by_id).ok_or_else(|| {
        Refusal::not_found(format!(
            "there is no overlay network {wanted}; create it with `ovnctl network create -d overlay --attachable {wanted}`, \
             or say which is meant: -o {NETWORK}=NAME"
        ))
    })?;
    if found.spec.attachable {
        return Ok(found);
    }
    Err(Refusal::forbidden(format!(
        "network {wanted} is not attachable; create it with --attachable for containers of Docker"
    )))
}

/// The network with that subnet.
pub(super) fn with_subnet(overlays: &[Network], subnet: IpNetwork) -> Option<&Network> {
    let mut all = overlays.iter();
    all.find(|one| one.subnets.iter().any(|own| own.subnet == subnet))
}

/// The overlay network that a network of Docker's is to lead to: the one that is named, or whose
/// subnet it has. Absent where Docker has neither said: it will be the one of the same name.
fn chosen<'a>(
    overlays: &'a [Network],
    asked: Option<&str>,
    pools: &[&PoolData],
) -> Result<Option<&'a Network>, Refusal> {
    let mut subnets = Vec::new();
    for pool in pools {
        let subnet: Option<IpNetwork> = pool.pool.parse().ok();
        // The address manager `null` has the whole world.
        subnets.extend(subnet.filter(|subnet| subnet.prefix() != 0));
    }
    let (network, first) = match (asked, subnets.first()) {
        (None, None) => return Ok(None),
        (Some(name), None) => return named(overlays, name).map(Some),
        (Some(name), Some(first)) => (named(overlays, name)?, first),
        (None, Some(first)) => match with_subnet(overlays, *first) {
            Some(network) => (named(overlays, network.id.as_str())?, first),
            None => return Err(strange(*first, None)),
        },
    };
    let own = |subnet: &&IpNetwork| network.subnets.iter().any(|one| one.subnet == **subnet);
    match subnets.iter().find(|subnet| !own(subnet)) {
        None => Ok(Some(network)),
        Some(_) => Err(strange(*first, Some(network))),
    }
}

fn strange(subnet: IpNetwork, network: Option<&Network>) -> Refusal {
    let of = match network {
        Some(network) => format!(
            "network {} has the subnet {}",
            network.spec.name,
            network
                .subnets
                .iter()
                .map(|one| one.subnet.to_string())
                .collect::<Vec<_>>()
                .join(", ")
        ),
        None => "no overlay network has that subnet".to_owned(),
    };
    Refusal::invalid(format!(
        "Docker would give addresses of {subnet}, and {of}; leave them to the cluster: \
         docker network create -d overnet --ipam-driver null -o {NETWORK}=NETWORK NAME"
    ))
}

/// Those that Docker has chosen, or had of our address manager.
fn addresses(given: &Interface) -> Result<Vec<IpAddr>, Refusal> {
    let texts = [&given.address, &given.address_ipv6];
    let given = texts.into_iter().filter(|text| !text.is_empty());
    let read = |text: &String| {
        let address = text.parse::<IpNetwork>().map(|net| net.ip());
        address.map_err(|_| Refusal::invalid(format!("{text:?} is no address")))
    };
    given.map(read).collect()
}

/// What Docker has not given itself.
fn answer(given: &Interface, endpoint: &GuestEndpoint) -> Interface {
    let text = |ipv6: bool| {
        let mut addresses = endpoint.endpoint.addresses.iter();
        let found = addresses.find(|(address, _)| address.is_ipv6() == ipv6);
        found.map(|(address, prefix)| format!("{address}/{prefix}"))
    };
    let unless = |given: &str, text: Option<String>| {
        let text = text.filter(|_| given.is_empty());
        text.unwrap_or_default()
    };
    Interface {
        address: unless(&given.address, text(false)),
        address_ipv6: unless(&given.address_ipv6, text(true)),
        mac: endpoint.endpoint.mac.clone(),
    }
}

#[cfg(test)]
mod tests {
    use model::{Meta, NetworkId, NetworkSpec, network::Subnet};

    use super::*;

    fn network(name: &str, subnet: &str, attachable: bool) -> Network {
        let subnet: IpNetwork = subnet.parse().unwrap();
        Network {
            id: NetworkId::new(format!("id-{name}")),
            meta: Meta::default(),
            spec: NetworkSpec {
                name: name.into(),
                attachable,
                ..NetworkSpec::default()
            },
            vni: 4096,
            subnets: vec![Subnet {
                subnet,
                range: subnet,
                gateway: subnet.nth(1).unwrap(),
                aux_addresses: std::collections::BTreeMap::new(),
            }],
        }
    }

    trait Nth {
        fn nth(&self, number: u32) -> Option<IpAddr>;
    }

    impl Nth for IpNetwork {
        fn nth(&self, number: u32) -> Option<IpAddr> {
            match self {
                Self::V4(net) => net.nth(number).map(IpAddr::V4),
                Self::V6(_) => None,
            }
        }
    }

    #[test]
    fn a_network_is_meant_by_its_name_or_its_subnet() {
        let all = [
            network("ch03", "10.0.16.0/24", true),
            network("closed", "10.0.17.0/24", false),
        ];
        let pick = |asked: Option<&str>, pools: &[&str]| {
            let pools: Vec<PoolData> = pools
                .iter()
                .map(|pool| PoolData {
                    pool: (*pool).to_owned(),
                })
                .collect();
            let pools: Vec<&PoolData> = pools.iter().collect();
            let found = chosen(&all, asked, &pools);
            found.map(|one| one.map(|one| one.spec.name.clone()))
        };
        let ch03 = Ok(Some("ch03".to_owned()));
        assert_eq!(pick(Some("ch03"), &["0.0.0.0/0"]), ch03);
        assert_eq!(pick(Some("id-ch03"), &["10.0.16.0/24"]), ch03);
        assert_eq!(pick(None, &["10.0.16.0/24"]), ch03);
        assert_eq!(pick(None, &["0.0.0.0/0"]), Ok(None));
        for (asked, pools, part) in [
            (Some("ch03"), &["172.18.0.0/16"][..], "10.0.16.0/24"),
            (
                None,
                &["172.18.0.0/16"],
                "no overlay network has that subnet",
            ),
            (
                Some("none"),
                &["0.0.0.0/0"],
                "there is no overlay network none",
            ),
            (Some("closed"), &[], "not attachable"),
            (None, &["10.0.17.0/24"], "not attachable"),
            (Some("ch03"), &["10.0.16.0/24", "fd00::/64"], "10.0.16.0/24"),
        ] {
            let said = pick(asked, pools).unwrap_err().message;
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn options_are_found_where_docker_puts_them() {
        let request: NetworkRequest = super::super::read(
            br#"{"NetworkID":"n1","Options":{"com.docker.network.enable_ipv6":false,
            "com.docker.network.generic":{"overnet.network":"ch03"}},
            "IPv4Data":[{"AddressSpace":"x","Pool":"0.0.0.0/0","Gateway":""}],"IPv6Data":null}"#,
        )
        .unwrap();
        assert_eq!(asked(&request.options), Some("ch03"));
        assert_eq!(request.ipv4.len(), 1);
        let request: EndpointRequest =
            super::super::read(br#"{"NetworkID":"n1","EndpointID":"e1","Interface":null}"#)
                .unwrap();
        assert_eq!(request.interface, Interface::default());
        let given = Interface {
            address: "10.0.16.5/24".into(),
            ..Interface::default()
        };
        assert_eq!(
            addresses(&given).unwrap(),
            ["10.0.16.5".parse::<IpAddr>().unwrap()]
        );
    }
}
