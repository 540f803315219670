use model::publish::HeldPort;

use super::*;
use crate::doctor::Level;

const TASK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9));

fn seen(obstacle: Option<&str>, drops: &[&str], traffic: Option<(u64, u64)>) -> PortSight {
    PortSight {
        port: port(Protocol::Tcp),
        told: true,
        obstacle: obstacle.map(Into::into),
        drops: drops.iter().map(ToString::to_string).collect(),
        tasks: traffic
            .map(|(sent, received)| TaskTraffic {
                address: TASK,
                connections: sent.min(1),
                sent,
                received,
                crossed: 0,
            })
            .into_iter()
            .collect(),
    }
}

fn port(protocol: Protocol) -> HeldPort {
    HeldPort {
        protocol,
        port: 8000,
        address: None,
        interface: None,
    }
}

fn sight(protocol: Protocol, seen: Option<PortSight>, path: Option<PathState>) -> PortsSight {
    let host = |name: &str| Host {
        name: name.into(),
        address: None,
        ready: true,
        encryption: None,
    };
    let pair = ("a".into(), "b".into());
    PortsSight {
        hosts: ["a", "b"].map(|name| (name.into(), host(name))).into(),
        tasks: [(
            TASK,
            TaskAt {
                name: "web.1".into(),
                node: "b".into(),
            },
        )]
        .into(),
        ports: vec![ServicePort {
            service: "s".into(),
            name: "web".into(),
            target: 80,
            port: port(protocol),
            hosts: vec![("a".into(), seen)],
        }],
        paths: path.map(|state| (pair, state)).into_iter().collect(),
    }
}

#[test]
fn each_host_has_a_state_and_a_finding_where_it_is_not_well() {
    let fine = Some(PathState::Fine);
    for (given, path, state, level, says) in [
        (
            Some(seen(None, &[], Some((9, 9)))),
            fine,
            PortState::Leads,
            Level::Ok,
            "1 port",
        ),
        (
            Some(seen(None, &[], Some((0, 0)))),
            None,
            PortState::Leads,
            Level::Ok,
            "1 port",
        ),
        (None, None, PortState::Unknown, Level::Ok, "1 port"),
        (
            Some(PortSight {
                told: false,
                ..seen(None, &[], None)
            }),
            None,
            PortState::Elsewhere,
            Level::Ok,
            "1 port",
        ),
        (
            Some(seen(None, &[], None)),
            None,
            PortState::Refuses,
            Level::Warning,
            "a refuse",
        ),
        (
            Some(seen(None, &["chain X"], Some((9, 9)))),
            fine,
            PortState::MayDrop,
            Level::Warning,
            "a: chain X",
        ),
        (
            Some(seen(None, &["chain X"], Some((9, 0)))),
            fine,
            PortState::Drops,
            Level::Error,
            "9 packets went to web.1 on b and none came back; chain X",
        ),
        (
            Some(seen(None, &[], Some((0, 0)))),
            Some(PathState::Unreachable),
            PortState::Drops,
            Level::Error,
            "no packet passes to web.1 on b",
        ),
        (
            Some(seen(Some("it is already in use"), &[], Some((0, 0)))),
            fine,
            PortState::Taken,
            Level::Error,
            "a: it is already in use",
        ),
    ] {
        let sight = sight(Protocol::Tcp, given, path);
        let found = look(&sight, &sight.ports[0]);
        assert_eq!(found[0].state, state, "{says}");
        let findings = examine(&sight);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].level, level, "{findings:?}");
        assert!(findings[0].found.contains(says), "{findings:?}");
    }
}

#[test]
fn datagrams_need_no_answer() {
    let sight = sight(Protocol::Udp, Some(seen(None, &[], Some((9, 0)))), None);
    assert_eq!(look(&sight, &sight.ports[0])[0].state, PortState::Leads);
}

#[test]
fn many_hosts_are_counted() {
    let sight = sight(Protocol::Tcp, None, None);
    let ids: Vec<NodeId> = (0..8).map(|n| NodeId::new(format!("n{n}"))).collect();
    let ids: Vec<&NodeId> = ids.iter().collect();
    assert_eq!(list(&sight, &ids), "n0, n1, n2, n3, n4 and 3 more");
    assert_eq!(list(&sight, &ids[..2]), "n0, n1");
}

#[test]
fn one_client_port_by_two_hosts_is_told() {
    let mut seen = seen(None, &[], Some((9, 9)));
    seen.tasks[0].crossed = 4;
    let findings = examine(&sight(Protocol::Tcp, Some(seen), None));
    assert_eq!(findings[0].level, Level::Warning);
    let says = "4 connections to web.1 did not come about";
    assert!(findings[0].found.starts_with(says), "{findings:?}");
}
