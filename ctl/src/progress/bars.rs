//! The lines of tasks, for each mode of a service.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::view::Line;
use crate::commands::text;
use crate::output::table::short_id;

/// With more tasks than this only the overall line is shown.
const MOST_BARS: u64 = 20;
/// Room for the longest word, `preparing`.
const WORD: usize = 9;

/// The tasks' lines of one service.
pub struct Bars {
    mode: Mode,
    begun: bool,
    done: bool,
}

enum Mode {
    Replicated { places: BTreeMap<u64, u64> },
    Global,
    ReplicatedJob { most: u64, total: u64 },
    GlobalJob { nodes: BTreeSet<String> },
}

impl Bars {
    /// For the mode of this service; `None` when it has none that is known.
    pub fn of(service: &Value) -> Option<Self> {
        let mode = service.pointer("/Spec/Mode")?;
        let number = |pointer: &str| mode.pointer(pointer).and_then(Value::as_u64);
        let has = |name: &str| mode.get(name).is_some_and(|part| !part.is_null());
        let mode = match () {
            () if has("Replicated") => Mode::Replicated {
                places: BTreeMap::new(),
            },
            () if has("Global") => Mode::Global,
            () if has("ReplicatedJob") => {
                let total = number("/ReplicatedJob/TotalCompletions").unwrap_or(1);
                Mode::ReplicatedJob {
                    most: number("/ReplicatedJob/MaxConcurrent").unwrap_or(total),
                    total,
                }
            }
            () if has("GlobalJob") => Mode::GlobalJob {
                nodes: BTreeSet::new(),
            },
            () => return None,
        };
        Some(Self {
            mode,
            begun: false,
            done: false,
        })
    }

    /// True for the modes whose tasks end.
    pub fn is_job(&self) -> bool {
        matches!(
            self.mode,
            Mode::ReplicatedJob { .. } | Mode::GlobalJob { .. }
        )
    }

    /// Adds the lines for these tasks; true when all are as asked.
    pub fn update(
        &mut self,
        service: &Value,
        tasks: &[Value],
        up: &BTreeSet<&str>,
        rolls_back: bool,
        lines: &mut Vec<Line>,
    ) -> bool {
        let first = !std::mem::replace(&mut self.begun, true);
        match &mut self.mode {
            Mode::Replicated { places } => {
                let asked = service
                    .pointer("/Spec/Mode/Replicated/Replicas")
                    .and_then(Value::as_u64)
                    .unwrap_or(1);
                if first {
                    lines.push(overall(0, asked, rolls_back));
                    first_lines(asked, lines);
                }
                let slots = newest(tasks, slot, |task| {
                    text(task, "/NodeID").is_empty() || up.contains(text(task, "/NodeID"))
                });
                let shown = slots.iter().map(|(slot, task)| {
                    let next = places.len() as u64 + 1;
                    let place = *places.entry(*slot).or_insert(next);
                    // A slot beyond the asked ones is on its way out.
                    ((place <= asked).then(|| format!("{place}/{asked}")), *task)
                });
                steady(&mut self.done, shown.collect(), asked, rolls_back, lines)
            }
            Mode::Global => {
                let on_nodes = newest(tasks, |task| text(task, "/NodeID").to_owned(), |_| true);
                let asked = on_nodes.len() as u64;
                if first && asked == 0 {
                    self.begun = false;
                    lines.push(Line::said("overall progress", "waiting for new tasks"));
                    return false;
                }
                if first {
                    lines.push(overall(0, asked, rolls_back));
                }
                let shown = on_nodes
                    .iter()
                    .filter(|(node, _)| up.contains(node.as_str()))
                    .map(|(node, task)| (Some(short_id(node).to_owned()), *task));
                steady(&mut self.done, shown.collect(), asked, rolls_back, lines)
            }
            Mode::ReplicatedJob { most, total } => {
                if first {
                    job_lines(0, 0, *total, *most, lines);
                    first_lines(*total, lines);
                }
                let slots = of_iteration(service, tasks, slot);
                let (mut active, mut complete) = (0, 0);
                for (slot, task) in &slots {
                    if *total <= MOST_BARS {
                        lines.push(job_task_line(&format!("{}/{total}", slot + 1), task));
                    }
                    active += u64::from(states(task).1 < number("complete"));
                    complete += u64::from(text(task, "/Status/State") == "complete");
                }
                job_lines(active, complete, *total, *most, lines);
                complete == *total
            }
            Mode::GlobalJob { nodes } => {
                if first && tasks.is_empty() && !up.is_empty() {
                    self.begun = false;
                    lines.push(Line::said("job progress", "waiting for tasks"));
                    return false;
                }
                let on_nodes =
                    of_iteration(service, tasks, |task| text(task, "/NodeID").to_owned());
                if first {
                    // Hosts that join later run the job too, but are not waited for.
                    *nodes = on_nodes.keys().cloned().collect();
                    lines.push(job_overall(0, nodes.len() as u64));
                }
                let total = nodes.len() as u64;
                let mut complete = 0;
                for (node, task) in on_nodes.iter().filter(|(node, _)| nodes.contains(*node)) {
                    if total <= MOST_BARS {
                        lines.push(job_task_line(node, task));
                    }
                    complete += u64::from(text(task, "/Status/State") == "complete");
                }
                lines.push(job_overall(complete, total));
                complete == total
            }
        }
    }
}

/// The lines of tasks that are to run for ever; `done` remembers that all ran, and then nothing is drawn.
fn steady(
    done: &mut bool,
    tasks: Vec<(Option<String>, &Value)>,
    asked: u64,
    rolls_back: bool,
    lines: &mut Vec<Line>,
) -> bool {
    *done = *done
        && tasks
            .iter()
            .all(|(_, task)| text(task, "/Status/State") == "running");
    let running = tasks.iter().filter(|(_, task)| runs(task)).count() as u64;
    if !*done {
        if asked <= MOST_BARS {
            let shown = tasks
                .iter()
                .filter_map(|(id, task)| task_line(id.as_ref()?, task));
            lines.extend(shown);
        }
        lines.push(overall(running, asked, rolls_back));
        *done = running == asked;
    }
    running == asked
}

/// The order of a task's states; 0 for those that are not shown.
fn number(state: &str) -> u64 {
    match state {
        "new" => 1,
        "allocated" => 2,
        "pending" => 3,
        "assigned" => 4,
        "accepted" => 5,
        "preparing" => 6,
        "ready" => 7,
        "starting" => 8,
        "running" => 9,
        "complete" => 10,
        "shutdown" => 11,
        "failed" => 12,
        "rejected" => 13,
        _ => 0,
    }
}

fn states(task: &Value) -> (u64, u64) {
    (
        number(text(task, "/DesiredState")),
        number(text(task, "/Status/State")),
    )
}

fn ended(number_of_state: u64) -> bool {
    number_of_state > number("running")
}

fn runs(task: &Value) -> bool {
    !ended(number(text(task, "/DesiredState"))) && text(task, "/Status/State") == "running"
}

fn slot(task: &Value) -> u64 {
    task["Slot"].as_u64().unwrap_or(0)
}

/// One task a key: the one that is asked least, and of those the one that got least far,
/// since that is the one a start-first update or a restart waits for.
fn newest<K: Ord>(
    tasks: &[Value],
    key: impl Fn(&Value) -> K,
    counts: impl Fn(&Value) -> bool,
) -> BTreeMap<K, &Value> {
    let mut chosen: BTreeMap<K, &Value> = BTreeMap::new();
    for task in tasks {
        let (desired, observed) = states(task);
        if desired == 0 || observed == 0 || !counts(task) {
            continue;
        }
        let place = chosen.entry(key(task)).or_insert(task);
        if (desired, observed) < states(place) {
            *place = task;
        }
    }
    chosen
}

/// Of the job's newest iteration one task a key: the one that got least far.
fn of_iteration<K: Ord>(
    service: &Value,
    tasks: &[Value],
    key: impl Fn(&Value) -> K,
) -> BTreeMap<K, Value> {
    let iteration = |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_u64);
    let wanted = iteration(service, "/JobStatus/JobIteration/Index").unwrap_or(0);
    let mut chosen: BTreeMap<K, Value> = BTreeMap::new();
    for task in tasks {
        let (desired, observed) = states(task);
        let of_this = iteration(task, "/JobIteration/Index").unwrap_or(0) == wanted;
        if desired == 0 || observed == 0 || !of_this {
            continue;
        }
        let place = chosen.entry(key(task)).or_insert_with(|| task.clone());
        if observed < states(place).1 {
            place.clone_from(task);
        }
    }
    chosen
}

fn overall(running: u64, asked: u64, rolls_back: bool) -> Line {
    let rolls = if rolls_back {
        "rolling back update: "
    } else {
        ""
    };
    Line::said(
        "overall progress",
        format!("{rolls}{running} out of {asked} tasks"),
    )
}

/// A place for each task, so that they stand in order whichever comes first.
fn first_lines(asked: u64, lines: &mut Vec<Line>) {
    if asked <= MOST_BARS {
        lines.extend((1..=asked).map(|place| Line::said(&format!("{place}/{asked}"), " ")));
    }
}

fn task_line(id: &str, task: &Value) -> Option<Line> {
    let (desired, observed) = states(task);
    match text(task, "/Status/Err") {
        "" if ended(desired) || ended(observed) => None,
        "" => Some(bar(id, task, 9)),
        error => Some(Line::said(id, short(error))),
    }
}

fn job_task_line(id: &str, task: &Value) -> Line {
    match text(task, "/Status/Err") {
        "" => bar(id, task, 10),
        error => Line::said(id, short(error)),
    }
}

fn bar(id: &str, task: &Value, total: u64) -> Line {
    let state = text(task, "/Status/State");
    Line {
        id: id.to_owned(),
        text: format!("{state:<WORD$}"),
        bar: Some((number(state), total)),
    }
}

/// One line of at most 75 characters.
fn short(error: &str) -> String {
    crate::output::table::ellipsis(&error.replace('\n', " "), 75)
}

fn job_lines(active: u64, complete: u64, total: u64, most: u64, lines: &mut Vec<Line>) {
    lines.push(job_overall(complete, total));
    let width = most.to_string().len();
    let asked = total.saturating_sub(complete).min(most);
    lines.push(Line::said(
        "active tasks",
        format!("{active:width$} out of {asked:width$} tasks"),
    ));
}

fn job_overall(complete: u64, total: u64) -> Line {
    let width = total.to_string().len();
    Line {
        id: "job progress".to_owned(),
        text: format!("{complete:width$} out of {total} complete"),
        bar: (total > 0).then_some((complete, total)),
    }
}
