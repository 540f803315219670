//! Time, the store, the leader's loops and the wires.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    net::IpAddr,
    time::Instant,
};

use model::{
    Assignments, Generation, Increment, NetworkId, NodeId, TaskId, TaskStatus, node::NodeState,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::{agent::Agent, check, user};
use crate::{
    allocator::AllocatorLoop,
    dispatcher::{self, Concerns, OrphansLoop, Sessions, assignments, increment},
    example::{SECOND, network, node, set_network, set_node},
    leader::loops::{COALESCE, Loop},
    orchestrator::{OrchestratorLoop, handover::HandoverLoop},
    scheduler::SchedulerLoop,
    store::{Proposal, StoreChange, Tables, Transaction},
};

const MILLISECOND: i64 = SECOND / 1000;
/// A node that was silent for so long is down.
pub(super) const SILENCE: i64 = 3 * SECOND;

pub(super) struct World {
    pub(super) rng: StdRng,
    pub(super) now: i64,
    pub(super) tables: Tables,
    pub(super) agents: BTreeMap<NodeId, Agent>,
    /// Who holds an address with a container that really runs.
    pub(super) holders: BTreeMap<(NetworkId, IpAddr), TaskId>,
    pub(super) faults: bool,
    loops: Vec<Looped>,
    sessions: Sessions,
    links: BTreeMap<NodeId, Link>,
    beats: BTreeMap<NodeId, i64>,
    events: BinaryHeap<Reverse<(i64, u64, Event)>>,
    sequence: u64,
}

struct Looped {
    looped: Box<dyn Loop>,
    woken: bool,
    due: Option<i64>,
}

/// The manager's end of a session.
struct Link {
    session: u64,
    sent: Assignments,
    /// Messages of one session arrive in order.
    last: i64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Deliver(NodeId, u64, Box<Message>),
    Acknowledge(NodeId, u64, Generation),
    Report(NodeId, u64, Report),
    Tick(NodeId),
    Liveness,
    Fault,
    User,
    Wake,
}

/// Compared by nothing: the sequence number comes first.
#[derive(Debug)]
pub(super) enum Message {
    Full(Assignments),
    Step(Increment),
}

#[derive(Debug)]
pub(super) struct Report(pub(super) Vec<(TaskId, TaskStatus)>);

macro_rules! without_order {
    ($type:ty) => {
        impl PartialEq for $type {
            fn eq(&self, _: &Self) -> bool {
                true
            }
        }
        impl Eq for $type {}
        impl PartialOrd for $type {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for $type {
            fn cmp(&self, _: &Self) -> std::cmp::Ordering {
                std::cmp::Ordering::Equal
            }
        }
    };
}
without_order!(Message);
without_order!(Report);

fn loops() -> Vec<Looped> {
    let all: [Box<dyn Loop>; 5] = [
        Box::new(OrchestratorLoop::default()),
        Box::new(AllocatorLoop),
        Box::new(SchedulerLoop::default()),
        Box::new(OrphansLoop),
        Box::new(HandoverLoop::default()),
    ];
    let looped = |looped| Looped {
        looped,
        woken: true,
        due: None,
    };
    all.into_iter().map(looped).collect()
}

impl World {
    pub(super) fn new(seed: u64, nodes: usize) -> Self {
        let mut world = Self {
            rng: StdRng::seed_from_u64(seed),
            now: 0,
            tables: Tables::default(),
            agents: BTreeMap::new(),
            holders: BTreeMap::new(),
            faults: true,
            loops: loops(),
            sessions: Sessions::new(),
            links: BTreeMap::new(),
            beats: BTreeMap::new(),
            events: BinaryHeap::new(),
            sequence: 0,
        };
        let mut changes = vec![
            set_network(network("ingress", &["10.0.0.0/20"])),
            set_network(network("ch03", &["10.1.0.0/22"])),
            set_network(network("ch04", &["10.2.0.0/23", "fd00:2::/64"])),
            // So small that it is full at times.
            set_network(network("small", &["10.3.0.0/28"])),
        ];
        for number in 0..nodes {
            let mut node = node(&format!("n{number:03}"));
            node.description.nano_cpus = world.rng.random_range(1..6) * SECOND;
            let zone = format!("z{}", world.rng.random_range(0..3));
            node.spec.labels.insert("zone".to_owned(), zone);
            let agent = Agent::new(node.id.clone());
            world.beats.insert(node.id.clone(), 0);
            world.at(world.now, Event::Tick(node.id.clone()));
            world.agents.insert(node.id.clone(), agent);
            changes.push(set_node(node));
        }
        world.commit(changes);
        world.at(0, Event::Liveness);
        world.at(MILLISECOND, Event::User);
        world.at(5 * SECOND, Event::Fault);
        world
    }

    pub(super) fn commits(&self) -> u64 {
        self.tables.index()
    }

    fn at(&mut self, moment: i64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((moment, self.sequence, event)));
    }

    /// A time between these many milliseconds.
    pub(super) fn some_time(&mut self, least: i64, most: i64) -> i64 {
        self.rng.random_range(least..=most) * MILLISECOND
    }

    pub(super) fn run_until(&mut self, end: i64) {
        while let Some(Reverse((moment, ..))) = self.events.peek()
            && *moment <= end
            && let Some(Reverse((moment, _, event))) = self.events.pop()
        {
            self.now = self.now.max(moment);
            self.happen(event);
            self.drive();
        }
        self.now = self.now.max(end);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver(node, session, message) => self.deliver(node, session, message),
            Event::Acknowledge(node, session, generation) => {
                let id = session.to_string().into();
                self.sessions.acknowledge(&node, &id, generation);
                self.hosts_moved();
            }
            Event::Report(node, session, report) => self.reported(&node, session, report),
            Event::Tick(node) => self.tick(&node),
            Event::Liveness => {
                self.mark_silent();
                self.at(self.now + SECOND / 4, Event::Liveness);
            }
            Event::Fault if self.faults => {
                user::fault(self);
                let next = self.some_time(100, 900);
                self.at(self.now + next, Event::Fault);
            }
            Event::User if self.faults => {
                user::wish(self);
                let next = self.some_time(100, 2500);
                self.at(self.now + next, Event::User);
            }
            Event::Fault | Event::User | Event::Wake => {}
        }
    }

    /// One entry of the log, told to everybody who hears of it.
    pub(super) fn commit(&mut self, changes: Vec<StoreChange>) {
        if changes.is_empty() {
            return;
        }
        let before = self.tables.clone();
        let proposal = Proposal {
            time: self.now,
            changes,
            base: None,
        };
        self.tables.apply(before.index() + 1, &proposal);
        for one in &mut self.loops {
            for change in &proposal.changes {
                one.woken |= one.looped.note(&before, change);
            }
        }
        let mut told = Vec::new();
        let concerns = Concerns::of(&before, &self.tables, &proposal.changes);
        for (node, link) in &mut self.links {
            let changes = concerns.pick(&proposal.changes, node);
            if changes.clone().next().is_none() {
                continue;
            }
            if let Some(step) = increment(&mut link.sent, &self.tables, changes, node) {
                told.push((node.clone(), step));
            }
        }
        for (node, step) in told {
            self.send(node, Message::Step(step));
        }
        // What is wrong stays wrong for a while, and looking at all takes its time.
        if self.commits().is_multiple_of(8) {
            check::tables(&self.tables);
        }
    }

    pub(super) fn transact(&mut self, decide: impl FnOnce(&mut Transaction)) {
        let mut tx = Transaction::on(&self.tables, self.now);
        decide(&mut tx);
        let changes = tx.changes().to_vec();
        self.commit(changes);
    }

    /// The loops, until none has anything to do at this moment.
    fn drive(&mut self) {
        for round in 0.. {
            assert!(
                round < 2000,
                "the loops do not come to an end at {}",
                self.now
            );
            let now = self.now;
            let due = |one: &Looped| one.woken || one.due.is_some_and(|due| due <= now);
            let Some(at) = self.loops.iter().position(due) else {
                return;
            };
            let one = &mut self.loops[at];
            one.woken = false;
            let decision = one.looped.decide(&self.tables, &self.sessions, now);
            one.due = decision.again;
            if let Some(again) = decision.again.filter(|again| *again > now) {
                self.at(again, Event::Wake);
            }
            self.commit(decision.changes);
        }
    }

    /// Many move at once; the loops look once for all of them, as they do in a real manager.
    fn hosts_moved(&mut self) {
        let soon = self.now + COALESCE.as_nanos() as i64;
        let mut waits = false;
        for one in &mut self.loops {
            let late = one.due.is_none_or(|due| due > soon);
            if late && one.looped.awaits_hosts() {
                one.due = Some(soon);
                waits = true;
            }
        }
        if waits {
            self.at(soon, Event::Wake);
        }
    }

    fn send(&mut self, node: NodeId, message: Message) {
        let delay = self.some_time(1, if self.faults { 60 } else { 5 });
        let Some(link) = self.links.get_mut(&node) else {
            return;
        };
        link.last = link.last.max(self.now + delay);
        let (session, last) = (link.session, link.last);
        self.at(last, Event::Deliver(node, session, Box::new(message)));
    }

    fn deliver(&mut self, id: NodeId, session: u64, message: Box<Message>) {
        if let Some(agent) = self.agents.get_mut(&id)
            && agent.session == Some(session)
        {
            agent.inbox.push_back(*message);
            self.with(&id, Agent::read);
        }
    }

    /// Lets an agent act in the world.
    fn with(&mut self, id: &NodeId, act: impl FnOnce(&mut Agent, &mut Self)) {
        if let Some(mut agent) = self.agents.remove(id) {
            act(&mut agent, self);
            self.agents.insert(id.clone(), agent);
        }
    }

    /// What an agent says arrives a little later, unless its host is cut off by then.
    pub(super) fn acknowledge(&mut self, id: &NodeId, session: u64, generation: Generation) {
        let delay = self.some_time(1, 40);
        let event = Event::Acknowledge(id.clone(), session, generation);
        self.at(self.now + delay, event);
    }

    pub(super) fn report(&mut self, id: &NodeId, session: u64, report: Report) {
        let delay = self.some_time(1, 40);
        self.at(self.now + delay, Event::Report(id.clone(), session, report));
    }

    fn reported(&mut self, id: &NodeId, session: u64, report: Report) {
        let lost = self.faults && self.rng.random_ratio(1, 20);
        let known = self
            .links
            .get(id)
            .is_some_and(|link| link.session == session);
        let cut = self.agents.get(id).is_some_and(|agent| agent.cut);
        if lost || cut || !known {
            return;
        }
        let statuses = report.0.clone();
        self.transact(|tx| dispatcher::report(tx, id, statuses));
        if let Some(agent) = self.agents.get_mut(id) {
            agent.heard_out(&report.0);
        }
    }

    fn tick(&mut self, id: &NodeId) {
        let next = self.some_time(100, 400);
        self.at(self.now + next, Event::Tick(id.clone()));
        self.with(id, Agent::tick);
    }

    /// A heartbeat: whether the session is still the node's.
    pub(super) fn beat(&mut self, id: &NodeId, session: u64) -> bool {
        let down = |node: &model::Node| node.status.state == NodeState::Down;
        let known = self
            .links
            .get(id)
            .is_some_and(|link| link.session == session);
        if known {
            self.beats.insert(id.clone(), self.now);
        }
        known && !self.tables.node(id).is_some_and(down)
    }

    /// A new session; the full set is on its way.
    pub(super) fn register(&mut self, id: &NodeId) -> u64 {
        self.sequence += 1;
        let session = self.sequence;
        self.transact(|tx| {
            if let Some(node) = tx.tables().node(id).cloned()
                && node.status.state != NodeState::Ready
            {
                let mut node = node;
                node.status.state = NodeState::Ready;
                tx.set_node(node);
                dispatcher::returned(tx, id);
            }
        });
        let full = assignments(&self.tables, id);
        let name = session.to_string().into();
        self.sessions
            .open(id, name, Generation::default(), Instant::now());
        self.beats.insert(id.clone(), self.now);
        let link = Link {
            session,
            sent: full.clone(),
            last: self.now,
        };
        self.links.insert(id.clone(), link);
        self.send(id.clone(), Message::Full(full));
        session
    }

    /// The session's connection breaks; the agent finds out by itself.
    pub(super) fn disconnect(&mut self, id: &NodeId) {
        if let Some(link) = self.links.remove(id) {
            self.sessions.close(id, &link.session.to_string().into());
            self.hosts_moved();
        }
    }

    fn mark_silent(&mut self) {
        let silent = |(_, beat): &(&NodeId, &i64)| self.now - **beat > SILENCE;
        let silent: Vec<NodeId> = self
            .beats
            .iter()
            .filter(silent)
            .map(|(id, _)| id.clone())
            .collect();
        for id in silent {
            self.transact(|tx| {
                if let Some(node) = tx.tables().node(&id).cloned()
                    && node.status.state != NodeState::Down
                {
                    let mut node = node;
                    node.status.state = NodeState::Down;
                    tx.set_node(node);
                    dispatcher::lost(tx, &id);
                }
            });
        }
    }

    pub(super) fn crash(&mut self, id: &NodeId, reboot: bool) {
        self.disconnect(id);
        self.with(id, |agent, world| {
            if agent.up {
                agent.crash(world, reboot);
            }
        });
    }

    pub(super) fn cut(&mut self, id: &NodeId, cut: bool) {
        if let Some(agent) = self.agents.get_mut(id) {
            agent.cut = cut;
        }
    }

    /// A number that was not there before.
    pub(super) fn sequence_number(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Another manager leads: it knows what is stored, and nobody has a session with it.
    pub(super) fn change_leader(&mut self) {
        self.loops = loops();
        for one in &mut self.loops {
            one.looped.start_over(&self.tables);
        }
        self.sessions = Sessions::new();
        self.links.clear();
        for beat in self.beats.values_mut() {
            *beat = self.now;
        }
    }

    /// Faults and wishes end.
    pub(super) fn heal(&mut self) {
        self.faults = false;
        for agent in self.agents.values_mut() {
            agent.cut = false;
        }
        user::calm(self);
        self.drive();
    }
}
