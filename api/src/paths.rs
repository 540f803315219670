//! What is known of the ways between hosts: `/overnet/paths`.

use model::{PathSight, PathState, Tally};
use serde::{Deserialize, Serialize};

/// `GET /overnet/paths`, beside its findings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PathsView {
    /// Whose hosts were asked for; absent: of all networks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NameView>,
    /// One for each direction.
    pub paths: Vec<PathView>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NameView {
    #[serde(rename = "ID")]
    pub id: String,
    pub name: String,
}

/// What the host `from` has measured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PathView {
    pub from: NameView,
    pub to: NameView,
    /// `fine`, `lossy`, `small-only`, `unreachable`, `unknown`, `away`.
    pub state: String,
    /// Why it is not known; empty otherwise.
    pub reason: String,
    /// Absent where nothing was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<MeasuredView>,
}

/// Of the last probes of one path, there and back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct MeasuredView {
    /// As the host says: `fine`, `lossy`, `small-only`, `unreachable`, `unknown`.
    pub state: String,
    pub small_sent: u32,
    pub small_lost: u32,
    pub full_sent: u32,
    pub full_lost: u32,
    /// Bytes of a full-size packet; 0 before one was sent.
    pub full_size: u32,
    /// Nanoseconds; 0 while nothing has come back.
    #[serde(rename = "MedianRTT")]
    pub median_rtt: u64,
    #[serde(rename = "WorstRTT")]
    pub worst_rtt: u64,
}

impl From<&PathSight> for MeasuredView {
    fn from(sight: &PathSight) -> Self {
        let nanos = |time: Option<std::time::Duration>| {
            time.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
        };
        let (Tally { sent, lost }, full) = (sight.small, sight.full);
        Self {
            state: state_word(sight.state).to_owned(),
            small_sent: sent,
            small_lost: lost,
            full_sent: full.sent,
            full_lost: full.lost,
            full_size: sight.full_size,
            median_rtt: nanos(sight.median),
            worst_rtt: nanos(sight.worst),
        }
    }
}

/// The word for a state.
pub fn state_word(state: PathState) -> &'static str {
    match state {
        PathState::Unknown => "unknown",
        PathState::Fine => "fine",
        PathState::Lossy => "lossy",
        PathState::SmallOnly => "small-only",
        PathState::Unreachable => "unreachable",
    }
}
