//! The daemon: configuration, cluster membership, networks of containers, and the HTTP API.

pub mod cluster;
pub mod config;
pub mod http;
pub mod notify;
