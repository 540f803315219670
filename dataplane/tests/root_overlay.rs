//! Two hosts as network namespaces, each with a dataplane of its own.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests: a panic is their failure.

use std::{
    fs::File,
    net::IpAddr,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
    time::{Duration, Instant},
};

use dataplane::{
    Change, Config, Dataplane, Desired, Report,
    desired::{Dns, Interface, Network, NetworkKind, PeerFacts, Remote, Sandbox, Subnet, Underlay},
    dns::{DnsConfig, Forgetful},
    view::{bridge_name, tag, vxlan_name},
};
use nix::sched::{CloneFlags, setns, unshare};
use rand::{Rng as _, SeedableRng as _};

const PATIENCE: Duration = Duration::from_secs(10);
const OVERLAY: &str = "overlay-network-of-the-test";
const LOCAL: &str = "local-network-of-the-test";
const VNI: u32 = 4242;
const PORT: u16 = 4789;

/// A host: a network namespace, a folder, a runtime whose threads live in it, a dataplane.
struct Host {
    number: u8,
    /// Of the underlay.
    ipv6: bool,
    namespace: File,
    folder: tempfile::TempDir,
    runtime: Option<tokio::runtime::Runtime>,
    dataplane: Option<Dataplane>,
}

impl Host {
    fn new(number: u8, ipv6: bool) -> Self {
        let namespace = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let file = File::open("/proc/thread-self/ns/net").unwrap();
            run("ip link set lo up").unwrap();
            file
        })
        .join()
        .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut host = Self {
            number,
            ipv6,
            namespace,
            folder,
            runtime: None,
            dataplane: None,
        };
        let inside = host.namespace.try_clone().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .on_thread_start(move || setns(&inside, CloneFlags::CLONE_NEWNET).unwrap())
            .build()
            .unwrap();
        host.runtime = Some(runtime);
        host.start();
        host
    }

    fn start(&mut self) {
        let run_dir = self.folder.path().to_owned();
        self.dataplane = Some(self.runtime().block_on(async {
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

    fn runtime(&self) -> &tokio::runtime::Runtime {
        self.runtime.as_ref().unwrap()
    }

    fn dataplane(&self) -> &Dataplane {
        self.dataplane.as_ref().unwrap()
    }

    fn address(&self) -> IpAddr {
        let prefix = if self.ipv6 { "fd77::" } else { "192.168.77." };
        format!("{prefix}{}", self.number).parse().unwrap()
    }

    fn netns(&self) -> PathBuf {
        self.folder.path().join("netns/sandbox")
    }

    fn overlay(&self) -> PathBuf {
        let name = format!("netns/overlay-{}", tag(OVERLAY));
        self.folder.path().join(name)
    }

    fn replace(&self, desired: Desired) -> Report {
        self.runtime().block_on(self.dataplane().replace(desired))
    }

    fn change(&self, changes: Vec<Change>) -> Report {
        self.runtime().block_on(self.dataplane().change(changes))
    }

    fn on(&self, command: &str) -> Output {
        let namespace = self.namespace.try_clone().unwrap();
        within(&namespace, command)
    }

    fn in_sandbox(&self, command: &str) -> Output {
        within(&File::open(self.netns()).unwrap(), command)
    }

    fn in_overlay(&self, command: &str) -> Output {
        within(&File::open(self.overlay()).unwrap(), command)
    }

    fn desired(&self, other: &Self) -> Desired {
        let mut desired = Desired {
            underlay: Some(Underlay {
                address: self.address(),
                port: PORT,
                peers: [(other.address(), PeerFacts::default())].into(),
                tunnels: dataplane::desired::Tunnels::default(),
            }),
            ..Desired::default()
        };
        desired.networks.insert(
            OVERLAY.into(),
            network(
                "web",
                NetworkKind::Overlay {
                    vni: VNI,
                    encrypted: false,
                },
                [("10.7.0.0/24", "10.7.0.1"), ("fd07::/64", "fd07::1")],
            ),
        );
        let kind = NetworkKind::Bridge {
            masquerade: true,
            isolated: false,
            internal: false,
            device: None,
        };
        desired.networks.insert(
            LOCAL.into(),
            network(
                "gateway",
                kind,
                [("172.29.0.0/24", "172.29.0.1"), ("fd29::/64", "fd29::1")],
            ),
        );
        let sandbox = Sandbox {
            netns: self.netns(),
            interfaces: vec![
                Interface {
                    endpoint: format!("endpoint-{}", self.number),
                    network: OVERLAY.into(),
                    name: "eth0".into(),
                    addresses: vec![
                        format!("10.7.0.1{}/24", self.number).parse().unwrap(),
                        format!("fd07::1{}/64", self.number).parse().unwrap(),
                    ],
                    mac: mac(self.number),
                    default_via: Vec::new(),
                    publishes: false,
                    names: vec!["self".into()],
                },
                Interface {
                    endpoint: format!("local-{}", self.number),
                    network: LOCAL.into(),
                    name: "eth1".into(),
                    addresses: vec![
                        "172.29.0.2/24".parse().unwrap(),
                        "fd29::2/64".parse().unwrap(),
                    ],
                    mac: [2, 0x42, 172, 29, 0, 2],
                    default_via: vec!["172.29.0.1".parse().unwrap(), "fd29::1".parse().unwrap()],
                    publishes: false,
                    names: Vec::new(),
                },
            ],
            dns: Some(Dns::default()),
            counted: false,
        };
        desired.sandboxes.insert("sandbox".into(), sandbox);
        desired
    }

    /// As the other host sees this host's container.
    fn remote(&self) -> Change {
        Change::SetRemote(
            format!("endpoint-{}", self.number),
            Remote {
                network: OVERLAY.into(),
                addresses: vec![
                    format!("10.7.0.1{}", self.number).parse().unwrap(),
                    format!("fd07::1{}", self.number).parse().unwrap(),
                ],
                mac: mac(self.number),
                vtep: self.address(),
                names: Vec::new(),
            },
        )
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
        for entry in std::fs::read_dir(self.folder.path().join("netns"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let _ = nix::mount::umount2(&entry.path(), nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

fn network(name: &str, kind: NetworkKind, subnets: [(&str, &str); 2]) -> Network {
    Network {
        name: name.into(),
        kind,
        subnets: subnets
            .map(|(subnet, gateway)| Subnet {
                subnet: subnet.parse().unwrap(),
                gateway: gateway.parse().unwrap(),
            })
            .into(),
        mtu: None,
    }
}

fn mac(number: u8) -> [u8; 6] {
    [2, 0x42, 10, 7, 0, number]
}

fn run(command: &str) -> std::io::Result<Output> {
    let words: Vec<_> = command.split_whitespace().collect();
    Command::new(words[0]).args(&words[1..]).output()
}

fn within(namespace: &File, command: &str) -> Output {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                run(command).unwrap()
            })
            .join()
            .unwrap()
    })
}

fn text(output: &Output) -> String {
    let both = [output.stdout.clone(), output.stderr.clone()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("{what}: after {:?}", start.elapsed());
    start.elapsed()
}

/// Both hosts on one cable, with the whole wish.
fn pair(ipv6: bool) -> (Host, Host) {
    let (one, two) = (Host::new(1, ipv6), Host::new(2, ipv6));
    let far = format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        two.namespace.as_raw_fd()
    );
    let made = one.on(&format!(
        "ip link add wire type veth peer name wire netns {far}"
    ));
    assert!(made.status.success(), "{}", text(&made));
    for host in [&one, &two] {
        let number = host.number;
        host.on(&format!("ip address add 192.168.77.{number}/24 dev wire"));
        host.on(&format!("ip address add fd77::{number}/64 dev wire nodad"));
        host.on("ip link set wire up");
    }
    (one, two)
}

fn both(ipv6: bool) -> (Host, Host) {
    let (one, two) = pair(ipv6);
    let start = Instant::now();
    for (host, other) in [(&one, &two), (&two, &one)] {
        assert_clean(&host.replace(host.desired(other)));
    }
    println!("two hosts from nothing: {:?}", start.elapsed());
    for (host, other) in [(&one, &two), (&two, &one)] {
        let start = Instant::now();
        assert_clean(&host.change(vec![other.remote()]));
        println!("one remote endpoint: {:?}", start.elapsed());
    }
    (one, two)
}

fn assert_clean(report: &Report) {
    assert!(report.is_clean(), "{:#?}", report.failures);
}

fn reaches(host: &Host, address: &str) -> bool {
    let ping = host.in_sandbox(&format!("busybox ping -c 1 -W 1 {address}"));
    ping.status.success()
}

fn state(host: &Host) -> String {
    let mut all = String::new();
    for command in [
        "ip -d link",
        "bridge fdb show",
        "ip neigh",
        "nft list ruleset",
    ] {
        all.extend(["== host: ", command, "\n", &text(&host.on(command))]);
        all.extend([
            "== overlay: ",
            command,
            "\n",
            &text(&host.in_overlay(command)),
        ]);
    }
    all + &text(&host.in_sandbox("ip address")) + &text(&host.in_sandbox("ip route"))
}

fn assert_reaches(host: &Host, address: &str) {
    let start = Instant::now();
    while !reaches(host, address) {
        assert!(
            start.elapsed() < PATIENCE,
            "{address} is silent\n{}",
            state(host)
        );
    }
}

/// What a second look plans must be nothing.
fn assert_settled(host: &Host, desired: &Desired) {
    let seen = host.runtime().block_on(host.dataplane().observe()).unwrap();
    let plan = dataplane::plan(desired, &seen);
    assert!(plan.is_empty(), "{plan}{:#?}\n{}", plan.steps, state(host));
}

#[test]
fn root_overlay_carries_traffic_between_hosts_and_out() {
    let (one, two) = both(false);
    assert_reaches(&one, "10.7.0.12");
    assert_reaches(&two, "10.7.0.11");
    // By way of the local network, translated to the host's address.
    assert_reaches(&one, "172.29.0.1");
    assert_reaches(&one, "192.168.77.2");
    assert_reaches(&one, "fd07::12");
    assert_reaches(&one, "fd77::2");
    let mut wish = one.desired(&two);
    wish.apply(two.remote());
    assert_settled(&one, &wish);
    assert_eq!(
        one.dataplane().status().borrow().drifts,
        0,
        "{:#?}",
        one.dataplane().status()
    );
}

/// By port 53, whoever listens there, and without the kernel tracking a single connection.
#[test]
fn root_overlay_answers_names_and_tracks_nothing() {
    let (one, _two) = both(false);
    let ask = |words: &str| {
        let words = format!("dig +short +timeout=2 +tries=1 @127.0.0.11 {words} self A");
        text(&one.in_sandbox(&words)).trim().to_owned()
    };
    let ways = ["+notcp", "+tcp", "-b 10.7.0.11 +notcp", "-b 10.7.0.11 +tcp"];
    for way in ways {
        assert_eq!(ask(way), "10.7.0.11", "{way}");
    }
    let sandbox = File::open(one.netns()).unwrap();
    let own = std::thread::spawn(move || {
        setns(&sandbox, CloneFlags::CLONE_NEWNET).unwrap();
        let tcp = std::net::TcpListener::bind("0.0.0.0:53").unwrap();
        (tcp, std::net::UdpSocket::bind("0.0.0.0:53").unwrap())
    });
    let _own = own.join().unwrap();
    for way in ways {
        assert_eq!(ask(way), "10.7.0.11", "{way}, beside a server of its own");
    }
    assert_reaches(&one, "10.7.0.12");
    assert_reaches(&one, "fd07::12");
    let count = one.in_sandbox("cat /proc/sys/net/netfilter/nf_conntrack_count");
    assert_eq!(text(&count).trim(), "0");
}

#[test]
fn root_overlay_puts_right_what_others_change() {
    let (one, two) = both(false);
    assert_reaches(&one, "10.7.0.12");
    let (bridge, vxlan) = (bridge_name(&tag(OVERLAY)), vxlan_name(&tag(OVERLAY)));
    let far = "02:42:0a:07:00:02";
    let mut wish = one.desired(&two);
    wish.apply(two.remote());
    let local = bridge_name(&tag(LOCAL));
    // Where, what to destroy.
    let cases = [
        ("overlay", format!("ip link del {vxlan}")),
        ("overlay", format!("bridge fdb del {far} dev {vxlan} self")),
        (
            "overlay",
            format!("bridge fdb del {far} dev {vxlan} master"),
        ),
        ("overlay", format!("ip neigh del 10.7.0.12 dev {bridge}")),
        ("overlay", format!("ip link set {vxlan} nomaster")),
        ("overlay", format!("ip link set {bridge} down")),
        ("overlay", format!("ip link del {bridge}")),
        (
            "overlay",
            format!("bridge link set dev {vxlan} learning on flood on"),
        ),
        ("sandbox", "ip link set eth0 down".into()),
        ("sandbox", "ip link del eth0".into()),
        ("host", format!("ip address flush dev {local}")),
        ("host", format!("ip link del {local}")),
        ("host", "nft delete table inet overnet".into()),
        ("host", "nft flush chain inet overnet egress".into()),
    ];
    for (place, command) in cases {
        let done = match place {
            "host" => one.on(&command),
            "sandbox" => one.in_sandbox(&command),
            _ => one.in_overlay(&command),
        };
        assert!(done.status.success(), "{command}: {}", text(&done));
        let took = until(&command, || {
            let seen = one.runtime().block_on(one.dataplane().observe()).unwrap();
            let plan = dataplane::plan(&wish, &seen);
            plan.is_empty()
        });
        assert!(took < Duration::from_secs(1), "{command}: {took:?}");
    }
    assert_reaches(&one, "10.7.0.12");
    assert_reaches(&one, "192.168.77.2");
    println!("{:#?}", one.dataplane().status().borrow().drift);
}

#[test]
fn root_overlay_outlives_its_daemon_and_leaves_nothing_when_purged() {
    let (mut one, two) = both(false);
    let mut wish = one.desired(&two);
    wish.apply(two.remote());
    let dataplane = one.dataplane.take().unwrap();
    one.runtime().block_on(dataplane.shutdown());
    assert_reaches(&one, "10.7.0.12");
    one.start();
    assert_settled(&one, &wish);
    assert_clean(&one.replace(wish.clone()));
    assert_reaches(&one, "10.7.0.12");
    // Again from a new start: what is stale is found and removed.
    let dataplane = one.dataplane.take().unwrap();
    one.runtime().block_on(dataplane.shutdown());
    one.start();
    assert_clean(&one.replace(Desired::default()));
    let left = std::fs::read_dir(one.folder.path().join("netns"))
        .unwrap()
        .count();
    assert_eq!(left, 0, "files left");
    let links = text(&one.on("ip -o link"));
    assert!(!links.contains("ovt"), "{links}");
    assert!(!text(&one.on("nft list ruleset")).contains("overnet"));
}

#[test]
fn root_overlay_names_what_is_occupied() {
    let (one, two) = pair(false);
    one.on(&format!(
        "ip link add foreign type vxlan id {VNI} dstport {PORT} local 192.168.77.1 dev wire"
    ));
    let report = one.replace(one.desired(&two));
    let sentences: Vec<_> = report.of(OVERLAY).map(ToString::to_string).collect();
    assert!(
        sentences
            .iter()
            .any(|s| s.contains("VNI 4242 on UDP port 4789 is occupied")),
        "{report:#?}"
    );
    one.on("ip link del foreign");
    until("the network after the foreign device has gone", || {
        one.dataplane().status().borrow().failed.is_empty()
    });
    assert_settled(&one, &one.desired(&two));
    assert_clean(&one.replace(Desired::default()));
    let inside = one.namespace.try_clone().unwrap();
    let taken = std::thread::spawn(move || {
        setns(inside, CloneFlags::CLONE_NEWNET).unwrap();
        // The kernel closes a tunnel's socket a little after its device.
        let start = Instant::now();
        loop {
            match std::net::UdpSocket::bind(("0.0.0.0", PORT)) {
                Ok(socket) => return socket,
                Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let taken = taken.join().unwrap();
    let report = one.replace(one.desired(&two));
    let sentences: Vec<_> = report.of(OVERLAY).map(ToString::to_string).collect();
    assert!(
        sentences
            .iter()
            .any(|s| s.contains("UDP port 4789 is occupied")),
        "{report:#?}"
    );
    drop(taken);
    until("the network after the port is free", || {
        one.dataplane().status().borrow().failed.is_empty()
    });
    assert_settled(&one, &one.desired(&two));
}

#[test]
fn root_overlay_adds_one_remote_among_many_at_once() {
    let (one, two) = pair(false);
    let mut desired = one.desired(&two);
    let remote = |n: u32| {
        let [_, b, c, d] = n.to_be_bytes();
        let remote = Remote {
            network: OVERLAY.into(),
            addresses: vec![IpAddr::from([10, 64 + b, c, d])],
            mac: [2, 0x42, 99, b, c, d],
            vtep: two.address(),
            names: Vec::new(),
        };
        (format!("remote-{n:06}"), remote)
    };
    desired.remotes.extend((0..20_000).map(remote));
    let start = Instant::now();
    assert_clean(&one.replace(desired.clone()));
    println!("20,000 remotes: {:?}", start.elapsed());
    let mut took = Vec::new();
    for n in 20_000..20_020 {
        let (id, remote) = remote(n);
        desired.apply(Change::SetRemote(id.clone(), remote.clone()));
        let start = Instant::now();
        assert_clean(&one.change(vec![Change::SetRemote(id, remote)]));
        took.push(start.elapsed());
    }
    took.sort();
    println!("one more: median {:?}, worst {:?}", took[10], took[19]);
    for _ in 0..2 {
        let mut sandbox = one.desired(&two).sandboxes["sandbox"].clone();
        sandbox.interfaces.remove(0);
        for sandbox in [sandbox, one.desired(&two).sandboxes["sandbox"].clone()] {
            let start = Instant::now();
            assert_clean(&one.change(vec![Change::SetSandbox("sandbox".into(), sandbox)]));
            println!("a sandbox changes: {:?}", start.elapsed());
        }
    }
    for n in 0..10 {
        let (id, _) = remote(n);
        desired.apply(Change::RemoveRemote(id.clone()));
        assert_clean(&one.change(vec![Change::RemoveRemote(id)]));
    }
    assert_settled(&one, &desired);
    assert!(Path::new(&one.overlay()).exists());
}

#[test]
fn root_overlay_runs_over_an_ipv6_underlay() {
    let (one, two) = both(true);
    assert_reaches(&one, "10.7.0.12");
    assert_reaches(&two, "fd07::11");
    let mut wish = two.desired(&one);
    wish.apply(one.remote());
    assert_settled(&two, &wish);
}

#[test]
fn root_overlay_follows_changes_one_by_one() {
    let (one, two) = pair(false);
    let whole = one.desired(&two);
    let mut other = whole.networks[LOCAL].clone();
    other.mtu = Some(1400);
    let mut small = whole.networks[OVERLAY].clone();
    small.mtu = Some(1300);
    let mut lonely = whole.sandboxes["sandbox"].clone();
    lonely.interfaces.remove(0);
    let mut renamed = whole.sandboxes["sandbox"].clone();
    renamed.interfaces[0].mac = mac(9);
    renamed.interfaces[0].addresses.remove(1);
    let mut crowd = whole.underlay.clone().unwrap();
    for n in 10..20 {
        crowd
            .peers
            .insert(IpAddr::from([192, 168, 77, n]), PeerFacts::default());
    }
    let mut moved = crowd.clone();
    moved.port = 4790;
    let set_network = |id: &str, network: &Network| Change::SetNetwork(id.into(), network.clone());
    let set_sandbox = |sandbox: &Sandbox| Change::SetSandbox("sandbox".into(), sandbox.clone());
    let Change::SetRemote(id, remote) = two.remote() else {
        unreachable!()
    };
    let cases = [
        ("underlay", Change::SetUnderlay(whole.underlay.clone())),
        ("remote before its network", two.remote()),
        ("overlay", set_network(OVERLAY, &whole.networks[OVERLAY])),
        (
            "sandbox before its network",
            set_sandbox(&whole.sandboxes["sandbox"]),
        ),
        ("local network", set_network(LOCAL, &whole.networks[LOCAL])),
        ("MTU of the local network", set_network(LOCAL, &other)),
        ("MTU of the overlay", set_network(OVERLAY, &small)),
        ("more peers", Change::SetUnderlay(Some(crowd))),
        ("another port", Change::SetUnderlay(Some(moved))),
        ("another MAC", set_sandbox(&renamed)),
        ("without the overlay", set_sandbox(&lonely)),
        ("with it", set_sandbox(&whole.sandboxes["sandbox"])),
        (
            "a remote with our MAC",
            Change::SetRemote(
                "x".into(),
                Remote {
                    mac: mac(1),
                    ..remote
                },
            ),
        ),
        ("without our MAC", set_sandbox(&lonely)),
        ("without the remote", Change::RemoveRemote("x".into())),
        ("again", Change::RemoveRemote(id)),
        (
            "without the sandbox",
            Change::RemoveSandbox("sandbox".into()),
        ),
        ("without the overlay", Change::RemoveNetwork(OVERLAY.into())),
        (
            "without the local network",
            Change::RemoveNetwork(LOCAL.into()),
        ),
        ("without the underlay", Change::SetUnderlay(None)),
    ];
    let mut desired = Desired::default();
    assert_clean(&one.replace(desired.clone()));
    for (what, change) in cases {
        desired.apply(change.clone());
        let start = Instant::now();
        let report = one.change(vec![change]);
        println!("{what}: {:?}", start.elapsed());
        assert!(report.is_clean(), "{what}: {report:#?}");
        let seen = one.runtime().block_on(one.dataplane().observe()).unwrap();
        let plan = dataplane::plan(&desired, &seen);
        assert!(plan.is_empty(), "{what}: {plan}{:#?}", plan.steps);
    }
    let status = one.dataplane().status();
    assert_eq!(status.borrow().drifts, 0, "{:#?}", status.borrow());
}

/// Changes in any order lead to the same as a plan from nothing.
#[test]
fn root_overlay_follows_any_changes() {
    let (one, two) = pair(false);
    let whole = one.desired(&two);
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let mut desired = Desired::default();
    assert_clean(&one.replace(desired.clone()));
    for round in 0..400 {
        let change = any_change(&mut random, &whole, &one, &two);
        let before = desired.clone();
        desired.apply(change.clone());
        let report = one.change(vec![change.clone()]);
        assert!(
            report.is_clean(),
            "{round}: {change:?}\n{before:?}\n{report:#?}"
        );
        let seen = one.runtime().block_on(one.dataplane().observe()).unwrap();
        let plan = dataplane::plan(&desired, &seen);
        assert!(plan.is_empty(), "{round}: {change:?}\n{before:?}\n{plan}");
    }
}

fn any_change(random: &mut rand::rngs::StdRng, whole: &Desired, one: &Host, two: &Host) -> Change {
    let networks = [OVERLAY, "second-overlay", LOCAL, "second-local"];
    let at = random.random_range(0..4_usize);
    let id = networks[at].to_owned();
    let n = random.random_range(1..4_u8);
    match random.random_range(0..9_u8) {
        0 => {
            let mut underlay = whole.underlay.clone().unwrap();
            underlay.port += u16::from(n / 3);
            underlay
                .peers
                .insert(IpAddr::from([192, 168, 77, 10 + n]), PeerFacts::default());
            Change::SetUnderlay((random.random_range(0..5_u8) > 0).then_some(underlay))
        }
        1 | 2 => {
            let mut network = whole.networks[if at < 2 { OVERLAY } else { LOCAL }].clone();
            network.mtu = (n == 1).then_some(1300);
            match &mut network.kind {
                NetworkKind::Overlay { vni, .. } => *vni = 100 + 2 * at as u32 + u32::from(n / 3),
                NetworkKind::Bridge {
                    masquerade,
                    isolated,
                    ..
                } => {
                    (*masquerade, *isolated) = (n != 2, n == 3);
                }
            }
            if at == 3 {
                network.subnets.truncate(1);
                network.subnets[0].subnet = "172.30.0.0/24".parse().unwrap();
                network.subnets[0].gateway = format!("172.30.0.{n}").parse().unwrap();
            }
            Change::SetNetwork(id, network)
        }
        3 => Change::RemoveNetwork(id),
        4 | 5 => {
            let sandbox = Sandbox {
                netns: one.folder.path().join(format!("netns/box{n}")),
                interfaces: (0..random.random_range(0..4_u8))
                    .map(|place| {
                        let network = networks[(at + usize::from(place)) % 4];
                        let host = 20 + 3 * place + n;
                        Interface {
                            endpoint: format!("{network}-{n}"),
                            network: network.into(),
                            name: format!("eth{place}"),
                            addresses: vec![format!("10.9.{place}.{host}/24").parse().unwrap()],
                            mac: mac(random.random_range(1..9_u8) + 10 * n),
                            default_via: if place == 0 {
                                vec!["10.9.0.1".parse().unwrap()]
                            } else {
                                Vec::new()
                            },
                            publishes: false,
                            names: Vec::new(),
                        }
                    })
                    .collect(),
                dns: (n == 2).then(Dns::default),
                counted: false,
            };
            Change::SetSandbox(format!("box{n}"), sandbox)
        }
        6 => Change::RemoveSandbox(format!("box{n}")),
        7 => {
            let remote = Remote {
                network: networks[at].into(),
                addresses: vec![IpAddr::from([10, 9, 0, 100 + random.random_range(0..4_u8)])],
                // Sometimes a local one.
                mac: mac(random.random_range(1..9_u8) + 10),
                vtep: if n == 1 {
                    two.address()
                } else {
                    IpAddr::from([192, 168, 77, 12])
                },
                names: Vec::new(),
            };
            Change::SetRemote(format!("remote{}", random.random_range(0..6_u8)), remote)
        }
        _ => Change::RemoveRemote(format!("remote{}", random.random_range(0..6_u8))),
    }
}
