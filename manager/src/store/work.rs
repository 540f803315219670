//! Tables of services, tasks, secrets and configs, with their indexes.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet, ordmap::DiffItem};
use model::{
    Id, NodeId, Payload, PayloadKind, SecretId, Service, ServiceId, Task, TaskId, TaskState,
    service::{Protocol, PublishMode},
};
use serde::{Deserialize, Serialize};

/// What should run and what does.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Work {
    services: OrdMap<ServiceId, Arc<Service>>,
    services_by_name: OrdMap<String, ServiceId>,
    /// Ingress ports of the cluster.
    ports: OrdMap<(Protocol, u16), ServiceId>,
    tasks: OrdMap<TaskId, Arc<Task>>,
    tasks_by_service: OrdSet<(ServiceId, TaskId)>,
    tasks_by_node: OrdSet<(NodeId, TaskId)>,
    /// Tasks on which a loop of the leader has work.
    tasks_by_stage: OrdSet<(Stage, TaskId)>,
    payloads: OrdMap<SecretId, Arc<Payload>>,
    payloads_by_name: OrdMap<(PayloadKind, String), SecretId>,
}

/// What a task waits for from the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Wants addresses and ports.
    New,
    /// Wants a node.
    Pending,
    /// Is over and still has endpoints.
    Over,
}

impl Stage {
    fn of(task: &Task) -> Option<Self> {
        match task.status.state {
            _ if task.status.state.is_final() => (!task.endpoints.is_empty()).then_some(Self::Over),
            _ if !task.is_wanted() => None,
            TaskState::New => Some(Self::New),
            TaskState::Pending => Some(Self::Pending),
            _ => None,
        }
    }
}

/// What a snapshot on disk holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct WorkImage {
    services: Vec<Service>,
    tasks: Vec<Task>,
    payloads: Vec<Payload>,
}

impl Work {
    pub fn service(&self, id: &ServiceId) -> Option<&Service> {
        self.services.get(id).map(Arc::as_ref)
    }

    pub fn service_named(&self, name: &str) -> Option<&Service> {
        self.service(self.services_by_name.get(name)?)
    }

    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values().map(Arc::as_ref)
    }

    /// The service that publishes the port in ingress mode.
    pub fn port_user(&self, protocol: Protocol, port: u16) -> Option<&ServiceId> {
        self.ports.get(&(protocol, port))
    }

    pub fn task(&self, id: &TaskId) -> Option<&Task> {
        self.tasks.get(id).map(Arc::as_ref)
    }

    /// For who keeps it, because tasks are large.
    pub fn shared_task(&self, id: &TaskId) -> Option<Arc<Task>> {
        self.tasks.get(id).map(Arc::clone)
    }

    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values().map(Arc::as_ref)
    }

    pub fn task_count(&self) -> usize {
        self.tasks.len()
    }

    /// The tasks of one service, ordered by id.
    pub fn tasks_of<'a>(&'a self, service: &'a ServiceId) -> impl Iterator<Item = &'a Task> + 'a {
        seconds(&self.tasks_by_service, service).filter_map(|id| self.task(id))
    }

    /// The tasks of one node, ordered by id.
    pub fn tasks_at<'a>(&'a self, node: &'a NodeId) -> impl Iterator<Item = &'a Task> + 'a {
        seconds(&self.tasks_by_node, node).filter_map(|id| self.task(id))
    }

    /// The tasks that wait for something of the leader, ordered by id.
    pub fn tasks_in(&self, stage: Stage) -> impl Iterator<Item = &Task> {
        self.tasks_by_stage
            .range((stage, TaskId::default())..)
            .take_while(move |(of, _)| *of == stage)
            .filter_map(|(_, id)| self.task(id))
    }

    /// Each task that differs from `before`, as it was and as it is; costs what has changed.
    pub fn tasks_since<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = (Option<&'a Task>, Option<&'a Task>)> + 'a {
        before.tasks.diff(&self.tasks).map(both)
    }

    /// Whether a service publishes a port in ingress mode.
    pub fn publishes(&self) -> bool {
        !self.ports.is_empty()
    }

    pub fn payload(&self, id: &SecretId) -> Option<&Payload> {
        self.payloads.get(id).map(Arc::as_ref)
    }

    pub fn payload_named(&self, kind: PayloadKind, name: &str) -> Option<&Payload> {
        self.payload(self.payloads_by_name.get(&(kind, name.to_owned()))?)
    }

    pub fn payloads(&self, kind: PayloadKind) -> impl Iterator<Item = &Payload> {
        self.payloads
            .values()
            .map(Arc::as_ref)
            .filter(move |payload| payload.kind == kind)
    }

    pub(super) fn insert_service(&mut self, service: Service) {
        if let Some(old) = self.services.get(&service.id).cloned() {
            self.unindex_service(&old);
        }
        self.services_by_name
            .insert(service.spec.name.clone(), service.id.clone());
        for port in &service.endpoint.ports {
            if port.mode == PublishMode::Ingress && port.published != 0 {
                self.ports
                    .insert((port.protocol, port.published), service.id.clone());
            }
        }
        self.services.insert(service.id.clone(), Arc::new(service));
    }

    fn unindex_service(&mut self, old: &Service) {
        self.services_by_name.remove(&old.spec.name);
        for port in &old.endpoint.ports {
            let key = (port.protocol, port.published);
            if self.ports.get(&key) == Some(&old.id) {
                self.ports.remove(&key);
            }
        }
    }

    pub(super) fn remove_service(&mut self, id: &ServiceId) -> Option<Arc<Service>> {
        let old = self.services.remove(id)?;
        self.unindex_service(&old);
        Some(old)
    }

    pub(super) fn insert_task(&mut self, task: Task) {
        let id = task.id.clone();
        if let Some(old) = self.tasks.get(&id) {
            if let Some(node) = &old.node
                && task.node.as_ref() != Some(node)
            {
                self.tasks_by_node.remove(&(node.clone(), id.clone()));
            }
            let (was, is) = (Stage::of(old), Stage::of(&task));
            if let Some(stage) = was.filter(|_| was != is) {
                self.tasks_by_stage.remove(&(stage, id.clone()));
            }
        }
        if let Some(stage) = Stage::of(&task) {
            self.tasks_by_stage.insert((stage, id.clone()));
        }
        self.tasks_by_service
            .insert((task.service.clone(), id.clone()));
        if let Some(node) = &task.node {
            self.tasks_by_node.insert((node.clone(), id.clone()));
        }
        self.tasks.insert(id, Arc::new(task));
    }

    pub(super) fn remove_task(&mut self, id: &TaskId) {
        let Some(old) = self.tasks.remove(id) else {
            return;
        };
        self.tasks_by_service
            .remove(&(old.service.clone(), id.clone()));
        if let Some(stage) = Stage::of(&old) {
            self.tasks_by_stage.remove(&(stage, id.clone()));
        }
        if let Some(node) = &old.node {
            self.tasks_by_node.remove(&(node.clone(), id.clone()));
        }
    }

    pub(super) fn insert_payload(&mut self, payload: Payload) {
        if let Some(old) = self.payloads.get(&payload.id) {
            let key = (old.kind, old.spec.name.clone());
            self.payloads_by_name.remove(&key);
        }
        self.payloads_by_name.insert(
            (payload.kind, payload.spec.name.clone()),
            payload.id.clone(),
        );
        self.payloads.insert(payload.id.clone(), Arc::new(payload));
    }

    pub(super) fn remove_payload(&mut self, id: &SecretId) {
        if let Some(old) = self.payloads.remove(id) {
            let key = (old.kind, old.spec.name.clone());
            self.payloads_by_name.remove(&key);
        }
    }

    pub(super) fn image(&self) -> WorkImage {
        WorkImage {
            services: self.services().cloned().collect(),
            tasks: self.tasks().cloned().collect(),
            payloads: self.payloads.values().map(|p| Payload::clone(p)).collect(),
        }
    }
}

impl From<WorkImage> for Work {
    fn from(image: WorkImage) -> Self {
        let mut work = Self::default();
        for service in image.services {
            work.insert_service(service);
        }
        for task in image.tasks {
            work.insert_task(task);
        }
        for payload in image.payloads {
            work.insert_payload(payload);
        }
        work
    }
}

/// The second parts of the pairs that begin with `first`.
fn seconds<'a>(set: &'a OrdSet<(Id, Id)>, first: &'a Id) -> impl Iterator<Item = &'a Id> + 'a {
    set.range((first.clone(), Id::default())..)
        .take_while(move |(of, _)| of == first)
        .map(|(_, second)| second)
}

/// A difference of two tables as what was and what is.
pub(super) fn both<'a, K, V>(item: DiffItem<'a, 'a, K, Arc<V>>) -> (Option<&'a V>, Option<&'a V>) {
    match item {
        DiffItem::Add(_, new) => (None, Some(new)),
        DiffItem::Update { old, new } => (Some(old.1), Some(new.1)),
        DiffItem::Remove(_, old) => (Some(old), None),
    }
}
