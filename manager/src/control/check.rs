//! Whether a service spec can be met, before anything changes.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    NetworkId, PayloadKind, Refusal, ServiceId, ServiceSpec,
    service::{
        LABEL_DRAIN, LABEL_PROGRESS_DEADLINE, LABEL_REBALANCE, LABEL_REBALANCE_RATE, PublishMode,
        ServiceMode, UpdateConfig,
    },
    task::{Mount, MountKind, PayloadReference, TaskSpec},
};

use super::{find_network, payload::find_payload, ports};
use crate::{
    orchestrator::{depends, duration},
    scheduler::constraint,
    store::Tables,
};

/// The least share of a processor, in billionths.
const LEAST_CPU: i64 = 1_000_000;
/// The least memory, in bytes.
const LEAST_MEMORY: i64 = 4 << 20;
/// Networks of every host that a service may use beside the cluster's.
const HOST_NETWORKS: [&str; 3] = ["host", "bridge", "none"];
/// Networks of every host that it may not.
const LOCAL_NETWORKS: [&str; 2] = ["docker_gwbridge", "default"];

/// Checks a spec and puts ids where it has names; `own` is the service that it is for.
pub(super) fn service_spec(
    tables: &Tables,
    own: Option<&ServiceId>,
    mut spec: ServiceSpec,
) -> Result<ServiceSpec, Refusal> {
    name(&spec.name)?;
    mode(&mut spec)?;
    labels(&spec)?;
    task(&spec.task)?;
    ports::ports(tables, own, &spec)?;
    networks(tables, &mut spec.task)?;
    let container = &mut spec.task.container;
    references(tables, PayloadKind::Secret, &mut container.secrets)?;
    references(tables, PayloadKind::Config, &mut container.configs)?;
    Ok(spec)
}

fn invalid<T>(message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::invalid(message))
}

/// As one component of a DNS name: at most 63 letters, digits, `-` and `_`, a letter or digit
/// first and last.
fn name(name: &str) -> Result<(), Refusal> {
    if name.is_empty() {
        return invalid("a service needs a name; give it one with --name");
    }
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    let inside = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let fine = name.len() <= 63
        && name.bytes().all(inside)
        && edge(name.bytes().next())
        && edge(name.bytes().last());
    if fine {
        return Ok(());
    }
    invalid(format!(
        "name must be valid as a DNS name component: {name:?} is not; use at most 63 letters, digits, - and _, with a letter or digit first and last"
    ))
}

fn mode(spec: &mut ServiceSpec) -> Result<(), Refusal> {
    if let ServiceMode::ReplicatedJob { concurrent, total } = &mut spec.mode
        && *concurrent == 0
    {
        *concurrent = *total;
    }
    if spec.mode.is_job() {
        for (config, what) in [(&spec.update, "update"), (&spec.rollback, "rollback")] {
            if config.is_some() {
                return invalid(format!(
                    "{what} config must not be present for job-mode services; a job is run again as a whole"
                ));
            }
        }
        if spec
            .endpoint
            .as_ref()
            .is_some_and(|e| e.ports.iter().any(|p| p.mode == PublishMode::Ingress))
        {
            return invalid(
                "a job cannot publish ports in ingress mode; use mode=host or leave them out",
            );
        }
    }
    let share = |config: &Option<UpdateConfig>| {
        config
            .as_ref()
            .is_some_and(|config| config.max_failure_ppm > 1_000_000)
    };
    if share(&spec.update) || share(&spec.rollback) {
        return invalid("max failure ratio is a number from 0 to 1");
    }
    Ok(())
}

/// What the labels of our own say.
fn labels(spec: &ServiceSpec) -> Result<(), Refusal> {
    for label in [LABEL_DRAIN, LABEL_PROGRESS_DEADLINE] {
        if let Some(text) = spec.labels.get(label)
            && duration::parse(text).is_none()
        {
            return invalid(format!(
                "label {label}={text}: it is a duration such as 30s or 1m30s"
            ));
        }
    }
    if let Some(text) = spec.labels.get(LABEL_REBALANCE)
        && text.parse::<bool>().is_err()
    {
        return invalid(format!(
            "label {LABEL_REBALANCE}={text}: it is true or false"
        ));
    }
    if let Some(text) = spec.labels.get(LABEL_REBALANCE_RATE)
        && text.parse::<usize>().is_err()
    {
        return invalid(format!(
            "label {LABEL_REBALANCE_RATE}={text}: it is a number of moves a minute"
        ));
    }
    ports::labels(spec)?;
    depends::parse(spec).map(|_| ())
}

fn task(task: &TaskSpec) -> Result<(), Refusal> {
    if !matches!(task.runtime.as_str(), "" | "container") {
        return Err(Refusal::not_implemented(format!(
            "runtime {:?} is not there; services run containers, leave the runtime out",
            task.runtime
        )));
    }
    if task.container.image.is_empty() {
        return invalid("ContainerSpec: image reference must be provided");
    }
    let asked = [
        (task.limits.nano_cpus, task.limits.memory_bytes, "limit"),
        (
            task.reservations.nano_cpus,
            task.reservations.memory_bytes,
            "reservation",
        ),
    ];
    for (cpus, memory, what) in asked {
        if cpus != 0 && cpus < LEAST_CPU {
            return invalid(format!(
                "invalid cpu value of the {what}: {cpus} billionths of a processor; must be at least 0.001 processors"
            ));
        }
        if memory != 0 && memory < LEAST_MEMORY {
            return invalid(format!(
                "invalid memory value of the {what}: {memory} bytes; must be at least 4MiB"
            ));
        }
    }
    if task.limits.pids < 0 {
        return invalid("invalid pids limit: it is 0 (none) or a positive number");
    }
    constraint::parse(&task.placement.constraints)?;
    for preference in &task.placement.preferences {
        let known = ["node.labels.", "engine.labels."]
            .iter()
            .any(|prefix| preference.len() > prefix.len() && preference.starts_with(prefix));
        if !known {
            return invalid(format!(
                "placement preference spread={preference}: spread over node.labels.NAME or engine.labels.NAME"
            ));
        }
    }
    let mut targets = BTreeSet::new();
    for mount in &task.container.mounts {
        self::mount(mount)?;
        if !targets.insert(mount.target.trim_end_matches('/')) {
            return invalid(format!(
                "ContainerSpec: duplicate mount point: {}; give each mount its own target",
                mount.target
            ));
        }
    }
    Ok(())
}

fn mount(mount: &Mount) -> Result<(), Refusal> {
    if !mount.target.starts_with('/') && !mount.target.contains("{{") {
        return invalid(format!(
            "invalid mount target, must be an absolute path: {:?}",
            mount.target
        ));
    }
    match mount.kind {
        MountKind::Bind if !mount.source.starts_with('/') && !mount.source.contains("{{") => {
            invalid(format!(
                "invalid bind mount source, must be an absolute path: {:?}; use type=volume for a named volume",
                mount.source
            ))
        }
        MountKind::Tmpfs if !mount.source.is_empty() => {
            invalid("invalid tmpfs source, source must be empty")
        }
        MountKind::Image if mount.source.is_empty() => invalid(format!(
            "mount {}: the source of a mount of type image is missing; name the image",
            mount.target
        )),
        MountKind::Npipe => Err(Refusal::not_implemented(
            "mounts of type npipe are Windows' own; use bind, volume, tmpfs or image",
        )),
        MountKind::Cluster => Err(Refusal::not_implemented(
            "cluster volumes are not there; use bind, volume, tmpfs or image",
        )),
        MountKind::Bind | MountKind::Volume | MountKind::Tmpfs | MountKind::Image => Ok(()),
    }
}

fn networks(tables: &Tables, task: &mut TaskSpec) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for attachment in &mut task.networks {
        let target = attachment.target.clone();
        if HOST_NETWORKS.contains(&target.as_str()) {
            seen.insert(NetworkId::new(target));
            continue;
        }
        if LOCAL_NETWORKS.contains(&target.as_str()) {
            return Err(Refusal::forbidden(format!(
                "The network {target} cannot be used with services. Only networks scoped to the swarm can be used, such as those created with the overlay driver."
            )));
        }
        let network = find_network(tables, &target)?;
        if network.spec.ingress {
            return invalid(format!(
                "Service cannot be explicitly attached to the ingress network {:?}; publish a port instead",
                network.spec.name
            ));
        }
        if !seen.insert(network.id.clone()) {
            return invalid(format!(
                "network {} is named twice; name it once, with all aliases",
                network.spec.name
            ));
        }
        attachment.target = network.id.to_string();
    }
    Ok(())
}

/// Resolves secrets or configs, and refuses two in one place.
fn references(
    tables: &Tables,
    kind: PayloadKind,
    references: &mut [PayloadReference],
) -> Result<(), Refusal> {
    let mut targets: BTreeMap<String, String> = BTreeMap::new();
    for reference in references {
        let wanted = if reference.id.is_empty() {
            reference.name.clone()
        } else {
            reference.id.to_string()
        };
        let found = find_payload(tables, kind, &wanted).map_err(|_| {
            Refusal::invalid(format!(
                "{} not found: {}; create it first",
                kind.as_str(),
                if reference.name.is_empty() {
                    &wanted
                } else {
                    &reference.name
                }
            ))
        })?;
        reference.id = found.id.clone();
        reference.name.clone_from(&found.spec.name);
        let Some(file) = &reference.file else {
            continue;
        };
        if file.name.is_empty() || file.name.split('/').any(|part| part == "..") {
            return invalid(format!(
                "malformed {} reference to {}: target {:?} is no path",
                kind.as_str(),
                reference.name,
                file.name
            ));
        }
        if let Some(other) = targets.insert(file.name.clone(), reference.name.clone()) {
            return invalid(format!(
                "{} references '{other}' and '{}' have a conflicting target: '{}'",
                kind.as_str(),
                reference.name,
                file.name
            ));
        }
    }
    Ok(())
}
