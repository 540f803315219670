//! `TaskTemplate.ContainerSpec`.

use serde_json::{Value as Json, json};

use super::{Cx, Fields, Kind, duration, environment, flag, grants, int, mounts, on, text, texts};
use crate::compose::merge::as_map;
use crate::compose::node::Node;
use crate::compose::problem::Problem;
use crate::compose::value;

/// The whole of it but the image.
pub fn container(
    cx: &mut Cx<'_>,
    service: &Node,
    image: &str,
    path: &str,
) -> Result<Json, Problem> {
    let mut spec = Fields::default();
    spec.put("Image", Some(image));
    spec.put("Labels", Some(environment::labels(cx, service, path)?));
    spec.put("Command", Some(words(service, "entrypoint", path)?));
    spec.put("Args", Some(words(service, "command", path)?));
    spec.put("Hostname", text(service, "hostname"));
    spec.put("Env", Some(environment::variables(cx, service, path)?));
    spec.put("Dir", text(service, "working_dir"));
    spec.put("User", text(service, "user"));
    spec.put("Groups", Some(texts(service.get("group_add"))));
    spec.put("Privileges", Some(privileges(cx, service, path)));
    spec.put("Init", service.get("init").map(|n| flag(Some(n))));
    spec.put("StopSignal", text(service, "stop_signal"));
    spec.put("TTY", on(service, "tty"));
    spec.put("OpenStdin", on(service, "stdin_open"));
    spec.put("ReadOnly", on(service, "read_only"));
    spec.put("Mounts", Some(mounts::mounts(cx, service, path)?));
    spec.put("StopGracePeriod", duration(service, "stop_grace_period"));
    spec.put("Healthcheck", Some(healthcheck(service, path)?));
    spec.put("Hosts", Some(hosts(service, path)?));
    let mut dns = Fields::default();
    dns.put("Nameservers", Some(texts(service.get("dns"))));
    dns.put("Search", Some(texts(service.get("dns_search"))));
    dns.put("Options", Some(texts(service.get("dns_opt"))));
    spec.put("DNSConfig", Some(dns.done()));
    spec.put(
        "Secrets",
        Some(grants::grants(cx, service, Kind::Secret, path)?),
    );
    spec.put(
        "Configs",
        Some(grants::grants(cx, service, Kind::Config, path)?),
    );
    spec.put("Isolation", text(service, "isolation"));
    spec.put(
        "Sysctls",
        Some(environment::pairs(
            service.get("sysctls"),
            "services.*.sysctls",
        )),
    );
    spec.put("CapabilityAdd", Some(capabilities(service, "cap_add")));
    spec.put("CapabilityDrop", Some(capabilities(service, "cap_drop")));
    spec.put("Ulimits", Some(ulimits(service, path)?));
    spec.put("OomScoreAdj", int(service, "oom_score_adj"));
    Ok(spec.done())
}

/// A command line as a list, or as text split as a shell does.
fn words(service: &Node, key: &str, path: &str) -> Result<Vec<String>, Problem> {
    match service.get(key) {
        Some(node) if node.is_list() => Ok(texts(Some(node))),
        Some(node) => value::words(node.text().unwrap_or_default())
            .map_err(|m| Problem::new(node.at, &format!("{path}.{key}"), m)),
        None => Ok(Vec::new()),
    }
}

fn healthcheck(service: &Node, path: &str) -> Result<Json, Problem> {
    let Some(node) = service.get("healthcheck") else {
        return Ok(Json::Null);
    };
    let test = match node.get("test") {
        Some(test) if test.is_list() => {
            let words = texts(Some(test));
            let first = words.first().map_or("", String::as_str);
            if !matches!(first, "NONE" | "CMD" | "CMD-SHELL" | "") {
                let message = format!("the list begins with {first:?}");
                return Err(
                    Problem::new(test.at, &format!("{path}.healthcheck.test"), message)
                        .help("begin it with NONE, CMD or CMD-SHELL, or write a text"),
                );
            }
            words
        }
        Some(test) => vec![
            "CMD-SHELL".to_owned(),
            test.text().unwrap_or_default().to_owned(),
        ],
        None => Vec::new(),
    };
    if flag(node.get("disable")) {
        if let Some(given) = node
            .get("test")
            .filter(|_| test.first().is_some_and(|t| t != "NONE"))
        {
            return Err(Problem::new(
                given.at,
                &format!("{path}.healthcheck.test"),
                "test and disable exclude one another",
            ));
        }
        return Ok(json!({"Test": ["NONE"]}));
    }
    let mut fields = Fields::default();
    fields.put("Test", Some(test));
    for (key, field) in [
        ("interval", "Interval"),
        ("timeout", "Timeout"),
        ("start_period", "StartPeriod"),
        ("start_interval", "StartInterval"),
    ] {
        fields.put(field, duration(node, key));
    }
    fields.put("Retries", int(node, "retries"));
    Ok(fields.done())
}

/// `ADDRESS NAME`, as /etc/hosts has it.
fn hosts(service: &Node, path: &str) -> Result<Vec<String>, Problem> {
    let Some(node) = service.get("extra_hosts") else {
        return Ok(Vec::new());
    };
    let mut hosts = Vec::new();
    for entry in as_map(node, "services.*.extra_hosts").entries() {
        let addresses = texts(Some(&entry.value));
        if addresses.is_empty() {
            let message = format!("{:?} has no address", entry.key);
            return Err(
                Problem::new(entry.at, &format!("{path}.extra_hosts"), message)
                    .help("write NAME=ADDRESS"),
            );
        }
        for address in addresses {
            let address = address.trim_matches(['[', ']']);
            if address != "host-gateway" && address.parse::<std::net::IpAddr>().is_err() {
                let message = format!("{address:?} is no IP address");
                return Err(Problem::new(
                    entry.at,
                    &format!("{path}.extra_hosts"),
                    message,
                ));
            }
            hosts.push(format!("{address} {}", entry.key));
        }
    }
    Ok(hosts)
}

/// `CAP_NET_ADMIN`, however it is written.
fn capabilities(service: &Node, key: &str) -> Vec<String> {
    let mut list: Vec<String> = texts(service.get(key))
        .into_iter()
        .map(|name| {
            let name = name.to_ascii_uppercase();
            if name == "ALL" || name.starts_with("CAP_") {
                name
            } else {
                format!("CAP_{name}")
            }
        })
        .collect();
    list.sort();
    list.dedup();
    list
}

fn ulimits(service: &Node, path: &str) -> Result<Vec<Json>, Problem> {
    let mut list = Vec::new();
    for entry in service
        .get("ulimits")
        .map(Node::entries)
        .unwrap_or_default()
    {
        let one = entry.value.text().and_then(|t| value::int(t).ok());
        let (soft, hard) = (
            one.or_else(|| int(&entry.value, "soft")),
            one.or_else(|| int(&entry.value, "hard")),
        );
        let (Some(soft), Some(hard)) = (soft, hard) else {
            let path = format!("{path}.ulimits.{}", entry.key);
            return Err(Problem::new(
                entry.at,
                &path,
                "soft and hard are both needed",
            ));
        };
        list.push(json!({"Name": entry.key, "Soft": soft, "Hard": hard}));
    }
    list.sort_by_key(|u| u["Name"].as_str().unwrap_or_default().to_owned());
    Ok(list)
}

fn privileges(cx: &mut Cx<'_>, service: &Node, path: &str) -> Json {
    let mut fields = Fields::default();
    if let Some(node) = service.get("credential_spec") {
        let mut spec = Fields::default();
        spec.put("Config", text(node, "config"))
            .put("File", text(node, "file"))
            .put("Registry", text(node, "registry"));
        fields.put("CredentialSpec", Some(spec.done()));
    }
    for option in service
        .get("security_opt")
        .map(Node::items)
        .unwrap_or_default()
    {
        let word = option.text().unwrap_or_default().replace(':', "=");
        match word.as_str() {
            "no-new-privileges" | "no-new-privileges=true" => { fields.put("NoNewPrivileges", Some(true)); }
            "no-new-privileges=false" => {}
            "seccomp=unconfined" => { fields.put("Seccomp", Some(json!({"Mode": "unconfined"}))); }
            "apparmor=unconfined" => { fields.put("AppArmor", Some(json!({"Mode": "disabled"}))); }
            other => cx.warn(option.at, format!("{path}.security_opt: {other} is ignored: a service of a cluster has no such setting")),
        }
    }
    fields.done()
}
