//! How ports are published beside what Docker's spec says: labels of the service.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::{
    NodeId, ServiceId,
    interface::InterfaceName,
    service::{LABEL_PUBLISH, PortConfig, Protocol},
};

/// Which of a service's tasks a port of a host leads to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PublishPolicy {
    /// All of the cluster, each with an equal share.
    #[default]
    All,
    /// Those of the host itself; the others while it has none.
    LocalFirst,
    /// Those of the host itself; without one the port refuses.
    Local,
}

/// What the label of one port says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishOptions {
    pub policy: PublishPolicy,
    /// The only address of a host that leads there.
    pub host_ip: Option<IpAddr>,
    /// The only interface of a host by whose addresses it is reached; beside no `host_ip`.
    #[serde(default)]
    pub interface: Option<InterfaceName>,
    /// Expressions as of placement constraints: hosts that do not meet them all do not publish.
    #[serde(default)]
    pub nodes: Vec<String>,
}

/// A port that hosts are to hold, as managers and hosts speak of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HeldPort {
    pub protocol: Protocol,
    pub port: u16,
    pub address: Option<IpAddr>,
    /// Of this interface's addresses alone.
    #[serde(default)]
    pub interface: Option<InterfaceName>,
}

/// What a host sees of a port that it is to publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSight {
    pub port: HeldPort,
    /// Whether the host is to publish it.
    pub told: bool,
    /// Why it does not lead anywhere on this host; absent: it does, or is not to.
    pub obstacle: Option<String>,
    /// Who on this host may drop what was forwarded to a task, as sentences.
    pub drops: Vec<String>,
    /// The tasks that it leads to; empty: it refuses.
    pub tasks: Vec<TaskTraffic>,
}

/// What a host has counted of published connections to a task, since that came into load balancing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskTraffic {
    /// Of the task, on the ingress network.
    pub address: IpAddr,
    pub connections: u64,
    /// Packets to the task and from it.
    pub sent: u64,
    pub received: u64,
    /// On the task's own host: connections that could not come about, because the same client's
    /// port had one to the task by another host.
    pub crossed: u64,
}

/// A published port of a service, on all hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    pub service: ServiceId,
    pub name: String,
    pub target: u16,
    pub port: HeldPort,
    /// Absent: the host did not answer in time.
    pub hosts: Vec<(NodeId, Option<PortSight>)>,
}

impl PublishOptions {
    /// Reads `policy=local-first,host_ip=192.0.2.1,nodes=node.role==worker`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut options = Self::default();
        for field in text.split(',').filter(|field| !field.is_empty()) {
            match field.split_once('=') {
                Some(("policy", value)) => {
                    options.policy = match value {
                        "all" => PublishPolicy::All,
                        "local-first" => PublishPolicy::LocalFirst,
                        "local" => PublishPolicy::Local,
                        _ => {
                            return Err(format!(
                                "policy {value:?}: there are all, local-first and local"
                            ));
                        }
                    }
                }
                Some(("host_ip", value)) => {
                    (options.host_ip, options.interface) = host_ip(value)?;
                }
                Some(("nodes", value)) if !value.is_empty() => {
                    options.nodes.push(value.to_owned());
                }
                _ => {
                    return Err(format!(
                        "{field:?}: there are policy=all|local-first|local, host_ip=ADDRESS|INTERFACE and nodes=CONSTRAINT"
                    ));
                }
            }
        }
        Ok(options)
    }

    /// Those of a port among the service's labels; what cannot be read says nothing, for the
    /// manager has refused it.
    pub fn of(labels: &BTreeMap<String, String>, port: &PortConfig) -> Self {
        let label = label(port.target, port.protocol);
        let text = labels.get(&label).map_or("", String::as_str);
        Self::parse(text).unwrap_or_default()
    }
}

/// An address, or else an interface; all addresses are neither.
fn host_ip(value: &str) -> Result<(Option<IpAddr>, Option<InterfaceName>), String> {
    if let Ok(address) = value.parse::<IpAddr>() {
        return Ok(((!address.is_unspecified()).then_some(address), None));
    }
    match value.parse() {
        Ok(interface) => Ok((None, Some(interface))),
        Err(why) => Err(format!(
            "host_ip {value:?} is neither an address nor the name of an interface: {why}"
        )),
    }
}

/// The label of the ports that lead to this target.
pub fn label(target: u16, protocol: Protocol) -> String {
    format!("{LABEL_PUBLISH}.{target}/{}", protocol.as_str())
}

/// The target and protocol that a label names; none for labels of others.
pub fn labelled(label: &str) -> Option<Result<(u16, Protocol), String>> {
    let rest = label.strip_prefix(LABEL_PUBLISH)?;
    let read = || {
        let (target, protocol) = rest.strip_prefix('.')?.split_once('/')?;
        let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        let protocol = all.into_iter().find(|one| one.as_str() == protocol)?;
        let target: u16 = target.parse().ok()?;
        (target > 0).then_some((target, protocol))
    };
    Some(
        read().ok_or_else(|| {
            format!("label {label}: write {LABEL_PUBLISH}.TARGET/tcp|udp|sctp=OPTIONS")
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let all = PublishOptions::default;
        let policy = |policy| PublishOptions { policy, ..all() };
        let eth1 = "eth1".parse().ok();
        for (text, expected) in [
            ("", all()),
            ("policy=all", all()),
            ("policy=local", policy(PublishPolicy::Local)),
            (
                "host_ip=192.0.2.1,policy=local-first",
                PublishOptions {
                    host_ip: "192.0.2.1".parse().ok(),
                    ..policy(PublishPolicy::LocalFirst)
                },
            ),
            ("host_ip=0.0.0.0", all()),
            (
                "host_ip=eth1",
                PublishOptions {
                    interface: eth1,
                    ..all()
                },
            ),
            (
                "nodes=node.labels.edge==true,host_ip=eth1,nodes=node.role!=manager",
                PublishOptions {
                    interface: eth1,
                    nodes: vec![
                        "node.labels.edge==true".to_owned(),
                        "node.role!=manager".to_owned(),
                    ],
                    ..all()
                },
            ),
        ] {
            assert_eq!(PublishOptions::parse(text), Ok(expected), "{text}");
        }
        for text in ["policy", "policy=near", "nodes=", "nodes", "node=a"] {
            assert!(PublishOptions::parse(text).is_err(), "{text}");
        }
        for text in [
            "host_ip=",
            "host_ip=a/b",
            "host_ip=fe80::g",
            "host_ip=no name",
        ] {
            let why = PublishOptions::parse(text).expect_err(text);
            assert!(
                why.contains("host_ip") && why.contains("interface"),
                "{why}"
            );
        }
    }

    #[test]
    fn ports_of_before_are_read() {
        let before = r#"{"protocol":"Tcp","port":80,"address":null}"#;
        let port: HeldPort = serde_json::from_str(before).expect("readable");
        assert_eq!((port.port, port.interface), (80, None));
    }

    #[test]
    fn labels_name_targets() {
        let udp = label(53, Protocol::Udp);
        assert_eq!(labelled(&udp), Some(Ok((53, Protocol::Udp))));
        assert_eq!(labelled("com.example"), None);
        for text in ["", ".53", ".0/tcp", ".53/icmp", "ed.53/udp"] {
            let label = format!("{LABEL_PUBLISH}{text}");
            assert!(
                labelled(&label).is_some_and(|read| read.is_err()),
                "{label}"
            );
        }
    }
}
