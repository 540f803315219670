use proptest::prelude::*;
use serde_json::json;

use super::{
    super::answer::{self, IO},
    *,
};

fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

const ADD: [(&str, &str); 5] = [
    ("CNI_COMMAND", "ADD"),
    ("CNI_CONTAINERID", "0a1b"),
    ("CNI_NETNS", "/run/netns/x"),
    ("CNI_IFNAME", "eth0"),
    ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=web;IP=10.0.1.9"),
];

fn config(more: &Value) -> Vec<u8> {
    let mut config = json!({"cniVersion": "1.0.0", "name": "front", "type": "overnet-cni"});
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    config.to_string().into_bytes()
}

fn add(more: &Value) -> Result<Request, Refusal> {
    Request::read(&variables(&ADD), &config(more))
}

#[test]
fn a_request_is_read() {
    let request = add(&json!({
        "network": "ch03", "isDefaultGateway": true, "host": "unix:///x.sock",
        "runtimeConfig": {"aliases": {"front": ["www"], "back": ["db"]}},
    }))
    .unwrap();
    assert_eq!(request.command, Command::Add);
    assert_eq!((&*request.name, &*request.network), ("front", "ch03"));
    assert_eq!(request.container_name.as_deref(), Some("web"));
    assert_eq!(request.addresses, ["10.0.1.9"]);
    assert_eq!(request.aliases, ["www"]);
    assert!(request.gateway);
    assert_eq!(request.host, Host::Unix("/x.sock".into()));
    // A network of the configuration's own name is meant where none is named, and the
    // capability goes before the arguments.
    let request = add(&json!({"runtimeConfig": {"ips": ["10.0.1.7/24"]}, "ipam": {}})).unwrap();
    assert_eq!(request.network, "front");
    assert_eq!(request.addresses, ["10.0.1.7"]);
}

#[test]
fn what_cannot_be_met_has_its_code() {
    for (more, code) in [
        (json!({"cniVersion": "0.2.0"}), VERSION),
        (json!({"cniVersion": ""}), VERSION),
        (json!({"cniVersion": 1}), CONFIGURATION),
        (json!({"name": ""}), CONFIGURATION),
        (json!({"name": "a/b"}), CONFIGURATION),
        (json!({"name": ["x"]}), CONFIGURATION),
        (json!({"ipam": {"type": "host-local"}}), FIELD),
        (json!({"isDefaultGateway": "yes"}), CONFIGURATION),
        (json!({"runtimeConfig": 3}), CONFIGURATION),
        (json!({"runtimeConfig": {"ips": "10.0.1.7"}}), CONFIGURATION),
        (
            json!({"runtimeConfig": {"aliases": {"front": [1]}}}),
            CONFIGURATION,
        ),
        (
            json!({"prevResult": {"interfaces": [{"name": "eth0"}]}}),
            CONFIGURATION,
        ),
        (json!({"host": "ftp://x"}), CONFIGURATION),
        (json!({"dns": []}), CONFIGURATION),
    ] {
        let refusal = add(&more).unwrap_err();
        assert_eq!(refusal.code, code, "{more}: {refusal:?}");
    }
    for input in [
        "",
        "{",
        "[]",
        "null",
        "\"x\"",
        "\u{0}",
        &"[".repeat(1 << 20),
    ] {
        let refusal = Request::read(&variables(&ADD), input.as_bytes()).unwrap_err();
        assert_eq!(refusal.code, NOT_READ, "{refusal:?}");
    }
}

#[test]
fn the_environment_is_checked() {
    let with = |name: &str, value: Option<&str>| {
        let mut all = variables(&ADD);
        match value {
            Some(value) => all.insert(name.to_owned(), value.to_owned()),
            None => all.remove(name),
        };
        Request::read(&all, &config(&json!({})))
    };
    for name in ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"] {
        let refusal = with(name, None).unwrap_err();
        assert_eq!(refusal.code, ENVIRONMENT);
        assert!(refusal.message.contains(name), "{refusal:?}");
    }
    for (name, value) in [
        ("CNI_COMMAND", "RUN"),
        ("CNI_CONTAINERID", "../x"),
        ("CNI_IFNAME", "an interface"),
        ("CNI_IFNAME", "sixteen-letters-"),
        ("CNI_IFNAME", ".."),
    ] {
        let refusal = with(name, Some(value)).unwrap_err();
        assert_eq!(refusal.code, ENVIRONMENT, "{value}");
        assert!(refusal.message.contains(name), "{refusal:?}");
    }
    let mut del = variables(&ADD);
    del.insert("CNI_COMMAND".into(), "DEL".into());
    del.remove("CNI_NETNS");
    assert!(Request::read(&del, &config(&json!({"ipam": {"type": "dhcp"}}))).is_ok());
}

#[test]
fn commands_are_of_their_versions() {
    for (command, version, known) in [
        ("CHECK", "0.3.1", false),
        ("CHECK", "0.4.0", true),
        ("STATUS", "1.0.0", false),
        ("STATUS", "1.1.0", true),
        ("GC", "1.0.0", false),
        ("GC", "1.1.0", true),
    ] {
        let mut all = variables(&ADD);
        all.insert("CNI_COMMAND".into(), command.into());
        let more = json!({"cniVersion": version, "cni.dev/valid-attachments": []});
        let read = Request::read(&all, &config(&more));
        assert_eq!(read.is_ok(), known, "{command} {version}: {read:?}");
    }
    let version = variables(&[("CNI_COMMAND", "VERSION")]);
    for (input, told) in [
        ("{\"cniVersion\":\"0.4.0\"}", "0.4.0"),
        ("{\"cniVersion\":\"9.9.9\"}", NEWEST),
        ("", NEWEST),
    ] {
        let request = Request::read(&version, input.as_bytes()).unwrap();
        assert_eq!(request.version, told);
    }
}

#[test]
fn nothing_is_left_over_without_a_list() {
    let mut all = variables(&ADD);
    all.insert("CNI_COMMAND".into(), "GC".into());
    let read = |more: &Value| {
        let mut more = more.clone();
        more["cniVersion"] = json!("1.1.0");
        Request::read(&all, &config(&more))
    };
    let key = "cni.dev/valid-attachments";
    for more in [
        json!({}),
        json!({key: {}}),
        json!({key: [{"containerID": "a"}]}),
    ] {
        assert_eq!(read(&more).unwrap_err().code, CONFIGURATION, "{more}");
    }
    let listed = json!({key: [{"containerID": "a", "ifname": "eth0"}]});
    assert_eq!(
        read(&listed).unwrap().valid,
        [("a".to_owned(), "eth0".to_owned())]
    );
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-zA-Z./-]{0,12}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Whatever comes is a request or a refusal that can be written.
    #[test]
    fn no_input_is_too_bad(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        values in prop::collection::vec(any_json(), 9),
        command in "ADD|DEL|CHECK|GC|STATUS|VERSION|.{0,5}",
        word in ".{0,20}",
    ) {
        let keys = ["cniVersion", "name", "network", "host", "dns", "ipam", "prevResult",
            "runtimeConfig", "cni.dev/valid-attachments"];
        let mut all = variables(&ADD);
        all.insert("CNI_COMMAND".into(), command);
        all.insert("CNI_ARGS".into(), word);
        let mut inputs = vec![bytes];
        for (key, value) in keys.iter().zip(&values) {
            inputs.push(config(&json!({"cniVersion": "1.1.0", *key: value})));
        }
        for input in inputs {
            if let Err(refusal) = Request::read(&all, &input) {
                let codes = [VERSION, FIELD, ENVIRONMENT, IO, NOT_READ, CONFIGURATION];
                prop_assert!(codes.contains(&refusal.code));
                let text = answer::refusal(&version_of(&input), &refusal);
                let read: Value = serde_json::from_str(&text).unwrap();
                prop_assert!(!read["msg"].as_str().unwrap().is_empty());
            }
        }
    }
}
