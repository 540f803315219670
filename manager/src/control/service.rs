//! Services: create, update, roll back, remove, count.

use model::{
    Meta, Refusal, Service, ServiceId, ServiceSpec, TaskState,
    control::Credentials,
    service::{JobStatus, ServiceEndpoint, ServiceMode, ServiceStatus, UpdateState, UpdateStatus},
};

use super::{check, in_sequence, new_id};
use crate::store::{Tables, Transaction};

/// Checks the spec and stores the service; the rest follows from what is stored.
pub fn service_create(tx: &mut Transaction, spec: ServiceSpec) -> Result<ServiceId, Refusal> {
    let service = draft(tx.tables(), spec, tx.now())?;
    let id = service.id.clone();
    tx.set_service(service);
    Ok(id)
}

/// A service as it would be stored.
pub fn draft(tables: &Tables, spec: ServiceSpec, now: i64) -> Result<Service, Refusal> {
    let spec = check::service_spec(tables, None, spec)?;
    if let Some(other) = tables.work().service_named(&spec.name) {
        return Err(Refusal::conflict(format!(
            "name conflicts with an existing object: service {} already exists ({}); remove it first or choose another name",
            spec.name, other.id
        )));
    }
    let job = spec.mode.is_job().then_some(JobStatus {
        iteration: 0,
        last_execution: now,
    });
    Ok(Service {
        id: new_id(),
        meta: Meta::default(),
        spec,
        spec_version: 0,
        previous: None,
        endpoint: ServiceEndpoint::default(),
        update: None,
        job,
    })
}

/// By full id, exact name, or unique id prefix.
pub fn find_service<'a>(tables: &'a Tables, reference: &str) -> Result<&'a Service, Refusal> {
    let work = tables.work();
    if let Some(service) = work
        .service(&reference.into())
        .or_else(|| work.service_named(reference))
    {
        return Ok(service);
    }
    let mut found = work
        .services()
        .filter(|service| !reference.is_empty() && service.id.as_str().starts_with(reference));
    match (found.next(), found.next()) {
        (Some(service), None) => Ok(service),
        (None, _) => Err(Refusal::not_found(format!("service {reference} not found"))),
        (Some(_), Some(_)) => Err(Refusal::invalid(format!(
            "service {reference} is ambiguous: several ids begin so; give more of it"
        ))),
    }
}

/// Replaces the spec of a service, or takes its previous one back.
pub fn service_update(
    tx: &mut Transaction,
    reference: &str,
    version: u64,
    spec: ServiceSpec,
    credentials: Credentials,
    rollback: bool,
) -> Result<ServiceId, Refusal> {
    let now = tx.now();
    let mut service = find_service(tx.tables(), reference)?.clone();
    in_sequence(version, service.meta.version)?;
    let mut wanted = if rollback {
        match &service.previous {
            Some(previous) => ServiceSpec::clone(previous),
            None => {
                return Err(Refusal::invalid(format!(
                    "service {} does not have a previous spec to go back to",
                    service.spec.name
                )));
            }
        }
    } else {
        spec
    };
    same_identity(&service.spec, &wanted)?;
    if !rollback {
        keep_credentials(&mut wanted, &service, credentials);
    }
    let wanted = check::service_spec(tx.tables(), Some(&service.id), wanted)?;
    let changed = wanted != service.spec;
    if rollback {
        service.update = Some(UpdateStatus {
            state: UpdateState::RollbackStarted,
            started_at: now,
            completed_at: None,
            message: "manually requested rollback".to_owned(),
        });
    } else if (changed && !only_scales(&service.spec, &wanted)) || (!changed && is_paused(&service))
    {
        // What is to be replaced is looked at anew; the same spec again resumes a paused update.
        service.update = None;
    }
    if let Some(job) = &mut service.job {
        job.iteration += 1;
        job.last_execution = now;
        service.update = None;
    }
    if changed {
        service.previous = Some(Box::new(std::mem::replace(&mut service.spec, wanted)));
    }
    let id = service.id.clone();
    tx.set_service(service);
    Ok(id)
}

fn same_identity(old: &ServiceSpec, new: &ServiceSpec) -> Result<(), Refusal> {
    if old.name != new.name {
        return Err(Refusal::not_implemented(format!(
            "renaming services is not supported: {} cannot become {}; create a new service",
            old.name, new.name
        )));
    }
    if !old.mode.same_kind(new.mode) {
        return Err(Refusal::not_implemented(format!(
            "service mode change is not allowed: remove service {} and create it in the other mode",
            old.name
        )));
    }
    Ok(())
}

fn keep_credentials(wanted: &mut ServiceSpec, service: &Service, credentials: Credentials) {
    let auth = &mut wanted.task.container.registry_auth;
    match credentials {
        Credentials::Spec if auth.is_empty() => {
            auth.clone_from(&service.spec.task.container.registry_auth);
        }
        Credentials::Spec => {}
        Credentials::PreviousSpec => {
            let previous = service.previous.as_ref();
            *auth = previous.map_or_else(String::new, |previous| {
                previous.task.container.registry_auth.clone()
            });
        }
    }
}

fn only_scales(old: &ServiceSpec, new: &ServiceSpec) -> bool {
    let mut scaled = old.clone();
    scaled.mode = new.mode;
    scaled == *new
}

fn is_paused(service: &Service) -> bool {
    service.update.as_ref().is_some_and(|status| {
        matches!(
            status.state,
            UpdateState::Paused | UpdateState::RollbackPaused
        )
    })
}

/// The service is gone at once and its name free; its tasks are asked to go.
pub fn service_remove(tx: &mut Transaction, reference: &str) -> Result<ServiceId, Refusal> {
    let id = find_service(tx.tables(), reference)?.id.clone();
    let tasks: Vec<_> = tx.tables().work().tasks_of(&id).cloned().collect();
    tx.remove_service(&id);
    for mut task in tasks {
        task.desired = TaskState::Remove;
        tx.set_task(task);
    }
    Ok(id)
}

/// Counts the tasks of a service as `service ls` shows them.
pub fn service_status(tables: &Tables, service: &Service) -> ServiceStatus {
    let iteration = service.job.map(|job| job.iteration);
    let mut status = ServiceStatus::default();
    let mut wanted = 0;
    for task in tables.work().tasks_of(&service.id) {
        if task.job_iteration != iteration {
            continue;
        }
        let state = task.status.state;
        let down = || {
            task.node
                .as_ref()
                .and_then(|id| tables.node(id))
                .is_none_or(|node| node.status.state == model::node::NodeState::Down)
        };
        if state == TaskState::Running && task.is_wanted() && !down() {
            status.running += 1;
        }
        if service.spec.mode.is_job() && state == TaskState::Complete {
            status.completed += 1;
        } else if task.is_wanted() {
            wanted += 1;
        }
    }
    status.desired = match service.spec.mode {
        ServiceMode::Replicated { replicas } => replicas,
        ServiceMode::ReplicatedJob { concurrent, total } => {
            concurrent.min(total.saturating_sub(status.completed))
        }
        ServiceMode::Global | ServiceMode::GlobalJob => wanted,
    };
    status
}
