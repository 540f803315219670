//! What load balancers make of the API: the calls of Traefik's swarm provider (version 3), computed as it does,
//! and those of older clients. Whatever address comes out of that has to answer.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use ipnetwork::IpNetwork;
use serde_json::Value;
use tests::{Host, Lab, Options, wait};

const ECHO: &str = "registry:5000/example/echo:latest";
const TOOLBOX: &str = "registry:5000/example/toolbox";
const LIMIT: Duration = Duration::from_secs(60);
/// The provider negotiates the version; older ones ask for 1.24.
const VERSIONS: [&str; 3] = ["/v1.24", "/v1.44", ""];

#[test]
fn load_balancers_find_what_answers() {
    let lab = Lab::up(Options {
        workers: 2,
        ..Options::for_test("discovery")
    })
    .unwrap();
    let manager = lab.host("manager01");
    services(&manager);
    for version in VERSIONS {
        let found = Traefik::look(&manager, version);
        found.is_right();
        found.answers(&manager);
        older_clients(&lab, version);
    }
    lab.down().unwrap();
}

/// One for each way of being found, and one that has a task that does not run.
fn services(manager: &Host) {
    for (name, more) in [("front", "10.91.0.0/24"), ("back", "10.92.0.0/24")] {
        let words = "network create -d overlay --attachable --subnet";
        let words = words.split(' ').chain([more, name]);
        manager.docker(words).ok();
    }
    let port = "traefik.http.services.x.loadbalancer.server.port=8080";
    for flags in [
        "--name tasks --replicas 3 --network front --network back --label traefik.enable=true --label traefik.swarm.network=back",
        "--name vip --replicas 2 --network front --label traefik.swarm.lbswarm=true",
        "--name old --replicas 2 --network front --label traefik.docker.lbswarm=true",
        "--name rr --replicas 2 --network front --endpoint-mode dnsrr --label traefik.swarm.lbswarm=true",
        "--name everywhere --mode global --network back",
        "--name alone --replicas 1",
        "--name waits --replicas 1 --network front --constraint node.labels.nowhere==1",
    ] {
        let words = "service create -d --env SERVICE_PORTS=8080 --label"
            .split(' ')
            .chain([port]);
        let words: Vec<&str> = words.chain(flags.split(' ')).chain([ECHO]).collect();
        manager.docker(words).ok();
    }
    wait::until("all run", LIMIT, || {
        let listed = manager
            .docker(["service", "ls", "--format", "{{.Name}} {{.Replicas}}"])
            .ok();
        let done = [
            "tasks 3/3",
            "vip 2/2",
            "old 2/2",
            "rr 2/2",
            "everywhere 3/3",
            "alone 1/1",
            "waits 0/1",
        ];
        let all = done.iter().all(|line| listed.contains(line));
        all.then_some(()).ok_or(listed)
    });
    // What has ended is still listed, with another wish.
    manager
        .docker(["service", "update", "-d", "--force", "alone"])
        .ok();
    wait::until("one has ended", LIMIT, || {
        let listed = ["service", "ps", "alone", "--format", "{{.CurrentState}}"];
        let listed = manager.docker(listed).ok();
        let running = listed.lines().filter(|line| line.starts_with("Running"));
        let one = running.count() == 1 && listed.lines().count() == 2;
        one.then_some(()).ok_or(listed)
    });
}

fn ask(host: &Host, path: &str) -> Value {
    let answer = host.api("GET", path, b"").unwrap();
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

/// A filter as Go's client writes it.
fn filters(pairs: &[(&str, &str)]) -> String {
    let of = |(key, value): &(&str, &str)| {
        (
            (*key).to_owned(),
            BTreeMap::from([((*value).to_owned(), true)]),
        )
    };
    let map: BTreeMap<String, BTreeMap<String, bool>> = pairs.iter().map(of).collect();
    let text = serde_json::to_string(&map).unwrap();
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// The address in front of the prefix; both have to be there, as Go's parser has it.
fn address(text: &Value) -> IpAddr {
    let text = text.as_str().unwrap();
    assert!(text.contains('/'), "{text} has no prefix");
    text.parse::<IpNetwork>().unwrap().ip()
}

/// What a proxy sends requests to: service, network, address.
type Backend = (String, String, IpAddr);

struct Traefik(BTreeSet<Backend>);

impl Traefik {
    fn look(host: &Host, version: &str) -> Self {
        let services = ask(host, &format!("{version}/services"));
        let said = ask(host, &format!("{version}/version"));
        let spoken: Vec<u32> = said["ApiVersion"]
            .as_str()
            .unwrap()
            .split('.')
            .map(|part| part.parse().unwrap())
            .collect();
        assert!(
            spoken >= vec![1, 29],
            "it would ask for the networks of a driver: {spoken:?}"
        );
        let path = format!(
            "{version}/networks?filters={}",
            filters(&[("scope", "swarm")])
        );
        let networks = ask(host, &path);
        let networks: BTreeMap<&str, &str> =
            networks.as_array().unwrap().iter().map(network).collect();
        let mut backends = BTreeSet::new();
        for service in services.as_array().unwrap() {
            let spec = &service["Spec"];
            let name = spec["Name"].as_str().unwrap();
            let labels = spec["Labels"].as_object().unwrap();
            let is_set = |key: &str| labels.get(key).is_some_and(|value| value == "true");
            let balances = is_set("traefik.swarm.lbswarm") || is_set("traefik.docker.lbswarm");
            let mode = spec["EndpointSpec"]["Mode"].as_str().unwrap();
            if balances && mode == "vip" {
                for vip in service["Endpoint"]["VirtualIPs"].as_array().unwrap() {
                    let network = networks.get(vip["NetworkID"].as_str().unwrap());
                    if let Some(network) = network {
                        backends.insert((
                            name.to_owned(),
                            (*network).to_owned(),
                            address(&vip["Addr"]),
                        ));
                    }
                }
                continue;
            }
            let id = service["ID"].as_str().unwrap();
            let wanted = filters(&[("desired-state", "running"), ("service", id)]);
            let tasks = ask(host, &format!("{version}/tasks?filters={wanted}"));
            for task in tasks.as_array().unwrap() {
                assert_eq!(task["ServiceID"], id);
                assert_eq!(task["DesiredState"], "running");
                if task["Status"]["State"] != "running" {
                    continue;
                }
                let node = task["NodeID"].as_str().unwrap();
                let node = ask(host, &format!("{version}/nodes/{node}"));
                let at: Result<IpAddr, _> = node["Status"]["Addr"].as_str().unwrap().parse();
                assert!(at.is_ok(), "{}", node["Status"]);
                for attachment in task["NetworksAttachments"].as_array().into_iter().flatten() {
                    let network = networks.get(attachment["Network"]["ID"].as_str().unwrap());
                    let Some(network) = network else { continue };
                    assert_eq!(attachment["Network"]["Spec"]["Name"], **network);
                    for one in attachment["Addresses"].as_array().unwrap() {
                        backends.insert((name.to_owned(), (*network).to_owned(), address(one)));
                    }
                }
            }
        }
        Self(backends)
    }

    fn of(&self, service: &str, network: &str) -> Vec<IpAddr> {
        let of =
            |(name, on, address): &Backend| (name == service && on == network).then_some(*address);
        self.0.iter().filter_map(of).collect()
    }

    fn is_right(&self) {
        for (service, network, count) in [
            ("tasks", "front", 3),
            ("tasks", "back", 3),
            ("vip", "front", 1),
            ("old", "front", 1),
            ("rr", "front", 2),
            ("everywhere", "back", 3),
            ("waits", "front", 0),
            ("alone", "front", 0),
        ] {
            let found = self.of(service, network);
            assert_eq!(found.len(), count, "{service} on {network}: {:?}", self.0);
            let subnet: IpNetwork = match network {
                "front" => "10.91.0.0/24",
                _ => "10.92.0.0/24",
            }
            .parse()
            .unwrap();
            assert!(
                found.iter().all(|address| subnet.contains(*address)),
                "{found:?}"
            );
        }
        let services: BTreeSet<&str> = self.0.iter().map(|(name, ..)| &**name).collect();
        assert!(
            !services.contains("waits") && !services.contains("alone"),
            "{services:?}"
        );
    }

    /// Asked from a container on both networks, as the proxy is.
    fn answers(&self, host: &Host) {
        let urls: Vec<String> = self
            .0
            .iter()
            .map(|(.., address)| format!("http://{address}:8080"))
            .collect();
        let script = format!(
            "for url in {}; do curl -m 10 -s $url; echo; done",
            urls.join(" ")
        );
        host.docker([
            "create",
            "--name",
            "proxy",
            "--network",
            "front",
            TOOLBOX,
            "sh",
            "-c",
            &script,
        ])
        .ok();
        host.docker(["network", "connect", "back", "proxy"]).ok();
        let said = host.docker(["start", "-a", "proxy"]).ok();
        host.docker(["rm", "-f", "proxy"]).ok();
        let answers = said
            .lines()
            .filter(|line| *line == "Hello Docker!!")
            .count();
        assert_eq!(answers, urls.len(), "{said}");
    }
}

/// As newer clients read it: a gateway is an address without a prefix, a subnet has one.
fn network(network: &Value) -> (&str, &str) {
    assert_eq!(network["Scope"], "swarm");
    for part in network["IPAM"]["Config"].as_array().unwrap() {
        if let Some(gateway) = part.get("Gateway") {
            assert!(
                gateway.as_str().unwrap().parse::<IpAddr>().is_ok(),
                "{part}"
            );
        }
        address(&part["Subnet"]);
    }
    (
        network["Id"].as_str().unwrap(),
        network["Name"].as_str().unwrap(),
    )
}

/// HAProxy's discovery (docker-py 1.10) asks the host where it runs for its own container by the beginning of
/// the id, and lists in filters; the visualizer walks through every list.
fn older_clients(lab: &Lab, version: &str) {
    let manager = lab.host("manager01");
    let listed = |path: &str| {
        let value = ask(&manager, &format!("{version}{path}"));
        let nulls = nulls(&value, path);
        assert!(nulls.is_empty(), "{version}: null at {nulls:?}");
        value
    };
    let services = listed("/services");
    let nodes = listed("/nodes");
    let running = listed("/tasks?filters=%7B%22desired-state%22%3A%20%5B%22running%22%5D%7D");
    assert!(listed("/tasks").as_array().unwrap().len() > running.as_array().unwrap().len());
    assert_eq!(nodes.as_array().unwrap().len(), 3);
    assert_eq!(services.as_array().unwrap().len(), 7);
    for service in services.as_array().unwrap() {
        assert!(service["Spec"]["Labels"].is_object(), "{service}");
    }
    let tasks = running.as_array().unwrap();
    assert_eq!(tasks.len(), 3 + 2 + 2 + 2 + 3 + 1 + 1);
    for task in tasks {
        let env = &task["Spec"]["ContainerSpec"]["Env"];
        assert_eq!(env[0], "SERVICE_PORTS=8080", "{task}");
        let placed = task["NodeID"].is_string();
        let container = &task["Status"]["ContainerStatus"]["ContainerID"];
        assert_eq!(container.is_string(), placed, "{task}");
        if !placed || task["Status"]["State"] != "running" {
            continue;
        }
        let node = nodes
            .as_array()
            .unwrap()
            .iter()
            .find(|node| node["ID"] == task["NodeID"]);
        let host = lab.host(node.unwrap()["Description"]["Hostname"].as_str().unwrap());
        let short = &container.as_str().unwrap()[..12];
        let own = ask(&host, &format!("{version}/containers/{short}/json"));
        assert_eq!(own["Config"]["Hostname"], short);
        assert_eq!(
            own["Config"]["Labels"]["com.docker.swarm.service.id"],
            task["ServiceID"]
        );
        assert!(
            own["HostConfig"]["Links"]
                .as_array()
                .is_none_or(Vec::is_empty),
            "{own}"
        );
        let ids = own["NetworkSettings"]["Networks"]
            .as_object()
            .unwrap()
            .values();
        let ids: BTreeSet<&str> = ids
            .filter_map(|network| network["NetworkID"].as_str())
            .collect();
        for attachment in task["NetworksAttachments"].as_array().into_iter().flatten() {
            let id = attachment["Network"]["ID"].as_str().unwrap();
            assert!(ids.contains(id), "{id} is not in {ids:?}");
        }
    }
}

/// Where a value holds `null`.
fn nulls(value: &Value, at: &str) -> Vec<String> {
    match value {
        Value::Null => vec![at.to_owned()],
        Value::Array(all) => all
            .iter()
            .enumerate()
            .flat_map(|(n, one)| nulls(one, &format!("{at}[{n}]")))
            .collect(),
        Value::Object(all) => all
            .iter()
            .flat_map(|(key, one)| nulls(one, &format!("{at}.{key}")))
            .collect(),
        _ => Vec::new(),
    }
}
