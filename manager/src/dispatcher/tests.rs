use model::{
    Endpoint, EndpointState, Node, Payload, PayloadKind, PayloadSpec, Service, Task, TaskState,
    encryption::{Encryptor, HostEncryption, TunnelKey},
    node::NodeState,
    service::PublishMode,
    task::PayloadReference,
};
use proptest::prelude::*;

use super::*;
use crate::{
    allocator,
    example::{
        SECOND, apply, cluster_record, network, node, publish, service, set_network, set_node,
        set_service, set_task, tables, task,
    },
    store::{StoreChange, Tables, Transaction},
};

const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];
const NETWORKS: [&str; 3] = ["ingress", "ch03", "ch04"];

/// One thing that happens, by numbers that are reduced to what there is.
#[derive(Debug, Clone)]
enum Happening {
    Allocate,
    Assign(usize, usize),
    Report(usize, usize),
    NewTask(usize, u64),
    RemoveTask(usize),
    SetService(usize, usize),
    RemoveService(usize),
    SetNode(usize, bool, bool),
    RemoveNode(usize),
    SetPayload(usize),
    RemovePayload(usize),
    Lost(usize),
    /// Of the keys of encrypted networks.
    Turn(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening as H;
    let n = 0..64usize;
    prop_oneof![
        4 => Just(H::Allocate),
        5 => (n.clone(), n.clone()).prop_map(|(task, node)| H::Assign(task, node)),
        5 => (n.clone(), n.clone()).prop_map(|(task, state)| H::Report(task, state)),
        3 => (n.clone(), 0..6u64).prop_map(|(service, slot)| H::NewTask(service, slot)),
        1 => n.clone().prop_map(H::RemoveTask),
        2 => (n.clone(), n.clone()).prop_map(|(which, shape)| H::SetService(which, shape)),
        1 => n.clone().prop_map(H::RemoveService),
        3 => (n.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(node, tunnel, edge)| H::SetNode(node, tunnel, edge)),
        1 => n.clone().prop_map(H::RemoveNode),
        1 => n.clone().prop_map(H::SetPayload),
        1 => n.clone().prop_map(H::RemovePayload),
        1 => n.prop_map(H::Lost),
        1 => (0..3u64).prop_map(H::Turn),
    ]
}

fn shaped(which: usize, shape: usize) -> Service {
    let networks = [&["ch03"][..], &["ch04"], &["ch03", "ch04"], &[]][shape % 4];
    let mut service = service(["s0", "s1", "s2"][which % 3], 3, networks);
    if shape.is_multiple_of(3) {
        publish(
            &mut service,
            80,
            8080 + (which % 3) as u16,
            PublishMode::Ingress,
        );
    }
    if shape.is_multiple_of(2) {
        let options = ["nodes=node.labels.edge==true", "nodes=node.role!=worker"];
        let label = model::publish::label(80, model::service::Protocol::Tcp);
        let options = options[shape / 2 % 2].to_owned();
        service.spec.labels.insert(label, options);
    }
    if shape.is_multiple_of(5) {
        let secret = PayloadReference {
            id: ["p0", "p1"][shape % 2].into(),
            ..PayloadReference::default()
        };
        service.spec.task.container.secrets.push(secret);
    }
    if shape.is_multiple_of(7)
        && let Some(one) = service.spec.task.networks.first_mut()
    {
        one.aliases.push("www".to_owned());
    }
    service
}

fn nth(tables: &Tables, at: usize) -> Option<Task> {
    let count = tables.work().task_count();
    (count > 0).then(|| tables.work().tasks().nth(at % count).cloned())?
}

/// What the store is told when it happens.
fn changes(tables: &Tables, what: &Happening) -> Vec<StoreChange> {
    let mut tx = Transaction::on(tables, SECOND);
    match what {
        Happening::Allocate => return allocator::decide(tables, SECOND, &|_| true).changes,
        Happening::Assign(at, to) => {
            let Some(mut task) = nth(tables, *at) else {
                return Vec::new();
            };
            if task.status.state != TaskState::Pending {
                return Vec::new();
            }
            task.node = Some(NODES[to % NODES.len()].into());
            task.status.state = TaskState::Assigned;
            for id in &task.endpoints {
                if let Some(endpoint) = tables.endpoint(id) {
                    let node = task.node.clone().unwrap_or_default();
                    tx.set_endpoint(Endpoint {
                        node,
                        ..endpoint.clone()
                    });
                }
            }
            tx.set_task(task);
        }
        Happening::Report(at, state) => {
            let Some(task) = nth(tables, *at) else {
                return Vec::new();
            };
            let mut status = task.status.clone();
            status.state = TaskState::ALL[state % TaskState::ALL.len()];
            report(
                &mut tx,
                &task.node.unwrap_or_default(),
                vec![(task.id, status)],
            );
        }
        Happening::NewTask(which, slot) => {
            let mut services = tables.work().services();
            let Some(of) = services.nth(which % 3) else {
                return Vec::new();
            };
            let mut task = task(of, *slot);
            task.id = format!("{}v{}", task.id, of.spec_version).into();
            if tables.work().task(&task.id).is_none() {
                tx.set_task(task);
            }
        }
        Happening::RemoveTask(at) => {
            let Some(task) = nth(tables, *at) else {
                return Vec::new();
            };
            for change in allocator::release(tables, &task) {
                tx.push(change);
            }
            tx.remove_task(&task.id);
        }
        Happening::SetService(which, shape) => {
            let mut new = shaped(*which, *shape);
            if let Some(old) = tables.work().service(&new.id) {
                new.endpoint = old.endpoint.clone();
            }
            tx.set_service(new);
        }
        Happening::RemoveService(which) => tx.remove_service(&["s0", "s1", "s2"][which % 3].into()),
        Happening::SetNode(which, tunnel, edge) => {
            let mut new: Node = node(NODES[which % NODES.len()]);
            if *edge {
                new.spec.labels.insert("edge".into(), "true".into());
            }
            new.description.data_path = new.description.data_path.filter(|_| *tunnel);
            new.description.encryption = edge.then(|| HostEncryption {
                by: Encryptor::Process,
                keys: vec![TunnelKey {
                    generation: 0,
                    public: [*which as u8; 32],
                    port: 51820,
                }],
                receives: 0,
                sends: 0,
                trouble: None,
            });
            tx.set_node(new);
        }
        Happening::RemoveNode(which) => {
            let id = NODES[1..][which % 3].into();
            let held: Vec<_> = tables.endpoints_at(&id).map(|one| one.id.clone()).collect();
            for endpoint in held {
                tx.remove_endpoint(&endpoint);
            }
            tx.remove_node(&id);
        }
        Happening::SetPayload(which) => tx.set_payload(Payload {
            id: ["p0", "p1"][which % 2].into(),
            meta: model::Meta::default(),
            kind: PayloadKind::Secret,
            spec: PayloadSpec {
                name: format!("secret{}", which % 2),
                ..PayloadSpec::default()
            },
        }),
        Happening::Turn(newest) => {
            let mut record = tables.cluster().cloned().unwrap();
            record.public.network_keys.newest = *newest;
            tx.push(StoreChange::SetCluster(Box::new(record)));
        }
        Happening::RemovePayload(which) => tx.remove_payload(&["p0", "p1"][which % 2].into()),
        Happening::Lost(which) => lost(&mut tx, &NODES[which % NODES.len()].into()),
    }
    tx.changes().to_vec()
}

fn start() -> Tables {
    let mut all: Vec<StoreChange> = NODES.iter().map(|name| set_node(node(name))).collect();
    for (at, name) in NETWORKS.iter().enumerate() {
        let subnet = format!("10.0.{at}.0/24");
        all.push(set_network(network(name, &[&subnet])));
    }
    all.extend((0..3).map(|which| set_service(shaped(which, which + 1))));
    all.push(StoreChange::SetCluster(Box::new(cluster_record())));
    tables(all)
}

/// Several happenings make one commit, as transactions do that are committed together: those with a
/// number wait for the next.
fn increments_are_the_full_set(happenings: &[(Happening, u8)]) -> Result<(), TestCaseError> {
    let mut tables = start();
    let ids: Vec<model::NodeId> = NODES.iter().map(|name| (*name).into()).collect();
    let mut sent: Vec<_> = ids.iter().map(|id| assignments(&tables, id)).collect();
    let mut told = sent.clone();
    let mut pending = Vec::new();
    let mut ahead = tables.clone();
    for (what, more) in happenings {
        let new = changes(&ahead, what);
        let index = ahead.index();
        apply(&mut ahead, SECOND, new.clone());
        pending.extend(new);
        let _ = index;
        if *more > 0 {
            continue;
        }
        let commit = std::mem::take(&mut pending);
        let before = tables.clone();
        apply(&mut tables, SECOND, commit.clone());
        let concerns = Concerns::of(&before, &tables, &commit);
        ahead = tables.clone();
        for (at, id) in ids.iter().enumerate() {
            let concerning = concerns.pick(&commit, id);
            let woken = concerns.hosts();
            let is_woken = woken.is_none_or(|hosts| hosts.contains(id));
            prop_assert_eq!(is_woken, concerning.clone().next().is_some());
            if let Some(step) = increment(&mut sent[at], &tables, concerning, id) {
                told[at].apply(&step);
            }
            let mut full = assignments(&tables, id);
            // A commit that does not concern a node is not told, its generation neither.
            full.generation = sent[at].generation;
            prop_assert_eq!(&sent[at], &full, "after {:?}", what);
            prop_assert_eq!(&told[at], &full, "as told, after {:?}", what);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn increments_applied_are_the_full_set(
        happenings in proptest::collection::vec((happening(), 0..3u8), 1..80)
    ) {
        increments_are_the_full_set(&happenings)?;
    }
}

/// In one commit a task's endpoint goes and comes back, for no node yet.
#[test]
fn what_comes_back_without_a_node_is_not_kept() {
    let happenings = [
        (Happening::NewTask(63, 0), 0),
        (Happening::Allocate, 0),
        (Happening::Assign(12, 0), 0),
        (Happening::RemoveTask(0), 1),
        (Happening::NewTask(33, 0), 1),
        (Happening::Allocate, 0),
    ];
    increments_are_the_full_set(&happenings).unwrap();
}

/// A running task on `n1` and its neighbour on `n2`.
fn running() -> Tables {
    let web = service("web", 2, &["ch03"]);
    let mut all: Vec<StoreChange> = NODES.iter().map(|name| set_node(node(name))).collect();
    all.push(set_network(network("ch03", &["10.0.3.0/24"])));
    all.extend([1, 2].map(|slot| set_task(task(&web, slot))));
    all.push(set_service(web));
    let mut tables = tables(all);
    let given = allocator::decide(&tables, SECOND, &|_| true).changes;
    apply(&mut tables, SECOND, given);
    for at in [0, 1] {
        let assigned = changes(&tables, &Happening::Assign(at, at));
        apply(&mut tables, SECOND, assigned);
    }
    tables
}

fn say(tables: &mut Tables, who: &str, id: &str, state: TaskState) {
    let mut tx = Transaction::on(tables, SECOND);
    let mut status = tables
        .work()
        .task(&id.into())
        .map(|task| task.status.clone())
        .unwrap_or_default();
    status.state = state;
    report(&mut tx, &who.into(), vec![(id.into(), status)]);
    let changes = tx.changes().to_vec();
    apply(tables, SECOND, changes);
}

fn states(tables: &Tables, id: &str) -> (TaskState, Vec<EndpointState>) {
    let task = tables.work().task(&id.into()).expect("the task");
    let endpoints = task.endpoints.iter().filter_map(|id| tables.endpoint(id));
    (task.status.state, endpoints.map(|one| one.state).collect())
}

#[test]
fn reports_move_tasks_forward_and_endpoints_with_them() {
    use TaskState as T;
    let mut tables = running();
    let here = [EndpointState::Allocated];
    for (who, id, state, then, endpoints) in [
        ("n2", "webt1", T::Running, T::Assigned, &here[..]),
        ("n1", "nobody", T::Running, T::Assigned, &here),
        ("n1", "webt1", T::Pending, T::Assigned, &here),
        ("n1", "webt1", T::Orphaned, T::Assigned, &here),
        ("n1", "webt1", T::Remove, T::Assigned, &here),
        ("n1", "webt1", T::Preparing, T::Preparing, &here),
        ("n1", "webt1", T::Accepted, T::Preparing, &here),
        (
            "n1",
            "webt1",
            T::Running,
            T::Running,
            &[EndpointState::Active],
        ),
        ("n1", "webt1", T::Failed, T::Failed, &[]),
        ("n1", "webt1", T::Running, T::Failed, &[]),
    ] {
        say(&mut tables, who, id, state);
        assert_eq!(
            states(&tables, "webt1"),
            (then, endpoints.to_vec()),
            "{who} {id} {state:?}"
        );
    }
    assert_eq!(
        tables.resting(&"ch03".into()).count(),
        1,
        "its address rests"
    );
}

#[test]
fn a_task_that_shall_stop_does_not_enter_load_balancing() {
    let mut tables = running();
    let mut task = tables
        .work()
        .task(&"webt1".into())
        .expect("the task")
        .clone();
    task.desired = TaskState::Shutdown;
    apply(&mut tables, SECOND, vec![set_task(task)]);
    say(&mut tables, "n1", "webt1", TaskState::Running);
    assert_eq!(
        states(&tables, "webt1"),
        (TaskState::Running, vec![EndpointState::Allocated])
    );
}

#[test]
fn a_lost_nodes_tasks_leave_load_balancing_and_come_back_with_it() {
    let mut tables = running();
    say(&mut tables, "n1", "webt1", TaskState::Running);
    say(&mut tables, "n2", "webt2", TaskState::Running);
    let active = |tables: &Tables| states(tables, "webt1").1[0] == EndpointState::Active;
    for (wanted, again) in [(true, true), (false, false)] {
        let mut tx = Transaction::on(&tables, SECOND);
        lost(&mut tx, &"n1".into());
        let changes = tx.changes().to_vec();
        apply(&mut tables, SECOND, changes);
        assert!(!active(&tables));
        assert_eq!(
            states(&tables, "webt2").1,
            [EndpointState::Active],
            "the other stays"
        );
        if !wanted {
            let mut task = tables
                .work()
                .task(&"webt1".into())
                .expect("the task")
                .clone();
            task.desired = TaskState::Shutdown;
            apply(&mut tables, SECOND, vec![set_task(task)]);
        }
        let mut tx = Transaction::on(&tables, SECOND);
        returned(&mut tx, &"n1".into());
        let changes = tx.changes().to_vec();
        apply(&mut tables, SECOND, changes);
        assert_eq!(active(&tables), again);
    }
}

#[test]
fn tasks_of_a_node_that_stays_away_are_given_up() {
    const DAY: i64 = 24 * 3600 * SECOND;
    let mut tables = running();
    say(&mut tables, "n1", "webt1", TaskState::Running);
    let mut down = tables.node(&"n1".into()).expect("the node").clone();
    down.status.state = NodeState::Down;
    apply(&mut tables, SECOND, vec![set_node(down)]);
    let early = orphans(&tables, 2 * SECOND);
    assert_eq!((early.changes.len(), early.again), (0, Some(SECOND + DAY)));
    let late = orphans(&tables, SECOND + DAY);
    apply(&mut tables, SECOND + DAY, late.changes);
    assert_eq!(states(&tables, "webt1"), (TaskState::Orphaned, vec![]));
    assert!(orphans(&tables, SECOND + DAY).changes.is_empty());
}

#[test]
fn a_label_opens_a_port_on_its_host_alone() {
    let mut web = service("web", 1, &[]);
    publish(&mut web, 80, 8080, PublishMode::Ingress);
    let label = model::publish::label(80, model::service::Protocol::Tcp);
    let options = "nodes=node.labels.edge==true".to_owned();
    web.spec.labels.insert(label, options);
    let mut all: Vec<StoreChange> = NODES.iter().map(|name| set_node(node(name))).collect();
    all.push(set_network(network("ingress", &["10.0.0.0/24"])));
    all.push(set_service(web));
    let mut tables = tables(all);
    let given = allocator::decide(&tables, SECOND, &|_| true).changes;
    apply(&mut tables, SECOND, given);
    let (n1, n2) = ("n1".into(), "n2".into());
    let mut sent = [&n1, &n2].map(|id| assignments(&tables, id));
    let ports = |sent: &model::Assignments| {
        let route = sent.services.values().next().expect("the service");
        (route.endpoint.ports.len(), route.elsewhere)
    };
    assert_eq!(sent.each_ref().map(ports), [(0, true); 2]);
    for (edge, expected) in [(true, (1, false)), (false, (0, true))] {
        let mut changed = tables.node(&n1).expect("the node").clone();
        changed.spec.labels.clear();
        if edge {
            changed.spec.labels.insert("edge".into(), "true".into());
        }
        let commit = vec![set_node(changed)];
        apply(&mut tables, SECOND, commit.clone());
        let step = increment(&mut sent[0], &tables, commit.iter(), &n1).expect("a step");
        assert_eq!(step.changes.len(), 1, "{:?}", step.changes);
        assert_eq!(ports(&sent[0]), expected);
        assert!(increment(&mut sent[1], &tables, commit.iter(), &n2).is_none());
    }
}
