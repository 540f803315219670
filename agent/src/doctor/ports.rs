//! Checks of published ports, over what the hosts say of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use model::{
    NodeId, PathState,
    publish::{PortSight, ServicePort, TaskTraffic},
    service::Protocol,
};

use super::{Finding, paths::Host};

/// Hosts that a finding names one by one.
const NAMED: usize = 5;

/// What a manager knows of published ports.
#[derive(Debug, Clone)]
pub struct PortsSight {
    pub hosts: BTreeMap<NodeId, Host>,
    /// By their addresses on the ingress network.
    pub tasks: BTreeMap<IpAddr, TaskAt>,
    pub ports: Vec<ServicePort>,
    /// From the first to the second, those that are known.
    pub paths: BTreeMap<(NodeId, NodeId), PathState>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskAt {
    pub name: String,
    pub node: NodeId,
}

/// A port on one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortFound {
    pub host: NodeId,
    pub state: PortState,
    /// Why it is not well, one sentence each.
    pub why: Vec<String>,
    pub ways: Vec<Way>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortState {
    /// To healthy tasks.
    Leads,
    /// The host is not to publish it.
    Elsewhere,
    /// No healthy task is there for it.
    Refuses,
    /// The host has not answered.
    Unknown,
    /// Something on the host may be in the way.
    MayDrop,
    /// Packets go and do not come back.
    Drops,
    /// The host does not have the port.
    Taken,
}

impl PortState {
    pub fn word(self) -> &'static str {
        match self {
            Self::Leads => "leads",
            Self::Elsewhere => "elsewhere",
            Self::Refuses => "refuses",
            Self::Unknown => "unknown",
            Self::MayDrop => "may-drop",
            Self::Drops => "drops",
            Self::Taken => "taken",
        }
    }
}

/// From the host to one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Absent: the manager does not know such a task (any more).
    pub task: Option<TaskAt>,
    /// Absent on the task's own host, and where it is not known.
    pub path: Option<PathState>,
    pub traffic: TaskTraffic,
}

/// `8000/tcp`, `192.0.2.1:8000/tcp` or `eth1:8000/tcp`.
pub fn port_text(port: &ServicePort) -> String {
    let text = crate::network::host_port(&port.port).to_string();
    match &port.port.interface {
        Some(interface) => format!("{interface}:{text}"),
        None => text,
    }
}

/// The port on each host.
pub fn look(sight: &PortsSight, port: &ServicePort) -> Vec<PortFound> {
    let answers = sight.ports.iter();
    // One address counts all protocols, and a program may never answer a datagram.
    let answers = answers
        .filter(|other| other.service == port.service)
        .all(|other| other.port.protocol == Protocol::Tcp);
    port.hosts
        .iter()
        .map(|(host, seen)| found(sight, host, seen.as_ref(), answers))
        .collect()
}

fn found(sight: &PortsSight, host: &NodeId, seen: Option<&PortSight>, answers: bool) -> PortFound {
    let of = |state, why| PortFound {
        host: host.clone(),
        state,
        why,
        ways: Vec::new(),
    };
    let Some(seen) = seen else {
        let why = "it did not answer: its ovnd does not run, is busy, or is an older version";
        return of(PortState::Unknown, vec![why.to_owned()]);
    };
    if !seen.told {
        return of(PortState::Elsewhere, Vec::new());
    }
    let tasks = seen.tasks.iter();
    let ways: Vec<Way> = tasks.map(|traffic| way(sight, host, *traffic)).collect();
    let lost: Vec<String> = ways
        .iter()
        .filter_map(|way| silence(sight, way, answers))
        .collect();
    let (state, why) = if let Some(obstacle) = &seen.obstacle {
        (PortState::Taken, vec![obstacle.clone()])
    } else if ways.is_empty() {
        let why = "no healthy task is there for it".to_owned();
        (PortState::Refuses, vec![why])
    } else if !lost.is_empty() {
        (PortState::Drops, [lost, seen.drops.clone()].concat())
    } else if !seen.drops.is_empty() {
        (PortState::MayDrop, seen.drops.clone())
    } else {
        (PortState::Leads, Vec::new())
    };
    PortFound {
        ways,
        ..of(state, why)
    }
}

fn way(sight: &PortsSight, host: &NodeId, traffic: TaskTraffic) -> Way {
    let task = sight.tasks.get(&traffic.address).cloned();
    let path = task.as_ref().and_then(|task| {
        let pair = (host.clone(), task.node.clone());
        sight.paths.get(&pair).copied()
    });
    Way {
        task,
        path,
        traffic,
    }
}

/// Why what goes that way does not arrive, or its answer does not.
fn silence(sight: &PortsSight, way: &Way, answers: bool) -> Option<String> {
    let task = way.task.as_ref()?;
    let to = format!("{} on {}", task.name, name(sight, &task.node));
    if way.path == Some(PathState::Unreachable) {
        return Some(format!("no packet passes to {to}"));
    }
    let TaskTraffic { sent, received, .. } = way.traffic;
    (answers && sent > 0 && received == 0)
        .then(|| format!("{sent} packets went to {to} and none came back"))
}

/// What is wrong with published ports; one finding that all is well, if it is.
pub fn examine(sight: &PortsSight) -> Vec<Finding> {
    let mut findings = Vec::new();
    for port in &sight.ports {
        let hosts = look(sight, port);
        findings.extend(of_port(sight, port, &hosts));
    }
    if findings.is_empty() {
        findings.push(Finding::fine(
            "published ports",
            match sight.ports.len() {
                0 => "no service publishes a port on all hosts".to_owned(),
                1 => "1 port, every host leads to its tasks".to_owned(),
                count => format!("{count} ports, every host leads to their tasks"),
            },
        ));
    }
    findings
}

fn of_port(sight: &PortsSight, port: &ServicePort, hosts: &[PortFound]) -> Vec<Finding> {
    let check = format!("port {} of service {}", port_text(port), port.name);
    let mut findings = Vec::new();
    // Without a healthy task the port refuses everywhere, and one word of it is enough.
    let refusing = hosts.iter().filter(|host| host.state == PortState::Refuses);
    let refusing: Vec<&NodeId> = refusing.map(|host| &host.host).collect();
    if !refusing.is_empty() {
        findings.push(Finding::warning(
            &check,
            format!(
                "{} refuse: no healthy task is there for it",
                list(sight, &refusing)
            ),
            "Connections to this port of these hosts are refused at once.",
            format!("ovnctl service ps {} says why no task runs", port.name),
        ));
    }
    for way in hosts.iter().flat_map(|host| &host.ways) {
        let crossed = way.traffic.crossed;
        if let (1.., Some(task)) = (crossed, &way.task) {
            findings.push(Finding::warning(
                &check,
                format!(
                    "{crossed} connections to {} did not come about: the client's port had one to it by another host",
                    task.name
                ),
                "One client sends very many connections through several hosts at once; such a one is tried again by it.",
                "let that client, a proxy perhaps, speak to one host, or from more addresses",
            ));
        }
    }
    findings.extend(hosts.iter().filter_map(|host| {
        let at = name(sight, &host.host);
        let found = format!("{at}: {}", host.why.join("; "));
        match host.state {
            PortState::MayDrop => Some(Finding::warning(
                &check,
                found,
                "Clients may not get an answer from this host.",
                format!("on {at}: ovnctl doctor names the rule that lets packets through"),
            )),
            PortState::Drops => Some(Finding::error(
                &check,
                found,
                "Clients of this host that are led to these tasks get no answer.",
                format!(
                    "on {at}: ovnctl doctor, for firewalls and for the paths to the other hosts"
                ),
            )),
            PortState::Taken => Some(Finding::error(
                &check,
                found,
                "This host does not lead to the service.",
                format!("on {at}: end what has the port; it is taken as soon as it is free"),
            )),
            PortState::Leads | PortState::Elsewhere | PortState::Refuses | PortState::Unknown => {
                None
            }
        }
    }));
    findings
}

/// Names of some, and how many more.
pub fn list(sight: &PortsSight, hosts: &[&NodeId]) -> String {
    let names: BTreeSet<String> = hosts.iter().map(|id| name(sight, id)).collect();
    let shown: Vec<&str> = names.iter().take(NAMED).map(String::as_str).collect();
    let shown = shown.join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

pub fn name(sight: &PortsSight, id: &NodeId) -> String {
    let host = sight.hosts.get(id);
    host.map_or_else(|| id.to_string(), |host| host.name.clone())
}

#[cfg(test)]
#[path = "ports_tests.rs"]
mod tests;
