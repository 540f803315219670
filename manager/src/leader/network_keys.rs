//! Rotates the hosts' keys for encrypted networks: all receive with the next generation before
//! anybody sends with it, and all send with it before the one before goes. So no packet finds a
//! host without the key that it needs.

use model::{Node, encryption::KeyPhase, node::NodeState};

use super::loops::Loop;
use crate::{
    decision::Decision,
    dispatcher::Sessions,
    store::{StoreChange, Tables},
};

const SECOND: i64 = 1_000_000_000;
/// How long a generation is sent with.
const PERIOD: i64 = 12 * 3600 * SECOND;
/// How long packets may be under way after the last host has changed over.
const SETTLE: i64 = 10 * SECOND;

/// Begins a rotation.
pub(crate) fn begin(phase: &KeyPhase, now: i64) -> KeyPhase {
    KeyPhase {
        newest: phase.newest + 1,
        since: now,
        ..*phase
    }
}

/// What follows now, or when to look again without anything having happened.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Turn(KeyPhase),
    LookAt(i64),
    /// Until a host says more.
    Wait,
}

/// A host that is not there does not hold the others up: it gets its keys when it comes back.
fn next<'a>(
    phase: &KeyPhase,
    nodes: impl Iterator<Item = &'a Node>,
    encrypted: bool,
    now: i64,
) -> Next {
    let mut hosts = nodes
        .filter(|node| node.status.state == NodeState::Ready)
        .filter_map(|node| node.description.encryption.as_ref());
    let newest = phase.newest;
    if !phase.is_rotating() {
        let due = phase.since.saturating_add(PERIOD);
        return match (encrypted, now >= due) {
            (false, _) => Next::Wait,
            (true, false) => Next::LookAt(due),
            (true, true) => Next::Turn(begin(phase, now)),
        };
    }
    if phase.sending < newest {
        return if hosts.all(|host| host.receives >= newest) {
            Next::Turn(KeyPhase {
                sending: newest,
                since: now,
                ..*phase
            })
        } else {
            Next::Wait
        };
    }
    let settled = phase.since.saturating_add(SETTLE);
    if !hosts.all(|host| host.sends >= newest) {
        Next::Wait
    } else if now < settled {
        Next::LookAt(settled)
    } else {
        Next::Turn(KeyPhase {
            oldest: newest,
            since: now,
            ..*phase
        })
    }
}

/// The rotation as a loop of the leader.
pub(super) struct NetworkKeysLoop;

impl Loop for NetworkKeysLoop {
    fn name(&self) -> &'static str {
        "network keys"
    }

    fn start_over(&mut self, _: &Tables) {}

    fn note(&mut self, before: &Tables, change: &StoreChange) -> bool {
        let rotating = || {
            let record = before.cluster();
            record.is_some_and(|record| record.public.network_keys.is_rotating())
        };
        match change {
            StoreChange::SetCluster(record) => record.public.network_keys.is_rotating(),
            StoreChange::SetNode(_) | StoreChange::RemoveNode(_) => rotating(),
            StoreChange::SetNetwork(network) => network.is_encrypted(),
            _ => false,
        }
    }

    fn decide(&mut self, tables: &Tables, _: &Sessions, now: i64) -> Decision {
        let mut decision = Decision::default();
        let Some(record) = tables.cluster() else {
            return decision;
        };
        let encrypted = tables.networks().any(model::Network::is_encrypted);
        match next(&record.public.network_keys, tables.nodes(), encrypted, now) {
            Next::Turn(phase) => {
                tracing::info!(?phase, "the keys of encrypted networks are rotated");
                let mut record = record.clone();
                record.public.network_keys = phase;
                decision
                    .changes
                    .push(StoreChange::SetCluster(Box::new(record)));
            }
            Next::LookAt(moment) => decision.look_at(moment),
            Next::Wait => {}
        }
        decision
    }
}

#[cfg(test)]
mod tests {
    use model::encryption::{Encryptor, HostEncryption};

    use super::*;
    use crate::example;

    fn phase(oldest: u64, sending: u64, newest: u64) -> KeyPhase {
        KeyPhase {
            newest,
            sending,
            oldest,
            since: 0,
        }
    }

    fn host(receives: u64, sends: u64) -> Node {
        let mut node = example::node("n1");
        node.description.encryption = Some(HostEncryption {
            by: Encryptor::Process,
            keys: Vec::new(),
            receives,
            sends,
            trouble: None,
        });
        node
    }

    fn turned(phase: KeyPhase, nodes: &[Node], now: i64) -> Next {
        next(&phase, nodes.iter(), true, now)
    }

    #[test]
    fn keys_are_changed_by_the_clock_where_there_is_something_to_encrypt() {
        let rest = phase(3, 3, 3);
        let due = PERIOD;
        assert_eq!(next(&rest, [].into_iter(), false, due + 1), Next::Wait);
        assert_eq!(turned(rest, &[], due - 1), Next::LookAt(due));
        let Next::Turn(begun) = turned(rest, &[], due) else {
            panic!();
        };
        assert_eq!((begun.oldest, begun.sending, begun.newest), (3, 3, 4));
        assert_eq!(begun.since, due);
    }

    #[test]
    fn nobody_is_left_behind_but_those_that_are_away() {
        let asked = phase(3, 3, 4);
        let sends = phase(3, 4, 4);
        let mut away = host(3, 3);
        away.status.state = NodeState::Down;
        let old = example::node("n2");
        assert_eq!(turned(asked, &[host(4, 3), host(3, 3)], 1), Next::Wait);
        let all = [host(4, 3), away.clone(), old.clone()];
        let Next::Turn(next) = turned(asked, &all, 1) else {
            panic!();
        };
        assert_eq!((next.oldest, next.sending, next.newest), (3, 4, 4));
        assert_eq!(turned(sends, &[host(4, 4), host(4, 3)], SETTLE), Next::Wait);
        let all = [host(4, 4), away, old];
        assert_eq!(turned(sends, &all, SETTLE - 1), Next::LookAt(SETTLE));
        let Next::Turn(end) = turned(sends, &all, SETTLE) else {
            panic!();
        };
        assert_eq!((end.oldest, end.sending, end.newest), (4, 4, 4));
        // And rests.
        assert_eq!(turned(end, &all, SETTLE), Next::LookAt(SETTLE + PERIOD));
    }
}
