#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use model::{
    PayloadKind, PayloadSpec, RefusalKind, ServiceSpec,
    control::Credentials,
    encryption::{Encryptor, HostEncryption},
    payload::Content,
    service::{
        EndpointMode, EndpointSpec, FailureAction, PortConfig, Protocol, PublishMode, ServiceMode,
        UpdateConfig, UpdateState, UpdateStatus,
    },
    task::{FileTarget, Mount, MountKind, NetworkAttachment, PayloadReference},
};

use super::*;
use crate::{
    example,
    store::{StoreChange, Tables, Transaction},
};

fn port(published: u16, mode: PublishMode) -> PortConfig {
    PortConfig {
        name: String::new(),
        protocol: Protocol::Tcp,
        target: 80,
        published,
        mode,
    }
}

fn spec(name: &str) -> ServiceSpec {
    let mut spec = ServiceSpec {
        name: name.into(),
        ..ServiceSpec::default()
    };
    spec.task.container.image = "nginx".into();
    spec
}

fn publish(spec: &mut ServiceSpec, mode: EndpointMode, ports: &[PortConfig]) {
    spec.endpoint = Some(EndpointSpec {
        mode,
        ports: ports.to_vec(),
    });
}

fn mount(kind: MountKind, source: &str, target: &str) -> Mount {
    Mount {
        kind,
        source: source.into(),
        target: target.into(),
        ..Mount::default()
    }
}

/// With service `taken` on port 8080, network `ch03`, the ingress network, secret `key`.
fn tables() -> Tables {
    let mut tables = example::tables(vec![]);
    let networks = [("ch03", false), ("ingress", true)].map(|(name, ingress)| {
        StoreChange::SetNetwork(Box::new(model::Network {
            id: name.chars().rev().collect::<String>().into(),
            meta: model::Meta::default(),
            spec: model::NetworkSpec {
                name: name.into(),
                ingress,
                ..model::NetworkSpec::default()
            },
            vni: 4096,
            subnets: Vec::new(),
        }))
    });
    example::apply(&mut tables, 1, networks.to_vec());
    commit(&mut tables, |tx| {
        payload_create(tx, PayloadKind::Secret, secret("key", 10)).map(drop)
    });
    commit(&mut tables, |tx| {
        let mut taken = spec("taken");
        publish(
            &mut taken,
            EndpointMode::Vip,
            &[port(8080, PublishMode::Ingress)],
        );
        taken.task.container.registry_auth = "old".into();
        taken.task.container.secrets = vec![reference("key", "key")];
        taken.task.networks = vec![NetworkAttachment {
            target: "ch03".into(),
            ..NetworkAttachment::default()
        }];
        service_create(tx, taken).map(drop)
    });
    tables
}

fn commit(tables: &mut Tables, change: impl FnOnce(&mut Transaction) -> Result<(), Refusal>) {
    let mut tx = Transaction::on(tables, 5);
    change(&mut tx).unwrap();
    let changes = tx.changes().to_vec();
    example::apply(tables, 5, changes);
}

fn secret(name: &str, length: usize) -> PayloadSpec {
    PayloadSpec {
        name: name.into(),
        data: Content(vec![b'x'; length]),
        ..PayloadSpec::default()
    }
}

fn reference(name: &str, file: &str) -> PayloadReference {
    PayloadReference {
        name: name.into(),
        file: Some(FileTarget {
            name: file.into(),
            uid: "0".into(),
            gid: "0".into(),
            mode: 0o444,
        }),
        ..PayloadReference::default()
    }
}

#[test]
fn bad_services_are_refused_before_anything_changes() {
    use RefusalKind::{Conflict, Forbidden, Invalid, NotFound, NotImplemented};
    let tables = tables();
    type Spoil = fn(&mut ServiceSpec);
    let cases: [(Spoil, RefusalKind, &str); 34] = [
        (|s| s.name.clear(), Invalid, "needs a name"),
        (|s| s.name = "-a".into(), Invalid, "DNS name component"),
        (|s| s.name = "a.b".into(), Invalid, "DNS name component"),
        (|s| s.name = "x".repeat(64), Invalid, "DNS name component"),
        (|s| s.name = "taken".into(), Conflict, "already exists"),
        (
            |s| s.task.container.image.clear(),
            Invalid,
            "image reference must be provided",
        ),
        (
            |s| s.task.runtime = "plugin".into(),
            NotImplemented,
            "runtime",
        ),
        (
            |s| publish(s, EndpointMode::Dnsrr, &[port(80, PublishMode::Ingress)]),
            Invalid,
            "can't be used with dnsrr",
        ),
        (
            |s| publish(s, EndpointMode::Vip, &[port(8080, PublishMode::Ingress)]),
            Invalid,
            "already in use by service 'taken'",
        ),
        (
            |s| publish(s, EndpointMode::Vip, &[port(8080, PublishMode::Host)]),
            Invalid,
            "already in use by service 'taken'",
        ),
        (
            |s| {
                publish(
                    s,
                    EndpointMode::Vip,
                    &[port(1, PublishMode::Host), port(1, PublishMode::Host)],
                );
            },
            Invalid,
            "duplicate published ports",
        ),
        (
            |s| {
                publish(
                    s,
                    EndpointMode::Vip,
                    &[PortConfig {
                        target: 0,
                        ..port(1, PublishMode::Host)
                    }],
                );
            },
            Invalid,
            "no target port",
        ),
        (
            |s| s.task.placement.constraints = vec!["node.role=manager".into()],
            Invalid,
            "constraint",
        ),
        (
            |s| s.task.placement.preferences = vec!["zone".into()],
            Invalid,
            "spread",
        ),
        (
            |s| {
                s.task.networks = vec![NetworkAttachment {
                    target: "none-such".into(),
                    ..NetworkAttachment::default()
                }];
            },
            NotFound,
            "network none-such not found",
        ),
        (
            |s| {
                s.task.networks = vec![NetworkAttachment {
                    target: "docker_gwbridge".into(),
                    ..NetworkAttachment::default()
                }];
            },
            Forbidden,
            "scoped to the swarm",
        ),
        (
            |s| {
                s.task.networks = vec![NetworkAttachment {
                    target: "ingress".into(),
                    ..NetworkAttachment::default()
                }];
            },
            Invalid,
            "ingress network",
        ),
        (
            |s| {
                s.task.networks = vec![
                    NetworkAttachment {
                        target: "ch03".into(),
                        ..NetworkAttachment::default()
                    };
                    2
                ];
            },
            Invalid,
            "named twice",
        ),
        (
            |s| s.task.container.secrets = vec![reference("lost", "lost")],
            Invalid,
            "secret not found: lost",
        ),
        (
            |s| s.task.container.configs = vec![reference("key", "key")],
            Invalid,
            "config not found: key",
        ),
        (
            |s| s.task.container.secrets = vec![reference("key", "a"), reference("key", "a")],
            Invalid,
            "conflicting target",
        ),
        (
            |s| s.task.container.secrets = vec![reference("key", "../a")],
            Invalid,
            "malformed",
        ),
        (|s| s.task.limits.nano_cpus = 999_999, Invalid, "0.001"),
        (
            |s| s.task.reservations.memory_bytes = 1 << 20,
            Invalid,
            "4MiB",
        ),
        (|s| s.task.limits.memory_bytes = -1, Invalid, "4MiB"),
        (
            |s| {
                s.task.container.mounts = vec![
                    mount(MountKind::Bind, "/a", "/x"),
                    mount(MountKind::Volume, "v", "/x/"),
                ];
            },
            Invalid,
            "duplicate mount point",
        ),
        (
            |s| s.task.container.mounts = vec![mount(MountKind::Bind, "/a", "x")],
            Invalid,
            "absolute path",
        ),
        (
            |s| s.task.container.mounts = vec![mount(MountKind::Bind, "a", "/x")],
            Invalid,
            "absolute path",
        ),
        (
            |s| s.task.container.mounts = vec![mount(MountKind::Image, "", "/x")],
            Invalid,
            "name the image",
        ),
        (
            |s| s.task.container.mounts = vec![mount(MountKind::Npipe, "a", "/x")],
            NotImplemented,
            "npipe",
        ),
        (
            |s| {
                s.mode = ServiceMode::GlobalJob;
                s.update = Some(UpdateConfig::default());
            },
            Invalid,
            "job-mode",
        ),
        (
            |s| {
                s.labels.insert("overnet.drain-timeout".into(), "5".into());
            },
            Invalid,
            "duration",
        ),
        (
            |s| {
                s.labels
                    .insert("overnet.depends-on".into(), "db:alive".into());
            },
            Invalid,
            "no condition",
        ),
        (
            |s| {
                s.labels.insert("overnet.rebalance".into(), "yes".into());
            },
            Invalid,
            "true or false",
        ),
    ];
    for (spoil, kind, said) in cases {
        let mut bad = spec("web");
        spoil(&mut bad);
        let mut tx = Transaction::on(&tables, 1);
        let refusal = service_create(&mut tx, bad).expect_err(said);
        assert_eq!(refusal.kind, kind, "{}", refusal.message);
        assert!(refusal.message.contains(said), "{}", refusal.message);
        assert!(tx.changes().is_empty(), "{said}");
    }
}

fn update(
    tables: &mut Tables,
    change: impl FnOnce(&mut ServiceSpec),
) -> Result<model::Service, Refusal> {
    let service = tables.work().service_named("taken").unwrap().clone();
    let mut spec = service.spec.clone();
    change(&mut spec);
    call(tables, service.meta.version, spec, Credentials::Spec, false)
}

fn call(
    tables: &mut Tables,
    version: u64,
    spec: ServiceSpec,
    credentials: Credentials,
    rollback: bool,
) -> Result<model::Service, Refusal> {
    let mut tx = Transaction::on(tables, 9);
    service_update(&mut tx, "taken", version, spec, credentials, rollback)?;
    let changes = tx.changes().to_vec();
    example::apply(tables, 9, changes);
    Ok(tables.work().service_named("taken").unwrap().clone())
}

#[test]
fn updates_keep_what_they_do_not_name() {
    let mut tables = tables();
    let first = tables.work().service_named("taken").unwrap().clone();
    assert_eq!(
        first.spec.task.networks[0].target, "30hc",
        "names became ids"
    );
    let same = update(&mut tables, |_| {}).unwrap();
    assert_eq!(same.spec_version, first.spec_version, "nothing changed");
    assert!(same.meta.version > first.meta.version);
    assert_eq!(same.previous, None);
    let second = update(&mut tables, |spec| {
        spec.task.container.image = "nginx:2".into();
        spec.task.container.registry_auth.clear();
    })
    .unwrap();
    assert!(second.spec_version > first.spec_version);
    assert_eq!(second.spec.task.container.registry_auth, "old");
    assert_eq!(second.previous.as_deref(), Some(&first.spec));
    let back = call(
        &mut tables,
        second.meta.version,
        ServiceSpec::default(),
        Credentials::Spec,
        true,
    )
    .unwrap();
    assert_eq!(back.spec, first.spec);
    let status = back.update.unwrap();
    assert_eq!(status.state, UpdateState::RollbackStarted);
    assert_eq!(status.message, "manually requested rollback");
}

#[test]
fn updates_that_cannot_be_are_refused() {
    let mut tables = tables();
    let service = tables.work().service_named("taken").unwrap().clone();
    let version = service.meta.version;
    let mut renamed = service.spec.clone();
    renamed.name = "other".into();
    let mut global = service.spec.clone();
    global.mode = ServiceMode::Global;
    for (version, spec, rollback, kind, said) in [
        (
            version - 1,
            service.spec.clone(),
            false,
            RefusalKind::OutOfSequence,
            "update out of sequence",
        ),
        (
            version,
            renamed,
            false,
            RefusalKind::NotImplemented,
            "renaming",
        ),
        (
            version,
            global,
            false,
            RefusalKind::NotImplemented,
            "mode change",
        ),
        (
            version,
            service.spec.clone(),
            true,
            RefusalKind::Invalid,
            "previous spec",
        ),
    ] {
        let refusal =
            call(&mut tables, version, spec, Credentials::Spec, rollback).expect_err(said);
        assert_eq!(refusal.kind, kind);
        assert!(refusal.message.contains(said), "{}", refusal.message);
    }
}

#[test]
fn the_same_spec_again_resumes_and_scaling_does_not() {
    let paused = UpdateStatus {
        state: UpdateState::Paused,
        started_at: 1,
        completed_at: None,
        message: String::new(),
    };
    for (scale, left) in [(false, None), (true, Some(UpdateState::Paused))] {
        let mut tables = tables();
        let mut service = tables.work().service_named("taken").unwrap().clone();
        service.update = Some(paused.clone());
        service.spec.update = Some(UpdateConfig {
            failure_action: FailureAction::Pause,
            ..UpdateConfig::default()
        });
        example::apply(
            &mut tables,
            6,
            vec![StoreChange::SetService(Box::new(service))],
        );
        let after = update(&mut tables, |spec| {
            if scale {
                spec.mode = ServiceMode::Replicated { replicas: 7 };
            }
        })
        .unwrap();
        assert_eq!(after.update.map(|status| status.state), left);
    }
}

#[test]
fn what_services_use_cannot_be_removed() {
    let mut tables = tables();
    let mut tx = Transaction::on(&tables, 1);
    for (refusal, said) in [
        (
            payload_remove(&mut tx, PayloadKind::Secret, "key").map(drop),
            "secret 'key' is in use by the following service: taken",
        ),
        (
            network_remove(&mut tx, "ch03").map(drop),
            "network ch03 is in use by service taken (0 tasks); remove it first",
        ),
        (
            network_remove(&mut tx, "ingress").map(drop),
            "ingress network cannot be removed because service taken depends on it; take its published ports away first with `service update --publish-rm`",
        ),
    ] {
        let message = refusal.expect_err(said).message;
        assert!(message.starts_with(said), "{message}");
    }
    commit(&mut tables, |tx| service_remove(tx, "taken").map(drop));
    commit(&mut tables, |tx| {
        payload_remove(tx, PayloadKind::Secret, "key").map(drop)
    });
    commit(&mut tables, |tx| network_remove(tx, "ch03").map(drop));
    assert!(tables.work().service_named("taken").is_none());
}

#[test]
fn secrets_and_configs_have_limits_and_stay() {
    let mut tables = tables();
    for (kind, name, length, said) in [
        (PayloadKind::Secret, "", 1, "invalid secret name"),
        (PayloadKind::Config, "a/b", 1, "invalid config name"),
        (PayloadKind::Secret, "a", 0, "larger than 0"),
        (PayloadKind::Secret, "a", 500 * 1024, "less than 512000"),
        (PayloadKind::Config, "a", 1000 * 1024, "less than 1024000"),
        (PayloadKind::Secret, "key", 1, "already exists"),
    ] {
        let mut tx = Transaction::on(&tables, 1);
        let refusal = payload_create(&mut tx, kind, secret(name, length)).expect_err(said);
        assert!(refusal.message.contains(said), "{}", refusal.message);
    }
    let stored = find_payload(&tables, PayloadKind::Secret, "key")
        .unwrap()
        .clone();
    assert_eq!(shown(&stored).spec.data, Content::default());
    let version = stored.meta.version;
    let mut relabelled = shown(&stored).spec;
    relabelled.labels.insert("a".into(), "b".into());
    commit(&mut tables, |tx| {
        payload_update(tx, PayloadKind::Secret, "key", version, relabelled.clone())
    });
    let now = find_payload(&tables, PayloadKind::Secret, "key").unwrap();
    assert_eq!(
        (now.spec.data.clone(), now.spec.labels.len()),
        (stored.spec.data, 1)
    );
    let mut tx = Transaction::on(&tables, 1);
    let other = secret("key", 3);
    let refusal = payload_update(&mut tx, PayloadKind::Secret, "key", now.meta.version, other);
    assert!(
        refusal
            .unwrap_err()
            .message
            .contains("only updates to Labels")
    );
}

fn encrypted(value: &str) -> model::NetworkSpec {
    model::NetworkSpec {
        name: "secret".into(),
        driver: "overlay".into(),
        attachable: true,
        ipam: vec![model::network::IpamConfig {
            subnet: "10.77.0.0/24".parse().ok(),
            ..model::network::IpamConfig::default()
        }],
        options: [("encrypted".to_owned(), value.to_owned())].into(),
        ..model::NetworkSpec::default()
    }
}

fn node_with(name: &str, by: Option<Encryptor>) -> StoreChange {
    let mut node = example::node(name);
    node.description.encryption = by.map(|by| HostEncryption {
        by,
        keys: Vec::new(),
        receives: 0,
        sends: 0,
        trouble: None,
    });
    node.description.engine_version = "0.0.9".into();
    StoreChange::SetNode(Box::new(node))
}

fn create(tables: &Tables, value: &str) -> Result<model::Network, Refusal> {
    let mut tx = Transaction::on(tables, 0);
    network_create(&mut tx, encrypted(value))
}

#[test]
fn only_hosts_that_encrypt_have_encrypted_networks() {
    let record = StoreChange::SetCluster(Box::new(example::cluster_record()));
    let new = |name| node_with(name, Some(Encryptor::Process));
    let mut tables = example::tables(vec![record, new("n1"), node_with("n2", None)]);
    let refused = create(&tables, "").unwrap_err();
    assert_eq!(refused.kind, RefusalKind::Conflict);
    assert!(refused.message.contains("n2 (ovnd 0.0.9)"), "{refused}");
    // One that is lost is not asked, and has no session when it is back.
    let mut lost = example::node("n2");
    lost.status.state = model::node::NodeState::Down;
    example::apply(&mut tables, 50, vec![StoreChange::SetNode(Box::new(lost))]);
    for value in ["", "true", "1"] {
        assert!(create(&tables, value).unwrap().is_encrypted());
    }
    for value in ["false", "no", "2"] {
        let refused = create(&tables, value).unwrap_err();
        assert_eq!(refused.kind, RefusalKind::Invalid);
        assert!(refused.message.contains("leave it out"), "{refused}");
    }
    let old = example::node("n2").description;
    assert!(check_newcomer(&tables, &old).is_ok());
    let network = create(&tables, "").unwrap();
    example::apply(
        &mut tables,
        51,
        vec![
            StoreChange::SetNetwork(Box::new(network)),
            node_with("n3", Some(Encryptor::Nothing("no module".into()))),
        ],
    );
    let refused = check_newcomer(&tables, &old).unwrap_err();
    assert!(
        refused.message.contains("encrypted networks (secret)"),
        "{refused}"
    );
    for (node, why) in [("n2", "upgrade it"), ("n3", "no module"), ("n1", "")] {
        let request = model::control::AttachRequest {
            node: node.into(),
            container: model::ContainerId::new(format!("c-{node}")),
            container_name: node.into(),
            network: "secret".into(),
            aliases: Vec::new(),
            addresses: Vec::new(),
            patience: std::time::Duration::ZERO,
        };
        let mut tx = Transaction::on(&tables, 0);
        let done = attach(&mut tx, &request, &|_| true);
        match done {
            Ok(_) => assert_eq!(why, "", "{node}"),
            Err(refused) => {
                assert!(
                    refused.message.contains(why) && !why.is_empty(),
                    "{refused}"
                );
                assert!(refused.message.contains(node), "{refused}");
            }
        }
    }
}
