//! Who is here: sessions, heartbeats and what each host's kernel has reached.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use model::{Generation, Id, NodeId};
use tokio::sync::watch;

use crate::store::Rest;

/// How long an address rests before it is given again.
pub const REST: Duration = Duration::from_secs(5);

/// The sessions of all nodes with this manager.
pub struct Sessions {
    entries: Mutex<HashMap<NodeId, Entry>>,
    /// Counts acknowledgements and ends of sessions, for those who wait for them.
    moved: watch::Sender<u64>,
}

struct Entry {
    session: Id,
    connected: bool,
    beat: Instant,
    reached: Generation,
}

impl Sessions {
    pub fn new() -> Self {
        Self {
            entries: Mutex::default(),
            moved: watch::channel(0).0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Entry>> {
        // Entries are changed one field at a time; none is left half made by a panic.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node is expected: it has from now on until its heartbeat is missed.
    pub fn expect(&self, node: &NodeId, now: Instant) {
        self.lock().entry(node.clone()).or_insert(Entry {
            session: Id::default(),
            connected: false,
            beat: now,
            reached: Generation::default(),
        });
    }

    /// A new term: nobody has a session yet, and all have until `grace` has passed beside their
    /// heartbeats.
    pub fn begin(&self, nodes: impl Iterator<Item = NodeId>, now: Instant, grace: Duration) {
        let entry = |node| {
            let entry = Entry {
                session: Id::default(),
                connected: false,
                beat: now + grace,
                reached: Generation::default(),
            };
            (node, entry)
        };
        *self.lock() = nodes.map(entry).collect();
        self.tell();
    }

    pub fn open(&self, node: &NodeId, session: Id, reached: Generation, now: Instant) {
        self.lock().insert(
            node.clone(),
            Entry {
                session,
                connected: true,
                beat: now,
                reached,
            },
        );
        self.tell();
    }

    pub fn close(&self, node: &NodeId, session: &Id) {
        if let Some(entry) = self
            .lock()
            .get_mut(node)
            .filter(|entry| entry.session == *session)
        {
            entry.connected = false;
        }
        self.tell();
    }

    pub fn forget(&self, node: &NodeId) {
        self.lock().remove(node);
        self.tell();
    }

    /// Notes a heartbeat; answers whether the session is the node's present one.
    pub fn beat(&self, node: &NodeId, session: &Id, now: Instant) -> bool {
        match self.lock().get_mut(node) {
            Some(entry) if entry.session == *session => {
                entry.beat = now;
                true
            }
            _ => false,
        }
    }

    /// Whether the session is the node's present one.
    pub fn is_present(&self, node: &NodeId, session: &Id) -> bool {
        let entries = self.lock();
        entries
            .get(node)
            .is_some_and(|entry| entry.session == *session)
    }

    pub fn acknowledge(&self, node: &NodeId, session: &Id, generation: Generation) {
        if let Some(entry) = self
            .lock()
            .get_mut(node)
            .filter(|entry| entry.session == *session)
        {
            entry.reached = entry.reached.max(generation);
        }
        self.tell();
    }

    fn tell(&self) {
        self.moved.send_modify(|count| *count += 1);
    }

    pub fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    /// Those of `hosts` whose session is up and whose kernel has not reached `index`.
    pub fn behind(&self, hosts: &[NodeId], index: u64) -> Vec<NodeId> {
        let entries = self.lock();
        let behind = |host: &&NodeId| {
            entries
                .get(*host)
                .is_some_and(|e| e.connected && e.reached.index < index)
        };
        hosts.iter().filter(behind).cloned().collect()
    }

    /// What those of `hosts` have reached whose session is up.
    pub fn reached(&self, hosts: &[NodeId]) -> Vec<(u64, NodeId)> {
        let entries = self.lock();
        let reached = |host: &NodeId| {
            let entry = entries.get(host).filter(|entry| entry.connected)?;
            Some((entry.reached.index, host.clone()))
        };
        hosts.iter().filter_map(reached).collect()
    }

    /// Whether an address that was given back may be given again: its time has passed, and no
    /// host still forwards to the old owner.
    pub fn has_rested(&self, rest: &Rest, now: i64) -> bool {
        let time = i64::try_from(REST.as_nanos()).unwrap_or(i64::MAX);
        now.saturating_sub(rest.since) >= time && self.behind(&rest.hosts, rest.released).is_empty()
    }

    /// The nodes whose last heartbeat is older than `limit`, and the present sessions.
    pub fn silent(&self, now: Instant, limit: Duration) -> Vec<NodeId> {
        self.lock()
            .iter()
            .filter(|(_, entry)| now.saturating_duration_since(entry.beat) > limit)
            .map(|(node, _)| node.clone())
            .collect()
    }

    /// The manager itself was late: that time does not count against its hosts.
    pub fn excuse(&self, lateness: Duration) {
        for entry in self.lock().values_mut() {
            entry.beat += lateness;
        }
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Self::new()
    }
}
