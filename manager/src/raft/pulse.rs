//! Who was heard of, and when: what elections, reachability and the check of old disks stand on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use model::NodeId;
use openraft::{LogId, metrics::RaftDataMetrics};
use tokio::sync::{Notify, watch};

use super::{
    Carrier, Peer,
    election::HEARTBEAT,
    peer::{CarryError, RaftAsk, RaftCall, RaftSaid},
    positions::{Positions, has_gone_back, merge},
};
use crate::store::Store;

/// How long a manager counts as reachable after it was heard of.
pub(super) const REACHABLE: Duration = Duration::from_secs(3);

/// Not to be heard of for so long is to be away, whatever the network.
const SLOWEST: Duration = Duration::from_secs(1);

/// One manager's view of the others.
pub(super) struct Pulse {
    own: u64,
    /// This opening of the own log; drawn, so that nobody takes it for another.
    pub(super) opening: u64,
    carrier: Arc<dyn Carrier>,
    /// The own state.
    store: Store,
    /// The newest epoch that another manager has spoken of.
    told_epoch: AtomicU64,
    /// The own log, once consensus has opened it.
    log: OnceLock<watch::Receiver<RaftDataMetrics<u64>>>,
    /// Some log is known to be further than it was.
    pub(super) learned: Notify,
    heard: Mutex<Heard>,
}

struct Heard {
    leader: Instant,
    /// Who that was.
    leader_id: Option<u64>,
    /// The longest time between two words of the leader lately.
    rhythm: Duration,
    others: BTreeMap<u64, Instant>,
    /// The term of which the next two are, on a leader.
    term: u64,
    /// The furthest entry that each one has said it has.
    acknowledged: Positions,
    /// What all managers are told of each other's logs.
    positions: Positions,
    /// Those whose log has gone back behind what they had.
    outdated: BTreeMap<u64, String>,
}

impl Pulse {
    pub(super) fn new(
        own: u64,
        carrier: Arc<dyn Carrier>,
        positions: Positions,
        store: Store,
    ) -> Self {
        Self {
            own,
            opening: rand::random(),
            carrier,
            store,
            told_epoch: AtomicU64::default(),
            log: OnceLock::new(),
            learned: Notify::new(),
            heard: Mutex::new(Heard {
                leader: Instant::now(),
                leader_id: None,
                rhythm: HEARTBEAT,
                others: BTreeMap::new(),
                term: 0,
                acknowledged: Positions::new(),
                positions,
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
        self.carry(peer, self.call(target, ask), limit).await
    }

    pub(super) fn call(&self, target: u64, ask: RaftAsk) -> RaftCall {
        RaftCall {
            from: self.own,
            to: target,
            ask,
            last: self.own_last(),
            opening: None,
            positions: Positions::new(),
            epoch: self.own_epoch(),
        }
    }

    pub(super) async fn carry(
        &self,
        peer: &Peer,
        call: RaftCall,
        limit: Duration,
    ) -> Result<RaftSaid, CarryError> {
        if let Some(epoch) = self.outlived() {
            return Err(CarryError::Refused(begun_anew(epoch)));
        }
        let target = call.to;
        let said = self.carrier.carry(peer, call, limit).await?;
        if let RaftSaid::Outlived { epoch } = said {
            self.told_epoch.fetch_max(epoch, Relaxed);
            tracing::error!(
                by = %peer.node,
                own = self.own_epoch(),
                "{}; it leads and votes no longer",
                begun_anew(epoch)
            );
            return Err(CarryError::Refused(begun_anew(epoch)));
        }
        self.heard_of(target);
        Ok(said)
    }

    /// Tells where the own log is seen.
    pub(super) fn opened(&self, log: watch::Receiver<RaftDataMetrics<u64>>) {
        // Once, by whoever opened it.
        let _ = self.log.set(log);
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
        heard.positions.remove(&id);
        heard.outdated.remove(&id);
    }

    /// What a manager's log is known to have had.
    pub(super) fn known(&self, id: u64) -> Option<LogId<u64>> {
        let heard = self.lock();
        let (of_all, here) = (heard.positions.get(&id), heard.acknowledged.get(&id));
        of_all.max(here).copied()
    }

    /// A log never goes back behind what its owner had: one that does comes from an old copy of the
    /// disk, and the entries that it has lost may be counted as safe there.
    pub(super) fn judge(
        &self,
        target: u64,
        peer: &Peer,
        known: Option<LogId<u64>>,
        last: Option<LogId<u64>>,
    ) -> Result<(), CarryError> {
        let Some(had) = known.filter(|_| has_gone_back(known, last)) else {
            return Ok(());
        };
        let reason = gone_back(&peer.node, had, last);
        if self
            .lock()
            .outdated
            .insert(target, reason.clone())
            .is_none()
        {
            tracing::error!("{reason}; it is removed from the managers and joins anew");
        }
        Err(CarryError::Refused(reason))
    }

    /// Why a call is not answered: its caller does not have what it is known to have had.
    pub(super) fn refuses(&self, call: &RaftCall) -> Option<String> {
        let asked = match &call.ask {
            RaftAsk::WouldVote(last) => *last,
            RaftAsk::Vote(request) => request.last_log_id,
            RaftAsk::Append(_) | RaftAsk::Snapshot(_) | RaftAsk::Position => None,
        };
        let last = asked.max(call.last);
        let known = self.known(call.from);
        // One of an earlier version does not say where its log ends.
        let had = known.filter(|_| last.is_some() && has_gone_back(known, last))?;
        let reason = gone_back(&format!("number {}", call.from).into(), had, last);
        // A call that was long on its way may be refused, too; that is no matter, and no news.
        tracing::debug!("{reason}; its word does not count");
        Some(reason)
    }

    /// What was acknowledged to this manager in its term.
    pub(super) fn acknowledged(&self, term: u64, id: u64, has: Option<LogId<u64>>) {
        let mut heard = self.lock();
        if let Some(has) = has.filter(|_| heard.term == term) {
            let known = heard.acknowledged.entry(id).or_insert(has);
            *known = has.max(*known);
        }
    }

    /// A leader's first word in its term: what was acknowledged in another, and is not committed,
    /// may be cut since.
    pub(super) fn leads_in(&self, term: u64) {
        let mut heard = self.lock();
        if heard.term != term {
            heard.term = term;
            heard.acknowledged.clear();
            heard.outdated.clear();
        }
    }

    pub(super) fn positions(&self) -> Positions {
        self.lock().positions.clone()
    }

    /// Takes over what is known of the managers' logs.
    pub(super) fn learn(&self, told: &Positions, managers: &BTreeSet<u64>) {
        let mut heard = self.lock();
        let further = merge(&mut heard.positions, told, managers);
        for id in &further {
            heard.outdated.remove(id);
        }
        if !further.is_empty() {
            self.learned.notify_one();
        }
    }

    fn own_last(&self) -> Option<LogId<u64>> {
        self.log.get().and_then(|log| log.borrow().last_log)
    }

    fn own_epoch(&self) -> u64 {
        let view = self.store.view();
        view.cluster().map_or(0, |record| record.epoch)
    }

    /// Of this manager's state, or what it was told of.
    pub(super) fn newest_epoch(&self) -> u64 {
        self.own_epoch().max(self.told_epoch.load(Relaxed))
    }

    /// The epoch that the cluster was begun anew in without this manager, if it was: nothing that
    /// this one decides counts then.
    pub(super) fn outlived(&self) -> Option<u64> {
        let told = self.told_epoch.load(Relaxed);
        (told > self.own_epoch()).then_some(told)
    }
}

fn begun_anew(epoch: u64) -> String {
    format!("the cluster was begun anew without this manager, in epoch {epoch}")
}

fn gone_back(node: &NodeId, had: LogId<u64>, last: Option<LogId<u64>>) -> String {
    format!(
        "the log of manager {node} has gone back: it ends at entry {}, and it had entry {}; its disk comes from an old copy",
        last.map_or(0, |last| last.index),
        had.index
    )
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
