use std::sync::Arc;

use model::{
    ContainerId, EndpointOwner, EndpointState, Meta,
    endpoint::MacAddress,
    service::{PortConfig, Protocol, ServiceMode},
    task::{ContainerSpec as Asked, Handover, NetworkAttachment, TaskSpec, TaskState, TaskStatus},
};

use super::*;

fn task(change: impl FnOnce(&mut TaskSpec)) -> Task {
    let mut spec = TaskSpec {
        container: Asked {
            image: "registry:5000/example/echo:latest".into(),
            ..Asked::default()
        },
        ..TaskSpec::default()
    };
    change(&mut spec);
    Task {
        id: "t1".into(),
        meta: Meta::default(),
        service: "s1".into(),
        service_name: "web".into(),
        slot: 2,
        node: Some("n1".into()),
        spec: Arc::new(spec),
        spec_version: 1,
        labels: BTreeMap::new(),
        mode: ServiceMode::Replicated { replicas: 2 },
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
        drain: Duration::ZERO,
    }
}

fn endpoint() -> Endpoint {
    Endpoint {
        id: "e1".into(),
        meta: Meta::default(),
        network: "net".into(),
        node: "n1".into(),
        owner: EndpointOwner::Container {
            id: ContainerId::new("c"),
            name: "c".into(),
        },
        addresses: Vec::new(),
        mac: MacAddress::default(),
        names: Vec::new(),
        state: EndpointState::Allocated,
    }
}

fn made(task: &Task) -> Result<ContainerSpec, Refusal> {
    with(task, &[], false)
}

fn with(task: &Task, endpoints: &[Endpoint], has_docker: bool) -> Result<ContainerSpec, Refusal> {
    let node = NodeDescription {
        hostname: "worker01".into(),
        ..NodeDescription::default()
    };
    let place = Place {
        node: &node,
        endpoints,
        socket: api_socket::Here {
            ours: Some("/run/overnet/containers.sock".into()),
            docker: has_docker,
        },
        laid: &[],
    };
    wish(task, &place)
}

#[test]
fn names_labels_and_templates() {
    let spec = made(&task(|spec| {
        spec.container.hostname = "{{.Node.Hostname}}-{{.Task.Slot}}".into();
        spec.container.env = vec!["NAME={{.Service.Name}}".into()];
        spec.container.command = vec!["/bin/x".into()];
        spec.container.args = vec!["-v".into()];
        spec.container.hosts = vec!["10.0.0.1 a b".into()];
        spec.container.stop_grace_period = Some(Duration::from_millis(1500));
    }))
    .unwrap();
    assert_eq!(spec.name.as_deref(), Some("web.2.t1"));
    assert_eq!(spec.labels["com.docker.swarm.task.id"], "t1");
    assert_eq!(spec.labels["com.docker.swarm.service.name"], "web");
    assert_eq!(spec.hostname, "worker01-2");
    assert_eq!(spec.env, ["NAME=web"]);
    assert_eq!(spec.entrypoint.as_deref(), Some(&["/bin/x".to_owned()][..]));
    assert_eq!(spec.command.as_deref(), Some(&["-v".to_owned()][..]));
    assert_eq!(spec.extra_hosts, ["a:10.0.0.1", "b:10.0.0.1"]);
    assert_eq!(spec.stop_timeout, Some(2));
    assert_eq!(spec.host.restart, RestartPolicy::No);
}

#[test]
fn networks() {
    let on = |target: &str| {
        task(|spec| {
            spec.networks = vec![NetworkAttachment {
                target: target.into(),
                aliases: vec!["db".into()],
                ..NetworkAttachment::default()
            }];
        })
    };
    assert_eq!(made(&on("host")).unwrap().network, NetworkMode::Host);
    assert_eq!(made(&on("none")).unwrap().network, NetworkMode::None);
    let bridge = NetworkMode::Networks(vec![NetworkWish::named("bridge")]);
    assert_eq!(made(&task(|_| ())).unwrap().network, bridge);
    let given = NetworkMode::Networks(vec![NetworkWish {
        aliases: vec!["db".into()],
        interface: None,
        endpoint: Some("e1".into()),
        ..NetworkWish::named("net")
    }]);
    assert_eq!(
        with(&on("net"), &[endpoint()], false).unwrap().network,
        given
    );
}

#[test]
fn dockers_socket_is_ours_where_the_service_asks_for_it() {
    let mut task = task(|spec| {
        spec.container.mounts = vec![Mount {
            source: "/var/run/docker.sock".into(),
            target: "/x".into(),
            ..Mount::default()
        }];
    });
    for (label, wanted) in [
        (None, "/var/run/docker.sock"),
        (Some("true"), "/run/overnet/containers.sock"),
    ] {
        if let Some(value) = label {
            task.labels.insert(api_socket::LABEL.into(), value.into());
        }
        let spec = with(&task, &[], true).unwrap();
        let MountKind::Bind { source: found, .. } = &spec.host.mounts[0].kind else {
            panic!("no bind");
        };
        assert_eq!(found, wanted, "{label:?}");
    }
}

#[test]
fn what_cannot_be_is_refused_in_a_sentence() {
    let mount = |kind, volume| {
        task(|spec| {
            spec.container.mounts = vec![Mount {
                kind,
                source: "data".into(),
                target: "/x".into(),
                volume,
                ..Mount::default()
            }];
        })
    };
    let driver = task::VolumeOptions {
        driver: Some(task::Driver {
            name: "nfs".into(),
            ..task::Driver::default()
        }),
        ..task::VolumeOptions::default()
    };
    for (task, words) in [
        (mount(task::MountKind::Npipe, None), "Npipe"),
        (mount(task::MountKind::Volume, Some(driver)), "nfs"),
        (
            task(|spec| spec.container.env = vec!["A={{.Nothing}}".into()]),
            "{{.Nothing}}",
        ),
    ] {
        let refusal = made(&task).unwrap_err();
        assert!(refusal.message.contains(words), "{refusal}");
    }
}

#[test]
fn volumes_with_options_and_images() {
    let options = BTreeMap::from([("type".to_owned(), "tmpfs".to_owned())]);
    let task = task(|spec| {
        spec.container.mounts = vec![
            Mount {
                kind: task::MountKind::Volume,
                source: "data".into(),
                target: "/v".into(),
                volume: Some(task::VolumeOptions {
                    driver: Some(task::Driver {
                        name: "local".into(),
                        options: options.clone(),
                    }),
                    subpath: "a/b".into(),
                    ..task::VolumeOptions::default()
                }),
                ..Mount::default()
            },
            Mount {
                kind: task::MountKind::Image,
                source: "tools:{{.Task.Slot}}".into(),
                target: "/i".into(),
                image: Some(task::ImageOptions {
                    subpath: "bin".into(),
                }),
                ..Mount::default()
            },
        ];
    });
    let mounts = made(&task).unwrap().host.mounts;
    assert_eq!(
        mounts[0].kind,
        MountKind::Volume {
            name: Some("data".into()),
            no_copy: false,
            labels: BTreeMap::new(),
            options,
            subpath: "a/b".into(),
        }
    );
    assert_eq!(
        mounts[1].kind,
        MountKind::Image {
            image: "tools:2".into(),
            subpath: "bin".into(),
        }
    );
    assert_eq!(
        images(&task, &NodeDescription::default()).unwrap(),
        ["registry:5000/example/echo:latest", "tools:2"]
    );
}

#[test]
fn generic_resources_are_told_by_kind() {
    let discrete = |value| GenericResource::Discrete {
        kind: "ssd".into(),
        value,
    };
    let named = |value: &str| GenericResource::Named {
        kind: "gpu".into(),
        value: value.into(),
    };
    assert_eq!(
        resource_variables(&[named("a"), discrete(3), named("b")]),
        ["DOCKER_RESOURCE_GPU=a,b", "DOCKER_RESOURCE_SSD=3"]
    );
}

#[test]
fn ports_of_host_mode_are_the_containers() {
    let mut task = task(|_| ());
    for (target, published, mode) in [
        (80, 8080, PublishMode::Host),
        (81, 0, PublishMode::Host),
        (82, 8082, PublishMode::Ingress),
    ] {
        task.ports.push(PortConfig {
            name: String::new(),
            protocol: Protocol::Tcp,
            target,
            published,
            mode,
        });
    }
    let label = model::publish::label(80, Protocol::Tcp);
    task.labels.insert(label, "host_ip=192.0.2.1".into());
    let ports = made(&task).unwrap().host.ports;
    let seen: Vec<_> = ports
        .iter()
        .map(|port| (port.target, port.published, port.address))
        .collect();
    let address = "192.0.2.1".parse().ok();
    assert_eq!(seen, [(80, Some((8080, 8080)), address), (81, None, None)]);
}
