//! A service for people: `service inspect --pretty`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::commands::text;
use crate::output::units::{binary_size, go_duration};
use crate::output::when::since;

/// The page of one service; `networks` has names by id, `now` is in seconds since 1970.
pub fn pretty(service: &Value, networks: &BTreeMap<String, String>, now: i64) -> String {
    let spec = &service["Spec"];
    let mut page = Page(vec![
        String::new(),
        format!("ID:\t\t{}", text(service, "/ID")),
        format!("Name:\t\t{}", text(spec, "/Name")),
    ]);
    page.map("Labels:", &spec["Labels"]);
    mode(&mut page, &spec["Mode"]);
    update_status(&mut page, &service["UpdateStatus"], now);
    placement(&mut page, &spec["TaskTemplate"]["Placement"]);
    rolling(&mut page, "UpdateConfig", "Update", &spec["UpdateConfig"]);
    rolling(
        &mut page,
        "RollbackConfig",
        "Rollback",
        &spec["RollbackConfig"],
    );
    container(&mut page, &spec["TaskTemplate"]["ContainerSpec"]);
    log_driver(&mut page, &spec["TaskTemplate"]["LogDriver"]);
    resources(&mut page, &spec["TaskTemplate"]["Resources"]);
    let attached: Vec<&str> = entries(&spec["TaskTemplate"]["Networks"])
        .iter()
        .map(|network| text(network, "/Target"))
        .map(|id| networks.get(id).map_or(id, String::as_str))
        .collect();
    if !attached.is_empty() {
        page.say(format!("Networks: {} ", attached.join(" ")));
    }
    page.say(format!(
        "Endpoint Mode:\t{}",
        text(spec, "/EndpointSpec/Mode")
    ));
    ports(&mut page, &service["Endpoint"]["Ports"]);
    health(
        &mut page,
        &spec["TaskTemplate"]["ContainerSpec"]["Healthcheck"],
    );
    page.0.join("\n") + "\n\n"
}

struct Page(Vec<String>);

impl Page {
    fn say(&mut self, line: impl Into<String>) {
        self.0.push(line.into());
    }

    /// A heading and one `KEY=VALUE` a line; nothing for an empty map.
    fn map(&mut self, heading: &str, map: &Value) {
        let pairs = sorted(map);
        if !pairs.is_empty() {
            self.say(heading);
        }
        for (key, value) in pairs {
            let value = value.as_str().unwrap_or_default();
            let equals = if value.is_empty() { "" } else { "=" };
            self.say(format!(" {key}{equals}{value}"));
        }
    }
}

fn entries(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn sorted(map: &Value) -> Vec<(&String, &Value)> {
    let mut pairs: Vec<_> = map.as_object().into_iter().flatten().collect();
    pairs.sort_by_key(|(key, _)| *key);
    pairs
}

fn number(value: &Value, field: &str) -> i64 {
    value[field].as_i64().unwrap_or(0)
}

fn words(value: &Value) -> Vec<&str> {
    entries(value).iter().filter_map(Value::as_str).collect()
}

fn mode(page: &mut Page, mode: &Value) {
    let part = |name: &str| mode.get(name).filter(|part| !part.is_null());
    if part("Global").is_some() {
        page.say("Service Mode:\tGlobal");
    } else if part("GlobalJob").is_some() {
        page.say("Service Mode:\tGlobalJob");
    } else if let Some(replicated) = part("Replicated") {
        page.say("Service Mode:\tReplicated");
        if replicated["Replicas"].is_u64() {
            page.say(format!(" Replicas:\t{}", replicated["Replicas"]));
        }
    } else if let Some(job) = part("ReplicatedJob") {
        page.say("Service Mode:\tReplicatedJob");
        page.say(format!(
            " Max Concurrent:\t{}",
            number(job, "MaxConcurrent")
        ));
        page.say(format!(
            " Total Completions:\t{}",
            number(job, "TotalCompletions")
        ));
    } else {
        page.say("Service Mode:");
    }
}

fn update_status(page: &mut Page, status: &Value, now: i64) {
    let state = text(status, "/State");
    if state.is_empty() {
        return;
    }
    page.say("UpdateStatus:");
    page.say(format!(" State:\t\t{state}"));
    for (label, field, shown) in [
        ("Started:\t", "/StartedAt", true),
        ("Completed:\t", "/CompletedAt", state == "completed"),
    ] {
        let when = since(text(status, field), now);
        if shown && !when.is_empty() {
            page.say(format!(" {label}{when}"));
        }
    }
    page.say(format!(" Message:\t{}", text(status, "/Message")));
}

fn placement(page: &mut Page, placement: &Value) {
    page.say("Placement:");
    let constraints = words(&placement["Constraints"]);
    if !constraints.is_empty() {
        page.say(format!(" Constraints:\t[{}]", constraints.join(" ")));
    }
    let preferences: Vec<String> = entries(&placement["Preferences"])
        .iter()
        .map(|p| format!("spread={}", text(p, "/Spread/SpreadDescriptor")))
        .collect();
    if !preferences.is_empty() {
        page.say(format!(" Preferences:   [{}]", preferences.join(" ")));
    }
    if number(placement, "MaxReplicas") > 0 {
        page.say(format!(
            " Max Replicas Per Node:   {}",
            placement["MaxReplicas"]
        ));
    }
}

fn rolling(page: &mut Page, heading: &str, word: &str, config: &Value) {
    if !config.is_object() {
        return;
    }
    page.say(format!("{heading}:"));
    page.say(format!(" Parallelism:\t{}", number(config, "Parallelism")));
    if number(config, "Delay") > 0 {
        page.say(format!(
            " Delay:\t\t{}",
            go_duration(number(config, "Delay"))
        ));
    }
    page.say(format!(" On failure:\t{}", text(config, "/FailureAction")));
    if number(config, "Monitor") > 0 {
        page.say(format!(
            " Monitoring Period: {}",
            go_duration(number(config, "Monitor"))
        ));
    }
    let ratio = config["MaxFailureRatio"].as_f64().unwrap_or(0.0);
    page.say(format!(" Max failure ratio: {ratio}"));
    let label = format!("{word} order:");
    page.say(format!(" {label:<18} {}", text(config, "/Order")));
}

fn container(page: &mut Page, container: &Value) {
    page.say("ContainerSpec:");
    page.say(format!(" Image:\t\t{}", text(container, "/Image")));
    for (label, field) in [("Args:\t\t", "Args"), ("Env:\t\t", "Env")] {
        let list = words(&container[field]);
        if !list.is_empty() {
            page.say(format!(" {label}{} ", list.join(" ")));
        }
    }
    if !text(container, "/Dir").is_empty() {
        page.say(format!(" Dir:\t\t{}", text(container, "/Dir")));
    }
    if let Some(init) = container["Init"].as_bool() {
        page.say(format!(" Init:\t\t{init}"));
    }
    if !text(container, "/User").is_empty() {
        page.say(format!(" User: {}", text(container, "/User")));
    }
    let (add, remove) = (
        words(&container["CapabilityAdd"]),
        words(&container["CapabilityDrop"]),
    );
    if !add.is_empty() || !remove.is_empty() {
        page.say("Capabilities:");
    }
    for (label, list) in [("Add", add), ("Drop", remove)] {
        if !list.is_empty() {
            page.say(format!(" {label}: {}", list.join(", ")));
        }
    }
    let parameters = sorted(&container["Sysctls"]);
    if !parameters.is_empty() {
        page.say("SysCtls:");
    }
    for (key, value) in parameters {
        page.say(format!(" {key}: {}", value.as_str().unwrap_or_default()));
    }
    let limits = entries(&container["Ulimits"]);
    if !limits.is_empty() {
        page.say("Ulimits:");
    }
    for limit in limits {
        let (soft, hard) = (number(limit, "Soft"), number(limit, "Hard"));
        page.say(format!(" {}: {soft}:{hard}", text(limit, "/Name")));
    }
    let mounts = entries(&container["Mounts"]);
    if !mounts.is_empty() {
        page.say("Mounts:");
    }
    for mount in mounts {
        page.say(format!(" Target:\t{}", text(mount, "/Target")));
        page.say(format!("  Source:\t{}", text(mount, "/Source")));
        let read_only = mount["ReadOnly"].as_bool().unwrap_or(false);
        page.say(format!("  ReadOnly:\t{read_only}"));
        page.say(format!("  Type:\t\t{}", text(mount, "/Type")));
    }
    for (heading, name) in [("Configs", "/ConfigName"), ("Secrets", "/SecretName")] {
        let list = entries(&container[heading]);
        if !list.is_empty() {
            page.say(format!("{heading}:"));
        }
        for reference in list {
            page.say(format!(" Target:\t{}", text(reference, "/File/Name")));
            page.say(format!("  Source:\t{}", text(reference, name)));
        }
    }
}

fn log_driver(page: &mut Page, driver: &Value) {
    if !driver.is_object() {
        return;
    }
    page.say("Log Driver:");
    if !text(driver, "/Name").is_empty() {
        page.say(format!(" Name:\t\t{}", text(driver, "/Name")));
    }
    let options = sorted(&driver["Options"]);
    if !options.is_empty() {
        page.say(" LogOpts:");
    }
    for (key, value) in options {
        page.say(format!(
            "  {key}:       {}",
            value.as_str().unwrap_or_default()
        ));
    }
    page.say("");
}

fn resources(page: &mut Page, resources: &Value) {
    if !resources.is_object() {
        return;
    }
    page.say("Resources:");
    for (heading, field) in [("Reservations", "Reservations"), ("Limits", "Limits")] {
        let part = &resources[field];
        let (cpu, memory, pids) = (
            number(part, "NanoCPUs"),
            number(part, "MemoryBytes"),
            number(part, "Pids"),
        );
        if cpu <= 0 && memory <= 0 && pids <= 0 {
            continue;
        }
        page.say(format!(" {heading}:"));
        if cpu > 0 {
            page.say(format!("  CPU:\t\t{}", cpu as f64 / 1e9));
        }
        if memory > 0 {
            page.say(format!("  Memory:\t{}", binary_size(memory as f64)));
        }
        if pids > 0 {
            page.say(format!("  PIDs:\t\t{pids}"));
        }
    }
}

fn ports(page: &mut Page, ports: &Value) {
    let list = entries(ports);
    if list.is_empty() {
        return;
    }
    page.say("Ports:");
    for port in list {
        page.say(format!(
            " PublishedPort = {}",
            number(port, "PublishedPort")
        ));
        page.say(format!("  Protocol = {}", text(port, "/Protocol")));
        page.say(format!("  TargetPort = {}", number(port, "TargetPort")));
        page.say(format!("  PublishMode = {}", text(port, "/PublishMode")));
    }
}

fn health(page: &mut Page, health: &Value) {
    if !health.is_object() {
        return;
    }
    let time = |field: &str| go_duration(number(health, field));
    page.say(" Healthcheck:");
    page.say(format!("  Interval = {}", time("Interval")));
    page.say(format!("  Retries = {}", number(health, "Retries")));
    page.say(format!("  StartPeriod =\t{}", time("StartPeriod")));
    page.say(format!("  Timeout =\t{}", time("Timeout")));
    let tests = words(&health["Test"]);
    if !tests.is_empty() {
        page.say("  Tests:");
    }
    for test in tests {
        page.say(format!("\t Test = {test}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_page() {
        let service = json!({
            "ID": "svc1",
            "Spec": {
                "Name": "web", "Labels": {"b": "", "a": "1"},
                "TaskTemplate": {
                    "ContainerSpec": {
                        "Image": "a:1", "Args": ["x", "y"], "Env": ["A=1"], "Init": false, "User": "me", "Dir": "/w",
                        "Mounts": [{"Type": "volume", "Source": "v", "Target": "/d"}],
                        "Secrets": [{"File": {"Name": "pw"}, "SecretName": "pw-1"}],
                        "CapabilityAdd": ["CAP_CHOWN"], "Sysctls": {"k": "1"}, "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
                        "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 2_000_000_000_i64},
                    },
                    "Resources": {"Limits": {"NanoCPUs": 500_000_000, "Pids": 7}, "Reservations": {"MemoryBytes": 33_554_432}},
                    "Placement": {"Constraints": ["node.role==worker"], "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.dc"}}], "MaxReplicas": 2},
                    "Networks": [{"Target": "net1"}], "LogDriver": {"Name": "local", "Options": {"max-size": "1m"}},
                },
                "Mode": {"Replicated": {"Replicas": 2}},
                "UpdateConfig": {"Parallelism": 1, "FailureAction": "pause", "Monitor": 5_000_000_000_i64, "MaxFailureRatio": 0.1, "Order": "stop-first"},
                "EndpointSpec": {"Mode": "vip"},
            },
            "Endpoint": {"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"}]},
            "UpdateStatus": {"State": "completed", "StartedAt": "2023-11-14T22:13:20Z", "CompletedAt": "2023-11-14T22:14:20Z", "Message": "update completed"},
        });
        let names = BTreeMap::from([("net1".to_owned(), "ch03".to_owned())]);
        let page = pretty(&service, &names, 1_700_000_300).replace('\t', "→");
        insta::assert_snapshot!(page, @r"
        ID:→→svc1
        Name:→→web
        Labels:
         a=1
         b
        Service Mode:→Replicated
         Replicas:→2
        UpdateStatus:
         State:→→completed
         Started:→5 minutes ago
         Completed:→4 minutes ago
         Message:→update completed
        Placement:
         Constraints:→[node.role==worker]
         Preferences:   [spread=node.labels.dc]
         Max Replicas Per Node:   2
        UpdateConfig:
         Parallelism:→1
         On failure:→pause
         Monitoring Period: 5s
         Max failure ratio: 0.1
         Update order:      stop-first
        ContainerSpec:
         Image:→→a:1
         Args:→→x y 
         Env:→→A=1 
         Dir:→→/w
         Init:→→false
         User: me
        Capabilities:
         Add: CAP_CHOWN
        SysCtls:
         k: 1
        Ulimits:
         nofile: 1:2
        Mounts:
         Target:→/d
          Source:→v
          ReadOnly:→false
          Type:→→volume
        Secrets:
         Target:→pw
          Source:→pw-1
        Log Driver:
         Name:→→local
         LogOpts:
          max-size:       1m

        Resources:
         Reservations:
          Memory:→32MiB
         Limits:
          CPU:→→0.5
          PIDs:→→7
        Networks: ch03 
        Endpoint Mode:→vip
        Ports:
         PublishedPort = 8080
          Protocol = tcp
          TargetPort = 80
          PublishMode = ingress
         Healthcheck:
          Interval = 2s
          Retries = 0
          StartPeriod =→0s
          Timeout =→0s
          Tests:
        → Test = CMD-SHELL
        → Test = true
        ");
    }
}
