//! The scheduler as a loop of the leader.

use model::TaskState;

use super::Scheduler;
use crate::{
    decision::Decision,
    dispatcher::Sessions,
    leader::loops::Loop,
    store::{Stage, StoreChange, Tables},
};

#[derive(Default)]
pub(crate) struct SchedulerLoop {
    scheduler: Scheduler,
}

impl Loop for SchedulerLoop {
    fn name(&self) -> &'static str {
        "scheduler"
    }

    fn start_over(&mut self, _: &Tables) {
        self.scheduler = Scheduler::default();
    }

    fn note(&mut self, before: &Tables, change: &StoreChange) -> bool {
        let somebody_waits = || before.work().tasks_in(Stage::Pending).next().is_some();
        match change {
            StoreChange::SetTask(task) if task.status.state == TaskState::Pending => true,
            // What is over leaves room; what is not wanted any more leaves the counts.
            StoreChange::SetTask(task) if task.status.state.is_final() || !task.is_wanted() => {
                somebody_waits()
            }
            StoreChange::RemoveTask(_) | StoreChange::SetNode(_) | StoreChange::RemoveNode(_) => {
                somebody_waits()
            }
            _ => false,
        }
    }

    fn decide(&mut self, tables: &Tables, _: &Sessions, now: i64) -> Decision {
        self.scheduler.decide(tables, now)
    }
}
