//! From a guest's record to its places on networks. Pure.

use std::net::IpAddr;

use model::Refusal;
use runtime::network::{ConnectedEndpoint, NetworkMode, NetworkWish, find_wish};

use super::{GuestEndpoint, GuestWish, WayOut};
use crate::network::record::SandboxRecord;

/// What the members of a network call it.
pub fn name_of<'a>(record: &'a SandboxRecord, endpoint: &'a ConnectedEndpoint) -> &'a str {
    let name = endpoint
        .dns_names
        .first()
        .filter(|_| record.guest.is_some());
    name.unwrap_or(&record.request.name)
}

pub(super) fn wishes_of(record: &SandboxRecord) -> &[NetworkWish] {
    match &record.request.mode {
        NetworkMode::Networks(wishes) => wishes,
        NetworkMode::Host | NetworkMode::None | NetworkMode::Container(_) => &[],
    }
}

/// Its endpoint on the network of that name, id or beginning of an id.
pub(super) fn on<'a>(record: &'a SandboxRecord, network: &str) -> Option<&'a ConnectedEndpoint> {
    let endpoints = &record.connected.endpoints;
    let by_name = endpoints.iter().find(|one| one.network_name == network);
    by_name.or_else(|| {
        let part = |one: &&ConnectedEndpoint| one.network_id.starts_with(network);
        endpoints.iter().find(part).filter(|_| !network.is_empty())
    })
}

/// What is there already of a wish; an error where there is another attachment to the network.
pub(super) fn standing(
    record: &SandboxRecord,
    wish: &GuestWish,
    name: &str,
) -> Result<Option<GuestEndpoint>, Refusal> {
    let Some(endpoint) = on(record, &wish.network) else {
        return Ok(None);
    };
    let there = told(record, endpoint);
    let given = |address: &IpAddr| endpoint.addresses.iter().any(|(one, _)| one == address);
    let same = there.owner == wish.owner
        && name_of(record, endpoint) == name
        && endpoint.aliases == wish.aliases
        && wish.addresses.iter().all(given)
        && wish
            .interface
            .as_ref()
            .is_none_or(|one| there.interface == *one)
        && (there.gateway.is_some() || !wish.gateway);
    if same {
        return Ok(Some(there));
    }
    Err(Refusal::conflict(format!(
        "{} is on network {} already, as {} with interface {}; detach it first",
        wish.netns.display(),
        endpoint.network_name,
        name_of(record, endpoint),
        there.interface
    )))
}

pub(super) fn told(record: &SandboxRecord, endpoint: &ConnectedEndpoint) -> GuestEndpoint {
    let mut interfaces = record.interfaces.iter();
    let interface = interfaces.find(|one| one.endpoint == endpoint.endpoint_id);
    let wishes = wishes_of(record);
    let wish = find_wish(wishes, &endpoint.network_name, &endpoint.network_id);
    let wish = wish.and_then(|place| wishes.get(place));
    let mut ways = record.interfaces.iter();
    let way = ways.find(|one| !one.default_via.is_empty());
    let guest = record.guest.as_ref();
    GuestEndpoint {
        netns: guest.map(|guest| guest.source.clone()).unwrap_or_default(),
        owner: guest
            .and_then(|guest| guest.owners.get(&wish?.network).cloned())
            .unwrap_or_default(),
        bound: record.connected.netns.clone().unwrap_or_default(),
        interface: interface.map(|one| one.name.clone()).unwrap_or_default(),
        endpoint: endpoint.clone(),
        gateway: way.map(|one| WayOut {
            interface: one.name.clone(),
            mac: one.mac,
            addresses: one
                .addresses
                .iter()
                .map(|net| (net.ip(), net.prefix()))
                .collect(),
            via: one.default_via.clone(),
        }),
        late: record.connected.late.clone(),
    }
}
