//! What a deploy has to do, as data: computed from the files and from what the cluster has.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::compare::differences;
use super::observe::Observed;
use super::version::{CONTENT, Found, VERSION_OF};
use crate::commands::text;
use crate::compose::convert::{IMAGE, Kind, Network, Service, Stack};

/// `--resolve-image`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Resolve {
    /// Ask the registry for the digest at every deploy.
    Always,
    /// Only when the file names another image.
    Changed,
    /// Never.
    Never,
}

/// What happens with one service.
#[derive(Clone, Debug, PartialEq)]
pub enum ServiceStep {
    /// It is not there.
    Create(Value),
    /// It is there and differs in these fields.
    Update {
        /// The specification to send.
        spec: Value,
        /// In words.
        differences: Vec<String>,
    },
    /// It is as it shall be.
    Keep,
}

/// The networks to create: those without one of their name.
pub fn networks<'a>(stack: &'a Stack, there: &BTreeMap<String, String>) -> Vec<&'a Network> {
    stack
        .networks
        .iter()
        .filter(|n| !there.contains_key(&n.name))
        .collect()
}

/// What the names of the files mean in the cluster.
#[derive(Debug, Default)]
pub struct Known {
    /// Id and name by kind and name of the first version.
    pub objects: BTreeMap<(Kind, String), (String, String)>,
    /// Ids of networks by name.
    pub networks: BTreeMap<String, String>,
}

impl Known {
    /// Before the deploy.
    pub fn of(observed: &Observed) -> Self {
        let objects = observed.objects.iter();
        Self {
            objects: objects
                .map(|(key, found)| (key.clone(), (found.id.clone(), found.name.clone())))
                .collect(),
            networks: observed.networks.clone(),
        }
    }
}

/// Puts ids into a service in place of the names of networks, and ids and names of the versions
/// in use into its grants: a daemon stores ids, and what is stored is what is compared.
///
/// What is not known is left alone: the daemon then names it.
pub fn bind(spec: &mut Value, known: &Known) {
    let networks = spec.pointer_mut("/TaskTemplate/Networks");
    for network in networks.and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(id) = known.networks.get(text(network, "/Target")) {
            network["Target"] = json!(id);
        }
    }
    for (field, id, name, kind) in [
        ("Secrets", "SecretID", "SecretName", Kind::Secret),
        ("Configs", "ConfigID", "ConfigName", Kind::Config),
    ] {
        let list = spec.pointer_mut(&format!("/TaskTemplate/ContainerSpec/{field}"));
        for grant in list.and_then(Value::as_array_mut).into_iter().flatten() {
            let key = (kind, text(grant, &format!("/{name}")).to_owned());
            if let (Some((found, real)), Some(grant)) =
                (known.objects.get(&key), grant.as_object_mut())
            {
                grant.insert(id.to_owned(), json!(found));
                grant.insert(name.to_owned(), json!(real));
            }
        }
    }
}

/// True when the registry is to be asked for this service's image.
pub fn asks_registry(service: &Service, now: Option<&Value>, resolve: Resolve) -> bool {
    let unchanged = now.is_some_and(|now| label(now) == service.image);
    match resolve {
        Resolve::Always => true,
        Resolve::Changed => !unchanged,
        Resolve::Never => false,
    }
}

/// Decides for one service. `spec` is bound, and its image pinned if the registry answered.
pub fn service(service: &Service, mut spec: Value, now: Option<&Value>) -> ServiceStep {
    let Some(now) = now else {
        return ServiceStep::Create(spec);
    };
    let pinned = text(&spec, "/TaskTemplate/ContainerSpec/Image").contains('@');
    if !pinned && label(now) == service.image {
        // Not asked or no answer: the digest known so far stays, so that nothing restarts.
        for pointer in [
            "/TaskTemplate/ContainerSpec/Image",
            "/TaskTemplate/Placement/Platforms",
        ] {
            let there = spec.pointer(pointer).is_some_and(Value::is_array);
            if let Some(value) = now["Spec"].pointer(pointer).filter(|_| !there) {
                put(&mut spec, pointer, value.clone());
            }
        }
    }
    let force = now["Spec"]
        .pointer("/TaskTemplate/ForceUpdate")
        .cloned()
        .unwrap_or(json!(0));
    put(&mut spec, "/TaskTemplate/ForceUpdate", force);
    match differences(&now["Spec"], &spec) {
        list if list.is_empty() => ServiceStep::Keep,
        differences => ServiceStep::Update { spec, differences },
    }
}

/// Services of the stack that the files do not have any more.
pub fn surplus(stack: &Stack, there: &[Value]) -> Vec<Value> {
    let wanted: BTreeSet<&str> = stack.services.iter().map(|s| s.name.as_str()).collect();
    let gone = there
        .iter()
        .filter(|s| !wanted.contains(text(s, "/Spec/Name")));
    gone.cloned().collect()
}

/// Versions of secrets and configs that are superseded and that no service uses, nor would use
/// after a rollback.
pub fn superseded(there: &[Found], in_use: &BTreeSet<String>, services: &[Value]) -> Vec<Found> {
    let mut used = in_use.clone();
    for service in services {
        for spec in ["Spec", "PreviousSpec"] {
            for (field, id) in [("Secrets", "SecretID"), ("Configs", "ConfigID")] {
                let list = service[spec].pointer(&format!("/TaskTemplate/ContainerSpec/{field}"));
                let grants = list.and_then(Value::as_array).into_iter().flatten();
                used.extend(grants.map(|grant| text(grant, &format!("/{id}")).to_owned()));
            }
        }
    }
    let ours = |found: &&Found| {
        found.labels.contains_key(CONTENT) && found.labels.contains_key(VERSION_OF)
    };
    there
        .iter()
        .filter(ours)
        .filter(|found| !used.contains(&found.id))
        .cloned()
        .collect()
}

fn label(service: &Value) -> &str {
    service["Spec"]["Labels"][IMAGE]
        .as_str()
        .unwrap_or_default()
}

fn put(spec: &mut Value, pointer: &str, value: Value) {
    let Some((parent, name)) = pointer.rsplit_once('/') else {
        return;
    };
    let mut at = spec;
    for part in parent.split('/').skip(1) {
        if !at[part].is_object() {
            at[part] = Value::Object(Map::new());
        }
        at = &mut at[part];
    }
    at[name] = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(image: &str) -> Service {
        Service {
            name: "s_web".to_owned(),
            short: "web".to_owned(),
            image: image.to_owned(),
            spec: json!({"Name": "s_web", "Labels": {IMAGE: image}, "TaskTemplate": {"ContainerSpec": {"Image": image}, "ForceUpdate": 0}}),
            depends_on: vec![],
        }
    }

    fn there(image: &str, pinned: &str) -> Value {
        json!({"ID": "id", "Spec": {"Name": "s_web", "Labels": {IMAGE: image},
            "TaskTemplate": {"ContainerSpec": {"Image": pinned}, "Placement": {"Platforms": [{"OS": "linux"}]}, "ForceUpdate": 4}}})
    }

    #[test]
    fn an_unchanged_image_keeps_its_digest_and_the_service_its_peace() {
        let web = wanted("a:1");
        let now = there("a:1", "a:1@sha256:00");
        assert_eq!(
            service(&web, web.spec.clone(), Some(&now)),
            ServiceStep::Keep
        );
        let ServiceStep::Update { spec, differences } =
            service(&wanted("a:2"), wanted("a:2").spec, Some(&now))
        else {
            panic!("another image is an update");
        };
        assert_eq!(text(&spec, "/TaskTemplate/ContainerSpec/Image"), "a:2");
        assert_eq!(spec["TaskTemplate"]["ForceUpdate"], 4);
        assert!(
            differences
                .iter()
                .any(|d| d.contains("ContainerSpec.Image")),
            "{differences:?}"
        );
    }

    #[test]
    fn a_new_digest_is_an_update() {
        let web = wanted("a:1");
        let mut spec = web.spec.clone();
        put(
            &mut spec,
            "/TaskTemplate/ContainerSpec/Image",
            json!("a:1@sha256:11"),
        );
        let step = service(&web, spec, Some(&there("a:1", "a:1@sha256:00")));
        assert!(matches!(step, ServiceStep::Update { .. }), "{step:?}");
    }

    #[test]
    fn when_the_registry_is_asked() {
        let now = there("a:1", "a:1@sha256:00");
        let cases = [
            (Resolve::Always, "a:1", true),
            (Resolve::Changed, "a:1", false),
            (Resolve::Changed, "a:2", true),
            (Resolve::Never, "a:2", false),
        ];
        for (resolve, image, asked) in cases {
            assert_eq!(
                asks_registry(&wanted(image), Some(&now), resolve),
                asked,
                "{resolve:?} {image}"
            );
        }
        assert!(asks_registry(&wanted("a:1"), None, Resolve::Changed));
    }

    #[test]
    fn names_become_ids_and_grants_those_of_versions() {
        let mut spec = json!({"TaskTemplate": {"Networks": [{"Target": "s_n"}, {"Target": "host"}], "ContainerSpec": {"Configs": [{"ConfigName": "s_c", "File": {}}], "Secrets": [{"SecretName": "out"}]}}});
        let known = Known {
            objects: BTreeMap::from([(
                (Kind::Config, "s_c".to_owned()),
                ("i".to_owned(), "s_c.00".to_owned()),
            )]),
            networks: BTreeMap::from([("s_n".to_owned(), "n".to_owned())]),
        };
        bind(&mut spec, &known);
        assert_eq!(
            spec["TaskTemplate"]["Networks"],
            json!([{"Target": "n"}, {"Target": "host"}])
        );
        assert_eq!(
            spec["TaskTemplate"]["ContainerSpec"]["Configs"][0],
            json!({"ConfigName": "s_c.00", "File": {}, "ConfigID": "i"})
        );
        assert_eq!(
            spec["TaskTemplate"]["ContainerSpec"]["Secrets"][0],
            json!({"SecretName": "out"})
        );
    }

    #[test]
    fn versions_in_use_or_needed_for_a_rollback_stay() {
        let found = |id: &str, ours: bool| Found {
            id: id.to_owned(),
            name: id.to_owned(),
            version: 1,
            labels: if ours {
                Map::from_iter([
                    (CONTENT.to_owned(), json!("x")),
                    (VERSION_OF.to_owned(), json!("c")),
                ])
            } else {
                Map::new()
            },
            data: None,
        };
        let grant =
            |id: &str| json!({"TaskTemplate": {"ContainerSpec": {"Configs": [{"ConfigID": id}]}}});
        let services = [json!({"Spec": grant("now"), "PreviousSpec": grant("before")})];
        let there = [
            found("now", true),
            found("before", true),
            found("old", true),
            found("wanted", true),
            found("stranger", false),
        ];
        let gone = superseded(&there, &BTreeSet::from(["wanted".to_owned()]), &services);
        assert_eq!(
            gone.iter().map(|f| f.id.as_str()).collect::<Vec<_>>(),
            ["old"]
        );
    }
}
