//! What hosts have measured of the way to each other.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::NodeId;

/// The way from the host that tells to another and back, over the last probes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathSight {
    pub to: NodeId,
    pub state: PathState,
    pub small: Tally,
    pub full: Tally,
    /// Bytes of a full-size packet of a container; 0 before one was sent.
    #[serde(default)]
    pub full_size: u32,
    /// Of small probes, there and back; absent while none has come back.
    #[serde(default)]
    pub median: Option<Duration>,
    #[serde(default)]
    pub worst: Option<Duration>,
}

/// What the probes say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathState {
    /// Too few probes.
    #[default]
    Unknown,
    Fine,
    /// Some are lost, of whatever size.
    Lossy,
    /// Small ones come back, full-size ones do not.
    SmallOnly,
    /// None comes back.
    Unreachable,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    pub sent: u32,
    pub lost: u32,
}

/// All paths of one host, as it said last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathReport {
    pub node: NodeId,
    /// After which time the host says it again, even if nothing has changed.
    pub pace: Duration,
    pub paths: Vec<PathSight>,
}

/// A report with its age when it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgedReport {
    pub report: PathReport,
    pub age: Duration,
}

impl AgedReport {
    /// Whether the host should have spoken again long ago.
    pub fn is_old(&self) -> bool {
        self.age > self.report.pace * 3
    }
}
