//! Addresses for Docker's networks where it was told `--ipam-driver overnet`: it asks for one before it
//! says what for, so an endpoint is made at once and waits for its container.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use model::{Network, Refusal};
use serde_json::{Value, json};

use super::{
    Plugin,
    naming::provisional,
    networks::{NETWORK, named, with_subnet},
    wire::AddressRequest,
};
use crate::network::guests::{GuestEndpoint, HandedWish, Which};

/// How owners of endpoints begin that wait for their container.
const RESERVED: &str = "docker-address ";
/// Docker's word for what an address is for, and for a network's gateway.
const PURPOSE: &str = "RequestAddressType";
const GATEWAY: &str = "com.docker.network.gateway";

impl Plugin {
    /// A pool is an overlay network, its id the pool's.
    pub(super) async fn request_pool(&self, request: AddressRequest) -> Result<Value, Refusal> {
        let overlays = self.overlays().await?;
        let network = pool(&overlays, &request)?;
        let subnet = network.subnets.iter().find(|one| one.subnet.is_ipv4());
        let subnet = subnet.ok_or_else(|| Refusal::internal("the network has no subnet"))?;
        let gateway = format!("{}/{}", subnet.gateway, subnet.subnet.prefix());
        Ok(json!({
            "PoolID": network.id,
            "Pool": subnet.subnet.to_string(),
            "Data": {GATEWAY: gateway},
        }))
    }

    pub(super) async fn request_address(&self, request: AddressRequest) -> Result<Value, Refusal> {
        let overlays = self.overlays().await?;
        let network = named(&overlays, &request.pool_id)?;
        let wanted = wanted(&request.address)?;
        if request
            .options
            .get(PURPOSE)
            .is_some_and(|what| what == GATEWAY)
        {
            let mut own = network.subnets.iter();
            let subnet = own.find(|one| wanted.is_none_or(|wanted| one.gateway == wanted));
            let subnet = subnet.ok_or_else(|| {
                Refusal::invalid("the gateway is the overlay network's; leave --gateway out")
            })?;
            let gateway = format!("{}/{}", subnet.gateway, subnet.subnet.prefix());
            return Ok(json!({"Address": gateway}));
        }
        let number = format!("{:032x}", rand::random::<u128>());
        let wish = HandedWish {
            network: network.id.to_string(),
            name: provisional(&number),
            aliases: Vec::new(),
            addresses: wanted.into_iter().collect(),
            owner: format!("{RESERVED}{number}"),
        };
        let endpoint = self.networks.hand_out(wish).await?;
        let mut addresses = endpoint.endpoint.addresses.iter();
        let address = addresses.find(|(address, _)| address.is_ipv4());
        let (address, prefix) =
            address.ok_or_else(|| Refusal::internal("the network has given no IPv4 address"))?;
        Ok(json!({"Address": format!("{address}/{prefix}")}))
    }

    /// Of a container that came to be, its endpoint gives it back.
    pub(super) async fn release_address(&self, request: &AddressRequest) -> Result<(), Refusal> {
        let Some(address) = wanted(&request.address)? else {
            return Ok(());
        };
        let Some(reserved) = self.reserved(&request.pool_id, &[address]).await else {
            return Ok(());
        };
        let which = Which {
            owner: Some(reserved.owner),
            ..Which::default()
        };
        self.networks.detach_guests(&which).await.map(drop)
    }

    /// The endpoint on the network of that id that waits with one of these addresses.
    pub(super) async fn reserved(
        &self,
        overlay: &str,
        addresses: &[IpAddr],
    ) -> Option<GuestEndpoint> {
        let guests = self.networks.guest_endpoints(&Which::default()).await;
        guests.into_iter().find(|guest| {
            let mut own = guest.endpoint.addresses.iter();
            guest.owner.starts_with(RESERVED)
                && guest.endpoint.network_id == overlay
                && own.any(|(address, _)| addresses.contains(address))
        })
    }
}

fn wanted(address: &str) -> Result<Option<IpAddr>, Refusal> {
    if address.is_empty() {
        return Ok(None);
    }
    let alone = address.split('/').next().unwrap_or(address);
    let parsed = alone.parse().map(Some);
    parsed.map_err(|_| Refusal::invalid(format!("{address:?} is no address")))
}

/// The network that a pool is asked of: the one that is named, or that has the subnet.
fn pool<'a>(overlays: &'a [Network], request: &AddressRequest) -> Result<&'a Network, Refusal> {
    if request.ipv6 {
        return Err(Refusal::invalid(
            "IPv6 addresses of an overlay network come without an address manager of Docker's: --ipam-driver null",
        ));
    }
    let named = request
        .options
        .get(NETWORK)
        .map(|name| named(overlays, name))
        .transpose()?;
    let subnet: Option<IpNetwork> = match request.pool.as_str() {
        "" => None,
        text => {
            let parsed = text.parse().map(Some);
            parsed.map_err(|_| Refusal::invalid(format!("{text:?} is no subnet")))?
        }
    };
    if !request.sub_pool.is_empty() {
        return Err(Refusal::invalid(
            "the range of addresses is the overlay network's; leave --ip-range out",
        ));
    }
    let found = match (named, subnet) {
        (Some(network), None) => network,
        (Some(network), Some(subnet)) => {
            if !network.subnets.iter().any(|one| one.subnet == subnet) {
                return Err(Refusal::invalid(format!(
                    "network {} has no subnet {subnet}; leave --subnet out",
                    network.spec.name
                )));
            }
            network
        }
        (None, Some(subnet)) => with_subnet(overlays, subnet).ok_or_else(|| {
            Refusal::not_found(format!("no overlay network has the subnet {subnet}"))
        })?,
        (None, None) => {
            return Err(Refusal::invalid(format!(
                "which overlay network gives the addresses? Say --ipam-opt {NETWORK}=NAME, or --subnet with the one it has"
            )));
        }
    };
    self::named(overlays, found.id.as_str())
}
