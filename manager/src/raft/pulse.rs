//! Who was heard of, and when: what elections, reachability and the check of old disks stand on.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use openraft::{LogId, raft::AppendEntriesResponse};

use super::{
    Carrier, Peer,
    election::HEARTBEAT,
    peer::{CarryError, RaftAsk, RaftCall, RaftSaid},
};

/// How long a manager counts as reachable after it was heard of.
pub(super) const REACHABLE: Duration = Duration::from_secs(3);

/// Not to be heard of for so long is to be away, whatever the network.
const SLOWEST: Duration = Duration::from_secs(1);

/// One manager's view of the others.
pub(super) struct Pulse {
    own: u64,
    carrier: Arc<dyn Carrier>,
    heard: Mutex<Heard>,
}

struct Heard {
    leader: Instant,
    /// Who that was.
    leader_id: Option<u64>,
    /// The longest time between two words of the leader lately.
    rhythm: Duration,
    others: BTreeMap<u64, Instant>,
    /// The highest index that each one has said it has.
    acknowledged: BTreeMap<u64, u64>,
    /// Those whose log has gone back behind what they acknowledged.
    outdated: BTreeMap<u64, String>,
}

impl Pulse {
    pub(super) fn new(own: u64, carrier: Arc<dyn Carrier>) -> Self {
        Self {
            own,
            carrier,
            heard: Mutex::new(Heard {
                leader: Instant::now(),
                leader_id: None,
                rhythm: HEARTBEAT,
                others: BTreeMap::new(),
                acknowledged: BTreeMap::new(),
                outdated: BTreeMap::new(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        // Fields are changed one at a time; none is left half made by a panic.
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks a peer within the limit, and notes that it answered.
    pub(super) async fn ask(
        &self,
        target: u64,
        peer: &Peer,
        ask: RaftAsk,
        limit: Duration,
    ) -> Result<RaftSaid, CarryError> {
        let call = RaftCall {
            from: self.own,
            to: target,
            ask,
        };
        let said = self.carrier.carry(peer, call, limit).await?;
        self.heard_of(target);
        Ok(said)
    }

    pub(super) fn heard_of(&self, id: u64) {
        self.lock().others.insert(id, Instant::now());
    }

    pub(super) fn heard_leader(&self, id: u64) {
        let now = Instant::now();
        let mut heard = self.lock();
        // The silence before a new leader says nothing of the network.
        if heard.leader_id.replace(id) == Some(id) {
            let gap = now.saturating_duration_since(heard.leader);
            heard.rhythm = rhythm(heard.rhythm, gap);
        }
        heard.leader = now;
        heard.others.insert(id, now);
    }

    /// How long no leader was heard of.
    pub(super) fn silence(&self) -> Duration {
        self.lock().leader.elapsed()
    }

    /// How often the leader is heard of, as the last while has shown: what the network, and the
    /// leader's host, make of [`HEARTBEAT`].
    pub(super) fn rhythm(&self) -> Duration {
        self.lock().rhythm
    }

    pub(super) fn reaches(&self, id: u64) -> bool {
        id == self.own
            || (self.lock().others.get(&id)).is_some_and(|heard| heard.elapsed() < REACHABLE)
    }

    /// Why a manager is refused although it answers.
    pub(super) fn outdated(&self) -> BTreeMap<u64, String> {
        self.lock().outdated.clone()
    }

    pub(super) fn forget(&self, id: u64) {
        let mut heard = self.lock();
        heard.others.remove(&id);
        heard.acknowledged.remove(&id);
        heard.outdated.remove(&id);
    }

    /// A log never goes back behind what its owner has acknowledged: one that does comes from an
    /// old copy of the disk, and the entries that it has lost may be counted as safe there.
    pub(super) fn check_disk(
        &self,
        target: u64,
        peer: &Peer,
        answer: &AppendEntriesResponse<u64>,
        before: Option<LogId<u64>>,
        last: Option<LogId<u64>>,
    ) -> Result<(), CarryError> {
        let mut heard = self.lock();
        let has = match answer {
            AppendEntriesResponse::Success => last,
            AppendEntriesResponse::PartialSuccess(matching) => *matching,
            AppendEntriesResponse::HigherVote(_) => return Ok(()),
            AppendEntriesResponse::Conflict => {
                let known = heard.acknowledged.get(&target).copied();
                let lost = known.zip(before.map(|id| id.index));
                let Some((known, asked)) = lost.filter(|(known, asked)| known >= asked) else {
                    return Ok(());
                };
                let reason = format!(
                    "the log of manager {} has gone back: it lacks entry {asked} although it has acknowledged {known}; its disk comes from an old copy",
                    peer.node
                );
                if heard.outdated.insert(target, reason.clone()).is_none() {
                    tracing::error!("{reason}; it is removed from the managers and joins anew");
                }
                return Err(CarryError::Refused(reason));
            }
        };
        if let Some(has) = has {
            let known = heard.acknowledged.entry(target).or_default();
            *known = has.index.max(*known);
        }
        Ok(())
    }

    /// A leader's first word in its term: what was acknowledged to another may be cut since.
    pub(super) fn new_term(&self) {
        let mut heard = self.lock();
        heard.acknowledged.clear();
        heard.outdated.clear();
    }
}

/// The longest gap lately: a long one counts at once, and fades over some tens of words. One in which
/// the leader was away, or this manager led itself, says nothing.
fn rhythm(known: Duration, gap: Duration) -> Duration {
    if gap > SLOWEST {
        return known;
    }
    gap.max(known * 15 / 16).clamp(HEARTBEAT, SLOWEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rhythm_follows_the_network() {
        let far = Duration::from_millis(280);
        let heard = |from, gap, times| (0..times).fold(from, |known, _| rhythm(known, gap));
        assert_eq!(heard(HEARTBEAT, Duration::from_millis(2), 9), HEARTBEAT);
        assert_eq!(heard(HEARTBEAT, far, 1), far);
        assert_eq!(heard(far, far, 50), far);
        assert!(heard(far, HEARTBEAT, 5) > HEARTBEAT);
        assert_eq!(heard(far, HEARTBEAT, 40), HEARTBEAT);
        // It was cut off.
        assert_eq!(heard(HEARTBEAT, Duration::from_secs(60), 1), HEARTBEAT);
    }
}
