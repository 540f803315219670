//! Tables of services, tasks, secrets and configs, with their indexes.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use model::{
    Id, NodeId, Payload, PayloadKind, SecretId, Service, ServiceId, Task, TaskId,
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
    payloads: OrdMap<SecretId, Arc<Payload>>,
    payloads_by_name: OrdMap<(PayloadKind, String), SecretId>,
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
            self.ports.remove(&(port.protocol, port.published));
        }
    }

    pub(super) fn remove_service(&mut self, id: &ServiceId) -> Option<Arc<Service>> {
        let old = self.services.remove(id)?;
        self.unindex_service(&old);
        Some(old)
    }

    pub(super) fn insert_task(&mut self, task: Task) {
        let id = task.id.clone();
        if let Some(old) = self.tasks.get(&id)
            && let Some(node) = &old.node
            && task.node.as_ref() != Some(node)
        {
            self.tasks_by_node.remove(&(node.clone(), id.clone()));
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
