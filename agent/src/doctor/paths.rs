//! Checks of the ways between hosts, over what the hosts have measured.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use model::{
    AgedReport, Node, NodeId, PathSight, PathState, encryption::HostEncryption, node::NodeState,
};

use super::Finding;

/// What VXLAN adds to a packet, by the family of the underlay.
const OVERHEAD_IPV4: u32 = 50;
const OVERHEAD_IPV6: u32 = 70;
/// Hosts that a finding names one by one.
const NAMED: usize = 5;

/// What a manager knows of the paths.
#[derive(Debug, Clone)]
pub struct PathsSight {
    pub hosts: BTreeMap<NodeId, Host>,
    pub reports: Vec<AgedReport>,
    /// All pairs among these; absent: what is reported.
    pub among: Option<BTreeSet<NodeId>>,
    /// UDP port of VXLAN.
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub name: String,
    /// Where its tunnels end.
    pub address: Option<IpAddr>,
    pub ready: bool,
    /// Of its tunnels for encrypted networks; absent where it cannot have any.
    pub encryption: Option<HostEncryption>,
}

impl From<&Node> for Host {
    fn from(node: &Node) -> Self {
        Self {
            name: node.description.hostname.clone(),
            address: node.description.data_path,
            ready: node.status.state == NodeState::Ready,
            encryption: node.description.encryption.clone(),
        }
    }
}

/// One direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathFound {
    pub from: NodeId,
    pub to: NodeId,
    pub standing: Standing,
    pub sight: Option<PathSight>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Known(PathState),
    /// Why.
    Unknown(String),
    /// One of both hosts is down.
    Away,
}

/// What kind of finding a pair of hosts gets, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Unknown,
    Lossy,
    SmallOnly,
    Unreachable,
}

/// Every path that is asked for.
pub fn paths(sight: &PathsSight) -> Vec<PathFound> {
    let told: BTreeMap<&NodeId, &AgedReport> =
        sight.reports.iter().map(|r| (&r.report.node, r)).collect();
    let pairs: BTreeSet<(&NodeId, &NodeId)> = match &sight.among {
        Some(hosts) => {
            let to = |from| hosts.iter().map(move |to| (from, to));
            hosts
                .iter()
                .flat_map(to)
                .filter(|(from, to)| from != to)
                .collect()
        }
        None => sight
            .reports
            .iter()
            .flat_map(|r| {
                r.report
                    .paths
                    .iter()
                    .map(move |path| (&r.report.node, &path.to))
            })
            .collect(),
    };
    let known = |(from, to): &(&NodeId, &NodeId)| {
        sight.hosts.contains_key(*from) && sight.hosts.contains_key(*to)
    };
    pairs
        .into_iter()
        .filter(known)
        .map(|(from, to)| path(sight, &told, from, to))
        .collect()
}

fn path(
    sight: &PathsSight,
    told: &BTreeMap<&NodeId, &AgedReport>,
    from: &NodeId,
    to: &NodeId,
) -> PathFound {
    let aged = told.get(from);
    let seen = aged.and_then(|aged| aged.report.paths.iter().find(|path| path.to == *to));
    let ready = |node: &NodeId| sight.hosts.get(node).is_some_and(|host| host.ready);
    let standing = match (aged, seen) {
        _ if !ready(from) || !ready(to) => Standing::Away,
        (None, _) => Standing::Unknown(format!("{} has told nothing yet", name(sight, from))),
        (Some(aged), _) if aged.is_old() => Standing::Unknown(format!(
            "{} has told nothing for {} seconds",
            name(sight, from),
            aged.age.as_secs()
        )),
        (_, None) => Standing::Unknown("not measured yet".to_owned()),
        (_, Some(seen)) => match seen.state {
            PathState::Unknown => Standing::Unknown("not measured yet".to_owned()),
            // One that does not measure does not answer either.
            PathState::Unreachable if !told.contains_key(to) => Standing::Unknown(format!(
                "{} does not measure: its ovnd is another version, or has just begun",
                name(sight, to)
            )),
            state => Standing::Known(state),
        },
    };
    PathFound {
        from: from.clone(),
        to: to.clone(),
        standing,
        sight: seen.cloned(),
    }
}

/// What is wrong with the paths; one finding that all is well, if it is.
pub fn examine(sight: &PathsSight, paths: &[PathFound]) -> Vec<Finding> {
    let mut faults: BTreeMap<(&NodeId, &NodeId), (Fault, &PathFound)> = BTreeMap::new();
    for path in paths {
        let fault = match &path.standing {
            Standing::Away | Standing::Known(PathState::Fine) => continue,
            Standing::Unknown(_) | Standing::Known(PathState::Unknown) => Fault::Unknown,
            Standing::Known(PathState::Lossy) => Fault::Lossy,
            Standing::Known(PathState::SmallOnly) => Fault::SmallOnly,
            Standing::Known(PathState::Unreachable) => Fault::Unreachable,
        };
        let pair = ((&path.from).min(&path.to), (&path.from).max(&path.to));
        let standing = faults.get(&pair).map(|(fault, _)| *fault);
        if standing < Some(fault) {
            faults.insert(pair, (fault, path));
        }
    }
    let mut findings = Vec::new();
    for fault in [
        Fault::Unknown,
        Fault::Lossy,
        Fault::SmallOnly,
        Fault::Unreachable,
    ] {
        let of_kind = faults.iter().filter(|(_, (kind, _))| *kind == fault);
        let pairs: BTreeMap<_, _> = of_kind.map(|(pair, (_, path))| (*pair, *path)).collect();
        for (host, others, example) in by_host(sight, pairs) {
            findings.push(finding(sight, fault, host, &others, example));
        }
    }
    findings.extend(away(sight));
    if findings.is_empty() {
        let count = paths
            .iter()
            .filter(|path| path.standing != Standing::Away)
            .count()
            / 2;
        findings.push(Finding::fine(
            "paths",
            match count {
                0 => "no two hosts share a network".to_owned(),
                1 => "1 pair of hosts, all packets pass".to_owned(),
                _ => format!("{count} pairs of hosts, all packets pass"),
            },
        ));
    }
    findings
}

/// What is known of the tunnels of an encrypted network. The paths are measured beside them.
pub fn tunnels(sight: &PathsSight) -> Vec<Finding> {
    let known = sight.among.iter().flatten();
    let hosts: Vec<&Host> = known.filter_map(|id| sight.hosts.get(id)).collect();
    let troubled = hosts.iter().filter_map(|host| {
        let trouble = host.encryption.as_ref()?.trouble.as_ref()?;
        Some(Finding::error(
            &format!("tunnels of {}", host.name),
            trouble.clone(),
            "Containers there neither reach others on this network nor are reached.",
            format!("on {}: ovnd doctor", host.name),
        ))
    });
    let mut findings: Vec<Finding> = troubled.collect();
    let own = hosts.iter().filter_map(|host| host.encryption.as_ref());
    let ports: BTreeSet<u16> = own
        .flat_map(|own| own.keys.iter().map(|key| key.port))
        .collect();
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    findings.push(Finding::fine(
        "tunnels",
        format!(
            "this network's packets go by WireGuard (UDP {}); the paths were measured beside it, by VXLAN (UDP port {}), and say nothing of a firewall that lets one pass and not the other",
            ports.join(", "),
            sight.port
        ),
    ));
    findings
}

/// Hosts that were asked for and are down; elsewhere they have a finding of their own.
fn away(sight: &PathsSight) -> Option<Finding> {
    let down = sight.among.iter().flatten().filter(|id| {
        let host = sight.hosts.get(*id);
        host.is_some_and(|host| !host.ready)
    });
    let down: Vec<&NodeId> = down.collect();
    if down.is_empty() {
        return None;
    }
    let names = list(sight, &down);
    Some(Finding::warning(
        &format!("paths of {names}"),
        format!("{names}: down, so the paths there are not known"),
        "Containers there are not reached by the cluster.",
        "on that host: systemctl status ovnd; ovnd doctor",
    ))
}

type Pairs<'a> = BTreeMap<(&'a NodeId, &'a NodeId), &'a PathFound>;

/// Pairs under the host that most of them have in common: one bad host is one finding.
fn by_host<'a>(
    sight: &PathsSight,
    mut pairs: Pairs<'a>,
) -> Vec<(&'a NodeId, Vec<&'a NodeId>, &'a PathFound)> {
    let mut groups = Vec::new();
    while !pairs.is_empty() {
        let mut counts: BTreeMap<&NodeId, usize> = BTreeMap::new();
        for (one, other) in pairs.keys() {
            *counts.entry(one).or_default() += 1;
            *counts.entry(other).or_default() += 1;
        }
        let most = counts
            .iter()
            .max_by_key(|(id, count)| (**count, std::cmp::Reverse(name(sight, id))));
        let Some((&host, _)) = most else { break };
        let mut others = Vec::new();
        let mut example = None;
        pairs.retain(|(one, other), path| {
            let of_host = *one == host || *other == host;
            if of_host {
                others.push(if *one == host { *other } else { *one });
                example.get_or_insert(*path);
            }
            !of_host
        });
        others.sort_by_key(|id| name(sight, id));
        if let Some(example) = example {
            groups.push((host, others, example));
        }
    }
    groups
}

fn finding(
    sight: &PathsSight,
    fault: Fault,
    host: &NodeId,
    others: &[&NodeId],
    example: &PathFound,
) -> Finding {
    let port = sight.port;
    let (one, names) = (name(sight, host), list(sight, others));
    let check = format!("path {one} - {names}");
    let (from, to) = (name(sight, &example.from), name(sight, &example.to));
    let address = |id: &NodeId| {
        let known = sight.hosts.get(id).and_then(|host| host.address);
        known.map_or_else(|| name(sight, id), |address| address.to_string())
    };
    let seen = example.sight.as_ref();
    match fault {
        Fault::Unreachable => Finding::error(
            &check,
            format!("no packet passes by VXLAN (UDP port {port}) between {one} and {names}"),
            "Containers on these hosts do not reach each other; a service answers from some hosts and not from others.",
            format!(
                "let UDP port {port} pass both ways between {} and {}, where the hosts' and the network's firewalls are: nft list ruleset; what arrives shows tcpdump -ni any udp port {port} on {to}",
                address(&example.from),
                address(&example.to),
            ),
        ),
        Fault::SmallOnly => {
            let size = seen.map_or(0, |seen| seen.full_size);
            let v6 = sight
                .hosts
                .get(&example.from)
                .is_some_and(|host| host.address.is_some_and(|address| address.is_ipv6()));
            let outer = size + if v6 { OVERHEAD_IPV6 } else { OVERHEAD_IPV4 };
            // Less than its headers, and a ping's.
            let ping = outer.saturating_sub(if v6 { 48 } else { 28 });
            Finding::error(
                &check,
                format!(
                    "MTU: small packets pass between {one} and {names}, those of full size ({size} bytes, {outer} with VXLAN) do not"
                ),
                "Connections open and then stand still: whatever has more to say than fits a small packet is lost.",
                format!(
                    "raise the MTU of the network between the hosts to {outer}, or lower the hosts' (ip link set dev DEVICE mtu N; containers follow at once); whether the network carries it shows, on {from}: ping -M do -s {ping} {}",
                    address(&example.to),
                ),
            )
        }
        Fault::Lossy => {
            let lost = seen.map_or_else(String::new, |seen| {
                format!(
                    "{} of {} small and {} of {} full-size packets are lost between {from} and {to}",
                    seen.small.lost, seen.small.sent, seen.full.lost, seen.full.sent
                )
            });
            let more = match others.len() {
                1 => String::new(),
                _ => format!("; {one} loses some to {names}"),
            };
            Finding::warning(
                &check,
                format!("{lost}{more}"),
                "TCP gets slow, and what is sent by UDP is lost.",
                format!(
                    "on both hosts: ip -s link shows which device drops; whether it is VXLAN's alone shows, on {from}: ping -c 100 -i 0.1 {}",
                    address(&example.to),
                ),
            )
        }
        Fault::Unknown => {
            let reason = match &example.standing {
                Standing::Unknown(reason) => reason.clone(),
                Standing::Known(_) | Standing::Away => "not measured yet".to_owned(),
            };
            Finding::warning(
                &check,
                format!("not known: {reason}"),
                "Whether packets pass is not known.",
                format!(
                    "ask again in some seconds; then, on {from} and {to}: systemctl status ovnd, and the same version of it on all hosts"
                ),
            )
        }
    }
}

fn name(sight: &PathsSight, node: &NodeId) -> String {
    let host = sight.hosts.get(node);
    host.map_or_else(|| node.to_string(), |host| host.name.clone())
}

/// `a, b and c`; of many the first, and how many more.
fn list(sight: &PathsSight, hosts: &[&NodeId]) -> String {
    let mut names: Vec<String> = hosts.iter().map(|id| name(sight, id)).collect();
    let more = names.len().saturating_sub(NAMED);
    if more > 1 {
        names.truncate(NAMED);
        return format!("{} and {more} more", names.join(", "));
    }
    match names.pop() {
        Some(last) if names.is_empty() => last,
        Some(last) => format!("{} and {last}", names.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
#[path = "paths_tests.rs"]
mod tests;
