//! What goes through a host's tunnels, as the host counts it.

use serde::{Deserialize, Serialize};

use crate::{NodeId, path::PathSight};

/// One host's tunnels at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostTraffic {
    /// Nanoseconds since the epoch; 0 before the first reading.
    pub time: i64,
    /// To its peers.
    pub tunnels: Vec<TunnelTraffic>,
}

/// A tunnel as one of its ends sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelTraffic {
    pub to: NodeId,
    pub sent: Count,
    pub received: Count,
    /// What the host has measured of the way there and back.
    pub path: Option<PathSight>,
}

/// Since the host began to count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// As the kernel handles them: merged ones count once.
    pub packets: u64,
    /// With the outer IP header.
    pub bytes: u64,
}
