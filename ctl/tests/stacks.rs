//! `stack` against the fake daemon: what is asked in which order, and what the user reads.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

#[allow(dead_code)] // shared with the other suites, which use the rest
mod fake;

use std::sync::{Arc, Mutex};

use fake::{Asked, Fake, Reply};
use serde_json::{Value, json};

const WEBAPI: &str = include_str!("data/stacks/ch03-webapi.yml");
const VISUALIZER: &str = include_str!("data/stacks/visualizer.yml");
const INGRESS: &str = include_str!("data/stacks/ch03-ingress.yml");

/// A small cluster that remembers what is created.
#[derive(Default)]
struct Cluster {
    networks: Vec<Value>,
    secrets: Vec<Value>,
    configs: Vec<Value>,
    services: Vec<Value>,
    made: u64,
    /// Creating a service of this name fails.
    broken: Option<&'static str>,
}

impl Cluster {
    fn list(&mut self, kind: &str) -> &mut Vec<Value> {
        match kind {
            "networks" => &mut self.networks,
            "secrets" => &mut self.secrets,
            "configs" => &mut self.configs,
            _ => &mut self.services,
        }
    }

    fn answer(&mut self, asked: &Asked) -> Reply {
        let (method, target) = asked.line.split_once(' ').unwrap();
        let path = target.split('?').next().unwrap();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match (method, parts.as_slice()) {
            ("GET", ["info"]) => Reply::Json(200, json!({"Swarm": {"ControlAvailable": true}})),
            ("GET", ["distribution", ..]) => Reply::Json(
                200,
                json!({"Descriptor": {"digest": format!("sha256:{}", "ab".repeat(32))}, "Platforms": [{"architecture": "amd64", "os": "linux"}]}),
            ),
            ("POST", [kind, "create"]) => self.create(kind, &asked.body),
            ("POST", [kind, id, "update"]) => {
                self.made += 1;
                let version = self.made;
                let object = self
                    .list(kind)
                    .iter_mut()
                    .find(|o| o["ID"] == **id)
                    .unwrap();
                object["PreviousSpec"] = object["Spec"].clone();
                object["Spec"] = asked.body.clone();
                object["Version"] = json!({"Index": version});
                Reply::Json(200, json!({"Warnings": ["a word of warning"]}))
            }
            ("GET", [kind]) => {
                let list = self.list(kind).clone();
                Reply::Json(200, Value::Array(list))
            }
            ("GET", [kind, name]) => {
                let name = json!(name);
                let found = self
                    .list(kind)
                    .iter()
                    .find(|o| o["Spec"]["Name"] == name || o["Name"] == name)
                    .cloned();
                found.map_or_else(
                    || Reply::Json(404, json!({"message": "not found"})),
                    |o| Reply::Json(200, o),
                )
            }
            ("DELETE", [kind, id]) => {
                let id = json!(id);
                self.list(kind).retain(|o| o["ID"] != id && o["Id"] != id);
                Reply::Json(204, Value::Null)
            }
            _ => Reply::Json(
                500,
                json!({"message": format!("unexpected {}", asked.line)}),
            ),
        }
    }

    fn create(&mut self, kind: &str, body: &Value) -> Reply {
        if body["Name"]
            .as_str()
            .is_some_and(|n| Some(n) == self.broken)
        {
            return Reply::Json(500, json!({"message": "the disk is full"}));
        }
        self.made += 1;
        let id = format!("id{}", self.made);
        let mut object = json!({"ID": id, "Version": {"Index": self.made}, "Spec": body});
        if kind == "networks" {
            object = body.clone();
            object["Id"] = json!(id);
        }
        self.list(kind).push(object);
        Reply::Json(201, json!({"ID": id, "Id": id}))
    }
}

/// A fake over a cluster with the network ch03, and the files of a deploy in its folder.
fn start(files: &[(&str, &str)]) -> (Fake, Arc<Mutex<Cluster>>) {
    let cluster = Arc::new(Mutex::new(Cluster {
        networks: vec![json!({"Id": "net", "Name": "ch03", "Scope": "swarm", "Driver": "overlay"})],
        ..Cluster::default()
    }));
    let inner = cluster.clone();
    let fake = Fake::start(move |asked, _| inner.lock().unwrap().answer(asked));
    for (name, text) in files {
        std::fs::write(fake.folder().join(name), text).unwrap();
    }
    (fake, cluster)
}

/// Only what changes something.
fn changes(fake: &Fake) -> Vec<String> {
    let lines = fake.lines().into_iter();
    lines.filter(|line| !line.starts_with("GET")).collect()
}

#[tokio::test]
async fn the_users_web_tier_is_deployed_in_dockers_calls_and_words() {
    let (fake, cluster) = start(&[("ch03-webapi.yml", WEBAPI)]);
    let done = fake
        .ctl(&["stack", "deploy", "-c", "ch03-webapi.yml", "echo"], "")
        .await;
    assert_eq!((done.status, done.err.as_str()), (0, ""));
    assert_eq!(
        done.out,
        "Creating service echo_api\nCreating service echo_nginx\n"
    );
    let label = "%7B%22label%22%3A%7B%22com.docker.stack.namespace%3Decho%22%3Atrue%7D%7D";
    assert_eq!(
        fake.lines(),
        [
            "GET /info".to_owned(),
            "GET /networks/ch03".to_owned(),
            format!("GET /networks?filters={label}"),
            format!("GET /services?filters={label}"),
            "GET /distribution/registry:5000/example/echo:latest/json".to_owned(),
            "POST /services/create".to_owned(),
            "GET /distribution/gihyodocker/nginx-proxy/json".to_owned(),
            "POST /services/create".to_owned(),
        ]
    );
    let sent = cluster.lock().unwrap().services[1]["Spec"].clone();
    assert_eq!(
        sent["Labels"],
        json!({"com.docker.stack.namespace": "echo", "com.docker.stack.image": "gihyodocker/nginx-proxy", "overnet.depends-on": "echo_api:started"})
    );
    assert_eq!(sent["Mode"], json!({"Replicated": {"Replicas": 3}}));

    let again = fake
        .ctl(&["stack", "deploy", "-c", "ch03-webapi.yml", "echo"], "")
        .await;
    assert_eq!(again.status, 0);
    assert_eq!(
        again.out,
        "Updating service echo_api (id: id1): nothing changed\nUpdating service echo_nginx (id: id2): nothing changed\n"
    );
    assert_eq!(changes(&fake).len(), 2, "the second deploy changes nothing");
}

#[tokio::test]
async fn the_users_other_two_files_deploy_too() {
    let (fake, cluster) = start(&[("v.yml", VISUALIZER), ("i.yml", INGRESS)]);
    let done = fake
        .ctl(&["stack", "deploy", "-c", "v.yml", "visualizer"], "")
        .await;
    assert_eq!(
        done.out,
        "Creating network visualizer_default\nCreating service visualizer_app\n"
    );
    let done = fake
        .ctl(&["stack", "deploy", "-c", "i.yml", "ingress"], "")
        .await;
    assert_eq!(done.status, 0);
    assert_eq!(done.out, "Creating service ingress_haproxy\n");
    assert_eq!(
        done.err,
        "warning: i.yml:19:9: the key \"networks\" is written twice with the same value\n"
    );
    let cluster = cluster.lock().unwrap();
    assert_eq!(cluster.networks[1]["Name"], "visualizer_default");
    assert_eq!(
        cluster.networks[1]["Labels"],
        json!({"com.docker.stack.namespace": "visualizer"})
    );
    assert_eq!(cluster.services.len(), 2);
}

#[tokio::test]
async fn a_change_updates_that_service_only() {
    let (fake, cluster) = start(&[("a.yml", WEBAPI)]);
    fake.ctl(&["stack", "deploy", "-c", "a.yml", "echo"], "")
        .await;
    std::fs::write(
        fake.folder().join("b.yml"),
        "services: {api: {deploy: {replicas: 5}}}",
    )
    .unwrap();
    let diff = fake
        .ctl(&["stack", "diff", "-c", "a.yml", "-c", "b.yml", "echo"], "")
        .await;
    assert_eq!(
        diff.out,
        "~ service echo_api\n    Mode.Replicated.Replicas: 3 -> 5\n= service echo_nginx\n"
    );
    let done = fake
        .ctl(
            &["stack", "deploy", "-c", "a.yml", "-c", "b.yml", "echo"],
            "",
        )
        .await;
    assert_eq!(
        (done.out.as_str(), done.err.as_str()),
        (
            "Updating service echo_api (id: id1)\nUpdating service echo_nginx (id: id2): nothing changed\n",
            "a word of warning\n"
        )
    );
    assert_eq!(changes(&fake)[2..], ["POST /services/id1/update?version=1"]);
    let cluster = cluster.lock().unwrap();
    assert_eq!(
        cluster.services[0]["Spec"]["Mode"]["Replicated"]["Replicas"],
        5
    );
}

#[tokio::test]
async fn changed_content_is_a_new_version_and_old_ones_are_pruned() {
    let file = "services: {web: {image: x, configs: [site], secrets: [key]}}\nconfigs: {site: {file: site}}\nsecrets: {key: {environment: KEY}}";
    let (mut fake, cluster) = start(&[("a.yml", file), ("site", "one")]);
    fake.variables = vec![("KEY".to_owned(), "hunter2".to_owned())];
    let deploy = [
        "stack",
        "deploy",
        "-c",
        "a.yml",
        "--prune",
        "--resolve-image",
        "never",
        "s",
    ];
    let done = fake.ctl(&deploy, "").await;
    assert_eq!(
        done.out,
        "Creating network s_default\nCreating secret s_key\nCreating config s_site\nCreating service s_web\n"
    );
    assert!(
        fake.asked()
            .iter()
            .all(|a| a.line.starts_with("POST /secrets/create")
                || !a.body.to_string().contains("aHVudGVyMg=="))
    );
    let mut names = vec!["s_site".to_owned()];
    for content in ["two", "three", "three"] {
        std::fs::write(fake.folder().join("site"), content).unwrap();
        let done = fake.ctl(&deploy, "").await;
        assert_eq!(done.status, 0, "{}", done.err);
        let cluster = cluster.lock().unwrap();
        let grant = &cluster.services[0]["Spec"]["TaskTemplate"]["ContainerSpec"]["Configs"][0];
        let name = grant["ConfigName"].as_str().unwrap().to_owned();
        let object = cluster
            .configs
            .iter()
            .find(|c| c["Spec"]["Name"] == name.as_str())
            .unwrap();
        assert_eq!(object["ID"], grant["ConfigID"]);
        assert_eq!(grant["File"]["Name"], "site", "the file keeps its name");
        names.push(name);
        assert_eq!(cluster.secrets.len(), 1);
    }
    assert!(
        names[1].starts_with("s_site.") && names[2] != names[1] && names[3] == names[2],
        "{names:?}"
    );
    // The one before the present one is kept for a rollback, the first is gone.
    let left: Vec<String> = cluster
        .lock()
        .unwrap()
        .configs
        .iter()
        .map(|c| c["Spec"]["Name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(left, names[1..3]);
}

#[tokio::test]
async fn a_deploy_that_stops_says_what_it_made_and_goes_on_later() {
    let file = "services: {a: {image: x}, b: {image: x, depends_on: [a]}, c: {image: x}}";
    let (fake, cluster) = start(&[("a.yml", file)]);
    cluster.lock().unwrap().broken = Some("s_b");
    let deploy = ["stack", "deploy", "-c", "a.yml", "s"];
    let done = fake.ctl(&deploy, "").await;
    assert_eq!(done.status, 1);
    assert_eq!(
        done.err,
        "failed to create service s_b: Error response from daemon: the disk is full\ncreated before that: network s_default, service s_a; the next deploy of the same files goes on from here\n"
    );
    cluster.lock().unwrap().broken = None;
    let done = fake.ctl(&deploy, "").await;
    assert_eq!(
        (done.status, done.out.as_str()),
        (
            0,
            "Updating service s_a (id: id2): nothing changed\nCreating service s_b\nCreating service s_c\n"
        )
    );
}

#[tokio::test]
async fn what_is_wrong_changes_nothing() {
    let (fake, _) = start(&[
        (
            "a.yml",
            "services: {a: {image: x, networks: [n]}}\nnetworks: {n: {external: true}}",
        ),
        ("bad.yml", "services: {a: {imgae: x}}"),
    ]);
    let done = fake.ctl(&["stack", "deploy", "-c", "a.yml", "s"], "").await;
    assert!(done.err.starts_with("network \"n\" is declared as external, but could not be found. You need to create a swarm-scoped network before the stack is deployed"), "{}", done.err);
    let done = fake
        .ctl(&["stack", "deploy", "-c", "bad.yml", "s"], "")
        .await;
    assert!(
        done.err
            .contains("bad.yml:1:16: services.a.imgae: there is no key \"imgae\"")
            && done.err.contains("did you mean image?"),
        "{}",
        done.err
    );
    let done = fake
        .ctl(&["stack", "deploy", "-c", "bad.yml", "a/b"], "")
        .await;
    assert_eq!(done.status, 1);
    assert_eq!(changes(&fake), Vec::<String>::new());
}

#[tokio::test]
async fn standard_input_and_pruned_services() {
    let (fake, cluster) = start(&[]);
    fake.ctl(
        &["stack", "deploy", "-c", "-", "s"],
        "services: {a: {image: x}, b: {image: x}}",
    )
    .await;
    let done = fake
        .ctl(
            &["stack", "deploy", "-c", "-", "--prune", "s"],
            "services: {a: {image: x}}",
        )
        .await;
    assert_eq!(
        done.out,
        "Removing service s_b\nUpdating service s_a (id: id2): nothing changed\n"
    );
    assert_eq!(cluster.lock().unwrap().services.len(), 1);
}

#[tokio::test]
async fn a_stack_is_removed_in_dockers_order() {
    let file = "services: {a: {image: x, configs: [c], secrets: [k]}}\nconfigs: {c: {content: x}}\nsecrets: {k: {file: k}}";
    let (fake, cluster) = start(&[("a.yml", file), ("k", "secret")]);
    cluster.lock().unwrap().networks.clear();
    fake.ctl(&["stack", "deploy", "-c", "a.yml", "s"], "").await;
    let done = fake.ctl(&["stack", "rm", "s"], "").await;
    assert_eq!(
        done.out,
        "Removing service s_a\nRemoving secret s_k\nRemoving config s_c\nRemoving network s_default\n"
    );
    let done = fake.ctl(&["stack", "rm", "s"], "").await;
    assert_eq!(
        (done.status, done.err.as_str()),
        (0, "Nothing found in stack: s\n")
    );
}

#[tokio::test]
async fn files_are_shown_merged_and_explained() {
    let (mut fake, _) = start(&[
        ("a.yml", WEBAPI),
        ("b.yml", "services: {api: {image: 'x:${TAG}'}}"),
    ]);
    fake.variables = vec![("TAG".to_owned(), "7".to_owned())];
    let raw = fake
        .ctl(
            &["stack", "config", "-c", "b.yml", "--skip-interpolation"],
            "",
        )
        .await;
    assert_eq!(raw.out, "services:\n  api:\n    image: \"x:${TAG}\"\n");
    let merged = fake.ctl(&["stack", "config", "-c", "b.yml"], "").await;
    assert_eq!(merged.out, "services:\n  api:\n    image: \"x:7\"\n");
    let explained = fake
        .ctl(&["stack", "config", "--explain", "-c", "a.yml", "echo"], "")
        .await;
    assert!(
        explained.out.ends_with(
            "    waits for: echo_api (started)\n  created in this order: echo_api, echo_nginx\n"
        ),
        "{}",
        explained.out
    );
    assert!(fake.asked().is_empty(), "nothing is asked of the cluster");
}
