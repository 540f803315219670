//! There and back: what a compose file becomes is written as a compose file that becomes the same.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value as Json, json};

use super::{Cluster, Migration, migrate};
use crate::compose::convert::{Kind, Stack, tests::run_with};

const EVERYTHING: &str = include_str!("../../tests/data/migrate/everything.yml");

fn converted(text: &str, files: &BTreeMap<String, Vec<u8>>) -> Stack {
    let (stack, _) = run_with(text, files, &BTreeMap::new());
    stack.unwrap_or_else(|problems| panic!("{text}\n{problems}"))
}

/// As the API of a Swarm shows it where that stack runs.
fn running(stack: &Stack) -> Cluster {
    let networks = stack.networks.iter().map(|network| {
        let mut shown = network.body.clone();
        shown["Id"] = json!(format!("id-{}", network.name));
        shown["Scope"] = json!("swarm");
        shown
    });
    let external = stack.external_networks.iter().map(|(name, _)| {
        json!({"Id": format!("id-{name}"), "Name": name, "Scope": "swarm", "Driver": "overlay",
               "Attachable": true, "Options": {"com.docker.network.driver.overlay.vxlanid_list": "4097", "encrypted": ""},
               "IPAM": {"Config": [{"Subnet": "192.0.2.0/24"}]}})
    });
    let networks: Vec<Json> = networks.chain(external).collect();
    let services = stack.services.iter().map(|service| {
        let mut spec = service.spec.clone();
        let attachments = spec
            .pointer_mut("/TaskTemplate/Networks")
            .and_then(Json::as_array_mut);
        for attachment in attachments.into_iter().flatten() {
            let target = attachment["Target"].as_str().unwrap_or_default();
            attachment["Target"] = json!(format!("id-{target}"));
        }
        let image = format!("{}@sha256:{}", service.image, "0".repeat(64));
        spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!(image);
        json!({"ID": service.name, "Spec": spec})
    });
    let objects = |kind: Kind| {
        let own = stack
            .objects
            .iter()
            .filter(move |object| object.kind == kind);
        own.map(|object| {
            let mut spec = object.spec.clone();
            spec["Name"] = json!(object.name);
            if object.kind == Kind::Config {
                spec["Data"] =
                    json!(STANDARD.encode(object.content.as_deref().unwrap_or_default()));
            }
            json!({"Spec": spec})
        })
        .collect()
    };
    Cluster {
        services: services.collect(),
        networks,
        configs: objects(Kind::Config),
        secrets: objects(Kind::Secret),
    }
}

fn back(migration: &Migration) -> Stack {
    let contents = migration.configs.iter();
    let files = contents.map(|(name, content)| (format!("configs/{name}"), content.clone()));
    converted(&migration.stacks[0].text, &files.collect())
}

fn specs(stack: &Stack) -> BTreeMap<&str, &Json> {
    let services = stack.services.iter();
    services
        .map(|service| (service.name.as_str(), &service.spec))
        .collect()
}

#[test]
fn what_runs_is_written_so_that_it_becomes_the_same() {
    let files = BTreeMap::from([("site.conf".to_owned(), b"listen $PORT".to_vec())]);
    let before = converted(EVERYTHING, &files);
    let migration = migrate(&running(&before));
    let after = back(&migration);
    let (one, other) = (specs(&before), specs(&after));
    assert_eq!(
        one.keys().collect::<Vec<_>>(),
        other.keys().collect::<Vec<_>>()
    );
    for (name, spec) in one {
        assert_eq!(
            format!("{spec:#}"),
            format!("{:#}", other[name]),
            "{name}\n{}",
            migration.stacks[0].text
        );
    }
    let networks = |stack: &Stack| -> BTreeMap<String, Json> {
        let networks = stack.networks.iter();
        networks.map(|n| (n.name.clone(), n.body.clone())).collect()
    };
    assert_eq!(networks(&before), networks(&after));
    let contents = |stack: &Stack| -> Vec<_> {
        let configs = stack
            .objects
            .iter()
            .filter(|object| object.kind == Kind::Config);
        configs
            .map(|config| (config.name.clone(), config.content.clone()))
            .collect()
    };
    assert_eq!(contents(&before), contents(&after));
    // What the file cannot bring is asked for.
    assert_eq!(
        migration.before,
        [
            "ovnctl network create --driver=overlay --attachable --subnet=192.0.2.0/24 --opt encrypted outside",
            "ovnctl secret create s_password FILE   # its content is in no API: bring it along",
        ]
    );
    assert_eq!(migration.remarks, Vec::<String>::new());
}

#[test]
fn the_users_three_files_survive() {
    for text in [
        include_str!("../../tests/data/stacks/ch03-webapi.yml"),
        include_str!("../../tests/data/stacks/ch03-ingress.yml"),
        include_str!("../../tests/data/stacks/visualizer.yml"),
    ] {
        let before = converted(text, &BTreeMap::new());
        let after = back(&migrate(&running(&before)));
        let without_order = |stack: &Stack| -> BTreeMap<String, Json> {
            let services = stack.services.iter().map(|service| {
                let mut spec = service.spec.clone();
                // What waits for what is told to nobody but `stack deploy`.
                if let Some(labels) = spec["Labels"].as_object_mut() {
                    labels.shift_remove("overnet.depends-on");
                }
                (service.name.clone(), spec)
            });
            services.collect()
        };
        assert_eq!(without_order(&before), without_order(&after), "{text}");
    }
}

#[test]
fn what_belongs_to_no_stack_keeps_its_names() {
    let service = |name: &str, spec: Json| {
        let mut spec = spec;
        spec["Name"] = json!(name);
        json!({"Spec": spec})
    };
    let job = json!({"Mode": {"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 5}},
                     "TaskTemplate": {"ContainerSpec": {"Image": "a/job:1@sha256:00", "Privileges": {"SELinuxContext": {}}}}});
    let web = json!({"Mode": {"Global": {}}, "Labels": {"tier": "$front"},
                     "TaskTemplate": {"Networks": [{"Target": "gone"}, {"Target": "n1"}],
                                      "ContainerSpec": {"Image": "nginx", "Secrets": [{"SecretName": "cert", "File": {"Name": "cert", "UID": "0", "GID": "0", "Mode": 292}}]}}});
    let migration = migrate(&Cluster {
        services: vec![service("web", web), service("job", job)],
        networks: vec![
            json!({"Id": "n1", "Name": "front", "Scope": "swarm", "Driver": "overlay", "IPAM": {"Config": [{"Subnet": "10.0.3.0/24"}]}}),
        ],
        ..Cluster::default()
    });
    assert_eq!(migration.stacks.len(), 1);
    assert_eq!(migration.stacks[0].name, "unstacked");
    let text = &migration.stacks[0].text;
    for wanted in [
        "    image: \"a/job:1\"\n",
        "        tier: \"$$front\"\n",
        "  front:\n    external: true\n",
        "  cert:\n    external: true\n",
        "# service job: ran a/job:1 as sha256:00\n",
        "# service job: its SELinux context is left out\n",
        "# service job: 1 of its tasks ran at once; a stack's job runs all\n",
        "# service job: it is a job: a deploy runs it again\n",
        "# service web: its network gone is not there any more\n",
    ] {
        assert!(text.contains(wanted), "{wanted} is not in\n{text}");
    }
    assert!(
        migration
            .before
            .contains(&"ovnctl network create --driver=overlay front".to_owned()),
        "{:?}",
        migration.before
    );
    converted(text, &BTreeMap::new());
}
