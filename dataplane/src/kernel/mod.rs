//! The kernel of this host: namespaces, rtnetlink messages, how they are read back, and deeds.

mod deeds;
mod entries;
mod gateway;
pub mod links;
mod linux;
mod namespaces;
pub mod place;
mod ports;
mod sentences;
pub mod sight;
mod tables;
mod trial;
mod tunnels;
pub mod ways;
pub mod wireguard;

pub use linux::Linux;
pub use trial::{Trial, trial};
pub use tunnels::{WireguardBy, wireguard_here};
