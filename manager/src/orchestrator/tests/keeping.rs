//! So many tasks as asked, where they may be.

use std::time::{Duration, Instant};

use model::{
    Task, TaskState,
    service::{LABEL_DEPENDS_ON, ServiceMode},
    task::{RestartCondition, RestartPolicy},
};

use super::world::{IMAGE_CRASHES, IMAGE_ENDS, SECOND, World, task_ids};
use crate::orchestrator::{decide, rebalance};

fn replicated(nodes: usize, replicas: u64) -> World {
    let mut world = World::new(nodes);
    world.create(World::spec(ServiceMode::Replicated { replicas }));
    world.settle();
    world
}

#[test]
fn replicas_are_made_scaled_and_balanced() {
    let mut world = replicated(3, 6);
    assert_eq!(
        world.per_node().into_values().collect::<Vec<_>>(),
        [2, 2, 2]
    );
    let slots: Vec<u64> = {
        let mut slots: Vec<u64> = world.running().iter().map(|t| t.slot).collect();
        slots.sort_unstable();
        slots
    };
    assert_eq!(slots, [1, 2, 3, 4, 5, 6]);
    world.replicas(3);
    world.settle();
    assert_eq!(
        world.per_node().into_values().collect::<Vec<_>>(),
        [1, 1, 1]
    );
    assert_eq!(world.tasks().len(), 3, "tasks scaled away are forgotten");
    assert_eq!(world.update_state(), None, "scaling is no update");
    world.replicas(0);
    world.settle();
    assert_eq!(world.tasks().len(), 0);
}

#[test]
fn many_replicas_are_made_in_milliseconds() {
    let mut world = World::new(3);
    world.create(World::spec(ServiceMode::Replicated { replicas: 500 }));
    let begun = Instant::now();
    let decision = decide(&world.tables, &world.id, world.now);
    let took = begun.elapsed();
    println!("500 tasks decided in {took:?}");
    assert_eq!(decision.changes.len(), 500);
    assert!(took < Duration::from_millis(100), "{took:?}");
    world.settle();
    assert_eq!(world.running().len(), 500);
}

#[test]
fn more_than_one_transaction_holds() {
    let mut world = World::new(3);
    world.create(World::spec(ServiceMode::Replicated { replicas: 2500 }));
    let decision = decide(&world.tables, &world.id, world.now);
    assert!(decision.changes.len() <= crate::decision::BATCH);
    assert_eq!(decision.again, Some(world.now));
    while !decide(&world.tables, &world.id, world.now)
        .changes
        .is_empty()
    {
        let changes = decide(&world.tables, &world.id, world.now).changes;
        world.apply(changes);
    }
    assert_eq!(world.tasks().len(), 2500);
}

#[test]
fn a_lost_node_is_replaced_at_once() {
    let mut world = replicated(3, 3);
    world.down("node1");
    let begun = world.now;
    world.settle_within(Duration::from_secs(1));
    assert_eq!(
        world
            .running()
            .iter()
            .filter(|t| t.node.as_ref().unwrap().as_str() != "node1")
            .count(),
        3
    );
    let newest = world.running().iter().map(|t| t.status.at).max().unwrap();
    assert!(newest - begun < SECOND, "the restart delay does not apply");
    world.change_node("node1", |n| n.status.state = model::node::NodeState::Ready);
    world.settle();
    assert_eq!(world.running().len(), 3);
    assert!(
        world.per_node().keys().all(|node| node.as_str() != "node1"),
        "nothing moves back"
    );
}

#[test]
fn drain_is_start_first_where_the_update_is() {
    for (start_first, least) in [(true, 3), (false, 2)] {
        let mut world = World::new(3);
        let mut spec = World::spec(ServiceMode::Replicated { replicas: 3 });
        if start_first {
            spec.update = Some(super::updating::start_first());
        }
        world.create(spec);
        world.settle();
        world.least_serving = usize::MAX;
        world.drain("node2");
        world.settle_within(Duration::from_secs(1));
        assert_eq!(world.running().len(), 3);
        assert!(world.per_node().keys().all(|node| node.as_str() != "node2"));
        assert_eq!(world.least_serving, least, "start first: {start_first}");
    }
}

#[test]
fn constraints_are_enforced_when_labels_change() {
    let mut world = World::new(2);
    let mut spec = World::spec(ServiceMode::Replicated { replicas: 2 });
    spec.task.placement.constraints = vec!["node.labels.zone!=b".into()];
    world.create(spec);
    world.settle();
    world.change_node("node1", |n| {
        n.spec.labels.insert("zone".into(), "b".into());
    });
    world.settle();
    assert_eq!(
        world.per_node().into_iter().collect::<Vec<_>>(),
        [("node2".into(), 2)]
    );
}

#[test]
fn restarts_wait_and_end_by_the_policy() {
    for (condition, max, image, started) in [
        (RestartCondition::None, 0, IMAGE_CRASHES, 1),
        (RestartCondition::OnFailure, 0, IMAGE_ENDS, 1),
        (RestartCondition::OnFailure, 2, IMAGE_CRASHES, 3),
        (RestartCondition::Any, 2, IMAGE_ENDS, 3),
    ] {
        let mut world = World::new(1);
        let mut spec = World::spec(ServiceMode::Replicated { replicas: 1 });
        spec.task.container.image = image.into();
        spec.task.restart = Some(RestartPolicy {
            condition,
            max_attempts: max,
            ..RestartPolicy::default()
        });
        world.create(spec);
        let begun = world.now;
        world.settle_within(Duration::from_secs(600));
        assert_eq!(world.tasks().len(), started, "{condition:?} {max} {image}");
        assert!(world.tasks().iter().all(|t| t.status.state.is_final()));
        let last = world
            .tasks()
            .iter()
            .map(|t| t.start_after.max(t.meta.created_at))
            .max()
            .unwrap();
        let delays = i64::try_from(started - 1).unwrap() * 5 * SECOND;
        assert!(last - begun >= delays, "{condition:?} {max} {image}");
        world.image("good:2");
        world.settle();
        assert_eq!(world.with_image("good:2"), 1, "a new version starts again");
    }
}

#[test]
fn attempts_count_within_the_window() {
    let mut world = World::new(1);
    let mut spec = World::spec(ServiceMode::Replicated { replicas: 1 });
    spec.task.container.image = IMAGE_CRASHES.into();
    spec.task.restart = Some(RestartPolicy {
        max_attempts: 2,
        window: Duration::from_secs(8),
        ..RestartPolicy::default()
    });
    world.create(spec);
    world.settle_within(Duration::from_secs(60));
    // With 5 s between, never more than two begin within 8 s.
    assert!(world.tasks().iter().any(|task| task.is_wanted()));
}

#[test]
fn history_is_kept_to_its_limit() {
    let mut world = World::new(1);
    let mut spec = World::spec(ServiceMode::Replicated { replicas: 1 });
    spec.task.container.image = IMAGE_CRASHES.into();
    world.create(spec);
    world.settle_within(Duration::from_secs(120));
    let old = world.tasks().iter().filter(|t| !t.is_wanted()).count();
    assert_eq!(old, 5);
}

#[test]
fn global_services_follow_the_nodes() {
    let mut world = World::new(2);
    world.create(World::spec(ServiceMode::Global));
    world.settle();
    assert_eq!(world.per_node().into_values().collect::<Vec<_>>(), [1, 1]);
    world.node("node3");
    world.settle();
    assert_eq!(world.running().len(), 3);
    world.drain("node1");
    world.settle();
    assert_eq!(world.running().len(), 2);
    world.down("node2");
    world.settle();
    assert_eq!(task_ids(&world).len(), 1);
    world.change_node("node2", |n| n.status.state = model::node::NodeState::Ready);
    world.settle();
    assert_eq!(world.running().len(), 2);
}

#[test]
fn jobs_run_to_completion_so_many_at_a_time() {
    let mut world = World::new(3);
    world.create(World::spec(ServiceMode::ReplicatedJob {
        concurrent: 2,
        total: 5,
    }));
    let done = |task: &&Task| task.status.state == TaskState::Complete;
    for _ in 0..100 {
        world.step();
        let alive = world.tasks().iter().filter(|t| t.is_alive()).count();
        assert!(alive <= 2);
        world.now += 1000;
    }
    world.settle();
    assert_eq!(world.tasks().into_iter().filter(done).count(), 5);
    assert!(
        world
            .tasks()
            .iter()
            .all(|t| t.slot < 5 && t.desired == TaskState::Complete)
    );
    world.update(|spec| spec.task.force_update = 1);
    world.settle();
    assert_eq!(world.tasks().len(), 5);
    assert!(
        world
            .tasks()
            .iter()
            .all(|t| t.job_iteration == Some(1) && done(t))
    );
}

#[test]
fn global_jobs_run_once_on_each_node() {
    let mut world = World::new(3);
    world.create(World::spec(ServiceMode::GlobalJob));
    world.settle();
    assert_eq!(world.tasks().len(), 3);
    world.node("node4");
    world.settle();
    assert_eq!(world.tasks().len(), 4);
}

#[test]
fn removal_does_not_wait_for_anybody() {
    let mut world = replicated(3, 20);
    let id = world.id.clone();
    world.apply(vec![crate::store::StoreChange::RemoveService(id)]);
    world.settle();
    assert_eq!(world.tables.work().task_count(), 0);
    assert_eq!(world.tables.endpoints().count(), 0);
}

#[test]
fn services_come_after_those_they_depend_on() {
    let mut world = World::new(2);
    let mut spec = World::spec(ServiceMode::Replicated { replicas: 1 });
    spec.labels
        .insert(LABEL_DEPENDS_ON.into(), "db:healthy".into());
    world.create(spec);
    world.settle();
    assert!(world.running().is_empty());
    assert_eq!(world.tasks()[0].status.state, TaskState::Ready);
    let mut db = World::spec(ServiceMode::Replicated { replicas: 1 });
    db.name = "db".into();
    world.create_as("other", db);
    world.settle();
    assert_eq!(world.running().len(), 1);
}

#[test]
fn rebalancing_moves_no_more_than_needed() {
    let mut world = replicated(2, 6);
    world.node("node3");
    world.node("node4");
    world.settle();
    assert_eq!(world.per_node().len(), 2, "nothing moves by itself");
    world.least_serving = usize::MAX;
    let service = world.service().clone();
    let (decision, moves) = rebalance(&world.tables, &service, world.now);
    assert_eq!(moves, 2);
    world.apply(decision.changes);
    world.settle();
    let counts: Vec<usize> = world.per_node().into_values().collect();
    assert_eq!(counts.iter().sum::<usize>(), 6);
    assert_eq!(
        (counts.iter().min(), counts.iter().max()),
        (Some(&1), Some(&2))
    );
    assert_eq!(world.least_serving, 6, "none is missing meanwhile");
    assert_eq!(rebalance(&world.tables, &service, world.now).1, 0);
}
