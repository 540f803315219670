//! How far each manager's log is known to have been, so that an old copy of a disk is found out
//! whoever leads: leaders tell all managers, and each keeps it on its own disk.
//!
//! Only what is committed counts. It is never cut off again, so a log that ends before it is not
//! the one that was.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use openraft::LogId;
use tokio_util::sync::CancellationToken;

use super::{Disk, DiskError, pulse::Pulse};

/// The record on disk.
const POSITIONS: &str = "positions";
/// How often it is written at most: what was learned in between is known to the others, too.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// By the managers' numbers.
pub(super) type Positions = BTreeMap<u64, LogId<u64>>;

/// What a leader knows: what each one's log has in common with its own, as far as it is committed.
pub(super) fn committed(
    own: u64,
    matching: &BTreeMap<u64, Option<LogId<u64>>>,
    applied: LogId<u64>,
) -> Positions {
    let others = matching.iter().filter(|(id, _)| **id != own);
    let others = others.filter_map(|(id, log)| Some((*id, (*log)?.min(applied))));
    others.chain([(own, applied)]).collect()
}

/// Takes over what is further than what was known, and forgets who is no manager any more; those
/// that are further than they were known to be.
pub(super) fn merge(
    known: &mut Positions,
    told: &Positions,
    managers: &BTreeSet<u64>,
) -> BTreeSet<u64> {
    known.retain(|id, _| managers.contains(id));
    let mut further = BTreeSet::new();
    for (id, log) in told.iter().filter(|(id, _)| managers.contains(id)) {
        if known.get(id).is_none_or(|before| before < log) {
            known.insert(*id, *log);
            further.insert(*id);
        }
    }
    further
}

/// Whether a log that ends at `last` lacks what its owner is known to have had.
pub(super) fn has_gone_back(known: Option<LogId<u64>>, last: Option<LogId<u64>>) -> bool {
    last < known
}

pub(super) fn read(disk: &Disk) -> Result<Positions, DiskError> {
    Ok(disk.state(POSITIONS)?.unwrap_or_default())
}

/// Keeps what is known on disk until it is stopped.
pub(super) async fn keep(pulse: Arc<Pulse>, disk: Disk, stop: CancellationToken) {
    let keeping = async {
        loop {
            pulse.learned.notified().await;
            if let Err(error) = disk.set_state(POSITIONS, &pulse.positions()).await {
                // Consensus writes to the same disk and says so aloud.
                tracing::debug!(%error, "the managers' positions are not on disk");
                pulse.learned.notify_one();
            }
            tokio::time::sleep(WRITE_EVERY).await;
        }
    };
    stop.run_until_cancelled(keeping).await;
}

#[cfg(test)]
mod tests {
    use openraft::CommittedLeaderId;

    use super::*;

    fn at(term: u64, index: u64) -> LogId<u64> {
        LogId::new(CommittedLeaderId::new(term, 1), index)
    }

    #[test]
    fn a_leader_knows_what_is_committed_and_no_more() {
        let matching = BTreeMap::from([
            (1, Some(at(2, 9))),
            (2, Some(at(2, 4))),
            (3, Some(at(2, 8))),
            (4, None),
        ]);
        let known = committed(1, &matching, at(2, 6));
        let expected = [(1, at(2, 6)), (2, at(2, 4)), (3, at(2, 6))];
        assert_eq!(known, Positions::from(expected));
    }

    #[test]
    fn what_is_known_grows_and_ends_with_the_membership() {
        let mut known = Positions::from([(1, at(2, 6)), (2, at(2, 4)), (9, at(1, 1))]);
        let told = Positions::from([(1, at(2, 5)), (2, at(3, 3)), (3, at(2, 1)), (8, at(7, 7))]);
        let further = merge(&mut known, &told, &BTreeSet::from([1, 2, 3]));
        assert_eq!(further, BTreeSet::from([2, 3]));
        let expected = [(1, at(2, 6)), (2, at(3, 3)), (3, at(2, 1))];
        assert_eq!(known, Positions::from(expected));
    }

    #[test]
    fn an_old_log_ends_before_what_is_known_of_it() {
        for (known, last, expected) in [
            (None, None, false),
            (None, Some(at(1, 1)), false),
            (Some(at(2, 6)), None, true),
            (Some(at(2, 6)), Some(at(2, 5)), true),
            (Some(at(2, 6)), Some(at(2, 6)), false),
            (Some(at(2, 6)), Some(at(2, 7)), false),
            // What an earlier leader wrote and nobody committed is no substitute.
            (Some(at(2, 6)), Some(at(1, 9)), true),
        ] {
            assert_eq!(has_gone_back(known, last), expected, "{known:?} {last:?}");
        }
    }
}
