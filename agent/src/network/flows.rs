//! Established connections into a container, for whoever waits for them to end.

use futures_util::future::BoxFuture;
use model::ContainerId;

use super::Networks;
use crate::worker::Flows;

impl Flows for Networks {
    fn established<'a>(&'a self, container: &'a ContainerId) -> BoxFuture<'a, u64> {
        Box::pin(async move {
            match self.dataplane.flows(container.as_str()).await {
                Ok(count) => count,
                Err(error) => {
                    // Whoever waits for them stops waiting: its container is about to end anyway.
                    tracing::warn!(%container, %error, "connections cannot be counted");
                    0
                }
            }
        })
    }
}
