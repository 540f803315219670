//! Whether guests are where their owners had them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use dataplane::guests;
use model::{ContainerId, Refusal};

use super::handed::{self, Awaited};
use crate::network::{Networks, record::SandboxRecord};

/// How often it is looked whether the owners still have their namespaces. It costs two calls of
/// the kernel a guest.
const LOOK: Duration = Duration::from_secs(1);

impl Networks {
    /// Leaves namespaces whose owners have them no longer, and goes after interfaces that owners take.
    pub(in crate::network) async fn follow_guests(self: Arc<Self>) {
        let (mut awaited, mut looked) = (Awaited::default(), Instant::now());
        loop {
            let none = !self.inner.lock().await.has_guests();
            if none {
                self.guests_come.notified().await;
            }
            let pause = self.follow_handed(&mut awaited).await;
            tokio::select! {
                () = tokio::time::sleep(pause.unwrap_or(LOOK)) => {}
                () = self.guests_come.notified() => {}
            }
            if looked.elapsed() < LOOK {
                continue;
            }
            looked = Instant::now();
            let left: Vec<ContainerId> = {
                let inner = self.inner.lock().await;
                if !inner.adopted {
                    continue;
                }
                let gone = |record: &&SandboxRecord| {
                    record.guest.is_some() && !is_held(record) && !handed::waits(record)
                };
                let records = inner.sandboxes.values().filter(gone);
                let ids = records.map(|record| &record.request.container);
                ids.filter(|id| !inner.connecting.contains(*id))
                    .cloned()
                    .collect()
            };
            for id in left {
                tracing::info!(guest = %id, "its namespace has gone");
                if let Err(refusal) = self.let_go(&id).await {
                    tracing::debug!(guest = %id, %refusal, "it is left later");
                }
            }
        }
    }
}

/// Whether it is a guest that is to be kept after a start: one without a network was not attached
/// to the end.
pub fn is_there(record: &SandboxRecord) -> bool {
    !record.endpoints.is_empty() && (is_held(record) || handed::waits(record))
}

/// Whether it is a guest whose names may be answered.
pub fn is_up(record: &SandboxRecord) -> bool {
    record.guest.is_some() && !handed::waits(record)
}

/// Holds its namespace by a mount.
pub(super) fn hold(record: &SandboxRecord) -> Result<(), Refusal> {
    let (Some(guest), Some(target)) = (&record.guest, &record.connected.netns) else {
        return Ok(());
    };
    guests::bind(&guest.source, target).map_err(|error| {
        Refusal::internal(format!(
            "{} cannot be held: {error}",
            guest.source.display()
        ))
    })
}

/// Whether the namespace that we hold is still where its owner had it.
fn is_held(record: &SandboxRecord) -> bool {
    let bound = record.connected.netns.as_deref();
    match (&record.guest, bound) {
        (Some(guest), Some(bound)) => guests::same(bound, &guest.source),
        _ => false,
    }
}
