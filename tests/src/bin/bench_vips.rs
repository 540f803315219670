//! What a virtual IP costs: from one container to another of the same host, straight, over the same
//! rules laid by hand, and over ours; with one and with a thousand services, and with one and a
//! thousand backends. In a network namespace of its own; as root.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail, ensure};
use dataplane::{
    Change, Config, Dataplane, Desired,
    desired::{Interface, Network, NetworkKind, Sandbox, Subnet, Underlay, Vip},
    dns::{DnsConfig, Forgetful},
};
use ipnetwork::IpNetwork;
use tests::yardstick::{Figure, PORT, Place, Way, enter_own_namespaces, head, play, row};
use tokio::runtime::Runtime;

/// A network without services, and one with them.
const BARE: u8 = 80;
const SERVED: u8 = 81;
const MANY: u16 = 1000;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [] => measure(15),
        ["--quick"] => measure(3),
        _ if play(&words)? => Ok(()),
        _ => bail!("usage: bench_vips [--quick]"),
    }
}

fn measure(rounds: usize) -> Result<()> {
    enter_own_namespaces()?;
    let folder = tempfile::tempdir()?;
    let bench = Bench::start(folder.path())?;
    let ways = bench.ways();
    let pairs = [(2, 1), (2, 0), (1, 0)];
    println!("{}", head(&ways, &pairs));
    for (label, services, backends) in [
        ("1 service, 1 backend", 1, 1),
        ("1,000 services, 1 backend", MANY, 1),
        ("1 service, 1,000 backends", 1, MANY),
    ] {
        bench.serve(services, backends)?;
        bench.by_hand(services, backends)?;
        for figure in [Figure::Connections, Figure::Requests, Figure::OneStream] {
            println!("{}", row(figure, label, &ways, &pairs, rounds)?);
        }
    }
    bench.end()
}

struct Bench {
    runtime: Runtime,
    dataplane: Dataplane,
    folder: PathBuf,
}

impl Bench {
    fn start(folder: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let dataplane = {
            let _inside = runtime.enter();
            Dataplane::start(Config {
                run_dir: folder.to_owned(),
                dns: DnsConfig {
                    inherited: Vec::new(),
                    keeper: Arc::new(Forgetful),
                },
            })?
        };
        let bench = Self {
            runtime,
            dataplane,
            folder: folder.to_owned(),
        };
        let wish = bench.wish()?;
        clean(&bench.runtime.block_on(bench.dataplane.replace(wish)))?;
        bench.introduce()?;
        Ok(bench)
    }

    /// Clients know all backends: the kernel's allowance of neighbours, which all namespaces of a
    /// machine share, is not what is measured.
    fn introduce(&self) -> Result<()> {
        for net in [BARE, SERVED] {
            let lines = (0..MANY).map(|number| {
                let (to, mac) = (backend(net, number), format!("02:42:0a:{net:02x}:00:02"));
                format!("neigh replace {to} lladdr {mac} nud permanent dev eth0\n")
            });
            let file = self.folder.join("neighbours");
            std::fs::write(&file, lines.collect::<String>())?;
            let file = file.to_str().context("a path of plain text")?;
            let client = Place::Bound(self.netns("client", net));
            client.run(&["ip", "-batch", file])?;
        }
        Ok(())
    }

    fn end(self) -> Result<()> {
        clean(&self.runtime.block_on(self.dataplane.purge()))?;
        self.runtime.block_on(self.dataplane.shutdown());
        Ok(())
    }

    /// Two networks with a client and a server each; a server has all addresses of its backends.
    fn wish(&self) -> Result<Desired> {
        let mut wish = Desired {
            underlay: Some(Underlay {
                address: "192.0.2.1".parse()?,
                port: 4789,
                peers: [].into(),
                tunnels: dataplane::desired::Tunnels::default(),
            }),
            ..Desired::default()
        };
        for net in [BARE, SERVED] {
            let network = Network {
                name: net.to_string(),
                kind: NetworkKind::Overlay {
                    vni: 4096 + u32::from(net),
                    encrypted: false,
                },
                subnets: vec![Subnet {
                    subnet: format!("10.{net}.0.0/16").parse()?,
                    gateway: IpAddr::from([10, net, 0, 1]),
                }],
                mtu: None,
            };
            wish.networks.insert(net.to_string(), network);
            let mut add = |role: &str, mac: u8, addresses: Vec<IpAddr>| -> Result<()> {
                let addresses: Result<Vec<_>, _> = addresses
                    .into_iter()
                    .map(|address| IpNetwork::new(address, 16))
                    .collect();
                let interface = Interface {
                    endpoint: format!("{role}{net}"),
                    network: net.to_string(),
                    name: "eth0".into(),
                    addresses: addresses?,
                    mac: [2, 0x42, 10, net, 0, mac],
                    default_via: Vec::new(),
                    names: Vec::new(),
                    publishes: false,
                };
                let sandbox = Sandbox {
                    netns: self.netns(role, net),
                    interfaces: vec![interface],
                    dns: None,
                    counted: false,
                };
                wish.sandboxes.insert(format!("{role}{net}"), sandbox);
                Ok(())
            };
            add("client", 1, vec![IpAddr::from([10, net, 250, 1])])?;
            add("server", 2, (0..MANY).map(|n| backend(net, n)).collect())?;
        }
        Ok(wish)
    }

    fn netns(&self, role: &str, net: u8) -> PathBuf {
        self.folder.join("netns").join(format!("{role}{net}"))
    }

    fn ways(&self) -> Vec<Way> {
        let way = |name, net: u8, to: IpAddr| Way {
            name,
            servers: vec![Place::Bound(self.netns("server", net))],
            client: Place::Bound(self.netns("client", net)),
            target: SocketAddr::new(to, PORT),
            source: None,
        };
        vec![
            way("straight", BARE, backend(BARE, 0)),
            way("by hand", BARE, virtual_ip(BARE, 0)),
            way("virtual IP", SERVED, virtual_ip(SERVED, 0)),
        ]
    }

    /// The first service has the backends, the others have the first backend of it.
    fn serve(&self, services: u16, backends: u16) -> Result<()> {
        let vip = |number: u16| {
            let count = if number == 0 { backends } else { 1 };
            let backends = (0..count).map(|n| (format!("b{n}"), vec![backend(SERVED, n)]));
            Vip {
                network: SERVED.to_string(),
                addresses: vec![virtual_ip(SERVED, number)],
                names: Vec::new(),
                backends: backends.collect(),
            }
        };
        let change = |number| {
            let id = format!("v{number:04}");
            if number < services {
                Change::SetVip(id, vip(number))
            } else {
                Change::RemoveVip(id)
            }
        };
        let changes = (0..MANY).map(change).collect();
        clean(&self.runtime.block_on(self.dataplane.change(changes)))
    }

    /// The same rules, as `nft` writes them.
    fn by_hand(&self, services: u16, backends: u16) -> Result<()> {
        let mut chains = Vec::new();
        let mut leads = Vec::new();
        for number in 0..services {
            let count = if number == 0 { backends } else { 1 };
            let all: Vec<String> = (0..count)
                .map(|n| format!("{n} : {}", backend(BARE, n)))
                .collect();
            let to = match count {
                1 => format!("dnat to {}", backend(BARE, 0)),
                _ => format!(
                    "dnat to numgen random mod {count} map {{ {} }}",
                    all.join(", ")
                ),
            };
            chains.push(format!("chain s{number} {{ {to}; }}\n"));
            leads.push(format!("{} : goto s{number}", virtual_ip(BARE, number)));
        }
        let rules = format!(
            "table ip hand {{}}\ndelete table ip hand\ntable ip hand {{\n{chains}\
             map leads {{ type ipv4_addr : verdict; elements = {{ {} }}; }}\n\
             chain in {{ type nat hook prerouting priority -100; ct state established; }}\n\
             chain out {{ type nat hook output priority -100; ip daddr vmap @leads; }}\n}}\n",
            leads.join(", "),
            chains = chains.concat(),
        );
        let file = self.folder.join("hand.nft");
        std::fs::write(&file, rules)?;
        let file = file.to_str().context("a path of plain text")?;
        let client = Place::Bound(self.netns("client", BARE));
        client.run(&["nft", "-f", file]).map(drop)
    }
}

fn backend(net: u8, number: u16) -> IpAddr {
    let [high, low] = (number + 256).to_be_bytes();
    Ipv4Addr::new(10, net, high, low).into()
}

fn virtual_ip(net: u8, number: u16) -> IpAddr {
    let [high, low] = (number + (240 << 8)).to_be_bytes();
    Ipv4Addr::new(10, net, high, low).into()
}

fn clean(report: &dataplane::Report) -> Result<()> {
    ensure!(report.is_clean(), "{:?}", report.failures.first());
    Ok(())
}
