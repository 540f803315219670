//! `/overnet/attachments`: network namespaces of others on overlay networks. They are no part of
//! Docker's API.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use api::{
    Query,
    attachment::{AttachRequest, AttachmentView, Resolver, WayOut},
};
use axum::{Router, extract::State, http::StatusCode, routing::get};
use dataplane::view::Sandbox;
use model::{Refusal, endpoint::MacAddress};

use super::{Answer, AppState, Asked, Given, json, json_with};
use crate::network::guests::{GuestEndpoint, GuestWish, Which};

/// The name server of a namespace.
const NAMESERVER: &str = "127.0.0.11";

pub(super) fn routes() -> Router<AppState> {
    let methods = get(list).post(attach).delete(detach);
    Router::new().route("/overnet/attachments", methods)
}

async fn list(State(state): State<AppState>, Asked(query): Asked) -> Answer {
    let found = state.networks.guests(&which(&query)).await;
    let search = state.networks.search_list();
    let mut views: Vec<AttachmentView> = found.iter().map(|one| view(one, &search)).collect();
    if query.flag("check") {
        let seen = state.networks.sight().await?.observed.view;
        for (view, attached) in views.iter_mut().zip(&found) {
            view.fault = fault(attached, seen.sandboxes.get(&attached.bound));
        }
    }
    Ok(json(&views))
}

/// What the kernel has otherwise than it should.
fn fault(attached: &GuestEndpoint, seen: Option<&Sandbox>) -> String {
    let name = &attached.interface;
    let Some(seen) = seen else {
        return "its namespace has gone".to_owned();
    };
    let Some(interface) = seen.interfaces.get(name) else {
        return format!("interface {name} is missing");
    };
    if !interface.up {
        return format!("interface {name} is down");
    }
    let held = |address: &IpAddr| interface.addresses.iter().any(|net| net.ip() == *address);
    let mut addresses = attached.endpoint.addresses.iter();
    match addresses.find(|(address, _)| !held(address)) {
        Some((address, _)) => format!("address {address} of interface {name} is missing"),
        None => String::new(),
    }
}

async fn attach(State(state): State<AppState>, Given(request): Given<AttachRequest>) -> Answer {
    state.settled().await;
    let attached = state.networks.attach_guest(wish(request)?).await?;
    let view = view(&attached, &state.networks.search_list());
    Ok(json_with(StatusCode::CREATED, &view))
}

/// All that are meant; which they were is the answer.
async fn detach(State(state): State<AppState>, Asked(query): Asked) -> Answer {
    let which = which(&query);
    if which.netns.is_none() && which.owner.is_none() {
        return Err(Refusal::invalid("say which attachments go: netns=PATH or owner=TEXT").into());
    }
    let gone = state.networks.detach_guests(&which).await?;
    if gone.is_empty() {
        return Err(Refusal::not_found(nothing(&which)).into());
    }
    let search = state.networks.search_list();
    let views: Vec<AttachmentView> = gone.iter().map(|one| view(one, &search)).collect();
    Ok(json(&views))
}

fn nothing(which: &Which) -> String {
    let what = match (&which.netns, &which.owner) {
        (Some(netns), _) => netns.display().to_string(),
        (None, Some(owner)) => owner.clone(),
        (None, None) => "it".to_owned(),
    };
    match &which.network {
        Some(network) => format!("{what} is not attached to network {network}"),
        None => format!("{what} is attached to no network"),
    }
}

fn which(query: &Query) -> Which {
    let text = |name: &str| query.text(name).filter(|text| !text.is_empty());
    Which {
        netns: text("netns").map(PathBuf::from),
        network: text("network").map(str::to_owned),
        owner: text("owner").map(str::to_owned),
    }
}

fn wish(request: AttachRequest) -> Result<GuestWish, Refusal> {
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let mut addresses: Vec<IpAddr> = Vec::new();
    for text in &request.ip_addresses {
        let Ok(address) = text.parse::<IpAddr>() else {
            return Err(Refusal::invalid(format!("{text:?} is no address")));
        };
        if addresses
            .iter()
            .any(|one| one.is_ipv4() == address.is_ipv4())
        {
            return Err(Refusal::invalid(format!(
                "{address} is a second address of its family; one of each can be asked for"
            )));
        }
        addresses.push(address);
    }
    if request.network.is_empty() {
        return Err(Refusal::invalid("the name of a network is missing"));
    }
    Ok(GuestWish {
        netns: PathBuf::from(request.netns),
        network: request.network,
        name: given(request.name),
        aliases: request.aliases,
        addresses,
        interface: given(request.interface),
        gateway: request.gateway,
        owner: request.owner,
    })
}

fn view(attached: &GuestEndpoint, search: &[String]) -> AttachmentView {
    let endpoint = &attached.endpoint;
    AttachmentView {
        endpoint_id: endpoint.endpoint_id.clone(),
        netns: shown(&attached.netns),
        owner: attached.owner.clone(),
        network: endpoint.network_name.clone(),
        network_id: endpoint.network_id.clone(),
        interface: attached.interface.clone(),
        mac_address: endpoint.mac.clone(),
        ip_addresses: texts(&endpoint.addresses),
        names: endpoint.dns_names.clone(),
        gateway: attached.gateway.as_ref().map(|way| WayOut {
            interface: way.interface.clone(),
            mac_address: MacAddress(way.mac).to_string(),
            ip_addresses: texts(&way.addresses),
            via: way.via.iter().map(ToString::to_string).collect(),
        }),
        dns: Resolver {
            nameservers: vec![NAMESERVER.to_owned()],
            search: search.to_vec(),
            options: vec!["ndots:0".to_owned()],
        },
        late: attached.late.clone(),
        fault: String::new(),
    }
}

fn texts(addresses: &[(IpAddr, u8)]) -> Vec<String> {
    let text = |(address, prefix): &(IpAddr, u8)| format!("{address}/{prefix}");
    addresses.iter().map(text).collect()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read() {
        let request = |addresses: &[&str]| AttachRequest {
            netns: "/run/netns/web".to_owned(),
            network: "ch03".to_owned(),
            ip_addresses: addresses.iter().map(ToString::to_string).collect(),
            ..AttachRequest::default()
        };
        let wished = wish(request(&["10.0.0.9", "fd00::9"])).unwrap();
        assert_eq!(wished.addresses.len(), 2);
        assert_eq!((wished.name, wished.interface), (None, None));
        for (addresses, part) in [
            (&["10.0.0.9", "10.0.0.10"][..], "second address"),
            (&["10.0.0.0/24"], "is no address"),
        ] {
            let said = wish(request(addresses)).unwrap_err().message;
            assert!(said.contains(part), "{said}");
        }
        let none = AttachRequest {
            network: String::new(),
            ..request(&[])
        };
        assert!(wish(none).is_err());
    }
}
