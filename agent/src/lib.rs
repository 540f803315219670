//! The daemon: configuration, cluster membership, networks of containers, and the HTTP API.

pub mod api_socket;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod daemon;
pub mod data_format;
pub mod docker_plugin;
pub mod doctor;
pub mod host;
pub mod http;
pub mod journal;
pub mod network;
pub mod notify;
pub mod paths;
pub mod registry_auth;
pub mod role;
pub mod wish;
pub mod worker;
