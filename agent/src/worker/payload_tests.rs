use std::{os::unix::fs::MetadataExt as _, sync::Arc};

use model::{
    Meta,
    payload::{Content, PayloadSpec},
    service::ServiceMode,
    task::{ContainerSpec, Driver, Handover, TaskSpec, TaskState, TaskStatus},
};

use super::*;

fn payload(id: &str, kind: PayloadKind, data: &str, template: bool) -> (SecretId, Payload) {
    let payload = Payload {
        id: id.into(),
        meta: Meta::default(),
        kind,
        spec: PayloadSpec {
            name: id.into(),
            data: Content(data.as_bytes().to_vec()),
            templating: template.then(|| Driver {
                name: "golang".into(),
                ..Driver::default()
            }),
            ..PayloadSpec::default()
        },
    };
    (id.into(), payload)
}

fn reference(id: &str, target: &str) -> PayloadReference {
    PayloadReference {
        id: id.into(),
        name: id.into(),
        file: Some(FileTarget {
            name: target.into(),
            uid: "0".into(),
            gid: "0".into(),
            mode: 0o440,
        }),
    }
}

fn task(secrets: Vec<PayloadReference>, configs: Vec<PayloadReference>) -> Task {
    Task {
        id: "t1".into(),
        meta: Meta::default(),
        service: "s1".into(),
        service_name: "web".into(),
        slot: 1,
        node: Some("n1".into()),
        spec: Arc::new(TaskSpec {
            container: ContainerSpec {
                secrets,
                configs,
                env: vec!["MODE=fast".into()],
                ..ContainerSpec::default()
            },
            ..TaskSpec::default()
        }),
        spec_version: 1,
        labels: BTreeMap::new(),
        mode: ServiceMode::default(),
        status: TaskStatus::default(),
        desired: TaskState::Running,
        start_after: 0,
        endpoints: Vec::new(),
        ports: Vec::new(),
        generic_resources: Vec::new(),
        job_iteration: None,
        handover: Handover::Pending,
        in_since: 0,
        attempt: 0,
        drain: std::time::Duration::ZERO,
    }
}

#[test]
fn files_and_their_places() {
    let payloads = BTreeMap::from([
        payload("key", PayloadKind::Secret, "s3cret", false),
        payload("cert", PayloadKind::Secret, "pem", false),
        payload(
            "conf",
            PayloadKind::Config,
            "{{.Service.Name}} {{secret \"key\"}} {{env \"MODE\"}}",
            true,
        ),
    ]);
    let task = task(
        vec![reference("key", "key"), reference("cert", "/etc/cert.pem")],
        vec![reference("conf", "app.conf")],
    );
    let values = Values::of(&task, &model::node::NodeDescription::default());
    let files = files(&task, &payloads, &values).unwrap();
    let found: Vec<(&str, &[u8])> = files
        .iter()
        .map(|file| (file.target.as_str(), file.content.as_slice()))
        .collect();
    assert_eq!(
        found,
        [
            ("/run/secrets/key", &b"s3cret"[..]),
            ("/etc/cert.pem", b"pem"),
            ("/app.conf", b"web s3cret fast"),
        ]
    );
    let targets: Vec<String> = mounts(Path::new("/p"), &files)
        .into_iter()
        .map(|laid| format!("{} {}", laid.source.display(), laid.target))
        .collect();
    assert_eq!(
        targets,
        [
            "/p/secrets /run/secrets",
            "/p/1 /etc/cert.pem",
            "/p/2 /app.conf"
        ]
    );
    assert!(missing(&task, &payloads).is_empty());
    assert_eq!(
        missing(&task, &BTreeMap::new()),
        ["secret key", "secret cert", "config conf"]
    );
}

#[test]
fn targets_and_owners_that_make_no_sense() {
    let payloads = BTreeMap::from([payload("key", PayloadKind::Secret, "s", false)]);
    for (name, uid, words) in [
        ("../x", "0", "`..`"),
        ("", "0", "no path"),
        ("key", "root", "numbers"),
    ] {
        let mut given = reference("key", name);
        if let Some(file) = &mut given.file {
            file.uid = uid.into();
        }
        let task = task(vec![given], vec![]);
        let values = Values::of(&task, &model::node::NodeDescription::default());
        let refusal = files(&task, &payloads, &values).unwrap_err();
        assert!(refusal.message.contains(words), "{name} {uid}: {refusal}");
    }
}

#[test]
fn files_have_their_mode_and_go_with_the_task() {
    let root = tempfile::tempdir().unwrap();
    let payloads = Payloads {
        directory: root.path().to_owned(),
    };
    let known = BTreeMap::from([payload("key", PayloadKind::Secret, "s3cret", false)]);
    let mut given = reference("key", "deep/key");
    if let Some(file) = &mut given.file {
        file.uid = nix::unistd::getuid().to_string();
        file.gid = nix::unistd::getgid().to_string();
    }
    let task = task(vec![given], vec![]);
    let values = Values::of(&task, &model::node::NodeDescription::default());
    for _ in 0..2 {
        let laid = payloads.lay(&task, &known, &values).unwrap();
        assert_eq!(laid[0].target, "/run/secrets");
        let path = laid[0].source.join("deep/key");
        assert_eq!(fs::read(&path).unwrap(), b"s3cret");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o440);
    }
    payloads.keep_only(|id| id == "t1");
    assert!(root.path().join("t1").exists());
    payloads.remove(&task.id);
    assert!(!root.path().join("t1").exists());
}
