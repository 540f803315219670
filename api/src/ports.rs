//! How the hosts see published ports: `/overnet/ports`.

use serde::{Deserialize, Serialize};

use crate::paths::NameView;

/// One port of a service, of `GET /overnet/ports`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PublishedPortView {
    pub service: NameView,
    /// `8000/tcp`, `192.0.2.1:8000/tcp` or `eth1:8000/tcp`.
    pub port: String,
    pub target: u16,
    pub hosts: Vec<PortHostView>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PortHostView {
    pub host: NameView,
    /// `leads`, `elsewhere`, `refuses`, `unknown`, `may-drop`, `drops`, `taken`.
    pub state: String,
    /// Why it is not well, one sentence each.
    pub why: Vec<String>,
    pub tasks: Vec<PortWayView>,
}

/// From the host to one task, with what the host has counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PortWayView {
    /// Of the task, on the ingress network.
    pub address: String,
    /// Empty: the task is gone.
    pub task: String,
    pub host: NameView,
    /// As `/overnet/paths` has it; empty on the task's own host, and where it is not known.
    pub path: String,
    pub connections: u64,
    /// Packets to the task and from it.
    pub sent: u64,
    pub received: u64,
    /// Connections that could not come about, told by the task's own host.
    pub crossed: u64,
}
