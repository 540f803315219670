//! Equal tasks: what they ask of a node, which nodes can have them and in which order.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap},
};

use model::{
    Node, ServiceId, Task,
    service::PortConfig,
    task::{GenericResource, Placement, Reservations},
};

use super::{
    constraint::{self, Constraint},
    hosts::{Host, Hosts, is_host_port},
    obstacle::{Obstacle, Obstacles},
};

/// What each task of a group asks.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) service: ServiceId,
    pub(super) version: u64,
    reservations: Reservations,
    placement: Placement,
    ports: Vec<PortConfig>,
}

impl Wish {
    pub(super) fn of(task: &Task) -> Self {
        Self::new(
            task.service.clone(),
            task.spec_version,
            &task.spec,
            &task.ports,
        )
    }

    pub(super) fn new(
        service: ServiceId,
        version: u64,
        spec: &model::TaskSpec,
        ports: &[PortConfig],
    ) -> Self {
        Self {
            service,
            version,
            reservations: spec.reservations.clone(),
            placement: spec.placement.clone(),
            ports: ports
                .iter()
                .filter(|port| is_host_port(port))
                .cloned()
                .collect(),
        }
    }
}

/// A group and what is known of it as long as the nodes stay what they are.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) wish: Wish,
    /// [`Hosts::epoch`] that the rest was made at.
    epoch: u64,
    fixed: Vec<Fixed>,
    tree: Tree,
}

/// What does not depend on other tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fixed {
    /// There is no such node.
    Absent,
    Unready,
    Constraint,
    Platform,
    Fine,
}

impl Group {
    pub(super) fn new(wish: Wish, hosts: &Hosts) -> Self {
        let mut group = Self {
            wish,
            epoch: u64::MAX,
            fixed: Vec::new(),
            tree: Tree::default(),
        };
        group.catch_up(hosts);
        group
    }

    pub(super) fn catch_up(&mut self, hosts: &Hosts) {
        if self.epoch == hosts.epoch && self.fixed.len() == hosts.all.len() {
            return;
        }
        let placement = &self.wish.placement;
        let constraints = constraint::parse(&placement.constraints).ok();
        let fixed = |host: &Host| fixed(host, constraints.as_deref(), placement);
        self.fixed = hosts.all.iter().map(fixed).collect();
        self.tree = Tree::new(hosts, &placement.preferences);
        self.epoch = hosts.epoch;
    }

    /// The first filter that the node does not pass; `count` are the service's tasks there.
    pub(super) fn obstacle(&self, hosts: &Hosts, place: u32, count: u32) -> Option<Obstacle> {
        let (fixed, host) = (self.fixed[place as usize], &hosts.all[place as usize]);
        let wish = &self.wish;
        let asked = &wish.reservations;
        match fixed {
            Fixed::Absent | Fixed::Unready => return Some(Obstacle::Unready),
            _ if !host.has_room(asked.nano_cpus, asked.memory_bytes)
                || (!asked.generic.is_empty() && host.generic(&asked.generic).is_none()) =>
            {
                return Some(Obstacle::Resources);
            }
            Fixed::Constraint => return Some(Obstacle::Constraints),
            Fixed::Platform => return Some(Obstacle::Platform),
            Fixed::Fine => {}
        }
        if wish.ports.iter().any(|port| host.has_port(port)) {
            return Some(Obstacle::Port);
        }
        let most = wish.placement.max_replicas;
        (most > 0 && u64::from(count) >= most).then_some(Obstacle::Replicas)
    }

    /// Nodes that the service has nothing to do with, whatever room they have.
    pub(super) fn is_meant(&self, place: u32) -> bool {
        self.fixed[place as usize] == Fixed::Fine
    }

    pub(super) fn is_present(&self, place: u32) -> bool {
        self.fixed[place as usize] != Fixed::Absent
    }

    /// What a task would be given on the node.
    pub(super) fn generic(&self, hosts: &Hosts, place: u32) -> Vec<GenericResource> {
        let asked = &self.wish.reservations.generic;
        if asked.is_empty() {
            return Vec::new();
        }
        hosts.all[place as usize].generic(asked).unwrap_or_default()
    }
}

fn fixed(host: &Host, constraints: Option<&[Constraint]>, placement: &Placement) -> Fixed {
    let Some(node) = &host.node else {
        return Fixed::Absent;
    };
    // Constraints that cannot be understood are never met.
    let met = constraints.is_some_and(|all| all.iter().all(|one| one.is_met(node)));
    if !host.is_ready() {
        Fixed::Unready
    } else if !met {
        Fixed::Constraint
    } else if !constraint::runs_platform(&placement.platforms, node) {
        Fixed::Platform
    } else {
        Fixed::Fine
    }
}

/// The buckets that preferences spread over: each level by one label.
#[derive(Debug, Default)]
struct Tree {
    /// Of each bucket; the first is the root.
    parents: Vec<u32>,
    leaf_of: Vec<u32>,
}

impl Tree {
    fn new(hosts: &Hosts, preferences: &[String]) -> Self {
        let mut parents = vec![0];
        let mut children: HashMap<(u32, &str), u32> = HashMap::new();
        let mut leaf_of = Vec::with_capacity(hosts.all.len());
        for host in &hosts.all {
            let mut at = 0;
            let known = preferences.iter().filter_map(|by| {
                let node = host.node.as_ref()?;
                label(node, by)
            });
            for value in known {
                at = *children.entry((at, value)).or_insert_with(|| {
                    parents.push(at);
                    parents.len() as u32 - 1
                });
            }
            leaf_of.push(at);
        }
        Self { parents, leaf_of }
    }
}

/// A label's value, empty if missing; nothing for what cannot be spread over.
fn label<'a>(node: &'a Node, by: &str) -> Option<&'a str> {
    let (labels, name) = if let Some(name) = by.strip_prefix("node.labels.") {
        (&node.spec.labels, name)
    } else {
        let name = by.strip_prefix("engine.labels.")?;
        (&node.description.engine_labels, name)
    };
    Some(labels.get(name).map_or("", String::as_str))
}

/// Nodes in the order in which they get tasks of one group.
pub(super) struct Queue<'a> {
    group: &'a Group,
    counts: Vec<u32>,
    failing: BTreeSet<u32>,
    /// Of each bucket: its nodes.
    nodes: Vec<BinaryHeap<Reverse<Rank>>>,
    /// Of each bucket: those below it, with the service's tasks there.
    below: Vec<BTreeSet<(u32, u32)>>,
    pub(super) obstacles: Obstacles,
}

/// Lower goes first: not failing, fewer tasks of the service, fewer tasks.
type Rank = (bool, u32, u32, u32);

impl<'a> Queue<'a> {
    pub(super) fn new(group: &'a Group, hosts: &Hosts, now: i64) -> Self {
        let counts = hosts.counts_of(&group.wish.service);
        let tree = &group.tree;
        let mut queue = Self {
            failing: hosts.failing(&group.wish.service, group.wish.version, now),
            group,
            counts,
            nodes: Vec::new(),
            below: vec![BTreeSet::new(); tree.parents.len()],
            obstacles: Obstacles::default(),
        };
        let mut ranks: Vec<Vec<Reverse<Rank>>> = vec![Vec::new(); tree.parents.len()];
        let mut sums = vec![0; tree.parents.len()];
        for place in 0..hosts.all.len() as u32 {
            if !group.is_present(place) {
                continue;
            }
            let leaf = tree.leaf_of[place as usize] as usize;
            sums[leaf] += queue.counts[place as usize];
            match group.obstacle(hosts, place, queue.counts[place as usize]) {
                None => ranks[leaf].push(Reverse(queue.rank(hosts, place))),
                Some(obstacle) => queue.obstacles.met(obstacle),
            }
        }
        // Parents come before their children.
        for bucket in (1..tree.parents.len()).rev() {
            let parent = tree.parents[bucket] as usize;
            sums[parent] += sums[bucket];
            queue.below[parent].insert((sums[bucket], bucket as u32));
        }
        queue.nodes = ranks.into_iter().map(BinaryHeap::from).collect();
        queue
    }

    fn rank(&self, hosts: &Hosts, place: u32) -> Rank {
        let (own, all) = (self.counts[place as usize], hosts.all[place as usize].tasks);
        (self.failing.contains(&place), own, all, place)
    }

    /// The node for the next task; it is to be counted in before [`Queue::put_back`].
    pub(super) fn pop(&mut self) -> Option<u32> {
        self.pop_from(0)
    }

    fn pop_from(&mut self, bucket: usize) -> Option<u32> {
        if let Some(Reverse((.., place))) = self.nodes[bucket].pop() {
            return Some(place);
        }
        while let Some((count, child)) = self.below[bucket].pop_first() {
            if let Some(place) = self.pop_from(child as usize) {
                self.below[bucket].insert((count + 1, child));
                return Some(place);
            }
        }
        None
    }

    /// The node may get more tasks, if it has room for them.
    pub(super) fn put_back(&mut self, hosts: &Hosts, place: u32) {
        self.counts[place as usize] += 1;
        let count = self.counts[place as usize];
        match self.group.obstacle(hosts, place, count) {
            None => {
                let rank = self.rank(hosts, place);
                let leaf = self.group.tree.leaf_of[place as usize] as usize;
                self.nodes[leaf].push(Reverse(rank));
            }
            Some(obstacle) => self.obstacles.met(obstacle),
        }
    }
}
