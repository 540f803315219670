//! What is published to this host's other parts: a full set first, then every step.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use model::{Assignments, Increment};
use tokio::sync::broadcast;

use super::Update;

/// Steps that a reader may be behind before it is given a full set again.
const DEPTH: usize = 256;

/// What holds now, and who wants to hear of changes.
pub(super) struct Feed {
    current: Mutex<Arc<Assignments>>,
    updates: broadcast::Sender<Update>,
}

impl Feed {
    pub(super) fn new() -> Self {
        Self {
            current: Mutex::default(),
            updates: broadcast::channel(DEPTH).0,
        }
    }

    pub(super) fn current(&self) -> Arc<Assignments> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn replace(&self, full: Assignments) {
        let full = Arc::new(full);
        self.publish(Arc::clone(&full), Update::Full(full));
    }

    /// `next` is what the increment made of [`Self::current`].
    pub(super) fn step(&self, next: Arc<Assignments>, increment: Increment) {
        self.publish(next, Update::Increment(Arc::new(increment)));
    }

    fn publish(&self, next: Arc<Assignments>, update: Update) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        *current = next;
        // Nobody listening is fine: who comes later starts with a full set.
        let _ = self.updates.send(update);
    }

    fn subscribe(&self) -> (Update, broadcast::Receiver<Update>) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        (Update::Full(Arc::clone(&current)), self.updates.subscribe())
    }
}

/// See [`super::ClusterNode::assignments`].
pub struct AssignmentStream {
    feed: Weak<Feed>,
    first: Option<Update>,
    updates: broadcast::Receiver<Update>,
}

impl AssignmentStream {
    pub(super) fn new(feed: &Arc<Feed>) -> Self {
        let (first, updates) = feed.subscribe();
        Self {
            feed: Arc::downgrade(feed),
            first: Some(first),
            updates,
        }
    }

    /// The next update; `None` once the [`super::ClusterNode`] is gone.
    pub async fn next(&mut self) -> Option<Update> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        match self.updates.recv().await {
            Ok(update) => Some(update),
            Err(broadcast::error::RecvError::Closed) => None,
            Err(broadcast::error::RecvError::Lagged(_)) => {
                let (full, updates) = self.feed.upgrade()?.subscribe();
                self.updates = updates;
                Some(full)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use model::Generation;

    use super::*;

    fn increment(index: u64) -> Increment {
        Increment {
            generation: Generation { epoch: 1, index },
            changes: Vec::new(),
        }
    }

    #[tokio::test]
    async fn readers_begin_and_catch_up_with_a_full_set() {
        let feed = Arc::new(Feed::new());
        let mut stream = AssignmentStream::new(&feed);
        assert!(matches!(stream.next().await, Some(Update::Full(_))));
        feed.step(Arc::default(), increment(1));
        assert!(
            matches!(stream.next().await, Some(Update::Increment(i)) if i.generation.index == 1)
        );
        for index in 0..=DEPTH as u64 {
            feed.step(Arc::default(), increment(index));
        }
        assert!(matches!(stream.next().await, Some(Update::Full(_))));
        drop(feed);
        assert!(stream.next().await.is_none());
    }
}
