//! Events of everything but the engine, with a memory of the last ones for `since`.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use api::event::EventView;
use model::control::ClusterEvent;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::clock;

/// How many events are remembered, as in Docker.
const MEMORY: usize = 256;
/// How many wait for a listener: whoever is dropped for less has done nothing wrong, because a stack
/// of thousands of tasks that goes tells of all of them at once.
pub const WAITING: usize = 4096;

/// Where events are published and listened to; cheap to clone.
#[derive(Clone)]
pub struct EventBus {
    past: Arc<Mutex<VecDeque<Arc<EventView>>>>,
    sender: broadcast::Sender<Arc<EventView>>,
}

impl EventBus {
    pub fn new() -> Self {
        let (sender, _) = broadcast::channel(WAITING);
        Self {
            past: Arc::default(),
            sender,
        }
    }

    /// Makes an event known to all listeners, now and later.
    pub fn publish(&self, event: EventView) {
        let event = Arc::new(event);
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        if past.len() == MEMORY {
            past.pop_front();
        }
        past.push_back(Arc::clone(&event));
        // Sent under the lock, so that nobody sees an order other than the remembered one.
        // Without listeners there is nobody to tell.
        let _ = self.sender.send(event);
    }

    /// What was remembered since that moment (nanoseconds since the epoch), oldest first, and
    /// everything from then on, without a gap or a repetition.
    pub fn listen(
        &self,
        since: Option<i64>,
    ) -> (Vec<Arc<EventView>>, broadcast::Receiver<Arc<EventView>>) {
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let remembered = match since {
            None => Vec::new(),
            Some(since) => past
                .iter()
                .filter(|event| event.time_nano >= since)
                .cloned()
                .collect(),
        };
        (remembered, self.sender.subscribe())
    }

    /// How many listen now.
    pub fn listeners(&self) -> usize {
        self.sender.receiver_count()
    }

    /// Publishes the cluster's events until the daemon ends.
    pub(super) fn follow(
        &self,
        mut events: broadcast::Receiver<ClusterEvent>,
        engine_id: String,
        shutdown: CancellationToken,
    ) {
        let bus = self.clone();
        tokio::spawn(async move {
            loop {
                // Both arms are cancel-safe: a receiver keeps what was not taken.
                let event = tokio::select! {
                    () = shutdown.cancelled() => return,
                    event = events.recv() => event,
                };
                match event {
                    Ok(event) => bus.publish(EventView::from(&event)),
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        tracing::warn!(missed, "events of the cluster came too fast");
                        bus.publish(EventView::missed(&engine_id, missed, clock::now_nanos()));
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                }
            }
        });
    }
}

impl Default for EventBus {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(time: i64) -> EventView {
        EventView::new(
            "local",
            "network",
            "create",
            "n",
            std::collections::BTreeMap::new(),
            time,
        )
    }

    #[tokio::test]
    async fn the_past_and_the_future_meet_without_a_gap() {
        let bus = EventBus::new();
        for time in 0..300 {
            bus.publish(event(time));
        }
        let (past, mut future) = bus.listen(Some(290));
        assert_eq!(
            past.iter().map(|e| e.time_nano).collect::<Vec<_>>(),
            (290..300).collect::<Vec<_>>()
        );
        assert_eq!(bus.listen(Some(0)).0.len(), MEMORY);
        assert!(bus.listen(None).0.is_empty());
        bus.publish(event(300));
        assert_eq!(future.recv().await.unwrap().time_nano, 300);
    }
}
