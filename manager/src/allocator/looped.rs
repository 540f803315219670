//! The allocator as a loop of the leader.

use model::TaskState;

use crate::{
    decision::Decision,
    dispatcher::Sessions,
    leader::loops::Loop,
    store::{Stage, StoreChange, Tables},
};

#[derive(Default)]
pub(crate) struct AllocatorLoop;

impl Loop for AllocatorLoop {
    fn name(&self) -> &'static str {
        "allocator"
    }

    fn start_over(&mut self, _: &Tables) {}

    fn note(&mut self, before: &Tables, change: &StoreChange) -> bool {
        match change {
            StoreChange::SetService(_)
            | StoreChange::RemoveService(_)
            | StoreChange::SetNetwork(_)
            | StoreChange::RemoveNetwork(_) => true,
            StoreChange::SetTask(task) => {
                let state = task.status.state;
                state == TaskState::New || (state.is_final() && !task.endpoints.is_empty())
            }
            StoreChange::RemoveEndpoint(_) | StoreChange::EndRest { .. } => {
                before.work().tasks_in(Stage::New).next().is_some()
            }
            _ => false,
        }
    }

    fn decide(&mut self, tables: &Tables, sessions: &Sessions, now: i64) -> Decision {
        super::decide(tables, now, &|rest| sessions.has_rested(rest, now))
    }
}
