//! Updates and rollbacks.

use std::time::Duration;

use model::service::{
    FailureAction, LABEL_PROGRESS_DEADLINE, ServiceMode, UpdateConfig, UpdateOrder, UpdateState,
};

use super::world::{IMAGE_CRASHES, IMAGE_NEVER_HEALTHY, SECOND, World, task_ids};

pub fn start_first() -> UpdateConfig {
    UpdateConfig {
        order: UpdateOrder::StartFirst,
        ..UpdateConfig::default()
    }
}

fn world(replicas: u64, config: UpdateConfig) -> World {
    let mut world = World::new(3);
    let mut spec = World::spec(ServiceMode::Replicated { replicas });
    spec.update = Some(config);
    world.create(spec);
    world.settle();
    world.least_serving = usize::MAX;
    world
}

fn message(world: &World) -> String {
    world.service().update.as_ref().unwrap().message.clone()
}

#[test]
fn an_update_goes_slot_by_slot_and_is_watched() {
    for (config, least) in [
        (UpdateConfig::default(), 3),
        (
            UpdateConfig {
                parallelism: 2,
                ..UpdateConfig::default()
            },
            2,
        ),
        (
            UpdateConfig {
                parallelism: 0,
                ..UpdateConfig::default()
            },
            0,
        ),
        (start_first(), 4),
    ] {
        let mut world = world(4, config.clone());
        let begun = world.now;
        world.image("good:2");
        world.settle();
        assert_eq!(world.with_image("good:2"), 4);
        assert_eq!(world.update_state(), Some(UpdateState::Completed));
        assert_eq!(message(&world), "update completed");
        let status = world.service().update.clone().unwrap();
        let completed = status.completed_at.unwrap();
        assert!(
            completed - begun >= 5 * SECOND,
            "watched for the monitor period"
        );
        assert_eq!(world.least_serving, least, "{config:?}");
    }
}

#[test]
fn delay_lies_between_slots() {
    let delay = Duration::from_secs(10);
    let mut world = world(
        3,
        UpdateConfig {
            delay,
            ..UpdateConfig::default()
        },
    );
    let begun = world.now;
    world.image("good:2");
    world.settle_within(Duration::from_secs(120));
    let last = world
        .running()
        .iter()
        .map(|t| t.meta.created_at)
        .max()
        .unwrap();
    assert!(last - begun >= 20 * SECOND && last - begun < 21 * SECOND);
}

#[test]
fn what_still_matches_is_left_alone() {
    let mut world = world(3, UpdateConfig::default());
    let before = task_ids(&world);
    world.update(|spec| {
        spec.task.placement.constraints = vec!["node.hostname!=elsewhere".into()];
        spec.task.container.registry_auth = "new".into();
        spec.labels.insert("a".into(), "b".into());
    });
    world.settle();
    assert_eq!(task_ids(&world), before);
    assert_eq!(world.update_state(), None);
    world.update(|spec| spec.task.force_update += 1);
    world.settle();
    assert!(task_ids(&world).iter().all(|id| !before.contains(id)));
}

#[test]
fn a_bad_version_stops_the_update() {
    for (image, deadline) in [(IMAGE_CRASHES, None), (IMAGE_NEVER_HEALTHY, Some("30s"))] {
        let mut world = world(4, UpdateConfig::default());
        if let Some(deadline) = deadline {
            world.update(|spec| {
                spec.labels
                    .insert(LABEL_PROGRESS_DEADLINE.into(), deadline.into());
            });
        }
        world.image(image);
        world.settle_within(Duration::from_secs(40));
        assert_eq!(world.update_state(), Some(UpdateState::Paused), "{image}");
        assert!(
            message(&world)
                .starts_with("update paused due to failure or early termination of task ")
        );
        assert_eq!(world.with_image("good:1"), 3, "{image}");
        // The same spec again goes on, a good one heals.
        world.image("good:3");
        world.settle_within(Duration::from_secs(120));
        assert_eq!(world.with_image("good:3"), 4, "{image}");
        assert_eq!(
            world.update_state(),
            Some(UpdateState::Completed),
            "{image}"
        );
    }
}

#[test]
fn a_bad_version_is_rolled_back() {
    for order in [UpdateOrder::StopFirst, UpdateOrder::StartFirst] {
        for image in [IMAGE_CRASHES, IMAGE_NEVER_HEALTHY] {
            let mut world = world(
                4,
                UpdateConfig {
                    failure_action: FailureAction::Rollback,
                    order,
                    ..UpdateConfig::default()
                },
            );
            world.update(|spec| {
                spec.labels
                    .insert(LABEL_PROGRESS_DEADLINE.into(), "20s".into());
            });
            world.settle();
            world.least_serving = usize::MAX;
            world.image(image);
            world.settle_within(Duration::from_secs(120));
            assert_eq!(
                world.update_state(),
                Some(UpdateState::RollbackCompleted),
                "{image} {order:?}"
            );
            assert_eq!(world.with_image("good:1"), 4);
            assert_eq!(world.running().len(), 4);
            let least = if order == UpdateOrder::StartFirst {
                4
            } else {
                3
            };
            assert_eq!(world.least_serving, least, "{image} {order:?}");
            assert_eq!(world.service().previous, None, "one step back only");
        }
    }
}

#[test]
fn a_share_of_failures_is_tolerated() {
    for (ppm, state) in [
        (500_000, UpdateState::Paused),
        (1_000_000, UpdateState::Updating),
    ] {
        let mut world = world(
            2,
            UpdateConfig {
                max_failure_ppm: ppm,
                ..UpdateConfig::default()
            },
        );
        world.image(IMAGE_CRASHES);
        world.settle_within(Duration::from_secs(3));
        if state == UpdateState::Paused {
            world.settle();
        }
        let now = world.update_state();
        assert!(
            now == Some(state) || now == Some(UpdateState::Completed) && ppm == 1_000_000,
            "{ppm} {now:?}"
        );
    }
}

#[test]
fn continue_goes_through() {
    let mut world = world(
        3,
        UpdateConfig {
            failure_action: FailureAction::Continue,
            ..UpdateConfig::default()
        },
    );
    world.image(IMAGE_CRASHES);
    world.settle();
    assert_eq!(world.with_image("good:1"), 0);
    assert_eq!(world.update_state(), Some(UpdateState::Completed));
}

#[test]
fn a_node_lost_meanwhile_is_no_failure() {
    let mut world = world(6, UpdateConfig::default());
    world.image("good:2");
    for _ in 0..12 {
        world.step();
        world.now += SECOND / 100;
    }
    world.down("node1");
    world.settle_within(Duration::from_secs(120));
    assert_eq!(world.with_image("good:2"), 6);
    assert_eq!(world.update_state(), Some(UpdateState::Completed));
}

#[test]
fn a_version_that_overtakes_another_wins() {
    for config in [UpdateConfig::default(), start_first()] {
        let mut world = world(4, config);
        world.image(IMAGE_NEVER_HEALTHY);
        world.settle_within(Duration::from_secs(10));
        world.image("good:3");
        world.settle_within(Duration::from_secs(60));
        assert_eq!(world.with_image("good:3"), 4);
        assert_eq!(world.running().len(), 4);
    }
}

#[test]
fn scaling_goes_on_while_an_update_is_paused() {
    let mut world = world(2, UpdateConfig::default());
    world.image(IMAGE_CRASHES);
    world.settle();
    let mut service = world.service().clone();
    assert_eq!(world.update_state(), Some(UpdateState::Paused));
    service.spec.mode = ServiceMode::Replicated { replicas: 1 };
    world.apply(vec![crate::store::StoreChange::SetService(Box::new(
        service,
    ))]);
    world.settle();
    assert_eq!(
        world.with_image("good:1"),
        1,
        "the one that does not run goes first"
    );
}
