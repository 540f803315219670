//! What goes through a host's tunnels: `/overnet/traffic`.

use serde::{Deserialize, Serialize};

use crate::paths::MeasuredView;

/// One line of `GET /overnet/traffic`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TrafficView {
    /// Nanoseconds since the epoch.
    pub time: i64,
    /// The host that tells.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    pub peers: Vec<PeerTraffic>,
}

/// Since somebody looks; packets as the kernel handles them, bytes with the outer IP header.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PeerTraffic {
    #[serde(rename = "NodeID")]
    pub node_id: String,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub rx_packets: u64,
    pub rx_bytes: u64,
    /// What was measured of the way there and back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<MeasuredView>,
}
