//! Compose text in, Engine API out, one key a case.

mod honoured;
mod refused;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use serde_json::{Value as Json, json};

use super::{Stack, Surround, convert};
use crate::compose::load::{Input, Request, load};
use crate::compose::problem::Sources;

/// [`run_with`] some files and variables.
fn run(text: &str) -> (Result<Stack, String>, Vec<String>) {
    let files = [
        ("a.env", "# c\nA=file\nB='quoted'\nHOME\n"),
        ("raw.env", "A=\"raw\"\n"),
        ("site.conf", "listen 80"),
        ("empty", ""),
    ];
    let files = files.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()));
    let variables = [("HOME", "/home/me"), ("TOKEN", "t0ken")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    run_with(text, &files.into(), &variables.into())
}

/// Converts text as stack `s` in the folder `/p`, which has these files; problems and warnings come
/// back as lines.
pub(crate) fn run_with(
    text: &str,
    files: &BTreeMap<String, Vec<u8>>,
    variables: &BTreeMap<String, String>,
) -> (Result<Stack, String>, Vec<String>) {
    let reader = |path: &Path| {
        let found = path.strip_prefix("/p").ok().and_then(Path::to_str);
        let found = found.and_then(|path| files.get(path));
        found
            .cloned()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    };
    let inputs = [Input {
        name: "-".to_owned(),
        text: Some(text.as_bytes().to_vec()),
    }];
    let request = Request {
        files: &inputs,
        directory: Path::new("/p"),
        variables,
        profiles: &BTreeSet::new(),
        raw: false,
        reader: &reader,
    };
    let mut sources = Sources::default();
    let loaded = match load(&request, &mut sources) {
        Ok(loaded) => loaded,
        Err(problems) => return (Err(problems.render(&sources)), vec![]),
    };
    let mut warnings = loaded.warnings.clone();
    let around = Surround {
        stack: "s",
        sources: &sources,
        reader: &reader,
        variables: &loaded.variables,
    };
    let stack = convert(&loaded, &around, &mut warnings);
    let warnings = warnings.iter().map(|w| w.line(&sources)).collect();
    (
        stack.map_err(|problems| problems.render(&sources)),
        warnings,
    )
}

fn stack(text: &str) -> Stack {
    let (stack, _) = run(text);
    stack.unwrap_or_else(|said| panic!("{text}\n{said}"))
}

/// The specification of one service with these keys and an image.
fn spec(keys: &str) -> Json {
    let text = format!(
        "services: {{w: {{image: x, {keys}}}}}\nvolumes: {{data: {{labels: [a=b], driver: local}}, out: {{external: true}}}}"
    );
    stack(&text).services.remove(0).spec
}

#[test]
fn the_users_three_files() {
    let webapi = stack(include_str!(
        "../../../../tests/data/stacks/ch03-webapi.yml"
    ));
    let names: Vec<&str> = webapi.services.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["s_api", "s_nginx"]);
    for service in &webapi.services {
        assert_eq!(service.spec["Mode"], json!({"Replicated": {"Replicas": 3}}));
        assert_eq!(
            service.spec["TaskTemplate"]["Placement"]["Constraints"],
            json!(["node.role != manager"])
        );
        assert_eq!(
            service.spec["TaskTemplate"]["Networks"][0]["Target"],
            "ch03"
        );
    }
    assert_eq!(
        webapi.services[1].spec["TaskTemplate"]["ContainerSpec"]["Env"],
        json!(["BACKEND_HOST=echo_api:8080"])
    );
    assert!(webapi.networks.is_empty());
    assert_eq!(webapi.external_networks[0].0, "ch03");

    let visualizer = stack(include_str!("../../../../tests/data/stacks/visualizer.yml"));
    assert_eq!(visualizer.networks[0].name, "s_default");
    let app = &visualizer.services[0].spec;
    assert_eq!(app["Mode"], json!({"Global": {}}));
    assert_eq!(app["EndpointSpec"]["Ports"][0]["PublishedPort"], 9000);
    assert_eq!(
        app["TaskTemplate"]["ContainerSpec"]["Mounts"][0]["Source"],
        "/var/run/docker.sock"
    );

    let (ingress, warnings) = run(include_str!(
        "../../../../tests/data/stacks/ch03-ingress.yml"
    ));
    let haproxy = ingress.unwrap().services.remove(0);
    assert_eq!(
        haproxy.spec["EndpointSpec"]["Ports"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    assert_eq!(
        haproxy.spec["TaskTemplate"]["Networks"],
        json!([{"Target": "ch03", "Aliases": ["haproxy"]}])
    );
    assert_eq!(
        warnings,
        ["stdin:19:9: the key \"networks\" is written twice with the same value"]
    );
}
