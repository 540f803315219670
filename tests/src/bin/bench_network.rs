//! Container to container across two hosts, beside the bare underlay and beside a bridge and
//! VXLAN laid by hand, taken in turns on one machine; prints medians of the ratios that were
//! taken in the same round.
//!
//! The underlay is a cable (a bridge would segment again what a cable passes whole), once
//! passing large packets whole and once segmenting to the MTU, as a plain network card does.

use std::process::Command;

use anyhow::{Context, Result, bail};
use tests::{
    Host, Lab, Options,
    yardstick::{Figure, PORT, Place, Way, by_hand, head, play, row},
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
        [] => measure(15, true),
        ["--quick"] => measure(3, true),
        // Without daemons: the two yardsticks alone.
        ["--yardsticks"] => measure(3, false),
        _ if play(&words)? => Ok(()),
        _ => bail!("usage: bench_network [--quick | --yardsticks]"),
    }
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
    let mut ways = vec![raw(&one, &two)?];
    let [(server, address), (client, _)] = by_hand(&one, &two)?;
    ways.push(way("by hand", server, client, &address)?);
    let mut pairs = vec![(1, 0)];
    if ours {
        ways.push(overnet(&lab, &one, &two)?);
        pairs.extend([(2, 0), (2, 1)]);
    }
    println!("{}", head(&ways, &pairs));
    for underlay in ["whole", "segmenting"] {
        if underlay == "segmenting" && !segment(&one, &two) {
            eprintln!("ethtool is missing: the segmenting underlay was not measured");
            break;
        }
        for figure in FIGURES {
            println!("{}", row(figure, underlay, &ways, &pairs, rounds)?);
        }
    }
    Ok(())
}

fn way(name: &'static str, server: Place, client: Place, address: &str) -> Result<Way> {
    let target = format!("{address}:{PORT}").parse()?;
    Ok(Way {
        name,
        servers: vec![server],
        client,
        target,
        source: None,
    })
}

fn raw(one: &Host, two: &Host) -> Result<Way> {
    let place = |host: &Host| Place::Process {
        host: host.clone(),
        pid: "1".into(),
    };
    let address = one.member().address().to_string();
    way("raw", place(one), place(two), &address)
}

fn overnet(lab: &Lab, one: &Host, two: &Host) -> Result<Way> {
    let words = "network create -d overlay --attachable bench";
    lab.host("manager01").ctl(words.split(' ')).ok();
    let start = |host: &Host| {
        let words = "run -d --name bench --network bench";
        let command = [TOOLBOX, "sleep", "90000"];
        host.ctl(words.split(' ').chain(command)).ok();
        let shown = "{{.State.Pid}} {{.NetworkSettings.Networks.bench.IPAddress}}";
        let shown = host.ctl(["inspect", "--format", shown, "bench"]).ok();
        let (pid, address) = shown.split_once(' ').context("a process and an address")?;
        let place = Place::Process {
            host: host.clone(),
            pid: pid.into(),
        };
        anyhow::Ok((place, address.to_owned()))
    };
    let ((server, address), (client, _)) = (start(one)?, start(two)?);
    way("Overnet", server, client, &address)
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
