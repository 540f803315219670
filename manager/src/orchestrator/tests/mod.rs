#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod keeping;
mod updating;
mod world;

use proptest::prelude::*;

use self::world::World;
use model::service::ServiceMode;

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever is done to it, the world reaches the wish in the end, and then nothing is
    /// decided any more; on the way no slot has more than a pair.
    #[test]
    fn converges(
        nodes in 1usize..5,
        start_first in any::<bool>(),
        deeds in prop::collection::vec((0u8..8, 0u64..7, 0usize..12), 1..12),
    ) {
        let mut world = World::new(nodes);
        let mut spec = World::spec(ServiceMode::Replicated { replicas: 3 });
        if start_first {
            spec.update = Some(updating::start_first());
        }
        world.create(spec);
        let mut images = 1;
        for (deed, number, steps) in deeds {
            let node = format!("node{}", usize::try_from(number).unwrap() % nodes + 1);
            match deed {
                0 => world.replicas(number),
                1 => { images += 1; world.image(&format!("good:{images}")); }
                2 => world.down(&node),
                3 => world.drain(&node),
                4 => world.change_node(&node, |n| {
                    n.status.state = model::node::NodeState::Ready;
                    n.spec.availability = model::node::Availability::Active;
                }),
                5 => world.image(world::IMAGE_CRASHES),
                6 => world.update(|spec| spec.task.force_update += 1),
                _ => world.update(|spec| spec.task.placement.constraints =
                    vec![format!("node.hostname!={node}")]),
            }
            for _ in 0..steps {
                world.step();
                world.now += world::SECOND / 10;
            }
        }
        for number in 1..=nodes {
            world.change_node(&format!("node{number}"), |n| {
                n.status.state = model::node::NodeState::Ready;
                n.spec.availability = model::node::Availability::Active;
            });
        }
        world.update(|spec| {
            spec.mode = ServiceMode::Replicated { replicas: 4 };
            spec.task.container.image = "good:last".into();
            spec.task.placement.constraints.clear();
        });
        world.settle_within(std::time::Duration::from_secs(600));
        prop_assert_eq!(world.with_image("good:last"), 4);
        prop_assert_eq!(world.running().len(), 4);
        let commits = world.commits;
        world.settle();
        prop_assert_eq!(world.commits, commits, "decided something at rest");
    }
}
