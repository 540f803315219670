//! What must hold at any moment, and what must be reached at the end.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use model::{
    Assignments, EndpointState, NodeId, TaskState,
    node::{Availability, NodeState},
    service::ServiceMode,
    task::Handover,
};

use super::{user::START_FIRST, world::World};
use crate::{dispatcher::assignments, scheduler::constraint, store::Tables};

/// In the store: no node is overcommitted and no address is given twice.
pub(super) fn tables(tables: &Tables) {
    let mut used: HashMap<&NodeId, i64> = HashMap::new();
    let mut ports = HashSet::new();
    for task in tables.work().tasks() {
        let holds = (TaskState::Assigned..=TaskState::Running).contains(&task.status.state);
        if let Some(node) = task.node.as_ref().filter(|_| holds) {
            *used.entry(node).or_default() += task.spec.reservations.nano_cpus;
            for port in task.ports.iter().filter(|port| {
                port.mode == model::service::PublishMode::Host && port.published != 0
            }) {
                let fresh = ports.insert((node, port.published));
                assert!(fresh, "port {} twice on {node}", port.published);
            }
        }
    }
    for (id, used) in used {
        let has = tables.node(id).map_or(0, |node| node.description.nano_cpus);
        assert!(used <= has, "{id} has {has} and gives {used}");
    }
    let vips = tables
        .work()
        .services()
        .flat_map(|service| &service.endpoint.vips);
    let vips = vips.map(|vip| (&vip.network, vip.address.ip()));
    let endpoints = tables.endpoints().flat_map(|one| {
        let all = one.addresses.iter();
        all.map(|address| (&one.network, address.ip()))
    });
    let mut seen = HashSet::new();
    for one in vips.chain(endpoints) {
        assert!(seen.insert(one), "{one:?} is given twice");
    }
}

/// As a host sees it: never two tasks of one slot in load balancing, but for the pair of a
/// start-first update.
pub(super) fn view(view: &Assignments, id: &NodeId) {
    let mut slots: HashMap<(&NodeId, &str), u32> = HashMap::new();
    let mut addresses = HashSet::new();
    for endpoint in view.endpoints.values() {
        for address in &endpoint.addresses {
            let fresh = addresses.insert((&endpoint.network, address.ip()));
            assert!(fresh, "{id} sees {address} twice");
        }
        if endpoint.state == EndpointState::Active {
            let name = endpoint.owner.name();
            let slot = slot(name);
            let count = slots.entry((&endpoint.network, slot)).or_default();
            *count += 1;
            let most = if name.starts_with(START_FIRST) { 2 } else { 1 };
            assert!(
                *count <= most,
                "{id} sees {count} tasks of {slot} in load balancing"
            );
        }
    }
}

/// A task's name without the task's id.
fn slot(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(slot, _)| slot)
}

/// What is not as wished yet.
pub(super) fn unsettled(world: &World) -> Vec<String> {
    let tables = &world.tables;
    let mut wrong = Vec::new();
    for service in tables.work().services() {
        let wanted = match service.spec.mode {
            ServiceMode::Replicated { replicas } => replicas,
            ServiceMode::Global => tables
                .nodes()
                .filter(|node| {
                    node.status.state == NodeState::Ready
                        && node.spec.availability == Availability::Active
                        && constraint::allows(&service.spec.task.placement, node)
                })
                .count() as u64,
            ServiceMode::ReplicatedJob { .. } | ServiceMode::GlobalJob => continue,
        };
        let serving = |task: &&model::Task| {
            task.is_wanted()
                && task.status.state == TaskState::Running
                && task.handover == Handover::In
                && task.endpoints.iter().all(|id| {
                    tables
                        .endpoint(id)
                        .is_some_and(|one| one.state == EndpointState::Active)
                })
        };
        // Waiting is fine if there is a reason that is not ours.
        let excused = |task: &&model::Task| {
            let waits = task.is_wanted() && task.status.state <= TaskState::Pending;
            waits && task.status.error.contains("no ")
        };
        // A start-first update that finds no room has both in one slot.
        let well = tables.work().tasks_of(&service.id);
        let well = well.filter(|task| serving(task) || excused(task));
        let slots: BTreeSet<String> = well.map(|task| slot(&task.name()).to_owned()).collect();
        let count = slots.len() as u64;
        if count != wanted {
            let mut states: BTreeMap<String, u32> = BTreeMap::new();
            for task in tables.work().tasks_of(&service.id) {
                let state = format!(
                    "{:?}/{:?}/{:?}",
                    task.status.state, task.desired, task.handover
                );
                *states.entry(state).or_default() += 1;
            }
            wrong.push(format!(
                "{} has {count} of {wanted}: {states:?}",
                service.spec.name
            ));
        }
    }
    for task in tables.work().tasks() {
        if !task.is_wanted() && !task.status.state.is_final() {
            wrong.push(format!("{} does not end: {:?}", task.name(), task.status));
        }
    }
    for (id, agent) in &world.agents {
        let mut full = assignments(tables, id);
        full.generation = agent.view.generation;
        if agent.session.is_none() {
            wrong.push(format!("{id} has no session"));
        } else if agent.view != full {
            wrong.push(format!(
                "{id} sees something else: {:?}",
                agent.view.diff(&full)
            ));
        }
    }
    wrong.truncate(5);
    wrong
}
