use std::time::Duration;

use model::{
    PathReport, Tally,
    encryption::{Encryptor, TunnelKey},
};

use super::{super::Level, *};

fn seen(to: &str, state: PathState) -> PathSight {
    let lost = |lost: bool, sent: u32| Tally {
        sent,
        lost: if lost { sent } else { 0 },
    };
    PathSight {
        to: to.into(),
        state,
        small: match state {
            PathState::Lossy => Tally { sent: 25, lost: 4 },
            _ => lost(state == PathState::Unreachable, 25),
        },
        full: lost(
            matches!(state, PathState::Unreachable | PathState::SmallOnly),
            5,
        ),
        full_size: 1450,
        median: Some(Duration::from_micros(300)),
        worst: Some(Duration::from_micros(900)),
    }
}

/// Hosts a to d that share a network, all well.
fn healthy() -> PathsSight {
    let ids = ["a", "b", "c", "d"];
    let host = |(number, id): (usize, &&str)| {
        let host = Host {
            name: format!("host-{id}"),
            address: format!("192.0.2.{}", number + 1).parse().ok(),
            ready: true,
            encryption: None,
        };
        (NodeId::new(*id), host)
    };
    let report = |from: &&str| AgedReport {
        report: PathReport {
            node: (*from).into(),
            pace: Duration::from_secs(30),
            paths: ids
                .iter()
                .filter(|to| *to != from)
                .map(|to| seen(to, PathState::Fine))
                .collect(),
        },
        age: Duration::from_secs(10),
    };
    PathsSight {
        hosts: ids.iter().enumerate().map(host).collect(),
        reports: ids.iter().map(report).collect(),
        among: Some(ids.iter().map(|id| NodeId::new(*id)).collect()),
        port: 4789,
    }
}

fn set(sight: &mut PathsSight, from: &str, to: &str, state: PathState) {
    let mut reports = sight.reports.iter_mut();
    let of_host = reports.find(|r| r.report.node.as_str() == from).unwrap();
    let mut paths = of_host.report.paths.iter_mut();
    *paths.find(|path| path.to.as_str() == to).unwrap() = seen(to, state);
}

fn both(sight: &mut PathsSight, one: &str, other: &str, state: PathState) {
    set(sight, one, other, state);
    set(sight, other, one, state);
}

fn found(sight: &PathsSight) -> Vec<(Level, String)> {
    examine(sight, &paths(sight))
        .into_iter()
        .inspect(|finding| {
            let well = finding.level == Level::Ok;
            assert_eq!(well, finding.mend.is_empty() && finding.means.is_empty());
        })
        .map(|finding| {
            (
                finding.level,
                format!("{}: {}", finding.check, finding.found),
            )
        })
        .collect()
}

fn one(sight: &PathsSight) -> (Level, String) {
    let mut all = found(sight);
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}

#[test]
fn all_is_well() {
    let sight = healthy();
    assert_eq!(paths(&sight).len(), 12);
    assert_eq!(
        one(&sight),
        (
            Level::Ok,
            "paths: 6 pairs of hosts, all packets pass".to_owned()
        )
    );
    let mut alone = healthy();
    alone.among = Some(["a".into()].into());
    assert_eq!(
        one(&alone),
        (Level::Ok, "paths: no two hosts share a network".to_owned())
    );
}

#[test]
fn a_bad_pair_is_one_finding_and_so_is_a_bad_host() {
    let mut sight = healthy();
    both(&mut sight, "a", "b", PathState::Unreachable);
    let said =
        "path host-a - host-b: no packet passes by VXLAN (UDP port 4789) between host-a and host-b";
    assert_eq!(one(&sight), (Level::Error, said.to_owned()));
    // One direction that says so is enough.
    let mut sight = healthy();
    set(&mut sight, "b", "a", PathState::SmallOnly);
    let (level, said) = one(&sight);
    assert_eq!(level, Level::Error);
    assert!(
        said.starts_with("path host-a - host-b: MTU: small packets pass"),
        "{said}"
    );
    assert!(said.contains("(1450 bytes, 1500 with VXLAN)"), "{said}");

    let mut sight = healthy();
    for other in ["a", "b", "d"] {
        both(&mut sight, "c", other, PathState::Unreachable);
    }
    let (_, said) = one(&sight);
    assert!(
        said.starts_with("path host-c - host-a, host-b and host-d: "),
        "{said}"
    );
    both(&mut sight, "a", "d", PathState::Lossy);
    let all = found(&sight);
    assert_eq!(all.len(), 2, "{all:#?}");
    assert_eq!(all[0].0, Level::Warning);
    assert!(
        all[0]
            .1
            .contains("4 of 25 small and 0 of 5 full-size packets"),
        "{all:#?}"
    );
}

#[test]
fn what_is_not_known_is_said() {
    let silent = |sight: &mut PathsSight| sight.reports.retain(|r| r.report.node.as_str() != "d");
    let old = |sight: &mut PathsSight| sight.reports[3].age = Duration::from_secs(100);
    let unmeasured = |sight: &mut PathsSight| set(sight, "d", "a", PathState::Unknown);
    let left_out = |sight: &mut PathsSight| sight.reports[3].report.paths.clear();
    type Spoil<'a> = &'a dyn Fn(&mut PathsSight);
    let cases: [(Spoil<'_>, &str); 4] = [
        (
            &silent,
            "path host-d - host-a, host-b and host-c: not known: host-d has told nothing yet",
        ),
        (
            &old,
            "path host-d - host-a, host-b and host-c: not known: host-d has told nothing for 100 seconds",
        ),
        (
            &unmeasured,
            "path host-a - host-d: not known: not measured yet",
        ),
        (
            &left_out,
            "path host-d - host-a, host-b and host-c: not known: not measured yet",
        ),
    ];
    for (spoil, said) in cases {
        let mut sight = healthy();
        spoil(&mut sight);
        assert_eq!(one(&sight), (Level::Warning, said.to_owned()));
    }
    // An older ovnd does not answer: that is no broken path.
    let mut sight = healthy();
    silent(&mut sight);
    for from in ["a", "b", "c"] {
        set(&mut sight, from, "d", PathState::Unreachable);
    }
    let (level, said) = one(&sight);
    assert_eq!(level, Level::Warning, "{said}");
}

#[test]
fn a_host_that_is_down_is_no_broken_path() {
    let mut sight = healthy();
    for other in ["a", "b", "d"] {
        set(&mut sight, other, "c", PathState::Unreachable);
    }
    sight.hosts.get_mut(&NodeId::new("c")).unwrap().ready = false;
    let (level, said) = one(&sight);
    assert_eq!(level, Level::Warning);
    assert_eq!(
        said,
        "paths of host-c: host-c: down, so the paths there are not known"
    );
    // The doctor has a finding of its own for that.
    sight.among = None;
    assert_eq!(
        one(&sight),
        (
            Level::Ok,
            "paths: 3 pairs of hosts, all packets pass".to_owned()
        )
    );
}

#[test]
fn many_hosts_are_counted() {
    let mut sight = healthy();
    let ids: Vec<NodeId> = (0..9).map(|n| NodeId::new(format!("x{n}"))).collect();
    for id in &ids {
        let host = Host {
            name: id.to_string(),
            address: None,
            ready: true,
            encryption: None,
        };
        sight.hosts.insert(id.clone(), host);
    }
    let names: Vec<&NodeId> = ids.iter().collect();
    assert_eq!(list(&sight, &names), "x0, x1, x2, x3, x4 and 4 more");
    assert_eq!(list(&sight, &names[..6]), "x0, x1, x2, x3, x4 and x5");
    assert_eq!(list(&sight, &names[..1]), "x0");
}

#[test]
fn of_an_encrypted_network_is_said_what_was_measured_and_what_not() {
    let host = |name: &str, trouble: Option<&str>| Host {
        name: name.to_owned(),
        address: None,
        ready: true,
        encryption: Some(HostEncryption {
            by: Encryptor::Kernel,
            keys: vec![TunnelKey {
                generation: 0,
                public: [1; 32],
                port: 51900,
            }],
            receives: 0,
            sends: 0,
            trouble: trouble.map(str::to_owned),
        }),
    };
    let sight = PathsSight {
        hosts: [
            ("a".into(), host("a", None)),
            ("b".into(), host("b", Some("UDP port 51900 is taken"))),
        ]
        .into(),
        reports: Vec::new(),
        among: Some(["a".into(), "b".into()].into()),
        port: 4789,
    };
    let found = tunnels(&sight);
    let texts: Vec<_> = found
        .iter()
        .map(|f| (f.check.as_str(), f.found.as_str()))
        .collect();
    assert_eq!(texts[0], ("tunnels of b", "UDP port 51900 is taken"));
    assert!(texts[1].1.contains("WireGuard (UDP 51900)"), "{texts:?}");
    assert!(texts[1].1.contains("VXLAN (UDP port 4789)"), "{texts:?}");
}
