//! In a lab: the time of `run` to the first answered request from another host; what `ovnd` weighs,
//! alone and with 50 containers, beside Debian's Docker Engine; and how long it takes from its start
//! until it is ready, with 0, 50 and 500 containers that have gone on without it.
//!
//! `bench_hosts run`, `bench_hosts weight`, or both.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use tests::{
    Host, Lab, Options,
    asker::{Asker, first},
    lab::DockerEngine,
};

const ECHO: &str = "registry:5000/example/echo:latest";
const TOOLBOX: &str = "registry:5000/example/toolbox";
const RUNS: u8 = 50;
const CONTAINERS: usize = 50;
/// To be found again by a daemon that starts.
const MANY: usize = 500;
const RESTARTS: usize = 9;
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
        println!(
            "| on one host | PSS | CPU, part of one core | wake-ups a second | killed, started: ready after |\n|---|---|---|---|---|"
        );
        weigh(&one, "ovnd alone, in a cluster of three", &["ovnd"])?;
    }
    let create = "network create -d overlay --attachable --subnet 10.79.0.0/22 ch03";
    lab.host("manager01").ctl(create.split(' ')).ok();
    for image in [ECHO, TOOLBOX] {
        one.ctl(["pull", image]).ok();
        two.ctl(["pull", image]).ok();
    }
    if words != ["run"] {
        with_containers(&one)?;
        beside_docker(&two)?;
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
    run_idle(one, 0..CONTAINERS);
    weigh(
        one,
        &format!("ovnd with {CONTAINERS} containers on ch03"),
        &["ovnd"],
    )?;
    let monitors = pss(one, &["conmon"])?;
    println!(
        "| each container's monitor | {:.2} MiB | | | |",
        monitors / CONTAINERS as f64
    );
    run_idle(one, CONTAINERS..MANY);
    println!(
        "| ovnd with {MANY} containers | {:.1} MiB | | | {} |",
        pss(one, &["ovnd"])?,
        ready(one)?
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

fn run_idle(host: &Host, numbers: std::ops::Range<usize>) {
    const LANES: usize = 5;
    std::thread::scope(|scope| {
        for lane in 0..LANES {
            let numbers = numbers.clone().skip(lane).step_by(LANES);
            scope.spawn(move || {
                for number in numbers {
                    let name = format!("idle{number}");
                    let words = ["run", "-d", "--name", &name, "--network", "ch03", TOOLBOX];
                    host.ctl(words.into_iter().chain(["sleep", "100000"])).ok();
                }
            });
        }
    });
}

fn beside_docker(host: &Host) -> Result<()> {
    let docker = DockerEngine::start(host)?;
    docker.words(&format!("pull -q {TOOLBOX}")).ok();
    for number in 0..CONTAINERS {
        let words = format!("run -d --name idle{number} --network none {TOOLBOX} sleep 100000");
        docker.words(&words).ok();
    }
    let what = format!("Docker Engine with {CONTAINERS} containers without a network");
    weigh(host, &what, &["dockerd", "containerd"])?;
    let monitors = pss(host, &["containerd-shim"])?;
    println!(
        "| each container's monitor of Docker's | {:.2} MiB | | | |",
        monitors / CONTAINERS as f64
    );
    docker
        .words("ps -q")
        .ok()
        .split_whitespace()
        .collect::<Vec<_>>()
        .chunks(10)
        .for_each(|some| {
            docker.words(&format!("rm -f {}", some.join(" "))).ok();
        });
    Ok(())
}

fn weigh(host: &Host, what: &str, programs: &[&str]) -> Result<()> {
    std::thread::sleep(SETTLED);
    let (before, start) = (work(host, programs), Instant::now());
    std::thread::sleep(IDLE);
    let (after, took) = (work(host, programs), start.elapsed().as_secs_f64());
    let ready = if programs == ["ovnd"] {
        ready(host)?
    } else {
        String::new()
    };
    println!(
        "| {what} | {:.1} MiB | {:.2} % | {:.1} | {ready} |",
        pss(host, programs)?,
        (after.0 - before.0) / took * 100.0,
        (after.1 - before.1) / took,
    );
    Ok(())
}

/// From its start after a kill until it says that it is ready; the median of some.
fn ready(host: &Host) -> Result<String> {
    let mut times = Vec::new();
    for _ in 0..RESTARTS {
        host.kill()?;
        let start = Instant::now();
        host.start()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(format!("{:.3} s", times[times.len() / 2]))
}

/// Proportional set size in MiB of all processes of these names (proc_pid_smaps_rollup).
fn pss(host: &Host, names: &[&str]) -> Result<f64> {
    let said = of_each(host, names, "grep ^Pss: /proc/$pid/smaps_rollup");
    let kilobytes = |line: &str| line.split_whitespace().nth(1)?.parse::<f64>().ok();
    let all: Vec<f64> = said.lines().filter_map(kilobytes).collect();
    ensure!(!all.is_empty(), "no process {names:?} on {}", host.name());
    Ok(all.iter().sum::<f64>() / 1024.0)
}

/// Seconds of processor time that all threads of these programs have had (proc_pid_stat(5), fields
/// 14 and 15), and how often they have waited for something and were woken (proc_pid_status(5)).
fn work(host: &Host, names: &[&str]) -> (f64, f64) {
    let stats = of_each(host, names, "cat /proc/$pid/stat");
    let ticks = stats.lines().filter_map(|line| {
        let fields = line.rsplit_once(')')?.1.split_whitespace().skip(11).take(2);
        Some(fields.filter_map(|ticks| ticks.parse::<f64>().ok()))
    });
    let switches = of_each(
        host,
        names,
        "grep -h ^voluntary_ctxt_switches /proc/$pid/task/*/status",
    );
    let switches = switches
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    (ticks.flatten().sum::<f64>() / 100.0, switches.sum())
}

/// What the command says of each process of these names.
fn of_each(host: &Host, names: &[&str], command: &str) -> String {
    let script = format!(
        "for name in \"$@\"; do for pid in $(pgrep -x \"$name\"); do {command}; done; done; true"
    );
    let words = ["sh", "-c", &script, "sh"];
    host.exec(words.into_iter().chain(names.iter().copied()))
        .ok()
}
