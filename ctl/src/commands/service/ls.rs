//! `service ls`, and the rows that `stack services` shows too.

use clap::Args;
use serde_json::{Value, json};

use super::with_status;
use crate::commands::{ListFlags, natural_key, text};
use crate::failure::Failure;
use crate::flags::Filters;
use crate::output::Listing;
use crate::output::table::short_id;
use crate::session::Session;

/// List services
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ovnctl service ls\n  ovnctl service ls --filter name=echo --format '{{.Name}} {{.Replicas}}'\n  ovnctl service ls -f mode=global -f label=tier=front -q"
)]
pub struct LsArgs {
    #[command(flatten)]
    list: ListFlags,
}

/// The columns of service lists.
pub const SERVICES: Listing = Listing {
    columns: "{{.ID}}\t{{.Name}}\t{{.Mode}}\t{{.Replicas}}\t{{.Image}}\t{{.Ports}}",
    headings: &[
        ("ID", "ID"),
        ("Name", "NAME"),
        ("Mode", "MODE"),
        ("Replicas", "REPLICAS"),
        ("Image", "IMAGE"),
        ("Ports", "PORTS"),
    ],
    quiet: "{{.ID}}",
};

/// `service ls`.
pub async fn ls(session: &Session, args: LsArgs) -> Result<(), Failure> {
    let filters = Filters::parse(&args.list.filter)?;
    let call = session.client().await?.get("/services").filters(&filters);
    let services = if args.list.quiet {
        call.value().await?
    } else {
        with_status(session, call.query("status", "true").value().await?).await?
    };
    let format = session.format(
        args.list.format.as_deref(),
        "servicesFormat",
        args.list.quiet,
    )?;
    session.print(&SERVICES.render(&rows(&services), format.as_deref(), args.list.quiet)?)
}

/// The rows of a service list, sorted by name as people count; services need their `ServiceStatus`.
pub fn rows(services: &Value) -> Vec<Value> {
    let mut services: Vec<&Value> = services.as_array().into_iter().flatten().collect();
    services.sort_by_cached_key(|service| natural_key(text(service, "/Spec/Name")));
    services
        .into_iter()
        .map(|service| {
            let image = text(service, "/Spec/TaskTemplate/ContainerSpec/Image");
            json!({
                "ID": short_id(text(service, "/ID")),
                "Name": text(service, "/Spec/Name"),
                "Mode": mode(service),
                "Replicas": replicas(service),
                "Image": shown_image(image),
                "Ports": ports(&service["Endpoint"]["Ports"]),
            })
        })
        .collect()
}

/// Without the digest, unless there is no tag.
pub fn shown_image(image: &str) -> &str {
    match image.split_once('@') {
        Some((name, _))
            if name
                .rsplit('/')
                .next()
                .is_some_and(|last| last.contains(':')) =>
        {
            name
        }
        _ => image,
    }
}

fn mode(service: &Value) -> &'static str {
    let has = |name: &str| {
        let part = service["Spec"]["Mode"].get(name);
        part.is_some_and(|mode| !mode.is_null())
    };
    match () {
        () if has("Global") => "global",
        () if has("Replicated") => "replicated",
        () if has("ReplicatedJob") => "replicated job",
        () if has("GlobalJob") => "global job",
        () => "",
    }
}

fn replicas(service: &Value) -> String {
    let number = |pointer: &str| {
        service
            .pointer(pointer)
            .and_then(Value::as_u64)
            .unwrap_or(0)
    };
    let running = number("/ServiceStatus/RunningTasks");
    let desired = number("/ServiceStatus/DesiredTasks");
    let completed = number("/ServiceStatus/CompletedTasks");
    match mode(service) {
        "replicated job" => {
            let total = number("/Spec/Mode/ReplicatedJob/TotalCompletions");
            format!("{running}/{desired} ({completed}/{total} completed)")
        }
        "global job" => {
            let total = desired + completed;
            format!("{running}/{desired} ({completed}/{total} completed)")
        }
        mode => match number("/Spec/TaskTemplate/Placement/MaxReplicas") {
            most if most > 0 && mode == "replicated" => {
                format!("{running}/{desired} (max {most} per node)")
            }
            _ => format!("{running}/{desired}"),
        },
    }
}

/// Ports of the ingress network; neighbours are merged, `*:80-81->80-81/tcp`.
fn ports(ports: &Value) -> String {
    struct Span {
        protocol: String,
        outside: (u64, u64),
        inside: (u64, u64),
    }
    let number = |port: &Value, field: &str| port[field].as_u64().unwrap_or(0);
    let mut list: Vec<&Value> = ports
        .as_array()
        .into_iter()
        .flatten()
        .filter(|port| text(port, "/PublishMode") != "host")
        .filter(|port| number(port, "PublishedPort") > 0)
        .collect();
    list.sort_by_key(|port| (text(port, "/Protocol"), number(port, "PublishedPort")));
    let mut spans: Vec<Span> = Vec::new();
    for port in list {
        let (outside, inside) = (number(port, "PublishedPort"), number(port, "TargetPort"));
        let protocol = text(port, "/Protocol");
        let grows = spans.last_mut().filter(|span| {
            let follows = outside == span.outside.1 + 1;
            let one_target = span.inside.0 == span.inside.1 && inside == span.inside.1;
            let next_target = inside == span.inside.1 + 1
                && span.outside.1 - span.outside.0 == span.inside.1 - span.inside.0;
            span.protocol == protocol && follows && (one_target || next_target)
        });
        match grows {
            Some(span) => {
                span.outside.1 = outside;
                span.inside.1 = inside;
            }
            None => spans.push(Span {
                protocol: protocol.to_owned(),
                outside: (outside, outside),
                inside: (inside, inside),
            }),
        }
    }
    let range = |(low, high): (u64, u64)| {
        if low == high {
            low.to_string()
        } else {
            format!("{low}-{high}")
        }
    };
    let texts: Vec<String> = spans
        .iter()
        .map(|s| format!("*:{}->{}/{}", range(s.outside), range(s.inside), s.protocol))
        .collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, mode: Value, status: [u64; 3]) -> Value {
        json!({
            "ID": format!("{name:x<25}"),
            "Spec": {"Name": name, "Mode": mode, "TaskTemplate": {
                "ContainerSpec": {"Image": "registry:5000/example/echo:latest@sha256:00"}}},
            "ServiceStatus": {"RunningTasks": status[0], "DesiredTasks": status[1], "CompletedTasks": status[2]},
        })
    }

    #[test]
    fn the_table() {
        let mut web = service("echo", json!({"Replicated": {"Replicas": 6}}), [5, 6, 0]);
        web["Endpoint"] = json!({"Ports": [
            {"Protocol": "tcp", "TargetPort": 8080, "PublishedPort": 8000, "PublishMode": "ingress"},
            {"Protocol": "tcp", "TargetPort": 90, "PublishedPort": 90, "PublishMode": "host"}]});
        let mut packed = service("echo10", json!({"Replicated": {"Replicas": 2}}), [2, 2, 0]);
        packed["Spec"]["TaskTemplate"]["Placement"] = json!({"MaxReplicas": 1});
        let services = json!([
            packed,
            service("logs", json!({"Global": {}}), [4, 4, 0]),
            service(
                "job",
                json!({"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 10}}),
                [2, 2, 3]
            ),
            service("scan", json!({"GlobalJob": {}}), [1, 1, 3]),
            service("echo2", json!({"Replicated": {"Replicas": 0}}), [0, 0, 0]),
            web,
        ]);
        insta::assert_snapshot!(SERVICES.render(&rows(&services), None, false).unwrap(), @r"
        ID             NAME      MODE             REPLICAS               IMAGE                               PORTS
        echoxxxxxxxx   echo      replicated       5/6                    registry:5000/example/echo:latest   *:8000->8080/tcp
        echo2xxxxxxx   echo2     replicated       0/0                    registry:5000/example/echo:latest   
        echo10xxxxxx   echo10    replicated       2/2 (max 1 per node)   registry:5000/example/echo:latest   
        jobxxxxxxxxx   job       replicated job   2/2 (3/10 completed)   registry:5000/example/echo:latest   
        logsxxxxxxxx   logs      global           4/4                    registry:5000/example/echo:latest   
        scanxxxxxxxx   scan      global job       1/1 (3/4 completed)    registry:5000/example/echo:latest   
        ");
    }

    #[test]
    fn neighbours_are_merged() {
        let port = |outside: u64, inside: u64, protocol: &str| json!({"PublishedPort": outside, "TargetPort": inside, "Protocol": protocol, "PublishMode": "ingress"});
        let cases = [
            (
                vec![port(81, 80, "tcp"), port(80, 80, "tcp")],
                "*:80-81->80/tcp",
            ),
            (
                vec![port(80, 80, "tcp"), port(81, 81, "tcp")],
                "*:80-81->80-81/tcp",
            ),
            (
                vec![
                    port(80, 80, "tcp"),
                    port(81, 81, "tcp"),
                    port(82, 80, "tcp"),
                ],
                "*:80-81->80-81/tcp, *:82->80/tcp",
            ),
            (
                vec![port(53, 53, "udp"), port(53, 53, "tcp")],
                "*:53->53/tcp, *:53->53/udp",
            ),
            (vec![], ""),
        ];
        for (list, wanted) in cases {
            assert_eq!(ports(&Value::Array(list)), wanted);
        }
    }
}
