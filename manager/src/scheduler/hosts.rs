//! What the nodes have and what is taken of it: kept from one look to the next and brought up
//! to date by the difference between the two states, which costs what has changed.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use model::{
    Node, NodeId, ServiceId, Task, TaskState,
    node::{Availability, NodeState},
    service::{PortConfig, Protocol, PublishMode},
    task::GenericResource,
};

use crate::store::Tables;

/// A node on which a version of a service failed so often goes last.
const FAILURES: usize = 5;
/// How long a failure is remembered, nanoseconds.
const MEMORY: i64 = 5 * 60 * 1_000_000_000;

/// All nodes, by place.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    /// The state that the rest was made from.
    seen: Tables,
    pub(super) all: Vec<Host>,
    places: HashMap<NodeId, u32>,
    /// Wanted tasks of each service by place.
    counts: HashMap<ServiceId, HashMap<u32, u32>>,
    failures: HashMap<(ServiceId, u64, u32), VecDeque<i64>>,
    /// Changes with the nodes themselves.
    pub(super) epoch: u64,
}

/// A node, and what its tasks hold.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Host {
    /// Absent: only tasks speak of it.
    pub(super) node: Option<Node>,
    /// Wanted tasks.
    pub(super) tasks: u32,
    nano_cpus: i64,
    memory_bytes: i64,
    generic: BTreeMap<String, Held>,
    ports: BTreeMap<(Protocol, u16), u32>,
}

#[derive(Debug, Default, PartialEq)]
struct Held {
    discrete: i64,
    named: BTreeSet<String>,
}

impl Host {
    /// Whether new tasks may come.
    pub(super) fn is_ready(&self) -> bool {
        self.node.as_ref().is_some_and(|node| {
            node.status.state == NodeState::Ready && node.spec.availability == Availability::Active
        })
    }

    pub(super) fn has_room(&self, nano_cpus: i64, memory_bytes: i64) -> bool {
        let Some(node) = &self.node else { return false };
        let fits = |asked: i64, held: i64, has: i64| asked <= 0 || asked <= has - held;
        fits(nano_cpus, self.nano_cpus, node.description.nano_cpus)
            && fits(
                memory_bytes,
                self.memory_bytes,
                node.description.memory_bytes,
            )
    }

    pub(super) fn has_port(&self, port: &PortConfig) -> bool {
        self.ports.contains_key(&(port.protocol, port.published))
    }

    /// The generic resources that such a task would be given; nothing if there are too few.
    pub(super) fn generic(&self, asked: &[GenericResource]) -> Option<Vec<GenericResource>> {
        let has = &self.node.as_ref()?.description.generic_resources;
        let none = Held::default();
        let mut given = Vec::new();
        for one in asked {
            let (GenericResource::Discrete { kind, .. } | GenericResource::Named { kind, .. }) =
                one;
            let held = self.generic.get(kind).unwrap_or(&none);
            let mut free = has.iter().filter_map(|resource| match resource {
                GenericResource::Named { kind: of, value } => {
                    (of == kind && !held.named.contains(value) && !given.contains(resource))
                        .then_some(value)
                }
                GenericResource::Discrete { .. } => None,
            });
            match one {
                GenericResource::Named { value, .. } => {
                    free.find(|name| *name == value)?;
                    given.push(one.clone());
                }
                GenericResource::Discrete { value: count, .. } => {
                    let total: i64 = has
                        .iter()
                        .map(|resource| match resource {
                            GenericResource::Discrete { kind: of, value } if of == kind => *value,
                            _ => 0,
                        })
                        .sum();
                    if *count <= total - held.discrete {
                        given.push(one.clone());
                        continue;
                    }
                    let wanted = usize::try_from(*count).ok()?;
                    let names: Vec<String> = free.take(wanted).cloned().collect();
                    if names.len() < wanted {
                        return None;
                    }
                    given.extend(names.into_iter().map(|value| GenericResource::Named {
                        kind: kind.clone(),
                        value,
                    }));
                }
            }
        }
        Some(given)
    }
}

/// Whether the task holds something on its node.
fn holds(task: &Task) -> bool {
    (TaskState::Assigned..=TaskState::Running).contains(&task.status.state)
}

impl Hosts {
    /// Brings everything up to the state.
    pub(super) fn catch_up(&mut self, tables: &Tables, now: i64) {
        let before = std::mem::replace(&mut self.seen, tables.clone());
        for (old, new) in tables.nodes_since(&before) {
            let Some(id) = new.or(old).map(|node| &node.id) else {
                continue;
            };
            let place = self.place(id);
            self.all[place as usize].node = new.cloned();
            self.epoch += 1;
        }
        for (old, new) in tables.work().tasks_since(before.work()) {
            if let Some(old) = old {
                self.free(old);
            }
            if let Some(new) = new {
                self.take(new);
                self.remember(old, new, now);
            }
        }
    }

    fn place(&mut self, node: &NodeId) -> u32 {
        if let Some(place) = self.places.get(node) {
            return *place;
        }
        let place = self.all.len() as u32;
        self.all.push(Host::default());
        self.places.insert(node.clone(), place);
        place
    }

    pub(super) fn place_of(&self, node: &NodeId) -> Option<u32> {
        self.places.get(node).copied()
    }

    /// Counts a task in.
    pub(super) fn take(&mut self, task: &Task) {
        let Some(node) = task.node.as_ref().filter(|_| holds(task)) else {
            return;
        };
        let place = self.place(node);
        let host = &mut self.all[place as usize];
        host.nano_cpus += task.spec.reservations.nano_cpus;
        host.memory_bytes += task.spec.reservations.memory_bytes;
        for resource in &task.generic_resources {
            match resource {
                GenericResource::Discrete { kind, value } => {
                    host.generic.entry(kind.clone()).or_default().discrete += value;
                }
                GenericResource::Named { kind, value } => {
                    let held = host.generic.entry(kind.clone()).or_default();
                    held.named.insert(value.clone());
                }
            }
        }
        for port in task.ports.iter().filter(|port| is_host_port(port)) {
            *host
                .ports
                .entry((port.protocol, port.published))
                .or_default() += 1;
        }
        if task.desired <= TaskState::Complete {
            host.tasks += 1;
            let counts = self.counts.entry(task.service.clone()).or_default();
            *counts.entry(place).or_default() += 1;
        }
    }

    /// Counts a task out that was counted in.
    pub(super) fn free(&mut self, task: &Task) {
        let Some(node) = task.node.as_ref().filter(|_| holds(task)) else {
            return;
        };
        let place = self.place(node);
        let host = &mut self.all[place as usize];
        host.nano_cpus -= task.spec.reservations.nano_cpus;
        host.memory_bytes -= task.spec.reservations.memory_bytes;
        for resource in &task.generic_resources {
            let (GenericResource::Discrete { kind, .. } | GenericResource::Named { kind, .. }) =
                resource;
            let Some(held) = host.generic.get_mut(kind) else {
                continue;
            };
            match resource {
                GenericResource::Discrete { value, .. } => held.discrete -= value,
                GenericResource::Named { value, .. } => {
                    held.named.remove(value);
                }
            }
            if *held == Held::default() {
                host.generic.remove(kind);
            }
        }
        for port in task.ports.iter().filter(|port| is_host_port(port)) {
            let key = (port.protocol, port.published);
            if let Some(count) = host.ports.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    host.ports.remove(&key);
                }
            }
        }
        if task.desired <= TaskState::Complete {
            host.tasks -= 1;
            if let Some(counts) = self.counts.get_mut(&task.service) {
                if let Some(count) = counts.get_mut(&place) {
                    *count -= 1;
                    if *count == 0 {
                        counts.remove(&place);
                    }
                }
                if counts.is_empty() {
                    self.counts.remove(&task.service);
                }
            }
        }
    }

    /// Wanted tasks of the service, by place.
    pub(super) fn counts_of(&self, service: &ServiceId) -> Vec<u32> {
        let mut dense = vec![0; self.all.len()];
        for (place, count) in self.counts.get(service).into_iter().flatten() {
            dense[*place as usize] = *count;
        }
        dense
    }

    pub(super) fn count_at(&self, service: &ServiceId, place: u32) -> u32 {
        let counts = self.counts.get(service);
        counts.and_then(|by| by.get(&place)).copied().unwrap_or(0)
    }

    fn remember(&mut self, old: Option<&Task>, new: &Task, now: i64) {
        let failed =
            |task: &Task| matches!(task.status.state, TaskState::Failed | TaskState::Rejected);
        let Some(node) = new.node.as_ref().filter(|_| failed(new)) else {
            return;
        };
        if old.is_some_and(failed) || new.status.at < now - MEMORY {
            return;
        }
        let key = (new.service.clone(), new.spec_version, self.place(node));
        let times = self.failures.entry(key).or_default();
        times.push_back(new.status.at);
        while times.len() > FAILURES {
            times.pop_front();
        }
        if self.failures.len() > self.all.len() + 1024 {
            self.failures
                .retain(|_, times| times.back().is_some_and(|last| *last >= now - MEMORY));
        }
    }

    /// The places at which this version of the service has failed too often of late.
    pub(super) fn failing(&self, service: &ServiceId, version: u64, now: i64) -> BTreeSet<u32> {
        self.failures
            .iter()
            .filter(|((of, at, _), _)| of == service && *at == version)
            .filter(|(_, times)| {
                let recent = times.iter().filter(|time| **time >= now - MEMORY);
                recent.count() >= FAILURES
            })
            .map(|((_, _, place), _)| *place)
            .collect()
    }

    /// What is known by node, without what is remembered of the past.
    #[cfg(test)]
    pub(super) fn facts(&self) -> BTreeMap<&NodeId, (&Host, BTreeMap<&ServiceId, u32>)> {
        let counts = |place: &u32| {
            let all = self.counts.iter();
            all.filter_map(|(service, by)| Some((service, *by.get(place)?)))
                .collect()
        };
        self.places
            .iter()
            .map(|(id, place)| (id, (&self.all[*place as usize], counts(place))))
            .filter(|(_, (host, _))| **host != Host::default())
            .collect()
    }
}

/// Whether only one task on a node can have it.
pub(super) fn is_host_port(port: &PortConfig) -> bool {
    port.mode == PublishMode::Host && port.published != 0
}
