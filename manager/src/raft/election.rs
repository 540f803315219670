//! Elections that do not disturb: whoever misses the leader asks the others first, and those who
//! still hear it say no. Also the leader's heartbeats.
//!
//! openraft's own timer is off. Its append timeout is its heartbeat interval, which has to leave
//! room for an fsync, so heartbeats are sent from here, more often than that.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use openraft::{LogId, Raft, ServerState, storage::RaftLogStorage as _};
use rand::Rng as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    LogStore, TypeConfig,
    peer::{RaftAsk, RaftSaid},
    pulse::Pulse,
};

/// How often a leader speaks; on a network that is slower than that, as soon as it was answered.
pub(super) const HEARTBEAT: Duration = Duration::from_millis(100);
/// While a leader was heard of within so many of its heartbeats nobody votes for another. A
/// heartbeat here is what was measured lately, see [`Pulse::rhythm`].
const LEASE_BEATS: u32 = 5;
/// openraft's own lease: ours on the fastest network.
pub(super) const LEASE: Duration = HEARTBEAT.saturating_mul(LEASE_BEATS);
/// Silence after which a manager asks for an election, in such heartbeats: drawn between the two.
const PATIENCE_BEATS: (f64, f64) = (6.0, 9.0);
/// Pause between two attempts: drawn between the two.
const AGAIN: (Duration, Duration) = (Duration::from_millis(150), Duration::from_millis(450));
const LOOK: Duration = Duration::from_millis(25);
/// How long the others may take to say whether they would vote.
const ASK: Duration = Duration::from_millis(400);

/// Whether one would vote for a candidate, without any promise.
pub(super) fn would_vote(
    candidate: Option<LogId<u64>>,
    own: Option<LogId<u64>>,
    leading: bool,
    silence: Duration,
    rhythm: Duration,
) -> bool {
    !leading && silence >= rhythm * LEASE_BEATS && candidate >= own
}

/// Whether `granted` are a majority in each of the joint configurations.
pub(super) fn is_majority(configs: &[BTreeSet<u64>], granted: &BTreeSet<u64>) -> bool {
    configs
        .iter()
        .all(|voters| voters.intersection(granted).count() * 2 > voters.len())
}

fn draw((least, most): (Duration, Duration)) -> Duration {
    rand::rng().random_range(least..most)
}

/// Of a manager that hears its leader so often.
fn patience(rhythm: Duration) -> Duration {
    rhythm.mul_f64(rand::rng().random_range(PATIENCE_BEATS.0..PATIENCE_BEATS.1))
}

/// Sends heartbeats while this manager leads, and asks for elections while nobody does; not
/// while the cluster is known to have been begun anew without it.
pub(super) async fn tend(
    raft: Raft<TypeConfig>,
    pulse: Arc<Pulse>,
    mut log: LogStore,
    stop: CancellationToken,
) {
    let metrics = raft.metrics();
    let mut limit = patience(pulse.rhythm());
    let mut failed = false;
    loop {
        let (leading, voter, sole) = {
            let state = metrics.borrow();
            let voters: BTreeSet<u64> = state.membership_config.membership().voter_ids().collect();
            let voter = voters.contains(&state.id);
            (
                state.state == ServerState::Leader,
                voter,
                voter && voters.len() == 1,
            )
        };
        let pause = if leading { HEARTBEAT } else { LOOK };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        if pulse.outlived().is_some() {
            continue;
        }
        let outcome = if leading {
            (limit, failed) = (patience(HEARTBEAT), false);
            if sole {
                continue;
            }
            raft.trigger().heartbeat().await
        } else if !voter {
            continue;
        } else if sole {
            raft.trigger().elect().await
        } else {
            let silence = pulse.silence();
            // Drawn anew at each word of the leader, by the rhythm of then.
            if silence < LOOK || (failed && silence < LEASE) {
                (limit, failed) = (patience(pulse.rhythm()), false);
            }
            if silence < limit {
                continue;
            }
            let majority = ask_others(&raft, &pulse, &mut log).await;
            (limit, failed) = (pulse.silence() + draw(AGAIN), true);
            if !majority {
                continue;
            }
            raft.trigger().elect().await
        };
        if let Err(error) = outcome {
            tracing::error!(%error, "consensus has stopped");
            return;
        }
    }
}

/// Whether a majority would vote for this manager.
async fn ask_others(raft: &Raft<TypeConfig>, pulse: &Arc<Pulse>, log: &mut LogStore) -> bool {
    let Ok(own) = log.get_log_state().await.map(|state| state.last_log_id) else {
        return false;
    };
    let (id, membership) = {
        let metrics = raft.metrics();
        let state = metrics.borrow();
        (state.id, state.membership_config.membership().clone())
    };
    let (tell, mut told) = mpsc::unbounded_channel();
    // A vote of one whose disk has gone back does not count.
    let outdated = pulse.outdated();
    let others = membership.voter_ids();
    for voter in others.filter(|voter| *voter != id && !outdated.contains_key(voter)) {
        let Some(peer) = membership.get_node(&voter).cloned() else {
            continue;
        };
        let (pulse, tell) = (Arc::clone(pulse), tell.clone());
        // By itself and to its end: who answers counts as reachable, whatever it says. The leader that
        // is missed has all the time to be silent.
        tokio::spawn(async move {
            let said = pulse.ask(voter, &peer, RaftAsk::WouldVote(own), ASK).await;
            if matches!(said, Ok(RaftSaid::WouldVote(true))) {
                // Who asked may know enough already.
                let _ = tell.send(voter);
            }
        });
    }
    drop(tell);
    let mut granted = BTreeSet::from([id]);
    loop {
        if is_majority(membership.get_joint_config(), &granted) {
            return true;
        }
        let Some(voter) = told.recv().await else {
            return false;
        };
        granted.insert(voter);
    }
}

#[cfg(test)]
mod tests {
    use openraft::CommittedLeaderId;

    use super::*;

    fn at(term: u64, index: u64) -> LogId<u64> {
        LogId::new(CommittedLeaderId::new(term, 1), index)
    }

    #[test]
    fn who_hears_the_leader_votes_for_nobody() {
        let (short, long) = (LEASE / 2, LEASE * 2);
        let slow = HEARTBEAT * 3;
        for (candidate, own, leading, silence, expected) in [
            (Some(at(2, 5)), Some(at(2, 5)), false, long, true),
            (Some(at(2, 6)), Some(at(2, 5)), false, long, true),
            (Some(at(3, 1)), Some(at(2, 5)), false, long, true),
            (Some(at(2, 4)), Some(at(2, 5)), false, long, false),
            (Some(at(1, 9)), Some(at(2, 5)), false, long, false),
            (None, Some(at(1, 1)), false, long, false),
            (None, None, false, long, true),
            (Some(at(2, 5)), Some(at(2, 5)), false, short, false),
            (Some(at(2, 5)), Some(at(2, 5)), true, long, false),
        ] {
            assert_eq!(
                would_vote(candidate, own, leading, silence, HEARTBEAT),
                expected,
                "{candidate:?} {own:?} {leading} {silence:?}"
            );
        }
        // On a slow network the same silence says less.
        assert!(!would_vote(None, None, false, long, slow));
        assert!(would_vote(None, None, false, long * 2, slow));
    }

    #[test]
    fn a_majority_is_one_in_every_configuration() {
        let set = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<u64>>();
        for (configs, granted, expected) in [
            (vec![set(&[1])], set(&[1]), true),
            (vec![set(&[1, 2])], set(&[1]), false),
            (vec![set(&[1, 2, 3])], set(&[1, 3]), true),
            (vec![set(&[1, 2, 3, 4])], set(&[1, 3]), false),
            (vec![set(&[1, 2, 3]), set(&[3, 4, 5])], set(&[1, 3]), false),
            (vec![set(&[1, 2, 3]), set(&[1, 3])], set(&[1, 3]), true),
        ] {
            assert_eq!(
                is_majority(&configs, &granted),
                expected,
                "{configs:?} {granted:?}"
            );
        }
    }
}
