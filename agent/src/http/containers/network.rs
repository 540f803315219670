//! From `NetworkMode` and `EndpointsConfig` to the wish for networks.

use std::{collections::HashMap, net::IpAddr};

use api::docker::{EndpointIpamConfig, EndpointSettings};
use model::{ContainerId, Refusal};
use runtime::network::{NetworkMode, NetworkWish};

use super::create::absent;

/// The host's default network, as Docker names it.
const DEFAULT: &str = "bridge";

/// `mode` is `HostConfig.NetworkMode`; the endpoints' settings lie under names or ids of
/// networks. The network of `mode` comes first (it gives the default route), the others follow
/// by falling `GwPriority` and then by name, because the map has no order of its own.
pub(super) fn read(
    mode: &str,
    mut endpoints: HashMap<String, EndpointSettings>,
    container: &dyn Fn(&str) -> Result<ContainerId, Refusal>,
) -> Result<NetworkMode, Refusal> {
    let whole = match mode {
        "host" => Some(NetworkMode::Host),
        "none" => Some(NetworkMode::None),
        _ => mode
            .strip_prefix("container:")
            .map(|other| container(other).map(NetworkMode::Container))
            .transpose()?,
    };
    if let Some(whole) = whole {
        endpoints.retain(|name, _| name != mode && name != "default");
        return match endpoints.keys().next() {
            None => Ok(whole),
            Some(name) => Err(Refusal::invalid(format!(
                "conflicting options: network mode {mode} excludes network {name}; name only one of them"
            ))),
        };
    }
    let is_default = matches!(mode, "" | "default" | DEFAULT);
    let first = if is_default { DEFAULT } else { mode };
    if let Some(settings) = endpoints.remove("default") {
        endpoints.entry(DEFAULT.to_owned()).or_insert(settings);
    }
    let mut wishes = Vec::new();
    match endpoints.remove(first) {
        Some(settings) => wishes.push(wish(first, settings)?),
        // Without a mode of its own the endpoints say it all.
        None if !endpoints.is_empty() && mode != DEFAULT && is_default => {}
        None => wishes.push(wish(first, EndpointSettings::default())?),
    }
    let mut rest: Vec<_> = endpoints.into_iter().collect();
    rest.sort_by(|(a_name, a), (b_name, b)| {
        let priority = |settings: &EndpointSettings| settings.gw_priority.unwrap_or(0);
        priority(b)
            .cmp(&priority(a))
            .then_with(|| a_name.cmp(b_name))
    });
    for (name, settings) in rest {
        if matches!(name.as_str(), "host" | "none") {
            return Err(Refusal::invalid(format!(
                "conflicting options: network {name} excludes network {first}; name only one of them"
            )));
        }
        wishes.push(wish(&name, settings)?);
    }
    Ok(NetworkMode::Networks(wishes))
}

/// One network with the settings of its endpoint.
pub fn wish(network: &str, settings: EndpointSettings) -> Result<NetworkWish, Refusal> {
    let EndpointSettings {
        ipam_config,
        links,
        mac_address,
        aliases,
        driver_opts,
        // Read where wishes are put in order.
        gw_priority: _,
        // What the daemon fills in; Docker ignores it in requests.
        network_id: _,
        endpoint_id: _,
        gateway: _,
        ip_address: _,
        ip_prefix_len: _,
        ipv6_gateway: _,
        global_ipv6_address: _,
        global_ipv6_prefix_len: _,
        dns_names: _,
    } = settings;
    let named = |option: &str| absent(&format!("network {network}: {option}"));
    if links.is_some_and(|list| !list.is_empty()) {
        return Err(named("Links (--link)"));
    }
    if mac_address.is_some_and(|mac| !mac.is_empty()) {
        return Err(named("MacAddress (--mac-address)"));
    }
    if driver_opts.is_some_and(|map| !map.is_empty()) {
        return Err(named("DriverOpts (driver-opt)"));
    }
    let aliases = aliases.unwrap_or_default();
    if network == DEFAULT && !aliases.is_empty() {
        return Err(Refusal::invalid(
            "network-scoped alias is supported only for containers in user defined networks; leave out --network-alias or name a network",
        ));
    }
    let EndpointIpamConfig {
        ipv4_address,
        ipv6_address,
        link_local_ips,
    } = ipam_config.unwrap_or_default();
    if link_local_ips.is_some_and(|list| !list.is_empty()) {
        return Err(named("LinkLocalIPs (--link-local-ip)"));
    }
    let mut addresses: Vec<IpAddr> = Vec::new();
    for (text, v4) in [(ipv4_address, true), (ipv6_address, false)] {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            continue;
        };
        match text.parse::<IpAddr>() {
            Ok(address) if address.is_ipv4() == v4 => addresses.push(address),
            _ => {
                let family = if v4 { "IPv4" } else { "IPv6" };
                return Err(Refusal::invalid(format!(
                    "network {network}: {text:?} is not an {family} address"
                )));
            }
        }
    }
    Ok(NetworkWish {
        network: network.to_owned(),
        aliases,
        addresses,
        interface: None,
        endpoint: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(mode: &str, endpoints: &str) -> Result<NetworkMode, Refusal> {
        let endpoints = api::read(endpoints.as_bytes())?;
        read(mode, endpoints, &|name| Ok(ContainerId::new(name)))
    }

    fn names(mode: &str, endpoints: &str) -> Vec<String> {
        match of(mode, endpoints).unwrap() {
            NetworkMode::Networks(wishes) => wishes.into_iter().map(|wish| wish.network).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn modes_and_their_networks() {
        for (mode, endpoints, networks) in [
            ("", "{}", &["bridge"][..]),
            ("default", "{}", &["bridge"]),
            ("bridge", "{}", &["bridge"]),
            ("default", r#"{"default":{}}"#, &["bridge"]),
            ("ch03", "{}", &["ch03"]),
            ("ch03", r#"{"ch03":{}}"#, &["ch03"]),
            ("default", r#"{"ch03":{}}"#, &["ch03"]),
            ("b", r#"{"c":{},"a":{},"b":{}}"#, &["b", "a", "c"]),
            (
                "b",
                r#"{"c":{"GwPriority":5},"a":{},"b":{}}"#,
                &["b", "c", "a"],
            ),
            ("bridge", r#"{"ch03":{}}"#, &["bridge", "ch03"]),
        ] {
            assert_eq!(names(mode, endpoints), networks, "{mode} {endpoints}");
        }
        assert_eq!(of("host", r#"{"host":{}}"#).unwrap(), NetworkMode::Host);
        assert_eq!(of("none", "{}").unwrap(), NetworkMode::None);
        assert_eq!(
            of("container:c", "{}").unwrap(),
            NetworkMode::Container(ContainerId::new("c"))
        );
    }

    #[test]
    fn aliases_and_addresses_are_read() {
        let mode = of(
            "ch03",
            r#"{"ch03":{"IPAMConfig":{"IPv4Address":"10.0.1.9","IPv6Address":"fd00::9"},"Aliases":["web"]}}"#,
        )
        .unwrap();
        let NetworkMode::Networks(wishes) = mode else {
            panic!("{mode:?}")
        };
        assert_eq!(wishes[0].aliases, ["web"]);
        assert_eq!(wishes[0].addresses.len(), 2);
    }

    #[test]
    fn mistakes_are_refused() {
        for (mode, endpoints, words) in [
            ("host", r#"{"ch03":{}}"#, "host excludes network ch03"),
            ("ch03", r#"{"host":{}}"#, "host excludes network ch03"),
            (
                "ch03",
                r#"{"ch03":{"IPAMConfig":{"IPv4Address":"fd00::1"}}}"#,
                "not an IPv4 address",
            ),
            (
                "ch03",
                r#"{"ch03":{"IPAMConfig":{"IPv6Address":"x"}}}"#,
                "not an IPv6 address",
            ),
            (
                "ch03",
                r#"{"ch03":{"MacAddress":"02:42:00:00:00:01"}}"#,
                "MacAddress",
            ),
            ("ch03", r#"{"ch03":{"DriverOpts":{"a":"b"}}}"#, "DriverOpts"),
            (
                "bridge",
                r#"{"bridge":{"Aliases":["web"]}}"#,
                "network-scoped alias",
            ),
        ] {
            let refusal = of(mode, endpoints).unwrap_err();
            assert!(refusal.message.contains(words), "{}", refusal.message);
        }
    }
}
