//! Where the tasks of a service would go.

use model::{
    ServiceId, ServiceSpec, Task,
    control::{DryRun, Placed},
    service::ServiceMode,
};

use super::{
    group::{Group, Queue, Wish},
    hosts::{Host, Hosts},
    obstacle::Obstacles,
};
use crate::store::Tables;

/// Says where the tasks of a service made from the spec would go, beside what there is.
pub fn dry_run(tables: &Tables, spec: &ServiceSpec, now: i64) -> DryRun {
    let mut hosts = Hosts::default();
    hosts.catch_up(tables, now);
    let ports = spec.endpoint.as_ref().map_or(&[][..], |spec| &spec.ports);
    let wish = Wish::new(ServiceId::default(), 0, &spec.task, ports);
    let group = Group::new(wish, &hosts);
    let mut answer = DryRun::default();
    let (first, count) = match spec.mode {
        ServiceMode::Replicated { replicas } => (1, replicas),
        ServiceMode::ReplicatedJob { total, .. } => (0, total),
        ServiceMode::Global | ServiceMode::GlobalJob => {
            everywhere(&hosts, &group, &mut answer);
            return answer;
        }
    };
    let mut queue = Queue::new(&group, &hosts, now);
    for slot in first..first + count {
        let Some(place) = queue.pop() else {
            let missing = first + count - slot;
            answer.unplaced.push((missing, queue.obstacles.sentence()));
            break;
        };
        let generic = group.generic(&hosts, place);
        answer
            .placed
            .extend(placed(&hosts.all[place as usize], slot));
        if let Some(node) = &hosts.all[place as usize].node {
            let task = trial(spec, slot, node.id.clone(), generic);
            hosts.take(&task);
        }
        queue.put_back(&hosts, place);
    }
    answer
}

fn everywhere(hosts: &Hosts, group: &Group, answer: &mut DryRun) {
    let mut obstacles = Obstacles::default();
    let mut missing = 0;
    for place in (0..hosts.all.len() as u32).filter(|place| group.is_meant(*place)) {
        match group.obstacle(hosts, place, 0) {
            None => answer.placed.extend(placed(&hosts.all[place as usize], 0)),
            Some(obstacle) => {
                obstacles.met(obstacle);
                missing += 1;
            }
        }
    }
    if missing > 0 {
        answer.unplaced.push((missing, obstacles.sentence()));
    }
}

fn placed(host: &Host, slot: u64) -> Option<Placed> {
    let node = host.node.as_ref()?;
    Some(Placed {
        slot,
        node: node.id.clone(),
        hostname: node.description.hostname.clone(),
    })
}

/// Such a task, as far as it holds something on its node.
fn trial(
    spec: &ServiceSpec,
    slot: u64,
    node: model::NodeId,
    generic_resources: Vec<model::task::GenericResource>,
) -> Task {
    let ports = spec.endpoint.as_ref().map(|spec| spec.ports.clone());
    Task {
        id: model::TaskId::default(),
        meta: model::Meta::default(),
        service: ServiceId::default(),
        service_name: spec.name.clone(),
        slot,
        node: Some(node),
        spec: std::sync::Arc::new(spec.task.clone()),
        spec_version: 0,
        labels: std::collections::BTreeMap::new(),
        mode: spec.mode,
        status: model::TaskStatus {
            state: model::TaskState::Assigned,
            ..model::TaskStatus::default()
        },
        desired: model::TaskState::Running,
        start_after: 0,
        endpoints: Vec::new(),
        ports: ports.unwrap_or_default(),
        generic_resources,
        job_iteration: None,
        handover: model::task::Handover::Pending,
        in_since: 0,
        attempt: 0,
        drain: std::time::Duration::ZERO,
    }
}
