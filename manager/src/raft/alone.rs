//! A cluster goes on with one manager: with the state of one that is left, or of an archive.

use std::path::Path;

use openraft::{
    CommittedLeaderId, Entry, EntryPayload, LogId, Membership, SnapshotMeta, StoredMembership, Vote,
};

use super::{
    ConsensusError, Disk, DiskError, Peer, TypeConfig, WrappingKey,
    log::{PURGED, VOTE},
    machine::{SNAPSHOT, StoredSnapshot},
};
use crate::store::{Tables, TablesImage};

/// Makes a manager that is not running the only voter of its own state, in a new epoch. Entries
/// that it has, and that may never have been committed, count: they are nearer to what was
/// promised than none. The old log stays whole until the new one is.
pub async fn go_alone(path: &Path, key: &WrappingKey, own: Peer) -> Result<(), ConsensusError> {
    let old = Disk::open(path, key).await?;
    let (mut tables, last) = replay(&old)?;
    old.close();
    let Some(last) = last else {
        return Err(ConsensusError::Members(
            "this manager has no state yet: it was never let in".to_owned(),
        ));
    };
    tables.begin_epoch(0);
    // A term of its own: no other log ends with this state, so old managers that are let in get all of
    // it, and the epoch with it. Elections go on from there.
    let term = CommittedLeaderId::new(last.leader_id.term + 1, 0);
    found(path, key, own, &tables, LogId::new(term, last.index)).await
}

/// Makes the log of a manager whose state is given, and which is the only voter. What lies in
/// its place is the log until the new one is whole.
pub async fn from_state(
    path: &Path,
    key: &WrappingKey,
    own: Peer,
    tables: &Tables,
) -> Result<(), ConsensusError> {
    let last = LogId::new(CommittedLeaderId::new(1, 0), tables.index());
    found(path, key, own, tables, last).await
}

async fn found(
    path: &Path,
    key: &WrappingKey,
    own: Peer,
    tables: &Tables,
    last: LogId<u64>,
) -> Result<(), ConsensusError> {
    let raft_id = u64::from(rand::random::<u32>()).max(1);
    let voters = vec![[raft_id].into()];
    let membership = Membership::new(voters, std::collections::BTreeMap::from([(raft_id, own)]));
    let stored = StoredSnapshot {
        meta: SnapshotMeta {
            last_log_id: Some(last),
            last_membership: StoredMembership::new(Some(last), membership),
            snapshot_id: format!("alone-{}", last.index),
        },
        image: rmp_serde::to_vec_named(&tables.image())
            .map_err(|error| DiskError::Decode(error.to_string()))?,
    };
    let fresh = path.with_extension("alone");
    // Remains of an attempt that was broken off.
    let _ = std::fs::remove_file(&fresh);
    let disk = Disk::create(&fresh, key, raft_id).await?;
    disk.set_state(SNAPSHOT, &stored).await?;
    disk.set_state(PURGED, &last).await?;
    let vote = Vote::new(last.leader_id.term, raft_id);
    disk.set_state(VOTE, &vote).await?;
    disk.close();
    let moved = std::fs::rename(&fresh, path).and_then(|()| match path.parent() {
        Some(folder) => std::fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    });
    moved.map_err(|error| {
        DiskError::Open {
            path: path.display().to_string(),
            reason: error.to_string(),
        }
        .into()
    })
}

/// The state after every entry of the log.
pub(crate) fn replay(disk: &Disk) -> Result<(Tables, Option<LogId<u64>>), DiskError> {
    let mut tables = Tables::default();
    let mut last = None;
    if let Some(stored) = disk.state::<StoredSnapshot>(SNAPSHOT)? {
        let image: TablesImage = rmp_serde::from_slice(&stored.image)
            .map_err(|error| DiskError::Decode(error.to_string()))?;
        tables = Tables::from(image);
        last = stored.meta.last_log_id;
    }
    let first = last.map_or(0, |id: LogId<u64>| id.index + 1);
    for entry in disk.entries::<Entry<TypeConfig>>(first..)? {
        if let EntryPayload::Normal(proposal) = &entry.payload
            && proposal.base.is_none_or(|base| base == tables.index())
        {
            tables.apply(entry.log_id.index, proposal);
        }
        last = Some(entry.log_id);
    }
    Ok((tables, last))
}
