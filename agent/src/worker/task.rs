//! One task's loop: ask the machine, carry out one action, wait for the next event.

use std::{sync::Arc, time::Duration};

use model::{
    Refusal, RefusalKind, Task, TaskId,
    service::{PortConfig, PublishMode},
    task::{TaskState, TaskStatus},
};
use runtime::{
    engine::{ContainerView, HealthStatus, RemoveOptions, Status, StopOptions},
    network::PortBinding,
};
use tokio::sync::{Notify, watch};
use trace::{Instrument as _, Span, tracing::field::Empty};

use super::{
    Shared,
    container::{self, LABEL_TASK, Place},
    machine::{self, Action, Health, Next, Own, Run, Seen, Step},
    payload,
    template::Values,
};
use crate::clock::now_nanos;

/// After an action that changed nothing.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A task as its loop hears of it; absent once it is no longer assigned.
pub(super) type Assigned = watch::Receiver<Option<Arc<Task>>>;

/// Runs a task until it is taken away; then nothing of it is left on this host.
pub(super) async fn run(shared: Arc<Shared>, mut assigned: Assigned, wake: Arc<Notify>) {
    let Some(task) = assigned.borrow_and_update().clone() else {
        return;
    };
    let mut machine = Machine::new(&shared, &task);
    let mut sight = shared.sight.subscribe();
    loop {
        let task = assigned.borrow_and_update().clone();
        let Some(task) = task else { break };
        machine.own.alone_since = *sight.borrow_and_update();
        let step = machine.step(&task);
        if step.action == Action::Nothing {
            let deadline = async {
                match step.deadline {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = assigned.changed() => if changed.is_err() { return },
                changed = sight.changed() => if changed.is_err() { return },
                () = wake.notified() => {}
                () = deadline => {}
            }
        } else {
            let span = machine.span.clone();
            let done = machine.carry_out(&task, step.action, &mut assigned);
            done.instrument(span).await;
        }
    }
    forget(&shared, &task).await;
}

async fn sleep_until(at: i64) {
    let left = u64::try_from(at.saturating_sub(now_nanos())).unwrap_or(0);
    tokio::time::sleep(Duration::from_nanos(left)).await;
}

/// Takes everything of a task away.
async fn forget(shared: &Shared, task: &Task) {
    let mut pause = FIRST_PAUSE;
    while let Err(refusal) = shared.remove_container(&task.name(), &task.id).await {
        tracing::warn!(task = task.name(), %refusal, "its container cannot be removed yet");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    shared.payloads.remove(&task.id);
    shared.reports.forget(&task.id);
}

struct Machine<'a> {
    shared: &'a Shared,
    /// From the task's arrival until it runs, or does not.
    span: Span,
    own: Own,
    /// How often the same action was carried out in a row.
    repeated: u32,
    last: Action,
}

impl<'a> Machine<'a> {
    fn new(shared: &'a Shared, task: &Task) -> Self {
        // One that runs already, when the daemon starts, has been told of.
        let above = task.meta.trace;
        let above = above.filter(|_| task.status.state < TaskState::Running);
        let span = above.map_or_else(Span::none, |above| {
            let span = trace::request!(
                "task",
                task = task.name(),
                otel.status_code = Empty,
                otel.status_description = Empty,
            );
            trace::below(&span, Some(above));
            span
        });
        let mut machine = Self {
            shared,
            span,
            own: Own {
                status: task.status.clone(),
                ..Own::default()
            },
            repeated: 0,
            last: Action::Nothing,
        };
        let ended = |seen: Seen| matches!(seen.run, Run::Ended { .. });
        machine.own.rebooted = shared.rebooted && shared.look(task).is_some_and(ended);
        if task.status.state < TaskState::Accepted {
            let accepted = Next {
                state: TaskState::Accepted,
                message: "accepted",
                error: String::new(),
            };
            machine.become_(task, &accepted, None);
        } else {
            shared.reports.set(&task.id, machine.own.status.clone());
        }
        machine
    }

    /// Asks the machine, and notes and reports what it says.
    fn step(&mut self, task: &Task) -> Step {
        let seen = self.shared.look(task);
        let now = now_nanos();
        if task.desired > TaskState::Complete {
            self.own.ending_since.get_or_insert(now);
        }
        self.own.missing = if self.own.status.state < TaskState::Ready {
            self.shared.missing(task)
        } else {
            Vec::new()
        };
        let step = machine::decide(task, &self.own, seen.as_ref(), now);
        if step.draining {
            self.own.draining_since.get_or_insert(now);
        }
        self.own.unhealthy |= step.unhealthy;
        if let Some(next) = &step.status {
            self.become_(task, next, seen.as_ref());
        }
        step
    }

    /// The task's ports in host mode, with the host's choices.
    fn bound_ports(&self, task: &Task) -> Vec<PortConfig> {
        let host = task.ports.iter().any(|port| port.mode == PublishMode::Host);
        let view = host.then(|| self.shared.engine.inspect(&task.name()).ok());
        let bound = view.flatten().map(|view| view.network.ports);
        let named = |port: &PortBinding| {
            let mut asked = task.ports.iter();
            let same = |asked: &&PortConfig| {
                (asked.target, asked.protocol) == (port.target, port.protocol)
            };
            asked
                .find(same)
                .map_or_else(String::new, |asked| asked.name.clone())
        };
        bound
            .unwrap_or_default()
            .iter()
            .map(|port| PortConfig {
                name: named(port),
                protocol: port.protocol,
                target: port.target,
                published: port.published.map_or(0, |(number, _)| number),
                mode: PublishMode::Host,
            })
            .collect()
    }

    fn become_(&mut self, task: &Task, next: &Next, seen: Option<&Seen>) {
        self.own.status = TaskStatus {
            state: next.state,
            at: now_nanos(),
            message: next.message.to_owned(),
            error: next.error.clone(),
            container: machine::container_status(seen).or(self.own.status.container.take()),
            ..std::mem::take(&mut self.own.status)
        };
        if next.state == TaskState::Running {
            self.own.status.ports = self.bound_ports(task);
        }
        tracing::debug!(
            task = task.name(),
            state = next.state.as_str(),
            error = next.error,
            "task"
        );
        self.shared.reports.set(&task.id, self.own.status.clone());
        if next.state > TaskState::Complete {
            trace::failed(&self.span, &next.error);
        }
        if next.state >= TaskState::Running {
            self.span = Span::none();
        }
    }

    async fn carry_out(&mut self, task: &Task, action: Action, assigned: &mut Assigned) {
        self.repeated = if self.last == action {
            self.repeated + 1
        } else {
            0
        };
        self.last = action;
        let failed = match action {
            Action::Nothing => Ok(()),
            Action::Prepare => self.prepare(task, assigned).await,
            Action::Start => self.shared.start(task).await,
            Action::Restart => {
                self.own.rebooted = false;
                self.own.unhealthy = false;
                self.own.status.restarts += 1;
                let started = self.shared.start(task).await;
                self.own.status.container =
                    machine::container_status(self.shared.look(task).as_ref());
                self.shared.reports.set(&task.id, self.own.status.clone());
                started
            }
            Action::Count => {
                let count = self.shared.count(task).await;
                self.own.counted = Some((now_nanos(), count));
                return;
            }
            Action::Stop => return self.again(self.shared.stop(task).await).await,
            Action::Remove => {
                let removed = self.shared.remove_container(&task.name(), &task.id).await;
                return self.again(removed).await;
            }
        };
        if let Err(refusal) = failed {
            self.own.failure = Some(refusal.message);
        } else if self.repeated > 2 {
            self.pause().await;
        }
    }

    /// Ends are tried until they succeed.
    async fn again(&self, done: Result<(), Refusal>) {
        match done {
            Ok(()) if self.repeated <= 2 => {}
            Ok(()) => self.pause().await,
            Err(refusal) => {
                tracing::warn!(action = ?self.last, %refusal, "tried again");
                self.pause().await;
            }
        }
    }

    async fn pause(&self) {
        let doubled = FIRST_PAUSE * 2u32.saturating_pow(self.repeated.min(6));
        tokio::time::sleep(doubled.min(LONGEST_PAUSE)).await;
    }

    /// Only the pulls may take long, and they are given up when the task is no longer wanted.
    async fn prepare(&self, task: &Task, assigned: &mut Assigned) -> Result<(), Refusal> {
        let registry_auth = &task.spec.container.registry_auth;
        let images = container::images(task, &(self.shared.describe)())?;
        let pull = async {
            for image in &images {
                let part = trace::part!("pull", image);
                let pulled = self.shared.pulls.ensure(image, registry_auth);
                pulled.instrument(part).await?;
            }
            Ok::<(), Refusal>(())
        };
        let unwanted = assigned.wait_for(|task| {
            task.as_ref()
                .is_none_or(|task| task.desired > TaskState::Complete)
        });
        tokio::select! {
            pulled = pull => pulled?,
            _ = unwanted => return Ok(()),
        }
        let _turn = self.shared.turns.acquire().await;
        self.shared.create(task).await
    }
}

impl Shared {
    /// What the runtime shows of a task.
    fn look(&self, task: &Task) -> Option<Seen> {
        let view = self.engine.inspect(&task.name()).ok()?;
        (view.effective.labels.get(LABEL_TASK).map(String::as_str) == Some(task.id.as_str()))
            .then(|| seen(&view))
    }

    /// What a task was promised and has not come yet.
    fn missing(&self, task: &Task) -> Vec<String> {
        let assignments = self.assignments();
        let mut missing = payload::missing(task, &assignments.payloads);
        let there = |id| assignments.endpoints.contains_key(id);
        if !task.endpoints.iter().all(there) {
            missing.push("its addresses".to_owned());
        }
        missing
    }

    async fn create(&self, task: &Task) -> Result<(), Refusal> {
        let laid = self.lay(task)?;
        let endpoints: Vec<_> = {
            let assignments = self.assignments();
            let given = |id| assignments.endpoints.get(id).cloned();
            task.endpoints.iter().filter_map(given).collect()
        };
        let place = Place {
            node: &(self.describe)(),
            endpoints: &endpoints,
            socket: self.socket.here(),
            laid: &laid,
        };
        let wish = container::wish(task, &place)?;
        match self.engine.create(wish).await {
            Ok(_) => Ok(()),
            // Made before the daemon was killed, which nobody had been told.
            Err(refusal) if refusal.kind == RefusalKind::Conflict && self.look(task).is_some() => {
                Ok(())
            }
            Err(refusal) => Err(refusal),
        }
    }

    fn lay(&self, task: &Task) -> Result<Vec<payload::Laid>, Refusal> {
        let values = Values::of(task, &(self.describe)());
        self.payloads
            .lay(task, &self.assignments().payloads, &values)
    }

    async fn start(&self, task: &Task) -> Result<(), Refusal> {
        let _turn = self.turns.acquire().await;
        // A reboot has emptied the tmpfs since it was made.
        self.lay(task)?;
        self.engine.start_container(&task.name()).await.map(drop)
    }

    async fn stop(&self, task: &Task) -> Result<(), Refusal> {
        let options = StopOptions::default();
        match self.engine.stop(&task.name(), options).await {
            Err(refusal) if refusal.kind != RefusalKind::NotFound => Err(refusal),
            _ => Ok(()),
        }
    }

    async fn count(&self, task: &Task) -> u64 {
        match self.engine.inspect(&task.name()) {
            Ok(view) => self.flows.established(&view.id).await,
            Err(_) => 0,
        }
    }

    /// Removes a task's container whatever it does; one that is not there is fine.
    pub(super) async fn remove_container(&self, name: &str, task: &TaskId) -> Result<(), Refusal> {
        let Ok(view) = self.engine.inspect(name) else {
            return Ok(());
        };
        if view.effective.labels.get(LABEL_TASK).map(String::as_str) != Some(task.as_str()) {
            return Ok(());
        }
        let options = RemoveOptions {
            force: true,
            volumes: true,
        };
        match self.engine.remove(view.id.as_str(), options).await {
            Err(refusal) if refusal.kind != RefusalKind::NotFound => Err(refusal),
            _ => Ok(()),
        }
    }
}

fn seen(view: &ContainerView) -> Seen {
    let health = match (&view.effective.health, &view.state.health) {
        (None, _) => Health::Unasked,
        (Some(_), None) => Health::Starting,
        (Some(_), Some(health)) => match health.status {
            HealthStatus::Starting => Health::Starting,
            HealthStatus::Healthy => Health::Healthy,
            HealthStatus::Unhealthy => Health::Unhealthy,
        },
    };
    Seen {
        id: view.id.clone(),
        pid: view.state.pid.into(),
        run: match view.state.status {
            Status::Created => Run::Created,
            Status::Running | Status::Paused | Status::Restarting => Run::Runs(health),
            Status::Exited | Status::Dead | Status::Removing => Run::Ended {
                code: view.state.exit_code,
            },
        },
        oom_killed: view.state.oom_killed,
        error: view.state.error.clone(),
        finished_at: view.state.finished_at,
    }
}
