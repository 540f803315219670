//! Two hosts and a client on one wire: published ports, with the client's address asserted.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests: a panic is their failure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use dataplane::{
    Change, Config, Dataplane, Desired, Report,
    desired::{
        Interface, Network, NetworkKind, PeerFacts, Protocol, Published, Remote, Sandbox, Subnet,
        Underlay,
    },
    dns::{DnsConfig, Forgetful},
};
use nix::sched::{CloneFlags, setns, unshare};

const INGRESS: &str = "ingress-network-of-the-test";
const LOCAL: &str = "local-network-of-the-test";
const PATIENCE: Duration = Duration::from_secs(5);
const PORT: u16 = 8000;
const TARGET: u16 = 8080;
const LARGE: usize = 2 << 20;

struct Host {
    number: u8,
    namespace: File,
    folder: tempfile::TempDir,
    runtime: Option<tokio::runtime::Runtime>,
    dataplane: Option<Dataplane>,
    desired: Desired,
}

/// Two hosts with a task each, `c` at 10.7.0.11 and .12, and a client outside.
struct Lab {
    hosts: [Host; 2],
    client: File,
    _switch: File,
}

fn namespace() -> File {
    std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        run("ip link set lo up");
        // Where the module is loaded it would lead a container's own port past the routing.
        let _ = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0");
        File::open("/proc/thread-self/ns/net").unwrap()
    })
    .join()
    .unwrap()
}

impl Lab {
    fn new() -> Self {
        let switch = namespace();
        within(&switch, || {
            run("ip link add bridge type bridge mcast_snooping 0");
            run("ip link set bridge up");
        });
        let wire = |namespace: &File, number: u8| {
            let far = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
            within(&switch, || {
                run(&format!(
                    "ip link add to{number} type veth peer name wire netns {far}"
                ));
                run(&format!("ip link set to{number} master bridge up"));
            });
            within(namespace, || {
                run(&format!("ip address add 192.168.77.{number}/24 dev wire"));
                run(&format!("ip address add fd77::{number}/64 dev wire nodad"));
                run("ip link set wire up");
            });
        };
        let client = namespace();
        wire(&client, 9);
        let hosts = [1, 2].map(|number| {
            let host = Host::new(number);
            wire(&host.namespace, number);
            host
        });
        for host in &hosts {
            host.replace();
        }
        let lab = Self {
            hosts,
            client,
            _switch: switch,
        };
        for host in &lab.hosts {
            serve(host, "task");
            serve(host, "bystander");
        }
        lab
    }

    fn publish(&mut self, backends: &[u8]) {
        for host in &mut self.hosts {
            let changes = [(Protocol::Tcp, "tcp"), (Protocol::Udp, "udp")];
            let changes = changes.map(|(protocol, id)| {
                Change::SetPublished(id.into(), published(protocol, PORT, backends))
            });
            host.change(changes.into());
        }
    }
}

impl Host {
    fn new(number: u8) -> Self {
        let namespace = namespace();
        let inside = namespace.try_clone().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .on_thread_start(move || setns(&inside, CloneFlags::CLONE_NEWNET).unwrap())
            .build()
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let run_dir = folder.path().to_owned();
        let dataplane = runtime.block_on(async {
            tokio::spawn(async move {
                Dataplane::start(Config {
                    run_dir,
                    dns: DnsConfig {
                        inherited: Vec::new(),
                        keeper: Arc::new(Forgetful),
                    },
                })
                .unwrap()
            })
            .await
            .unwrap()
        });
        let mut host = Self {
            number,
            namespace,
            folder,
            runtime: Some(runtime),
            dataplane: Some(dataplane),
            desired: Desired::default(),
        };
        host.desired = host.wish();
        host
    }

    fn wish(&self) -> Desired {
        let other = 3 - self.number;
        let address = |number: u8| -> IpAddr { IpAddr::from([192, 168, 77, number]) };
        let network = |kind, subnets: [(&str, &str); 2]| Network {
            name: "any".into(),
            kind,
            subnets: subnets
                .map(|(subnet, gateway)| Subnet {
                    subnet: subnet.parse().unwrap(),
                    gateway: gateway.parse().unwrap(),
                })
                .into(),
            mtu: None,
        };
        let local = NetworkKind::Bridge {
            masquerade: true,
            isolated: true,
        };
        let interface = |name: &str, network: &str, addresses: [String; 2], publishes| Interface {
            endpoint: format!("{name}-{}", self.number),
            network: network.into(),
            name: name.into(),
            addresses: addresses.map(|address| address.parse().unwrap()).into(),
            mac: mac(name.as_bytes()[3], self.number),
            default_via: if network == LOCAL {
                vec!["172.29.0.1".parse().unwrap(), "fd29::1".parse().unwrap()]
            } else {
                Vec::new()
            },
            publishes,
            names: Vec::new(),
        };
        let sandbox = |name: &str, interfaces| Sandbox {
            netns: self.netns(name),
            interfaces,
            dns: None,
            counted: true,
        };
        let [v4, v6] = task(self.number);
        Desired {
            underlay: Some(Underlay {
                address: address(self.number),
                port: 4789,
                peers: [(address(other), PeerFacts::default())].into(),
            }),
            networks: [
                (
                    INGRESS.to_owned(),
                    network(
                        NetworkKind::Overlay { vni: 4242 },
                        [("10.7.0.0/16", "10.7.0.1"), ("fd07::/64", "fd07::1")],
                    ),
                ),
                (
                    LOCAL.to_owned(),
                    network(
                        local,
                        [("172.29.0.0/24", "172.29.0.1"), ("fd29::/64", "fd29::1")],
                    ),
                ),
            ]
            .into(),
            sandboxes: [
                (
                    "task".to_owned(),
                    sandbox(
                        "task",
                        vec![
                            interface(
                                "eth0",
                                LOCAL,
                                ["172.29.0.2/24".into(), "fd29::2/64".into()],
                                false,
                            ),
                            interface(
                                "eth1",
                                INGRESS,
                                [format!("{v4}/16"), format!("{v6}/64")],
                                true,
                            ),
                        ],
                    ),
                ),
                (
                    "bystander".to_owned(),
                    sandbox(
                        "bystander",
                        vec![interface(
                            "eth3",
                            LOCAL,
                            ["172.29.0.3/24".into(), "fd29::3/64".into()],
                            false,
                        )],
                    ),
                ),
            ]
            .into(),
            remotes: [(
                format!("eth1-{other}"),
                Remote {
                    network: INGRESS.into(),
                    addresses: task(other).into(),
                    mac: mac(b'1', other),
                    vtep: address(other),
                    names: Vec::new(),
                },
            )]
            .into(),
            ..Desired::default()
        }
    }

    fn netns(&self, name: &str) -> PathBuf {
        self.folder.path().join("netns").join(name)
    }

    fn block<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.as_ref().unwrap().block_on(future)
    }

    fn dataplane(&self) -> &Dataplane {
        self.dataplane.as_ref().unwrap()
    }

    fn replace(&self) {
        clean(&self.block(self.dataplane().replace(self.desired.clone())));
    }

    fn change(&mut self, changes: Vec<Change>) {
        clean(&self.try_change(changes));
    }

    fn try_change(&mut self, changes: Vec<Change>) -> Report {
        for change in &changes {
            self.desired.apply(change.clone());
        }
        self.block(self.dataplane().change(changes))
    }

    fn assert_settled(&self) {
        let seen = self.block(self.dataplane().observe()).unwrap();
        let plan = dataplane::plan(&self.desired, &seen);
        assert!(plan.is_empty(), "{plan}{:#?}", plan.steps);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let (Some(runtime), Some(dataplane)) = (self.runtime.take(), self.dataplane.take()) {
            runtime.block_on(async {
                dataplane.purge().await;
                dataplane.shutdown().await;
            });
        }
    }
}

fn clean(report: &Report) {
    assert!(report.is_clean(), "{:#?}", report.failures);
}

fn run(command: &str) -> String {
    let words: Vec<_> = command.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command}: {text}");
    text
}

fn within<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

fn mac(interface: u8, number: u8) -> [u8; 6] {
    [2, 0x42, 10, 7, interface, number]
}

fn task(number: u8) -> [IpAddr; 2] {
    [
        format!("10.7.0.1{number}").parse().unwrap(),
        format!("fd07::1{number}").parse().unwrap(),
    ]
}

fn published(protocol: Protocol, port: u16, backends: &[u8]) -> Published {
    Published {
        network: INGRESS.into(),
        protocol,
        port,
        address: None,
        interface: None,
        target: TARGET,
        backends: backends
            .iter()
            .map(|number| (format!("eth1-{number}"), task(*number).into()))
            .collect(),
    }
}

/// The task says over TCP and UDP which host it is on and whom it sees; on `L` it sends much
/// over TCP, after as much has come.
fn serve(host: &Host, sandbox: &str) {
    let number = host.number;
    let task = File::open(host.netns(sandbox)).unwrap();
    let (tcp, udp) = within(&task, || {
        let any: SocketAddr = format!("[::]:{TARGET}").parse().unwrap();
        (
            TcpListener::bind(any).unwrap(),
            UdpSocket::bind(any).unwrap(),
        )
    });
    let said = move |from: SocketAddr| format!("{number} {}", from.ip().to_canonical());
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let answer = said(stream.peer_addr().unwrap());
                let mut byte = [0];
                while stream.read(&mut byte).is_ok_and(|count| count == 1) {
                    if byte == *b"L" {
                        let mut large = vec![0; LARGE];
                        let _ = stream.read_exact(&mut large);
                        let _ = stream.write_all(&large);
                    } else {
                        let _ = stream.write_all(answer.as_bytes());
                    }
                }
            });
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(said(from).as_bytes(), from);
        }
    });
}

fn dial(from: &File, to: &str, port: u16) -> std::io::Result<TcpStream> {
    let to = SocketAddr::new(to.parse().unwrap(), port);
    let stream = within(from, || TcpStream::connect_timeout(&to, PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn tell(stream: &mut TcpStream) -> String {
    stream.write_all(b"?").unwrap();
    let mut buffer = [0; 64];
    let count = stream.read(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..count]).into_owned()
}

fn udp(from: &File, to: &str) -> UdpSocket {
    let to = SocketAddr::new(to.parse().unwrap(), PORT);
    let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let socket = within(from, || {
        let socket = UdpSocket::bind(any).unwrap();
        socket.connect(to).unwrap();
        socket
    });
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn tell_udp(socket: &UdpSocket) -> String {
    socket.send(b"?").unwrap();
    let mut buffer = [0; 64];
    let count = socket.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..count]).into_owned()
}

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
    assert!(tell(&mut flow).starts_with("2 ") && tell(&mut own).starts_with("2 "));
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
    for (what, stream) in [("forwarded", &mut flow), ("its own", &mut own)] {
        stream.write_all(b"?").unwrap();
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
