//! Measures the way to the other hosts: small packets, and ones as large as a container may send,
//! there and back through the tunnels.
//!
//! ```text
//! agent/network ─▶ Targets ─▶ prober ─▶ Window (pure) ─▶ sights ─▶ reporter ─▶ leader
//!                               │ ▲
//!                               ▼ │ one UDP socket in a sandbox of our own
//!                          other hosts' probers
//! ```

mod packet;
mod prober;
mod window;

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use model::{
    NodeId, PathReport, PathSight, PathState,
    control::{Answer, Verb},
};
use tokio::sync::{Notify, watch};

use self::prober::Prober;
use crate::cluster::{ClusterNode, Standing};

/// The interface in the sandbox that probes leave by.
pub const DEVICE: &str = "eth0";
/// After which time the leader is told again, with few paths and for each of many.
const PACE: Duration = Duration::from_secs(30);
const PACE_OF_ONE: Duration = Duration::from_millis(300);
/// Changes that come within this time travel together.
const TOGETHER: Duration = Duration::from_secs(1);

/// From where is measured, and to whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    /// The sandbox; absent when there is nothing to measure.
    pub netns: Option<PathBuf>,
    pub peers: BTreeMap<NodeId, Ipv4Addr>,
}

/// The way to one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    pub sight: PathSight,
    pub small: Total,
    pub full: Total,
}

/// Of all probes since the daemon's start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Total {
    pub sent: u64,
    pub lost: u64,
}

/// The measurement of this host's paths.
pub struct Paths {
    targets: watch::Sender<Targets>,
    sights: Arc<Sights>,
}

/// What was measured last, by the other host.
#[derive(Default)]
struct Sights {
    paths: Mutex<BTreeMap<NodeId, Measured>>,
    /// Something is another than it was.
    changed: Notify,
}

impl Paths {
    /// Measures, and tells the leader, until the daemon ends.
    pub fn start(cluster: Arc<ClusterNode>) -> Self {
        let (targets, receiver) = watch::channel(Targets::default());
        let sights = Arc::new(Sights::default());
        tokio::spawn(Prober::new(receiver, Arc::clone(&sights)).run());
        tokio::spawn(report(cluster, Arc::clone(&sights)));
        Self { targets, sights }
    }

    pub fn follow(&self, targets: Targets) {
        self.targets.send_if_modified(|now| {
            let other = *now != targets;
            *now = targets;
            other
        });
    }

    /// The paths of this host as it sees them.
    pub fn all(&self) -> BTreeMap<NodeId, Measured> {
        self.sights.lock().clone()
    }
}

impl Sights {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Measured>> {
        // Entries are changed as wholes; none is left half made by a panic.
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, measured: Measured) {
        let mut paths = self.lock();
        let to = measured.sight.to.clone();
        let state = |measured: &Measured| measured.sight.state;
        let before = paths.get(&to).map_or(PathState::Unknown, state);
        let news = before != state(&measured);
        paths.insert(to, measured);
        drop(paths);
        if news {
            self.changed.notify_one();
        }
    }

    /// Forgets all but these.
    fn retain(&self, keep: impl Fn(&NodeId) -> bool) {
        let mut paths = self.lock();
        let count = paths.len();
        paths.retain(|node, _| keep(node));
        let fewer = paths.len() < count;
        drop(paths);
        if fewer {
            self.changed.notify_one();
        }
    }
}

/// Tells the leader what has changed, and everything at a slow pace; also a new leader, which
/// knows nothing.
async fn report(cluster: Arc<ClusterNode>, sights: Arc<Sights>) {
    let mut standing = cluster.local_state();
    loop {
        let count = u32::try_from(sights.lock().len()).unwrap_or(u32::MAX);
        let pace = PACE.max(PACE_OF_ONE.saturating_mul(count));
        tokio::select! {
            () = sights.changed.notified() => {}
            () = tokio::time::sleep(pace) => if count == 0 {
                continue;
            },
            changed = standing.changed() => if changed.is_err() {
                return;
            },
        }
        tokio::time::sleep(TOGETHER).await;
        let node = {
            let local = standing.borrow_and_update();
            if local.state != Standing::Active {
                continue;
            }
            local.node_id.clone()
        };
        let told = |measured: &Measured| measured.sight.clone();
        let paths = sights.lock().values().map(told).collect();
        let report = PathReport { node, pace, paths };
        match cluster.call(Verb::PathReport(Box::new(report))).await {
            Ok(Answer::Done) => {}
            // An older leader has no ear for it; the next time comes by itself.
            Ok(_) => tracing::debug!("the leader's answer to a report of paths is not understood"),
            Err(refusal) => tracing::debug!(%refusal, "the leader is told of the paths later"),
        }
    }
}
