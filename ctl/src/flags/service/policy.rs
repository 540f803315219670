//! The flags on how a service is run that `service create` and `service update` share:
//! number of tasks, placement limits, resources, restarts, updates, and what is Overnet's own.

use clap::Args;
use serde_json::{Value, json};

use super::edit::{at, object, put};
use super::value::{dependency, duration, processors, ratio, size};
use crate::flags::boolean;
use crate::output::units::go_duration;

/// How tasks are placed, restarted, updated.
#[derive(Args, Debug, Default, PartialEq)]
pub struct PolicyFlags {
    /// Start only when this service is there: NAME, NAME:healthy or NAME:completed; repeatable
    #[arg(long, value_name = "NAME[:CONDITION]", value_parser = dependency)]
    pub depends_on: Vec<String>,
    /// Let established connections of a stopping task go on this long (default 5s)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub drain_timeout: Option<i64>,
    /// vip (one virtual address) or dnsrr (all addresses of the tasks)
    #[arg(long, value_name = "MODE")]
    pub endpoint_mode: Option<String>,
    /// Most processors a task may use, such as 0.5
    #[arg(long, value_name = "NUMBER", value_parser = processors)]
    pub limit_cpu: Option<i64>,
    /// Most memory a task may use, such as 64m
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub limit_memory: Option<i64>,
    /// Most processes and threads of a task; 0 for no limit
    #[arg(long, value_name = "N")]
    pub limit_pids: Option<i64>,
    /// Most tasks of a job at the same time (default: as many as replicas)
    #[arg(long, value_name = "N")]
    pub max_concurrent: Option<u64>,
    /// Move tasks to hosts with fewer as hosts come and go
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    pub rebalance: Option<bool>,
    /// Most tasks that --rebalance moves in a minute
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub rebalance_max_moves: Option<u64>,
    /// Number of tasks
    #[arg(long, value_name = "N")]
    pub replicas: Option<u64>,
    /// Most tasks on one host; 0 for no limit
    #[arg(long, value_name = "N")]
    pub replicas_max_per_node: Option<u64>,
    /// Processors that must be free on a host for a task
    #[arg(long, value_name = "NUMBER", value_parser = processors)]
    pub reserve_cpu: Option<i64>,
    /// Memory that must be free on a host for a task
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub reserve_memory: Option<i64>,
    /// When to restart a task: none, on-failure or any (default any)
    #[arg(long, value_name = "CONDITION")]
    pub restart_condition: Option<String>,
    /// Wait this long before a restart (default 5s)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub restart_delay: Option<i64>,
    /// Give up after this many restarts
    #[arg(long, value_name = "N")]
    pub restart_max_attempts: Option<u64>,
    /// Count only restarts of the last while
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub restart_window: Option<i64>,
    /// Wait this long between two tasks of a rollback
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub rollback_delay: Option<i64>,
    /// What a failing rollback does: pause or continue (default pause)
    #[arg(long, value_name = "ACTION")]
    pub rollback_failure_action: Option<String>,
    /// Part of the tasks that may fail during a rollback
    #[arg(long, value_name = "RATIO", value_parser = ratio)]
    pub rollback_max_failure_ratio: Option<f64>,
    /// Watch each new task of a rollback for this long (default 5s)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub rollback_monitor: Option<i64>,
    /// stop-first or start-first (default stop-first)
    #[arg(long, value_name = "ORDER")]
    pub rollback_order: Option<String>,
    /// Tasks rolled back at the same time; 0 for all (default 1)
    #[arg(long, value_name = "N")]
    pub rollback_parallelism: Option<u64>,
    /// Wait this long between two tasks of an update
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub update_delay: Option<i64>,
    /// What a failing update does: pause, continue or rollback (default pause)
    #[arg(long, value_name = "ACTION")]
    pub update_failure_action: Option<String>,
    /// Part of the tasks that may fail during an update
    #[arg(long, value_name = "RATIO", value_parser = ratio)]
    pub update_max_failure_ratio: Option<f64>,
    /// Watch each new task of an update for this long (default 5s)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub update_monitor: Option<i64>,
    /// stop-first or start-first (default stop-first)
    #[arg(long, value_name = "ORDER")]
    pub update_order: Option<String>,
    /// Tasks updated at the same time; 0 for all (default 1)
    #[arg(long, value_name = "N")]
    pub update_parallelism: Option<u64>,
    /// A new task that is not healthy by then has failed
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub update_progress_deadline: Option<i64>,
}

/// The six settings of an update or of a rollback.
struct Rolling<'a> {
    parallelism: Option<u64>,
    delay: Option<i64>,
    action: Option<&'a String>,
    monitor: Option<i64>,
    ratio: Option<f64>,
    order: Option<&'a String>,
}

impl PolicyFlags {
    /// Edits a service's specification; only what was given is changed.
    pub fn apply(&self, spec: &mut Value) {
        for (part, field, number) in [
            ("Limits", "NanoCPUs", self.limit_cpu),
            ("Limits", "MemoryBytes", self.limit_memory),
            ("Limits", "Pids", self.limit_pids),
            ("Reservations", "NanoCPUs", self.reserve_cpu),
            ("Reservations", "MemoryBytes", self.reserve_memory),
        ] {
            if let Some(number) = number {
                put(
                    spec,
                    &["TaskTemplate", "Resources", part, field],
                    json!(number),
                );
            }
        }
        if let Some(number) = self.replicas_max_per_node {
            put(
                spec,
                &["TaskTemplate", "Placement", "MaxReplicas"],
                json!(number),
            );
        }
        if let Some(mode) = &self.endpoint_mode {
            put(spec, &["EndpointSpec", "Mode"], json!(mode.to_lowercase()));
        }
        self.restart(spec);
        rolling(spec, "UpdateConfig", &self.update());
        rolling(spec, "RollbackConfig", &self.rollback());
        self.labels(spec);
    }

    /// True when any flag of an update or a rollback was given.
    pub fn is_about_updates(&self) -> bool {
        self.update().given() || self.rollback().given()
    }

    fn restart(&self, spec: &mut Value) {
        let times = [
            ("Delay", self.restart_delay.map(|n| json!(n))),
            ("MaxAttempts", self.restart_max_attempts.map(|n| json!(n))),
            ("Window", self.restart_window.map(|n| json!(n))),
        ];
        if self.restart_condition.is_none() && times.iter().all(|(_, value)| value.is_none()) {
            return;
        }
        let policy = at(spec, &["TaskTemplate", "RestartPolicy"]);
        if !policy.is_object() {
            *policy = json!({"Condition": "any", "Delay": 5_000_000_000_i64, "MaxAttempts": 0});
        }
        if let Some(condition) = &self.restart_condition {
            put(policy, &["Condition"], json!(condition));
        }
        for (field, value) in times {
            if let Some(value) = value {
                object(policy).insert(field.to_owned(), value);
            }
        }
    }

    fn update(&self) -> Rolling<'_> {
        Rolling {
            parallelism: self.update_parallelism,
            delay: self.update_delay,
            action: self.update_failure_action.as_ref(),
            monitor: self.update_monitor,
            ratio: self.update_max_failure_ratio,
            order: self.update_order.as_ref(),
        }
    }

    fn rollback(&self) -> Rolling<'_> {
        Rolling {
            parallelism: self.rollback_parallelism,
            delay: self.rollback_delay,
            action: self.rollback_failure_action.as_ref(),
            monitor: self.rollback_monitor,
            ratio: self.rollback_max_failure_ratio,
            order: self.rollback_order.as_ref(),
        }
    }

    /// What Docker's specification has no field for travels as labels, so that every client keeps it.
    fn labels(&self, spec: &mut Value) {
        let depends = (!self.depends_on.is_empty()).then(|| {
            let names: Vec<&str> = self.depends_on.iter().map(String::as_str).collect();
            names.join(",").trim_matches(',').to_owned()
        });
        let rebalance = self
            .rebalance
            .map(|on| if on { "true" } else { "" }.to_owned());
        for (label, text) in [
            ("overnet.drain-timeout", self.drain_timeout.map(go_duration)),
            (
                "overnet.update.progress-deadline",
                self.update_progress_deadline.map(go_duration),
            ),
            ("overnet.rebalance", rebalance),
            (
                "overnet.rebalance.max-moves-per-minute",
                self.rebalance_max_moves.map(|n| n.to_string()),
            ),
            ("overnet.depends-on", depends),
        ] {
            if let Some(text) = text {
                put(spec, &["Labels", label], json!(text));
            }
        }
    }
}

impl Rolling<'_> {
    fn given(&self) -> bool {
        self.parallelism.is_some()
            || self.delay.is_some()
            || self.action.is_some()
            || self.monitor.is_some()
            || self.ratio.is_some()
            || self.order.is_some()
    }
}

fn rolling(spec: &mut Value, name: &str, flags: &Rolling) {
    if !flags.given() {
        return;
    }
    let config = at(spec, &[name]);
    if !config.is_object() {
        *config = json!({
            "Parallelism": 1, "FailureAction": "pause", "Monitor": 5_000_000_000_i64,
            "MaxFailureRatio": 0, "Order": "stop-first",
        });
    }
    // Zero is a value of its own for these two: all at once, and no failure at all.
    if let Some(number) = flags.parallelism {
        object(config).insert("Parallelism".to_owned(), json!(number));
    }
    if let Some(ratio) = flags.ratio {
        object(config).insert("MaxFailureRatio".to_owned(), json!(ratio));
    }
    for (field, value) in [
        ("Delay", flags.delay.map(|n| json!(n))),
        ("FailureAction", flags.action.map(|t| json!(t))),
        ("Monitor", flags.monitor.map(|n| json!(n))),
        ("Order", flags.order.map(|t| json!(t))),
    ] {
        if let Some(value) = value {
            put(config, &[field], value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_flags_are_labels() {
        let mut spec = json!({"Labels": {"a": "1", "overnet.rebalance": "true"}});
        PolicyFlags {
            drain_timeout: Some(30_000_000_000),
            update_progress_deadline: Some(90_000_000_000),
            rebalance: Some(false),
            rebalance_max_moves: Some(3),
            depends_on: vec!["db:healthy".to_owned(), "cache".to_owned()],
            ..PolicyFlags::default()
        }
        .apply(&mut spec);
        assert_eq!(
            spec["Labels"],
            json!({
                "a": "1", "overnet.drain-timeout": "30s", "overnet.update.progress-deadline": "1m30s",
                "overnet.rebalance.max-moves-per-minute": "3", "overnet.depends-on": "db:healthy,cache",
            })
        );
        PolicyFlags {
            depends_on: vec![String::new()],
            drain_timeout: Some(0),
            ..PolicyFlags::default()
        }
        .apply(&mut spec);
        assert!(spec["Labels"].get("overnet.depends-on").is_none());
        assert_eq!(spec["Labels"]["overnet.drain-timeout"], "0s");
    }

    #[test]
    fn a_part_that_exists_is_edited_and_a_new_one_has_defaults() {
        let mut spec = json!({"UpdateConfig": {"Parallelism": 4, "Delay": 9}});
        PolicyFlags {
            update_delay: Some(0),
            update_parallelism: Some(0),
            rollback_order: Some("start-first".to_owned()),
            limit_cpu: Some(0),
            ..PolicyFlags::default()
        }
        .apply(&mut spec);
        assert_eq!(
            spec,
            json!({
                "UpdateConfig": {"Parallelism": 0},
                "RollbackConfig": {"Parallelism": 1, "FailureAction": "pause", "Monitor": 5_000_000_000_i64, "MaxFailureRatio": 0, "Order": "start-first"},
            })
        );
    }
}
