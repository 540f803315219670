//! The scheduler alone: tasks a second on many nodes with constraints and preferences, one
//! more task after that, and memory.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use clap::Parser;
use manager::{
    scheduler::Scheduler,
    store::{Proposal, StoreChange, Tables},
};
use model::{
    Meta, Node, NodeSpec, Task, TaskSpec, TaskState, TaskStatus,
    node::{Availability, NodeDescription, NodeState, NodeStatus, Role},
    service::ServiceMode,
    task::Handover,
};

#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 5_000)]
    nodes: u32,
    #[arg(long, default_value_t = 100_000)]
    tasks: u64,
    /// Among so many services the tasks are divided.
    #[arg(long, default_value_t = 100)]
    services: u64,
}

fn main() {
    let arguments = Arguments::parse();
    let empty = memory();
    let mut tables = Tables::default();
    apply(&mut tables, (0..arguments.nodes).map(node).collect());
    let specs: Vec<std::sync::Arc<TaskSpec>> = (0..arguments.services)
        .map(|_| std::sync::Arc::new(spec()))
        .collect();
    let tasks = (0..arguments.tasks).map(|number| {
        let of = (number % arguments.services) as usize;
        StoreChange::SetTask(Box::new(task(number, of, &specs[of])))
    });
    apply(&mut tables, tasks.collect());
    let stored = memory();
    let mut scheduler = Scheduler::default();
    let (mut spent, mut passes, mut assigned) = (Duration::ZERO, 0u32, 0);
    loop {
        let begun = Instant::now();
        let decision = scheduler.decide(&tables, 1);
        spent += begun.elapsed();
        if decision.changes.is_empty() {
            break;
        }
        passes += 1;
        assigned += decision.changes.len();
        apply(&mut tables, decision.changes);
    }
    let after = memory();
    println!(
        "{assigned} tasks of {} services on {} nodes: {spent:?} in {passes} decisions, {:.0} tasks/s",
        arguments.services,
        arguments.nodes,
        assigned as f64 / spent.as_secs_f64()
    );
    let mut singles: Vec<Duration> = (0..101)
        .map(|more| {
            let number = arguments.tasks + more;
            let of = (number % arguments.services) as usize;
            let change = StoreChange::SetTask(Box::new(task(number, of, &specs[of])));
            apply(&mut tables, vec![change]);
            let begun = Instant::now();
            let decision = scheduler.decide(&tables, 1);
            let took = begun.elapsed();
            apply(&mut tables, decision.changes);
            took
        })
        .collect();
    singles.sort();
    println!(
        "one more task: median {:?}, slowest {:?}",
        singles[50], singles[100]
    );
    println!(
        "memory: {} MiB of state, {} MiB more after scheduling (state before and after, scheduler)",
        (stored - empty) >> 20,
        (after - stored) >> 20
    );
    let begun = Instant::now();
    let decision = Scheduler::default().decide(&tables, 1);
    println!(
        "from nothing but the state: {:?}, {} changes",
        begun.elapsed(),
        decision.changes.len()
    );
}

fn apply(tables: &mut Tables, changes: Vec<StoreChange>) {
    let index = tables.index() + 1;
    tables.apply(
        index,
        &Proposal {
            time: 1,
            changes,
            base: None,
        },
    );
}

/// Resident memory in bytes, as the kernel counts it.
fn memory() -> i64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|n| n.parse().ok());
    pages.unwrap_or(0) * 4096
}

fn node(number: u32) -> StoreChange {
    let labels = BTreeMap::from([
        ("zone".to_owned(), format!("z{}", number % 5)),
        ("rack".to_owned(), format!("r{}", number % 50)),
        (
            "disk".to_owned(),
            if number.is_multiple_of(4) {
                "hdd"
            } else {
                "ssd"
            }
            .to_owned(),
        ),
    ]);
    StoreChange::SetNode(Box::new(Node {
        id: format!("node{number:021}").into(),
        meta: Meta::default(),
        spec: NodeSpec {
            name: None,
            labels,
            role: Role::Worker,
            availability: Availability::Active,
        },
        number,
        description: NodeDescription {
            hostname: format!("worker{number}"),
            architecture: "x86_64".to_owned(),
            os: "linux".to_owned(),
            nano_cpus: 64_000_000_000,
            memory_bytes: 256 << 30,
            ..NodeDescription::default()
        },
        status: NodeStatus {
            state: NodeState::Ready,
            message: String::new(),
            address: None,
        },
        manager: None,
    }))
}

fn spec() -> TaskSpec {
    let mut spec = TaskSpec::default();
    spec.placement.constraints = vec![
        "node.labels.disk==ssd".to_owned(),
        "node.role!=manager".to_owned(),
        "node.platform.arch==amd64".to_owned(),
    ];
    spec.placement.preferences = vec!["node.labels.zone".to_owned(), "node.labels.rack".to_owned()];
    spec.reservations.nano_cpus = 100_000_000;
    spec.reservations.memory_bytes = 64 << 20;
    spec
}

fn task(number: u64, of: usize, spec: &std::sync::Arc<TaskSpec>) -> Task {
    Task {
        // As random identifiers would, these mix the services.
        id: format!("{:025}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).into(),
        meta: Meta::default(),
        service: format!("service{of:018}").into(),
        service_name: format!("web{of}"),
        slot: number + 1,
        node: None,
        spec: std::sync::Arc::clone(spec),
        spec_version: 1,
        labels: BTreeMap::new(),
        mode: ServiceMode::Replicated { replicas: 1 },
        status: TaskStatus {
            state: TaskState::Pending,
            ..TaskStatus::default()
        },
        desired: TaskState::Running,
        start_after: 0,
        endpoints: Vec::new(),
        ports: Vec::new(),
        generic_resources: Vec::new(),
        job_iteration: None,
        handover: Handover::Pending,
        in_since: 0,
        attempt: 0,
        drain: Duration::ZERO,
    }
}
