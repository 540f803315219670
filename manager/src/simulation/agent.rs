//! A host: it does what it is told, slowly, and survives crashes with what it has on disk.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
};

use model::{
    Assignments, Change, NetworkId, NodeId, Task, TaskId, TaskState, TaskStatus, task::Handover,
};
use rand::Rng as _;

use super::{
    check,
    world::{Message, Report, SILENCE, World},
};

pub(super) struct Agent {
    id: NodeId,
    pub(super) up: bool,
    /// Cut off from everybody.
    pub(super) cut: bool,
    pub(super) session: Option<u64>,
    /// What arrived on the session and was not read.
    pub(super) inbox: VecDeque<Message>,
    /// On disk.
    pub(super) view: Assignments,
    /// On disk too.
    local: BTreeMap<TaskId, Local>,
    /// The last heartbeat that was answered.
    answered: i64,
    /// When it is up again.
    pub(super) back: i64,
}

struct Local {
    status: TaskStatus,
    told: bool,
    /// When its next step is done.
    due: i64,
    holds: Vec<(NetworkId, IpAddr)>,
}

impl Agent {
    pub(super) fn new(id: NodeId) -> Self {
        Self {
            id,
            up: true,
            cut: false,
            session: None,
            inbox: VecDeque::new(),
            view: Assignments::default(),
            local: BTreeMap::new(),
            answered: 0,
            back: 0,
        }
    }

    /// Reads what has arrived and says how far it has come.
    pub(super) fn read(&mut self, world: &mut World) {
        if self.cut || !self.up {
            return;
        }
        let Some(session) = self.session else { return };
        let mut told = false;
        while let Some(message) = self.inbox.pop_front() {
            match message {
                Message::Full(full) => {
                    self.view = full;
                    told = true;
                }
                Message::Step(step) => {
                    told |= step.changes.iter().any(of_a_task);
                    self.view.apply(&step);
                }
            }
            // Many hosts see the same; some of them look.
            let hosts = u32::try_from(world.agents.len()).unwrap_or(u32::MAX);
            if world.rng.random_ratio(1, hosts.max(16)) {
                check::view(&self.view, &self.id);
            }
            world.acknowledge(&self.id, session, self.view.generation);
        }
        if told {
            self.act(world);
        }
    }

    pub(super) fn tick(&mut self, world: &mut World) {
        if !self.up {
            if world.now < self.back {
                return;
            }
            self.up = true;
        }
        if !self.cut {
            match self.session {
                None => {
                    self.inbox.clear();
                    self.session = Some(world.register(&self.id));
                    self.answered = world.now;
                    for local in self.local.values_mut() {
                        local.told = false;
                    }
                }
                Some(session) => {
                    let lost = world.faults && world.rng.random_ratio(1, 20);
                    if !lost && world.beat(&self.id, session) {
                        self.answered = world.now;
                    } else if !lost {
                        self.session = None;
                    }
                }
            }
        } else if world.now - self.answered > SILENCE {
            self.session = None;
        }
        self.read(world);
        self.act(world);
        self.say(world);
    }

    /// A crash of the daemon; its containers go on. A reboot ends them.
    pub(super) fn crash(&mut self, world: &mut World, reboot: bool) {
        self.up = false;
        self.session = None;
        self.back = world.now + world.some_time(200, if reboot { 15_000 } else { 3000 });
        if !reboot {
            return;
        }
        let runs = TaskState::Starting..=TaskState::Running;
        for local in self.local.values_mut() {
            if runs.contains(&local.status.state) {
                local.finish(TaskState::Failed, world);
            }
        }
    }

    fn say(&mut self, world: &mut World) {
        let Some(session) = self.session.filter(|_| !self.cut) else {
            return;
        };
        let news = self.local.iter().filter(|(_, local)| !local.told);
        let news: Vec<_> = news
            .map(|(id, local)| (id.clone(), local.status.clone()))
            .collect();
        if !news.is_empty() {
            world.report(&self.id, session, Report(news));
        }
    }

    /// The manager has taken the report over.
    pub(super) fn heard_out(&mut self, report: &[(TaskId, TaskStatus)]) {
        for (id, status) in report {
            if let Some(local) = self.local.get_mut(id) {
                local.told |= local.status == *status;
            }
        }
    }

    fn act(&mut self, world: &mut World) {
        let tasks = std::mem::take(&mut self.view.tasks);
        for task in tasks.values() {
            if !self.local.contains_key(&task.id) {
                if task.status.state.is_final() {
                    continue;
                }
                let mut status = task.status.clone();
                status.state = TaskState::Accepted;
                let due = world.now + world.some_time(1, 200);
                let local = Local {
                    status,
                    told: false,
                    due,
                    holds: Vec::new(),
                };
                self.local.insert(task.id.clone(), local);
            }
            let Some(mut local) = self.local.remove(&task.id) else {
                continue;
            };
            if !local.status.state.is_final() {
                self.step(task, &mut local, world);
            }
            self.local.insert(task.id.clone(), local);
        }
        self.view.tasks = tasks;
        // What the manager has forgotten is stopped and forgotten.
        let view = &self.view;
        self.local.retain(|id, local| {
            let keep = view.tasks.contains_key(id);
            if !keep {
                local.release(world);
            }
            keep
        });
    }

    fn step(&self, task: &Task, local: &mut Local, world: &mut World) {
        use TaskState as T;
        let state = local.status.state;
        if !task.is_wanted() {
            let told_to = task.desired == T::Remove || task.handover == Handover::Out;
            if state < T::Starting || told_to {
                local.finish(T::Shutdown, world);
            }
            return;
        }
        if world.now < local.due {
            return;
        }
        local.due = world.now + world.some_time(10, 500);
        let unlucky = |world: &mut World, of: u32| world.faults && world.rng.random_ratio(1, of);
        match state {
            T::Accepted => local.go(T::Preparing, world),
            T::Preparing if unlucky(world, 40) => local.finish(T::Rejected, world),
            T::Preparing => local.go(T::Ready, world),
            T::Ready if task.desired >= T::Running => {
                self.hold(task, local, world);
                local.go(T::Starting, world);
            }
            T::Starting if unlucky(world, 20) => local.finish(T::Failed, world),
            T::Starting => local.go(T::Running, world),
            T::Running if task.mode.is_job() => local.finish(T::Complete, world),
            T::Running if unlucky(world, 400) => local.finish(T::Failed, world),
            _ => {}
        }
    }

    /// From now on the container answers at its addresses.
    fn hold(&self, task: &Task, local: &mut Local, world: &mut World) {
        for id in &task.endpoints {
            let Some(endpoint) = self.view.endpoints.get(id) else {
                panic!(
                    "{}: task {} starts without its endpoint",
                    self.id,
                    task.name()
                );
            };
            assert_eq!(endpoint.node, self.id, "the endpoint of {}", task.name());
            for address in &endpoint.addresses {
                let key = (endpoint.network.clone(), address.ip());
                let before = world.holders.insert(key.clone(), task.id.clone());
                assert!(
                    before.is_none(),
                    "{key:?} is held by {before:?} and {}",
                    task.name()
                );
                local.holds.push(key);
            }
        }
    }
}

fn of_a_task(change: &Change) -> bool {
    matches!(change, Change::SetTask(_) | Change::RemoveTask(_))
}

impl Local {
    fn go(&mut self, state: TaskState, world: &World) {
        self.status.state = state;
        self.status.at = world.now;
        self.told = false;
    }

    fn finish(&mut self, state: TaskState, world: &mut World) {
        self.go(state, world);
        self.release(world);
    }

    fn release(&mut self, world: &mut World) {
        for key in self.holds.drain(..) {
            world.holders.remove(&key);
        }
    }
}
