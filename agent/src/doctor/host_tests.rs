use super::{super::Level, *};

/// A host with nothing wrong.
fn healthy() -> HostSight {
    HostSight {
        kernel: "6.1.0".to_owned(),
        features: Ok(vec![Feature {
            name: "VXLAN tunnels".to_owned(),
            module: "vxlan".to_owned(),
            error: None,
        }]),
        filesystems: vec!["ext4".to_owned(), "overlay".to_owned()],
        programs: vec![Program {
            name: "conmon".to_owned(),
            package: "conmon".to_owned(),
            purpose: "No container can be started.".to_owned(),
            needed: true,
            least: Some([2, 1, 6]),
            version: Some("conmon version 2.1.6".to_owned()),
        }],
        encryption: Ok(WireguardBy::Kernel),
        ip_forward: Some(true),
        inotify_instances: Some(1024),
        neighbours: Some(32768),
        open_files: 1 << 20,
        cgroups: Cgroups {
            mounted: true,
            unified: true,
            controllers: ["cpu", "cpuset", "io", "memory", "pids"]
                .map(str::to_owned)
                .to_vec(),
        },
        underlay: Some(("eth1".to_owned(), 1500)),
        dropping: Vec::new(),
        tunnel_port_taken: false,
        manager_port_taken: false,
        clock_synchronised: Some(true),
        disk: Some(Disk {
            path: "/var/lib/overnet".to_owned(),
            kind: "ext4".to_owned(),
            free: 40 * GIB,
            total: 100 * GIB,
            free_inodes: 90,
        }),
        registries: vec![("registry:5000".to_owned(), None)],
        obstacles: Vec::new(),
        failed: Vec::new(),
        wireguard_ports: [51820, 51821],
        wireguard_port_taken: None,
    }
}

#[test]
fn a_healthy_host_has_no_findings_but_good_ones() {
    let findings = examine(&healthy());
    assert!(
        findings.iter().all(|f| f.level == Level::Ok),
        "{findings:#?}"
    );
    assert!(
        findings
            .iter()
            .all(|f| f.means.is_empty() && f.mend.is_empty())
    );
}

/// Spoils one thing and expects one finding of that check and level, with a way out.
fn spoiled(check: &str, level: Level, mend: &str, spoil: impl FnOnce(&mut HostSight)) {
    let mut sight = healthy();
    spoil(&mut sight);
    let bad: Vec<Finding> = examine(&sight)
        .into_iter()
        .filter(|finding| finding.level != Level::Ok)
        .collect();
    assert_eq!(bad.len(), 1, "{check}: {bad:#?}");
    assert_eq!(
        (bad[0].check.as_str(), bad[0].level),
        (check, level),
        "{bad:#?}"
    );
    assert!(bad[0].mend.contains(mend), "{bad:#?}");
    assert!(!bad[0].means.is_empty());
}

#[test]
fn each_fault_is_one_finding() {
    use Level::{Error, Warning};
    spoiled("kernel", Error, "modprobe -a vxlan", |s| {
        s.features.as_mut().unwrap()[0].error = Some("not supported".to_owned());
    });
    spoiled("kernel", Error, "as root", |s| {
        s.features = Err("EPERM".to_owned());
    });
    spoiled("file systems", Error, "modprobe overlay", |s| {
        s.filesystems.clear();
    });
    spoiled("program conmon", Error, "apt-get install conmon", |s| {
        s.programs[0].version = None;
    });
    spoiled("program conmon", Warning, "apt-get install conmon", |s| {
        s.programs[0].version = None;
        s.programs[0].needed = false;
    });
    spoiled("program conmon", Warning, "newer release", |s| {
        s.programs[0].version = Some("conmon version 2.1.5".to_owned());
    });
    spoiled("forwarding", Warning, "ip_forward=1", |s| {
        s.ip_forward = Some(false);
    });
    spoiled("limits", Warning, "LimitNOFILE", |s| s.open_files = 1024);
    spoiled("limits", Warning, "max_user_instances", |s| {
        s.inotify_instances = Some(128);
    });
    spoiled("limits", Warning, "gc_thresh3", |s| {
        s.neighbours = Some(1024);
    });
    spoiled("control groups", Error, "mount", |s| {
        s.cgroups.mounted = false;
    });
    spoiled("control groups", Warning, "cgroup_enable", |s| {
        s.cgroups.controllers.retain(|c| c != "memory");
    });
    spoiled("MTU", Warning, "ip link set eth1", |s| {
        s.underlay = Some(("eth1".to_owned(), 1450));
    });
    spoiled("port 4789/udp", Error, "ss -ulpn", |s| {
        s.tunnel_port_taken = true;
    });
    spoiled("port 2377/tcp", Warning, "docker swarm leave", |s| {
        s.manager_port_taken = true;
    });
    spoiled("clock", Warning, "timesyncd", |s| {
        s.clock_synchronised = Some(false);
    });
    spoiled("disk", Error, "prune", |s| {
        s.disk.as_mut().unwrap().free = GIB / 8;
    });
    spoiled("disk", Warning, "prune", |s| {
        s.disk.as_mut().unwrap().free = 3 * GIB;
    });
    spoiled("disk", Warning, "prune", |s| {
        s.disk.as_mut().unwrap().free_inodes = 3;
    });
    spoiled("disk", Error, "local disk", |s| {
        s.disk.as_mut().unwrap().kind = "nfs".to_owned();
    });
    spoiled("registry registry:5000", Warning, "curl", |s| {
        s.registries[0].1 = Some("connection refused".to_owned());
    });
    spoiled("networks", Error, "dataplane plan", |s| {
        s.obstacles.push("a device".to_owned());
    });
}

#[test]
fn what_the_dataplane_cannot_do_is_said_with_the_way_out() {
    let failure = |scope: &str| Failure {
        scope: scope.to_owned(),
        sentence: "cannot set up the WireGuard device ovtw0".to_owned(),
    };
    spoiled("encrypted networks", Level::Error, "wireguard-port", |s| {
        s.failed.push(failure(TUNNELS));
    });
    spoiled("networks", Level::Error, "ovnd dataplane plan", |s| {
        s.failed.push(failure("host"));
    });
    spoiled("port 51821/udp", Level::Warning, "sport = 51821", |s| {
        s.wireguard_port_taken = Some(51821);
    });
    let ports = examine(&healthy()).into_iter().find(|f| f.check == "ports");
    let ports = ports.expect("a finding of the ports").found;
    assert!(ports.contains("51820/udp and 51821/udp"), "{ports}");
}

#[test]
fn others_firewalls_are_named_with_the_rule_that_opens_them() {
    let chain = |chain: &str, hook| Dropping {
        family: "ip",
        table: "filter".to_owned(),
        chain: chain.to_owned(),
        hook,
    };
    spoiled(
        "firewall",
        Level::Warning,
        "nft insert rule ip filter FORWARD iifname \"ovt*\" accept",
        |s| s.dropping.push(chain("FORWARD", 2)),
    );
    spoiled(
        "firewall",
        Level::Warning,
        "nft insert rule ip filter INPUT udp dport { 4789, 51820, 51821 } accept",
        |s| s.dropping.push(chain("INPUT", 1)),
    );
    let mut sight = healthy();
    sight.dropping.push(chain("OUTPUT", 3));
    assert!(examine(&sight).iter().all(|f| f.level == Level::Ok));
}

#[test]
fn versions_are_read_and_compared_by_number() {
    for (said, expected) in [
        ("crun version 1.8.1", Some([1, 8, 1])),
        ("runc version 1.1.5+ds1", Some([1, 1, 5])),
        ("conmon version 2.1", Some([2, 1, 0])),
        ("ps from procps-ng 4.0.2", Some([4, 0, 2])),
        ("crun version 1.10.0-dirty", Some([1, 10, 0])),
        ("no number", None),
        ("version 99999999999.1", None),
    ] {
        assert_eq!(read(said), expected, "{said}");
    }
    assert!(read("crun version 1.10.0") > read("crun version 1.8.1"));
}
