//! Log lines of tasks, from whichever hosts they ran on.

use serde::{Deserialize, Serialize};

use crate::{NodeId, TaskId};

/// Whose lines are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogSelector {
    pub tasks: Vec<TaskId>,
}

/// Which of their lines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogOptions {
    /// Go on with what is written later.
    pub follow: bool,
    /// Not older than this, nanoseconds since the Unix epoch; 0: from the first.
    pub since: i64,
    /// Not younger than this, nanoseconds since the Unix epoch; 0: without end.
    pub until: i64,
    /// Of each task only the last so many; absent: all.
    pub tail: Option<u64>,
    pub stdout: bool,
    pub stderr: bool,
}

/// What comes along a stream of logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogItem {
    Line(LogLine),
    /// The lines of this host are missing, wholly or from now on.
    Away {
        node: NodeId,
        /// Why, for people.
        reason: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    pub task: TaskId,
    pub node: NodeId,
    /// When it was written, by the host's clock, nanoseconds since the Unix epoch.
    pub time: i64,
    pub stderr: bool,
    /// As written, with its newline if there was one.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
}
