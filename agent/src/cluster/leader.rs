//! The cluster as the worker needs it.

use futures_util::{StreamExt as _, future::BoxFuture, stream::BoxStream};
use model::{
    Refusal, TaskId,
    control::{Answer, Verb},
    task::TaskStatus,
};
use tokio::sync::watch;

use super::{ClusterNode, LocalState, Update};
use crate::worker::Leader;

impl Leader for ClusterNode {
    fn updates(&self) -> BoxStream<'static, Update> {
        let updates = self.assignments();
        futures_util::stream::unfold(updates, |mut updates| async move {
            Some((updates.next().await?, updates))
        })
        .boxed()
    }

    fn standing(&self) -> watch::Receiver<LocalState> {
        self.local_state()
    }

    fn report(&self, statuses: Vec<(TaskId, TaskStatus)>) -> BoxFuture<'_, Result<(), Refusal>> {
        let node = self.local_state().borrow().node_id.clone();
        Box::pin(async move {
            match self.call(Verb::TaskReport { node, statuses }).await? {
                Answer::Done => Ok(()),
                _ => Err(Refusal::internal(
                    "the manager answered something else to a report of tasks; is it of the same version?",
                )),
            }
        })
    }
}
