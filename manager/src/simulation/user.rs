//! What users wish and what goes wrong.

use model::{
    NodeId, Service,
    node::Availability,
    service::{PublishMode, ServiceMode, UpdateConfig, UpdateOrder},
};
use rand::{Rng as _, seq::IteratorRandom as _};

use super::world::World;
use crate::example::{attachments, publish, service};

/// Services of this name are updated start-first.
pub(super) const START_FIRST: &str = "sf";

/// One thing that a user does.
pub(super) fn wish(world: &mut World) {
    let names: Vec<Service> = world.tables.work().services().cloned().collect();
    let pick = names.iter().choose(&mut world.rng).cloned();
    match (world.rng.random_range(0..10), pick) {
        (0..3, _) | (_, None) if names.len() < 8 => create(world),
        (0..5, Some(mut service)) => {
            if let ServiceMode::Replicated { .. } = service.spec.mode {
                let most = 1 + largest(world);
                let replicas = world.rng.random_range(0..most);
                change(world, &mut service, |service| {
                    service.spec.mode = ServiceMode::Replicated { replicas };
                });
            }
        }
        (5..8, Some(mut service)) => change(world, &mut service, |service| {
            service.spec.task.force_update += 1;
        }),
        (8, Some(service)) if names.len() > 2 => {
            world.transact(|tx| tx.remove_service(&service.id));
        }
        _ => {
            let nodes = world.tables.nodes().map(|node| node.id.clone());
            let Some(id) = nodes.choose(&mut world.rng) else {
                return;
            };
            let drained = world.rng.random_ratio(1, 2);
            set_availability(world, &id, drained);
        }
    }
}

/// More hosts than these have few tasks each, because each host on a network is told of each of its
/// endpoints.
const MANY: usize = 400;

/// How many replicas a service is given at most.
fn largest(world: &World) -> u64 {
    let hosts = world.agents.len();
    (if hosts > MANY { MANY / 4 } else { hosts }) as u64
}

fn create(world: &mut World) {
    let number = world.sequence_number();
    let start_first = world.rng.random_ratio(1, 3);
    let name = format!("{}{number}", if start_first { START_FIRST } else { "web" });
    let networks = [&["ch03"][..], &["ch03", "ch04"], &["small"], &["ch04"], &[]];
    let networks = networks[world.rng.random_range(0..networks.len())];
    let most = 1 + largest(world);
    let mut new = service(&name, world.rng.random_range(1..most), networks);
    if world.agents.len() <= MANY && world.rng.random_ratio(1, 5) {
        new.spec.mode = ServiceMode::Global;
    }
    new.spec.task.reservations.nano_cpus = world.rng.random_range(0..4) * 250_000_000;
    let order = if start_first {
        UpdateOrder::StartFirst
    } else {
        UpdateOrder::StopFirst
    };
    let config = UpdateConfig {
        parallelism: world.rng.random_range(0..5),
        order,
        ..UpdateConfig::default()
    };
    new.spec.update = Some(config.clone());
    new.spec.rollback = Some(config);
    match world.rng.random_range(0..6) {
        0 => publish(&mut new, 80, 0, PublishMode::Ingress),
        1 => publish(
            &mut new,
            80,
            8080 + (number % 100) as u16,
            PublishMode::Host,
        ),
        2 => new.spec.task.placement.constraints = vec!["node.labels.zone==z1".to_owned()],
        3 => new.spec.task.placement.preferences = vec!["node.labels.zone".to_owned()],
        4 => new.spec.task.networks.extend(attachments(&["host"])),
        _ => {}
    }
    world.transact(|tx| tx.set_service(new));
}

/// Writes the spec as control does.
fn change(world: &mut World, service: &mut Service, edit: impl FnOnce(&mut Service)) {
    let old = service.spec.clone();
    edit(service);
    service.previous = Some(Box::new(old));
    service.update = None;
    let service = service.clone();
    world.transact(|tx| tx.set_service(service));
}

fn set_availability(world: &mut World, id: &NodeId, drained: bool) {
    world.transact(|tx| {
        if let Some(node) = tx.tables().node(id).cloned() {
            let mut node = node;
            node.spec.availability = if drained {
                Availability::Drain
            } else {
                Availability::Active
            };
            tx.set_node(node);
        }
    });
}

/// One thing that goes wrong, or is well again.
pub(super) fn fault(world: &mut World) {
    let ids: Vec<NodeId> = world.agents.keys().cloned().collect();
    let Some(id) = ids.iter().choose(&mut world.rng).cloned() else {
        return;
    };
    match world.rng.random_range(0..12) {
        0..3 => world.crash(&id, false),
        3..5 => world.crash(&id, true),
        5..7 => world.disconnect(&id),
        7 if world.rng.random_ratio(1, 4) => world.change_leader(),
        8 => {
            // Many at once: a switch.
            let count = ids.len() / 4;
            let cut: Vec<NodeId> = ids.into_iter().choose_multiple(&mut world.rng, count);
            for id in &cut {
                world.cut(id, true);
            }
        }
        9 => world.cut(&id, true),
        _ => {
            for id in &ids {
                if world.rng.random_ratio(1, 3) {
                    world.cut(id, false);
                }
            }
        }
    }
}

/// Nothing is asked of anybody any more but to run what is there.
pub(super) fn calm(world: &mut World) {
    let ids: Vec<NodeId> = world.tables.nodes().map(|node| node.id.clone()).collect();
    for id in ids {
        set_availability(world, &id, false);
    }
}
