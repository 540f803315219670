//! What decides for the cluster: store, Raft, certificate authority, and the wire to members.
//!
//! A decision never touches a host: this crate knows neither the dataplane nor a container
//! runtime. [`client`] is how a member speaks to a manager.

pub mod allocator;
pub mod archive;
pub mod ca;
pub mod client;
pub mod clock;
pub mod control;
pub mod decision;
pub mod dispatcher;
#[cfg(test)]
mod example;
pub mod ipam;
#[cfg(test)]
mod kept;
pub mod leader;
pub mod lines;
pub mod orchestrator;
pub mod raft;
pub mod scheduler;
pub mod server;
#[cfg(test)]
mod simulation;
pub mod store;
pub mod tls;
pub mod unlock;
pub mod wire;
