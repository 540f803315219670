//! `HostConfig.PortBindings`.

use std::{collections::HashMap, net::IpAddr};

use model::{Refusal, service::Protocol};
use runtime::network::PortBinding;

/// `8080/tcp` and where it is published: each with the host's address and its port, a range or
/// nothing.
pub(super) fn read(
    bindings: HashMap<String, Option<Vec<api::docker::PortBinding>>>,
) -> Result<Vec<PortBinding>, Refusal> {
    let mut ports = Vec::new();
    for (text, places) in bindings {
        let bad = |what: &str| {
            Refusal::invalid(format!(
                "HostConfig.PortBindings: {what}; write PORT[/tcp|udp|sctp]"
            ))
        };
        let (target, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
        let target = target
            .parse::<u16>()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| bad(&format!("{text:?} is no port of a container")))?;
        let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        let protocol = all
            .into_iter()
            .find(|one| one.as_str() == protocol)
            .ok_or_else(|| bad(&format!("{text:?} has an unknown protocol")))?;
        for place in places.unwrap_or_default() {
            ports.push(PortBinding {
                target,
                protocol,
                published: range(&place.host_port.unwrap_or_default())?,
                address: address(&place.host_ip.unwrap_or_default())?,
            });
        }
    }
    ports.sort();
    ports.dedup();
    Ok(ports)
}

fn range(text: &str) -> Result<Option<(u16, u16)>, Refusal> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    if first.is_empty() || first == "0" {
        return Ok(None);
    }
    let read = (first.parse(), last.parse());
    match read {
        (Ok(first), Ok(last)) if first <= last => Ok(Some((first, last))),
        _ => Err(Refusal::invalid(format!(
            "invalid port specification: {text:?} is no port and no range of ports of the host"
        ))),
    }
}

/// None for all addresses.
fn address(text: &str) -> Result<Option<IpAddr>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    let address: IpAddr = text.parse().map_err(|_| {
        Refusal::invalid(format!("invalid IP address of a published port: {text:?}"))
    })?;
    if address == IpAddr::V6(std::net::Ipv6Addr::LOCALHOST) {
        return Err(Refusal::not_implemented(
            "a port cannot be published at [::1] alone; publish it at 127.0.0.1 or at all addresses",
        ));
    }
    Ok((!address.is_unspecified()).then_some(address))
}
