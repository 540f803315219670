//! Checks of the cluster, over what one of its nodes knows.

use std::time::{Duration, SystemTime};

use model::{
    Node, NodeId,
    control::ManagerPosition,
    node::{NodeState, Reachability},
};

use super::{Finding, Level};
use crate::cluster::Standing;

/// What a node knows of its cluster.
#[derive(Debug, Clone)]
pub struct ClusterSight {
    pub standing: Standing,
    /// Why it is not `active`.
    pub error: String,
    pub node_id: NodeId,
    /// Of this node's ovnd.
    pub version: String,
    /// From when to when this node's certificate is valid.
    pub certificate: Option<(SystemTime, SystemTime)>,
    pub now: SystemTime,
    /// Only on managers; the error: no leader answers.
    pub nodes: Option<Result<Vec<Node>, String>>,
    /// While the root certificate is replaced: who has no certificate of the new one yet.
    pub rotation: Option<Vec<Node>>,
}

/// Every check of a cluster.
pub fn examine(sight: &ClusterSight) -> Vec<Finding> {
    let mut findings = vec![standing(sight)];
    let own = |(from, to)| certificate("certificate", from, to, sight.now);
    findings.extend(sight.certificate.map(own));
    match &sight.nodes {
        Some(Ok(nodes)) => {
            findings.push(managers(nodes));
            findings.extend(nodes.iter().map(|node| member(node, &sight.version)));
            let others = nodes.iter().filter(|node| node.id != sight.node_id);
            findings.extend(others.filter_map(|node| others_certificate(node, sight.now)));
            findings.extend(nodes.iter().filter_map(encryption));
        }
        Some(Err(error)) => findings.push(Finding::error(
            "managers",
            format!("no leader answers: {error}"),
            "What runs goes on; nothing can be changed until a majority of the managers is back.",
            "start ovnd on the other managers; where they are lost for good: ovnctl swarm init --force-new-cluster",
        )),
        None => {}
    }
    findings.extend(sight.rotation.as_deref().map(rotation));
    findings
}

/// A manager that answers and does not count.
pub fn outdated(manager: &ManagerPosition) -> Option<Finding> {
    Some(Finding::warning(
        "managers",
        manager.outdated.clone()?,
        "It may lack what was acknowledged, so its votes do not count.",
        "nothing: it is removed from the managers and joins anew by itself",
    ))
}

/// A rotation that goes on; normally it ends within moments.
fn rotation(waiting: &[Node]) -> Finding {
    let names: Vec<String> = waiting
        .iter()
        .map(|node| match node.status.state {
            NodeState::Ready => node.description.hostname.clone(),
            _ => format!("{} (away)", node.description.hostname),
        })
        .collect();
    let names = match names.as_slice() {
        [] => "nobody any more".to_owned(),
        names => names.join(", "),
    };
    Finding::warning(
        "root certificate",
        format!("it is being replaced, which waits for {names}"),
        "Until each node has a certificate of the new root the old one is trusted, too, and join tokens stay as they are.",
        "start ovnd where it is away; a host that does not come back: ovnctl node rm HOSTNAME",
    )
}

fn standing(sight: &ClusterSight) -> Finding {
    match sight.standing {
        Standing::Inactive | Standing::Active => Finding::fine(
            "membership",
            format!("this node is {}", sight.standing.word()),
        ),
        Standing::Locked => Finding::error(
            "membership",
            "this manager is locked".to_owned(),
            "It takes no part in the cluster until it has its key.",
            "ovnctl swarm unlock",
        ),
        Standing::Pending | Standing::Error => Finding::error(
            "membership",
            format!("this node has no session with a manager: {}", sight.error),
            "Containers and networks of this host go on as they were; changes do not arrive.",
            "on a manager: ovnctl doctor; between the hosts: TCP 2377 must be open",
        ),
    }
}

/// What is in the way of a host's tunnels.
fn encryption(node: &Node) -> Option<Finding> {
    let trouble = node.description.encryption.as_ref()?.trouble.as_ref()?;
    let host = &node.description.hostname;
    Some(Finding::error(
        &format!("encryption on {host}"),
        trouble.clone(),
        "Containers there neither reach others on encrypted networks nor are reached; nothing leaves in clear.",
        format!("on {host}: ovnd doctor"),
    ))
}

/// Another node's certificate, if something is wrong with it.
fn others_certificate(node: &Node, now: SystemTime) -> Option<Finding> {
    let (from, to) = node.description.certificate?;
    let moment = |seconds: i64| {
        let since = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        SystemTime::UNIX_EPOCH + since
    };
    let check = format!("certificate of {}", node.description.hostname);
    let finding = certificate(&check, moment(from), moment(to), now);
    (finding.level != Level::Ok).then_some(finding)
}

/// A certificate is renewed between half and four fifths of its life.
fn certificate(check: &str, from: SystemTime, to: SystemTime, now: SystemTime) -> Finding {
    let means = "Without a valid certificate a node is refused by all others.";
    let Ok(left) = to.duration_since(now) else {
        return Finding::error(
            check,
            "it has expired".to_owned(),
            means,
            "check the clock with timedatectl; then on that node: ovnctl swarm leave, and join again",
        );
    };
    if now < from {
        return Finding::error(
            check,
            "it is not valid yet: this host's clock is behind the managers'".to_owned(),
            means,
            "timedatectl set-ntp true",
        );
    }
    let life = to.duration_since(from).unwrap_or(Duration::ZERO);
    let found = format!("valid for {} more days", left.as_secs() / 86_400);
    if left < life.mul_f64(0.15) {
        return Finding::warning(
            check,
            format!("{found}, and should have been renewed before"),
            means,
            "journalctl -u ovnd says why the renewal fails; on a manager: ovnctl swarm ca --rotate",
        );
    }
    Finding::fine(check, found)
}

fn managers(nodes: &[Node]) -> Finding {
    let managers: Vec<_> = nodes
        .iter()
        .filter_map(|node| node.manager.as_ref())
        .collect();
    let away = managers
        .iter()
        .filter(|manager| manager.reachability == Reachability::Unreachable)
        .count();
    let count = managers.len();
    let means = "A cluster works while more than half of its managers do.";
    if away * 2 >= count && away > 0 {
        return Finding::error(
            "managers",
            format!("{away} of {count} cannot be reached"),
            "What runs goes on; nothing can be changed until more than half of the managers are back.",
            "start ovnd on them; where they are lost for good: ovnctl swarm init --force-new-cluster",
        );
    }
    if away > 0 {
        return Finding::warning(
            "managers",
            format!("{away} of {count} cannot be reached"),
            means,
            "ovnctl node ls names them; systemctl restart ovnd there",
        );
    }
    if count > 1 && count.is_multiple_of(2) {
        return Finding::warning(
            "managers",
            format!("{count}: as many may fail as with {}", count - 1),
            means,
            "ovnctl node promote one more, or demote one",
        );
    }
    if count == 1 && nodes.len() > 3 {
        return Finding::warning(
            "managers",
            format!("one for {} nodes", nodes.len()),
            "When it fails, nothing can be changed until it is back.",
            "ovnctl node promote two more",
        );
    }
    Finding::fine("managers", format!("{count}, all reachable"))
}

fn member(node: &Node, version: &str) -> Finding {
    let check = format!("node {}", node.description.hostname);
    let theirs = &node.description.engine_version;
    match node.status.state {
        NodeState::Ready if theirs == version => {
            Finding::fine(check, format!("ready, version {theirs}"))
        }
        NodeState::Ready => Finding::warning(
            &check,
            format!("ready, with version {theirs}; this node has {version}"),
            "Mixed versions are for the time of an upgrade.",
            "apt-get install overnet there, managers last",
        ),
        state => Finding::error(
            &check,
            format!("{} {}", word(state), node.status.message)
                .trim()
                .to_owned(),
            "Its tasks are started on other nodes; what runs there is not seen.",
            "on that host: systemctl status ovnd; ovnd doctor",
        ),
    }
}

fn word(state: NodeState) -> &'static str {
    match state {
        NodeState::Unknown => "unknown",
        NodeState::Down => "down",
        NodeState::Ready => "ready",
        NodeState::Disconnected => "disconnected",
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use model::{
        Meta, NodeSpec,
        node::{Availability, ManagerStatus, NodeDescription, NodeStatus, Role},
    };

    use super::{super::Level, *};

    fn node(name: &str, manager: bool) -> Node {
        Node {
            id: NodeId::from_random([name.as_bytes()[0]; 17]),
            meta: Meta::default(),
            spec: NodeSpec {
                name: None,
                labels: std::collections::BTreeMap::new(),
                role: if manager { Role::Manager } else { Role::Worker },
                availability: Availability::Active,
            },
            number: 1,
            description: NodeDescription {
                hostname: name.to_owned(),
                engine_version: "1.0.0".to_owned(),
                ..NodeDescription::default()
            },
            status: NodeStatus {
                state: NodeState::Ready,
                message: String::new(),
                address: None,
            },
            manager: manager.then(|| ManagerStatus {
                leader: true,
                reachability: Reachability::Reachable,
                address: "192.0.2.1:2377".parse().unwrap(),
            }),
        }
    }

    const DAY: Duration = Duration::from_secs(86_400);

    fn healthy() -> ClusterSight {
        ClusterSight {
            standing: Standing::Active,
            error: String::new(),
            node_id: NodeId::default(),
            version: "1.0.0".to_owned(),
            certificate: Some((UNIX_EPOCH, UNIX_EPOCH + DAY * 90)),
            now: UNIX_EPOCH + DAY * 10,
            nodes: Some(Ok(vec![node("manager01", true), node("worker01", false)])),
            rotation: None,
        }
    }

    #[test]
    fn a_manager_that_does_not_count_is_told_with_its_reason() {
        let mut manager = ManagerPosition {
            node: NodeId::default(),
            votes: true,
            leads: false,
            reachable: false,
            lag: None,
            outdated: None,
        };
        assert!(outdated(&manager).is_none());
        manager.outdated = Some("the log of manager b has gone back".to_owned());
        let finding = outdated(&manager).unwrap();
        assert_eq!(finding.found, "the log of manager b has gone back");
        assert!(finding.mend.contains("joins anew"), "{finding:?}");
    }

    fn bad(sight: &ClusterSight) -> Vec<(String, Level)> {
        examine(sight)
            .into_iter()
            .filter(|finding| finding.level != Level::Ok)
            .inspect(|finding| assert!(!finding.mend.is_empty() && !finding.means.is_empty()))
            .map(|finding| (finding.check, finding.level))
            .collect()
    }

    #[test]
    fn each_fault_is_one_finding() {
        assert_eq!(bad(&healthy()), []);
        type Spoil = fn(&mut ClusterSight);
        let cases: [(&str, Level, Spoil); 10] = [
            ("membership", Level::Error, |s| s.standing = Standing::Error),
            ("membership", Level::Error, |s| {
                s.standing = Standing::Locked;
            }),
            ("certificate", Level::Error, |s| {
                s.now = UNIX_EPOCH + DAY * 91;
            }),
            ("certificate", Level::Warning, |s| {
                s.now = UNIX_EPOCH + DAY * 80;
            }),
            ("certificate", Level::Error, |s| {
                s.certificate = Some((s.now + DAY, s.now + DAY * 90));
            }),
            ("managers", Level::Error, |s| {
                s.nodes = Some(Err("no leader".to_owned()));
            }),
            ("managers", Level::Warning, |s| {
                s.nodes = Some(Ok(vec![node("a", true), node("b", true)]));
            }),
            ("root certificate", Level::Warning, |s| {
                s.rotation = Some(vec![node("worker01", false)]);
            }),
            ("node worker01", Level::Warning, |s| {
                let nodes = s.nodes.as_mut().unwrap().as_mut().unwrap();
                nodes[1].description.engine_version = "0.9.0".to_owned();
            }),
            ("node worker01", Level::Error, |s| {
                let nodes = s.nodes.as_mut().unwrap().as_mut().unwrap();
                nodes[1].status.state = NodeState::Down;
            }),
        ];
        for (check, level, spoil) in cases {
            let mut sight = healthy();
            spoil(&mut sight);
            assert_eq!(bad(&sight), [(check.to_owned(), level)], "{check}");
        }
    }
}
