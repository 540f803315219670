//! The visualizer's page in a real browser, before a simulated cluster behind the API's shapes:
//! 100 hosts, 5,000 tasks, 50 of which change a second. Work of the page's main thread for each
//! frame, layout and painting included, is read off the browser's own trace.
//!
//! Needs node (the simulated cluster), chromium and chromium-driver.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::browser::{Browser, output_folder};

const SIMULATED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/visualizer/simulated.mjs");
const TRACED: &str = "disabled-by-default-devtools.timeline,devtools.timeline.frame,\
    disabled-by-default-devtools.timeline.frame,devtools.timeline,toplevel";
const HOSTS: u32 = 100;
const TASKS: u32 = 5000;
const RATE: u32 = 50;
const MEASURED: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(60);
/// Milliseconds of main-thread work that 95 of 100 frames stay within.
const GOAL: f64 = 33.0;

fn main() -> Result<()> {
    println!("| page | first paint | all tasks drawn |\n|---|---|---|");
    let small = Cluster::start(4, 40, 0)?;
    let browser = Browser::start(None, (1440, 900), None)?;
    opened(&browser, &small, "4 hosts, 40 tasks", 40)?;
    drop((browser, small));

    let cluster = Cluster::start(HOSTS, TASKS, RATE)?;
    let browser = Browser::start(None, (1920, 1080), Some(TRACED))?;
    opened(&browser, &cluster, "100 hosts, 5,000 tasks", TASKS - 100)?;
    println!(
        "\n| {RATE} tasks change a second | frames/s | work per frame p50 | p95 | max | longest task |\n|---|---|---|---|---|---|"
    );
    let hosts = measured(&browser, "hosts, 1920×1080")?;
    browser.picture(&output_folder("visualizer")?.join("bench-hosts.png"))?;
    browser.click("[data-service]")?;
    let page = measured(&browser, "with a service's page and its logs")?;
    browser.picture(&output_folder("visualizer")?.join("bench-service.png"))?;
    let worst = hosts.max(page);
    ensure!(
        worst <= GOAL,
        "95 of 100 frames take up to {worst:.1} ms; the goal is {GOAL} ms"
    );
    Ok(())
}

/// The simulated cluster's process.
struct Cluster {
    process: Child,
    url: String,
}

impl Cluster {
    fn start(hosts: u32, tasks: u32, rate: u32) -> Result<Self> {
        let flag = |name: &str, value: u32| [format!("--{name}"), value.to_string()];
        let mut process = Command::new("node")
            .arg(SIMULATED)
            .args(flag("port", 0))
            .args(flag("hosts", hosts))
            .args(flag("tasks", tasks))
            .args(flag("rate", rate))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("node cannot be started: is nodejs there?")?;
        let mut url = String::new();
        let output = process.stdout.take().context("its output is piped")?;
        BufReader::new(output).read_line(&mut url)?;
        let url = url.trim().to_owned();
        let cluster = Self { process, url };
        ensure!(!cluster.url.is_empty(), "{SIMULATED} does not start");
        Ok(cluster)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn opened(browser: &Browser, cluster: &Cluster, what: &str, tiles: u32) -> Result<()> {
    browser.open(&cluster.url)?;
    let begun = Instant::now();
    let script = "return [document.querySelectorAll('.tile').length, performance.now(), \
        performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? -1]";
    loop {
        let now = browser.run(script)?;
        let number = |at: usize| now[at].as_f64().unwrap_or_default();
        if number(0) >= f64::from(tiles) {
            println!("| {what} | {:.0} ms | {:.0} ms |", number(2), number(1));
            return Ok(());
        }
        ensure!(begun.elapsed() < LIMIT, "only {} tasks are drawn", now[0]);
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Prints a row and gives the 95th percentile in milliseconds.
fn measured(browser: &Browser, what: &str) -> Result<f64> {
    // What was before is none of this.
    browser.trace()?;
    std::thread::sleep(MEASURED);
    let events = browser.trace()?;
    let main = main_thread(&events).context("the trace has no main thread")?;
    let mut frames: Vec<f64> = of(&events, main, "BeginMainThreadFrame")
        .map(|(start, _)| start)
        .collect();
    frames.sort_by(f64::total_cmp);
    let mut tasks: Vec<(f64, f64)> = of(&events, main, "RunTask").collect();
    if tasks.is_empty() {
        tasks = of(&events, main, "ThreadControllerImpl::RunTask").collect();
    }
    tasks.sort_by(|a, b| a.0.total_cmp(&b.0));
    ensure!(
        frames.len() > 20 && tasks.len() > 20,
        "the trace has {} frames and {} tasks only",
        frames.len(),
        tasks.len()
    );
    let mut work = per_frame(&frames, &tasks);
    work.sort_by(f64::total_cmp);
    let at = |share: usize| work[(work.len() - 1) * share / 100];
    let longest = tasks.iter().map(|(_, long)| *long).fold(0.0, f64::max);
    let seconds = (frames[frames.len() - 1] - frames[0]) / 1e6;
    println!(
        "| {what} | {:.0} | {:.1} ms | **{:.1} ms** | {:.1} ms | {:.1} ms |",
        (frames.len() - 1) as f64 / seconds,
        at(50),
        at(95),
        at(100),
        longest / 1000.0,
    );
    Ok(at(95))
}

/// Milliseconds of tasks that began between two frames.
fn per_frame(frames: &[f64], tasks: &[(f64, f64)]) -> Vec<f64> {
    let mut work = vec![0.0; frames.len().saturating_sub(1)];
    for (start, long) in tasks {
        // The task that begins a frame has begun a little before the frame is told of.
        let frame = frames.partition_point(|frame| *frame <= start + long);
        if let Some(place) = frame.checked_sub(1).and_then(|frame| work.get_mut(frame)) {
            *place += long / 1000.0;
        }
    }
    work
}

type Thread = (u64, u64);

fn thread(event: &Value) -> Thread {
    let number = |key: &str| event[key].as_u64().unwrap_or_default();
    (number("pid"), number("tid"))
}

/// The main thread with most frames: the browser has others for its own pages.
fn main_thread(events: &[Value]) -> Option<Thread> {
    let mains = events
        .iter()
        .filter(|event| event["name"] == "BeginMainThreadFrame");
    let mut counts = std::collections::BTreeMap::new();
    for event in mains {
        *counts.entry(thread(event)).or_insert(0_u32) += 1;
    }
    counts
        .into_iter()
        .max_by_key(|(_, count)| *count)
        .map(|(thread, _)| thread)
}

/// Start and length, in microseconds, of the main thread's events of that name.
fn of<'a>(
    events: &'a [Value],
    main: Thread,
    name: &'a str,
) -> impl Iterator<Item = (f64, f64)> + 'a {
    events
        .iter()
        .filter(move |event| event["name"] == name && thread(event) == main)
        .map(|event| {
            let number = |key: &str| event[key].as_f64().unwrap_or_default();
            (number("ts"), number("dur"))
        })
}
