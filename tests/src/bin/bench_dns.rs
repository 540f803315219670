//! Questions per second and the time of one, asked of a name server in a network namespace:
//! one name, and a name with ten addresses, all ten in the answer.
//!
//! `bench_dns [SECONDS=3] [pin]`: with `pin` asker and server share one core.

use std::{
    fs::File,
    io,
    net::UdpSocket,
    os::fd::AsRawFd,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use dataplane::{
    Change, Desired,
    desired::{Dns, Interface, Network, NetworkKind, Remote, Sandbox, Subnet},
    dns::{ADDRESS, DnsConfig, DnsServer, Forgetful, PORT},
};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns, unshare};

/// Questions under way at once.
const WINDOWS: [usize; 3] = [1, 8, 32];

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let seconds = words.iter().find_map(|w| w.parse().ok()).unwrap_or(3);
    if words.iter().any(|w| w == "pin") {
        let mut one = CpuSet::new();
        one.set(0)?;
        // Before any other thread: they all inherit it.
        sched_setaffinity(nix::unistd::Pid::from_raw(0), &one)?;
    }
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(bench(Duration::from_secs(seconds)))
}

async fn bench(length: Duration) -> anyhow::Result<()> {
    let namespace = std::thread::spawn(make_namespace)
        .join()
        .map_err(|_| anyhow::anyhow!("the namespace's thread panicked"))??;
    let pid = std::process::id();
    let path = PathBuf::from(format!("/proc/{pid}/fd/{}", namespace.as_raw_fd()));
    let server = DnsServer::start(DnsConfig {
        inherited: Vec::new(),
        keeper: Arc::new(Forgetful),
    })?;
    server.replace(&desired(path.clone())?);
    server.open("asker", &path).await?;
    println!(
        "| DNS at 127.0.0.11 | questions under way | answers/s | p50 | p99 |\n|---|---|---|---|---|"
    );
    for (name, addresses) in [("web", 1), ("ten", 10)] {
        for window in WINDOWS {
            let namespace = namespace.try_clone()?;
            let load = move || {
                setns(namespace, CloneFlags::CLONE_NEWNET)?;
                ask(name, addresses, window, length)
            };
            let (rate, p50, p99) = std::thread::spawn(load)
                .join()
                .map_err(|_| anyhow::anyhow!("the asker panicked"))??;
            println!(
                "| {} | {window} | {rate:.0} | {p50:.1?} | {p99:.1?} |",
                match addresses {
                    1 => "one name".to_owned(),
                    many => format!("a name with {many} addresses"),
                }
            );
        }
    }
    server.shutdown().await;
    Ok(())
}

fn make_namespace() -> anyhow::Result<File> {
    unshare(CloneFlags::CLONE_NEWNET).context("a network namespace (are you root?)")?;
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: a zeroed ifreq is valid, and the name is shorter than its field.
    let result = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request)
    };
    ensure!(result == 0, "lo: {}", io::Error::last_os_error());
    Ok(File::open("/proc/thread-self/ns/net")?)
}

/// One network with a thousand endpoints, ten of which share a name.
fn desired(netns: PathBuf) -> anyhow::Result<Desired> {
    let mut desired = Desired::default();
    let subnet = "10.0.0.0/16".parse()?;
    let network = Network {
        name: "ch03".into(),
        kind: NetworkKind::Overlay {
            vni: 4097,
            encrypted: false,
        },
        subnets: vec![Subnet {
            subnet,
            gateway: "10.0.0.1".parse()?,
        }],
        mtu: None,
    };
    desired.apply(Change::SetNetwork("n".into(), network));
    let interface = Interface {
        endpoint: "e".into(),
        network: "n".into(),
        name: "eth0".into(),
        addresses: vec!["10.0.0.2/16".parse()?],
        mac: [2; 6],
        default_via: Vec::new(),
        publishes: false,
        names: vec!["web".into()],
    };
    let sandbox = Sandbox {
        netns,
        interfaces: vec![interface],
        counted: false,
        dns: Some(Dns::default()),
    };
    desired.apply(Change::SetSandbox("asker".into(), sandbox));
    for n in 0..1000u16 {
        let [high, low] = n.to_be_bytes();
        let remote = Remote {
            network: "n".into(),
            addresses: vec![[10, 0, 100 + high, low].into()],
            mac: [2; 6],
            vtep: "192.0.2.1".parse()?,
            names: vec![if n < 10 {
                "ten".into()
            } else {
                format!("other{n}")
            }],
        };
        desired.apply(Change::SetRemote(format!("r{n}"), remote));
    }
    Ok(desired)
}

/// Keeps `window` questions under way for `length`; answers a second, and the times of one.
fn ask(
    name: &str,
    addresses: u16,
    window: usize,
    length: Duration,
) -> anyhow::Result<(f64, Duration, Duration)> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect((ADDRESS, PORT))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut question = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    question.push(name.len() as u8);
    question.extend_from_slice(name.as_bytes());
    question.extend_from_slice(&[0, 0, 1, 0, 1]);
    let mut sent = vec![Instant::now(); window];
    let begun = Instant::now();
    for (id, sent) in sent.iter_mut().enumerate() {
        question[..2].copy_from_slice(&(id as u16).to_be_bytes());
        *sent = Instant::now();
        socket.send(&question)?;
    }
    let mut times = Vec::with_capacity(1 << 20);
    let mut reply = [0; 512];
    while begun.elapsed() < length {
        let received = socket.recv(&mut reply).context("no answer for 5 s")?;
        let now = Instant::now();
        ensure!(received > 12 && reply[3] % 16 == 0, "a bad answer");
        ensure!(
            u16::from_be_bytes([reply[6], reply[7]]) == addresses,
            "not all addresses are in the answer"
        );
        let id = usize::from(u16::from_be_bytes([reply[0], reply[1]]));
        let place = sent.get_mut(id).context("an answer to no question")?;
        times.push(now - *place);
        question[..2].copy_from_slice(&reply[..2]);
        *place = now;
        socket.send(&question)?;
    }
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    times.sort_unstable();
    Ok((rate, times[times.len() / 2], times[times.len() * 99 / 100]))
}
