//! The flags of a service's container that `service create` and `service update` share.

use clap::Args;
use serde_json::{Value, json};

use super::edit::{at, edit_texts, object, put, texts};
use super::value::{Words, duration, shell_words};
use crate::flags::{boolean, pairs};

/// What runs in a task, as far as a flag sets one value.
#[derive(Args, Debug, Default, PartialEq)]
pub struct ContainerFlags {
    /// Add a Linux capability, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_add: Vec<String>,
    /// Drop a Linux capability, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_drop: Vec<String>,
    /// Refused: credential specs are for Windows containers
    #[arg(long, value_name = "SPEC", hide = true)]
    pub credential_spec: Option<String>,
    /// Run this instead of the image's entrypoint
    #[arg(long, value_name = "COMMAND", value_parser = shell_words)]
    pub entrypoint: Option<Words>,
    /// Shell command that tells whether a task is healthy
    #[arg(long, value_name = "COMMAND")]
    pub health_cmd: Option<String>,
    /// Time between two checks
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub health_interval: Option<i64>,
    /// Failures in a row that make a task unhealthy
    #[arg(long, value_name = "N")]
    pub health_retries: Option<u32>,
    /// Time between two checks while it starts
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub health_start_interval: Option<i64>,
    /// Failures do not count for this long after the start
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub health_start_period: Option<i64>,
    /// A check that takes longer has failed
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub health_timeout: Option<i64>,
    /// Host name inside the container; a template such as '{{.Node.Hostname}}-{{.Task.Slot}}' is allowed
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Run a small init as process 1 that reaps zombies
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    pub init: Option<bool>,
    /// Isolation of the container; on Linux only default
    #[arg(long, value_name = "NAME")]
    pub isolation: Option<String>,
    /// Logging driver
    #[arg(long, value_name = "NAME")]
    pub log_driver: Option<String>,
    /// Option of the logging driver
    #[arg(long, value_name = "KEY=VALUE")]
    pub log_opt: Vec<String>,
    /// Switch the image's health check off
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    pub no_healthcheck: Option<bool>,
    /// Preference for being killed when memory runs out, -1000 to 1000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(-1000..=1000))]
    pub oom_score_adj: Option<i64>,
    /// Mount the root file system read-only
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    pub read_only: Option<bool>,
    /// Time from the stop signal to the kill (default 10s)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub stop_grace_period: Option<i64>,
    /// Signal that asks a task to stop
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// Give the container a terminal
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    pub tty: Option<bool>,
    /// User, by name or number, and group
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "PATH")]
    pub workdir: Option<String>,
}

/// Where a container's specification is within a service's.
pub const CONTAINER: [&str; 2] = ["TaskTemplate", "ContainerSpec"];

impl ContainerFlags {
    /// Edits a service's specification; only what was given is changed.
    pub fn apply(&self, spec: &mut Value) -> Result<(), String> {
        if self.credential_spec.is_some() {
            return Err("--credential-spec: credential specs are for Windows containers and the hosts here run Linux: leave the flag out".to_owned());
        }
        let container = at(spec, &CONTAINER);
        for (field, text) in [
            ("User", &self.user),
            ("Dir", &self.workdir),
            ("Hostname", &self.hostname),
            ("StopSignal", &self.stop_signal),
            ("Isolation", &self.isolation),
        ] {
            if let Some(text) = text {
                put(container, &[field], json!(text));
            }
        }
        for (field, on) in [("TTY", self.tty), ("ReadOnly", self.read_only)] {
            if let Some(on) = on {
                put(container, &[field], json!(on));
            }
        }
        // These are pointers in Docker's types: a false or a zero is said, not left out.
        if let Some(on) = self.init {
            object(container).insert("Init".to_owned(), json!(on));
        }
        if let Some(nanos) = self.stop_grace_period {
            object(container).insert("StopGracePeriod".to_owned(), json!(nanos));
        }
        if let Some(words) = &self.entrypoint {
            put(container, &["Command"], json!(words.0));
        }
        if let Some(score) = self.oom_score_adj {
            put(container, &["OomScoreAdj"], json!(score));
        }
        self.capabilities(container);
        self.health(container)?;
        if let Some(name) = self.log_driver.as_ref().filter(|name| !name.is_empty()) {
            let mut driver = json!({"Name": name});
            put(&mut driver, &["Options"], pairs(&self.log_opt));
            put(spec, &["TaskTemplate", "LogDriver"], driver);
        }
        Ok(())
    }

    /// Adding wins over dropping; dropping what was added before takes it back, and the other way round.
    fn capabilities(&self, container: &mut Value) {
        let (mut add, mut remove) = (full(&self.cap_add), full(&self.cap_drop));
        for (field, list) in [("CapabilityAdd", &mut add), ("CapabilityDrop", &mut remove)] {
            if list.iter().any(|name| name == "RESET") {
                list.retain(|name| name != "RESET");
                put(container, &[field], Value::Null);
            }
        }
        remove.retain(|name| !add.contains(name));
        // What an update adds may only have been dropped before, and then the two cancel out.
        let dropped = texts(container, &["CapabilityDrop"]);
        let added = texts(container, &["CapabilityAdd"]);
        let fresh = |list: &[String], other: &[String]| -> Vec<String> {
            list.iter()
                .filter(|name| !other.contains(name))
                .cloned()
                .collect()
        };
        edit_texts(
            container,
            &["CapabilityAdd"],
            &fresh(&add, &dropped),
            &remove,
        );
        edit_texts(
            container,
            &["CapabilityDrop"],
            &fresh(&remove, &added),
            &add,
        );
        // ALL covers every other.
        for field in ["CapabilityAdd", "CapabilityDrop"] {
            if texts(container, &[field]).iter().any(|name| name == "ALL") {
                put(container, &[field], json!(["ALL"]));
            }
        }
    }

    fn health(&self, container: &mut Value) -> Result<(), String> {
        let times = [
            ("Interval", self.health_interval),
            ("Timeout", self.health_timeout),
            ("StartPeriod", self.health_start_period),
            ("StartInterval", self.health_start_interval),
            ("Retries", self.health_retries.map(i64::from)),
        ];
        let any = self.health_cmd.is_some() || times.iter().any(|(_, value)| value.is_some());
        if self.no_healthcheck == Some(true) {
            if any {
                return Err("--no-healthcheck conflicts with --health-* options".to_owned());
            }
            put(container, &["Healthcheck"], json!({"Test": ["NONE"]}));
            return Ok(());
        }
        if !any && self.no_healthcheck.is_none() {
            return Ok(());
        }
        if texts(container, &["Healthcheck", "Test"]) == ["NONE"] {
            put(container, &["Healthcheck", "Test"], Value::Null);
        }
        if let Some(command) = &self.health_cmd {
            let test = if command.is_empty() {
                Value::Null
            } else {
                json!(["CMD-SHELL", command])
            };
            put(container, &["Healthcheck", "Test"], test);
        }
        for (field, value) in times {
            if let Some(value) = value {
                put(container, &["Healthcheck", field], json!(value));
            }
        }
        Ok(())
    }
}

/// `net_admin` to `CAP_NET_ADMIN`; ALL, which covers every other, and RESET stay.
fn full(names: &[String]) -> Vec<String> {
    let mut names: Vec<String> = names
        .iter()
        .map(|name| name.trim().to_uppercase())
        .filter(|name| !name.is_empty())
        .map(|name| match name.as_str() {
            "ALL" | "RESET" => name,
            _ if name.starts_with("CAP_") => name,
            _ => format!("CAP_{name}"),
        })
        .collect();
    names.sort();
    names.dedup();
    if names.iter().any(|name| name == "ALL") {
        names.retain(|name| name == "ALL" || name == "RESET");
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_added_dropped_and_taken_back() {
        let list =
            |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
        // Now added, now dropped, --cap-add, --cap-drop, then added, then dropped.
        let cases = [
            ("", "", "net_admin", "ALL", "CAP_NET_ADMIN", "ALL"),
            ("", "", "NET_ADMIN", "net_admin", "CAP_NET_ADMIN", ""),
            ("", "", "CHOWN ALL", "", "ALL", ""),
            ("CAP_CHOWN", "", "", "chown", "", ""),
            ("", "CAP_CHOWN", "chown", "", "", ""),
            ("CAP_CHOWN", "", "kill", "", "CAP_CHOWN CAP_KILL", ""),
            ("CAP_CHOWN", "CAP_KILL", "all", "", "ALL", "CAP_KILL"),
            ("CAP_CHOWN", "CAP_KILL", "", "all", "CAP_CHOWN", "ALL"),
            ("CAP_CHOWN", "CAP_KILL", "RESET", "", "", "CAP_KILL"),
            ("CAP_CHOWN", "CAP_KILL", "", "reset", "CAP_CHOWN", ""),
        ];
        for (had, lacked, add, remove, now, dropped) in cases {
            let flags = ContainerFlags {
                cap_add: list(add),
                cap_drop: list(remove),
                ..ContainerFlags::default()
            };
            let mut container = json!({"CapabilityAdd": list(had), "CapabilityDrop": list(lacked)});
            flags.capabilities(&mut container);
            let case = format!("{had}|{lacked}|{add}|{remove}");
            assert_eq!(texts(&container, &["CapabilityAdd"]), list(now), "{case}");
            assert_eq!(
                texts(&container, &["CapabilityDrop"]),
                list(dropped),
                "{case}"
            );
        }
    }

    #[test]
    fn a_health_check_is_edited() {
        let mut container = json!({"Healthcheck": {"Test": ["NONE"]}});
        let flags = ContainerFlags {
            health_cmd: Some("true".to_owned()),
            health_interval: Some(5),
            ..ContainerFlags::default()
        };
        flags.health(&mut container).unwrap();
        assert_eq!(
            container,
            json!({"Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5}})
        );
        let both = ContainerFlags {
            no_healthcheck: Some(true),
            ..flags
        };
        assert!(both.health(&mut container).is_err());
    }
}
