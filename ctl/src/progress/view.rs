//! What to show of a service and whether it has converged: decided from what the daemon says.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::bars::Bars;
use crate::commands::text;

/// One line of the display; a line with the same id replaces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What it is about, such as `1/3`.
    pub id: String,
    /// What is said.
    pub text: String,
    /// A bar behind it: how much of how much.
    pub bar: Option<(u64, u64)>,
}

impl Line {
    /// A line without a bar.
    pub fn said(id: &str, text: impl Into<String>) -> Self {
        Self {
            id: id.to_owned(),
            text: text.into(),
            bar: None,
        }
    }
}

/// What the user asked for: that decides whether a rollback is a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A new service or a changed one.
    Change,
    /// A rollback.
    Rollback,
}

/// What comes after a look at the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Look again.
    Goes,
    /// It has converged.
    Done,
    /// It will not.
    Failed(String),
}

/// What was seen so far.
pub struct View {
    name: String,
    asked: Asked,
    monitor: Duration,
    bars: Option<Bars>,
    converged_at: Option<Duration>,
    rolls_back: bool,
    rolled_back: Option<String>,
}

impl View {
    /// Nothing seen yet; `name` is how the user calls the service.
    pub fn new(name: &str, asked: Asked) -> Self {
        Self {
            name: name.to_owned(),
            asked,
            monitor: Duration::from_secs(5),
            bars: None,
            converged_at: None,
            rolls_back: false,
            rolled_back: None,
        }
    }

    /// True when all tasks were as asked at the last look.
    pub fn converged(&self) -> bool {
        self.converged_at.is_some()
    }

    /// Takes the service as it is at `now`, a time since the beginning.
    pub fn service(&mut self, service: &Value, now: Duration, lines: &mut Vec<Line>) -> Step {
        if let Some(nanos) = service
            .pointer("/Spec/UpdateConfig/Monitor")
            .and_then(Value::as_u64)
            .filter(|nanos| *nanos > 0)
        {
            self.monitor = Duration::from_nanos(nanos);
        }
        let message = text(service, "/UpdateStatus/Message");
        match text(service, "/UpdateStatus/State") {
            "updating" => self.rolls_back = false,
            "completed" if !self.converged() => return Step::Done,
            "paused" => return Step::Failed(format!("service update paused: {message}")),
            "rollback_started" => {
                if !self.rolls_back && !message.is_empty() {
                    lines.push(Line::said("rollback", message));
                }
                self.rolls_back = true;
            }
            "rollback_paused" => {
                return Step::Failed(format!("service rollback paused: {message}"));
            }
            "rollback_completed" => {
                self.rolled_back = Some(message.to_owned());
                self.rolls_back = true;
            }
            _ => {}
        }
        let watched = self
            .converged_at
            .is_some_and(|then| now.saturating_sub(then) >= self.monitor);
        if !watched {
            return Step::Goes;
        }
        lines.push(Line::said(
            "verify",
            format!("Service {} converged", self.name),
        ));
        self.end(lines)
    }

    /// A change that ended as the old service again is none.
    fn end(&self, lines: &mut Vec<Line>) -> Step {
        let Some(message) = &self.rolled_back else {
            return Step::Done;
        };
        match self.asked {
            Asked::Rollback => {
                if !message.is_empty() {
                    lines.push(Line::said("rollback", message));
                }
                Step::Done
            }
            Asked::Change => Step::Failed(format!("service update rolled back: {message}")),
        }
    }

    /// Takes the tasks of the newest specification and the nodes.
    pub fn tasks(
        &mut self,
        service: &Value,
        tasks: &Value,
        nodes: &Value,
        now: Duration,
        lines: &mut Vec<Line>,
    ) -> Step {
        if self.bars.is_none() {
            self.bars = Bars::of(service);
        }
        let Some(bars) = &mut self.bars else {
            return Step::Failed("unrecognized service mode".to_owned());
        };
        let up: BTreeSet<&str> = nodes
            .as_array()
            .into_iter()
            .flatten()
            .filter(|node| text(node, "/Status/State") != "down")
            .map(|node| text(node, "/ID"))
            .collect();
        let empty = Vec::new();
        let tasks = tasks.as_array().unwrap_or(&empty);
        let converged = bars.update(service, tasks, &up, self.rolls_back, lines);
        if !converged {
            if self.converged_at.take().is_some() {
                lines.push(Line::said("verify", "Detected task failure"));
            }
            return Step::Goes;
        }
        if bars.is_job() {
            // Done tasks of a job stay done: there is nothing to watch.
            lines.push(Line::said("", "job complete"));
            return Step::Done;
        }
        let since = *self.converged_at.get_or_insert(now);
        let passed = now.saturating_sub(since);
        if let Some(left) = self.monitor.checked_sub(passed) {
            let seconds = left.as_nanos().div_ceil(1_000_000_000).max(1);
            lines.push(Line::said(
                "verify",
                format!("Waiting {seconds} seconds to verify that tasks are stable..."),
            ));
        }
        Step::Goes
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use serde_json::json;

    /// Plays looks at a service, one a second: its update status, then `slot:node:desired:state[:error]` of the tasks.
    fn play(mode: &Value, asked: Asked, looks: &[(Value, &str)]) -> String {
        let mut view = View::new("web", asked);
        let nodes = json!([
            {"ID": "n1n1n1n1n1n1n1n1", "Status": {"State": "ready"}},
            {"ID": "n2n2n2n2n2n2n2n2", "Status": {"State": "ready"}},
            {"ID": "lost", "Status": {"State": "down"}},
        ]);
        let mut told = String::new();
        for (second, (status, tasks)) in looks.iter().enumerate() {
            let now = Duration::from_secs(second as u64);
            let mut service = json!({"Spec": {"Mode": mode, "UpdateConfig": {"Monitor": 2_000_000_000_i64}}, "UpdateStatus": status});
            if mode.to_string().contains("Job") {
                service["JobStatus"] = json!({"JobIteration": {"Index": 4}});
            }
            let tasks: Vec<Value> = tasks.split_whitespace().map(task).collect();
            let mut lines = Vec::new();
            let mut step = view.service(&service, now, &mut lines);
            if step == Step::Goes {
                step = view.tasks(&service, &Value::Array(tasks), &nodes, now, &mut lines);
            }
            for line in lines {
                let bar = line
                    .bar
                    .map(|(n, of)| format!(" [{n}/{of}]"))
                    .unwrap_or_default();
                let text = format!("{second}: {}: {}{bar}", line.id, line.text.trim_end());
                let _ = writeln!(told, "{}", text.trim_end());
            }
            if step != Step::Goes {
                let _ = writeln!(told, "{second}: {step:?}");
                break;
            }
        }
        told
    }

    fn task(text: &str) -> Value {
        let parts: Vec<&str> = text.split(':').collect();
        let node = match parts[1] {
            "n1" => "n1n1n1n1n1n1n1n1",
            "n2" => "n2n2n2n2n2n2n2n2",
            other => other,
        };
        json!({
            "Slot": parts[0].parse::<u64>().unwrap(), "NodeID": node, "DesiredState": parts[2],
            "Status": {"State": parts[3], "Err": parts.get(4).unwrap_or(&"")},
            "JobIteration": {"Index": 4},
        })
    }

    const NONE: Value = Value::Null;

    #[test]
    fn replicas_converge_after_a_failure() {
        let told = play(
            &json!({"Replicated": {"Replicas": 2}}),
            Asked::Change,
            &[
                (NONE, "1::running:new"),
                (
                    NONE,
                    "1:n1:running:preparing 2::running:pending:no_suitable_node",
                ),
                (NONE, "1:n1:running:running 2:n2:running:running"),
                (
                    NONE,
                    "1:n1:running:running 2:n2:running:failed 2:n1:ready:preparing 1:lost:running:starting",
                ),
                (NONE, "1:n1:running:running 2:n1:running:running"),
                (NONE, "1:n1:running:running 2:n1:running:running"),
                (NONE, "1:n1:running:running 2:n1:running:running"),
                (NONE, "1:n1:running:running 2:n1:running:running"),
            ],
        );
        insta::assert_snapshot!(told, @r"
        0: overall progress: 0 out of 2 tasks
        0: 1/2:
        0: 2/2:
        0: 1/2: new [1/9]
        0: overall progress: 0 out of 2 tasks
        1: 1/2: preparing [6/9]
        1: 2/2: no_suitable_node
        1: overall progress: 0 out of 2 tasks
        2: 1/2: running [9/9]
        2: 2/2: running [9/9]
        2: overall progress: 2 out of 2 tasks
        2: verify: Waiting 2 seconds to verify that tasks are stable...
        3: 1/2: running [9/9]
        3: 2/2: preparing [6/9]
        3: overall progress: 1 out of 2 tasks
        3: verify: Detected task failure
        4: 1/2: running [9/9]
        4: 2/2: running [9/9]
        4: overall progress: 2 out of 2 tasks
        4: verify: Waiting 2 seconds to verify that tasks are stable...
        5: verify: Waiting 1 seconds to verify that tasks are stable...
        6: verify: Service web converged
        6: Done
        ");
    }

    #[test]
    fn one_task_on_each_node() {
        let told = play(
            &json!({"Global": {}}),
            Asked::Change,
            &[
                (NONE, ""),
                (NONE, "0:n1:running:starting 0:n2:running:running"),
                (NONE, "0:n1:running:running 0:n2:running:running"),
            ],
        );
        insta::assert_snapshot!(told, @r"
        0: overall progress: waiting for new tasks
        1: overall progress: 0 out of 2 tasks
        1: n1n1n1n1n1n1: starting [8/9]
        1: n2n2n2n2n2n2: running [9/9]
        1: overall progress: 1 out of 2 tasks
        2: n1n1n1n1n1n1: running [9/9]
        2: n2n2n2n2n2n2: running [9/9]
        2: overall progress: 2 out of 2 tasks
        2: verify: Waiting 2 seconds to verify that tasks are stable...
        ");
    }

    #[test]
    fn jobs_end_when_all_are_complete() {
        let told = play(
            &json!({"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 2}}),
            Asked::Change,
            &[
                (NONE, "0:n1:complete:running"),
                (NONE, "0:n1:complete:complete 1:n2:complete:running"),
                (NONE, "0:n1:complete:complete 1:n2:complete:complete"),
            ],
        );
        insta::assert_snapshot!(told, @r"
        0: job progress: 0 out of 2 complete [0/2]
        0: active tasks: 0 out of 1 tasks
        0: 1/2:
        0: 2/2:
        0: 1/2: running [9/10]
        0: job progress: 0 out of 2 complete [0/2]
        0: active tasks: 1 out of 1 tasks
        1: 1/2: complete [10/10]
        1: 2/2: running [9/10]
        1: job progress: 1 out of 2 complete [1/2]
        1: active tasks: 1 out of 1 tasks
        2: 1/2: complete [10/10]
        2: 2/2: complete [10/10]
        2: job progress: 2 out of 2 complete [2/2]
        2: active tasks: 0 out of 0 tasks
        2: : job complete
        2: Done
        ");
        let told = play(
            &json!({"GlobalJob": {}}),
            Asked::Change,
            &[
                (NONE, ""),
                (NONE, "0:n1:complete:running"),
                (NONE, "0:n1:complete:complete 0:n2:complete:running"),
            ],
        );
        insta::assert_snapshot!(told, @r"
        0: job progress: waiting for tasks
        1: job progress: 0 out of 1 complete [0/1]
        1: n1n1n1n1n1n1n1n1: running [9/10]
        1: job progress: 0 out of 1 complete [0/1]
        2: n1n1n1n1n1n1n1n1: complete [10/10]
        2: job progress: 1 out of 1 complete [1/1]
        2: : job complete
        2: Done
        ");
    }

    #[test]
    fn a_rollback_is_shown_and_fails_an_update() {
        let status = |state: &str| json!({"State": state, "Message": "task t failed"});
        let looks = [
            (status("updating"), "1:n1:running:starting"),
            (status("rollback_started"), "1:n1:running:starting"),
            (status("rollback_completed"), "1:n1:running:running"),
            (status("rollback_completed"), "1:n1:running:running"),
            (status("rollback_completed"), "1:n1:running:running"),
        ];
        let told = play(
            &json!({"Replicated": {"Replicas": 1}}),
            Asked::Change,
            &looks,
        );
        insta::assert_snapshot!(told, @r#"
        0: overall progress: 0 out of 1 tasks
        0: 1/1:
        0: 1/1: starting [8/9]
        0: overall progress: 0 out of 1 tasks
        1: rollback: task t failed
        1: 1/1: starting [8/9]
        1: overall progress: rolling back update: 0 out of 1 tasks
        2: 1/1: running [9/9]
        2: overall progress: rolling back update: 1 out of 1 tasks
        2: verify: Waiting 2 seconds to verify that tasks are stable...
        3: verify: Waiting 1 seconds to verify that tasks are stable...
        4: verify: Service web converged
        4: Failed("service update rolled back: task t failed")
        "#);
        let told = play(
            &json!({"Replicated": {"Replicas": 1}}),
            Asked::Rollback,
            &looks,
        );
        assert!(
            told.ends_with("4: rollback: task t failed\n4: Done\n"),
            "{told}"
        );
    }

    #[test]
    fn with_many_tasks_only_the_overall_line_is_shown() {
        let told = play(
            &json!({"Replicated": {"Replicas": 21}}),
            Asked::Change,
            &[(NONE, "1:n1:running:running")],
        );
        assert_eq!(
            told,
            "0: overall progress: 0 out of 21 tasks\n0: overall progress: 1 out of 21 tasks\n"
        );
    }
}
