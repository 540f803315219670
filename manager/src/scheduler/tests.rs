use std::collections::BTreeMap;

use model::{
    Node, Service,
    node::{Availability, NodeState},
    service::{PublishMode, ServiceMode},
    task::GenericResource,
};
use proptest::prelude::*;

use super::*;
use crate::example::{
    SECOND, apply, node, publish, service, set_node, set_service, set_task, tables, task,
};

/// A task as the allocator leaves it.
fn pending(service: &Service, slot: u64) -> Task {
    let mut task = task(service, slot);
    task.status.state = TaskState::Pending;
    let ports = service.spec.endpoint.as_ref();
    task.ports = ports.map(|spec| spec.ports.clone()).unwrap_or_default();
    task
}

/// The nodes, and all pending tasks of the services.
fn state(nodes: Vec<Node>, services: &[Service]) -> Tables {
    let mut changes: Vec<StoreChange> = nodes.into_iter().map(set_node).collect();
    for service in services {
        changes.push(set_service(service.clone()));
        if let ServiceMode::Replicated { replicas } = service.spec.mode {
            changes.extend((1..=replicas).map(|slot| set_task(pending(service, slot))));
        }
    }
    tables(changes)
}

fn settle(state: &mut Tables) {
    let mut scheduler = Scheduler::default();
    for _ in 0..1000 {
        let decision = scheduler.decide(state, SECOND);
        if decision.changes.is_empty() {
            return;
        }
        apply(state, SECOND, decision.changes);
    }
    panic!("it never settles");
}

fn by_node(state: &Tables, service: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for task in state.work().tasks_of(&service.into()) {
        if let Some(node) = task
            .node
            .as_ref()
            .filter(|_| task.status.state == TaskState::Assigned)
        {
            *counts.entry(node.to_string()).or_default() += 1;
        }
    }
    counts
}

fn spread(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs
        .iter()
        .map(|(name, count)| ((*name).to_owned(), *count))
        .collect()
}

fn reasons(state: &Tables) -> Vec<String> {
    let waiting = state.work().tasks_in(Stage::Pending);
    waiting.map(|task| task.status.error.clone()).collect()
}

#[test]
fn tasks_spread_by_service_then_by_all() {
    let nodes = || vec![node("n1"), node("n2"), node("n3")];
    let mut state = state(nodes(), &[service("a", 4, &[]), service("b", 2, &[])]);
    settle(&mut state);
    assert_eq!(
        by_node(&state, "a"),
        spread(&[("n1", 2), ("n2", 1), ("n3", 1)])
    );
    assert_eq!(by_node(&state, "b"), spread(&[("n2", 1), ("n3", 1)]));
}

#[test]
fn each_filter_says_why_and_on_how_many_nodes() {
    let mut down = node("n1");
    down.status.state = NodeState::Down;
    let mut drained = node("n2");
    drained.spec.availability = Availability::Drain;
    let mut arm = node("n3");
    arm.description.architecture = "aarch64".to_owned();
    let mut small = node("n4");
    small.description.memory_bytes = 1 << 20;
    let nodes = || {
        vec![
            down.clone(),
            drained.clone(),
            arm.clone(),
            small.clone(),
            node("n5"),
        ]
    };
    let mut asked = service("web", 1, &[]);
    asked.spec.task.reservations.memory_bytes = 1 << 30;
    asked.spec.task.placement.platforms = vec![model::task::Platform {
        architecture: "amd64".to_owned(),
        os: "linux".to_owned(),
    }];
    asked.spec.task.placement.constraints = vec!["node.hostname!=n5".to_owned()];
    let mut full = state(nodes(), &[asked.clone()]);
    settle(&mut full);
    assert_eq!(
        reasons(&full),
        [
            "no suitable node (2 nodes not available for new tasks; insufficient resources on 1 node; scheduling constraints not satisfied on 1 node; unsupported platform on 1 node)"
        ]
    );
    asked.spec.task.placement.constraints.clear();
    let mut fine = state(nodes(), &[asked]);
    settle(&mut fine);
    assert_eq!(by_node(&fine, "web"), spread(&[("n5", 1)]));
    let mut none = state(Vec::new(), &[service("web", 1, &[])]);
    settle(&mut none);
    assert_eq!(reasons(&none), ["no suitable node"]);
}

#[test]
fn a_reason_is_written_once_and_goes_when_there_is_room() {
    let mut asked = service("web", 2, &[]);
    asked.spec.task.reservations.nano_cpus = 3_000_000_000;
    let mut state = state(vec![node("n1")], &[asked]);
    let mut scheduler = Scheduler::default();
    let first = scheduler.decide(&state, SECOND);
    assert_eq!(first.changes.len(), 2);
    apply(&mut state, SECOND, first.changes);
    assert_eq!(
        reasons(&state),
        ["no suitable node (insufficient resources on 1 node)"]
    );
    assert_eq!(scheduler.decide(&state, SECOND), Decision::default());
    apply(&mut state, SECOND, vec![set_node(node("n2"))]);
    let second = scheduler.decide(&state, SECOND);
    apply(&mut state, SECOND, second.changes);
    assert_eq!(by_node(&state, "web"), spread(&[("n1", 1), ("n2", 1)]));
    assert!(
        state
            .work()
            .tasks()
            .all(|task| task.status.error.is_empty())
    );
}

#[test]
fn host_ports_and_replicas_are_limited_per_node() {
    let mut ports = service("ports", 3, &[]);
    publish(&mut ports, 80, 8080, PublishMode::Host);
    let mut most = service("most", 5, &[]);
    most.spec.task.placement.max_replicas = 2;
    let mut state = state(vec![node("n1"), node("n2")], &[ports, most]);
    settle(&mut state);
    assert_eq!(by_node(&state, "ports"), spread(&[("n1", 1), ("n2", 1)]));
    assert_eq!(by_node(&state, "most"), spread(&[("n1", 2), ("n2", 2)]));
    let mut reasons = reasons(&state);
    reasons.sort();
    assert_eq!(
        reasons,
        [
            "no suitable node (host-mode port already in use on 2 nodes)",
            "no suitable node (max replicas per node limit exceed on 2 nodes)"
        ]
    );
}

#[test]
fn preferences_spread_over_buckets_first() {
    let zoned = |name: &str, zone: &str, rack: &str| {
        let mut node = node(name);
        if !zone.is_empty() {
            node.spec.labels.insert("zone".to_owned(), zone.to_owned());
        }
        node.description
            .engine_labels
            .insert("rack".to_owned(), rack.to_owned());
        node
    };
    let nodes = vec![
        zoned("n1", "a", "1"),
        zoned("n2", "a", "1"),
        zoned("n3", "a", "2"),
        zoned("n4", "b", "1"),
        zoned("n5", "", "1"),
    ];
    let mut web = service("web", 12, &[]);
    web.spec.task.placement.preferences = vec![
        "node.labels.zone".to_owned(),
        "engine.labels.rack".to_owned(),
    ];
    let mut state = state(nodes, &[web]);
    settle(&mut state);
    // A label that is missing is a bucket of its own.
    assert_eq!(
        by_node(&state, "web"),
        spread(&[("n1", 1), ("n2", 1), ("n3", 2), ("n4", 4), ("n5", 4)])
    );
}

#[test]
fn a_node_on_which_it_fails_goes_last() {
    let mut web = service("web", 1, &[]);
    web.spec_version = 1;
    let failed = |slot: u64, at: i64| {
        let mut task = pending(&web, slot);
        task.node = Some("n1".into());
        task.status.state = TaskState::Failed;
        task.status.at = at;
        set_task(task)
    };
    let minutes = 60 * SECOND;
    for (failures, ago, goes_to) in [
        (5, minutes, "n2"),
        (4, minutes, "n1"),
        (5, 6 * minutes, "n1"),
    ] {
        let now = 100 * minutes;
        let mut state = state(vec![node("n1"), node("n2")], &[web.clone()]);
        let history = (10..10 + failures)
            .map(|slot| failed(slot, now - ago))
            .collect();
        apply(&mut state, now, history);
        let decision = decide(&state, now);
        apply(&mut state, now, decision.changes);
        assert_eq!(
            by_node(&state, "web"),
            spread(&[(goes_to, 1)]),
            "{failures} {ago}"
        );
    }
}

#[test]
fn generic_resources_are_given_by_name_and_by_count() {
    let named = |value: &str| GenericResource::Named {
        kind: "GPU".to_owned(),
        value: value.to_owned(),
    };
    let discrete = |kind: &str, value| GenericResource::Discrete {
        kind: kind.to_owned(),
        value,
    };
    let mut host = node("n1");
    host.description.generic_resources =
        vec![named("g0"), named("g1"), named("g2"), discrete("SSD", 3)];
    let mut web = service("web", 2, &[]);
    web.spec.task.reservations.generic = vec![discrete("GPU", 2), discrete("SSD", 1)];
    let mut state = state(vec![host], &[web]);
    settle(&mut state);
    let placed = state
        .work()
        .tasks()
        .find(|task| task.node.is_some())
        .expect("one is placed");
    assert_eq!(
        placed.generic_resources,
        [named("g0"), named("g1"), discrete("SSD", 1)]
    );
    assert_eq!(
        reasons(&state),
        ["no suitable node (insufficient resources on 1 node)"]
    );
}

#[test]
fn a_chosen_node_is_only_checked() {
    let mut web = service("web", 0, &[]);
    web.spec.mode = ServiceMode::Global;
    web.spec.task.reservations.memory_bytes = 6 << 30;
    let chosen = |slot: u64, name: &str| {
        let mut task = pending(&web, slot);
        task.node = Some(name.into());
        set_task(task)
    };
    let mut state = state(vec![node("n1"), node("n2")], &[web.clone()]);
    apply(
        &mut state,
        0,
        vec![chosen(1, "n2"), chosen(2, "n2"), chosen(3, "gone")],
    );
    settle(&mut state);
    assert_eq!(by_node(&state, "web"), spread(&[("n2", 1)]));
    let mut reasons = reasons(&state);
    reasons.sort();
    assert_eq!(
        reasons,
        [
            "no suitable node",
            "no suitable node (insufficient resources on 1 node)"
        ]
    );
}

#[test]
fn a_dry_run_says_where_and_why_not() {
    let mut web = service("web", 5, &[]).spec;
    web.task.reservations.nano_cpus = 2_000_000_000;
    let state = state(vec![node("n1"), node("n2")], &[]);
    let answer = dry_run(&state, &web, SECOND);
    let placed: Vec<_> = answer
        .placed
        .iter()
        .map(|one| (one.slot, one.hostname.as_str()))
        .collect();
    assert_eq!(placed, [(1, "n1"), (2, "n2"), (3, "n1"), (4, "n2")]);
    assert_eq!(
        answer.unplaced,
        [(
            1,
            "no suitable node (insufficient resources on 2 nodes)".to_owned()
        )]
    );
    web.mode = ServiceMode::Global;
    assert_eq!(dry_run(&state, &web, SECOND).placed.len(), 2);
}

/// What happens to the state between looks, by numbers reduced to what there is.
#[derive(Debug, Clone)]
enum Happening {
    Look,
    Task(usize, u64),
    End(usize, bool),
    Unwant(usize),
    Remove(usize),
    Node(usize, i64, bool),
    RemoveNode(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening as H;
    let n = 0..50usize;
    prop_oneof![
        4 => Just(H::Look),
        6 => (0..3usize, 0..40u64).prop_map(|(of, slot)| H::Task(of, slot)),
        2 => (n.clone(), any::<bool>()).prop_map(|(at, failed)| H::End(at, failed)),
        1 => n.clone().prop_map(H::Unwant),
        1 => n.clone().prop_map(H::Remove),
        2 => (n.clone(), 0..5i64, any::<bool>()).prop_map(|(at, cpus, up)| H::Node(at, cpus, up)),
        1 => n.prop_map(H::RemoveNode),
    ]
}

fn kinds() -> Vec<Service> {
    let mut cpus = service("cpus", 0, &[]);
    cpus.spec.task.reservations.nano_cpus = 1_500_000_000;
    let mut ports = service("ports", 0, &[]);
    publish(&mut ports, 80, 8080, PublishMode::Host);
    ports.spec.task.reservations.memory_bytes = 1 << 30;
    let mut most = service("most", 0, &[]);
    most.spec.task.placement.max_replicas = 3;
    most.spec.task.reservations.nano_cpus = 500_000_000;
    vec![cpus, ports, most]
}

fn changes(state: &Tables, what: &Happening, kinds: &[Service]) -> Vec<StoreChange> {
    let nth = |at: usize| {
        let count = state.work().task_count().max(1);
        state.work().tasks().nth(at % count).cloned()
    };
    let name = |at: usize| format!("n{}", at % 4);
    match what {
        Happening::Look => Vec::new(),
        Happening::Task(of, slot) => {
            let task = pending(&kinds[*of], *slot);
            let fresh = state.work().task(&task.id).is_none();
            fresh.then(|| set_task(task)).into_iter().collect()
        }
        Happening::End(at, failed) => nth(*at)
            .filter(|task| task.node.is_some())
            .map(|mut task| {
                task.status.state = if *failed {
                    TaskState::Failed
                } else {
                    TaskState::Running
                };
                set_task(task)
            })
            .into_iter()
            .collect(),
        Happening::Unwant(at) => nth(*at)
            .map(|mut task| {
                task.desired = TaskState::Shutdown;
                set_task(task)
            })
            .into_iter()
            .collect(),
        Happening::Remove(at) => nth(*at)
            .map(|task| StoreChange::RemoveTask(task.id))
            .into_iter()
            .collect(),
        Happening::Node(at, cpus, up) => {
            let mut node = node(&name(*at));
            node.description.nano_cpus = cpus * 1_000_000_000;
            if !up {
                node.status.state = NodeState::Down;
            }
            vec![set_node(node)]
        }
        Happening::RemoveNode(at) => vec![StoreChange::RemoveNode(name(*at).as_str().into())],
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_is_remembered_is_what_would_be_computed_and_nothing_is_overcommitted(
        happenings in proptest::collection::vec(happening(), 1..80)
    ) {
        let kinds = kinds();
        let mut state = tables(kinds.iter().cloned().map(set_service).collect());
        let mut scheduler = Scheduler::default();
        for what in &happenings {
            let new = changes(&state, what, &kinds);
            apply(&mut state, SECOND, new);
            if !matches!(what, Happening::Look) {
                continue;
            }
            let decision = scheduler.decide(&state, SECOND);
            let before = state.clone();
            apply(&mut state, SECOND, decision.changes);
            for node in state.nodes() {
                let held = |of: &Tables, by: fn(&Task) -> i64| -> i64 {
                    let tasks = of.work().tasks_at(&node.id);
                    tasks
                        .filter(|task| (TaskState::Assigned..=TaskState::Running).contains(&task.status.state))
                        .map(by)
                        .sum()
                };
                let cpus: fn(&Task) -> i64 = |task| task.spec.reservations.nano_cpus;
                let port: fn(&Task) -> i64 = |task| i64::from(!task.ports.is_empty());
                for (by, most) in [(cpus, node.description.nano_cpus), (port, 1)] {
                    // A node that lost CPUs may hold too much; it gets nothing more.
                    let (was, is) = (held(&before, by), held(&state, by));
                    prop_assert!(is <= most || is == was, "{}: {was} then {is} of {most}", node.id);
                }
            }
            scheduler.hosts.catch_up(&state, SECOND);
            let mut fresh = Hosts::default();
            fresh.catch_up(&state, SECOND);
            prop_assert_eq!(scheduler.hosts.facts(), fresh.facts());
        }
    }
}
