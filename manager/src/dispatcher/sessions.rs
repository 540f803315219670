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

/// How much later than usual the first heartbeat of a session may come.
const FIRST_BEAT: Duration = Duration::from_secs(3);

/// The sessions of all nodes with this manager.
pub struct Sessions {
    entries: Mutex<HashMap<NodeId, Entry>>,
    /// Counts acknowledgements and ends of sessions, for those who wait for them.
    moved: watch::Sender<u64>,
}

struct Entry {
    session: Id,
    connected: bool,
    /// Its node was marked down since its last heartbeat: nobody waits for it.
    silent: bool,
    beat: Instant,
    reached: Generation,
}

impl Entry {
    fn is_up(&self) -> bool {
        self.connected && !self.silent
    }
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
            silent: false,
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
                silent: false,
                beat: now + grace,
                reached: Generation::default(),
            };
            (node, entry)
        };
        *self.lock() = nodes.map(entry).collect();
        self.tell();
    }

    pub fn open(&self, node: &NodeId, session: Id, reached: Generation, now: Instant) {
        // Where a leader was lost all hosts come at once, and are busy with what they are told first.
        let beat = now + FIRST_BEAT;
        self.lock().insert(
            node.clone(),
            Entry {
                session,
                connected: true,
                silent: false,
                beat,
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
                entry.silent = false;
                true
            }
            _ => false,
        }
    }

    /// Nobody waits any more for what this node acknowledges, until it is heard of again.
    pub fn give_up(&self, node: &NodeId) {
        if let Some(entry) = self.lock().get_mut(node) {
            entry.silent = true;
        }
        self.tell();
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
                .is_some_and(|e| e.is_up() && e.reached.index < index)
        };
        hosts.iter().filter(behind).cloned().collect()
    }

    /// What those of `hosts` have reached whose session is up.
    pub fn reached(&self, hosts: &[NodeId]) -> Vec<(u64, NodeId)> {
        let entries = self.lock();
        let reached = |host: &NodeId| {
            let entry = entries.get(host).filter(|entry| entry.is_up())?;
            Some((entry.reached.index, host.clone()))
        };
        hosts.iter().filter_map(reached).collect()
    }

    /// Whether an address that was given back may be given again: its time has passed, and no
    /// host still forwards to the old owner.
    pub fn has_rested(&self, rest: &Rest, now: i64) -> bool {
        let time = i64::try_from(REST.as_nanos()).unwrap_or(i64::MAX);
        if now.saturating_sub(rest.since) < time {
            return false;
        }
        // Also one that was given up may still forward: it has not gone, it is only not heard of.
        let entries = self.lock();
        let behind = |host: &NodeId| {
            let entry = entries.get(host);
            entry.is_some_and(|entry| entry.connected && entry.reached.index < rest.released)
        };
        !rest.hosts.iter().any(behind)
    }

    /// The nodes whose last heartbeat is older than `limit`, and the present sessions.
    pub fn silent(&self, now: Instant, limit: Duration) -> Vec<NodeId> {
        self.lock()
            .iter()
            .filter(|(_, entry)| now.saturating_duration_since(entry.beat) > limit)
            .map(|(node, _)| node.clone())
            .collect()
    }

    /// Whether the node's last heartbeat is older than `limit`.
    pub fn is_silent(&self, node: &NodeId, now: Instant, limit: Duration) -> bool {
        let entries = self.lock();
        let beat = entries.get(node).map(|entry| entry.beat);
        beat.is_some_and(|beat| now.saturating_duration_since(beat) > limit)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_who_was_given_up_until_it_beats_again() {
        let (sessions, node, now) = (Sessions::new(), NodeId::from("n1"), Instant::now());
        let hosts = [node.clone()];
        sessions.open(&node, "s1".into(), Generation::default(), now);
        assert_eq!(sessions.behind(&hosts, 1), hosts);
        let mut moved = sessions.moved();
        sessions.give_up(&node);
        assert!(moved.has_changed().expect("it lives"));
        assert!(sessions.behind(&hosts, 1).is_empty());
        let rest = Rest {
            released: 1,
            since: 0,
            hosts: hosts.to_vec(),
        };
        assert!(
            !sessions.has_rested(&rest, i64::MAX),
            "it may still forward"
        );
        assert!(!sessions.beat(&node, &"s2".into(), now));
        assert!(sessions.behind(&hosts, 1).is_empty());
        assert!(sessions.beat(&node, &"s1".into(), now));
        assert_eq!(sessions.behind(&hosts, 1), hosts);
        moved.mark_unchanged();
        sessions.close(&node, &"s1".into());
        assert!(sessions.behind(&hosts, 1).is_empty());
    }

    #[test]
    fn a_sessions_first_heartbeat_may_be_later() {
        let (sessions, node, now) = (Sessions::new(), NodeId::from("n1"), Instant::now());
        let (limit, moment) = (Duration::from_secs(3), Duration::from_millis(1));
        sessions.open(&node, "s1".into(), Generation::default(), now);
        let late = now + limit + FIRST_BEAT;
        assert!(sessions.silent(late, limit).is_empty());
        assert_eq!(sessions.silent(late + moment, limit), vec![node.clone()]);
        assert!(sessions.beat(&node, &"s1".into(), late));
        assert!(sessions.silent(late + limit, limit).is_empty());
        let over = late + limit + moment;
        assert_eq!(sessions.silent(over, limit), vec![node.clone()]);
        assert!(sessions.is_silent(&node, over, limit) && !sessions.is_silent(&node, late, limit));
    }
}
