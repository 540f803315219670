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

/// What those of some hosts that have a session have reached.
pub type Reached<'a> = dyn Fn(&[NodeId]) -> Vec<(u64, NodeId)> + 'a;

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
        let reached = |hosts: &[NodeId]| sessions.reached(hosts);
        decide(tables, tasks, &reached, now)
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
    reached: &Reached<'_>,
    now: i64,
) -> Decision {
    let mut decision = Decision::default();
    let mut hosts = Hosts {
        tables,
        reached,
        of_network: HashMap::new(),
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
        let behind = hosts.behind(&endpoint.network, endpoint.meta.version);
        if !behind.is_empty() && now < limit {
            decision.look_at(limit);
            return;
        }
        late.extend(behind.iter().map(|(_, host)| host.clone()));
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

/// The hosts of networks and what they have reached, looked up once a decision: many tasks wait
/// for the same hosts.
struct Hosts<'a> {
    tables: &'a Tables,
    reached: &'a Reached<'a>,
    /// Slowest first.
    of_network: HashMap<NetworkId, Vec<(u64, NodeId)>>,
}

impl Hosts<'_> {
    /// Those that have not reached `index`.
    fn behind(&mut self, network: &NetworkId, index: u64) -> &[(u64, NodeId)] {
        if !self.of_network.contains_key(network) {
            let tables = self.tables;
            // Every node answers at a published port.
            let hosts = if tables.network(network).is_some_and(|n| n.spec.ingress) {
                tables.nodes().map(|node| node.id.clone()).collect()
            } else {
                tables.hosts_of(network)
            };
            let mut reached = (self.reached)(&hosts);
            reached.sort_unstable();
            self.of_network.insert(network.clone(), reached);
        }
        let hosts = self.of_network.get(network).map_or(&[][..], Vec::as_slice);
        &hosts[..hosts.partition_point(|(reached, _)| *reached < index)]
    }
}
