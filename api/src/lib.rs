//! The Docker Engine API: its JSON shapes, conversions to and from [`model`], refusals, filters,
//! versions. No I/O, no HTTP types; `agent/src/http` serves it and `ctl` may read it.
//!
//! Invariant: nothing here emits `null` where Docker emits an empty list or map, because clients
//! written in Python and JavaScript iterate over them without looking.

// One literal has all of `HostConfig`.
#![recursion_limit = "256"]

pub mod attachment;
pub mod body;
pub mod container;
pub mod duration;
pub mod event;
pub mod filters;
pub mod frame;
pub mod lenient;
pub mod network;
pub mod node;
mod omit;
pub mod paths;
pub mod payload;
pub mod ports;
pub mod query;
pub mod service;
pub mod shared;
pub mod swarm;
pub mod system;
pub mod task;
pub mod timestamp;
pub mod traffic;
pub mod version;
pub mod visualizer;
pub mod word;

pub use body::{ErrorBody, read};
pub use bollard_stubs::models as docker;
pub use filters::Filters;
pub use query::Query;
pub use version::ApiVersion;
