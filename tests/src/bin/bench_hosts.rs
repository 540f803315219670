//! In a lab: the time of `run` to the first answered request from another host, and what `ovnd`
//! weighs, alone and with 50 containers.
//!
//! `bench_hosts run`, `bench_hosts weight`, or both.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tests::{
    Host, Lab, Options,
    asker::{Asker, first},
};

const ECHO: &str = "registry:5000/example/echo:latest";
const TOOLBOX: &str = "registry:5000/example/toolbox";
const RUNS: u8 = 50;
const CONTAINERS: usize = 50;
const LIMIT: Duration = Duration::from_secs(10);
/// What fifty starts leave to do is done by then.
const SETTLED: Duration = Duration::from_secs(45);
/// Two of the rounds in which the dataplane looks at everything.
const IDLE: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["first", address] => return first(address.parse()?, LIMIT),
        [] | ["run" | "weight"] => {}
        _ => bail!("usage: bench_hosts [run | weight]"),
    }
    let lab = Lab::up(Options {
        workers: 2,
        ..Options::default()
    })?;
    let (one, two) = (lab.host("worker01"), lab.host("worker02"));
    if words != ["run"] {
        println!("| ovnd on one host | PSS | CPU, part of one core |\n|---|---|---|");
        weigh(&one, "alone, in a cluster of three")?;
    }
    let create = "network create -d overlay --attachable --subnet 10.79.0.0/24 ch03";
    lab.host("manager01").ctl(create.split(' ')).ok();
    for image in [ECHO, TOOLBOX] {
        one.ctl(["pull", image]).ok();
        two.ctl(["pull", image]).ok();
    }
    if words != ["run"] {
        with_containers(&one)?;
    }
    if words != ["weight"] {
        run_to_answer(&one, &two)?;
    }
    lab.down()
}

fn run_to_answer(one: &Host, two: &Host) -> Result<()> {
    let asker = Asker::start(two)?;
    let mut times = Vec::new();
    for number in 0..RUNS {
        let address = format!("10.79.0.{}", 150 + number);
        let start = Instant::now();
        one.ctl([
            "run",
            "-d",
            "--name",
            "timed",
            "--network",
            "ch03",
            "--ip",
            &address,
            ECHO,
        ])
        .ok();
        asker.first(&address);
        times.push(start.elapsed().as_secs_f64());
        one.ctl(["rm", "-f", "timed"]).ok();
    }
    times.sort_by(f64::total_cmp);
    println!(
        "\n| `run` to the first answered request from another host | p50 | p99 |\n|---|---|---|"
    );
    println!(
        "| {RUNS} runs of example/echo on ch03 | {:.3} s | {:.3} s |",
        times[times.len() / 2],
        times[times.len() * 99 / 100]
    );
    two.ctl(["rm", "-f", "asker"]).ok();
    Ok(())
}

fn with_containers(one: &Host) -> Result<()> {
    std::thread::scope(|scope| {
        for lane in 0..5 {
            scope.spawn(move || {
                for number in (lane..CONTAINERS).step_by(5) {
                    let name = format!("idle{number}");
                    let words = ["run", "-d", "--name", &name, "--network", "ch03", TOOLBOX];
                    one.ctl(words.into_iter().chain(["sleep", "100000"])).ok();
                }
            });
        }
    });
    let monitors = pss(one, "conmon")?;
    weigh(one, &format!("with {CONTAINERS} containers on ch03"))?;
    println!(
        "| each container's monitor | {:.2} MiB | |",
        monitors / CONTAINERS as f64
    );
    let mut remove = Command::new("sh");
    let ovnctl = tests::lab::binary("ovnctl")?;
    remove
        .args(["-c", "\"$0\" ps -q | xargs \"$0\" rm -f"])
        .arg(ovnctl)
        .stdin(Stdio::null());
    one.run(remove).ok();
    Ok(())
}

fn weigh(host: &Host, what: &str) -> Result<()> {
    let pid = host.daemon_pid()?;
    std::thread::sleep(SETTLED);
    let (before, start) = (processor(pid)?, Instant::now());
    std::thread::sleep(IDLE);
    let used = (processor(pid)? - before) / start.elapsed().as_secs_f64();
    println!(
        "| {what} | {:.1} MiB | {:.2} % |",
        pss(host, "ovnd")?,
        used * 100.0
    );
    Ok(())
}

/// Proportional set size in MiB of all processes of that name (proc_pid_smaps_rollup).
fn pss(host: &Host, name: &str) -> Result<f64> {
    let script = "for pid in $(pgrep -x \"$0\"); do grep ^Pss: /proc/$pid/smaps_rollup; done";
    let said = host.exec(["sh", "-c", script, name]).ok();
    let kilobytes = |line: &str| line.split_whitespace().nth(1)?.parse::<f64>().ok();
    let all: Vec<f64> = said.lines().filter_map(kilobytes).collect();
    ensure!(!all.is_empty(), "no process {name} on {}", host.name());
    Ok(all.iter().sum::<f64>() / 1024.0)
}

/// Seconds of processor time (proc_pid_stat(5), columns 14 and 15).
fn processor(pid: i32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = text.rsplit_once(')').context("a process name")?.1;
    let ticks: Vec<f64> = after
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse().ok())
        .collect();
    Ok(ticks.iter().sum::<f64>() / 100.0)
}
