//! One host as a network namespace with containers on one overlay network: virtual IPs under
//! real traffic.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests: a panic is their failure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use dataplane::{
    Change, Config, Dataplane, Desired, Report,
    desired::{Interface, Network, NetworkKind, Sandbox, Subnet, Underlay, Vip},
    dns::{DnsConfig, Forgetful},
};
use nix::sched::{CloneFlags, setns, unshare};

const NETWORK: &str = "overlay-network-of-the-test";
const PATIENCE: Duration = Duration::from_secs(5);
const PORT: u16 = 8080;
const VIP4: &str = "10.7.0.200";
const VIP6: &str = "fd07::200";

/// A host with so many containers, `c0`, `c1`, …, at 10.7.0.10, 10.7.0.11, ….
struct Host {
    namespace: File,
    folder: tempfile::TempDir,
    runtime: Option<tokio::runtime::Runtime>,
    dataplane: Option<Dataplane>,
    desired: Desired,
}

impl Host {
    fn new(containers: usize) -> Self {
        let namespace = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            for command in ["ip link set lo up", "ip address add 192.168.77.1/32 dev lo"] {
                run(command);
            }
            File::open("/proc/thread-self/ns/net").unwrap()
        })
        .join()
        .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let inside = namespace.try_clone().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .on_thread_start(move || setns(&inside, CloneFlags::CLONE_NEWNET).unwrap())
            .build()
            .unwrap();
        let mut host = Self {
            namespace,
            folder,
            runtime: Some(runtime),
            dataplane: None,
            desired: Desired::default(),
        };
        host.start();
        host.desired.underlay = Some(Underlay {
            address: "192.168.77.1".parse().unwrap(),
            port: 4789,
            peers: BTreeMap::new(),
            tunnels: dataplane::desired::Tunnels::default(),
        });
        let subnet = |subnet: &str, gateway: &str| Subnet {
            subnet: subnet.parse().unwrap(),
            gateway: gateway.parse().unwrap(),
        };
        host.desired.networks.insert(
            NETWORK.into(),
            Network {
                name: "web".into(),
                kind: NetworkKind::Overlay {
                    vni: 4242,
                    encrypted: false,
                },
                subnets: vec![
                    subnet("10.7.0.0/16", "10.7.0.1"),
                    subnet("fd07::/64", "fd07::1"),
                ],
                mtu: None,
            },
        );
        for n in 0..containers {
            let sandbox = host.container(n);
            host.desired.sandboxes.insert(format!("c{n}"), sandbox);
        }
        let start = Instant::now();
        host.replace();
        println!(
            "{containers} containers from nothing: {:?}",
            start.elapsed()
        );
        host
    }

    fn start(&mut self) {
        let run_dir = self.folder.path().to_owned();
        let runtime = self.runtime.as_ref().unwrap();
        self.dataplane = Some(runtime.block_on(async {
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
        }));
    }

    fn container(&self, n: usize) -> Sandbox {
        let byte = n as u8 + 10;
        let [v4, v6] = own(n);
        Sandbox {
            netns: self.netns(n),
            interfaces: vec![Interface {
                endpoint: format!("endpoint-{n}"),
                network: NETWORK.into(),
                name: "eth0".into(),
                addresses: vec![
                    format!("{v4}/16").parse().unwrap(),
                    format!("{v6}/64").parse().unwrap(),
                ],
                mac: [2, 0x42, 10, 7, 0, byte],
                default_via: Vec::new(),
                publishes: false,
                names: Vec::new(),
            }],
            dns: None,
            counted: true,
        }
    }

    fn netns(&self, n: usize) -> PathBuf {
        self.folder.path().join(format!("netns/c{n}"))
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

    fn change(&mut self, changes: Vec<Change>) -> Duration {
        for change in &changes {
            self.desired.apply(change.clone());
        }
        let start = Instant::now();
        let report = self.block(self.dataplane().change(changes));
        let took = start.elapsed();
        clean(&report);
        took
    }

    /// The virtual IP of the test leads to these containers.
    fn lead_to(&mut self, containers: &[usize]) -> Duration {
        self.change(vec![Change::SetVip("vip".into(), vip(containers))])
    }

    fn flows(&self, n: usize) -> u64 {
        self.block(self.dataplane().flows(&format!("c{n}")))
            .unwrap()
    }

    /// What a second look plans must be nothing.
    fn assert_settled(&self) {
        let seen = self.block(self.dataplane().observe()).unwrap();
        let plan = dataplane::plan(&self.desired, &seen);
        assert!(plan.is_empty(), "{plan}{:#?}", plan.steps);
    }

    fn within<T: Send>(&self, n: usize, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(self.netns(n)).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    /// Servers of TCP and UDP in the container that say its number and the client's address;
    /// over TCP to every line.
    fn serve(&self, n: usize) {
        let (tcp, udp) = self.within(n, || {
            let any: SocketAddr = format!("[::]:{PORT}").parse().unwrap();
            (
                TcpListener::bind(any).unwrap(),
                UdpSocket::bind(any).unwrap(),
            )
        });
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let Ok(mut stream) = stream else { return };
                std::thread::spawn(move || {
                    let answer = said(n, stream.peer_addr().unwrap());
                    let mut byte = [0];
                    while stream.read(&mut byte).is_ok_and(|count| count == 1) {
                        let _ = stream.write_all(answer.as_bytes());
                    }
                });
            }
        });
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, from)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(said(n, from).as_bytes(), from);
            }
        });
    }

    fn dial(&self, n: usize, to: &str) -> std::io::Result<TcpStream> {
        let to = SocketAddr::new(to.parse().unwrap(), PORT);
        let stream = self.within(n, || TcpStream::connect_timeout(&to, PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Who answers a new connection, and from where it came.
    fn ask(&self, n: usize, to: &str) -> String {
        tell(&mut self.dial(n, to).unwrap())
    }

    fn udp(&self, n: usize, to: &str) -> UdpSocket {
        let to: SocketAddr = SocketAddr::new(to.parse().unwrap(), PORT);
        let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let socket = self.within(n, || {
            let socket = UdpSocket::bind(any).unwrap();
            socket.connect(to).unwrap();
            socket
        });
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
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
        let _ = &self.namespace;
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

fn own(n: usize) -> [IpAddr; 2] {
    let byte = n + 10;
    [
        format!("10.7.0.{byte}").parse().unwrap(),
        format!("fd07::{byte}").parse().unwrap(),
    ]
}

fn vip(containers: &[usize]) -> Vip {
    Vip {
        network: NETWORK.into(),
        addresses: vec![VIP4.parse().unwrap(), VIP6.parse().unwrap()],
        names: Vec::new(),
        backends: containers
            .iter()
            .map(|n| (format!("endpoint-{n}"), own(*n).into()))
            .collect(),
    }
}

fn said(n: usize, from: SocketAddr) -> String {
    format!("c{n} {}\n", from.ip().to_canonical())
}

fn tell(stream: &mut TcpStream) -> String {
    stream.write_all(b"?").unwrap();
    line(|buffer| stream.read(buffer))
}

fn tell_udp(socket: &UdpSocket) -> String {
    socket.send(b"?").unwrap();
    line(|buffer| socket.recv(buffer))
}

/// What a socket hears after a datagram. The sending itself may be refused already (EPERM): the
/// packet was dropped on its way out.
fn refusal(socket: &UdpSocket) -> std::io::Error {
    let _ = socket.send(b"?");
    socket.recv(&mut [0; 8]).unwrap_err()
}

fn line(mut read: impl FnMut(&mut [u8]) -> std::io::Result<usize>) -> String {
    let mut buffer = [0; 64];
    let count = read(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..count]).trim().to_owned()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An echo request of ICMP with an identifier of its own; answers whether it is answered.
fn ping(host: &Host, n: usize, to: &str) -> bool {
    use socket2::{Domain, Protocol, Socket, Type};
    let to: IpAddr = to.parse().unwrap();
    let (domain, protocol, request, answer) = if to.is_ipv6() {
        (Domain::IPV6, Protocol::ICMPV6, 128, 129)
    } else {
        (Domain::IPV4, Protocol::ICMPV4, 8, 0)
    };
    let socket = host.within(n, || {
        Socket::new(domain, Type::RAW, Some(protocol)).unwrap()
    });
    socket
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    // Type, code, checksum (the kernel's for IPv6), identifier, sequence.
    let mut packet = [request, 0, 0, 0, 0x4f, 0x56, 0, 1];
    let sum = u32::from(request) * 256 + 0x4f56 + 1;
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    socket
        .send_to(&packet, &SocketAddr::new(to, 0).into())
        .unwrap();
    let mut socket = socket;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        let mut buffer = [0; 128];
        let Ok(count) = socket.read(&mut buffer) else {
            return false;
        };
        let header = if to.is_ipv6() { 0 } else { 20 };
        if count >= header + 8 && buffer[header] == answer && buffer[header + 4] == 0x4f {
            return true;
        }
    }
    false
}

#[test]
fn root_vips_balance_every_protocol_of_both_families() {
    let mut host = Host::new(4);
    for n in 0..4 {
        host.serve(n);
    }
    // The client is a backend itself.
    host.lead_to(&[0, 1, 2]);
    host.assert_settled();
    for (vip, client) in [(VIP4, own(0)[0]), (VIP6, own(0)[1])] {
        let (mut tcp, mut udp) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..60 {
            tcp.insert(host.ask(0, vip));
            udp.insert(tell_udp(&host.udp(0, vip)));
        }
        let all: BTreeSet<_> = (0..3).map(|n| format!("c{n} {client}")).collect();
        assert_eq!(tcp, all, "TCP to {vip}");
        assert_eq!(udp, all, "UDP to {vip}");
        for _ in 0..5 {
            assert!(ping(&host, 0, vip), "{vip} does not answer pings");
            assert!(ping(&host, 3, vip), "{vip} does not answer pings");
        }
        let [v4, v6] = own(3);
        let client = if vip == VIP4 { v4 } else { v6 };
        assert!(host.ask(3, vip).ends_with(&format!(" {client}")));
    }
    // Quiet connections of TCP are not forgotten.
    let seconds = host.within(0, || {
        let name = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established";
        std::fs::read_to_string(name).unwrap()
    });
    assert!(seconds.trim().parse::<u64>().unwrap() > 20 * 24 * 3600);
    host.change(vec![Change::RemoveVip("vip".into())]);
    host.assert_settled();
}

#[test]
fn root_vips_refuse_at_once_without_backends() {
    let mut host = Host::new(1);
    host.lead_to(&[]);
    // The kernel makes the route to a new IPv6 address of one's own some time after the address;
    // until then a refusal does not find its way back.
    until("the own address is local", || {
        let [_, v6] = own(0);
        host.within(0, || {
            run(&format!("ip -6 route get {v6}")).starts_with("local")
        })
    });
    for vip in [VIP4, VIP6] {
        let start = Instant::now();
        let refused = host.dial(0, vip).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "TCP to {vip}");
        let socket = host.udp(0, vip);
        let refused = refusal(&socket);
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "UDP to {vip}");
        assert!(start.elapsed() < Duration::from_secs(1), "{vip}");
    }
    host.serve(0);
    host.lead_to(&[0]);
    assert_eq!(host.ask(0, VIP4), format!("c0 {}", own(0)[0]));
    host.lead_to(&[]);
    let refused = host.dial(0, VIP4).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn root_vips_move_udp_and_leave_tcp_where_it_is() {
    let mut host = Host::new(3);
    for n in 1..3 {
        host.serve(n);
    }
    for vip in [VIP4, VIP6] {
        host.lead_to(&[1]);
        let (mut tcp, udp) = (host.dial(0, vip).unwrap(), host.udp(0, vip));
        assert!(tell(&mut tcp).starts_with("c1 "));
        assert!(tell_udp(&udp).starts_with("c1 "));
        // One more changes nothing for who is there.
        host.lead_to(&[1, 2]);
        assert!(tell(&mut tcp).starts_with("c1 "));
        assert!(tell_udp(&udp).starts_with("c1 "));
        host.lead_to(&[2]);
        assert!(tell_udp(&udp).starts_with("c2 "), "the very next datagram");
        assert!(
            tell(&mut tcp).starts_with("c1 "),
            "an established one stays"
        );
        assert!(host.ask(0, vip).starts_with("c2 "));
        host.lead_to(&[]);
        assert_eq!(refusal(&udp).kind(), ErrorKind::ConnectionRefused);
        assert!(
            tell(&mut tcp).starts_with("c1 "),
            "an established one stays"
        );
        host.change(vec![Change::RemoveVip("vip".into())]);
        assert!(
            tell(&mut tcp).starts_with("c1 "),
            "without the virtual IP, too"
        );
    }
}

#[test]
fn root_vips_connections_into_a_sandbox_are_counted() {
    let mut host = Host::new(2);
    host.serve(1);
    assert_eq!(host.flows(1), 0);
    host.lead_to(&[1]);
    for to in [VIP4, VIP6, "10.7.0.11", "fd07::11"] {
        assert_eq!(host.flows(1), 0, "before {to}");
        let mut tcp = host.dial(0, to).unwrap();
        tell(&mut tcp);
        assert_eq!(host.flows(1), 1, "{to}");
        assert_eq!(host.flows(0), 0, "outgoing ones do not count");
        drop(tcp);
        until("a closed connection is counted no more", || {
            host.flows(1) == 0
        });
    }
    let udp = host.udp(0, VIP4);
    tell_udp(&udp);
    assert_eq!(host.flows(1), 1);
    until("UDP is recent for two seconds", || host.flows(1) == 0);
    // To oneself, by way of the virtual IP.
    let mut own = host.dial(1, VIP4).unwrap();
    tell(&mut own);
    assert_eq!(host.flows(1), 0);
    let unknown = host.block(host.dataplane().flows("nosuch")).unwrap_err();
    assert!(unknown.to_string().contains("sandbox nosuch"), "{unknown}");
}

#[test]
fn root_vips_are_put_right_and_outlive_the_daemon() {
    let mut host = Host::new(3);
    for n in 1..3 {
        host.serve(n);
    }
    host.lead_to(&[1]);
    let mut tcp = host.dial(0, VIP4).unwrap();
    tell(&mut tcp);
    let chain = dataplane::balance::Chain::new("vip", false);
    for command in [
        "nft delete table inet overnet-vips".into(),
        format!("nft flush chain inet overnet-vips {chain}"),
        format!("nft delete element inet overnet-vips vips4 {{ {VIP4} }}"),
        "nft flush chain inet overnet-vips output".into(),
        "nft add chain inet overnet-vips foreign".into(),
        "nft add rule inet overnet-vips output accept".into(),
        format!("nft add rule inet overnet-vips {chain} counter"),
    ] {
        host.within(0, || run(&command));
        // An update that meets the damage does not make it worse, and the look after it repairs.
        host.block(
            host.dataplane()
                .change(vec![Change::SetVip("vip".into(), vip(&[1]))]),
        );
        host.replace();
        host.assert_settled();
        assert!(host.ask(0, VIP4).starts_with("c1 "), "{command}");
        assert!(tell(&mut tcp).starts_with("c1 "), "{command}");
    }
    // What was wished while nobody ran is done by the next start.
    let dataplane = host.dataplane.take().unwrap();
    host.block(dataplane.shutdown());
    let udp = host.udp(0, VIP4);
    assert!(tell_udp(&udp).starts_with("c1 "));
    assert!(tell(&mut tcp).starts_with("c1 "));
    host.start();
    host.desired.apply(Change::SetVip("vip".into(), vip(&[2])));
    host.replace();
    host.assert_settled();
    assert!(tell_udp(&udp).starts_with("c2 "));
    assert!(tell(&mut tcp).starts_with("c1 "));
}

#[test]
fn root_vips_cost_little_however_many() {
    let mut host = Host::new(1);
    let many = |n: usize, backends: usize| {
        let [high, low] = (n as u16).to_be_bytes();
        let address = |host: u16| {
            let [high, low] = host.to_be_bytes();
            IpAddr::from([10, 7, high | 0x80, low])
        };
        let backends = (0..backends).map(|b| (format!("b{b}"), vec![address(b as u16)]));
        let vip = Vip {
            network: NETWORK.into(),
            addresses: vec![IpAddr::from([10, 7, 0x40 | high, low])],
            names: Vec::new(),
            backends: backends.collect(),
        };
        Change::SetVip(format!("vip-{n}"), vip)
    };
    for (services, backends) in [(1, 3), (1000, 3), (1000, 1000)] {
        let all = (0..services).map(|n| many(n, backends.min(if n == 0 { 1000 } else { 3 })));
        let took = host.change(all.collect());
        host.assert_settled();
        let before = cpu();
        let mut times: Vec<_> = (0..40)
            .map(|turn| host.change(vec![many(0, backends + turn % 2)]))
            .collect();
        times.sort();
        println!(
            "{services} services: {took:?}; one backend of {backends} more or less: {:?}, \
             CPU with the test's own {:?}",
            times[20],
            since(before) / 40
        );
        // A hundred times what an idle machine takes.
        assert!(times[20] < Duration::from_millis(30), "{times:?}");
    }
    let start = Instant::now();
    host.replace();
    println!(
        "a look at 1000 services without a change: {:?}",
        start.elapsed()
    );
}

#[test]
fn root_vips_of_fifty_containers_change_in_one_go() {
    let mut host = Host::new(50);
    let many = |backends: usize| -> Vec<Change> {
        let each = (0..100_u8).map(|n| {
            let mut vip = vip(&(0..backends).collect::<Vec<_>>());
            vip.addresses = vec![IpAddr::from([10, 7, 64, n])];
            Change::SetVip(format!("vip-{n}"), vip)
        });
        each.collect()
    };
    for backends in [3, 4, 3] {
        let before = cpu();
        let took = host.change(many(backends));
        println!(
            "100 virtual IPs in 50 containers: {took:?}, CPU {:?}",
            since(before)
        );
        host.assert_settled();
    }
    let before = cpu();
    let took = host.change(many(4).drain(..1).collect());
    println!("one in 50: {took:?}, CPU {:?}", since(before));
    let before = Instant::now();
    host.flows(0);
    println!("counting of connections: {:?}", before.elapsed());
    let before = cpu();
    host.replace();
    println!("a look at all without a change: CPU {:?}", since(before));
}

/// What this process has used of the processors.
fn cpu() -> Duration {
    use nix::sys::resource::{UsageWho, getrusage};
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let micros = |time: nix::sys::time::TimeVal| {
        Duration::from_micros((time.tv_sec() * 1_000_000 + time.tv_usec()) as u64)
    };
    micros(usage.user_time()) + micros(usage.system_time())
}

fn since(before: Duration) -> Duration {
    cpu().saturating_sub(before)
}
