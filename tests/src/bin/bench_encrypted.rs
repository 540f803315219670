//! An encrypted network beside a plain one, container to container across two hosts, taken in turns
//! on one machine; prints medians of the ratios that were taken in the same round, and what
//! encrypts here.
//!
//! The hosts are on one machine: both ends of the tunnel share its processors.

use anyhow::{Context, Result, bail};
use tests::{
    Host, Lab, Options,
    yardstick::{Figure, PORT, Place, Way, head, play, row},
};

const TOOLBOX: &str = "registry:5000/example/toolbox";
const FIGURES: [Figure; 5] = [
    Figure::OneStream,
    Figure::FourStreams,
    Figure::Requests,
    Figure::SmallDatagrams,
    Figure::Connections,
];

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [] => measure(9),
        ["--quick"] => measure(3),
        _ if play(&words)? => Ok(()),
        _ => bail!("usage: bench_encrypted [--quick]"),
    }
}

fn measure(rounds: usize) -> Result<()> {
    let lab = Lab::up(Options {
        workers: 2,
        ..Options::default()
    })?;
    let (one, two) = (lab.host("worker01"), lab.host("worker02"));
    one.cable(&two)?;
    let ways = [
        way(&lab, &one, &two, "plain", &[])?,
        way(&lab, &one, &two, "encrypted", &["--opt", "encrypted"])?,
    ];
    let device = one.exec(["ip", "-d", "link", "show", "ovtw0"]).ok();
    let by = if device.contains("wireguard") {
        "the kernel"
    } else {
        "a process on each host"
    };
    println!("Encrypted by {by}.\n");
    let pairs = [(1, 0)];
    println!("{}", head(&ways, &pairs));
    for figure in FIGURES {
        println!("{}", row(figure, "", &ways, &pairs, rounds)?);
    }
    Ok(())
}

fn way(lab: &Lab, one: &Host, two: &Host, name: &'static str, options: &[&str]) -> Result<Way> {
    let words = ["network", "create", "-d", "overlay", "--attachable"];
    let words = words.iter().chain(options).chain([&name]);
    lab.host("manager01").ctl(words).ok();
    let start = |host: &Host| {
        let words = ["run", "-d", "--name", name, "--network", name, TOOLBOX];
        host.ctl(words.iter().chain(&["sleep", "90000"])).ok();
        let shown =
            format!("{{{{.State.Pid}}}} {{{{.NetworkSettings.Networks.{name}.IPAddress}}}}");
        let shown = host.ctl(["inspect", "--format", &shown, name]).ok();
        let (pid, address) = shown.split_once(' ').context("a process and an address")?;
        let place = Place::Process {
            host: host.clone(),
            pid: pid.into(),
        };
        anyhow::Ok((place, address.to_owned()))
    };
    let ((server, address), (client, _)) = (start(one)?, start(two)?);
    Ok(Way {
        name,
        servers: vec![server],
        client,
        target: format!("{address}:{PORT}").parse()?,
        source: None,
    })
}
