//! What the network benches measure with: the same load over several ways, round by round.
//!
//! A bench's program is also its own server and client: `main` passes `serve`, `requests` and
//! `connections` on to [`play`].

use std::{
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    libc::linger,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::socket::{setsockopt, sockopt},
};
use socket2::{Domain, Socket, Type};

use crate::Host;

/// How long a sample takes.
pub const SECONDS: u64 = 1;
/// Where servers listen.
pub const PORT: u16 = 5300;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    OneStream,
    FourStreams,
    Requests,
    SmallDatagrams,
    Connections,
}

impl Figure {
    pub fn name(self) -> &'static str {
        match self {
            Self::OneStream => "TCP one stream, Gbit/s",
            Self::FourStreams => "TCP four streams, Gbit/s",
            Self::Requests => "TCP request and response, /s",
            Self::SmallDatagrams => "UDP 32 B packets, /s",
            Self::Connections => "new connections, /s",
        }
    }

    fn by_iperf(self) -> bool {
        !matches!(self, Self::Requests | Self::Connections)
    }
}

/// Whose network namespace one end runs in.
#[derive(Clone)]
pub enum Place {
    /// Of a process of a host.
    Process { host: Host, pid: String },
    /// Bound at this path.
    Bound(PathBuf),
    /// Of that name on a host, see ip-netns(8).
    Named { host: Host, name: String },
}

/// From a client to a server.
pub struct Way {
    pub name: &'static str,
    /// A server runs in each; of several, any may be asked.
    pub servers: Vec<Place>,
    pub client: Place,
    /// What the client speaks to.
    pub target: SocketAddr,
    /// From which of its addresses it opens new connections; absent: from any.
    pub source: Option<IpAddr>,
}

/// A rate, and the machine's busy seconds per unit of it.
#[derive(Clone, Copy)]
struct Sample {
    rate: f64,
    cpu: f64,
}

/// Measures `figure` over all ways in turns; a row of the table: for each pair the median of the
/// ratios that were taken in the same round, of the rate and of the work for it.
pub fn row(
    figure: Figure,
    label: &str,
    ways: &[Way],
    pairs: &[(usize, usize)],
    rounds: usize,
) -> Result<String> {
    let mut samples = vec![Vec::new(); ways.len()];
    for round in 0..rounds {
        // Whoever goes first changes from round to round.
        for turn in 0..ways.len() {
            let index = (round + turn) % ways.len();
            let taken = sample(figure, &ways[index]);
            let what = || format!("{}, {}", figure.name(), ways[index].name);
            samples[index].push(taken.with_context(what)?);
        }
    }
    let mut row = format!("| {} | {label} |", figure.name());
    for (way, to) in pairs {
        let ratio = |pick: fn(&Sample) -> f64| {
            let both = samples[*way].iter().zip(&samples[*to]);
            median(both.map(|(way, to)| pick(way) / pick(to)).collect())
        };
        let (rate, cpu) = (ratio(|s| s.rate), ratio(|s| s.cpu));
        // Writing to a String cannot fail.
        let _ = write!(row, " {rate:.2} | {cpu:.2} |");
    }
    let first = median(samples[0].iter().map(|s| s.rate).collect());
    let _ = write!(row, " {}: {first:.1}", ways[0].name);
    Ok(row)
}

/// The table's head for the same pairs.
pub fn head(ways: &[Way], pairs: &[(usize, usize)]) -> String {
    let heads = pairs.iter().map(|(way, to)| {
        let (way, to) = (ways[*way].name, ways[*to].name);
        format!(" {way} / {to} | CPU |")
    });
    let lines = "---|---|".repeat(pairs.len());
    format!(
        "| figure | |{}\n|---|---|{lines}",
        heads.collect::<String>()
    )
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Enters namespaces of this process's own, with an underlay at 192.0.2.1: to be called before
/// there is another thread, for they all inherit them.
pub fn enter_own_namespaces() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .context("namespaces (are you root?)")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let script = "ip link set lo up && ip link add under type veth peer name far && ip link set far up && \
                  ip addr add 192.0.2.1/24 dev under && ip link set under up";
    let laid = Command::new("sh").args(["-c", script]).status()?;
    ensure!(laid.success(), "the underlay could not be laid");
    Ok(())
}

/// A bridge and VXLAN between two hosts, laid with `ip`, with a namespace on each: its place and
/// its address.
pub fn by_hand(one: &Host, two: &Host) -> Result<[(Place, String); 2]> {
    let lay = |host: &Host, peer: &Host, number: u8| {
        let mut holder = Command::new("unshare");
        holder
            .args(["-n", "sleep", "100000"])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        host.spawn(holder)?;
        let pid = loop {
            let output = host.exec(["pgrep", "-f", "^sleep 100000"]);
            if output.success() {
                break output.ok();
            }
        };
        let (own, other) = (host.member().address(), peer.member().address());
        let script = format!(
            "ip link add hand type bridge && sysctl -qw net.bridge.bridge-nf-call-iptables=0 2>/dev/null; \
             ip link add handvx mtu 1450 type vxlan id 99 dstport 4790 local {own} remote {other} nolearning && \
             ip link set handvx master hand up && ip link set hand up && \
             ip link add handv mtu 1450 master hand type veth peer name eth0 mtu 1450 netns {pid} && \
             ip link set handv up && nsenter -t {pid} -n sh -c \
             'ip addr add 10.250.0.{number}/24 dev eth0 && ip link set lo up && ip link set eth0 up'"
        );
        host.exec(["sh", "-c", &script]).ok();
        let place = Place::Process {
            host: host.clone(),
            pid,
        };
        anyhow::Ok((place, format!("10.250.0.{number}")))
    };
    // The holders of the namespaces end with the lab.
    Ok([lay(one, two, 1)?, lay(two, one, 2)?])
}

/// More namespaces on the bridge that was laid by hand on `host`, with their addresses.
pub fn more_by_hand(host: &Host, count: usize) -> Vec<(Place, String)> {
    let place = |number: usize| {
        let (name, address) = (format!("hand{number}"), format!("10.250.0.{number}"));
        let script = format!(
            "ip netns add {name} && \
             ip link add hv{number} mtu 1450 master hand type veth peer name eth0 mtu 1450 netns {name} && \
             ip link set hv{number} up && ip -n {name} addr add {address}/24 dev eth0 && \
             ip -n {name} link set lo up && ip -n {name} link set eth0 up"
        );
        host.exec(["sh", "-c", &script]).ok();
        let host = host.clone();
        (Place::Named { host, name }, address)
    };
    (10..10 + count).map(place).collect()
}

impl Place {
    fn spawn(&self, words: &[&str]) -> Result<Child> {
        let mut command = Command::new(match self {
            Self::Named { .. } => "ip",
            _ => "nsenter",
        });
        match self {
            Self::Process { pid, .. } => command.args(["-t", pid, "-n", "--"]),
            Self::Bound(path) => command.arg(format!("--net={}", path.display())).arg("--"),
            Self::Named { name, .. } => command.args(["netns", "exec", name]),
        };
        command
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        match self {
            Self::Process { host, .. } | Self::Named { host, .. } => host.spawn(command),
            Self::Bound(_) => Ok(command.spawn()?),
        }
    }

    /// Runs a command there to its end; what it printed.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let output = self.spawn(words)?.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "{words:?}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(said)
    }
}

fn sample(figure: Figure, way: &Way) -> Result<Sample> {
    let own = std::env::current_exe()?;
    let own = own.to_str().context("a path of plain text")?;
    let listen = PORT.to_string();
    let server: &[&str] = if figure.by_iperf() {
        &["iperf3", "-s", "-1", "-p", &listen]
    } else {
        &[own, "serve"]
    };
    let mut servers = Vec::new();
    for place in &way.servers {
        servers.push(Ended(place.spawn(server)?));
    }
    let address = way.target.to_string();
    let (target, port) = (way.target.ip().to_string(), way.target.port().to_string());
    way.servers.iter().try_for_each(await_listener)?;
    let seconds = SECONDS.to_string();
    let base = ["iperf3", "-J", "-c", &target, "-p", &port, "-t", &seconds];
    let more = |more: &[&'static str]| [&base[..], more].concat();
    let (before, start) = (busy(), Instant::now());
    let said = match figure {
        Figure::OneStream => way.client.run(&base),
        Figure::FourStreams => way.client.run(&more(&["-P", "4"])),
        Figure::Requests => way.client.run(&[own, "requests", &address]),
        Figure::SmallDatagrams => way.client.run(&more(&["-u", "-b", "0", "-l", "32"])),
        Figure::Connections => {
            let source = way.source.map(|source| source.to_string());
            let words = [own, "connections", &address].into_iter();
            let words: Vec<&str> = words.chain(source.as_deref()).collect();
            way.client.run(&words)
        }
    };
    let (spent, took) = (busy() - before, start.elapsed().as_secs_f64());
    drop(servers);
    let said = said?;
    let rate = if figure.by_iperf() {
        let report: serde_json::Value = serde_json::from_str(&said)?;
        if figure == Figure::SmallDatagrams {
            let sum = &report["end"]["sum"];
            let arrived = 1.0 - sum["lost_percent"].as_f64().unwrap_or(0.0) / 100.0;
            sum["packets"].as_f64().unwrap_or(0.0) * arrived / SECONDS as f64
        } else {
            let sum = &report["end"]["sum_received"];
            sum["bits_per_second"].as_f64().unwrap_or(0.0) / 1e9
        }
    } else {
        said.trim().parse()?
    };
    ensure!(rate > 0.0, "no rate in {said}");
    Ok(Sample {
        rate,
        cpu: spent / took / rate,
    })
}

/// A process that ends with the sample.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whoever listens is seen in the server's table of sockets, without a connection that iperf3
/// would take for a test.
fn await_listener(server: &Place) -> Result<()> {
    let wanted = format!(":{PORT:04X} ");
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let table = server.run(&[
            "sh",
            "-c",
            "cat /proc/thread-self/net/tcp /proc/thread-self/net/tcp6",
        ])?;
        if table
            .lines()
            .any(|line| line.contains(&wanted) && line.contains(" 0A "))
        {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the server does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Busy seconds of the whole machine: proc_stat(5), all columns but idle and iowait.
fn busy() -> f64 {
    let text = fs::read_to_string(Path::new("/proc/stat")).unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let columns: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .take(7)
        .filter_map(|n| n.parse().ok())
        .collect();
    let idle = columns.iter().skip(3).take(2).sum::<f64>();
    (columns.iter().sum::<f64>() - idle) / 100.0
}

/// The parts of a bench that run in a namespace of their own; false: `words` are none of them.
pub fn play(words: &[&str]) -> Result<bool> {
    match words {
        ["serve"] => serve()?,
        ["requests", address] => requests(address.parse()?)?,
        ["connections", address] => connections(address.parse()?, None)?,
        ["connections", address, source] => {
            connections(address.parse()?, Some(source.parse()?))?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Answers each byte with a byte; one thread a connection.
fn serve() -> Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", PORT))?;
    for stream in listener.incoming() {
        let mut stream = stream?;
        std::thread::spawn(move || {
            let mut byte = [0];
            while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
        });
    }
    Ok(())
}

fn requests(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    count(|| {
        stream.write_all(&[1])?;
        stream.read_exact(&mut [0])?;
        Ok(())
    })
}

fn connections(address: SocketAddr, source: Option<IpAddr>) -> Result<()> {
    let at_once = linger {
        l_onoff: 1,
        l_linger: 0,
    };
    count(|| {
        let mut stream = connect(address, source)?;
        // Closed by a reset: some thousands of sockets a second in TIME_WAIT would use up the
        // ports, and what is measured then is the search for a free one.
        setsockopt(&stream, sockopt::Linger, &at_once)?;
        stream.write_all(&[1])?;
        stream.read_exact(&mut [0])?;
        Ok(())
    })
}

fn connect(address: SocketAddr, source: Option<IpAddr>) -> Result<TcpStream> {
    let Some(source) = source else {
        return Ok(TcpStream::connect(address)?);
    };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // The port is chosen when it is known whom it is for.
    setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect(&address.into())?;
    Ok(socket.into())
}

/// Prints how often `work` is done in a second.
fn count(mut work: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    let mut done = 0_u32;
    while start.elapsed() < Duration::from_secs(SECONDS) {
        work()?;
        done += 1;
    }
    println!("{:.1}", f64::from(done) / start.elapsed().as_secs_f64());
    Ok(())
}
