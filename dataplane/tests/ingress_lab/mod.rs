//! Two hosts and a client on one wire, each in namespaces of its own.

use std::{
    fs::File,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::Duration,
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

pub const INGRESS: &str = "ingress-network-of-the-test";
pub const LOCAL: &str = "local-network-of-the-test";
pub const PATIENCE: Duration = Duration::from_secs(5);
pub const PORT: u16 = 8000;
pub const TARGET: u16 = 8080;
pub const LARGE: usize = 2 << 20;

pub struct Host {
    pub number: u8,
    pub namespace: File,
    pub folder: tempfile::TempDir,
    pub runtime: Option<tokio::runtime::Runtime>,
    pub dataplane: Option<Dataplane>,
    pub desired: Desired,
}

/// Two hosts with a task each, `c` at 10.7.0.11 and .12, and a client outside.
pub struct Lab {
    pub hosts: [Host; 2],
    pub client: File,
    pub _switch: File,
}

pub fn namespace() -> File {
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
    pub fn new() -> Self {
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

    pub fn publish(&mut self, backends: &[u8]) {
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
    pub fn new(number: u8) -> Self {
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

    pub fn wish(&self) -> Desired {
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
            internal: false,
            device: None,
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
                tunnels: dataplane::desired::Tunnels::default(),
            }),
            networks: [
                (
                    INGRESS.to_owned(),
                    network(
                        NetworkKind::Overlay {
                            vni: 4242,
                            encrypted: false,
                        },
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

    pub fn netns(&self, name: &str) -> PathBuf {
        self.folder.path().join("netns").join(name)
    }

    pub fn block<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.as_ref().unwrap().block_on(future)
    }

    pub fn dataplane(&self) -> &Dataplane {
        self.dataplane.as_ref().unwrap()
    }

    pub fn replace(&self) {
        clean(&self.block(self.dataplane().replace(self.desired.clone())));
    }

    pub fn change(&mut self, changes: Vec<Change>) {
        clean(&self.try_change(changes));
    }

    pub fn try_change(&mut self, changes: Vec<Change>) -> Report {
        for change in &changes {
            self.desired.apply(change.clone());
        }
        self.block(self.dataplane().change(changes))
    }

    pub fn assert_settled(&self) {
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

pub fn clean(report: &Report) {
    assert!(report.is_clean(), "{:#?}", report.failures);
}

pub fn run(command: &str) -> String {
    let words: Vec<_> = command.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command}: {text}");
    text
}

pub fn within<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

pub fn mac(interface: u8, number: u8) -> [u8; 6] {
    [2, 0x42, 10, 7, interface, number]
}

pub fn task(number: u8) -> [IpAddr; 2] {
    [
        format!("10.7.0.1{number}").parse().unwrap(),
        format!("fd07::1{number}").parse().unwrap(),
    ]
}

pub fn published(protocol: Protocol, port: u16, backends: &[u8]) -> Published {
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
pub fn serve(host: &Host, sandbox: &str) {
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

pub fn dial(from: &File, to: &str, port: u16) -> std::io::Result<TcpStream> {
    let to = SocketAddr::new(to.parse().unwrap(), port);
    let stream = within(from, || TcpStream::connect_timeout(&to, PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

pub fn tell(stream: &mut TcpStream) -> String {
    stream.write_all(b"?").unwrap();
    let mut buffer = [0; 64];
    let count = stream.read(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..count]).into_owned()
}

pub fn udp(from: &File, to: &str) -> UdpSocket {
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

pub fn tell_udp(socket: &UdpSocket) -> String {
    socket.send(b"?").unwrap();
    let mut buffer = [0; 64];
    let count = socket.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..count]).into_owned()
}
