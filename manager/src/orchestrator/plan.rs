//! What is decided about one service: the questions asked of its tasks and the changes made.

use std::{cell::RefCell, collections::HashMap, sync::Arc, time::Duration};

use model::{
    EndpointState, Id, Meta, Node, NodeId, Service, Task, TaskId, TaskSpec, TaskState, TaskStatus,
    TraceParent,
    node::{Availability, NodeState},
    service::{
        DEFAULT_DRAIN, LABEL_DRAIN, PortConfig, PublishMode, UpdateConfig, UpdateOrder, UpdateState,
    },
    task::Handover,
};
use sha2::{Digest as _, Sha256};

use super::duration;
use crate::{
    decision::{BATCH, Decision},
    scheduler::constraint,
    store::{StoreChange, Tables},
};

/// How long after a request tasks are part of what it asked for, in nanoseconds: ten minutes.
const TRACED: i64 = 600 * 1_000_000_000;
/// Room that one slot's changes need at most.
const ROOM: usize = 20;

/// How a wanted task fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    Good,
    /// Its node is drained or no longer fulfils the placement.
    Misfit,
    /// Its node is down or gone.
    Lost,
    /// It has ended by itself.
    Ended,
}

/// A place of a service that one task at a time has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Slot(u64),
    Node(NodeId),
}

impl Place {
    pub fn of(task: &Task) -> Self {
        match &task.node {
            Some(node) if task.mode.is_global() => Self::Node(node.clone()),
            _ => Self::Slot(task.slot),
        }
    }
}

/// What a new task is made for.
pub(super) struct Making<'a> {
    pub place: &'a Place,
    pub desired: TaskState,
    pub start_after: i64,
    pub attempt: u64,
    /// Made like this one, not like the service is now.
    pub like: Option<&'a Task>,
}

pub(super) struct Plan<'a> {
    pub tables: &'a Tables,
    pub service: &'a Service,
    pub now: i64,
    /// Tasks are not to run yet: services that come first are not there.
    pub gated: bool,
    pub decision: Decision,
    spec: Arc<TaskSpec>,
    drain: Duration,
    fits: RefCell<HashMap<NodeId, bool>>,
}

impl<'a> Plan<'a> {
    pub fn new(tables: &'a Tables, service: &'a Service, tasks: &[&'a Task], now: i64) -> Self {
        let same = |task: &&&Task| *task.spec == service.spec.task;
        let spec = tasks.iter().find(same).map_or_else(
            || Arc::new(service.spec.task.clone()),
            |task| Arc::clone(&task.spec),
        );
        let drain = service.spec.labels.get(LABEL_DRAIN);
        Self {
            tables,
            service,
            now,
            gated: false,
            decision: Decision::default(),
            spec,
            drain: drain
                .and_then(|text| duration::parse(text))
                .unwrap_or(DEFAULT_DRAIN),
            fits: RefCell::default(),
        }
    }

    /// No more slots are to be dealt with in this transaction; asks to look again at once.
    pub fn is_full(&mut self) -> bool {
        let full = self.decision.changes.len() + ROOM > BATCH;
        if full {
            self.decision.look_at(self.now);
        }
        full
    }

    /// The update goes through the slots by this; a rollback by the other.
    pub fn update_config(&self) -> UpdateConfig {
        let back = self.service.update.as_ref().is_some_and(|status| {
            matches!(
                status.state,
                UpdateState::RollbackStarted | UpdateState::RollbackPaused
            )
        });
        let config = if back {
            &self.service.spec.rollback
        } else {
            &self.service.spec.update
        };
        config.clone().unwrap_or_default()
    }

    pub fn starts_first(&self) -> bool {
        self.update_config().order == UpdateOrder::StartFirst
    }

    pub fn is_paused(&self) -> bool {
        self.service.update.as_ref().is_some_and(|status| {
            matches!(
                status.state,
                UpdateState::Paused | UpdateState::RollbackPaused
            )
        })
    }

    pub fn health(&self, task: &Task) -> Health {
        if task.status.state == TaskState::Orphaned {
            return Health::Lost;
        }
        if task.status.state.is_final() {
            return Health::Ended;
        }
        let Some(node) = &task.node else {
            return Health::Good;
        };
        match self.tables.node(node) {
            None => Health::Lost,
            Some(node) if node.status.state == NodeState::Down => Health::Lost,
            Some(node) if self.fits(node) => Health::Good,
            Some(_) => Health::Misfit,
        }
    }

    /// Whether tasks of the service may stay on the node.
    fn fits(&self, node: &Node) -> bool {
        if let Some(fits) = self.fits.borrow().get(&node.id) {
            return *fits;
        }
        let fits = node.spec.availability != Availability::Drain
            && constraint::allows(&self.service.spec.task.placement, node);
        self.fits.borrow_mut().insert(node.id.clone(), fits);
        fits
    }

    /// Whether the node may get new tasks of the service.
    pub fn is_eligible(&self, node: &Node) -> bool {
        node.status.state == NodeState::Ready
            && node.spec.availability == Availability::Active
            && self.fits(node)
    }

    /// May still hold a container that is being stopped.
    pub fn is_stopping(&self, task: &Task) -> bool {
        !task.is_wanted()
            && task.node.is_some()
            && !matches!(self.health(task), Health::Ended | Health::Lost)
    }

    /// Whether the task is what the service asks for now. Registry credentials do not count,
    /// nor does a placement that its node fulfils.
    pub fn is_clean(&self, task: &Task) -> bool {
        let asked = &self.service.spec.task;
        let same = Arc::ptr_eq(&task.spec, &self.spec) || *task.spec == *asked || {
            let mut spec = TaskSpec::clone(&task.spec);
            spec.container
                .registry_auth
                .clone_from(&asked.container.registry_auth);
            if task.node.is_some() {
                spec.placement.clone_from(&asked.placement);
            }
            spec == *asked
        };
        same && self.has_ports(task)
    }

    /// Ports that are opened where the task runs cannot be changed while it does; those of
    /// ingress only need a place on that network.
    fn has_ports(&self, task: &Task) -> bool {
        let asked: &[PortConfig] = self
            .service
            .spec
            .endpoint
            .as_ref()
            .map_or(&[], |endpoint| &endpoint.ports);
        let host = |port: &&PortConfig| port.mode == PublishMode::Host;
        let alike = |(a, b): (&PortConfig, &PortConfig)| {
            a.protocol == b.protocol
                && a.target == b.target
                && (b.published == 0 || a.published == b.published)
        };
        let (had, want) = (task.ports.iter().filter(host), asked.iter().filter(host));
        let ingress = |port: &PortConfig| port.mode == PublishMode::Ingress;
        had.clone().count() == want.clone().count()
            && had.zip(want).all(alike)
            && (!asked.iter().any(ingress) || task.ports.iter().any(ingress))
    }

    /// What a task of this service is asked to reach.
    pub fn running(&self) -> TaskState {
        match (self.gated, self.service.spec.mode.is_job()) {
            (true, _) => TaskState::Ready,
            (false, true) => TaskState::Complete,
            (false, false) => TaskState::Running,
        }
    }

    pub fn create(&mut self, making: &Making<'_>) {
        let (slot, node) = match making.place {
            Place::Slot(slot) => (*slot, None),
            Place::Node(node) => (0, Some(node.clone())),
        };
        let service = self.service;
        let (spec, spec_version) = making.like.map_or_else(
            || (Arc::clone(&self.spec), service.spec_version),
            |like| (Arc::clone(&like.spec), like.spec_version),
        );
        let ports = service.spec.endpoint.as_ref().map(|e| e.ports.clone());
        let task = Task {
            id: self.new_id(making.place),
            meta: Meta {
                trace: self.asked_at(),
                ..Meta::default()
            },
            service: service.id.clone(),
            service_name: service.spec.name.clone(),
            slot,
            node,
            spec,
            spec_version,
            labels: service.spec.labels.clone(),
            mode: service.spec.mode,
            status: TaskStatus {
                state: TaskState::New,
                at: self.now,
                message: "created".to_owned(),
                ..TaskStatus::default()
            },
            desired: if self.gated {
                TaskState::Ready
            } else {
                making.desired
            },
            start_after: making.start_after,
            endpoints: Vec::new(),
            ports: ports.unwrap_or_default(),
            generic_resources: Vec::new(),
            job_iteration: service.job.map(|job| job.iteration),
            handover: Handover::Pending,
            in_since: 0,
            attempt: making.attempt,
            drain: self.drain,
        };
        if making.start_after > self.now {
            self.decision.look_at(making.start_after);
        }
        self.set(task);
    }

    /// What comes long after a request is no part of it.
    fn asked_at(&self) -> Option<TraceParent> {
        let meta = &self.service.meta;
        let recent = self.now.saturating_sub(meta.updated_at) < TRACED;
        meta.trace.filter(|_| recent)
    }

    /// From what is decided on, so that a decision can be repeated.
    fn new_id(&self, place: &Place) -> TaskId {
        let mut hash = Sha256::new();
        hash.update(self.service.id.as_str());
        match place {
            Place::Slot(slot) => hash.update(slot.to_be_bytes()),
            Place::Node(node) => hash.update(node.as_str()),
        }
        hash.update(self.now.to_be_bytes());
        hash.update(self.tables.index().to_be_bytes());
        hash.update(self.decision.changes.len().to_be_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        let mut bytes = [0; model::id::ID_RANDOM_BYTES];
        bytes.copy_from_slice(&digest[..model::id::ID_RANDOM_BYTES]);
        Id::from_random(bytes)
    }

    pub fn set(&mut self, task: Task) {
        let change = StoreChange::SetTask(Box::new(task));
        self.decision.changes.push(change);
    }

    /// Asks a task to stop: it leaves load balancing with this very transaction, and its node
    /// stops it once all hosts have heard. One without a node is simply forgotten.
    pub fn stop(&mut self, task: &Task) {
        // A global one has its node from the start, and the node has not heard of it.
        if task.node.is_none() || task.status.state < TaskState::Assigned {
            self.forget(task);
            return;
        }
        let mut task = task.clone();
        task.desired = TaskState::Shutdown;
        task.drain = self.drain;
        let in_balance = task.status.state == TaskState::Running && !task.endpoints.is_empty();
        if in_balance {
            for id in &task.endpoints {
                if let Some(endpoint) = self.tables.endpoint(id)
                    && endpoint.state != EndpointState::Draining
                {
                    let mut endpoint = endpoint.clone();
                    endpoint.state = EndpointState::Draining;
                    let change = StoreChange::SetEndpoint(Box::new(endpoint));
                    self.decision.changes.push(change);
                }
            }
        } else {
            task.handover = Handover::Out;
        }
        self.set(task);
    }

    /// Deletes a task and what it may still hold.
    pub fn forget(&mut self, task: &Task) {
        forget(self.tables, task, &mut self.decision);
    }
}

pub(super) fn forget(tables: &Tables, task: &Task, decision: &mut Decision) {
    for id in &task.endpoints {
        if tables.endpoint(id).is_some() {
            let change = StoreChange::RemoveEndpoint(id.clone());
            decision.changes.push(change);
        }
    }
    let change = StoreChange::RemoveTask(task.id.clone());
    decision.changes.push(change);
}

/// In load balancing on all hosts.
pub(super) fn is_serving(task: &Task) -> bool {
    task.status.state == TaskState::Running && task.handover == Handover::In
}
