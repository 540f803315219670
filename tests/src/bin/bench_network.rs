//! Container to container across two hosts, beside the bare underlay and beside a bridge and
//! VXLAN laid by hand, taken in turns on one machine; prints medians of the ratios that were
//! taken in the same round.
//!
//! The underlay is a cable (a bridge would segment again what a cable passes whole), once
//! passing large packets whole and once segmenting to the MTU, as a plain network card does.

use std::{
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    libc::linger,
    sys::socket::{setsockopt, sockopt},
};
use tests::{Host, Lab, Options};

const TOOLBOX: &str = "registry:5000/example/toolbox";
const SECONDS: u64 = 1;
const PORT: u16 = 5300;
const FIGURES: [&str; 5] = [
    "TCP one stream, Gbit/s",
    "TCP four streams, Gbit/s",
    "TCP request and response, /s",
    "UDP 32 B packets, /s",
    "new connections, /s",
];

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [] => measure(15, true),
        ["--quick"] => measure(3, true),
        // Without daemons: the two yardsticks alone.
        ["--yardsticks"] => measure(3, false),
        ["serve"] => serve(),
        ["requests", address] => requests(address.parse()?),
        ["connections", address] => connections(address.parse()?),
        _ => bail!("usage: bench_network [--quick | --yardsticks]"),
    }
}

/// Where one end runs: a process of `host` whose network namespace it is.
struct Place {
    host: Host,
    pid: String,
    address: String,
}

struct Way {
    name: &'static str,
    server: Place,
    client: Place,
}

/// A rate, and the machine's busy seconds per unit of it.
#[derive(Clone, Copy)]
struct Sample {
    rate: f64,
    cpu: f64,
}

fn measure(rounds: usize, ours: bool) -> Result<()> {
    let options = Options {
        workers: 2,
        cluster: ours,
        daemons: ours,
        ..Options::default()
    };
    let lab = Lab::up(options)?;
    let (one, two) = (lab.host("worker01"), lab.host("worker02"));
    one.cable(&two)?;
    let mut ways = vec![raw(&one, &two), by_hand(&one, &two)?];
    if ours {
        ways.push(overnet(&lab, &one, &two)?);
    }
    // The holders of the hand-laid namespaces end with the lab. Each pair: the measured way, and
    // what it is measured against.
    let pairs: &[(usize, usize)] = if ours {
        &[(1, 0), (2, 0), (2, 1)]
    } else {
        &[(1, 0)]
    };
    let heads = pairs.iter().map(|(way, to)| {
        let (way, to) = (ways[*way].name, ways[*to].name);
        format!(" {way} / {to} | CPU |")
    });
    println!("| figure | underlay |{}", heads.collect::<String>());
    println!("|---|---|{}", "---|---|".repeat(pairs.len()));
    for segmenting in [false, true] {
        if segmenting && !segment(&one, &two) {
            eprintln!("ethtool is missing: the segmenting underlay was not measured");
            break;
        }
        for (number, figure) in FIGURES.iter().enumerate() {
            let mut samples = vec![Vec::new(); ways.len()];
            for round in 0..rounds {
                // Whoever goes first changes from round to round.
                for turn in 0..ways.len() {
                    let index = (round + turn) % ways.len();
                    let taken = sample(number, &ways[index]);
                    let taken = taken.with_context(|| format!("{figure}, {}", ways[index].name))?;
                    samples[index].push(taken);
                }
            }
            let underlay = if segmenting { "segmenting" } else { "whole" };
            let mut row = format!("| {figure} | {underlay} |");
            for (way, to) in pairs {
                let ratio = |pick: fn(&Sample) -> f64| {
                    let both = samples[*way].iter().zip(&samples[*to]);
                    median(both.map(|(way, to)| pick(way) / pick(to)).collect())
                };
                let (rate, cpu) = (ratio(|s| s.rate), ratio(|s| s.cpu));
                // Writing to a String cannot fail.
                let _ = write!(row, " {rate:.2} | {cpu:.2} |");
            }
            let raw = median(samples[0].iter().map(|s| s.rate).collect());
            println!("{row} raw: {raw:.1}");
        }
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn raw(one: &Host, two: &Host) -> Way {
    let place = |host: &Host| Place {
        host: host.clone(),
        pid: "1".into(),
        address: host.member().address().to_string(),
    };
    Way {
        name: "raw",
        server: place(one),
        client: place(two),
    }
}

fn by_hand(one: &Host, two: &Host) -> Result<Way> {
    let mut places = Vec::new();
    for (host, peer, number) in [(one, two, 1), (two, one, 2)] {
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
        places.push(Place {
            host: host.clone(),
            pid,
            address: format!("10.250.0.{number}"),
        });
    }
    let client = places.pop().context("two places")?;
    let server = places.pop().context("two places")?;
    Ok(Way {
        name: "by hand",
        server,
        client,
    })
}

fn overnet(lab: &Lab, one: &Host, two: &Host) -> Result<Way> {
    lab.host("manager01")
        .ctl([
            "network",
            "create",
            "-d",
            "overlay",
            "--attachable",
            "bench",
        ])
        .ok();
    let place = |host: &Host| {
        host.ctl([
            "run",
            "-d",
            "--name",
            "bench",
            "--network",
            "bench",
            TOOLBOX,
            "sleep",
            "90000",
        ])
        .ok();
        let shown = "{{.State.Pid}} {{.NetworkSettings.Networks.bench.IPAddress}}";
        let shown = host.ctl(["inspect", "--format", shown, "bench"]).ok();
        let (pid, address) = shown.split_once(' ').context("a process and an address")?;
        anyhow::Ok(Place {
            host: host.clone(),
            pid: pid.into(),
            address: address.into(),
        })
    };
    Ok(Way {
        name: "Overnet",
        server: place(one)?,
        client: place(two)?,
    })
}

fn segment(one: &Host, two: &Host) -> bool {
    let off = [
        "ethtool", "-K", "cable", "tso", "off", "gso", "off", "gro", "off", "tx", "off",
    ];
    [one, two].iter().all(|host| {
        let mut command = Command::new("sh");
        command.args(["-c", &off.join(" ")]);
        host.run(command).success()
    })
}

impl Place {
    fn spawn(&self, words: &[&str]) -> Result<Child> {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid, "-n", "--"]).args(words);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        self.host.spawn(command)
    }

    fn run(&self, words: &[&str]) -> Result<String> {
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

fn sample(figure: usize, way: &Way) -> Result<Sample> {
    let own = std::env::current_exe()?;
    let own = own.to_str().context("a path of plain text")?;
    let port = PORT.to_string();
    let iperf = figure != 2 && figure != 4;
    let server: &[&str] = if iperf {
        &["iperf3", "-s", "-1", "-p", &port]
    } else {
        &[own, "serve"]
    };
    let mut server = way.server.spawn(server)?;
    let target = &way.server.address;
    let address = format!("{target}:{port}");
    await_listener(way)?;
    let seconds = SECONDS.to_string();
    let base = ["iperf3", "-J", "-c", target, "-p", &port, "-t", &seconds];
    let (before, start) = (busy(), Instant::now());
    let said = match figure {
        0 => way.client.run(&base),
        1 => way.client.run(&[&base[..], &["-P", "4"]].concat()),
        2 => way.client.run(&[own, "requests", &address]),
        3 => way
            .client
            .run(&[&base[..], &["-u", "-b", "0", "-l", "32"]].concat()),
        _ => way.client.run(&[own, "connections", &address]),
    };
    let (spent, took) = (busy() - before, start.elapsed().as_secs_f64());
    let _ = server.kill();
    let _ = server.wait();
    let said = said?;
    let rate = if iperf {
        let report: serde_json::Value = serde_json::from_str(&said)?;
        let sum = &report["end"]["sum_received"];
        match figure {
            3 => {
                let sum = &report["end"]["sum"];
                let arrived = 1.0 - sum["lost_percent"].as_f64().unwrap_or(0.0) / 100.0;
                sum["packets"].as_f64().unwrap_or(0.0) * arrived / SECONDS as f64
            }
            _ => sum["bits_per_second"].as_f64().unwrap_or(0.0) / 1e9,
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

/// Whoever listens is seen in the server's table of sockets, without a connection that iperf3
/// would take for a test.
fn await_listener(way: &Way) -> Result<()> {
    let wanted = format!(":{PORT:04X} ");
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let table = way.server.run(&[
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

fn connections(address: SocketAddr) -> Result<()> {
    let at_once = linger {
        l_onoff: 1,
        l_linger: 0,
    };
    count(|| {
        let mut stream = TcpStream::connect(address)?;
        // Closed by a reset: some thousands of sockets a second in TIME_WAIT would use up the
        // ports, and what is measured then is the search for a free one.
        setsockopt(&stream, sockopt::Linger, &at_once)?;
        stream.write_all(&[1])?;
        stream.read_exact(&mut [0])?;
        Ok(())
    })
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
