//! The hand-over: a running task counts once all hosts lead connections to it, and a task is
//! stopped once none does.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use model::{
    Endpoint, EndpointState, NetworkId, NodeId, Task, TaskId, TaskState, node::NodeState,
    task::Handover,
};

use crate::{
    decision::{BATCH, Decision},
    dispatcher::Sessions,
    leader::loops::Loop,
    store::{StoreChange, Tables},
};

/// How long hosts of a network are waited for before they are named as late.
pub const LATE: Duration = Duration::from_secs(2);

/// Which of some hosts have not reached a version.
pub type Behind<'a> = dyn Fn(&[NodeId], u64) -> Vec<NodeId> + 'a;

/// The loop; it remembers the tasks that are on their way in or out.
#[derive(Default)]
pub(crate) struct HandoverLoop {
    waiting: BTreeSet<TaskId>,
}

impl Loop for HandoverLoop {
    fn name(&self) -> &'static str {
        "handover"
    }

    fn start_over(&mut self, tables: &Tables) {
        self.waiting = tables
            .work()
            .tasks()
            .filter(|task| wish(task).is_some())
            .map(|task| task.id.clone())
            .collect();
    }

    fn note(&mut self, _: &Tables, change: &StoreChange) -> bool {
        match change {
            StoreChange::SetTask(task) if wish(task).is_some() => {
                self.waiting.insert(task.id.clone())
            }
            _ => false,
        }
    }

    fn decide(&mut self, tables: &Tables, sessions: &Sessions, now: i64) -> Decision {
        self.waiting
            .retain(|id| tables.work().task(id).is_some_and(|t| wish(t).is_some()));
        let tasks = self.waiting.iter().filter_map(|id| tables.work().task(id));
        let behind = |hosts: &[NodeId], index| sessions.behind(hosts, index);
        decide(tables, tasks, &behind, now)
    }

    fn awaits_hosts(&self) -> bool {
        !self.waiting.is_empty()
    }
}

/// Where a task's hand-over should go next.
fn wish(task: &Task) -> Option<Handover> {
    if task.status.state.is_final() || task.node.is_none() {
        return None;
    }
    match (task.desired, task.handover) {
        (TaskState::Shutdown, Handover::Pending | Handover::In) => Some(Handover::Out),
        (desired, Handover::Pending)
            if desired <= TaskState::Complete && task.status.state == TaskState::Running =>
        {
            Some(Handover::In)
        }
        _ => None,
    }
}

/// What can be handed over by now.
pub fn decide<'a>(
    tables: &Tables,
    tasks: impl Iterator<Item = &'a Task>,
    behind: &Behind<'_>,
    now: i64,
) -> Decision {
    let mut decision = Decision::default();
    let mut hosts = Hosts {
        tables,
        behind,
        of_network: HashMap::new(),
        late: HashMap::new(),
    };
    for task in tasks {
        if decision.changes.len() >= BATCH {
            decision.look_at(now);
            break;
        }
        if let Some(to) = wish(task) {
            step(&mut hosts, task, to, now, &mut decision);
        }
    }
    decision
}

fn step(hosts: &mut Hosts<'_>, task: &Task, to: Handover, now: i64, decision: &mut Decision) {
    let state = match to {
        Handover::Out => EndpointState::Draining,
        Handover::In | Handover::Pending => EndpointState::Active,
    };
    let endpoints: Vec<&Endpoint> = task
        .endpoints
        .iter()
        .filter_map(|id| hosts.tables.endpoint(id))
        .collect();
    let down = |node: &NodeId| {
        let node = hosts.tables.node(node);
        node.is_none_or(|node| node.status.state == NodeState::Down)
    };
    if to == Handover::In && task.node.as_ref().is_some_and(down) {
        return;
    }
    let early: Vec<&&Endpoint> = endpoints.iter().filter(|e| e.state < state).collect();
    if !early.is_empty() {
        for endpoint in early {
            let mut endpoint = Endpoint::clone(endpoint);
            endpoint.state = state;
            decision
                .changes
                .push(StoreChange::SetEndpoint(Box::new(endpoint)));
        }
        decision.look_at(now);
        return;
    }
    let since = endpoints.iter().map(|e| e.meta.updated_at).max();
    let limit = since.map_or(now, |since| super::later(since, LATE));
    let mut late: BTreeSet<NodeId> = BTreeSet::new();
    for endpoint in &endpoints {
        late.extend(hosts.behind(&endpoint.network, endpoint.meta.version));
    }
    if !late.is_empty() && now < limit {
        decision.look_at(limit);
        return;
    }
    let mut task = task.clone();
    task.handover = to;
    if to == Handover::In {
        task.in_since = now;
    }
    if !late.is_empty() {
        let names: Vec<&str> = late
            .iter()
            .map(|id| {
                let node = hosts.tables.node(id);
                node.map_or(id.as_str(), |node| &node.description.hostname)
            })
            .collect();
        task.status.message = format!(
            "{}, not confirmed within {} s by {}",
            task.status.message,
            LATE.as_secs(),
            names.join(", ")
        );
    }
    decision.changes.push(StoreChange::SetTask(Box::new(task)));
}

/// The hosts of networks and what they have reached, looked up once a decision.
struct Hosts<'a> {
    tables: &'a Tables,
    behind: &'a Behind<'a>,
    of_network: HashMap<NetworkId, Vec<NodeId>>,
    late: HashMap<(NetworkId, u64), Vec<NodeId>>,
}

impl Hosts<'_> {
    fn behind(&mut self, network: &NetworkId, index: u64) -> Vec<NodeId> {
        if let Some(late) = self.late.get(&(network.clone(), index)) {
            return late.clone();
        }
        let tables = self.tables;
        let hosts = self.of_network.entry(network.clone()).or_insert_with(|| {
            // Every node answers at a published port.
            if tables.network(network).is_some_and(|n| n.spec.ingress) {
                tables.nodes().map(|node| node.id.clone()).collect()
            } else {
                tables.hosts_of(network)
            }
        });
        let late = (self.behind)(hosts, index);
        self.late.insert((network.clone(), index), late.clone());
        late
    }
}
