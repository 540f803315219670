//! From a task to the wish for its container: pure functions.

use std::{collections::BTreeMap, time::Duration};

use model::{
    Endpoint, Refusal, Task,
    node::NodeDescription,
    publish::PublishOptions,
    service::PublishMode,
    task::{self, GenericResource, HealthSpec, Mount, Ulimit},
};
use runtime::{
    engine::{
        ContainerSpec, Healthcheck, HostSpec, LogSpec, MountKind, MountSpec, Resources,
        RestartPolicy, Ulimit as Limit,
    },
    network::{NetworkMode, NetworkWish, PortBinding},
};

use super::{payload::Laid, template::Values};
use crate::api_socket;

/// What this host adds to a task.
#[derive(Debug, Clone)]
pub(super) struct Place<'a> {
    pub node: &'a NodeDescription,
    /// The task's endpoints, in its order, with the name of each one's network.
    pub endpoints: &'a [Endpoint],
    /// The API sockets there are.
    pub socket: api_socket::Here,
    /// Secrets and configs as they lie on this host.
    pub laid: &'a [Laid],
}

/// The engine's least limit of memory, in bytes.
const LEAST_LIMIT: i64 = 6 << 20;

/// The label that says which task a container is.
pub(super) const LABEL_TASK: &str = "com.docker.swarm.task.id";

/// The container's wish.
pub(super) fn wish(task: &Task, place: &Place<'_>) -> Result<ContainerSpec, Refusal> {
    let values = Values::of(task, place.node);
    let spec = &task.spec.container;
    let mut env = Vec::with_capacity(spec.env.len());
    for variable in &spec.env {
        env.push(values.expand("an environment variable", variable)?);
    }
    env.extend(resource_variables(&task.generic_resources));
    let mut mounts = Vec::new();
    for mount in &spec.mounts {
        mounts.push(mount_spec(task, mount, &values, place)?);
    }
    for laid in place.laid {
        mounts.push(MountSpec {
            target: laid.target.clone(),
            read_only: true,
            kind: MountKind::Bind {
                source: laid.source.display().to_string(),
                create_source: false,
                propagation: String::new(),
                non_recursive: false,
            },
        });
    }
    let words = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    Ok(ContainerSpec {
        name: Some(task.name()),
        image: spec.image.clone(),
        entrypoint: words(&spec.command),
        command: words(&spec.args),
        env,
        labels: labels(task),
        hostname: values.expand("the host name", &spec.hostname)?,
        user: spec.user.clone(),
        working_dir: spec.dir.clone(),
        tty: spec.tty,
        open_stdin: spec.open_stdin,
        stop_signal: (!spec.stop_signal.is_empty()).then(|| spec.stop_signal.clone()),
        stop_timeout: spec.stop_grace_period.map(whole_seconds),
        health: spec.health.as_ref().map(health),
        host: host(task, mounts),
        network: network(task, place.endpoints),
        dns: spec.dns.nameservers.clone(),
        dns_search: spec.dns.search.clone(),
        dns_options: spec.dns.options.clone(),
        extra_hosts: extra_hosts(&spec.hosts),
        ..ContainerSpec::default()
    })
}

/// The images that are needed here before the container can be made: its own and those it mounts.
pub(super) fn images(task: &Task, node: &NodeDescription) -> Result<Vec<String>, Refusal> {
    let spec = &task.spec.container;
    let values = Values::of(task, node);
    let mut images = vec![spec.image.clone()];
    for mount in &spec.mounts {
        if mount.kind == task::MountKind::Image {
            images.push(values.expand("a mount's source", &mount.source)?);
        }
    }
    images.dedup();
    Ok(images)
}

fn labels(task: &Task) -> BTreeMap<String, String> {
    let mut labels = task.spec.container.labels.clone();
    let node = task.node.as_ref().map(ToString::to_string);
    for (key, value) in [
        ("com.docker.swarm.node.id", node.unwrap_or_default()),
        ("com.docker.swarm.service.id", task.service.to_string()),
        ("com.docker.swarm.service.name", task.service_name.clone()),
        ("com.docker.swarm.task", String::new()),
        (LABEL_TASK, task.id.to_string()),
        ("com.docker.swarm.task.name", task.name()),
    ] {
        labels.insert(key.to_owned(), value);
    }
    labels
}

fn host(task: &Task, mounts: Vec<MountSpec>) -> HostSpec {
    let spec = &task.spec.container;
    let log = task.spec.log_driver.clone().unwrap_or_default();
    HostSpec {
        mounts,
        // The task's machine and the manager decide about restarts.
        restart: RestartPolicy::No,
        init: spec.init.unwrap_or(false),
        read_only: spec.read_only,
        cap_add: spec.cap_add.clone(),
        cap_drop: spec.cap_drop.clone(),
        security_opt: security(&spec.privileges),
        group_add: spec.groups.clone(),
        sysctls: spec.sysctls.clone(),
        ulimits: spec.ulimits.iter().map(limit).collect(),
        oom_score_adj: (spec.oom_score_adj != 0)
            .then(|| i32::try_from(spec.oom_score_adj).unwrap_or(i32::MAX)),
        resources: Resources {
            memory: task.spec.limits.memory_bytes,
            memory_reservation: soft_limit(task.spec.reservations.memory_bytes),
            nano_cpus: task.spec.limits.nano_cpus,
            pids_limit: task.spec.limits.pids,
            ..Resources::default()
        },
        log: LogSpec {
            driver: log.name,
            options: log.options,
        },
        ports: ports(task),
        ..HostSpec::default()
    }
}

/// What a reservation is to the engine, which takes no limit below [`LEAST_LIMIT`]: services may
/// reserve less, and their tasks run all the same.
fn soft_limit(reserved: i64) -> i64 {
    if reserved < LEAST_LIMIT { 0 } else { reserved }
}

/// Those of host mode; the others lead here by the ingress network.
fn ports(task: &Task) -> Vec<PortBinding> {
    let all = task.ports.iter();
    all.filter(|port| port.mode == PublishMode::Host)
        .map(|port| PortBinding {
            target: port.target,
            protocol: port.protocol,
            published: (port.published != 0).then_some((port.published, port.published)),
            address: PublishOptions::of(&task.labels, port).host_ip,
        })
        .collect()
}

fn security(privileges: &task::Privileges) -> Vec<String> {
    let mut options = Vec::new();
    if privileges.no_new_privileges {
        options.push("no-new-privileges".to_owned());
    }
    match privileges.seccomp_mode.as_str() {
        "unconfined" => options.push("seccomp=unconfined".to_owned()),
        "custom" => options.push(format!(
            "seccomp={}",
            String::from_utf8_lossy(&privileges.seccomp_profile)
        )),
        _ => {}
    }
    options
}

fn limit(limit: &Ulimit) -> Limit {
    Limit {
        name: limit.name.clone(),
        soft: limit.soft,
        hard: limit.hard,
    }
}

fn health(spec: &HealthSpec) -> Healthcheck {
    Healthcheck {
        test: spec.test.clone(),
        interval: spec.interval.unwrap_or_default(),
        timeout: spec.timeout.unwrap_or_default(),
        start_period: spec.start_period.unwrap_or_default(),
        start_interval: spec.start_interval.unwrap_or_default(),
        retries: u32::try_from(spec.retries.unwrap_or_default()).unwrap_or(u32::MAX),
    }
}

/// Docker counts grace in whole seconds; a part of one is one.
fn whole_seconds(grace: Duration) -> i64 {
    let rounded = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
    i64::try_from(rounded).unwrap_or(i64::MAX)
}

/// `IP NAME [NAME…]` as `NAME:IP` each.
fn extra_hosts(lines: &[String]) -> Vec<String> {
    let mut hosts = Vec::new();
    for line in lines {
        let mut words = line.split_whitespace();
        if let Some(address) = words.next() {
            hosts.extend(words.map(|name| format!("{name}:{address}")));
        }
    }
    hosts
}

/// `DOCKER_RESOURCE_GPU=1,2`: what the scheduler gave of each kind.
fn resource_variables(given: &[GenericResource]) -> Vec<String> {
    let mut by_kind: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for resource in given {
        let (kind, value) = match resource {
            GenericResource::Discrete { kind, value } => (kind, value.to_string()),
            GenericResource::Named { kind, value } => (kind, value.clone()),
        };
        by_kind.entry(kind).or_default().push(value);
    }
    by_kind
        .into_iter()
        .map(|(kind, values)| {
            format!(
                "DOCKER_RESOURCE_{}={}",
                kind.to_uppercase(),
                values.join(",")
            )
        })
        .collect()
}

/// Networks of the host by name, else the endpoints that the manager gave.
fn network(task: &Task, endpoints: &[Endpoint]) -> NetworkMode {
    let attached = &task.spec.networks;
    for attachment in attached {
        match attachment.target.as_str() {
            "host" => return NetworkMode::Host,
            "none" => return NetworkMode::None,
            _ => {}
        }
    }
    let mut wishes: Vec<NetworkWish> = endpoints
        .iter()
        .map(|endpoint| NetworkWish {
            network: endpoint.network.to_string(),
            aliases: attached
                .iter()
                .find(|attachment| attachment.target == endpoint.network.as_str())
                .map(|attachment| attachment.aliases.clone())
                .unwrap_or_default(),
            addresses: Vec::new(),
            interface: None,
            endpoint: Some(endpoint.id.clone()),
        })
        .collect();
    if wishes.is_empty() {
        wishes.push(NetworkWish::named("bridge"));
    }
    NetworkMode::Networks(wishes)
}

fn mount_spec(
    task: &Task,
    mount: &Mount,
    values: &Values,
    place: &Place<'_>,
) -> Result<MountSpec, Refusal> {
    let source = values.expand("a mount's source", &mount.source)?;
    let target = values.expand("a mount's target", &mount.target)?;
    let kind = match mount.kind {
        task::MountKind::Bind => {
            let options = mount.bind.clone().unwrap_or_default();
            MountKind::Bind {
                source: place
                    .socket
                    .in_place_of(&source, &task.labels)
                    .unwrap_or(source),
                create_source: options.create_mountpoint,
                propagation: options.propagation,
                non_recursive: options.non_recursive,
            }
        }
        task::MountKind::Volume => volume(mount, &source, values)?,
        task::MountKind::Tmpfs => {
            let options = mount.tmpfs.clone().unwrap_or_default();
            MountKind::Tmpfs {
                size: u64::try_from(options.size_bytes)
                    .ok()
                    .filter(|size| *size > 0),
                mode: (options.mode != 0).then_some(options.mode),
                options: options
                    .options
                    .iter()
                    .map(|option| option.join("="))
                    .collect(),
            }
        }
        task::MountKind::Image => MountKind::Image {
            image: source,
            subpath: mount.image.clone().unwrap_or_default().subpath,
        },
        task::MountKind::Npipe | task::MountKind::Cluster => {
            return Err(Refusal::not_implemented(format!(
                "mounts of type {:?} are not there; use bind, volume, tmpfs or image for {target}",
                mount.kind
            )));
        }
    };
    Ok(MountSpec {
        target,
        read_only: mount.read_only,
        kind,
    })
}

fn volume(mount: &Mount, source: &str, values: &Values) -> Result<MountKind, Refusal> {
    let options = mount.volume.clone().unwrap_or_default();
    let driver = options.driver.unwrap_or_default();
    if !matches!(driver.name.as_str(), "" | "local") {
        return Err(Refusal::not_found(format!(
            "volume driver {:?} is not there; only \"local\" is",
            driver.name
        )));
    }
    let mut labels = BTreeMap::new();
    for (key, value) in &options.labels {
        labels.insert(key.clone(), values.expand("a volume's label", value)?);
    }
    Ok(MountKind::Volume {
        name: (!source.is_empty()).then(|| source.to_owned()),
        no_copy: options.no_copy,
        labels,
        options: driver.options,
        subpath: options.subpath,
    })
}

#[cfg(test)]
#[path = "container_tests.rs"]
mod tests;
