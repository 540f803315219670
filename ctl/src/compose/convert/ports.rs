//! Published ports, short and long.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::{Cx, Fields, text};
use crate::compose::node::{Node, Place};
use crate::compose::problem::Problem;

/// `EndpointSpec.Ports`, sorted by published port as Docker sends them.
pub fn ports(cx: &mut Cx<'_>, service: &Node, path: &str) -> Result<Vec<Json>, Problem> {
    let mut all = Vec::new();
    for (index, item) in service
        .get("ports")
        .map(Node::items)
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        let path = format!("{path}.ports[{index}]");
        let bad = |message: String| {
            Problem::new(item.at, &path, message)
                .help("write [PUBLISHED:]TARGET[/tcp|udp|sctp], ranges as 8000-8010:80-90")
        };
        let port = match item.text() {
            Some(text) => short(text).map_err(bad)?,
            None => long(item).map_err(bad)?,
        };
        if let Some(ip) = &port.ip {
            cx.warn(
                item.at,
                format!(
                    "{path}: the address {ip} is ignored: the port is published on all addresses"
                ),
            );
        }
        all.extend(port.spread().map_err(bad)?);
    }
    all.sort_by_key(|port| port["PublishedPort"].as_u64().unwrap_or(0));
    Ok(all)
}

/// Refuses what the cluster would refuse later: one port for two services, both in the file.
pub fn unique(
    spec: &Json,
    taken: &mut BTreeMap<(u64, String), Place>,
    at: Place,
    path: &str,
) -> Result<(), Problem> {
    let list = spec.pointer("/EndpointSpec/Ports").and_then(Json::as_array);
    for port in list.into_iter().flatten() {
        let (Some(number), Some("ingress")) =
            (port["PublishedPort"].as_u64(), port["PublishMode"].as_str())
        else {
            continue;
        };
        let protocol = port["Protocol"].as_str().unwrap_or_default().to_owned();
        if let Some(other) = taken.insert((number, protocol.clone()), at) {
            let message = format!("port {number}/{protocol} is published twice");
            return Err(Problem::new(at, path, message).and(other));
        }
    }
    Ok(())
}

struct Port {
    ip: Option<String>,
    published: Option<(u16, u16)>,
    target: (u16, u16),
    protocol: String,
    mode: String,
}

impl Port {
    fn spread(&self) -> Result<Vec<Json>, String> {
        let (first, last) = self.target;
        if let Some((low, high)) = self.published
            && first != last
            && high - low != last - first
        {
            return Err(format!(
                "the ranges {low}-{high} and {first}-{last} differ in length"
            ));
        }
        let count = self
            .published
            .map_or(0, |(low, high)| high - low)
            .max(last - first);
        Ok((0..=count)
            .map(|offset| {
                let mut fields = Fields::default();
                fields.put("Protocol", Some(self.protocol.clone()));
                fields.put(
                    "TargetPort",
                    Some(if first == last { first } else { first + offset }),
                );
                fields.put("PublishedPort", self.published.map(|(low, _)| low + offset));
                fields.put("PublishMode", Some(self.mode.clone()));
                fields.done()
            })
            .collect())
    }
}

fn short(written: &str) -> Result<Port, String> {
    let (rest, protocol) = written.rsplit_once('/').unwrap_or((written, "tcp"));
    let protocol = protocol.to_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!(
            "{written:?}: the protocol is none of tcp, udp, sctp"
        ));
    }
    let (outside, target) = rest
        .rsplit_once(':')
        .map_or((None, rest), |(o, t)| (Some(o), t));
    let (ip, published) = match outside {
        None => (None, None),
        Some(outside) => match outside.rsplit_once(':') {
            Some((ip, port)) => (Some(ip.trim_matches(['[', ']'])), Some(port)),
            None => (None, Some(outside)),
        },
    };
    if ip.is_some_and(|ip| ip.parse::<std::net::IpAddr>().is_err()) {
        return Err(format!(
            "{written:?}: what is before the ports is no IP address"
        ));
    }
    Ok(Port {
        ip: ip.map(str::to_owned),
        published: published.filter(|p| !p.is_empty()).map(range).transpose()?,
        target: range(target)?,
        protocol,
        mode: "ingress".to_owned(),
    })
}

fn long(item: &Node) -> Result<Port, String> {
    let target = text(item, "target").ok_or("target is missing")?;
    // A null or 0 published port is left to the cluster.
    let published = text(item, "published").filter(|p| !p.is_empty() && p != "0");
    Ok(Port {
        ip: None,
        published: published.as_deref().map(range).transpose()?,
        target: range(&target)?,
        protocol: text(item, "protocol").unwrap_or_else(|| "tcp".to_owned()),
        mode: text(item, "mode").unwrap_or_else(|| "ingress".to_owned()),
    })
}

fn range(text: &str) -> Result<(u16, u16), String> {
    let bad = || format!("{text:?} is no port: ports are whole numbers from 1 to 65535");
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high): (u16, u16) = (
        low.trim().parse().map_err(|_| bad())?,
        high.trim().parse().map_err(|_| bad())?,
    );
    if low == 0 {
        return Err(bad());
    }
    if low > high {
        return Err(format!("{text:?} ends before it begins"));
    }
    Ok((low, high))
}

/// `*:8080->80/tcp` of a port, for explanations.
pub fn shown(port: &Json) -> String {
    let published = port["PublishedPort"]
        .as_u64()
        .map_or("*".to_owned(), |p| p.to_string());
    let mode = match port["PublishMode"].as_str() {
        Some("host") => " on the task's host",
        _ => "",
    };
    format!(
        "{published}->{}/{}{mode}",
        port["TargetPort"],
        port["Protocol"].as_str().unwrap_or("tcp")
    )
}

/// The network of published ports needs a virtual address.
pub fn with_mode(ports: Vec<Json>, mode: &str, at: Place, path: &str) -> Result<Json, Problem> {
    if mode == "dnsrr" && ports.iter().any(|p| p["PublishMode"] == "ingress") {
        return Err(Problem::new(
            at,
            path,
            "ports in mode ingress cannot be published with endpoint_mode: dnsrr",
        )
        .help("give the ports mode: host, or leave endpoint_mode out"));
    }
    let mut fields = Fields::default();
    fields
        .put("Mode", Some(mode))
        .put("Ports", Some(json!(ports)));
    Ok(fields.done())
}
