//! Published ports of two hosts on one wire, with the client's address asserted.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests: a panic is their failure.

mod ingress_lab;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    time::{Duration, Instant},
};

use dataplane::{
    Change, Desired,
    desired::{Protocol, Published},
};

use ingress_lab::{
    Host, LARGE, LOCAL, Lab, PATIENCE, PORT, TARGET, dial, published, run, task, tell, tell_udp,
    udp, within,
};

#[test]
fn root_ingress_shows_the_task_its_true_client() {
    let mut lab = Lab::new();
    for backend in [1, 2] {
        lab.publish(&[backend]);
        let [one, two] = &lab.hosts;
        one.assert_settled();
        two.assert_settled();
        let bystander = File::open(one.netns("bystander")).unwrap();
        let task = File::open(one.netns("task")).unwrap();
        // From where, to where, and whom the task is to see.
        for (what, from, to, seen) in [
            ("outside", &lab.client, "192.168.77.1", "192.168.77.9"),
            ("outside", &lab.client, "192.168.77.2", "192.168.77.9"),
            ("outside", &lab.client, "fd77::1", "fd77::9"),
            ("outside", &lab.client, "fd77::2", "fd77::9"),
            (
                "the host itself",
                &one.namespace,
                "192.168.77.1",
                "192.168.77.1",
            ),
            (
                "another host",
                &one.namespace,
                "192.168.77.2",
                "192.168.77.1",
            ),
            ("the host itself", &one.namespace, "fd77::1", "fd77::1"),
            ("another host", &one.namespace, "fd77::2", "fd77::1"),
            ("localhost", &one.namespace, "127.0.0.1", "192.168.77.1"),
            ("localhost", &one.namespace, "::1", "192.168.77.1"),
            ("a container", &bystander, "172.29.0.1", "192.168.77.1"),
            ("a container", &bystander, "192.168.77.1", "192.168.77.1"),
            ("a container", &bystander, "192.168.77.2", "192.168.77.1"),
            ("a task", &task, "192.168.77.1", "192.168.77.1"),
        ] {
            let what = format!("{what} to {to}, task on host {backend}");
            let mut stream = dial(from, to, PORT).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(
                tell(&mut stream),
                format!("{backend} {seen}"),
                "TCP: {what}"
            );
            let socket = udp(from, to);
            assert_eq!(
                tell_udp(&socket),
                format!("{backend} {seen}"),
                "UDP: {what}"
            );
        }
        // Much in both directions.
        for to in ["192.168.77.1", "192.168.77.2", "fd77::1"] {
            let mut stream = dial(&lab.client, to, PORT).unwrap();
            stream.write_all(b"L").unwrap();
            stream.write_all(&vec![0; LARGE]).unwrap();
            let mut much = vec![0; LARGE];
            stream.read_exact(&mut much).unwrap();
        }
        // A task reaches the world under its host's address.
        let server = within(&lab.client, || TcpListener::bind("192.168.77.9:0").unwrap());
        let port = server.local_addr().unwrap().port();
        let _stream = dial(&task, "192.168.77.9", port).unwrap();
        let (_, from) = server.accept().unwrap();
        assert_eq!(from.ip(), IpAddr::from([192, 168, 77, 1]));
    }
}

#[test]
fn root_ingress_refuses_and_moves() {
    let mut lab = Lab::new();
    lab.publish(&[]);
    let local = &lab.hosts[0].namespace;
    for (from, to) in [
        (&lab.client, "192.168.77.1"),
        (&lab.client, "fd77::2"),
        (local, "127.0.0.1"),
        (local, "::1"),
    ] {
        let refused = dial(from, to, PORT).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{to}");
    }
    lab.publish(&[1, 2]);
    let mut tasks = BTreeSet::new();
    for _ in 0..40 {
        tasks.insert(tell(&mut dial(&lab.client, "192.168.77.1", PORT).unwrap()));
    }
    assert_eq!(tasks.len(), 2, "{tasks:?}");
    lab.publish(&[1]);
    let mut tcp = dial(&lab.client, "192.168.77.2", PORT).unwrap();
    let flow = udp(&lab.client, "192.168.77.2");
    assert!(tell(&mut tcp).starts_with("1 "));
    assert!(tell_udp(&flow).starts_with("1 "));
    lab.publish(&[2]);
    assert!(tell_udp(&flow).starts_with("2 "), "the very next datagram");
    assert!(tell(&mut tcp).starts_with("1 "), "an established one stays");
    // Nothing gets into the ingress network that no published port led there.
    within(&lab.client, || {
        run("ip route add 10.7.0.0/16 via 192.168.77.1")
    });
    let direct: SocketAddr = format!("10.7.0.11:{TARGET}").parse().unwrap();
    let silent = within(&lab.client, || {
        TcpStream::connect_timeout(&direct, Duration::from_millis(500))
    });
    assert_eq!(silent.unwrap_err().kind(), ErrorKind::TimedOut);
    // The port is taken on the host.
    let host = &lab.hosts[0];
    for address in ["0.0.0.0", "[::]"] {
        let taken = within(&host.namespace, || {
            TcpListener::bind(format!("{address}:{PORT}"))
        });
        assert_eq!(taken.unwrap_err().kind(), ErrorKind::AddrInUse, "{address}");
    }
    let occupant = within(&host.namespace, || {
        TcpListener::bind("0.0.0.0:8001").unwrap()
    });
    let entry = published(Protocol::Tcp, 8001, &[1]);
    let report = lab.hosts[0].try_change(vec![Change::SetPublished("late".into(), entry)]);
    let sentences: Vec<_> = report.of("host").map(ToString::to_string).collect();
    assert!(
        sentences
            .iter()
            .any(|s| s.contains("port 8001/tcp") && s.contains("ss -ltnp")),
        "{sentences:?}"
    );
    // What another program has is not led away from it.
    let theirs = dial(&lab.client, "192.168.77.1", 8001).unwrap();
    let (_, from) = occupant.accept().unwrap();
    assert_eq!(from.ip(), IpAddr::from([192, 168, 77, 9]));
    drop((theirs, occupant));
    let start = Instant::now();
    while !lab.hosts[0].dataplane().status().borrow().failed.is_empty() {
        assert!(
            start.elapsed() < PATIENCE,
            "the port is not taken when it is free"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    // Nothing is left when nothing is published.
    let host = &mut lab.hosts[0];
    host.desired.published = BTreeMap::new();
    for sandbox in host.desired.sandboxes.values_mut() {
        sandbox
            .interfaces
            .iter_mut()
            .for_each(|i| i.publishes = false);
    }
    host.replace();
    host.assert_settled();
    let left = within(&host.namespace, || {
        run("ip -o link") + &run("nft list ruleset")
    });
    assert!(
        !left.contains("ovtg") && !left.contains("ingress"),
        "{left}"
    );
    within(&host.namespace, || {
        TcpListener::bind(format!("[::]:{PORT}")).unwrap()
    });
}

#[test]
fn root_ingress_answers_in_place_of_a_lost_host() {
    let mut lab = Lab::new();
    lab.publish(&[2]);
    let mut flow = dial(&lab.client, "192.168.77.1", PORT).unwrap();
    let mut own = dial(&lab.hosts[0].namespace, "192.168.77.1", PORT).unwrap();
    let mut six = dial(&lab.client, "fd77::1", PORT).unwrap();
    for stream in [&mut flow, &mut own, &mut six] {
        assert!(tell(stream).starts_with("2 "));
        // It says no more and only listens.
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    // The cable is pulled, and a handshake is under way that nobody will answer.
    within(&lab.hosts[1].namespace, || run("ip link set wire down"));
    let client = lab.client.try_clone().unwrap();
    let late =
        std::thread::spawn(move || dial(&client, "192.168.77.1", PORT).map(|mut s| tell(&mut s)));
    let host = &mut lab.hosts[0];
    let waiting = || {
        let seen = within(&host.namespace, || run("cat /proc/net/nf_conntrack"));
        seen.contains("SYN_SENT")
    };
    let start = Instant::now();
    while !waiting() && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut underlay = host.desired.underlay.clone().unwrap();
    underlay
        .peers
        .values_mut()
        .for_each(|peer| peer.down = true);
    let changes = [(Protocol::Tcp, "tcp"), (Protocol::Udp, "udp")];
    let changes = changes
        .map(|(protocol, id)| Change::SetPublished(id.into(), published(protocol, PORT, &[1])));
    host.change([vec![Change::SetUnderlay(Some(underlay))], changes.into()].concat());
    host.assert_settled();
    for (what, stream) in [
        ("forwarded", &mut flow),
        ("its own", &mut own),
        ("forwarded over IPv6", &mut six),
    ] {
        let end = stream.read(&mut [0; 8]);
        assert_eq!(
            end.unwrap_err().kind(),
            ErrorKind::ConnectionReset,
            "{what}"
        );
    }
    let answered = late.join().unwrap().expect("the handshake begins anew");
    assert!(answered.starts_with("1 "), "{answered}");
}

#[test]
fn root_ingress_changes_by_elements_and_counts() {
    let mut lab = Lab::new();
    lab.publish(&[1]);
    let mut kept = dial(&lab.client, "192.168.77.1", PORT).unwrap();
    assert!(tell(&mut kept).starts_with("1 "));
    let host = &mut lab.hosts[0];
    let counted = |host: &Host| {
        let counters = host.block(host.dataplane().counters()).unwrap();
        counters[&task(1)[0]]
    };
    let frame = |host: &Host| {
        within(&host.namespace, || {
            run("nft -a list chain inet overnet-ingress prerouting")
        })
    };
    let (before, handles) = (counted(host), frame(host));
    assert!(before.connections >= 1, "{before:?}");
    assert!(
        before.bytes_in > 100 && before.bytes_out > 100,
        "{before:?}"
    );
    for port in 9000..9050 {
        let entry = published(Protocol::Tcp, port, &[1, 2]);
        host.change(vec![Change::SetPublished(format!("p{port}"), entry)]);
    }
    host.assert_settled();
    for port in 9000..9049 {
        host.change(vec![Change::RemovePublished(format!("p{port}"))]);
    }
    host.assert_settled();
    let after = counted(host);
    assert!(after.connections >= before.connections, "{after:?}");
    assert_eq!(frame(host), handles, "the table was made anew");
    assert!(tell(&mut kept).starts_with("1 "));
    assert!(counted(host).bytes_in > after.bytes_in);
}

#[test]
fn root_ingress_leads_to_local_containers_too() {
    let mut lab = Lab::new();
    let host = &mut lab.hosts[0];
    let entry = |port, address: Option<&str>| Published {
        network: LOCAL.into(),
        protocol: Protocol::Tcp,
        port,
        address: address.map(|address| address.parse().unwrap()),
        interface: None,
        target: TARGET,
        backends: [("bystander".to_owned(), vec!["172.29.0.3".parse().unwrap()])].into(),
    };
    host.change(vec![
        Change::SetPublished("all".into(), entry(8100, None)),
        Change::SetPublished("one".into(), entry(8101, Some("192.168.77.1"))),
        Change::SetPublished("loopback".into(), entry(8102, Some("127.0.0.1"))),
    ]);
    host.assert_settled();
    let own = File::open(host.netns("bystander")).unwrap();
    let host = &lab.hosts[0].namespace;
    for (what, from, to, port, seen) in [
        (
            "outside",
            &lab.client,
            "192.168.77.1",
            8100,
            Some("192.168.77.9"),
        ),
        (
            "outside",
            &lab.client,
            "192.168.77.1",
            8101,
            Some("192.168.77.9"),
        ),
        ("outside", &lab.client, "192.168.77.1", 8102, None),
        ("localhost", host, "127.0.0.1", 8100, Some("172.29.0.1")),
        ("localhost", host, "::1", 8100, Some("172.29.0.1")),
        ("localhost", host, "127.0.0.1", 8101, None),
        ("localhost", host, "127.0.0.1", 8102, Some("172.29.0.1")),
        ("itself", &own, "192.168.77.1", 8100, Some("172.29.0.1")),
    ] {
        let what = format!("{what} to {to}:{port}");
        let said = dial(from, to, port).map(|mut stream| tell(&mut stream));
        match seen {
            Some(seen) => assert_eq!(said.expect(&what), format!("1 {seen}"), "{what}"),
            None => assert_eq!(
                said.expect_err(&what).kind(),
                ErrorKind::ConnectionRefused,
                "{what}"
            ),
        }
    }
    // A port that is kept is no other program's, until its time is over or it is given up.
    let kept = dataplane::desired::HostPort::any(Protocol::Tcp, 8200);
    let plane = lab.hosts[0].dataplane();
    let keep = |time| lab.hosts[0].block(plane.keep_ports(vec![kept], time));
    let bind = || within(host, || TcpListener::bind("0.0.0.0:8200"));
    keep(Duration::from_secs(60)).unwrap();
    assert_eq!(bind().unwrap_err().kind(), ErrorKind::AddrInUse);
    plane.release_ports(vec![kept]);
    let start = Instant::now();
    let theirs = loop {
        match bind() {
            Ok(bound) => break bound,
            Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
        }
    };
    let refused = keep(Duration::from_secs(60)).unwrap_err();
    assert!(refused[0].1.contains("ss -ltnp"), "{refused:?}");
    drop(theirs);
    keep(Duration::from_millis(50)).unwrap();
    while bind().is_err() {
        assert!(start.elapsed() < PATIENCE, "the port is kept for ever");
    }
}

/// Docker drops what it does not know; its chain for the rules of others lets ours through.
#[test]
fn root_ingress_passes_the_firewall_of_docker() {
    let mut lab = Lab::new();
    lab.publish(&[2]);
    let rules = "
        table ip filter {
            chain DOCKER-USER { counter return; }
            chain FORWARD {
                type filter hook forward priority filter; policy drop;
                jump DOCKER-USER
            }
        }";
    let ours = |lab: &Lab| {
        let listed = within(&lab.hosts[0].namespace, || {
            run("nft list chain ip filter DOCKER-USER")
        });
        let lines = listed.lines().map(str::trim);
        lines
            .filter(|line| line.contains("overnet"))
            .map(|line| line.split(" counter ").next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    within(&lab.hosts[0].namespace, || write_nft(rules));
    until("our rules are there", || ours(&lab).len() == 2);
    assert_eq!(ours(&lab), ["oifname \"ovt*\"", "iifname \"ovt*\""]);
    let mut stream = dial(&lab.client, "192.168.77.1", PORT).unwrap();
    assert_eq!(tell(&mut stream), "2 192.168.77.9");
    // Docker's restart flushes the chain.
    within(&lab.hosts[0].namespace, || {
        write_nft("flush chain ip filter DOCKER-USER");
    });
    until("they are there again", || ours(&lab).len() == 2);
    lab.hosts[0].assert_settled();
    // Nothing of ours is left with nothing of ours.
    let host = &mut lab.hosts[0];
    host.desired = Desired::default();
    host.replace();
    assert_eq!(ours(&lab), [] as [&str; 0]);
}

/// To the task a client's port is one connection, whatever host it comes by.
#[test]
fn root_ingress_counts_one_client_port_by_two_hosts() {
    let mut lab = Lab::new();
    lab.publish(&[2]);
    let crossed = |lab: &Lab| {
        let host = &lab.hosts[1];
        let counters = host.block(host.dataplane().counters()).unwrap();
        counters[&task(2)[0]].crossed
    };
    let from = |to: &str| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.set_reuse_address(true).unwrap();
        let own: SocketAddr = "192.168.77.9:45678".parse().unwrap();
        socket.bind(&own.into()).unwrap();
        let to = SocketAddr::new(to.parse().unwrap(), PORT);
        socket.connect_timeout(&to.into(), Duration::from_secs(1))?;
        Ok::<TcpStream, std::io::Error>(socket.into())
    };
    let first = within(&lab.client, || from("192.168.77.1"));
    let mut first = first.unwrap();
    assert_eq!(tell(&mut first), "2 192.168.77.9");
    assert_eq!(crossed(&lab), 0);
    let second = within(&lab.client, || from("192.168.77.2"));
    second.expect_err("the task has this connection by the other host");
    assert!(crossed(&lab) > 0);
    // The first one has not noticed.
    assert_eq!(tell(&mut first), "2 192.168.77.9");
}

fn write_nft(rules: &str) {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    nft.stdin
        .take()
        .unwrap()
        .write_all(rules.as_bytes())
        .unwrap();
    assert!(nft.wait().unwrap().success());
}

fn until(what: &str, done: impl Fn() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < limit, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
