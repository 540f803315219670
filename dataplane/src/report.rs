//! What the dataplane says back: failures, drift, and why it could not start.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::IpAddr,
    path::PathBuf,
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

/// The scope of what all encrypted networks of this host stand on.
pub const TUNNELS: &str = "tunnels";

/// Why the dataplane did not start or does not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("dataplane: cannot prepare {}: {source}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("dataplane: cannot open the host's network namespace: {0}; is ovnd run as root?")]
    Host(io::Error),
    #[error("dataplane: {0}")]
    Dns(#[from] crate::dns::Error),
    #[error("dataplane: cannot start its thread: {0}")]
    Thread(io::Error),
    #[error("dataplane: cannot look at the kernel: {0}")]
    Observe(io::Error),
    #[error("dataplane: cannot read the counters of published ports: {0}")]
    Counters(io::Error),
    #[error("dataplane: cannot count the connections of sandbox {sandbox}: {source}")]
    Flows { sandbox: String, source: io::Error },
    #[error("dataplane: it has been shut down")]
    Down,
}

/// One thing that could not be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The object: a network's id, a sandbox's id, [`TUNNELS`] or `host`.
    pub scope: String,
    /// A sentence: what was tried, why it failed, and the way out where one is known.
    pub sentence: String,
}

impl Failure {
    pub fn blind(error: &io::Error) -> Self {
        Self {
            scope: "host".into(),
            sentence: format!("cannot look at the kernel: {error}"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.sentence)
    }
}

/// The end of one request: the kernel is programmed, except for what failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub failures: Vec<Failure>,
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.failures.is_empty()
    }

    /// What failed for one sandbox or network.
    pub fn of<'a>(&'a self, scope: &'a str) -> impl Iterator<Item = &'a Failure> {
        self.failures
            .iter()
            .filter(move |failure| failure.scope == scope)
    }
}

/// A failure that lasts; it is tried again with a growing pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    pub failure: Failure,
    pub since: SystemTime,
}

/// What went to one address over published ports of this host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    pub connections: u64,
    /// To it.
    pub packets_in: u64,
    pub bytes_in: u64,
    /// From it.
    pub packets_out: u64,
    pub bytes_out: u64,
    /// Of a task on this host: connections that were opened while the same client's port had one to
    /// it by another host. They do not come about.
    #[serde(default)]
    pub crossed: u64,
}

/// By the address of a task. They begin anew when the table of published ports does, and when a
/// task leaves load balancing.
pub type Counters = BTreeMap<IpAddr, Counted>;

/// How well the kernel follows the wish.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Requests carried out since the start.
    pub requests: u64,
    pub failed: Vec<Standing>,
    /// Ports that this host does not publish because it lacks their interface, as sentences: as
    /// the wish says, and no failure.
    pub unpublished: BTreeSet<String>,
    /// Differences that somebody else made and that were put right, since the start.
    pub drifts: u64,
    /// The newest of them as sentences, oldest first, at most 32.
    pub drift: Vec<String>,
}
