//! A world that runs what it is told to: allocator, scheduler and nodes in a few lines each.

use std::{collections::BTreeMap, time::Duration};

use model::{
    Endpoint, EndpointId, EndpointOwner, EndpointState, Meta, Network, NetworkId, NetworkSpec,
    Node, NodeId, NodeSpec, Service, ServiceId, ServiceSpec, Task, TaskId, TaskState,
    endpoint::MacAddress,
    node::{Availability, NodeDescription, NodeState, NodeStatus, Role},
    service::{JobStatus, ServiceEndpoint, ServiceMode, UpdateState},
    task::{Handover, NetworkAttachment},
};

use super::super::{decide, handover};
use crate::{
    decision::Decision,
    example,
    scheduler::constraint,
    store::{Proposal, StoreChange, Tables},
};

pub const SECOND: i64 = 1_000_000_000;
pub const IMAGE_CRASHES: &str = "crashes";
pub const IMAGE_NEVER_HEALTHY: &str = "never-healthy";
pub const IMAGE_ENDS: &str = "ends";

pub struct World {
    pub tables: Tables,
    pub now: i64,
    pub id: ServiceId,
    /// Transactions that changed anything.
    pub commits: usize,
    /// The fewest tasks in load balancing ever seen since it was set.
    pub least_serving: usize,
    again: Option<i64>,
}

impl World {
    pub fn new(nodes: usize) -> Self {
        let mut world = Self {
            tables: Tables::default(),
            now: 1_000 * SECOND,
            id: "service".into(),
            commits: 0,
            least_serving: usize::MAX,
            again: None,
        };
        let network = Network {
            id: "net".into(),
            meta: Meta::default(),
            spec: NetworkSpec {
                name: "net".into(),
                ..NetworkSpec::default()
            },
            vni: 4096,
            subnets: Vec::new(),
        };
        let cluster = example::cluster_record();
        world.apply(vec![
            StoreChange::SetCluster(Box::new(cluster)),
            StoreChange::SetNetwork(Box::new(network)),
        ]);
        for number in 1..=nodes {
            world.node(&format!("node{number}"));
        }
        world
    }

    pub fn node(&mut self, id: &str) {
        let node = Node {
            id: id.into(),
            meta: Meta::default(),
            spec: NodeSpec {
                name: None,
                labels: BTreeMap::new(),
                role: Role::Worker,
                availability: Availability::Active,
            },
            number: 1,
            description: NodeDescription {
                hostname: id.into(),
                ..NodeDescription::default()
            },
            status: NodeStatus {
                state: NodeState::Ready,
                message: String::new(),
                address: None,
            },
            manager: None,
        };
        self.apply(vec![StoreChange::SetNode(Box::new(node))]);
    }

    pub fn change_node(&mut self, id: &str, change: impl FnOnce(&mut Node)) {
        let mut node = self.tables.node(&id.into()).unwrap().clone();
        change(&mut node);
        self.apply(vec![StoreChange::SetNode(Box::new(node))]);
    }

    pub fn down(&mut self, id: &str) {
        self.change_node(id, |node| node.status.state = NodeState::Down);
    }

    pub fn drain(&mut self, id: &str) {
        self.change_node(id, |node| node.spec.availability = Availability::Drain);
    }

    pub fn spec(mode: ServiceMode) -> ServiceSpec {
        let mut spec = ServiceSpec {
            name: "web".into(),
            mode,
            ..ServiceSpec::default()
        };
        spec.task.container.image = "good:1".into();
        spec.task.networks = vec![NetworkAttachment {
            target: "net".into(),
            ..NetworkAttachment::default()
        }];
        spec
    }

    pub fn create(&mut self, spec: ServiceSpec) {
        self.create_as("service", spec);
    }

    pub fn create_as(&mut self, id: &str, spec: ServiceSpec) {
        let job = spec.mode.is_job().then_some(JobStatus {
            iteration: 0,
            last_execution: self.now,
        });
        let service = Service {
            id: id.into(),
            meta: Meta::default(),
            spec,
            spec_version: 0,
            previous: None,
            endpoint: ServiceEndpoint::default(),
            update: None,
            job,
        };
        self.apply(vec![StoreChange::SetService(Box::new(service))]);
    }

    pub fn service(&self) -> &Service {
        self.tables.work().service(&self.id).unwrap()
    }

    /// Writes the spec as control does.
    pub fn update(&mut self, change: impl FnOnce(&mut ServiceSpec)) {
        let mut service = self.service().clone();
        let old = service.spec.clone();
        change(&mut service.spec);
        service.previous = Some(Box::new(old));
        service.update = None;
        if let Some(job) = &mut service.job {
            job.iteration += 1;
        }
        self.apply(vec![StoreChange::SetService(Box::new(service))]);
    }

    pub fn replicas(&mut self, replicas: u64) {
        self.update(|spec| spec.mode = ServiceMode::Replicated { replicas });
    }

    pub fn image(&mut self, image: &str) {
        self.update(|spec| spec.task.container.image = image.into());
    }

    pub fn tasks(&self) -> Vec<&Task> {
        self.tables.work().tasks_of(&self.id).collect()
    }

    pub fn running(&self) -> Vec<&Task> {
        let runs = |t: &&Task| t.is_wanted() && t.status.state == TaskState::Running;
        self.tasks().into_iter().filter(runs).collect()
    }

    pub fn with_image(&self, image: &str) -> usize {
        let is = |task: &&&Task| task.spec.container.image == image;
        self.running().iter().filter(is).count()
    }

    pub fn update_state(&self) -> Option<UpdateState> {
        self.service().update.as_ref().map(|status| status.state)
    }

    pub fn per_node(&self) -> BTreeMap<NodeId, usize> {
        let mut counts = BTreeMap::new();
        for task in self.running() {
            *counts.entry(task.node.clone().unwrap()).or_default() += 1;
        }
        counts
    }

    pub fn apply(&mut self, changes: Vec<StoreChange>) {
        if changes.is_empty() {
            return;
        }
        self.commits += 1;
        let before = self.tables.clone();
        let proposal = Proposal {
            time: self.now,
            changes,
            base: None,
        };
        self.tables.apply(self.tables.index() + 1, &proposal);
        self.check(&before);
    }

    /// What must hold whatever happens.
    fn check(&mut self, before: &Tables) {
        let mut wanted: BTreeMap<_, usize> = BTreeMap::new();
        let mut serving = 0;
        for task in self.tables.work().tasks() {
            if let Some(old) = before.work().task(&task.id) {
                assert!(old.status.state <= task.status.state, "{task:?}");
                assert!(
                    old.desired <= task.desired,
                    "{} {:?}",
                    old.name(),
                    old.desired
                );
                assert!(old.handover <= task.handover, "{task:?}");
            }
            let ended = task.status.state.is_final();
            if task.is_wanted() && !ended {
                let key = (
                    task.service.clone(),
                    task.slot,
                    task.mode.is_global().then(|| task.node.clone()),
                );
                *wanted.entry(key).or_default() += 1;
            }
            let active = |id: &EndpointId| {
                self.tables
                    .endpoint(id)
                    .is_some_and(|e| e.state == EndpointState::Active)
            };
            serving += usize::from(!ended && task.endpoints.iter().any(active));
        }
        for (slot, count) in wanted {
            assert!(count <= 2, "{count} wanted tasks in {slot:?}");
        }
        self.least_serving = self.least_serving.min(serving);
    }

    fn look(&mut self) -> bool {
        let commits = self.commits;
        let services: Vec<ServiceId> = self
            .tables
            .work()
            .tasks()
            .map(|task| task.service.clone())
            .chain(self.tables.work().services().map(|s| s.id.clone()))
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect();
        for id in services {
            for round in 0.. {
                assert!(round < 100, "decisions do not come to an end");
                let Decision { changes, again } = decide(&self.tables, &id, self.now);
                if let Some(again) = again.filter(|again| *again > self.now) {
                    self.again = Some(self.again.map_or(again, |other| other.min(again)));
                }
                if changes.is_empty() {
                    break;
                }
                self.apply(changes);
            }
        }
        let decision = {
            let tasks = self.tables.work().tasks();
            handover::decide(&self.tables, tasks, &|_| Vec::new(), self.now)
        };
        self.apply(decision.changes);
        commits != self.commits
    }

    /// One step of everybody; whether anything happened.
    pub fn step(&mut self) -> bool {
        self.again = None;
        let mut moved = self.look();
        let tasks: Vec<Task> = self.tables.work().tasks().cloned().collect();
        for task in tasks {
            let changes = self.advance(task);
            moved |= !changes.is_empty();
            self.apply(changes);
        }
        moved
    }

    /// Runs until nothing happens any more and nothing is due within `limit`.
    pub fn settle_within(&mut self, limit: Duration) {
        let end = self.now + i64::try_from(limit.as_nanos()).unwrap();
        for _ in 0..100_000 {
            if self.step() {
                self.now += SECOND / 1000;
                continue;
            }
            match self.again {
                Some(again) if again <= end => self.now = again,
                _ => {
                    self.now = end.max(self.now);
                    return;
                }
            }
        }
        panic!("the world does not come to rest");
    }

    pub fn settle(&mut self) {
        self.settle_within(Duration::from_secs(60));
    }

    /// What allocator, scheduler or node do next with a task.
    fn advance(&mut self, task: Task) -> Vec<StoreChange> {
        let mut changes = Vec::new();
        let mut next = task.clone();
        match task.status.state {
            _ if task.status.state.is_final() => return changes,
            TaskState::New if task.is_wanted() => {
                let endpoint = Endpoint {
                    id: EndpointId::new(format!("e{}", task.id)),
                    meta: Meta::default(),
                    network: NetworkId::from("net"),
                    node: NodeId::default(),
                    owner: EndpointOwner::Task {
                        id: task.id.clone(),
                        service: task.service.clone(),
                        name: task.name(),
                    },
                    addresses: Vec::new(),
                    mac: MacAddress::default(),
                    names: Vec::new(),
                    state: EndpointState::Allocated,
                };
                next.endpoints = vec![endpoint.id.clone()];
                next.status.state = TaskState::Pending;
                changes.push(StoreChange::SetEndpoint(Box::new(endpoint)));
            }
            TaskState::Pending if task.is_wanted() => {
                let Some(node) = task.node.clone().or_else(|| self.place(&task)) else {
                    return changes;
                };
                next.node = Some(node);
                next.status.state = TaskState::Assigned;
            }
            _ => {
                let up = |id: &NodeId| {
                    self.tables
                        .node(id)
                        .is_some_and(|n| n.status.state == NodeState::Ready)
                };
                if !task.node.as_ref().is_some_and(up) {
                    return changes;
                }
                let Some(state) = on_node(&task) else {
                    return changes;
                };
                next.status.state = state;
                for id in &task.endpoints {
                    let Some(endpoint) = self.tables.endpoint(id) else {
                        continue;
                    };
                    if state.is_final() {
                        changes.push(StoreChange::RemoveEndpoint(id.clone()));
                    } else if state == TaskState::Running {
                        let mut endpoint = endpoint.clone();
                        endpoint.state = EndpointState::Active;
                        changes.push(StoreChange::SetEndpoint(Box::new(endpoint)));
                    }
                }
            }
        }
        next.status.at = self.now;
        changes.push(StoreChange::SetTask(Box::new(next)));
        changes
    }

    fn place(&self, task: &Task) -> Option<NodeId> {
        let count = |node: &Node| {
            let alive = |t: &&Task| t.is_wanted() && t.service == task.service;
            self.tables.work().tasks_at(&node.id).filter(alive).count()
        };
        self.tables
            .nodes()
            .filter(|node| {
                node.status.state == NodeState::Ready
                    && node.spec.availability == Availability::Active
                    && constraint::allows(&task.spec.placement, node)
            })
            .min_by_key(|node| count(node))
            .map(|node| node.id.clone())
    }
}

/// What the node does next with a task.
fn on_node(task: &Task) -> Option<TaskState> {
    let image = task.spec.container.image.as_str();
    match (task.status.state, task.desired) {
        (_, TaskState::Remove) => Some(TaskState::Shutdown),
        (_, TaskState::Shutdown) => (task.handover == Handover::Out).then_some(TaskState::Shutdown),
        (TaskState::Assigned, _) => Some(TaskState::Ready),
        (TaskState::Ready, TaskState::Running | TaskState::Complete) => Some(TaskState::Starting),
        (TaskState::Starting, _) => match image {
            IMAGE_CRASHES => Some(TaskState::Failed),
            IMAGE_NEVER_HEALTHY => None,
            _ => Some(TaskState::Running),
        },
        (TaskState::Running, _) if image == IMAGE_ENDS || task.mode.is_job() => {
            Some(TaskState::Complete)
        }
        _ => None,
    }
}

pub fn task_ids(world: &World) -> Vec<TaskId> {
    world.running().iter().map(|task| task.id.clone()).collect()
}
